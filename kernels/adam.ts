/**
 * Adam (Kingma & Ba 2015, algorithm 1), with PyTorch's order of operations.
 *
 * @module
 */

import type { Commands } from "./commands.ts";
import { defineKernel, reads, writes } from "./kernel.ts";
import { rowsPerBlock, spans, type Tensor } from "./tensor.ts";

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

/** What {@link adam} takes: four arrays of one shape, and a factor and a verdict that only the GPU knows. */
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
  /** [1], anything but 0 stops the update. */
  readonly halted: Tensor<"u32">;
}

/** m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε), with g = factor · grad. */
export function adam(commands: Commands, given: AdamArguments): void {
  const { parameter, grad, moment1, moment2, factor, halted, lr, beta1, beta2, eps, step } = given;
  const [rows = 0] = parameter.shape;
  const columns = parameter.rowSize;
  const block = rowsPerBlock(commands.context, rows, columns * 4, parameter.label);
  for (const { from, to } of spans(rows, block)) {
    const size = (to - from) * columns;
    commands.run(size % 4 === 0 ? adamKernels.vector : adamKernels.scalar, {
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
    });
  }
}

const declare = (element: "f32" | "vec4f", scalars: 1 | 4) =>
  defineKernel({
    name: "adam",
    dims: ["size"],
    scalars: ["step_size", "one_minus_beta1", "beta2", "one_minus_beta2", "root_correction", "eps"],
    bindings: {
      parameter: writes(element, "size"),
      grad: reads(element, "size"),
      moment1: writes(element, "size"),
      moment2: writes(element, "size"),
      factor: reads("f32", "1"),
      halted: reads("u32", "1"),
    },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / scalars / 256),
    cost: ({ size }) => ({ flops: 12 * size, bytes: 28 * size }),
    body: `
  if (halted[0] != 0u) { return; }
  let end = min((group + 1u) * 256u, dims.size / ${scalars}u);
  for (var i = group * 256u + lane; i < end; i += 64u) {
    let g = factor[0] * grad[i];
    let m = fma(${element}(dims.one_minus_beta1), g - moment1[i], moment1[i]);
    let v = fma(dims.one_minus_beta2 * g, g, dims.beta2 * moment2[i]);
    moment1[i] = m;
    moment2[i] = v;
    parameter[i] -= dims.step_size * (m / (sqrt(v) / dims.root_correction + dims.eps));
  }`,
  });
const adamKernels = { scalar: declare("f32", 1), vector: declare("vec4f", 4) };
