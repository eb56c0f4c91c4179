/**
 * Every activation and intermediate gradient of a training step, allocated once for a batch size and number of prefixes.
 *
 * @module
 */

import { chunksOf } from "../kernels/reduce.ts";
import { type ElementType, type Span, spans, Tensor } from "../kernels/engine/tensor.ts";
import type { Selector } from "./activations/activation.ts";
import { activationKind } from "./activations/mod.ts";
import { Codes, EntryBuffers } from "./codes.ts";
import { ElementwiseCodes } from "./elementwise_codes.ts";
import { EncoderInput, rowsAtOnce, Tile } from "./encode.ts";
import { emptyCodes, encodeInto, type Model } from "./model.ts";
import { SelectedCodes } from "./selected_codes.ts";
import type { StepCodes } from "./step_codes.ts";

/** Buffers of AuxK. */
export interface AuxSpace {
  /** The dead latents' codes. */
  readonly entries: EntryBuffers;
  /** [B, D], what the reconstruction missed. */
  readonly residual: Tensor;
  /** [D], its sum over the batch; [B], a row's squared distance from its mean; [1], 1 over the mean of those, or 1. */
  readonly variance: { readonly sums: Tensor; readonly squares: Tensor; readonly inverse: Tensor };
  /** [rows of a span, 1, D], the dead latents' attempt at it, then its gradient. */
  readonly reconstruction: Tensor;
  /** [1], how many dead latents there are; 0 where dense products take them. */
  readonly sparseCount: Tensor<"u32">;
  /** What dense products over the dead latents need. */
  readonly dense: DenseAuxSpace;
  /** Rows that go through it at once. */
  readonly spans: readonly Span[];
}

/** The dead latents' codes and rows of parameters, side by side: `most` columns or rows, of which `count[0]` matter. */
export interface DenseAuxSpace {
  /** The most dead latents that are multiplied densely. */
  readonly most: number;
  /** [1], how many there are; 0 where there are more than that. */
  readonly count: Tensor<"u32">;
  /** [rows of a span, most], the codes. */
  readonly codes: Tensor;
  /** [rows of a span, most], their gradient. */
  readonly grad: Tensor;
  /** [most, D], rows of W_dec. */
  readonly W_dec: Tensor;
  /** [most, D] or [most, 1], rows of the gradients. */
  readonly gradients: Readonly<Record<"W_dec" | "W_enc" | "b_enc", Tensor>>;
}

/** Sums of the pre-activation loss over the rows of a batch. */
export interface PreActSpace {
  /** [S], its part of ∂loss/∂θ. */
  readonly grad_threshold: Tensor;
  /** [S], its part of ∂loss/∂‖W_dec_s‖. */
  readonly normSlopes: Tensor;
}

/** Places of the sums over a batch. */
export const TOTALS = { squares: 0, l0: 1, l1: 2, penalty: 3, aux: 4 } as const;

/** What a workspace is for. */
export interface WorkspaceUse {
  /** In training, or for the loss alone. */
  readonly training: boolean;
  /** The most latents a row of a TopK or BatchTopK keeps on average. */
  readonly mostK: number;
}

/** A software driver ends loops at 65,535 turns; some kernels take one a row. */
const MOST_ROWS = 32768;

/** The same for residuals: 32 invocations share the dimensions of all prefixes of a row. */
const MOST_SUMMED = 32 * 60000;

/**
 * Dense products over the dead latents pay until there are more than this many times those that a row selects: a
 * multiply-add of a dense product costs a small fraction of one of a sparse product.
 */
const DENSE_AUX = 4;

/** Rows of the dense codes of dead latents: more would make the products no faster. */
const MOST_AUX_ROWS = 1024;

