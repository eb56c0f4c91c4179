/**
 * Copies of remote files in a folder on disk, where there is a file system.
 *
 * A copy is named `TAG=SIZE=SHA256`, so that it can be checked by itself. It is written as a partial file, checked
 * against the server's size and hash, and only then renamed.
 *
 * Under Deno the partial is `TAG.partial`. The process that writes it holds a lock, which ends with the process; others
 * wait for it, and take over if the file does not grow for ten minutes. Node and Bun cannot lock files: there each
 * download writes its own partial, the first to finish stays, and an interrupted one is not resumed.
 *
 * @module
 */

import type { FileHandle } from "node:fs/promises";
import { type Clock, sleep, SYSTEM_CLOCK } from "./clock.ts";
import { CheckpointError } from "./errors.ts";
import { disk, hasCode, lacksPermission } from "./disk.ts";
import type { Digest } from "./hub.ts";

/** The cache folder cannot be used. */
export class CacheError extends Error {
  /** `"CacheError"` */
  override readonly name = "CacheError";
}

/** A copy on disk. */
export interface Copy {
  /** Where it is. */
  readonly path: string;
  /** Its length in bytes. */
  readonly size: number;
  /** The SHA-256 of its bytes when it was kept. */
  readonly sha256: string;
}

/** A file to keep a copy of. */
export interface Original {
  /** Its name in messages. */
  readonly name: string;
  /** Distinguishes versions; empty if the server gives no tag. */
  readonly tag: string;
  /** Its length, if known. */
  readonly size: number | null;
  /** The hash that its bytes must have, if known. */
  readonly digest: Digest | null;
  /** The bytes from an offset on; from the start unless {@link Original.canResume} is set. */
  stream(from: number): AsyncIterable<Uint8Array>;
  /** Whether an interrupted download can be resumed. */
  readonly canResume: boolean;
}

/** Progress, cancellation and clock. */
export interface KeepOptions {
  /** Called with the number of bytes received. */
  readonly onBytes?: (received: number) => void;
  /** Called with one line about waiting, and about files that are removed. */
  readonly onNotice?: (line: string) => void;
  /** Ends the wait for another process. */
  readonly signal?: AbortSignal;
  /** The platform's clock if left out. */
  readonly clock?: Clock;
}

/** Milliseconds before the first look at another process's download, and at most between later looks. */
const [FIRST_LOOK, LOOK_EVERY] = [250, 2000];
/** Milliseconds without growth after which another process's download is taken over. */
const STALE = 600_000;
const PARTIAL = ".partial";
/** Longest file name, in bytes, that file systems accept. */
const MAX_NAME = 255;

/** A file name for any text: a long one is cut and ends with a hash of the whole. */
export function asFileName(text: string, most = MAX_NAME): string {
  const name = encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*~]|^\.+$/g, (sign) => [...sign].map((one) => `%${one.charCodeAt(0).toString(16)}`).join(""));
  if (name.length <= most) return name;
  // No other name contains this sign.
  return `${name.slice(0, most - 65)}=${sha256Of(new TextEncoder().encode(text))}`;
}

/** The copies of one file. */
export class Copies {
  readonly #folder: string;
  readonly #onNotice: (line: string) => void;
  readonly #options: KeepOptions;

  /** The copies in a folder that holds nothing else. */
  constructor(folder: string, options: KeepOptions = {}) {
    this.#folder = folder;
    this.#options = options;
    this.#onNotice = options.onNotice ?? (() => {});
  }

