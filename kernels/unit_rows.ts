/**
 * Row operations on a matrix: unit length, removal of what is parallel to another matrix's rows, sums of squares, and the
 * gradient of lengths.
 *
 * A workgroup a row. A row's sum is made of eight strided partial sums and a tree over them, whatever the device: the
 * order depends on the number of columns alone.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, writes } from "./kernel.ts";
import { rowsPerBlock, spans, type Tensor } from "./tensor.ts";
import { totalWgsl } from "./wgsl.ts";

const THREADS = 8;
/** The longest row: a software driver ends an invocation's loops at 65,535 turns in all, and a row may be read twice. */
const MOST_COLUMNS = 32000 * THREADS;

const declarations = totalWgsl(THREADS);

/** How a row is loaded: by fours where it is aligned. */
interface Width {
  readonly element: "f32" | "vec4f";
  readonly scalars: 1 | 4;
}

const scalar: Width = { element: "f32", scalars: 1 };
const vector: Width = { element: "vec4f", scalars: 4 };

/** WGSL: `statement` for every load `i` of this invocation's part of the row. */
const everyLoad = ({ scalars }: Width, statement: string): string => `
  for (var c = lane; c < dims.columns / ${scalars}u; c += ${THREADS}u) {
    let i = group * (dims.columns / ${scalars}u) + c;
    ${statement}
  }`;

/** WGSL: `sum` plus the products of the elements of two loads, in order. */
const dot = ({ scalars }: Width, a: string, b: string, sum: string): string =>
  scalars === 1
    ? `fma(${a}, ${b}, ${sum})`
    : ["x", "y", "z", "w"].reduce((inner, part) => `fma(${a}.${part}, ${b}.${part}, ${inner})`, sum);

/** The rows of a matrix, in blocks that fit a binding. */
function blocks(commands: Commands, matrix: Tensor): Iterable<{ readonly from: number; readonly to: number }> {
  const rows = matrix.shape[0] ?? 0;
  if (matrix.rowSize > MOST_COLUMNS) {
    throw new RangeError(`rows of ${matrix.label} may have ${MOST_COLUMNS} columns, found ${matrix.rowSize}`);
  }
  return spans(rows, rowsPerBlock(commands.context, rows, matrix.rowSize * 4, matrix.label));
}

/** Every row divided by its length; rows of zeros stay, and so does everything if `halted[0]` is not 0. */
export function unitRows(commands: Commands, matrix: Tensor, halted: Tensor<"u32">): void {
  const columns = matrix.rowSize;
  const kernel = columns % 4 === 0 ? unitRowsKernels.vector : unitRowsKernels.scalar;
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, { rows: to - from, columns, matrix: matrix.rows(from, to), halted });
  }
}

const declareUnitRows = (width: Width) =>
  defineKernel({
    name: "unit_rows",
    dims: ["rows", "columns"],
    bindings: { matrix: writes(width.element, "rows columns"), halted: reads("u32", "1") },
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ rows, columns }) => ({ flops: 3 * rows * columns, bytes: 12 * rows * columns }),
    declarations,
    body: `
  if (halted[0] != 0u) { return; }
  var squares = 0.0;
  ${everyLoad(width, `let w = matrix[i]; squares = ${dot(width, "w", "w", "squares")};`)}
  let norm = sqrt(total(lane, squares));
  if (norm == 0.0) { return; }
  ${everyLoad(width, "matrix[i] /= norm;")}`,
  });
const unitRowsKernels = { scalar: declareUnitRows(scalar), vector: declareUnitRows(vector) };

/** grad[r] −= (⟨grad[r], matrix[r]⟩ / ‖matrix[r]‖²) · matrix[r]; rows whose matrix row is zero stay. */
export function removeParallelRows(commands: Commands, grad: Tensor, matrix: Tensor): void {
  const columns = matrix.rowSize;
  const kernel = columns % 4 === 0 ? removeParallelRowsKernels.vector : removeParallelRowsKernels.scalar;
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, { rows: to - from, columns, grad: grad.rows(from, to), matrix: matrix.rows(from, to) });
  }
}

