/**
 * Kernels that treat every element on its own.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, readsAcross, readsOften, readsOnce, updates, writes } from "./engine/kernel.ts";
import { aboveWgsl } from "./engine/wgsl.ts";

const THREADS = 64;
/** Loads of one workgroup. */
const CHUNK = 256;

/** How elements are loaded: by fours where they come in fours. */
type Way = { readonly element: "f32"; readonly scalars: 1 } | { readonly element: "vec4f"; readonly scalars: 4 };

const everyElement = (statement: string, { scalars }: Pick<Way, "scalars"> = { scalars: 1 }): string => `
  let end = min((group + 1u) * ${CHUNK}u, dims.size / ${scalars}u);
  for (var i = group * ${CHUNK}u + lane; i < end; i += ${THREADS}u) {
    ${statement}
  }`;

const grid = ({ size }: { readonly size: number }) => Math.ceil(size / CHUNK);

/** One kernel for either way. */
function eachWay<K>(declare: (way: Way, grid: (sizes: { readonly size: number }) => number) => K): (size: number) => K {
  const scalar = declare({ element: "f32", scalars: 1 }, grid);
  const vector = declare({ element: "vec4f", scalars: 4 }, ({ size }) => grid({ size: size / 4 }));
  return (size) => size % 4 === 0 ? vector : scalar;
}

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
  bindings: {
    x: readsOnce("f32", "rows columns"),
    row: readsAcross("f32", "columns", "size"),
    to: writes("f32", "rows columns"),
  },
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
  bindings: {
    x: updates("f32", "rows columns"),
    row: readsAcross("f32", "columns", "size"),
    other: readsAcross("f32", "columns", "size"),
  },
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
  commands.run(positiveMaskKernel(given.size), given);
}

const positiveMaskKernel = eachWay(({ element, scalars }, grid) => {
  const words = element === "f32" ? "u32" : "vec4u";
  const parts = scalars === 1 ? [""] : [".x", ".y", ".z", ".w"];
  return defineKernel({
    name: "positive_mask",
    dims: ["size"],
    bindings: { grad: writes(element, "size"), at: readsOften(element, "size") },
    workgroup: THREADS,
    grid,
    cost: ({ size }) => ({ flops: 0, bytes: 12 * size }),
    body: everyElement(
      `
    let bits = bitcast<${words}>(at[i]);
    let is_positive = (bits > ${words}(0u)) & (bits < ${words}(0x80000000u));
    let passes = is_positive | ((bits & ${words}(0x7fffffffu)) > ${words}(0x7f800000u));
    ${parts.map((part) => `if (!passes${part}) { grad[i]${part} = 0.0; }`).join("\n    ")}`,
      { scalars },
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
  const { size, thresholds } = given;
  const { copying, inPlace } = aboveThresholdKernels(thresholds % 4 === 0 ? size : 1);
  if (to) commands.run(copying, { ...shared, to });
  else commands.run(inPlace, shared);
}

const aboveThresholdKernels = eachWay(({ element, scalars }, grid) => {
  const shared = {
    declarations: aboveWgsl(element),
    dims: ["size", "thresholds"],
    workgroup: THREADS,
    grid,
    cost: ({ size }: { readonly size: number }) => ({ flops: size, bytes: 8 * size }),
  } as const;
  const threshold = readsAcross(element, "thresholds", "size");
  const kept = (value: string): string => `above(${value}, threshold[i % (dims.thresholds / ${scalars}u)])`;
  return {
    inPlace: defineKernel({
      name: "above_threshold",
      ...shared,
      bindings: { x: updates(element, "size"), threshold },
      body: everyElement(`x[i] = ${kept("old_x[i]")};`, { scalars }),
    }),
    copying: defineKernel({
      name: "copy_above_threshold",
      ...shared,
      bindings: { x: readsOnce(element, "size"), threshold, to: writes(element, "size") },
      body: everyElement(`to[i] = ${kept("x[i]")};`, { scalars }),
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
  body: everyElement(`x[i] = fma(old_x[i], dims.factor, other[i]);`),
});
