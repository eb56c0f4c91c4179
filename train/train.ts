/**
 * The training loop, for one model or several on the same batches.
 *
 * One step, in upstream's order: normalise the rows of W_dec, compute loss and gradients, remove the parallel part of
 * grad_W_dec, clip gradients by their global norm, and update with Adam or Muon. The step of all models is one
 * submission to the GPU without waiting; losses stay on the GPU and are read together.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";
import { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../kernels/engine/kernel.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { Tensor } from "../kernels/engine/tensor.ts";
import { activationKind } from "../nn/activations/mod.ts";
import { checkOptimizer, GradientNorm, updateParameters } from "../nn/optim/adam.ts";
import { Muon } from "../nn/optim/muon.ts";
import { type Schedule, warmup, warmupCosine } from "../nn/optim/schedule.ts";
import { checkBatchFits } from "../nn/limits.ts";
import { auxCapabilities } from "../nn/loss_terms.ts";
import { type Batch, type Batches, checkBatches, isRowSource, type RowSource } from "../nn/rows.ts";
import { checkWidth, countRows, type SparseAutoencoder, valuesOf } from "../nn/sparse_autoencoder.ts";
import { PARAMETERS } from "../nn/parameters.ts";
import { RECENT_ERRORS, TrainState } from "../nn/state.ts";
import { type LossRow, lossRow, PLACES, RECORD_WIDTH, type TrainLoss, trainLossOf } from "../objectives/loss_record.ts";
import type { StepSchedule } from "../objectives/loss_term.ts";
import { type Objective, recordLossAndGradients, stepBuffers } from "../objectives/objective.ts";
import { shuffledBatches } from "../data/order.ts";
import { evaluate } from "../eval/evaluate.ts";
import type { Metrics } from "../eval/metrics.ts";
import { Pace } from "./pace.ts";
import { type ModelOptions, TRAIN_DEFAULTS } from "./options.ts";
import { trainingWarnings } from "./warnings.ts";

/** What {@link train} yields. */
export interface Progress {
  /** Updates since the state was new. */
  readonly step: number;
  /** One loss per step since the last yield, in order. */
  readonly losses: readonly TrainLoss[];
  /** Learning rate of the last step. */
  readonly lr: number;
  /** The latest validation, if there was one since the last yield. */
  readonly validation?: Metrics;
  /**
   * The number of last steps in a row whose squared error exceeded 10⁴ times the median of the 16 before; normally 0.
   * At 3 the run ends.
   */
  readonly stepsAbove: number;
  /** Why {@link trainMany} no longer trains this model; {@link train} throws it. */
  readonly diverged?: DivergenceError;
}

/** Options shared by models that train together. */
export interface LoopOptions {
  /**
   * Ends training after this many steps, with the rate falling to 0 along half a cosine. If left out, the rate is
   * constant and training continues until the batches end. Fewer batches are an error.
   */
  readonly n_steps?: number;
  /** Steps between yields; 25 if left out. Never changes a bit of the result. */
  readonly log_every?: number;
  /** Stops after the steps in flight: the losses so far are yielded, and the loop ends. */
  readonly signal?: AbortSignal;
  /** Evaluates these batches, or the rows of this source, every `every` steps. */
  readonly validation?: { readonly every: number; readonly batches: () => Batches | RowSource };
  /** Rows of a {@link RowSource} per step; 4096 if left out. Batches have their own size. */
  readonly batch_size?: number;
  /** Seed of the order of a {@link RowSource}; 0 if left out. */
  readonly seed?: number;
  /**
   * Called once for each setting that this training cannot use, with a line that also gives the remedy: a warm-up
   * longer than the training, too few rows for a latent to count as dead, a `top_k` that keeps everything. Called
   * before the first step, or at the end if `n_steps` is left out. `model` is the index in the list of {@link
   * trainMany}.
   */
  readonly onWarning?: (warning: string, model: number) => void;
}

/** Options of {@link train}. */
export interface TrainOptions extends ModelOptions, LoopOptions {}

