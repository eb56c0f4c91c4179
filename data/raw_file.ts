/**
 * Files of bare numbers, row-major. A JSON file beside them, or the caller, gives their type and shape.
 *
 * Beside `acts.f16.bin` that is `acts.f16.bin.json`, `acts.f16.json` or `acts.json`, `{ "shape": [rows, columns],
 * "dtype": "float16" }`; other fields are ignored.
 *
 * @module
 */

import type { ArrayPlace } from "../io/array_place.ts";
import { CheckpointError, quote } from "../io/errors.ts";
import type { FileSet } from "../io/file_set.ts";
import { describeValue, readJsonObject } from "../io/json.ts";
import { BYTES_PER_NUMBER, type FloatType } from "../io/numbers.ts";
import type { Source } from "../io/source.ts";
import { countElements, MAX_RANK } from "../io/stored_tensor.ts";

/** Formats of bare little-endian numbers, and their types. */
export const RAW_FORMATS = { f16: "float16", bf16: "bfloat16", f32: "float32", f64: "float64" } as const;

/** A format of bare numbers. */
export type RawFormat = keyof typeof RAW_FORMATS;

/** What the caller knows about a file of bare numbers; the rest must be in the JSON file beside it. */
export interface GivenRaw {
  /** The type of its numbers. */
  readonly format: RawFormat | null;
  /** Width of a row. */
  readonly d_model: number | null;
}

type ByteOrder = Pick<ArrayPlace, "isLittleEndian">;

/** The content of a JSON file beside the numbers. */
interface Sidecar {
  /** Its name in messages. */
  readonly name: string;
  readonly shape: readonly number[] | null;
  readonly dtype: (ByteOrder & { readonly type: FloatType }) | null;
}

/**
 * Finds the rows in a file of bare numbers.
 *
 * @throws {CheckpointError} if the type or the width is unknown or contradictory, or the file has another size than
 * they imply.
 */
export async function locateRaw(files: FileSet, source: Source, given: GivenRaw): Promise<ArrayPlace> {
  const path = files.main!;
  const fail = (what: string): never => {
    throw new CheckpointError(`reading ${source.name}: ${what}`);
  };
  const sidecar = await readSidecar(files, path);
  const { type, isLittleEndian } = typeOf(sidecar, given, path) ?? fail(
    `the file does not record the type of its numbers; give format (${Object.keys(RAW_FORMATS).join(", ")})` +
      `${given.d_model === null ? " and d_model" : ""}, or put ${
        sidecarNames(path).at(-1)
      } beside it with {"shape": [rows, columns], "dtype": "float32"}`,
  );
  if (given.format !== null && RAW_FORMATS[given.format] !== type) {
    fail(`format is ${given.format}, but ${sidecar!.name} gives the type ${type}`);
  }
  const size = BYTES_PER_NUMBER[type];
  const shape = sidecar?.shape ?? rowsOfSize(source, given.d_model, type) ?? fail(
    `${
      sidecar === null ? "the width of a row is unknown" : `${sidecar.name} does not give the width of a row`
    }; give d_model`,
  );
  const expected = countElements(shape) * size;
  if (source.size !== expected) {
    const rows = sidecar?.shape
      ? `${sidecar.name} gives the shape [${shape.join(", ")}], which needs ${expected} as ${type}`
      : `${shape[0]} rows of ${shape[1]} ${type} need ${expected}`;
    const fits = Object.values(RAW_FORMATS).filter((other) =>
      source.size * size === expected * BYTES_PER_NUMBER[other]
    );
    const hint = fits.length === 0 ? "" : `. It would fit as ${fits.join(" or ")}; if so, set "dtype" or format`;
    fail(`found ${source.size} bytes; ${rows}${hint}`);
  }
  const load = type === "bfloat16" ? "ml_dtypes.bfloat16" : `"${isLittleEndian ? "<" : ">"}f${size}"`;
  return {
    what: source.name,
    python: `numpy.fromfile(${JSON.stringify(source.name)}, ${load})`,
    source,
    start: 0,
    type,
    isLittleEndian,
    isFortranOrder: false,
    shape,
  };
}

/** The JSON file takes precedence; without a type it means float32, as in all versions of this library. */
function typeOf(
  sidecar: Sidecar | null,
  { format }: GivenRaw,
  path: string,
): ByteOrder & { readonly type: FloatType } | null {
  if (sidecar?.dtype) return sidecar.dtype;
  const named = format ?? TYPED_NAME.exec(path)?.[1]?.toLowerCase() as RawFormat | undefined;
  if (named) return { type: RAW_FORMATS[named], isLittleEndian: true };
  return sidecar?.shape ? { type: "float32", isLittleEndian: true } : null;
}

/** The shape that follows from the size of the file and the width of a row. */
function rowsOfSize({ size }: Source, d_model: number | null, type: FloatType): readonly number[] | null {
  if (d_model === null) return null;
  return [Math.ceil(size / (d_model * BYTES_PER_NUMBER[type])), d_model];
}

/** A name that gives the type of the numbers, with endings that are ignored. */
const TYPED_NAME = /\.(f16|bf16|f32|f64)(?:\.(?:bin|raw|dat))?$/i;

/** Possible names of the JSON file: `a.f32.bin.json`, `a.f32.json`, `a.json`. */
function sidecarNames(path: string): readonly string[] {
  const shorter = path.replace(/\.(?:bin|raw|dat|f16|bf16|f32|f64)$/i, "");
  return [`${path}.json`, ...shorter === path ? [] : sidecarNames(shorter)];
}

async function readSidecar(files: FileSet, path: string): Promise<Sidecar | null> {
  for (const name of sidecarNames(path)) {
    const source = await files.find(name);
    if (source === null) continue;
    const json = await readJsonObject(source);
    const [shape, dtype] = [json.get("shape"), json.get("dtype")];
    const expect = (field: string, expected: string): never => {
      throw new CheckpointError(
        `reading ${source.name}: ${field} is ${describeValue(json.get(field))}; expected ${expected}`,
      );
    };
    return {
      name: source.name,
      shape: shape === undefined ? null : isShape(shape) ? shape : expect("shape", "[rows, columns]"),
      dtype: dtype === undefined ? null : parseDtype(dtype) ?? expect(
        "dtype",
        `${Object.values(RAW_FORMATS).map(quote).join(", ")}, or with a byte order, such as "float32-be" or "<f4"`,
      ),
    };
  }
  return null;
}

function isShape(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length >= 2 && value.length <= MAX_RANK &&
    value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

const DTYPES: readonly [names: RegExp, type: FloatType][] = [
  [/^(?:float16|f16|fp16|f2|half)$/, "float16"],
  [/^(?:bfloat16|bf16)$/, "bfloat16"],
  [/^(?:float32|f32|fp32|f4|single)$/, "float32"],
  [/^(?:float64|f64|fp64|f8|double)$/, "float64"],
];

/** Accepts `float32`, `torch.float32`, `float32-le`, `<f4` and similar. */
function parseDtype(value: unknown): Sidecar["dtype"] {
  if (typeof value !== "string") return null;
  const [, sign, name, order] = /^(?:torch\.|numpy\.|np\.)?([<>=]?)([a-z]+\d*)(?:[-_](le|be))?$/i.exec(value) ?? [];
  const type = DTYPES.find(([names]) => names.test(name?.toLowerCase() ?? ""))?.[1];
  return type === undefined ? null : { type, isLittleEndian: sign !== ">" && order?.toLowerCase() !== "be" };
}
