/**
 * Whole configurations as fast-check draws them: every activation, penalty, auxiliary loss and number of prefixes, at odd
 * sizes and scales, with any share of dead latents. A counterexample shrinks towards the smallest of them.
 *
 * Gradients are compared by their norms. Of very few numbers all may be what two large sums have left of each other, so that
 * sizes begin above that; smaller ones have tests with whole numbers.
 *
 * @module
 */

import fc from "fast-check";
import { type ActivationOptions, ACTIVATIONS } from "../../nn/activations/mod.ts";
import { completeConfig } from "../../nn/config.ts";
import type { AuxOptions, Sparsity } from "../../nn/loss_terms.ts";
import type { Example } from "../reference/problems.ts";
import { randomParameters } from "../reference/problems.ts";
import { Random } from "../support/random.ts";

/** What is drawn. */
export interface Drawn {
  readonly key: ActivationOptions["key"];
  readonly B: number;
  readonly D: number;
  readonly S: number;
  readonly top_k: number;
  readonly relu: boolean;
  readonly subtracts: boolean;
  readonly sparsity: Sparsity;
  readonly aux: AuxOptions;
  /** Where prefixes end, as shares of S; the last is always all. */
  readonly ends: readonly number[];
  /** The factor of the data, and of what is compared with it. */
  readonly scale: number;
  /** One latent of so many is dead; none for 0. */
  readonly deadEvery: number;
  readonly seed: number;
}

const coefficient = fc.integer({ min: 1, max: 64 }).map((n) => n / 128);

const everySparsity = fc.oneof(
  fc.constant<Sparsity>({ key: "no-sparsity" }),
  coefficient.map((coeff): Sparsity => ({ key: "l1-sparsity", coeff })),
  coefficient.map((coeff): Sparsity => ({ key: "weighted-l1-sparsity", coeff })),
  coefficient.map((coeff): Sparsity => ({ key: "tanh-sparsity", coeff, scale: 2 })),
);

const thresholdSparsity = fc.oneof(
  everySparsity,
  coefficient.map((coeff): Sparsity => ({ key: "l0-sparsity", coeff })),
  coefficient.map((coeff): Sparsity => ({ key: "target-l0-sparsity", coeff, target_l0: 1 })),
);

const everyAux = fc.oneof(
  fc.constant<AuxOptions>({ key: "no-aux" }),
  fc.record({
    key: fc.constant("auxk" as const),
    k_aux: fc.integer({ min: 1, max: 40 }),
    alpha: coefficient,
    include_b_dec: fc.boolean(),
    normalize: fc.boolean(),
  }).filter(({ include_b_dec, normalize }) => !(include_b_dec && normalize)),
);

const thresholdAux = fc.oneof(everyAux, coefficient.map((coeff): AuxOptions => ({ key: "pre-act", coeff })));

/** Any configuration that there can be, of every activation alike. */
export const drawn: fc.Arbitrary<Drawn> = fc.constantFrom(...Object.keys(ACTIVATIONS) as ActivationOptions["key"][])
  .chain((key) =>
    fc.record({
      key: fc.constant(key),
      B: fc.integer({ min: 4, max: 33 }),
      D: fc.integer({ min: 8, max: 40 }),
      S: fc.integer({ min: 8, max: 97 }),
      top_k: fc.integer({ min: 1, max: 12 }),
      relu: fc.boolean(),
      subtracts: fc.boolean(),
      sparsity: key === "jump-relu" ? thresholdSparsity : everySparsity,
      aux: key === "jump-relu" ? thresholdAux : everyAux,
      ends: fc.array(fc.integer({ min: 1, max: 63 }), { maxLength: 4 }).map((ends) => ends.map((end) => end / 64)),
      scale: fc.constantFrom(1, 1 / 128, 128),
      deadEvery: fc.constantFrom(0, 4, 2, 1),
      seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    })
  );

/** The problem and its parameters, all of them numbers that f32 can hold. */
export function exampleOf(draw: Drawn): Example {
  const { key, B, D, S, relu, subtracts, sparsity, aux, ends, scale, seed } = draw;
  // Of few latents TopK keeps also those with a very negative bias, which then are not dead.
  const keeps = key === "top-k" || key === "batch-top-k";
  const deadEvery = keeps && draw.deadEvery === 1 ? 0 : draw.deadEvery;
  const dead_S = Uint8Array.from({ length: S }, (_, s) => deadEvery > 0 && s % deadEvery === deadEvery - 1 ? 1 : 0);
  const top_k = Math.min(draw.top_k, dead_S.filter((isDead) => !isDead).length);
  const activation = {
    "relu": { key, sparsity, aux },
    "top-k": { key, top_k, relu, sparsity, aux },
    "batch-top-k": { key, top_k, relu, sparsity, aux },
    "jump-relu": { key, bandwidth: 0.75 * scale, sparsity, aux },
    "gated": { key, sparsity, aux },
  }[key] as ActivationOptions;
  const cfg = completeConfig({ d_model: D, d_sae: S, activation, subtract_b_dec: subtracts });
  const random = new Random(seed);
  const scaled = (values: ArrayLike<number>) => Float64Array.from(values, (value) => Math.fround(value * scale));
  const { W_enc, b_enc, W_dec, b_dec } = randomParameters(random, { D, S });
  const p = {
    W_enc,
    W_dec,
    b_enc: scaled(b_enc),
    b_dec: scaled(b_dec),
    ...key === "jump-relu" && { threshold: scaled(random.normal(S, 0.5).map((theta) => theta + 0.5)) },
    ...key === "gated" &&
      { r_mag: Float64Array.from(random.normal(S, 0.3)), b_mag: scaled(random.normal(S, 0.3)) },
  };
  for (let s = 0; s < S; s++) {
    if (!dead_S[s]) continue;
    for (const bias of [p.b_enc, p.b_mag]) if (bias) bias[s] = Math.fround(bias[s]! - 20 * scale);
  }
  const inner = ends.map((end) => Math.ceil(end * S)).filter((end) => end < S);
  const prefixes = [...new Set(inner)].sort((a, b) => a - b).concat(S);
  const x_BD = scaled(random.normal(B * D));
  return { name: JSON.stringify(draw), problem: { cfg, x_BD, prefixes, dead_S }, p };
}