/** One model of {@link trainMany}. */
export interface Training {
  /** The model. */
  readonly sae: SparseAutoencoder;
  /** The objective to minimise. */
  readonly objective: Objective;
  /** Its options. */
  readonly options?: ModelOptions;
}

const LOOP_OPTIONS = {
  n_steps: true,
  log_every: true,
  signal: true,
  validation: true,
  batch_size: true,
  seed: true,
  onWarning: true,
} as const satisfies Record<keyof LoopOptions, true>;
const MODEL_OPTIONS = {
  lr: true,
  n_lr_warmup: true,
  n_sparsity_warmup: true,
  k_start: true,
  n_k_warmup: true,
  optimizer: true,
  grad_clip: true,
  state: true,
} as const satisfies Record<keyof ModelOptions, true>;

/**
 * A run that cannot continue. It halts at the first step with a number that is not finite, or at the third step in a
 * row whose squared error exceeds 10⁴ times the median of the last 16 that were finite and not zero. A single batch of
 * outliers or padding does not end a run.
 *
 * The first two steps above the bound update the model as usual. The step that halts, and any already in flight after
 * it, change nothing: the model and its state are those after `step` updates. The last good checkpoint is that of the
 * last step with {@link Progress.stepsAbove} 0; if the rows were at fault, the model itself is still good.
 */
export class DivergenceError extends Error {
  /** Always `"DivergenceError"`. */
  override readonly name = "DivergenceError";
  /** The step that halted the run, counted from 0; equals the number of updates. */
  readonly step: number;
  /** What went wrong first: `x`, `f_x`, `x_hat`, `sparsity`, `aux`, their sum `loss`, or a gradient. */
  readonly tensor: string;

  /** Whether the rows of the step, and not the model, were at fault: not finite, or too large for float32. */
  readonly isOfRows: boolean;

  /** `what` says what is wrong with `tensor` at `step`, and what to do. */
  constructor(step: number, tensor: string, what: string, { isOfRows = false }: { readonly isOfRows?: boolean } = {}) {
    super(`training stopped at step ${step}: ${tensor} ${what}`);
    this.step = step;
    this.tensor = tensor;
    this.isOfRows = isOfRows;
  }
}

/** The bound on a squared error relative to the earlier median, and how many steps in a row above it halt a run. */
const EXPLODED = 1e4;
const MAX_ABOVE = 3;

/** Beyond this size of inputs, squared gradients may overflow float32. */
const HUGE = 1e6;

/**
 * Trains a model on batches of rows, or on the rows of a source.
 *
 * A batch is {@link Rows} as loaders yield them, a tensor [B, d_model] (which stays the caller's), or a bare
 * `Float32Array` of whole rows, whose width cannot be checked. A source is read as by `shuffledBatches`, `batch_size`
 * rows per step in the order of `seed`, from the state's step on, so that a resumed run sees the same rows as one that
 * never stopped. A source has no end, so it requires `n_steps`.
 *
 * Yields after every `log_every` steps, and once more for the rest at the end. Leaving the loop early leaves the model
 * at the yielded step.
 *
 * The learning rate follows upstream's schedulers: 0 at step 0, then the warm-up, and with `n_steps` the cosine.
 *
 * @example
 * ```ts
 * import { getObjective, SparseAutoencoder } from "@saev/nn";
 * import { rowsOf } from "@saev/nn/data";
 * import { train } from "@saev/nn/train";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const rows = rowsOf(Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i)), 8);
 * const objective = getObjective({ key: "matryoshka", n_prefixes: 2 });
 * for await (const { step, losses } of train(sae, objective, rows, { batch_size: 16, n_steps: 10, n_lr_warmup: 2 })) {
 *   console.log(step, losses.at(-1)!.mse);
 * }
 * ```
 *
 * @throws {DivergenceError} if a loss or gradient is not finite, or the squared error explodes.
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} for an option outside its range, a state of another model, a model or state that another loop is
 * training, or (after the last yield) fewer batches than `n_steps`.
 * @throws {DeviceError} if the GPU is lost, cannot hold a batch, or lacks memory for training. In the last case the
 * model is unchanged and can be trained with smaller batches.
 */
