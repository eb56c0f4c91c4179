/**
 * The JSON line at the start of a checkpoint: strict reading (no duplicate keys, nothing unknown, bounded depth and
 * length), and writing in the two styles of Python's writers.
 *
 * @module
 */

import { CheckpointError, hexBytes, quote } from "./errors.ts";
import { decodeText, describeValue, type JsonObject, type JsonValue, parseJson } from "./json.ts";
import { sliceSource, type Source } from "./source.ts";

/** A header and what follows its newline. */
export interface SplitFile {
  /** The first line, without its newline. */
  readonly header: string;
  /** Everything after the newline. */
  readonly body: Source;
}

/**
 * Far above any real header: the longest holds an input mean with one number per dimension, for at least 85,000
 * dimensions.
 */
const MAX_HEADER_BYTES = 2 ** 21;
/** Real headers have fewer than a hundred objects, lists and strings. */
const MAX_PARTS = 4096;
/** As many as fit, because a mean may be all zeros. */
const MAX_NUMBERS = MAX_HEADER_BYTES / "0.0,".length;

/** Nearly every header is shorter than this. */
const FIRST_READ_BYTES = 2 ** 14;

/** @throws {CheckpointError} if the file does not begin with a line of UTF-8 text. */
export async function splitHeader(source: Source): Promise<SplitFile> {
  const bytes = await readFirstLine(source);
  const end = bytes.indexOf(0x0a);
  if (bytes[0] !== 0x7b || end < 0) {
    throw new CheckpointError(`reading a checkpoint: ${describeNoHeader(bytes)}; expected one line of JSON`);
  }
  return { header: decodeText(bytes.subarray(0, end), "the header line"), body: sliceSource(source, end + 1) };
}

/** At least the bytes up to the end of the first line, if that is JSON and not too long; else some first bytes. */
export async function readFirstLine(source: Source): Promise<Uint8Array> {
  const bytes = await source.read(0, Math.min(FIRST_READ_BYTES, source.size));
  if (bytes[0] !== 0x7b || bytes.includes(0x0a)) return bytes;
  return await source.read(0, Math.min(MAX_HEADER_BYTES + 1, source.size));
}

function describeNoHeader(bytes: Uint8Array): string {
  if (bytes.length === 0) return "found an empty file";
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return "found a zip file (a bare torch.save?) without a header line";
  if (bytes[0] === 0x80) return "found a bare pickle (a torch.save of before version 1.6?) without a header line";
  if (bytes[0] === 0x7b) {
    return `found no end of the header line within ${Math.min(bytes.length, MAX_HEADER_BYTES)} bytes`;
  }
  return `found a file that starts with the bytes ${hexBytes(bytes.subarray(0, 8))}`;
}

/** @throws {CheckpointError} for anything but one JSON object with distinct keys and finite numbers. */
export function parseHeader(text: string): JsonObject {
  const value = parseJson(text, { what: "the header", maxParts: MAX_PARTS, maxNumbers: MAX_NUMBERS });
  if (!(value instanceof Map)) throw new CheckpointError("reading the header: it is not a JSON object");
  return value;
}

/** Reads the fields of a JSON object by name and type; {@link HeaderFields.done} refuses fields that were not read. */
export class HeaderFields {
  readonly #what: string;
  readonly #object: JsonObject;
  readonly #asked: Set<string> = new Set();

  /** The fields of `object`, whose name in messages is `what`. */
  constructor(what: string, object: JsonObject) {
    this.#what = what;
    this.#object = object;
  }

  /** Whether the field exists. */
  has(name: string): boolean {
    return this.#object.has(name);
  }

  /** The raw value of the field; `undefined` if missing. */
  value(name: string): JsonValue | undefined {
    this.#asked.add(name);
    return this.#object.get(name);
  }

  /** A number, or `fallback` if the field is missing. Required without a fallback. */
  number(name: string, fallback?: number): number {
    return this.#typed(name, fallback, "a number", (found) => typeof found === "number");
  }

  /** An integer. */
  integer(name: string, fallback?: number): number {
    return this.#typed(name, fallback, "an integer", Number.isInteger);
  }

  /** `true` or `false`. */
  boolean(name: string, fallback?: boolean): boolean {
    return this.#typed(name, fallback, "true or false", (found) => typeof found === "boolean");
  }

