/**
 * The state of training besides the parameters, saved and restored as a whole.
 *
 * @module
 */

import { ShapeError } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { Tensor } from "../kernels/engine/tensor.ts";
import type { OptimizerOptions } from "./optim/adam.ts";
import { parameterLayout } from "./activations/mod.ts";
import type { ParameterArrays } from "./arrays.ts";
import type { Model } from "./model.ts";
import { type Gradients, ParameterTensors } from "./parameters.ts";
import { StepBuffers } from "./step_buffers.ts";

/** A {@link TrainState} as plain data. */
export interface TrainStateData {
  /** Updates done. */
  readonly step: number;
  /** Rows trained on. */
  readonly n_tokens: number;
  /** Seed of everything random in training. */
  readonly seed: number;
  /** The optimizer that the moments belong to. */
  readonly optimizer: OptimizerOptions["key"];
  /** Adam's first moments, or Muon's mean gradients, shaped like the parameters in files. */
  readonly moment1: ParameterArrays;
  /** Adam's second moments; with Muon, those of the matrices are empty. */
  readonly moment2: ParameterArrays;
  /** [S], rows since each latent last fired. */
  readonly tokens_since_active: Uint32Array;
  /**
   * [16], the squared errors of the last steps whose error was finite and not zero, the newest last, padded with zeros:
   * the reference for diverging runs.
   */
  readonly recentErrors: Float32Array;
  /** How many of the last steps in a row had a squared error far above their median; the third halts the run. */
  readonly stepsAbove: number;
  /** The L0 controller's integral; 0 at the start. */
  readonly control: number;
  /** The L0 controller's reference, on its way to the target; 0 at the start. */
  readonly controlledL0: number;
  /**
   * How much of a BatchTopK's threshold estimate comes from data rather than its initial 0: 1 − (1 − momentum)ᵗ; 0 at
   * the start.
   */
  readonly thresholdSeen: number;
}

/** [S], rows since each latent last fired, and an upper bound that needs no read from the GPU. */
class Waits extends Tensor<"u32"> {
  /** No count is larger. */
  most = 0;

  override writeAt(start: number, data: Uint32Array): void {
    super.writeAt(start, data);
    this.most = data.reduce((most, wait) => Math.max(most, wait), this.most);
  }
}

/** How many squared errors are kept as the reference for divergence. */
export const RECENT_ERRORS = 16;

/** Batch sizes whose buffers are kept: the usual one, and the shorter last batch of an epoch. */
const KEPT_BUFFERS = 2;

/** Moments, counters and buffers of one model's training. The code that creates it must dispose of it. */
export class TrainState implements Disposable {
  /** Updates done. */
  step = 0;
  /** Rows trained on. */
  n_tokens = 0;
  /** Seed of everything random in training. */
  readonly seed: number;
  /** The optimizer that the moments belong to. */
  readonly optimizer: OptimizerOptions["key"];
  /** Adam's first moments, or Muon's mean gradients. */
  readonly moment1: ParameterTensors;
  /** Adam's second moments; with Muon, those of the matrices have no rows. */
  readonly moment2: ParameterTensors;
  /** The last step's gradients. */
  readonly gradients: Gradients;
  /** [S], rows since each latent last fired. */
  readonly tokens_since_active: Tensor<"u32">;
  /** [1], 0 while training is well; any other value stops updates. */
  readonly halted: Tensor<"u32">;
  /** [16], the squared errors of the last steps, the newest last, padded with zeros. */
  readonly recentErrors: Tensor;
  /** [1], how many of the last steps in a row had a squared error far above the median of those before. */
  readonly stepsAbove: Tensor<"u32">;
  /** [2], the L0 controller's integral and reference; 0 at the start. */
  readonly control: Tensor;
  /** [1], 1 − (1 − momentum)ᵗ of a BatchTopK's threshold after t updates. */
  readonly thresholdSeen: Tensor;
  readonly #waits: Waits;
  readonly #model: Model;
  readonly #owned: DisposableStack;
  readonly #buffers: StepBuffers[] = [];

