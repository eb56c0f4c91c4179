/** A whole run on a small matrix: its files, its determinism, its end by a signal. @module */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { VERSION } from "../../io/checkpoints/saev_schemas.ts";
import { CheckpointError } from "../../io/errors.ts";
import { DeviceError } from "../../kernels/engine/errors.ts";
import { defaultDevice } from "../../kernels/engine/self_check.ts";
import { completeConfig } from "../../nn/config.ts";
import { initialParametersFromData } from "../../nn/initial_values.ts";
import { rowsOf } from "../../data/rows.ts";
import type { RowSource } from "../../nn/rows.ts";
import { measureScaling } from "../../data/scaling.ts";
import { completeRunConfig, type RunConfig } from "../../runner/run_config.ts";
import { completeSweep, groupRuns, type SweptConfig } from "../../runner/sweep_config.ts";
import { parse } from "@std/toml";
import type { ReportData } from "../../runner/pages/data.ts";
import { RunDirectory, type RunStart } from "../../runner/run_directory.ts";
import { type RunPlan, runSweep, runTraining, type SweepOptions } from "../../runner/run.ts";
import type { ProgressState } from "../../runner/terminal.ts";
import { DivergenceError } from "../../train/train.ts";
import { Random } from "../support/random.ts";
import { assertRunLosses, assertTensorClose } from "../support/tolerance.ts";

const D = 8;
const ROWS = 600;

/** Sparse mixtures of sixteen directions. */
function mixtures(): Float32Array {
  const random = new Random(1);
  const directions = random.normal(16 * D);
  const data = new Float32Array(ROWS * D);
  for (let row = 0; row < ROWS; row++) {
    for (let use = 0; use < 2; use++) {
      const [direction, weight] = [random.integer(0, 15), 1 + random.unit()];
      for (let d = 0; d < D; d++) data[row * D + d]! += 5 + weight * directions[direction * D + d]!;
    }
  }
  return data;
}

function config(changes: { data?: object; sae?: object; init?: object; train?: object } = {}): RunConfig {
  return completeRunConfig({
    data: { path: "mixtures.f32", d_model: D, validation_share: 0.1, ...changes.data },
    sae: { d_sae: 32, activation: { key: "top-k", top_k: 2 }, ...changes.sae },
    init: { ...changes.init },
    objective: { key: "matryoshka", n_prefixes: 2 },
    train: { batch_size: 30, n_epochs: 2, lr: 0.01, n_lr_warmup: 5, seed: 3, ...changes.train },
  });
}

/** The files that a run leaves, which is stopped at a step if one is given. */
async function runIn(cfg: RunConfig, stopAt?: number, options: SweepOptions = {}) {
  const path = await Deno.makeTempDir();
  try {
    await using directory = await RunDirectory.open(path);
    const shown: number[] = [];
    const aborter = new AbortController();
    const result = await runTraining(cfg, rowsOf(mixtures(), D), {
      ...options,
      directory,
      onStart: (plan) => {
        options.onStart?.(plan);
        if (stopAt === 0) aborter.abort();
      },
      onProgress: ({ step }) => {
        shown.push(step);
        if (step === stopAt) aborter.abort();
      },
      signal: aborter.signal,
    });
    const files = new Map<string, Uint8Array>();
    for await (const { name } of Deno.readDir(path)) {
      if (name !== "run.lock") files.set(name, await Deno.readFile(`${path}/${name}`));
    }
    const json = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name)));
    return { result, files, json, shown };
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** What the page of a run was given. */
function reportOf(html: Uint8Array): ReportData {
  const [, json] = /<script type="application\/json" id="data">(.*)<\/script>/.exec(new TextDecoder().decode(html))!;
  return JSON.parse(json!);
}

Deno.test("no file and no message of a run has the password or the signature of its rows' address", async () => {
  const path = "https://us3r:p4ss@host/a.npy?Signature=s3cret";
  const secrets = /us3r|p4ss|s3cret/;
  const { files, json } = await runIn(config({ data: { path }, train: { n_epochs: 0.2 } }));
  for (const [name, bytes] of files) assert(!secrets.test(new TextDecoder("latin1").decode(bytes)), name);
  assertEquals(json("config.json").data.path, "https://host/a.npy");
  const few = config({ data: { path }, train: { batch_size: 1000, n_epochs: 0.1 } });
  const error = await assertRejects(() => runIn(few), RangeError, "https://host/a.npy has 540 rows to train on");
  assertStringIncludes(error.message, "train.n_epochs 0.1 of these are too few for a batch of 1000");
  assert(!secrets.test(error.message));
});

