/**
 * What a drawn configuration is tried on: a model, its parameters, three batches, and how it is trained on them.
 *
 * @module
 */

import type { Standardisation } from "../../data/scaling.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { WeightStorage } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../../nn/config.ts";
import type { Aux, Sparsity } from "../../nn/loss_terms.ts";
import type { ObjectiveOptions } from "../../objectives/objective.ts";
import type { ModelOptions } from "../../train/options.ts";
import type { Parameters } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { Random } from "../support/random.ts";
import { type Drawn, N_STEPS } from "./drawn.ts";

/** All of it; every number is one that f32 can hold. */
export interface Trial {
  readonly cfg: SparseAutoencoderConfig;
  /** What training changes. */
  readonly p: Parameters;
  /** Where the threshold of a BatchTopK is at first. */
  readonly threshold: number;
  /** As they are before they are standardised, one for each step. */
  readonly batches: readonly Float32Array[];
  readonly standardise: Standardisation;
  /** What a JumpReLU's bandwidth counts in. */
  readonly pre_act_scale: number;
  readonly weights: WeightStorage;
  readonly objective: ObjectiveOptions;
  /** Of the prefixes. */
  readonly seed: number;
  /** Rows since each latent last fired, before the first step. */
  readonly waited_S: Uint32Array;
  readonly train: Omit<ModelOptions, "state">;
  readonly n_steps: number | undefined;
}

/** Rows without firing after which a latent is dead. */
const DEAD_AFTER = 1000;

/** The trial of a configuration. */
export function trialOf(draw: Drawn): Trial {
  const { B, D, S, scale, standardise, silentEvery, seed } = draw;
  const random = new Random(seed);
  // Standardised rows are of size 1.
  const unit = standardise === "scale" || standardise === "mean_scale" ? 1 : scale;
  const isSilent = (s: number) => silentEvery > 0 && s % silentEvery === silentEvery - 1;
  const n_silent = Array.from({ length: S }, (_, s) => s).filter(isSilent).length;
  const activation = inUnits(draw.activation, unit, draw.k_aux === null ? null : Math.max(1, n_silent + draw.k_aux));
  const { subtract_b_dec, normalize_w_dec, remove_parallel_grads } = draw;
  const cfg = completeConfig({
    d_model: D,
    d_sae: S,
    activation,
    subtract_b_dec,
    normalize_w_dec,
    remove_parallel_grads,
  });

  const { W_enc, b_enc, W_dec, b_dec } = randomParameters(random, { D, S });
  const inInputs = (values: Iterable<number>) => Float64Array.from(values, (value) => Math.fround(value * unit));
  const biasOf = (bias: ArrayLike<number>, sparse: number) =>
    inInputs(Array.from(bias, (value, s) => value - (isSilent(s) ? 20 : draw.sparse ? sparse : 0)));
  const p = {
    W_enc,
    W_dec,
    b_enc: biasOf(b_enc, 1.7),
    b_dec: inInputs(b_dec),
    // Some thresholds have gone below 0.
    ...activation.key === "jump-relu" && { threshold: inInputs(random.normal(S, 0.5).map((theta) => theta + 0.5)) },
    ...activation.key === "gated" &&
      { r_mag: Float64Array.from(random.normal(S, 0.3)), b_mag: biasOf(random.normal(S, 0.3), 0) },
  };
  const offset_D = random.normal(D, 0.5);
  const batches = Array.from({ length: N_STEPS }, (_, step) => {
    const n_rows = step + 1 < N_STEPS ? B : Math.max(1, Math.ceil(draw.last * B));
    return random.normal(n_rows * D).map((value, i) => (value + offset_D[i % D]!) * scale);
  });
  // Half of the silent latents are dead from the first step on, by not a row more than it takes.
  const young = (s: number) => Math.floor(s / Math.max(1, silentEvery)) % 2 === 1 ? draw.young : 0;
  const waited_S = Uint32Array.from(
    { length: S },
    (_, s) => isSilent(s) ? DEAD_AFTER - B - young(s) : random.integer(0, 900),
  );
  const { n_steps, k, ...train } = draw.train;
  return {
    cfg,
    p,
    threshold: Math.fround(random.unit() * unit),
    batches,
    standardise,
    pre_act_scale: unit,
    weights: draw.weights,
    objective: objectiveOf(draw, activation.sparsity, unit),
    seed,
    waited_S,
    train: { ...train, ...k && "top_k" in activation && k },
    n_steps: n_steps ?? undefined,
  };
}

/** With penalties that grow with the inputs as the squared error does. */
function inUnits(
  activation: Drawn["activation"],
  unit: number,
  k_aux: number | null,
): ActivationOptions & { readonly sparsity: Sparsity } {
  const { aux } = activation;
  const changed = aux?.key === "pre-act"
    ? { ...aux, coeff: aux.coeff! * unit }
    : aux?.key === "auxk" && k_aux !== null
    ? { ...aux, k_aux }
    : aux;
  return { ...activation, sparsity: penaltyInUnits(activation.sparsity, unit), aux: changed as Aux };
}

function penaltyInUnits(sparsity: Sparsity, unit: number): Sparsity {
  switch (sparsity.key) {
    case "no-sparsity":
      return sparsity;
    case "l1-sparsity":
    case "weighted-l1-sparsity":
      return { ...sparsity, coeff: sparsity.coeff * unit };
    case "tanh-sparsity":
      return { ...sparsity, coeff: sparsity.coeff * unit * unit, scale: sparsity.scale / unit };
    case "l0-sparsity":
    case "target-l0-sparsity":
      return { ...sparsity, coeff: sparsity.coeff * unit * unit };
  }
}

function objectiveOf({ objective, S, activation, ...draw }: Drawn, sparsity: Sparsity, unit: number): ObjectiveOptions {
  const common = { dead_threshold_tokens: DEAD_AFTER };
  const movable = !("top_k" in activation) && sparsity.key !== "target-l0-sparsity";
  const target = draw.target_l0 === null ? {} : { target_l0: draw.target_l0 * S };
  if (objective.key === "vanilla") {
    const coeff = objective.sparsity_coeff;
    const own = sparsity.key === "no-sparsity" ? "l1-sparsity" : sparsity.key;
    const weight = coeff === null
      ? null
      : (penaltyInUnits({ ...sparsity, key: own, coeff, scale: 1 } as Sparsity, unit) as { readonly coeff: number })
        .coeff;
    const hasPenalty = coeff !== null || sparsity.key !== "no-sparsity";
    return { key: "vanilla", sparsity_coeff: weight, ...movable && hasPenalty && target, ...common };
  }
  const ofPenalty = movable && sparsity.key !== "no-sparsity" ? target : {};
  const { prefixes } = objective;
  if ("n" in prefixes) return { key: "matryoshka", n_prefixes: Math.min(prefixes.n, S), ...ofPenalty, ...common };
  const inner = prefixes.ends.map((end) => Math.ceil(end * S)).filter((end) => end < S);
  const ends = [...new Set(inner)].sort((a, b) => a - b).concat(S);
  return { key: "matryoshka", group_sizes: ends.map((end, i) => end - (ends[i - 1] ?? 0)), ...ofPenalty, ...common };
}
