/**
 * What the rest of the library asks of an activation. Each stands in a file of its own, with everything that is its own:
 * fields, parameters, formula, codes outside training and in it, and its backward.
 *
 * In training there are two code paths. Codes are *selected*: how many there are is known beforehand, and they are sparse
 * rows from the start (`selected_codes.ts`). Or they are made *element by element*: the GPU counts them in each step, and the
 * step is sparse where they are few and dense where they are many (`elementwise_codes.ts`).
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

/** What the configuration of every activation has. */
export interface AnyActivation {
  /** Discriminator. */
  readonly key: string;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** A parameter that an activation has besides the matrices and biases. */
export interface OwnParameter<C> {
  /** What `ParameterArrays` calls it. */
  readonly name: OwnParameterName;
  /** [S], or a single number. */
  readonly shape: "each latent" | "one";
  /** How saev's files spell it. */
  readonly inFiles: string;
  /** Whether it has a gradient; otherwise training estimates it. */
  readonly isTrained: boolean;
  /** The value of all elements before training. */
  initial(cfg: C, pre_act_scale: number): number;
}

/** An activation. */
export interface ActivationKind<C extends AnyActivation> {
  /** How configurations name it. */
  readonly key: C["key"];
  /** Its fields. */
  readonly fields: Fields<C>;
  /**
   * What its fields ask of each other.
   *
   * @throws {RangeError} where they contradict each other.
   */
  check?(cfg: C): void;
  /** Its formula outside training, for people: f of h. */
  formula(cfg: C, own: Partial<ParameterArrays>): string;
  /** Its own parameters. */
  readonly parameters: readonly OwnParameter<C>[];
  /** Whether fields count in units of the initial pre-activations, which are then measured. */
  readonly countsInPreActs: boolean;
  /** How many latents a row keeps, on average of a batch; only where the configuration says so. */
  top_k?(cfg: C): number;
  /** How many entries each row has outside training; only where that is known beforehand. */
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

/** What codes are made from, and where they go. */
export interface Encoding {
  /** The inputs. */
  readonly input: EncoderInput;
  /** Room for pre-activations. */
  readonly tile: Tile;
  /** Room for the codes. */
  readonly codes: Codes;
}

/** Codes that are selected from the pre-activations of a row or a batch. */
export interface Selecting<C> {
  /** Discriminator. */
  readonly path: "selected";
  /** What selects in training, for batches of `n_rows` that keep at most `k` latents a row on average. */
  selector(model: AffineMaps, cfg: C, n_rows: number, k: number): Selector;
}

/** What selects the codes of a batch. */
export interface Selector extends Disposable {
  /** The most rows whose pre-activations it takes at once. */
  readonly tileRows: number;
  /** Whether some of the codes may be negative. */
  readonly keepsNegatives: boolean;
  /** Selects `k` latents a row on average, and estimates what depends on them. */
  select(
    commands: Commands,
    given: Encoding & { readonly k: number; readonly estimate: Estimate | undefined },
  ): void;
}

/** What an estimate of a parameter depends on besides the codes. */
export interface Estimate {
  /** [1], bits of the largest |x| of the batch. */
  readonly largest: Tensor<"u32">;
  /** [1], 0 while training is well. */
  readonly halted: Tensor<"u32">;
  /** [1], how much of the estimate has been seen; 0 at the start. */
  readonly seen: Tensor;
}

/** Codes of which each depends on the pre-activation of its latent alone. */
export interface Elementwise<C> {
  /** Discriminator. */
  readonly path: "elementwise";
  /** What is done with pre-activations; without it, f is max(h, 0), which the encoder's product gives by itself. */
  readonly ofPreActs?: PreActCodes<C>;
  /** ∂f → ∂h of the rows of a tile, in place, and the gradients of its own parameters. */
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
      /** Adds to the gradients of own parameters. */
      readonly accumulate: boolean;
    },
  ): void;
}

/** How codes are made from pre-activations that are kept. */
export interface PreActCodes<C> {
  /** Entries are also those closer to their threshold than half of this: their code is 0, and their h is asked for. */
  window(cfg: C, model: AffineMaps): number;
  /**
   * Whether max(h, 0) is what the penalty is on, and what alone opens the codes: h then has two gradients, ∂gate of that
   * and the one of the codes, and only the first reaches b_enc.
   */
  readonly isGate: boolean;
  /** The codes of a tile of h as what looks at them once reads them. `f` [rows, S] is free for them. */
  look(
    commands: Commands,
    model: AffineMaps,
    given: { readonly h: TensorRows; readonly f: TensorRows },
  ): DenseCodes;
  /** f of the entries from their h. */
  ofEntries(commands: Commands, model: AffineMaps, given: { readonly codes: Codes; readonly preActs: Tensor }): void;
  /** f [rows, S] of a tile of h. */
  ofTile(commands: Commands, model: AffineMaps, given: { readonly h: TensorRows; readonly f: TensorRows }): void;
  /** ∂f → ∂h of all entries, in place, and the gradients of its own parameters. */
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

/** What both backwards of an elementwise activation read. */
export interface ElementwiseBackward {
  /** [1], the slope of the penalty in the loss. */
  readonly slope: Tensor;
  /** Whether the penalty is on L0. */
  readonly onL0: boolean;
  /** B */
  readonly n_rows: number;
  readonly gradients: Gradients;
}
