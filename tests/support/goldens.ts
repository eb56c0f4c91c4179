/**
 * The goldens: results of the Python package, as typed records. `{ shape, data }` becomes a `Float32Array`, whose nine
 * digits are exact.
 *
 * @module
 */

import type { SparseAutoencoderOptions } from "../../nn/config.ts";

/** The four parameters, or their gradients. */
export interface GoldenParameters {
  readonly W_enc: Float32Array;
  readonly b_enc: Float32Array;
  readonly W_dec: Float32Array;
  readonly b_dec: Float32Array;
}

/** `relu_vanilla.json` */
export interface ReluVanillaGolden {
  readonly cfg: { readonly d_vit: number; readonly exp_factor: number };
  readonly sparsity_coeff: number;
  readonly params: GoldenParameters;
  readonly x: Float32Array;
  readonly f_x: Float32Array;
  readonly x_hat: Float32Array;
  readonly loss: Readonly<Record<"loss" | "mse" | "l0" | "l1" | "sparsity", number>>;
  readonly grads: GoldenParameters;
  readonly W_dec_normalized: Float32Array;
  readonly grad_W_dec_without_parallel_after_normalize: Float32Array;
  readonly b_dec_after_init_b_dec: Float32Array;
}

/** `matryoshka.json`, for an activation of this version. */
export interface MatryoshkaGolden {
  readonly name: string;
  /** With `include_b_dec` set wherever AuxK is on, which upstream always does but cannot configure. */
  readonly cfg: SparseAutoencoderOptions & { readonly d_model: number; readonly d_sae: number };
  readonly n_prefixes: number;
  readonly prefixes: readonly number[];
  readonly dead_threshold_tokens: number;
  readonly tokens_since_active_before: readonly number[];
  readonly tokens_since_active_after: readonly number[];
  readonly params: GoldenParameters;
  readonly x: Float32Array;
  readonly h_x: Float32Array;
  readonly f_x: Float32Array;
  readonly x_hats: Float32Array;
  readonly loss: Readonly<Record<"loss" | "mse" | "l0" | "l1" | "sparsity" | "aux" | "n_dead", number>>;
  readonly grads: GoldenParameters;
  readonly grad_W_dec_without_parallel: Float32Array;
  readonly grad_norm_before_clip: number;
  readonly "grads_after_clip_0.05": GoldenParameters;
  /** For a BatchTopK: the threshold after this step, and the evaluation of x with it. */
  readonly threshold_after?: number;
  readonly eval_f_x?: Float32Array;
  readonly eval_x_hats?: Float32Array;
}

/** `mean_squared_err.json` */
export interface SquaredErrorGolden {
  readonly name: string;
  /** Last size of the arrays. */
  readonly d_model: number;
  readonly x: Float32Array;
  readonly x_hat: Float32Array;
  readonly mse: Float32Array;
  readonly mse_norm: Float32Array;
  readonly reference: Float32Array;
  readonly reference_norm: Float32Array;
}

/** `warmup.json` */
export interface WarmupGolden {
  readonly init: number;
  readonly final: number;
  readonly n_steps: number;
  readonly values: readonly number[];
}

/** `warmup_cosine.json`: `args` are init, n_warmup, peak, n_steps, final. */
export interface WarmupCosineGolden {
  readonly args: readonly [init: number, n_warmup: number, peak: number, n_steps: number, final: number];
  readonly values: readonly number[];
}

/** `sample_prefixes.json` */
export interface SamplePrefixesGolden {
  readonly d_sae: number;
  readonly n_prefixes: number;
  readonly draws: number;
  readonly counts_by_length: readonly number[];
}

/** `train_relu_vanilla.json` */
export interface TrainReluVanillaGolden {
  readonly batch: number;
  readonly sparsity_coeff: number;
  readonly data: Float32Array;
  readonly start: GoldenParameters;
  readonly losses: readonly Readonly<Record<"loss" | "mse" | "l0" | "l1" | "sparsity", number>>[];
  readonly end: GoldenParameters;
}

