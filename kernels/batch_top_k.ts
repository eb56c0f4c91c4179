/**
 * The k largest of a whole matrix, exactly, without a sort: sparse rows with k entries altogether.
 *
 * Values compare as in `top_k.ts`; among equal ones the first in row-major order win. One row may have all the entries.
 *
 * A radix select of 4 × 8 bits over all rows finds the k-th key and how many of its equals are taken; then every row counts
 * and writes its own entries, in ascending order. Counts are integers, so no order of adding them matters.
 *
 * @module
 */

import type { Commands } from "./commands.ts";
import type { DeviceContext } from "./device.ts";
import { fill } from "./elementwise.ts";
import { defineKernel, reads, writes } from "./kernel.ts";
import { rowsPerBlock, spans, Tensor } from "./tensor.ts";
import { KEY_WGSL } from "./wgsl.ts";

const THREADS = 64;
const SCANNERS = 256;

/** Buffers of the selection for matrices of one shape. */
export class BatchTopK implements Disposable {
  readonly #rows: number;
  readonly #columns: number;
  readonly #histogram: Tensor<"u32">;
  readonly #found: Tensor<"u32">;
  readonly #above: Tensor<"u32">;
  readonly #equal: Tensor<"u32">;
  readonly #taken: Tensor<"u32">;
  readonly #owned: DisposableStack;

  /** For `rows` × `columns`. */
  constructor(context: DeviceContext, rows: number, columns: number) {
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "u32", [size], label));
    this.#rows = rows;
    this.#columns = columns;
    this.#histogram = make(256, "keys a digit");
    this.#found = make(2, "k-th key and its equals");
    this.#above = make(rows, "larger values a row");
    this.#equal = make(rows, "equal values a row");
    this.#taken = make(rows, "equal values taken a row");
    this.#owned = stack.move();
  }

  /**
   * Writes the `k` largest of `values` [rows, columns] as sparse rows, with room for `capacity`.
   *
   * `k` must not be more than that, nor than the matrix has elements.
   */
  record(
    commands: Commands,
    given: {
      readonly values: Tensor;
      readonly k: number;
      readonly capacity: number;
      readonly starts: Tensor<"u32">;
      readonly indices: Tensor<"u32">;
      readonly selected: Tensor;
    },
  ): void {
    const { values, k, capacity, starts, indices, selected } = given;
    const allRows = this.#rows;
    const columns = this.#columns;
    const blocks = [...spans(allRows, rowsPerBlock(commands.context, allRows, columns * 4, values.label))];
    for (const shift of [24, 16, 8, 0]) {
      fill(commands, this.#histogram, 256, 0);
      for (const { from, to } of blocks) {
        commands.run(histogramKernel, {
          rows: to - from,
          columns,
          shift,
          values: values.rows(from, to),
          found: this.#found,
          histogram: this.#histogram,
        });
      }
      commands.run(digitKernel, { shift, k, histogram: this.#histogram, found: this.#found });
    }
    for (const { from, to } of blocks) {
      commands.run(countKernel, {
        rows: to - from,
        columns,
        firstRow: from,
        allRows,
        values: values.rows(from, to),
        found: this.#found,
        above: this.#above,
        equal: this.#equal,
      });
    }
    commands.run(startsKernel, {
      allRows,
      found: this.#found,
      above: this.#above,
      equal: this.#equal,
      taken: this.#taken,
      starts,
    });
    for (const { from, to } of blocks) {
      commands.run(writeKernel, {
        rows: to - from,
        columns,
        firstRow: from,
        allRows,
        capacity,
        values: values.rows(from, to),
        found: this.#found,
        taken: this.#taken,
        starts,
        indices,
        selected,
      });
    }
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Counts the next eight bits of the keys that begin with what has been found. A workgroup a row. */
const histogramKernel = defineKernel({
  name: "key_histogram",
  dims: ["rows", "columns", "shift"],
  bindings: {
    values: reads("f32", "rows columns"),
    found: reads("u32", "2"),
    histogram: writes("atomic<u32>", "256"),
  },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 4 * rows * columns }),
  declarations: `${KEY_WGSL}
var<workgroup> counts: array<atomic<u32>, 256>;`,
  body: `
  for (var bin = lane; bin < 256u; bin += ${THREADS}u) { atomicStore(&counts[bin], 0u); }
  workgroupBarrier();
  let known = select(0xffffffffu << min(dims.shift + 8u, 31u), 0u, dims.shift == 24u);
  // What an earlier run left behind is not known yet.
  let known_bits = found[0] & known;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    let key = key_of(values[group * dims.columns + c]);
    if ((key & known) == known_bits) { atomicAdd(&counts[(key >> dims.shift) & 255u], 1u); }
  }
  workgroupBarrier();
  for (var bin = lane; bin < 256u; bin += ${THREADS}u) {
    let count = atomicLoad(&counts[bin]);
    if (count > 0u) { atomicAdd(&histogram[bin], count); }
  }`,
});

/** found = (the bits of the k-th key so far, how many of the keys with these bits are wanted). */
const digitKernel = defineKernel({
  name: "pick_digit",
  dims: ["shift", "k"],
  bindings: { histogram: reads("u32", "256"), found: writes("u32", "2") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 1024 }),
  body: `
  let is_first = dims.shift == 24u;
  var left = select(found[1], dims.k, is_first);
  var bin = 255u;
  for (; bin > 0u; bin -= 1u) {
    if (histogram[bin] >= left) { break; }
    left -= histogram[bin];
  }
  let above = select(found[0] & (0xffffffffu << min(dims.shift + 8u, 31u)), 0u, is_first);
  found[0] = above | (bin << dims.shift);
  found[1] = left;`,
});

/** WGSL: every invocation has a stretch of the row; \`above\` and \`same\` are its counts. */
const countsOfLane = `
  let stretch = (dims.columns + ${THREADS - 1}u) / ${THREADS}u;
  let low = min(lane * stretch, dims.columns);
  let high = min(low + stretch, dims.columns);
  let bound = found[0];
  var larger = 0u;
  var same = 0u;
  for (var c = low; c < high; c += 1u) {
    let key = key_of(values[group * dims.columns + c]);
    larger += u32(key > bound);
    same += u32(key == bound);
  }
  larger_of[lane] = larger;
  same_of[lane] = same;
  workgroupBarrier();`;

const countDeclarations = `${KEY_WGSL}
var<workgroup> larger_of: array<u32, ${THREADS}>;
var<workgroup> same_of: array<u32, ${THREADS}>;`;

const countKernel = defineKernel({
  name: "count_above",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: {
    values: reads("f32", "rows columns"),
    found: reads("u32", "2"),
    above: writes("u32", "allRows"),
    equal: writes("u32", "allRows"),
  },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 4 * rows * columns }),
  declarations: countDeclarations,
  body: `${countsOfLane}
  if (lane == 0u) {
    larger = 0u;
    same = 0u;
    for (var i = 0u; i < ${THREADS}u; i += 1u) { larger += larger_of[i]; same += same_of[i]; }
    above[dims.firstRow + group] = larger;
    equal[dims.firstRow + group] = same;
  }`,
});