export async function* train(
  sae: SparseAutoencoder,
  objective: Objective,
  batches: Batches | RowSource,
  options: TrainOptions = {},
): AsyncGenerator<Progress, void, void> {
  checkOptions("train", options, { ...LOOP_OPTIONS, ...MODEL_OPTIONS });
  for await (const [progress] of trainTogether([{ sae, objective, options }], batches, options)) {
    if (progress!.diverged) throw progress!.diverged;
    yield progress!;
  }
}

/**
 * Trains several models of one device on the same batches, which are uploaded once. Every model ends with the same bits
 * as if {@link train} had trained it alone.
 *
 * Yields as {@link train} does, with the progress of each model at its index. A model that cannot continue has
 * `diverged` set and stays as described at {@link DivergenceError}; the others continue.
 *
 * Models of the same kind share dispatches, for which their arrays move into common buffers; memory is freed when the
 * last of the models and states is disposed of. Models may differ in size and in every number. This helps where one
 * model is too small to keep the GPU busy.
 *
 * @example
 * ```ts
 * import { getObjective, SparseAutoencoder } from "@saev/nn";
 * import { trainMany } from "@saev/nn/train";
 *
 * using models = new DisposableStack();
 * const trainings = [];
 * for (const lr of [1e-3, 1e-4]) {
 *   const activation = { key: "top-k", top_k: 4 } as const;
 *   const sae = models.use(await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation }));
 *   trainings.push({ sae, objective: getObjective({ key: "vanilla" }), options: { lr } });
 * }
 * const batch = Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i));
 * for await (const progress of trainMany(trainings, [batch, batch, batch])) {
 *   console.log(progress.map(({ losses }) => losses.at(-1)!.mse));
 * }
 * ```
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} for an option outside its range, models of several devices or widths, states at several steps, a
 * model or state that another loop is training, or (after the last yield) fewer batches than `n_steps`.
 * @throws {DeviceError} if the GPU is lost, cannot hold a batch, or lacks memory for training. In the last case the
 * models are unchanged and can be trained with smaller batches.
 */
export async function* trainMany(
  trainings: readonly Training[],
  batches: Batches | RowSource,
  options: LoopOptions = {},
): AsyncGenerator<readonly Progress[], void, void> {
  checkOptions("trainMany", options, LOOP_OPTIONS);
  for (const training of trainings) {
    checkOptions("a training", training, { sae: true, objective: true, options: true });
    checkOptions("a training's options", training.options ?? {}, MODEL_OPTIONS);
  }
  yield* trainTogether(trainings, batches, options);
}

