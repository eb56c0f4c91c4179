/**
 * One process per run. The operating system holds the lock, which ends with the process however that ends. Machines
 * that share files but not locks use the heartbeat: the time of the lock file, renewed every ten seconds.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { mayUse } from "../io/disk.ts";

/** The environment of {@link RunLock.take}. */
export interface RunLockOptions {
  /** This machine's name; `null` if it may not be read. */
  readonly host?: string | null;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** Milliseconds between two heartbeats; 10,000 if left out, which other processes assume. */
  readonly heartbeatMs?: number;
  /** Milliseconds to wait for the holder to end; 0 if left out. */
  readonly patienceMs?: number;
  /** Waits this many milliseconds. */
  readonly sleep?: (ms: number) => Promise<void>;
  /** Called with a line when a stale lock of another machine is taken over. */
  readonly say?: (line: string) => void;
}

/** The names of {@link RunLockOptions}. */
export const LOCK_OPTIONS = {
  host: true,
  now: true,
  heartbeatMs: true,
  patienceMs: true,
  sleep: true,
  say: true,
} as const;

/** The holder of a run, from the lock file. */
interface Holder {
  readonly host: string | null;
  readonly pid: number;
  /** Distinguishes holders with the same process number. */
  readonly id: string;
}

/** The name of the lock file in a run's folder. */
export const LOCK_FILE = "run.lock";

const HEARTBEAT_MS = 10_000;
/** A machine that has missed this many heartbeats counts as dead. */
const MISSED_HEARTBEATS = 10;
/** Longest time until the lock of a process that ended without removing it can be taken. */
export const STALE_MS: number = MISSED_HEARTBEATS * HEARTBEAT_MS;
const RETRY_MS = 1000;

/** Renews the time of a file, on its own thread because a slow step may block this one for minutes. */
const HEART = `
const { workerData: { path, every } } = require("node:worker_threads");
setInterval(() => {
  const now = new Date();
  try { Deno.utimeSync(path, now, now); } catch { /* its folder was moved, or removed */ }
}, every);`;

