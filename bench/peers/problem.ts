/**
 * The step that every peer takes: a TopK with an auxiliary loss for dead latents, Adam, the same initial values and
 * data.
 *
 * @module
 */

import { RandomStream } from "../../kernels/random.ts";
import type { ParameterArrays } from "../../mod.ts";

/** The step's sizes and constants. */
export interface PeerProblem {
  /** Rows per batch. */
  readonly B: number;
  /** d_model. */
  readonly D: number;
  /** d_sae. */
  readonly S: number;
  /** top_k. */
  readonly k: number;
  /** Latents that never fire, the last ones. Fewer than k_aux, so that all of them enter the auxiliary loss. */
  readonly n_dead: number;
  /** k_aux. */
  readonly k_aux: number;
  /** Weight of the auxiliary loss. */
  readonly alpha: number;
  /** Learning rate from the second step on; the first has 0. */
  readonly lr: number;
  /** Steps whose losses must agree before anything is timed. */
  readonly n_compared: number;
}

/** The shape for which `reference` figures are given. */
export const PROBLEM: PeerProblem = {
  B: 1024,
  D: 768,
  S: 6144,
  k: 32,
  n_dead: 64,
  k_aux: 512,
  alpha: 1 / 32,
  lr: 1e-4,
  n_compared: 3,
};

/** Adam's constants, the norm that gradients are clipped to, and the epsilon of that division. */
export const CONSTANTS = { beta1: 0.9, beta2: 0.999, eps: 1e-8, grad_clip: 1, clipEps: 1e-6 } as const;

/** The result of a peer: the losses of the compared steps, and its shortest step in milliseconds. */
export interface PeerResult {
  /** `mse + aux` of each compared step. */
  readonly losses: readonly number[];
  /** Milliseconds of a step. */
  readonly milliseconds: number;
}

/** The batch [B, D] and the initial parameters of every peer. */
export function startOf(
  { B, D, S, n_dead }: Pick<PeerProblem, "B" | "D" | "S" | "n_dead">,
): { x: Float32Array; parameters: ParameterArrays } {
  const random = new RandomStream(1, 1000);
  // A sum of four uniform numbers, of variance 1/3, is close enough to normal.
  const normal = () => (random.uniform() + random.uniform() + random.uniform() + random.uniform() - 2) * Math.sqrt(3);
  const x = Float32Array.from({ length: B * D }, normal);
  const W_dec = Float32Array.from({ length: S * D }, normal);
  const W_enc = new Float32Array(D * S);
  for (let s = 0; s < S; s++) {
    const row = W_dec.subarray(s * D, (s + 1) * D);
    const norm = Math.sqrt(row.reduce((sum, w) => sum + w * w, 0));
    row.forEach((w, d) => {
      row[d] = w / norm;
      W_enc[d * S + s] = row[d]!;
    });
  }
  const b_enc = new Float32Array(S).fill(-8, S - n_dead);
  const b_dec = Float32Array.from({ length: D }, () => 0.1 * normal());
  return { x, parameters: { W_enc, b_enc, W_dec, b_dec } };
}
