/**
 * Which nested dictionaries a Matryoshka step trains.
 *
 * Upstream's distribution: lengths ℓ = 2 … S − 1 with P(ℓ) ∝ (ℓ−1)^−½ − ℓ^−½, the first differences of a Pareto law of
 * power ½; K − 1 distinct lengths are drawn without replacement, and S itself is always included.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";
import { RandomStream, STREAMS } from "../kernels/random.ts";

/**
 * `n_prefixes` distinct lengths, ascending, the last of them `d_sae`.
 *
 * Computed in float64 with + − × ÷ √ only, so the result is the same everywhere. Drawing with replacement and skipping
 * repetitions is equivalent to drawing without replacement.
 *
 * @throws {RangeError} if there are fewer lengths than that.
 */
export function samplePrefixes(
  d_sae: number,
  n_prefixes: number,
  { seed, step }: { readonly seed: number; readonly step: number },
): number[] {
  if (!Number.isInteger(n_prefixes) || n_prefixes < 1 || n_prefixes > d_sae) {
    throw new RangeError(`n_prefixes must be between 1 and d_sae ${d_sae}, found ${shown(n_prefixes)}`);
  }
  // Length 1 has probability 0: it appears only if all lengths do.
  if (n_prefixes === d_sae) return Array.from({ length: d_sae }, (_, index) => index + 1);
  if (n_prefixes === d_sae - 1) return Array.from({ length: d_sae - 1 }, (_, index) => index + 2);
  const random = new RandomStream(seed, STREAMS.lengths, step);
  const mass = 1 - 1 / Math.sqrt(d_sae - 1);
  const drawn = new Set([d_sae]);
  while (drawn.size < n_prefixes) {
    const root = 1 / (1 - random.uniform() * mass);
    drawn.add(Math.min(Math.max(Math.ceil(root * root), 2), d_sae - 1));
  }
  return [...drawn].sort((a, b) => a - b);
}

/**
 * Fixed groups of latents as prefix lengths: their running sums.
 *
 * @throws {RangeError} unless the groups are positive and add up to d_sae.
 */
export function groupPrefixes(group_sizes: readonly number[], d_sae: number): number[] {
  let length = 0;
  const lengths = group_sizes.map((size) => length += size);
  if (!group_sizes.every((size) => Number.isInteger(size) && size > 0) || length !== d_sae) {
    throw new RangeError(
      `group_sizes must be positive integers that add up to d_sae ${d_sae}, found [${
        group_sizes.join(", ")
      }] with the sum ${length}`,
    );
  }
  return lengths;
}
