/**
 * The interface of an activation. Each activation is a file of its own with everything that belongs to it: fields,
 * parameters, formula, codes outside and in training, and the backward pass.
 *
 * Training has two code paths. *Selected* codes are sparse rows from the start, since their number is known in advance
 * (`selected_codes.ts`). *Elementwise* codes are counted by the GPU in each step, which is sparse if they are few and
 * dense if they are many (`elementwise_codes.ts`).
 *
 * @module
 */

import type { Commands } from "../../kernels/engine/commands.ts";
import type { Tensor, TensorRows } from "../../kernels/engine/tensor.ts";
import type { ParameterArrays } from "../arrays.ts";
import type { Codes, EntryBuffers } from "../codes.ts";
import type { DenseCodes } from "../dense_codes.ts";
import type { AffineMaps, EncoderInput, Tile } from "../encode.ts";
import type { Fields } from "../fields.ts";
import type { Aux, Sparsity } from "../loss_terms.ts";
import type { Gradients, OwnParameterName } from "../parameters.ts";

/** The fields that every activation has. */
export interface AnyActivation {
  /** Discriminator. */
  readonly key: string;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** A parameter of an activation, besides the matrices and biases. */
export interface OwnParameter<C> {
  /** Its name in `ParameterArrays`. */
  readonly name: OwnParameterName;
  /** [S], or a single number. */
  readonly shape: "each latent" | "one";
  /** Its name in saev's files. */
  readonly inFiles: string;
  /** Whether it has a gradient; otherwise training estimates it. */
  readonly isTrained: boolean;
  /** The initial value of all elements. */
  initial(cfg: C, pre_act_scale: number): number;
}

/** An activation. */
export interface ActivationKind<C extends AnyActivation> {
  /** Its name in configurations. */
  readonly key: C["key"];
  /** Its fields. */
  readonly fields: Fields<C>;
  /**
   * Checks fields that depend on each other.
   *
   * @throws {RangeError} where they contradict each other.
   */
  check?(cfg: C): void;
  /** Its formula outside training, f of h, for people to read. */
  formula(cfg: C, own: Partial<ParameterArrays>): string;
  /** Its own parameters. */
  readonly parameters: readonly OwnParameter<C>[];
  /** Whether some fields are in units of the initial pre-activations, which are then measured. */
  readonly countsInPreActs: boolean;
  /** How many latents a row keeps, on average over a batch; only if the configuration says so. */
  top_k?(cfg: C): number;
  /** How many entries each row has outside training; only if that is known in advance. */
  entriesPerRow?(cfg: C, d_sae: number): number;
  /** f_x of the whole batch outside training. */
  encode(commands: Commands, model: AffineMaps, cfg: C, given: Encoding): void;
  /** Codes [B, S] from pre-activations [B, S], as in the first step of training, in float64. */
  inFloat64(
    cfg: C,
    h_BS: Float64Array,
    given: { readonly d_sae: number; readonly pre_act_scale: number },
  ): Float64Array;
  /** Its code path in training. */
  readonly training: Selecting<C> | Elementwise<C>;
}

/** Inputs and outputs of encoding a batch. */
export interface Encoding {
  /** The inputs. */
  readonly input: EncoderInput;
  /** Buffers for pre-activations. */
  readonly tile: Tile;
  /** Buffers for the codes. */
  readonly codes: Codes;
}

/** Codes that are selected from the pre-activations of a row or a batch. */
export interface Selecting<C> {
  /** Discriminator. */
  readonly path: "selected";
  /** The selector in training, for batches of `n_rows` that keep at most `k` latents a row on average. */
  selector(model: AffineMaps, cfg: C, n_rows: number, k: number): Selector;
}

/** Selects the codes of a batch. */
export interface Selector extends Disposable {
  /** The most rows whose pre-activations it takes together. */
  readonly tileRows: number;
  /** Whether some of the codes may be negative. */
  readonly keepsNegatives: boolean;
  /** Selects `k` latents a row on average, and updates the parameters estimated from them. */
  select(
    commands: Commands,
    given: Encoding & { readonly k: number; readonly estimate: Estimate | undefined },
  ): void;
}

/** Inputs of a parameter's estimate besides the codes. */
export interface Estimate {
  /** [1], bits of the largest |x| of the batch. */
  readonly largest: Tensor<"u32">;
  /** [1], 0 while training is well. */
  readonly halted: Tensor<"u32">;
  /** [1], how much of the estimate comes from data; 0 at the start. */
  readonly seen: Tensor;
}

/** Codes that each depend only on the pre-activation of their latent. */
export interface Elementwise<C> {
  /** Discriminator. */
  readonly path: "elementwise";
  /**
   * How codes are computed from pre-activations; without it, f is max(h, 0), which the encoder's product gives
   * directly.
   */
  readonly ofPreActs?: PreActCodes<C>;
  /** ∂f → ∂h of the rows of a tile, in place, and the gradients of the activation's own parameters. */
  denseBackward(
    commands: Commands,
    model: AffineMaps,
    cfg: C,
    given: ElementwiseBackward & {
      /** [rows, S], h, or f where the encoder's product gives it. */
      readonly dense: TensorRows;
      readonly grad_f: Tensor;
      /** [rows, S], ∂gate. */
      readonly grad_gate: Tensor | undefined;
      /** Whether to add to the gradients of own parameters. */
      readonly accumulate: boolean;
    },
  ): void;
}

/** How codes are computed from pre-activations that are kept. */
export interface PreActCodes<C> {
  /** Elements closer to their threshold than half of this are entries too: their code is 0, and their h is needed. */
  window(cfg: C, model: AffineMaps): number;
  /**
   * Whether h gates the codes and the penalty applies to max(h, 0): h then has two gradients, ∂gate and that of the
   * codes, and only ∂gate reaches b_enc.
   */
  readonly isGate: boolean;
  /** The codes of a tile of h, for kernels that read them once. `f` [rows, S] may be used as a buffer. */
  look(
    commands: Commands,
    model: AffineMaps,
    given: { readonly h: TensorRows; readonly f: TensorRows },
  ): DenseCodes;
  /** f of the entries from their h. */
  ofEntries(commands: Commands, model: AffineMaps, given: { readonly codes: Codes; readonly preActs: Tensor }): void;
  /** f [rows, S] of a tile of h. */
  ofTile(commands: Commands, model: AffineMaps, given: { readonly h: TensorRows; readonly f: TensorRows }): void;
  /** ∂f → ∂h of all entries, in place, and the gradients of the activation's own parameters. */
  entriesBackward(
    commands: Commands,
    model: AffineMaps,
    cfg: C,
    given: ElementwiseBackward & {
      readonly entries: EntryBuffers;
      /** [entries], h. */
      readonly preActs: Tensor;
      /** [entries], ∂gate. */
      readonly grad_gate: Tensor | undefined;
    },
  ): void;
}

/** Inputs of both backward passes of an elementwise activation. */
export interface ElementwiseBackward {
  /** [1], the slope of the penalty in the loss. */
  readonly slope: Tensor;
  /** Whether the penalty is on L0. */
  readonly onL0: boolean;
  /** B */
  readonly n_rows: number;
  readonly gradients: Gradients;
}
