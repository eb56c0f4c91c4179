/**
 * From codes to reconstructions and back, for any number of nested dictionaries at once.
 *
 * `x̂[b, p] = Σ_{s < prefixes[p]} f[b, s] W_dec[s] (+ b_dec)`: the prefixes share one running sum.
 *
 * Backward takes the summed residual blocks G[b, p] = Σ_{q ≥ p} ∂loss/∂x̂[b, q]: latent s belongs to the first block p with
 * s < prefixes[p] and appears in all reconstructions from there on, so
 * grad_f[b, s] = ⟨W_dec[s], G[b, p(s)]⟩, grad_W_dec[s] = Σ_b f[b, s] G[b, p(s)], grad_b_dec = Σ_b G[b, 0].
 * The cost of one block is that of one plain decode.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { copyColumns } from "../kernels/elementwise.ts";
import { matmul } from "../kernels/matmul.ts";
import { columnSums } from "../kernels/reduce.ts";
import { sddmm } from "../kernels/sddmm.ts";
import { spmm } from "../kernels/spmm.ts";
import { spmmTransposed } from "../kernels/spmm_transposed.ts";
import { alignedRows, type Span, type Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import type { Codes, SparseBackward } from "./codes.ts";
import { type AffineMaps, latentBlocks } from "./encode.ts";
import type { Gradients } from "./parameters.ts";

/** Nested dictionaries: the lengths of the prefixes, ascending, the last of them S. */
export interface Prefixes {
  /** On the CPU. */
  readonly lengths: readonly number[];
  /** [P], on the GPU. */
  readonly ends: Tensor<"u32">;
}

/**
 * Checks prefix lengths.
 *
 * @throws {RangeError} unless they ascend strictly from at least 1 to d_sae.
 */
export function checkPrefixes(lengths: readonly number[], d_sae: number): void {
  const ascending = lengths.every((length, p) => Number.isInteger(length) && length > (lengths[p - 1] ?? 0));
  if (!ascending || lengths.at(-1) !== d_sae) {
    throw new RangeError(
      `prefixes must ascend strictly from at least 1 to d_sae ${d_sae}, found [${lengths.join(", ")}]`,
    );
  }
}

/** x̂ without bias of the rows `span`, into `x_hats` [rows, P, D]. */
export function decode(
  commands: Commands,
  model: AffineMaps,
  given: {
    readonly codes: Pick<Codes, "sparse">;
    readonly span: Span;
    readonly prefixes: Prefixes;
    readonly x_hats: TensorRows;
  },
): void {
  const { codes, span: { from, to }, prefixes, x_hats } = given;
  for (const block of latentBlocks(model)) {
    spmm(commands, {
      sparse: codes.sparse,
      firstRow: from,
      rows: to - from,
      matrix: model.parameters.W_dec.rows(block.from, block.to),
      ...block,
      columns: model.cfg.d_model,
      ends: prefixes.ends,
      parts: prefixes.lengths.length,
      result: x_hats,
      accumulate: block.from > 0,
    });
  }
}

/** Inputs of both parts of the backward pass of entries. */
interface EntriesBackward extends SparseBackward {
  readonly codes: Pick<Codes, "sparse">;
  readonly span: Span;
  readonly prefixes: Prefixes;
  /** [≥ rows, P, D] */
  readonly G: Tensor;
}

/** From G of the rows `span` to ∂loss/∂f of their entries. */
export function codesBackward(commands: Commands, model: AffineMaps, given: EntriesBackward): void {
  const { codes, span: { from, to }, prefixes, G, transposition, grad_values } = given;
  for (const block of latentBlocks(model)) {
    sddmm(commands, {
      sparse: codes.sparse,
      entryRows: transposition.entryRows,
      firstRow: from,
      rows: to - from,
      left: G.rows(0, to - from),
      ends: prefixes.ends,
      parts: prefixes.lengths.length,
      right: model.parameters.W_dec.rows(block.from, block.to),
      ...block,
      columns: model.cfg.d_model,
      result: grad_values,
    });
  }
}

/** The same, and grad_W_dec. */
export function decodeBackward(
  commands: Commands,
  model: AffineMaps,
  given: EntriesBackward & { readonly gradients: Gradients; readonly accumulate: boolean },
): void {
  codesBackward(commands, model, given);
  const { codes, span: { from, to }, prefixes, G, transposition, gradients, accumulate } = given;
  for (const block of latentBlocks(model)) {
    spmmTransposed(commands, {
      sparse: transposition.columns,
      entryRows: transposition.entryRows,
      values: codes.sparse.values,
      firstRow: from,
      rows: to - from,
      matrix: G.rows(0, to - from),
      ends: prefixes.ends,
      parts: prefixes.lengths.length,
      ...block,
      columns: model.cfg.d_model,
      result: gradients.W_dec.rows(block.from, block.to),
      accumulate,
    });
  }
}

