/**
 * The non-zero elements of a dense matrix as sparse rows, or those near and above a threshold.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { type Binding, defineKernel, reads, readsAcross, readsOften, writes } from "./engine/kernel.ts";
import { perVectorWidth, type VectorWidth } from "./engine/vector_width.ts";
import { sumBeforeWgsl } from "./engine/wgsl.ts";

const SCANNERS = 256;
/**
 * The most columns of an invocation: a software driver ends its loops at 65,535 turns in all, and an invocation takes
 * up to nine turns for each word in each of two passes and one for each element that it keeps.
 */
const MAX_OF_LANE = 32000;
/** Invocations that share a row: one SIMD vector where that is enough, since barriers are slow on a CPU. */
const NARROW = 8;
const WIDE = 64;
const MAX_COLUMNS = MAX_OF_LANE * WIDE;
/** Columns in one word of bits, each of which says whether its column is kept. */
const WORD = 32;

/** Which elements are kept besides those above max(thresholds[c], 0). */
export interface Nearby {
  /** [columns] */
  readonly thresholds: Bindable;
  /** Elements closer to their threshold than half of this are kept. */
  readonly width: number;
  /** [columns], 1 where all elements of a column are kept. */
  readonly whole: Bindable;
}

/** Arguments of {@link denseToCsr}. */
export interface DenseToCsrArguments {
  /** [rows, columns] */
  readonly dense: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Row of the sparse matrix at which these rows start; the rows before it must have been appended. */
  readonly firstRow: number;
  /** Rows of the sparse matrix. */
  readonly allRows: number;
  /** [allRows + 1] */
  readonly starts: Bindable;
  /** Size of `indices` and `values`. A row that does not fit whole is counted and left out. */
  readonly capacity: number;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly values: Bindable;
  /** Keeps elements above or near a threshold, zeros included; if left out, all elements that are not 0. */
  readonly nearby?: Nearby;
}

/**
 * Appends rows to a sparse matrix, in order; NaN is kept.
 *
 * Starts count all kept elements, also those beyond the capacity, up to 2³¹.
 *
 * @throws {RangeError} for rows of more than 2,048,000 columns.
 */
export function denseToCsr(commands: Commands, given: DenseToCsrArguments): void {
  const { dense, rows, columns, firstRow, allRows, starts, capacity, indices, values, nearby } = given;
  if (columns > MAX_COLUMNS) {
    throw new RangeError(`sparse rows must have at most ${MAX_COLUMNS} columns, found ${columns}`);
  }
  const sizes = { rows, columns, firstRow, allRows };
  const source = { ...sizes, dense, starts };
  const entries = { capacity, indices, values };
  const threads = commands.context.lanes === NARROW && columns <= MAX_OF_LANE * NARROW ? NARROW : WIDE;
  const { nonZero, near } = kernels(columns)[threads];
  if (nearby) commands.run(near.count, { ...source, ...nearby });
  else commands.run(nonZero.count, source);
  commands.run(rowStartsKernel, { ...sizes, starts });
  if (nearby) commands.run(near.write, { ...source, ...entries, ...nearby });
  else commands.run(nonZero.write, { ...source, ...entries });
}

/** How a row is loaded, and by how many invocations. */
interface ScanLayout extends VectorWidth {
  readonly threads: typeof NARROW | typeof WIDE;
}

/** WGSL: for the elements of a load, the bits of those that are kept. */
const LOADS_WGSL = {
  f32: `
alias Load = f32;
alias Words = u32;
alias Answers = bool;
fn bits_of(kept: Answers) -> u32 { return u32(kept); }`,
  vec4f: `
alias Load = vec4f;
alias Words = vec4u;
alias Answers = vec4<bool>;
fn bits_of(kept: Answers) -> u32 {
  let bits = select(vec4u(0u), vec4u(1u, 2u, 4u, 8u), kept);
  return (bits.x | bits.y) | (bits.z | bits.w);
}`,
};

/** Which elements are kept. */
interface Kept<B extends string = never> {
  readonly bindings: Readonly<Record<B, Binding>>;
  readonly declarations: string;
  /** WGSL: for the elements of load `i` of a row. */
  readonly answers: (value: string, i: string) => string;
}

const nonZero: Kept = {
  bindings: {},
  declarations: `
fn is_not_zero(value: Load) -> Answers { return (bitcast<Words>(value) & Words(0x7fffffffu)) != Words(0u); }`,
  answers: (value) => `is_not_zero(${value})`,
};

const near = ({ element, words }: ScanLayout): Kept<"thresholds" | "whole"> => ({
  bindings: {
    thresholds: readsAcross(element, "columns", "rows columns"),
    whole: readsAcross(words, "columns", "rows columns"),
  },
  declarations: `
fn is_nearby(value: Load, limit: Load, width: f32) -> Answers {
  let is_nan = (bitcast<Words>(value) & Words(0x7fffffffu)) > Words(0x7f800000u);
  let threshold = max(limit, Load(0.0));
  return is_nan | (value > threshold) | (abs(value - threshold) < Load(0.5 * width));
}`,
  answers: (value, i) => `is_nearby(${value}, thresholds[${i}], dims.width) | (whole[${i}] != Words(0u))`,
});

/** Loads of one turn over a word: few, since each is compiled separately. */
const UNROLL = 4;