Deno.test("a run leaves a checkpoint, metrics, a report and its configuration, the same every time", async () => {
  const { result, files, json, shown } = await runIn(config());
  assertEquals([...files.keys()].sort(), [
    "config.json",
    "metrics.json",
    "metrics.jsonl",
    "report.html",
    "run.json",
    "sae.pt",
    "training.safetensors",
  ]);
  assertEquals(result.steps, 2 * 540 / 30);
  assertEquals(shown, [25, 36]);
  assertEquals(result.metrics!.n_rows, 60);
  assertEquals(result.evaluated_on, "validation");
  const metrics = json("metrics.json");
  assertEquals(Object.keys(metrics.losses), [
    ...["loss", "mse", "sparsity", "l0", "l1", "aux", "n_dead", "sparsity_coeff", "grad_norm"],
    ...["W_enc", "b_enc", "W_dec", "b_dec", "threshold"].map((name) => `grad_norms.${name}`),
  ]);
  for (const column of Object.values<number[]>(metrics.losses)) assertEquals(column.length, result.steps);
  assert(metrics.losses.grad_norm.every((norm: number) => norm > 0));
  assertEquals(metrics.metrics.nmse, result.metrics!.nmse);
  assertEquals([metrics.metrics.density.length, metrics.metrics.coherence.per_latent.length], [32, 32]);
  const { max, mean_max: mean } = metrics.metrics.coherence;
  assert(0 < mean && mean < max && max <= 1, `coherence ${mean}, ${max}`);
  const report = reportOf(files.get("report.html")!);
  assertEquals(report.numbers.map(({ label }) => label), [
    ...["NMSE", "Cosine", "Active latents", "Dead latents", "Dense latents", "Coherence", "Speed"],
  ]);
  assertEquals(report.curves.map(({ title, x }) => [title, x.length]), [
    ["Loss", 36],
    ["L0, active latents per row", 36],
    ["Dead latents", 36],
    ["NMSE of 60 validation rows", 1],
    ["Learning rate", 36],
    ["Norm of the gradient, before clipping", 36],
  ]);
  assertEquals(report.curves[4]!.y.slice(0, 3), [0, 0.002, 0.004], "the rate warms up");
  assertEquals(report.warnings, result.warnings);
  assert(report.warnings.length > 0);
  const [gradients, versions] = report.tables;
  assertEquals(gradients!.columns, ["step", "loss", "norm", "W_enc", "b_enc", "W_dec", "b_dec"]);
  assertEquals(gradients!.rows[0]![2], Math.max(...metrics.losses.grad_norm));
  assertEquals(versions!.rows.map(([, step, version]) => [step, version]), [[0, VERSION]]);
  assertEquals(metrics.config, json("config.json"));
  assertEquals(metrics.config.sae.d_model, D);
  assert(metrics.losses.mse.at(-1) < metrics.losses.mse[0]);
  const again = await runIn(config());
  assertEquals(again.files.get("sae.pt"), files.get("sae.pt"));
  const other = await runIn(config({ train: { seed: 4 } }));
  assert(String(other.files.get("sae.pt")) !== String(files.get("sae.pt")));
});

Deno.test("a standardisation is folded into the checkpoint", async () => {
  const { files, result } = await runIn(config({ data: { standardise: "mean_scale", validation_share: 0 } }));
  assertEquals(result.evaluated_on, "training");
  using sae = await load(files.get("sae.pt")!);
  assertEquals(sae.input, { mean: null, scale: 1 });
  using out = sae.forward(mixtures());
  const x = mixtures();
  let errors = 0;
  (await out.x_hat.read()).forEach((value, i) => errors += (value - x[i]!) ** 2);
  assertRunLosses([errors / x.length], [result.metrics!.mse], "mse of the folded model");
});

Deno.test("initial values come from the rows to train on, and from no others", async () => {
  const init = { data_points: true, b_dec: "geometric-median", scale_encoder: true };
  // Before the first step nothing but the initial values is in the checkpoint.
  const data = { standardise: "mean_scale" };
  const { files, json } = await runIn(config({ data, init }), 0);
  assertEquals(json("config.json").init, { from: null, ...init });
  using sae = await load(files.get("sae.pt")!);
  const found = await sae.readParameters();

  const training = mixtures().subarray(0, 0.9 * ROWS * D);
  const cfg = completeConfig({ ...sae.cfg, activation: { key: "top-k", top_k: 2 } });
  const input = await measureScaling(rowsOf(training, D), "mean_scale");
  const { parameters: { b_dec } } = initialParametersFromData(cfg, {
    seed: 3,
    input,
    data: { x: training, data_points: false, b_dec: "geometric-median" },
  });
  // Folded back into the data's own units.
  const folded = b_dec.map((value, d) => value * input.scale + input.mean![d]!);
  assertTensorClose(found.b_dec, folded, "b_dec");
  assertEquals((await runIn(config({ data, init }), 0)).files.get("sae.pt"), files.get("sae.pt"));
  for (const name of Object.keys(init)) {
    const without = await runIn(config({ data, init: { ...init, [name]: undefined } }), 0);
    assertNotEquals(without.files.get("sae.pt"), files.get("sae.pt"), name);
  }
  const { result } = await runIn(config({ data, init }));
  assert(result.metrics!.nmse < 1);
});

Deno.test("a JumpReLU measures its pre-activations, and keeps all that it is in the checkpoint", async () => {
  const sae = { d_sae: 16, activation: { key: "jump-relu", threshold_init: 0.1 } };
  const { files, result } = await runIn(config({ sae, data: { standardise: "scale" } }));
  using loaded = await load(files.get("sae.pt")!);
  assertEquals(loaded.cfg.activation.key, "jump-relu");
  assert(loaded.input.pre_act_scale! > 0 && loaded.input.pre_act_scale !== 1);
  assert(Number.isInteger(Math.log2(loaded.input.scale)));
  assert((await loaded.readParameters()).threshold!.length === 16 && result.metrics!.nmse < 1);
});

Deno.test("Muon, where the configuration says so", async () => {
  const shorter = { n_steps: 5, n_epochs: undefined };
  const { files, json } = await runIn(config({ train: { ...shorter, optim: "muon" } }));
  assertEquals(json("config.json").train.optim, "muon");
  assertNotEquals((await runIn(config({ train: shorter }))).files.get("sae.pt"), files.get("sae.pt"));
});

Deno.test("a signal ends a run with a checkpoint of where it was", async () => {
  const { result, files, json } = await runIn(config(), 0);
  assertEquals([result.isInterrupted, result.steps, result.metrics], [true, 0, null]);
  assertEquals([...files.keys()].sort(), [
    ...["config.json", "metrics.json", "metrics.jsonl", "run.json", "sae.pt", "training.safetensors"],
  ]);
  assertEquals(json("metrics.json").metrics, null);
});

