/**
 * The k largest of each row, exactly, without a sort.
 *
 * Values compare as numbers (−0 equals 0), NaN is larger than everything, and among equal values the lowest index wins.
 * A row's results stand in ascending order of index.
 *
 * Small k: the k-th largest of 128 group maxima bounds the k-th largest value from below, and few values reach that bound;
 * those are collected and ranked. Large k, or ties that overflow the collection: a radix select of 4 × 8 bits finds the
 * k-th key, then the row is compacted in order. Both give the same result.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, writes } from "./kernel.ts";
import { KEY_WGSL } from "./wgsl.ts";

/** Groups whose maxima bound the result. */
const GROUPS = 128;
/** How many values may reach the bound before the radix select takes over. */
const COLLECTED = 512;
/** The largest k for which few values are expected to reach the bound. */
const FILTERED_K = 64;

/** What is selected from, and where the results go. */
export interface TopKArguments {
  /** [rows, stride], of which the first n columns count. */
  readonly values: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Elements from one row to the next. */
  readonly stride: number;
  /** Columns. */
  readonly n: number;
  /** How many to keep; more than n keeps all. */
  readonly k: number;
  /** Row r's results go to position `starts[firstRow + r]`. */
  readonly firstRow: number;
  /** [all rows + 1] */
  readonly starts: Bindable;
  /** Rows of the results' lists. */
  readonly allRows: number;
  /** Size of `indices` and `selected`. */
  readonly capacity: number;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly selected: Bindable;
  /** If given, only `count[0]` columns exist, and column j is reported as `names[j]`. */
  readonly listed?: { readonly names: Bindable; readonly count: Bindable; readonly size: number };
}

/** The widest row: a software driver ends an invocation's loops at 65,535 turns in all. */
const MOST_COLUMNS = 1_000_000;

/**
 * Keeps the k largest of each row.
 *
 * @throws {RangeError} for more than 1,000,000 columns.
 */
export function topK(commands: Commands, given: TopKArguments): void {
  const { values, rows, stride, n, k, firstRow, starts, allRows, capacity, indices, selected, listed } = given;
  if (n > MOST_COLUMNS) throw new RangeError(`a selection has at most ${MOST_COLUMNS} columns, found ${n}`);
  const shared = {
    rows,
    stride,
    n,
    k,
    firstRow,
    allRows,
    capacity,
    values,
    starts,
    indices,
    selected,
  };
  // One SIMD vector a row on a CPU, where barriers and idle lanes cost; more on a GPU, where latency does. A software
  // driver ends loops at 65,535 turns, so wide rows take more invocations there too.
  const { plain, listing } = commands.context.lanes === 8 && n <= 65536 ? narrow : wide;
  if (listed) {
    commands.run(listing, { ...shared, listed: listed.size, names: listed.names, count: listed.count });
  } else commands.run(plain, shared);
}

const declarations = (threads: number): string =>
  `${KEY_WGSL}
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> collected: atomic<u32>;
var<workgroup> keys: array<u32, ${COLLECTED}>;
var<workgroup> places: array<u32, ${COLLECTED}>;
var<workgroup> kept: array<u32, ${COLLECTED}>;
var<workgroup> greater: array<u32, ${threads}>;
var<workgroup> equal: array<u32, ${threads}>;
var<workgroup> chosen: u32;
var<workgroup> remaining: u32;
`;

