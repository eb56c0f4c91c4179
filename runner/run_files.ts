/**
 * Which files of a folder belong to a run. `run.json` lists the names that the run has claimed; all other files belong to
 * the user. Runs of 0.1.0 have no `run.json`: they are recognised by the contents of their files.
 *
 * @module
 */

import { openSource, readBytes } from "../io/files.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { LOCK_FILE } from "./run_lock.ts";

/** What a folder can hold: one run, the runs of a sweep, or the run of a demo. */
export type RunKind = "run" | "sweep" | "demo";

/** The record of a run, which marks the folder as ours. */
export const RECORD = "run.json";
/** The state to resume from. */
export const STATE = "training.safetensors";
/** The state before that. */
export const PREVIOUS_STATE = "training.previous.safetensors";
/** A state that is being written, before it becomes {@link STATE}. */
export const NEXT_STATE = "training.next.safetensors";

/** The script for a scheduler; it is kept when its runs replace what an older try left. */
export const JOB_SCRIPT = "slurm.sbatch";

/** What TensorBoard reads; it knows such files by their names. */
export const EVENTS = "events.out.tfevents.saev";

/** What a comparison of runs is written to. */
export const COMPARISON_FILES = ["compare.html", "compare.csv"] as const;

const RUN_NAMES = [
  STATE,
  PREVIOUS_STATE,
  NEXT_STATE,
  "sae.pt",
  "metrics.json",
  "metrics.jsonl",
  EVENTS,
  "report.html",
  "config.json",
];

/** The names that each kind needs, in the order of removal: without the first, nothing can be resumed. */
export const NAMES: Readonly<Record<RunKind, readonly string[]>> = {
  run: [...RUN_NAMES, "config.toml", JOB_SCRIPT],
  sweep: ["sweep.json", ...COMPARISON_FILES, "config.toml", JOB_SCRIPT],
  demo: [...RUN_NAMES, "features.png"],
};

/** Whether a folder holds one run, which a demo is too. */
export function isOneRun(kind: RunKind | null): boolean {
  return kind === "run" || kind === "demo";
}

/** The content of a folder. */
export interface FoundFolder {
  /** Whether the folder exists. */
  readonly exists: boolean;
  /** Everything in it but a lock and leftovers. */
  readonly names: ReadonlySet<string>;
  /** Files with our names that a killed process was writing. */
  readonly leftovers: readonly string[];
  /** What it holds; `null` if it is not ours. */
  readonly kind: RunKind | null;
  /** Our files. */
  readonly ours: ReadonlySet<string>;
  /** The folders of a sweep's runs. */
  readonly runs: readonly string[];
  /** Whether the process ended while it was replacing the files. */
  readonly isReplaced: boolean;
  /** Its sessions, if the record has a version that we know. */
  readonly sessions: readonly unknown[];
}

/** `run.json` */
export interface RunRecord {
  /** The version of this file. */
  readonly saev_nn_run: 1;
  /** What the folder holds. */
  readonly kind: RunKind;
  /** The names that are ours in this folder. */
  readonly files: readonly string[];
  /** The folders of a sweep's runs. */
  readonly runs?: readonly string[];
  /** Set while older files are being removed. */
  readonly replacing?: true;
  /** What ended the last session, other than a signal or the run's numbers. */
  readonly failed?: string;
  /** One entry for each start or resume. */
  readonly sessions: readonly unknown[];
}

/**
 * Examines a folder without changing it.
 *
 * @throws {RangeError} if the path is not a folder.
 */
export async function findFolder(path: string): Promise<FoundFolder> {
  const names = await namesIn(path);
  const leftovers = [...names ?? []].filter(isLeftover);
  for (const name of [LOCK_FILE, ...leftovers]) names?.delete(name);
  const nothing = { leftovers, kind: null, ours: new Set<string>(), runs: [], isReplaced: false, sessions: [] };
  if (names === null) return { ...nothing, exists: false, names: new Set() };
  const record = names.has(RECORD) ? readRecord(await readJson(`${path}/${RECORD}`)) : undefined;
  if (record) {
    const { kind, files, runs = [], replacing = false, sessions } = record;
    const ours = new Set([RECORD, ...files].filter((name) => names.has(name)));
    return { exists: true, names, leftovers, kind, ours, runs, isReplaced: replacing, sessions };
  }
  return { ...nothing, exists: true, names, ...await findOldFolder(path, names) };
}