/** WGSL: `mask`, which of the elements of `word` are kept. */
const maskOfWord = ({ scalars }: ScanLayout, { answers }: Pick<Kept, "answers">): string => `
    var mask = 0u;
    for (var bit = 0u; bit < ${WORD}u; bit += ${UNROLL * scalars}u) {
      ${
  Array.from({ length: UNROLL }, (_, i) =>
    `let load${i} = (word * ${WORD}u + bit) / ${scalars}u + ${i}u;
      let value${i} = dense[group * loads + load${i}];
      if (load${i} < loads) { mask |= bits_of(${answers(`value${i}`, `load${i}`)}) << (bit + ${i * scalars}u); }`).join(
      "\n      ",
    )
}
    }`;

/**
 * WGSL: the words of each invocation, which are neighbours so that positions ascend with the columns, and how many
 * elements it keeps.
 */
const countOfLane = (layout: ScanLayout, kept: Pick<Kept, "answers">): string => `
  let loads = dims.columns / ${layout.scalars}u;
  let words = (dims.columns + ${WORD - 1}u) / ${WORD}u;
  let stretch = (words + ${layout.threads - 1}u) / ${layout.threads}u;
  let low = min(lane * stretch, words);
  let high = min(low + stretch, words);
  var count = 0u;
  for (var word = low; word < high; word += 1u) {${maskOfWord(layout, kept)}
    count += countOneBits(mask);
  }
  counts[lane] = count;
  workgroupBarrier();`;

const sharedBy = <B extends string>({ element, threads }: ScanLayout, { bindings, declarations }: Kept<B>) => ({
  bindings: { dense: readsOften(element, "rows columns"), ...bindings } as Record<B | "dense", Binding>,
  workgroup: threads,
  grid: ({ rows }: { readonly rows: number }) => rows,
  declarations: `${LOADS_WGSL[element]}${declarations}
var<workgroup> counts: array<u32, ${threads}>;`,
});

/** Row r's count goes to starts[r + 1]. */
const countKernel = <B extends string>(layout: ScanLayout, kept: Kept<B>) => {
  const { bindings, ...shared } = sharedBy(layout, kept);
  return {
    dims: ["rows", "columns", "firstRow", "allRows"],
    bindings: { ...bindings, starts: writes("u32", "allRows+1") },
    ...shared,
    cost: ({ rows, columns }: { readonly rows: number; readonly columns: number }) => ({
      flops: 0,
      bytes: 4 * rows * columns,
    }),
    body: `${countOfLane(layout, kept)}
  if (lane == 0u) {
    var all = 0u;
    for (var i = 0u; i < ${layout.threads}u; i += 1u) { all += counts[i]; }
    starts[dims.firstRow + group + 1u] = all;
    if (dims.firstRow + group == 0u) { starts[0] = 0u; }
  }`,
  } as const;
};

/** Counts become starts that continue from the rows before; they saturate instead of overflowing 32 bits. */
const rowStartsKernel = defineKernel({
  name: "row_starts",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: { starts: writes("u32", "allRows+1") },
  workgroup: SCANNERS,
  grid: () => 1,
  cost: ({ rows }) => ({ flops: 0, bytes: 8 * rows }),
  declarations: sumBeforeWgsl(SCANNERS),
  body: `
  let stretch = (dims.rows + ${SCANNERS - 1}u) / ${SCANNERS}u;
  let low = min(lane * stretch, dims.rows);
  let high = min(low + stretch, dims.rows);
  var sum = 0u;
  for (var i = low; i < high; i += 1u) { sum += starts[dims.firstRow + i + 1u]; }
  sum = starts[dims.firstRow] + sum_before(lane, sum);
  for (var i = low; i < high; i += 1u) {
    sum += starts[dims.firstRow + i + 1u];
    starts[dims.firstRow + i + 1u] = min(sum, 0x80000000u);
  }`,
});

const writeKernel = <B extends string>(layout: ScanLayout, kept: Kept<B>) => {
  const { bindings, ...shared } = sharedBy(layout, kept);
  const { scalars } = layout;
  return {
    dims: ["rows", "columns", "firstRow", "allRows", "capacity"],
    bindings: {
      ...bindings,
      starts: reads("u32", "allRows+1"),
      indices: writes("u32", "capacity"),
      values: writes("f32", "capacity"),
    },
    ...shared,
    cost: ({ rows, columns }: { readonly rows: number; readonly columns: number }) => ({
      flops: 0,
      bytes: 8 * rows * columns,
    }),
    body: `
  if (starts[dims.firstRow + group + 1u] > dims.capacity) { return; }
  ${countOfLane(layout, kept)}
  var at = starts[dims.firstRow + group];
  for (var i = 0u; i < lane; i += 1u) { at += counts[i]; }
  for (var word = low; word < high; word += 1u) {${maskOfWord(layout, kept)}
    for (; mask != 0u; mask &= mask - 1u) {
      let c = word * ${WORD}u + countTrailingZeros(mask);
      indices[at] = c;
      values[at] = dense[group * loads + c / ${scalars}u]${scalars === 4 ? "[c % 4u]" : ""};
      at += 1u;
    }
  }`,
  } as const;
};

const declare = (layout: ScanLayout) => {
  const nearby = near(layout);
  return {
    nonZero: {
      count: defineKernel({ name: "count_rows", ...countKernel(layout, nonZero) }),
      write: defineKernel({ name: "write_rows", ...writeKernel(layout, nonZero) }),
    },
    near: {
      count: defineKernel({ name: "count_nearby", scalars: ["width"], ...countKernel(layout, nearby) }),
      write: defineKernel({ name: "write_nearby", scalars: ["width"], ...writeKernel(layout, nearby) }),
    },
  };
};

const kernels = perVectorWidth((width) => ({
  [NARROW]: declare({ ...width, threads: NARROW }),
  [WIDE]: declare({ ...width, threads: WIDE }),
}));