/** WGSL that selects, for `threads` invocations a row; `n` is the number of columns, `name(j)` how column j is reported. */
function body(threads: number, n: string, name: (column: string) => string): string {
  const own = Array.from({ length: GROUPS / threads }, (_, index) => index);
  const quarter = [0, 1, 2, 3];
  return `
  let n = ${n};
  let k = min(dims.k, n);
  let first = group * dims.stride;
  let out = starts[dims.firstRow + group];
  if (k == n) {
    for (var j = lane; j < n; j += ${threads}u) {
      indices[out + j] = ${name("j")};
      selected[out + j] = values[first + j];
    }
    return;
  }
  if (k <= ${FILTERED_K}u) {
    // The key 0 belongs to no value: groups without any column stay below all others.
    ${own.map((i) => `var largest${i} = 0u;`).join(" ")}
    for (var j = lane; j < n; j += ${GROUPS}u) {
      ${
    own.map((i) =>
      `if (j + ${i * threads}u < n) { largest${i} = max(largest${i}, key_of(values[first + j + ${i * threads}u])); }`
    )
      .join("\n      ")
  }
    }
    // Bit by bit, the largest bound of 16 bits that at least k maxima reach. The lower bits only save candidates.
    var bound = 0u;
    for (var bit = 0x80000000u; bit > 0x8000u; bit >>= 1u) {
      let tried = bound | bit;
      if (lane == 0u) { atomicStore(&collected, 0u); }
      workgroupBarrier();
      atomicAdd(&collected, ${own.map((i) => `u32(largest${i} >= tried)`).join(" + ")});
      workgroupBarrier();
      if (atomicLoad(&collected) >= k) { bound = tried; }
      workgroupBarrier();
    }
    if (lane == 0u) { atomicStore(&collected, 0u); }
    workgroupBarrier();
    for (var j = lane; j < n; j += ${4 * threads}u) {
      ${
    quarter.map((i) => `
      if (j + ${i * threads}u < n) {
        let key = key_of(values[first + j + ${i * threads}u]);
        if (key >= bound) {
          let at = atomicAdd(&collected, 1u);
          if (at < ${COLLECTED}u) { keys[at] = key; places[at] = j + ${i * threads}u; }
        }
      }`).join("")
  }
    }
    workgroupBarrier();
    if (lane == 0u) { chosen = atomicLoad(&collected); }
    let candidates = workgroupUniformLoad(&chosen);
    if (candidates <= ${COLLECTED}u) {
      for (var i = lane; i < candidates; i += ${threads}u) {
        var before = 0u;
        for (var o = 0u; o < candidates; o += 1u) {
          before += u32(keys[o] > keys[i] || (keys[o] == keys[i] && places[o] < places[i]));
        }
        kept[i] = u32(before < k);
      }
      workgroupBarrier();
      for (var i = lane; i < candidates; i += ${threads}u) {
        if (kept[i] == 1u) {
          var before = 0u;
          for (var o = 0u; o < candidates; o += 1u) { before += u32(kept[o] == 1u && places[o] < places[i]); }
          indices[out + before] = ${name("places[i]")};
          selected[out + before] = values[first + places[i]];
        }
      }
      return;
    }
  }
  // Radix select: the k-th largest key, eight bits at a time from the top.
  var found = 0u;
  var wanted = k;
  for (var shift = 24i; shift >= 0i; shift -= 8i) {
    for (var bin = lane; bin < 256u; bin += ${threads}u) { atomicStore(&histogram[bin], 0u); }
    workgroupBarrier();
    let known = select(0xffffffffu << u32(min(shift + 8i, 31i)), 0u, shift == 24i);
    for (var j = lane; j < n; j += ${4 * threads}u) {
      ${
    quarter.map((i) => `
      if (j + ${i * threads}u < n) {
        let key = key_of(values[first + j + ${i * threads}u]);
        if ((key & known) == found) { atomicAdd(&histogram[(key >> u32(shift)) & 255u], 1u); }
      }`).join("")
  }
    }
    workgroupBarrier();
    if (lane == 0u) {
      var left = wanted;
      var bin = 255u;
      for (; bin > 0u; bin -= 1u) {
        let here = atomicLoad(&histogram[bin]);
        if (here >= left) { break; }
        left -= here;
      }
      chosen = bin;
      remaining = left;
    }
    found |= workgroupUniformLoad(&chosen) << u32(shift);
    wanted = workgroupUniformLoad(&remaining);
  }
  // All above the key and the first \`wanted\` equal to it, in order: every invocation has a stretch of the row.
  let stretch = (n + ${threads - 1}u) / ${threads}u;
  let low = min(lane * stretch, n);
  let high = min(low + stretch, n);
  var above = 0u;
  var same = 0u;
  for (var j = low; j < high; j += 1u) {
    let key = key_of(values[first + j]);
    above += u32(key > found);
    same += u32(key == found);
  }
  greater[lane] = above;
  equal[lane] = same;
  workgroupBarrier();
  above = 0u;
  same = 0u;
  for (var i = 0u; i < lane; i += 1u) { above += greater[i]; same += equal[i]; }
  for (var j = low; j < high; j += 1u) {
    let key = key_of(values[first + j]);
    if (key > found || (key == found && same < wanted)) {
      let at = out + above + min(same, wanted);
      indices[at] = ${name("j")};
      selected[at] = values[first + j];
    }
    above += u32(key > found);
    same += u32(key == found);
  }`;
}

const bindings = {
  values: reads("f32", "rows stride"),
  starts: reads("u32", "allRows+1"),
  indices: writes("u32", "capacity"),
  selected: writes("f32", "capacity"),
};

const dims = ["rows", "stride", "n", "k", "firstRow", "allRows", "capacity"] as const;

/** Reads each row twice and writes k results. */
const cost = ({ rows, n, k }: { readonly rows: number; readonly n: number; readonly k: number }) => ({
  flops: 0,
  bytes: 4 * rows * (2 * n + 2 * Math.min(n, k)),
});

/** The two kernels for a number of invocations a row. */
function declare(threads: number) {
  const shared = { workgroup: threads, grid: ({ rows }: { readonly rows: number }) => rows, cost };
  return {
    plain: defineKernel({
      ...shared,
      name: "top_k",
      dims,
      bindings,
      declarations: declarations(threads),
      body: body(threads, "dims.n", (column) => column),
    }),
    listing: defineKernel({
      ...shared,
      name: "listed_top_k",
      dims: [...dims, "listed"],
      bindings: { ...bindings, names: reads("u32", "listed"), count: reads("u32", "1") },
      declarations: declarations(threads),
      body: body(threads, "min(dims.n, count[0])", (column) => `names[${column}]`),
    }),
  };
}

const narrow = declare(8);
const wide = declare(64);
