/**
 * Elementwise kernels.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, readsAcross, readsOften, readsOnce, updates, writes } from "./engine/kernel.ts";
import { perVectorWidth, SCALAR, type VectorWidth } from "./engine/vector_width.ts";
import { aboveWgsl } from "./engine/wgsl.ts";

const THREADS = 64;
/** Loads of one workgroup. */
const CHUNK = 256;

/** WGSL: `statement` for every load `i` of a workgroup's chunk. */
const everyLoad = (statement: string, { scalars }: VectorWidth = SCALAR): string => `
  let end = min((group + 1u) * ${CHUNK}u, dims.size / ${scalars}u);
  for (var i = group * ${CHUNK}u + lane; i < end; i += ${THREADS}u) {
    ${statement}
  }`;

/** How many chunks there are. */
const gridOf = ({ scalars }: VectorWidth) => ({ size }: { readonly size: number }) => Math.ceil(size / scalars / CHUNK);
const grid = gridOf(SCALAR);

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
  body: everyLoad(`to[i] = dims.value;`),
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
  bindings: {
    x: readsOnce("f32", "rows columns"),
    row: readsAcross("f32", "columns", "size"),
    to: writes("f32", "rows columns"),
  },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 2 * size, bytes: 8 * size }),
  body: everyLoad(`to[i] = (x[i] - row[i % dims.columns]) * dims.factor;`),
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
  bindings: {
    x: updates("f32", "rows columns"),
    row: readsAcross("f32", "columns", "size"),
    other: readsAcross("f32", "columns", "size"),
  },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 3 * size, bytes: 8 * size }),
  body: everyLoad(`
    let column = i % dims.columns;
    x[i] = fma(old_x[i] + row[column], dims.factor, other[column]);`),
});

/** grad[i] becomes 0 unless at[i] > 0; where `at` is NaN, the gradient stays. */
export function positiveMask(
  commands: Commands,
  given: { readonly grad: Bindable; readonly at: Bindable; readonly size: number },
): void {
  commands.run(positiveMaskKernel(given.size), given);
}

const positiveMaskKernel = perVectorWidth((width) => {
  const { element, words, parts } = width;
  return defineKernel({
    name: "positive_mask",
    dims: ["size"],
    bindings: { grad: writes(element, "size"), at: readsOften(element, "size") },
    workgroup: THREADS,
    grid: gridOf(width),
    cost: ({ size }) => ({ flops: 0, bytes: 12 * size }),
    body: everyLoad(
      `
    let bits = bitcast<${words}>(at[i]);
    let is_positive = (bits > ${words}(0u)) & (bits < ${words}(0x80000000u));
    let passes = is_positive | ((bits & ${words}(0x7fffffffu)) > ${words}(0x7f800000u));
    ${parts.map((part) => `if (!passes${part}) { grad[i]${part} = 0.0; }`).join("\n    ")}`,
      width,
    ),
  });
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
  body: everyLoad(`if (old_x[i] < 0.0) { x[i] = 0.0; }`),
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
  body: everyLoad(`
    let row = (i / dims.columns) * dims.stride;
    let column = i % dims.columns;
    x[row + dims.targetColumn + column] = x[row + dims.source + column];`),
});

/** Arguments of {@link aboveThreshold}. */
export interface AboveThresholdArguments {
  /** [size] */
  readonly x: Bindable;
  /** Elements. */
  readonly size: number;
  /** [thresholds] */
  readonly threshold: Bindable;
  /** Number of thresholds: 1 for all elements, or one for each column. */
  readonly thresholds: number;
  /** [size], the results; x itself if left out. */
  readonly to?: Bindable;
}

/** x[i] becomes 0 unless it is above max(threshold[i mod thresholds], 0); NaN stays. */
export function aboveThreshold(commands: Commands, given: AboveThresholdArguments): void {
  const { to, ...shared } = given;
  const { size, thresholds } = given;
  const { copying, inPlace } = aboveThresholdKernels(size, thresholds);
  if (to) commands.run(copying, { ...shared, to });
  else commands.run(inPlace, shared);
}

const aboveThresholdKernels = perVectorWidth((width) => {
  const { element, scalars } = width;
  const shared = {
    declarations: aboveWgsl(width),
    dims: ["size", "thresholds"],
    workgroup: THREADS,
    grid: gridOf(width),
    cost: ({ size }: { readonly size: number }) => ({ flops: size, bytes: 8 * size }),
  } as const;
  const threshold = readsAcross(element, "thresholds", "size");
  const kept = (value: string): string => `above(${value}, threshold[i % (dims.thresholds / ${scalars}u)])`;
  return {
    inPlace: defineKernel({
      name: "above_threshold",
      ...shared,
      bindings: { x: updates(element, "size"), threshold },
      body: everyLoad(`x[i] = ${kept("old_x[i]")};`, width),
    }),
    copying: defineKernel({
      name: "copy_above_threshold",
      ...shared,
      bindings: { x: readsOnce(element, "size"), threshold, to: writes(element, "size") },
      body: everyLoad(`to[i] = ${kept("x[i]")};`, width),
    }),
  };
});

/** x[i] = x[i] · factor + other[i]. */
export function scaleAndAdd(
  commands: Commands,
  given: { readonly x: Bindable; readonly other: Bindable; readonly size: number; readonly factor: number },
): void {
  commands.run(scaleAndAddKernel, given);
}

const scaleAndAddKernel = defineKernel({
  name: "scale_and_add",
  dims: ["size"],
  scalars: ["factor"],
  bindings: { x: updates("f32", "size"), other: readsOnce("f32", "size") },
  workgroup: THREADS,
  grid,
  cost: ({ size }) => ({ flops: 2 * size, bytes: 12 * size }),
  body: everyLoad(`x[i] = fma(old_x[i], dims.factor, other[i]);`),
});
