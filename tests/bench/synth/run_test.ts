/**
 * A whole run in a small world, twice.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { architectures, type Benchmark, BENCHMARKS } from "../../../bench/synth/architectures.ts";
import { makeDirections } from "../../../bench/synth/directions.ts";
import type { WorldMetrics } from "../../../bench/synth/metrics.ts";
import { trainInWorld } from "../../../bench/synth/run.ts";
import { Samples } from "../../../bench/synth/samples.ts";
import { makeWorld } from "../../../bench/synth/world.ts";
import { contextOf } from "../../../kernels/engine/device.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { worldConfig } from "./worlds.ts";

const SMALL: Benchmark = {
  ...BENCHMARKS.small,
  world: worldConfig({ frequency: { exponent: 1, most: 0.3, least: 0.01 } }),
  d_sae: 12,
  l0: 1,
  group_sizes: [4, 8],
  batch_size: 64,
  n_steps: 4,
  n_evaluated: 2,
};

/** The numbers of each dictionary of the table that is asked for. */
async function numbers(names: readonly string[], seed: number): Promise<readonly WorldMetrics[]> {
  const context = contextOf(await sharedDevice());
  using directions = makeDirections(context, SMALL.world);
  using samples = new Samples(context, makeWorld(SMALL.world), directions, SMALL.batch_size);
  const found: WorldMetrics[] = [];
  for (const name of names) found.push(await trainInWorld(SMALL, samples, architectures(SMALL)[name]!, seed));
  return found;
}

Deno.test("the same seed gives the same numbers, another others", async () => {
  const first = await numbers(["batch-top-k"], 3);
  assertEquals(await numbers(["batch-top-k"], 3), first);
  assertNotEquals(await numbers(["batch-top-k"], 4), first);
});

Deno.test("every dictionary of the table can be trained", async () => {
  const found = await numbers(Object.keys(architectures(SMALL)), 0);
  for (const metrics of found) assert(Object.values(metrics).every(Number.isFinite), JSON.stringify(metrics));
});

Deno.test("the worlds of the benchmark have the proportions of the published one", () => {
  const { small, full } = BENCHMARKS;
  assertEquals(
    small.world.hierarchy.roots / small.world.n_features,
    full.world.hierarchy.roots / full.world.n_features,
  );
  assertEquals(small.d_sae / small.world.n_features, full.d_sae / full.world.n_features);
  for (const { group_sizes, d_sae } of [small, full]) {
    assertEquals(group_sizes.map((size) => size / d_sae), [1 / 32, 3 / 32, 3 / 8, 1 / 2]);
  }
});
