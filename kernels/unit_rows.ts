/**
 * Row operations on a matrix: unit length, removal of what is parallel to another matrix's rows, sums of squares.
 *
 * A workgroup a row; sums are trees whose shape depends on the number of columns alone.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, writes } from "./kernel.ts";
import { rowsPerBlock, spans, type Tensor } from "./tensor.ts";

const THREADS = 32;

const declarations = `
var<workgroup> partial: array<f32, ${THREADS}>;
// The sum over all invocations, for each of them.
fn total(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier();
  return sum;
}
`;

/** Every row divided by its length; rows of zeros stay. */
export function unitRows(commands: Commands, matrix: Tensor): void {
  const [rows = 0, columns = 0] = matrix.shape;
  const block = rowsPerBlock(commands.context, rows, columns * 4, matrix.label);
  for (const { from, to } of spans(rows, block)) {
    commands.run(unitRowsKernel, { rows: to - from, columns, matrix: matrix.rows(from, to) });
  }
}

const unitRowsKernel = defineKernel({
  name: "unit_rows",
  dims: ["rows", "columns"],
  bindings: { matrix: writes("f32", "rows columns") },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 3 * rows * columns, bytes: 12 * rows * columns }),
  declarations,
  body: `
  let first = group * dims.columns;
  var squares = 0.0;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) { squares = fma(matrix[first + c], matrix[first + c], squares); }
  let norm = sqrt(total(lane, squares));
  if (norm == 0.0) { return; }
  for (var c = lane; c < dims.columns; c += ${THREADS}u) { matrix[first + c] /= norm; }`,
});

/** grad[r] −= (⟨grad[r], matrix[r]⟩ / ‖matrix[r]‖²) · matrix[r]; rows whose matrix row is zero stay. */
export function removeParallelRows(commands: Commands, grad: Tensor, matrix: Tensor): void {
  const [rows = 0, columns = 0] = matrix.shape;
  const block = rowsPerBlock(commands.context, rows, columns * 4, matrix.label);
  for (const { from, to } of spans(rows, block)) {
    commands.run(removeParallelRowsKernel, {
      rows: to - from,
      columns,
      grad: grad.rows(from, to),
      matrix: matrix.rows(from, to),
    });
  }
}

const removeParallelRowsKernel = defineKernel({
  name: "remove_parallel_rows",
  dims: ["rows", "columns"],
  bindings: { grad: writes("f32", "rows columns"), matrix: reads("f32", "rows columns") },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 6 * rows * columns, bytes: 20 * rows * columns }),
  declarations,
  body: `
  let first = group * dims.columns;
  var squares = 0.0;
  var along = 0.0;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    squares = fma(matrix[first + c], matrix[first + c], squares);
    along = fma(grad[first + c], matrix[first + c], along);
  }
  let norm_squared = total(lane, squares);
  let parallel = total(lane, along) / norm_squared;
  if (norm_squared == 0.0) { return; }
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    grad[first + c] = fma(-parallel, matrix[first + c], grad[first + c]);
  }`,
});

/** squares[r] = ‖matrix[r]‖². */
export function rowSquares(commands: Commands, matrix: Tensor, squares: Bindable): void {
  const [rows = 0] = matrix.shape;
  const columns = matrix.rowSize;
  const block = rowsPerBlock(commands.context, rows, columns * 4, matrix.label);
  for (const { from, to } of spans(rows, block)) {
    commands.run(rowSquaresKernel, {
      rows: to - from,
      columns,
      allRows: rows,
      firstRow: from,
      matrix: matrix.rows(from, to),
      squares,
    });
  }
}

const rowSquaresKernel = defineKernel({
  name: "row_squares",
  dims: ["rows", "columns", "allRows", "firstRow"],
  bindings: { matrix: reads("f32", "rows columns"), squares: writes("f32", "allRows") },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 2 * rows * columns, bytes: 4 * rows * columns }),
  declarations,
  body: `
  let first = group * dims.columns;
  var squares_of_lane = 0.0;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    squares_of_lane = fma(matrix[first + c], matrix[first + c], squares_of_lane);
  }
  let sum = total(lane, squares_of_lane);
  if (lane == 0u) { squares[dims.firstRow + group] = sum; }`,
});
