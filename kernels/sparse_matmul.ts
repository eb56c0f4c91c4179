/**
 * Products with a sparse factor, given as rows of (index, value) pairs: compressed sparse rows.
 *
 * `starts[r] … starts[r+1]` are the entries of row r, their indices ascending. Every sum is one f32 accumulator in
 * ascending order by explicit `fma()`, so the result has the bits of the dense product that skips the zeros.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { type Binding, defineKernel, type Kernel, reads, writes } from "./kernel.ts";
import { spans } from "./tensor.ts";

/** A sparse matrix on the GPU. */
export interface SparseRows {
  /** Rows. */
  readonly rows: number;
  /** Size of `indices` and `values`. */
  readonly capacity: number;
  /** [rows + 1] */
  readonly starts: Bindable;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly values: Bindable;
}

/**
 * Turns of the loop over a sum's terms in one dispatch; longer sums go on in the next. A software driver silently ends an
 * invocation's loops after 65,535 turns in all, the few of bisections and of parts included.
 */
const MOST_TURNS = 60000;

/** Columns that one invocation of the row kernels owns, in units of a load. */
const UNROLL = 4;

/** How kernels over [rows, columns] share out a row: four neighbours a load where rows are aligned. */
interface Width {
  readonly element: "f32" | "vec4f";
  readonly scalars: 1 | 4;
}

function widthOf(columns: number): Width {
  return columns % 4 === 0 ? { element: "vec4f", scalars: 4 } : { element: "f32", scalars: 1 };
}

/** One kernel for each combination of load width and lanes, declared on first use. */
function perWidth<D extends string, B extends string>(
  declare: (width: Width, lanes: number) => Kernel<D, never, B>,
): (columns: number, lanes: number) => Kernel<D, never, B> {
  const made = new Map<string, Kernel<D, never, B>>();
  return (columns, lanes) => {
    const width = widthOf(columns);
    const id = `${width.element} ${lanes}`;
    const kernel = made.get(id) ?? declare(width, lanes);
    made.set(id, kernel);
    return kernel;
  };
}

/** How many workgroups of `lanes` share the columns of a row. */
function columnGroups(columns: number, lanes: number): number {
  return Math.ceil(columns / widthOf(columns).scalars / (lanes * UNROLL));
}

const chunks = Array.from({ length: UNROLL }, (_, index) => index);

/** WGSL: which columns this invocation owns, `column0` … in units of a load, and whether they exist. */
function columnsOfLane(width: Width, lanes: number): string {
  return `
  let loads = dims.columns / ${width.scalars}u;
  let groups_a_row = (loads + ${lanes * UNROLL - 1}u) / ${lanes * UNROLL}u;
  let row = group / groups_a_row;
  ${
    chunks.map((c) => `let column${c} = (group % groups_a_row) * ${lanes * UNROLL}u + ${c * lanes}u + lane;`).join(
      "\n  ",
    )
  }
  ${chunks.map((c) => `let clamped${c} = min(column${c}, loads - 1u);`).join("\n  ")}`;
}

/** What {@link sparseRowsMatmul} takes. */
export interface SparseRowsMatmulArguments {
  /** The sparse factor. */
  readonly sparse: SparseRows;
  /** First row of the sparse factor. */
  readonly firstRow: number;
  /** How many of its rows. */
  readonly rows: number;
  /** Some rows of the dense factor, [to − from, columns]. */
  readonly matrix: Bindable;
  /** Which rows these are; entries with other indices are left out. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Columns. */
  readonly columns: number;
  /** [parts], ascending: part p of the result takes the indices below `ends[p]`. */
  readonly ends: Bindable;
  /** Number of parts. */
  readonly parts: number;
  /** [rows, parts, columns] */
  readonly result: Bindable;
  /** Whether the sums go on from the last part of `result`, because rows before `from` have been done. */
  readonly accumulate: boolean;
}