/** The loop itself. */
async function* trainTogether(
  trainings: readonly Training[],
  batches: Batches | RowSource,
  options: LoopOptions,
): AsyncGenerator<readonly Progress[], void, void> {
  const { log_every = TRAIN_DEFAULTS.log_every, signal, validation, n_steps = Infinity, onWarning } = options;
  wholeNumber("log_every", log_every, 1);
  if (n_steps !== Infinity) wholeNumber("n_steps", n_steps, 0);
  if (validation) {
    checkOptions("validation", validation, { every: true, batches: true });
    wholeNumber("validation.every", validation.every, 1);
  }
  checkTogether(trainings);
  checkRows(batches, trainings, options);
  using stack = new DisposableStack();
  for (const { sae, options } of trainings) claim(stack, sae, options?.state);
  const trainers: Trainer[] = [];
  for (const training of trainings) {
    const { cfg: { d_sae, d_model }, context } = training.sae;
    const what = `training a model of d_sae ${d_sae} and d_model ${d_model}`;
    trainers.push(stack.use(await context.making(what, () => new Trainer(training, { log_every, n_steps }))));
  }
  const [first] = trainers;
  if (!first) return;
  const step = first.state.step;
  if (trainers.some(({ state }) => state.step !== step)) {
    throw new RangeError(
      `all states must be at the same step, found ${trainers.map(({ state }) => state.step).join(", ")}`,
    );
  }
  const uploads = stack.use(new Uploads(first.sae));
  const warn = (steps: number, rows: number) => {
    if (!onWarning) return;
    for (const [model, { sae: { cfg }, objective, options = {} }] of trainings.entries()) {
      const prospect = { cfg, objective, options, n_steps: steps, n_tokens: trainers[model]!.state.n_tokens + rows };
      for (const warning of trainingWarnings(prospect)) onWarning(warning, model);
    }
  };
  const pace = new Pace(() => first.sae.context.settled(first.sae.device.queue.onSubmittedWorkDone()));
  const taken = isRowSource(batches) ? sourceBatches(batches, step, options) : batches;
  let active: readonly Trainer[] = trainers;
  let room = 0;
  const makeRoom = async (n_rows: number): Promise<void> => {
    if (n_rows === room) return;
    for (const trainer of active) {
      await first.sae.context.making(`training with batches of ${n_rows} rows`, () => trainer.buffers(n_rows));
    }
    room = n_rows;
  };
  const failures: unknown[] = [];
  // If the next batch cannot be read, the steps before it are reported first.
  const uploaded = async function* (): AsyncGenerator<Tensor> {
    try {
      for await (const batch of taken) {
        await makeRoom(countRows(batch, first.sae));
        yield uploads.take(batch);
      }
    } catch (error) {
      failures.push(error);
    }
  };
  let done = step;
  if (done >= n_steps || signal?.aborted) return;
  for await (const x of uploaded()) {
    if (done === step && n_steps !== Infinity) warn(n_steps, (n_steps - step) * x.shape[0]!);
    for (const trainer of active) trainer.recordStep(x);
    Commands.submitTogether(active.map(({ commands }) => commands));
    done++;
    await pace.step();
    if (validation && done % validation.every === 0) {
      for (const trainer of active) await trainer.validate(validation.batches());
    }
    if ((done - step) % log_every === 0) {
      yield await Promise.all(trainers.map((trainer) => trainer.report()));
      active = active.filter(({ diverged }) => !diverged);
      pace.restart();
    }
    if (done >= n_steps || signal?.aborted || active.length === 0) break;
  }
  if ((done - step) % log_every !== 0) yield await Promise.all(trainers.map((trainer) => trainer.report()));
  const [failure] = failures;
  if (failures.length > 0 && !(signal?.aborted && failure === signal.reason)) throw failure;
  if (signal?.aborted || trainers.every(({ diverged }) => diverged)) return;
  if (n_steps === Infinity) warn(done, 0);
  else if (done < n_steps) {
    throw new RangeError(`batches ended after ${done} of ${n_steps} steps; give more batches, or a smaller n_steps`);
  }
}

/** Models and states that a loop is training. */
const claimed = new WeakSet<object>();

/** @throws {RangeError} for a model or state that another loop is training; two loops would mix their steps. */
function claim(stack: DisposableStack, sae: SparseAutoencoder, state: TrainState | undefined): void {
  for (const [what, owned] of [["model", sae], ["state", state]] as const) {
    if (!owned) continue;
    if (claimed.has(owned)) {
      throw new RangeError(`another loop is training this ${what}; leave that loop first, or call its return()`);
    }
    claimed.add(owned);
    stack.defer(() => claimed.delete(owned));
  }
}

/** @throws {RangeError} for models that cannot train on the same batches. */
function checkTogether(trainings: readonly Training[]): void {
  const models = trainings.map(({ sae }) => sae);
  const states: unknown[] = trainings.flatMap(({ options }) => options?.state ?? []);
  const distinct = (values: readonly unknown[]) => new Set(values).size;
  if (distinct(models) < models.length || distinct(states) < states.length) {
    throw new RangeError("a model or a state is given to several trainings; each can belong to only one at a time");
  }
  const widths = models.map(({ cfg: { d_model } }) => d_model);
  if (distinct(widths) > 1) {
    throw new RangeError(`models that train together need the same d_model, found ${widths.join(", ")}`);
  }
  if (distinct(models.map(({ device }) => device)) > 1) {
    throw new RangeError("models that train together need the same device, found several");
  }
}

