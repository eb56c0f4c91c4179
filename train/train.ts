/**
 * The training loop.
 *
 * One step, in upstream's order: rows of W_dec made unit length, loss and gradients, the parallel part of grad_W_dec
 * removed, gradients clipped by their global norm, Adam or Muon. All of it is one submission to the GPU without waiting;
 * losses stay there and come back together.
 *
 * @module
 */

import { Commands } from "../kernels/commands.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import { Tensor } from "../kernels/tensor.ts";
import { GradientNorm, type OptimizerOptions, updateParameters } from "../nn/adam.ts";
import { Muon } from "../nn/muon.ts";
import { type Schedule, warmup, warmupCosine } from "../nn/schedule.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { TrainState } from "../nn/train_state.ts";
import {
  LOSS,
  type Loss,
  LOSS_WIDTH,
  lossOf,
  type Objective,
  recordLossAndGradients,
  type StepSchedule,
} from "../objectives/objective.ts";
import { type Batches, evaluate } from "./evaluate.ts";
import type { Metrics } from "./metrics.ts";

/** The numbers of one training step. */
export interface TrainLoss extends Loss {
  /** Norm of all gradients before clipping. */
  readonly grad_norm: number;
  /** Norm of each parameter's gradient before clipping; 0 for the thresholds that only a JumpReLU trains. */
  readonly grad_norms: Readonly<Record<"W_enc" | "b_enc" | "W_dec" | "b_dec" | "threshold", number>>;
}

/** What {@link train} yields. */
export interface Progress {
  /** Updates done since the state was new. */
  readonly step: number;
  /** One for each step since the last yield, in order. */
  readonly losses: readonly TrainLoss[];
  /** Learning rate of the last step. */
  readonly lr: number;
  /** The newest validation, if there was one since the last yield. */
  readonly validation?: Metrics;
}

/** How {@link train} trains. */
export interface TrainOptions {
  /** Peak learning rate; 4e-4 if left out. */
  readonly lr?: number;
  /** Steps of linear warm-up from 0; 500 if left out. */
  readonly n_lr_warmup?: number;
  /** Ends training after so many steps, with the rate going down to 0 along half a cosine; constant and endless if left out. */
  readonly n_steps?: number;
  /** Steps in which the penalty's weight grows from 0 to what it is; 0 if left out. */
  readonly n_sparsity_warmup?: number;
  /** What a TopK or BatchTopK keeps a row at first, going in a straight line to its `top_k`; that from the start if left out. */
  readonly k_start?: number;
  /** Steps of that line. */
  readonly n_k_warmup?: number;
  /** Adam if left out. Muon costs about 20 · min(d_model, d_sae) / B encoder products more a step. */
  readonly optimizer?: OptimizerOptions;
  /** Largest norm of all gradients together; 1 if left out, `null` for no clipping. */
  readonly grad_clip?: number | null;
  /** Steps between yields; 25 if left out. It never changes a bit of the result. */
  readonly log_every?: number;
  /** Stops after the step under way: the losses so far are yielded, and the loop ends. */
  readonly signal?: AbortSignal;
  /** Moments of the same optimizer and counters to go on with; a fresh state if left out. The caller's to dispose of. */
  readonly state?: TrainState;
  /** Evaluates these batches after every `every` steps. */
  readonly validation?: { readonly every: number; readonly batches: () => Batches };
}

/** A run that cannot go on: a number was not finite, or the loss exploded. The model has the last good values. */
export class DivergenceError extends Error {
  /** Always `"DivergenceError"`. */
  override readonly name = "DivergenceError";
  /** The step, counted from 0, whose numbers were bad. */
  readonly step: number;
  /** What went wrong first: `x`, `f_x`, `x_hat`, `aux`, or a gradient. */
  readonly tensor: string;

  /** Of `tensor` at `step`. */
  constructor(step: number, tensor: string, what: string) {
    super(`training stopped at step ${step}: ${tensor} ${what}`);
    this.step = step;
    this.tensor = tensor;
  }
}

/** The loss may grow by this factor over its first value before the run counts as diverged. */
const EXPLODED = 1e4;

/** Places after {@link LOSS} in a row of losses. */
const GRAD_NORM = 9;
const GRAD_SQUARES = 10;
const FIRST_MSE = 15;