/**
 * result[r, p] = Σ over the entries of row r with index < ends[p] of value · matrix[index].
 *
 * The parts of a row share one running sum, so many cost little more than one.
 */
export function sparseRowsMatmul(commands: Commands, given: SparseRowsMatmulArguments): void {
  const { sparse, firstRow, rows, matrix, from, to, columns, ends, parts, result, accumulate } = given;
  const kernel = sparseRowsMatmulKernel(columns, commands.context.lanes);
  // A row has no more entries than it has columns, and no more than there are at all.
  const most = sparse.capacity <= MOST_TURNS ? to - from : MOST_TURNS;
  for (let begin = from; begin < to; begin += most) {
    commands.run(kernel, {
      rows,
      columns,
      parts,
      begin,
      end: Math.min(begin + most, to),
      boundFrom: from,
      extent: to - from,
      firstRow,
      accumulate: Number(accumulate || begin > from),
      allRows: sparse.rows,
      capacity: sparse.capacity,
      starts: sparse.starts,
      indices: sparse.indices,
      values: sparse.values,
      matrix,
      ends,
      result,
    });
  }
}

const sparseRowsMatmulKernel = perWidth((width, lanes) =>
  defineKernel({
    name: "sparse_rows_matmul",
    dims: [
      "rows",
      "columns",
      "parts",
      "begin",
      "end",
      "boundFrom",
      "extent",
      "firstRow",
      "accumulate",
      "allRows",
      "capacity",
    ],
    bindings: {
      starts: reads("u32", "allRows+1"),
      indices: reads("u32", "capacity"),
      values: reads("f32", "capacity"),
      matrix: reads(width.element, "extent columns"),
      ends: reads("u32", "parts"),
      result: writes(width.element, "rows parts columns"),
    },
    workgroup: lanes,
    grid: ({ rows, columns }) => rows * columnGroups(columns, lanes),
    cost: ({ rows, columns, parts, capacity, allRows }) => ({
      flops: 2 * columns * capacity * (rows / allRows),
      bytes: 4 * columns * (capacity * (rows / allRows) + rows * parts),
    }),
    body: `${columnsOfLane(width, lanes)}
  ${chunks.map((c) => `var sum${c} = ${width.element}(0.0);`).join("\n  ")}
  if (dims.accumulate == 1u) {
    let last = (row * dims.parts + dims.parts - 1u) * loads;
    ${chunks.map((c) => `sum${c} = result[last + clamped${c}];`).join("\n    ")}
  }
  let end = starts[dims.firstRow + row + 1u];
  var entry = starts[dims.firstRow + row];
  for (var above = end; entry < above;) {
    let middle = (entry + above) / 2u;
    if (indices[middle] < dims.begin) { entry = middle + 1u; } else { above = middle; }
  }
  for (var part = 0u; part < dims.parts; part += 1u) {
    if (ends[part] <= dims.begin) { continue; }
    let below = min(ends[part], dims.end);
    for (; entry < end; entry += 1u) {
      let index = indices[entry];
      if (index >= below) { break; }
      let value = ${width.element}(values[entry]);
      let at = (index - dims.boundFrom) * loads;
      ${chunks.map((c) => `sum${c} = fma(value, matrix[at + clamped${c}], sum${c});`).join("\n      ")}
    }
    let at = (row * dims.parts + part) * loads;
    ${chunks.map((c) => `if (column${c} < loads) { result[at + column${c}] = sum${c}; }`).join("\n    ")}
  }`,
  })
);

/** What {@link sampledMatmul} takes. */
export interface SampledMatmulArguments {
  /** Which products are wanted: the entries' rows and indices. */
  readonly sparse: SparseRows;
  /** [capacity], the row of each entry. */
  readonly entryRows: Bindable;
  /** First row of `rowsMatrix`. */
  readonly firstRow: number;
  /** Its rows. */
  readonly rows: number;
  /** [rows, parts, columns] */
  readonly left: Bindable;
  /** Number of parts. */
  readonly parts: number;
  /** [parts], ascending: an entry takes the first part whose end is above its index. */
  readonly ends: Bindable;
  /** Some rows of the other factor, [to − from, columns]. */
  readonly right: Bindable;
  /** Which rows these are; entries with other indices are left alone. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Columns. */
  readonly columns: number;
  /** [capacity] */
  readonly result: Bindable;
}

