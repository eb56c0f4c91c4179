/**
 * Directions: unit vectors that overlap less than random ones.
 *
 * @module
 */

import { assert } from "@std/assert";
import { makeDirections } from "../../../bench/synth/directions.ts";
import { contextOf } from "../../../kernels/engine/device.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { assertTensorClose } from "../../support/tolerance.ts";
import { worldConfig } from "./worlds.ts";

/** Σ_{i≠j} (d_i · d_j)², and the lengths. */
function overlaps(d_FD: Float32Array, d_model: number): { readonly sum: number; readonly lengths: Float64Array } {
  const F = d_FD.length / d_model;
  const row = (i: number) => d_FD.subarray(i * d_model, (i + 1) * d_model);
  let sum = 0;
  for (let i = 0; i < F; i++) {
    for (let j = 0; j < F; j++) {
      if (i !== j) sum += row(i).reduce((dot, value, k) => dot + value * row(j)[k]!, 0) ** 2;
    }
  }
  return { sum, lengths: Float64Array.from({ length: F }, (_, i) => Math.hypot(...row(i))) };
}

Deno.test("directions are unit vectors, and steps push them apart", async () => {
  const context = contextOf(await sharedDevice());
  const cfg = worldConfig();
  const { n_features: F, d_model: D } = cfg;
  const sums: number[] = [];
  for (const steps of [0, 10, 300]) {
    using directions = makeDirections(context, { ...cfg, orthogonalisation: { steps, lr: 1e-2 } });
    const { sum, lengths } = overlaps(await directions.read(), D);
    assertTensorClose(lengths, new Float64Array(F).fill(1), `lengths after ${steps} steps`);
    sums.push(sum);
  }
  const [random, some, many] = sums as [number, number, number];
  assert(random > some && some > many, `${random}, ${some}, ${many}`);
});
