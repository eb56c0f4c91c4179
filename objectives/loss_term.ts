/**
 * What a step asks of a part of the loss. Each part stands in a file of its own, with the buffers that no other reads, its
 * forward, its backward, and what it adds to the record.
 *
 * A part that looks at codes, or has a gradient by them, does so twice: of the entries, and of the dense rows of a tile.
 * Only `step.ts` knows which of the two a step is.
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

/** One batch on its way through a step. */
export interface Step {
  /** What the step is recorded into. */
  readonly commands: Commands;
  readonly model: Model;
  /** What all parts share. */
  readonly buffers: StepBuffers;
  /** The nested dictionaries of this step. */
  readonly prefixes: Prefixes;
  /** The penalty on the codes. */
  readonly sparsity: Sparsity;
  readonly schedule: StepSchedule;
  /** What a loss alone does not need. */
  readonly training: Training | undefined;
}

/** A step that goes backward. */
export interface Training {
  /** Counters, and the gradients. */
  readonly state: TrainState;
  /** The mean L0 that a controller reaches for, if there is one. */
  readonly target_l0: number | null;
  /** Rows without firing after which a latent is dead. */
  readonly dead_threshold_tokens: number;
  /** Whether there can be dead latents. */
  readonly canBeDead: boolean;
}

/** A step that does. */
export type TrainingStep = Step & { readonly training: Training };

/** The rows of one tile in a dense step. */
export interface DenseTile {
  readonly dense: DenseStep;
  readonly span: Span;
  /** [≥ rows, S], ∂loss/∂f, then ∂loss/∂h. */
  readonly grad: Tensor;
  /** Whether there have been other tiles. */
  readonly accumulate: boolean;
}

/** Gradients of the codes, or of the pre-activations. */
export interface CodeGradients {
  /** Adds to those of the entries. */
  entries(step: TrainingStep): void;
  /** Adds to those of the rows of a tile. */
  dense(step: TrainingStep, tile: DenseTile): void;
}

/** Work that the GPU does where a number is not 0. */
export interface Conditional {
  /** [1] */
  readonly onlyIf: Tensor<"u32">;
  /** Records it. */
  readonly work: () => void;
}

/** A part of the loss. What it leaves out, it has nothing to do for. */
export interface LossTerm extends Disposable {
  /** Whether it reads ‖W_dec_s‖² in this step. */
  readsNorms?(step: Step): boolean;
  /** Before there are codes. */
  beforeCodes?(step: TrainingStep): void;
  /** Looks at the codes as soon as they are there. */
  readonly look?: {
    entries(step: Step): void;
    /** `penalised` is what the penalty is on: the codes, or what opens them. */
    dense(step: Step, codes: DenseCodes, span: Span, penalised: DenseCodes): void;
  };
  /** When all codes have been looked at. */
  afterCodes?(step: Step): void;
  /** When it is known which latents are dead. */
  afterDead?(step: TrainingStep): Iterable<Conditional>;
  /** [B, D], which gets what the reconstruction of this step misses. */
  residual?(step: Step): Tensor | undefined;
  /** ∂loss/∂f. */
  readonly onCodes?: CodeGradients;
  /** ∂loss/∂h. */
  readonly onPreActs?: CodeGradients;
  /** Gradients of parameters, when ∂loss/∂h has gone backward through the encoder. */
  afterEncoder?(step: TrainingStep): void;
  /** The same where it depends on a number of the GPU. */
  last?(step: TrainingStep): Iterable<Conditional>;
}

/** A term beside the squared error and the penalty. */
export interface AuxTerm extends LossTerm {
  /** Where the sum of the losses of all rows has its place; that of `aux` counts only where there are dead latents. */
  readonly total: "aux" | "gate";
  /** Adds them up in `totals`, without their weight. */
  sum(step: TrainingStep, totals: Tensor): void;
  /** What that sum is multiplied with. */
  weight(step: TrainingStep): number;
}
