/**
 * Seeded problems of every kind the tests go through: both encoders, every activation, every auxiliary loss.
 *
 * @module
 */

import type { ActivationOptions } from "../../nn/activations/mod.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../../nn/config.ts";
import type { AuxOptions, Sparsity } from "../../nn/loss_terms.ts";
import { Random } from "../support/random.ts";
import { type Parameters, widen } from "./model.ts";
import type { Problem } from "./objective.ts";

/** A problem, parameters to solve it at, and a name for messages. */
export interface Example {
  readonly name: string;
  readonly problem: Problem;
  readonly p: Parameters;
}

/** Sizes, ragged on purpose. */
export interface Sizes {
  readonly B: number;
  readonly D: number;
  readonly S: number;
}

/** Parameters of that size with nothing zero about them, and a decoder whose rows are not of unit length. */
export function randomParameters(random: Random, { D, S }: Omit<Sizes, "B">): Parameters {
  return widen({
    W_enc: random.normal(D * S, 1 / Math.sqrt(D)),
    b_enc: random.normal(S, 0.2),
    W_dec: random.normal(S * D, 1 / Math.sqrt(D)),
    b_dec: random.normal(D, 0.5),
  });
}

/** Penalties of every activation, and those of thresholds. */
const SPARSITIES: readonly Sparsity[] = [
  { key: "l1-sparsity", coeff: 0.01 },
  { key: "weighted-l1-sparsity", coeff: 0.02 },
  { key: "tanh-sparsity", coeff: 0.03, scale: 2 },
  { key: "l0-sparsity", coeff: 0.05 },
  { key: "target-l0-sparsity", coeff: 0.5, target_l0: 4 },
];

/** Auxiliary losses of every activation, and that of thresholds; of few, some and all of the dead latents. */
const AUXES: readonly AuxOptions[] = [
  { key: "no-aux" },
  { key: "auxk", k_aux: 2, alpha: 1 / 4, include_b_dec: false },
  { key: "auxk", k_aux: 3, alpha: 1 / 4, include_b_dec: true },
  { key: "auxk", k_aux: 40, alpha: 1 / 4, normalize: true },
  { key: "pre-act", coeff: 0.125 },
];

/** How many problems there are. */
export const PROBLEMS = 2 * 2 * (3 * 4 + 5);

/**
 * Every combination of formula, activation, auxiliary loss and prefixes; the penalties take turns. Every fourth latent is
 * dead, which a very negative bias makes true. Every number is one that f32 can hold.
 */
export function everyProblem(sizes: Sizes, seed: number): Example[] {
  const random = new Random(seed);
  const { B, D, S } = sizes;
  const examples: Example[] = [];
  for (const subtract_b_dec of [false, true]) {
    for (const key of ["relu", "top-k", "batch-top-k", "jump-relu"] as const) {
      const hasThresholds = key === "jump-relu";
      for (const aux of hasThresholds ? AUXES : AUXES.slice(0, -1)) {
        for (const n_prefixes of [1, 4]) {
          const sparsity = SPARSITIES[examples.length % (hasThresholds ? 5 : 3)]!;
          const relu = examples.length % 4 > 1;
          const activation = {
            "relu": { key: "relu", sparsity, aux },
            "top-k": { key: "top-k", top_k: 3, relu, sparsity, aux },
            "batch-top-k": { key: "batch-top-k", top_k: 3, relu, sparsity, aux },
            "jump-relu": { key: "jump-relu", bandwidth: 0.75, sparsity, aux },
          }[key] as ActivationOptions;
          const cfg = completeConfig({ d_model: D, d_sae: S, activation, subtract_b_dec });
          const p = randomParameters(random, sizes);
          const dead_S = Uint8Array.from({ length: S }, (_, s) => s % 4 === 1 ? 1 : 0);
          for (let s = 0; s < S; s++) if (dead_S[s]) p.b_enc[s] = Math.fround(p.b_enc[s]! - 20);
          const prefixes = n_prefixes === 1 ? [S] : [1, 4, Math.ceil(S / 2), S];
          const x_BD = Float64Array.from(random.normal(B * D));
          // Some thresholds have gone below 0.
          const threshold = Float64Array.from(random.normal(S, 0.5), (theta) => Math.fround(theta + 0.5));
          examples.push({
            name: describe(cfg, prefixes),
            problem: { cfg, x_BD, prefixes, dead_S },
            p: hasThresholds ? { ...p, threshold } : p,
          });
        }
      }
    }
  }
  return examples;
}

/** The same for a Gated, whose latents are dead where both biases are very negative. */
export function gatedProblems(sizes: Sizes, seed: number): Example[] {
  const random = new Random(seed);
  const { B, D, S } = sizes;
  return [false, true].flatMap((subtract_b_dec) =>
    AUXES.slice(0, -1).flatMap((aux, at) =>
      [[S], [1, 4, Math.ceil(S / 2), S]].map((prefixes, more): Example => {
        const activation = { key: "gated", sparsity: SPARSITIES[(at + more) % 3]!, aux } as const;
        const cfg = completeConfig({ d_model: D, d_sae: S, activation, subtract_b_dec });
        const p = {
          ...randomParameters(random, sizes),
          r_mag: Float64Array.from(random.normal(S, 0.3)),
          b_mag: Float64Array.from(random.normal(S, 0.3)),
        };
        const dead_S = Uint8Array.from({ length: S }, (_, s) => s % 4 === 1 ? 1 : 0);
        for (let s = 0; s < S; s++) {
          if (!dead_S[s]) continue;
          p.b_enc[s] = Math.fround(p.b_enc[s]! - 20);
          p.b_mag[s] = Math.fround(p.b_mag[s]! - 20);
        }
        const x_BD = Float64Array.from(random.normal(B * D));
        return { name: describe(cfg, prefixes), problem: { cfg, x_BD, prefixes, dead_S }, p };
      })
    )
  );
}

function describe(cfg: SparseAutoencoderConfig, prefixes: readonly number[]): string {
  const { activation } = cfg;
  const { key, aux, sparsity } = activation;
  const auxName = aux.key === "auxk" && aux.include_b_dec
    ? "auxk with b_dec"
    : aux.key === "auxk" && aux.normalize
    ? "auxk normalized"
    : aux.key;
  const relu = "relu" in activation && activation.relu ? " with relu" : "";
  const encoder = cfg.subtract_b_dec ? "(x − b_dec) W" : "x W";
  return `${key}${relu}, ${auxName}, ${sparsity.key}, prefixes ${prefixes}, ${encoder}`;
}