function isLeftover(name: string): boolean {
  const target = targetOf(name);
  return target === RECORD || Object.values(NAMES).flat().includes(target);
}

/** The name that a temporary file of this library was to get; `""` for any other file. */
export function targetOf(name: string): string {
  return /^(.+)\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.tmp$/.exec(name)?.[1] ?? "";
}

/** What a run of 0.1.0 left in a folder. */
async function findOldFolder(path: string, names: ReadonlySet<string>): Promise<Partial<FoundFolder>> {
  const metrics = await readJson(`${path}/metrics.json`);
  const isDemo = typeof at(metrics, "config", "data", "held_out") === "object";
  if (isDemo) return { kind: "demo", ours: new Set(NAMES.demo.filter((name) => names.has(name))) };

  const isOurs = new Map<string, boolean>([
    ["config.json", isOldConfig(await readJson(`${path}/config.json`))],
    [STATE, names.has(STATE) && await isState(`${path}/${STATE}`)],
    ["metrics.json", isOldConfig(at(metrics, "config")) && typeof at(metrics, "losses") === "object"],
  ]);
  if (isOurs.get("config.json") || isOurs.get(STATE)) {
    const report = names.has("report.html") ? await Deno.readTextFile(`${path}/report.html`) : "";
    isOurs.set("report.html", /<title>A sparse autoencoder of [\d,]+ latents<\/title>/.test(report));
    // Every run wrote these two, whatever was there before.
    for (const name of ["sae.pt", "config.toml", STATE]) isOurs.set(name, names.has(name));
    return { kind: "run", ours: new Set([...isOurs].filter(([, is]) => is).map(([name]) => name)) };
  }
  const runs: string[] = [];
  for (const name of [...names].filter((name) => /^\d+$/.test(name)).sort()) {
    const { kind } = await findFolder(`${path}/${name}`).catch(() => ({ kind: null }));
    if (kind === "run") runs.push(name);
  }
  const summary = await readJson(`${path}/sweep.json`);
  const isSummary = Array.isArray(summary) && summary.every((one) => runs.includes(at(one, "directory") as string));
  if (runs.length === 0) return {};
  const ours = [...isSummary ? ["sweep.json"] : [], ...names.has("config.toml") ? ["config.toml"] : []];
  return { kind: "sweep", ours: new Set(ours), runs };
}

/** The names in a folder; `null` if there is none. */
async function namesIn(path: string): Promise<Set<string> | null> {
  try {
    return new Set(await Array.fromAsync(Deno.readDir(path), ({ name }) => name));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    if (error instanceof Deno.errors.NotADirectory) {
      throw new RangeError(`${path} is not a folder; a run needs a folder`);
    }
    throw error;
  }
}

/** `undefined` for text that is not JSON. */
async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(new TextDecoder().decode(await readBytes(path)));
  } catch {
    return undefined;
  }
}

/** A value within JSON; `undefined` if absent. */
function at(value: unknown, ...fields: readonly string[]): unknown {
  return fields.reduce((inner, field) => (inner as Record<string, unknown> | null | undefined)?.[field], value);
}

function isOldConfig(value: unknown): boolean {
  const isTable = (field: string) => typeof at(value, field) === "object" && at(value, field) !== null;
  return ["data", "sae", "objective", "train"].every(isTable) && typeof at(value, "data", "path") === "string";
}

async function isState(path: string): Promise<boolean> {
  const read = async () => (await readSafetensors(await openSource(path))).metadata.has("saev_nn_training");
  return await read().catch(() => false);
}

/** `undefined` for JSON that is not a record of ours. */
function readRecord(value: unknown): RunRecord | undefined {
  const isNames = (list: unknown) =>
    Array.isArray(list) && list.every((name) => typeof name === "string" && !/[/\\]|^\.\.?$/.test(name));
  const { saev_nn_run: version, kind, files, runs = [], sessions } = (value ?? {}) as Partial<RunRecord>;
  if (version !== 1 || !Object.hasOwn(NAMES, kind ?? "") || !isNames(files) || !isNames(runs)) return undefined;
  return Array.isArray(sessions) ? value as RunRecord : undefined;
}
