/**
 * The entries of a sparse matrix listed by column: a counting sort whose result never depends on timing.
 *
 * The entries of a column are first placed in any order. In a column of few entries, the number of lower entries gives
 * each its place; a column of many marks its rows in a bit set and counts the marks before each entry's row.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import { defineKernel, type Kernel, reads, readsAcross, readsOften, writes } from "./engine/kernel.ts";
import type { Csc, Csr } from "./csr.ts";
import { Tensor } from "./engine/tensor.ts";
import { sumBeforeWgsl } from "./engine/wgsl.ts";
import type { DeviceContext } from "./engine/device.ts";

/** The most rows: with more, loops could exceed the 65,535 turns at which a software driver ends them. */
export const MAX_ROWS = 262144;
/** Rows whose bits fit the workgroup's memory at once. */
const ROWS_AT_ONCE = 32768;
const THREADS = 64;
/**
 * Entries of a workgroup: several for each invocation, so that a matrix with far fewer entries than its capacity has
 * few workgroups.
 */
const ENTRIES = 4 * THREADS;
/** Invocations that scan the counts, a range each. */
const SCANNERS = 256;

/** Up to this many entries of a column, each is compared with all others; a column with more has a workgroup. */
const FEW = 32;

/** Lists the entries of sparse matrices of one shape by column: its buffers and results. */
export class Transposition implements Disposable {
  readonly #rows: number;
  readonly #counts: Tensor<"u32">;
  readonly #unordered: Tensor<"u32">;
  readonly #starts: Tensor<"u32">;
  readonly #entries: Tensor<"u32">;
  /** The columns of many entries, in any order, and how many there are. */
  readonly #many: { readonly list: Tensor<"u32">; readonly count: Tensor<"u32"> };
  /** [capacity], the row of each entry. */
  readonly entryRows: Tensor<"u32">;
  /** The result. */
  readonly columns: Csc;

  /**
   * For matrices of `rows` × `columns` with up to `capacity` entries.
   *
   * @throws {RangeError} for more than 262,144 rows.
   */
  constructor(context: DeviceContext, rows: number, columns: number, capacity: number, label: string) {
    if (rows > MAX_ROWS) throw new RangeError(`${label} must have at most ${MAX_ROWS} rows, found ${rows}`);
    const make = (size: number, name: string) => new Tensor(context, "u32", [size], `${label}: ${name}`);
    this.#rows = rows;
    this.#counts = make(columns, "entries a column");
    this.#unordered = make(capacity, "unordered entries");
    this.#starts = make(columns + 1, "column starts");
    this.#entries = make(capacity, "entries by column");
    this.#many = {
      list: make(Math.min(columns, Math.floor(capacity / (FEW + 1))), "columns of many entries"),
      count: make(1, "number of columns of many entries"),
    };
    this.entryRows = make(capacity, "row of each entry");
    this.columns = { rows, columns, capacity, starts: this.#starts, entries: this.#entries };
  }

