/**
 * What is compared of a drawn configuration: codes and reconstruction outside training, loss and gradients of a
 * step, and three steps of training with their schedules. Everything is held against the float64 reference, which decides
 * for itself which latents fire, which are dead, and how much the penalty weighs.
 *
 * They throw `Undecided` where float32 cannot decide that.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import { measureScaling } from "../../data/scaling.ts";
import type { InputScaling } from "../../nn/arrays.ts";
import { isOnL0, type Sparsity } from "../../nn/loss_terms.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState, type TrainStateData } from "../../nn/state.ts";
import type { Gradients } from "../../nn/parameters.ts";
import type { Loss } from "../../objectives/loss_record.ts";
import { getObjective } from "../../objectives/objective.ts";
import { samplePrefixes } from "../../objectives/prefixes.ts";
import { type Progress, train } from "../../train/train.ts";
import { control, FRESH } from "../reference/controller.ts";
import {
  activate,
  decode,
  encode,
  gatedMask,
  magnitudes,
  narrow,
  parameterNames,
  type Parameters,
  select,
  standardise,
  unstandardise,
  widen,
} from "../reference/model.ts";
import { MUON } from "../reference/muon.ts";
import { countSinceActive, dead, decide, forward, lossAndGradients, type Problem } from "../reference/objective.ts";
import {
  adam,
  clip,
  initialState,
  learningRate,
  normalizeRows,
  removeParallel,
  updateWithMuon,
  warmup,
  warmupCosine,
} from "../reference/training.ts";
import {
  assertExact,
  assertScalarClose,
  assertScheduleClose,
  assertSumBound,
  assertTensorClose,
  assertVanishes,
} from "../support/tolerance.ts";
import { checkConditioned, checkDecided, sizesOf } from "./decided.ts";
import { N_STEPS } from "./drawn.ts";
import type { Trial } from "./trial.ts";

/** Roundings of one element, the functions' of WGSL included, besides those of a sum: of a code, or of an update. */
const ROUNDINGS = 32;
/** Those of a step of the controller. */
const CONTROL_ROUNDINGS = 24;

/** What the reference computes with. A test that must fail replaces one of these with what a bug makes of it. */
export interface Reference {
  /** Learning rate of a step. */
  readonly rate: (step: number) => number;
  /** What the penalty's weight is multiplied with. */
  readonly penalty: (step: number) => number;
  /** What a row keeps, where anything is kept. */
  readonly k: (step: number) => number;
  readonly nesterov: boolean;
  /** Inputs as the encoder sees them. */
  readonly input: (x: Float32Array, scaling: InputScaling) => Float64Array;
  /** Matrices as they lie on the device. */
  readonly stored: (matrix: Float64Array) => Float64Array;
  /** Rows without firing after which a latent is dead. */
  readonly deadAfter: number;
}

/** What is right for a trial. */
export function referenceOf({ cfg: { activation, d_sae }, train, n_steps, objective, weights }: Trial): Reference {
  const { lr = NaN, n_lr_warmup = NaN, n_sparsity_warmup = NaN, k_start, n_k_warmup, optimizer } = train;
  const last = "top_k" in activation ? activation.top_k : 0;
  const rate = (call: number) =>
    n_steps === undefined ? warmup(0, lr, n_lr_warmup, call) : warmupCosine([0, n_lr_warmup, lr, n_steps, 0], call);
  return {
    rate: (step) => learningRate(rate, step),
    penalty: (step) => warmup(0, 1, n_sparsity_warmup, step),
    k: (step) => k_start === undefined ? last : Math.round(warmup(Math.min(k_start, d_sae), last, n_k_warmup!, step)),
    nesterov: optimizer?.key === "muon" && optimizer.nesterov !== false,
    input: (x, { mean, scale }) => standardise(x, mean ?? [0], scale),
    stored: (matrix) => weights === "f16" ? Float64Array.from(Float16Array.from(matrix)) : matrix,
    deadAfter: objective.dead_threshold_tokens!,
  };
}