  /** A string. */
  string(name: string, fallback?: string): string {
    return this.#typed(name, fallback, "a string", (found) => typeof found === "string");
  }

  /** An object, as fields. */
  object(name: string): HeaderFields {
    const object = this.#typed<JsonObject>(name, undefined, "an object", (found) => found instanceof Map);
    return new HeaderFields(`${this.#what}.${name}`, object);
  }

  /** An object with its content, as plain JavaScript. */
  plain(name: string): Readonly<Record<string, unknown>> {
    const object = this.#typed<JsonObject>(name, undefined, "an object", (found) => found instanceof Map);
    const plain = (value: JsonValue): unknown => {
      if (value instanceof Map) return Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]));
      return Array.isArray(value) ? value.map(plain) : value;
    };
    return plain(object) as Record<string, unknown>;
  }

  /** A list of numbers. */
  numbers(name: string): readonly number[] {
    const isNumbers = (found: JsonValue): boolean =>
      Array.isArray(found) && found.every((element) => typeof element === "number");
    return this.#typed<readonly number[]>(name, undefined, "a list of numbers", isNumbers);
  }

  /** @throws {CheckpointError} that names the first field that was never read. */
  done(): void {
    for (const name of this.#object.keys()) {
      if (!this.#asked.has(name)) this.fail(`unknown field ${quote(name)}; expected ${[...this.#asked].join(", ")}`);
    }
  }

  /** Throws a {@link CheckpointError} about this object. */
  fail(what: string, cause?: unknown): never {
    throw new CheckpointError(`reading ${this.#what}: ${what}`, { cause });
  }

  #typed<T extends JsonValue>(
    name: string,
    fallback: T | undefined,
    expected: string,
    matches: (found: JsonValue) => boolean,
  ): T {
    const found = this.value(name);
    if (found === undefined) return fallback ?? this.fail(`the field ${quote(name)} is missing; expected ${expected}`);
    if (!matches(found)) this.fail(`${name} is ${describeValue(found)}; expected ${expected}`);
    return found as T;
  }
}

/** A number that is a float in Python, so that 1 is written `1.0`. */
export class PythonFloat {
  /** The number. */
  readonly value: number;

  /** Wraps a finite number. */
  constructor(value: number) {
    this.value = value;
  }
}

/** The input of {@link formatHeader}; plain numbers are Python ints. Objects keep their order. */
export type HeaderValue =
  | null
  | boolean
  | number
  | string
  | PythonFloat
  | readonly HeaderValue[]
  | { readonly [key: string]: HeaderValue };

/**
 * `orjson`: compact, as upstream writes since October 2025. `json.dumps`: Python's own module, as upstream wrote
 * before.
 */
export type HeaderStyle = "orjson" | "json.dumps";

/**
 * One line of ASCII.
 *
 * @throws {CheckpointError} if it would be longer than readers accept.
 */
export function formatHeader(value: HeaderValue, style: HeaderStyle): string {
  const [comma, colon] = style === "orjson" ? [",", ":"] : [", ", ": "];
  const format = (value: HeaderValue): string => {
    if (value instanceof PythonFloat) return formatFloat(value.value, style);
    if (typeof value === "string") return formatString(value);
    if (value === null || typeof value !== "object") return String(value);
    if (Array.isArray(value)) return `[${value.map(format).join(comma)}]`;
    const fields = Object.entries(value).map(([key, field]) => `${formatString(key)}${colon}${format(field)}`);
    return `{${fields.join(comma)}}`;
  };
  const line = format(value);
  if (line.length > MAX_HEADER_BYTES) {
    throw new CheckpointError(`writing the header: it has ${line.length} bytes; expected at most ${MAX_HEADER_BYTES}`);
  }
  return line;
}

function formatString(text: string): string {
  return JSON.stringify(text).replace(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The shortest digits that parse to the same float64, in the layout of each writer. */
function formatFloat(value: number, style: HeaderStyle): string {
  const size = Math.abs(value);
  if (size >= 1e16) return value.toExponential();
  if (size > 0 && size < (style === "orjson" ? 1e-5 : 1e-4)) {
    const digits = value.toExponential();
    return style === "orjson" ? digits : digits.replace(/e-(\d)$/, "e-0$1");
  }
  const digits = Object.is(value, -0) ? "-0" : String(value);
  return /^-?\d+$/.test(digits) ? `${digits}.0` : digits;
}
