/**
 * What training minimises: `loss = mse + sparsity + aux`, and all its gradients.
 *
 * An {@link Objective} is a description without GPU state; what changes from step to step is in a `TrainState`.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { Commands } from "../kernels/engine/commands.ts";
import { spans, Tensor } from "../kernels/engine/tensor.ts";
import { activationKind } from "../nn/activations/mod.ts";
import { checkPrefixes } from "../nn/decode.ts";
import { completeFields, entryOf, type Fields } from "../nn/fields.ts";
import { freeL0, type Sparsity, sparsityCoeff, withCoeff } from "../nn/loss_terms.ts";
import { type Model, topK } from "../nn/model.ts";
import type { Gradients } from "../nn/parameters.ts";
import { type Batch, isRowSource, readRows, type RowSource } from "../nn/rows.ts";
import { batchTensor, checkWidth, countRows } from "../nn/sparse_autoencoder.ts";
import type { TrainState } from "../nn/state.ts";
import { StepBuffers } from "../nn/step_buffers.ts";
import { type Loss, lossOf, lossRow, type LossSlot, RECORD_WIDTH } from "./loss_record.ts";
import type { StepSchedule } from "./loss_term.ts";
import { type Matryoshka, MATRYOSHKA_FIELDS, matryoshkaPrefixes } from "./matryoshka.ts";
import { LossTerms } from "./terms.ts";
import { recordStep } from "./step.ts";
import { type Vanilla, VANILLA_FIELDS } from "./vanilla.ts";

/** A complete description of an objective. */
export type ObjectiveConfig = Vanilla | Matryoshka;

/** What a user may write: the `key`, and the fields that differ from the defaults. */
export type ObjectiveOptions =
  | (Pick<Vanilla, "key"> & Partial<Vanilla>)
  | (Pick<Matryoshka, "key"> & Partial<Matryoshka>);

/** A loss that is still on the GPU. */
export interface PendingLoss extends Disposable {
  /** Reads it back. */
  read(): Promise<Loss>;
}

/** A description of what training minimises: {@link getObjective}. */
export class Objective {
  /** The complete description, frozen. */
  readonly cfg: ObjectiveConfig;

  /** {@link getObjective} makes them. */
  constructor(cfg: ObjectiveConfig) {
    this.cfg = Object.freeze(cfg);
  }

  /** The prefix lengths of a training step; one, d_sae, for the plain objective. */
  prefixes(d_sae: number, at: { readonly seed: number; readonly step: number }): readonly number[] {
    return this.cfg.key === "matryoshka" ? matryoshkaPrefixes(this.cfg, d_sae, at) : [d_sae];
  }

  /**
   * The penalty on the codes: the activation's, with the objective's weight if it has one. An activation without a
   * penalty then gets L1.
   *
   * @throws {RangeError} for a `target_l0` if the activation has no penalty to control, or one above d_sae.
   */
  sparsity({ cfg: { activation, d_sae } }: Pick<Model, "cfg">): Sparsity {
    const { target_l0 } = this.cfg;
    const { key, sparsity } = activation;
    const coeff = this.cfg.key === "vanilla" ? this.cfg.sparsity_coeff : null;
    const own = coeff === null ? sparsity : withCoeff(sparsity, coeff);
    if (target_l0 === null) return own;
    if (activationKind(activation).top_k) {
      throw new RangeError(`the mean L0 of a ${key} is its top_k; it takes no target_l0`);
    }
    if (sparsityCoeff(own) === 0 || freeL0(own) > 0) {
      throw new RangeError(`target_l0 moves the weight of a penalty; ${own.key} has none to move`);
    }
    if (target_l0 > d_sae) throw new RangeError(`target_l0 must be at most d_sae ${d_sae}, found ${target_l0}`);
    return own;
  }

  /**
   * The loss of x [B, D] without the auxiliary part; changes nothing. For a source, the loss of all its rows, which are
   * read a few at a time.
   *
   * Without `prefixes`, only the full reconstruction counts. (Upstream samples prefixes here too, so that its evaluation is
   * random.)
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae, or a source without rows.
   * @throws {TypeError} for an unknown option.
   */
  async loss(
    model: Model,
    x: Batch | RowSource,
    options: { readonly prefixes?: readonly number[] } = {},
  ): Promise<Loss> {
    checkOptions("loss", options, { prefixes: true });
    const { prefixes = [model.cfg.d_sae] } = options;
    checkPrefixes(prefixes, model.cfg.d_sae);
    if (isRowSource(x)) return await this.#sourceLoss(model, x, prefixes);
    using stack = new DisposableStack();
    const x_BD = batchTensor(model, x, stack);
    using buffers = new StepBuffers(model, x_BD.shape[0]!, prefixes.length, { training: false, mostK: topK(model) });
    const terms = buffers.keep(LossTerms, () => new LossTerms(model, buffers));
    using losses = new Tensor(model.context, "f32", [1, RECORD_WIDTH], "losses");
    const commands = new Commands(model.context);
    const step = {
      commands,
      model,
      buffers,
      prefixes: { lengths: prefixes, ends: buffers.ends },
      sparsity: this.sparsity(model),
      schedule: UNCHANGED,
      training: undefined,
    };
    recordStep(step, terms, x_BD, { losses, slot: 0 });
    commands.submit();
    return lossOf(lossRow(await losses.read()));
  }

