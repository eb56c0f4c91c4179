/** What is gathered of a sweep: runs that are finished, missing, failed, diverged, stopped, under way, damaged. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import { collectSweep, writeCollected } from "../../runner/collect.ts";
import { runSweep, type SweepOptions } from "../../runner/run.ts";
import { RunDirectory } from "../../runner/run_directory.ts";
import { completeSweep, groupRuns } from "../../runner/sweep_config.ts";
import { Random } from "../support/random.ts";

const D = 8;
/** Two runs in each of four groups; in the last, one diverges. */
const CONFIG = {
  data: { path: "a.npy" },
  sae: { d_sae: 16, activation: { key: "top-k", top_k: 2 } },
  train: {
    batch_size: 20,
    n_steps: 12,
    log_every: 2,
    checkpoint_every: 4,
    n_lr_warmup: 0,
    seed: [1, 2, 3, 4],
    lr: [1e-3, 1e9],
  },
};

Deno.test("a sweep whose groups were trained by many is gathered from its folder, with what is missing", async () => {
  const path = await Deno.makeTempDir();
  try {
    const found = { ...CONFIG, train: { ...CONFIG.train, lr: [1e-3, 1e-2] } };
    const sweep = completeSweep(found);
    const groups = groupRuns(sweep.map(({ cfg }) => cfg));
    assertEquals(groups, [[0, 1], [2, 3], [4, 5], [6, 7]]);
    const source = rowsOf(new Random(1).normal(400 * D), D);
    const failing = { ...source, read: () => Promise.reject(new Error("the disk is gone")) };
    const train = async (task: number, options: SweepOptions = {}, rows = source) => {
      const places = groups[task]!;
      await using task_ = await RunDirectory.openTask(path, { n_runs: 8, places, start: "auto", configToml: "x" });
      const runs = places.map((place, i) => ({ cfg: sweep[place]!.cfg, source: rows, directory: task_.runs[i]! }));
      return await runSweep(runs, options);
    };
    await train(0);
    const aborter = new AbortController();
    await train(1, { signal: aborter.signal, onProgress: ({ step }) => step === 6 && aborter.abort() });
    let reads = 0;
    const until = {
      ...source,
      read: (from: number, to: number) => reads++ < 3 ? source.read(from, to) : failing.read(),
    };
    await train(2, {}, until);

    const collected = await collectSweep(path, found);
    const states = ["finished", "finished", "stopped", "stopped", "failed", "failed", "waiting", "waiting"];
    assertEquals(collected.runs.map(({ state }) => state), states);
    assertEquals(collected.missing, [{ task: 1, runs: [2, 3] }, { task: 2, runs: [4, 5] }, { task: 3, runs: [6, 7] }]);
    const [done, , stopped, , failed, , missing] = collected.runs;
    const metrics = JSON.parse(await Deno.readTextFile(`${path}/0/metrics.json`));
    assertEquals([done!.nmse, done!.l0, done!.steps, done!.problem], [
      metrics.metrics.nmse,
      metrics.metrics.l0,
      12,
      null,
    ]);
    assertEquals(done!.changes, { "train.seed": 1, "train.lr": 1e-3 });
    assertEquals([stopped!.steps, stopped!.problem], [6, "stopped at step 6"]);
    assertEquals([failed!.failed, failed!.problem, missing!.problem], [
      "the disk is gone",
      "the disk is gone",
      "not begun",
    ]);

    await writeCollected(path, collected);
    const summary = JSON.parse(await Deno.readTextFile(`${path}/sweep.json`));
    assertEquals(summary.map(({ directory, state }: Record<string, string>) => [directory, state]), [
      ...states.map((state, i) => [String(i), state]),
    ]);

    // While another process has a run, or the whole, that is under way; what is finished stays so.
    {
      await using _ = await RunDirectory.openTask(path, { n_runs: 8, places: [2], start: "auto", configToml: "x" });
      assertEquals((await collectSweep(path, found)).runs[2]!.state, "training");
    }
    {
      await using _ = await RunDirectory.openSweep(path, 8, { start: "auto" });
      const during = (await collectSweep(path, found)).runs.map(({ state }) => state);
      assertEquals(during.slice(0, 4), ["finished", "finished", "training", "training"]);
    }

    // Continued, it is the sweep that was never stopped.
    for (const task of [1, 2, 3]) await train(task);
    const whole = await collectSweep(path, found);
    assertEquals([whole.missing, whole.runs.every(({ state }) => state === "finished")], [[], true]);
    const other = `${path}/whole`;
    await using directories = await RunDirectory.openSweep(other, 8);
    await runSweep(sweep.map(({ cfg }, i) => ({ cfg, source, directory: directories.runs[i]! })));
    for (let i = 0; i < 8; i++) {
      assertEquals(await Deno.readFile(`${path}/${i}/sae.pt`), await Deno.readFile(`${other}/${i}/sae.pt`), `run ${i}`);
    }
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("a run that diverged, or whose state is damaged, and a folder of one run", async () => {
  const path = await Deno.makeTempDir();
  try {
    const found = { ...CONFIG, train: { ...CONFIG.train, seed: 1 } };
    const sweep = completeSweep(found);
    const source = rowsOf(new Random(1).normal(400 * D), D);
    {
      await using directories = await RunDirectory.openSweep(path, 2);
      await runSweep(sweep.map(({ cfg }, i) => ({ cfg, source, directory: directories.runs[i]! })));
    }
    const [good, bad] = (await collectSweep(path, found)).runs;
    assertEquals([good!.state, bad!.state], ["finished", "diverged"]);
    assertStringIncludes(bad!.problem!, "training stopped at step");
    const one = { ...found, train: { ...found.train, lr: 1e-3 } };
    assertEquals((await collectSweep(`${path}/0`, one)).runs.map(({ state }) => state), ["finished"]);
    await Deno.remove(`${path}/0/metrics.json`);
    const state = await Deno.readFile(`${path}/0/training.safetensors`);
    await Deno.writeFile(`${path}/0/training.safetensors`, state.subarray(0, 100));
    const [damaged] = (await collectSweep(path, found)).runs;
    assert(damaged!.state === "failed" && damaged!.problem!.includes("training.safetensors"), damaged!.problem!);
    await assertRejects(
      () => collectSweep(path, one),
      RangeError,
      "its config.toml describes 1 runs, and its run.json 2",
    );
    await assertRejects(() => collectSweep(`${path}/none`, one), RangeError, "found no run.json");
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});
