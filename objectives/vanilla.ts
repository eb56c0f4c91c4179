/**
 * The plain objective: `mean((x̂ − x)²)` over rows and dimensions, plus sparsity and the auxiliary loss.
 *
 * @module
 */

/** The plain objective. */
export interface Vanilla {
  /** Discriminator. */
  readonly key: "vanilla";
  /** Weight of the activation's penalty, or of L1 where it has none; the activation's own if `null`. */
  readonly sparsity_coeff: number | null;
  /** The mean L0 that a controller brings the penalty's weight to reach; `null` leaves the weight as it is. */
  readonly target_l0: number | null;
  /** Rows without firing after which a latent is dead. */
  readonly dead_threshold_tokens: number;
}
