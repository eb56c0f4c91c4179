/** The metrics as a table: every number with its name, bars for the densities, and nothing that is not there. @module */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { metricsTable } from "../../eval/metrics_table.ts";
import { densityHistogram } from "../../eval/metrics.ts";

function tableOf(density: number[], changes: object = {}): string {
  return metricsTable({
    n_rows: 1000,
    mse: 0.00012345,
    nmse: 0.25,
    explained_variance: 0.75,
    cosine: 0.987654,
    norm_ratio: 0.95,
    reconstruction_bias: 0.96,
    l0: 10,
    l1: 123456.7,
    n_dead: density.filter((share) => share === 0).length,
    dead_fraction: 0.5,
    n_almost_dead: 2,
    almost_dead_below: 1e-7,
    n_dense: 1,
    dense_above: 0.01,
    density: Float64Array.from(density),
    density_histogram: densityHistogram(density),
    coherence: { max: 0.8, mean_max: 0.4, per_latent: new Float32Array(density.length) },
    ...changes,
  });
}

/** The table's lines as the words between runs of spaces. */
function cells(table: string): string[][] {
  return table.split("\n").map((line) => line.trim().split(/ {2,}/));
}

Deno.test("every number stands beside its name", () => {
  const table = tableOf([0, 0, 0.002, 0.5]);
  const found = new Map(cells(table).map(([name, value]) => [name, value]));
  assertEquals(
    [...found].slice(0, 17),
    [
      ["reconstruction", undefined],
      ["explained variance", "0.75"],
      ["NMSE (FVU)", "0.25"],
      ["MSE", "0.0001235"],
      ["cosine", "0.9877"],
      ["norm ratio", "0.95"],
      ["bias γ", "0.96"],
      ["", undefined],
      ["codes", undefined],
      ["L0", "10"],
      ["L1", "123500"],
      ["latents", undefined],
      ["dead", "2 (50.0 %)"],
      ["almost dead", "2 (50.0 %)"],
      ["dense", "1 (25.0 %)"],
      ["coherence", "0.8"],
      ["nearest latent", "0.4"],
    ],
  );
  assertStringIncludes(table, "less than 1e-7 of the rows");
  assertStringIncludes(table, "more than 0.01 of the rows");
  assertEquals(table.includes("monosemanticity"), false);
  const scores = { per_latent: new Float64Array(4), n_latents: 3, mean: 0.61 };
  assertStringIncludes(tableOf([0, 0, 0.002, 0.5], { monosemanticity: scores }), "mean over 3 latents");
  assert(table.split("\n").every((line) => line.length < 100 && line === line.trimEnd()));
});

Deno.test("what is not defined is none, with the reason", () => {
  const [still, zero] = ["the rows do not vary", "all rows are zero"];
  const changes = {
    nmse: NaN,
    explained_variance: NaN,
    cosine: NaN,
    norm_ratio: NaN,
    reconstruction_bias: -Infinity,
    coherence: { max: NaN, mean_max: NaN, per_latent: Float32Array.of(NaN) },
    monosemanticity: { per_latent: Float64Array.of(NaN), n_latents: 0, mean: NaN },
  };
  const found = new Map(cells(tableOf([0.5], changes)).map(([name, ...rest]) => [name, rest]));
  const reasons: [name: string, reason: string][] = [
    ["NMSE (FVU)", still],
    ["explained variance", still],
    ["cosine", zero],
    ["norm ratio", zero],
    ["bias γ", "the reconstructions are orthogonal to their rows on average"],
    ["coherence", "there is one latent"],
    ["nearest latent", "there is one latent"],
    ["monosemanticity", "no latent is active on two rows"],
  ];
  for (const [name, reason] of reasons) assertEquals(found.get(name), ["none", reason], name);
  const zeros = cells(tableOf([0.5], { reconstruction_bias: NaN })).find(([name]) => name === "bias γ");
  assertEquals(zeros, ["bias γ", "none", "all reconstructions are zero"]);
});

Deno.test("densities have a bar a decade, from the lowest that is not empty, and one for the dead", () => {
  const bars = (density: number[]) => tableOf(density).split("a latent is active\n")[1]!.split("\n");
  assertEquals(bars([0, 0.002, 0.003, 0.5, 1]), [
    `  never               1 ${"█".repeat(20)}`,
    `  1e-3 to 1e-2        2 ${"█".repeat(40)}`,
    "  1e-2 to 1e-1        0",
    `  1e-1 to 1           2 ${"█".repeat(40)}`,
  ]);
  assertEquals(bars([0, 0]), [`  never               2 ${"█".repeat(40)}`]);
  const low = bars([...new Array<number>(100).fill(1), 1e-9]);
  assertEquals(low.length, 9);
  assertEquals(low.slice(0, 3), [
    "  never                 0",
    "  below 1e-7            1 █",
    "  1e-7 to 1e-6          0",
  ]);
});