/** What the training says of its step that stands in a folder; `null` without one. */
function stepIn(path: string): number | null {
  try {
    const [, step] = /\\"step\\":(\d+)/.exec(Deno.readTextFileSync(`${path}/training.safetensors`))!;
    return Number(step);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

async function inFolder(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await work(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** A run in a folder, which is let go of afterwards. */
async function trainIn(
  path: string,
  cfg: RunConfig,
  source: RowSource,
  { start = "new", ...options }: SweepOptions & { readonly start?: RunStart } = {},
) {
  await using directory = await RunDirectory.open(path, { start });
  return await runTraining(cfg, source, { directory, ...options });
}

Deno.test("a split into training and validation parts no example", async () => {
  await inFolder(async (path) => {
    const rows = rowsOf(mixtures(), D);
    const source = { ...rows, exampleStart: (row: number) => row - row % 7 };
    const plans: RunPlan[] = [];
    const aborter = new AbortController();
    await trainIn(path, config({ data: { validation_share: 0.1 } }), source, {
      signal: aborter.signal,
      onStart: (plan) => {
        plans.push(plan);
        aborter.abort();
      },
    });
    const rounded = Math.round(rows.n_rows * 0.9);
    assertEquals(plans.map(({ n_rows, n_validation }) => [n_rows, n_rows + n_validation]), [
      [rounded - rounded % 7, rows.n_rows],
    ]);
    assert(rounded % 7 > 0, "the share alone would part an example");
  });
});

Deno.test("before there is a model, a signal ends a run that leaves nothing", async () => {
  await inFolder(async (path) => {
    const signal = AbortSignal.abort(new RangeError("enough"));
    const cfg = config({ data: { standardise: "mean_scale" } });
    await assertRejects(() => trainIn(path, cfg, rowsOf(mixtures(), D), { signal }), RangeError, "enough");
    const stopping = new AbortController();
    const source = rowsOf(mixtures(), D);
    const read = (from: number, to: number) => {
      stopping.abort(new RangeError("enough"));
      return source.read(from, to);
    };
    const reading = () => trainIn(path, cfg, { ...source, read }, { signal: stopping.signal });
    await assertRejects(reading, RangeError, "enough");
    assertEquals(await Array.fromAsync(Deno.readDir(path)), []);
  });
});

Deno.test("a signal ends a run while it reads rows", async () => {
  await inFolder(async (path) => {
    const source = rowsOf(Float32Array.from({ length: 2048 * D }, (_, i) => Math.sin(i * i)), D);
    const aborter = new AbortController();
    let reads = 0;
    // The fingerprint and eight places are looked at, and an epoch has two blocks: the signal comes with the first of the second epoch, which
    // is read while steps of the first are made.
    const read = (from: number, to: number) => {
      if (++reads === 12) aborter.abort();
      return source.read(from, to);
    };
    const cfg = config({ data: { validation_share: 0 }, train: { batch_size: 512 } });
    const result = await trainIn(path, cfg, { ...source, read }, { signal: aborter.signal });
    assertEquals([result.isInterrupted, reads, stepIn(path)], [true, 12, result.steps]);
    assert(result.steps <= 4);
  });
});

Deno.test("there is a checkpoint every so many minutes, whatever the steps are", async () => {
  await inFolder(async (path) => {
    let minutes = 0;
    const found: [step: number, saved: number | null][] = [];
    await trainIn(path, config({ train: { log_every: 5 } }), rowsOf(mixtures(), D), {
      now: () => minutes * 60_000,
      onProgress: ({ step }) => {
        found.push([step, stepIn(path)]);
        minutes += 4;
      },
    });
    const expected = [[5, null], [10, null], [15, null], [20, 15], [25, 15], [30, 15], [35, 30], [36, 30]];
    assertEquals(found, expected as typeof found);
    assertEquals(stepIn(path), 36);
  });
});

Deno.test("where rows cannot be read, the run ends with a checkpoint of the step it had come to", async () => {
  const cfg = config();
  const whole = await runIn(cfg);
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    let reads = 0;
    // The fingerprint, three places and the rows kept back are looked at, then the first epoch is read, and not the second.
    const read = (from: number, to: number) =>
      ++reads <= 6 ? source.read(from, to) : Promise.reject(new Error("reading rows: Input/output error"));
    await assertRejects(() => trainIn(path, cfg, { ...source, read }), Error, "Input/output error");
    assertEquals([reads, stepIn(path)], [7, 18]);
    await trainIn(path, cfg, source, { start: "resume" });
    for (const name of ["sae.pt", "training.safetensors"]) {
      assertEquals(await Deno.readFile(`${path}/${name}`), whole.files.get(name), name);
    }
  });
});

Deno.test("when the device is lost, the run ends, its last checkpoint stays, and it resumes on another device", async () => {
  const cfg = config({ train: { checkpoint_every: 10, log_every: 5 } });
  const whole = await runIn(cfg);
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    const device = await defaultDevice();
    const onProgress = ({ step }: ProgressState) => step === 15 && device.destroy();
    await assertRejects(() => trainIn(path, cfg, source, { onProgress }), DeviceError, "lost");
    assertEquals(stepIn(path), 10);
    await trainIn(path, cfg, source, { start: "resume" });
    assertEquals(await Deno.readFile(`${path}/sae.pt`), whole.files.get("sae.pt"));
  });
});

