/**
 * A synthetic world's numbers: frequencies, what the hierarchy asks of them, thresholds and factors.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { makeWorld, normalCdf, quantile } from "../../../bench/synth/world.ts";
import { assertFloat64Close } from "../../support/tolerance.ts";
import { parentsOf, worldConfig } from "./worlds.ts";

Deno.test("Φ and its inverse are those of the tables", () => {
  const table = [
    [0, 0.5],
    [1, 0.841344746068542948585],
    [-2, 0.022750131948179207200],
    [1.959963984540054235525, 0.975],
    [-3.090232306167813541541, 0.001],
    [-5, 2.86651571879193911e-7],
  ] as const;
  for (const [x, p] of table) {
    assertFloat64Close([normalCdf(x)], [p], `Φ(${x})`);
    assertFloat64Close([normalCdf(quantile(p))], [p], `Φ of the quantile of ${p}`);
  }
});

Deno.test("frequencies fall with a power of the rank from the most to the least", () => {
  const { frequency_F } = makeWorld(
    worldConfig({ n_features: 9, frequency: { exponent: 0.5, most: 0.4, least: 0.1 } }),
  );
  const share = (rank: number) => (1 / Math.sqrt(rank) - 1 / 3) / (1 - 1 / 3);
  assertFloat64Close(frequency_F, Array.from({ length: 9 }, (_, f) => 0.1 + 0.3 * share(f + 1)));
  assertFloat64Close([frequency_F[0]!, frequency_F[8]!], [0.4, 0.1]);
});

Deno.test("nodes are counted level by level, and more nodes than features are refused", () => {
  const hierarchy = { roots: 2, branching: 3, depth: 2 };
  const world = makeWorld(worldConfig({ n_features: 30, hierarchy }));
  assertEquals(world.levels, [
    { firstParent: 0, parents: 2, firstChild: 2 },
    { firstParent: 2, parents: 6, firstChild: 8 },
  ]);
  const parent_F = parentsOf(world);
  assertEquals([...parent_F.subarray(0, 8)], [-1, -1, 0, 0, 0, 1, 1, 1]);
  assertEquals([parent_F[8], parent_F[10], parent_F[11], parent_F[25]], [2, 2, 3, 7]);
  assertEquals([...parent_F.subarray(26)], [-1, -1, -1, -1]);
  assertThrows(() => makeWorld(worldConfig({ n_features: 25, hierarchy })), RangeError, "26 nodes");
});

Deno.test("a child is proposed as often as its parent and its siblings take from it, at most always", () => {
  const { frequency_F: p, proposed_F: q, threshold_F } = makeWorld(
    worldConfig({ n_features: 8, hierarchy: { roots: 1, branching: 2, depth: 1 } }),
  );
  assertFloat64Close([q[1]!, q[2]!], [
    Math.min(1, p[1]! / p[0]! * (1 + p[2]! / p[0]!)),
    Math.min(1, p[2]! / p[0]! * (1 + p[1]! / p[0]!)),
  ]);
  assertFloat64Close([q[0]!, ...q.subarray(3)], [p[0]!, ...p.subarray(3)], "roots and free features");
  assertFloat64Close(threshold_F.map((t) => normalCdf(-t)), q, "Φ(−t)");
});

Deno.test("what features share and what is their own make a variance of 1, however large the scale", () => {
  for (const scale of [0, 0.1, 10]) {
    const { factor_FR, own_F, cfg } = makeWorld(worldConfig({ correlation: { rank: 3, scale } }));
    const variance = own_F.map((own, f) =>
      own ** 2 + factor_FR.subarray(3 * f, 3 * f + 3).reduce((sum, value) => sum + value ** 2, 0)
    );
    assertFloat64Close(variance, new Float64Array(cfg.n_features).fill(1), `scale ${scale}`);
  }
});
