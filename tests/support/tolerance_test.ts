/**
 * The comparators accept what their bound allows, refuse what it does not, and report where.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  assertDecisions,
  assertExact,
  assertFrequencies,
  assertMedianHolds,
  assertNormals,
  assertRefuses,
  assertRunLosses,
  assertRunParameter,
  assertSameBits,
  assertSameFrequencies,
  assertSumBound,
  assertSumClose,
  assertTensorClose,
  assertUlps,
  assertValidSelection,
  U,
  ulp,
} from "./tolerance.ts";

Deno.test("exact: numbers, not bits, and every element", async () => {
  assertExact([1, -0, NaN], [1, 0, NaN]);
  const message = await assertRefuses(() => assertExact([1, 2, 3], [1, 2, 4], "counts"));
  assertStringIncludes(message, "counts: 1 of 3 elements are off, the worst at [2]: got 3, want 4, error 1, bound 0");
  await assertRefuses(() => assertExact([NaN], [0]));
  await assertRefuses(() => assertExact([0], [NaN]));
  await assertRefuses(() => assertExact([Infinity], [1]));
  assertStringIncludes(await assertRefuses(() => assertExact([1], [1, 2])), "has 1 elements, want 2");
});

Deno.test("same bits: the sign of zero counts", async () => {
  assertSameBits(Float32Array.of(1, NaN), Float32Array.of(1, NaN));
  const message = await assertRefuses(() => assertSameBits(Float32Array.of(1, 0), Float32Array.of(1, -0)));
  assertStringIncludes(message, "1 of 2 elements differ in their bits, the first at [1]");
});

Deno.test("sums: half the bound passes, twice the bound does not", async () => {
  const K = 100;
  const absSum = Float64Array.of(3, 50);
  const want = Float64Array.of(0.1, -2);
  const off = (factor: number, bound: (S: number) => number) =>
    want.map((value, i) => value + factor * bound(absSum[i]!));
  const seeded = (S: number) => 2 * Math.sqrt(K) * U * S;
  const any = (S: number) => (K + 1) * U * S;
  assert(Math.abs(assertSumClose(off(0.5, seeded), want, absSum, K) - 0.5) < 1e-6);
  assertStringIncludes(await assertRefuses(() => assertSumClose(off(2, seeded), want, absSum, K)), "ratio 2.00");
  assert(Math.abs(assertSumBound(off(-0.5, any), want, absSum, K) - 0.5) < 1e-6);
  await assertRefuses(() => assertSumBound(off(2, any), want, absSum, K));
});

Deno.test("ulps: 4 for an operation, and what its function may add", async () => {
  assertEquals([ulp(1), ulp(1.999), ulp(2), ulp(0), ulp(2 ** -140)], [
    2 ** -23,
    2 ** -23,
    2 ** -22,
    2 ** -149,
    2 ** -149,
  ]);
  assertUlps([1 + 4 * 2 ** -23], [1], 1);
  assertUlps([1 + 6 * 2 ** -23], [1], 1, 2.5);
  await assertRefuses(() => assertUlps([1 + 5 * 2 ** -23], [1], 1));
  await assertRefuses(() => assertUlps([Infinity], [1], 1));
});

Deno.test("whole tensors: the norm decides, the worst element is named", async () => {
  const want = Float64Array.of(3, 4, 0);
  assertTensorClose([3, 4, 5 * 31 * U], want);
  const message = await assertRefuses(() => assertTensorClose([3, 4, 5 * 33 * U], want, "x_hat"));
  assertStringIncludes(message, "x_hat: ‖Δ‖ is");
  assertStringIncludes(message, "the worst element is [2]");
  assertStringIncludes(await assertRefuses(() => assertTensorClose([3, NaN, 0], want)), "[1]: got NaN, want 4");
});

Deno.test("runs: 2e-6 relative, each loss and each parameter's norm", async () => {
  assertRunLosses([1 + 1.9e-6, 10 + 1.9e-5], [1, 10]);
  await assertRefuses(() => assertRunLosses([1 + 2.1e-6, 10], [1, 10]));
  assertRunParameter([3, 4 + 9e-6], [3, 4]);
  await assertRefuses(() => assertRunParameter([3, 4 + 11e-6], [3, 4]));
});

Deno.test("medians: near the wanted point, which no pull may move", async () => {
  const still = { norm: 0, n_here: 0, stiffness: 10, distance: 2 };
  assertMedianHolds([1 + 1.9e-4], [1], still);
  await assertRefuses(() => assertMedianHolds([1 + 2.1e-4], [1], still));
  assertMedianHolds([1], [1], { ...still, norm: 1.9e-3 });
  await assertRefuses(() => assertMedianHolds([1], [1], { ...still, norm: 2.1e-3 }));
  assertMedianHolds([1], [1], { ...still, norm: 1.5, n_here: 2 });
});

Deno.test("selections: a near tie may go either way, anything else may not", async () => {
  const exact = [5, 1 + 1e-9, 1, -3];
  assertValidSelection(new Set([0, 2]), exact, 1e-8);
  const message = await assertRefuses(() => assertValidSelection(new Set([0, 3]), exact, 1e-8));
  assertStringIncludes(message, "keeps [3] = -3 and leaves out [1]");
});

Deno.test("frequencies: the same draws agree, shifted ones do not", async () => {
  const want = [0, 700, 200, 97, 3];
  assertSameFrequencies([0, 690, 212, 94, 4], 1000, want, 1000);
  await assertRefuses(() => assertSameFrequencies([0, 600, 300, 97, 3], 1000, want, 1000));
  assertStringIncludes(
    await assertRefuses(() => assertSameFrequencies([10, 690, 200, 97, 3], 1000, want, 1000)),
    "[0] came up 10 times in 1000 draws, and should never",
  );
});

Deno.test("frequencies of known probabilities: five deviations and five draws, each", async () => {
  // 100 draws of ½ have a standard deviation of 5.
  assertFrequencies([50, 79, 21], 100, [0.5, 0.5, 0.5]);
  await assertRefuses(() => assertFrequencies([50, 81], 100, [0.5, 0.5]));
  await assertRefuses(() => assertFrequencies([6], 100, [0]));
});

Deno.test("decisions: only a draw as good as at its probability may go either way", async () => {
  assertDecisions([1, 0, 1, 0], [0.25, 0.75, 0.5, 0.5], [0.5, 0.5, 0.5 + 1e-6, 0.5 + 1e-6]);
  await assertRefuses(() => assertDecisions([0], [0.5], [0.5 + 3e-6]));
  await assertRefuses(() => assertDecisions([1], [0.5], [0.5 - 3e-6]));
});

Deno.test("normals: as good as WGSL's cosine, or its logarithm near 1", async () => {
  assertNormals([0.9e-3, 3 + 0.9e-3 * 3], [0, 3], [1, 1], [1, 3]);
  await assertRefuses(() => assertNormals([1.1e-3], [0], [1], 1));
  assertNormals([0.9e-3], [0], [1e-3], 1);
  await assertRefuses(() => assertNormals([1.1e-3], [0], [1e-3], 1));
});
