/**
 * Row operations on a matrix: unit length, removal of the component along another matrix's rows, sums of squares, and
 * the gradient of row norms.
 *
 * One workgroup a row. A row's sum is made of eight strided partial sums and a tree over them on every device: the
 * order depends on the number of columns alone.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOnce, updates, writes } from "./engine/kernel.ts";
import { dot, perRowLayout, type RowLayout, rowTotal } from "./row_layout.ts";
import { rowsPerBlock, spans, type Tensor } from "./engine/tensor.ts";
import { perVectorWidth } from "./engine/vector_width.ts";

const THREADS = 8;
/**
 * The longest row: a software driver ends an invocation's loops at 65,535 turns in all, and some kernels read a row
 * twice.
 */
const MAX_COLUMNS = 32000 * THREADS;

/** What all declarations share. */
const sums = (layout: RowLayout) => ({
  ...rowTotal(layout, THREADS),
  workgroup: THREADS,
  grid: ({ rows }: { readonly rows: number }) => rows,
});

/** WGSL: `statement` for every load `i` of this invocation's part of the row, of those before `end`. */
const everyLoad = (end: string, statement: string): string => `
  for (var c = lane; c < ${end}; c += ${THREADS}u) {
    let i = group * loads + c;
    ${statement}
  }`;

/** WGSL: the loads of a row. */
const loadsOfRow = ({ scalars }: RowLayout): string => `let loads = dims.columns / ${scalars}u;`;

/** The rows of a matrix, in blocks that fit a binding. */
function blocks(commands: Commands, matrix: Tensor): Iterable<{ readonly from: number; readonly to: number }> {
  const rows = matrix.shape[0] ?? 0;
  if (matrix.rowSize > MAX_COLUMNS) {
    throw new RangeError(`rows of ${matrix.label} must have at most ${MAX_COLUMNS} columns, found ${matrix.rowSize}`);
  }
  return spans(rows, rowsPerBlock(commands.context, rows, matrix.rowSize * matrix.valueBytes, matrix.label));
}

/** Divides every row by its norm; rows of zeros stay, and all rows stay if `halted[0]` is not 0. */
export function unitRows(commands: Commands, matrix: Tensor, halted: Tensor<"u32">): void {
  const columns = matrix.rowSize;
  const kernel = unitRowsKernel(columns, commands.context);
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, { rows: to - from, columns, matrix: matrix.rows(from, to), halted });
  }
}

const unitRowsKernel = perRowLayout((layout) =>
  defineKernel({
    name: "unit_rows",
    dims: ["rows", "columns"],
    bindings: { matrix: updates(layout.element, "rows columns"), halted: reads("u32", "1") },
    ...sums(layout),
    cost: ({ rows, columns }) => ({ flops: 3 * rows * columns, bytes: 12 * rows * columns }),
    body: `
  if (halted[0] != 0u) { return; }
  ${loadsOfRow(layout)}
  var squares = 0.0;
  ${everyLoad("loads", `let w = old_matrix[i]; squares = ${dot(layout, "w", "w", "squares")};`)}
  let norm = sqrt(total(lane, squares));
  if (norm == 0.0) { return; }
  ${everyLoad("loads", "matrix[i] = old_matrix[i] / norm;")}`,
  })
);

/** Arguments of {@link parallelRows} and {@link subtractParallelRows}. */
export interface ParallelRowsArguments {
  /** [rows, columns] */
  readonly grad: Tensor;
  /** [rows, columns] */
  readonly matrix: Tensor;
  /** [rows], the multiple of each matrix row that its gradient row contains. */
  readonly parallel: Bindable;
}

/**
 * parallel[r] = ⟨grad[r], matrix[r]⟩ / ‖matrix[r]‖², 0 for a row of zeros, and squares[r] = ‖grad[r] − parallel[r]
 * matrix[r]‖², neither of which changes the gradient: {@link subtractParallelRows} and `adam` subtract the parallel
 * part.
 */
export function parallelRows(
  commands: Commands,
  { grad, matrix, parallel, squares }: ParallelRowsArguments & { /** [rows] */ readonly squares: Bindable },
): void {
  const columns = matrix.rowSize;
  const kernel = parallelRowsKernel(columns, commands.context);
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, {
      rows: to - from,
      columns,
      allRows: matrix.shape[0]!,
      firstRow: from,
      grad: grad.rows(from, to),
      matrix: matrix.rows(from, to),
      parallel,
      squares,
    });
  }
}

