/**
 * `saev train`: a run, or a sweep of runs, from a configuration file.
 *
 * @module
 */

import { stringify } from "@std/toml";
import { openRows, type RowSource } from "../data/mod.ts";
import { openSource, pathFrom, splitPath } from "../io/mod.ts";
import {
  aboutChanges,
  aboutOutcome,
  compare,
  type ComparedRun,
  comparisonFiles,
  completeSlurm,
  completeSweep,
  configText,
  groupRuns,
  outcomeOf,
  ProgressLine,
  type ProgressState,
  readRun,
  RunDirectory,
  runFoldersAt,
  runNames,
  type RunPlan,
  type RunResult,
  type RunStart,
  type RunStatus,
  runSweep,
  RunTable,
  runTraining,
  type SlurmConfig,
  stageRows,
  stateOf,
  type SweepOptions,
  type SweepRun,
  type SweptConfig,
  taskAdapter,
} from "../runner/mod.ts";
import { DivergenceError } from "../train/mod.ts";
import { opening } from "./checkpoint.ts";
import { type Arguments, type Command, say, table, UsageError } from "./command.ts";
import { warn } from "./checkpoint.ts";
import { writeJobArray } from "./job_array.ts";
import { withSeeds, withSettings } from "./settings.ts";
import { MAX_TOML_BYTES, parseToml } from "./toml.ts";
import { TUNED, useTuning } from "./tuning.ts";

/** Values of `--resume=`. */
const RESUMES = ["auto", "previous"] as const;