/** Codes and reconstructions outside training, from the matrices as they lie on the device. */
export async function checkCodes(trial: Trial, device: GPUDevice, changed: Partial<Reference> = {}): Promise<void> {
  const { cfg, weights, threshold } = trial;
  const reference = { ...referenceOf(trial), ...changed };
  const input = await scalingOf(trial);
  using sae = await SparseAutoencoder.fromParameters(cfg, parametersOf(trial), { device, input, weights });
  const p = { ...trial.p, W_enc: reference.stored(trial.p.W_enc), W_dec: reference.stored(trial.p.W_dec) };
  const x_BD = reference.input(trial.batches[0]!, input);
  const { activation } = cfg;
  const isBatch = activation.key === "batch-top-k";
  checkDecided({ cfg, x_BD, prefixes: [], dead_S: new Uint8Array(cfg.d_sae) }, p, isBatch ? threshold : undefined);
  const h_BS = encode(cfg, p, x_BD);
  const mask_BS = activation.key === "gated"
    ? gatedMask(p, h_BS)
    : isBatch
    ? Uint8Array.from(h_BS, (h) => h > threshold ? 1 : 0)
    : select(activation, h_BS, cfg.d_sae, p.threshold);
  const wanted = activate(activation.key === "gated" ? magnitudes(p, h_BS) : h_BS, mask_BS);
  using codes = sae.encode(trial.batches[0]!);
  using dense = codes.dense();
  const f_BS = Float64Array.from(await dense.read());
  assertExact(f_BS.map((f) => f === 0 ? 0 : 1), wanted.map((f) => f === 0 ? 0 : 1), "who fires");
  const { d_sae: S, d_model: D } = cfg;
  const sizes = sizesOf({ cfg, x_BD }, p).map((size, i) => {
    if (!p.r_mag) return size;
    return Math.exp(p.r_mag[i % S]!) * (size + Math.abs(p.b_enc[i % S]!)) + Math.abs(p.b_mag![i % S]!);
  });
  assertSumBound(f_BS, wanted, sizes, D + ROUNDINGS, "f_x");
  const prefixes = prefixesOf(trial, 0);
  using x_hats = sae.decode(codes, prefixes);
  const { mean, scale } = input;
  const x_hats_BPD = decode(f_BS, p.W_dec, p.b_dec, prefixes);
  const [f, W_dec, b_dec, offset] = [f_BS, p.W_dec, p.b_dec, Float64Array.from(mean ?? [0])]
    .map((values) => values.map(Math.abs));
  const ofTerms = unstandardise(decode(f!, W_dec!, b_dec!, prefixes), offset!, scale);
  assertSumBound(await x_hats.read(), unstandardise(x_hats_BPD, mean ?? [0], scale), ofTerms, S + ROUNDINGS, "x_hats");
}

/** Loss, gradients and counters of one step without a schedule. */
export async function checkLoss(trial: Trial, device: GPUDevice, changed: Partial<Reference> = {}): Promise<void> {
  // A controller's weight depends on the rate, which only training has.
  if (trial.objective.target_l0) return;
  const reference = { ...referenceOf(trial), ...changed };
  const input = await scalingOf(trial);
  using sae = await SparseAutoencoder.fromParameters(trial.cfg, parametersOf(trial), { device, input });
  using state = new TrainState(sae, { seed: trial.seed });
  state.tokens_since_active.write(trial.waited_S);
  const [x] = trial.batches;
  const k = "top_k" in trial.cfg.activation ? trial.cfg.activation.top_k : 0;
  const at = { step: 0, waited_S: trial.waited_S, x_BD: reference.input(x!, input), k };
  const problem = problemOf(trial, reference, trial.p, at);
  const right = lossAndGradients(problem, trial.p);
  checkConditioned(problem, trial.p, right);
  const step = getObjective(trial.objective).lossAndGradients(sae, x!, { state });
  using pending = step.loss;
  assertLoss(await pending.read(), right.record.loss);
  assertGradients(await readGradients(step.gradients), right.gradients);
  const counted = countSinceActive(trial.waited_S, right.record.f_BS);
  assertExact(await state.tokens_since_active.read(), counted, "rows since each latent last fired");
}

/**
 * Three steps of `train()`, each from the model's own numbers: rates, weights of the penalty, losses and gradients with what
 * the schedules say at that step, dead latents, and from the adapter's own gradients the parameters and moments after it.
 */
