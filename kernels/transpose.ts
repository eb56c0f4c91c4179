/**
 * A matrix transposed as it arrives, row by row: `result[c, at + r] = rows[r, c]`.
 *
 * @module
 */

import type { Commands } from "./commands.ts";
import { ShapeError } from "./errors.ts";
import { defineKernel, readsOnce, writes } from "./kernel.ts";
import { rowsPerBlock, spans, type Tensor, type TensorRows } from "./tensor.ts";

/** Rows `at` to `at + R` of a matrix as columns of its transpose; the other columns stay. */
export interface TransposedRows {
  /** [R, C], which fit a binding. */
  readonly rows: TensorRows;
  /** [C, W] */
  readonly result: Tensor;
  /** Which row of the matrix the first one is. */
  readonly at: number;
}

/**
 * Writes rows of a matrix into the columns of its transpose.
 *
 * @throws {ShapeError} if the rows are of another length than the transpose has columns, or there are not so many.
 */
export function transposeRows(commands: Commands, { rows, result, at }: TransposedRows): void {
  const n_rows = rows.to - rows.from;
  const columns = rows.tensor.rowSize;
  const [height = 0, width = 0] = result.shape;
  if (columns !== height || at + n_rows > width) {
    throw new ShapeError(
      `rows ${at} to ${at + n_rows} of ${columns} values were to be columns of ${result.label} [${height}, ${width}]`,
    );
  }
  for (const { from, to } of spans(height, rowsPerBlock(commands.context, height, width * 4, result.label))) {
    commands.run(transposeRowsKernel, {
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
