/** The lines that a run says of rows, length and result: each on what it is about, none on what is well. @module */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import { adviceOnRows, lengthWarnings, resultWarnings } from "../../runner/advice.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { Random } from "../support/random.ts";

const [N, D] = [6000, 24];

const config = (data: object = {}, train: object = {}) =>
  completeRunConfig({ data: { path: "a.npy", ...data }, train });

/** Rows without fault. */
function good(): Float32Array {
  const random = new Random(1);
  const directions = random.normal(60 * D);
  const x = random.normal(N * D, 0.1);
  for (let row = 0; row < N; row++) {
    for (let use = 0; use < 4; use++) {
      const from = random.integer(0, 59) * D;
      for (let d = 0; d < D; d++) x[row * D + d]! += directions[from + d]!;
    }
  }
  return x;
}

const of = async (x: Float32Array, data: object = {}) => (await adviceOnRows(config(data), rowsOf(x, D))).warnings;
const eachRow = (x: Float32Array, change: (row: number, value: number, d: number) => number) =>
  x.map((value, i) => change(Math.floor(i / D), value, i % D));

Deno.test("rows without fault have no line, however many there are", async () => {
  assertEquals(await of(good()), []);
  for (const rows of [20, 255, 256, 257, 700]) assertEquals(await of(good().subarray(0, rows * D)), [], `${rows}`);
});

Deno.test("a mean far from zero: standardise, and no word once it is", async () => {
  const far = good().map((value) => value + 3);
  const [line, ...others] = await of(far);
  assertStringIncludes(line!, "times as long as the rows' deviations from it; this kills latents");
  assertStringIncludes(line!, 'set data.standardise = "mean"');
  assertEquals(others, []);
  assertEquals((await of(far, { standardise: "scale" })).length, 1);
  for (const standardise of ["mean", "mean_scale"]) assertEquals(await of(far, { standardise }), []);
  const column = eachRow(good(), (_, value, d) => d === 7 ? value + 50 : value);
  assertStringIncludes((await of(column))[0]!, "mostly because of column 7");
});

Deno.test("a column with most of the variance, rows far from all others, padding", async () => {
  const random = new Random(2);
  const column = await of(eachRow(good(), (_, value, d) => d === 5 ? value + 40 * random.normal(1)[0]! : value));
  assertEquals(column.length, 1);
  assertStringIncludes(column[0]!, "column 5 has 9");
  assertStringIncludes(column[0]!, "divide it by its standard deviation");
  const far = await of(eachRow(good(), (row, value) => row % 50 === 0 ? 30 * value : value));
  assertEquals(far.length, 1);
  assertStringIncludes(far[0]!, "times as far from the mean as the median row");
  assertStringIncludes(far[0]!, "remove them");
  const padded = await of(eachRow(good(), (row, value) => row % 9 === 0 ? 0 : value));
  assertEquals(padded.length, 1);
  assertStringIncludes(padded[0]!, "11.1 % of the rows are zero");
});

Deno.test("rows that are zero or alike teach nothing", async () => {
  assertEquals(await of(new Float32Array(N * D)), [
    "all rows in a.npy are zero: there is nothing to learn; set data.path to other rows",
  ]);
  assertEquals(await of(new Float32Array(N * D).fill(0.1)), [
    "all rows in a.npy are equal: there is nothing to learn; set data.path to other rows",
  ]);
});

Deno.test("neighbours that are alike: a larger buffer, where it is small and there are more rows", async () => {
  const x = good();
  const means = new Random(3).normal(12 * D, 2);
  const grouped = eachRow(x, (row, value, d) => value + means[Math.floor(row / 500) * D + d]!);
  const [line] = await of(grouped, { buffer_rows: 2048, standardise: "mean" });
  assertStringIncludes(line!, "only 2,048 rows are shuffled together; set data.buffer_rows to 16,384 or more");
  assertEquals(await of(grouped, { buffer_rows: 6000, standardise: "mean" }), []);
  assertEquals(await of(x, { buffer_rows: 2048 }), []);
});

Deno.test("few steps: how they become more", () => {
  assertEquals(lengthWarnings(config(), 5), [
    "5 steps are too few for a dictionary to form; raise train.n_epochs (now 1) or lower train.batch_size (now 4096)",
  ]);
  assertEquals(lengthWarnings(config({}, { n_steps: 99 }), 99), [
    "99 steps are too few for a dictionary to form; raise train.n_steps (now 99)",
  ]);
  assertEquals(lengthWarnings(config(), 100), []);
});

Deno.test("an NMSE above 1: what mends it depends on what was done", () => {
  const of = (nmse: number, n_steps: number, data: object = {}) =>
    resultWarnings(config(data), { nmse }, { n_steps, on: "validation" });
  const [few] = of(13.85, 5);
  assertStringIncludes(few!, "the NMSE on the validation rows is 13.9, which is worse than predicting the mean row");
  assertStringIncludes(few!, "train for more steps (train.n_epochs, train.batch_size)");
  assertStringIncludes(of(1.2, 500)[0]!, 'set data.standardise = "mean_scale", or lower train.lr');
  assertStringIncludes(of(1.2, 500, { standardise: "mean_scale" })[0]!, "lower train.lr (now 0.0004)");
  assertEquals([of(1, 5), of(0.3, 5), of(NaN, 5)], [[], [], []]);
});
