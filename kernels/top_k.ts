/**
 * The k largest of each row, exactly, without a sort.
 *
 * Values compare as numbers (−0 equals 0), NaN is larger than every number, and among equal values the lowest index
 * wins. A row's results are in ascending order of index.
 *
 * Small k: the k-th largest of 128 group maxima bounds the k-th largest value from below, and few values reach that
 * bound; those are collected and ranked. If the product that computed the values also wrote the maxima of neighbouring
 * columns, these are read instead of the values, and then only the columns whose maximum reaches the bound. Large k, or
 * ties that overflow the collection: a radix select of 4 × 8 bits finds the k-th key, then the row is compacted in
 * order. All three give the same result.
 *
 * A subgroup of eight counts by broadcasts and compares in loops: on a CPU, where it is one SIMD vector, atomics run
 * one lane after the other, barriers cost as much as loads, and both sides of an `if` are computed.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import type { DeviceContext } from "./engine/device.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { MAXIMA_COLUMNS } from "./matmul_tiles.ts";
import type { Tensor } from "./engine/tensor.ts";
import { KEY_WGSL } from "./engine/wgsl.ts";

/** Groups whose maxima bound the result. */
const GROUPS = 128;
/** How many values, or maxima, may reach the bound before the radix select takes over. */
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
  /** How many values to keep; more than n keeps all. */
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
  /** [⌈n / {@link MAXIMA_COLUMNS}⌉, ≥ rows], the maxima that the product wrote along with the values, if it did. */
  readonly maxima?: Tensor<"u32">;
}

/** The widest row: a software driver ends an invocation's loops at 65,535 turns in all. */
const MAX_COLUMNS = 1_000_000;

/**
 * Keeps the k largest of each row.
 *
 * @throws {RangeError} for more than 1,000,000 columns.
 */
export function topK(commands: Commands, given: TopKArguments): void {
  const { values, rows, stride, n, k, firstRow, starts, allRows, capacity, indices, selected, listed, maxima } = given;
  if (n > MAX_COLUMNS) throw new RangeError(`top-k: rows must have at most ${MAX_COLUMNS} columns, found ${n}`);
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
  // One SIMD vector a row on a CPU, where barriers and idle lanes are slow; more on a GPU, to hide latency. A software
  // driver ends loops at 65,535 turns, so wide rows need more invocations there too.
  const { context } = commands;
  const { plain, listing, ofMaxima } = context.lanes === 8 && n <= 65536 ? narrowKernels(context, k) : wide;
  if (listed) {
    commands.run(listing, { ...shared, listed: listed.size, names: listed.names, count: listed.count });
  } else if (maxima && maxima.shape[0]! >= 2 * k && k <= FILTERED_K) {
    const [blocks = 0, columns = 0] = maxima.shape;
    commands.run(ofMaxima, { ...shared, blocks, columns, maxima });
  } else commands.run(plain, shared);
}

const EIGHT = [0, 1, 2, 3, 4, 5, 6, 7];

/** WGSL: for a subgroup of eight, the sums of `value` over the invocations before one, and over all. */
const SUMS_WGSL = `
fn sums(value: u32, lane: u32) -> vec2u {
  ${EIGHT.map((i) => `let v${i} = subgroupBroadcast(value, ${i}u);`).join("\n  ")}
  return vec2u(
    ${EIGHT.slice(0, -1).map((i) => `select(0u, v${i}, lane > ${i}u)`).join(" + ")},
    ${EIGHT.map((i) => `v${i}`).join(" + ")},
  );
}
`;

const declarations = (threads: number, subgroups: string | undefined): string =>
  `${KEY_WGSL}${subgroups === undefined ? "" : SUMS_WGSL}
const NONE = 0xffffffffu;
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> collected: atomic<u32>;
var<workgroup> reaching: atomic<u32>;
var<workgroup> keys: array<u32, ${COLLECTED}>;
var<workgroup> places: array<u32, ${COLLECTED}>;
var<workgroup> ranks: array<u32, ${COLLECTED}>;
var<workgroup> spare: array<u32, ${COLLECTED}>;
var<workgroup> near: array<u32, ${GROUPS}>;
var<workgroup> greater: array<u32, ${threads}>;
var<workgroup> equal: array<u32, ${threads}>;
var<workgroup> chosen: u32;
var<workgroup> remaining: u32;
`;

