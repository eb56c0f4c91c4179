/**
 * The simplest sources of rows: those in memory, and a range of another source.
 *
 * @module
 */

import { ShapeError } from "../kernels/engine/errors.ts";
import { checkRange, type RowSource } from "../nn/rows.ts";

/**
 * Rows in memory, and the class of each if `labels` has them.
 *
 * @throws {ShapeError} if the length is not a multiple of `d_model`, or there is not one label for each row.
 */
export function rowsOf(
  data: Float32Array,
  d_model: number,
  { labels }: { readonly labels?: Int32Array } = {},
): RowSource {
  if (!(Number.isSafeInteger(d_model) && d_model > 0 && data.length % d_model === 0)) {
    throw new ShapeError(`rows of ${d_model} numbers cannot be made of ${data.length} numbers`);
  }
  const n_rows = data.length / d_model;
  if (labels && labels.length !== n_rows) {
    throw new ShapeError(`${n_rows} rows take one label each, found ${labels.length} labels`);
  }
  return {
    n_rows,
    d_model,
    ...labels && { labels },
    read: async (from, to) => {
      checkRange({ n_rows }, from, to);
      return await Promise.resolve(data.subarray(from * d_model, to * d_model));
    },
  };
}

/**
 * Rows `from` to `to` (not included) of a source, as a source of its own, whose first row has number 0.
 *
 * @throws {RangeError} unless 0 ≤ from ≤ to ≤ n_rows.
 */
export function rowRange(source: RowSource, from: number, to: number): RowSource {
  checkRange(source, from, to);
  const { d_model, labels } = source;
  const n_rows = to - from;
  return {
    n_rows,
    d_model,
    ...labels && { labels: labels.subarray(from, to) },
    read: async (first, end) => {
      checkRange({ n_rows }, first, end);
      return await source.read(from + first, from + end);
    },
  };
}
