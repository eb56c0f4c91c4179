/**
 * The codes of a training step, from either code path.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { Span, Tensor, TensorRows } from "../kernels/engine/tensor.ts";
import type { ElementwiseBackward, Estimate } from "./activations/activation.ts";
import type { Entries, EntryBuffers } from "./codes.ts";
import type { DenseCodes } from "./dense_codes.ts";
import type { AffineMaps, EncoderInput } from "./encode.ts";

/** Codes of a batch, and what their backward pass needs. */
export interface StepCodes extends Disposable {
  /** The codes as entries; if the GPU decides, only a sparse step uses them. */
  readonly entries: EntryBuffers;
  /** The dense form of the step, if the GPU decides; without it, every step is sparse. */
  readonly dense: DenseStep | undefined;
  /** The pre-activations that are kept. */
  readonly preActs: PreActs | undefined;
  /** max(h, 0) as entries, if the penalty applies to it instead of to the codes. */
  readonly gate: Gate | undefined;
  /** Makes the codes of the whole batch: as entries for certain, or for the GPU to decide, and then `look` sees each tile. */
  encode(
    commands: Commands,
    model: AffineMaps,
    given: {
      readonly input: EncoderInput;
      readonly look: Look;
      /** How many latents a row keeps on average, for selected codes. */
      readonly k: number;
      /** Inputs of the parameters that training estimates; without it nothing is estimated. */
      readonly estimate: Estimate | undefined;
    },
  ): void;
  /** In a sparse step: computes f of the entries if only their h is known. */
  finishEntries(commands: Commands, model: AffineMaps): void;
  /** In a sparse step: ∂f → ∂h of the entries, in place, and the gradients of the activation's own parameters. */
  entriesBackward(commands: Commands, model: AffineMaps, given: BackwardArguments): void;
}

/** Codes in a dense step. */
export interface DenseStep {
  /** [1] each, 1 or 0: whether the step is sparse, and whether it is dense. */
  readonly isSparse: Tensor<"u32">;
  readonly isDense: Tensor<"u32">;
  /** Rows that are encoded together, and processed together in the backward pass. */
  readonly tiles: readonly Span[];
  /** h of the rows of one tile if pre-activations are kept, otherwise f. */
  denseRows(span: Span): TensorRows;
  /** f of the rows of one tile. */
  codeRows(span: Span): TensorRows;
  /** Computes f of the rows of one tile if it is not stored. */
  encodeAgain(commands: Commands, model: AffineMaps, input: EncoderInput, span: Span): void;
  /** ∂f → ∂h of the rows of one tile, in place, and the gradients of the activation's own parameters. */
  denseBackward(
    commands: Commands,
    model: AffineMaps,
    given: BackwardArguments & { readonly span: Span; readonly grad_f: Tensor; readonly accumulate: boolean },
  ): void;
}

/** The gates of a Gated's codes. */
export interface Gate {
  /** max(h, 0), and its gradient. */
  readonly entries: Entries;
  /** [rows of a tile, S], the gradient of it in a dense step. */
  readonly grad: Tensor;
  /** [S], Σ_b ∂loss/∂h, which is not b_enc's gradient. */
  readonly sums: Tensor;
}

/** The pre-activations that are kept. */
export interface PreActs {
  /** [entries], h. */
  readonly ofEntries: Tensor;
  /** [S], 1 where every row is an entry. */
  readonly wanted: Tensor<"u32">;
}

/** What looks at the codes of a tile, and at what the penalty is on, before the next tile takes their place. */
export type Look = (codes: DenseCodes, span: Span, penalised: DenseCodes) => void;

/** Inputs of an activation's backward pass: the penalty's slope, and the gradients. */
export type BackwardArguments = Omit<ElementwiseBackward, "n_rows">;
