/** Runs on rows, and with settings, that make no dictionary: what is said, what is written, what is an error. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { rowsOf } from "../../data/rows.ts";
import { completeRunConfig, type RunConfig } from "../../runner/run_config.ts";
import { RunDirectory } from "../../runner/run_directory.ts";
import { type RunResult, runSweep, runTraining, type SweepOptions } from "../../runner/run.ts";
import { DivergenceError } from "../../train/train.ts";
import { haltedAt } from "../reference/training.ts";
import { Random } from "../support/random.ts";

const [N, D] = [6000, 8];
const rows = (n = N) => new Random(1).normal(n * D);

function config(train: object = {}, data: object = {}, sae: object = {}): RunConfig {
  return completeRunConfig({
    data: { path: "rows.f32", d_model: D, validation_share: 0.1, ...data },
    sae: { d_sae: 32, activation: { key: "top-k", top_k: 2 }, ...sae },
    train: { batch_size: 50, lr: 0.01, ...train },
  });
}

/** A run in a folder of its own, which is there until the test is over. */
async function attempt(cfg: RunConfig, x: Float32Array, options: SweepOptions = {}) {
  const path = await Deno.makeTempDir();
  const directory = await RunDirectory.open(path);
  const warnings: [warning: string, run: number][] = [];
  const onWarning = (warning: string, run: number) => warnings.push([warning, run]);
  const running = runTraining(cfg, rowsOf(x, D), { onWarning, ...options, directory });
  let result: RunResult | undefined;
  let error: unknown;
  try {
    result = await running;
  } catch (thrown) {
    error = thrown;
  }
  const saved = await directory.openTraining();
  return {
    result,
    error,
    warnings,
    saved,
    json: async (name: string) => JSON.parse(await Deno.readTextFile(`${path}/${name}`)),
    text: (name: string) => Deno.readTextFile(`${path}/${name}`),
    sae: () => load(`${path}/sae.pt`),
    [Symbol.asyncDispose]: async () => {
      await directory[Symbol.asyncDispose]();
      await Deno.remove(path, { recursive: true });
    },
  };
}

Deno.test("a run that cannot become a dictionary says why, before and after, and in its record", async () => {
  const cfg = config({ batch_size: 1000, lr: 1e-3 }, {}, { d_sae: 8, activation: { key: "top-k", top_k: 12 } });
  await using found = await attempt(cfg, rows().map((value) => value + 100));
  const lines = found.warnings.map(([line]) => line);
  const said = [
    "5 steps are too few for a dictionary to form; raise train.n_epochs (now 1) or lower train.batch_size (now 1000)",
    "the mean row is ",
    "top_k keeps every latent on every row: top_k is 12, d_sae is 8",
    "n_dead stays 0: a latent counts as dead after dead_threshold_tokens 8,000 rows, but there are only 5,000",
    "the NMSE on the validation rows is ",
  ];
  assertEquals(lines.length, said.length, lines.join("\n"));
  said.forEach((start, i) => assertStringIncludes(lines[i]!, start));
  assertEquals([(await found.json("metrics.json")).warnings, found.result!.warnings], [lines, lines]);
});

Deno.test("a run without fault says nothing", async () => {
  await using found = await attempt(config(), rows());
  assertEquals([found.warnings, found.result!.warnings, (await found.json("metrics.json")).warnings], [[], [], []]);
});

