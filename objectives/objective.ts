/**
 * What training minimises: `loss = mse + sparsity + aux`, and all its gradients.
 *
 * An {@link Objective} is a description without state on the GPU; what a step leaves behind lives in a `TrainState`.
 *
 * @module
 */

import { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../kernels/engine/kernel.ts";
import { maxAbsBits, sum } from "../kernels/reduce.ts";
import { type Span, spans, Tensor } from "../kernels/engine/tensor.ts";
import { rowSquares } from "../kernels/unit_rows.ts";
import { activationKind } from "../nn/activations/mod.ts";
import type { EntryBuffers } from "../nn/codes.ts";
import {
  biasBackward,
  checkPrefixes,
  decode,
  decodeBackward,
  decodeDense,
  decodeDenseBackward,
  type Prefixes,
} from "../nn/decode.ts";
import { centringBackward, denseEncoderBackward, entriesEncoderBackward } from "../nn/encode.ts";
import { type Aux, type AuxK, completeSparsity, type Sparsity } from "../nn/loss_terms.ts";
import type { Model } from "../nn/model.ts";
import type { Gradients } from "../nn/parameters.ts";
import { type Batch, isRowSource, readRows, type RowSource } from "../nn/rows.ts";
import { batchTensor, checkWidth, countRows } from "../nn/sparse_autoencoder.ts";
import type { TrainState } from "../nn/state.ts";
import { type AuxSpace, TOTALS, Workspace } from "../nn/step_buffers.ts";
import type { DenseStep } from "../nn/step_codes.ts";
import { auxKBackward, auxKCodes } from "./aux_k.ts";
import { markDying, markFired, markFiredDense, updateDead } from "./dead_latents.ts";
import { type Loss, lossOf, lossRow, PLACES, RECORD_WIDTH } from "./loss_record.ts";
import { type Matryoshka, matryoshkaPrefixes } from "./matryoshka.ts";
import { penaltyWeight } from "./penalty_weight.ts";
import { preActBackward, preActEntriesBackward, preActEntrySums, preActGradients, preActSums } from "./pre_act.ts";
import {
  denseRowNorms,
  denseRowPenalties,
  denseSparsityBackward,
  isOnL0,
  isWeighted,
  normsBackward,
  rowNorms,
  rowPenalties,
  sparsityBackward,
} from "./sparsity.ts";
import { residuals, SCALE_WGSL } from "./squared_error.ts";
import type { Vanilla } from "./vanilla.ts";

/** A complete description of an objective. */
export type ObjectiveConfig = Vanilla | Matryoshka;

/** What a user may write: the discriminator and whatever differs from the defaults. */
export type ObjectiveOptions =
  | (Pick<Vanilla, "key"> & Partial<Vanilla>)
  | (Pick<Matryoshka, "key"> & Partial<Matryoshka>);

/** Numbers of a batch that are still on the GPU. */
export interface PendingLoss extends Disposable {
  /** Brings them back. */
  read(): Promise<Loss>;
}

/** Where a step's numbers go. */
export interface LossSlot {
  /** [slots, RECORD_WIDTH] */
  readonly losses: Tensor;
  /** Row. */
  readonly slot: number;
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
   * The penalty on the codes: the activation's, with the weight that the objective says, if it says one. What has no
   * penalty gets L1.
   *
   * @throws {RangeError} for a `target_l0` of an activation that has no penalty to control, or of more latents than there
   * are.
   */
  sparsity({ cfg: { activation, d_sae } }: Pick<Model, "cfg">): Sparsity {
    const { target_l0 } = this.cfg;
    const { key, sparsity } = activation;
    const coeff = this.cfg.key === "vanilla" ? this.cfg.sparsity_coeff : null;
    const own = coeff === null
      ? sparsity
      : completeSparsity({ ...sparsity.key === "no-sparsity" ? { key: "l1-sparsity" } : sparsity, coeff });
    if (target_l0 === null) return own;
    if (activationKind(activation).top_k) {
      throw new RangeError(`the mean L0 of a ${key} is its top_k; it takes no target_l0`);
    }
    if (own.key === "no-sparsity" || own.key === "target-l0-sparsity" || own.coeff === 0) {
      throw new RangeError(`target_l0 moves the weight of a penalty; ${own.key} has none to move`);
    }
    if (target_l0 > d_sae) throw new RangeError(`target_l0 must be at most d_sae ${d_sae}, found ${target_l0}`);
    return own;
  }

  /**
   * The loss of x [B, D], without changing anything and without the auxiliary part. Of a source, that of all its rows,
   * which are read a few at a time.
   *
   * Without `prefixes`, only the full reconstruction counts. (Upstream samples prefixes here too, so that its evaluation is
   * random.)
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae, or a source without rows.
   */
  async loss(
    model: Model,
    x: Batch | RowSource,
    { prefixes = [model.cfg.d_sae] }: { readonly prefixes?: readonly number[] } = {},
  ): Promise<Loss> {
    checkPrefixes(prefixes, model.cfg.d_sae);
    if (isRowSource(x)) return await this.#sourceLoss(model, x, prefixes);
    const mostK = topK(model);
    using stack = new DisposableStack();
    const x_BD = batchTensor(model, x, stack);
    using space = new Workspace(model, x_BD.shape[0]!, prefixes.length, { training: false, mostK });
    using losses = new Tensor(model.context, "f32", [1, RECORD_WIDTH], "losses");
    const commands = new Commands(model.context);
    const step = forward(commands, this, model, x_BD, {
      space,
      prefixes,
      into: { losses, slot: 0 },
      schedule: UNCHANGED,
    });
    recordLoss(commands, step);
    commands.submit();
    return lossOf(lossRow(await losses.read()));
  }

  /**
   * The loss of x [B, D] in training, and its gradients; updates the dead counters in `state`.
   *
   * The gradients belong to the state and hold until its next step. Without `prefixes`, they are those of the state's step.
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae, or a state of another model.
   */
  lossAndGradients(
    model: Model,
    x: Batch,
    options: { readonly state: TrainState; readonly prefixes?: readonly number[] },
  ): { readonly loss: PendingLoss; readonly gradients: Gradients } {
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

  /** Means over all rows are those of the parts; only the penalty of {@link TargetL0Sparsity} is not a mean. */
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
    const penalty = this.sparsity(model);
    const sparsity = penalty.key === "target-l0-sparsity"
      ? sparsity_coeff * (sums.l0 / penalty.target_l0 - 1) ** 2
      : sums.sparsity;
    return { ...sums, sparsity, loss: sums.mse + sparsity, aux: 0, n_dead: 0, sparsity_coeff };
  }
}

/** Rows of a source that are read and measured at a time. */
const SOURCE_ROWS = 2048;

/** What schedules say about one step. */
export interface StepSchedule {
  /** The learning rate, which the controller of L0 keeps pace with; 2e-3 if `null`. */
  readonly lr: number | null;
  /** Steps until the controller of L0 aims at the target itself, at the latest. */
  readonly stepsToTarget: number;
  /** What the penalty's weight is multiplied with. */
  readonly sparsity: number;
  /** What a TopK or BatchTopK keeps a row; its own `top_k` if `null`. */
  readonly top_k: number | null;
  /** The most that any step of the run keeps, which buffers are made for; the configuration's if `null`. */
  readonly mostK: number | null;
}

const UNCHANGED: StepSchedule = { lr: null, stepsToTarget: Infinity, sparsity: 1, top_k: null, mostK: null };

/** How many latents a row keeps on average, where the configuration says so. */
function topK({ cfg: { activation } }: Model): number {
  return activationKind(activation).top_k?.(activation) ?? 0;
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
  state.checkModel(model);
  const { cfg } = model;
  const prefixes = given.prefixes ?? objective.prefixes(cfg.d_sae, state);
  checkPrefixes(prefixes, cfg.d_sae);
  const n_rows = countRows(x, model);
  const space = state.workspace(n_rows, prefixes.length, schedule.mostK ?? topK(model));
  const { aux } = cfg.activation;
  const canBeDead = state.longestWait + n_rows >= objective.cfg.dead_threshold_tokens;
  const step: Step = {
    ...forward(commands, objective, model, x, { space, prefixes, into, state, schedule }),
    canBeDead,
    auxK: space.aux && aux.key === "auxk" && canBeDead ? { space: space.aux, cfg: aux } : undefined,
  };
  recordDead(commands, objective, step, state);
  state.pass(n_rows);
  backward(commands, step, state);
  recordLoss(commands, step, state);
  return state.gradients;
}

/** Codes, their norms, the largest |x|, and what the penalty weighs. */
function forward(
  commands: Commands,
  objective: Objective,
  model: Model,
  x: Tensor,
  given: {
    readonly space: Workspace;
    readonly prefixes: readonly number[];
    readonly into: LossSlot;
    readonly state?: TrainState;
    readonly schedule: StepSchedule;
  },
): Step {
  const { space, prefixes: lengths, into, state, schedule } = given;
  const { input, largest, rowSums, f_x, ends, norms: { squares }, totals, n_rows } = space;
  const sparsity = objective.sparsity(model);
  ends.write(Uint32Array.from(lengths));
  input.record(commands, model, x);
  maxAbsBits(commands, input.x_BD, largest.partials, largest.bits);
  if (isWeighted(sparsity) || model.cfg.activation.aux.key === "pre-act") {
    rowSquares(commands, model.parameters.W_dec, squares);
  }
  const { dead_threshold_tokens } = objective.cfg;
  if (state && f_x.preActs && space.preAct) {
    const { tokens_since_active } = state;
    markDying(commands, { wanted: f_x.preActs.wanted, tokens_since_active, n_rows, dead_threshold_tokens });
  }
  f_x.encode(commands, model, {
    input,
    k: schedule.top_k ?? topK(model),
    estimate: state && { largest: largest.bits, halted: state.halted, seen: state.thresholdSeen },
    look: {
      entries() {
        const { codes } = f_x.entries;
        rowNorms(commands, codes, rowSums.l0, rowSums.l1);
        rowPenalties(commands, { sparsity, codes, squares, penalty: rowSums.penalty });
      },
      tile(codes, span) {
        denseRowNorms(commands, { codes, span, l0: rowSums.l0, l1: rowSums.l1 });
        denseRowPenalties(commands, { sparsity, codes, span, squares, penalty: rowSums.penalty });
        if (state) markFiredDense(commands, codes, space.dead.fired);
      },
    },
  });
  if (f_x.dense) commands.onlyIf(f_x.dense.isSparse, () => f_x.finishEntries(commands, model));
  for (const name of isWeighted(sparsity) ? ["l0", "l1", "penalty"] as const : ["l0", "l1"] as const) {
    sum(commands, { x: rowSums[name], size: n_rows, into: totals, results: totals.size, at: TOTALS[name] });
  }
  penaltyWeight(commands, {
    sparsity,
    factor: schedule.sparsity,
    lr: schedule.lr,
    stepsToTarget: schedule.stepsToTarget,
    totals,
    l0At: TOTALS.l0,
    n_rows,
    ...space.penalty,
    controlled: state && { ...state, target_l0: objective.cfg.target_l0 },
    unused: space.unused,
  });
  return { model, space, prefixes: { lengths, ends }, into, sparsity, canBeDead: false };
}

/** Counts who fired, and lets the dead choose where to help. */
function recordDead(
  commands: Commands,
  objective: Objective,
  { model, space, canBeDead, auxK }: Step,
  state: TrainState,
): void {
  const { f_x, dead, n_rows } = space;
  const { tokens_since_active, halted } = state;
  const { entries: { codes, transposition }, dense } = f_x;
  if (dense) commands.onlyIf(dense.isSparse, () => transposition.record(commands, codes.sparse));
  else {
    markFired(commands, codes, dead.fired);
    transposition.record(commands, codes.sparse);
  }
  const { dead_threshold_tokens } = objective.cfg;
  updateDead(commands, { dead, tokens_since_active, halted, n_rows, dead_threshold_tokens, canBeDead });
  if (auxK) auxKCodes(commands, model, space, auxK.space, auxK.cfg);
}

/** Records what is done with entries, or both that and what is done with dense codes, of which the GPU does one. */
function eachWay(
  commands: Commands,
  { f_x }: Workspace,
  { entries, dense }: {
    readonly entries: (codes: EntryBuffers) => void;
    readonly dense: (codes: DenseStep) => void;
  },
): void {
  const half = f_x.dense;
  if (!half) return entries(f_x.entries);
  commands.onlyIf(half.isSparse, () => entries(f_x.entries));
  commands.onlyIf(half.isDense, () => dense(half));
}

/** Reconstructions, residuals, and the gradients from last to first. */
function backward(commands: Commands, step: Step, { gradients }: TrainState): void {
  const { model, space, prefixes, sparsity, auxK } = step;
  const { norms: { squares, slopes } } = space;
  eachWay(commands, space, {
    entries: (codes) => {
      for (const span of space.spans) {
        const shared = {
          span,
          prefixes,
          gradients,
          accumulate: span.from > 0,
          G: reconstruct(commands, step, codes, span),
        };
        biasBackward(commands, shared);
        const { codes: f_x, transposition, grad_values } = codes;
        decodeBackward(commands, model, { ...shared, codes: f_x, transposition, grad_values });
      }
      entriesBackward(commands, step, codes, gradients);
    },
    dense: (codes) => {
      for (const span of codes.tiles) {
        const G = reconstructDense(commands, step, codes, span);
        const shared = { span, prefixes, gradients, accumulate: span.from > 0, G };
        biasBackward(commands, shared);
        denseBackward(commands, step, { ...shared, dense: codes });
      }
    },
  });
  if (isWeighted(sparsity)) normsBackward(commands, model, { squares, normSlopes: slopes, gradients });
  if (space.preAct) preActGradients(commands, model, { space: space.preAct, squares, gradients });
  centringBackward(commands, model, gradients);
  if (auxK) auxKBackward(commands, model, { space, aux: auxK.space, cfg: auxK.cfg, gradients });
}

/** From ∂loss/∂f of the entries of a batch to the parameters of the encoder. */
function entriesBackward(
  commands: Commands,
  { model, space, sparsity }: Step,
  entries: EntryBuffers,
  gradients: Gradients,
): void {
  const { cfg: { activation: { aux } } } = model;
  const { f_x, input, whole, preAct, dead: { flags }, penalty: { slope }, norms: { squares, slopes }, normValues } =
    space;
  const oneSided = f_x.dense !== undefined;
  sparsityBackward(commands, { sparsity, entries, normValues, oneSided, squares, slope, normSlopes: slopes });
  f_x.entriesBackward(commands, model, { slope, onL0: isOnL0(sparsity), gradients });
  if (f_x.preActs && preAct && aux.key === "pre-act") {
    const dying = { squares, flags, entries, h: f_x.preActs.ofEntries };
    preActEntrySums(commands, model, { ...dying, sums: space.rowSums.aux });
    preActEntriesBackward(commands, model, { ...dying, cfg: aux, space: preAct });
  }
  const { transposition, grad_values } = entries;
  for (const span of space.spans) {
    const accumulate = span.from > 0;
    entriesEncoderBackward(commands, model, { transposition, grad_values, input, span, whole, gradients, accumulate });
  }
}

/** The gradients of dense codes, for the rows of one tile. */
function denseBackward(
  commands: Commands,
  { model, space: { input, tile: { h: grad_f }, n_rows, preAct, rowSums, dead, penalty, norms }, sparsity }: Step,
  given: {
    readonly dense: DenseStep;
    readonly span: Span;
    readonly prefixes: Prefixes;
    readonly G: Tensor;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { dense, span, accumulate } = given;
  const { cfg: { activation: { aux } } } = model;
  const { slope } = penalty;
  const { squares, slopes: normSlopes } = norms;
  const f = dense.codeRows(span);
  decodeDenseBackward(commands, model, { ...given, f, grad_f });
  denseSparsityBackward(commands, { sparsity, f, grad_f, n_rows, squares, slope, normSlopes, accumulate });
  dense.denseBackward(commands, model, { ...given, grad_f, slope, onL0: isOnL0(sparsity) });
  if (preAct && aux.key === "pre-act") {
    const dying = { h: dense.denseRows(span), squares, flags: dead.flags, span };
    preActSums(commands, model, { ...dying, sums: rowSums.aux });
    preActBackward(commands, model, { ...dying, cfg: aux, n_rows, grad_h: grad_f, space: preAct, accumulate });
  }
  denseEncoderBackward(commands, model, { ...given, input, grad_h: grad_f });
}

/** Sums over the batch, and the numbers into their slot. In evaluation the residuals are still to be made. */
function recordLoss(commands: Commands, step: Step, state?: TrainState): void {
  const { model, space, prefixes, into: { losses, slot }, sparsity, auxK } = step;
  const { cfg: { d_model, activation: { aux } } } = model;
  const { rowSums, totals, n_rows, largest, dead, penalty: { weight } } = space;
  if (!state) {
    eachWay(commands, space, {
      entries: (codes) => space.spans.forEach((span) => reconstruct(commands, step, codes, span)),
      dense: (codes) => codes.tiles.forEach((span) => reconstructDense(commands, step, codes, span)),
    });
  }
  for (const name of auxK || space.preAct ? ["squares", "aux"] as const : ["squares"] as const) {
    sum(commands, { x: rowSums[name], size: n_rows, into: totals, results: totals.size, at: TOTALS[name] });
  }
  const training = state !== undefined;
  commands.run(recordLossKernel, {
    slots: losses.shape[0]!,
    slot,
    totals_size: totals.size,
    penalty_at: penaltyPlace(sparsity),
    training: Number(training),
    mse_terms: n_rows * prefixes.lengths.length * d_model,
    n_rows,
    target_l0: sparsity.key === "target-l0-sparsity" ? sparsity.target_l0 : 0,
    aux_weight: training ? auxWeight(aux, n_rows, d_model) : 0,
    totals,
    weight,
    largest: largest.bits,
    n_dead: dead.count,
    losses,
  });
}

/** What the sum of a batch's auxiliary errors is multiplied with. */
function auxWeight(aux: Aux, n_rows: number, d_model: number): number {
  switch (aux.key) {
    case "no-aux":
      return 0;
    case "auxk":
      return aux.alpha / (n_rows * d_model);
    case "pre-act":
      return aux.coeff / n_rows;
  }
}

/** Which of the sums over the batch is the penalty. */
function penaltyPlace({ key }: Sparsity): number {
  switch (key) {
    case "no-sparsity":
    case "l1-sparsity":
      return TOTALS.l1;
    case "l0-sparsity":
    case "target-l0-sparsity":
      return TOTALS.l0;
    case "weighted-l1-sparsity":
    case "tanh-sparsity":
      return TOTALS.penalty;
  }
}

/** One batch on its way. */
interface Step {
  readonly model: Model;
  readonly space: Workspace;
  readonly prefixes: Prefixes;
  readonly into: LossSlot;
  readonly sparsity: Sparsity;
  /** Whether there can be dead latents. */
  readonly canBeDead: boolean;
  /** AuxK, where there can be. */
  readonly auxK?: { readonly space: AuxSpace; readonly cfg: AuxK } | undefined;
}

/** x̂ of some rows from their entries, turned into summed residuals; their squared errors are noted. */
function reconstruct(commands: Commands, step: Step, { codes }: EntryBuffers, span: Span): Tensor {
  const { model, space: { x_hats }, prefixes } = step;
  decode(commands, model, { codes, span, prefixes, x_hats: x_hats.rows(0, span.to - span.from) });
  return toResiduals(commands, step, span);
}

/** The same from the dense codes of one tile. */
function reconstructDense(commands: Commands, step: Step, dense: DenseStep, span: Span): Tensor {
  const { model, space: { input, x_hats }, prefixes } = step;
  dense.encodeAgain(commands, model, input, span);
  decodeDense(commands, model, { f: dense.codeRows(span), prefixes, x_hats });
  return toResiduals(commands, step, span);
}

function toResiduals(commands: Commands, step: Step, { from, to }: Span): Tensor {
  const { model, space: { x_hats, input, largest, rowSums, n_rows }, prefixes, auxK } = step;
  residuals(commands, {
    x: input.x_BD.rows(from, to),
    x_hats: x_hats.rows(0, to - from),
    b_dec: model.parameters.b_dec,
    largest: largest.bits,
    squares: rowSums.squares,
    ...(auxK ? { residual: auxK.space.residual.rows(from, to) } : {}),
    rows: to - from,
    firstRow: from,
    n_rows,
    d_model: model.cfg.d_model,
    n_prefixes: prefixes.lengths.length,
  });
  return x_hats;
}

const recordLossKernel = defineKernel({
  name: "record_loss",
  dims: ["slots", "slot", "totals_size", "penalty_at", "training"],
  scalars: ["mse_terms", "n_rows", "target_l0", "aux_weight"],
  bindings: {
    totals: reads("f32", "totals_size"),
    weight: reads("f32", "1"),
    largest: reads("u32", "1"),
    n_dead: reads("u32", "1"),
    losses: writes("f32", `slots ${RECORD_WIDTH}`),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 12, bytes: 4 * RECORD_WIDTH }),
  declarations: SCALE_WGSL,
  body: `
  let scale = scale_of(largest[0]);
  let first = dims.slot * ${RECORD_WIDTH}u;
  let mse = totals[${TOTALS.squares}] / dims.mse_terms * scale * scale;
  var penalty = totals[dims.penalty_at] / dims.n_rows;
  if (dims.target_l0 > 0.0) { penalty = (penalty / dims.target_l0 - 1.0) * (penalty / dims.target_l0 - 1.0); }
  let sparsity = weight[0] * penalty;
  var aux = 0.0;
  if (dims.aux_weight > 0.0 && n_dead[0] > 0u) { aux = totals[${TOTALS.aux}] * dims.aux_weight; }
  losses[first + ${PLACES.mse}u] = mse;
  losses[first + ${PLACES.sparsity}u] = sparsity;
  losses[first + ${PLACES.l0}u] = totals[${TOTALS.l0}] / dims.n_rows;
  losses[first + ${PLACES.l1}u] = totals[${TOTALS.l1}] / dims.n_rows;
  losses[first + ${PLACES.aux}u] = aux;
  losses[first + ${PLACES.n_dead}u] = select(0.0, f32(n_dead[0]), dims.training == 1u);
  losses[first + ${PLACES.loss}u] = mse + sparsity + aux;
  losses[first + ${PLACES.largest_x}u] = bitcast<f32>(largest[0]);
  losses[first + ${PLACES.sparsity_coeff}u] = weight[0];`,
});

const DEAD_THRESHOLD_TOKENS = 10_000_000;

const FIELDS = {
  vanilla: ["key", "sparsity_coeff", "target_l0", "dead_threshold_tokens"],
  matryoshka: ["key", "n_prefixes", "group_sizes", "target_l0", "dead_threshold_tokens"],
} as const;

/**
 * An objective from its description.
 *
 * `vanilla`: `sparsity_coeff` (the activation's own if left out). `matryoshka`: `n_prefixes` (10) sampled anew at each
 * step, or fixed `group_sizes`. Both: `dead_threshold_tokens` (10,000,000), and `target_l0`, which lets a controller move
 * the penalty's weight until that many latents fire on a row. It takes its time, since latents die of haste: up to a third
 * of a run whose length `train` knows. Where the penalty is on L0, the weight may become negative.
 *
 * @throws {RangeError} for an unknown `key` or a number outside its range.
 * @throws {TypeError} for an unknown field.
 */
export function getObjective(options: ObjectiveOptions): Objective {
  const { key, dead_threshold_tokens = DEAD_THRESHOLD_TOKENS, target_l0 = null } = options;
  if (!Number.isInteger(dead_threshold_tokens) || dead_threshold_tokens < 1 || dead_threshold_tokens >= 2 ** 32) {
    throw new RangeError(`dead_threshold_tokens must be an integer from 1 to 2³² − 1, found ${dead_threshold_tokens}`);
  }
  if (target_l0 !== null && !(target_l0 > 0 && Number.isFinite(target_l0))) {
    throw new RangeError(`target_l0 must be a positive number or null, found ${target_l0}`);
  }
  if (!Object.hasOwn(FIELDS, key)) {
    throw new RangeError(`unknown objective key ${JSON.stringify(key)}; expected vanilla or matryoshka`);
  }
  const allowed: readonly string[] = FIELDS[key];
  const unknown = Object.keys(options).find((field) => !allowed.includes(field));
  if (unknown !== undefined) {
    throw new TypeError(`objective ${key} has no field ${JSON.stringify(unknown)}; it has ${allowed.join(", ")}`);
  }
  if (key === "vanilla") {
    const { sparsity_coeff = null } = options;
    if (sparsity_coeff !== null && !(sparsity_coeff >= 0 && Number.isFinite(sparsity_coeff))) {
      throw new RangeError(`sparsity_coeff must be a finite number of at least 0 or null, found ${sparsity_coeff}`);
    }
    return new Objective({ key, sparsity_coeff, target_l0, dead_threshold_tokens });
  }
  const { n_prefixes = 10, group_sizes = null } = options;
  if (!Number.isInteger(n_prefixes) || n_prefixes < 1) {
    throw new RangeError(`n_prefixes must be an integer of at least 1, found ${n_prefixes}`);
  }
  if (group_sizes && !(Array.isArray(group_sizes) && group_sizes.length > 0 && group_sizes.every(isPositiveInteger))) {
    throw new RangeError(`group_sizes must be a list of positive integers, found ${JSON.stringify(group_sizes)}`);
  }
  if (group_sizes && options.n_prefixes !== undefined) {
    throw new TypeError("a matryoshka objective has n_prefixes or group_sizes, not both");
  }
  return new Objective({
    key,
    n_prefixes: group_sizes?.length ?? n_prefixes,
    group_sizes: group_sizes && Object.freeze([...group_sizes]),
    target_l0,
    dead_threshold_tokens,
  });
}

function isPositiveInteger(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) > 0;
}
