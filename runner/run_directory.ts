/**
 * The folder of a run, or of a sweep's runs: which starts its content allows, and its files. Each file is replaced
 * atomically, and files of others are never touched.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { dump, type Dumpable } from "../io/checkpoints/checkpoint.ts";
import { schemaThatKeeps } from "../io/checkpoints/saev_schemas.ts";
import { CheckpointError } from "../io/errors.ts";
import { syncFolder, writeBytes } from "../io/files.ts";
import { typedArraysAsArrays } from "../eval/metrics.ts";
import { openTraining, type SavedTraining, saveTraining, type TrainingToSave } from "../train/training_file.ts";
import { fileChunks, fileLines } from "./file_lines.ts";
import {
  COMPARISON_FILES,
  findFolder,
  type FoundFolder,
  isOneRun,
  JOB_SCRIPT,
  NAMES,
  NEXT_STATE,
  PREVIOUS_STATE,
  RECORD,
  type RunKind,
  type RunRecord,
  STATE,
} from "./run_files.ts";
import { LOCK_OPTIONS, RunLock, type RunLockOptions, STALE_MS } from "./run_lock.ts";
import type { RunSession } from "./run_record.ts";

/**
 * How a run starts in its folder.
 *
 * - `new`: the folder must hold no checkpoint of ours.
 * - `overwrite`: our files are removed, those of the state first.
 * - `resume`: the folder must hold a state.
 * - `previous`: the folder must hold the state before the last, from which the run resumes.
 * - `auto`: the run resumes if the folder holds a state; it starts if the folder is absent, empty, or ours without a
 *   checkpoint.
 */
export type RunStart = "new" | "overwrite" | "resume" | "previous" | "auto";

/** How a folder is opened. */
export interface RunDirectoryOptions extends RunLockOptions {
  /** How the run starts; `new` if left out. */
  readonly start?: RunStart;
  /** The text of `config.toml`; without it there is no such file. */
  readonly configToml?: string;
  /** Whether there will be a script for a scheduler, `slurm.sbatch`. */
  readonly hasJobScript?: boolean;
}

const DIRECTORY_OPTIONS = { ...LOCK_OPTIONS, start: true, configToml: true, hasJobScript: true } as const;

/** The folders of a sweep. */
export interface SweepDirectories extends AsyncDisposable {
  /** The folder of the sweep, which holds the summary and the others. */
  readonly whole: RunDirectory;
  /** One folder per run. */
  readonly runs: readonly RunDirectory[];
}

/** The folders of some runs of a sweep. */
export interface TaskDirectories extends AsyncDisposable {
  /** No process holds the sweep's folder meanwhile. */
  readonly whole: null;
  /** The folders, in the order of the indices given. */
  readonly runs: readonly RunDirectory[];
}

/** How a folder is opened. */
interface Opening {
  readonly path: string;
  readonly kind: RunKind;
  readonly start: RunStart;
  readonly configToml: string | undefined;
  readonly hasJobScript: boolean;
  /** The folders of a sweep's runs. */
  readonly runs: readonly string[];
  readonly options: RunLockOptions;
  /** The folder of its sweep, which holds the lock. */
  readonly parent: RunDirectory | null;
}

/** The folder of a run. Other processes are kept out until it is disposed of. */
export class RunDirectory implements AsyncDisposable {
  /** Its path. */
  readonly path: string;
  /** Whether its content is resumed; for a run, from its state. */
  readonly resumes: boolean;
  readonly #opening: Opening;
  readonly #found: FoundFolder;
  /** For a run of a sweep, the lock of the sweep. */
  readonly #lock: RunLock;
  #record: RunRecord;
  #begun: Promise<void> | undefined;
  #hasState = false;

