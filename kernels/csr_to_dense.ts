/**
 * Sparse rows written out, zeros included.
 *
 * @module
 */

import type { Csr } from "./csr.ts";
import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";

/** Arguments of {@link csrToDense}. */
export interface CsrToDenseArguments {
  /** The sparse matrix. */
  readonly sparse: Csr;
  /** First row. */
  readonly firstRow: number;
  /** How many rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** [rows, columns] */
  readonly result: Bindable;
}

/** result[r, c] = the entry of row firstRow + r at column c, and 0 where there is none. */
export function csrToDense(commands: Commands, given: CsrToDenseArguments): void {
  const { sparse, firstRow, rows, columns, result } = given;
  commands.run(csrToDenseKernel, {
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

const csrToDenseKernel = defineKernel({
  name: "csr_to_dense",
  dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
  bindings: {
    starts: reads("u32", "allRows+1"),
    indices: readsOften("u32", "capacity"),
    values: readsOften("f32", "capacity"),
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
