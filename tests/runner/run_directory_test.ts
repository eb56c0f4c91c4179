/** The folder of a run: what may be done with what stands there, what is kept, what is replaced in which order. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { RunDirectory, type RunStart } from "../../runner/run_directory.ts";
import { sharedDevice } from "../support/gpu.ts";

const CFG = { d_model: 2, d_sae: 1, activation: { key: "relu" } } as const;
const PARAMETERS = {
  W_enc: Float32Array.of(1, 2),
  b_enc: Float32Array.of(3),
  W_dec: Float32Array.of(4, 5),
  b_dec: Float32Array.of(6, 7),
};
const UUID = "123e4567-e89b-42d3-a456-426614174000";

/** A folder with these files; `null` is a folder in it. */
async function inFolder(
  files: Readonly<Record<string, string | null>>,
  test: (path: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    await lay(`${root}/run`, files);
    await test(`${root}/run`);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

async function lay(path: string, files: Readonly<Record<string, string | null>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const folder = text === null ? `${path}/${name}` : `${path}/${name}`.replace(/\/[^/]*$/, "");
    await Deno.mkdir(folder, { recursive: true });
    if (text !== null) await Deno.writeTextFile(`${path}/${name}`, text);
  }
}

/** Every file below a folder with its text, and every empty folder with `null`. */
async function contents(path: string, below = ""): Promise<Record<string, string | null>> {
  const found: Record<string, string | null> = {};
  for await (const { name, isDirectory } of Deno.readDir(`${path}/${below}`)) {
    if (!isDirectory) found[below + name] = await Deno.readTextFile(`${path}/${below}${name}`);
    else {
      const inside = await contents(path, `${below}${name}/`);
      Object.assign(found, Object.keys(inside).length > 0 ? inside : { [below + name]: null });
    }
  }
  return found;
}

const RUN_NAMES = [
  ...["training.safetensors", "training.previous.safetensors", "training.next.safetensors", "sae.pt", "metrics.json"],
  ...["metrics.jsonl", "events.out.tfevents.saev", "report.html", "config.json", "config.toml"],
];

/** `run.json` of a run that has claimed all of its names. */
function record(changes: object = {}): string {
  return JSON.stringify({ saev_nn_run: 1, kind: "run", files: RUN_NAMES, sessions: [], ...changes });
}

const OURS = { "run.json": record() };
const CONFIG = JSON.stringify({ data: { path: "a.npy" }, sae: {}, init: {}, objective: {}, train: {} });
const STATES = { "training.safetensors": "state", "sae.pt": "model" };

/** What each start says of each folder; `true` where it is resumed, `false` where it is started. */
const STARTS: readonly (readonly [
  what: string,
  files: Readonly<Record<string, string | null>>,
  starts: Readonly<Partial<Record<RunStart, boolean | string>>>,
])[] = [
  ["absent", {}, { new: false, overwrite: false, auto: false, resume: "there is no such folder" }],
  ["empty", { "": null }, { new: false, overwrite: false, auto: false, resume: "found an empty folder, but no run" }],
  ["half of a first record", { [`run.json.${UUID}.tmp`]: "{" }, {
    new: false,
    auto: false,
    resume: "found an empty folder, but no run",
  }],
  ["somebody's files", { "notes.txt": "mine" }, {
    new: false,
    overwrite: false,
    auto: "found notes.txt, but no run",
    resume: "found notes.txt, but no run; start one in another folder without --resume",
  }],
  ["somebody's model", { "sae.pt": "theirs" }, {
    new: "run/sae.pt does not belong to this run",
    overwrite: "run/sae.pt does not belong to this run",
    auto: "found sae.pt, but no run",
    resume: "found sae.pt, but no run",
  }],
  ["ours before its first checkpoint", { ...OURS, "config.json": CONFIG, "metrics.jsonl": "" }, {
    new: false,
    overwrite: false,
    auto: false,
    resume: "there is no training.safetensors; use --resume=auto to start runs that have no checkpoint yet",
    previous: "there is no training.previous.safetensors",
  }],
  ["a state", { ...OURS, ...STATES }, {
    new: "already holds a run; choose another folder, continue it with --resume, or replace it with --overwrite",
    overwrite: false,
    auto: true,
    resume: true,
    previous: "there is no training.previous.safetensors beside sae.pt; train again with --overwrite",
  }],
  ["two states", { ...OURS, ...STATES, "training.previous.safetensors": "before" }, {
    new: "already holds a run",
    auto: true,
    resume: true,
    previous: true,
  }],
  ["a model without its state", { ...OURS, "sae.pt": "model" }, {
    new: "already holds a run",
    overwrite: false,
    auto: "there is no training.safetensors beside sae.pt; train again with --overwrite",
    resume: "there is no training.safetensors beside sae.pt; train again with --overwrite",
  }],
  ["the state before alone", { ...OURS, "training.previous.safetensors": "before" }, {
    new: "already holds a run",
    auto: "use --resume=previous to resume from the state before it",
    resume: "use --resume=previous to resume from the state before it",
    previous: true,
  }],
  ["a run that was being replaced", { "run.json": record({ replacing: true }), ...STATES }, {
    new: false,
    overwrite: false,
    auto: false,
    resume: "the process ended while it was replacing the run's files; start again with --overwrite",
  }],
  ["a sweep", { "run.json": record({ kind: "sweep", files: ["sweep.json"], runs: ["0"] }), "0/run.json": record() }, {
    new: "already holds a sweep; choose another folder, or replace it with --overwrite",
    overwrite: false,
    auto: "found a sweep; the configuration describes a run",
    resume: "found a sweep; the configuration describes a run",
  }],
  ["somebody's run.json", { "run.json": '{ "saev_nn_run": 2 }' }, {
    new:
      "run/run.json does not belong to this run, but the run needs that name; move the file, or choose another folder",
    overwrite: "run/run.json does not belong to this run",
    auto: "found run.json, but no run",
    resume: "found run.json, but no run",
  }],
  ["0.1.0, stopped", { "config.json": CONFIG, "config.toml": "", ...STATES }, {
    new: "already holds a run",
    overwrite: false,
    auto: true,
    resume: true,
  }],
  ["0.1.0, before its first checkpoint", { "config.json": CONFIG, "config.toml": "" }, { new: false, auto: false }],
  ["0.1.0's sweep", { "0/config.json": CONFIG, "1/config.json": CONFIG, "config.toml": "" }, {
    new: "already holds a sweep",
    auto: "found a sweep",
  }],
  ["somebody's config.json", { "config.json": '{ "data": 1 }' }, {
    new: "run/config.json does not belong to this run",
    overwrite: "run/config.json does not belong to this run",
  }],
];

for (const [what, files, starts] of STARTS) {
  for (const [start, wanted] of Object.entries(starts) as [RunStart, boolean | string][]) {
    const outcome = typeof wanted === "string" ? "refused" : wanted ? "resumed" : "started";
    Deno.test(`${what}, ${start}: ${outcome}, and nothing is changed`, () =>
      inFolder(files, async (path) => {
        const isThere = Object.keys(files).length > 0;
        const before = isThere ? await contents(path) : undefined;
        if (typeof wanted === "string") {
          const error = await assertRejects(() => RunDirectory.open(path, { start }), RangeError);
          assert(error.message.includes(wanted), error.message);
          assert(error.message.includes(path), error.message);
        } else {
          await using directory = await RunDirectory.open(path, { start });
          assertEquals(directory.resumes, wanted);
        }
        if (isThere) assertEquals(await contents(path), before);
        else await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
      }));
  }
}

for (const name of ["config.json", "metrics.json", "metrics.jsonl", "report.html", "training.safetensors"]) {
  Deno.test(`somebody's ${name} is never replaced`, () =>
    inFolder({ [name]: "mine" }, async (path) => {
      for (const start of ["new", "overwrite", "auto"] as const) {
        await assertRejects(() => RunDirectory.open(path, { start }), RangeError, start === "auto" ? "no run" : name);
      }
      assertEquals(await contents(path), { [name]: "mine" });
    }));
}

Deno.test("a config.toml that is not ours stays, and may say what the run says", () =>
  inFolder({ "config.toml": "mine" }, async (path) => {
    for (const start of ["new", "overwrite"] as const) {
      const open = () => RunDirectory.open(path, { start, configToml: "other" });
      await assertRejects(open, RangeError, "run/config.toml does not belong to this run");
    }
    for (const start of ["new", "overwrite"] as const) {
      await using directory = await RunDirectory.open(path, { start, configToml: "mine" });
      await directory.begin();
    }
    await assertRejects(() => RunDirectory.open(path, { start: "overwrite", configToml: "other" }), RangeError);
    assertEquals((await contents(path))["config.toml"], "mine");
  }));

Deno.test("a run keeps its claims when it is resumed, and the files of others that look half written", () =>
  inFolder({ [`sae.pt.${UUID}.tmp`]: "theirs", "notes.txt": "mine" }, async (path) => {
    const claims = async (start: RunStart, configToml?: string) => {
      await using directory = await RunDirectory.open(path, { start, ...configToml !== undefined && { configToml } });
      await directory.write("training.safetensors", "state");
      return JSON.parse((await contents(path))["run.json"]!).files;
    };
    assertEquals(await claims("new", "one"), RUN_NAMES);
    assertEquals((await contents(path))[`sae.pt.${UUID}.tmp`], "theirs");
    // It is known for ours now.
    assertEquals(await claims("resume"), RUN_NAMES);
    assertEquals(Object.keys(await contents(path)).sort(), [
      "config.toml",
      "notes.txt",
      "run.json",
      "training.safetensors",
    ]);
    assertEquals(await claims("overwrite"), RUN_NAMES.slice(0, -1));
  }));

Deno.test("files go in and are replaced whole", () =>
  inFolder({}, async (path) => {
    await using directory = await RunDirectory.open(path, { configToml: "[data]" });
    await directory.write("report.html", "one");
    await directory.write("report.html", Uint8Array.of(50));
    await directory.writeJson("metrics.json", { nmse: NaN, l0: [1], density: Float64Array.of(0.5) });
    const found = await contents(path);
    assertEquals([found["config.toml"], found["report.html"]], ["[data]", "2"]);
    assertEquals(found["metrics.json"], JSON.stringify({ nmse: null, l0: [1], density: [0.5] }, null, 2) + "\n");
    using sae = await SparseAutoencoder.fromParameters(CFG, PARAMETERS);
    await directory.writeCheckpoint(sae);
    using again = await load(`${path}/sae.pt`);
    assertEquals(await again.readParameters(), PARAMETERS);
  }));

Deno.test("overwriting removes what is ours, and nothing else", () => {
  const all = Object.fromEntries(RUN_NAMES.map((name) => [name, name]));
  const theirs = { "notes.txt": "mine", "plots/a.png": "mine", "0/sae.pt": "theirs", [`a.txt.${UUID}.tmp`]: "mine" };
  const left = { [`sae.pt.${UUID}.tmp`]: "half", [`metrics.json.${UUID}.tmp`]: "half" };
  return inFolder({ ...OURS, ...all, ...theirs, ...left }, async (path) => {
    await using directory = await RunDirectory.open(path, { start: "overwrite", configToml: "new" });
    await directory.begin();
    const { "run.lock": _, "run.json": written, ...others } = await contents(path);
    assertEquals(others, { ...theirs, "config.toml": "new" });
    const { replacing, sessions, files } = JSON.parse(written!);
    assertEquals([replacing, sessions, files], [undefined, [], RUN_NAMES]);
  });
});

Deno.test("while a run is replaced nothing can be resumed, whenever the process ends", async () => {
  const names = RUN_NAMES.filter((name) => name !== "training.next.safetensors");
  const all = Object.fromEntries(names.map((name) => [name, name]));
  // Stops before each removal in turn.
  for (let stop = 0; stop < names.length; stop++) {
    await inFolder({ ...OURS, ...all }, async (path) => {
      const removed: string[] = [];
      const { remove } = Deno;
      {
        await using directory = await RunDirectory.open(path, { start: "overwrite", configToml: "new" });
        Deno.remove = (file, options) => {
          if (removed.length === stop) throw new Error("killed");
          removed.push(String(file));
          return remove(file, options);
        };
        try {
          await assertRejects(() => directory.begin(), Error, "killed");
        } finally {
          Deno.remove = remove;
        }
      }
      assertEquals(removed, names.slice(0, stop).map((name) => `${path}/${name}`));
      await assertRejects(() => RunDirectory.open(path, { start: "resume" }), RangeError, "while it was replacing");
      await using directory = await RunDirectory.open(path, { start: "auto" });
      assertEquals(directory.resumes, false);
      await directory.begin();
      assertEquals(Object.keys(await contents(path)).sort(), ["run.json", "run.lock"]);
    });
  }
});

Deno.test("a sweep that is replaced by a run, and a run by a sweep, leave nothing of theirs", () =>
  inFolder({ "0/mine.txt": "mine" }, async (path) => {
    {
      await using sweep = await RunDirectory.openSweep(path, 3, { configToml: "sweep" });
      assertEquals(sweep.runs.map(({ name }) => name), ["0", "1", "2"]);
      for (const run of sweep.runs) await run.write("sae.pt", "model");
      await sweep.whole.write("sweep.json", "[]");
    }
    await assertRejects(() => RunDirectory.open(path), RangeError, "already holds a sweep");
    {
      await using run = await RunDirectory.open(path, { start: "overwrite", configToml: "run" });
      await run.write("sae.pt", "model");
    }
    const names = async () => Object.keys(await contents(path)).sort();
    assertEquals(await names(), ["0/mine.txt", "config.toml", "run.json", "sae.pt"]);
    await assertRejects(() => RunDirectory.openSweep(path, 3), RangeError, "already holds a run");
    {
      await using sweep = await RunDirectory.openSweep(path, 2, { start: "overwrite" });
      await sweep.runs[1]!.begin();
    }
    assertEquals(await names(), ["0/mine.txt", "1/run.json", "run.json"]);
  }));

Deno.test("a sweep is resumed as a whole: no state may be missing, and no run may be left over", () =>
  inFolder({}, async (path) => {
    {
      await using sweep = await RunDirectory.openSweep(path, 3);
      for (const run of sweep.runs) await run.write("training.safetensors", "state");
    }
    {
      await using sweep = await RunDirectory.openSweep(path, 3, { start: "resume" });
      assertEquals(sweep.runs.map(({ resumes }) => resumes), [true, true, true]);
      await sweep.runs[0]!.begin();
    }
    await Deno.remove(`${path}/1/training.safetensors`);
    const before = await contents(path);
    const resume = (start: RunStart, n: number) => RunDirectory.openSweep(path, n, { start });
    await assertRejects(() => resume("resume", 3), RangeError, `resuming ${path}/1: there is no training.safetensors`);
    for (const start of ["resume", "auto"] as const) {
      await assertRejects(() => resume(start, 2), RangeError, "found the run 2; the configuration describes 2 runs");
    }
    assertEquals(await contents(path), before);
    await using sweep = await resume("auto", 3);
    assertEquals(sweep.runs.map(({ resumes }) => resumes), [true, false, true]);
    await sweep.runs[1]!.begin();
    assertEquals((await contents(path))["0/training.safetensors"], "state");
  }));

Deno.test("a sweep keeps others out of its runs, and a run keeps the sweep out", () =>
  inFolder({}, async (path) => {
    {
      await using sweep = await RunDirectory.openSweep(path, 2);
      await sweep.runs[1]!.begin();
      await assertRejects(() => RunDirectory.open(`${path}/1`), RangeError, "is in use by process");
      await assertRejects(() => RunDirectory.open(`${path}/new`), RangeError, "is in use by process");
      await assertRejects(() => RunDirectory.open(path, { start: "overwrite" }), RangeError, "is in use by process");
    }
    assertEquals(Object.keys(await contents(path)).sort(), ["1/run.json", "run.json"]);
    await using _ = await RunDirectory.open(`${path}/1`);
    await assertRejects(() => RunDirectory.openSweep(path, 2), RangeError, "1 is in use by process");
  }));

Deno.test("a demo replaces demos alone, and only their files", async () => {
  const old = JSON.stringify({ config: { data: { held_out: [] } } });
  await inFolder({ "metrics.json": old, "sae.pt": "old", "mine.txt": "mine" }, async (path) => {
    for (const _ of ["of 0.1.0", "of now"]) {
      await using directory = await RunDirectory.openDemo(path);
      await directory.begin();
      assertEquals(Object.keys(await contents(path)).sort(), ["mine.txt", "run.json", "run.lock"]);
      await directory.write("sae.pt", "new");
    }
  });
  await inFolder({ "report.html": "mine" }, async (path) => {
    await assertRejects(() => RunDirectory.openDemo(path), RangeError, "run/report.html does not belong to this run");
  });
  await inFolder({ ...OURS, ...STATES }, async (path) => {
    await assertRejects(() => RunDirectory.openDemo(path), RangeError, "holds a run, which the demo will not replace");
  });
});

Deno.test("one state is kept beside the last, and takes its place when asked", () =>
  inFolder({}, async (path) => {
    const device = await sharedDevice();
    using sae = await SparseAutoencoder.create(CFG, { device });
    using state = new TrainState(sae);
    const steps = async (start: RunStart) => {
      await using directory = await RunDirectory.open(path, { start });
      return (await directory.openTraining())?.step;
    };
    {
      await using directory = await RunDirectory.open(path);
      assertEquals(await directory.openTraining(), undefined);
      for (const note of ["0", "1", "2"]) {
        await directory.writeTraining({ sae, state, note });
        assertEquals((await directory.openTraining())!.note, note);
        state.step++;
      }
    }
    assertEquals([await steps("resume"), await steps("previous")], [2, 1]);
    {
      await using directory = await RunDirectory.open(path, { start: "previous" });
      await directory.begin();
      // Opened before, it may be read after.
      assertEquals((await directory.openTraining())!.step, 1);
    }
    assertEquals([await steps("resume"), await steps("previous")], [1, 1]);
    await using directory = await RunDirectory.open(path, { start: "resume" });
    await directory.writeTraining({ sae, state, note: "3" });
    const names = Object.keys(await contents(path)).sort();
    assertEquals(names, ["run.json", "run.lock", "training.previous.safetensors", "training.safetensors"]);
  }));

Deno.test("once another process has the run, this one writes nothing", () =>
  inFolder({}, async (path) => {
    await using directory = await RunDirectory.open(path);
    await directory.write("report.html", "one");
    await Deno.writeTextFile(`${path}/run.lock`, JSON.stringify({ saev_nn_lock: 1, host: "other", pid: 1, id: "x" }));
    await assertRejects(() => directory.write("report.html", "two"), RangeError, "process 1 on other");
    assertEquals(await Deno.readTextFile(`${path}/report.html`), "one");
  }));

Deno.test("tasks have the folders of their own runs at the same time, and a sweep as a whole none meanwhile", () =>
  inFolder({}, async (path) => {
    const task = (places: number[], options: object = {}) =>
      RunDirectory.openTask(path, { n_runs: 11, places, start: "auto", configToml: "a", patienceMs: 0, ...options });
    // The folder is not prepared: the first process prepares it, and several at once do no harm.
    const [first, second] = await Promise.all([task([0, 10]), task([1])]);
    assertEquals(first.runs.map(({ path: at }) => at), [`${path}/00`, `${path}/10`]);
    const { "run.json": text, "config.toml": config } = await contents(path);
    assertEquals([JSON.parse(text!).kind, JSON.parse(text!).runs.length, config], ["sweep", 11, "a"]);
    await assertRejects(() => task([10]), RangeError, `${path}/10 is in use`);
    const whole = () => RunDirectory.openSweep(path, 11, { start: "auto", configToml: "a" });
    await assertRejects(whole, RangeError, `${path}/00 is in use`);
    for (const tasks of [first, second]) await tasks[Symbol.asyncDispose]();
    await assertRejects(() => task([0], { configToml: "b" }), RangeError, "its config.toml says another");
    const fewer = () => RunDirectory.openTask(path, { n_runs: 9, places: [0], start: "auto", configToml: "a" });
    await assertRejects(fewer, RangeError, "found the run 00; the configuration describes 9 runs");
    {
      await using _ = await whole();
      await assertRejects(() => task([0]), RangeError, `${path} is in use`);
    }
  }));

Deno.test("the script of a job array stays when its runs begin or are resumed, and goes when they are replaced", async () => {
  for (const n_runs of [1, 2]) {
    await inFolder({}, async (path) => {
      const options = { configToml: "a", hasJobScript: true } as const;
      {
        await using directories = await RunDirectory.openSweep(path, n_runs, options);
        await directories.whole.write("slurm.sbatch", "text");
      }
      const names = async () => Object.keys(await contents(path)).filter((name) => !name.includes("/")).toSorted();
      for (let times = 0; times < 2; times++) {
        await using task = await RunDirectory.openTask(path, { n_runs, places: [0], start: "auto", configToml: "a" });
        await task.runs[0]!.begin();
        assertEquals((await names()).filter((name) => name !== "run.lock"), [
          "config.toml",
          "run.json",
          "slurm.sbatch",
        ]);
      }
      await using directories = await RunDirectory.openSweep(path, n_runs, { configToml: "a", start: "overwrite" });
      await directories.whole.begin();
      assertEquals((await names()).filter((name) => name !== "run.lock"), ["config.toml", "run.json"]);
    });
    // One that is somebody else's is not touched.
    await inFolder({ "slurm.sbatch": "mine" }, async (path) => {
      const opening = () => RunDirectory.openSweep(path, n_runs, { configToml: "a", hasJobScript: true });
      await assertRejects(opening, RangeError, "slurm.sbatch does not belong to this run");
      await using directories = await RunDirectory.openSweep(path, n_runs, { configToml: "a" });
      await directories.whole.begin();
      assertEquals((await contents(path))["slurm.sbatch"], "mine");
    });
  }
});