/** result[e] = ⟨left[row of e, part of e], right[index of e]⟩: a dense product, only where the entries are. */
export function sampledMatmul(commands: Commands, given: SampledMatmulArguments): void {
  const { sparse, entryRows, firstRow, rows, left, parts, ends, right, from, to, columns, result } = given;
  const loads = columns / widthOf(columns).scalars;
  for (const terms of spans(loads, MOST_TURNS)) {
    commands.run(sampledMatmulKernel(columns, 64), {
      rows,
      columns,
      parts,
      firstLoad: terms.from,
      endLoad: terms.to,
      begin: from,
      extent: to - from,
      firstRow,
      allRows: sparse.rows,
      capacity: sparse.capacity,
      starts: sparse.starts,
      indices: sparse.indices,
      entryRows,
      left,
      ends,
      right,
      result,
    });
  }
}

const sampledMatmulKernel = perWidth((width, threads) =>
  defineKernel({
    name: "sampled_matmul",
    dims: [
      "rows",
      "columns",
      "parts",
      "firstLoad",
      "endLoad",
      "begin",
      "extent",
      "firstRow",
      "allRows",
      "capacity",
    ],
    bindings: {
      starts: reads("u32", "allRows+1"),
      indices: reads("u32", "capacity"),
      entryRows: reads("u32", "capacity"),
      left: reads(width.element, "rows parts columns"),
      ends: reads("u32", "parts"),
      right: reads(width.element, "extent columns"),
      result: writes("f32", "capacity"),
    },
    workgroup: threads,
    grid: ({ capacity }) => Math.ceil(capacity / threads),
    cost: ({ columns, capacity }) => ({ flops: 2 * columns * capacity, bytes: 8 * columns * capacity }),
    body: `
  let entry = group * ${threads}u + lane;
  if (entry >= starts[dims.allRows]) { return; }
  let index = indices[entry];
  let row = entryRows[entry];
  if (index < dims.begin || index - dims.begin >= dims.extent) { return; }
  if (row < dims.firstRow || row - dims.firstRow >= dims.rows) { return; }
  var part = 0u;
  for (; part + 1u < dims.parts; part += 1u) { if (index < ends[part]) { break; } }
  let loads = dims.columns / ${width.scalars}u;
  let l = ((row - dims.firstRow) * dims.parts + part) * loads;
  let r = (index - dims.begin) * loads;
  var sum = 0.0;
  if (dims.firstLoad > 0u) { sum = result[entry]; }
  for (var c = dims.firstLoad; c < dims.endLoad; c += 1u) {
    let x = left[l + c];
    let y = right[r + c];
    sum = ${width.scalars === 1 ? "fma(x, y, sum)" : "fma(x.w, y.w, fma(x.z, y.z, fma(x.y, y.y, fma(x.x, y.x, sum))))"};
  }
  result[entry] = sum;`,
  })
);

/** The entries of a sparse matrix by column: {@link transposeEntries} makes it. */
export interface SparseColumns {
  /** Columns. */
  readonly columns: number;
  /** Size of `entries`. */
  readonly capacity: number;
  /** [columns + 1] */
  readonly starts: Bindable;
  /** [capacity], entry numbers, ascending within a column. */
  readonly entries: Bindable;
}

