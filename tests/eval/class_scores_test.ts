/**
 * AUROC over all pairs and average precision over all thresholds, against the sums that need one sort.
 *
 * @module
 */

import { assertAlmostEquals, assertEquals } from "@std/assert";
import { type ClassScore, classScores, purity } from "../../eval/class_scores.ts";
import { Random } from "../support/random.ts";

/** By the definitions, with silent examples written out. */
function byDefinition(values: readonly number[], classOf: readonly number[], nClasses: number): ClassScore[] {
  return Array.from({ length: nClasses }, (_, c) => {
    const inside = values.filter((_, i) => classOf[i] === c);
    const outside = values.filter((_, i) => classOf[i] !== c);
    let wins = 0;
    for (const a of inside) for (const b of outside) wins += a > b ? 1 : a === b ? 0.5 : 0;
    let [precision, recall] = [0, 0];
    for (const threshold of [...new Set(values)].sort((a, b) => b - a)) {
      const [above, hits] = [values, inside].map((list) => list.filter((value) => value >= threshold).length);
      precision += (hits! / inside.length - recall) * (hits! / above!);
      recall = hits! / inside.length;
    }
    return { auroc: wins / (inside.length * outside.length), average_precision: inside.length ? precision : NaN };
  });
}

Deno.test("AUROC and average precision are those of the definitions, with ties and silent examples", () => {
  const random = new Random(1);
  for (let round = 0; round < 60; round++) {
    const [n, nClasses] = [random.integer(1, 40), random.integer(1, 5)];
    const classOf = Array.from({ length: n }, () => random.integer(0, nClasses - 1));
    const isRound = round % 2 === 0;
    const isSigned = round % 3 === 0;
    const values = Array.from(random.normal(n), (value) => {
      const found = isRound ? Math.round(2 * value) : value;
      return isSigned ? found : Math.max(0, found);
    });
    // A zero may be listed, and is one of the silent ones all the same.
    const listed = values.flatMap((value, i) => value !== 0 || (isSigned && i % 2 === 0) ? [i] : []);
    const counts = Array.from({ length: nClasses }, (_, c) => classOf.filter((found) => found === c).length);
    const got = classScores(listed.map((i) => values[i]!), listed.map((i) => classOf[i]!), counts);
    for (const [c, want] of byDefinition(values, classOf, nClasses).entries()) {
      for (const name of ["auroc", "average_precision"] as const) {
        if (Number.isNaN(want[name])) assertEquals(got[c]![name], NaN, `${name} of round ${round}, class ${c}`);
        else assertAlmostEquals(got[c]![name], want[name], 1e-12, `${name} of round ${round}, class ${c}`);
      }
    }
  }
});

Deno.test("a latent that fires on one class alone is perfect, and one that never fires is a guess", () => {
  assertEquals(classScores([3, 2, 1], [1, 1, 1], [5, 3]), [
    { auroc: 0, average_precision: 5 / 8 },
    { auroc: 1, average_precision: 1 },
  ]);
  assertEquals(classScores([], [], [2, 6]).map(({ auroc }) => auroc), [0.5, 0.5]);
});

Deno.test("purity is the share of the commonest class", () => {
  assertEquals(purity([1, 1, 2, 3]), 0.5);
  assertEquals(purity([7]), 1);
  assertEquals(purity([]), NaN);
});