Deno.test("a sweep that is stopped begins no further runs, and is resumed as a whole", async () => {
  const cfgs = [3, 4].map((seed) => config({ train: { seed, n_steps: 8, n_epochs: undefined, log_every: 2 } }));
  await inFolder(async (path) => {
    const sweep = async (start: RunStart, options: SweepOptions = {}) => {
      await using directories = await RunDirectory.openSweep(path, cfgs.length, { start });
      const runs = cfgs.map((cfg, i) => ({ cfg, source: rowsOf(mixtures(), D), directory: directories.runs[i]! }));
      return await runSweep(runs, options);
    };
    const aborter = new AbortController();
    const plans: RunPlan[] = [];
    const stopped = await sweep("new", {
      signal: aborter.signal,
      onStart: (plan) => plans.push(plan),
      onProgress: ({ step }) => step === 4 && aborter.abort(),
    });
    assertEquals(stopped.map(({ steps, isInterrupted, metrics }) => [steps, isInterrupted, metrics]), [
      [4, true, null],
      [0, true, null],
    ]);
    assertEquals([plans.length, await Array.fromAsync(Deno.readDir(`${path}/1`), ({ name }) => name)], [1, [
      "run.json",
    ]]);
    await assertRejects(
      () => sweep("resume"),
      RangeError,
      "1: there is no training.safetensors; use --resume=auto to start",
    );
    const results = await sweep("auto");
    for (const [i, cfg] of cfgs.entries()) {
      const alone = await runIn(cfg);
      assertEquals(await Deno.readFile(`${path}/${i}/sae.pt`), alone.files.get("sae.pt"), `run ${i}`);
      assertEquals(results[i]!.metrics, alone.result.metrics);
    }
  });
});

Deno.test("runs that cannot be are refused before anything is written", async () => {
  await assertRejects(() => runIn(config({ train: { batch_size: 2000 } })), RangeError, "too few for a batch of 2000");
  await assertRejects(() => runIn(config({ sae: { d_model: 9 } })), RangeError, "sae.d_model is 9");
  const tooFew = config({ sae: { d_sae: 600 }, init: { data_points: true } });
  await assertRejects(() => runIn(tooFew), RangeError, "d_sae 600 latents, found 540 rows");
});

Deno.test("what the device cannot hold is refused before a row is read, or any folder of the sweep changed", async () => {
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    const unread = { ...source, read: () => Promise.reject(new Error("it was read")) };
    await using first = await RunDirectory.open(`${path}/0`);
    await using second = await RunDirectory.open(`${path}/1`);
    const runs = (cfg: RunConfig) => [
      { cfg: config(), source: unread, directory: first },
      { cfg, source: unread, directory: second },
    ];
    const large = runs(config({ sae: { d_sae: 1e9 } }));
    await assertRejects(() => runSweep(large), DeviceError, "d_sae 1000000000 × d_model 8");
    assertThrows(
      () => config({ train: { batch_size: 300_000 } }),
      RangeError,
      "train.batch_size must be an integer from 1 to",
    );
    const { train, ...rest } = config();
    const many = runs({ ...rest, train: { ...train, batch_size: 270_000 } });
    await assertRejects(() => runSweep(many), RangeError, "a batch of 270000 rows: a step takes 262144 at most");
    for (const folder of ["0", "1"]) {
      const files = await Array.fromAsync(Deno.readDir(`${path}/${folder}`), ({ name }) => name);
      assertEquals(files.filter((name) => name !== "run.lock"), []);
    }
  });
});

Deno.test("subtracted biases are folded too", async () => {
  const plain = await runIn(config({ sae: { subtract_b_dec: true }, train: { n_steps: 3, n_epochs: undefined } }));
  using sae = await load(plain.files.get("sae.pt")!);
  assertEquals(sae.cfg.subtract_b_dec, false);
});

Deno.test("the order of the rows has a seed of its own: runs of several seeds share a stream, each as alone", async () => {
  const short = { n_epochs: 0.5 };
  const model = async (cfg: RunConfig) => (await runIn(cfg)).files.get("sae.pt");
  const usual = await model(config({ train: { ...short, seed: 3 } }));
  assertEquals(await model(config({ data: { order_seed: 3 }, train: { ...short, seed: 3 } })), usual);
  assertNotEquals(await model(config({ data: { order_seed: 4 }, train: { ...short, seed: 3 } })), usual);
  const cfgs = [3, 5].map((seed) => config({ data: { order_seed: 3 }, train: { ...short, seed } }));
  assertEquals(groupRuns(cfgs), [[0, 1]]);
  assertEquals(groupRuns([...cfgs, config({ train: { ...short, seed: 5 } })]), [[0, 1], [2]]);
  const path = await Deno.makeTempDir();
  {
    await using directories = await RunDirectory.openSweep(path, 2);
    const source = rowsOf(mixtures(), D);
    await runSweep(cfgs.map((cfg, i) => ({ cfg, source, directory: directories.runs[i]! })));
  }
  assertEquals(await Deno.readFile(`${path}/0/sae.pt`), usual);
  assertEquals(await Deno.readFile(`${path}/1/sae.pt`), await model(cfgs[1]!));
  await Deno.remove(path, { recursive: true });
});

