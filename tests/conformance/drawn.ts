/**
 * Whole configurations as fast-check draws them: every activation, penalty, auxiliary loss and objective that may be
 * combined, at odd sizes and scales, with standardised inputs, f16 weights, latents that die at their threshold, and three
 * steps of any schedule. A counterexample shrinks towards the smallest of them.
 *
 * The tables here have an entry for each key of the library: this file does not compile while a new activation or loss term
 * is missing.
 *
 * @module
 */

import fc from "fast-check";
import type { Standardisation } from "../../data/scaling.ts";
import { type Activation, type ActivationOptions, ACTIVATIONS } from "../../nn/activations/mod.ts";
import type { WeightStorage } from "../../nn/arrays.ts";
import { completeConfig } from "../../nn/config.ts";
import { type Aux, AUXILIARIES, SPARSITIES, type Sparsity } from "../../nn/loss_terms.ts";
import type { OptimizerOptions } from "../../nn/optim/adam.ts";
import type { ObjectiveConfig } from "../../objectives/objective.ts";

/** What is drawn. Numbers of thresholds and penalties are in units of the inputs as the encoder sees them. */
export interface Drawn {
  readonly activation: ActivationOptions & { readonly sparsity: Sparsity };
  readonly objective:
    | { readonly key: "vanilla"; readonly sparsity_coeff: number | null }
    /** Prefixes that are sampled, or end at these shares of S and at S. */
    | { readonly key: "matryoshka"; readonly prefixes: { readonly n: number } | { readonly ends: readonly number[] } };
  /** What a controller brings L0 to, as a share of S; no controller for `null`, or where no penalty can be moved. */
  readonly target_l0: number | null;
  /** Rows of the first two steps. */
  readonly B: number;
  /** Rows of the third, as a share of B. */
  readonly last: number;
  readonly D: number;
  readonly S: number;
  readonly subtract_b_dec: boolean;
  readonly normalize_w_dec: boolean;
  readonly remove_parallel_grads: boolean;
  /** The factor of the inputs. */
  readonly scale: number;
  readonly standardise: Standardisation;
  /** Of the matrices outside training. */
  readonly weights: WeightStorage;
  /** Whether so few latents fire that steps are sparse. */
  readonly sparse: boolean;
  /** One latent of so many is silent; none for 0. */
  readonly silentEvery: number;
  /** Rows by which every second of them is too young to be dead in the first step. */
  readonly young: number;
  /** k_aux minus the number of silent latents; the activation's own k_aux for `null`. */
  readonly k_aux: number | null;
  readonly train: DrawnTraining;
  readonly seed: number;
}

/** How it is trained for three steps. */
export interface DrawnTraining {
  readonly optimizer: OptimizerOptions;
  readonly lr: number;
  readonly n_lr_warmup: number;
  /** `null` for a constant rate after the warm-up. */
  readonly n_steps: number | null;
  readonly n_sparsity_warmup: number;
  /** `null` for a constant k; no more than that of what keeps none. */
  readonly k: { readonly k_start: number; readonly n_k_warmup: number } | null;
  readonly grad_clip: number | false;
}

/** Steps that a configuration is trained for. */
export const N_STEPS = 3;

const coefficient = fc.integer({ min: 1, max: 64 }).map((n) => n / 128);
const k = fc.integer({ min: 1, max: 12 });

/** An activation's fields besides penalty and auxiliary loss. */
type OwnFields<A extends Activation> = Omit<A, "key" | "sparsity" | "aux">;

const ACTIVATION_DRAWS: { readonly [A in Activation as A["key"]]: fc.Arbitrary<OwnFields<A>> } = {
  "relu": fc.constant({}),
  "top-k": fc.record({ top_k: k, relu: fc.boolean() }),
  "batch-top-k": fc.record({
    top_k: k,
    relu: fc.boolean(),
    momentum: fc.constantFrom(0.1, 0.5, 1),
    bias_correction: fc.boolean(),
  }),
  "jump-relu": fc.record({ bandwidth: fc.constantFrom(0.75, 0.25, 2), threshold_init: fc.constant(1) }),
  "gated": fc.constant({}),
};

const SPARSITY_DRAWS: { readonly [T in Sparsity as T["key"]]: fc.Arbitrary<Omit<T, "key">> } = {
  "no-sparsity": fc.constant({}),
  "l1-sparsity": fc.record({ coeff: coefficient }),
  "weighted-l1-sparsity": fc.record({ coeff: coefficient }),
  "tanh-sparsity": fc.record({ coeff: coefficient, scale: fc.constantFrom(2, 0.5) }),
  "l0-sparsity": fc.record({ coeff: coefficient }),
  "target-l0-sparsity": fc.record({ coeff: coefficient, target_l0: fc.constant(1) }),
};

