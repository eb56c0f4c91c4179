/**
 * The non-zero elements of a dense matrix as sparse rows.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, writes } from "./kernel.ts";

const THREADS = 64;
const SCANNERS = 256;
/** The widest row: a software driver ends an invocation's loops at 65,535 turns in all, and each stretch is read twice. */
const MOST_COLUMNS = 32000 * THREADS;

/** What {@link compactRows} takes. */
export interface CompactRowsArguments {
  /** [rows, columns] */
  readonly dense: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Which row of the sparse matrix the first one is; those before it must be there already. */
  readonly firstRow: number;
  /** Rows of the sparse matrix. */
  readonly allRows: number;
  /** [allRows + 1] */
  readonly starts: Bindable;
  /** Size of `indices` and `values`, enough for every element. */
  readonly capacity: number;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly values: Bindable;
}

/**
 * Appends rows to a sparse matrix, in order; NaN counts as non-zero.
 *
 * @throws {RangeError} for rows of more than 2,048,000 columns.
 */
export function compactRows(commands: Commands, given: CompactRowsArguments): void {
  const { dense, rows, columns, firstRow, allRows, starts, capacity, indices, values } = given;
  if (columns > MOST_COLUMNS) {
    throw new RangeError(`sparse rows have at most ${MOST_COLUMNS} columns, found ${columns}`);
  }
  const sizes = { rows, columns, firstRow, allRows: allRows };
  commands.run(countRowsKernel, { ...sizes, dense, starts });
  commands.run(rowStartsKernel, { ...sizes, starts });
  commands.run(writeRowsKernel, { ...sizes, capacity, dense, starts, indices, values });
}

/** Each invocation has a stretch of the row, so that positions ascend with the columns. */
const stretchOfLane = `
  let stretch = (dims.columns + ${THREADS - 1}u) / ${THREADS}u;
  let low = min(lane * stretch, dims.columns);
  let high = min(low + stretch, dims.columns);
  var count = 0u;
  for (var c = low; c < high; c += 1u) {
    count += u32((bitcast<u32>(dense[group * dims.columns + c]) & 0x7fffffffu) != 0u);
  }
  counts[lane] = count;
  workgroupBarrier();`;

/** Row r's count goes to starts[r + 1]. */
const countRowsKernel = defineKernel({
  name: "count_rows",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: { dense: reads("f32", "rows columns"), starts: writes("u32", "allRows+1") },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 4 * rows * columns }),
  declarations: `var<workgroup> counts: array<u32, ${THREADS}>;`,
  body: `${stretchOfLane}
  if (lane == 0u) {
    var all = 0u;
    for (var i = 0u; i < ${THREADS}u; i += 1u) { all += counts[i]; }
    starts[dims.firstRow + group + 1u] = all;
    if (dims.firstRow + group == 0u) { starts[0] = 0u; }
  }`,
});

/** Counts become starts, going on from the rows before. */
const rowStartsKernel = defineKernel({
  name: "row_starts",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: { starts: writes("u32", "allRows+1") },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: ({ rows }) => ({ flops: 0, bytes: 8 * rows }),
  declarations: `var<workgroup> sums: array<u32, ${SCANNERS}>;`,
  body: `
  let stretch = (dims.rows + ${SCANNERS - 1}u) / ${SCANNERS}u;
  let low = min(lane * stretch, dims.rows);
  let high = min(low + stretch, dims.rows);
  var sum = 0u;
  for (var i = low; i < high; i += 1u) { sum += starts[dims.firstRow + i + 1u]; }
  sums[lane] = sum;
  workgroupBarrier();
  sum = starts[dims.firstRow];
  for (var i = 0u; i < lane; i += 1u) { sum += sums[i]; }
  for (var i = low; i < high; i += 1u) {
    sum += starts[dims.firstRow + i + 1u];
    starts[dims.firstRow + i + 1u] = sum;
  }`,
});

const writeRowsKernel = defineKernel({
  name: "write_rows",
  dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
  bindings: {
    dense: reads("f32", "rows columns"),
    starts: reads("u32", "allRows+1"),
    indices: writes("u32", "capacity"),
    values: writes("f32", "capacity"),
  },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 8 * rows * columns }),
  declarations: `var<workgroup> counts: array<u32, ${THREADS}>;`,
  body: `${stretchOfLane}
  var at = starts[dims.firstRow + group];
  for (var i = 0u; i < lane; i += 1u) { at += counts[i]; }
  for (var c = low; c < high; c += 1u) {
    let value = dense[group * dims.columns + c];
    if ((bitcast<u32>(value) & 0x7fffffffu) != 0u) {
      indices[at] = c;
      values[at] = value;
      at += 1u;
    }
  }`,
});