/** The same as {@link decode} for the dense codes `f` [rows, S] of these rows. */
export function decodeDense(
  commands: Commands,
  model: AffineMaps,
  given: { readonly f: TensorRows; readonly prefixes: Prefixes; readonly x_hats: Tensor },
): void {
  const { f, prefixes, x_hats } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = f.to - f.from;
  const stride = prefixes.lengths.length * d_model;
  const result = x_hats.rows(0, rows);
  for (const [p, block] of prefixBlocks(model, prefixes)) {
    // A prefix continues the sums of the previous one.
    const starts = block.from === (prefixes.lengths[p - 1] ?? 0);
    if (starts && p > 0) {
      copyColumns(commands, { x: result, rows, stride, columns: d_model, from: (p - 1) * d_model, to: p * d_model });
    }
    const { rows: W_dec, offset } = latentRows(model.parameters.W_dec, block);
    matmul(commands, {
      layout: "nn",
      M: rows,
      N: d_model,
      K: block.to - block.from,
      a: { in: f, stride: d_sae, offset: block.from },
      b: { in: W_dec, offset },
      c: { in: result, stride, offset: p * d_model },
      accumulate: block.from > 0,
    });
  }
}

/** Inputs of both parts of the backward pass of dense codes. */
interface DenseBackward {
  /** [rows, S] */
  readonly f: TensorRows;
  readonly prefixes: Prefixes;
  /** [≥ rows, P, D] */
  readonly G: Tensor;
  readonly grad_f: Tensor;
}

/** The same as {@link codesBackward} for dense codes: grad_f [≥ rows, S] = G W_decᵀ, block by block. */
export function denseCodesBackward(commands: Commands, model: AffineMaps, given: DenseBackward): void {
  const { f, prefixes, G, grad_f } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = f.to - f.from;
  for (const [p, block] of prefixBlocks(model, prefixes)) {
    const { rows: W_dec, offset } = latentRows(model.parameters.W_dec, block);
    matmul(commands, {
      layout: "nt",
      M: rows,
      N: block.to - block.from,
      K: d_model,
      a: { in: G.rows(0, rows), stride: prefixes.lengths.length * d_model, offset: p * d_model },
      b: { in: W_dec, offset },
      c: { in: grad_f.rows(0, rows), stride: d_sae, offset: block.from },
    });
  }
}

/** The same as {@link decodeBackward} for dense codes, with grad_W_dec (+)= fᵀ G. */
export function decodeDenseBackward(
  commands: Commands,
  model: AffineMaps,
  given: DenseBackward & { readonly gradients: Gradients; readonly accumulate: boolean },
): void {
  denseCodesBackward(commands, model, given);
  const { f, prefixes, G, gradients, accumulate } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = f.to - f.from;
  for (const [p, block] of prefixBlocks(model, prefixes)) {
    const { rows: grad_W_dec, offset } = latentRows(gradients.W_dec, block);
    matmul(commands, {
      layout: "tn",
      M: block.to - block.from,
      N: d_model,
      K: rows,
      a: { in: f, stride: d_sae, offset: block.from },
      b: { in: G.rows(0, rows), stride: prefixes.lengths.length * d_model, offset: p * d_model },
      c: { in: grad_W_dec, offset },
      accumulate,
    });
  }
}

/** grad_b_dec (+)= Σ_b G[b, 0]. */
export function biasBackward(
  commands: Commands,
  given: {
    readonly span: Span;
    readonly G: Tensor;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { span: { from, to }, G, gradients, accumulate } = given;
  const [, parts = 0, columns = 0] = G.shape;
  const rows = to - from;
  columnSums(commands, {
    x: G.rows(0, rows),
    rows,
    stride: parts * columns,
    offset: 0,
    columns,
    result: gradients.b_dec,
    accumulate,
  });
}

/** The blocks between prefixes, cut where bindings end: every block lies in one prefix and in one span of latents. */
function* prefixBlocks(model: AffineMaps, { lengths }: Prefixes): Generator<[p: number, block: Span]> {
  for (const [p, end] of lengths.entries()) {
    const start = lengths[p - 1] ?? 0;
    for (const { from, to } of latentBlocks(model)) {
      const block = { from: Math.max(from, start), to: Math.min(to, end) };
      if (block.from < block.to) yield [p, block];
    }
  }
}

/** Bindings start at multiples of some rows; the rest is an offset. */
function latentRows(matrix: Tensor, { from, to }: Span): { rows: ReturnType<Tensor["rows"]>; offset: number } {
  const least = alignedRows(matrix.rowSize * matrix.valueBytes);
  const first = Math.floor(from / least) * least;
  return { rows: matrix.rows(first, to), offset: (from - first) * matrix.rowSize };
}
