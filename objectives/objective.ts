/**
 * What training minimises: `loss = mse + sparsity + aux`, and all its gradients.
 *
 * An {@link Objective} is a description without state on the GPU; what a step leaves behind lives in a `TrainState`.
 *
 * @module
 */

import { Commands } from "../kernels/commands.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import { maxAbsBits, sum } from "../kernels/reduce.ts";
import { Tensor } from "../kernels/tensor.ts";
import { encodeInto, encodeTraining, reluBackward, selectionBackward, updateThreshold } from "../nn/activation.ts";
import type { Sparsity } from "../nn/config.ts";
import {
  biasBackward,
  checkPrefixes,
  decode,
  decodeBackward,
  decodeDense,
  decodeDenseBackward,
  type Prefixes,
} from "../nn/decode.ts";
import { centringBackward, type Model, preActivations } from "../nn/encode.ts";
import type { Gradients } from "../nn/parameters.ts";
import { countRows } from "../nn/sparse_autoencoder.ts";
import type { TrainState } from "../nn/train_state.ts";
import { Workspace } from "../nn/workspace.ts";
import { auxKBackward, auxKCodes } from "./aux_k.ts";
import { markFired, markFiredDense, updateDead } from "./dead_latents.ts";
import { type Matryoshka, matryoshkaPrefixes } from "./matryoshka.ts";
import { denseRowNorms, rowNorms, sparsityBackward, sparsityCoeff } from "./sparsity.ts";
import { residuals, SCALE_WGSL } from "./squared_error.ts";
import { type Vanilla, vanillaSparsity } from "./vanilla.ts";

/** A complete description of an objective. */
export type ObjectiveConfig = Vanilla | Matryoshka;

/** What a user may write: the discriminator and whatever differs from the defaults. */
export type ObjectiveOptions =
  | (Pick<Vanilla, "key"> & Partial<Vanilla>)
  | (Pick<Matryoshka, "key"> & Partial<Matryoshka>);

/** The numbers of one batch. */
export interface Loss {
  /** `mse + sparsity + aux`. */
  readonly loss: number;
  /** Squared error, mean over rows, prefixes and dimensions. */
  readonly mse: number;
  /** Weighted penalty on the codes. */
  readonly sparsity: number;
  /** Latents in use, mean over rows. */
  readonly l0: number;
  /** Σ |f|, mean over rows. */
  readonly l1: number;
  /** Weighted auxiliary loss; 0 outside training. */
  readonly aux: number;
  /** Dead latents; 0 outside training. */
  readonly n_dead: number;
}

/** Numbers of a batch that are still on the GPU. */
export interface PendingLoss extends Disposable {
  /** Brings them back. */
  read(): Promise<Loss>;
}

/** Places of the numbers in a row of a loss tensor. */
export const LOSS = { mse: 0, sparsity: 1, l0: 2, l1: 3, aux: 4, n_dead: 5, loss: 6, largest_x: 7 } as const;

/** Numbers in a row of a loss tensor; those after {@link LOSS} are for whoever trains. */
export const LOSS_WIDTH = 16;

/** The numbers of one row of a loss tensor. */
export function lossOf(row: Float32Array): Loss {
  const at = (name: keyof typeof LOSS) => row[LOSS[name]]!;
  return {
    loss: at("loss"),
    mse: at("mse"),
    sparsity: at("sparsity"),
    l0: at("l0"),
    l1: at("l1"),
    aux: at("aux"),
    n_dead: at("n_dead"),
  };
}

/** Where a step's numbers go. */
export interface LossSlot {
  /** [slots, LOSS_WIDTH] */
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

  /** The penalty on the codes: the objective's own, or else the activation's. */
  sparsity(model: Model): Sparsity {
    return (this.cfg.key === "vanilla" ? vanillaSparsity(this.cfg) : null) ?? model.cfg.activation.sparsity;
  }

