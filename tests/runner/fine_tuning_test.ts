/** Runs that start from a checkpoint: what they start from, what they may change, their record, and their resumption. @module */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { shuffledBatches } from "../../data/order.ts";
import { rowRange, rowsOf } from "../../data/rows.ts";
import { dumpBytes, load } from "../../io/checkpoints/checkpoint.ts";
import { getObjective } from "../../objectives/objective.ts";
import { runTraining, type SweepOptions } from "../../runner/run.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { RunDirectory } from "../../runner/run_directory.ts";
import { completeSweep } from "../../runner/sweep_config.ts";
import { train } from "../../train/train.ts";
import { Random } from "../support/random.ts";

const D = 8;
const ROWS = 300;
const GOLDENS = new URL("../goldens/", import.meta.url).pathname;
const source = rowsOf(new Random(1).normal(ROWS * D), D);

function config(
  from: string | undefined,
  changes: { data?: object; sae?: object; init?: object; train?: object } = {},
) {
  return completeRunConfig({
    data: { path: "rows.npy", validation_share: 0.1, ...changes.data },
    sae: { ...changes.sae },
    init: { ...from !== undefined && { from }, ...changes.init },
    train: { batch_size: 30, n_steps: 8, log_every: 2, n_lr_warmup: 2, lr: 0.01, seed: 3, ...changes.train },
  });
}

async function inFolder(use: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await use(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

async function run(path: string, cfg: ReturnType<typeof config>, options: SweepOptions & { from?: string } = {}) {
  await using directory = await RunDirectory.open(path, { start: "auto" });
  return await runTraining(cfg, source, { ...options, directory });
}

const json = async (path: string) => JSON.parse(await Deno.readTextFile(path));

Deno.test("a run from a checkpoint is its model trained on with a new optimizer, and the record says from which file", () =>
  inFolder(async (path) => {
    await run(`${path}/first`, config(undefined, { sae: { d_sae: 16, activation: { key: "top-k", top_k: 2 } } }));
    const file = `${path}/first/sae.pt`;
    const bytes = await Deno.readFile(file);
    // The folder of a run stands for its model.
    const cfg = config(`${path}/first`, { train: { seed: 4 } });
    await run(`${path}/second`, cfg);

    using sae = await load(file);
    const { data, train: { batch_size, lr, seed } } = cfg;
    const order = { batch_size, n_steps: 8, seed, buffer_rows: data.buffer_rows };
    const batches = shuffledBatches(rowRange(source, 0, 0.9 * ROWS), order);
    const objective = getObjective({ key: "vanilla", dead_threshold_tokens: 240 });
    for await (const _ of train(sae, objective, batches, { n_steps: 8, lr, n_lr_warmup: 2 }));
    assertEquals(await Deno.readFile(`${path}/second/sae.pt`), await dumpBytes(sae));

    const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
    assertEquals((await json(`${path}/second/run.json`)).sessions[0].init_from, { path: file, sha256 });
    const { init, sae: written } = await json(`${path}/second/config.json`);
    assertEquals([init.from, written.d_sae, written.activation.top_k], [`${path}/first`, 16, 2]);
  }));

Deno.test("stopped and resumed without the checkpoint, it is as if it had never stopped; with another it is refused", () =>
  inFolder(async (path) => {
    const golden = `${GOLDENS}formats/saelens/topk`;
    const cfg = config("first", { sae: { activation: { key: "top-k", top_k: 3 } } });
    await run(`${path}/whole`, cfg, { from: golden });
    const aborter = new AbortController();
    const stopping = {
      signal: aborter.signal,
      onProgress: ({ step }: { step: number }) => step === 4 && aborter.abort(),
    };
    await run(`${path}/run`, cfg, { ...stopping, from: golden });
    await run(`${path}/run`, cfg, { from: `${path}/gone` });
    for (const name of ["sae.pt", "training.safetensors"]) {
      assertEquals(await Deno.readFile(`${path}/run/${name}`), await Deno.readFile(`${path}/whole/${name}`), name);
    }
    const [begun, resumed] = (await json(`${path}/run/run.json`)).sessions;
    assertEquals(resumed.init_from, begun.init_from);
    // The fields of the file that the configuration leaves out: SAELens does not normalise.
    const { sae } = await json(`${path}/run/config.json`);
    assertEquals([sae.normalize_w_dec, sae.activation.top_k], [false, 3]);
    const refused: [cfg: typeof cfg, message: string][] = [
      [
        config("other", { sae: { activation: { key: "top-k", top_k: 3 } } }),
        'init.from is "first", which cannot be resumed with "other"',
      ],
      [config("first"), ""],
      [config("first", { sae: { activation: { key: "top-k", top_k: 4 } } }), "sae.activation.top_k is 3"],
      [config(undefined, { sae: { activation: { key: "top-k", top_k: 3 } } }), "which cannot be resumed with"],
    ];
    for (const [other, message] of refused) {
      if (message !== "") await assertRejects(() => run(`${path}/run`, other), RangeError, message);
      // A field that is left out is that of the run.
      else assertEquals((await run(`${path}/run`, other)).steps, 8);
    }
  }));

Deno.test("what is not of the checkpoint's shape is refused before a folder is made", () =>
  inFolder(async (path) => {
    const golden = `${GOLDENS}formats/saelens/topk`;
    using sae = await load(golden);
    const { d_sae } = sae.cfg;
    const mistakes: [changes: Parameters<typeof config>[1], message: string][] = [
      [
        { sae: { d_sae: d_sae + 1 } },
        `sae.d_sae is ${d_sae + 1}, but init.from, ${golden}/sae_weights.safetensors, has ${d_sae}`,
      ],
      [{ sae: { d_model: 4 } }, "sae.d_model is 4"],
      [{ sae: { activation: { key: "jump-relu" } } }, "sae.activation.key is jump-relu"],
    ];
    for (const [changes, message] of mistakes) {
      await assertRejects(() => run(`${path}/run`, config(golden, changes)), RangeError, message);
    }
    const narrow = rowsOf(new Float32Array(40 * 4), 4);
    await using directory = await RunDirectory.open(`${path}/run`);
    const attempt = () => runTraining(config(golden), narrow, { directory });
    await assertRejects(attempt, RangeError, "takes rows of width 8, but the rows of rows.npy have width 4");
    assertEquals((await Array.fromAsync(Deno.readDir(`${path}/run`))).map(({ name }) => name), ["run.lock"]);
  }));

Deno.test("a checkpoint excludes other initial values and a scaling, and is swept like any field", () => {
  for (
    const changes of [{ init: { data_points: true } }, { init: { b_dec: "mean" } }, { data: { standardise: "mean" } }]
  ) {
    assertThrows(() => config("a.pt", changes), TypeError, "is set, but init.from is a checkpoint");
  }
  const sweep = completeSweep({ data: { path: "a.npy" }, init: { from: ["a.pt", "b.pt"] } });
  assertEquals(sweep.map(({ cfg, changes }) => [cfg.init.from, changes]), [
    ["a.pt", { "init.from": "a.pt" }],
    ["b.pt", { "init.from": "b.pt" }],
  ]);
});