/** The batches of a source from a given step on. */
function sourceBatches(source: RowSource, firstStep: number, options: LoopOptions): Batches {
  const { batch_size = TRAIN_DEFAULTS.batch_size, seed = TRAIN_DEFAULTS.seed, n_steps = Infinity } = options;
  return shuffledBatches(source, { batch_size, seed, n_steps, firstStep });
}

/**
 * @throws {ShapeError} if a source has rows of another width.
 * @throws {RangeError | DeviceError} if a batch has more rows than a step takes.
 * @throws {TypeError} if a source is given without `n_steps`, there are no batches, or batches are given with a size or
 * seed.
 */
function checkRows(
  batches: Batches | RowSource,
  trainings: readonly Training[],
  { n_steps, batch_size, seed }: LoopOptions,
): void {
  checkBatches(batches);
  if (isRowSource(batches)) {
    for (const { sae } of trainings) {
      checkWidth(batches, sae);
      checkBatchFits(sae.cfg, {
        context: sae.context,
        n_rows: batch_size ?? TRAIN_DEFAULTS.batch_size,
        training: true,
      });
    }
    if (n_steps === undefined) throw new TypeError("training on a source of rows would never end; give n_steps");
    return;
  }
  const given = Object.entries({ batch_size, seed }).find(([, value]) => value !== undefined);
  if (given === undefined) return;
  throw new TypeError(
    `${
      given[0]
    } says how a source of rows is taken; these are batches, which have a size and an order. Leave it out, or ` +
      "give the source",
  );
}

/** Sizes of batches that keep their buffer: the usual one, and the shorter last batch of a pass. */
const KEPT_UPLOADS = 2;

/** Uploads batches. The queue orders each write after the steps before it. */
class Uploads implements Disposable {
  readonly #sae: SparseAutoencoder;
  readonly #tensors: Tensor[] = [];

  constructor(sae: SparseAutoencoder) {
    this.#sae = sae;
  }

