/**
 * The state of a sweep from its folder alone, whichever machines trained its runs and whether or not they still do.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { openTraining } from "../train/training_file.ts";
import { writeBytes } from "../io/files.ts";
import { writeComparison } from "./comparison.ts";
import { findFolder, PREVIOUS_STATE, RECORD, STATE } from "./run_files.ts";
import { LOCK_OPTIONS, RunLock, type RunLockOptions } from "./run_lock.ts";
import { completeSweep, groupRuns } from "./sweep_config.ts";
import { outcomeOf, type RunEnd, type SweepOutcome } from "./sweep_summary.ts";

/** The state of a sweep. */
export interface CollectedSweep {
  /** Each run, in the order of the configuration. */
  readonly runs: readonly CollectedRun[];
  /** The unfinished groups, numbered as for `--task`, with the indices of their unfinished runs. */
  readonly missing: readonly { readonly task: number; readonly runs: readonly number[] }[];
}

/** The state of a run. */
export interface CollectedRun extends SweepOutcome {
  /** What is wrong or left to do; `null` for a finished run. */
  readonly problem: string | null;
}

/**
 * Examines every run of a sweep, or the one run of a folder. `config` is the parsed `config.toml` in it.
 *
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} if the folder is not that of a run or sweep, or the configuration does not match its runs.
 */
export async function collectSweep(
  path: string,
  config: Readonly<Record<string, unknown>>,
  options: RunLockOptions = {},
): Promise<CollectedSweep> {
  checkOptions("collectSweep", options, LOCK_OPTIONS);
  const { kind, runs: names } = await findFolder(path);
  const sweep = completeSweep(config, { maxRuns: Infinity });
  const n_folders = kind === "run" ? 1 : kind === "sweep" ? names.length : 0;
  if (n_folders === 0) throw new RangeError(`collecting ${path}: found no ${RECORD} of a sweep or a run there`);
  if (n_folders !== sweep.length) {
    throw new RangeError(
      `collecting ${path}: its config.toml describes ${sweep.length} runs, and its ${RECORD} ${n_folders}`,
    );
  }
  const isSweepUnderWay = kind === "sweep" && await isInUse(path, options);
  const runs: CollectedRun[] = [];
  for (const [i, swept] of sweep.entries()) {
    const folder = kind === "run" ? path : `${path}/${names[i]}`;
    const found = await lookAt(folder, isSweepUnderWay, options);
    runs.push({ ...outcomeOf(names[i] ?? ".", swept, found), problem: found.problem });
  }
  const missing = groupRuns(sweep.map(({ cfg }) => cfg)).flatMap((places, task) => {
    const left = places.filter((place) => runs[place]!.state !== "finished");
    return left.length === 0 ? [] : [{ task, runs: left }];
  });
  return { runs, missing };
}

/** Writes `sweep.json`, `compare.html` and `compare.csv` as a sweep in one process does. */
export async function writeCollected(path: string, { runs }: CollectedSweep): Promise<void> {
  const outcomes = runs.map(({ problem: _, ...outcome }) => outcome);
  await writeBytes(`${path}/sweep.json`, [new TextEncoder().encode(`${JSON.stringify(outcomes, null, 2)}\n`)]);
  if (runs.some(({ state }) => state !== "waiting")) await writeComparison([path], path);
}

/** What the files of a run show. */
interface Found extends RunEnd, Pick<CollectedRun, "problem"> {}

async function lookAt(folder: string, isSweepUnderWay: boolean, options: RunLockOptions): Promise<Found> {
  const nothing = { steps: 0, metrics: null, diverged: null, failed: null, warnings: [] };
  const found = await findFolder(folder);
  if (found.kind !== "run") return { ...nothing, state: "waiting", problem: "not begun" };
  const { failed = null } = await readJson(`${folder}/${RECORD}`);
  const { metrics = null, diverged = null, steps = 0, warnings = [] } = await readJson(`${folder}/metrics.json`);
  if (await isInUse(folder, options) || (isSweepUnderWay && metrics === null)) {
    const step = await stepOf(folder).catch(() => 0);
    return { ...nothing, state: "training", steps: step, problem: "under way" };
  }
  if (typeof failed === "string") {
    const step = await stepOf(folder).catch(() => steps);
    return { ...nothing, state: "failed", steps: step, warnings, failed: new Error(failed), problem: failed };
  }
  if (typeof diverged === "string") {
    return { ...nothing, state: "diverged", steps, warnings, diverged: new Error(diverged), problem: diverged };
  }
  if (metrics !== null && found.ours.has("sae.pt")) {
    // JSON has no NaN: all rows are equal.
    return {
      ...nothing,
      state: "finished",
      steps,
      metrics: { ...metrics, nmse: metrics.nmse ?? NaN },
      warnings,
      problem: null,
    };
  }
  try {
    const step = await stepOf(folder);
    return { ...nothing, state: "stopped", steps: step, warnings, problem: `stopped at step ${step}` };
  } catch (error) {
    const hint = found.ours.has(PREVIOUS_STATE) ? "; --resume=previous resumes from the state before it" : "";
    const message = `${(error as Error).message}${hint}`;
    return { ...nothing, state: "failed", failed: new Error(message), problem: message };
  }
}

/** The step of the state in a run's folder; 0 if there is no state yet. */
async function stepOf(folder: string): Promise<number> {
  const { ours } = await findFolder(folder);
  return ours.has(STATE) ? (await openTraining(`${folder}/${STATE}`)).step : 0;
}

/** Whether a living process holds the run. */
async function isInUse(folder: string, options: RunLockOptions): Promise<boolean> {
  return await RunLock.check(folder, options).then(() => false, () => true);
}

/** The content of a JSON file; an empty object if there is none or it is invalid. */
// deno-lint-ignore no-explicit-any
async function readJson(path: string): Promise<Readonly<Record<string, any>>> {
  try {
    return JSON.parse(await Deno.readTextFile(path)) ?? {};
  } catch {
    return {};
  }
}
