/**
 * Adam (Kingma & Ba 2015, algorithm 1), with PyTorch's order of operations.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOnce, updates } from "./engine/kernel.ts";
import { rowsPerBlock, spans, type Tensor } from "./engine/tensor.ts";
import { perVectorWidth, type VectorWidth } from "./engine/vector_width.ts";
import { withoutParallel } from "./unit_rows.ts";

/** The numbers of one step. */
export interface AdamStep {
  /** Learning rate. */
  readonly lr: number;
  /** Decay of the first moment. */
  readonly beta1: number;
  /** Decay of the second moment. */
  readonly beta2: number;
  /** Added to the denominator. */
  readonly eps: number;
  /** 1 for the first step. */
  readonly step: number;
}

/** Arguments of {@link adam}: four arrays of one shape, and values that only the GPU knows. */
export interface AdamArguments extends AdamStep {
  /** What is updated. */
  readonly parameter: Tensor;
  /** Its gradient. */
  readonly grad: Tensor;
  /** First moment. */
  readonly moment1: Tensor;
  /** Second moment. */
  readonly moment2: Tensor;
  /** [1], multiplies the gradient. */
  readonly factor: Tensor;
  /** [1], a value other than 0 stops the update. */
  readonly halted: Tensor<"u32">;
  /** [rows], the multiple of each parameter row that is first subtracted from its gradient row; none if left out. */
  readonly parallel?: Tensor | undefined;
}

/** m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε), with g = factor · (grad − parallel p). */
export function adam(commands: Commands, given: AdamArguments): void {
  const { parameter, grad, moment1, moment2, factor, halted, parallel, lr, beta1, beta2, eps, step } = given;
  const { context } = commands;
  const [rows = 0] = parameter.shape;
  const columns = parameter.rowSize;
  const shapes = context.lanes === 8 ? adamKernels.narrow : adamKernels.wide;
  for (const { from, to } of spans(rows, rowsPerBlock(context, rows, columns * 4, parameter.label))) {
    const size = (to - from) * columns;
    const shared = {
      size,
      step_size: lr / (1 - beta1 ** step),
      one_minus_beta1: 1 - beta1,
      beta2,
      one_minus_beta2: 1 - beta2,
      root_correction: Math.sqrt(1 - beta2 ** step),
      eps,
      parameter: parameter.rows(from, to),
      grad: grad.rows(from, to),
      moment1: moment1.rows(from, to),
      moment2: moment2.rows(from, to),
      factor,
      halted,
    };
    if (parallel) {
      commands.run(shapes.rows(columns), { ...shared, columns, firstRow: from, allRows: rows, parallel });
    } else commands.run(shapes.flat(size), shared);
  }
}

/** Loads of one workgroup. */
const LOADS = 256;

const NUMBERS = ["step_size", "one_minus_beta1", "beta2", "one_minus_beta2", "root_correction", "eps"] as const;

const bindings = (element: string) => ({
  parameter: updates(element, "size"),
  grad: readsOnce(element, "size"),
  moment1: updates(element, "size"),
  moment2: updates(element, "size"),
  factor: reads("f32", "1"),
  halted: reads("u32", "1"),
});

/** WGSL: values that all elements share, read once outside the loop. */
const START = `
  if (halted[0] != 0u) { return; }
  let clip = factor[0];
  ${NUMBERS.map((name) => `let ${name} = dims.${name};`).join("\n  ")}`;

/** WGSL: the update of element `i`, whose value is `w` and whose gradient is `gradient`. */
const update = (element: string, gradient: string): string => `
    let g = clip * ${gradient};
    let before = old_moment1[i];
    let m = fma(${element}(one_minus_beta1), g - before, before);
    let v = fma(one_minus_beta2 * g, g, beta2 * old_moment2[i]);
    moment1[i] = m;
    moment2[i] = v;
    parameter[i] = w - step_size * (m / (sqrt(v) / root_correction + eps));`;

const declareFlat = (threads: number, { element, scalars }: VectorWidth) =>
  defineKernel({
    name: "adam",
    dims: ["size"],
    scalars: NUMBERS,
    bindings: bindings(element),
    workgroup: threads,
    grid: ({ size }) => Math.ceil(size / scalars / LOADS),
    cost: ({ size }) => ({ flops: 12 * size, bytes: 28 * size }),
    body: `${START}
  let end = min((group + 1u) * ${LOADS}u, dims.size / ${scalars}u);
  for (var i = group * ${LOADS}u + lane; i < end; i += ${threads}u) {
    let w = old_parameter[i];${update(element, "grad[i]")}
  }`,
  });

/** One workgroup a row. */
const declareRows = (threads: number, { element, scalars }: VectorWidth) =>
  defineKernel({
    name: "adam_without_parallel",
    dims: ["size", "columns", "firstRow", "allRows"],
    scalars: NUMBERS,
    bindings: { ...bindings(element), parallel: reads("f32", "allRows") },
    workgroup: threads,
    grid: ({ size, columns }) => size / columns,
    cost: ({ size }) => ({ flops: 14 * size, bytes: 28 * size }),
    body: `${START}
  let loads = dims.columns / ${scalars}u;
  let parallel_part = parallel[dims.firstRow + group];
  for (var c = lane; c < loads; c += ${threads}u) {
    let i = group * loads + c;
    let w = old_parameter[i];
    let whole = grad[i];
    ${withoutParallel(element, "whole", "w")}${update(element, "removed")}
  }`,
  });

const declareShapes = (threads: number) => ({
  flat: perVectorWidth((width) => declareFlat(threads, width)),
  rows: perVectorWidth((width) => declareRows(threads, width)),
});

/**
 * On a CPU one SIMD vector works through a workgroup's part of the arrays; on a GPU many invocations hide the latency
 * of memory.
 */
const adamKernels = { narrow: declareShapes(8), wide: declareShapes(64) };