  /** Lists `sparse` by column. */
  transpose(commands: Commands, sparse: Csr): void {
    const { columns, capacity } = this.columns;
    const rows = this.#rows;
    const counts = this.#counts;
    const { starts: row_starts, indices } = sparse;
    const { list: many, count: manyCount } = this.#many;
    commands.run(countKernel, {
      rows,
      columns,
      capacity,
      row_starts,
      indices,
      counts,
      entryRows: this.entryRows,
      manyCount,
    });
    commands.run(scanKernel, { n: columns, counts, starts: this.#starts });
    commands.run(placeKernel, {
      rows,
      columns,
      capacity,
      row_starts,
      indices,
      starts: this.#starts,
      counts,
      unordered: this.#unordered,
    });
    const shared = { columns, capacity, starts: this.#starts, unordered: this.#unordered, entries: this.#entries };
    commands.run(orderFewKernel, { ...shared, listSize: many.size, indices, many, manyCount });
    commands.run(
      orderManyKernel(commands.context, rows),
      { ...shared, rows, listSize: many.size, entryRows: this.entryRows, many, manyCount },
      { count: manyCount, per: 1, times: 1 },
    );
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    const { list, count } = this.#many;
    for (const tensor of [this.#counts, this.#unordered, this.#starts, this.#entries, list, count, this.entryRows]) {
      tensor[Symbol.dispose]();
    }
  }
}

/**
 * Finds the row of each entry by bisection of the row starts, counts entries a column, and resets the count of columns
 * of many.
 */
const countKernel = defineKernel({
  name: "count_entries",
  dims: ["rows", "columns", "capacity"],
  bindings: {
    row_starts: readsAcross("u32", "rows+1", "capacity"),
    indices: readsOften("u32", "capacity"),
    counts: writes("atomic<u32>", "columns"),
    entryRows: writes("u32", "capacity"),
    manyCount: writes("u32", "1"),
  },
  workgroup: THREADS,
  grid: ({ capacity }) => Math.ceil(capacity / ENTRIES),
  cost: ({ capacity }) => ({ flops: 0, bytes: 16 * capacity }),
  body: `
  if (group == 0u && lane == 0u) { manyCount[0] = 0u; }
  let end = min((group + 1u) * ${ENTRIES}u, row_starts[dims.rows]);
  for (var entry = group * ${ENTRIES}u + lane; entry < end; entry += ${THREADS}u) {
    var row = 0u;
    for (var above = dims.rows; row + 1u < above;) {
      let middle = (row + above) / 2u;
      if (row_starts[middle] <= entry) { row = middle; } else { above = middle; }
    }
    entryRows[entry] = row;
    atomicAdd(&counts[indices[entry]], 1u);
  }`,
});

/** starts[i] = Σ of counts before i, for i = 0 … n. */
export const scanKernel: Kernel<"n", never, "counts" | "starts"> = defineKernel({
  name: "scan",
  dims: ["n"],
  bindings: { counts: reads("u32", "n"), starts: writes("u32", "n+1") },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: ({ n }) => ({ flops: 0, bytes: 12 * n }),
  declarations: sumBeforeWgsl(SCANNERS),
  body: `
  let stretch = (dims.n + ${SCANNERS - 1}u) / ${SCANNERS}u;
  let low = min(lane * stretch, dims.n);
  let high = min(low + stretch, dims.n);
  var sum = 0u;
  for (var i = low; i < high; i += 1u) { sum += counts[i]; }
  sum = sum_before(lane, sum);
  for (var i = low; i < high; i += 1u) {
    starts[i] = sum;
    sum += counts[i];
  }
  if (lane == ${SCANNERS - 1}u) { starts[dims.n] = sum; }`,
});

/** Places every entry somewhere in its column's range; the counts are 0 again afterwards. */
const placeKernel = defineKernel({
  name: "place_entries",
  dims: ["rows", "columns", "capacity"],
  bindings: {
    row_starts: reads("u32", "rows+1"),
    indices: readsOften("u32", "capacity"),
    starts: readsAcross("u32", "columns+1", "capacity"),
    counts: writes("atomic<u32>", "columns"),
    unordered: writes("u32", "capacity"),
  },
  workgroup: THREADS,
  grid: ({ capacity }) => Math.ceil(capacity / ENTRIES),
  cost: ({ capacity }) => ({ flops: 0, bytes: 16 * capacity }),
  body: `
  let end = min((group + 1u) * ${ENTRIES}u, row_starts[dims.rows]);
  for (var entry = group * ${ENTRIES}u + lane; entry < end; entry += ${THREADS}u) {
    let column = indices[entry];
    unordered[starts[column] + atomicSub(&counts[column], 1u) - 1u] = entry;
  }`,
});

/** One invocation an entry: places the entries of columns of few, and lists the other columns. */
const orderFewKernel = defineKernel({
  name: "order_entries",
  dims: ["columns", "capacity", "listSize"],
  bindings: {
    indices: readsOften("u32", "capacity"),
    starts: readsAcross("u32", "columns+1", "capacity"),
    unordered: readsOften("u32", "capacity"),
    entries: writes("u32", "capacity"),
    many: writes("u32", "listSize"),
    manyCount: writes("atomic<u32>", "1"),
  },
  workgroup: THREADS,
  grid: ({ capacity }) => Math.ceil(capacity / ENTRIES),
  cost: ({ capacity }) => ({ flops: 0, bytes: 16 * capacity }),
  body: `
  let end = min((group + 1u) * ${ENTRIES}u, starts[dims.columns]);
  for (var i = group * ${ENTRIES}u + lane; i < end; i += ${THREADS}u) {
    let entry = unordered[i];
    let column = indices[entry];
    let first_entry = starts[column];
    let end_entry = starts[column + 1u];
    let is_few = end_entry - first_entry <= ${FEW}u;
    if (!is_few && i == first_entry) { many[atomicAdd(&manyCount[0], 1u)] = column; }
    var lower = 0u;
    for (var o = first_entry; o < select(first_entry, end_entry, is_few); o += 1u) {
      lower += u32(unordered[o] < entry);
    }
    if (is_few) { entries[first_entry + lower] = entry; }
  }`,
});

/** One workgroup a column of many: the place of an entry is the number of the column's rows before its own. */
const declareOrderMany = (threads: number) =>
  defineKernel({
    name: "order_many_entries",
    dims: ["rows", "columns", "capacity", "listSize"],
    bindings: {
      starts: reads("u32", "columns+1"),
      entryRows: readsOften("u32", "capacity"),
      unordered: readsOften("u32", "capacity"),
      entries: writes("u32", "capacity"),
      many: reads("u32", "listSize"),
      manyCount: reads("u32", "1"),
    },
    workgroup: threads,
    grid: ({ listSize }) => listSize,
    cost: ({ rows, columns, capacity }) => ({ flops: 0, bytes: columns * (rows / 8) + 16 * capacity }),
    declarations: `
var<workgroup> marks: array<atomic<u32>, ${ROWS_AT_ONCE / 32}>;
var<workgroup> before: array<u32, ${ROWS_AT_ONCE / 32}>;
var<workgroup> sums: array<u32, ${threads}>;
`,
    body: `
  if (group >= manyCount[0]) { return; }
  let column = many[group];
  let first_entry = starts[column];
  let end_entry = starts[column + 1u];
  var placed = first_entry;
  for (var first = 0u; first < dims.rows; first += ${ROWS_AT_ONCE}u) {
    let words = (min(dims.rows - first, ${ROWS_AT_ONCE}u) + 31u) / 32u;
    for (var w = lane; w < words; w += ${threads}u) { atomicStore(&marks[w], 0u); }
    workgroupBarrier();
    for (var i = first_entry + lane; i < end_entry; i += ${threads}u) {
      let row = entryRows[unordered[i]] - first;
      if (row < ${ROWS_AT_ONCE}u) { atomicOr(&marks[row / 32u], 1u << (row % 32u)); }
    }
    workgroupBarrier();
    let stretch = (words + ${threads - 1}u) / ${threads}u;
    let low = min(lane * stretch, words);
    let high = min(low + stretch, words);
    var sum = 0u;
    for (var w = low; w < high; w += 1u) {
      before[w] = sum;
      sum += countOneBits(atomicLoad(&marks[w]));
    }
    sums[lane] = sum;
    workgroupBarrier();
    var earlier = 0u;
    var all = 0u;
    for (var i = 0u; i < ${threads}u; i += 1u) {
      earlier += select(0u, sums[i], i < lane);
      all += sums[i];
    }
    for (var w = low; w < high; w += 1u) { before[w] += earlier; }
    workgroupBarrier();
    for (var i = first_entry + lane; i < end_entry; i += ${threads}u) {
      let entry = unordered[i];
      let row = entryRows[entry] - first;
      if (row < ${ROWS_AT_ONCE}u) {
        let word = atomicLoad(&marks[row / 32u]);
        let lower = countOneBits(word & ((1u << (row % 32u)) - 1u));
        entries[placed + before[row / 32u] + lower] = entry;
      }
    }
    placed += all;
    workgroupBarrier();
  }`,
  });

/**
 * One SIMD vector a column on a CPU, where barriers and idle lanes are slow; more for tall matrices, to keep loops
 * short.
 */
const orderManyKernels = { narrow: declareOrderMany(8), wide: declareOrderMany(64), tall: declareOrderMany(256) };

function orderManyKernel({ lanes }: DeviceContext, rows: number): typeof orderManyKernels.wide {
  if (rows > ROWS_AT_ONCE) return orderManyKernels.tall;
  return lanes === 8 ? orderManyKernels.narrow : orderManyKernels.wide;
}
