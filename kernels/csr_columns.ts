/**
 * Selected columns of sparse rows, each mapped by an affine function.
 *
 * `result[r, m] = factors[m] · x[r, columns[m]] + addends[m]`, where x [rows, ·] is sparse: an element without an entry
 * is 0. Indices ascend in each row, so each is found by bisection.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import type { Csr } from "./csr.ts";

/** Arguments of {@link csrColumns}. */
export interface CsrColumnsArguments {
  /** x: the indices of each row ascend. */
  readonly sparse: Csr;
  /** M */
  readonly listed: number;
  /** [M] of u32, in any order. */
  readonly columns: Bindable;
  /** [M] */
  readonly factors: Bindable;
  /** [M] */
  readonly addends: Bindable;
  /** [rows, M] */
  readonly result: Bindable;
}

/** result[r, m] = factors[m] · x[r, columns[m]] + addends[m]. */
export function csrColumns(commands: Commands, given: CsrColumnsArguments): void {
  const { sparse: { rows, capacity, starts, indices, values }, ...shared } = given;
  commands.run(csrColumnsKernel, { ...shared, rows, capacity, starts, indices, values });
}

const THREADS = 64;

const csrColumnsKernel = defineKernel({
  name: "csr_columns",
  dims: ["rows", "capacity", "listed"],
  bindings: {
    starts: reads("u32", "rows+1"),
    indices: readsOften("u32", "capacity"),
    values: reads("f32", "capacity"),
    columns: reads("u32", "listed"),
    factors: reads("f32", "listed"),
    addends: reads("f32", "listed"),
    result: writes("f32", "rows listed"),
  },
  workgroup: THREADS,
  grid: ({ rows, listed }) => Math.ceil((rows * listed) / THREADS),
  cost: ({ rows, listed }) => ({ flops: 2 * rows * listed, bytes: 12 * rows * listed }),
  body: `
  let at = group * ${THREADS}u + lane;
  if (at < dims.rows * dims.listed) {
    let row = at / dims.listed;
    let m = at % dims.listed;
    let column = columns[m];
    var low = starts[row];
    var high = starts[row + 1u];
    while (low < high) {
      let middle = low + (high - low) / 2u;
      if (indices[middle] < column) { low = middle + 1u; } else { high = middle; }
    }
    var value = 0.0;
    if (low < starts[row + 1u] && indices[low] == column) { value = values[low]; }
    result[at] = fma(factors[m], value, addends[m]);
  }`,
});