const declareRemoveParallelRows = (width: Width) =>
  defineKernel({
    name: "remove_parallel_rows",
    dims: ["rows", "columns"],
    bindings: { grad: writes(width.element, "rows columns"), matrix: reads(width.element, "rows columns") },
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ rows, columns }) => ({ flops: 6 * rows * columns, bytes: 20 * rows * columns }),
    declarations,
    body: `
  var squares = 0.0;
  var along = 0.0;
  ${
      everyLoad(
        width,
        `let w = matrix[i]; let g = grad[i];
    squares = ${dot(width, "w", "w", "squares")};
    along = ${dot(width, "g", "w", "along")};`,
      )
    }
  let norm_squared = total(lane, squares);
  let parallel = total(lane, along) / norm_squared;
  if (norm_squared == 0.0) { return; }
  ${everyLoad(width, `grad[i] = fma(${width.element}(-parallel), matrix[i], grad[i]);`)}`,
  });
const removeParallelRowsKernels = {
  scalar: declareRemoveParallelRows(scalar),
  vector: declareRemoveParallelRows(vector),
};

/** squares[r] = ‖matrix[r]‖². */
export function rowSquares(commands: Commands, matrix: Tensor, squares: Bindable): void {
  const columns = matrix.rowSize;
  const kernel = columns % 4 === 0 ? rowSquaresKernels.vector : rowSquaresKernels.scalar;
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, {
      rows: to - from,
      columns,
      allRows: matrix.shape[0]!,
      firstRow: from,
      matrix: matrix.rows(from, to),
      squares,
    });
  }
}

const declareRowSquares = (width: Width) =>
  defineKernel({
    name: "row_squares",
    dims: ["rows", "columns", "allRows", "firstRow"],
    bindings: { matrix: reads(width.element, "rows columns"), squares: writes("f32", "allRows") },
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ rows, columns }) => ({ flops: 2 * rows * columns, bytes: 4 * rows * columns }),
    declarations,
    body: `
  var sum = 0.0;
  ${everyLoad(width, `let w = matrix[i]; sum = ${dot(width, "w", "w", "sum")};`)}
  sum = total(lane, sum);
  if (lane == 0u) { squares[dims.firstRow + group] = sum; }`,
  });
const rowSquaresKernels = { scalar: declareRowSquares(scalar), vector: declareRowSquares(vector) };

/** result[r] += weights[r] · matrix[r] / ‖matrix[r]‖, with squares[r] = ‖matrix[r]‖²; rows of zeros add nothing. */
export function addUnitRows(
  commands: Commands,
  given: { readonly weights: Bindable; readonly squares: Bindable; readonly matrix: Tensor; readonly result: Tensor },
): void {
  const { weights, squares, matrix, result } = given;
  const columns = matrix.rowSize;
  for (const { from, to } of blocks(commands, matrix)) {
    const size = (to - from) * columns;
    commands.run(addUnitRowsKernel, {
      size,
      columns,
      allRows: matrix.shape[0]!,
      firstRow: from,
      weights,
      squares,
      matrix: matrix.rows(from, to),
      result: result.rows(from, to),
    });
  }
}

const addUnitRowsKernel = defineKernel({
  name: "add_unit_rows",
  dims: ["size", "columns", "allRows", "firstRow"],
  bindings: {
    weights: reads("f32", "allRows"),
    squares: reads("f32", "allRows"),
    matrix: reads("f32", "size"),
    result: writes("f32", "size"),
  },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 256),
  cost: ({ size }) => ({ flops: 2 * size, bytes: 12 * size }),
  body: `
  for (var i = group * 256u + lane; i < min((group + 1u) * 256u, dims.size); i += 64u) {
    let row = dims.firstRow + i / dims.columns;
    if (squares[row] > 0.0) { result[i] = fma(weights[row] / sqrt(squares[row]), matrix[i], result[i]); }
  }`,
});