  private constructor(opening: Opening, found: FoundFolder, lock: RunLock) {
    const { path, kind, runs } = opening;
    this.path = path;
    this.resumes = isResumed(found, opening);
    this.#opening = opening;
    this.#found = found;
    this.#lock = lock;
    this.#record = {
      saev_nn_run: 1,
      kind,
      files: NAMES[kind].filter((name) =>
        (found.ours.has(name) && (this.resumes || isKept(name, opening))) ||
        (namesOf(opening).includes(name) && (found.ours.has(name) || !found.names.has(name)))
      ),
      ...kind === "sweep" && { runs },
      sessions: this.resumes ? found.sessions : [],
    };
  }

  /** Its name within the folder of its sweep. */
  get name(): string {
    return this.path.slice(this.#opening.parent ? this.#opening.parent.path.length + 1 : 0);
  }

  /**
   * Opens the folder of a run. Until {@link RunDirectory.begin}, only the folder and its lock are created.
   *
   * @throws {RangeError} if what stands there does not allow this start, if a name that the run needs is that of a file
   * which is not ours, or if another process has the run.
   * @throws {TypeError} for an unknown option.
   */
  static async open(path: string, options: RunDirectoryOptions = {}): Promise<RunDirectory> {
    checkOptions("RunDirectory.open", options, DIRECTORY_OPTIONS);
    const { start = "new", configToml, hasJobScript = false } = options;
    const directory = await RunDirectory.#open({
      ...{ path, kind: "run", start, configToml, hasJobScript, runs: [], options, parent: null },
    });
    try {
      // A sweep has one lock for all of its runs.
      await RunLock.check(`${path}/..`, options);
    } catch (error) {
      await directory[Symbol.asyncDispose]();
      throw error;
    }
    return directory;
  }

  /**
   * Opens the folder of a demo's run: as {@link RunDirectory.open} does, but it never replaces any other run. `start` is
   * `overwrite` if left out, since a demo is short.
   *
   * @throws {RangeError} as {@link RunDirectory.open}, and for the folder of another run.
   * @throws {TypeError} for an unknown option.
   */
  static async openDemo(
    path: string,
    options: RunLockOptions & Pick<RunDirectoryOptions, "start"> = {},
  ): Promise<RunDirectory> {
    checkOptions("RunDirectory.openDemo", options, { ...LOCK_OPTIONS, start: true });
    const { start = "overwrite" } = options;
    return await RunDirectory.#open({
      ...{ path, kind: "demo", start, configToml: undefined, hasJobScript: false },
      ...{ runs: [], options, parent: null },
    });
  }

  /**
   * Opens the folder of a sweep and of each of its runs, `0`, `1`, …; for a single run only its folder.
   *
   * @throws {RangeError} as {@link RunDirectory.open}, for any of them.
   * @throws {TypeError} for an unknown option.
   */
  static async openSweep(path: string, n_runs: number, options: RunDirectoryOptions = {}): Promise<SweepDirectories> {
    checkOptions("RunDirectory.openSweep", options, DIRECTORY_OPTIONS);
    const { start = "new", configToml, hasJobScript = false } = options;
    if (n_runs === 1) {
      const only = await RunDirectory.open(path, options);
      return { whole: only, runs: [only], [Symbol.asyncDispose]: () => only[Symbol.asyncDispose]() };
    }
    const names = runNames(n_runs);
    await using stack = new AsyncDisposableStack();
    const whole = stack.use(
      await RunDirectory.#open({
        path,
        kind: "sweep",
        start,
        configToml,
        hasJobScript,
        runs: names,
        options,
        parent: null,
      }),
    );
    const old = whole.#found.runs;
    const runs: RunDirectory[] = [];
    for (const name of new Set([...names, ...old])) await RunLock.check(`${path}/${name}`, options);
    for (const name of names) {
      const opening: Opening = {
        path: `${path}/${name}`,
        kind: "run",
        start: whole.#found.isReplaced ? "overwrite" : start,
        configToml: undefined,
        hasJobScript: false,
        runs: [],
        options,
        parent: whole,
      };
      const found = await findFolder(opening.path);
      check(found, opening);
      runs.push(new RunDirectory(opening, found, whole.#lock));
    }
    const owned = stack.move();
    return { whole, runs, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  }

  /**
   * Opens the folders of the runs of a sweep with these indices, each with a lock of its own: other processes, also on
   * other machines, can hold the other runs meanwhile. The files of the sweep's folder are written if they are missing;
   * they are the same whichever process writes them. The successor of a killed process waits until its lock is stale.
   *
   * @throws {RangeError} as {@link RunDirectory.openSweep}, and if the folder's `config.toml` describes another sweep.
   */
  static async openTask(
    path: string,
    { n_runs, places, ...options }: RunDirectoryOptions & {
      readonly n_runs: number;
      readonly places: readonly number[];
    },
  ): Promise<TaskDirectories> {
    checkOptions("RunDirectory.openTask", options, DIRECTORY_OPTIONS);
    const patient = { patienceMs: 2 * STALE_MS, ...options };
    if (n_runs === 1) {
      const only = await RunDirectory.open(path, patient);
      return { whole: null, runs: [only], [Symbol.asyncDispose]: () => only[Symbol.asyncDispose]() };
    }
    const names = runNames(n_runs);
    await prepareSweep(path, names, options);
    await using stack = new AsyncDisposableStack();
    const runs: RunDirectory[] = [];
    for (const place of places) {
      const { configToml: _, ...given } = patient;
      runs.push(stack.use(await RunDirectory.open(`${path}/${names[place]}`, given)));
    }
    const owned = stack.move();
    return { whole: null, runs, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  }

  static async #open(opening: Opening): Promise<RunDirectory> {
    const { path, options } = opening;
    const before = await findFolder(path);
    check(before, opening);
    await checkConfigToml(before, opening);
    await Deno.mkdir(path, { recursive: true });
    await using stack = new AsyncDisposableStack();
    if (!before.exists) stack.defer(() => removeIfEmpty(path));
    const lock = stack.use(await RunLock.take(path, options));
    // Another process may have held it in between.
    const found = { ...await findFolder(path), exists: before.exists };
    check(found, opening);
    stack.move();
    return new RunDirectory(opening, found, lock);
  }

  /**
   * Makes the folder this run's: removes older files if they are to be replaced, and files that killed processes left
   * half written. Everything that may refuse the run comes before.
   */
  begin(): Promise<void> {
    return this.#begun ??= this.#begin();
  }

  async #begin(): Promise<void> {
    const { path, kind, start, configToml, parent } = this.#opening;
    await parent?.begin();
    await Deno.mkdir(path, { recursive: true });
    const { names, ours, leftovers } = this.#found;
    // In a folder with only foreign files they may belong to another program.
    const stale = ours.size > 0 || names.size === 0 ? leftovers : [];
    for (const name of [...stale, ...ours.has(NEXT_STATE) ? [NEXT_STATE] : []]) await removeIfThere(`${path}/${name}`);
    if (start === "previous" && isOneRun(kind)) {
      await putInPlaceOf(this.#file(PREVIOUS_STATE), this.#file(STATE));
    } else if (!this.resumes) {
      await this.#removeOlder();
    }
    await this.#writeRecord();
    this.#hasState = this.resumes;
    if (configToml !== undefined && this.#record.files.includes("config.toml")) {
      await this.#write("config.toml", configToml);
    }
  }

  /** Until the last file is gone, `run.json` records that the rest must not be resumed. */
  async #removeOlder(): Promise<void> {
    const { path } = this;
    const { kind, ours, runs, sessions } = this.#found;
    if (kind === null) return;
    const files = [...ours].filter((name) => name !== RECORD && !isKept(name, this.#opening));
    const older: RunRecord = { saev_nn_run: 1, kind, files, runs, replacing: true, sessions };
    await this.#write(RECORD, asJson(older));
    for (const run of runs) await removeRun(`${path}/${run}`);
    await removeInOrder(path, kind, new Set(files));
    await syncFolder(path);
  }

  /** The sessions in the record, including the current one. */
  get sessions(): readonly unknown[] {
    return this.#record.sessions;
  }

  /** Adds the current session to the record. */
  async addSession(session: RunSession): Promise<void> {
    await this.begin();
    this.#record = { ...this.#record, sessions: [...this.#record.sessions, session] };
    await this.#writeRecord();
  }

  /** Records what has ended the run, until it is resumed. Does nothing before the run is begun. */
  async noteFailure(message: string): Promise<void> {
    if (this.#begun === undefined) return;
    await this.#prepare();
    this.#record = { ...this.#record, failed: message };
    await this.#writeRecord();
  }

  /** Writes `sae.pt` as Python reads it, or in our own schema if Python has no such function. */
  async writeCheckpoint(sae: Dumpable): Promise<void> {
    await this.#prepare();
    await dump(this.#file("sae.pt"), sae, { schema: schemaThatKeeps(sae) });
  }

  /**
   * Writes `training.safetensors`, which {@link RunDirectory.openTraining} opens. The previous one is kept as
   * `training.previous.safetensors`; at every moment there is at least one.
   */
  async writeTraining(training: TrainingToSave): Promise<void> {
    await this.#prepare();
    const next = this.#file(NEXT_STATE);
    await saveTraining(next, training);
    if (this.#hasState) await putInPlaceOf(this.#file(STATE), this.#file(PREVIOUS_STATE));
    await Deno.rename(next, this.#file(STATE));
    this.#hasState = true;
    await syncFolder(this.path);
  }

  /**
   * The state to resume from; `undefined` if the run has none yet.
   *
   * @throws {CheckpointError} if it is damaged; the message says whether the state before it is intact.
   */
  async openTraining(): Promise<SavedTraining | undefined> {
    if (!this.resumes && !this.#hasState) return undefined;
    const isPrevious = this.#opening.start === "previous" && this.#begun === undefined;
    try {
      return await openWhole(this.#file(isPrevious ? PREVIOUS_STATE : STATE));
    } catch (cause) {
      if (!(cause instanceof CheckpointError)) throw cause;
      const before = isPrevious ? null : await openWhole(this.#file(PREVIOUS_STATE)).catch(() => null);
      const hint = before === null
        ? "no other state is intact; train again with --overwrite"
        : `the state before it, of step ${before.step}, is intact; use --resume=previous to resume from it`;
      throw new CheckpointError(`${cause.message}; ${hint}`, { cause });
    }
  }

  /** Writes a file of text or bytes. */
  async write(name: string, content: string | Uint8Array): Promise<void> {
    await this.#prepare();
    await this.#write(name, content);
  }

  /** Writes a JSON file; typed arrays become arrays, and values that are not finite become `null`. */
  async writeJson(name: string, value: unknown): Promise<void> {
    await this.write(name, asJson(value));
  }

  /** The text of a file; empty if the file is missing. */
  async readText(name: string): Promise<string> {
    try {
      return await Deno.readTextFile(this.#file(name));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return "";
      throw error;
    }
  }

  /** The lines of a file, including an incomplete last one; a missing file is an empty one. */
  lines(name: string): AsyncIterable<string> {
    return fileLines(this.#file(name));
  }

  /** The bytes of a file in pieces; none if the file is missing. */
  chunks(name: string): AsyncIterable<Uint8Array> {
    return fileChunks(this.#file(name));
  }

  /** Truncates a file to this many bytes, or creates an empty one. */
  async truncate(name: string, bytes: number): Promise<void> {
    await this.#prepare();
    using file = await Deno.open(this.#file(name), { write: true, create: true });
    await file.truncate(bytes);
  }

  /** Appends text or bytes to a file. */
  async append(name: string, content: string | Uint8Array): Promise<void> {
    await this.#prepare();
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await Deno.writeFile(this.#file(name), bytes, { append: true }).catch((cause: Error) => {
      throw new Error(
        `writing ${this.#file(name)}: ${cause.message}; it needs ${bytes.length.toLocaleString("en")} more bytes`,
        { cause },
      );
    });
  }

  /** Releases the folder. If the run was not begun and the folder is new, it is removed. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#opening.parent) return;
    await this.#lock[Symbol.asyncDispose]();
    if (this.#begun === undefined && !this.#found.exists) await removeIfEmpty(this.path);
  }

  /** Before every write: checks that this process still holds the run. */
  async #prepare(): Promise<void> {
    await this.begin();
    await this.#lock.assertHeld();
  }

  async #writeRecord(): Promise<void> {
    await this.#write(RECORD, asJson(this.#record));
  }

  async #write(name: string, content: string | Uint8Array): Promise<void> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await writeBytes(this.#file(name), [bytes]);
  }

  #file(name: string): string {
    return `${this.path}/${name}`;
  }
}

async function openWhole(path: string): Promise<SavedTraining> {
  const saved = await openTraining(path);
  await saved.verify();
  return saved;
}

function asJson(value: unknown): string {
  return `${JSON.stringify(value, typedArraysAsArrays, 2)}\n`;
}

/** The names that a folder needs. */
function namesOf({ kind, configToml, hasJobScript }: Opening): string[] {
  return NAMES[kind].filter((name) =>
    name === "config.toml" ? configToml !== undefined : name !== JOB_SCRIPT || hasJobScript
  );
}

/** Whether a run that begins keeps this file of an older one: the script that started it. */
function isKept(name: string, { start }: Opening): boolean {
  return name === JOB_SCRIPT && start === "auto";
}

/** The folder names of this many runs. */
export function runNames(n_runs: number): string[] {
  const digits = String(n_runs - 1).length;
  return Array.from({ length: n_runs }, (_, i) => String(i).padStart(digits, "0"));
}

/** Writes the files of a sweep's folder that come before any run, unless they exist. */
async function prepareSweep(path: string, runs: readonly string[], options: RunDirectoryOptions): Promise<void> {
  const { configToml } = options;
  const opening: Opening = {
    ...{ path, kind: "sweep", start: "auto", configToml, hasJobScript: false, runs, options, parent: null },
  };
  await RunLock.check(path, options);
  const found = await findFolder(path);
  check(found, opening);
  await checkConfigToml(found, opening);
  const inUse = found.ours.has("config.toml") ? await Deno.readTextFile(`${path}/config.toml`) : configToml;
  if (found.isReplaced || inUse !== configToml) {
    const what = found.isReplaced
      ? "its files were being replaced when the process ended"
      : "its config.toml says another";
    throw new RangeError(
      `opening the sweep ${path}: ${what}; replace it with --slurm --overwrite, or choose another folder`,
    );
  }
  if (found.kind !== null) return;
  const files = ["sweep.json", ...COMPARISON_FILES, ...configToml === undefined ? [] : ["config.toml"]];
  const record: RunRecord = { saev_nn_run: 1, kind: "sweep", files, runs, sessions: [] };
  await Deno.mkdir(path, { recursive: true });
  const write = (name: string, text: string) => writeBytes(`${path}/${name}`, [new TextEncoder().encode(text)]);
  await write(RECORD, asJson(record));
  if (configToml !== undefined) await write("config.toml", configToml);
}

function isResumed(found: FoundFolder, { kind, start }: Opening): boolean {
  if (start === "new" || start === "overwrite" || found.isReplaced) return false;
  return found.kind === kind && (kind === "sweep" || found.ours.has(start === "previous" ? PREVIOUS_STATE : STATE));
}

const A: Readonly<Record<RunKind, string>> = { run: "a run", sweep: "a sweep", demo: "a demo" };

/** @throws {RangeError} if the content does not allow this start. */
function check(found: FoundFolder, opening: Opening): void {
  const { path, start } = opening;
  if (start === "new") checkNew(found, opening);
  else if (start !== "overwrite") checkResumed(found, opening);
  else if (opening.kind === "demo" && found.kind !== null && found.kind !== "demo") {
    throw new RangeError(`${path} holds ${A[found.kind]}, which the demo will not replace; choose another folder`);
  }
  const needed = [RECORD, ...namesOf(opening).filter((name) => name !== "config.toml")];
  const taken = needed.find((name) => found.names.has(name) && !found.ours.has(name));
  if (taken !== undefined) throw notOurs(path, taken);
}

function notOurs(path: string, name: string): RangeError {
  return new RangeError(
    `${path}/${name} does not belong to this run, but the run needs that name; move the file, or choose another folder`,
  );
}

/** @throws {RangeError} for a foreign `config.toml`, unless it has the same text: then it stays. */
async function checkConfigToml({ names, ours }: FoundFolder, { path, configToml }: Opening): Promise<void> {
  if (configToml === undefined || !names.has("config.toml") || ours.has("config.toml")) return;
  if (await Deno.readTextFile(`${path}/config.toml`) !== configToml) throw notOurs(path, "config.toml");
}

function hasCheckpoint({ ours }: FoundFolder): boolean {
  return [STATE, PREVIOUS_STATE, "sae.pt"].some((name) => ours.has(name));
}

function checkNew(found: FoundFolder, { path, kind }: Opening): void {
  if (found.kind === null || found.isReplaced) return;
  const isOther = found.kind !== kind;
  if (!isOther && !hasCheckpoint(found)) return;
  throw new RangeError(
    `${path} already holds ${A[found.kind]}; choose another folder, ${
      isOther ? "" : "continue it with --resume, "
    }or ` +
      "replace it with --overwrite",
  );
}

function checkResumed(found: FoundFolder, { path, kind, start, runs }: Opening): void {
  const { exists, names, ours, isReplaced } = found;
  const refuse = (what: string): never => {
    throw new RangeError(`resuming ${path}: ${what}`);
  };
  const isAuto = start === "auto";
  if (isReplaced) {
    if (isAuto) return;
    refuse("the process ended while it was replacing the run's files; start again with --overwrite");
  }
  if (isAuto && names.size === 0) return;
  if (!exists) refuse("there is no such folder");
  if (found.kind === null) {
    const what = names.size === 0 ? "an empty folder" : [...names].slice(0, 5).sort().join(", ");
    refuse(`found ${what}, but no run; start one ${names.size === 0 ? "here" : "in another folder"} without --resume`);
  }
  if (found.kind !== kind) {
    refuse(`found ${A[found.kind!]}; ${kind === "demo" ? "expected" : "the configuration describes"} ${A[kind]}`);
  }
  const surplus = found.runs.find((run) => !runs.includes(run));
  if (surplus !== undefined) refuse(`found the run ${surplus}; the configuration describes ${runs.length} runs`);
  const wanted = start === "previous" ? PREVIOUS_STATE : STATE;
  if (kind === "sweep" || ours.has(wanted) || (isAuto && !hasCheckpoint(found))) return;
  const there = ["sae.pt", PREVIOUS_STATE].filter((name) => ours.has(name));
  const hint = wanted === STATE && ours.has(PREVIOUS_STATE)
    ? "use --resume=previous to resume from the state before it"
    : hasCheckpoint(found)
    ? "train again with --overwrite"
    : "use --resume=auto to start runs that have no checkpoint yet";
  refuse(`there is no ${wanted}${there.length > 0 ? ` beside ${there.join(" and ")}` : ""}; ${hint}`);
}

/** Replaces a file atomically by a hard link to another, or a copy of it. */
async function putInPlaceOf(file: string, other: string): Promise<void> {
  const temporary = `${other}.${crypto.randomUUID()}.tmp`;
  // Some file systems have no hard links.
  await Deno.link(file, temporary).catch(() => Deno.copyFile(file, temporary));
  await Deno.rename(temporary, other);
  // Renaming one hard link of a file to another does nothing.
  await removeIfThere(temporary);
}

/** Removes one run of an older sweep, and its folder if nothing else is in it. */
async function removeRun(path: string): Promise<void> {
  const { kind, ours } = await findFolder(path);
  if (kind !== "run") return;
  await removeInOrder(path, kind, ours);
  await removeIfThere(`${path}/${RECORD}`);
  await removeIfEmpty(path);
}

async function removeIfEmpty(path: string): Promise<void> {
  await Deno.remove(path).catch(() => {});
}

async function removeInOrder(path: string, kind: RunKind, ours: ReadonlySet<string>): Promise<void> {
  for (const name of NAMES[kind]) if (ours.has(name)) await removeIfThere(`${path}/${name}`);
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