  /**
   * The loss of x [B, D], without changing anything and without the auxiliary part.
   *
   * Without `prefixes`, only the full reconstruction counts. (Upstream samples prefixes here too, so that its evaluation is
   * random.)
   *
   * @throws {ShapeError} if x is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae.
   */
  async loss(
    model: Model,
    x: Tensor | Float32Array,
    { prefixes = [model.cfg.d_sae] }: { readonly prefixes?: readonly number[] } = {},
  ): Promise<Loss> {
    checkPrefixes(prefixes, model.cfg.d_sae);
    using space = new Workspace(model, countRows(x, model.cfg.d_model), prefixes.length, { training: false });
    using losses = new Tensor(model.context, "f32", [1, LOSS_WIDTH], "losses");
    const commands = new Commands(model.context);
    const step = forward(commands, this, model, x, { space, prefixes, into: { losses, slot: 0 } });
    recordLoss(commands, step);
    commands.submit();
    return lossOf(await losses.read());
  }

  /**
   * The loss of x [B, D] in training, and its gradients; updates the dead counters in `state`.
   *
   * The gradients belong to the state and hold until its next step. Without `prefixes`, they are those of the state's step.
   *
   * @throws {ShapeError} if x is not a whole number of rows of d_model.
   * @throws {RangeError} for prefixes that do not ascend to d_sae.
   */
  lossAndGradients(
    model: Model,
    x: Tensor | Float32Array,
    options: { readonly state: TrainState; readonly prefixes?: readonly number[] },
  ): { readonly loss: PendingLoss; readonly gradients: Gradients } {
    using stack = new DisposableStack();
    const losses = stack.use(new Tensor(model.context, "f32", [1, LOSS_WIDTH], "losses"));
    const commands = new Commands(model.context);
    const gradients = recordLossAndGradients(commands, this, model, x, { ...options, into: { losses, slot: 0 } });
    commands.submit();
    const loss = {
      read: async () => lossOf(await losses.read()),
      [Symbol.dispose]: () => losses[Symbol.dispose](),
    };
    stack.move();
    return { loss, gradients };
  }
}

/** {@link Objective.lossAndGradients}, recorded with other work. */
export function recordLossAndGradients(
  commands: Commands,
  objective: Objective,
  model: Model,
  x: Tensor | Float32Array,
  given: { readonly state: TrainState; readonly prefixes?: readonly number[]; readonly into: LossSlot },
): Gradients {
  const { state, into } = given;
  const { cfg } = model;
  const prefixes = given.prefixes ?? objective.prefixes(cfg.d_sae, state);
  checkPrefixes(prefixes, cfg.d_sae);
  const n_rows = countRows(x, cfg.d_model);
  const space = state.workspace(n_rows, prefixes.length);
  const step = forward(commands, objective, model, x, { space, prefixes, into, state });
  recordDead(commands, objective, step, state);
  state.n_tokens += n_rows;
  backward(commands, step, state);
  recordLoss(commands, step, state);
  return state.gradients;
}

/** Codes, their norms and the largest |x|. */
function forward(
  commands: Commands,
  objective: Objective,
  model: Model,
  x: Tensor | Float32Array,
  given: {
    readonly space: Workspace;
    readonly prefixes: readonly number[];
    readonly into: LossSlot;
    readonly state?: TrainState;
  },
): Step {
  const { space, prefixes: lengths, into, state } = given;
  const { input, largest, rowSums, f_x, tile, ends } = space;
  ends.write(Uint32Array.from(lengths));
  if (!(x instanceof Tensor)) space.upload.write(x);
  input.record(commands, model, x instanceof Tensor ? x : space.upload);
  maxAbsBits(commands, input.x_BD, largest.partials, largest.bits);
  if ("sparse" in f_x) {
    const { codes } = f_x.sparse;
    if (state) {
      encodeTraining(commands, model, { input, tile, batch: space.batch, codes });
      updateThreshold(commands, model, { codes, largest: largest.bits, halted: state.halted });
    } else encodeInto(commands, model, input, tile, codes);
    rowNorms(commands, codes, rowSums.l0, rowSums.l1);
  } else {
    for (const span of space.spans) {
      preActivations(commands, model, { input, span, tile: f_x.f_BS, tileFrom: span.from, relu: true });
    }
    denseRowNorms(commands, f_x.f_BS, space.spans, rowSums.l0, rowSums.l1);
  }
  return { model, space, prefixes: { lengths, ends }, into, coeff: sparsityCoeff(objective.sparsity(model)) };
}

