/**
 * The fields that every objective has.
 *
 * @module
 */

import { type Field, integer, number, optional } from "../nn/fields.ts";

/** Rows without firing after which a latent is dead, upstream's default: 10,000,000. */
export const DEAD_THRESHOLD_TOKENS = 10_000_000;

/** The fields. */
export const COMMON_FIELDS: {
  readonly target_l0: Field<number | null>;
  readonly dead_threshold_tokens: Field<number>;
} = {
  target_l0: optional(number({
    about: "The mean L0 that a controller brings the penalty's weight to reach.",
    example: 32,
  })),
  dead_threshold_tokens: integer({
    least: 1,
    most: 2 ** 32 - 1,
    otherwise: DEAD_THRESHOLD_TOKENS,
    about: "Rows without firing after which a latent is dead.",
  }),
};
