/**
 * Products with a sparse factor, given as rows of (index, value) pairs: compressed sparse rows.
 *
 * `starts[r] … starts[r+1]` are the entries of row r, their indices ascending. Every sum is one f32 accumulator in
 * ascending order by explicit `fma()`, so the result has the bits of the dense product that skips the zeros.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import type { DeviceContext } from "./engine/device.ts";
import { type Binding, defineKernel, type Kernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { spans } from "./engine/tensor.ts";

/** A sparse matrix on the GPU. */
export interface Csr {
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
 * Terms of a sum in one dispatch; longer sums go on in the next. A software driver silently ends an invocation's loops
 * after 65,535 turns in all, which are one for every term, two for every eight where lanes bring them together, and the
 * few of bisections and of parts.
 */
const MAX_TERMS = 50000;

/**
 * The most columns that one invocation of the row kernels owns, in units of a load. Every load of an entry's place and
 * value is shared by all of them. A software driver keeps them in its cache, a GPU in registers.
 */
const MAX_UNROLL = { software: 24, gpu: 8 };

/** How kernels over [rows, columns] share out a row: four neighbours a load where rows are aligned. */
interface Width {
  readonly element: "f32" | "vec4f";
  readonly scalars: 1 | 4;
}

function widthOf(columns: number): Width {
  return columns % 4 === 0 ? { element: "vec4f", scalars: 4 } : { element: "f32", scalars: 1 };
}

/** How the columns of a row are shared out among workgroups. */
interface Share extends Width {
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Columns that each owns, in units of a load. */
  readonly unroll: number;
  /** What a kernel with subgroups of eight says first; `undefined` for one without. */
  readonly subgroups: string | undefined;
}

/** As few workgroups a row as may be, and as few columns an invocation as that takes: one, two, or a multiple of four. */
function shareOf(columns: number, { lanes, subgroups }: DeviceContext): Share {
  const width = widthOf(columns);
  const each = Math.ceil(columns / width.scalars / lanes);
  const groups = Math.ceil(each / (lanes === 8 ? MAX_UNROLL.software : MAX_UNROLL.gpu));
  const own = Math.ceil(each / groups);
  return { ...width, lanes, subgroups, unroll: own <= 2 ? own : 4 * Math.ceil(own / 4) };
}

/** How many workgroups share the columns of a row. */
function columnGroups(columns: number, { scalars, lanes, unroll }: Share): number {
  return Math.ceil(columns / scalars / (lanes * unroll));
}

/** One kernel for each way to share out a row, declared on first use. */
function perShare<D extends string, B extends string>(
  declare: (share: Share) => Kernel<D, never, B>,
): (columns: number, context: DeviceContext) => Kernel<D, never, B> {
  const made = new Map<string, Kernel<D, never, B>>();
  return (columns, context) => {
    const share = shareOf(columns, context);
    const id = JSON.stringify(share);
    const kernel = made.get(id) ?? declare(share);
    made.set(id, kernel);
    return kernel;
  };
}

/**
 * WGSL: `statement` for each column that an invocation owns: which of them it is, and how far it lies behind `first`, in
 * units of a load. Columns past the end of a row are computed from what lies there, and not stored.
 */
function everyColumn({ lanes, unroll }: Share, statement: (c: number, offset: string) => string): string {
  return Array.from({ length: unroll }, (_, c) => statement(c, `${c * lanes}u`)).join("\n  ");
}

/** WGSL: the `row` of this invocation, its `loads`, and the `first` that it owns. */
const columnsOfLane = ({ scalars, lanes, unroll }: Share): string => `
  let loads = dims.columns / ${scalars}u;
  let groups_a_row = (loads + ${lanes * unroll - 1}u) / ${lanes * unroll}u;
  let row = group / groups_a_row;
  let first = (group % groups_a_row) * ${lanes * unroll}u + lane;`;

/** What {@link spmm} takes. */
export interface SpmmArguments {
  /** The sparse factor. */
  readonly sparse: Csr;
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

const spmmKernel = perShare((share) =>
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

/** What {@link sddmm} takes. */
export interface SddmmArguments {
  /** Which products are wanted: the entries' rows and indices. */
  readonly sparse: Csr;
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

/** Entries that one invocation of the sampled product takes: those of one row share its loads. */
const SAMPLES = 4;

/** Turns of one of its loops in a dispatch; an invocation may end up with neighbours in either of the two. */
const MAX_SAMPLED_TURNS = 20000;

/** result[e] = ⟨left[row of e, part of e], right[index of e]⟩: a dense product, only where the entries are. */
export function sddmm(commands: Commands, given: SddmmArguments): void {
  const { sparse, entryRows, firstRow, rows, left, parts, ends, right, from, to, columns, result } = given;
  const { element, scalars } = widthOf(columns);
  for (const terms of spans(columns / scalars, MAX_SAMPLED_TURNS)) {
    commands.run(sddmmKernels[element], {
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

const SAMPLED_THREADS = 64;

/** WGSL: `statement` for each entry of an invocation. */
const everySample = (statement: (sample: number) => string): string =>
  Array.from({ length: SAMPLES }, (_, e) => statement(e)).join("\n    ");

/** WGSL: the sum of entry `e` continues with one load of each factor. */
const addProduct = ({ scalars }: Width, e: number, x: string): string =>
  `{ let y = right[r${e} + c]; sum${e} = ${
    scalars === 1
      ? `fma(${x}, y, sum${e})`
      : `fma(${x}.w, y.w, fma(${x}.z, y.z, fma(${x}.y, y.y, fma(${x}.x, y.x, sum${e}))))`
  }; }`;

const declareSddmm = (width: Width) =>
  defineKernel({
    name: "sddmm",
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
      indices: readsOften("u32", "capacity"),
      entryRows: readsOften("u32", "capacity"),
      left: readsOften(width.element, "rows parts columns"),
      ends: reads("u32", "parts"),
      right: readsOften(width.element, "extent columns"),
      result: writes("f32", "capacity"),
    },
    workgroup: SAMPLED_THREADS,
    grid: ({ capacity }) => Math.ceil(capacity / (SAMPLES * SAMPLED_THREADS)),
    cost: ({ columns, capacity }) => ({ flops: 2 * columns * capacity, bytes: 8 * columns * capacity }),
    body: `
  let end = starts[dims.allRows];
  let entry0 = ${SAMPLES}u * (group * ${SAMPLED_THREADS}u + lane);
  if (entry0 >= end) { return; }
  let loads = dims.columns / ${width.scalars}u;
  ${
      everySample((e) => `
    ${e > 0 ? `let entry${e} = min(entry0 + ${e}u, end - 1u);` : ""}
    let row${e} = entryRows[entry${e}] - dims.firstRow;
    let index${e} = indices[entry${e}];
    var part${e} = 0u;
    for (; part${e} + 1u < dims.parts; part${e} += 1u) { if (index${e} < ends[part${e}]) { break; } }
    let l${e} = (min(row${e}, dims.rows - 1u) * dims.parts + part${e}) * loads;
    let r${e} = min(index${e} - dims.begin, dims.extent - 1u) * loads;
    let wanted${e} = entry0 + ${e}u < end && row${e} < dims.rows && index${e} - dims.begin < dims.extent;
    var sum${e} = 0.0;`)
    }
  if (!(${Array.from({ length: SAMPLES }, (_, e) => `wanted${e}`).join(" || ")})) { return; }
  if (dims.firstLoad > 0u) {
    ${everySample((e) => `sum${e} = result[entry${e}];`)}
  }
  // Entries ascend by row and part, so that those between two equal ones are equal too.
  if (row0 == row${SAMPLES - 1} && part0 == part${SAMPLES - 1}) {
    for (var c = dims.firstLoad; c < dims.endLoad; c += 1u) {
      let x = left[l0 + c];
      ${everySample((e) => addProduct(width, e, "x"))}
    }
  } else {
    for (var c = dims.firstLoad; c < dims.endLoad; c += 1u) {
      ${everySample((e) => `let x${e} = left[l${e} + c];\n    ${addProduct(width, e, `x${e}`)}`)}
    }
  }
  ${everySample((e) => `if (wanted${e}) { result[entry${e}] = sum${e}; }`)}`,
  });
const sddmmKernels = {
  f32: declareSddmm({ element: "f32", scalars: 1 }),
  vec4f: declareSddmm({ element: "vec4f", scalars: 4 }),
};

/** The entries of a sparse matrix by column: {@link transposeEntries} makes it. */
export interface Csc {
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Size of `entries`. */
  readonly capacity: number;
  /** [columns + 1] */
  readonly starts: Bindable;
  /** [capacity], entry numbers, ascending within a column. */
  readonly entries: Bindable;
}

/** What {@link spmmTransposed} takes. */
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

/** WGSL: the entries of `column` whose rows are bound, as \`entry\` … \`end\` (rows ascend, so they are neighbours). */
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
 * WGSL: \`statement\` for the \`row\` and the \`value\` of each entry of a list from \`entry\` to \`end\`, of which there is one.
 * Lists are short, and a software driver runs the body of a loop that tests first once too often. The lanes of a
 * subgroup of eight bring as many entries together, and tell each other of them.
 */
function everyEntry({ subgroups }: Share, statement: string): string {
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

const spmmTransposedKernel = perShare((share) =>
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

/** What {@link sparseColumnSums} takes. */
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

/** What {@link csrToDense} takes. */
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

/** The sparse rows written out, zeros included. */
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
