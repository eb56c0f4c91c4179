/**
 * Matrices in NumPy's `.npy` files.
 *
 * Format: NumPy Enhancement Proposal 1, versions 1.0 to 3.0.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import { BYTES_PER_NUMBER, type FloatType, littleEndianBytes, readFloats } from "./numbers.ts";
import { joinBytes } from "./zip.ts";

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
const FLOAT_TYPES: ReadonlyMap<string, FloatType> = new Map([["f2", "float16"], ["f4", "float32"], ["f8", "float64"]]);
/** NumPy starts the numbers at a multiple of this. */
const ALIGNMENT = 64;

/** What a `.npy` file says before its numbers. */
export interface NpyHeader {
  /** Of each number. */
  readonly type: FloatType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** Whether columns lie one after the other, instead of rows. */
  readonly isFortranOrder: boolean;
  /** Number of rows. */
  readonly rows: number;
  /** Number of columns. */
  readonly cols: number;
  /** The byte at which the numbers start. */
  readonly start: number;
}

/**
 * The matrix in a `.npy` file of float16, float32 or float64, either byte order, C or Fortran order. Its numbers are a
 * view of the bytes where those are little-endian float32 in C order and aligned, else a copy.
 *
 * @throws {CheckpointError} naming what was found, for anything else.
 */
export function readNpy(bytes: Uint8Array): NpyMatrix {
  const { type, isLittleEndian, isFortranOrder, rows, cols, start } = readNpyHeader(bytes);
  const expected = rows * cols * BYTES_PER_NUMBER[type];
  if (bytes.length - start !== expected) {
    fail(`found ${bytes.length - start} bytes of numbers; ${rows} × ${cols} of ${type} take ${expected}`);
  }
  const data = readFloats(bytes.subarray(start), type, isLittleEndian);
  return { data: isFortranOrder ? transposed(data, cols, rows) : data, rows, cols };
}

/**
 * The header of a `.npy` file; the bytes may end anywhere behind it.
 *
 * @throws {CheckpointError} as {@link readNpy}.
 */
export function readNpyHeader(bytes: Uint8Array): NpyHeader {
  const { text, start } = splitNpy(bytes);
  return { ...parseNpyHeader(text), start };
}

function splitNpy(bytes: Uint8Array): { readonly text: string; readonly start: number } {
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) {
    fail(`the file of ${bytes.length} bytes does not start as .npy files do`);
  }
  const version = `${bytes[6]}.${bytes[7]}`;
  if (!["1.0", "2.0", "3.0"].includes(version)) fail(`found version ${version}; expected 1.0, 2.0 or 3.0`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isShort = version === "1.0";
  const headerStart = isShort ? 10 : 12;
  const start = headerStart + (isShort ? view.getUint16(8, true) : view.getUint32(8, true));
  if (start > bytes.length || start > 2 ** 20) fail("the header is cut off, or over 1 MiB long");
  return { text: new TextDecoder().decode(bytes.subarray(headerStart, start)), start };
}

/** The header is a Python dict of three entries, written as source text. */
function parseNpyHeader(text: string): Omit<NpyHeader, "start"> {
  const fields = new Map<string, string>();
  const body = /^\{(.*)\}\s*$/s.exec(text)?.[1] ?? fail(`found the header ${quote(text)}; expected a dict`);
  const entry = /\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([0-9, ]*\))\s*(?:,\s*|$)/y;
  while (entry.lastIndex < body.length) {
    const [, name, value] = entry.exec(body) ?? [];
    if (name === undefined || value === undefined || fields.has(name)) {
      return fail(`found the header ${quote(text)}; expected descr, fortran_order and shape of a plain array`);
    }
    fields.set(name, value);
  }

  const [, order, kind] = /^'([<>])(f[248])'$/.exec(fields.get("descr") ?? "") ?? [];
  const type = FLOAT_TYPES.get(kind ?? "");
  if (type === undefined) fail(`found the type ${fields.get("descr")}; expected f2, f4 or f8`);
  const fortran = fields.get("fortran_order");
  if (fortran !== "True" && fortran !== "False") fail(`fortran_order is ${fortran}; expected True or False`);
  const shape = fields.get("shape");
  const [, rows, cols] = /^\(\s*([0-9]+)\s*,\s*([0-9]+)\s*,?\s*\)$/.exec(shape ?? "") ?? [];
  if (rows === undefined || cols === undefined) fail(`found the shape ${shape}; expected (rows, columns)`);
  return {
    type,
    isLittleEndian: order === "<",
    isFortranOrder: fortran === "True",
    rows: Number(rows),
    cols: Number(cols),
  };
}

/** [rows, cols] to [cols, rows]. */
function transposed(data: Float32Array, rows: number, cols: number): Float32Array {
  const result = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) result[col * rows + row] = data[row * cols + col]!;
  }
  return result;
}

/**
 * The `.npy` file of a matrix: float32, little-endian, C order, the bytes that `numpy.save` writes.
 *
 * @throws {RangeError} where `data` has another length than `rows × cols`.
 */
export function writeNpy({ data, rows, cols }: NpyMatrix): Uint8Array<ArrayBuffer> {
  if (data.length !== rows * cols) {
    throw new RangeError(`writing an .npy file: found ${data.length} elements; ${rows} × ${cols} are ${rows * cols}`);
  }
  // NumPy leaves room to append rows in place: 21 digits for their number.
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${cols}), }`;
  const room = dict + " ".repeat(21 - String(rows).length);
  const padding = ALIGNMENT - (MAGIC.length + 4 + room.length + 1) % ALIGNMENT;
  const header = new TextEncoder().encode(`${room}${" ".repeat(padding)}\n`);
  const prefix = Uint8Array.of(...MAGIC, 1, 0, header.length & 0xff, header.length >> 8);
  return joinBytes([prefix, header, littleEndianBytes(data)]);
}

function fail(what: string): never {
  throw new CheckpointError(`reading an .npy file: ${what}`);
}