/** Buffers of a step. What they hold is only valid until the next one. */
export class Workspace implements Disposable {
  /** B */
  readonly n_rows: number;
  /** P */
  readonly n_prefixes: number;
  /** What the model makes of the inputs. */
  readonly input: EncoderInput;
  /** Pre-activations of some rows; in a dense step, the gradient of codes. */
  readonly tile: Tile;
  /** The codes. */
  readonly f_x: StepCodes;
  /** [entries], ∂loss/∂‖W_dec_s‖ of each, where the penalty depends on it. */
  readonly normValues: Tensor | undefined;
  /** [rows of a span, P, D], reconstructions, then summed residuals. */
  readonly x_hats: Tensor;
  /** [P], lengths of the prefixes. */
  readonly ends: Tensor<"u32">;
  /** [1], S: the only prefix of what has none. */
  readonly whole: Tensor<"u32">;
  /** [B] each, sums over a row. */
  readonly rowSums: Readonly<Record<keyof typeof TOTALS, Tensor>>;
  /** [5], the sums of those over the batch, in the order of {@link TOTALS}. */
  readonly totals: Tensor;
  /** [S] each: ‖W_dec_s‖², and ∂loss/∂‖W_dec_s‖. */
  readonly norms: { readonly squares: Tensor; readonly slopes: Tensor };
  /** [1] each: the weight of the penalty, and its slope in the loss. */
  readonly penalty: { readonly weight: Tensor; readonly slope: Tensor };
  /** [2] and [1], for what there is not. */
  readonly unused: { readonly control: Tensor; readonly halted: Tensor<"u32"> };
  /** The largest |x|, as bits. */
  readonly largest: { readonly partials: Tensor<"u32">; readonly bits: Tensor<"u32"> };
  /** Which latents fired, which are dead, and the dead ones in order. */
  readonly dead: {
    readonly fired: Tensor<"u32">;
    readonly flags: Tensor<"u32">;
    readonly places: Tensor<"u32">;
    readonly list: Tensor<"u32">;
    readonly count: Tensor<"u32">;
  };
  /** The dead latents' attempt at the residual. */
  readonly aux: AuxSpace | undefined;
  /** What pulls dead latents back. */
  readonly preAct: PreActSpace | undefined;
  /** Rows that are decoded and go backward at once. */
  readonly spans: readonly Span[];
  readonly #owned: DisposableStack;

  /** What it was made for. */
  readonly use: WorkspaceUse;

