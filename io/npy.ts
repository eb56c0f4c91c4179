/**
 * Arrays in NumPy's `.npy` files.
 *
 * Format: NumPy Enhancement Proposal 1, versions 1.0 to 3.0.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import type { ArrayPlace } from "./array_place.ts";
import { BYTES_PER_NUMBER, littleEndianBytes, type NumberType } from "./numbers.ts";
import { joinBytes, readPieces, type Source } from "./source.ts";
import { countElements, MAX_RANK, rowMajorStrides, type StoredTensor, TensorView } from "./stored_tensor.ts";

/** A matrix in memory. */
export interface NpyMatrix {
  /** `rows × cols` elements, row-major. */
  readonly data: Float32Array;
  /** Number of rows. */
  readonly rows: number;
  /** Number of columns. */
  readonly cols: number;
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const TYPES: ReadonlyMap<string, NumberType> = new Map<string, NumberType>([
  ["f2", "float16"],
  ["f4", "float32"],
  ["f8", "float64"],
  ["b1", "bool"],
  ["i1", "int8"],
  ["u1", "uint8"],
  ["i2", "int16"],
  ["u2", "uint16"],
  ["i4", "int32"],
  ["u4", "uint32"],
  ["i8", "int64"],
  ["u8", "uint64"],
]);
/** NumPy aligns the numbers to a multiple of this. */
const ALIGNMENT = 64;
const MAX_HEADER_BYTES = 2 ** 20;
/** Nearly every header is shorter than this. */
const FIRST_READ_BYTES = 2 ** 12;

/** The content of a `.npy` header. */
export interface NpyHeader {
  /** The type of its numbers. */
  readonly type: NumberType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** Whether the first axis is the contiguous one, instead of the last. */
  readonly isFortranOrder: boolean;
  /** The dimensions. */
  readonly shape: readonly number[];
  /** The offset of the numbers, in bytes. */
  readonly start: number;
}

/** The bytes of a file, wherever it lies. */
export interface NpyContent {
  /** Its name in messages. */
  readonly what: string;
  /** Python code that loads it, for messages. */
  readonly python: string;
  /** Its length in bytes, including the header. */
  readonly size: number;
  /** The first bytes, or all if there are fewer. */
  head(length: number): Promise<Uint8Array>;
  /** All bytes. */
  read(): Promise<Uint8Array>;
  /** All bytes in pieces. */
  pieces(): AsyncIterable<Uint8Array>;
}

/**
 * The array in a `.npy` file: numbers or bools of any shape, either byte order, C or Fortran order. Only the header is
 * read.
 *
 * @throws {CheckpointError} for anything else; the message says what was found.
 */
export async function openNpy(source: Source): Promise<StoredTensor> {
  return await openNpyContent(contentOf(source));
}

/** {@link openNpy}, wherever the file lies. */
export async function openNpyContent(content: NpyContent): Promise<StoredTensor> {
  const { what } = content;
  const { type, isLittleEndian, isFortranOrder, shape, start } = await readHeader(content);
  const strides = isFortranOrder ? rowMajorStrides(shape.toReversed()).reverse() : rowMajorStrides(shape);
  return new TensorView(
    {
      what,
      dtype: type,
      isLittleEndian,
      length: countElements(shape),
      bytes: async () => (await content.read()).subarray(start),
      pieces: () => dropBytes(content.pieces(), start),
    },
    shape,
    strides,
  );
}

/**
 * Locates the numbers in a `.npy` file. Only the header is read.
 *
 * @throws {CheckpointError} as {@link openNpy}.
 */
export async function locateNpy(
  source: Source,
  called: Pick<NpyContent, "what" | "python"> = contentOf(source),
): Promise<ArrayPlace> {
  const { what, python } = called;
  return { what, python, source, ...await readHeader({ ...contentOf(source), what, python }) };
}

function contentOf(source: Source): NpyContent {
  const { name, size } = source;
  return {
    what: name,
    python: `numpy.load(${JSON.stringify(name)})`,
    size,
    head: (length) => source.read(0, Math.min(length, size)),
    read: () => source.read(0, size),
    pieces: () => readPieces(source),
  };
}

async function readHeader(content: NpyContent): Promise<NpyHeader> {
  const { what, size } = content;
  let head = await content.head(FIRST_READ_BYTES);
  if (headerEnd(head, what) > head.length) head = await content.head(MAX_HEADER_BYTES);
  const header = parseNpy(head, content);
  const expected = countElements(header.shape) * BYTES_PER_NUMBER[header.type];
  if (size - header.start === expected) return header;
  return fail(
    what,
    `found ${size - header.start} bytes of numbers; ${header.type} of shape [${header.shape}] needs ${expected}`,
  );
}

async function* dropBytes(pieces: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  let left = count;
  for await (const piece of pieces) {
    if (left < piece.length) yield piece.subarray(left);
    left = Math.max(0, left - piece.length);
  }
}

/**
 * The matrix of floating-point numbers in a `.npy` file.
 *
 * @throws {CheckpointError} as {@link openNpy}, and for an array that is not such a matrix.
 */
export async function readNpy(source: Source): Promise<NpyMatrix> {
  const tensor = await openNpy(source);
  const [rows, cols] = tensor.shape;
  if (tensor.shape.length !== 2) fail(source.name, `found the shape [${tensor.shape}]; expected [rows, columns]`);
  return { data: await tensor.read(), rows: rows!, cols: cols! };
}

/** The text of an array of type `|S<length>` without dimensions, from all bytes of its file. */
export function readNpyText(bytes: Uint8Array, what: string): string {
  const start = headerEnd(bytes, what);
  const header = new TextDecoder().decode(bytes.subarray(headerStart(bytes), start));
  const [, length] = /^\{'descr': '\|S(\d+)', 'fortran_order': False, 'shape': \(\), \}\s*$/.exec(header) ?? [];
  if (length === undefined || bytes.length !== start + Number(length)) {
    fail(what, `found ${bytes.length} bytes with the header ${quote(header)}; expected one string of type S`);
  }
  return String.fromCharCode(...bytes.subarray(start));
}

/** Parses the header from a file's first bytes, which may end anywhere after it. */
function parseNpy(bytes: Uint8Array, content: NpyContent): NpyHeader {
  const { what } = content;
  const start = headerEnd(bytes, what);
  if (start > bytes.length || start > MAX_HEADER_BYTES) fail(what, "the header is cut off or longer than 1 MiB");
  const text = new TextDecoder().decode(bytes.subarray(headerStart(bytes), start));
  return { ...parseHeader(text, content), start };
}

/** The end of the header, where the numbers start, from the first twelve bytes. */
function headerEnd(bytes: Uint8Array, what: string): number {
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) {
    fail(what, `the file of ${bytes.length} bytes does not start like a .npy file`);
  }
  const version = `${bytes[6]}.${bytes[7]}`;
  if (!["1.0", "2.0", "3.0"].includes(version)) fail(what, `found version ${version}; expected 1.0, 2.0 or 3.0`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = headerStart(bytes);
  return start + (start === 10 ? view.getUint16(8, true) : view.getUint32(8, true));
}

function headerStart(bytes: Uint8Array): number {
  return bytes[6] === 1 ? 10 : 12;
}

/** The header is a Python dict literal with three entries. A structured type is a list of tuples, possibly nested. */
function parseHeader(text: string, content: NpyContent): Omit<NpyHeader, "start"> {
  const { what } = content;
  const fields = new Map<string, string>();
  const body = /^\{(.*)\}\s*$/s.exec(text)?.[1] ?? fail(what, `found the header ${quote(text)}; expected a dict`);
  const entry =
    /\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([0-9L, ]*\)|\[[^[\]]*(?:\[[^[\]]*\][^[\]]*)*\])\s*(?:,\s*|$)/y;
  while (entry.lastIndex < body.length) {
    const [, name, value] = entry.exec(body) ?? [];
    if (name === undefined || value === undefined || fields.has(name)) {
      return fail(what, `found the header ${quote(text)}; expected descr, fortran_order and shape of a plain array`);
    }
    fields.set(name, value);
  }

