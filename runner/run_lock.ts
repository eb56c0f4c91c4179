/**
 * One process a run. The operating system keeps the lock, which ends with the process however that ends. Machines that
 * share files but not locks go by the heartbeat: the time of the lock's file, renewed every ten seconds.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { mayUse } from "../io/disk.ts";

/** What {@link RunLock.take} needs of the world. */
export interface RunLockOptions {
  /** This machine's name; `null` where it may not be asked for. */
  readonly host?: string | null;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** Milliseconds between two heartbeats; 10,000 if left out, as others take for granted. */
  readonly heartbeatMs?: number;
  /** Milliseconds that a process waits for its holder to end; 0 if left out. */
  readonly patienceMs?: number;
  /** Waits so many milliseconds. */
  readonly sleep?: (ms: number) => Promise<void>;
  /** Told in one line that a lock was left by a process on another machine, and taken from it. */
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

/** Who has a run, as the lock's file says. */
interface Holder {
  readonly host: string | null;
  readonly pid: number;
  /** Tells one holder from another with the same number. */
  readonly id: string;
}

/** The lock's name in the folder of a run. */
export const LOCK_FILE = "run.lock";

const HEARTBEAT_MS = 10_000;
/** A machine that has missed so many is taken for dead. */
const MISSED_HEARTBEATS = 10;
/** The lock of a process that has ended without removing it can be taken after so long at the latest. */
export const STALE_MS: number = MISSED_HEARTBEATS * HEARTBEAT_MS;
const RETRY_MS = 1000;

/** Renews the time of a file. On a thread of its own, since a slow step may block this one for minutes. */
const HEART = `
const { workerData: { path, every } } = require("node:worker_threads");
setInterval(() => {
  const now = new Date();
  try { Deno.utimeSync(path, now, now); } catch { /* its folder was moved, or removed */ }
}, every);`;

/** The lock of a run. Dispose of it to let others have the run. */
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
   * Takes the lock of a folder, which must exist; waits for it as long as the options say.
   *
   * @throws {RangeError} if a living process has it, or the file is no lock.
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
   * Makes sure that no living process has the lock of a folder, and leaves it as it is. A folder that the program may not
   * use has no holder: a run that may write to its own folder alone need not ask for the one above.
   *
   * @throws {RangeError} if one has.
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
   * Makes sure that the lock was not taken away, as it is from a machine that slept for a while.
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
      // Another's, or gone already.
    }
    this.#file.close();
  }
}

/**
 * What keeps this process from the lock, because a living one has it; `null` if nothing does.
 *
 * @throws {RangeError} if the file is no lock.
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

/** The text of an open file; empty if another process has locked it and the system is Windows. */
function textOf(file: Deno.FsFile): string {
  const bytes = new Uint8Array(4096);
  try {
    file.seekSync(0, Deno.SeekMode.Start);
    return new TextDecoder().decode(bytes.subarray(0, file.readSync(bytes) ?? 0));
  } catch {
    return "";
  }
}

/** `undefined` for a text that no lock holds. */
function readHolder(text: string): Holder | undefined {
  try {
    const { saev_nn_lock: version, host, pid, id } = JSON.parse(text);
    const isHolder = version === 1 && (typeof host === "string" || host === null) && typeof pid === "number";
    return isHolder && typeof id === "string" ? { host, pid, id } : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the path leads to the open file. */
async function isAt(path: string, file: Deno.FsFile): Promise<boolean> {
  const [there, open] = await Promise.all([Deno.stat(path).catch(() => null), file.stat()]);
  return there !== null && there.ino === open.ino && there.dev === open.dev;
}

async function hostname(): Promise<string | null> {
  const { state } = await Deno.permissions.query({ name: "sys", kind: "hostname" });
  return state === "granted" ? Deno.hostname() : null;
}