/** What {@link sparseColumnsMatmul} takes. */
export interface SparseColumnsMatmulArguments {
  /** The transposed sparse factor. */
  readonly sparse: SparseColumns;
  /** [capacity], the row of each entry. */
  readonly entryRows: Bindable;
  /** [capacity], the value of each entry. */
  readonly values: Bindable;
  /** First row of the dense factor that is bound. */
  readonly firstRow: number;
  /** How many; entries of other rows are left out. */
  readonly rows: number;
  /** [rows, parts, columns] */
  readonly matrix: Bindable;
  /** Number of parts. */
  readonly parts: number;
  /** [parts], ascending: sparse column s takes the first part whose end is above s. */
  readonly ends: Bindable;
  /** First sparse column of the result that is bound. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Columns of the dense factor. */
  readonly columns: number;
  /** [to − from, columns] */
  readonly result: Bindable;
  /** Whether sums start from what the result holds; columns without entries keep it. */
  readonly accumulate: boolean;
}

/** result[s] = Σ over the entries of column s of value · matrix[row of the entry, part of s]. */
export function sparseColumnsMatmul(commands: Commands, given: SparseColumnsMatmulArguments): void {
  const { sparse, entryRows, values, firstRow, rows, matrix, parts, ends, from, to, columns, result, accumulate } =
    given;
  const kernel = sparseColumnsMatmulKernel(columns, commands.context.lanes);
  for (const span of spans(rows, MOST_TURNS)) {
    commands.run(kernel, {
      rows: span.to - span.from,
      columns,
      parts,
      begin: from,
      extent: to - from,
      firstRow: firstRow + span.from,
      boundRow: firstRow,
      boundRows: rows,
      accumulate: Number(accumulate || span.from > 0),
      allColumns: sparse.columns,
      capacity: sparse.capacity,
      starts: sparse.starts,
      entries: sparse.entries,
      entryRows,
      values,
      matrix,
      ends,
      result,
    });
  }
}

/** WGSL: the entries of `column` whose rows are bound, as \`entry\` … \`end\` (rows ascend, so they are neighbours). */
const entriesOfColumn = `
  var entry = starts[column];
  var end = starts[column + 1u];
  for (var above = end; entry < above;) {
    let middle = (entry + above) / 2u;
    if (entryRows[entries[middle]] < dims.firstRow) { entry = middle + 1u; } else { above = middle; }
  }
  for (var below = entry; below < end;) {
    let middle = (below + end) / 2u;
    if (entryRows[entries[middle]] - dims.firstRow < dims.rows) { below = middle + 1u; } else { end = middle; }
  }`;

const sparseColumnsMatmulKernel = perWidth((width, lanes) =>
  defineKernel({
    name: "sparse_columns_matmul",
    dims: [
      "rows",
      "columns",
      "parts",
      "begin",
      "extent",
      "firstRow",
      "boundRow",
      "boundRows",
      "accumulate",
      "allColumns",
      "capacity",
    ],
    bindings: {
      starts: reads("u32", "allColumns+1"),
      entries: reads("u32", "capacity"),
      entryRows: reads("u32", "capacity"),
      values: reads("f32", "capacity"),
      matrix: reads(width.element, "boundRows parts columns"),
      ends: reads("u32", "parts"),
      result: writes(width.element, "extent columns"),
    },
    workgroup: lanes,
    grid: ({ extent, columns }) => extent * columnGroups(columns, lanes),
    cost: ({ columns, capacity, extent }) => ({
      flops: 2 * columns * capacity,
      bytes: 4 * columns * (capacity + extent),
    }),
    body: `${columnsOfLane(width, lanes)}
  let column = dims.begin + row;
  ${entriesOfColumn}
  if (dims.accumulate == 1u && entry == end) { return; }
  var part = 0u;
  for (; part + 1u < dims.parts; part += 1u) { if (column < ends[part]) { break; } }
  ${chunks.map((c) => `var sum${c} = ${width.element}(0.0);`).join("\n  ")}
  if (dims.accumulate == 1u) {
    ${chunks.map((c) => `sum${c} = result[row * loads + clamped${c}];`).join("\n    ")}
  }
  for (; entry < end; entry += 1u) {
    let e = entries[entry];
    let value = ${width.element}(values[e]);
    let at = ((entryRows[e] - dims.boundRow) * dims.parts + part) * loads;
    ${chunks.map((c) => `sum${c} = fma(value, matrix[at + clamped${c}], sum${c});`).join("\n    ")}
  }
  ${chunks.map((c) => `if (column${c} < loads) { result[row * loads + column${c}] = sum${c}; }`).join("\n  ")}`,
  })
);

