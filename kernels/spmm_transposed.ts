/**
 * A transposed sparse matrix times a dense one, and the sums of its columns: the entries of each column as CSC lists them.
 *
 * Every sum is one f32 accumulator in ascending order by explicit `fma()`, so the result has the bits of the dense product
 * that skips the zeros.
 *
 * @module
 */

import type { Csc } from "./csr.ts";
import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { spans } from "./engine/tensor.ts";
import { columnGroups, columnsOfLane, everyColumn, MAX_TERMS, perRowShare, type RowShare } from "./row_share.ts";

/** Arguments of {@link spmmTransposed}. */
export interface SpmmTransposedArguments {
  /** The transposed sparse factor. */
  readonly sparse: Csc;
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
export function spmmTransposed(commands: Commands, given: SpmmTransposedArguments): void {
  const { sparse, entryRows, values, firstRow, rows, matrix, parts, ends, from, to, columns, result, accumulate } =
    given;
  const kernel = spmmTransposedKernel(columns, commands.context);
  for (const span of spans(rows, MAX_TERMS)) {
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
      allRows: sparse.rows,
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

/** WGSL: the entries of `column` whose rows are bound, as `entry` … `end`: rows ascend, so they are neighbours. */
const entriesOfColumn = `
  var entry = starts[column];
  var end = starts[column + 1u];
  if (dims.rows < dims.allRows) {
    for (var above = end; entry < above;) {
      let middle = (entry + above) / 2u;
      if (entryRows[entries[middle]] < dims.firstRow) { entry = middle + 1u; } else { above = middle; }
    }
    for (var below = entry; below < end;) {
      let middle = (below + end) / 2u;
      if (entryRows[entries[middle]] - dims.firstRow < dims.rows) { below = middle + 1u; } else { end = middle; }
    }
  }`;

/**
 * WGSL: `statement` for the `entry_row` and the `value` of each entry from `entry` to `end`, of which there is at least one.
 * Lists are short, and a software driver runs the body of a loop that tests first once too often. The lanes of a subgroup of
 * eight load eight entries together and broadcast them to each other.
 */
function everyEntry({ subgroups }: RowShare, statement: string): string {
  if (subgroups === undefined) {
    return `loop {
      let e = entries[entry];
      let entry_row = entryRows[e];
      let value = values[e];
      ${statement}
      continuing {
        entry += 1u;
        break if entry >= end;
      }
    }`;
  }
  return `loop {
      let own = entries[min(entry + lane, end - 1u)];
      let own_row = entryRows[own];
      let own_value = values[own];
      let together = min(end - entry, 8u);
      var other = 0u;
      loop {
        let entry_row = subgroupShuffle(own_row, other);
        let value = subgroupShuffle(own_value, other);
        ${statement}
        continuing {
          other += 1u;
          break if other >= together;
        }
      }
      continuing {
        entry += 8u;
        break if entry >= end;
      }
    }`;
}

const spmmTransposedKernel = perRowShare((share) =>
  defineKernel({
    name: "spmm_transposed",
    directives: share.subgroups ?? "",
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
      "allRows",
      "allColumns",
      "capacity",
    ],
    bindings: {
      starts: reads("u32", "allColumns+1"),
      entries: readsOften("u32", "capacity"),
      entryRows: readsOften("u32", "capacity"),
      values: readsOften("f32", "capacity"),
      matrix: readsOften(share.element, "boundRows parts columns"),
      ends: reads("u32", "parts"),
      result: writes(share.element, "extent columns"),
    },
    workgroup: share.lanes,
    grid: ({ extent, columns }) => extent * columnGroups(columns, share),
    cost: ({ columns, capacity, extent }) => ({
      flops: 2 * columns * capacity,
      bytes: 4 * columns * (capacity + extent),
    }),
    body: `${columnsOfLane(share)}
  let column = dims.begin + row;
  ${entriesOfColumn}
  if (dims.accumulate == 1u && entry == end) { return; }
  var part = 0u;
  for (; part + 1u < dims.parts; part += 1u) { if (column < ends[part]) { break; } }
  ${everyColumn(share, (c) => `var sum${c} = ${share.element}(0.0);`)}
  if (dims.accumulate == 1u) {
    ${everyColumn(share, (c, offset) => `sum${c} = result[row * loads + first + ${offset}];`)}
  }
  if (entry < end) {
    ${
      everyEntry(
        share,
        `let at = ((entry_row - dims.boundRow) * dims.parts + part) * loads + first;
      ${
          everyColumn(
            share,
            (c, offset) => `sum${c} = fma(${share.element}(value), matrix[at + ${offset}], sum${c});`,
          )
        }`,
      )
    }
  }
  ${
      everyColumn(
        share,
        (c, offset) => `if (first + ${offset} < loads) { result[row * loads + first + ${offset}] = sum${c}; }`,
      )
    }`,
  })
);

/** Arguments of {@link sparseColumnSums}. */
export interface SparseColumnSumsArguments {
  /** The transposed sparse matrix. */
  readonly sparse: Csc;
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
  for (const span of spans(rows, MAX_TERMS)) {
    commands.run(sparseColumnSumsKernel, {
      rows: span.to - span.from,
      firstRow: firstRow + span.from,
      accumulate: Number(accumulate || span.from > 0),
      allRows: sparse.rows,
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
  dims: ["rows", "firstRow", "accumulate", "allRows", "allColumns", "capacity"],
  bindings: {
    starts: reads("u32", "allColumns+1"),
    entries: readsOften("u32", "capacity"),
    entryRows: readsOften("u32", "capacity"),
    values: readsOften("f32", "capacity"),
    result: writes("f32", "allColumns"),
  },
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
