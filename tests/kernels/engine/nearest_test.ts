/** The nearest name: typing errors are forgiven, other words are not guessed at. @module */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { editDistance, nearest } from "../../../kernels/engine/nearest.ts";

Deno.test("edit distance counts insertions, deletions, replacements and swaps", () => {
  const cases: [string, string, number][] = [
    ["", "", 0],
    ["abc", "", 3],
    ["kitten", "sitting", 3],
    ["stpes", "steps", 1],
    ["lr", "rl", 1],
    ["ca", "abc", 3],
  ];
  for (const [a, b, expected] of cases) assertEquals(editDistance(a, b), expected, `${a} → ${b}`);
});

Deno.test("edit distance is symmetric, and 0 for equal words only", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), (a, b) => {
      assertEquals(editDistance(a, b), editDistance(b, a));
      assertEquals(editDistance(a, b) === 0, a === b);
    }),
    { seed: 1 },
  );
});

Deno.test("the nearest name is found, and none where all are far", () => {
  const names = ["--steps", "--seed", "--out", "--top-k", "--help"];
  assertEquals(nearest("--stpes", names), "--steps");
  assertEquals(nearest("--TOP-K", names), "--top-k");
  assertEquals(nearest("--topk", names), "--top-k");
  assertEquals(nearest("--frequency", names), undefined);
  assertEquals(nearest("x", []), undefined);
});
