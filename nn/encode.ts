/**
 * From inputs to pre-activations: `h = x W_enc + b_enc`, or `h = (x − b_dec) W_enc + b_enc` before August 2025.
 *
 * x_BD, W_enc_SD (the device's layout), b_enc_S → h_BS, a tile of rows at a time: `[B, S]` is never stored whole.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { subtractRow } from "../kernels/elementwise.ts";
import { gatheredMatmul, matmul } from "../kernels/matmul.ts";
import { MAXIMA_COLUMNS } from "../kernels/matmul_tiles.ts";
import { columnSums, subtractWeightedRows } from "../kernels/reduce.ts";
import { alignedRows, rowsPerBlock, type Span, spans, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import { sparseColumnSums, spmmTransposed } from "../kernels/spmm_transposed.ts";
import type { InputScaling } from "./arrays.ts";
import type { SparseBackward } from "./codes.ts";
import type { Gradients, ParameterTensors } from "./parameters.ts";

/** The parts of a model that do not depend on its activation: two affine maps and the scaling of inputs. */
export interface AffineMaps {
  /** Its sizes and its encoder's formula. */
  readonly cfg: {
    /** D */
    readonly d_model: number;
    /** S */
    readonly d_sae: number;
    /** Whether `h = (x − b_dec) W_enc + b_enc`. */
    readonly subtract_b_dec: boolean;
  };
  /** Its values. */
  readonly parameters: ParameterTensors;
  /** What pre-activations must exceed: [1] of a BatchTopK outside training, [S] of a JumpReLU; 0 for other activations. */
  readonly threshold: Tensor;
  /** How inputs are standardised. */
  readonly input: InputScaling;
  /** [D], the mean of the inputs, zeros if there is none. */
  readonly inputMean: Tensor;
  /** The device's context. */
  readonly context: DeviceContext;
}

/** The standardised and centred inputs of batches of one size. */
export class EncoderInput implements Disposable {
  readonly #standardised: Tensor | undefined;
  readonly #centred: Tensor | undefined;
  readonly #owned: DisposableStack;
  #x: Tensor | undefined;

  /** Buffers for the inputs of `n_rows` rows; none if inputs need no change. */
  constructor({ cfg, input, context }: AffineMaps, n_rows: number) {
    using stack = new DisposableStack();
    const make = (label: string) => stack.use(new Tensor(context, "f32", [n_rows, cfg.d_model], label));
    if (input.mean || input.scale !== 1) this.#standardised = make("standardised x");
    if (cfg.subtract_b_dec) this.#centred = make("x − b_dec");
    this.#owned = stack.move();
  }

  /** [B, D], standardised: the target of the reconstruction. */
  get x_BD(): Tensor {
    return this.#standardised ?? this.#x!;
  }

  /** [B, D], what is multiplied by W_enc. */
  get centred_BD(): Tensor {
    return this.#centred ?? this.x_BD;
  }

  /** Standardises and centres `x` [B, D]. */
  prepare(commands: Commands, model: AffineMaps, x: Tensor): void {
    this.#x = x;
    const { d_model: columns } = model.cfg;
    const [n_rows = 0] = x.shape;
    for (const { from, to } of spans(n_rows, rowsPerBlock(model.context, n_rows, columns * 4, "x"))) {
      const sizes = { rows: to - from, columns };
      if (this.#standardised) {
        subtractRow(commands, {
          ...sizes,
          x: x.rows(from, to),
          row: model.inputMean,
          to: this.#standardised.rows(from, to),
          factor: 1 / model.input.scale,
        });
      }
      if (this.#centred) {
        subtractRow(commands, {
          ...sizes,
          x: this.x_BD.rows(from, to),
          row: model.parameters.b_dec,
          to: this.#centred.rows(from, to),
          factor: 1,
        });
      }
    }
  }

  /** Frees its buffers. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Bytes of the largest intermediate result, also on devices that can bind more: enough to keep them busy. */
const MAX_BYTES = 2 ** 27;

/** How many of `n_rows` rows to process together if each takes `rowBytes`. */
export function rowsAtOnce(
  { context: { bindingLimit, guardWords } }: AffineMaps,
  n_rows: number,
  rowBytes: number,
  what: string,
): number {
  // A block has at least as many rows as lie between two places where a binding may start.
  const wanted = Math.max(MAX_BYTES, alignedRows(rowBytes) * rowBytes + 4 * guardWords + 16);
  return rowsPerBlock({ bindingLimit: Math.min(bindingLimit, wanted), guardWords }, n_rows, rowBytes, what);
}

/** Buffers for the pre-activations of some rows at a time, reused for all rows of a batch. */
export class Tile implements Disposable {
  /** [rows, S] */
  readonly h: Tensor;
  /** [⌈S / 8⌉, ≥ rows], the maxima of neighbouring latents, if a selection follows. */
  readonly maxima: Tensor<"u32"> | undefined;

