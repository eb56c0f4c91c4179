/** What rows are, against the definitions, and the rows that made latents die when the thresholds were set. @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { examineRows } from "../../data/examination.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Random } from "../support/random.ts";
import { assertFloat64Close } from "../support/tolerance.ts";

const [N, D] = [60, 5];

/** The definitions, column by column. */
function wanted(x: Float32Array) {
  const columns = Array.from({ length: D }, (_, d) => Array.from({ length: N }, (_, n) => x[n * D + d]!));
  const mean = columns.map((column) => column.reduce((sum, value) => sum + value, 0) / N);
  const variance = columns.map((column, d) => column.reduce((sum, value) => sum + (value - mean[d]!) ** 2, 0) / N);
  const distances = Array.from({ length: N }, (_, n) => Math.hypot(...mean.map((m, d) => x[n * D + d]! - m)));
  return { mean, variance, distances, whole: variance.reduce((sum, v) => sum + v, 0) };
}

Deno.test("γ, the widest column, far rows and groups of neighbours are those of the definitions", () => {
  const random = new Random(1);
  const x = random.normal(N * D).map((value, i) => (i % D === 3 ? 2 : 1) * value + (i % D === 1 ? 4 : 0.5));
  for (const row of [7, 8]) for (let d = 0; d < D; d++) x[row * D + d]! *= 20;
  for (let i = 0; i < 12 * D; i++) x[i]! += 3;
  x.fill(0, 20 * D, 22 * D);
  const found = examineRows(x, D, { blockRows: 12 });
  const { mean, variance, distances, whole } = wanted(x);
  const length = Math.hypot(...mean);
  const median = distances.toSorted((a, b) => a - b)[N / 2]!;
  const far = distances.filter((distance) => distance > 4 * median);
  assertEquals([found.n_rows, found.n_zero, far.length > 0, found.far.n_rows], [N, 2, true, far.length]);
  assertEquals(found.widest.column, variance.indexOf(Math.max(...variance)));
  assertEquals(found.farthest.column, mean.findIndex((m) => Math.abs(m) === Math.max(...mean.map(Math.abs))));
  let between = 0;
  for (let from = 0; from < N; from += 12) {
    for (let d = 0; d < D; d++) {
      const rows = Array.from({ length: 12 }, (_, n) => x[(from + n) * D + d]!);
      between += (rows.reduce((sum, value) => sum + value, 0) / 12 - mean[d]!) ** 2 / (N / 12);
    }
  }
  assertFloat64Close(
    [
      found.variance,
      found.gamma,
      found.widest.share,
      found.farthest.share,
      found.far.largest,
      found.far.share,
      found.between,
    ],
    [
      whole,
      length / Math.sqrt(whole),
      Math.max(...variance) / whole,
      Math.max(...mean.map(Math.abs)) ** 2 / length ** 2,
      Math.max(...distances) / median,
      far.reduce((sum, distance) => sum + distance ** 2, 0) / (N * whole),
      between / whole,
    ],
  );
});

Deno.test("rows that are zero or alike have what they have, and one row too", () => {
  const zero = examineRows(new Float32Array(N * D), D, { blockRows: 10 });
  assertEquals([zero.n_zero, zero.gamma, zero.widest.share, zero.far, zero.between], [
    N,
    0,
    0,
    { largest: 0, n_rows: 0, share: 0 },
    0,
  ]);
  for (const value of [0.1, -3e10, 1e-30]) {
    const alike = examineRows(new Float32Array(N * D).fill(value), D);
    assertEquals([alike.n_zero, alike.gamma, alike.far.n_rows], [0, Infinity, 0], `${value}`);
  }
  assertEquals(examineRows(Float32Array.of(1, 2), 2).gamma, Infinity);
  assert(examineRows(new Random(2).normal(N * D), D, { blockRows: 12 }).between < 0.2, "random order");
});

Deno.test("refused: rows that are not whole, or none", () => {
  assertThrows(() => examineRows(new Float32Array(7), 2), ShapeError, "whole rows of 2 numbers, found 7");
  assertThrows(() => examineRows(new Float32Array(0), 2), ShapeError, "found 0");
});