/**
 * Trains a model on batches of rows, each a `Float32Array` of whole rows or a [B, d_model] tensor (which stays the caller's).
 *
 * Yields after every `log_every` steps, and once more for the rest at the end. Leaving the loop early leaves the model at
 * the yielded step.
 *
 * The rate of step t = 0, 1, … is 0 at t = 0 and then that of upstream's schedulers: warm-up, and with `n_steps` the cosine.
 *
 * @example
 * ```ts
 * import { getObjective, SparseAutoencoder } from "@saev/nn";
 * import { train } from "@saev/nn/train";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const batch = Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i));
 * const batches = Array.from({ length: 10 }, () => batch);
 * for await (const { step, losses } of train(sae, getObjective({ key: "matryoshka", n_prefixes: 2 }), batches)) {
 *   console.log(step, losses.at(-1)!.mse);
 * }
 * ```
 *
 * @throws {DivergenceError} if a loss or gradient is not finite, or the loss explodes.
 * @throws {ShapeError} if a batch is not a whole number of rows.
 * @throws {RangeError} for an option outside its range.
 * @throws {DeviceError} if the GPU goes away.
 */
export async function* train(
  sae: SparseAutoencoder,
  objective: Objective,
  batches: Batches,
  options: TrainOptions = {},
): AsyncGenerator<Progress, void, void> {
  const { log_every = 25, grad_clip = 1, signal, validation, n_steps = Infinity } = options;
  const { optimizer = { key: "adam" } } = options;
  wholeNumber("log_every", log_every, 1);
  if (n_steps !== Infinity) wholeNumber("n_steps", n_steps, 0);
  if (validation) wholeNumber("validation.every", validation.every, 1);
  if (grad_clip !== null && !(grad_clip > 0)) throw new RangeError(`grad_clip must be positive, found ${grad_clip}`);
  const rate = learningRate(options);
  const schedule = stepSchedule(sae.cfg, options);
  using stack = new DisposableStack();
  const state = options.state ?? stack.use(new TrainState(sae, { optimizer: optimizer.key }));
  if (state.optimizer !== optimizer.key) {
    throw new RangeError(`the state has moments of ${state.optimizer}, and the optimizer is ${optimizer.key}`);
  }
  const muon = optimizer.key === "muon" ? stack.use(new Muon(sae, optimizer)) : undefined;
  const norm = stack.use(new GradientNorm(sae));
  const losses = stack.use(new Tensor(sae.context, "f32", [log_every, LOSS_WIDTH], "losses"));
  const commands = new Commands(sae.context);
  let waiting = 0;
  let validated: Metrics | undefined;

  const report = async (): Promise<Progress> => {
    const rows = await losses.read();
    const read = Array.from(
      { length: waiting },
      (_, slot) => rows.subarray(slot * LOSS_WIDTH, (slot + 1) * LOSS_WIDTH),
    );
    read.forEach((row, index) => checkRow(row, state.step - waiting + index));
    const found = read.map((row) => ({ ...lossOf(row), grad_norm: row[GRAD_NORM]!, grad_norms: gradNorms(row) }));
    const progress = { step: state.step, losses: found, lr: rate(state.step - 1) };
    waiting = 0;
    const result = validated ? { ...progress, validation: validated } : progress;
    validated = undefined;
    return result;
  };

  if (state.step >= n_steps || signal?.aborted) return;
  for await (const x of batches) {
    sae.recordNormalizeWDec(commands, state.halted);
    const into = { losses, slot: waiting };
    const gradients = recordLossAndGradients(commands, objective, sae, x, {
      state,
      into,
      schedule: schedule(state.step),
    });
    norm.record(commands, sae, gradients, grad_clip ?? Infinity);
    const { squares } = norm;
    const { halted, firstMse } = state;
    commands.run(verdictKernel, {
      slots: log_every,
      slot: waiting,
      squares,
      norm: norm.norm,
      losses,
      halted,
      firstMse,
    });
    updateParameters(commands, sae, { state, norm, lr: rate(state.step), muon });
    commands.submit();
    state.step++;
    waiting++;
    if (validation && state.step % validation.every === 0) validated = await evaluate(sae, validation.batches());
    if (waiting === log_every) yield await report();
    if (state.step >= n_steps || signal?.aborted) break;
  }
  if (waiting > 0) yield await report();
}

function gradNorms(row: Float32Array): TrainLoss["grad_norms"] {
  const norm = (at: number) => Math.sqrt(row[GRAD_SQUARES + at]!);
  return { W_enc: norm(2), b_enc: norm(3), W_dec: norm(0), b_dec: norm(1), threshold: norm(4) };
}