  /** Buffers for batches of `n_rows` and `n_prefixes` prefixes. */
  constructor(model: Model, n_rows: number, n_prefixes: number, use: WorkspaceUse) {
    const { training, mostK } = use;
    const { cfg: { d_model, d_sae, activation }, context } = model;
    if (n_prefixes * d_model > MOST_SUMMED) {
      throw new RangeError(
        `a step sums ${MOST_SUMMED} values a row at most, found ${n_prefixes} prefixes of d_model ${d_model}`,
      );
    }
    using stack = new DisposableStack();
    const make = <T extends ElementType>(type: T, shape: number[], label: string): Tensor<T> =>
      stack.use(new Tensor(context, type, shape, label));
    const { sparsity } = activation;
    const isWeighted = sparsity.key === "weighted-l1-sparsity" || sparsity.key === "tanh-sparsity";
    this.use = use;
    this.n_rows = n_rows;
    this.n_prefixes = n_prefixes;
    this.input = stack.use(new EncoderInput(model, n_rows));
    const spanRows = Math.min(rowsAtOnce(model, n_rows, n_prefixes * d_model * 4, "reconstructions"), MOST_ROWS);
    const { training: path } = activationKind(activation);
    if (path.path === "selected") {
      const selector = stack.use(
        training ? path.selector(model, activation, n_rows, mostK) : evaluating(model, n_rows),
      );
      this.tile = stack.use(new Tile(model, n_rows, { selects: true, most: selector.tileRows }));
      const codes = training
        ? new Codes(context, n_rows, d_sae, n_rows * Math.min(mostK, d_sae))
        : emptyCodes(model, n_rows);
      this.f_x = stack.use(new SelectedCodes(model, { selector, codes, tile: this.tile, training }));
    } else {
      this.tile = stack.use(new Tile(model, n_rows, { selects: false }));
      const given = { n_rows, rows: spanRows, tile: this.tile, training };
      this.f_x = stack.use(new ElementwiseCodes(model, path, activation, given));
    }
    const capacity = this.f_x.entries.grad_values.size;
    this.normValues = isWeighted ? make("f32", [capacity], "slopes of f_x") : undefined;
    this.spans = [...spans(n_rows, spanRows)];
    this.x_hats = make("f32", [Math.min(spanRows, n_rows), n_prefixes, d_model], "x_hats");
    this.ends = make("u32", [n_prefixes], "prefixes");
    this.whole = make("u32", [1], "d_sae");
    this.whole.write(Uint32Array.of(d_sae));
    this.rowSums = {
      squares: make("f32", [n_rows], "squared error a row"),
      l0: make("f32", [n_rows], "L0 a row"),
      l1: make("f32", [n_rows], "L1 a row"),
      penalty: make("f32", [n_rows], "penalty a row"),
      aux: make("f32", [n_rows], "auxiliary error a row"),
    };
    this.totals = make("f32", [Object.keys(TOTALS).length], "sums over the batch");
    this.norms = {
      squares: make("f32", [d_sae], "squared lengths of W_dec's rows"),
      slopes: make("f32", [d_sae], "slopes of the lengths"),
    };
    this.penalty = { weight: make("f32", [1], "penalty's weight"), slope: make("f32", [1], "penalty's slope") };
    this.unused = { control: make("f32", [2], "no controller"), halted: make("u32", [1], "never halted") };
    this.largest = {
      partials: make("u32", [chunksOf(n_rows * d_model)], "partial maxima"),
      bits: make("u32", [1], "largest |x|"),
    };
    this.dead = {
      fired: make("u32", [d_sae], "fired"),
      flags: make("u32", [d_sae], "dead"),
      places: make("u32", [d_sae + 1], "places of dead latents"),
      list: make("u32", [d_sae], "dead latents"),
      count: make("u32", [1], "n_dead"),
    };
    if (training && activation.aux.key === "auxk") {
      const k = Math.min(activation.aux.k_aux, d_sae);
      const most = 4 * Math.ceil(Math.min(DENSE_AUX * k, d_sae) / 4);
      const auxRows = Math.min(
        this.x_hats.shape[0]!,
        MOST_AUX_ROWS,
        rowsAtOnce(model, n_rows, most * 4, "dead codes"),
      );
      this.aux = {
        entries: stack.use(
          new EntryBuffers(context, new Codes(context, n_rows, d_sae, n_rows * k, "auxiliary f_x"), "auxiliary f_x", {
            training,
          }),
        ),
        residual: make("f32", [n_rows, d_model], "residual"),
        variance: {
          sums: make("f32", [d_model], "summed residual"),
          squares: make("f32", [n_rows], "squared distance from the mean residual"),
          inverse: make("f32", [1], "inverse variance of the residual"),
        },
        reconstruction: make("f32", [auxRows, 1, d_model], "auxiliary reconstruction"),
        sparseCount: make("u32", [1], "dead latents of sparse products"),
        dense: {
          most,
          count: make("u32", [1], "dead latents of dense products"),
          codes: make("f32", [auxRows, most], "dense auxiliary f_x"),
          grad: make("f32", [auxRows, most], "grad of dense auxiliary f_x"),
          W_dec: make("f32", [most, d_model], "W_dec of dead latents"),
          gradients: {
            W_dec: make("f32", [most, d_model], "grad_W_dec of dead latents"),
            W_enc: make("f32", [most, d_model], "grad_W_enc of dead latents"),
            b_enc: make("f32", [most, 1], "grad_b_enc of dead latents"),
          },
        },
        spans: [...spans(n_rows, auxRows)],
      };
    }
    if (training && activation.aux.key === "pre-act") {
      this.preAct = {
        grad_threshold: make("f32", [d_sae], "grad_threshold of dead latents"),
        normSlopes: make("f32", [d_sae], "slopes of dead latents' lengths"),
      };
    }
    this.aux?.variance.inverse.write(Float32Array.of(1));
    this.#owned = stack.move();
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** What encodes as outside training. */
function evaluating(model: Model, n_rows: number): Selector {
  return {
    tileRows: n_rows,
    keepsNegatives: true,
    select: (commands, { input, tile, codes }) => encodeInto(commands, model, { input, tile, codes }),
    [Symbol.dispose]() {},
  };
}
