/**
 * Strict JSON: no duplicate keys, no numbers beyond float64, bounded depth, and no extensions.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import type { Source } from "./source.ts";

/** A parsed value. Objects are maps, so that a key such as `__proto__` is only a key. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;

/** A JSON object. */
export type JsonObject = ReadonlyMap<string, JsonValue>;

/** Limits on a text. */
export interface JsonLimits {
  /** The text's name in messages. */
  readonly what: string;
  /** Largest number of objects, lists and strings, which cost far more memory than their bytes. */
  readonly maxParts: number;
  /** Largest number of numbers and words such as `true`; equal to `maxParts` if left out. */
  readonly maxNumbers?: number;
}

const MAX_DEPTH = 16;
const MAX_DOCUMENT_BYTES = 2 ** 22;
const MAX_DOCUMENT_PARTS = 2 ** 15;

/** @throws {CheckpointError} for anything but one JSON value with distinct keys and finite numbers. */
export function parseJson(text: string, limits: JsonLimits): JsonValue {
  return new JsonParser(text, limits).parse();
}

/**
 * The JSON object in a file of at most 4 MiB.
 *
 * @throws {CheckpointError} for any other file.
 */
export async function readJsonObject(source: Source): Promise<JsonObject> {
  const { name, size } = source;
  if (size > MAX_DOCUMENT_BYTES) {
    throw new CheckpointError(`reading ${name}: found ${size} bytes; expected at most ${MAX_DOCUMENT_BYTES} of JSON`);
  }
  const text = decodeText(await source.read(0, size), name);
  if (text.startsWith("\ufeff")) {
    throw new CheckpointError(`reading ${name}: it starts with a byte order mark; save it as UTF-8 without one`);
  }
  const value = parseJson(text, { what: name, maxParts: MAX_DOCUMENT_PARTS });
  if (!(value instanceof Map)) {
    throw new CheckpointError(`reading ${name}: found ${describeValue(value)}; expected a JSON object`);
  }
  return value;
}

/** @throws {CheckpointError} if the bytes are not UTF-8 text. */
export function decodeText(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new CheckpointError(`reading ${what}: it is not UTF-8 text`, { cause });
  }
}

/** A value of any kind as messages show it. */
export function describeValue(value: JsonValue | undefined): string {
  if (value instanceof Map) return "an object";
  if (Array.isArray(value)) return "a list";
  return typeof value === "string" ? quote(value) : String(value);
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;

class JsonParser {
  readonly #text: string;
  readonly #limits: JsonLimits;
  #at = 0;
  #nParts = 0;
  #nNumbers = 0;

  constructor(text: string, limits: JsonLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  parse(): JsonValue {
    const value = this.#value(0);
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail("expected the end of the text");
    return value;
  }

  #value(depth: number): JsonValue {
    if (depth > MAX_DEPTH) this.#fail(`more than ${MAX_DEPTH} levels of nesting`);
    this.#skipSpace();
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
      case '"':
        return this.#string();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
      default:
        return this.#number();
    }
  }

  #object(depth: number): JsonObject {
    const object = new Map<string, JsonValue>();
    this.#countPart();
    this.#at++;
    if (this.#take("}")) return object;
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') this.#fail("expected a key");
      const key = this.#string();
      if (object.has(key)) this.#fail(`the key ${quote(key)} appears twice in one object`);
      if (!this.#take(":")) this.#fail(`expected ":"`);
      object.set(key, this.#value(depth + 1));
    } while (this.#take(","));
    if (!this.#take("}")) this.#fail(`expected "," or "}"`);
    return object;
  }

  #array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.#countPart();
    this.#at++;
    if (this.#take("]")) return array;
    do array.push(this.#value(depth + 1)); while (this.#take(","));
    if (!this.#take("]")) this.#fail(`expected "," or "]"`);
    return array;
  }

  #countPart(): void {
    const { maxParts } = this.#limits;
    if (++this.#nParts > maxParts) this.#fail(`more than ${maxParts} objects, lists and strings`);
  }

  #string(): string {
    this.#countPart();
    const start = this.#at++;
    while (this.#at < this.#text.length && this.#text[this.#at] !== '"') {
      this.#at += this.#text[this.#at] === "\\" ? 2 : 1;
    }
    if (this.#at >= this.#text.length) this.#fail("a string without a closing quote");
    this.#at++;
    try {
      return JSON.parse(this.#text.slice(start, this.#at));
    } catch {
      this.#at = start;
      return this.#fail("a string with a control character or an unknown escape");
    }
  }

  #countNumber(): void {
    const { maxParts, maxNumbers = maxParts } = this.#limits;
    if (++this.#nNumbers > maxNumbers) this.#fail(`more than ${maxNumbers} numbers and words`);
  }

  #number(): number {
    this.#countNumber();
    NUMBER.lastIndex = this.#at;
    if (!NUMBER.test(this.#text)) this.#fail("expected a value");
    const digits = this.#text.slice(this.#at, NUMBER.lastIndex);
    const value = Number(digits);
    if (!Number.isFinite(value)) this.#fail(`the number ${quote(digits)} is beyond float64`);
    this.#at += digits.length;
    return value;
  }

  #word<T extends JsonValue>(word: string, value: T): T {
    this.#countNumber();
    if (!this.#text.startsWith(word, this.#at)) this.#fail("expected a value");
    this.#at += word.length;
    return value;
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    while (" \t\r\n".includes(this.#text[this.#at] ?? "x")) this.#at++;
  }

  #fail(what: string): never {
    throw new CheckpointError(`reading ${this.#limits.what}, character ${this.#at}: ${what}`);
  }
}