  /**
   * The loss of x [B, D] in training, and its gradients; updates the dead counters in `state`.
   *
   * The gradients belong to the state and are valid until its next step. Without `prefixes`, the objective's for the
   * state's step are used.
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae, or a state of another model.
   * @throws {TypeError} for an unknown option.
   */
  lossAndGradients(
    model: Model,
    x: Batch,
    options: { readonly state: TrainState; readonly prefixes?: readonly number[] },
  ): { readonly loss: PendingLoss; readonly gradients: Gradients } {
    checkOptions("lossAndGradients", options, { state: true, prefixes: true });
    using batch = new DisposableStack();
    const x_BD = batchTensor(model, x, batch);
    using stack = new DisposableStack();
    const losses = stack.use(new Tensor(model.context, "f32", [1, RECORD_WIDTH], "losses"));
    const commands = new Commands(model.context);
    const gradients = recordLossAndGradients(commands, this, model, x_BD, { ...options, into: { losses, slot: 0 } });
    commands.submit();
    const loss = {
      read: async () => lossOf(lossRow(await losses.read())),
      [Symbol.dispose]: () => losses[Symbol.dispose](),
    };
    stack.move();
    return { loss, gradients };
  }

  /**
   * Averages over all rows are weighted averages of the parts; only a penalty with a {@link freeL0} is not an average.
   */
  async #sourceLoss(model: Model, source: RowSource, prefixes: readonly number[]): Promise<Loss> {
    checkWidth(source, model);
    if (source.n_rows === 0) throw new RangeError("the loss needs at least one row, and the source has none");
    const sums = { mse: 0, sparsity: 0, l0: 0, l1: 0 };
    let sparsity_coeff = 0;
    for (const { from, to } of spans(source.n_rows, SOURCE_ROWS)) {
      const part = await this.loss(model, await readRows(source, from, to), { prefixes });
      for (const name of ["mse", "sparsity", "l0", "l1"] as const) {
        sums[name] += part[name] * (to - from) / source.n_rows;
      }
      sparsity_coeff = part.sparsity_coeff;
    }
    const free = freeL0(this.sparsity(model));
    const sparsity = free > 0 ? sparsity_coeff * (sums.l0 / free - 1) ** 2 : sums.sparsity;
    return { ...sums, sparsity, loss: sums.mse + sparsity, aux: 0, n_dead: 0, sparsity_coeff };
  }
}

/** Rows of a source that are read and measured at a time. */
const SOURCE_ROWS = 2048;

const UNCHANGED: StepSchedule = { lr: null, stepsToTarget: Infinity, sparsity: 1, top_k: null, mostK: null };

/**
 * The buffers of a training step, allocated for the first batch of a size and kept for the next.
 *
 * @throws {RangeError | DeviceError} if the batch is too large for a step or for the device.
 */
export function stepBuffers(
  model: Model,
  state: TrainState,
  given: { readonly n_rows: number; readonly n_prefixes: number; readonly mostK: number | null },
): { readonly buffers: StepBuffers; readonly terms: LossTerms } {
  const buffers = state.buffers(given.n_rows, given.n_prefixes, given.mostK ?? topK(model));
  return { buffers, terms: buffers.keep(LossTerms, () => new LossTerms(model, buffers)) };
}

/** {@link Objective.lossAndGradients}, recorded with other work. */
export function recordLossAndGradients(
  commands: Commands,
  objective: Objective,
  model: Model,
  x: Tensor,
  given: {
    readonly state: TrainState;
    readonly prefixes?: readonly number[];
    readonly into: LossSlot;
    readonly schedule?: StepSchedule;
  },
): Gradients {
  const { state, into, schedule = UNCHANGED } = given;
  const { target_l0, dead_threshold_tokens } = objective.cfg;
  state.checkModel(model);
  const { d_sae } = model.cfg;
  const lengths = given.prefixes ?? objective.prefixes(d_sae, state);
  checkPrefixes(lengths, d_sae);
  const n_rows = countRows(x, model);
  const { buffers, terms } = stepBuffers(model, state, { n_rows, n_prefixes: lengths.length, mostK: schedule.mostK });
  const canBeDead = state.longestWait + n_rows >= dead_threshold_tokens;
  const step = {
    commands,
    model,
    buffers,
    prefixes: { lengths, ends: buffers.ends },
    sparsity: objective.sparsity(model),
    schedule,
    training: { state, target_l0, dead_threshold_tokens, canBeDead },
  };
  recordStep(step, terms, x, into);
  state.pass(n_rows);
  return state.gradients;
}

/** The fields of each objective. */
export const OBJECTIVES: { readonly [O in ObjectiveConfig as O["key"]]: Fields<O> } = {
  vanilla: VANILLA_FIELDS,
  matryoshka: MATRYOSHKA_FIELDS,
};

/**
 * An objective from its description.
 *
 * `vanilla`: `sparsity_coeff` (the activation's own if left out). `matryoshka`: `n_prefixes` (10) sampled anew at each
 * step, or fixed `group_sizes`. Both: `dead_threshold_tokens` (10,000,000), and `target_l0`, which lets a controller move
 * the penalty's weight until that many latents fire on a row. It takes its time, because a penalty raised too fast kills latents: up to a third
 * of a run whose length `train` knows. Where the penalty is on L0, the weight may become negative.
 *
 * @throws {RangeError} for an unknown `key` or a number outside its range.
 * @throws {TypeError} for an unknown field.
 */
export function getObjective(options: ObjectiveOptions): Objective {
  const { key } = options;
  const cfg = completeFields<ObjectiveConfig>("objective", key, entryOf("objective", OBJECTIVES, key), options);
  if (cfg.key === "vanilla" || !cfg.group_sizes) return new Objective(cfg);
  if ((options as Partial<Matryoshka>).n_prefixes !== undefined) {
    throw new TypeError("a matryoshka objective has n_prefixes or group_sizes, not both");
  }
  return new Objective({ ...cfg, n_prefixes: cfg.group_sizes.length });
}
