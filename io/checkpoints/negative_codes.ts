/**
 * Searches for inputs on which a TopK keeps a negative pre-activation, where formats differ.
 *
 * A row has negative codes if fewer than k of `h = z W_enc + b_enc` are not negative, where z is the input of the
 * encoder. Deciding whether such a z exists is as hard as finding the largest solvable subset of S inequalities, so
 * this is a search: from z = 0 and from several columns of W_enc, every step moves z away from the columns that are
 * still active, and most from those nearest to 0.
 *
 * @module
 */

import type { ParsedCheckpoint } from "../model.ts";

/** Largest number of inputs to try. */
const MAX_TRIES = 2048;
/** Largest number of multiply-adds of the encoder: some seconds. */
const MAX_WORK = 2 ** 29;
/** Steps without improvement after which the search starts elsewhere. */
const PATIENCE = 20;

/** The result of a search for a row with negative codes. */
export interface NegativeCodes {
  /** The smallest number of pre-activations that are not negative, over all inputs tried. */
  readonly n_active: number;
  /** Number of inputs tried. */
  readonly n_tried: number;
}

/** Searches for an input on which fewer than `k` pre-activations are not negative, and stops at the first. */
export function searchNegativeCodes({ cfg, parameters }: ParsedCheckpoint, k: number): NegativeCodes {
  const { d_model, d_sae } = cfg;
  const { W_enc, b_enc } = parameters;
  const norms_S = columnNorms(W_enc, d_sae);
  const tries = Math.max(1, Math.min(MAX_TRIES, Math.floor(MAX_WORK / W_enc.length)));
  let [fewest, tried] = [Infinity, 0];
  for (let start = 0; tried < tries && fewest >= k; start++) {
    const z_D = startOf(start, W_enc, norms_S, d_model);
    for (let [least, stuck] = [Infinity, 0]; stuck < PATIENCE && tried < tries && fewest >= k; tried++) {
      const h_S = Float64Array.from(b_enc);
      for (let d = 0; d < d_model; d++) {
        const z = z_D[d]!;
        for (let s = 0; s < d_sae; s++) h_S[s]! += z * W_enc[d * d_sae + s]!;
      }
      const n_active = h_S.reduce((count, h) => count + Number(h >= 0), 0);
      stuck = n_active < least ? 0 : stuck + 1;
      least = Math.min(least, n_active);
      fewest = Math.min(fewest, n_active);
      moveAway(z_D, h_S, W_enc, norms_S);
    }
  }
  return { n_active: fewest, n_tried: tried };
}

/** 0, then columns of W_enc with both signs, of lengths from 0.01 to 100. */
function startOf(start: number, W_enc: Float32Array, norms_S: Float64Array, d_model: number): Float64Array {
  const d_sae = norms_S.length;
  const length = start === 0 ? 0 : (start % 2 === 0 ? 1 : -1) * 10 ** (start % 5 - 2);
  // A prime, so that successive starts use distant columns.
  const s = start * 7919 % d_sae;
  return Float64Array.from({ length: d_model }, (_, d) => length * W_enc[d * d_sae + s]! / norms_S[s]!);
}

/** Moves z by the mean distance to the planes of the active latents, weighted towards near ones. */
function moveAway(z_D: Float64Array, h_S: Float64Array, W_enc: Float32Array, norms_S: Float64Array): void {
  const d_sae = norms_S.length;
  const distance_S = h_S.map((h, s) => h / norms_S[s]!);
  const active = distance_S.filter((distance) => distance >= 0);
  const mean = active.reduce((sum, distance) => sum + distance, 0) / active.length;
  const weight_S = distance_S.map((distance, s) =>
    distance >= 0 ? 1 / norms_S[s]! / (distance + mean / 3 + Number.EPSILON) : 0
  );
  const step_D = z_D.map((_, d) => {
    let sum = 0;
    for (let s = 0; s < d_sae; s++) sum += W_enc[d * d_sae + s]! * weight_S[s]!;
    return sum;
  });
  const length = Math.hypot(...step_D) || 1;
  for (let d = 0; d < z_D.length; d++) z_D[d]! -= (mean + 1e-3) * step_D[d]! / length;
}

/** Norms of the columns; 1 for columns of zeros. */
function columnNorms(matrix: Float32Array, columns: number): Float64Array {
  const squares = new Float64Array(columns);
  for (let i = 0; i < matrix.length; i++) squares[i % columns]! += matrix[i]! ** 2;
  return squares.map((sum) => Math.sqrt(sum) || 1);
}
