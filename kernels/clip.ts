/**
 * Clipping by the global norm, as PyTorch does it: all gradients times min(1, max_norm / (norm + 1e-6)).
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import { defineKernel, reads, writes } from "./engine/kernel.ts";
import type { Tensor } from "./engine/tensor.ts";

/** The most terms: one invocation adds them all, and a software driver ends loops at 65,535 turns. */
const MAX_TERMS = 65000;

/**
 * norm[0] = √Σ squares, factor[0] = min(1, most / (norm + 1e-6)), or 1 where `most` is infinite.
 *
 * @throws {RangeError} for more than 65,000 squares.
 */
export function clipFactor(
  commands: Commands,
  given: { readonly squares: Tensor; readonly norm: Tensor; readonly factor: Tensor; readonly most: number },
): void {
  const { squares, norm, factor, most } = given;
  if (squares.size > MAX_TERMS) {
    throw new RangeError(`clipping: a norm must have at most ${MAX_TERMS} terms, found ${squares.size}`);
  }
  // WGSL has no infinity: a negative value means no limit.
  commands.run(clipKernel, { size: squares.size, most: most === Infinity ? -1 : most, squares, norm, factor });
}

const clipKernel = defineKernel({
  name: "clip_factor",
  dims: ["size"],
  scalars: ["most"],
  bindings: { squares: reads("f32", "size"), norm: writes("f32", "1"), factor: writes("f32", "1") },
  workgroup: 1,
  grid: () => 1,
  cost: ({ size }) => ({ flops: size, bytes: 4 * size }),
  body: `
  var sum = 0.0;
  for (var i = 0u; i < dims.size; i += 1u) { sum += squares[i]; }
  norm[0] = sqrt(sum);
  factor[0] = 1.0;
  if (dims.most >= 0.0) { factor[0] = min(1.0, dims.most / (sqrt(sum) + 1e-6)); }`,
});