  /** A copy with this tag, or with any if left out. A copy of the wrong length is removed. */
  async find(tag?: string): Promise<Copy | null> {
    const names = await disk().readdir(this.#folder).catch((error) => {
      if (hasCode(error, "ENOENT")) return [];
      throw this.#failure(this.#folder, error);
    });
    const start = tag === undefined ? "" : `${tagName(tag)}=`;
    for (const name of names.sort()) {
      const [size, sha256] = /=(\d{1,16})=([0-9a-f]{64})$/.exec(name)?.slice(1) ?? [];
      if (size === undefined || sha256 === undefined || !name.startsWith(start)) continue;
      const path = `${this.#folder}/${name}`;
      const found = await disk().stat(path).catch(unlessMissing).catch((error) => {
        throw this.#failure(path, error);
      });
      // Another process may have removed it since.
      if (found === null) continue;
      if (found.size === Number(size)) return { path, size: found.size, sha256 };
      this.#onNotice(`removing the damaged copy ${path}: it has ${found.size} bytes; expected ${size}`);
      await removeQuietly(path);
    }
    return null;
  }

  /**
   * A copy of a file, downloaded if there is none.
   *
   * @throws {CheckpointError} if the bytes that arrive have the wrong size or hash.
   * @throws {CacheError} if they cannot be stored.
   */
  async keep(wanted: Original): Promise<Copy> {
    const { name, tag } = wanted;
    const hasLocks = typeof Deno !== "undefined";
    // Later downloads do not find a partial with a unique name.
    const original = hasLocks ? wanted : { ...wanted, canResume: false };
    const own = hasLocks ? "" : `.${crypto.randomUUID()}`;
    const partial = `${this.#folder}/${tagName(tag)}${own}${PARTIAL}`;
    const failure = (error: unknown): CacheError => this.#failure(partial, error, name);
    await onDisk(() => disk().mkdir(this.#folder, { recursive: true, mode: 0o700 }), failure);
    for (let tries = 1;; tries++) {
      const found = tag === "" ? null : await this.find(tag);
      if (found !== null) return found;
      await using file = hasLocks
        ? await this.#lock(partial, original, failure)
        : await onDisk(() => ownFile(partial), failure);
      // Another process finished while this one waited.
      if (file === null) continue;
      const copy = await this.#fill(file, partial, original, failure);
      if (copy !== null) return copy;
      if (tries === 2) {
        throw new CheckpointError(
          `reading ${name}: twice, the bytes that arrived did not match the size or hash that the server gave; no copy is kept`,
        );
      }
      this.#onNotice(
        `reading ${name}: ${partial} is not the start of this file; removing it and downloading the whole file again`,
      );
    }
  }

  /** The partial file, open for writing; `null` if another process has finished it meanwhile. */
  async #lock(
    partial: string,
    { name, tag }: Original,
    failure: (error: unknown) => CacheError,
  ): Promise<PartialFile | null> {
    const { signal, clock = SYSTEM_CLOCK } = this.#options;
    let [isSaid, state, since, pause] = [false, "", clock.now(), FIRST_LOOK];
    for (;;) {
      const file = await onDisk(() => Deno.open(partial, { read: true, write: true, create: true }), failure);
      using stack = new DisposableStack();
      stack.use(file);
      // If another process renamed or removed it between the two calls, it is no longer the partial.
      if (await onDisk(() => file.tryLock(true), failure)) {
        if (await isAt(file, partial)) {
          stack.move();
          return lockedFile(file, partial);
        }
        continue;
      }
      const { size, mtime } = await file.stat();
      stack.dispose();
      const now = `${size} ${mtime?.getTime()}`;
      if (now !== state) [state, since] = [now, clock.now()];
      if (clock.now() - since >= STALE) {
        this.#onNotice(`reading ${name}: ${partial} has not grown for ${STALE / 60_000} minutes; taking it over`);
        await onDisk(() => disk().unlink(partial), failure);
        continue;
      }
      if (!isSaid) this.#onNotice(`reading ${name}: waiting for another process that is writing ${partial}`);
      isSaid = true;
      await sleep(clock, pause, signal);
      pause = Math.min(2 * pause, LOOK_EVERY);
      if (tag !== "" && await this.find(tag) !== null) return null;
    }
  }

  /** Downloads what is missing, checks the file and renames it; `null` if an existing start proves wrong. */
  async #fill(
    file: PartialFile,
    partial: string,
    original: Original,
    failure: (error: unknown) => CacheError,
  ): Promise<Copy | null> {
    const { name, tag, size, digest, canResume } = original;
    const start = await file.size();
    let at = canResume && (size === null || start <= size) ? start : 0;
    const isResumed = at > 0;
    if (at < start) await onDisk(() => file.truncate(at), failure);
    this.#options.onBytes?.(at);
    try {
      for await (const piece of original.stream(at)) {
        await onDisk(() => writeAll(file, piece, at), failure);
        this.#options.onBytes?.(at += piece.length);
      }
      await onDisk(() => file.sync(), failure);
    } catch (error) {
      // Free the disk if it is full, and remove what cannot be resumed.
      if (error instanceof CacheError || !canResume) await removeQuietly(partial);
      throw error;
    }
    const sha256 = await onDisk(() => hashOf(file, "sha256", at), failure);
    const hash = digest?.kind === "git" ? await onDisk(() => hashOf(file, "git", at), failure) : sha256;
    if (size !== null && at !== size || digest !== null && hash !== digest.hex) {
      await removeQuietly(partial);
      if (isResumed) return null;
      const [found, expected] = digest === null
        ? [`${at} bytes`, `${size} bytes`]
        : [`${digest.kind} ${hash}`, digest.hex];
      throw new CheckpointError(
        `reading ${name}: it arrived with ${found}; the server gave ${expected}. No copy is kept`,
      );
    }
    const path = `${this.#folder}/${tagName(tag)}=${at}=${sha256}`;
    await onDisk(() => file.keepAs(path), failure);
    return { path, size: at, sha256 };
  }

  #failure(path: string, error: unknown, name?: string): CacheError {
    const why = hasCode(error, "ENOSPC", "EDQUOT") ? "the disk is full; the partial file is removed" : reason(error);
    return new CacheError(`${name === undefined ? "looking for" : `keeping ${name} in`} ${path}: ${why}`);
  }
}

/** Whether a copy is still intact. */
export async function isWhole({ path, size, sha256 }: Copy): Promise<boolean> {
  await using handle = await disk().open(path);
  const file = handleFile(handle);
  return await file.size() === size && await hashOf(file, "sha256", size) === sha256;
}

/** The file name of a tag, with room for length, hash and suffix. */
function tagName(tag: string): string {
  return asFileName(tag, 120);
}

