/**
 * Codes: which latents fire on each row of a batch, and how strongly.
 *
 * @module
 */

import { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { denseRows, type SparseRows } from "../kernels/sparse_matmul.ts";
import { rowsPerBlock, spans, Tensor } from "../kernels/engine/tensor.ts";

/** Codes as arrays: row b has the entries `row_starts[b]` to `row_starts[b + 1]`, their latents ascending. */
export interface CodeArrays {
  /** [B + 1] */
  readonly row_starts: Uint32Array;
  /** [entries], latents. */
  readonly indices: Uint32Array;
  /** [entries], activations. */
  readonly values: Float32Array;
}

/** f_BS as sparse rows on the device. Whoever holds them disposes of them. */
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

  /** Room for `capacity` entries; `row_starts` are zero. */
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

  /** From now on every row has `k` entries, which the codes must have room for. */
  makeUniform(k: number): void {
    if (this.#k === k) return;
    this.row_starts.write(Uint32Array.from({ length: this.n_rows + 1 }, (_, row) => row * k));
    this.#k = k;
  }

  /** How kernels see it. */
  get sparse(): SparseRows {
    const { n_rows: rows, row_starts: starts, indices, values } = this;
    return { rows, capacity: values.size, starts, indices, values };
  }

  /** Brings the entries back, and not the room for more. Where only the device knows how many there are, it is asked first. */
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

  /** f_BS written out: a new [B, S] tensor, the caller's to dispose of. */
  dense(): Tensor {
    const { n_rows, d_sae } = this;
    const dense = new Tensor(this.#context, "f32", [n_rows, d_sae], "dense f_x");
    const commands = new Commands(this.#context);
    for (const { from, to } of spans(n_rows, rowsPerBlock(this.#context, n_rows, d_sae * 4, dense.label))) {
      denseRows(commands, {
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
