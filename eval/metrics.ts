/**
 * Metrics of a model on data: their definitions, and the sums they are computed from.
 *
 * For rows x_n [D], reconstructions x̂_n [D] and codes f_n [S], n = 1 … N, with mean row x̄. Everything is in the units
 * of the given rows. Libraries use the same names for different numbers; each field of {@link Metrics} says where
 * others differ.
 *
 * Sums are kept in float64, row by row: they do not depend on how rows are split into batches, and neither many rows
 * nor a mean far from zero makes them inaccurate.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";
import type { CodeArrays } from "../nn/codes.ts";

/** Thresholds for almost dead and dense latents in {@link Metrics}. */
export interface DensityThresholds {
  /** Latents with a density below this are almost dead; 1e-7 if left out, as in Python's saev. */
  readonly almost_dead_below?: number;
  /** Latents with a density above this are dense; 0.01 if left out, as in Python's saev. */
  readonly dense_above?: number;
}

/** The metrics of a model on some data. */
export interface Metrics {
  /** Number of rows, N. */
  readonly n_rows: number;
  /**
   * Σ‖x − x̂‖² / (N D), the mean over all elements. SAELens's is D times as large; dictionary_learning's `l2_loss` is
   * the mean of ‖x − x̂‖, not squared.
   */
  readonly mse: number;
  /**
   * Σ‖x − x̂‖² / Σ‖x − x̄‖²: the unexplained share of the variance around the mean row, over all rows. Also called FVU.
   * NaN if all rows are equal. sparsify's is relative to the mean of each batch; OpenAI's is the mean over rows of ‖x −
   * x̂‖² / ‖x‖², relative to zero, which is small for any model if the mean row is far from zero.
   */
  readonly nmse: number;
  /**
   * 1 − nmse. Also called R². Python's saev logs 1 − Var(x − x̂) / Var(x) over all elements of a batch, and
   * overcomplete's R² uses the mean of all elements instead of the mean row; dictionary_learning's 1 − Σ_d Var(x_d −
   * x̂_d) / Σ_d Var(x_d) ignores a constant error; SAELens's was at times relative to zero, or the mean of the ratios
   * of single rows.
   */
  readonly explained_variance: number;
  /**
   * Mean of cos(x, x̂) over rows with x ≠ 0; rows of zeros have no direction. A row reconstructed as zeros counts as 0.
   * NaN if all rows are zero.
   */
  readonly cosine: number;
  /**
   * Mean of ‖x̂‖ / ‖x‖ over rows with x ≠ 0; below 1 if codes shrink. Also called L2 ratio. NaN if all rows are zero.
   */
  readonly norm_ratio: number;
  /**
   * γ = Σ‖x̂‖² / Σ x·x̂, the divisor that brings all x̂ closest to x; below 1 if codes shrink. Also called relative
   * reconstruction bias.
   */
  readonly reconstruction_bias: number;
  /**
   * Mean over rows of the number of latents with f ≠ 0, including negative values that a TopK may keep. overcomplete's
   * is the share of all latents, MSAE's the share of zeros.
   */
  readonly l0: number;
  /** Mean over rows of Σ |f|. */
  readonly l1: number;
  /**
   * Latents that never fired on these rows. (In a training loss: latents that have not fired for a given number of
   * rows.)
   */
  readonly n_dead: number;
  /** n_dead / d_sae. */
  readonly dead_fraction: number;
  /**
   * Latents that are dead or have a density below `almost_dead_below`. With fewer rows than its inverse, only dead
   * ones.
   */
  readonly n_almost_dead: number;
  /** The threshold of `n_almost_dead`. */
  readonly almost_dead_below: number;
  /** Latents with a density above `dense_above`. */
  readonly n_dense: number;
  /** The threshold of `n_dense`. */
  readonly dense_above: number;
  /**
   * [S], the share of rows on which each latent fired, f ≠ 0. Python's saev calls it `freqs` and counts f > 0, as its
   * `sparsity.pt` does; SAELens's `sparsity.safetensors` holds log10(density + 1e-10).
   */
  readonly density: Float64Array;
  /** How many latents have which density. */
  readonly density_histogram: DensityHistogram;
}