/** The rate of step t = 0, 1, …; upstream's first step has rate 0 whatever the schedule. */
function learningRate({ lr = 4e-4, n_lr_warmup = 500, n_steps }: TrainOptions): (step: number) => number {
  if (!(lr >= 0 && Number.isFinite(lr))) throw new RangeError(`lr must be a non-negative number, found ${lr}`);
  wholeNumber("n_lr_warmup", n_lr_warmup, 0);
  const schedule: Schedule = n_steps === undefined
    ? warmup(0, lr, n_lr_warmup)
    : warmupCosine(0, n_lr_warmup, lr, n_steps, 0);
  return (step) => step === 0 ? 0 : schedule.at(step);
}

/** What the penalty is multiplied with, and what a row keeps, at step t = 0, 1, … */
function stepSchedule(
  { activation, d_sae }: SparseAutoencoder["cfg"],
  { n_sparsity_warmup = 0, k_start, n_k_warmup }: TrainOptions,
): (step: number) => StepSchedule {
  wholeNumber("n_sparsity_warmup", n_sparsity_warmup, 0);
  const sparsity = warmup(0, 1, n_sparsity_warmup);
  if ((k_start === undefined) !== (n_k_warmup === undefined)) {
    throw new TypeError("k_start and n_k_warmup belong together; only one of them is there");
  }
  if (k_start === undefined || n_k_warmup === undefined) {
    return (step) => ({ sparsity: sparsity.at(step), top_k: null, mostK: null });
  }
  wholeNumber("k_start", k_start, 1);
  wholeNumber("n_k_warmup", n_k_warmup, 1);
  if (!("top_k" in activation)) throw new TypeError(`a ${activation.key} keeps no k, so k_start says nothing about it`);
  const first = Math.min(k_start, d_sae);
  const k = warmup(first, activation.top_k, n_k_warmup);
  const mostK = Math.max(first, activation.top_k);
  return (step) => ({ sparsity: sparsity.at(step), top_k: Math.round(k.at(step)), mostK });
}

function wholeNumber(name: string, found: number, least: number): void {
  if (!Number.isSafeInteger(found) || found < least) {
    throw new RangeError(`${name} must be an integer of at least ${least}, found ${found}`);
  }
}

/** @throws {DivergenceError} naming the first thing, in the order of the step, that is not finite. */
function checkRow(row: Float32Array, step: number): void {
  const numbers: [tensor: string, value: number][] = [
    ["x", row[LOSS.largest_x]!],
    ["f_x", row[LOSS.l1]!],
    ["x_hat", row[LOSS.mse]!],
    ["aux", row[LOSS.aux]!],
    ["grad_W_dec", row[GRAD_SQUARES]!],
    ["grad_b_dec", row[GRAD_SQUARES + 1]!],
    ["grad_W_enc", row[GRAD_SQUARES + 2]!],
    ["grad_b_enc", row[GRAD_SQUARES + 3]!],
    ["grad_threshold", row[GRAD_SQUARES + 4]!],
    ["the gradient", row[GRAD_NORM]!],
  ];
  for (const [tensor, value] of numbers) {
    if (!Number.isFinite(value)) throw new DivergenceError(step, tensor, "has a value that is not finite");
  }
  const [mse, first] = [row[LOSS.mse]!, row[FIRST_MSE]!];
  if (mse > EXPLODED * first) {
    throw new DivergenceError(step, "x_hat", `has a squared error of ${mse}, and began with ${first}`);
  }
}

/** Notes the norms, and halts the run at the first bad step, before anything is updated. */
const verdictKernel = defineKernel({
  name: "verdict",
  dims: ["slots", "slot"],
  bindings: {
    squares: reads("f32", "5"),
    norm: reads("f32", "1"),
    losses: writes("f32", `slots ${LOSS_WIDTH}`),
    halted: writes("u32", "1"),
    firstMse: writes("f32", "1"),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 * LOSS_WIDTH }),
  declarations: `
fn finite(value: f32) -> bool { return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u; }
`,
  body: `
  let first = dims.slot * ${LOSS_WIDTH}u;
  losses[first + ${GRAD_NORM}u] = norm[0];
  for (var i = 0u; i < 5u; i += 1u) { losses[first + ${GRAD_SQUARES}u + i] = squares[i]; }
  let mse = losses[first + ${LOSS.mse}u];
  if (firstMse[0] == 0.0 && finite(mse)) { firstMse[0] = mse; }
  losses[first + ${FIRST_MSE}u] = firstMse[0];
  if (mse > ${EXPLODED}.0 * firstMse[0]) { halted[0] = 1u; }
  if (!finite(norm[0]) || !finite(losses[first + ${LOSS.loss}u]) || !finite(losses[first + ${LOSS.largest_x}u])) {
    halted[0] = 1u;
  }`,
});