  /**
   * A fresh state for a model.
   *
   * @throws {TypeError} for an unknown option, or a model whose weights are f16: updates would be lost to rounding.
   * @throws {RangeError} for an unknown optimizer.
   */
  constructor(
    model: Model,
    options: { readonly seed?: number; readonly optimizer?: OptimizerOptions["key"] } = {},
  ) {
    checkOptions("a TrainState", options, { seed: true, optimizer: true });
    const { seed = 0, optimizer = "adam" } = options;
    if (optimizer !== "adam" && optimizer !== "muon") {
      throw new RangeError(`optimizer must be adam or muon, found ${JSON.stringify(optimizer)}`);
    }
    const { cfg, context, parameters } = model;
    if (parameters.weights !== "f32") {
      throw new TypeError(`training takes a model with weights f32, found one with weights ${parameters.weights}`);
    }
    using stack = new DisposableStack();
    this.#model = model;
    this.seed = seed;
    this.optimizer = optimizer;
    const layout = parameterLayout(cfg);
    this.moment1 = stack.use(new ParameterTensors(context, layout, "first moment of "));
    const matrices = optimizer === "adam";
    this.moment2 = stack.use(new ParameterTensors(context, layout, "second moment of ", { matrices }));
    this.gradients = stack.use(new ParameterTensors(context, layout, "grad_"));
    this.tokens_since_active = this.#waits = stack.use(new Waits(context, "u32", [cfg.d_sae], "tokens_since_active"));
    this.halted = stack.use(new Tensor(context, "u32", [1], "halted"));
    this.recentErrors = stack.use(new Tensor(context, "f32", [RECENT_ERRORS], "recent squared errors"));
    this.stepsAbove = stack.use(new Tensor(context, "u32", [1], "steps above the recent errors"));
    this.control = stack.use(new Tensor(context, "f32", [2], "controller of L0"));
    this.thresholdSeen = stack.use(new Tensor(context, "f32", [1], "share of the threshold that was seen"));
    this.#owned = stack.move();
  }

  /**
   * The state in `data`, for the model that it belongs to.
   *
   * @throws {ShapeError} if it belongs to a model of another size.
   */
  static restore(model: Model, data: TrainStateData): TrainState {
    using stack = new DisposableStack();
    const state = stack.use(new TrainState(model, { seed: data.seed, optimizer: data.optimizer }));
    if (data.tokens_since_active.length !== model.cfg.d_sae) {
      throw new ShapeError(
        `tokens_since_active must have d_sae ${model.cfg.d_sae} values, found ${data.tokens_since_active.length}`,
      );
    }
    state.step = data.step;
    state.n_tokens = data.n_tokens;
    state.moment1.write(data.moment1);
    state.moment2.write(data.moment2);
    state.tokens_since_active.write(data.tokens_since_active);
    state.recentErrors.write(data.recentErrors);
    state.stepsAbove.write(Uint32Array.of(data.stepsAbove));
    state.control.write(Float32Array.of(data.control, data.controlledL0));
    state.thresholdSeen.write(Float32Array.of(data.thresholdSeen));
    stack.move();
    return state;
  }

  /** Reads everything back as plain data. */
  async read(): Promise<TrainStateData> {
    const { step, n_tokens, seed, optimizer } = this;
    const [
      moment1,
      moment2,
      tokens_since_active,
      recentErrors,
      [stepsAbove = 0],
      [control = 0, controlledL0 = 0],
      [thresholdSeen = 0],
    ] = await Promise
      .all([
        this.moment1.read(),
        this.moment2.read(),
        this.tokens_since_active.read(),
        this.recentErrors.read(),
        this.stepsAbove.read(),
        this.control.read(),
        this.thresholdSeen.read(),
      ]);
    return {
      step,
      n_tokens,
      seed,
      optimizer,
      moment1,
      moment2,
      tokens_since_active,
      recentErrors,
      stepsAbove,
      control,
      controlledL0,
      thresholdSeen,
    };
  }

  /**
   * Checks that this state was made for `model`.
   *
   * @throws {RangeError} if it was made for another model.
   */
  checkModel(model: Model): void {
    if (model !== this.#model) {
      throw new RangeError(
        "the state was made for another model; TrainState.restore makes one from what was read of it",
      );
    }
  }

  /**
   * An upper bound on the rows since any latent last fired: while it is below `dead_threshold_tokens`, no latent can be
   * dead.
   *
   * @internal
   */
  get longestWait(): number {
    return this.#waits.most;
  }

  /**
   * Counts a step's rows.
   *
   * @internal
   */
  pass(n_rows: number): void {
    this.n_tokens += n_rows;
    this.#waits.most += n_rows;
  }

  /**
   * Reads the exact {@link longestWait} from the GPU, after all recorded steps have been submitted.
   *
   * @internal
   */
  async measureWait(): Promise<void> {
    const waits = await this.#waits.read();
    this.#waits.most = waits.reduce((most, wait) => Math.max(most, wait), 0);
  }

  /**
   * The buffers for batches of `n_rows`, kept for the next such batch.
   *
   * @internal
   */
  buffers(n_rows: number, n_prefixes: number, mostK: number): StepBuffers {
    const kept = this.#buffers;
    const at = kept.findIndex((space) =>
      space.n_rows === n_rows && space.n_prefixes === n_prefixes && space.use.mostK === mostK
    );
    const space = at >= 0
      ? kept.splice(at, 1)[0]!
      : new StepBuffers(this.#model, n_rows, n_prefixes, { training: true, mostK });
    kept.unshift(space);
    for (const old of kept.splice(KEPT_BUFFERS)) old[Symbol.dispose]();
    return space;
  }

  /**
   * Frees the buffers of batches; the next step allocates new ones.
   *
   * @internal
   */
  freeBuffers(): void {
    for (const space of this.#buffers.splice(0)) space[Symbol.dispose]();
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.freeBuffers();
    this.#owned.dispose();
  }
}