  const fortran = fields.get("fortran_order");
  if (fortran !== "True" && fortran !== "False") {
    fail(what, `fortran_order is ${shown(fortran)}; expected True or False`);
  }
  return {
    ...parseType(content, fields.get("descr")),
    isFortranOrder: fortran === "True",
    shape: parseShape(what, fields.get("shape")),
  };
}

/** The byte order and the type, such as `'<f4'`. Single bytes have no order. */
function parseType(
  { what, python }: NpyContent,
  descr: string | undefined,
): Pick<NpyHeader, "type" | "isLittleEndian"> {
  const [, order, kind] = /^'([<>|])([fiub][1248])'$/.exec(descr ?? "") ?? [];
  const type = TYPES.get(kind ?? "");
  if (type !== undefined && (order === "|") === (BYTES_PER_NUMBER[type] === 1)) {
    return { type, isLittleEndian: order !== ">" };
  }
  const found = `found the type ${shown(descr)}`;
  const convert = OTHER_TYPES.find(([pattern]) => pattern.test(descr ?? ""));
  if (convert === undefined) return fail(what, `${found}; expected numbers or bools`);
  const [, is, line] = convert;
  return fail(what, `${found}, ${is}; in Python: numpy.save("rows.npy", ${line(python)})`);
}

/** Other types that NumPy saves: a pattern, a description, and Python code that converts to float32. */
const OTHER_TYPES: readonly [pattern: RegExp, is: string, line: (python: string) => string][] = [
  [/^\[/, "which is structured", (x) => `numpy.lib.recfunctions.structured_to_unstructured(${x}, dtype="float32")`],
  [/^'[<>]c/, "complex numbers", (x) => `numpy.abs(${x}).astype("float32")`],
  [/^'[<>]f/, "whose size depends on the platform", (x) => `${x}.astype("float32")`],
  [/^'[<|]V2'/, "as ml_dtypes saves bfloat16", (x) => `${x}.view(ml_dtypes.bfloat16).astype("float32")`],
  [
    /^'\|O/,
    "Python objects, which this library never loads",
    (x) => `numpy.stack(${x.replace(/\)$/, ", allow_pickle=True)")}).astype("float32")`,
  ],
];

/** A Python tuple: `()`, `(6,)`, `(2, 3)`, and `(2L, 3L)` as Python 2 wrote it. */
function parseShape(what: string, tuple: string | undefined): number[] {
  const parts = tuple?.slice(1, -1).split(",").map((part) => part.trim()) ?? ["none"];
  const endsInComma = parts.at(-1) === "";
  if (endsInComma) parts.pop();
  const shape = parts.map((part) => /^[0-9]+L?$/.test(part) ? parseInt(part) : NaN);
  const isTuple = shape.length !== 1 || endsInComma;
  if (!isTuple || shape.length > MAX_RANK || !shape.every(Number.isSafeInteger)) {
    fail(what, `found the shape ${shown(tuple)}; expected a tuple of at most ${MAX_RANK} sizes`);
  }
  return shape;
}

/**
 * The `.npy` file of a matrix: float32, little-endian, C order, the bytes that `numpy.save` writes.
 *
 * @throws {RangeError} if the length of `data` is not `rows × cols`.
 */
export function writeNpy({ data, rows, cols }: NpyMatrix): Uint8Array<ArrayBuffer> {
  if (data.length !== rows * cols) {
    throw new RangeError(
      `writing an .npy file: found ${data.length} elements; expected ${rows} × ${cols} = ${rows * cols}`,
    );
  }
  return joinBytes([formatNpyHeader("<f4", [rows, cols]), littleEndianBytes(data)]);
}

/** The header that `numpy.save` writes for an array in C order, for types such as `"<f4"` or `"|S3"`. */
export function formatNpyHeader(descr: string, shape: readonly number[]): Uint8Array {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  // NumPy leaves room to append rows in place: 21 digits for their number.
  const room = shape.length === 0 ? dict : dict + " ".repeat(21 - String(shape[0]).length);
  const padding = ALIGNMENT - (MAGIC.length + 4 + room.length + 1) % ALIGNMENT;
  const header = new TextEncoder().encode(`${room}${" ".repeat(padding)}\n`);
  return joinBytes([Uint8Array.of(...MAGIC, 1, 0, header.length & 0xff, header.length >> 8), header]);
}

/** The source text of a field, shortened so that a message stays readable. */
function shown(text: string | undefined): string {
  return text === undefined ? "none" : text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function fail(what: string, problem: string): never {
  throw new CheckpointError(`reading ${what}: ${problem}`);
}
