/**
 * The interface of a loss term. Each term is a file of its own, with the buffers that only it reads, its forward pass,
 * its backward pass, and what it adds to the loss record.
 *
 * A term that reads codes, or has a gradient with respect to them, does so in two forms: for entries, and for the dense
 * rows of a tile. Only `step.ts` knows which of the two a step uses.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { Span, Tensor } from "../kernels/engine/tensor.ts";
import type { Prefixes } from "../nn/decode.ts";
import type { DenseCodes } from "../nn/dense_codes.ts";
import type { Sparsity } from "../nn/loss_terms.ts";
import type { Model } from "../nn/model.ts";
import type { TrainState } from "../nn/state.ts";
import type { StepBuffers } from "../nn/step_buffers.ts";
import type { DenseStep } from "../nn/step_codes.ts";

/** The values of the schedules in one step. */
export interface StepSchedule {
  /** The learning rate, which scales the pace of the L0 controller; 2e-3 if `null`. */
  readonly lr: number | null;
  /** The most steps until the L0 controller's reference is the target itself. */
  readonly stepsToTarget: number;
  /** The factor of the penalty's weight. */
  readonly sparsity: number;
  /** How many latents a TopK or BatchTopK keeps a row; its own `top_k` if `null`. */
  readonly top_k: number | null;
  /** The largest k of any step of the run, which sets the size of buffers; the configuration's `top_k` if `null`. */
  readonly mostK: number | null;
}

/** What a step works with. */
export interface Step {
  /** The list that the step is recorded into. */
  readonly commands: Commands;
  readonly model: Model;
  /** Buffers that several terms share. */
  readonly buffers: StepBuffers;
  /** The nested dictionaries of this step. */
  readonly prefixes: Prefixes;
  /** The penalty on the codes. */
  readonly sparsity: Sparsity;
  readonly schedule: StepSchedule;
  /** What only training needs. */
  readonly training: Training | undefined;
}

/** The part of a step that training adds. */
export interface Training {
  /** Counters, and the gradients. */
  readonly state: TrainState;
  /** The controller's target, if there is one. */
  readonly target_l0: number | null;
  /** Rows without firing after which a latent is dead. */
  readonly dead_threshold_tokens: number;
  /** Whether any latent can be dead in this step. */
  readonly canBeDead: boolean;
}

/** A training step. */
export type TrainingStep = Step & { readonly training: Training };

/** The rows of one tile in a dense step. */
export interface DenseTile {
  readonly dense: DenseStep;
  readonly span: Span;
  /** [≥ rows, S], ∂loss/∂f, then ∂loss/∂h. */
  readonly grad: Tensor;
  /** Whether earlier tiles have written gradients. */
  readonly accumulate: boolean;
}

/** Gradients with respect to the codes, or to the pre-activations, in both forms. */
export interface CodeGradients {
  /** Adds to the gradients of the entries. */
  entries(step: TrainingStep): void;
  /** Adds to the gradients of the rows of a tile. */
  dense(step: TrainingStep, tile: DenseTile): void;
}

/** Work that the GPU does if a number is not 0. */
export interface Conditional {
  /** [1] */
  readonly onlyIf: Tensor<"u32">;
  /** Records it. */
  readonly work: () => void;
}

/** A loss term. It leaves out the methods that it does not need. */
export interface LossTerm extends Disposable {
  /** Whether it reads ‖W_dec_s‖² in this step. */
  readsNorms?(step: Step): boolean;
  /** Before there are codes. */
  beforeCodes?(step: TrainingStep): void;
  /** Reads the codes as soon as they are computed. */
  readonly look?: {
    entries(step: Step): void;
    /** `penalised` is what the penalty applies to: the codes, or a Gated's gates. */
    dense(step: Step, codes: DenseCodes, span: Span, penalised: DenseCodes): void;
  };
  /** After all codes have been read. */
  afterCodes?(step: Step): void;
  /** After it is known which latents are dead. */
  afterDead?(step: TrainingStep): Iterable<Conditional>;
  /** [B, D], a tensor that gets the residual of this step's reconstruction. */
  residual?(step: Step): Tensor | undefined;
  /** ∂loss/∂f. */
  readonly onCodes?: CodeGradients;
  /** ∂loss/∂h. */
  readonly onPreActs?: CodeGradients;
  /** Gradients of parameters, after the encoder's backward pass. */
  afterEncoder?(step: TrainingStep): void;
  /** The same, conditional on numbers of the GPU. */
  last?(step: TrainingStep): Iterable<Conditional>;
}

/** A term beside the squared error and the penalty. */
export interface AuxTerm extends LossTerm {
  /** Its sum in the totals; that of `aux` counts only if there are dead latents. */
  readonly total: "aux" | "gate";
  /** Sums the rows' losses into `totals`, without their weight. */
  sum(step: TrainingStep, totals: Tensor): void;
  /** The factor of that sum in the loss. */
  weight(step: TrainingStep): number;
}