/** Does file work whose failures are failures of the cache. */
async function onDisk<T>(work: () => Promise<T>, failure: (error: unknown) => CacheError): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw failure(error);
  }
}

/** What is wrong with a path, in a few words. */
export function reason(error: unknown): string {
  if (lacksPermission(error)) return "the program has no permission to use it (--allow-read, --allow-write)";
  if (hasCode(error, "EACCES", "EPERM")) return "permission denied";
  if (hasCode(error, "ENOTDIR", "EEXIST")) return "a file is in the way of the folder";
  return error instanceof Error ? error.message : String(error);
}

/** `null` for a missing file; rethrows other errors. */
function unlessMissing(error: unknown): null {
  if (hasCode(error, "ENOENT")) return null;
  throw error;
}

/** The original failure matters more than one of the removal. */
async function removeQuietly(path: string): Promise<void> {
  await disk().unlink(path).catch(() => {});
}

// --------------------------------------------------------------------------------------------------------- open files

/** A file that can be read anywhere. */
interface ReadableFile {
  size(): Promise<number>;
  /** Reads from an offset and returns the number of bytes; 0 at the end. */
  readAt(bytes: Uint8Array, at: number): Promise<number>;
}

/** A file that is written, and then read to check it. */
interface PartialFile extends ReadableFile, AsyncDisposable {
  writeAt(bytes: Uint8Array, at: number): Promise<number>;
  /** Renames it to a copy, unless that name is taken. */
  keepAs(path: string): Promise<void>;
  truncate(size: number): Promise<void>;
  sync(): Promise<void>;
}

/** A file of Deno's, which alone can be locked. */
function lockedFile(file: Deno.FsFile, partial: string): PartialFile {
  const seek = (at: number): Promise<number> => file.seek(at, Deno.SeekMode.Start);
  return {
    size: async () => (await file.stat()).size,
    async keepAs(path) {
      // Another process that considered this one stuck may have put its own file here.
      if (!await isAt(file, partial)) throw new Error("another process took it over");
      await disk().rename(partial, path);
    },
    readAt: (bytes, at) => seek(at).then(() => file.read(bytes)).then((count) => count ?? 0),
    writeAt: (bytes, at) => seek(at).then(() => file.write(bytes)),
    truncate: (size) => file.truncate(size),
    sync: () => file.sync(),
    [Symbol.asyncDispose]: () => Promise.resolve(file.close()),
  };
}

/** A new file under Node or Bun, which no other process knows. */
async function ownFile(partial: string): Promise<PartialFile> {
  const handle = await disk().open(partial, "wx+");
  return {
    ...handleFile(handle),
    async keepAs(path) {
      // The first to finish stays, since it may be in use. Some file systems have no links.
      await disk().link(partial, path).catch(async (error) => {
        if (!hasCode(error, "EEXIST")) await disk().rename(partial, path);
      });
      await removeQuietly(partial);
    },
    writeAt: async (bytes, at) => (await handle.write(bytes, 0, bytes.length, at)).bytesWritten,
    truncate: (size) => handle.truncate(size),
    sync: () => handle.sync(),
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

function handleFile(handle: FileHandle): ReadableFile {
  return {
    size: async () => (await handle.stat()).size,
    readAt: async (bytes, at) => (await handle.read(bytes, 0, bytes.length, at)).bytesRead,
  };
}

async function isAt(file: Deno.FsFile, path: string): Promise<boolean> {
  const [open, there] = await Promise.all([file.stat(), Deno.stat(path).catch(unlessMissing)]);
  return there !== null && there.ino === open.ino && there.dev === open.dev;
}

async function writeAll(file: PartialFile, bytes: Uint8Array, from: number): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.writeAt(bytes.subarray(at), from + at);
}

// ------------------------------------------------------------------------------------------------------------- hashes

/** The part of Node's module that is used: the Web's own hashes need all bytes at once. */
interface NodeCrypto {
  createHash(name: "sha256" | "sha1"): { update(bytes: Uint8Array): void; digest(as: "hex"): string };
}

function createHash(name: "sha256" | "sha1"): ReturnType<NodeCrypto["createHash"]> {
  const { process } = globalThis as unknown as { process: { getBuiltinModule(name: string): NodeCrypto } };
  return process.getBuiltinModule("node:crypto").createHash(name);
}

function sha256Of(bytes: Uint8Array): string {
  const hash = createHash("sha256");
  hash.update(bytes);
  return hash.digest("hex");
}

/** The SHA-256 of a file, or its git id: SHA-1 of `blob SIZE`, a zero byte, and the bytes. */
async function hashOf(file: ReadableFile, kind: Digest["kind"], size: number): Promise<string> {
  const hash = createHash(kind === "git" ? "sha1" : "sha256");
  if (kind === "git") hash.update(new TextEncoder().encode(`blob ${size}\0`));
  const bytes = new Uint8Array(2 ** 20);
  for (let at = 0;;) {
    const count = await file.readAt(bytes, at);
    if (count === 0) return hash.digest("hex");
    hash.update(bytes.subarray(0, count));
    at += count;
  }
}
