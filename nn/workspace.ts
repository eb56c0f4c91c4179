/**
 * Every activation and intermediate gradient of a training step, allocated once for a batch size and number of prefixes.
 *
 * @module
 */

import { BatchTopK } from "../kernels/batch_top_k.ts";
import { chunksOf } from "../kernels/reduce.ts";
import { type ElementType, rowsPerBlock, spans, Tensor } from "../kernels/tensor.ts";
import { Transposition } from "../kernels/transpose_entries.ts";
import { type BatchSpace, emptyCodes, newTile, trainingCodes } from "./activation.ts";
import { Codes } from "./codes.ts";
import { EncoderInput, type Model, type Span } from "./encode.ts";

/** Codes with what their backward needs. */
export interface SparseSpace {
  /** The codes. */
  readonly codes: Codes;
  /** The codes by latent. */
  readonly transposition: Transposition;
  /** [entries], ∂loss/∂f. */
  readonly grad_values: Tensor;
}

/** Buffers of the auxiliary loss. */
export interface AuxSpace extends SparseSpace {
  /** [B, D], what the reconstruction missed. */
  readonly residual: Tensor;
  /** [rows of a span, 1, D], the dead latents' attempt at it, then its gradient. */
  readonly reconstruction: Tensor;
}

/** A software driver ends loops at 65,535 turns; some kernels take one a row. */
const MOST_ROWS = 32768;

/** The same for residuals: 32 invocations share the dimensions of all prefixes of a row. */
const MOST_SUMMED = 32 * 60000;

/** Buffers of a step. What they hold is only valid until the next one. */
export class Workspace implements Disposable {
  /** B */
  readonly n_rows: number;
  /** P */
  readonly n_prefixes: number;
  /** [B, D], for inputs that come as arrays. */
  readonly upload: Tensor;
  /** What the model makes of the inputs. */
  readonly input: EncoderInput;
  /** [rows of a tile, S], pre-activations; for a ReLU, the gradient of the codes. */
  readonly tile: Tensor;
  /** The codes: sparse, or for a ReLU `f_BS`. */
  readonly f_x: { readonly sparse: SparseSpace } | { readonly f_BS: Tensor };
  /** A BatchTopK's, in training. */
  readonly batch: BatchSpace | undefined;
  /** [rows of a span, P, D], reconstructions, then summed residuals. */
  readonly x_hats: Tensor;
  /** [P], lengths of the prefixes. */
  readonly ends: Tensor<"u32">;
  /** [1], S: the only prefix of what has none. */
  readonly whole: Tensor<"u32">;
  /** [B] each, sums over a row. */
  readonly rowSums: { readonly squares: Tensor; readonly l0: Tensor; readonly l1: Tensor; readonly aux: Tensor };
  /** [4], the sums of those over the batch, in that order. */
  readonly totals: Tensor;
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
  /** Rows that are decoded and go backward at once. */
  readonly spans: readonly Span[];
  readonly #owned: DisposableStack;

  /** Buffers for batches of `n_rows` and `n_prefixes` prefixes, in training or for its loss alone. */
  constructor(model: Model, n_rows: number, n_prefixes: number, { training }: { readonly training: boolean }) {
    const { cfg: { d_model, d_sae, activation }, context } = model;
    if (n_prefixes * d_model > MOST_SUMMED) {
      throw new RangeError(
        `a step sums ${MOST_SUMMED} values a row at most, found ${n_prefixes} prefixes of d_model ${d_model}`,
      );
    }
    using stack = new DisposableStack();
    const make = <T extends ElementType>(type: T, shape: number[], label: string): Tensor<T> =>
      stack.use(new Tensor(context, type, shape, label));
    const sparse = (codes: Codes, label: string): SparseSpace => {
      // Only training goes backward.
      const capacity = training ? codes.values.size : 0;
      return {
        codes: stack.use(codes),
        transposition: stack.use(new Transposition(context, n_rows, d_sae, capacity, label)),
        grad_values: make("f32", [capacity], `grad of ${label}`),
      };
    };
    this.n_rows = n_rows;
    this.n_prefixes = n_prefixes;
    this.upload = make("f32", [n_rows, d_model], "x");
    this.input = stack.use(new EncoderInput(model, n_rows));
    this.tile = stack.use(newTile(model, n_rows));
    this.f_x = activation.key === "relu"
      ? { f_BS: make("f32", [n_rows, d_sae], "f_x") }
      : { sparse: sparse(training ? trainingCodes(model, n_rows) : emptyCodes(model, n_rows), "f_x") };
    if (training && activation.key === "batch-top-k") {
      const selection = stack.use(new BatchTopK(context, n_rows, d_sae));
      this.batch = { h_BS: make("f32", [n_rows, d_sae], "pre-activations of the batch"), selection };
    }
    // A ReLU's backward needs the gradient of a tile of codes at once.
    const most = Math.min(rowsPerBlock(context, n_rows, n_prefixes * d_model * 4, "reconstructions"), MOST_ROWS);
    const spanRows = activation.key === "relu" ? Math.min(most, this.tile.shape[0]!) : most;
    this.spans = [...spans(n_rows, spanRows)];
    this.x_hats = make("f32", [Math.min(spanRows, n_rows), n_prefixes, d_model], "x_hats");
    this.ends = make("u32", [n_prefixes], "prefixes");
    this.whole = make("u32", [1], "d_sae");
    this.whole.write(Uint32Array.of(d_sae));
    this.rowSums = {
      squares: make("f32", [n_rows], "squared error a row"),
      l0: make("f32", [n_rows], "L0 a row"),
      l1: make("f32", [n_rows], "L1 a row"),
      aux: make("f32", [n_rows], "auxiliary error a row"),
    };
    this.totals = make("f32", [4], "sums over the batch");
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
      this.aux = {
        ...sparse(new Codes(context, n_rows, d_sae, n_rows * k, "auxiliary f_x"), "auxiliary f_x"),
        residual: make("f32", [n_rows, d_model], "residual"),
        reconstruction: make("f32", [this.x_hats.shape[0]!, 1, d_model], "auxiliary reconstruction"),
      };
    }
    this.#owned = stack.move();
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
