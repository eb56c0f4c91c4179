/**
 * Rows of a synthetic world: the same from the same seed, and distributed as the world says.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { makeDirections } from "../../../bench/synth/directions.ts";
import { Samples } from "../../../bench/synth/samples.ts";
import { makeWorld, type World, type WorldConfig } from "../../../bench/synth/world.ts";
import { contextOf } from "../../../kernels/engine/device.ts";
import type { CodeArrays } from "../../../nn/codes.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { assertFrequencies, assertSameBits, assertSumClose, assertTensorClose } from "../../support/tolerance.ts";
import { parentsOf, worldConfig } from "./worlds.ts";

/** Draws batches of a world and hands out what they are made of. */
async function draw(
  cfg: WorldConfig,
  n_rows: number,
  n_batches: number,
  see: (truth: CodeArrays, samples: Samples) => void | Promise<void>,
): Promise<World> {
  const context = contextOf(await sharedDevice());
  const world = makeWorld(cfg);
  using directions = makeDirections(context, cfg);
  using samples = new Samples(context, world, directions, n_rows);
  for (const _ of samples.batches(7, n_batches)) await see(await samples.truth.read(), samples);
  return world;
}

/** The features of each row. */
function* rowsOf({ row_starts, indices }: CodeArrays): Generator<Uint32Array> {
  for (let row = 0; row + 1 < row_starts.length; row++) yield indices.subarray(row_starts[row], row_starts[row + 1]);
}

const FAMILIES = worldConfig({
  hierarchy: { roots: 2, branching: 4, depth: 2 },
  n_features: 50,
  frequency: { exponent: 0.5, most: 0.9, least: 0.2 },
  correlation: { rank: 3, scale: 0 },
});

Deno.test("a seed and a step give the same bits in another object and in any order, others give others", async () => {
  const context = contextOf(await sharedDevice());
  const made: Record<string, Float32Array>[] = [];
  for (const order of [[0, 1, 2], [2, 0, 1]]) {
    const world = makeWorld(FAMILIES);
    using directions = makeDirections(context, { ...FAMILIES, orthogonalisation: { steps: 3, lr: 1e-2 } });
    using samples = new Samples(context, world, directions, 33);
    const found: Record<string, Float32Array> = {};
    for (const step of order) {
      for (const seed of [3, 2 ** 40 + 3]) {
        samples.make({ seed, step });
        found[`${seed} ${step}`] = await samples.x.read();
      }
    }
    made.push(found);
  }
  const [first, second] = made as [Record<string, Float32Array>, Record<string, Float32Array>];
  for (const [at, x] of Object.entries(first)) assertSameBits(second[at]!, x, at);
  const values = Object.values(first);
  assertEquals(values.length, 6);
  for (const x of values) for (const y of values) if (x !== y) assertNotEquals(x, y);
});

Deno.test("a row is the bias and its features' directions times their strengths", async () => {
  const { d_model } = FAMILIES;
  await draw(FAMILIES, 13, 1, async ({ row_starts, indices, values }, { x, directions, bias_D }) => {
    const [x_BD, directions_FD] = [await x.read(), await directions.read()];
    const want = new Float64Array(x_BD.length);
    const size = new Float64Array(x_BD.length);
    for (let row = 0; row < 13; row++) {
      for (let d = 0; d < d_model; d++) {
        const at = row * d_model + d;
        const terms = [bias_D[d]!];
        for (let entry = row_starts[row]!; entry < row_starts[row + 1]!; entry++) {
          terms.push(values[entry]! * directions_FD[indices[entry]! * d_model + d]!);
        }
        want[at] = terms.reduce((sum, term) => sum + term, 0);
        size[at] = terms.reduce((sum, term) => sum + Math.abs(term), 0);
      }
    }
    assertSumClose(x_BD, want, size, FAMILIES.n_features + 1);
    assertTensorClose([Math.hypot(...bias_D)], [FAMILIES.bias], "length of the bias");
  });
});

Deno.test("however much they correlate, features fire as often as they should", async () => {
  const counts = new Float64Array(40);
  const world = await draw(worldConfig(), 512, 8, ({ indices }) => indices.forEach((f) => counts[f]!++));
  assertFrequencies(counts, 512 * 8, world.frequency_F);
});

Deno.test("two features that fire half of the time fire together as their correlation says", async () => {
  const cfg = worldConfig({
    n_features: 6,
    frequency: { exponent: 0.5, most: 0.5, least: 0.5 },
    correlation: { rank: 1, scale: 1 },
  });
  const together = new Float64Array(36);
  const { factor_FR } = await draw(cfg, 512, 8, (truth) => {
    for (const on of rowsOf(truth)) for (const f of on) for (const g of on) together[f * 6 + g]!++;
  });
  // Φ₂(0, 0; ρ) = ¼ + asin ρ / 2π.
  const want = Float64Array.from(together, (_, i) => {
    const [f, g] = [Math.floor(i / 6), i % 6];
    return f === g ? 0.5 : 0.25 + Math.asin(factor_FR[f]! * factor_FR[g]!) / (2 * Math.PI);
  });
  assert(want.some((p) => p > 0.4) && want.some((p) => p < 0.1), "some correlate much, for and against");
  assertFrequencies(together, 512 * 8, want);
});

Deno.test("no child without its parent, no two children of one, and each as often as its rivals leave it", async () => {
  const counts = new Float64Array(50);
  const parent_F = parentsOf(makeWorld(FAMILIES));
  const { proposed_F } = await draw(FAMILIES, 512, 8, (truth) => {
    for (const on of rowsOf(truth)) {
      const parents = [...on].map((f) => parent_F[f]!).filter((parent) => parent >= 0);
      assertEquals(new Set(parents).size, parents.length, "one child of each parent");
      for (const parent of parents) assert(on.includes(parent), `${on} has a child of ${parent}`);
      for (const f of on) counts[f]!++;
    }
  });
  const want = Float64Array.from(proposed_F);
  for (let f = 0; f < 50; f++) {
    const parent = parent_F[f]!;
    if (parent < 0) continue;
    const rivals = [...parent_F.keys()].filter((g) => g !== f && parent_F[g] === parent);
    // Against each set of rivals that is on, an even chance.
    let chance = 0;
    for (let set = 0; set < 2 ** rivals.length; set++) {
      const isOn = (k: number) => (set >> k & 1) === 1;
      const p = rivals.reduce((product, g, k) => product * (isOn(k) ? proposed_F[g]! : 1 - proposed_F[g]!), 1);
      chance += p / (1 + rivals.filter((_, k) => isOn(k)).length);
    }
    want[f] = want[parent]! * proposed_F[f]! * chance;
  }
  assertFrequencies(counts, 512 * 8, want);
});
