/**
 * Kernels that treat every element on its own.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { defineKernel, reads, readsOften, readsOnce, updates, writes } from "./kernel.ts";

const THREADS = 64;
/** Elements of one workgroup. */
const CHUNK = 256;

const everyElement = (statement: string): string => `
  for (var i = group * ${CHUNK}u + lane; i < min((group + 1u) * ${CHUNK}u, dims.size); i += ${THREADS}u) {
    ${statement}
  }`;

const grid = ({ size }: { readonly size: number }) => Math.ceil(size / CHUNK);

/** to[i] = value for `size` elements. */
export function fill(commands: Commands, to: Bindable, size: number, value: number): void {
  commands.run(fillKernel, { size, value, to });
}

const fillKernel = defineKernel({
  name: "fill",
  dims: ["size", "value"],
  bindings: { to: writes("u32", "size") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
  body: everyElement(`to[i] = dims.value;`),
});

/** to[r, c] = (x[r, c] − row[c]) · factor. */
export function subtractRow(
  commands: Commands,
  given: {
    readonly x: Bindable;
    readonly row: Bindable;
    readonly to: Bindable;
    readonly rows: number;
    readonly columns: number;
    readonly factor: number;
  },
): void {
  commands.run(subtractRowKernel, { ...given, size: given.rows * given.columns });
}

const subtractRowKernel = defineKernel({
  name: "subtract_row",
  dims: ["size", "rows", "columns"],
  scalars: ["factor"],
  bindings: { x: readsOnce("f32", "rows columns"), row: reads("f32", "columns"), to: writes("f32", "rows columns") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 2 * size, bytes: 8 * size }),
  body: everyElement(`to[i] = (x[i] - row[i % dims.columns]) * dims.factor;`),
});

/** x[r, c] = (x[r, c] + row[c]) · factor + other[c]. */
export function addRow(
  commands: Commands,
  given: {
    readonly x: Bindable;
    readonly row: Bindable;
    readonly other: Bindable;
    readonly rows: number;
    readonly columns: number;
    readonly factor: number;
  },
): void {
  commands.run(addRowKernel, { ...given, size: given.rows * given.columns });
}

const addRowKernel = defineKernel({
  name: "add_row",
  dims: ["size", "rows", "columns"],
  scalars: ["factor"],
  bindings: { x: updates("f32", "rows columns"), row: reads("f32", "columns"), other: reads("f32", "columns") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 3 * size, bytes: 8 * size }),
  body: everyElement(`
    let column = i % dims.columns;
    x[i] = fma(old_x[i] + row[column], dims.factor, other[column]);`),
});

/** grad[i] becomes 0 unless at[i] > 0; where `at` is NaN, the gradient stays. */
export function positiveMask(
  commands: Commands,
  given: { readonly grad: Bindable; readonly at: Bindable; readonly size: number },
): void {
  commands.run(positiveMaskKernel, given);
}

const positiveMaskKernel = defineKernel({
  name: "positive_mask",
  dims: ["size"],
  bindings: { grad: writes("f32", "size"), at: readsOften("f32", "size") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 0, bytes: 12 * size }),
  body: everyElement(`
    let bits = bitcast<u32>(at[i]);
    let passes = (bits > 0u && bits < 0x80000000u) || (bits & 0x7fffffffu) > 0x7f800000u;
    if (!passes) { grad[i] = 0.0; }`),
});

/** x[i] becomes 0 where it is negative; NaN stays. */
export function zeroNegatives(commands: Commands, given: { readonly x: Bindable; readonly size: number }): void {
  commands.run(zeroNegativesKernel, given);
}

const zeroNegativesKernel = defineKernel({
  name: "zero_negatives",
  dims: ["size"],
  bindings: { x: updates("f32", "size") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 0, bytes: 8 * size }),
  body: everyElement(`if (old_x[i] < 0.0) { x[i] = 0.0; }`),
});

/** Columns `from` … of a strided matrix copied to columns `to` … of the same rows. */
export function copyColumns(
  commands: Commands,
  given: {
    readonly x: Bindable;
    readonly rows: number;
    readonly stride: number;
    readonly columns: number;
    readonly from: number;
    readonly to: number;
  },
): void {
  const { from: source, to: targetColumn, rows, columns } = given;
  commands.run(copyColumnsKernel, { ...given, source, targetColumn, size: rows * columns });
}

const copyColumnsKernel = defineKernel({
  name: "copy_columns",
  dims: ["size", "rows", "stride", "columns", "source", "targetColumn"],
  bindings: { x: writes("f32", "rows stride") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 0, bytes: 8 * size }),
  body: everyElement(`
    let row = (i / dims.columns) * dims.stride;
    let column = i % dims.columns;
    x[row + dims.targetColumn + column] = x[row + dims.source + column];`),
});

/** What {@link aboveThreshold} takes. */
export interface AboveThresholdArguments {
  /** [size] */
  readonly x: Bindable;
  /** Elements. */
  readonly size: number;
  /** [thresholds] */
  readonly threshold: Bindable;
  /** How many: 1 for all elements, or one for each column of rows that long. */
  readonly thresholds: number;
  /** [size], which gets the results; x itself if left out. */
  readonly to?: Bindable;
}

/** x[i] becomes 0 unless it is above max(threshold[i mod thresholds], 0); NaN stays. */
export function aboveThreshold(commands: Commands, given: AboveThresholdArguments): void {
  const { to, ...shared } = given;
  if (to) commands.run(aboveThresholdKernels.copying, { ...shared, to });
  else commands.run(aboveThresholdKernels.inPlace, shared);
}

const isAbove = (value: string): string => `
    let is_nan = (bitcast<u32>(${value}) & 0x7fffffffu) > 0x7f800000u;
    let passes = is_nan || ${value} > max(threshold[i % dims.thresholds], 0.0);`;

const aboveThresholdKernels = {
  inPlace: defineKernel({
    name: "above_threshold",
    dims: ["size", "thresholds"],
    bindings: { x: updates("f32", "size"), threshold: reads("f32", "thresholds") },
    workgroup: THREADS,
    grid,
    cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
    body: everyElement(`
    let value = old_x[i];${isAbove("value")}
    if (!passes) { x[i] = 0.0; }`),
  }),
  copying: defineKernel({
    name: "copy_above_threshold",
    dims: ["size", "thresholds"],
    bindings: { x: readsOnce("f32", "size"), threshold: reads("f32", "thresholds"), to: writes("f32", "size") },
    workgroup: THREADS,
    grid,
    cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
    body: everyElement(`
    let value = x[i];${isAbove("value")}
    to[i] = select(0.0, value, passes);`),
  }),
};
