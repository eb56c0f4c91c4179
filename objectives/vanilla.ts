/**
 * The plain objective: `mean((x̂ − x)²)` over rows and dimensions, plus sparsity and the auxiliary loss.
 *
 * @module
 */

import { type Fields, number, optional } from "../nn/fields.ts";
import { COMMON_FIELDS } from "./common_fields.ts";

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

/** Its fields. */
export const VANILLA_FIELDS: Fields<Vanilla> = {
  sparsity_coeff: optional(number({
    least: 0,
    about: "Weight of the activation's penalty, or of L1 where it has none.",
    example: 4e-4,
  })),
  ...COMMON_FIELDS,
};
