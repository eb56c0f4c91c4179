/**
 * The k largest values of a whole matrix, exactly and without a sort, as sparse rows with k entries in all.
 *
 * Values compare as in `top_k.ts`; among equal values the first in row-major order win. One row may hold all entries.
 *
 * The matrix is never stored whole: it arrives some rows at a time, with the maxima of neighbouring columns. If k of
 * the maxima seen so far reach a bound, so does the k-th largest value; only the values that reach the bound become
 * candidates, a few times k. A radix select among the candidates finds the k-th key and how many values equal to it are
 * kept; then every row writes its own entries in ascending order. If the candidates do not fit (many equal values, or
 * rows whose values keep growing), the matrix is computed again, once for each digit of the key and once to write the
 * result; otherwise none of that runs.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import type { DeviceContext } from "./engine/device.ts";
import { fill } from "./elementwise.ts";
import { type Binding, defineKernel, reads, readsOften, readsOnce, writes } from "./engine/kernel.ts";
import { MAXIMA_COLUMNS } from "./matmul_tiles.ts";
import { Tensor } from "./engine/tensor.ts";
import { KEY_WGSL } from "./engine/wgsl.ts";

const THREADS = 64;
const SCANNERS = 256;
/** Keys are compared digit by digit from the top: 13 bits, 13 bits, 6 bits. */
const SHIFTS = [19, 6, 0] as const;
const BINS = 8192;
/** Values of a tile that one invocation reads. */
const VALUES_EACH = 16;
/** Columns up to which eight invocations share a row: a software driver ends loops at 65,535 turns. */
const MAX_NARROW = 65536;
/** Capacity for candidates, as a multiple of k. Rows in random order have about four times k. */
const CANDIDATES = 8;

/** Some rows of the matrix. */
export interface MatrixRows {
  /** [≥ rows, columns] */
  readonly values: Tensor;
  /** [⌈columns / {@link MAXIMA_COLUMNS}⌉, ≥ rows], the largest key of neighbouring columns. */
  readonly maxima: Tensor<"u32">;
  /** First row. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
}

/** What to select, and where the results go. */
export interface BatchTopKArguments {
  /** How many values to keep: at most the number of elements, `capacity`, and the k of the constructor. */
  readonly k: number;
  /** Size of `indices` and `selected`. */
  readonly capacity: number;
  /** [rows + 1] */
  readonly starts: Tensor<"u32">;
  /** [capacity] */
  readonly indices: Tensor<"u32">;
  /** [capacity] */
  readonly selected: Tensor;
  /**
   * Records the kernels that compute the rows, in order, and calls `use` after each block; every call must give the
   * same rows.
   */
  readonly forEach: (use: (rows: MatrixRows) => void) => void;
}

/** How many rows a block should have, so that the first block has enough maxima for a bound. */
export function batchTopKRows(rows: number, columns: number, k: number): number {
  return Math.min(rows, 64 * Math.ceil(2 * MAXIMA_COLUMNS * k / columns / 64));
}

/** Buffers of the selection for matrices of one shape. */
export class BatchTopK implements Disposable {
  readonly #rows: number;
  readonly #columns: number;
  readonly #capacity: number;
  readonly #histogram: Tensor<"u32">;
  readonly #bound: Tensor<"u32">;
  readonly #found: Tensor<"u32">;
  readonly #collected: Tensor<"u32">;
  readonly #overflow: Tensor<"u32">;
  readonly #everything: Tensor<"u32">;
  readonly #stretches: Tensor<"u32">;
  readonly #tallies: Tensor<"u32">;
  readonly #values: Tensor;
  readonly #places: Tensor<"u32">;
  readonly #owned: DisposableStack;

