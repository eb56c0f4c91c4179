/**
 * The cosines between the rows of two dictionaries, one tile of rows at a time: ŵ_A ŵ_Bᵀ, from [S_A, D] and [S_B, D].
 *
 * @module
 */

import { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { rowsPerBlock, type Span, spans, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import { matmul } from "../kernels/matmul.ts";

/** Rows of the product held at a time. */
const TILE_ROWS = 512;
/** Multiply-adds between two checks of the signal: about a second on a software driver. */
const TILE_WORK = 2 ** 34;

/** Normalises the rows in float64; rows of zeros stay zero. */
export function unitRows(matrix: Float32Array, columns: number): Float32Array {
  const unit = new Float32Array(matrix.length);
  for (let from = 0; from < matrix.length; from += columns) {
    let squares = 0;
    for (let i = from; i < from + columns; i++) squares += matrix[i]! ** 2;
    const norm = Math.sqrt(squares) || 1;
    for (let i = from; i < from + columns; i++) unit[i] = matrix[i]! / norm;
  }
  return unit;
}

/** Some rows of a matrix, in their order. */
export function rowsAt(matrix: Float32Array, columns: number, rows: readonly number[]): Float32Array {
  const taken = new Float32Array(rows.length * columns);
  for (const [i, row] of rows.entries()) taken.set(matrix.subarray(row * columns, (row + 1) * columns), i * columns);
  return taken;
}

/** Input of {@link cosineTiles}. */
export interface CosineTilesOptions {
  /** [S_A, D], rows of unit length. */
  readonly a: Float32Array;
  /** [S_B, D], rows of unit length. */
  readonly b: Float32Array;
  /** D */
  readonly d_model: number;
  /** Records work on the cosines [rows, S_B] of some rows of A, into the submission that computes them. */
  readonly record?: (commands: Commands, rows: Span, cosines: TensorRows) => void;
  /** Stops between two tiles, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Computes the cosines tile by tile and yields the range of rows of A that each tile covers: [rows, S_B], valid until
 * the next tile. Each tile is one submission, short enough that the system does not consider the GPU hung.
 */
export async function* cosineTiles(
  context: DeviceContext,
  { a, b, d_model, record, signal }: CosineTilesOptions,
): AsyncGenerator<{ readonly rows: Span; readonly cosines: Tensor }> {
  const [n_a, n_b] = [a.length / d_model, b.length / d_model];
  signal?.throwIfAborted();
  using stack = new DisposableStack();
  const a_SD = stack.use(Tensor.from(context, a, [n_a, d_model], "unit rows"));
  const b_SD = b === a ? a_SD : stack.use(Tensor.from(context, b, [n_b, d_model], "unit rows of the other"));
  const tileRows = Math.min(
    TILE_ROWS,
    Math.max(1, Math.floor(TILE_WORK / (n_b * d_model))),
    rowsPerBlock(context, n_a, Math.max(d_model, n_b) * 4, "cosines"),
  );
  const tile = stack.use(new Tensor(context, "f32", [tileRows, n_b], "cosines"));
  const commands = new Commands(context);
  for (const rows of spans(n_a, tileRows)) {
    const M = rows.to - rows.from;
    for (const block of spans(n_b, rowsPerBlock(context, n_b, d_model * 4, b_SD.label))) {
      matmul(commands, {
        layout: "nt",
        M,
        N: block.to - block.from,
        K: d_model,
        a: { in: a_SD.rows(rows.from, rows.to) },
        b: { in: b_SD.rows(block.from, block.to) },
        c: { in: tile.rows(0, M), stride: n_b, offset: block.from },
      });
    }
    record?.(commands, rows, tile.rows(0, M));
    commands.submit();
    await context.drained();
    signal?.throwIfAborted();
    yield { rows, cosines: tile };
  }
}