/** Counts who fired, and lets the dead choose where to help. */
function recordDead(commands: Commands, objective: Objective, { model, space }: Step, state: TrainState): void {
  const { f_x, dead, n_rows } = space;
  const { tokens_since_active } = state;
  if ("sparse" in f_x) {
    markFired(commands, f_x.sparse.codes, dead.fired);
    f_x.sparse.transposition.record(commands, f_x.sparse.codes.sparse);
  } else markFiredDense(commands, f_x.f_BS, space.spans, dead.fired);
  const { dead_threshold_tokens } = objective.cfg;
  updateDead(commands, { dead, tokens_since_active, n_rows, dead_threshold_tokens });
  const { aux } = model.cfg.activation;
  if (space.aux && aux.key === "auxk") auxKCodes(commands, model, space, space.aux, aux);
}

/** Reconstructions, residuals, and the gradients from last to first. */
function backward(commands: Commands, step: Step, { gradients }: TrainState): void {
  const { model, space, prefixes, coeff } = step;
  const { f_x, input, whole, n_rows, tile: grad_f } = space;
  for (const span of space.spans) {
    const G = reconstruct(commands, step, span);
    const accumulate = span.from > 0;
    const shared = { span, prefixes, G, input, gradients, accumulate, whole };
    biasBackward(commands, shared);
    if ("sparse" in f_x) {
      decodeBackward(commands, model, { ...shared, ...f_x.sparse });
    } else {
      const { f_BS } = f_x;
      decodeDenseBackward(commands, model, { ...shared, f_BS, grad_f });
      reluBackward(commands, model, { ...shared, f_BS, grad_f, slope: coeff / n_rows });
    }
  }
  if ("sparse" in f_x) {
    const { sparse } = f_x;
    sparsityBackward(commands, sparse.codes, sparse.grad_values, coeff);
    for (const span of space.spans) {
      const accumulate = span.from > 0;
      selectionBackward(commands, model, { ...sparse, input, span, whole, gradients, accumulate });
    }
  }
  centringBackward(commands, model, gradients);
  const { aux } = model.cfg.activation;
  if (space.aux && aux.key === "auxk") {
    auxKBackward(commands, model, { space, aux: space.aux, cfg: aux, gradients });
  }
}

/** Sums over the batch, and the numbers into their slot. In evaluation the residuals are still to be made. */
function recordLoss(commands: Commands, step: Step, state?: TrainState): void {
  const { model: { cfg: { d_model, activation: { aux } } }, space, prefixes, into: { losses, slot }, coeff } = step;
  const { rowSums, totals, n_rows, largest, dead } = space;
  if (!state) { for (const span of space.spans) reconstruct(commands, step, span); }
  [rowSums.squares, rowSums.l0, rowSums.l1, rowSums.aux].forEach((x, at) =>
    sum(commands, { x, size: n_rows, into: totals, results: totals.size, at })
  );
  const training = state !== undefined;
  commands.run(recordLossKernel, {
    slots: losses.shape[0]!,
    slot,
    training: Number(training),
    mse_terms: n_rows * prefixes.lengths.length * d_model,
    n_rows,
    coeff,
    aux_weight: training && aux.key === "auxk" ? aux.alpha / (n_rows * d_model) : 0,
    totals,
    largest: largest.bits,
    n_dead: dead.count,
    losses,
  });
}

/** One batch on its way. */
interface Step {
  readonly model: Model;
  readonly space: Workspace;
  readonly prefixes: Prefixes;
  readonly into: LossSlot;
  readonly coeff: number;
}

