/**
 * Sampled prefixes: upstream's distribution, and always something to decode with.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { groupPrefixes, samplePrefixes } from "../../objectives/prefixes.ts";
import { loadGoldens } from "../support/goldens.ts";
import { assertSameFrequencies } from "../support/tolerance.ts";

const START = { seed: 0, step: 0 };

for (const { d_sae, n_prefixes, draws, counts_by_length: wanted } of loadGoldens("sample_prefixes")) {
  Deno.test(`samplePrefixes(${d_sae}, ${n_prefixes}): each length as often as upstream`, () => {
    const counts = new Array<number>(d_sae + 1).fill(0);
    for (let step = 0; step < draws; step++) {
      for (const length of samplePrefixes(d_sae, n_prefixes, { seed: 0, step })) counts[length]!++;
    }
    assertSameFrequencies(counts, draws, wanted, draws);
  });
}

Deno.test("samplePrefixes: distinct, ascending, from 1 to d_sae, the last one d_sae", () => {
  const sizes = fc.integer({ min: 1, max: 300 }).chain((d_sae) =>
    fc.tuple(fc.constant(d_sae), fc.integer({ min: 1, max: d_sae }), fc.nat(), fc.nat())
  );
  fc.assert(
    fc.property(sizes, ([d_sae, n_prefixes, seed, step]) => {
      const prefixes = samplePrefixes(d_sae, n_prefixes, { seed, step });
      assertEquals(prefixes.length, n_prefixes);
      assertEquals(prefixes.at(-1), d_sae);
      assert(prefixes.every((length, i) => Number.isInteger(length) && length > (prefixes[i - 1] ?? 0)));
      assertEquals(samplePrefixes(d_sae, n_prefixes, { seed, step }), prefixes);
    }),
    { numRuns: 200, seed: 1 },
  );
});

Deno.test("samplePrefixes: one prefix is everything, as many as latents are all lengths", () => {
  assertEquals(samplePrefixes(9, 1, START), [9]);
  assertEquals(samplePrefixes(4, 4, START), [1, 2, 3, 4]);
  assertEquals(samplePrefixes(2, 2, START), [1, 2]);
});

Deno.test("samplePrefixes: another step or seed draws others", () => {
  const drawn = [[0, 0], [0, 1], [1, 0]].map(([seed, step]) =>
    samplePrefixes(5000, 9, { seed: seed!, step: step! }).join()
  );
  assertEquals(new Set(drawn).size, 3);
});

Deno.test("samplePrefixes: refused where there are not so many lengths", () => {
  for (const n_prefixes of [5, 0, 1.5, NaN]) {
    assertThrows(() => samplePrefixes(4, n_prefixes, START), RangeError, `found ${n_prefixes}`);
  }
});

Deno.test("groupPrefixes: running sums, refused unless they are all latents", () => {
  assertEquals(groupPrefixes([2, 3, 4], 9), [2, 5, 9]);
  for (const sizes of [[], [2, 3], [9, 0], [10, -1], [4.5, 4.5]]) {
    assertThrows(() => groupPrefixes(sizes, 9), RangeError, "add up to d_sae 9");
  }
});