/** What a selection's WGSL is made for. */
interface Source {
  /** Invocations a row. */
  readonly threads: number;
  /** Number of columns. */
  readonly n: string;
  /** How a column is reported. */
  readonly name: (column: string) => string;
  /** Whether there are maxima of neighbouring columns. */
  readonly hasMaxima: boolean;
  /** The directive of a kernel that uses subgroups of eight; `undefined` for any other. */
  readonly subgroups: string | undefined;
  /** How many candidates a subgroup of eight keeps in registers. */
  readonly kept: number;
}

/** How many candidates a subgroup of eight keeps in registers: there are seldom more than twice k. */
function keptFor(k: number): number {
  return 2 * (k <= 16 ? 16 : k <= 32 ? 32 : FILTERED_K);
}

/** WGSL: ranks few candidates in registers: a subgroup of eight broadcasts each of them to all others. */
function rankInSubgroup({ name, kept }: Source): string {
  const own = Array.from({ length: kept / 8 }, (_, index) => index);
  const eachOther = (heard: string, statement: (i: number) => string) =>
    EIGHT.map((other) => `{ ${heard.replaceAll("@", `${other}u`)} ${own.map(statement).join(" ")} }`)
      .join("\n        ");
  return `if (candidates <= ${kept}u) {
      ${
    own.map((i) =>
      `var key${i} = 0u; var place${i} = NONE; var before${i} = 0u;
      if (lane + ${8 * i}u < candidates) { key${i} = keys[lane + ${8 * i}u]; place${i} = places[lane + ${8 * i}u]; }`
    ).join("\n      ")
  }
      for (var r = 0u; r < candidates; r += 8u) {
        var their_key = 0u;
        var their_place = NONE;
        if (r + lane < candidates) { their_key = keys[r + lane]; their_place = places[r + lane]; }
        ${
    eachOther(
      "let key = subgroupBroadcast(their_key, @); let place = subgroupBroadcast(their_place, @);",
      (i) => `before${i} += u32(key > key${i} || (key == key${i} && place < place${i}));`,
    )
  }
      }
      workgroupBarrier();
      ${
    own.map((i) =>
      `if (before${i} >= k) { place${i} = NONE; }
      if (lane + ${8 * i}u < candidates) { places[lane + ${8 * i}u] = place${i}; }
      var at${i} = out;`
    ).join("\n      ")
  }
      workgroupBarrier();
      for (var r = 0u; r < candidates; r += 8u) {
        var their_place = NONE;
        if (r + lane < candidates) { their_place = places[r + lane]; }
        ${
    eachOther(
      "let place = subgroupBroadcast(their_place, @);",
      (i) => `at${i} += u32(place < place${i});`,
    )
  }
      }
      ${
    own.map((i) =>
      `if (place${i} != NONE) { indices[at${i}] = ${name(`place${i}`)}; selected[at${i}] = values[first + place${i}]; }`
    ).join("\n      ")
  }
      return;
    }`;
}

