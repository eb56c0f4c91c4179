/**
 * Small worlds for tests.
 *
 * @module
 */

import type { World, WorldConfig } from "../../../bench/synth/world.ts";

/** A world of 40 features without hierarchy, in 16 dimensions, but for what is said. */
export function worldConfig(options: Partial<WorldConfig> = {}): WorldConfig {
  return {
    n_features: 40,
    d_model: 16,
    frequency: { exponent: 0.5, most: 0.5, least: 0.1 },
    hierarchy: { roots: 0, branching: 2, depth: 0 },
    correlation: { rank: 3, scale: 0.3 },
    strength: { first: 5, last: 4, spread: 0.5 },
    bias: 0.5,
    orthogonalisation: { steps: 0, lr: 3e-4 },
    seed: 1,
    ...options,
  };
}

/** The parent of each feature, or −1. */
export function parentsOf({ cfg: { n_features, hierarchy }, levels }: World): Int32Array {
  const parent_F = new Int32Array(n_features).fill(-1);
  for (const { firstParent, parents, firstChild } of levels) {
    for (let child = 0; child < parents * hierarchy.branching; child++) {
      parent_F[firstChild + child] = firstParent + Math.floor(child / hierarchy.branching);
    }
  }
  return parent_F;
}
