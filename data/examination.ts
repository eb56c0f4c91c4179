/**
 * Measures, before training, what makes latents die.
 *
 * For rows x_n [D], n = 1 … N, with mean μ and column deviations σ_d, γ = ‖μ‖ / ‖σ‖. If γ is large, all rows point the
 * same way, the same few latents answer all of them, and the others never fire. γ predicts the share of dead latents
 * across models and layers. Source: arXiv 2605.31518.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { ShapeError } from "../kernels/engine/errors.ts";

/** The result of {@link examineRows}. */
export interface RowsExamination {
  /** Number of rows, N. */
  readonly n_rows: number;
  /** Number of rows that are entirely zero. */
  readonly n_zero: number;
  /** Σ σ_d², the variance of the rows around their mean. */
  readonly variance: number;
  /**
   * ‖μ‖ / ‖σ‖, the distance of the mean row from zero in deviations. 0 if all rows are zero, infinite if all rows are
   * equal.
   */
  readonly gamma: number;
  /** The column with the largest σ_d, and its share of Σ σ_d²; 0 if all rows are equal. */
  readonly widest: { readonly column: number; readonly share: number };
  /** The column with the largest |μ_d|, and its share of ‖μ‖²; 0 if the mean is zero. */
  readonly farthest: { readonly column: number; readonly share: number };
  /**
   * Rows farther from the mean than {@link FAR} times the median row: the largest distance relative to the median,
   * their number, and their share of Σ σ_d².
   */
  readonly far: { readonly largest: number; readonly n_rows: number; readonly share: number };
  /**
   * The share of Σ σ_d² between the means of blocks of neighbouring rows: near 0 for rows in random order, large if
   * neighbouring rows are alike. 0 without blocks.
   */
  readonly between: number;
}

/** A row counts as far beyond this multiple of the median distance from the mean. */
export const FAR = 4;

/**
 * Measures rows x [N, d_model] in float64. If the rows are blocks of neighbours, `blockRows` is the number of rows in a
 * block.
 *
 * @example
 * ```ts
 * import { examineRows } from "@saev/nn/data";
 *
 * const x = Float32Array.from({ length: 64 * 8 }, (_, i) => 100 + Math.sin(i * i));
 * console.log(examineRows(x, 8).gamma); // about 140: subtract the mean before training
 * ```
 *
 * @throws {ShapeError} unless x holds whole rows, and at least one.
 * @throws {TypeError} for an unknown option.
 */
export function examineRows(
  x: Float32Array,
  d_model: number,
  options: { readonly blockRows?: number } = {},
): RowsExamination {
  checkOptions("examineRows", options, { blockRows: true });
  const { blockRows } = options;
  const n_rows = x.length / d_model;
  if (!(Number.isSafeInteger(n_rows) && n_rows > 0)) {
    throw new ShapeError(`examining rows takes whole rows of ${d_model} numbers, found ${x.length} numbers`);
  }
  // Relative to the first row, so that equal rows have no variance from rounding.
  const offset_D = new Float64Array(d_model);
  x.forEach((value, i) => offset_D[i % d_model]! += value - x[i % d_model]!);
  const mean_D = offset_D.map((offset, d) => x[d]! + offset / n_rows);
  const variance_D = new Float64Array(d_model);
  const squares_N = new Float64Array(n_rows);
  let n_zero = 0;
  for (let row = 0; row < n_rows; row++) {
    let isZero = true;
    for (let d = 0; d < d_model; d++) {
      const value = x[row * d_model + d]!;
      const square = (value - mean_D[d]!) ** 2;
      variance_D[d]! += square / n_rows;
      squares_N[row]! += square;
      if (value !== 0) isZero = false;
    }
    n_zero += Number(isZero);
  }
  const [variance, square] = [sum(variance_D), sum(mean_D.map((mean) => mean * mean))];
  const median = squares_N.toSorted()[n_rows >> 1]!;
  const far = squares_N.filter((distance) => distance > FAR ** 2 * median);
  return {
    n_rows,
    n_zero,
    variance,
    gamma: square === 0 ? 0 : Math.sqrt(square / variance),
    widest: largest(variance_D, variance),
    farthest: largest(mean_D.map((mean) => mean * mean), square),
    far: {
      largest: median === 0 ? 0 : Math.sqrt(squares_N.reduce((most, distance) => Math.max(most, distance)) / median),
      n_rows: far.length,
      share: variance === 0 ? 0 : sum(far) / (variance * n_rows),
    },
    between: variance === 0 || blockRows === undefined ? 0 : betweenBlocks(x, mean_D, blockRows) / variance,
  };
}

/** Σ_blocks (rows / N) ‖μ_block − μ‖². */
function betweenBlocks(x: Float32Array, mean_D: Float64Array, blockRows: number): number {
  const d_model = mean_D.length;
  const n_rows = x.length / d_model;
  let between = 0;
  for (let from = 0; from < n_rows; from += blockRows) {
    const rows = Math.min(blockRows, n_rows - from);
    const sums_D = new Float64Array(d_model);
    x.subarray(from * d_model, (from + rows) * d_model).forEach((value, i) => {
      sums_D[i % d_model]! += value - mean_D[i % d_model]!;
    });
    between += sum(sums_D.map((s) => s * s)) / (rows * n_rows);
  }
  return between;
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

function largest(parts_D: Float64Array, whole: number): { readonly column: number; readonly share: number } {
  const column = parts_D.reduce((best, part, d) => part > parts_D[best]! ? d : best, 0);
  return { column, share: whole === 0 ? 0 : parts_D[column]! / whole };
}
