/**
 * What several runs say, by hand.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { WorldMetrics } from "../../../bench/synth/metrics.ts";
import { line, ranking, summarise } from "../../../bench/synth/summary.ts";
import { assertFloat64Close } from "../../support/tolerance.ts";

function metrics(f1: number, l0 = 5): WorldMetrics {
  return { f1, precision: 0.5, recall: 1, mcc: 0.25, uniqueness: 1, ev: 0.75, l0, n_dead: 2 };
}

Deno.test("the deviation is that of a sample, and one run has none", () => {
  const { metrics: { f1, l0, recall } } = summarise("a", [metrics(0.5, 4), metrics(0.7, 5), metrics(0.9, 6)]);
  assertFloat64Close([f1.mean, f1.deviation, l0.mean, l0.deviation], [0.7, 0.2, 5, 1]);
  assertEquals([recall.mean, recall.deviation], [1, 0]);
  assertEquals(summarise("b", [metrics(0.5)]).metrics.f1, { mean: 0.5, deviation: NaN });
});

Deno.test("a row says when its L0 is not what it was to be", () => {
  const cells = line(summarise("a", [metrics(0.5, 5.2), metrics(0.7, 5.2)]), 5);
  assertEquals([cells.dictionary, cells.L0, cells.F1, cells.dead], ["a", "5.20 ± 0.00", "0.600 ± 0.141", "2.0 ± 0.0"]);
  for (const l0 of [5.26, 4.74]) assertEquals(line(summarise("a", [metrics(0.5, l0)]), 5).L0, `${l0}, not 5`);
});

Deno.test("neighbours rank above one another only by more than two deviations of their difference", () => {
  // Deviations of 0.03 and 0.04: their difference has 0.05.
  const a = (mean: number) => summarise("a", [metrics(mean - 0.03), metrics(mean), metrics(mean + 0.03)]);
  const b = summarise("b", [metrics(0.46), metrics(0.5), metrics(0.54)]);
  assertEquals(ranking([b, a(0.61)], "f1"), "a > b");
  assertEquals(ranking([b, a(0.59)], "f1"), "a ≈ b");
  assertEquals(ranking([b, a(0.39)], "f1"), "b > a");
});