/** What {@link sparseColumnSums} takes. */
export interface SparseColumnSumsArguments {
  /** The transposed sparse matrix. */
  readonly sparse: SparseColumns;
  /** [capacity], the row of each entry. */
  readonly entryRows: Bindable;
  /** [capacity], the value of each entry. */
  readonly values: Bindable;
  /** First row whose entries count. */
  readonly firstRow: number;
  /** How many rows. */
  readonly rows: number;
  /** [columns] */
  readonly result: Bindable;
  /** Whether sums start from what the result holds. */
  readonly accumulate: boolean;
}

/** result[s] = Σ of the values of column s, ascending. */
export function sparseColumnSums(commands: Commands, given: SparseColumnSumsArguments): void {
  const { sparse, entryRows, values, firstRow, rows, result, accumulate } = given;
  for (const span of spans(rows, MOST_TURNS)) {
    commands.run(sparseColumnSumsKernel, {
      rows: span.to - span.from,
      firstRow: firstRow + span.from,
      accumulate: Number(accumulate || span.from > 0),
      allColumns: sparse.columns,
      capacity: sparse.capacity,
      starts: sparse.starts,
      entries: sparse.entries,
      entryRows,
      values,
      result,
    });
  }
}

const sparseColumnSumsKernel = defineKernel({
  name: "sparse_column_sums",
  dims: ["rows", "firstRow", "accumulate", "allColumns", "capacity"],
  bindings: {
    starts: reads("u32", "allColumns+1"),
    entries: reads("u32", "capacity"),
    entryRows: reads("u32", "capacity"),
    values: reads("f32", "capacity"),
    result: writes("f32", "allColumns"),
  } satisfies Record<string, Binding>,
  workgroup: 64,
  grid: ({ allColumns }) => Math.ceil(allColumns / 64),
  cost: ({ capacity, allColumns }) => ({ flops: capacity, bytes: 4 * (3 * capacity + allColumns) }),
  body: `
  let column = group * 64u + lane;
  if (column >= dims.allColumns) { return; }
  ${entriesOfColumn}
  var sum = 0.0;
  if (dims.accumulate == 1u) { sum = result[column]; }
  for (; entry < end; entry += 1u) { sum += values[entries[entry]]; }
  result[column] = sum;`,
});

/** What {@link denseRows} takes. */
export interface DenseRowsArguments {
  /** The sparse matrix. */
  readonly sparse: SparseRows;
  /** First row. */
  readonly firstRow: number;
  /** How many rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** [rows, columns] */
  readonly result: Bindable;
}

/** The sparse rows written out, zeros included. */
export function denseRows(commands: Commands, given: DenseRowsArguments): void {
  const { sparse, firstRow, rows, columns, result } = given;
  commands.run(denseRowsKernel, {
    rows,
    columns,
    firstRow,
    allRows: sparse.rows,
    capacity: sparse.capacity,
    starts: sparse.starts,
    indices: sparse.indices,
    values: sparse.values,
    result,
  });
}

const denseRowsKernel = defineKernel({
  name: "dense_rows",
  dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
  bindings: {
    starts: reads("u32", "allRows+1"),
    indices: reads("u32", "capacity"),
    values: reads("f32", "capacity"),
    result: writes("f32", "rows columns"),
  },
  workgroup: 64,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 4 * rows * columns }),
  body: `
  for (var c = lane; c < dims.columns; c += 64u) { result[group * dims.columns + c] = 0.0; }
  storageBarrier();
  let end = starts[dims.firstRow + group + 1u];
  for (var entry = starts[dims.firstRow + group] + lane; entry < end; entry += 64u) {
    result[group * dims.columns + indices[entry]] = values[entry];
  }`,
});
