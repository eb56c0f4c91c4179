/**
 * Rows whose numbers are all finite.
 *
 * @module
 */

import type { RowSource } from "../nn/rows.ts";

/** The place and value of a number in some rows. */
export interface PlaceInRows {
  /** Its row, counted from 0. */
  readonly row: number;
  /** Its column, counted from 0. */
  readonly column: number;
  /** The number. */
  readonly value: number;
}

/** The first number of x [N, d_model], row by row, that is not finite; `undefined` if all are finite. */
export function firstNonFinite(x: Float32Array, d_model: number): PlaceInRows | undefined {
  let at = 0;
  while (at < x.length && Number.isFinite(x[at])) at++;
  if (at === x.length) return undefined;
  return { row: Math.floor(at / d_model), column: at % d_model, value: x[at]! };
}

/** The number of x [N, d_model] that is farthest from zero. */
export function largest(x: Float32Array, d_model: number): PlaceInRows {
  const at = x.reduce((best, value, i) => Math.abs(value) > Math.abs(x[best]!) ? i : best, 0);
  return { row: Math.floor(at / d_model), column: at % d_model, value: x[at]! };
}

/**
 * Wraps a source so that reading a row that is not finite is an error. `name` is the name of the source in messages,
 * usually its file.
 *
 * @example
 * ```ts
 * import { finiteRows, rowsOf } from "@saev/nn/data";
 *
 * const rows = finiteRows(rowsOf(Float32Array.of(1, 2, NaN, 4), 2), "activations.npy");
 * await rows.read(0, 1);
 * await rows.read(0, 2).catch(({ message }) => console.log(message)); // activations.npy: row 1 has NaN in column 0; …
 * ```
 *
 * `read` throws a `RangeError` that names the first such row it reads, and the column.
 */
export function finiteRows(source: RowSource, name: string): RowSource {
  const { n_rows, d_model, labels } = source;
  return {
    n_rows,
    d_model,
    ...labels && { labels },
    read: async (from, to) => {
      const x = await source.read(from, to);
      const bad = firstNonFinite(x, d_model);
      if (bad) throw nonFiniteError(name, { ...bad, row: from + bad.row });
      return x;
    },
  };
}

/** The error for a row that is not finite. */
export function nonFiniteError(name: string, { row, column, value }: PlaceInRows): RangeError {
  return new RangeError(`${name}: row ${row} has ${value} in column ${column}; remove rows that are not finite`);
}
