/**
 * The safetensors format: the header's length in 8 bytes, a JSON header, and the tensors' bytes, little-endian,
 * row-major and contiguous.
 *
 * @module
 */

import { type ByteTarget, writeBytes } from "./files.ts";
import type { ArrayPlace } from "./array_place.ts";
import { CheckpointError, naming, quote } from "./errors.ts";
import { decodeText, describeValue, type JsonObject, type JsonValue, parseJson } from "./json.ts";
import { BYTES_PER_NUMBER, littleEndianBytes, type NumberType } from "./numbers.ts";
import { readPieces, type Source } from "./source.ts";
import { countElements, MAX_RANK, type NamedTensor, type StoredTensor, TensorView } from "./stored_tensor.ts";

/** The content of a file. */
export interface Safetensors {
  /** The tensors by name, in header order; their numbers are read on demand. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The strings under `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
}

const TYPES: ReadonlyMap<string, NumberType> = new Map<string, NumberType>([
  ["F64", "float64"],
  ["F32", "float32"],
  ["F16", "float16"],
  ["BF16", "bfloat16"],
  ["I64", "int64"],
  ["I32", "int32"],
  ["I16", "int16"],
  ["I8", "int8"],
  ["U64", "uint64"],
  ["U32", "uint32"],
  ["U16", "uint16"],
  ["U8", "uint8"],
  ["BOOL", "bool"],
]);

const LENGTH_BYTES = 8;
/** A tensor takes about 100 bytes. The format allows 100 MB; no file of a sparse autoencoder comes near this limit. */
const MAX_HEADER_BYTES = 2 ** 22;
/** Eight for each of 4096 tensors: its name, an object, two lists, and four strings. */
const MAX_PARTS = 2 ** 15;
const METADATA = "__metadata__";

// ---------------------------------------------------------------------------------------------------------- reading

/** The declared place of a tensor, in bytes after the header. */
interface Place {
  readonly name: string;
  readonly dtype: NumberType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * The tensors of a file. Only the header is read.
 *
 * The format has no checksums, so damaged numbers cannot be detected.
 *
 * @throws {CheckpointError} for a header that exceeds 4 MiB or is not strict JSON, for unknown types and fields, and if
 * the tensors overlap, leave a gap, or do not fill the file exactly. The message says what was found.
 */
export async function readSafetensors(source: Source): Promise<Safetensors> {
  const { metadata, places, start } = await naming(source.name, () => readPlaces(source));
  const tensors = new Map(places.map((place) => [place.name, tensorAt(source, start, place)]));
  return { tensors, metadata };
}

/**
 * Locates the tensors of a file, by name, in header order. Only the header is read.
 *
 * @throws {CheckpointError} as {@link readSafetensors}.
 */
export async function locateSafetensors(source: Source): Promise<ReadonlyMap<string, ArrayPlace>> {
  const { places, start } = await naming(source.name, () => readPlaces(source));
  return new Map(places.map(({ name, dtype, shape, begin }): [string, ArrayPlace] => [name, {
    what: `tensor ${quote(name)} of ${source.name}`,
    python: `safetensors.numpy.load_file(${JSON.stringify(source.name)})[${JSON.stringify(name)}]`,
    source,
    start: start + begin,
    type: dtype,
    isLittleEndian: true,
    isFortranOrder: false,
    shape,
  }]));
}

interface Places {
  readonly metadata: ReadonlyMap<string, string>;
  readonly places: readonly Place[];
  /** The first byte after the header. */
  readonly start: number;
}

async function readPlaces(source: Source): Promise<Places> {
  const { header, start } = await readHeader(source);
  const metadata = readMetadata(header.get(METADATA));
  const places = [...header].filter(([name]) => name !== METADATA).map(([name, value]) => readPlace(name, value));
  checkLayout(places, source.size - start);
  return { metadata, places, start };
}

async function readHeader(source: Source): Promise<{ readonly header: JsonObject; readonly start: number }> {
  if (source.size < LENGTH_BYTES) {
    fail(`found ${source.size} bytes; expected ${LENGTH_BYTES} for the header's length alone`);
  }
  const prefix = await source.read(0, LENGTH_BYTES);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    fail(`the file gives its header ${length} bytes; expected at most ${MAX_HEADER_BYTES}`);
  }
  const start = LENGTH_BYTES + Number(length);
  if (start > source.size) fail(`the file gives its header ${length} bytes, but ends after ${source.size}`);
  const bytes = await source.read(LENGTH_BYTES, start);
  if (bytes[0] !== 0x7b) fail("the header does not start with {");
  const header = parseJson(decodeText(bytes, "the safetensors header"), {
    what: "the safetensors header",
    maxParts: MAX_PARTS,
  });
  if (!(header instanceof Map)) return fail("the header is not a JSON object");
  return { header, start };
}

function readMetadata(value: JsonValue | undefined): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (!(value instanceof Map)) return fail(`${METADATA} is ${describeValue(value)}; expected an object of strings`);
  for (const [key, text] of value) {
    if (typeof text !== "string") {
      return fail(`${METADATA}.${quote(key)} is ${describeValue(text)}; expected a string`);
    }
    metadata.set(key, text);
  }
  return metadata;
}