/** The command. */
export const trainCommand: Command = {
  summary: "Train on the rows of a data file, as a configuration file says.",
  positionals: ["CONFIG"],
  options: {
    out: { value: "DIR", help: "output folder of the run (default: runs/ and the configuration's name)" },
    overwrite: { help: "replace the runs in the folder; other files are kept" },
    resume: {
      choices: RESUMES,
      help: "continue the runs in the folder from their last checkpoints; auto: also start runs that have none; " +
        "previous: continue from the checkpoint before the last",
    },
    from: { value: "CHECKPOINT", help: "start from a checkpoint of any format, as init.from does" },
    seeds: { value: "N", help: "repeat each run with N seeds, starting from train.seed, on the rows in one order" },
    slurm: { help: "do not train: write DIR/slurm.sbatch, a Slurm job array" },
    submit: { help: "with --slurm: submit the job array and print its job ID" },
    task: { value: "I", help: "train only group I of the sweep, counted from 0; other processes may train the others" },
    stage: { value: "FOLDER", help: "copy the rows into FOLDER, unless they are there already, and read the copy" },
    "relative-to": {
      value: "FOLDER",
      help: "resolve relative paths in CONFIG from FOLDER (default: the folder of CONFIG)",
    },
    "max-runs": { value: "N", help: "largest number of runs in a sweep (default: 1000)" },
    "changed-data": { help: "resume even if the rows have changed since the run began; run.json records it" },
  },
  takesFields: true,
  permissions:
    `--allow-read=CONFIG,DATA,DIR --allow-write=DIR. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and
--allow-read for the cache folder. A DATA file of bare numbers also needs read access to its .json; an address needs --allow-net. With
--allow-sys=hostname a killed run can be resumed at once; without it, after 100 seconds. --stage also needs to read and
write FOLDER, --slurm --allow-read, and --submit --allow-run=sbatch.`,
  details:
    `CONFIG is a TOML file. A list instead of a single value, such as lr = [1e-3, 1e-4], makes a sweep: one run for each combination of the listed
values, in which the first list varies slowest. Each run has its own folder in DIR; sweep.json summarises them, and compare.html shows them side by side. Runs with the
same rows, batches and seed train together and load their data once; each gives the same result as when trained alone.

With --slurm, saev writes a job array that trains the sweep. Each task trains one group of runs with the same rows, batches
and seed; [slurm] sets its resources. A task that is killed or runs out of time is requeued and continues. A task
refuses a software adapter unless slurm.allow_software is true. Any other scheduler can run
saev train CONFIG --out DIR --resume=auto --task I for each group I. saev collect DIR gathers the results.

DIR receives the model (sae.pt), the state that --resume continues from, metrics.jsonl with the losses of every step and the metrics on validation rows, metrics.json,
report.html, config.json, and run.json, which records the time, versions, adapter and rows of the run. Only one
process at a time may use DIR. Other files in DIR are kept; if one of them has a name that the run needs, the run stops with an error.

Only data.path is required. Every field can also be set on the command line: --train.lr 1e-3,
--objective.key matryoshka, --train.seed "[0, 1, 2]". VALUE is TOML, except that strings need no quotes. Setting a different key
drops the fields of CONFIG that the new kind lacks, and its sparsity and aux. A --data.path is relative to
the current folder; a data.path in CONFIG is relative to the folder of CONFIG. The defaults follow; saev config prints all activations, penalties,
auxiliary losses and objectives with their fields:

${configText({ alternatives: false, width: 98 }).replaceAll(/^(?=.)/gm, "  ")}`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const file = args.positionals[0]!;
  const config = await openSource(file);
  if (config.size > MAX_TOML_BYTES) {
    const [found, most] = [config.size, MAX_TOML_BYTES].map((bytes) => bytes.toLocaleString("en"));
    throw new UsageError(`${file} has ${found} bytes; expected a configuration of at most ${most}`);
  }
  const text = new TextDecoder().decode(await config.read(0, config.size));
  const { sweep, slurm, configToml } = sweepOf(file, text, args);
  const system = Deno.build.os === "windows" ? "windows" : "linux";
  const out = args.text("out") ?? `runs/${splitPath(file, system).name.replace(/\.toml$/, "")}`;
  const start = startOf(args);
  const base = args.text("relative-to");
  const here = base === undefined ? file : `${base}/`;
  const fields = fieldsOf(args);
  // A path on the command line leads from the current folder.
  const isFixed = (field: string, path: string) => isAddress(path) || fields.has(field);
  const pathOf = (field: string, path: string) => isFixed(field, path) ? path : pathFrom(here, path, system);
  const groups = groupRuns(sweep.map(({ cfg }) => cfg));
  const names = sweep.length > 1 ? runNames(sweep.length) : [out];
  const abouts = sweep.map(({ changes }) => aboutChanges(changes));
  if (args.flag("slurm")) {
    const listed = groups.map((places) => places.map((place) => ({ name: names[place]!, about: abouts[place]! })));
    const typed = PATHS.filter((field) => fields.has(field));
    for (const { cfg: { data, init } } of sweep) {
      const others = [["data.path", data.path], ["init.from", init.from ?? "/"]] as const;
      const [other] = others.find(([field, path]) => typed.length > 0 && pathOf(field, path) !== path) ?? [];
      if (other === undefined) continue;
      throw new UsageError(`--slurm with ${typed[0]} on the command line: give ${other} there too, or from the root`);
    }
    const from = typed.length > 0 ? "." : base ?? splitPath(file, system).folder;
    return await writeJobArray({ slurm, groups: listed, out, start, configToml, base: from }, args.flag("submit"));
  }
  if (args.flag("submit")) throw new UsageError("--submit is for the job array of --slurm; give both");
  const places = placesOf(args, groups, start);
  const adapter = places && await taskAdapter(slurm);
  const mine = (places ?? [...sweep.keys()]).map((place) => ({
    ...sweep[place]!,
    name: names[place]!,
    about: abouts[place]!,
  }));
  const stage = args.text("stage");
  const opened = new Map<string, RowSource>();
  const sources: RowSource[] = [];
  for (const { cfg: { data } } of mine) {
    const which = JSON.stringify(data);
    const { path, format, d_model, key, layer, tokens, ignore_labels } = data;
    const given = { format, d_model, key, layer, tokens, ignore_labels };
    let rows = opened.get(which);
    if (rows === undefined) {
      const there = pathOf("data.path", path);
      const from = stage === undefined ? there : await stageRows(there, stage, { signal, say });
      rows = await opening(signal, (source) => openRows(from, { ...source, ...given }));
    }
    opened.set(which, rows);
    sources.push(rows);
  }
  const isSweep = sweep.length > 1;
  const directoryOptions = { start, configToml, say };
  await using directories = places === undefined
    ? await RunDirectory.openSweep(out, sweep.length, directoryOptions)
    : await RunDirectory.openTask(out, { n_runs: sweep.length, places, ...directoryOptions });
  const runs = mine.map(({ cfg }, i) => ({
    cfg,
    source: sources[i]!,
    directory: directories.runs[i]!,
    ...cfg.init.from !== null && { from: pathOf("init.from", cfg.init.from) },
  }));
  if (places) {
    say(`task ${args.text("task")} of ${groups.length}: ${mine.length} of ${sweep.length} runs, on ${adapter}`);
  } else if (isSweep) say(`a sweep of ${sweep.length.toLocaleString("en")} runs in ${out}`);
  if (await useTuning()) say(TUNED);
  let progress: ProgressLine | undefined;
  const runTable = isSweep ? new RunTable({ runs: mine }) : undefined;
  // Runs of a sweep share most warnings.
  const said = new Set<string>();
  const options = {
    signal,
    mayChangeData: args.flag("changed-data"),
    onStart: (
      { n_models, n_steps, firstStep, n_rows, n_validation, batch_size, d_model, resolved, adapter }: RunPlan,
    ) => {
      runTable?.[Symbol.dispose]();
      say(
        `${n_rows.toLocaleString("en")} rows of ${d_model} to train on, ${n_validation.toLocaleString("en")} kept back`,
      );
      const models = n_models > 1 ? `${n_models} models, ` : "";
      const done = firstStep > 0 ? `, ${firstStep} of them done,` : "";
      say(`${models}${n_steps} steps of ${batch_size}${done} on ${adapter}`);
      const left = Object.entries(resolved).map(([field, value]) => `${field} ${value.toLocaleString("en")}`);
      if (left.length > 0) say(`set from the length of the run: ${left.join(", ")}`);
      if (!isSweep) progress = new ProgressLine({ n_steps, firstStep, batch_size });
    },
    onStatus: (status: RunStatus) => runTable?.show(status),
    onProgress: (state: ProgressState) => progress?.show(state),
    onWarning: (warning: string, run: number) => {
      if (said.has(warning)) return;
      said.add(warning);
      for (const shown of [progress, runTable]) shown?.[Symbol.dispose]();
      warn([isSweep ? `run ${mine[run]!.name}: ${warning}` : warning]);
    },
  };
  const trained = isSweep ? runSweep(runs, options) : runSingle(runs[0]!, options);
  const results = [
    await trained.finally(() => [progress, runTable].forEach((shown) => shown?.[Symbol.dispose]()))
      .catch(async (error: unknown) => {
        if (error === signal.reason) say("stopped before the first step");
        // Before the start there are no checkpoints to mention.
        if (progress === undefined || error === signal.reason) throw error;
        const message = error instanceof Error ? error.message : String(error);
        throw new Error(`${message}; ${await whatIsKept(out, runs, error)}`, { cause: error });
      }),
  ].flat();
  if (isSweep) {
    const outcomes = results.map((result, i) =>
      outcomeOf(mine[i]!.name, mine[i]!, { ...result, state: stateOf(result) })
    );
    await directories.whole?.writeJson("sweep.json", outcomes);
    say(table(
      outcomes.map((outcome) => [`${outcome.directory}  ${aboutChanges(outcome.changes)}`, aboutOutcome(outcome)]),
    ));
    if (directories.whole) await compareRuns(directories.whole);
    else say(`saev collect ${out} shows the state of the whole sweep`);
    if (results.some(({ isInterrupted }) => isInterrupted)) {
      say("stopped; use --resume=auto to continue");
      throw signal.reason;
    }
    const n_diverged = results.filter(({ diverged }) => diverged).length;
    const n_failed = results.filter(({ failed }) => failed).length;
    if (n_diverged > 0) say(`${n_diverged} of ${results.length} runs diverged`);
    if (n_failed > 0) say(`${n_failed} of ${results.length} runs failed; --resume=auto continues them`);
    return n_diverged + n_failed > 0 ? 1 : 0;
  }
  const [result] = results as [RunResult];
  if (result.isInterrupted) {
    say(`stopped after ${result.steps} steps; ${out}/sae.pt holds the model of that step; use --resume to continue`);
    throw signal.reason;
  }
  const { nmse, l0, dead_fraction } = result.metrics!;
  say(
    `${result.evaluated_on}: NMSE ${definedOr(nmse)}, L0 ${l0.toFixed(1)}, ${(100 * dead_fraction).toFixed(1)} % dead`,
  );
  say(`report: ${out}/report.html`);
  return 0;
}

