/**
 * Sparse matrices as `scipy.sparse.save_npz` writes them: a compressed archive of the parts of a `csr_array`.
 *
 * @module
 */

import { formatCompressedNpz } from "./npz.ts";
import { CheckpointError } from "./errors.ts";
import type { LazyBytes } from "./source.ts";

/** A sparse matrix in compressed rows, to be written. */
export interface CsrToWrite {
  /** Rows and columns. */
  readonly shape: readonly [rows: number, columns: number];
  /** How many entries it has. */
  readonly n_entries: number;
  /** The number of entries in each row, in pieces. */
  readonly counts: () => AsyncIterable<ArrayLike<number>>;
  /** The column of each entry, row after row, ascending within a row, in pieces. */
  readonly indices: () => AsyncIterable<ArrayLike<number>>;
  /** The value of each entry, little-endian float32, in pieces. */
  readonly values: () => AsyncIterable<Uint8Array>;
}

/** Beyond this SciPy counts in 64 bits. */
const MAX_INT32 = 2 ** 31 - 1;

/**
 * The archive of a `csr_array` of float32. Only a piece of it is in memory at a time.
 *
 * @throws {CheckpointError} while it is written, if the rows have not as many entries as there are.
 */
export function formatScipyCsr({ shape, n_entries, counts, indices, values }: CsrToWrite): LazyBytes {
  const isWide = Math.max(n_entries, shape[1]) > MAX_INT32;
  const [descr, size] = isWide ? ["<i8", 8] : ["<i4", 4];
  const convert = isWide ? asInt64 : asInt32;
  async function* starts(): AsyncGenerator<Uint8Array> {
    let start = 0;
    yield convert([0]);
    for await (const piece of counts()) {
      const ends = new Float64Array(piece.length);
      for (let i = 0; i < piece.length; i++) ends[i] = start += piece[i]!;
      yield convert(ends);
    }
    if (start !== n_entries) {
      throw new CheckpointError(`writing a sparse matrix: its rows have ${start} entries; expected ${n_entries}`);
    }
  }
  async function* columns(): AsyncGenerator<Uint8Array> {
    for await (const piece of indices()) yield convert(piece);
  }
  return formatCompressedNpz([
    { name: "indices", descr, shape: [n_entries], bytes: { length: n_entries * size, pieces: columns } },
    { name: "indptr", descr, shape: [shape[0] + 1], bytes: { length: (shape[0] + 1) * size, pieces: starts } },
    { name: "format", descr: "|S3", shape: [], bytes: new TextEncoder().encode("csr") },
    { name: "shape", descr: "<i8", shape: [2], bytes: asInt64(shape) },
    { name: "data", descr: "<f4", shape: [n_entries], bytes: { length: n_entries * 4, pieces: values } },
    { name: "_is_array", descr: "|b1", shape: [], bytes: Uint8Array.of(1) },
  ]);
}

function asInt32(numbers: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(numbers.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < numbers.length; i++) view.setInt32(4 * i, numbers[i]!, true);
  return bytes;
}

function asInt64(numbers: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(numbers.length * 8);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < numbers.length; i++) {
    view.setUint32(8 * i, numbers[i]! % 2 ** 32, true);
    view.setUint32(8 * i + 4, Math.floor(numbers[i]! / 2 ** 32), true);
  }
  return bytes;
}
