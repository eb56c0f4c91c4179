/**
 * Sparse matrices as `scipy.sparse.save_npz` writes them: an archive of the parts of a `csr_array`.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import { formatCompressedNpz, type Npz, openNpz } from "./npz.ts";
import type { LazyBytes, Source } from "./source.ts";
import type { StoredTensor } from "./stored_tensor.ts";

/** Some rows of a sparse matrix: row r has the entries `row_starts[r]` to `row_starts[r + 1]`. */
export interface CsrRows {
  /** [rows + 1], from 0. */
  readonly row_starts: Uint32Array;
  /** [entries], columns. */
  readonly indices: Uint32Array;
  /** [entries] */
  readonly values: Float32Array;
}

/** A sparse matrix that can be read row by row, any number of times. */
export interface CsrMatrix {
  /** Its name in messages. */
  readonly name: string;
  /** Rows and columns. */
  readonly shape: readonly [rows: number, columns: number];
  /** Number of entries. */
  readonly n_entries: number;
  /** All rows in order, some at a time. */
  rows(): AsyncIterable<CsrRows>;
}

/** Rows read at a time. */
const ROWS_AT_ONCE = 1024;

/**
 * Opens what `scipy.sparse.save_npz` wrote of a CSR matrix or array of floating-point numbers. Only the headers are
 * read; memory holds some rows at a time.
 *
 * @throws {CheckpointError} for any other file; the message says what was found. Errors in the rows are thrown when
 * they are read.
 */
export async function openScipyCsr(source: Source): Promise<CsrMatrix> {
  const npz = await openNpz(source);
  const fail = (what: string): never => {
    throw new CheckpointError(`reading ${source.name}: ${what}`);
  };
  const expected = ["indices", "indptr", "data", "shape", "format"];
  const missing = expected.find((name) => !npz.names.includes(name));
  if (missing) {
    fail(`found no array ${quote(missing)}; expected those of scipy.sparse.save_npz, ${expected.join(", ")}`);
  }
  const format = await npz.text("format");
  if (format !== "csr") fail(`found a sparse matrix in the format ${quote(format)}; in Python, .tocsr() makes it csr`);
  const [indptr, indices, data] = await Promise.all(["indptr", "indices", "data"].map((name) => npz.open(name)));
  const shape = await readShape(npz);
  const [rows, columns] = shape ?? fail("found no shape of rows and columns");
  const [n_entries] = data!.shape as [number];
  const lengths = [indptr, indices, data].map((array) => array!.shape);
  if (lengths.some(({ length }) => length !== 1) || lengths[0]![0] !== rows + 1 || lengths[1]![0] !== n_entries) {
    fail(`found indptr [${lengths[0]}], indices [${lengths[1]}] and data [${lengths[2]}] for ${rows} rows`);
  }
  return {
    name: source.name,
    shape: [rows, columns],
    n_entries,
    rows: () =>
      readCsrRows(source.name, { rows, columns, n_entries }, { indptr: indptr!, indices: indices!, data: data! }),
  };
}

async function readShape(npz: Npz): Promise<readonly [number, number] | null> {
  const shape = await (await npz.open("shape")).readIntegers();
  return shape.length === 2 && shape.every((size) => size >= 0) ? [shape[0]!, shape[1]!] : null;
}

async function* readCsrRows(
  name: string,
  { rows, columns, n_entries }: { readonly rows: number; readonly columns: number; readonly n_entries: number },
  { indptr, indices, data }: Readonly<Record<"indptr" | "indices" | "data", StoredTensor>>,
): AsyncGenerator<CsrRows> {
  const fail = (what: string): never => {
    throw new CheckpointError(`reading ${name}: ${what}`);
  };
  const starts = new Taker(indptr.integerPieces(), (length) => new Float64Array(length));
  const latents = new Taker(indices.integerPieces(), (length) => new Float64Array(length));
  const numbers = new Taker(data.pieces(), (length) => new Float32Array(length));
  let start = (await starts.take(1))[0]!;
  if (start !== 0) fail(`indptr begins with ${start}; expected 0`);
  for (let row = 0; row < rows; row += ROWS_AT_ONCE) {
    const ends = await starts.take(Math.min(ROWS_AT_ONCE, rows - row));
    const row_starts = new Uint32Array(ends.length + 1);
    let end = start;
    for (let i = 0; i < ends.length; i++) {
      if (!(ends[i]! >= end && ends[i]! <= n_entries)) {
        fail(`indptr of row ${row + i} ends at ${ends[i]}, before ${end} or beyond`);
      }
      end = ends[i]!;
      row_starts[i + 1] = end - start;
    }
    const [found, values] = [await latents.take(end - start), await numbers.take(end - start)];
    const wrong = found.findIndex((column) => !(column >= 0 && column < columns));
    if (wrong >= 0) fail(`entry ${start + wrong} is in column ${found[wrong]}; expected 0 to ${columns - 1}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) fail(`entry ${start + bad} is ${values[bad]}; expected a finite number`);
    start = end;
    yield { row_starts, indices: Uint32Array.from(found), values };
  }
  if (start !== n_entries) fail(`its rows have ${start} entries; expected ${n_entries}`);
  // Checksums are checked at the end of each part.
  for (const taker of [starts, latents, numbers]) await taker.end();
}

/** Takes a given number of elements at a time from pieces of any length. */
class Taker<T extends Float32Array | Float64Array> {
  readonly #pieces: AsyncIterator<T>;
  readonly #make: (length: number) => T;
  #rest: T;

  constructor(pieces: AsyncIterable<T>, make: (length: number) => T) {
    this.#pieces = pieces[Symbol.asyncIterator]();
    this.#make = make;
    this.#rest = make(0);
  }

  async take(length: number): Promise<T> {
    const taken = this.#make(length);
    for (let at = 0; at < length;) {
      if (this.#rest.length === 0) {
        const { value, done } = await this.#pieces.next();
        if (done) throw new CheckpointError(`reading a sparse matrix: an array ended ${length - at} numbers too early`);
        this.#rest = value;
      }
      const part = this.#rest.subarray(0, length - at) as T;
      taken.set(part, at);
      at += part.length;
      this.#rest = this.#rest.subarray(part.length) as T;
    }
    return taken;
  }

  async end(): Promise<void> {
    while (!(await this.#pieces.next()).done) { /* nothing is left */ }
  }
}

/** A sparse matrix in CSR form, to be written. */
export interface CsrToWrite {
  /** Rows and columns. */
  readonly shape: readonly [rows: number, columns: number];
  /** Number of entries. */
  readonly n_entries: number;
  /** The number of entries in each row, in pieces. */
  readonly counts: () => AsyncIterable<ArrayLike<number>>;
  /** The column of each entry, row by row and ascending within a row, in pieces. */
  readonly indices: () => AsyncIterable<ArrayLike<number>>;
  /** The value of each entry, little-endian float32, in pieces. */
  readonly values: () => AsyncIterable<Uint8Array>;
}

/** Beyond this SciPy uses 64-bit indices. */
const MAX_INT32 = 2 ** 31 - 1;

/**
 * The archive of a `csr_array` of float32. Memory holds one piece at a time.
 *
 * @throws {CheckpointError} while writing, if the counts of the rows do not add up to `n_entries`.
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