/** WGSL: `removed`, the gradients `g` minus `parallel_part` times `w`; `g` itself where the part is 0. */
export const withoutParallel = (element: string, g: string, w: string): string =>
  `let removed = select(fma(${element}(-parallel_part), ${w}, ${g}), ${g}, parallel_part == 0.0);`;

const parallelRowsKernel = perRowLayout((layout) =>
  defineKernel({
    name: "parallel_rows",
    dims: ["rows", "columns", "allRows", "firstRow"],
    bindings: {
      grad: readsOnce(layout.element, "rows columns"),
      matrix: readsOnce(layout.element, "rows columns"),
      parallel: writes("f32", "allRows"),
      squares: writes("f32", "allRows"),
    },
    ...sums(layout),
    cost: ({ rows, columns }) => ({ flops: 10 * rows * columns, bytes: 8 * rows * columns }),
    body: `
  ${loadsOfRow(layout)}
  var norm_squared = 0.0;
  var along = 0.0;
  ${
      everyLoad(
        "loads",
        `let w = matrix[i]; let g = grad[i];
    norm_squared = ${dot(layout, "w", "w", "norm_squared")};
    along = ${dot(layout, "g", "w", "along")};`,
      )
    }
  norm_squared = total(lane, norm_squared);
  along = total(lane, along);
  let parallel_part = select(along / norm_squared, 0.0, norm_squared == 0.0);
  var squared = 0.0;
  ${
      everyLoad(
        "loads",
        `let w = matrix[i]; let g = grad[i];
    ${withoutParallel(layout.element, "g", "w")}
    squared = ${dot(layout, "removed", "removed", "squared")};`,
      )
    }
  squared = total(lane, squared);
  if (lane == 0u) {
    parallel[dims.firstRow + group] = parallel_part;
    squares[dims.firstRow + group] = squared;
  }`,
  })
);

/** grad[r] −= parallel[r] · matrix[r]. */
export function subtractParallelRows(commands: Commands, { grad, matrix, parallel }: ParallelRowsArguments): void {
  const columns = matrix.rowSize;
  const kernel = subtractParallelRowsKernel(columns);
  for (const { from, to } of blocks(commands, matrix)) {
    commands.run(kernel, {
      rows: to - from,
      columns,
      allRows: matrix.shape[0]!,
      firstRow: from,
      grad: grad.rows(from, to),
      matrix: matrix.rows(from, to),
      parallel,
    });
  }
}

const subtractParallelRowsKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "subtract_parallel_rows",
    dims: ["rows", "columns", "allRows", "firstRow"],
    bindings: {
      grad: updates(element, "rows columns"),
      matrix: readsOnce(element, "rows columns"),
      parallel: reads("f32", "allRows"),
    },
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ rows, columns }) => ({ flops: 2 * rows * columns, bytes: 12 * rows * columns }),
    body: `
  let loads = dims.columns / ${scalars}u;
  let parallel_part = parallel[dims.firstRow + group];
  for (var c = lane; c < loads; c += ${THREADS}u) {
    let i = group * loads + c;
    let g = old_grad[i];
    ${withoutParallel(element, "g", "matrix[i]")}
    grad[i] = removed;
  }`,
  })
);

/** squares[r] = ‖matrix[r]‖². */
export function rowSquares(commands: Commands, matrix: Tensor, squares: Bindable): void {
  const columns = matrix.rowSize;
  const kernel = rowSquaresKernel(columns, commands.context);
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

const rowSquaresKernel = perRowLayout((layout) =>
  defineKernel({
    name: "row_squares",
    dims: ["rows", "columns", "allRows", "firstRow"],
    bindings: { matrix: readsOnce(layout.element, "rows columns"), squares: writes("f32", "allRows") },
    ...sums(layout),
    cost: ({ rows, columns }) => ({ flops: 2 * rows * columns, bytes: 4 * rows * columns }),
    body: `
  ${loadsOfRow(layout)}
  var sum = 0.0;
  ${everyLoad("loads", `let w = matrix[i]; sum = ${dot(layout, "w", "w", "sum")};`)}
  sum = total(lane, sum);
  if (lane == 0u) { squares[dims.firstRow + group] = sum; }`,
  })
);

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
    matrix: readsOnce("f32", "size"),
    result: updates("f32", "size"),
  },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 256),
  cost: ({ size }) => ({ flops: 2 * size, bytes: 12 * size }),
  body: `
  for (var i = group * 256u + lane; i < min((group + 1u) * 256u, dims.size); i += 64u) {
    let row = dims.firstRow + i / dims.columns;
    if (squares[row] > 0.0) { result[i] = fma(weights[row] / sqrt(squares[row]), matrix[i], old_result[i]); }
  }`,
});
