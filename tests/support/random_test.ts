/**
 * Test data is reproducible and has the moments it claims.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { paddedWithNaN, Random } from "./random.ts";

Deno.test("the seed decides everything", () => {
  assertEquals(new Random(7).normal(50), new Random(7).normal(50));
  assert(new Random(7).bits() !== new Random(8).bits());
});

Deno.test("normal values have mean 0 and variance 1", () => {
  const values = new Random(1).normal(20_000);
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length;
  const standardErrors = 4 / Math.sqrt(values.length);
  assert(Math.abs(mean) < standardErrors);
  assert(Math.abs(variance - 1) < standardErrors * Math.SQRT2);
});

Deno.test("integers cover their range and nothing else", () => {
  const values = new Random(2).integers(1000, -2, 3);
  assertEquals([...new Set(values)].sort((a, b) => a - b), [-2, -1, 0, 1, 2, 3]);
});

Deno.test("a permutation holds every index once", () => {
  assertEquals([...new Random(3).permutation(40)].sort((a, b) => a - b), Array.from({ length: 40 }, (_, i) => i));
});

Deno.test("padding is NaN and leaves the values", () => {
  assertEquals([...paddedWithNaN(Float32Array.of(1, 2), 2)], [1, 2, NaN, NaN]);
});
