/**
 * Sparse rows times a dense matrix (SpMM): a CSR factor on the left.
 *
 * Every sum is one f32 accumulator in ascending order by explicit `fma()`, so the result has the bits of the dense product
 * that skips the zeros.
 *
 * @module
 */

import type { Csr } from "./csr.ts";
import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { columnGroups, columnsOfLane, everyColumn, MAX_TERMS, perRowShare } from "./row_share.ts";

/** Arguments of {@link spmm}. */
export interface SpmmArguments {
  /** The sparse factor. */
  readonly sparse: Csr;
  /** First row of the sparse factor. */
  readonly firstRow: number;
  /** How many of its rows. */
  readonly rows: number;
  /** Some rows of the dense factor, [to − from, columns]. */
  readonly matrix: Bindable;
  /** First of these rows; entries with indices outside them are left out. */
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
  /** Whether the sums continue from the last part of `result`, because rows before `from` have been added. */
  readonly accumulate: boolean;
}

/**
 * result[r, p] = Σ over the entries of row r with index < ends[p] of value · matrix[index].
 *
 * The parts of a row share one running sum, so several cost little more than one.
 */
export function spmm(commands: Commands, given: SpmmArguments): void {
  const { sparse, firstRow, rows, matrix, from, to, columns, ends, parts, result, accumulate } = given;
  const kernel = spmmKernel(columns, commands.context);
  // A row has no more entries than it has columns, and no more than there are at all.
  const most = sparse.capacity <= MAX_TERMS ? to - from : MAX_TERMS;
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

const spmmKernel = perRowShare((share) =>
  defineKernel({
    name: "spmm",
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
      indices: readsOften("u32", "capacity"),
      values: readsOften("f32", "capacity"),
      matrix: readsOften(share.element, "extent columns"),
      ends: reads("u32", "parts"),
      result: writes(share.element, "rows parts columns"),
    },
    workgroup: share.lanes,
    grid: ({ rows, columns }) => rows * columnGroups(columns, share),
    cost: ({ rows, columns, parts, capacity, allRows }) => ({
      flops: 2 * columns * capacity * (rows / allRows),
      bytes: 4 * columns * (capacity * (rows / allRows) + rows * parts),
    }),
    body: `${columnsOfLane(share)}
  ${everyColumn(share, (c) => `var sum${c} = ${share.element}(0.0);`)}
  if (dims.accumulate == 1u) {
    let last = (row * dims.parts + dims.parts - 1u) * loads + first;
    ${everyColumn(share, (c, offset) => `sum${c} = result[last + ${offset}];`)}
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
      let value = ${share.element}(values[entry]);
      let at = (index - dims.boundFrom) * loads + first;
      ${everyColumn(share, (c, offset) => `sum${c} = fma(value, matrix[at + ${offset}], sum${c});`)}
    }
    let at = (row * dims.parts + part) * loads + first;
    ${everyColumn(share, (c, offset) => `if (first + ${offset} < loads) { result[at + ${offset}] = sum${c}; }`)}
  }`,
  })
);
