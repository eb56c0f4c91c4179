/**
 * The stability of runs beside that of the same runs before training, and its file.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { rowsOf } from "../../data/mod.ts";
import { measureStability, stabilityMember } from "../../eval/mod.ts";
import { CheckpointError } from "../../io/errors.ts";
import { load, SparseAutoencoder } from "../../mod.ts";
import {
  compareStability,
  completeRunConfig,
  readStability,
  type RunConfig,
  runConfigOf,
  RunDirectory,
  runTraining,
  type StableModel,
  untrainedModel,
  writeStability,
} from "../../runner/mod.ts";
import { Random } from "../support/random.ts";
import { assertTensorClose } from "../support/tolerance.ts";

const [N, D, S] = [600, 8, 32];
/** Each row is along one of sixteen directions. */
const DIRECTIONS = new Random(1).normal(16 * D);
const NOISE = new Random(2).normal(N * D, 0.05);
const ROWS = rowsOf(NOISE.map((value, i) => value + DIRECTIONS[(Math.floor(i / D) * 7 % 16) * D + i % D]!), D);

function configOf(seed: number, init: Record<string, unknown>): RunConfig {
  return completeRunConfig({
    data: { path: "rows", standardise: "mean_scale" },
    sae: { d_sae: S, activation: { key: "top-k", top_k: 1 } },
    init,
    train: { n_steps: 200, batch_size: 64, n_lr_warmup: 0, lr: 1e-2, seed },
  });
}

/** Trains a run in a folder. */
async function trained(folder: string, seed: number, init: Record<string, unknown>): Promise<StableModel> {
  const out = `${folder}/${seed}`;
  await using directory = await RunDirectory.open(out);
  await runTraining(configOf(seed, init), ROWS, { directory });
  return {
    name: String(seed),
    open: () => load(`${out}/sae.pt`),
    untrained: async (sae) =>
      await untrainedModel(
        runConfigOf(await Deno.readTextFile(`${out}/config.json`)),
        sae,
        () => Promise.resolve(ROWS),
      ),
  };
}

Deno.test("runs are compared as they are and as they were before training", async () => {
  const folder = await Deno.makeTempDir();
  const models: StableModel[] = [];
  for (const seed of [0, 1, 2]) models.push(await trained(folder, seed, {}));
  const found = await compareStability(models, {
    threshold: 0.6,
    k: 5,
    data: { name: "rows", open: () => Promise.resolve(ROWS) },
  });
  assertEquals([found.models, found.data, found.pairs.length], [["0", "1", "2"], "rows", 3]);
  const membersOf = async (open: (model: StableModel) => Promise<SparseAutoencoder>) => {
    const members = [];
    for (const model of models) {
      using sae = await open(model);
      members.push(await stabilityMember(sae, { rows: ROWS, k: 5 }));
    }
    return await measureStability(members, { threshold: 0.6 });
  };
  const now = await membersOf(({ open }) => open());
  assertEquals(found.trained.mean_best, now.mean_best);
  assertEquals(found.recurrence, now.recurrence.map((shares) => [...shares]));
  const before = await membersOf(async ({ name, open }) => {
    using sae = await open();
    return await SparseAutoencoder.create(sae.cfg, { seed: Number(name), input: sae.input });
  });
  for (const name of ["mean_best", "mean_recurrence", "share_in_all", "mean_assigned", "mean_jaccard"] as const) {
    assertEquals(found.initial![name], before[name], name);
  }
  assert(found.trained.mean_best > found.initial!.mean_best, "training brings dictionaries of the same rows together");

  const path = `${folder}/stability.json`;
  await writeStability(path, found);
  assertEquals(await readStability(path), found);
  await Deno.writeTextFile(path, "{}");
  await assertRejects(() => readStability(path), CheckpointError, "expected a file that saev stability --out wrote");
  const [first] = models;
  const { initial } = await compareStability([first!, { ...first!, untrained: null }]);
  assertEquals(initial, null);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("initial values from rows are made from the same rows again", async () => {
  const folder = await Deno.makeTempDir();
  const init = { data_points: true, b_dec: "mean" };
  const model = await trained(folder, 3, init);
  using sae = await model.open();
  using before = await model.untrained!(sae);
  const cfg = configOf(3, init);
  await using directory = await RunDirectory.open(`${folder}/short`);
  await runTraining({ ...cfg, train: { ...cfg.train, n_steps: 1, lr: 1e-30 } }, ROWS, { directory });
  using almost = await load(`${folder}/short/sae.pt`);
  const [one, other] = await Promise.all([before, almost].map((model) => model.readParameters()));
  for (const name of ["b_dec", "W_dec"] as const) {
    assertTensorClose(other![name], one![name], name);
  }
  await Deno.remove(folder, { recursive: true });
});