/** `train_top_k_matryoshka.json` */
export interface TrainTopKMatryoshkaGolden {
  readonly batch: number;
  readonly top_k: number;
  readonly k_aux: number;
  readonly alpha: number;
  readonly dead_threshold_tokens: number;
  readonly data: Float32Array;
  readonly prefixes: readonly (readonly number[])[];
  readonly start: GoldenParameters;
  readonly losses: readonly Readonly<
    Record<"loss" | "mse" | "l0" | "l1" | "sparsity" | "aux" | "n_dead" | "grad_norm", number>
  >[];
  readonly end: GoldenParameters;
}

/** `muon.json`: one matrix through several steps of PyTorch's Muon. */
export interface MuonGolden {
  readonly name: string;
  /** [rows, columns] */
  readonly shape: readonly [rows: number, columns: number];
  readonly options: { readonly momentum: number; readonly weight_decay: number; readonly nesterov: boolean };
  readonly lrs: readonly number[];
  readonly start: Float32Array;
  /** One per step. */
  readonly gradients: readonly Float32Array[];
  /** The parameter and its momentum afterwards, without rounding to bfloat16. */
  readonly float64: { readonly end: Float32Array; readonly momentum_buffer: Float32Array };
  /** The same with an orthogonalisation in bfloat16, as PyTorch does it. */
  readonly bfloat16: { readonly end: Float32Array; readonly momentum_buffer: Float32Array };
}

interface Goldens {
  muon: MuonGolden;
  relu_vanilla: ReluVanillaGolden;
  warmup: WarmupGolden;
  warmup_cosine: WarmupCosineGolden;
  sample_prefixes: SamplePrefixesGolden;
  train_relu_vanilla: TrainReluVanillaGolden;
  train_top_k_matryoshka: TrainTopKMatryoshkaGolden;
}

/** The cases of one file. */
export function loadGoldens<Name extends keyof Goldens>(name: Name): readonly Goldens[Name][] {
  return readCases(name) as Goldens[Name][];
}

/** The cases of `mean_squared_err.json`; only their shapes give the last size. */
export function loadSquaredErrorGoldens(): readonly SquaredErrorGolden[] {
  const raw: { x: { shape: number[] } }[] = JSON.parse(readText("mean_squared_err")).cases;
  const cases = readCases("mean_squared_err") as Omit<SquaredErrorGolden, "d_model">[];
  return cases.map((golden, i) => ({ ...golden, d_model: raw[i]!.x.shape.at(-1)! }));
}

/** The cases of `matryoshka.json` with an activation of this version. */
export function loadMatryoshkaGoldens(): readonly MatryoshkaGolden[] {
  const cases = readCases("matryoshka") as MatryoshkaGolden[];
  return cases.filter(({ cfg }) => ["relu", "top-k", "batch-top-k"].includes(cfg.activation!.key)).map((golden) => {
    const activation = golden.cfg.activation!;
    if (activation.aux?.key !== "auxk") return golden;
    const cfg = { ...golden.cfg, activation: { ...activation, aux: { ...activation.aux, include_b_dec: true } } };
    return { ...golden, cfg };
  });
}

function readCases(name: string): unknown[] {
  return JSON.parse(readText(name), (key, value) => reviveArray(name, key, value)).cases;
}

function readText(name: string): string {
  return Deno.readTextFileSync(new URL(`../goldens/${name}.json`, import.meta.url));
}

function reviveArray(file: string, key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("shape" in value && "data" in value)) return value;
  const { shape, data } = value as { shape: number[]; data: number[] };
  const length = shape.reduce((product, size) => product * size, 1);
  if (data.length !== length) {
    throw new TypeError(`golden ${file}: ${key} has ${data.length} elements; its shape [${shape}] needs ${length}`);
  }
  return Float32Array.from(data);
}
