/**
 * What a trained model is worth on data, in one pass over any number of rows.
 *
 * Sums are kept in float64 on the CPU, so that their size cannot spoil them.
 *
 * @module
 */

import type { Tensor } from "../kernels/tensor.ts";
import { countRows, type SparseAutoencoder } from "../nn/sparse_autoencoder.ts";

/** Rows in batches: arrays of whole rows, or [B, d_model] tensors, which stay the caller's. */
export type Batches = Iterable<Float32Array | Tensor> | AsyncIterable<Float32Array | Tensor>;

/** The metrics of a model on some data. */
export interface Metrics {
  /** Rows seen, N. */
  readonly n_rows: number;
  /** Σ‖x − x̂‖² / (N D), the mean over all elements. */
  readonly mse: number;
  /**
   * Σ‖x − x̂‖² / (Σ‖x‖² − ‖Σx‖²/N): the unexplained share of the variance around the mean row. Also called FVU; explained
   * variance is 1 − nmse. NaN where the data do not vary.
   */
  readonly nmse: number;
  /** Latents with f ≠ 0, mean over rows: a count, not a share. */
  readonly l0: number;
  /** Σ |f|, mean over rows. */
  readonly l1: number;
  /** Latents that never fired on these rows. */
  readonly n_dead: number;
  /** n_dead / d_sae. */
  readonly dead_fraction: number;
  /** [S], the share of rows on which each latent fired. */
  readonly density: Float64Array;
}

/**
 * Encodes and decodes all batches with the full dictionary, changing nothing.
 *
 * @throws {ShapeError} if a batch is not a whole number of rows.
 * @throws {RangeError} if there are no rows.
 */
export async function evaluate(sae: SparseAutoencoder, batches: Batches): Promise<Metrics> {
  const { d_model, d_sae } = sae.cfg;
  const sums_D = new Float64Array(d_model);
  const fired_S = new Float64Array(d_sae);
  let n_rows = 0;
  let squares = 0;
  let errors = 0;
  let active = 0;
  let strength = 0;
  for await (const batch of batches) {
    n_rows += countRows(batch, d_model);
    using out = sae.forward(batch);
    const [x_BD, x_hat_BD, codes] = await Promise.all([
      batch instanceof Float32Array ? batch : batch.read(),
      out.x_hat.read(),
      out.f_x.read(),
    ]);
    for (let i = 0; i < x_BD.length; i++) {
      const x = x_BD[i]!;
      const error = x - x_hat_BD[i]!;
      squares += x * x;
      errors += error * error;
      sums_D[i % d_model]! += x;
    }
    codes.values.forEach((value, entry) => {
      if (value === 0) return;
      active++;
      strength += Math.abs(value);
      fired_S[codes.indices[entry]!]!++;
    });
  }
  if (n_rows === 0) throw new RangeError("evaluation needs at least one row, found none");
  const variance = squares - sums_D.reduce((sum, s) => sum + s * s, 0) / n_rows;
  const n_dead = fired_S.reduce((count, fired) => count + Number(fired === 0), 0);
  return {
    n_rows,
    mse: errors / (n_rows * d_model),
    nmse: variance > 0 ? errors / variance : NaN,
    l0: active / n_rows,
    l1: strength / n_rows,
    n_dead,
    dead_fraction: n_dead / d_sae,
    density: fired_S.map((fired) => fired / n_rows),
  };
}