/** The first rows take the equals; starts are the running sums of what rows have. */
const startsKernel = defineKernel({
  name: "batch_starts",
  dims: ["allRows"],
  bindings: {
    found: reads("u32", "2"),
    above: reads("u32", "allRows"),
    equal: reads("u32", "allRows"),
    taken: writes("u32", "allRows"),
    starts: writes("u32", "allRows+1"),
  },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: ({ allRows }) => ({ flops: 0, bytes: 24 * allRows }),
  declarations: `
var<workgroup> larger_of: array<u32, ${SCANNERS}>;
var<workgroup> same_of: array<u32, ${SCANNERS}>;`,
  body: `
  let stretch = (dims.allRows + ${SCANNERS - 1}u) / ${SCANNERS}u;
  let low = min(lane * stretch, dims.allRows);
  let high = min(low + stretch, dims.allRows);
  var larger = 0u;
  var same = 0u;
  for (var row = low; row < high; row += 1u) { larger += above[row]; same += equal[row]; }
  larger_of[lane] = larger;
  same_of[lane] = same;
  workgroupBarrier();
  larger = 0u;
  same = 0u;
  for (var i = 0u; i < lane; i += 1u) { larger += larger_of[i]; same += same_of[i]; }
  for (var row = low; row < high; row += 1u) {
    starts[row] = larger + min(same, found[1]);
    taken[row] = min(same + equal[row], found[1]) - min(same, found[1]);
    larger += above[row];
    same += equal[row];
  }
  if (lane == ${SCANNERS - 1}u) { starts[dims.allRows] = larger + min(same, found[1]); }`,
});

const writeKernel = defineKernel({
  name: "write_above",
  dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
  bindings: {
    values: reads("f32", "rows columns"),
    found: reads("u32", "2"),
    taken: reads("u32", "allRows"),
    starts: reads("u32", "allRows+1"),
    indices: writes("u32", "capacity"),
    selected: writes("f32", "capacity"),
  },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns, capacity }) => ({ flops: 0, bytes: 4 * rows * columns + 8 * capacity }),
  declarations: countDeclarations,
  body: `${countsOfLane}
  let quota = taken[dims.firstRow + group];
  let out = starts[dims.firstRow + group];
  larger = 0u;
  same = 0u;
  for (var i = 0u; i < lane; i += 1u) { larger += larger_of[i]; same += same_of[i]; }
  for (var c = low; c < high; c += 1u) {
    let value = values[group * dims.columns + c];
    let key = key_of(value);
    if (key > bound || (key == bound && same < quota)) {
      let at = out + larger + min(same, quota);
      indices[at] = c;
      selected[at] = value;
    }
    larger += u32(key > bound);
    same += u32(key == bound);
  }`,
});