/** The lock of a run. Dispose of it to release the run. */
export class RunLock implements AsyncDisposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #holder: Holder;
  readonly #heart: Worker;

  private constructor(path: string, file: Deno.FsFile, holder: Holder, heartbeatMs: number) {
    this.#path = path;
    this.#file = file;
    this.#holder = holder;
    this.#heart = new Worker(HEART, { eval: true, workerData: { path, every: heartbeatMs } });
    this.#heart.unref();
  }

  /**
   * Takes the lock of an existing folder, waiting for it as long as the options allow.
   *
   * @throws {RangeError} if a living process holds it, or the file is not a lock.
   */
  static async take(folder: string, options: RunLockOptions = {}): Promise<RunLock> {
    const { host = await hostname(), heartbeatMs = HEARTBEAT_MS, say = () => {} } = options;
    const { patienceMs = 0, now = Date.now, sleep = (ms) => new Promise((done) => setTimeout(done, ms)) } = options;
    const path = `${folder}/${LOCK_FILE}`;
    const begun = now();
    for (let isFirst = true;; isFirst = false) {
      using stack = new DisposableStack();
      const file = stack.use(await Deno.open(path, { read: true, write: true, create: true }));
      const refusal = await claim(folder, file, { ...options, host });
      if (refusal !== null && now() - begun >= patienceMs) throw new RangeError(refusal);
      if (refusal !== null) {
        if (isFirst) say(`waiting: ${refusal}`);
        await sleep(RETRY_MS);
        continue;
      }
      // Its last holder may have removed it after it was opened here.
      if (!await isAt(path, file)) continue;
      const holder = { host, pid: Deno.pid, id: crypto.randomUUID() };
      await file.truncate();
      await file.seek(0, Deno.SeekMode.Start);
      await file.write(new TextEncoder().encode(`${JSON.stringify({ saev_nn_lock: 1, ...holder })}\n`));
      await file.sync();
      stack.move();
      return new RunLock(path, file, holder, heartbeatMs);
    }
  }

  /**
   * Checks that no living process holds the lock of a folder, without changing it. A folder that the program may not
   * use has no holder: a run that may write only to its own folder need not check the one above.
   *
   * @throws {RangeError} if one does.
   */
  static async check(folder: string, options: RunLockOptions = {}): Promise<void> {
    const { host = await hostname() } = options;
    const path = `${folder}/${LOCK_FILE}`;
    if (!mayUse(path, "read") || !mayUse(path, "write")) return;
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path, { read: true, write: true });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    using _ = file;
    const refusal = await claim(folder, file, { ...options, host, say: () => {} });
    if (refusal !== null) throw new RangeError(refusal);
  }

  /**
   * Checks that the lock was not taken over, as happens to a machine that slept for a while.
   *
   * @throws {RangeError} if it was.
   */
  async assertHeld(): Promise<void> {
    const holder = await isAt(this.#path, this.#file) ? readHolder(textOf(this.#file)) : undefined;
    if (holder?.id === this.#holder.id) return;
    throw new RangeError(
      `this process no longer holds ${this.#path}: ${
        holder ? `${nameOf(holder)} does` : "it was removed"
      }; nothing more is ` +
        "written to the run",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#heart.terminate();
    try {
      await this.assertHeld();
      await Deno.remove(this.#path);
    } catch {
      // It belongs to another process, or is gone already.
    }
    this.#file.close();
  }
}

/**
 * Why this process cannot have the lock: a living one holds it. `null` if it can.
 *
 * @throws {RangeError} if the file is not a lock.
 */
async function claim(
  folder: string,
  file: Deno.FsFile,
  { host, now = Date.now, say = () => {} }: RunLockOptions,
): Promise<string | null> {
  // Some network file systems have no locks.
  const isLocked = await file.tryLock(true).catch(() => null);
  const { mtime } = await file.stat();
  const text = textOf(file);
  const holder = readHolder(text);
  if (isLocked === false) {
    return `${folder} is in use by ${holder ? nameOf(holder) : "another process"}; wait until it ends`;
  }
  if (text === "") return null;
  if (holder === undefined) {
    throw new RangeError(`${folder}/${LOCK_FILE} is not a saev lock file; move it, or choose another folder`);
  }
  if (isLocked && holder.host !== null && holder.host === host) return null;
  const silence = now() - (mtime?.getTime() ?? 0);
  const since = `whose last heartbeat was ${Math.max(0, Math.round(silence / 1000))} s ago`;
  if (silence >= STALE_MS) {
    say(`${folder}: the lock of ${nameOf(holder)}, ${since}, is stale; taking it over`);
    return null;
  }
  return `${folder} is in use by ${nameOf(holder)}, ${since}. If that process has ended, try again ` +
    `${STALE_MS / 1000} s after that`;
}

function nameOf({ host, pid }: Holder): string {
  return `process ${pid} on ${host ?? "an unnamed machine"}`;
}

/** The text of an open file; empty if another process has locked it on Windows. */
function textOf(file: Deno.FsFile): string {
  const bytes = new Uint8Array(4096);
  try {
    file.seekSync(0, Deno.SeekMode.Start);
    return new TextDecoder().decode(bytes.subarray(0, file.readSync(bytes) ?? 0));
  } catch {
    return "";
  }
}

/** `undefined` for text that no lock contains. */
function readHolder(text: string): Holder | undefined {
  try {
    const { saev_nn_lock: version, host, pid, id } = JSON.parse(text);
    const isHolder = version === 1 && (typeof host === "string" || host === null) && typeof pid === "number";
    return isHolder && typeof id === "string" ? { host, pid, id } : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the path still leads to the open file. */
async function isAt(path: string, file: Deno.FsFile): Promise<boolean> {
  const [there, open] = await Promise.all([Deno.stat(path).catch(() => null), file.stat()]);
  return there !== null && there.ino === open.ino && there.dev === open.dev;
}

async function hostname(): Promise<string | null> {
  const { state } = await Deno.permissions.query({ name: "sys", kind: "hostname" });
  return state === "granted" ? Deno.hostname() : null;
}