Deno.test("each run of a sweep has its own warnings, by its place", async () => {
  const path = await Deno.makeTempDir();
  try {
    const cfgs = [config({ n_steps: 120 }), config({ n_steps: 120, n_lr_warmup: 500 }), config({ n_steps: 3 })];
    await using directories = await RunDirectory.openSweep(path, cfgs.length);
    const runs = cfgs.map((cfg, i) => ({ cfg, source: rowsOf(rows(2000), D), directory: directories.runs[i]! }));
    const places: number[] = [];
    const results = await runSweep(runs, { onWarning: (_, run) => places.push(run) });
    assertEquals(results.map(({ warnings }) => warnings.length > 0), [false, true, true]);
    assertStringIncludes(results[1]!.warnings[0]!, "n_lr_warmup is 500 and the run has 120 steps");
    assertEquals([...new Set(places)], [1, 2]);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("rows that do not vary: no NMSE, and the reason wherever it would stand", async () => {
  await using found = await attempt(config(), new Float32Array(N * D).fill(0.5));
  assertStringIncludes(found.warnings[0]![0], "all rows in rows.f32");
  const { metrics, undefined_metrics: reasons } = await found.json("metrics.json");
  assertEquals([metrics.nmse, reasons.nmse], [null, "the rows do not vary"]);
  const report = await found.text("report.html");
  assertStringIncludes(report, "the rows do not vary");
  assertEquals(report.includes(">NaN"), false);
});

Deno.test("a row that is not finite is named: at once where it is looked at, in training, in the evaluation", async () => {
  // Not among the rows that are looked at first, which are 0 to 255, 342 to 597, and so on.
  const unseen = 300;
  const at = (row: number, column: number) => rows().with(row * D + column, NaN);
  await using seen = await attempt(config(), at(350, 3));
  assert(seen.error instanceof RangeError && seen.saved === undefined);
  assertStringIncludes(seen.error.message, "rows.f32: row 350 has NaN in column 3; remove rows that are not finite");

  await using trained = await attempt(config({ log_every: 7 }), at(unseen, 5));
  assert(trained.error instanceof DivergenceError);
  const { step, tensor, message } = trained.error;
  assertEquals(tensor, "x");
  assertStringIncludes(
    message,
    `training stopped at step ${step}: x has a value that is not finite; rows.f32: row 300 has`,
  );
  assertStringIncludes(message, "NaN in column 5");
  // Nothing was wrong before: the checkpoint is of that very step.
  assertEquals(trained.saved!.step, step);
  assertEquals((await trained.json("metrics.json")).losses.loss.length, step);
  using sae = await trained.sae();
  assert((await sae.readParameters()).W_dec.every(Number.isFinite));

  await using evaluated = await attempt(config(), at(5900, 1));
  assert(evaluated.error instanceof RangeError);
  assertStringIncludes(evaluated.error.message, "rows.f32: row 5900 has NaN in column 1");
  // The model is trained, and the record has its losses and says why there are no metrics.
  const { losses, metrics, not_evaluated: why, isInterrupted } = await evaluated.json("metrics.json");
  assertEquals([evaluated.saved!.step, losses.loss.length, metrics, isInterrupted], [108, 108, null, false]);
  assertStringIncludes(why, "row 5900 has NaN in column 1");
  await using scaled = await attempt(config({}, { standardise: "mean" }), at(unseen, 2));
  assertStringIncludes(String(scaled.error), "rows.f32: row 300 has NaN in column 2");
});

Deno.test("eight rows a thousand times as large, among 8192, do not end a run; they are said before it", async () => {
  const n = 8192;
  const x = rows(n).map((value, i) => Math.floor(i / D) % 1000 === 100 ? 1e3 * value : value);
  await using found = await attempt(config({ batch_size: 64, n_epochs: 1, log_every: 10 }), x);
  assertEquals([found.error, found.result?.steps], [undefined, 115]);
  assert(found.warnings.some(([line]) => line.includes("times as far from the mean as the median row")));
  const { losses } = await found.json("metrics.json");
  assert(losses.mse.some((mse: number) => mse > 1e4 * losses.mse[0]), "some steps are far above the others");
});

Deno.test("rows too large for float32 are named, and the checkpoint is of the step before them", async () => {
  const x = rows().map((value, i) => Math.floor(i / D) === 300 && i % D === 2 ? -1e14 : value);
  await using found = await attempt(config({ log_every: 9 }), x);
  assert(found.error instanceof DivergenceError);
  assert(found.error.isOfRows && found.error.tensor !== "x", found.error.message);
  assertStringIncludes(
    found.error.message,
    "rows.f32: row 300 has -100000000376832 in column 2; remove rows that are too",
  );
  assertEquals(found.saved!.step, found.error.step);
});

Deno.test("after an explosion the folder holds the last good checkpoint, and no other", async () => {
  // The rate grows until the model breaks.
  const rising = { lr: 1e7, n_lr_warmup: 1_000_000, grad_clip: false, log_every: 1, checkpoint_every: 1 };
  await using found = await attempt(config({ ...rising, n_steps: 500 }), rows().map((value) => 1e-2 * value));
  assert(found.error instanceof DivergenceError && found.error.tensor === "x_hat");
  assertStringIncludes(found.error.message, "lower lr or raise n_lr_warmup");
  const { losses } = await found.json("metrics.json");
  const { step } = found.saved!;
  // The two steps before the one that halted were above the bound, and are in no checkpoint.
  assertEquals(step, found.error.step - 2);
  assertEquals(haltedAt([...losses.mse.slice(0, step + 2), Infinity]), step + 2, "the reference halts there too");

  await using early = await attempt(config({ ...rising, checkpoint_every: 1000 }), rows().map((value) => 1e-2 * value));
  assert(early.error instanceof DivergenceError);
  assertEquals(early.saved, undefined);
  await assertRejects(() => early.sae(), Error, "there is no such file");
});
