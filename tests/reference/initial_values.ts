/**
 * What initial values from data must satisfy, in plain float64 loops.
 *
 * @module
 */

import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import { activate, decode, encode, gatedMask, magnitudes, type Parameters, select } from "./model.ts";
import { normalizeRows } from "./training.ts";

/** How the points x [N, D] pull at y: each other point by a unit vector, those at y by up to 1 each in any direction. */
export interface Pull {
  /** ‖Σ (xᵢ − y) / ‖xᵢ − y‖‖ over the points away from y. */
  readonly norm: number;
  /** Points at y. */
  readonly n_here: number;
  /** Σ 1 / ‖xᵢ − y‖ over the others: how much the pull changes with y, at most. */
  readonly stiffness: number;
  /** Mean of ‖xᵢ − y‖ over all points. */
  readonly distance: number;
}

/** y is the geometric median exactly where the points at y can hold it against the pull of the others. */
export function pullAt(x_ND: ArrayLike<number>, y_D: ArrayLike<number>): Pull {
  const D = y_D.length;
  const N = x_ND.length / D;
  const sum_D = new Float64Array(D);
  let [n_here, stiffness, distances] = [0, 0, 0];
  for (let n = 0; n < N; n++) {
    let square = 0;
    for (let d = 0; d < D; d++) square += (x_ND[n * D + d]! - y_D[d]!) ** 2;
    if (square === 0) {
      n_here++;
      continue;
    }
    for (let d = 0; d < D; d++) sum_D[d]! += (x_ND[n * D + d]! - y_D[d]!) / Math.sqrt(square);
    stiffness += 1 / Math.sqrt(square);
    distances += Math.sqrt(square);
  }
  return { norm: norm(sum_D), n_here, stiffness, distance: distances / N };
}

/** Σ‖x̂ − b_dec‖ and Σ‖x − b_dec‖ at training's first step, which begins with unit rows. */
export function firstLengths(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  x_BD: Float64Array,
): { readonly reconstructed: number; readonly wanted: number } {
  const { d_model: D, d_sae: S } = cfg;
  const W_dec = p.W_dec.slice();
  if (cfg.normalize_w_dec) normalizeRows(W_dec, D);
  const h_BS = encode(cfg, p, x_BD);
  const isGated = cfg.activation.key === "gated";
  const f_BS = activate(
    isGated ? magnitudes(p, h_BS) : h_BS,
    isGated ? gatedMask(p, h_BS) : select(cfg.activation, h_BS, S, p.threshold),
  );
  const away_BD = decode(f_BS, W_dec, new Float64Array(D), [S]);
  let [reconstructed, wanted] = [0, 0];
  for (let start = 0; start < x_BD.length; start += D) {
    reconstructed += norm(away_BD.subarray(start, start + D));
    wanted += norm(x_BD.subarray(start, start + D).map((x, d) => x - p.b_dec[d]!));
  }
  return { reconstructed, wanted };
}

function norm(vector: Float64Array): number {
  return Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
}
