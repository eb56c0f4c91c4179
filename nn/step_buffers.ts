/**
 * Buffers that the parts of a step share: every activation and intermediate gradient that several parts read, allocated
 * once for a batch size and number of prefixes. A buffer that only one part reads belongs to that part, which is kept
 * here for as long.
 *
 * @module
 */

import { chunksOf } from "../kernels/reduce.ts";
import { type ElementType, type Span, spans, Tensor } from "../kernels/engine/tensor.ts";
import type { Selector } from "./activations/activation.ts";
import { activationKind } from "./activations/mod.ts";
import { Codes } from "./codes.ts";
import { ElementwiseCodes } from "./elementwise_codes.ts";
import { EncoderInput, rowsAtOnce, Tile } from "./encode.ts";
import { checkBatchFits } from "./limits.ts";
import { emptyCodes, encodeInto, type Model } from "./model.ts";
import { SelectedCodes } from "./selected_codes.ts";
import type { StepCodes } from "./step_codes.ts";

/** The use of the buffers. */
export interface StepUse {
  /** For training, or only for the loss. */
  readonly training: boolean;
  /** The largest k of a TopK or BatchTopK. */
  readonly mostK: number;
}

/** A software driver ends loops at 65,535 turns; some kernels take one turn a row. */
const MAX_ROWS = 32768;

/** The same for residuals: 32 invocations share the dimensions of all prefixes of a row. */
const MAX_SUMMED = 32 * 60000;

/** Buffers of a step; their contents are valid until the next step. */
export class StepBuffers implements Disposable {
  /** B */
  readonly n_rows: number;
  /** P */
  readonly n_prefixes: number;
  /** The inputs, standardised and centred. */
  readonly input: EncoderInput;
  /** Pre-activations of some rows; in a dense step, the gradient of codes. */
  readonly tile: Tile;
  /** The codes. */
  readonly f_x: StepCodes;
  /** [rows of a span, P, D], reconstructions, then summed residuals. */
  readonly x_hats: Tensor;
  /** [P], lengths of the prefixes. */
  readonly ends: Tensor<"u32">;
  /** [1], S: the only prefix where nothing is nested. */
  readonly whole: Tensor<"u32">;
  /** [S], ‖W_dec_s‖². */
  readonly squares: Tensor;
  /** The largest |x|, as bits. */
  readonly largest: { readonly partials: Tensor<"u32">; readonly bits: Tensor<"u32"> };
  /** Rows that are decoded and go backward at once. */
  readonly spans: readonly Span[];
  /** Their use. */
  readonly use: StepUse;
  readonly #owned: DisposableStack;
  readonly #parts: Disposable[] = [];

  /** Buffers for batches of `n_rows` and `n_prefixes` prefixes. */
  constructor(model: Model, n_rows: number, n_prefixes: number, use: StepUse) {
    const { training, mostK } = use;
    const { cfg: { d_model, d_sae, activation }, context } = model;
    if (n_prefixes * d_model > MAX_SUMMED) {
      throw new RangeError(
        `a step sums ${MAX_SUMMED} values a row at most, found n_prefixes ${n_prefixes} of d_model ${d_model}`,
      );
    }
    checkBatchFits(model.cfg, { context, n_rows, training, mostK });
    using stack = new DisposableStack();
    const make = <T extends ElementType>(type: T, shape: number[], label: string): Tensor<T> =>
      stack.use(new Tensor(context, type, shape, label));
    this.use = use;
    this.n_rows = n_rows;
    this.n_prefixes = n_prefixes;
    this.input = stack.use(new EncoderInput(model, n_rows));
    const spanRows = Math.min(rowsAtOnce(model, n_rows, n_prefixes * d_model * 4, "reconstructions"), MAX_ROWS);
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
    this.spans = [...spans(n_rows, spanRows)];
    this.x_hats = make("f32", [Math.min(spanRows, n_rows), n_prefixes, d_model], "x_hats");
    this.ends = make("u32", [n_prefixes], "prefixes");
    this.whole = make("u32", [1], "d_sae");
    this.whole.write(Uint32Array.of(d_sae));
    this.squares = make("f32", [d_sae], "squared lengths of W_dec's rows");
    this.largest = {
      partials: make("u32", [chunksOf(n_rows * d_model)], "partial maxima"),
      bits: make("u32", [1], "largest |x|"),
    };
    this.#owned = stack.move();
  }

  /** Objects that parts of the step keep with these buffers: made on first use, freed with the buffers. */
  keep<T extends Disposable>(kind: new (...given: never[]) => T, make: () => T): T {
    const kept = this.#parts.find((part) => part instanceof kind);
    if (kept instanceof kind) return kept;
    const made = make();
    this.#parts.push(made);
    return made;
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    for (const part of this.#parts.splice(0)) part[Symbol.dispose]();
    this.#owned.dispose();
  }
}

/** Codes as outside training. */
function evaluating(model: Model, n_rows: number): Selector {
  return {
    tileRows: n_rows,
    keepsNegatives: true,
    select: (commands, { input, tile, codes }) => encodeInto(commands, model, { input, tile, codes }),
    [Symbol.dispose]() {},
  };
}