function readPlace(name: string, value: JsonValue): Place {
  const what = `tensor ${quote(name)}`;
  if (!(value instanceof Map)) return fail(`${what} is ${describeValue(value)}; expected an object`);
  for (const field of value.keys()) {
    if (!["dtype", "shape", "data_offsets"].includes(field)) fail(`${what} has the unknown field ${quote(field)}`);
  }
  const code = value.get("dtype");
  const dtype = typeof code === "string" ? TYPES.get(code) : undefined;
  if (dtype === undefined) {
    return fail(`${what} has the dtype ${describeValue(code)}; expected one of ${[...TYPES.keys()].join(", ")}`);
  }
  const shape = value.get("shape");
  if (!isCounts(shape) || shape.length > MAX_RANK) {
    return fail(`${what} has the shape ${describeList(shape)}; expected at most ${MAX_RANK} integers`);
  }
  const offsets = value.get("data_offsets");
  if (!isCounts(offsets) || offsets.length !== 2) {
    return fail(`${what} has the data_offsets ${describeList(offsets)}; expected two integers`);
  }
  const [begin, end] = offsets as readonly [number, number];
  const expected = countElements(shape) * BYTES_PER_NUMBER[dtype];
  if (end - begin !== expected) {
    fail(`${what} occupies bytes ${begin} to ${end}; ${dtype} of shape [${shape}] needs ${expected} bytes`);
  }
  return { name, dtype, shape, begin, end };
}

function isCounts(value: JsonValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function describeList(value: JsonValue | undefined): string {
  return Array.isArray(value)
    ? `[${value.slice(0, MAX_RANK + 1).map(describeValue).join(", ")}]`
    : describeValue(value);
}

function checkLayout(places: readonly Place[], size: number): void {
  let end = 0;
  for (const place of places.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (place.begin !== end) {
      const problem = place.begin > end ? "leaves a gap after" : "overlaps";
      fail(`tensor ${quote(place.name)} starts at byte ${place.begin} and ${problem} the tensor that ends at ${end}`);
    }
    end = place.end;
  }
  if (end !== size) fail(`the tensors end after ${end} bytes, but the file has ${size} after its header`);
}

function tensorAt(source: Source, start: number, { name, dtype, shape, begin, end }: Place): StoredTensor {
  return new TensorView({
    what: `tensor ${quote(name)}`,
    dtype,
    isLittleEndian: true,
    length: countElements(shape),
    bytes: () => source.read(start + begin, start + end),
    pieces: () => readPieces(source, start + begin, start + end),
  }, shape);
}

function fail(what: string): never {
  throw new CheckpointError(`reading the safetensors file: ${what}`);
}

// ---------------------------------------------------------------------------------------------------------- writing

/**
 * Writes tensors. A file at a path is replaced atomically. Equal tensors and metadata give equal bytes, in any order.
 *
 * @throws {RangeError} if a tensor's data does not match its shape, or two tensors have the same name.
 */
export async function writeSafetensors(
  to: ByteTarget,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeBytes(to, formatSafetensors(tensors, metadata));
}

/** The file that {@link writeSafetensors} writes, in pieces that share the tensors' memory where possible. */
export function formatSafetensors(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array[] {
  const sorted = tensors.toSorted((a, b) => a.name < b.name ? -1 : 1);
  const fields: string[] = [];
  const texts = Object.keys(metadata).sort().map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
  if (texts.length > 0) fields.push(`"${METADATA}":{${texts.join(",")}}`);
  let begin = 0;
  for (const [i, { name, shape, data }] of sorted.entries()) {
    if (data.length !== countElements(shape)) {
      throw new RangeError(`writing safetensors: ${name} has ${data.length} elements; expected [${shape}]`);
    }
    if (name === METADATA || name === sorted[i + 1]?.name) {
      throw new RangeError(`writing safetensors: the name ${name} is taken`);
    }
    const end = begin + data.byteLength;
    fields.push(
      `${JSON.stringify(name)}:{"dtype":"${
        data instanceof Int32Array ? "I32" : "F32"
      }","shape":[${shape}],"data_offsets":[${begin},${end}]}`,
    );
    begin = end;
  }
  // The tensors start at a multiple of 8, as in files of the format's own writer.
  const text = new TextEncoder().encode(`{${fields.join(",")}}`);
  const prefix = new Uint8Array(LENGTH_BYTES + Math.ceil(text.length / 8) * 8).fill(0x20);
  if (prefix.length - LENGTH_BYTES > MAX_HEADER_BYTES) {
    throw new RangeError(
      `writing safetensors: the header has ${text.length} bytes; expected at most ${MAX_HEADER_BYTES}`,
    );
  }
  new DataView(prefix.buffer).setBigUint64(0, BigInt(prefix.length - LENGTH_BYTES), true);
  prefix.set(text, LENGTH_BYTES);
  return [prefix, ...sorted.map(({ data }) => littleEndianBytes(data))];
}
