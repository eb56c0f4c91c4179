/**
 * Rows of a matrix that a list on the GPU names: gathered, and scattered back; and sparse rows written out over the
 * listed columns.
 *
 * Only the first `count[0]` numbers of a list are valid, and only the GPU knows how many these are.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { perVectorWidth, type VectorWidth } from "./engine/vector_width.ts";
import type { Csr } from "./csr.ts";

/** Arguments of {@link gatherRows} and {@link scatterRows}. */
export interface ListedRowsArguments {
  /** Some rows of the matrix, [to − from, columns]. */
  readonly matrix: Bindable;
  /** First of these rows; listed rows outside them are left alone. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Columns. */
  readonly columns: number;
  /** [listSize], row numbers. */
  readonly list: Bindable;
  /** Size of the list. */
  readonly listSize: number;
  /** [1], how many of its numbers are valid. */
  readonly count: Bindable;
  /** [most, columns], the listed rows in order. */
  readonly packed: Bindable;
  /** The most rows that can be listed. */
  readonly most: number;
}

/** packed[j] = matrix[list[j]] for j < count. */
export function gatherRows(commands: Commands, given: ListedRowsArguments): void {
  run(commands, given, gatherKernel);
}

/** matrix[list[j]] = packed[j] for j < count. */
export function scatterRows(commands: Commands, given: ListedRowsArguments): void {
  run(commands, given, scatterKernel);
}

function run(commands: Commands, given: ListedRowsArguments, kernelOf: typeof gatherKernel): void {
  const { matrix, from, to, columns, list, listSize, count, packed, most } = given;
  const sizes = { first: from, extent: to - from, columns, listSize, most };
  commands.run(kernelOf(columns), { ...sizes, matrix, list, count, packed });
}

const declareListedRows = (name: "gather" | "scatter", { element, scalars }: VectorWidth) =>
  defineKernel({
    name: `${name}_rows`,
    dims: ["first", "extent", "columns", "listSize", "most"],
    bindings: {
      matrix: (name === "gather" ? reads : writes)(element, "extent columns"),
      list: reads("u32", "listSize"),
      count: reads("u32", "1"),
      packed: (name === "gather" ? writes : reads)(element, "most columns"),
    },
    workgroup: 8,
    grid: ({ most }) => most,
    cost: ({ most, columns }) => ({ flops: 0, bytes: 8 * most * columns }),
    body: `
  if (group >= count[0]) { return; }
  let row = list[group];
  // For rows before the first, the difference wraps around.
  if (row - dims.first >= dims.extent) { return; }
  let loads = dims.columns / ${scalars}u;
  for (var c = lane; c < loads; c += 8u) {
    ${
      name === "gather"
        ? "packed[group * loads + c] = matrix[(row - dims.first) * loads + c];"
        : "matrix[(row - dims.first) * loads + c] = packed[group * loads + c];"
    }
  }`,
  });
const gatherKernel = perVectorWidth((width) => declareListedRows("gather", width));
const scatterKernel = perVectorWidth((width) => declareListedRows("scatter", width));

/** Arguments of {@link spreadEntries} and {@link keepEntries}. */
export interface SpreadEntriesArguments {
  /** The sparse rows; every index is listed. */
  readonly sparse: Csr;
  /** First row. */
  readonly firstRow: number;
  /** How many rows. */
  readonly rows: number;
  /** [placesSize], the place of each listed index in the list. */
  readonly places: Bindable;
  /** Size of `places`. */
  readonly placesSize: number;
  /** [1], how many columns of the result are listed; with 0 nothing is written. */
  readonly count: Bindable;
  /** Elements from one row of the result to the next. */
  readonly stride: number;
  /** [rows, stride] */
  readonly dense: Bindable;
}

/** dense[r, places[index]] = value for the entries of row r, and 0 in the other listed columns. */
export function spreadEntries(commands: Commands, given: SpreadEntriesArguments): void {
  const { sparse, firstRow, rows, places, placesSize, count, stride, dense } = given;
  const { starts, indices, values, rows: allRows, capacity } = sparse;
  const sizes = { rows, firstRow, allRows, capacity, placesSize, stride };
  commands.run(spreadKernel, { ...sizes, starts, indices, values, places, count, dense });
}

const spreadKernel = defineKernel({
  name: "spread_entries",
  dims: ["rows", "firstRow", "allRows", "capacity", "placesSize", "stride"],
  bindings: {
    starts: reads("u32", "allRows+1"),
    indices: readsOften("u32", "capacity"),
    values: readsOften("f32", "capacity"),
    places: reads("u32", "placesSize"),
    count: reads("u32", "1"),
    dense: writes("f32", "rows stride"),
  },
  workgroup: 64,
  grid: ({ rows }) => rows,
  cost: ({ rows, stride }) => ({ flops: 0, bytes: 16 * rows * stride }),
  body: `
  let columns = count[0];
  if (columns == 0u) { return; }
  let first = group * dims.stride;
  for (var c = lane; c < columns; c += 64u) { dense[first + c] = 0.0; }
  storageBarrier();
  let end = starts[dims.firstRow + group + 1u];
  for (var entry = starts[dims.firstRow + group] + lane; entry < end; entry += 64u) {
    dense[first + places[indices[entry]]] = values[entry];
  }`,
});

/** Sets the listed columns of `dense` to 0 except where the entries are. */
export function keepEntries(commands: Commands, given: SpreadEntriesArguments): void {
  const { sparse, firstRow, rows, places, placesSize, count, stride, dense } = given;
  const { starts, indices, rows: allRows, capacity } = sparse;
  const sizes = { rows, firstRow, allRows, capacity, placesSize, stride };
  commands.run(keepKernel, { ...sizes, starts, indices, places, count, dense });
}

const keepKernel = defineKernel({
  name: "keep_entries",
  dims: ["rows", "firstRow", "allRows", "capacity", "placesSize", "stride"],
  bindings: {
    starts: reads("u32", "allRows+1"),
    indices: readsOften("u32", "capacity"),
    places: reads("u32", "placesSize"),
    count: reads("u32", "1"),
    dense: writes("f32", "rows stride"),
  },
  workgroup: 64,
  grid: ({ rows }) => rows,
  cost: ({ rows, stride }) => ({ flops: 0, bytes: 12 * rows * stride }),
  body: `
  let columns = count[0];
  let entries = starts[dims.firstRow + group];
  let n_entries = starts[dims.firstRow + group + 1u] - entries;
  if (columns <= n_entries) { return; }
  let first = group * dims.stride;
  for (var c = lane; c < columns; c += 64u) {
    // Whether c is among the entries' places, which ascend.
    var low = 0u;
    for (var high = n_entries; low < high;) {
      let middle = (low + high) / 2u;
      if (places[indices[entries + middle]] < c) { low = middle + 1u; } else { high = middle; }
    }
    if (low == n_entries || places[indices[entries + low]] != c) { dense[first + c] = 0.0; }
  }`,
});