/** Writes the page and the table about all runs of a sweep that could be begun into its folder. */
async function compareRuns(whole: RunDirectory): Promise<void> {
  const runs: ComparedRun[] = [];
  for (const folder of await runFoldersAt(whole.path) ?? []) runs.push(await readRun(folder));
  if (runs.length === 0) return;
  for (const { name, text } of comparisonFiles(compare(runs), whole.path)) await whole.write(name, text);
  say(`comparison: ${whole.path}/compare.html`);
}

/** A sentence about what the folders hold after a failure. */
async function whatIsKept(out: string, runs: readonly SweepRun[], error: unknown): Promise<string> {
  const found = await Promise.all(runs.map(({ directory }) => directory.openTraining().catch(() => undefined)));
  const states = found.filter((state) => state !== undefined);
  if (states.length === 0) return `${out} holds no checkpoint yet`;
  const what = runs.length > 1
    ? `states of ${states.length} of ${runs.length} runs`
    : `the state of step ${states[0]!.step}`;
  const kept = `${out} holds ${what}`;
  // From a state before an explosion the run would explode again.
  if (error instanceof DivergenceError && !error.isOfRows) return `${kept}, the last good one`;
  if (error instanceof DivergenceError) {
    return `${kept}; use --resume --changed-data to continue from it with other rows`;
  }
  return `${kept}; use ${states.length < runs.length ? "--resume=auto" : "--resume"} to continue`;
}

