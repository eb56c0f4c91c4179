/**
 * A training step again, in plain float64 loops, in upstream's order: unit rows, loss and gradients, parallel part
 * removed, clipping, Adam. And the schedules.
 *
 * @module
 */

import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import type { Sparsity } from "../../nn/loss_terms.ts";
import { parameterNames, type Parameters, widen, zerosLike } from "./model.ts";
import { muon, type MuonStep } from "./muon.ts";
import { countSinceActive, dead, decide, forward, type Loss, lossAndGradients, type Problem } from "./objective.ts";

/** What Adam and the dead latents remember between steps. */
export interface TrainState {
  /** Steps taken. */
  step: number;
  /** Adam's first and second moments. */
  readonly m: Parameters;
  readonly v: Parameters;
  /** Inputs since each latent was last active. */
  sinceActive_S: Float64Array;
  /** A BatchTopK's estimate, and how often it was made. */
  threshold: number;
  n_thresholds: number;
}

/** Nothing seen yet. */
export function initialState(p: Parameters): TrainState {
  const sinceActive_S = new Float64Array(p.b_enc.length);
  return { step: 0, m: zerosLike(p), v: zerosLike(p), sinceActive_S, threshold: 0, n_thresholds: 0 };
}

/** What a step is given. */
export interface StepOptions {
  readonly lr: number;
  /** Greatest global norm of the gradients, or `false` for no clipping. */
  readonly grad_clip: number | false;
  readonly prefixes: readonly number[];
  readonly dead_threshold_tokens: number;
  readonly sparsity?: Sparsity;
  /** Updates the matrices with Muon; Adam if left out. */
  readonly muon?: Omit<MuonStep, "lr">;
}

/** One step: changes `p` and `state`, returns the loss before it and the norm of its gradients before clipping. */
export function trainStep(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  state: TrainState,
  x_BD: Float64Array,
  options: StepOptions,
): Loss & { readonly grad_norm: number } {
  if (cfg.normalize_w_dec) normalizeRows(p.W_dec, cfg.d_model);
  const problem = problemOf(cfg, p, state, x_BD, options);
  const { record, gradients } = lossAndGradients(problem, p);
  estimateThreshold(cfg, state, record.f_BS);
  if (cfg.remove_parallel_grads) removeParallel(gradients.W_dec, p.W_dec, cfg.d_model);
  const grad_norm = clip(gradients, options.grad_clip);
  state.step++;
  const { lr, muon } = options;
  if (muon) updateWithMuon(p, gradients, state, { ...muon, lr });
  else adam(p, gradients, state, lr);
  return { ...record.loss, grad_norm };
}

/** Counts this batch's silent latents first: one that wakes in it is no longer dead to its auxiliary loss. */
function problemOf(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  state: TrainState,
  x_BD: Float64Array,
  options: StepOptions,
): Problem {
  const { prefixes, dead_threshold_tokens, sparsity } = options;
  const without = { cfg, x_BD, prefixes, dead_S: new Uint8Array(cfg.d_sae) };
  const { f_BS } = forward(without, p, decide(without, p));
  state.sinceActive_S = countSinceActive(state.sinceActive_S, f_BS);
  const problem = { ...without, dead_S: dead(state.sinceActive_S, dead_threshold_tokens) };
  return sparsity === undefined ? problem : { ...problem, sparsity };
}

/** θ ← (1 − m) θ + m · min{f > 0}; corrected for its start, θ is the mean of those minima with the weights (1 − m)^age. */
function estimateThreshold({ activation }: SparseAutoencoderConfig, state: TrainState, f_BS: Float64Array): void {
  const positive = f_BS.filter((f) => f > 0);
  if (activation.key !== "batch-top-k" || positive.length === 0) return;
  const { momentum, bias_correction } = activation;
  state.n_thresholds++;
  const share = bias_correction ? momentum / (1 - (1 - momentum) ** state.n_thresholds) : momentum;
  state.threshold += share * (positive.reduce((least, f) => Math.min(least, f)) - state.threshold);
}

/** w_s ← w_s / ‖w_s‖; a zero row stays. */
export function normalizeRows(W_dec_SD: Float64Array, D: number): void {
  for (let start = 0; start < W_dec_SD.length; start += D) {
    const norm = Math.sqrt(dot(W_dec_SD, W_dec_SD, start, D));
    if (norm === 0) continue;
    for (let d = 0; d < D; d++) W_dec_SD[start + d]! /= norm;
  }
}

/** g_s ← g_s − (⟨g_s, w_s⟩ / ‖w_s‖²) w_s; a row whose w_s is zero stays. */
export function removeParallel(grad_W_dec_SD: Float64Array, W_dec_SD: Float64Array, D: number): void {
  for (let start = 0; start < W_dec_SD.length; start += D) {
    const square = dot(W_dec_SD, W_dec_SD, start, D);
    if (square === 0) continue;
    const along = dot(grad_W_dec_SD, W_dec_SD, start, D) / square;
    for (let d = 0; d < D; d++) grad_W_dec_SD[start + d]! -= along * W_dec_SD[start + d]!;
  }
}

