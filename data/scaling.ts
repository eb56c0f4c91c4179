/**
 * The mean and the scale of rows, each measured in one pass.
 *
 * @module
 */

import type { InputScaling } from "../nn/arrays.ts";
import type { RowSource } from "../nn/rows.ts";
import { firstNonFinite, nonFiniteError } from "./finite.ts";
import { batchesInOrder } from "./order.ts";

/** How inputs are standardised: not at all, by their mean, by one scale for all columns, or by both. */
export type Standardisation = "none" | "mean" | "scale" | "mean_scale";

/** Rows per read. */
const BLOCK_ROWS = 1024;

/**
 * The mean of all rows, and a scale that brings the root mean square of their entries (around the mean, if that is
 * subtracted) to between √½ and √2. The scale is a power of two, so dividing loses nothing: rows larger by a power of
 * two give the same standardised rows, bit by bit.
 *
 * @throws {RangeError} if an entry is not finite (the message names its row), or all rows are equal and so have no
 * scale.
 */
export async function measureScaling(source: RowSource, standardisation: Standardisation): Promise<InputScaling> {
  if (standardisation === "none") return { mean: null, scale: 1 };
  const { n_rows, d_model } = source;
  let mean: Float32Array | null = null;
  if (standardisation !== "scale") {
    const sums = new Float64Array(d_model);
    for await (const rows of blocksOf(source)) rows.forEach((value, i) => sums[i % d_model]! += value);
    mean = Float32Array.from(sums, (sum) => sum / n_rows);
    if (standardisation === "mean") return { mean, scale: 1 };
  }
  let squares = 0;
  for await (const rows of blocksOf(source)) {
    rows.forEach((value, i) => squares += (value - (mean?.[i % d_model] ?? 0)) ** 2);
  }
  if (squares === 0) {
    throw new RangeError(`standardising the inputs: all rows are ${mean ? "equal" : "zero"}, so they have no scale`);
  }
  return { mean, scale: nearestPowerOfTwo(Math.sqrt(squares / (n_rows * d_model))) };
}

/** By ratio: from 2ᵏ / √2 to 2ᵏ √2 it is 2ᵏ. Comparing avoids rounding a logarithm, whose last bits may differ. */
function nearestPowerOfTwo(size: number): number {
  let power = 2 ** Math.floor(Math.log2(size));
  while (size > power * Math.SQRT2) power *= 2;
  while (size < power * Math.SQRT1_2) power /= 2;
  return power;
}

/** All rows in order, checked to be finite. */
async function* blocksOf(source: RowSource): AsyncGenerator<Float32Array> {
  for await (const { x, index } of batchesInOrder(source, BLOCK_ROWS)) {
    const bad = firstNonFinite(x, source.d_model);
    if (bad) throw nonFiniteError("standardising the inputs", { ...bad, row: index[bad.row]! });
    yield x;
  }
}
