/**
 * Codes: which latents fire on each row of a batch, and how strongly.
 *
 * @module
 */

import { denseToCsr, type Nearby } from "../kernels/dense_to_csr.ts";
import { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { rowsPerBlock, type Span, spans, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import type { Csr } from "../kernels/csr.ts";
import { csrToDense } from "../kernels/csr_to_dense.ts";
import { Transposition } from "../kernels/transpose_entries.ts";

/** Codes as arrays: row b has the entries `row_starts[b]` to `row_starts[b + 1]`, their latents ascending. */
export interface CodeArrays {
  /** [B + 1] */
  readonly row_starts: Uint32Array;
  /** [entries], latents. */
  readonly indices: Uint32Array;
  /** [entries], activations. */
  readonly values: Float32Array;
}

/** f_BS as sparse rows on the device. Yours to dispose of. */
export class Codes implements Disposable {
  /** B, rows of the batch. */
  readonly n_rows: number;
  /** S, latents. */
  readonly d_sae: number;
  /** [B + 1], on the device. */
  readonly row_starts: Tensor<"u32">;
  /** [capacity], of which the first `row_starts[B]` count. */
  readonly indices: Tensor<"u32">;
  /** [capacity] */
  readonly values: Tensor;
  readonly #context: DeviceContext;
  #k: number | undefined;

  /** Codes with room for `capacity` entries; `row_starts` are zero. */
  constructor(context: DeviceContext, n_rows: number, d_sae: number, capacity: number, label = "f_x") {
    using stack = new DisposableStack();
    this.n_rows = n_rows;
    this.d_sae = d_sae;
    this.#context = context;
    this.row_starts = stack.use(new Tensor(context, "u32", [n_rows + 1], `${label}: row_starts`));
    this.indices = stack.use(new Tensor(context, "u32", [capacity], `${label}: indices`));
    this.values = stack.use(new Tensor(context, "f32", [capacity], `${label}: values`));
    stack.move();
  }

  /** The same number of entries in every row. */
  static uniform(context: DeviceContext, n_rows: number, d_sae: number, k: number, label?: string): Codes {
    const codes = new Codes(context, n_rows, d_sae, n_rows * k, label);
    codes.makeUniform(k);
    return codes;
  }

  /** Sets the number of entries of every row to `k`; they must fit the capacity. */
  makeUniform(k: number): void {
    if (this.#k === k) return;
    this.row_starts.write(Uint32Array.from({ length: this.n_rows + 1 }, (_, row) => row * k));
    this.#k = k;
  }

  /** The codes as kernels take them. */
  get sparse(): Csr {
    const { n_rows: rows, row_starts: starts, indices, values } = this;
    return { rows, capacity: values.size, starts, indices, values };
  }

  /**
   * Reads the entries back, without the unused capacity. If only the device knows how many there are, that number is
   * read first.
   */
  async read(): Promise<CodeArrays> {
    const starts = this.row_starts.read();
    const entries = this.#k === undefined ? (await starts).at(-1)! : this.n_rows * this.#k;
    const [row_starts, indices, values] = await Promise.all([
      starts,
      this.indices.read(entries),
      this.values.read(entries),
    ]);
    return { row_starts, indices, values };
  }

  /** f_BS as a matrix: a new [B, S] tensor, which the caller must dispose of. */
  dense(): Tensor {
    const { n_rows, d_sae } = this;
    const dense = new Tensor(this.#context, "f32", [n_rows, d_sae], "dense f_x");
    const commands = new Commands(this.#context);
    for (const { from, to } of spans(n_rows, rowsPerBlock(this.#context, n_rows, d_sae * 4, dense.label))) {
      csrToDense(commands, {
        sparse: this.sparse,
        firstRow: from,
        rows: to - from,
        columns: d_sae,
        result: dense.rows(from, to),
      });
    }
    commands.submit();
    return dense;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    for (const tensor of [this.row_starts, this.indices, this.values]) tensor[Symbol.dispose]();
  }
}

/** The tensors of codes. */
export type CodeTensors = Pick<Codes, "n_rows" | "d_sae" | "row_starts" | "indices" | "values" | "sparse">;

/** The same entries with other values. */
export function withValues(codes: CodeTensors, values: Tensor): CodeTensors {
  const { n_rows, d_sae, row_starts, indices, sparse } = codes;
  return { n_rows, d_sae, row_starts, indices, values, sparse: { ...sparse, values } };
}

/**
 * Appends the rows `span` of a batch to `values`: the elements of `dense` [rows, S] that are not 0, or those that
 * `nearby` keeps.
 */
export function appendCodes(
  commands: Commands,
  codes: Codes,
  dense: TensorRows,
  { from, to }: Span,
  { values = codes.values, nearby }: { readonly values?: Tensor; readonly nearby?: Nearby } = {},
): void {
  const { n_rows, d_sae, row_starts: starts, indices } = codes;
  denseToCsr(commands, {
    dense,
    rows: to - from,
    columns: d_sae,
    firstRow: from,
    allRows: n_rows,
    starts,
    capacity: values.size,
    indices,
    values,
    ...nearby && { nearby },
  });
}

/** What links the codes of a loss to the gradients of the encoder. */
export interface SparseBackward {
  /** The codes by latent. */
  readonly transposition: Transposition;
  /** [entries], ∂loss/∂f of each. */
  readonly grad_values: Tensor;
}

/** Codes, or a Gated's gates, with what their backward pass needs. */
export interface Entries extends SparseBackward {
  /** The codes. */
  readonly codes: CodeTensors;
}

/** Codes with what their backward pass needs; owns the memory of both. */
export class EntryBuffers implements Entries, Disposable {
  /** The codes. */
  readonly codes: Codes;
  /** The codes by latent. */
  readonly transposition: Transposition;
  /** [entries], ∂loss/∂f. */
  readonly grad_values: Tensor;

  /** Takes over `codes`; buffers of the backward pass are made in training only. */
  constructor(context: DeviceContext, codes: Codes, label: string, { training }: { readonly training: boolean }) {
    using stack = new DisposableStack();
    this.codes = stack.use(codes);
    const capacity = training ? codes.values.size : 0;
    this.transposition = stack.use(new Transposition(context, codes.n_rows, codes.d_sae, capacity, label));
    this.grad_values = stack.use(new Tensor(context, "f32", [capacity], `grad of ${label}`));
    stack.move();
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    for (const owned of [this.codes, this.transposition, this.grad_values]) owned[Symbol.dispose]();
  }
}

/** Entries of a latent in one dispatch: a software driver ends loops at 65,535 turns. */
const MAX_TURNS = 60000;

/** WGSL: the entries of latent `s`, rows ascending, from number `dims.first` of them on, as `at` … `end`. */
export const ENTRIES_OF_LATENT: string = `
  var at = min(starts[s] + dims.first, starts[s + 1u]);
  let end = min(at + ${MAX_TURNS}u, starts[s + 1u]);`;

/** First entries of the dispatches over the entries of every latent. */
export function* entryStarts({ n_rows }: Codes): Generator<number> {
  for (const { from } of spans(n_rows, MAX_TURNS)) yield from;
}