/** Four decimals, or the reason why there is no value. */
function definedOr(nmse: number): string {
  return Number.isNaN(nmse) ? "none (the rows do not vary)" : nmse.toFixed(4);
}

function isAddress(path: string): boolean {
  return /^(?:https?:\/\/|hf:)/i.test(path);
}

function startOf(args: Arguments): RunStart {
  const resume = args.given("resume", RESUMES);
  if (resume === undefined) {
    if (args.flag("changed-data")) throw new UsageError("--changed-data works only with --resume; give --resume too");
    return args.flag("overwrite") ? "overwrite" : "new";
  }
  if (args.flag("overwrite")) throw new UsageError("--resume and --overwrite contradict each other; give one");
  return resume === "" ? "resume" : resume;
}

/** Fields that are paths. */
const PATHS = ["data.path", "init.from"] as const;

/** The fields on the command line, with `init.from` where --from is given. */
function fieldsOf(args: Arguments): ReadonlyMap<string, string> {
  const from = args.text("from");
  if (from === undefined) return args.fields;
  if (args.fields.has("init.from")) throw new UsageError("--from and --init.from set the same field; give one of them");
  return new Map([...args.fields, ["init.from", JSON.stringify(from)]]);
}

/** {@link runTraining} for a run of a list. */
function runSingle({ cfg, source, directory, from }: SweepRun, options: SweepOptions): Promise<RunResult> {
  return runTraining(cfg, source, { ...options, directory, ...from !== undefined && { from } });
}

/** The indices of the runs of --task; `undefined` without it. */
function placesOf(args: Arguments, groups: readonly (readonly number[])[], start: RunStart) {
  const task = args.integer("task", 0);
  if (task === undefined) return undefined;
  if (start === "overwrite") {
    throw new UsageError("--task trains some runs of a sweep, and --overwrite replaces all of them; give one");
  }
  const places = groups[task];
  if (places !== undefined) return places;
  const most = groups.length - 1;
  throw new UsageError(`--task is ${task}; the configuration has ${groups.length} groups, from 0 to ${most}`);
}

/**
 * The runs that a file and the fields on the command line describe, and the text of a complete configuration file.
 *
 * @throws {UsageError} for an invalid configuration.
 */
function sweepOf(
  file: string,
  text: string,
  args: Arguments,
): { readonly sweep: readonly SweptConfig[]; readonly slurm: SlurmConfig; readonly configToml: string } {
  const maxRuns = args.integer("max-runs", 1);
  const seeds = args.integer("seeds", 1);
  const fields = fieldsOf(args);
  const typed = [...fields].map(([field, value]) => `--${field} ${value}`).join(" ");
  try {
    const set = withSettings(parseToml(text), fields);
    const found = seeds === undefined ? set : withSeeds(set, seeds);
    const sweep = completeSweep(found, { ...maxRuns !== undefined && { maxRuns } });
    const isAsWritten = fields.size === 0 && seeds === undefined;
    return { sweep, slurm: completeSlurm(found), configToml: isAsWritten ? text : stringify(found) };
  } catch (error) {
    const where = fields.size === 0 ? file : `${file} with ${typed}`;
    throw new UsageError(`${where}: ${error instanceof Error ? error.message : error}`);
  }
}
