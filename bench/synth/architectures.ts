/**
 * The worlds of the benchmark, and the dictionaries trained in them.
 *
 * The full one is SynthSAEBench-16k (arXiv 2602.14687): a dictionary a quarter as wide as the world has features, Adam
 * at 3e-4 on 200 million rows, batches of 1024. The small one has a sixteenth of its features, of its trees and of its
 * dictionary, the same frequencies and strengths, and enough dimensions that features overlap about as much relative to
 * the number that are on; it takes minutes on two CPU cores. Among the most frequent features, as many as there are
 * latents, 25 are on in a row of the full world and 5.6 in a row of the small one.
 *
 * @module
 */

import type { ActivationOptions, ObjectiveOptions } from "../../mod.ts";
import { quantile, type WorldConfig } from "./world.ts";

/** A world, and how dictionaries are trained in it. */
export interface Benchmark {
  /** The world. */
  readonly world: WorldConfig;
  /** Latents. */
  readonly d_sae: number;
  /** The mean L0 that every dictionary aims at. */
  readonly l0: number;
  /** Matryoshka's groups. */
  readonly group_sizes: readonly number[];
  /** Rows per batch. */
  readonly batch_size: number;
  /** Batches of training. */
  readonly n_steps: number;
  /** Peak learning rate; half a cosine lowers it to 0, so that short runs settle too. (The paper's is constant.) */
  readonly lr: number;
  /** Batches of the evaluation. */
  readonly n_evaluated: number;
}

const SHARED = {
  frequency: { exponent: 0.5, most: 0.4, least: 5e-4 },
  correlation: { rank: 25, scale: 0.1 },
  strength: { first: 5, last: 4, spread: 0.5 },
  bias: 0.5,
  orthogonalisation: { steps: 100, lr: 3e-4 },
  seed: 42,
} as const;

/** The benchmarks by their name for `--config`. */
export const BENCHMARKS: Readonly<Record<"small" | "full", Benchmark>> = {
  small: {
    world: { ...SHARED, n_features: 1024, d_model: 128, hierarchy: { roots: 8, branching: 4, depth: 3 } },
    d_sae: 256,
    l0: 5,
    group_sizes: [8, 24, 96, 128],
    batch_size: 256,
    n_steps: 3000,
    lr: 5e-3,
    n_evaluated: 100,
  },
  full: {
    world: { ...SHARED, n_features: 16384, d_model: 768, hierarchy: { roots: 128, branching: 4, depth: 3 } },
    d_sae: 4096,
    l0: 25,
    group_sizes: [128, 384, 1536, 2048],
    batch_size: 1024,
    n_steps: 195_312,
    lr: 3e-4,
    n_evaluated: 488,
  },
};

/** One kind of dictionary. */
export interface Architecture {
  /** From pre-activations to codes. */
  readonly activation: ActivationOptions;
  /** What training minimises. */
  readonly objective: ObjectiveOptions;
}

/** The architectures by their name in the table. */
export function architectures(
  { l0, d_sae, group_sizes, batch_size, world: { d_model } }: Benchmark,
): Readonly<Record<string, Architecture>> {
  const aux = { key: "auxk", k_aux: d_model / 2 } as const;
  // A latent is dead after a thousand batches without firing.
  const shared = { dead_threshold_tokens: 1000 * batch_size } as const;
  const vanilla = { key: "vanilla", ...shared } as const;
  const kept = { top_k: l0, relu: true, aux } as const;
  return {
    "top-k": { activation: { key: "top-k", ...kept }, objective: vanilla },
    "batch-top-k": { activation: { key: "batch-top-k", ...kept }, objective: vanilla },
    "matryoshka batch-top-k": {
      activation: { key: "batch-top-k", ...kept },
      objective: { key: "matryoshka", group_sizes, ...shared },
    },
    "jump-relu": {
      activation: {
        key: "jump-relu",
        // The first pre-activations are about normal, so that L0 starts at its target. The default threshold is
        // exceeded by half of the dictionary, and thresholds then climb for so long that the controller's weight grows
        // without bound.
        threshold_init: -quantile(l0 / d_sae),
        bandwidth: 2,
        sparsity: { key: "l0-sparsity", coeff: 1e-2 },
        aux,
      },
      objective: { ...vanilla, target_l0: l0 },
    },
    l1: { activation: { key: "relu" }, objective: { ...vanilla, target_l0: l0 } },
  };
}