/** g ← g · min(1, grad_clip / (‖g‖ + 1e-6)) over all gradients, those of thresholds too; returns ‖g‖ as it was. */
export function clip(gradients: Parameters, grad_clip: number | false): number {
  let square = 0;
  for (const name of parameterNames(gradients)) for (const g of gradients[name]!) square += g * g;
  const norm = Math.sqrt(square);
  if (grad_clip !== false) {
    const factor = Math.min(1, grad_clip / (norm + 1e-6));
    for (const name of parameterNames(gradients)) {
      for (let i = 0; i < gradients[name]!.length; i++) gradients[name]![i]! *= factor;
    }
  }
  return norm;
}

/** θ ← θ − lr · m̂ / (√v̂ + ε), with β = (0.9, 0.999), ε = 1e-8 and both moments corrected for their start at 0. */
export function adam(
  p: Parameters,
  gradients: Parameters,
  state: TrainState,
  lr: number,
  names: readonly (keyof Parameters)[] = parameterNames(p),
): void {
  const [beta1, beta2, epsilon] = [0.9, 0.999, 1e-8];
  const correction1 = 1 - beta1 ** state.step;
  const correction2 = 1 - beta2 ** state.step;
  for (const name of names) {
    const [theta, g, m, v] = [p[name]!, gradients[name]!, state.m[name]!, state.v[name]!];
    for (let i = 0; i < theta.length; i++) {
      m[i] = beta1 * m[i]! + (1 - beta1) * g[i]!;
      v[i] = beta2 * v[i]! + (1 - beta2) * g[i]! * g[i]!;
      theta[i]! -= lr * (m[i]! / correction1) / (Math.sqrt(v[i]! / correction2) + epsilon);
    }
  }
}

/** Muon for W_enc [D, S] and W_dec [S, D], Adam for biases and thresholds, all at one rate. */
export function updateWithMuon(p: Parameters, gradients: Parameters, state: TrainState, step: MuonStep): void {
  const [D, S] = [p.b_dec.length, p.b_enc.length];
  for (const [name, rows, columns] of [["W_enc", D, S], ["W_dec", S, D]] as const) {
    const [parameter, gradient, mean] = [p, gradients, state.m].map((all) => ({ rows, columns, values: all[name] }));
    muon(parameter!, gradient!, mean!, step);
  }
  adam(p, gradients, state, step.lr, parameterNames(p).filter((name) => name !== "W_enc" && name !== "W_dec"));
}

/** b_dec ← mean of the rows of x. */
export function initBDec(p: Parameters, x_BD: Float64Array): Parameters {
  const D = p.b_dec.length;
  const changed = widen(p);
  changed.b_dec.fill(0);
  for (let i = 0; i < x_BD.length; i++) changed.b_dec[i % D]! += x_BD[i]! / (x_BD.length / D);
  return changed;
}

/** The value after k calls: a straight line from `init` to `final` in n steps, then `final`. */
export function warmup(init: number, final: number, n_steps: number, k: number): number {
  return k < n_steps ? init + (final - init) * (k / n_steps) : final;
}

/** The value after k calls: a straight line up to `peak`, half a cosine down to `final`, then `final`. */
export function warmupCosine(
  [init, n_warmup, peak, n_steps, final]: readonly [number, number, number, number, number],
  k: number,
): number {
  if (k < n_warmup) return init + (peak - init) * (k / n_warmup);
  if (k >= n_steps) return final;
  const progress = (k - n_warmup) / (n_steps - n_warmup);
  return final + (peak - final) * (1 + Math.cos(Math.PI * progress)) / 2;
}

/** Upstream's optimiser starts at rate 0, and asks its schedule only after each step. */
export function learningRate(schedule: (k: number) => number, step: number): number {
  return step === 0 ? 0 : schedule(step);
}

/**
 * The step at which a run with these squared errors is halted: the third in a row above 10⁴ times the median, of an even
 * number the lower, of the last 16 before it that were not zero.
 */
export function haltedAt(errors: readonly number[]): number | undefined {
  const seen: number[] = [];
  let above = 0;
  for (const [step, error] of errors.entries()) {
    const sorted = seen.slice(-16).sort((a, b) => a - b);
    const median = sorted[Math.floor((sorted.length - 1) / 2)] ?? Infinity;
    above = error > 1e4 * median ? above + 1 : 0;
    if (above === 3) return step;
    if (error > 0) seen.push(error);
  }
  return undefined;
}

function dot(a: Float64Array, b: Float64Array, start: number, length: number): number {
  let sum = 0;
  for (let i = start; i < start + length; i++) sum += a[i]! * b[i]!;
  return sum;
}
