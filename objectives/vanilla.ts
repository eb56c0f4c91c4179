/**
 * The plain objective: `mean((x̂ − x)²)` over rows and dimensions, plus sparsity and the auxiliary loss.
 *
 * @module
 */

import { completeSparsity, type Sparsity } from "../nn/config.ts";

/** The plain objective. */
export interface Vanilla {
  /** Discriminator. */
  readonly key: "vanilla";
  /** Weight of L1; the activation's own sparsity if `null`. */
  readonly sparsity_coeff: number | null;
  /** Rows without firing after which a latent is dead. */
  readonly dead_threshold_tokens: number;
}

/** The penalty that the objective puts in place of the activation's, if any. */
export function vanillaSparsity({ sparsity_coeff }: Vanilla): Sparsity | null {
  return sparsity_coeff === null ? null : completeSparsity({ key: "l1-sparsity", coeff: sparsity_coeff });
}