  /** Buffers for as many of `n_rows` rows as fit a binding, at most `most`. */
  constructor(
    model: AffineMaps,
    n_rows: number,
    { selects, most = n_rows }: { readonly selects: boolean; readonly most?: number },
  ) {
    using stack = new DisposableStack();
    const { cfg: { d_sae }, context } = model;
    const rows = Math.min(tileRows(model, n_rows), most);
    this.h = stack.use(new Tensor(context, "f32", [rows, d_sae], "pre-activations"));
    if (selects) {
      const shape = [Math.ceil(d_sae / MAXIMA_COLUMNS), 4 * Math.ceil(rows / 4)];
      this.maxima = stack.use(new Tensor(context, "u32", shape, "maxima of neighbouring pre-activations"));
    }
    stack.move();
  }

  /** How many rows at a time. */
  get rows(): number {
    return this.h.shape[0]!;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.h[Symbol.dispose]();
    this.maxima?.[Symbol.dispose]();
  }
}

/** How many rows of a batch are encoded together: their pre-activations and inputs must fit a binding. */
function tileRows(model: AffineMaps, n_rows: number): number {
  const { d_model, d_sae } = model.cfg;
  return rowsAtOnce(
    model,
    n_rows,
    Math.max(d_sae, d_model) * 4,
    `pre-activations (d_sae ${d_sae}, d_model ${d_model})`,
  );
}

/** A software driver ends loops at 65,535 turns, and some kernels take one turn for each latent. */
const MAX_LATENTS = 32768;

/** Blocks of rows of W_enc or W_dec that fit a binding and a loop. */
export function latentBlocks(model: AffineMaps): Iterable<Span> {
  const { cfg: { d_model, d_sae }, parameters: { W_enc }, context } = model;
  return spans(d_sae, Math.min(rowsPerBlock(context, d_sae, d_model * W_enc.valueBytes, "W_enc"), MAX_LATENTS));
}

/** h[span] = x W_enc + b_enc, in `tile` [≥ rows, S]; with `relu`, max(h, 0). Also writes `maxima`, if given. */
export function preActivations(
  commands: Commands,
  model: AffineMaps,
  given: {
    readonly input: EncoderInput;
    readonly span: Span;
    readonly tile: Tensor;
    readonly relu?: boolean;
    readonly tileFrom?: number;
    readonly maxima?: Tensor<"u32"> | undefined;
  },
): void {
  const { input, span: { from, to }, tile, relu = false, tileFrom = 0, maxima } = given;
  const { d_model, d_sae } = model.cfg;
  const { W_enc, b_enc } = model.parameters;
  for (const block of latentBlocks(model)) {
    matmul(commands, {
      layout: "nt",
      M: to - from,
      N: block.to - block.from,
      K: d_model,
      a: { in: input.centred_BD.rows(from, to) },
      b: { in: W_enc.rows(block.from, block.to) },
      c: { in: tile.rows(tileFrom, tileFrom + to - from), stride: d_sae, offset: block.from },
      bias: b_enc.rows(block.from, block.to),
      relu,
      ...(maxima ? { maxima: { in: maxima, offset: block.from / MAXIMA_COLUMNS * maxima.rowSize } } : {}),
    });
  }
}

/**
 * h of the whole batch, a tile of rows at a time; with `relu`, max(h, 0). Also writes the tile's maxima, if it has
 * them.
 */
export function eachTile(
  commands: Commands,
  model: AffineMaps,
  given: { readonly input: EncoderInput; readonly tile: Tile; readonly n_rows: number; readonly relu?: boolean },
  use: (h: TensorRows, span: Span) => void,
): void {
  const { input, tile: { h, maxima, rows }, n_rows, relu = false } = given;
  for (const span of spans(n_rows, rows)) {
    preActivations(commands, model, { input, span, tile: h, maxima, relu });
    use(h.rows(0, span.to - span.from), span);
  }
}

/**
 * From ∂loss/∂h of the entries to W_enc and b_enc, for the rows of one tile:
 * grad_W_enc[s] (+)= Σ_b grad_h[b, s] x[b] and grad_b_enc[s] (+)= Σ_b grad_h[b, s], over the rows that have an entry of s.
 */
export function entriesEncoderBackward(
  commands: Commands,
  model: AffineMaps,
  given: SparseBackward & {
    readonly input: EncoderInput;
    readonly span: Span;
    readonly whole: Tensor<"u32">;
    readonly gradients: Gradients;
    /** [S], which gets the sums; the gradient of b_enc if left out. */
    readonly sums?: Tensor | undefined;
    readonly accumulate: boolean;
  },
): void {
  const { transposition, grad_values, input, span: { from, to }, whole, gradients, accumulate } = given;
  const { sums = gradients.b_enc } = given;
  const { columns: sparse, entryRows } = transposition;
  const rows = { sparse, entryRows, values: grad_values, firstRow: from, rows: to - from, accumulate };
  for (const block of latentBlocks(model)) {
    spmmTransposed(commands, {
      ...rows,
      matrix: input.centred_BD.rows(from, to),
      parts: 1,
      ends: whole,
      ...block,
      columns: model.cfg.d_model,
      result: gradients.W_enc.rows(block.from, block.to),
    });
  }
  sparseColumnSums(commands, { ...rows, result: sums });
}

/** The same from all of ∂loss/∂h of the rows of one tile: grad_W_enc (+)= grad_hᵀ x and grad_b_enc (+)= Σ_b grad_h. */
export function denseEncoderBackward(
  commands: Commands,
  model: AffineMaps,
  given: {
    readonly grad_h: Tensor;
    readonly input: EncoderInput;
    readonly span: Span;
    readonly gradients: Gradients;
    /** [S], which gets the sums; the gradient of b_enc if left out. */
    readonly sums?: Tensor | undefined;
    readonly accumulate: boolean;
  },
): void {
  const { grad_h, input, span: { from, to }, gradients, sums = gradients.b_enc, accumulate } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = to - from;
  for (const block of latentBlocks(model)) {
    matmul(commands, {
      layout: "tn",
      M: block.to - block.from,
      N: d_model,
      K: rows,
      a: { in: grad_h.rows(0, rows), offset: block.from },
      b: { in: input.centred_BD.rows(from, to) },
      c: { in: gradients.W_enc.rows(block.from, block.to) },
      accumulate,
    });
  }
  columnSums(commands, {
    x: grad_h.rows(0, rows),
    rows,
    stride: d_sae,
    offset: 0,
    columns: d_sae,
    result: sums,
    accumulate,
  });
}

/** The same for listed latents only: column j of the tile is the pre-activation of latent `list[j]`, j < count. */
export function listedPreActivations(
  commands: Commands,
  model: AffineMaps,
  given: {
    readonly input: EncoderInput;
    readonly span: Span;
    readonly tile: Tensor;
    readonly list: Tensor<"u32">;
    readonly count: Tensor<"u32">;
  },
): void {
  const { input, span: { from, to }, tile, list, count } = given;
  const { d_model, d_sae } = model.cfg;
  const { W_enc, b_enc } = model.parameters;
  for (const block of latentBlocks(model)) {
    gatheredMatmul(commands, {
      M: to - from,
      N: d_sae,
      K: d_model,
      a: { in: input.centred_BD.rows(from, to) },
      b: { in: W_enc.rows(block.from, block.to) },
      firstRow: block.from,
      c: { in: tile.rows(0, to - from), stride: d_sae },
      bias: b_enc.rows(block.from, block.to),
      rows: list,
      count,
    });
  }
}

/**
 * The part of b_dec's gradient that comes through the encoder, where it subtracts b_dec:
 * grad_b_dec −= Σ_s sums[s] W_enc[s], with sums[s] = Σ_b ∂loss/∂h[b, s].
 */
export function centringBackward(
  commands: Commands,
  model: AffineMaps,
  { gradients, sums = gradients.b_enc }: { readonly gradients: Gradients; readonly sums?: Tensor | undefined },
): void {
  if (!model.cfg.subtract_b_dec) return;
  for (const { from, to } of latentBlocks(model)) {
    subtractWeightedRows(commands, {
      weights: sums.rows(from, to),
      matrix: model.parameters.W_enc.rows(from, to),
      rows: to - from,
      columns: model.cfg.d_model,
      result: gradients.b_dec,
    });
  }
}