/** WGSL that selects. */
function body(source: Source): string {
  const { threads, n, name, hasMaxima, subgroups } = source;
  const own = Array.from({ length: GROUPS / threads }, (_, index) => index);
  const quarter = [0, 1, 2, 3];
  // What the groups are made of: a row's maxima, or its values.
  const items = hasMaxima ? "dims.blocks" : "n";
  const keyOf = (item: string) =>
    hasMaxima ? `maxima[(${item}) * dims.columns + group]` : `key_of(values[first + ${item}])`;
  const inSubgroup = subgroups !== undefined;
  // Both ways leave the number found in `chosen`, and the list visible to all invocations.
  const list = (
    from: {
      readonly item: string;
      readonly turns: string;
      readonly wanted: string;
      readonly store: string;
      /** How a subgroup goes through the turns, if not eight at a time. */
      readonly eachEight?: (statement: string) => string;
    },
  ) =>
    inSubgroup
      ? `var found = 0u;
      ${
        (from.eachEight ?? ((statement) =>
          `for (var turn = 0u; turn < ${from.turns}; turn += ${threads}u) {
        let i = turn + lane;
        ${from.item}
        ${statement}
      }`))(`let wanted = ${from.eachEight ? "" : `i < ${from.turns} && `}${from.wanted};
        let counts = sums(u32(wanted), lane);
        let at = found + counts.x;
        if (wanted && at < ${COLLECTED}u) { ${from.store} }
        found += counts.y;`)
      }
      if (lane == 0u) { chosen = found; }`
      : `if (lane == 0u) { atomicStore(&collected, 0u); }
      workgroupBarrier();
      for (var i = lane; i < ${from.turns}; i += ${threads}u) {
        ${from.item}
        if (${from.wanted}) {
          let at = atomicAdd(&collected, 1u);
          if (at < ${COLLECTED}u) { ${from.store} }
        }
      }
      workgroupBarrier();
      if (lane == 0u) { chosen = atomicLoad(&collected); }`;
  const reaching = (bound: string) => own.map((i) => `u32(largest${i} >= ${bound})`).join(" + ");
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
    // No value has the key 0: groups without columns stay below all others.
    ${own.map((i) => `var largest${i} = 0u;`).join(" ")}
    for (var j = lane; j < ${items}; j += ${GROUPS}u) {
      ${
    own.map((i) =>
      `if (j + ${i * threads}u < ${items}) { largest${i} = max(largest${i}, ${keyOf(`j + ${i * threads}u`)}); }`
    )
      .join("\n      ")
  }
    }
    // Bit by bit, the largest bound of 16 bits that at least k maxima reach. The lower bits only save candidates.
    var bound = 0u;
    for (var bit = 0x80000000u; bit > 0x8000u; bit >>= 1u) {
      let tried = bound | bit;
      ${
    inSubgroup
      ? `if (sums(${reaching("tried")}, lane).y >= k) { bound = tried; }`
      : `if (lane == 0u) { atomicStore(&collected, 0u); }
      workgroupBarrier();
      atomicAdd(&collected, ${reaching("tried")});
      workgroupBarrier();
      if (atomicLoad(&collected) >= k) { bound = tried; }
      workgroupBarrier();`
  }
    }
    // Only groups whose maximum reaches the bound have candidates.
    ${
    inSubgroup
      ? `let reached = sums(${reaching("bound")}, lane);
    var place = reached.x;
    ${own.map((i) => `if (largest${i} >= bound) { near[place] = lane + ${i * threads}u; place += 1u; }`).join("\n    ")}
    if (lane == 0u) { chosen = reached.y; }`
      : `if (lane == 0u) { atomicStore(&reaching, 0u); }
    workgroupBarrier();
    ${
        own.map((i) => `if (largest${i} >= bound) { near[atomicAdd(&reaching, 1u)] = lane + ${i * threads}u; }`)
          .join("\n    ")
      }
    workgroupBarrier();
    if (lane == 0u) { chosen = atomicLoad(&reaching); }`
  }
    let size = (${items} + ${GROUPS - 1}u) / ${GROUPS}u;
    let turns = workgroupUniformLoad(&chosen) * size;
    ${
    hasMaxima
      ? `{
      ${
        list({
          item: `let item = near[i / size] + i % size * ${GROUPS}u;`,
          turns: "turns",
          wanted: `item < dims.blocks && ${keyOf("item")} >= bound`,
          store: "spare[at] = item;",
        })
      }
    }
    let found_items = workgroupUniformLoad(&chosen);
    // If there are too many to list, there are too many to rank.
    if (found_items <= ${COLLECTED}u) {
      let columns = ${MAXIMA_COLUMNS}u * found_items;
      ${
        list({
          item: `let j = spare[i / ${MAXIMA_COLUMNS}u] * ${MAXIMA_COLUMNS}u + i % ${MAXIMA_COLUMNS}u;
        let key = key_of(values[first + min(j, n - 1u)]);`,
          turns: "columns",
          wanted: "j < n && key >= bound",
          store: "keys[at] = key; places[at] = j;",
          // Every lane holds the number of an item; all lanes read the columns of one item after the other.
          eachEight: (statement) =>
            `for (var turn = 0u; turn < found_items; turn += 8u) {
        let ahead = spare[min(turn + lane, found_items - 1u)];
        let together = min(found_items - turn, 8u);
        var other = 0u;
        loop {
          let j = subgroupShuffle(ahead, other) * ${MAXIMA_COLUMNS}u + lane;
          let key = key_of(values[first + min(j, n - 1u)]);
          ${statement}
          continuing {
            other += 1u;
            break if other >= together;
          }
        }
      }`,
        })
      }
    }`
      : `{
      ${
        list({
          item: `let j = near[i / size] + i % size * ${GROUPS}u;
        let key = key_of(values[first + min(j, n - 1u)]);`,
          turns: "turns",
          wanted: "j < n && key >= bound",
          store: "keys[at] = key; places[at] = j;",
        })
      }
    }`
  }
    let candidates = workgroupUniformLoad(&chosen);
    ${inSubgroup ? rankInSubgroup(source) : ""}
    if (candidates <= ${COLLECTED}u) {
      if (lane == 0u) { atomicStore(&reaching, 0u); }
      workgroupBarrier();
      for (var i = lane; i < candidates; i += ${threads}u) {
        let key = keys[i];
        let place = places[i];
        var before = 0u;
        var lower = 0u;
        for (var o = 0u; o < candidates; o += 1u) {
          let is_lower = u32(places[o] < place);
          before += u32(keys[o] > key) + u32(keys[o] == key) * is_lower;
          lower += is_lower;
        }
        ranks[i] = select(NONE, lower, before < k);
        if (before >= k) { spare[atomicAdd(&reaching, 1u)] = place; }
      }
      workgroupBarrier();
      // Few candidates are dropped, and only these move the others down.
      let dropped = candidates - k;
      for (var i = lane; i < candidates; i += ${threads}u) {
        let place = places[i];
        var at = ranks[i];
        if (at != NONE) {
          for (var o = 0u; o < dropped; o += 1u) { at -= u32(spare[o] < place); }
          indices[out + at] = ${name("place")};
          selected[out + at] = values[first + place];
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

/** The kernels for a number of invocations a row. */
function declare(threads: number, subgroups?: string, kept = 0) {
  const shared = {
    workgroup: threads,
    grid: ({ rows }: { readonly rows: number }) => rows,
    cost,
    directives: subgroups ?? "",
  };
  return {
    plain: defineKernel({
      ...shared,
      name: "top_k",
      dims,
      bindings,
      declarations: declarations(threads, subgroups),
      body: body({ threads, n: "dims.n", name: (column) => column, hasMaxima: false, subgroups, kept }),
    }),
    ofMaxima: defineKernel({
      ...shared,
      name: "maxima_top_k",
      dims: [...dims, "blocks", "columns"],
      bindings: { ...bindings, maxima: readsOften("u32", "blocks columns") },
      cost: ({ rows, blocks, k }) => ({ flops: 0, bytes: 4 * rows * (2 * blocks + (MAXIMA_COLUMNS + 2) * k) }),
      declarations: declarations(threads, subgroups),
      body: body({ threads, n: "dims.n", name: (column) => column, hasMaxima: true, subgroups, kept }),
    }),
    listing: defineKernel({
      ...shared,
      name: "listed_top_k",
      dims: [...dims, "listed"],
      bindings: { ...bindings, names: reads("u32", "listed"), count: reads("u32", "1") },
      declarations: declarations(threads, subgroups),
      body: body({
        threads,
        n: "min(dims.n, count[0])",
        name: (column) => `names[${column}]`,
        hasMaxima: false,
        subgroups,
        kept,
      }),
    }),
  };
}

const wide = declare(64);
const narrow = new Map<string, typeof wide>();

/** Those of one SIMD vector a row. */
function narrowKernels({ subgroups }: DeviceContext, k: number): typeof wide {
  const kept = keptFor(k);
  const id = `${subgroups} ${kept}`;
  const kernels = narrow.get(id) ?? declare(8, subgroups, kept);
  narrow.set(id, kernels);
  return kernels;
}