/** The number of latents by density, in bins of a quarter of a decade. Dead latents are in no bin. */
export interface DensityHistogram {
  /** [33], log10 of the bin edges: −8, −7.75, …, 0. */
  readonly log10_edges: readonly number[];
  /**
   * [32], latents from each edge up to the next. The first bin includes those below it, the last those of density 1.
   */
  readonly counts: readonly number[];
}

const MODEL_AT_FAULT = "the model's parameters are not finite, or too large";

/** Bins of {@link DensityHistogram} per decade. */
export const BINS_PER_DECADE = 4;
const LEAST_DECADE = -8;
const LOG10_EDGES: readonly number[] = Object.freeze(
  Array.from({ length: 1 - LEAST_DECADE * BINS_PER_DECADE }, (_, edge) => LEAST_DECADE + edge / BINS_PER_DECADE),
);
/**
 * The edges as densities. Those of whole decades are parsed from text, so that a density of 1 in 1000 lies exactly on
 * its edge.
 */
const EDGES = LOG10_EDGES.map((edge) => Number(`1e${Math.floor(edge)}`) * 10 ** (edge - Math.floor(edge)));

/** Counts densities by quarter of a decade. */
export function densityHistogram(density: ArrayLike<number>): DensityHistogram {
  const counts = new Array<number>(LOG10_EDGES.length - 1).fill(0);
  for (const share of Array.from(density)) {
    if (share === 0) continue;
    const above = EDGES.findLastIndex((edge) => share >= edge);
    counts[Math.min(Math.max(above, 0), counts.length - 1)]!++;
  }
  return { log10_edges: LOG10_EDGES, counts };
}

/** A replacer for `JSON.stringify` that writes typed arrays, such as those of {@link Metrics}, as arrays. */
export function typedArraysAsArrays(_key: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) ? Array.from(value as Float64Array) : value;
}

/** The sums over rows from which {@link Metrics} are computed. */
export class MetricSums {
  readonly #d_model: number;
  readonly #almostDeadBelow: number;
  readonly #denseAbove: number;
  #rows = 0;
  /**
   * [D], the first row. Sums around it lose no precision to the mean of the rows, and the variance does not depend on
   * it.
   */
  #origin_D: Float32Array | undefined;
  /** [D], Σ (x − origin). */
  readonly #sums_D: Float64Array;
  /** Σ‖x − origin‖². */
  #squares = 0;
  #errors = 0;
  /** Rows with x ≠ 0, and sums over them. */
  #directed = 0;
  #cosines = 0;
  #ratios = 0;
  /** Σ‖x̂‖² and Σ x·x̂. */
  #reconstructedSquares = 0;
  #products = 0;
  /** Σ |f|. */
  #strength = 0;
  /** [S], rows on which each latent fired. */
  readonly #fired_S: Float64Array;

  /** @throws {RangeError} if a threshold is not from 0 to 1. */
  constructor(
    d_model: number,
    d_sae: number,
    { almost_dead_below = 1e-7, dense_above = 1e-2 }: DensityThresholds = {},
  ) {
    for (const [name, value] of Object.entries({ almost_dead_below, dense_above })) {
      if (!(Number.isFinite(value) && value >= 0 && value <= 1)) {
        throw new RangeError(`${name} must be a share from 0 to 1, found ${shown(value)}`);
      }
    }
    this.#d_model = d_model;
    this.#almostDeadBelow = almost_dead_below;
    this.#denseAbove = dense_above;
    this.#sums_D = new Float64Array(d_model);
    this.#fired_S = new Float64Array(d_sae);
  }

  /**
   * Adds rows, their reconstructions and their codes.
   *
   * @throws {RangeError} for a row, a reconstruction or a code that is not finite.
   */
  add(x_BD: Float32Array, x_hat_BD: Float32Array, codes: CodeArrays): void {
    const D = this.#d_model;
    this.#origin_D ??= x_BD.slice(0, D);
    for (let from = 0; from < x_BD.length; from += D) this.#addRow(x_BD, x_hat_BD, from);
    this.#addCodes(codes);
    this.#rows += x_BD.length / D;
  }