Deno.test("a sweep leaves in each folder what the run leaves alone, and continues when one cannot", async () => {
  const shorter = { n_steps: 8, n_epochs: undefined };
  const cfgs = [
    config({ train: shorter }),
    config({ train: { ...shorter, lr: 0.3, optim: "muon" } }),
    config({ train: { ...shorter, lr: 1e9, n_lr_warmup: 0, log_every: 25 } }),
    config({ train: { ...shorter, seed: 4 }, sae: { d_sae: 40, activation: { key: "batch-top-k", top_k: 3 } } }),
    config({ train: shorter, data: { standardise: "mean_scale" } }),
  ];
  const path = await Deno.makeTempDir();
  try {
    await using directories = await RunDirectory.openSweep(path, cfgs.length);
    const runs = cfgs.map((cfg, i) => ({ cfg, source: rowsOf(mixtures(), D), directory: directories.runs[i]! }));
    const plans: RunPlan[] = [];
    const results = await runSweep(runs, { onStart: (plan) => plans.push(plan) });
    assertEquals(plans.map(({ n_models, n_steps }) => [n_models, n_steps]), [[3, 8], [1, 8], [1, 8]]);
    for (const [i, cfg] of cfgs.entries()) {
      const { diverged, metrics } = results[i]!;
      const file = (name: string) => Deno.readFile(`${path}/${i}/${name}`);
      const { losses } = JSON.parse(new TextDecoder().decode(await file("metrics.json")));
      if (i === 2) {
        assert(diverged instanceof DivergenceError && metrics === null);
        assertEquals(losses.loss.length, diverged.step);
        await assertRejects(() => runIn(cfg), DivergenceError);
        await assertRejects(() => file("sae.pt"), Deno.errors.NotFound);
        continue;
      }
      const alone = await runIn(cfg);
      assertEquals(await file("sae.pt"), alone.files.get("sae.pt"), `run ${i}`);
      assertEquals([metrics, losses], [alone.result.metrics, alone.json("metrics.json").losses]);
    }
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("a run whose folder cannot be written, or whose rows cannot be read, fails alone", async () => {
  const cfgs = [{}, { lr: 0.02 }, { seed: 4 }, { seed: 5 }].map((train) =>
    config({ train: { n_epochs: undefined, n_steps: 10, log_every: 2, checkpoint_every: 4, ...train } })
  );
  const path = await Deno.makeTempDir();
  try {
    await using directories = await RunDirectory.openSweep(path, cfgs.length);
    let n_read = 0;
    const whole = rowsOf(mixtures(), D);
    const failing = { ...whole, read: (from: number, to: number) => whole.read(from, to) };
    const runs = cfgs.map((cfg, i) => ({ cfg, source: i === 2 ? failing : whole, directory: directories.runs[i]! }));
    const states = cfgs.map(() => new Set<string>());
    const results = await runSweep(runs, {
      onStatus: ({ run, state, step }) => {
        states[run]!.add(state);
        if (run !== 0 || step !== 6) return;
        Deno.removeSync(`${path}/1`, { recursive: true });
        Deno.writeTextFileSync(`${path}/1`, "");
        failing.read = (from, to) =>
          n_read++ < 1 ? whole.read(from, to) : Promise.reject(new Error("the disk is gone"));
      },
    });
    assertMatch(results[1]!.failed!.message, /metrics\.jsonl/);
    assertEquals(results[2]!.failed!.message, "the disk is gone");
    assertEquals(JSON.parse(await Deno.readTextFile(`${path}/2/run.json`)).failed, "the disk is gone");
    assertEquals(results.map(({ steps, isInterrupted }) => [steps, isInterrupted]).slice(0, 2), [[10, false], [
      6,
      false,
    ]]);
    assertEquals(states.map((seen) => [...seen].at(-1)), ["finished", "failed", "failed", "finished"]);
    for (const i of [0, 3]) {
      const alone = await runIn(cfgs[i]!);
      assertEquals(results[i]!.failed, null);
      assertEquals(await Deno.readFile(`${path}/${i}/sae.pt`), alone.files.get("sae.pt"), `run ${i}`);
    }
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("a log that cannot be written loses no validation: the run is resumed from before it", async () => {
  const cfg = config({ train: { n_epochs: undefined, n_steps: 12, log_every: 2, checkpoint_every: 2 } });
  const whole = await runIn(cfg);
  const path = await Deno.makeTempDir();
  const rows = rowsOf(mixtures(), D);
  {
    await using directory = await RunDirectory.open(path);
    const append = directory.append.bind(directory);
    directory.append = (name, text) =>
      name === "metrics.jsonl" && String(text).includes('"step":6,')
        ? Promise.reject(new Error("full"))
        : append(name, text);
    await assertRejects(() => runTraining(cfg, rows, { directory }), Error, "full");
  }
  {
    await using directory = await RunDirectory.open(path, { start: "resume" });
    const seen: number[] = [];
    await runTraining(cfg, rows, { directory, onProgress: ({ step }) => seen.push(step) });
    assertEquals(seen[0], 6, "the state is of step 4");
  }
  const linesOf = (bytes: Uint8Array) =>
    new TextDecoder().decode(bytes).trim().split("\n").map((line) => ({ ...JSON.parse(line), seconds: 0 }));
  assertEquals(linesOf(await Deno.readFile(`${path}/metrics.jsonl`)), linesOf(whole.files.get("metrics.jsonl")!));
  assertEquals(await Deno.readFile(`${path}/sae.pt`), whole.files.get("sae.pt"));
  await Deno.remove(path, { recursive: true });
});

/** Configurations whose training has all that a file must bring back. */
const RESUMED: Readonly<Record<string, RunConfig>> = {
  "AuxK, a standardisation, schedules": config({
    data: { standardise: "mean_scale" },
    train: { k_start: 8, n_k_warmup: 20, n_sparsity_warmup: 9 },
  }),
  "a batch-top-k's threshold": config({ sae: { d_sae: 32, activation: { key: "batch-top-k", top_k: 2 } } }),
  "Muon, a controller of L0": {
    ...config({ sae: { d_sae: 24, activation: { key: "relu" } }, train: { optim: "muon" } }),
    objective: { key: "vanilla", sparsity_coeff: 0.1, target_l0: 3 },
  },
  "a JumpReLU, a small buffer": config({
    data: { buffer_rows: 1, standardise: "scale" },
    sae: { d_sae: 24, activation: { key: "jump-relu" } },
  }),
};

for (const [name, cfg] of Object.entries(RESUMED)) {
  Deno.test(`stopped anywhere and resumed, a run is as if it had never stopped: ${name}`, async () => {
    const { result, files, json } = await runIn(cfg);
    const path = await Deno.makeTempDir();
    try {
      const source = rowsOf(mixtures(), D);
      const resume = async (cfg: RunConfig, from = source, options: SweepOptions = {}) => {
        await using directory = await RunDirectory.open(path, { start: "auto" });
        return await runTraining(cfg, from, { directory, ...options });
      };
      // Stops in the first epoch, in the second one, and before the evaluation; the epoch's end, after 18 steps, is in no
      // batch.
      for (const stop of [7, 25, 36]) {
        const controller = new AbortController();
        const stopping = { ...cfg, train: { ...cfg.train, log_every: 1, checkpoint_minutes: 3 } };
        const stopped = await resume(stopping, source, {
          signal: controller.signal,
          onProgress: ({ step }) => step === stop && controller.abort(),
        });
        assertEquals([stopped.isInterrupted, stopped.steps, stopped.metrics], [true, stop, null]);
      }
      const resumed = await resume(cfg);
      assertEquals(resumed.metrics, result.metrics);
      for (const file of ["sae.pt", "training.safetensors"]) {
        assertEquals(await Deno.readFile(`${path}/${file}`), files.get(file), file);
      }
      const { losses } = JSON.parse(await Deno.readTextFile(`${path}/metrics.json`));
      assertEquals(losses, json("metrics.json").losses);

      const other = { ...cfg, train: { ...cfg.train, lr: 0.02 } };
      await assertRejects(
        () => resume(other),
        RangeError,
        "train.lr is 0.01, which cannot be resumed with 0.02",
      );
      const array = { ...cfg, data: { ...cfg.data, key: "x" } };
      await assertRejects(
        () => resume(array),
        RangeError,
        'data.key is not set, which cannot be resumed with "x"',
      );
      // Runs of the first version say what their file was, which it says itself.
      const named = { ...cfg, data: { ...cfg.data, format: "f32" as const } };
      assertEquals((await resume(named)).steps, result.steps);
      const fewer = rowsOf(mixtures().subarray(D), D);
      await assertRejects(
        () => resume(cfg, fewer),
        RangeError,
        "data.n_rows is 600, which cannot be resumed with 599",
      );
    } finally {
      await Deno.remove(path, { recursive: true });
    }
  });
}

Deno.test("what the configuration leaves out is resolved by the run's length, and said in the record", async () => {
  const plans: RunPlan[] = [];
  const cfg = config({ train: { n_lr_warmup: undefined } });
  const { json } = await runIn(cfg, undefined, { onStart: (plan) => plans.push(plan) });
  // 36 steps of 30 rows.
  const resolved = { "train.n_lr_warmup": 3, "objective.dead_threshold_tokens": 240 };
  assertEquals([json("metrics.json").resolved, plans[0]!.resolved], [resolved, resolved]);
  assertEquals(json("run.json").sessions[0].resolved, resolved);
  const { train, objective } = json("config.json");
  assertEquals([train.n_lr_warmup, objective.dead_threshold_tokens], [3, 240]);
  // It is the run of these numbers, bit by bit; and dead latents are seen.
  const said = {
    ...cfg,
    train: { ...cfg.train, n_lr_warmup: 3 },
    objective: { ...cfg.objective, dead_threshold_tokens: 240 },
  };
  const [left, given] = [await runIn(cfg), await runIn(said)];
  assertEquals(left.files.get("sae.pt"), given.files.get("sae.pt"));
  assertEquals(given.json("metrics.json").resolved, {});
});

Deno.test("a run of 0.1.0 that is resumed keeps the defaults that it was begun with", async () => {
  const source = rowsOf(mixtures(), D);
  const old = config({ train: { n_lr_warmup: 500 } });
  const constants = { ...old, objective: { ...old.objective, dead_threshold_tokens: 10_000_000 } };
  const { files } = await runIn(constants);
  const path = await Deno.makeTempDir();
  try {
    const controller = new AbortController();
    const onProgress = ({ step }: { step: number }) => step === 7 && controller.abort();
    const stopping = { ...constants, train: { ...constants.train, log_every: 1 } };
    {
      await using directory = await RunDirectory.open(path);
      await runTraining(stopping, source, { directory, signal: controller.signal, onProgress });
      // Its note had no dead_threshold_tokens.
      const saved = (await directory.openTraining())!;
      const note = JSON.parse(saved.note);
      delete note.objective.dead_threshold_tokens;
      using restored = await saved.restore();
      await directory.writeTraining({ ...restored, note: JSON.stringify(note) });
    }
    await using directory = await RunDirectory.open(path, { start: "resume" });
    await runTraining(config({ train: { n_lr_warmup: undefined } }), source, { directory });
    assertEquals(await Deno.readFile(`${path}/sae.pt`), files.get("sae.pt"));
    const { resolved } = JSON.parse(await Deno.readTextFile(`${path}/metrics.json`));
    assertEquals(resolved, { "train.n_lr_warmup": 500, "objective.dead_threshold_tokens": 10_000_000 });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("a damaged state is refused by name, and the one before it continues bit by bit", async () => {
  const cfg = config({ train: { checkpoint_every: 10, log_every: 5 } });
  const whole = await runIn(cfg);
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    const aborter = new AbortController();
    const onProgress = ({ step }: ProgressState) => step === 25 && aborter.abort();
    await trainIn(path, cfg, source, { onProgress, signal: aborter.signal });
    const damage = async (name: string) => {
      const file = await Deno.readFile(`${path}/${name}`);
      file[file.length - 1]! ^= 64;
      await Deno.writeFile(`${path}/${name}`, file);
    };
    const files = async () =>
      await Promise.all(
        (await Array.fromAsync(Deno.readDir(path), ({ name }) => name)).sort().map(async (name) => [
          name,
          await Deno.readFile(`${path}/${name}`),
        ]),
      );
    await damage("training.safetensors");
    const before = await files();
    for (const start of ["resume", "auto"] as const) {
      const { message } = await assertRejects(() => trainIn(path, cfg, source, { start }), CheckpointError);
      assertStringIncludes(message, `${path}/training.safetensors: tokens_since_active is damaged: the checksum is`);
      assertStringIncludes(
        message,
        "the state before it, of step 20, is intact; use --resume=previous to resume from it",
      );
    }
    assertEquals(await files(), before);
    await trainIn(path, cfg, source, { start: "previous" });
    for (const name of ["sae.pt", "training.safetensors"]) {
      assertEquals(await Deno.readFile(`${path}/${name}`), whole.files.get(name), name);
    }
    for (const name of ["training.safetensors", "training.previous.safetensors"]) await damage(name);
    for (const [start, hint] of [["resume", "no other state is intact"], ["previous", "--overwrite"]] as const) {
      await assertRejects(() => trainIn(path, cfg, source, { start }), CheckpointError, hint);
    }
  });
});

/** What a run has in its folder as JSON. */
async function jsonIn(path: string, name: string) {
  return JSON.parse(await Deno.readTextFile(`${path}/${name}`));
}

async function linesIn(path: string) {
  return (await Deno.readTextFile(`${path}/metrics.jsonl`)).trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("metrics.jsonl has every step as it goes, and what comes after the resumed step is cut off", async () => {
  const cfg = config({ train: { checkpoint_every: 10, log_every: 5 } });
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    let seconds = 0;
    const now = () => 1000 * seconds;
    const onProgress = ({ step }: ProgressState) => {
      // The lines are there before the step is shown.
      assertEquals(Deno.readTextFileSync(`${path}/metrics.jsonl`).split("\n").length - 1, step);
      seconds += 2;
      if (step === 25) throw new Error("killed");
    };
    await assertRejects(() => trainIn(path, cfg, source, { now, onProgress }), Error, "killed");
    const first = await linesIn(path);
    assertEquals(first.map(({ step }) => step), Array.from({ length: 25 }, (_, i) => i + 1));
    assertEquals(first.map(({ seconds }) => seconds).filter((_, i) => i % 5 === 4), [0, 2, 4, 6, 8]);
    // That kill was caught; this one would not have been.
    await Deno.rename(`${path}/training.previous.safetensors`, `${path}/training.safetensors`);
    await Deno.writeTextFile(`${path}/metrics.jsonl`, '{"step":26,"lo', { append: true });

    const resumed = await trainIn(path, cfg, source, { start: "resume", now, onProgress: () => seconds += 1 });
    const lines = await linesIn(path);
    assertEquals(lines.slice(0, 20), first.slice(0, 20));
    assertEquals(lines.map(({ step }) => step), Array.from({ length: 36 }, (_, i) => i + 1));
    assertEquals([lines[20].seconds, lines[35].seconds, resumed.seconds], [6, 9, 9]);
    assertEquals(resumed.examples_per_second, 36 * 30 / 9);
    const { losses } = await jsonIn(path, "metrics.json");
    for (const [name, column] of Object.entries(losses)) assertEquals(lines.map((line) => line[name]), column, name);
    assertEquals(Object.keys(lines[0]), ["step", ...Object.keys(losses), "lr", "seconds"]);
    // Warm-up to step 5, then half a cosine.
    assertEquals([lines[0].lr, lines[1].lr, lines[5].lr], [0, 0.01 / 5, 0.01]);
    assert(lines[35].lr > 0 && lines[35].lr < 1e-4);
  });
});

Deno.test("a finished run that is resumed stays as it is", async () => {
  const cfg = config();
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    await trainIn(path, cfg, source);
    const files = ["training.safetensors", "sae.pt", "metrics.json", "config.json"];
    const read = (name: string) => Deno.readTextFile(`${path}/${name}`);
    const report = async () => reportOf(await Deno.readFile(`${path}/report.html`));
    const sessions = ({ tables }: ReportData) => tables[1]!.rows.map(([, step]) => step);
    const before = new Map<string, string>();
    for (const name of [...files, "metrics.jsonl"]) before.set(name, await read(name));
    assert((await jsonIn(path, "metrics.json")).examples_per_second > 0);
    const reported = await report();
    await trainIn(path, cfg, source, { start: "resume" });
    for (const [name, text] of before) assert(await read(name) === text, name);
    const again = await report();
    assertEquals([sessions(reported), sessions(again)], [[0], [0, 36]]);
    assertEquals({ ...again, tables: [] }, { ...reported, tables: [] });
    // The state of the same step has not pushed out one before it.
    await assertRejects(() => read("training.previous.safetensors"), Deno.errors.NotFound);
    // 0.1.0 had no log.
    await Deno.remove(`${path}/metrics.jsonl`);
    await Deno.remove(`${path}/run.json`);
    await trainIn(path, cfg, source, { start: "resume" });
    for (const name of files) assert(await read(name) === before.get(name), name);
    assertEquals((await report()).numbers, reported.numbers);
    assert((await linesIn(path)).every(({ seconds }) => seconds === null));
  });
});

Deno.test("other rows of the same shape are refused, and accepted when asked, as the record says", async () => {
  const cfg = config();
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    const aborter = new AbortController();
    const onProgress = () => aborter.abort();
    await trainIn(path, cfg, source, { onProgress, signal: aborter.signal });
    const other = rowsOf(mixtures().with(100, 17), D);
    const before = await Deno.readTextFile(`${path}/run.json`);
    const { message } = await assertRejects(() => trainIn(path, cfg, other, { start: "auto" }), RangeError);
    assertStringIncludes(message, `resuming ${path}: the rows of mixtures.f32 differ from those of the run`);
    assertStringIncludes(message, "--changed-data, which run.json records");
    assertEquals(await Deno.readTextFile(`${path}/run.json`), before);

    const result = await trainIn(path, cfg, other, { start: "resume", mayChangeData: true });
    assertEquals(result.steps, 36);
    const { sessions } = await jsonIn(path, "run.json");
    assertEquals(sessions.length, 2);
    for (const { date, package: version, deno, adapter, data } of sessions) {
      assert(Math.abs(Date.parse(date) - Date.now()) < 3_600_000);
      assertEquals([version, deno], [VERSION, `${Deno.version.deno} ${Deno.build.target}`]);
      assertEquals(Object.keys(adapter), ["vendor", "architecture", "device", "description"]);
      assertEquals([data.path, data.n_rows, data.d_model], ["mixtures.f32", 600, 8]);
      assertMatch(data.sha256, /^[0-9a-f]{64}$/);
    }
    const [first, second] = sessions;
    assertEquals([first.step, second.step], [0, 25]);
    assertNotEquals(first.data.sha256, second.data.sha256);
    assertEquals([first.changed_data, second.changed_data], [undefined, { from: first.data.sha256 }]);
    // From now on these are its rows.
    await trainIn(path, cfg, other, { start: "resume" });
    await assertRejects(() => trainIn(path, cfg, source, { start: "resume" }), RangeError, "differ from those");
  });
});

Deno.test("config.json says all of the objective", async () => {
  const { json } = await runIn({ ...config(), objective: { key: "vanilla" } });
  assertEquals(json("config.json").objective, {
    key: "vanilla",
    sparsity_coeff: null,
    target_l0: null,
    dead_threshold_tokens: 240,
  });
});

Deno.test("a stopped run of 0.1.0 resumes, and is replaced when asked", async () => {
  const old = new URL("../fixtures/run_of_0.1.0/", import.meta.url);
  const source = rowsOf(Float32Array.from({ length: 400 }, (_, i) => ((i * i * 7) % 101) / 101), 4);
  const names = (await Array.fromAsync(Deno.readDir(old), ({ name }) => name)).sort();
  assertEquals(names, ["config.json", "config.toml", "metrics.json", "sae.pt", "training.safetensors"]);
  const [{ cfg }] = completeSweep(parse(await Deno.readTextFile(new URL("config.toml", old)))) as [SweptConfig];
  for (const start of ["resume", "auto", "overwrite"] as const) {
    await inFolder(async (path) => {
      for (const name of names) await Deno.copyFile(new URL(name, old), `${path}/${name}`);
      const before = await jsonIn(path, "metrics.json");
      await assertRejects(() => trainIn(path, cfg, source), RangeError, "already holds a run");
      const result = await trainIn(path, cfg, source, { start });
      assertEquals([result.steps, result.isInterrupted], [12, false]);
      const { losses, resolved } = await jsonIn(path, "metrics.json");
      const isResumed = start !== "overwrite";
      assertEquals(resolved["train.n_lr_warmup"], isResumed ? 500 : 1);
      assertEquals(losses.mse.slice(0, 5).join() === before.losses.mse.join(), isResumed);
      assertEquals((await jsonIn(path, "run.json")).sessions.map(({ step }: { step: number }) => step), [
        isResumed ? 5 : 0,
      ]);
      assertEquals(
        (await linesIn(path)).map(({ seconds }) => seconds === null),
        losses.mse.map((_: number, i: number) => isResumed && i < 5),
      );
    });
  }
});

Deno.test("a refused resume changes no file, and one that is not removes what was left half written", async () => {
  const cfg = config();
  await inFolder(async (path) => {
    const source = rowsOf(mixtures(), D);
    const aborter = new AbortController();
    const attempt = async (start: RunStart, lr: number, configToml: string, options: SweepOptions = {}) => {
      await using directory = await RunDirectory.open(path, { start, configToml });
      return await runTraining({ ...cfg, train: { ...cfg.train, lr } }, source, { directory, ...options });
    };
    await attempt("new", 0.01, "one", { signal: aborter.signal, onProgress: () => aborter.abort() });
    const left = "sae.pt.123e4567-e89b-42d3-a456-426614174000.tmp";
    await Deno.writeTextFile(`${path}/${left}`, "half");
    const files = async () => {
      const names = (await Array.fromAsync(Deno.readDir(path), ({ name }) => name)).sort();
      return await Promise.all(names.map(async (name) => [name, await Deno.readFile(`${path}/${name}`)] as const));
    };
    const before = await files();
    for (const start of ["resume", "auto"] as const) {
      await assertRejects(
        () => attempt(start, 0.02, "two"),
        RangeError,
        "train.lr is 0.01, which cannot be resumed with 0.02",
      );
    }
    assertEquals(await files(), before);
    await attempt("resume", 0.01, "two");
    const names = (await files()).map(([name]) => name);
    assertEquals(names.includes(left), false);
    assertEquals(await Deno.readTextFile(`${path}/config.toml`), "two");
  });
});