  /** For `rows` × `columns`, and up to `k` entries. */
  constructor(context: DeviceContext, rows: number, columns: number, k: number) {
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "u32", [size], label));
    this.#rows = rows;
    this.#columns = columns;
    const bindable = Math.floor((context.bindingLimit - 16) / 4) - context.guardWords;
    this.#capacity = Math.min(CANDIDATES * k, rows * columns, bindable);
    this.#histogram = make(BINS, "keys a digit");
    this.#bound = make(3, "bound of the k-th key");
    this.#found = make(3, "k-th key and its equals");
    this.#collected = make(1, "number of candidates");
    this.#overflow = make(1, "too many candidates");
    this.#everything = make(1, "no limit");
    this.#everything.write(Uint32Array.of(2 ** 32 - 1));
    this.#stretches = make(2 * rows, "candidates a row");
    this.#tallies = make(2 * rows, "larger and equal values a row");
    this.#values = stack.use(new Tensor(context, "f32", [this.#capacity], "candidates"));
    this.#places = make(this.#capacity, "columns of the candidates");
    this.#owned = stack.move();
  }

  /** Writes the `k` largest as sparse rows. */
  select(commands: Commands, given: BatchTopKArguments): void {
    this.#collect(commands, given);
    const stretches = { stretches: this.#stretches, places: this.#places };
    const candidates = { size: this.#capacity, values: this.#values };
    const counted = { count: this.#collected, per: THREADS * VALUES_EACH, times: 1 };
    for (const shift of SHIFTS) {
      fill(commands, this.#histogram, BINS, 0);
      commands.run(histogramKernel, {
        ...candidates,
        shift,
        limit: this.#collected,
        found: this.#found,
        histogram: this.#histogram,
      }, counted);
      this.#pick(commands, shift, given.k, this.#found);
    }
    const all = {
      firstRow: 0,
      rows: this.#rows,
      allRows: this.#rows,
      columns: this.#columns,
      found: this.#found,
      tallies: this.#tallies,
    };
    commands.run(countCandidatesKernel, { ...all, ...candidates, ...stretches });
    this.#writeStarts(commands, given, 0, this.#rows);
    const { capacity, starts, indices, selected } = given;
    commands.run(writeCandidatesKernel, { ...all, ...candidates, ...stretches, capacity, starts, indices, selected });
    commands.onlyIf(this.#overflow, () => this.#again(commands, given));
  }

  /** Collects the candidates of all rows: the values that reach the bound of the rows so far. */
  #collect(commands: Commands, { k, forEach }: BatchTopKArguments): void {
    const columns = this.#columns;
    fill(commands, this.#histogram, BINS, 0);
    fill(commands, this.#bound, 3, 0);
    fill(commands, this.#collected, 1, 0);
    fill(commands, this.#overflow, 1, 0);
    forEach(({ values, maxima, from, to }) => {
      const [blocks = 0, stride = 0] = maxima.shape;
      const rows = to - from;
      const bounded = { rows, blocks, stride, maxima, bound: this.#bound };
      commands.run(maximaHistogramKernel, { ...bounded, histogram: this.#histogram });
      this.#pick(commands, SHIFTS[0], k, this.#bound);
      commands.run(
        commands.context.lanes === 8 && columns <= MAX_NARROW ? collectKernels.narrow : collectKernels.wide,
        {
          ...bounded,
          columns,
          firstRow: from,
          allRows: this.#rows,
          size: this.#capacity,
          values: values.rows(0, rows),
          collected: this.#collected,
          overflow: this.#overflow,
          stretches: this.#stretches,
          candidates: this.#values,
          places: this.#places,
        },
      );
    });
  }

  /** The same without candidates: reads the whole matrix for every digit and for the result. */
  #again(commands: Commands, given: BatchTopKArguments): void {
    const columns = this.#columns;
    const { k, capacity, starts, indices, selected, forEach } = given;
    for (const shift of SHIFTS) {
      fill(commands, this.#histogram, BINS, 0);
      forEach(({ values, from, to }) => {
        commands.run(histogramKernel, {
          size: (to - from) * columns,
          shift,
          values: values.rows(0, to - from),
          limit: this.#everything,
          found: this.#found,
          histogram: this.#histogram,
        });
      });
      this.#pick(commands, shift, k, this.#found);
    }
    forEach(({ values, from, to }) => {
      const rows = to - from;
      const some = {
        firstRow: from,
        rows,
        allRows: this.#rows,
        size: rows * columns,
        columns,
        values: values.rows(0, rows),
        found: this.#found,
        tallies: this.#tallies,
      };
      commands.run(countRowsKernel, some);
      this.#writeStarts(commands, given, from, rows);
      commands.run(writeRowsKernel, { ...some, capacity, starts, indices, selected });
    });
  }

  #pick(commands: Commands, shift: number, k: number, found: Tensor<"u32">): void {
    commands.run(pickKernel, { shift, k, histogram: this.#histogram, found });
  }

  #writeStarts(commands: Commands, { starts }: BatchTopKArguments, firstRow: number, rows: number): void {
    commands.run(startsKernel, {
      firstRow,
      rows,
      allRows: this.#rows,
      found: this.#found,
      tallies: this.#tallies,
      starts,
    });
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Counts the first digits of the maxima that reach the bound so far; the bound only rises. */
const maximaHistogramKernel = defineKernel({
  name: "maxima_histogram",
  dims: ["rows", "blocks", "stride"],
  bindings: {
    maxima: readsOnce("u32", "blocks stride"),
    bound: reads("u32", "3"),
    histogram: writes("atomic<u32>", `${BINS}`),
  },
  workgroup: THREADS,
  grid: ({ rows, blocks }) => Math.ceil(rows / THREADS) * blocks,
  cost: ({ rows, blocks }) => ({ flops: 0, bytes: 4 * rows * blocks }),
  body: `
  let row = group / dims.blocks * ${THREADS}u + lane;
  if (row >= dims.rows) { return; }
  let key = maxima[group % dims.blocks * dims.stride + row];
  if (key >= bound[0]) { atomicAdd(&histogram[key >> ${SHIFTS[0]}u], 1u); }`,
});

/** Counts the next digit of the keys that begin with the digits found so far. */
const histogramKernel = defineKernel({
  name: "key_histogram",
  dims: ["size", "shift"],
  bindings: {
    values: readsOnce("f32", "size"),
    limit: reads("u32", "1"),
    found: reads("u32", "3"),
    histogram: writes("atomic<u32>", `${BINS}`),
  },
  workgroup: THREADS,
  grid: ({ size }) => Math.ceil(size / (THREADS * VALUES_EACH)),
  cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
  declarations: KEY_WGSL,
  body: `
  let end = min(dims.size, limit[0]);
  let is_first = dims.shift == ${SHIFTS[0]}u;
  let above = select(select(${SHIFTS[1]}u, ${SHIFTS[0]}u, dims.shift == ${SHIFTS[1]}u), 0u, is_first);
  for (var turn = 0u; turn < ${VALUES_EACH}u; turn += 1u) {
    let i = (group * ${VALUES_EACH}u + turn) * ${THREADS}u + lane;
    if (i < end) {
      let key = key_of(values[i]);
      // For the first digit, found still holds the result of an earlier run.
      if (is_first || key >> above == found[0] >> above) {
        atomicAdd(&histogram[(key >> dims.shift) & ${BINS - 1}u], 1u);
      }
    }
  }`,
});

/**
 * found = (the bits of the k-th key so far, how many keys with these bits are wanted, 0); the key is 0 if there are
 * fewer than k.
 */
const pickKernel = defineKernel({
  name: "pick_digit",
  dims: ["shift", "k"],
  bindings: { histogram: reads("u32", `${BINS}`), found: writes("u32", "3") },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 * BINS }),
  declarations: `var<workgroup> sums: array<u32, ${SCANNERS}>;`,
  body: `
  // Every invocation has a range of the bins, the first invocation the highest.
  let top = ${BINS}u - lane * ${BINS / SCANNERS}u;
  var sum = 0u;
  for (var i = 1u; i <= ${BINS / SCANNERS}u; i += 1u) { sum += histogram[top - i]; }
  sums[lane] = sum;
  let is_first = dims.shift == ${SHIFTS[0]}u;
  let wanted = select(found[1], dims.k, is_first);
  let before = select(found[0], 0u, is_first);
  workgroupBarrier();
  storageBarrier();
  var higher = 0u;
  for (var i = 0u; i < lane; i += 1u) { higher += sums[i]; }
  let is_last = lane == ${SCANNERS - 1}u;
  if (higher >= wanted || (higher + sum < wanted && !is_last)) { return; }
  var left = wanted - higher;
  var bin = top - 1u;
  for (; bin > top - ${BINS / SCANNERS}u; bin -= 1u) {
    if (histogram[bin] >= left) { break; }
    left -= histogram[bin];
  }
  found[0] = before | (bin << dims.shift);
  found[1] = left;
  found[2] = 0u;`,
});

/**
 * One workgroup a row: copies the values that reach the bound, in order, into a range of the candidates. Every
 * invocation has a range of the row; it first marks which of 32 groups can hold candidates and then reads only those,
 * so that neighbours in a SIMD vector do not wait for each other.
 */
const declareCollect = (threads: number) => {
  const neighbours = Array.from({ length: MAXIMA_COLUMNS }, (_, i) => i);
  const forEachCandidate = (statement: (column: string, value: string) => string) => `
  for (var begin = low; begin < high; begin += 32u) {
    var marks = 0u;
    for (var i = 0u; i < min(32u, high - begin); i += 1u) {
      marks |= u32(maxima[(begin + i) * dims.stride + group] >= bound[0]) << i;
    }
    for (; marks != 0u; marks &= marks - 1u) {
      let first_column = (begin + firstTrailingBit(marks)) * ${MAXIMA_COLUMNS}u;
      ${
    neighbours.map((i) => `
      if (first_column + ${i}u < dims.columns) {
        let value${i} = values[group * dims.columns + first_column + ${i}u];
        if (key_of(value${i}) >= bound[0]) { ${statement(`first_column + ${i}u`, `value${i}`)} }
      }`).join("")
  }
    }
  }`;
  return defineKernel({
    name: "collect_candidates",
    dims: ["rows", "columns", "blocks", "stride", "firstRow", "allRows", "size"],
    bindings: {
      values: reads("f32", "rows columns"),
      maxima: readsOften("u32", "blocks stride"),
      bound: reads("u32", "3"),
      collected: writes("atomic<u32>", "1"),
      overflow: writes("u32", "1"),
      stretches: writes("u32", "allRows 2"),
      candidates: writes("f32", "size"),
      places: writes("u32", "size"),
    },
    workgroup: threads,
    grid: ({ rows }) => rows,
    cost: ({ rows, blocks }) => ({ flops: 0, bytes: 8 * rows * blocks }),
    declarations: `${KEY_WGSL}
var<workgroup> counts: array<u32, ${threads}>;
var<workgroup> first: u32;
var<workgroup> fits: u32;`,
    body: `
  let stretch = (dims.blocks + ${threads - 1}u) / ${threads}u;
  let low = min(lane * stretch, dims.blocks);
  let high = min(low + stretch, dims.blocks);
  var count = 0u;
  ${forEachCandidate(() => "count += 1u;")}
  counts[lane] = count;
  workgroupBarrier();
  if (lane == 0u) {
    var all = 0u;
    for (var i = 0u; i < ${threads}u; i += 1u) { all += counts[i]; }
    first = atomicAdd(&collected[0], all);
    fits = u32(all <= dims.size && first <= dims.size - all);
    if (fits == 0u) { overflow[0] = 1u; }
    stretches[2u * (dims.firstRow + group)] = first;
    stretches[2u * (dims.firstRow + group) + 1u] = all * fits;
  }
  var at = workgroupUniformLoad(&first);
  if (workgroupUniformLoad(&fits) == 0u) { return; }
  for (var i = 0u; i < lane; i += 1u) { at += counts[i]; }
  ${forEachCandidate((column, value) => `candidates[at] = ${value}; places[at] = ${column}; at += 1u;`)}`,
  });
};

/** One SIMD vector a row on a CPU; more on a GPU, to hide latency. */
const collectKernels = { narrow: declareCollect(8), wide: declareCollect(64) };

/** Where a row's values are: candidates in ranges, with their columns; rows of a tile one after the other. */
interface Lie<B extends string> {
  readonly name: string;
  readonly first: string;
  readonly length: string;
  readonly column: (i: string) => string;
  readonly bindings: Readonly<Record<B, Binding>>;
}

const CANDIDATE_ROWS: Lie<"stretches" | "places"> = {
  name: "candidates",
  first: "stretches[2u * (dims.firstRow + group)]",
  length: "stretches[2u * (dims.firstRow + group) + 1u]",
  column: (i) => `places[first + ${i}]`,
  bindings: { stretches: reads("u32", "allRows 2"), places: reads("u32", "size") },
};

const TILE_ROWS: Lie<never> = {
  name: "rows",
  first: "group * dims.columns",
  length: "dims.columns",
  column: (i) => i,
  bindings: {},
};

/** WGSL: every invocation has a range of the row, `low` to `high`; `larger` and `same` are its counts. */
const countsOfLane = ({ first, length }: Pick<Lie<never>, "first" | "length">) => `
  let first = ${first};
  let length = ${length};
  let stretch = (length + ${THREADS - 1}u) / ${THREADS}u;
  let low = min(lane * stretch, length);
  let high = min(low + stretch, length);
  let bound = found[0];
  var larger = 0u;
  var same = 0u;
  for (var i = low; i < high; i += 1u) {
    let key = key_of(values[first + i]);
    larger += u32(key > bound);
    same += u32(key == bound);
  }
  larger_of[lane] = larger;
  same_of[lane] = same;
  workgroupBarrier();`;

const countDeclarations = `${KEY_WGSL}
var<workgroup> larger_of: array<u32, ${THREADS}>;
var<workgroup> same_of: array<u32, ${THREADS}>;`;

/** tallies[row] = (values above the k-th key, values equal to it). */
const declareCount = <B extends string>(lie: Lie<B>) =>
  defineKernel({
    name: `count_${lie.name}_above`,
    dims: ["rows", "columns", "firstRow", "allRows", "size"],
    bindings: {
      values: reads("f32", "size"),
      ...lie.bindings,
      found: reads("u32", "3"),
      tallies: writes("u32", "allRows 2"),
    } as Record<B | "values" | "found" | "tallies", Binding>,
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
    declarations: countDeclarations,
    body: `${countsOfLane(lie)}
  if (lane == 0u) {
    larger = 0u;
    same = 0u;
    for (var i = 0u; i < ${THREADS}u; i += 1u) { larger += larger_of[i]; same += same_of[i]; }
    tallies[2u * (dims.firstRow + group)] = larger;
    tallies[2u * (dims.firstRow + group) + 1u] = same;
  }`,
  });

const countCandidatesKernel = declareCount(CANDIDATE_ROWS);
const countRowsKernel = declareCount(TILE_ROWS);

/**
 * The first rows keep the values equal to the k-th key; how many a row keeps replaces how many it has. Starts are
 * running sums of the kept values; they continue from the rows before, which have kept found[2] of the equal values.
 */
const startsKernel = defineKernel({
  name: "batch_starts",
  dims: ["firstRow", "rows", "allRows"],
  bindings: {
    found: writes("u32", "3"),
    tallies: writes("u32", "allRows 2"),
    starts: writes("u32", "allRows+1"),
  },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: ({ rows }) => ({ flops: 0, bytes: 24 * rows }),
  declarations: `
var<workgroup> larger_of: array<u32, ${SCANNERS}>;
var<workgroup> same_of: array<u32, ${SCANNERS}>;`,
  body: `
  let stretch = (dims.rows + ${SCANNERS - 1}u) / ${SCANNERS}u;
  let low = dims.firstRow + min(lane * stretch, dims.rows);
  let high = min(low + stretch, dims.firstRow + dims.rows);
  var larger = 0u;
  var same = 0u;
  for (var row = low; row < high; row += 1u) { larger += tallies[2u * row]; same += tallies[2u * row + 1u]; }
  larger_of[lane] = larger;
  same_of[lane] = same;
  let wanted = found[1];
  let used = found[2];
  var start = 0u;
  if (dims.firstRow > 0u) { start = starts[dims.firstRow]; }
  workgroupBarrier();
  storageBarrier();
  same = used;
  for (var i = 0u; i < lane; i += 1u) { start += larger_of[i]; same += same_of[i]; }
  start += min(same, wanted) - min(used, wanted);
  for (var row = low; row < high; row += 1u) {
    let taken = min(same + tallies[2u * row + 1u], wanted) - min(same, wanted);
    starts[row] = start;
    start += tallies[2u * row] + taken;
    same += tallies[2u * row + 1u];
    tallies[2u * row + 1u] = taken;
  }
  if (lane == ${SCANNERS - 1}u) {
    starts[dims.firstRow + dims.rows] = start;
    found[2] = same;
  }`,
});

const declareWrite = <B extends string>(lie: Lie<B>) =>
  defineKernel({
    name: `write_${lie.name}_above`,
    dims: ["rows", "columns", "firstRow", "allRows", "size", "capacity"],
    bindings: {
      values: reads("f32", "size"),
      ...lie.bindings,
      found: reads("u32", "3"),
      tallies: reads("u32", "allRows 2"),
      starts: reads("u32", "allRows+1"),
      indices: writes("u32", "capacity"),
      selected: writes("f32", "capacity"),
    } as Record<B | "values" | "found" | "tallies" | "starts" | "indices" | "selected", Binding>,
    workgroup: THREADS,
    grid: ({ rows }) => rows,
    cost: ({ size, capacity }) => ({ flops: 0, bytes: 4 * size + 8 * capacity }),
    declarations: countDeclarations,
    body: `${countsOfLane(lie)}
  let quota = tallies[2u * (dims.firstRow + group) + 1u];
  let out = starts[dims.firstRow + group];
  larger = 0u;
  same = 0u;
  for (var i = 0u; i < lane; i += 1u) { larger += larger_of[i]; same += same_of[i]; }
  for (var i = low; i < high; i += 1u) {
    let value = values[first + i];
    let key = key_of(value);
    if (key > bound || (key == bound && same < quota)) {
      let at = out + larger + min(same, quota);
      indices[at] = ${lie.column("i")};
      selected[at] = value;
    }
    larger += u32(key > bound);
    same += u32(key == bound);
  }`,
  });

const writeCandidatesKernel = declareWrite(CANDIDATE_ROWS);
const writeRowsKernel = declareWrite(TILE_ROWS);