export async function checkTraining(trial: Trial, device: GPUDevice, changed: Partial<Reference> = {}): Promise<void> {
  const { cfg, batches, seed, n_steps } = trial;
  const reference = { ...referenceOf(trial), ...changed };
  const { optimizer = { key: "adam" }, grad_clip = false } = trial.train;
  const input = await scalingOf(trial);
  using sae = await SparseAutoencoder.fromParameters(cfg, parametersOf(trial), { device, input });
  const objective = getObjective(trial.objective);
  using state = new TrainState(sae, { seed, optimizer: optimizer.key });
  state.tokens_since_active.write(trial.waited_S);
  const options = { ...trial.train, state, log_every: 1, ...n_steps !== undefined && { n_steps } };
  // A step that float32 cannot decide leaves the loop early.
  await using steps = train(sae, objective, batches, options);
  let controller = FRESH;
  let n_thresholds = 0;
  for (let step = 0; step < N_STEPS; step++) {
    const where = ` of step ${step}`;
    const before = await state.read();
    const found = widen(await sae.parameters.read());
    const [start = 0] = await sae.threshold.read();
    const p = widen(found);
    if (cfg.normalize_w_dec) normalizeRows(p.W_dec, cfg.d_model);
    const lr = reference.rate(step);
    const problem = problemOf(trial, reference, p, {
      step,
      waited_S: before.tokens_since_active,
      x_BD: reference.input(batches[step]!, input),
      k: reference.k(step),
    });
    const { value: progress } = await steps.next();
    const { losses: [loss], lr: usedRate } = progress as Progress;
    assertScheduleClose([usedRate], [lr], `rate${where}`);

    const coeff = coefficientOf(problem.sparsity) * reference.penalty(step);
    const { target_l0 } = trial.objective;
    if (target_l0) {
      const { l0 } = forward(problem, p, decide(problem, p)).loss;
      const stepsToTarget = (n_steps ?? Infinity) / 3 - step;
      const { next, factor } = control(controller, {
        l0,
        target_l0,
        lr,
        stepsToTarget,
        isOnL0: isOnL0(problem.sparsity),
      });
      // The size of the two terms that the factor is the sum of, the second with a logarithm of about 1.
      const size = coeff * 14 * Math.cosh(next.integral);
      const roundings = CONTROL_ROUNDINGS * (step + 1);
      assertSumBound([loss!.sparsity_coeff], [coeff * factor], size, roundings, `weight of the penalty${where}`);
      controller = next;
    } else assertScalarClose(loss!.sparsity_coeff, coeff, `weight of the penalty${where}`);

    // With the adapter's own weight: near 0, a controller's has lost most of its digits.
    const weighted = { ...problem, sparsity: withCoefficient(problem.sparsity, loss!.sparsity_coeff) };
    const right = lossAndGradients(weighted, p);
    checkConditioned(weighted, p, right);
    assertLoss(loss!, right.record.loss, where);
    const gradients = await remainingGradients(trial, { found, state, wanted: right.gradients, step, device });
    assertScalarClose(loss!.grad_norm, clip(widen(gradients), false), `norm of the gradients${where}`);

    const factor = grad_clip === false ? 1 : Math.min(1, grad_clip / (loss!.grad_norm + 1e-6));
    const clipped = widen(gradients);
    for (const name of parameterNames(p)) clipped[name]!.forEach((g, i) => clipped[name]![i] = g * factor);
    const [after, now] = await Promise.all([state.read(), sae.parameters.read()]);
    assertUpdated(trial, { before, p, clipped, lr, step, after, now: widen(now) }, reference.nesterov);

    const { f_BS } = right.record;
    const counted = countSinceActive(before.tokens_since_active, f_BS);
    assertExact(after.tokens_since_active, counted, `rows since each latent last fired, step ${step}`);
    if (cfg.activation.key === "batch-top-k") {
      const at = leastPositive(f_BS);
      const least = at === undefined ? undefined : { f: f_BS[at]!, size: sizesOf(problem, p)[at]! };
      if (least) n_thresholds++;
      const want = estimated(cfg.activation, { start, least, n_thresholds });
      const got = await sae.threshold.read();
      assertSumBound(got, [want.value], want.size, cfg.d_model + ROUNDINGS, `threshold after step ${step}`);
    }
  }
}

/** What a step depends on. */
interface StepInput {
  readonly step: number;
  readonly waited_S: ArrayLike<number>;
  readonly x_BD: Float64Array;
  readonly k: number;
}

