/**
 * Rows of activations: a source of them, and the simplest ones.
 *
 * @module
 */

import { ShapeError } from "../kernels/engine/errors.ts";

/** Rows of `d_model` numbers, wherever they lie. */
export interface RowSource {
  /** How many rows. */
  readonly n_rows: number;
  /** Numbers in a row. */
  readonly d_model: number;
  /** Rows `from` to `to` (not included), row-major. */
  read(from: number, to: number): Promise<Float32Array>;
}

/**
 * Rows in memory.
 *
 * @throws {ShapeError} if the length is not a multiple of `d_model`.
 */
export function rowsOf(data: Float32Array, d_model: number): RowSource {
  if (!(Number.isSafeInteger(d_model) && d_model > 0 && data.length % d_model === 0)) {
    throw new ShapeError(`rows of ${d_model} numbers cannot be made of ${data.length} numbers`);
  }
  const read = (from: number, to: number) => Promise.resolve(data.subarray(from * d_model, to * d_model));
  return { n_rows: data.length / d_model, d_model, read };
}

/** Rows `from` to `to` (not included) of a source, as a source. */
export function rowRange(source: RowSource, from: number, to: number): RowSource {
  return { n_rows: to - from, d_model: source.d_model, read: (a, b) => source.read(from + a, from + b) };
}
