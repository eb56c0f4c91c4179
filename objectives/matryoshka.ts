/**
 * Nested dictionaries: the average over P prefixes of their mean squared errors, plus sparsity and the auxiliary loss.
 *
 * Sampled prefixes as upstream has them (Nabeshima 2024), or fixed groups (Bussmann et al. 2025, arXiv 2503.17547), every
 * prefix with the weight 1/P. One prefix is the plain objective.
 *
 * @module
 */

import { type Field, type Fields, integer, optional } from "../nn/fields.ts";
import { COMMON_FIELDS } from "./common_fields.ts";
import { groupPrefixes, samplePrefixes } from "./prefixes.ts";

/** Nested dictionaries. */
export interface Matryoshka {
  /** Discriminator. */
  readonly key: "matryoshka";
  /** How many prefixes are sampled at each step. */
  readonly n_prefixes: number;
  /** Fixed groups of latents instead of samples, adding up to d_sae. */
  readonly group_sizes: readonly number[] | null;
  /** The mean L0 that a controller brings the penalty's weight to reach; `null` leaves the weight as it is. */
  readonly target_l0: number | null;
  /** Rows without firing after which a latent is dead. */
  readonly dead_threshold_tokens: number;
}

const GROUP_SIZES: Field<readonly number[]> = {
  about: "Fixed groups of latents instead of samples, adding up to d_sae.",
  takes: "a list of positive integers",
  example: [4096, 12288],
  isList: true,
  complete(name, found) {
    const isSize = (value: unknown) => Number.isInteger(value) && (value as number) > 0;
    if (!Array.isArray(found) || found.length === 0 || !found.every(isSize)) {
      throw new RangeError(`${name} must be a list of positive integers, found ${JSON.stringify(found)}`);
    }
    return Object.freeze([...found as number[]]);
  },
};

/** Its fields. */
export const MATRYOSHKA_FIELDS: Fields<Matryoshka> = {
  n_prefixes: integer({ least: 1, otherwise: 10, about: "How many prefixes are sampled at each step." }),
  group_sizes: optional(GROUP_SIZES),
  ...COMMON_FIELDS,
};

/**
 * The prefixes of a training step.
 *
 * @throws {RangeError} if they do not fit the dictionary.
 */
export function matryoshkaPrefixes(
  { n_prefixes, group_sizes }: Matryoshka,
  d_sae: number,
  at: { readonly seed: number; readonly step: number },
): readonly number[] {
  return group_sizes ? groupPrefixes(group_sizes, d_sae) : samplePrefixes(d_sae, n_prefixes, at);
}
