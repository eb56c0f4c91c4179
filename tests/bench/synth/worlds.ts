/**
 * Small worlds for tests.
 *
 * @module
 */

import type { WorldConfig } from "../../../bench/synth/world.ts";

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
