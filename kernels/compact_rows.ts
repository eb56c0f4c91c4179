/**
 * The non-zero elements of a dense matrix as sparse rows, or those near and above a threshold.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, readsOften, writes } from "./kernel.ts";

const THREADS = 64;
const SCANNERS = 256;
/** The widest row: a software driver ends an invocation's loops at 65,535 turns in all, and each stretch is read twice. */
const MOST_COLUMNS = 32000 * THREADS;

/** Which elements are kept besides those above max(thresholds[c], 0). */
export interface Nearby {
  /** [columns] */
  readonly thresholds: Bindable;
  /** Elements closer to it than half of this are kept. */
  readonly width: number;
  /** [columns], 1 where all elements of a column are kept. */
  readonly whole: Bindable;
}

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
  /** Size of `indices` and `values`. Rows that do not fit whole are counted and left out. */
  readonly capacity: number;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly values: Bindable;
  /** Keeps those above and near a threshold, zeros among them; all that are not zero if left out. */
  readonly nearby?: Nearby;
}

/**
 * Appends rows to a sparse matrix, in order; NaN is kept.
 *
 * Starts count what there is also past the capacity, up to 2³¹.
 *
 * @throws {RangeError} for rows of more than 2,048,000 columns.
 */
export function compactRows(commands: Commands, given: CompactRowsArguments): void {
  const { dense, rows, columns, firstRow, allRows, starts, capacity, indices, values, nearby } = given;
  if (columns > MOST_COLUMNS) {
    throw new RangeError(`sparse rows have at most ${MOST_COLUMNS} columns, found ${columns}`);
  }
  const sizes = { rows, columns, firstRow, allRows };
  const source = { ...sizes, dense, starts };
  const entries = { capacity, indices, values };
  if (nearby) commands.run(nearbyKernels.count, { ...source, ...nearby });
  else commands.run(nonZeroKernels.count, source);
  commands.run(rowStartsKernel, { ...sizes, starts });
  if (nearby) commands.run(nearbyKernels.write, { ...source, ...entries, ...nearby });
  else commands.run(nonZeroKernels.write, { ...source, ...entries });
}

/** WGSL: whether an element in column c is kept. */
type Kept = (value: string) => string;

/** WGSL: each invocation has a stretch of the row, so that positions ascend with the columns. */
const stretchOfLane = (isKept: Kept) => `
  let stretch = (dims.columns + ${THREADS - 1}u) / ${THREADS}u;
  let low = min(lane * stretch, dims.columns);
  let high = min(low + stretch, dims.columns);
  var count = 0u;
  for (var c = low; c < high; c += 1u) { count += u32(${isKept("dense[group * dims.columns + c]")}); }
  counts[lane] = count;
  workgroupBarrier();`;

/** Counts: row r's goes to starts[r + 1]. */
const COUNT = {
  name: "count_rows",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: { dense: readsOften("f32", "rows columns"), starts: writes("u32", "allRows+1") },
  workgroup: THREADS,
  grid: ({ rows }: { readonly rows: number }) => rows,
  cost: ({ rows, columns }: { readonly rows: number; readonly columns: number }) => ({
    flops: 0,
    bytes: 4 * rows * columns,
  }),
  declarations: `var<workgroup> counts: array<u32, ${THREADS}>;`,
} as const;
const countBody = (isKept: Kept) =>
  `${stretchOfLane(isKept)}
  if (lane == 0u) {
    var all = 0u;
    for (var i = 0u; i < ${THREADS}u; i += 1u) { all += counts[i]; }
    starts[dims.firstRow + group + 1u] = all;
    if (dims.firstRow + group == 0u) { starts[0] = 0u; }
  }`;

/** Counts become starts, going on from the rows before; they stop where 32 bits would end. */
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
    starts[dims.firstRow + i + 1u] = min(sum, 0x80000000u);
  }`,
});

const WRITE = {
  name: "write_rows",
  dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
  bindings: {
    dense: readsOften("f32", "rows columns"),
    starts: reads("u32", "allRows+1"),
    indices: writes("u32", "capacity"),
    values: writes("f32", "capacity"),
  },
  workgroup: THREADS,
  grid: ({ rows }: { readonly rows: number }) => rows,
  cost: ({ rows, columns }: { readonly rows: number; readonly columns: number }) => ({
    flops: 0,
    bytes: 8 * rows * columns,
  }),
  declarations: `var<workgroup> counts: array<u32, ${THREADS}>;`,
} as const;
const writeBody = (isKept: Kept) => `
  if (starts[dims.firstRow + group + 1u] > dims.capacity) { return; }
  ${stretchOfLane(isKept)}
  var at = starts[dims.firstRow + group];
  for (var i = 0u; i < lane; i += 1u) { at += counts[i]; }
  for (var c = low; c < high; c += 1u) {
    let value = dense[group * dims.columns + c];
    if (${isKept("value")}) {
      indices[at] = c;
      values[at] = value;
      at += 1u;
    }
  }`;

const isNonZero: Kept = (value) => `(bitcast<u32>(${value}) & 0x7fffffffu) != 0u`;

const nonZeroKernels = {
  count: defineKernel({ ...COUNT, body: countBody(isNonZero) }),
  write: defineKernel({ ...WRITE, body: writeBody(isNonZero) }),
};

const NEARBY = `
fn is_nearby(value: f32, limit: f32, width: f32) -> bool {
  let is_nan = (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
  let threshold = max(limit, 0.0);
  return is_nan || value > threshold || abs(value - threshold) < 0.5 * width;
}`;
const isNearby: Kept = (value) => `is_nearby(${value}, thresholds[c], dims.width) || whole[c] != 0u`;
const nearbyBindings = { thresholds: reads("f32", "columns"), whole: reads("u32", "columns") };

const nearbyKernels = {
  count: defineKernel({
    ...COUNT,
    name: "count_nearby",
    scalars: ["width"],
    bindings: { ...COUNT.bindings, ...nearbyBindings },
    declarations: COUNT.declarations + NEARBY,
    body: countBody(isNearby),
  }),
  write: defineKernel({
    ...WRITE,
    name: "write_nearby",
    scalars: ["width"],
    bindings: { ...WRITE.bindings, ...nearbyBindings },
    declarations: WRITE.declarations + NEARBY,
    body: writeBody(isNearby),
  }),
};