/** One step's problem, with the penalty's weight as it is configured. */
function problemOf(
  trial: Trial,
  { deadAfter }: Reference,
  p: Parameters,
  { step, waited_S, x_BD, k }: StepInput,
): Problem & { readonly sparsity: Sparsity } {
  const { activation } = trial.cfg;
  const ofStep = "top_k" in activation
    ? { ...activation, top_k: k }
    : activation.key === "jump-relu"
    ? { ...activation, bandwidth: activation.bandwidth * trial.pre_act_scale }
    : activation;
  const cfg = { ...trial.cfg, activation: ofStep };
  const sparsity = penaltyOf(trial);
  const alive = { cfg, x_BD, prefixes: prefixesOf(trial, step), dead_S: new Uint8Array(cfg.d_sae), sparsity };
  const { f_BS } = forward(alive, p, decide(alive, p));
  const problem = { ...alive, dead_S: dead(countSinceActive(waited_S, f_BS), deadAfter) };
  checkDecided(problem, p);
  return problem;
}

/** The penalty that the objective makes of the activation's. */
function penaltyOf({ cfg: { activation: { sparsity } }, objective }: Trial): Sparsity {
  const coeff = objective.key === "vanilla" ? objective.sparsity_coeff ?? null : null;
  if (coeff === null) return sparsity;
  return sparsity.key === "no-sparsity" ? { key: "l1-sparsity", coeff } : { ...sparsity, coeff };
}

function coefficientOf(sparsity: Sparsity): number {
  return sparsity.key === "no-sparsity" ? 0 : sparsity.coeff;
}

function withCoefficient(sparsity: Sparsity, coeff: number): Sparsity {
  return sparsity.key === "no-sparsity" ? sparsity : { ...sparsity, coeff };
}

/** Where the nested dictionaries of a step end. */
function prefixesOf({ cfg: { d_sae }, objective, seed }: Trial, step: number): readonly number[] {
  if (objective.key === "vanilla") return [d_sae];
  if (!objective.group_sizes) return samplePrefixes(d_sae, objective.n_prefixes!, { seed, step });
  return objective.group_sizes.map((_, i, sizes) => sizes.slice(0, i + 1).reduce((sum, size) => sum + size));
}

/** Mean and scale of the rows of all steps, as they are measured, and as they must be. */
async function scalingOf(
  { batches, standardise: kind, cfg: { d_model: D }, pre_act_scale }: Trial,
): Promise<InputScaling> {
  const rows = Float32Array.from(batches.flatMap((batch) => [...batch]));
  const scaling = await measureScaling(rowsOf(rows, D), kind);
  const mean_D = Float32Array.from(
    { length: kind === "mean" || kind === "mean_scale" ? D : 0 },
    (_, d) => rows.reduce((sum, value, i) => i % D === d ? sum + value : sum, 0) / (rows.length / D),
  );
  assertExact(scaling.mean ?? [], mean_D, "mean of the inputs");
  const squares = rows.reduce((sum, value, i) => sum + (value - (scaling.mean?.[i % D] ?? 0)) ** 2, 0);
  const size = Math.sqrt(squares / rows.length);
  const isScaled = kind === "scale" || kind === "mean_scale";
  assertExact([scaling.scale], [isScaled ? 2 ** Math.round(Math.log2(size)) : 1], "scale of the inputs");
  return { ...scaling, pre_act_scale };
}

function parametersOf({ cfg: { activation }, p, threshold }: Trial): ReturnType<typeof narrow> {
  return { ...narrow(p), ...activation.key === "batch-top-k" && { threshold: Float32Array.of(threshold) } };
}

function assertLoss(got: Loss, want: ReturnType<typeof forward>["loss"], where = ""): void {
  for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux"] as const) {
    assertScalarClose(got[name], want[name], `${name}${where}`);
  }
  assertEquals(got.n_dead, want.n_dead, `n_dead${where}`);
}

function assertGradients(got: Parameters, want: Parameters, where = ""): void {
  for (const name of parameterNames(want)) assertTensorClose(got[name]!, want[name]!, `grad_${name}${where}`);
}

async function readGradients(gradients: Gradients): Promise<Parameters> {
  return widen(await gradients.read());
}

/**
 * The adapter's gradients of the last step without their parallel parts, held against the reference's. Of a row that is all
 * parallel the remainder is rounding: it is held against what it is left of.
 */