const AUX_DRAWS: { readonly [T in Aux as T["key"]]: fc.Arbitrary<Omit<T, "key">> } = {
  "no-aux": fc.constant({}),
  "auxk": fc.record({
    k_aux: fc.integer({ min: 1, max: 40 }),
    alpha: coefficient,
    include_b_dec: fc.boolean(),
    normalize: fc.boolean(),
  }),
  "pre-act": fc.record({ coeff: coefficient }),
};

const OBJECTIVE_DRAWS: { readonly [O in ObjectiveConfig as O["key"]]: fc.Arbitrary<Drawn["objective"]> } = {
  vanilla: fc.record({ key: fc.constant("vanilla"), sparsity_coeff: fc.option(coefficient, { nil: null }) }),
  matryoshka: fc.record({
    key: fc.constant("matryoshka"),
    prefixes: fc.oneof(
      fc.record({ n: fc.integer({ min: 1, max: 7 }) }),
      fc.record({
        ends: fc.array(fc.integer({ min: 1, max: 63 }), { maxLength: 4 }).map((ends) => ends.map((end) => end / 64)),
      }),
    ),
  }),
};

const training: fc.Arbitrary<DrawnTraining> = fc.record({
  optimizer: fc.oneof(
    fc.constant<OptimizerOptions>({ key: "adam" }),
    fc.record({
      key: fc.constant("muon" as const),
      momentum: fc.constantFrom(0.95, 0, 0.5),
      weight_decay: fc.constantFrom(0.1, 0, 2),
      nesterov: fc.boolean(),
    }),
  ),
  lr: fc.constantFrom(1e-2, 1e-3, 4e-4),
  n_lr_warmup: fc.integer({ min: 0, max: 4 }),
  n_steps: fc.option(fc.integer({ min: N_STEPS, max: 12 }), { nil: null }),
  n_sparsity_warmup: fc.integer({ min: 0, max: 4 }),
  k: fc.option(fc.record({ k_start: k, n_k_warmup: fc.integer({ min: 1, max: 4 }) }), { nil: null }),
  grad_clip: fc.constantFrom<(number | false)[]>(false, 0.5, 1e-3, 1e6),
});

/** An activation with a penalty and an auxiliary loss. */
interface Combination {
  readonly key: Activation["key"];
  readonly sparsity: Sparsity["key"];
  readonly aux: Aux["key"];
}

/** Whether a configuration may have all three. */
export function mayCombine({ key, sparsity, aux }: Combination): boolean {
  const penalty = { key: sparsity, ...Object.fromEntries(Object.keys(SPARSITIES[sparsity]).map((name) => [name, 1])) };
  try {
    return !!completeConfig({ activation: { key, sparsity: penalty, aux: { key: aux } } as ActivationOptions });
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function keysOf<T extends object>(table: T): (keyof T)[] {
  return Object.keys(table) as (keyof T)[];
}

const combinations: readonly Combination[] = keysOf(ACTIVATIONS).flatMap((key) =>
  keysOf(SPARSITIES).flatMap((sparsity) => keysOf(AUXILIARIES).map((aux) => ({ key, sparsity, aux })))
).filter(mayCombine);

const activation: fc.Arbitrary<Drawn["activation"]> = fc.constantFrom(...combinations).chain(({ key, sparsity, aux }) =>
  fc.tuple<[object, object, object]>(ACTIVATION_DRAWS[key], SPARSITY_DRAWS[sparsity], AUX_DRAWS[aux])
    .map(([own, ofSparsity, ofAux]) =>
      ({ key, ...own, sparsity: { key: sparsity, ...ofSparsity }, aux: { key: aux, ...ofAux } }) as Drawn["activation"]
    )
);

/** Any configuration. */
export const drawn: fc.Arbitrary<Drawn> = fc.record({
  activation,
  objective: fc.constantFrom(...keysOf(OBJECTIVE_DRAWS)).chain((key) => OBJECTIVE_DRAWS[key]),
  target_l0: fc.constantFrom(null, null, null, 1 / 8, 1),
  B: fc.oneof({ weight: 1, arbitrary: fc.constant(1) }, { weight: 7, arbitrary: fc.integer({ min: 1, max: 33 }) }),
  last: fc.constantFrom(1, 0.5, 0),
  D: fc.integer({ min: 1, max: 40 }),
  S: fc.integer({ min: 1, max: 97 }),
  subtract_b_dec: fc.boolean(),
  normalize_w_dec: fc.boolean(),
  remove_parallel_grads: fc.boolean(),
  scale: fc.constantFrom(1, 1e-3, 1e3, 1 / 128, 128),
  standardise: fc.constantFrom<Standardisation[]>("none", "mean", "scale", "mean_scale"),
  weights: fc.constantFrom<WeightStorage[]>("f32", "f16"),
  sparse: fc.boolean(),
  silentEvery: fc.constantFrom(0, 4, 2, 1),
  young: fc.integer({ min: 0, max: 40 }),
  k_aux: fc.constantFrom(null, -1, 0, 1),
  train: training,
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
});
