/**
 * From pre-activations to codes, and back.
 *
 * TopK: f keeps the k largest of each row of h (also negative ones), ∂f/∂h is 1 there and 0 elsewhere.
 * ReLU: f = max(h, 0), ∂f/∂h is 1 where f > 0 and 0 elsewhere.
 *
 * @module
 */

import type { Commands } from "../kernels/commands.ts";
import { compactRows } from "../kernels/compact_rows.ts";
import { positiveMask } from "../kernels/elementwise.ts";
import { matmul } from "../kernels/matmul.ts";
import { columnSums } from "../kernels/reduce.ts";
import { sparseColumnsMatmul, sparseColumnSums } from "../kernels/sparse_matmul.ts";
import { rowsPerBlock, spans, Tensor } from "../kernels/tensor.ts";
import { topK } from "../kernels/top_k.ts";
import type { Transposition } from "../kernels/transpose_entries.ts";
import { Codes } from "./codes.ts";
import { type EncoderInput, latentBlocks, type Model, preActivations, type Span, tileRows } from "./encode.ts";
import type { Gradients } from "./parameters.ts";

/** Codes with room for whatever the activation makes of `n_rows` rows. */
export function emptyCodes(model: Model, n_rows: number): Codes {
  const { cfg: { activation, d_sae }, context } = model;
  switch (activation.key) {
    case "top-k":
      return Codes.uniform(context, n_rows, d_sae, Math.min(activation.top_k, d_sae));
    case "relu": {
      const most = rowsPerBlock(context, n_rows, d_sae * 4, "codes");
      if (most < n_rows) {
        throw new RangeError(
          `the codes of ${n_rows} rows may have ${
            n_rows * d_sae
          } entries, more than this device binds at once; encode at most ${most} rows at a time`,
        );
      }
      return new Codes(context, n_rows, d_sae, n_rows * d_sae);
    }
  }
}

/** f_x of the whole batch, a tile of pre-activations at a time. */
export function encodeInto(commands: Commands, model: Model, input: EncoderInput, tile: Tensor, codes: Codes): void {
  const { activation, d_sae } = model.cfg;
  const { n_rows, row_starts: starts, indices, values } = codes;
  const shared = { allRows: n_rows, starts, capacity: values.size, indices };
  for (const span of spans(n_rows, tile.shape[0]!)) {
    const rows = span.to - span.from;
    preActivations(commands, model, { input, span, tile, relu: activation.key === "relu" });
    const dense = tile.rows(0, rows);
    switch (activation.key) {
      case "top-k": {
        const k = activation.top_k;
        topK(commands, {
          ...shared,
          values: dense,
          rows,
          stride: d_sae,
          n: d_sae,
          k,
          firstRow: span.from,
          selected: values,
        });
        break;
      }
      case "relu":
        compactRows(commands, { ...shared, dense, rows, columns: d_sae, firstRow: span.from, values });
    }
  }
}

/** A tile of pre-activations, reused for all rows of a batch. */
export function newTile(model: Model, n_rows: number): Tensor {
  return new Tensor(model.context, "f32", [tileRows(model, n_rows), model.cfg.d_sae], "pre-activations");
}

/** How the codes of one loss are tied to the gradients of the encoder. */
export interface SparseBackward {
  /** The codes by latent. */
  readonly transposition: Transposition;
  /** [entries], ∂loss/∂f of each. */
  readonly grad_values: Tensor;
}

/**
 * From ∂loss/∂f of the entries to W_enc and b_enc, for the rows of one tile:
 * grad_W_enc[s] (+)= Σ_b grad_h[b, s] x[b] and grad_b_enc[s] (+)= Σ_b grad_h[b, s], over the rows that selected s.
 */
export function selectionBackward(
  commands: Commands,
  model: Model,
  given: SparseBackward & {
    readonly input: EncoderInput;
    readonly span: Span;
    readonly whole: Tensor<"u32">;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { transposition, grad_values, input, span: { from, to }, whole, gradients, accumulate } = given;
  const { columns: sparse, entryRows } = transposition;
  const rows = { sparse, entryRows, values: grad_values, firstRow: from, rows: to - from, accumulate };
  for (const block of latentBlocks(model)) {
    sparseColumnsMatmul(commands, {
      ...rows,
      matrix: input.centred_BD.rows(from, to),
      parts: 1,
      ends: whole,
      ...block,
      columns: model.cfg.d_model,
      result: gradients.W_enc.rows(block.from, block.to),
    });
  }
  sparseColumnSums(commands, { ...rows, result: gradients.b_enc });
}

/**
 * The same for a ReLU's dense codes: grad_h = (grad_f + slope) ∘ 1[f > 0] in place of `grad_f`, then
 * grad_W_enc (+)= grad_hᵀ x and grad_b_enc (+)= Σ_b grad_h.
 */
export function reluBackward(
  commands: Commands,
  model: Model,
  given: {
    readonly f_BS: Tensor;
    readonly grad_f: Tensor;
    readonly slope: number;
    readonly input: EncoderInput;
    readonly span: Span;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { f_BS, grad_f, slope, input, span: { from, to }, gradients, accumulate } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = to - from;
  const grad_h = grad_f.rows(0, rows);
  positiveMask(commands, { grad: grad_h, at: f_BS.rows(from, to), size: rows * d_sae, slope });
  for (const block of latentBlocks(model)) {
    matmul(commands, {
      layout: "tn",
      M: block.to - block.from,
      N: d_model,
      K: rows,
      a: { in: grad_h, offset: block.from },
      b: { in: input.centred_BD.rows(from, to) },
      c: { in: gradients.W_enc.rows(block.from, block.to) },
      accumulate,
    });
  }
  columnSums(commands, {
    x: grad_h,
    rows,
    stride: d_sae,
    offset: 0,
    columns: d_sae,
    result: gradients.b_enc,
    accumulate,
  });
}
