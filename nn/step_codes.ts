/**
 * The codes of a training step, whichever of the two paths makes them.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { Span, Tensor, TensorRows } from "../kernels/engine/tensor.ts";
import type { ElementwiseBackward, Estimate } from "./activations/activation.ts";
import type { Entries, EntryBuffers } from "./codes.ts";
import type { DenseCodes } from "./dense_codes.ts";
import type { AffineMaps, EncoderInput } from "./encode.ts";

/** Codes of a batch, and all that their backward needs. */
export interface StepCodes extends Disposable {
  /** The codes as entries; where the GPU decides, those of a sparse step. */
  readonly entries: EntryBuffers;
  /** What a dense step works with, where the GPU decides; without it, a step is sparse. */
  readonly dense: DenseStep | undefined;
  /** What is kept of pre-activations. */
  readonly preActs: PreActs | undefined;
  /** max(h, 0) as entries, where the penalty is on that; it is on the codes otherwise. */
  readonly gate: Gate | undefined;
  /** Makes the codes of the whole batch: as entries for certain, or for the GPU to decide, and then `look` sees each tile. */
  encode(
    commands: Commands,
    model: AffineMaps,
    given: {
      readonly input: EncoderInput;
      readonly look: Look;
      /** How many latents a row keeps on average, of selected codes. */
      readonly k: number;
      /** What training estimates from; without it nothing is estimated. */
      readonly estimate: Estimate | undefined;
    },
  ): void;
  /** In a sparse step: f of the entries, where only their h is there. */
  finishEntries(commands: Commands, model: AffineMaps): void;
  /** In a sparse step: ∂f → ∂h of the entries, in place, and the gradients of the activation's own parameters. */
  entriesBackward(commands: Commands, model: AffineMaps, given: BackwardArguments): void;
}

/** Codes in a dense step. */
export interface DenseStep {
  /** [1] each: which of the two the step is, 1 or 0. */
  readonly isSparse: Tensor<"u32">;
  readonly isDense: Tensor<"u32">;
  /** Rows that are encoded at once, and go backward at once. */
  readonly tiles: readonly Span[];
  /** h of the rows of one tile where it is kept, f otherwise. */
  denseRows(span: Span): TensorRows;
  /** f of the rows of one tile. */
  codeRows(span: Span): TensorRows;
  /** f of the rows of one tile, where only a tile of it or of h is kept. */
  encodeAgain(commands: Commands, model: AffineMaps, input: EncoderInput, span: Span): void;
  /** ∂f → ∂h of the rows of one tile, in place, and the gradients of the activation's own parameters. */
  denseBackward(
    commands: Commands,
    model: AffineMaps,
    given: BackwardArguments & { readonly span: Span; readonly grad_f: Tensor; readonly accumulate: boolean },
  ): void;
}

/** What opens codes, besides them. */
export interface Gate {
  /** max(h, 0), and its gradient. */
  readonly entries: Entries;
  /** [rows of a tile, S], the gradient of it in a dense step. */
  readonly grad: Tensor;
  /** [S], Σ_b ∂loss/∂h, which is not b_enc's gradient. */
  readonly sums: Tensor;
}

/** Pre-activations that are kept. */
export interface PreActs {
  /** [entries], h. */
  readonly ofEntries: Tensor;
  /** [S], 1 where every row is an entry. */
  readonly wanted: Tensor<"u32">;
}

/** What looks at the codes of a tile, and at what the penalty is on, before the next tile takes their place. */
export type Look = (codes: DenseCodes, span: Span, penalised: DenseCodes) => void;

/** What the backward of an activation reads of the penalty, and where the gradients are. */
export type BackwardArguments = Omit<ElementwiseBackward, "n_rows">;