  /** [B, D]; arrays are copied into the buffer that the next batch of the same size will reuse. */
  take(batch: Batch): Tensor {
    const { cfg: { d_model }, context } = this.#sae;
    const n_rows = countRows(batch, this.#sae);
    const x = valuesOf(batch);
    if (x instanceof Tensor) return x;
    const at = this.#tensors.findIndex(({ shape }) => shape[0] === n_rows);
    const tensor = at >= 0 ? this.#tensors.splice(at, 1)[0]! : new Tensor(context, "f32", [n_rows, d_model], "x");
    this.#tensors.unshift(tensor);
    for (const old of this.#tensors.splice(KEPT_UPLOADS)) old[Symbol.dispose]();
    tensor.write(x);
    return tensor;
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#tensors.splice(0)) tensor[Symbol.dispose]();
  }
}

/** One model's part of every step. */
class Trainer implements Disposable {
  readonly sae: SparseAutoencoder;
  readonly state: TrainState;
  /** The commands that the next step is recorded into. */
  readonly commands: Commands;
  /** Why it cannot continue. */
  diverged: DivergenceError | undefined;
  readonly #objective: Objective;
  readonly #rate: (step: number) => number;
  readonly #schedule: (step: number) => ModelSchedule;
  /** From this step on the L0 controller aims at the target itself. */
  readonly #atTarget: number;
  readonly #mostNorm: number;
  readonly #muon: Muon | undefined;
  readonly #norm: GradientNorm;
  readonly #losses: Tensor;
  readonly #owned: DisposableStack;
  /** Rows of each step since the last report. */
  #waiting: number[] = [];
  #stepsAbove = 0;
  #validated: Metrics | undefined;

  constructor(
    { sae, objective, options = {} }: Training,
    loop: { readonly log_every: number; readonly n_steps: number },
  ) {
    const { grad_clip = TRAIN_DEFAULTS.grad_clip, optimizer = { key: "adam" } } = options;
    if (grad_clip !== false && !(typeof grad_clip === "number" && grad_clip > 0)) {
      throw new RangeError(
        `grad_clip must be a positive number, or false for no clipping, found ${shown(grad_clip)}`,
      );
    }
    checkOptimizer(optimizer);
    this.sae = sae;
    this.#objective = objective;
    this.#mostNorm = grad_clip === false ? Infinity : grad_clip;
    this.#rate = learningRate(options, loop.n_steps);
    this.#schedule = stepSchedule(sae.cfg, options);
    this.#atTarget = loop.n_steps / 3;
    using stack = new DisposableStack();
    this.state = options.state ?? stack.use(new TrainState(sae, { optimizer: optimizer.key }));
    this.state.checkModel(sae);
    if (this.state.optimizer !== optimizer.key) {
      throw new RangeError(`the state has moments of ${this.state.optimizer}, but the optimizer is ${optimizer.key}`);
    }
    this.#muon = optimizer.key === "muon" ? stack.use(new Muon(sae, optimizer)) : undefined;
    this.#norm = stack.use(new GradientNorm(sae));
    this.#losses = stack.use(new Tensor(sae.context, "f32", [loop.log_every, RECORD_WIDTH], "losses"));
    // A state whose run was halted may be trained further, with other rows.
    this.state.halted.write(Uint32Array.of(0));
    this.commands = new Commands(sae.context);
    this.#owned = stack.move();
  }

  /** Allocates what steps with batches of `n_rows` need, unless it exists. */
  buffers(n_rows: number): Disposable {
    const { sae, state } = this;
    const n_prefixes = this.#objective.prefixes(sae.cfg.d_sae, state).length;
    stepBuffers(sae, state, { n_rows, n_prefixes, mostK: this.#schedule(state.step).mostK });
    return { [Symbol.dispose]: () => state.freeBuffers() };
  }

  /** Records a step, to be submitted before the next. */
  recordStep(x: Tensor): void {
    const { sae, state, commands } = this;
    const [losses, slot, norm] = [this.#losses, this.#waiting.length, this.#norm];
    sae.recordNormalizeWDec(commands, state.halted);
    const gradients = recordLossAndGradients(commands, this.#objective, sae, x, {
      state,
      into: { losses, slot },
      schedule: {
        ...this.#schedule(state.step),
        lr: this.#rate(state.step),
        stepsToTarget: this.#atTarget - state.step,
      },
    });
    norm.measure(commands, sae, gradients, this.#mostNorm);
    const { squares } = norm;
    const { halted, recentErrors, stepsAbove } = state;
    commands.run(verdictKernel, {
      slots: losses.shape[0]!,
      slot,
      squares,
      norm: norm.norm,
      losses,
      halted,
      recentErrors,
      stepsAbove,
    });
    updateParameters(commands, sae, { state, norm, lr: this.#rate(state.step), muon: this.#muon });
    state.step++;
    this.#waiting.push(x.shape[0]!);
  }

  /** Evaluates the current model, unless it has been halted: then only the reason is of interest. */
  async validate(batches: Batches | RowSource): Promise<void> {
    if ((await this.state.halted.read())[0] !== 0) return;
    this.#validated = await evaluate(this.sae, batches);
  }

  /** The outcome of the steps since the last report. */
  async report(): Promise<Progress> {
    const { state } = this;
    const waiting = this.#waiting.length;
    const first = state.step - waiting;
    const losses: TrainLoss[] = [];
    if (waiting > 0) {
      // While no latent can be dead, the next steps skip the selection of dead latents.
      const selectsDead = auxCapabilities(this.sae.cfg.activation.aux).k_aux > 0;
      const [rows] = await Promise.all([this.#losses.read(), selectsDead && state.measureWait()]);
      for (let slot = 0; slot < waiting && !this.diverged; slot++) {
        const row = lossRow(rows, slot);
        this.diverged = badRow(row, first + slot, this.#stepsAbove);
        if (this.diverged) break;
        this.#stepsAbove = row("steps_above");
        losses.push(trainLossOf(row, new Map(this.sae.parameters).keys()));
      }
    }
    if (this.diverged) {
      state.n_tokens -= this.#waiting.slice(this.diverged.step - first).reduce((sum, n_rows) => sum + n_rows, 0);
      state.step = this.diverged.step;
    }
    this.#waiting = [];
    const validation = this.#validated;
    this.#validated = undefined;
    return {
      step: state.step,
      losses,
      lr: this.#rate(state.step - 1),
      ...validation && { validation },
      stepsAbove: this.#stepsAbove,
      ...this.diverged && { diverged: this.diverged },
    };
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/**
 * The learning rate of step t = 0, 1, …. As in upstream, the first step always has rate 0.
 *
 * @throws {RangeError} for an option outside its range.
 */
export function learningRate(
  { lr = TRAIN_DEFAULTS.lr, n_lr_warmup = TRAIN_DEFAULTS.n_lr_warmup }: Pick<ModelOptions, "lr" | "n_lr_warmup">,
  n_steps: number,
): (step: number) => number {
  if (!(lr >= 0 && Number.isFinite(lr))) throw new RangeError(`lr must be a non-negative number, found ${shown(lr)}`);
  wholeNumber("n_lr_warmup", n_lr_warmup, 0);
  const schedule: Schedule = n_steps === Infinity
    ? warmup(0, lr, n_lr_warmup)
    : warmupCosine(0, n_lr_warmup, lr, n_steps, 0);
  return (step) => step === 0 ? 0 : schedule.at(step);
}

/** The options of a model that decide about a step. */
type ModelSchedule = Pick<StepSchedule, "sparsity" | "top_k" | "mostK">;

/**
 * The factor of the penalty, and k, at step t = 0, 1, ….
 *
 * @throws {RangeError | TypeError} for numbers outside their range, or a k for an activation without k.
 */
export function stepSchedule(
  { activation, d_sae }: SparseAutoencoder["cfg"],
  { n_sparsity_warmup = TRAIN_DEFAULTS.n_sparsity_warmup, k_start, n_k_warmup }: ModelOptions,
): (step: number) => ModelSchedule {
  wholeNumber("n_sparsity_warmup", n_sparsity_warmup, 0);
  const sparsity = warmup(0, 1, n_sparsity_warmup);
  if ((k_start === undefined) !== (n_k_warmup === undefined)) {
    throw new TypeError("k_start and n_k_warmup must be given together; found only one of them");
  }
  if (k_start === undefined || n_k_warmup === undefined) {
    return (step) => ({ sparsity: sparsity.at(step), top_k: null, mostK: null });
  }
  wholeNumber("k_start", k_start, 1);
  wholeNumber("n_k_warmup", n_k_warmup, 1);
  const last = activationKind(activation).top_k?.(activation);
  if (last === undefined) throw new TypeError(`k_start requires top-k or batch-top-k, found ${activation.key}`);
  const first = Math.min(k_start, d_sae);
  const k = warmup(first, last, n_k_warmup);
  const mostK = Math.max(first, last);
  return (step) => ({ sparsity: sparsity.at(step), top_k: Math.round(k.at(step)), mostK });
}

function wholeNumber(name: string, found: number, least: number): void {
  if (!Number.isSafeInteger(found) || found < least) {
    throw new RangeError(`${name} must be an integer of at least ${least}, found ${shown(found)}`);
  }
}

/**
 * Why a step halted the run, if it did: the first thing, in the order of the step, that is not finite, or an explosion.
 */
function badRow(row: LossRow, step: number, stepsAbove: number): DivergenceError | undefined {
  const numbers: [tensor: string, value: number][] = [
    ["x", row("largest_x")],
    ["f_x", row("l1")],
    ["x_hat", row("mse")],
    ["sparsity", row("sparsity")],
    ["aux", row("aux")],
    ["loss", row("loss")],
    ...PARAMETERS.map((name): [string, number] => [`grad_${name}`, row(`grad_squares.${name}`)]),
    ["the gradient", row("grad_norm")],
  ];
  for (const [tensor, value] of numbers) {
    if (Number.isFinite(value)) continue;
    const largest = row("largest_x");
    const isHuge = largest > HUGE && stepsAbove === 0;
    const remedy = tensor === "x"
      ? "remove the rows that are not finite"
      : isHuge
      ? `the rows have values up to ${largest.toPrecision(3)}; remove such large rows, or standardise them`
      : "lower lr or raise n_lr_warmup";
    const what = `has a value that is not finite; ${remedy}`;
    return new DivergenceError(step, tensor, what, { isOfRows: tensor === "x" || isHuge });
  }
  if (row("steps_above") < MAX_ABOVE) return undefined;
  const [mse, median] = [row("mse"), row("median")].map((error) => error.toPrecision(3));
  return new DivergenceError(
    step,
    "x_hat",
    `has a squared error of ${mse}, for the third step in a row more than 10,000 times the earlier median, ${median}; ` +
      "lower lr or raise n_lr_warmup, or shuffle the rows if those of these steps are far larger than the rest",
  );
}

/**
 * Records the norms and halts the run at the first bad step, before any update: a number that is not finite, or the
 * third step in a row with mse > 10⁴ · median(recentErrors). With an even number of errors the lower middle one counts,
 * so that an explosion after two good steps is seen.
 */
const verdictKernel = defineKernel({
  name: "verdict",
  dims: ["slots", "slot"],
  bindings: {
    squares: reads("f32", `${PARAMETERS.length}`),
    norm: reads("f32", "1"),
    losses: writes("f32", `slots ${RECORD_WIDTH}`),
    halted: writes("u32", "1"),
    recentErrors: writes("f32", `${RECENT_ERRORS}`),
    stepsAbove: writes("u32", "1"),
  },
  workgroup: RECENT_ERRORS,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 * RECORD_WIDTH + 8 * RECENT_ERRORS }),
  declarations: `
var<workgroup> recent: array<f32, ${RECENT_ERRORS}>;
var<workgroup> median: f32;
fn finite(value: f32) -> bool { return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u; }
`,
  body: `
  let mine = recentErrors[lane];
  recent[lane] = mine;
  if (lane == 0u) { median = 0.0; }
  workgroupBarrier();
  var count = 0u;
  var rank = 0u;
  for (var i = 0u; i < ${RECENT_ERRORS}u; i += 1u) {
    let other = recent[i];
    if (other > 0.0) {
      count += 1u;
      if (other < mine || (other == mine && i < lane)) { rank += 1u; }
    }
  }
  if (mine > 0.0 && rank == (count - 1u) / 2u) { median = mine; }
  workgroupBarrier();
  if (lane > 0u || halted[0] != 0u) { return; }
  let first = dims.slot * ${RECORD_WIDTH}u;
  losses[first + ${PLACES.grad_norm}u] = norm[0];
  ${PARAMETERS.map((name, at) => `losses[first + ${PLACES[`grad_squares.${name}`]}u] = squares[${at}u];`).join("\n  ")}
  let mse = losses[first + ${PLACES.mse}u];
  let above = select(0u, stepsAbove[0] + 1u, median > 0.0 && finite(mse) && mse > ${EXPLODED}.0 * median);
  losses[first + ${PLACES.median}u] = median;
  losses[first + ${PLACES.steps_above}u] = f32(above);
  let bad = !finite(norm[0]) || !finite(losses[first + ${PLACES.loss}u]) || !finite(losses[first + ${PLACES.largest_x}u]);
  if (bad || above >= ${MAX_ABOVE}u) {
    halted[0] = 1u;
    return;
  }
  stepsAbove[0] = above;
  // Some adapters flush denormal numbers to zero, so they count as zero on all.
  if ((bitcast<u32>(mse) & 0x7f800000u) == 0u) { return; }
  for (var i = 1u; i < ${RECENT_ERRORS}u; i += 1u) { recentErrors[i - 1u] = recentErrors[i]; }
  recentErrors[${RECENT_ERRORS - 1}] = mse;`,
});
