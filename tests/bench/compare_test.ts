/** What counts as worse between two results of the benches. */

import { assertAlmostEquals, assertEquals } from "@std/assert";
import { compareResults } from "../../bench/compare.ts";

const result = (peak: number, step: number, peer: number) => ({
  products: [{ product: "nt", "% of peak": peak }],
  f16: [{ weights: "encoder", "f16 / f32": step }],
  steps: [{ step: "TopK", phase: "selection", "/ encoder": 0.1 }, { step: "TopK", phase: "total", "/ encoder": step }],
  peers: [{ peer: "other", "ours / this": peer }],
});

Deno.test("compare: a smaller share of the peak is worse, a longer step is worse, a slower ratio to a peer is worse", () => {
  const found = compareResults(result(40, 1.5, 0.5), result(20, 3, 1));
  assertEquals(found.map(({ ratio }) => ratio), [
    "nt, % of peak",
    "encoder, f16 / f32",
    "TopK, / encoder product",
    "time of other, ours / this",
  ]);
  for (const { worse } of found) assertAlmostEquals(worse, 100);
  for (const { worse } of compareResults(result(20, 3, 1), result(40, 1.5, 0.5))) assertAlmostEquals(worse, -50);
});

Deno.test("compare: what only one of the results has is not compared", () => {
  const { products, steps } = result(40, 1.5, 0.5);
  assertEquals(compareResults({ products, steps: [] }, { products: [], steps }), []);
});
