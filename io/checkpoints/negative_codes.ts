/**
 * Whether a TopK can keep a negative pre-activation, where formats differ in what they make of it.
 *
 * A row has negative codes where fewer than k of `h = z W_enc + b_enc` are not negative, z being what the encoder sees. To
 * tell whether any z has is as hard as finding the largest solvable part of S inequalities, so it is searched for: from
 * z = 0 and from each of some columns of W_enc, every step moves z away from the columns that are still active, those
 * nearest to 0 the most.
 *
 * @module
 */

import type { ParsedCheckpoint } from "../model.ts";

/** Inputs that are tried at most. */
const MAX_TRIES = 2048;
/** Multiply-adds of the encoder that are spent at most: some seconds. */
const MAX_WORK = 2 ** 29;
/** Steps without fewer active latents, after which another start is taken. */
const PATIENCE = 20;

/** What a search for a row with negative codes came to. */
export interface NegativeCodes {
  /** The fewest pre-activations that are not negative, of all inputs tried. */
  readonly n_active: number;
  /** Inputs tried. */
  readonly n_tried: number;
}

/** Searches for an input on which fewer than `k` pre-activations are not negative, and ends with the first. */
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

/** 0, and then columns of W_enc forwards and backwards, of lengths from 0.01 to 100. */
function startOf(start: number, W_enc: Float32Array, norms_S: Float64Array, d_model: number): Float64Array {
  const d_sae = norms_S.length;
  const length = start === 0 ? 0 : (start % 2 === 0 ? 1 : -1) * 10 ** (start % 5 - 2);
  // A prime, so that one column after the other is not the next.
  const s = start * 7919 % d_sae;
  return Float64Array.from({ length: d_model }, (_, d) => length * W_enc[d * d_sae + s]! / norms_S[s]!);
}

/** Moves z by the mean distance of the active latents' planes, each of which counts the more the nearer it is. */
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

/** 1 for columns of zeros. */
function columnNorms(matrix: Float32Array, columns: number): Float64Array {
  const squares = new Float64Array(columns);
  for (let i = 0; i < matrix.length; i++) squares[i % columns]! += matrix[i]! ** 2;
  return squares.map((sum) => Math.sqrt(sum) || 1);
}