async function remainingGradients(
  { cfg, train: { optimizer } }: Trial,
  { found, state, wanted, step, device }: {
    /** The parameters before the step. */
    readonly found: Parameters;
    readonly state: TrainState;
    readonly wanted: Parameters;
    readonly step: number;
    readonly device: GPUDevice;
  },
): Promise<Parameters> {
  const where = ` of step ${step}`;
  const whole = await readGradients(state.gradients);
  if (!cfg.remove_parallel_grads) {
    assertGradients(whole, wanted, where);
    return whole;
  }
  // Muon's gradient has lost them; Adam takes them away as it goes.
  const isAdam = optimizer?.key !== "muon";
  for (const name of parameterNames(wanted)) {
    if (isAdam || name !== "W_dec") assertTensorClose(whole[name]!, wanted[name]!, `grad_${name}${where}`);
  }
  const rows_SD = widen(found).W_dec;
  if (cfg.normalize_w_dec) normalizeRows(rows_SD, cfg.d_model);
  const remainder_SD = wanted.W_dec.slice();
  removeParallel(remainder_SD, rows_SD, cfg.d_model);
  if (isAdam) {
    using copy = await SparseAutoencoder.fromParameters(cfg, narrow(found), { device });
    copy.normalizeWDec();
    copy.removeParallelGrads(state.gradients);
  }
  const rest = await readGradients(state.gradients);
  const size = Math.hypot(...wanted.W_dec);
  assertVanishes(rest.W_dec.map((g, i) => g - remainder_SD[i]!), size, `remainder of grad_W_dec${where}`);
  return rest;
}

/** Parameters and moments are those of one update from the numbers before it. */
function assertUpdated(
  { cfg: { d_model }, train: { optimizer } }: Trial,
  { before, p, clipped, lr, step, after, now }: {
    readonly before: TrainStateData;
    /** With unit rows already. */
    readonly p: Parameters;
    readonly clipped: Parameters;
    readonly lr: number;
    readonly step: number;
    readonly after: TrainStateData;
    readonly now: Parameters;
  },
  nesterov: boolean,
): void {
  const isMuon = optimizer?.key === "muon";
  const isMatrix = (name: string) => isMuon && (name === "W_enc" || name === "W_dec");
  const [m, v] = [widen(before.moment1), widen(before.moment2)];
  const wanted = widen(p);
  const state = { ...initialState(p), step: step + 1, m, v };
  const { momentum = MUON.momentum, weight_decay: decay = MUON.weight_decay } = isMuon ? optimizer : {};
  if (isMuon) {
    updateWithMuon(wanted, clipped, state, { lr, momentum, weight_decay: decay, nesterov });
  } else adam(wanted, clipped, state, lr);
  for (const name of parameterNames(p)) {
    const where = `${name} after step ${step}`;
    const share = 1 - (isMatrix(name) ? momentum : 0.9);
    const sizes = clipped[name]!.map((g, i) => {
      const mean = Math.abs(before.moment1[name]![i]!);
      return mean + share * (Math.abs(g) + mean);
    });
    assertSumBound(after.moment1[name]!, m[name]!, sizes, ROUNDINGS, `first moment of ${where}`);
    if (isMatrix(name)) {
      assertTensorClose(now[name]!, wanted[name]!, where);
      continue;
    }
    assertSumBound(after.moment2[name]!, v[name]!, v[name]!, ROUNDINGS, `second moment of ${where}`);
    // An update's size is that of the two terms of its first moment.
    const moved = sizes.map((size, i) => {
      const change = Math.abs(wanted[name]![i]! - p[name]![i]!);
      const mean = Math.abs(m[name]![i]!);
      return mean === 0 ? lr : change * size / mean;
    });
    const parts = p[name]!.map((theta, i) => Math.abs(theta) + moved[i]!);
    assertSumBound(now[name]!, wanted[name]!, parts, ROUNDINGS + (name === "W_dec" ? d_model : 0), where);
  }
}

/** The place of the smallest code above 0, if there is one. */
function leastPositive(f_BS: Float64Array): number | undefined {
  let least: number | undefined;
  for (const [i, f] of f_BS.entries()) if (f > 0 && (least === undefined || f < f_BS[least]!)) least = i;
  return least;
}

/** θ ← (1 − s) θ + s · min{f > 0}, s = m, or corrected for the start m / (1 − (1 − m)ᵗ), and the size of its terms. */
function estimated(
  { momentum, bias_correction }: { readonly momentum: number; readonly bias_correction: boolean },
  { start, least, n_thresholds }: {
    readonly start: number;
    /** The smallest code above 0, and the size of its terms; without one, the threshold stays. */
    readonly least: { readonly f: number; readonly size: number } | undefined;
    readonly n_thresholds: number;
  },
): { readonly value: number; readonly size: number } {
  if (!least) return { value: start, size: 0 };
  const share = bias_correction ? momentum / (1 - (1 - momentum) ** n_thresholds) : momentum;
  return { value: start + share * (least.f - start), size: share * least.size + (1 + share) * start };
}
