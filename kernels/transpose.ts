/**
 * Transposes a matrix as it arrives, row by row: `result[c, at + r] = rows[r, c]`.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import { ShapeError } from "./engine/errors.ts";
import { defineKernel, reads, readsOnce, writes } from "./engine/kernel.ts";
import { rowsPerBlock, spans, type Tensor, type TensorRows } from "./engine/tensor.ts";

/** Rows `at` to `at + R` of a matrix as columns of its transpose; the other columns stay. */
export interface TransposedRows {
  /** [R, C], which fit a binding. */
  readonly rows: TensorRows;
  /** [C, W]; f16 where `rows` is. */
  readonly result: Tensor;
  /** Which row of the matrix the first one is. */
  readonly at: number;
}

/**
 * Writes rows of a matrix into the columns of its transpose.
 *
 * @throws {ShapeError} if the length of the rows is not the height of the transpose, or the rows go beyond its width.
 * @throws {KernelError} if one of them is an f16 tensor and the other is not.
 */
export function transposeRows(commands: Commands, { rows, result, at }: TransposedRows): void {
  const n_rows = rows.to - rows.from;
  const columns = rows.tensor.rowSize;
  const [height = 0, width = 0] = result.shape;
  if (columns !== height || at + n_rows > width) {
    throw new ShapeError(
      `transposing rows ${at} to ${
        at + n_rows
      } of ${columns} values into ${result.label} [${height}, ${width}]: they must have ${height} values and end at ${width}`,
    );
  }
  const kernel = result.isF16 ? transposeF16Kernel : transposeRowsKernel;
  const most = rowsPerBlock(commands.context, height, width * result.valueBytes, result.label);
  for (const { from, to } of spans(height, most)) {
    commands.run(kernel, {
      rows: n_rows,
      columns,
      first: from,
      height: to - from,
      width,
      at,
      source: rows,
      result: result.rows(from, to),
    });
  }
}

const transposeRowsKernel = defineKernel({
  name: "transpose_rows",
  dims: ["rows", "columns", "first", "height", "width", "at"],
  bindings: { source: readsOnce("f32", "rows columns"), result: writes("f32", "height width") },
  workgroup: 64,
  grid: ({ rows, height }) => Math.ceil(rows * height / 256),
  cost: ({ rows, height }) => ({ flops: 0, bytes: 8 * rows * height }),
  body: `
  let size = dims.rows * dims.height;
  for (var i = group * 256u + lane; i < min((group + 1u) * 256u, size); i += 64u) {
    let c = i / dims.rows;
    let r = i % dims.rows;
    result[c * dims.width + dims.at + r] = source[r * dims.columns + dims.first + c];
  }`,
});

/**
 * The same bits, two in a word: if both values of a word are among the rows, the invocation with the first one writes
 * the word; otherwise the other value stays.
 */
const transposeF16Kernel = defineKernel({
  name: "transpose_f16",
  dims: ["rows", "columns", "first", "height", "width", "at"],
  bindings: { source: reads("f16", "rows columns"), result: writes("f16", "height width") },
  workgroup: 64,
  grid: ({ rows, height }) => Math.ceil(rows * height / 256),
  cost: ({ rows, height }) => ({ flops: 0, bytes: 4 * rows * height }),
  body: `
  let size = dims.rows * dims.height;
  for (var i = group * 256u + lane; i < min((group + 1u) * 256u, size); i += 64u) {
    let place = i / dims.rows * dims.width + dims.at + i % dims.rows;
    let other = place ^ 1u;
    let c = other / dims.width;
    let r = other % dims.width - dims.at;
    let both = c < dims.height && r < dims.rows;
    if (both && other < place) { continue; }
    let mine = (i % dims.rows) * dims.columns + dims.first + i / dims.rows;
    let my_bits = (source[mine >> 1u] >> (16u * (mine & 1u))) & 0xffffu;
    var other_bits = (result[place >> 1u] >> (16u * (other & 1u))) & 0xffffu;
    if (both) {
      let theirs = r * dims.columns + dims.first + c;
      other_bits = (source[theirs >> 1u] >> (16u * (theirs & 1u))) & 0xffffu;
    }
    result[place >> 1u] = (my_bits << (16u * (place & 1u))) | (other_bits << (16u * (other & 1u)));
  }`,
});
