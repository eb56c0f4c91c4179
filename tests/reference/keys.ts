/**
 * Float32 numbers as unsigned integers of the same order: −0 is 0, and NaN is above all.
 *
 * @module
 */

import { MAXIMA_COLUMNS } from "../../kernels/matmul_tiles.ts";

/** The place of each value among all numbers. */
export function keysOf(values: Float32Array): Uint32Array {
  const bits = new Uint32Array(values.slice().buffer);
  return Uint32Array.from(values, (value, i) => {
    if (Number.isNaN(value)) return 2 ** 32 - 1;
    return value < 0 ? 2 ** 32 - 1 - bits[i]! : 2 ** 31 + Math.abs(bits[i]! % 2 ** 31);
  });
}

/** The largest key of each group of neighbours. */
export function columnMaxima(row: Float32Array): number[] {
  const keys = keysOf(row);
  return Array.from(
    { length: Math.ceil(row.length / MAXIMA_COLUMNS) },
    (_, g) => Math.max(...keys.subarray(g * MAXIMA_COLUMNS, (g + 1) * MAXIMA_COLUMNS)),
  );
}
