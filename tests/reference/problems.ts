/**
 * Seeded problems of every kind the tests go through: both encoders, every activation, every auxiliary loss.
 *
 * @module
 */

import { type AuxOptions, completeConfig, type SparseAutoencoderConfig } from "../../nn/config.ts";
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

/**
 * Every combination of formula, activation, auxiliary loss and prefixes, with L1 sparsity on. Every fourth latent is
 * dead, which a very negative bias makes true. Every number is one that f32 can hold.
 */
export function everyProblem(sizes: Sizes, seed: number): Example[] {
  const random = new Random(seed);
  const { B, D, S } = sizes;
  const auxes: AuxOptions[] = [
    { key: "no-aux" },
    { key: "auxk", k_aux: 2, alpha: 1 / 4, include_b_dec: false },
    { key: "auxk", k_aux: 2, alpha: 1 / 4, include_b_dec: true },
  ];
  const examples: Example[] = [];
  for (const subtract_b_dec of [false, true]) {
    for (const key of ["relu", "top-k", "batch-top-k"] as const) {
      for (const aux of auxes) {
        for (const n_prefixes of [1, 4]) {
          const sparsity = { key: "l1-sparsity", coeff: 0.01 } as const;
          const activation = key === "relu" ? { key, sparsity, aux } : { key, top_k: 3, sparsity, aux };
          const cfg = completeConfig({ d_model: D, d_sae: S, activation, subtract_b_dec });
          const p = randomParameters(random, sizes);
          const dead_S = Uint8Array.from({ length: S }, (_, s) => s % 4 === 1 ? 1 : 0);
          for (let s = 0; s < S; s++) if (dead_S[s]) p.b_enc[s] = Math.fround(p.b_enc[s]! - 20);
          const prefixes = n_prefixes === 1 ? [S] : [1, 4, Math.ceil(S / 2), S];
          const x_BD = Float64Array.from(random.normal(B * D));
          examples.push({ name: describe(cfg, prefixes), problem: { cfg, x_BD, prefixes, dead_S }, p });
        }
      }
    }
  }
  return examples;
}

function describe(cfg: SparseAutoencoderConfig, prefixes: readonly number[]): string {
  const { key, aux } = cfg.activation;
  const auxName = aux.key === "auxk" && aux.include_b_dec ? "auxk with b_dec" : aux.key;
  return `${key}, ${auxName}, prefixes ${prefixes}, ${cfg.subtract_b_dec ? "(x − b_dec) W" : "x W"}`;
}
