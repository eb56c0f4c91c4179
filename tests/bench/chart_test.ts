/** The chart of the steps: bars and text. */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { stackedBars } from "../../bench/chart.ts";

Deno.test("chart: parts lie end to end, lengths are to scale, text is escaped", () => {
  const svg = stackedBars("a < b", [
    { label: "one", parts: [["encoder", 1], ["rest", 0.5]] },
    { label: "two", parts: [["encoder", 1], ["rest", 2]] },
  ]);
  assertStringIncludes(svg, "a &#60; b");
  const bars = [...svg.matchAll(/<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="22"/g)].map(([, x, width]) => ({
    x: Number(x),
    width: Number(width),
  }));
  assertEquals(bars.length, 4);
  const [first, second, third, fourth] = bars as [typeof bars[0], typeof bars[0], typeof bars[0], typeof bars[0]];
  assertEquals(first.x + first.width, second.x);
  assertEquals(third.x + third.width, fourth.x);
  assertEquals(first.width, third.width);
  assertEquals(fourth.width, 4 * second.width);
});