/** x̂ of some rows, turned into summed residuals; their squared errors are noted. */
function reconstruct(commands: Commands, step: Step, span: { readonly from: number; readonly to: number }): Tensor {
  const { model, space, prefixes } = step;
  const { f_x, x_hats, input, largest, rowSums, aux, n_rows } = space;
  const { from, to } = span;
  if ("sparse" in f_x) {
    decode(commands, model, { codes: f_x.sparse.codes, span, prefixes, x_hats: x_hats.rows(0, to - from) });
  } else decodeDense(commands, model, { f_BS: f_x.f_BS, span, prefixes, x_hats });
  residuals(commands, {
    x: input.x_BD.rows(from, to),
    x_hats: x_hats.rows(0, to - from),
    b_dec: model.parameters.b_dec,
    largest: largest.bits,
    squares: rowSums.squares,
    ...(aux ? { residual: aux.residual.rows(from, to) } : {}),
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
  dims: ["slots", "slot", "training"],
  scalars: ["mse_terms", "n_rows", "coeff", "aux_weight"],
  bindings: {
    totals: reads("f32", "4"),
    largest: reads("u32", "1"),
    n_dead: reads("u32", "1"),
    losses: writes("f32", `slots ${LOSS_WIDTH}`),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 12, bytes: 4 * LOSS_WIDTH }),
  declarations: SCALE_WGSL,
  body: `
  let scale = scale_of(largest[0]);
  let first = dims.slot * ${LOSS_WIDTH}u;
  let mse = totals[0] / dims.mse_terms * scale * scale;
  let l1 = totals[2] / dims.n_rows;
  var aux = 0.0;
  if (dims.aux_weight > 0.0) { aux = totals[3] * dims.aux_weight; }
  losses[first + ${LOSS.mse}u] = mse;
  losses[first + ${LOSS.sparsity}u] = dims.coeff * l1;
  losses[first + ${LOSS.l0}u] = totals[1] / dims.n_rows;
  losses[first + ${LOSS.l1}u] = l1;
  losses[first + ${LOSS.aux}u] = aux;
  losses[first + ${LOSS.n_dead}u] = select(0.0, f32(n_dead[0]), dims.training == 1u);
  losses[first + ${LOSS.loss}u] = mse + dims.coeff * l1 + aux;
  losses[first + ${LOSS.largest_x}u] = bitcast<f32>(largest[0]);`,
});

const DEAD_THRESHOLD_TOKENS = 10_000_000;

/**
 * An objective from its description.
 *
 * `vanilla`: `sparsity_coeff` (the activation's own sparsity if left out). `matryoshka`: `n_prefixes` (10) sampled anew at
 * each step, or fixed `group_sizes`. Both: `dead_threshold_tokens` (10,000,000).
 *
 * @throws {RangeError} for an unknown `key` or a number outside its range.
 * @throws {TypeError} for an unknown field.
 */
export function getObjective(options: ObjectiveOptions): Objective {
  const { key, dead_threshold_tokens = DEAD_THRESHOLD_TOKENS } = options;
  if (!Number.isInteger(dead_threshold_tokens) || dead_threshold_tokens < 1 || dead_threshold_tokens >= 2 ** 32) {
    throw new RangeError(`dead_threshold_tokens must be an integer from 1 to 2³² − 1, found ${dead_threshold_tokens}`);
  }
  const allowed = {
    vanilla: ["key", "sparsity_coeff", "dead_threshold_tokens"],
    matryoshka: ["key", "n_prefixes", "group_sizes", "dead_threshold_tokens"],
  }[key];
  if (!allowed) throw new RangeError(`unknown objective key ${JSON.stringify(key)}; expected vanilla or matryoshka`);
  const unknown = Object.keys(options).find((field) => !allowed.includes(field));
  if (unknown !== undefined) {
    throw new TypeError(`objective ${key} has no field ${JSON.stringify(unknown)}; it has ${allowed.join(", ")}`);
  }
  if (key === "vanilla") {
    const cfg = { key, sparsity_coeff: options.sparsity_coeff ?? null, dead_threshold_tokens };
    vanillaSparsity(cfg);
    return new Objective(cfg);
  }
  const { n_prefixes = 10, group_sizes = null } = options;
  if (!Number.isInteger(n_prefixes) || n_prefixes < 1) {
    throw new RangeError(`n_prefixes must be an integer of at least 1, found ${n_prefixes}`);
  }
  if (group_sizes && !(group_sizes.length > 0 && group_sizes.every((size) => Number.isInteger(size) && size > 0))) {
    throw new RangeError(`group_sizes must be positive integers, found [${group_sizes.join(", ")}]`);
  }
  if (group_sizes && options.n_prefixes !== undefined) {
    throw new TypeError("a matryoshka objective has n_prefixes or group_sizes, not both");
  }
  return new Objective({
    key,
    n_prefixes: group_sizes?.length ?? n_prefixes,
    group_sizes: group_sizes && Object.freeze([...group_sizes]),
    dead_threshold_tokens,
  });
}