  #addRow(x_BD: Float32Array, x_hat_BD: Float32Array, from: number): void {
    const D = this.#d_model;
    const origin_D = this.#origin_D!;
    const sums_D = this.#sums_D;
    let squares = 0;
    let errors = 0;
    let xx = 0;
    let yy = 0;
    let xy = 0;
    for (let d = 0; d < D; d++) {
      const x = x_BD[from + d]!;
      const y = x_hat_BD[from + d]!;
      const deviation = x - origin_D[d]!;
      const error = x - y;
      sums_D[d]! += deviation;
      squares += deviation * deviation;
      errors += error * error;
      xx += x * x;
      yy += y * y;
      xy += x * y;
    }
    if (!Number.isFinite(xx)) throw this.#notFinite("row", x_BD, from, "remove rows that are not finite or too large");
    if (!Number.isFinite(yy)) {
      throw this.#notFinite("the reconstruction of row", x_hat_BD, from, MODEL_AT_FAULT);
    }
    this.#squares += squares;
    this.#errors += errors;
    this.#reconstructedSquares += yy;
    this.#products += xy;
    if (xx === 0) return;
    this.#directed++;
    this.#ratios += Math.sqrt(yy / xx);
    if (yy !== 0) this.#cosines += xy / Math.sqrt(xx * yy);
  }

  #notFinite(what: string, values: Float32Array, from: number, why: string): RangeError {
    const column = values.subarray(from, from + this.#d_model).findIndex((value) => !Number.isFinite(value));
    return new RangeError(
      `evaluating: ${what} ${this.#rows + from / this.#d_model} has ${
        values[from + column]
      } in column ${column}; ${why}`,
    );
  }

  #addCodes({ row_starts, indices, values }: CodeArrays): void {
    const fired_S = this.#fired_S;
    for (let row = 0; row + 1 < row_starts.length; row++) {
      const end = row_starts[row + 1]!;
      let strength = 0;
      for (let entry = row_starts[row]!; entry < end; entry++) {
        const value = values[entry]!;
        if (value === 0) continue;
        strength += Math.abs(value);
        fired_S[indices[entry]!]!++;
      }
      if (!Number.isFinite(strength)) {
        throw new RangeError(`evaluating: a code of row ${this.#rows + row} is not finite; ${MODEL_AT_FAULT}`);
      }
      this.#strength += strength;
    }
  }

  /**
   * The metrics of all rows so far.
   *
   * @throws {RangeError} if there are no rows.
   */
  result(): Metrics {
    const n_rows = this.#rows;
    if (n_rows === 0) throw new RangeError("evaluation needs at least one row, found none");
    const variance = this.#squares - this.#sums_D.reduce((sum, s) => sum + s * s, 0) / n_rows;
    const nmse = variance > 0 ? this.#errors / variance : NaN;
    const density = this.#fired_S.map((fired) => fired / n_rows);
    const count = (holds: (share: number) => boolean) => density.reduce((sum, share) => sum + Number(holds(share)), 0);
    const n_dead = count((share) => share === 0);
    return {
      n_rows,
      mse: this.#errors / (n_rows * this.#d_model),
      nmse,
      explained_variance: 1 - nmse,
      cosine: this.#cosines / this.#directed,
      norm_ratio: this.#ratios / this.#directed,
      reconstruction_bias: this.#reconstructedSquares / this.#products,
      l0: this.#fired_S.reduce((sum, fired) => sum + fired, 0) / n_rows,
      l1: this.#strength / n_rows,
      n_dead,
      dead_fraction: n_dead / density.length,
      n_almost_dead: count((share) => share === 0 || share < this.#almostDeadBelow),
      almost_dead_below: this.#almostDeadBelow,
      n_dense: count((share) => share > this.#denseAbove),
      dense_above: this.#denseAbove,
      density,
      density_histogram: densityHistogram(density),
    };
  }
}
