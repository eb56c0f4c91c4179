/**
 * Reads and writes bytes at paths, URLs, file handles and streams. Without a file system, as in a browser, URLs can be
 * read and handles written.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import type { Stats } from "node:fs";
import type { FileHandle as OpenHandle } from "node:fs/promises";
import { CheckpointError, naming } from "./errors.ts";
import { checkPath, type FileSet, pickedFiles, singleFile } from "./file_set.ts";
import { asFileName, CacheError, Copies, type Copy, isWhole, reason } from "./copies.ts";
import { openHttp, type RemoteSource, shownAddress, StatusError, webAddress, type WholeAnswer } from "./http.ts";
import {
  checkHubOptions,
  digestOf,
  formatHubAddress,
  HUB_ENDPOINT,
  type HubAccess,
  type HubAddress,
  hubFiles,
  type HubOptions,
  isCommit,
  isHubAddress,
  listHubFolder,
  openHubFile,
  parseHubAddress,
} from "./hub.ts";
import { blobSource, buffered, bytesSource, type FilePart, partPieces, type Source, stoppable } from "./source.ts";
import {
  disk,
  environment,
  hasCode,
  hasDisk,
  isForbidden,
  lacksPermission,
  mayUse,
  pathSystem,
  retold,
} from "./disk.ts";
import { pathFrom, pathOfUrl, splitPath } from "./paths.ts";

/**
 * A source of bytes. A string is a path, an `http(s)` address, or an address on the Hugging Face hub such as
 * `hf:owner/repository/sae.pt@main`. Without a file system a string is an address, which may be relative to the page's.
 */
export type ByteSource = string | URL | Uint8Array | ArrayBuffer | Blob | FileHandle | Source;

/** A source of files that belong together: a folder, a source of bytes, or files that a user picked. */
export type FilesSource = ByteSource | Iterable<File> | FileSet;

/** Options for opening sources. */
export interface SourceOptions {
  /**
   * Options for addresses on the Hugging Face hub. Cache, progress, notices, bounds and signal apply to other addresses
   * too.
   */
  readonly hub?: HubOptions;
  /** Aborts every read, with its reason. */
  readonly signal?: AbortSignal;
}

/** The names of {@link SourceOptions}. */
export const SOURCE_OPTIONS = { hub: true, signal: true } as const satisfies Record<keyof SourceOptions, true>;

/** A `FileSystemFileHandle`: a file that a browser's user picked, or one in the browser's private file system. */
export interface FileHandle {
  /** The current file. */
  getFile(): Promise<File>;
}

/** A handle open for writing, such as a `Deno.FsFile`. It stays open. */
export interface ByteSink {
  /** Writes some of the bytes and returns how many. */
  write(bytes: Uint8Array): number | Promise<number>;
  /** Flushes the written bytes to disk. */
  sync?(): void | Promise<void>;
}

/** A target for bytes. A stream stays open. */
export type ByteTarget = string | URL | ByteSink | WritableStream<Uint8Array>;

/** A file open for reading anywhere. */
export interface OpenFile extends AsyncDisposable {
  /** Its length in bytes. */
  readonly size: number;
  /** Changes if the file is replaced or written. */
  readonly identity: string;
  /** `length` bytes from `start` on. */
  read(start: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Opens a file that may be too large to be read at once.
 *
 * @throws {RangeError} if the path is a folder, or something without a fixed size.
 */
export async function openFile(path: string | URL): Promise<OpenFile> {
  // Opening a pipe would wait until somebody writes into it.
  const found = await statToRead(path);
  if (!found.isFile()) throw new RangeError(`reading ${path}: found ${kindOf(found)}, expected a file`);
  await using stack = new AsyncDisposableStack();
  const file = stack.use(await disk().open(path));
  const { size, dev, ino, mtimeNs } = await file.stat({ bigint: true });
  const open = stack.move();
  return {
    size: Number(size),
    identity: [dev, ino, size, mtimeNs].join(),
    async read(start, length) {
      const doing = `reading ${length} bytes of ${path} from byte ${start}`;
      const bytes = new Uint8Array(length);
      for (let end = 0; end < length;) {
        const { bytesRead } = await file.read(bytes, end, length - end, start + end).catch((cause: Error) => {
          throw retold(`${doing}: ${cause.message}`, cause);
        });
        if (bytesRead === 0) throw new RangeError(`${doing}: it ends after ${start + end}`);
        end += bytesRead;
      }
      return bytes;
    },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

/**
 * Opens any source of bytes. There is nothing to close.
 *
 * A file of the hub is downloaded into a folder of the user's, where there is one, and read from there; see {@link
 * HubOptions}.
 *
 * @throws {CheckpointError} where a server does not answer with a file.
 * @throws {TypeError} for an unknown option.
 */
export async function openSource(from: ByteSource, options: SourceOptions = {}): Promise<Source> {
  checkOptions("openSource", options, SOURCE_OPTIONS);
  return stoppable(await openOne(from, hubOptions(options), () => {}), options.signal);
}

/** Opens one file; `onCopy` is called if it is read from a copy. */
async function openOne(from: ByteSource, options: HubOptions, onCopy: (copy: Copy) => void): Promise<Source> {
  if (from instanceof Uint8Array) return bytesSource(from);
  if (from instanceof ArrayBuffer) return bytesSource(new Uint8Array(from));
  if (from instanceof Blob) return blobSource(from);
  if (typeof from === "string" || from instanceof URL) {
    if (isOnHub(from)) return await openHub(parseHubAddress(from), options, onCopy);
    return isRemote(from) ? await openWeb(from, options, onCopy) : await fileSource(from);
  }
  return "getFile" in from ? blobSource(await from.getFile()) : from;
}

/**
 * Opens files that belong together: those of a folder, those beside a file, or those that a user picked.
 *
 * @throws {CheckpointError} where a server does not answer with files.
 * @throws {TypeError} for an unknown option.
 */
export async function openFiles(from: FilesSource, options: SourceOptions = {}): Promise<FileSet> {
  checkOptions("openFiles", options, SOURCE_OPTIONS);
  return stoppableFiles(await openTogether(from, hubOptions(options), () => {}), options.signal);
}

/** The same files, with reads that stop once the signal is aborted. */
function stoppableFiles(files: FileSet, signal: AbortSignal | undefined): FileSet {
  if (signal === undefined) return files;
  const stop = (source: Source | null): Source | null => source && stoppable(source, signal);
  return {
    name: files.name,
    main: files.main,
    list: () => files.list(),
    find: async (path) => stop(await files.find(path)),
    findAbove: async (name) => stop(await files.findAbove?.(name) ?? null),
  };
}

function hubOptions({ hub = {}, signal }: SourceOptions): HubOptions {
  checkHubOptions(hub);
  return { ...signal && { signal }, ...hub };
}

/**
 * Works with files that belong together. If one of them proves bad, the message also names it and the copies that were
 * read, and damaged copies are removed; `explain` does the same for a message that is not thrown.
 */
export async function withFiles<T>(
  from: FilesSource,
  options: SourceOptions,
  use: (files: FileSet, explain: (message: string) => Promise<string>) => Promise<T>,
): Promise<T> {
  const copies = new Map<string, Copy>();
  const explain = async (message: string): Promise<string> => {
    let explained = message;
    for (const copy of copies.values()) explained += await blame(copy, explained);
    return explained;
  };
  try {
    const found = await openTogether(from, hubOptions(options), (copy) => void copies.set(copy.path, copy));
    const files = stoppableFiles(found, options.signal);
    return await naming(files.name, () => use(files, explain));
  } catch (error) {
    if (error instanceof CheckpointError) error.message = await explain(error.message);
    throw error;
  }
}

/** The addition to a message about a copy that was read. */
async function blame(copy: Copy, message: string): Promise<string> {
  if (!await isWhole(copy).catch(() => false)) {
    await removeQuietly(copy.path);
    return `; the copy ${copy.path} was damaged and has been removed; try again`;
  }
  return message.includes(copy.path) ? "" : `; read from the copy ${copy.path}`;
}

async function openTogether(
  from: FilesSource,
  options: HubOptions,
  onCopy: (copy: Copy) => void,
): Promise<FileSet> {
  if (typeof from === "string" || from instanceof URL) {
    if (isOnHub(from)) {
      return await hubFiles(parseHubAddress(from), {
        open: (address) => openHub(address, options, onCopy),
        list: (address) => listHub(address, options),
      });
    }
    return isRemote(from) ? webFiles(webAddress(from), options, onCopy) : await localFiles(from);
  }
  if ("find" in from && "list" in from) return from;
  if (!(from instanceof Uint8Array) && Symbol.iterator in from) return pickedFiles(from);
  return singleFile(await openOne(from, options, onCopy));
}

/** Files at web addresses, which cannot be listed. */
function webFiles(url: URL, options: HubOptions, onCopy: (copy: Copy) => void): FileSet {
  const base = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf("/") + 1));
  const main = base === "" ? null : base;
  const open = async (address: string | URL): Promise<Source | null> => {
    try {
      return await openWeb(address, options, onCopy);
    } catch (error) {
      if (error instanceof StatusError && [404, 410].includes(error.status)) return null;
      throw error;
    }
  };
  return {
    name: shownAddress(url),
    main,
    list: () => Promise.resolve(main === null ? [] : [main]),
    async find(path) {
      checkPath(path);
      return await open(path === main ? url : below(url, path));
    },
    async findAbove(name) {
      checkPath(name);
      return new URL(".", url).pathname === "/" ? null : await open(below(new URL("..", url), name));
    },
  };
}

async function localFiles(path: string | URL): Promise<FileSet> {
  const found = await statToRead(path);
  const isDirectory = found.isDirectory();
  if (!isDirectory && !found.isFile()) {
    throw new RangeError(`reading ${path}: found ${kindOf(found)}, expected a file or a folder`);
  }
  const folder = !isDirectory ? folderOf(path) : path instanceof URL ? new URL(`${path.pathname}/`, path) : `${path}/`;
  return {
    name: String(path),
    main: isDirectory ? null : baseOf(path),
    async list() {
      const names: string[] = [];
      for (const name of await disk().readdir(folder || ".")) {
        const info = await statOrNull(below(folder, name));
        if (info?.isFile()) names.push(name);
        if (info?.isDirectory()) names.push(`${name}/`);
      }
      return names.sort();
    },
    async find(path) {
      checkPath(path);
      const place = below(folder, path);
      return (await statOrNull(place))?.isFile() ? await fileSource(place) : null;
    },
    async findAbove(name) {
      checkPath(name);
      const place = typeof folder === "string" ? `${folder}../${name}` : below(new URL("..", folder), name);
      try {
        return (await statOrNull(place))?.isFile() ? await fileSource(place) : null;
      } catch (error) {
        // If the program may read only the file's folder, there is nothing above it.
        if (isForbidden(error)) return null;
        throw error;
      }
    },
  };
}

/** The kind of an entry, for messages. */
function kindOf(found: Stats): string {
  if (found.isFile()) return "a file";
  if (found.isDirectory()) return "a folder";
  return found.isFIFO() ? "a pipe, which can be read only once" : found.isSocket() ? "a socket" : "a device";
}

/** The status of a path that is to be read. */
async function statToRead(path: string | URL): Promise<Stats> {
  return await disk().stat(path).catch((cause: Error) => {
    throw hasCode(cause, "ENOENT") ? retold(`reading ${path}: there is no such file or folder`, cause) : cause;
  });
}

/** The status of a path, following links unless `look` is `"lstat"`; `null` if nothing is there. */
async function statOrNull(path: string | URL, look: "stat" | "lstat" = "stat"): Promise<Stats | null> {
  try {
    return await disk()[look](path);
  } catch (error) {
    if (hasCode(error, "ELOOP", "ENOTDIR", "ENOENT")) return null;
    throw error;
  }
}

/**
 * A file on disk. It is opened for each read and closed again, so there is nothing to close; a changed file is an
 * error.
 */
async function fileSource(path: string | URL, name = String(path)): Promise<Source> {
  await using first = await openFile(path);
  return buffered({
    name,
    size: first.size,
    async read(from, to) {
      await using file = await openFile(path);
      if (file.identity !== first.identity) {
        throw new CheckpointError(`reading ${name}: the file changed while it was being read`);
      }
      return await file.read(from, to - from);
    },
  });
}

// -------------------------------------------------------------------------------------------------- remote files' copies

/** A hub file: its copy, downloaded if needed, or ranges of it if no copy can be kept. */
async function openHub(address: HubAddress, options: HubOptions, onCopy: (copy: Copy) => void): Promise<Source> {
  const access = hubAccess(options);
  const name = formatHubAddress(address);
  const { repo, revision, path } = address;
  const place = [hubName(access), repo, revision, ...path.split("/")];
  return await fromCopy(options, place, { name, path }, onCopy, {
    isPinned: isCommit(revision),
    open: (more) => openHubFile(address, access, more),
  });
}

/** A file at a web address. A copy is kept only if the server does not support ranges. */
async function openWeb(address: string | URL, options: HubOptions, onCopy: (copy: Copy) => void): Promise<Source> {
  const url = webAddress(address);
  const name = shownAddress(url);
  const { signal, onNotice, maxBytes, clock } = options;
  const given = { name, ...defined({ signal, onNotice, maxBytes, clock }) };
  // A query may be a signature, which must not get into file names.
  const place = ["web", url.host, await hexDigest(url.href)];
  return await fromCopy(options, place, { name, path: url.pathname }, onCopy, {
    isPinned: false,
    keepsRanged: false,
    open: (more) => openHttp(url, { ...given, ...more }),
  });
}

/** How to read a remote file. */
interface RemoteWays {
  /** Whether its bytes never change. */
  readonly isPinned: boolean;
  /** Whether to keep a copy even if ranges can be read. */
  readonly keepsRanged?: boolean;
  readonly open: (
    more: { onBytes?: (count: number) => void; store?: (whole: WholeAnswer) => Promise<Source> },
  ) => Promise<RemoteSource>;
}

async function fromCopy(
  options: HubOptions,
  place: readonly string[],
  { name, path }: { readonly name: string; readonly path: string },
  onCopy: (copy: Copy) => void,
  { isPinned, keepsRanged = true, open }: RemoteWays,
): Promise<Source> {
  const report = (received: number, size: number | null): void => {
    options.onProgress?.({ path, received, size });
  };
  return await inCache(options, async (cache) => {
    const folder = [cache, ...place.map((part) => asFileName(part))].join("/");
    const { onNotice, signal, clock } = options;
    let total: number | null = null;
    const copies = new Copies(folder, {
      ...defined({ onNotice, signal, clock }),
      onBytes: (received) => report(received, total),
    });
    const opened = async (copy: Copy): Promise<Source> => {
      onCopy(copy);
      return await fileSource(copy.path, `${name} (copy ${copy.path})`);
    };
    if (isPinned) {
      const kept = await copies.find();
      if (kept !== null) return await opened(kept);
    }
    const store = async ({ etag, linked, size: told, pieces }: WholeAnswer): Promise<Source> => {
      const size = linked.size ?? told;
      total = size;
      const tag = linked.etag ?? etag ?? "";
      const digest = digestOf({ etag, linked });
      return await opened(await copies.keep({ name, tag, size, digest, canResume: false, stream: () => pieces }));
    };
    const remote = await open({ store });
    const { etag, linked, size } = remote;
    const tag = linked.etag ?? etag;
    if (remote.isStored || tag === null || !keepsRanged) return remote;
    if (linked.size !== null && linked.size !== size) {
      throw new CheckpointError(
        `reading ${name}: the server sends ${size} bytes, but gives its size as ${linked.size}`,
      );
    }
    total = size;
    const digest = digestOf({ etag, linked });
    // Only what can be checked as a whole may be joined from two downloads.
    const stream = (from: number): AsyncIterable<Uint8Array> => remote.stream(from, size);
    return await opened(await copies.keep({ name, tag, size, digest, canResume: digest !== null, stream }));
  }, async () => {
    let [received, size] = [0, 0];
    const remote = await open({
      onBytes: (count) => {
        received += count;
        if (size > 0) report(received, size);
      },
    });
    size = remote.size;
    report(received, size);
    return remote;
  });
}

/** The hub's name in folder names. */
function hubName({ endpoint }: HubAccess): string {
  return shownAddress(endpoint).replace(/\/+$/, "");
}

/** The names in a folder of the hub; those of a commit never change, and are cached. */
async function listHub(address: HubAddress, options: HubOptions): Promise<readonly string[]> {
  const access = hubAccess(options);
  const list = (): Promise<readonly string[]> => listHubFolder(address, access);
  if (!isCommit(address.revision)) return await list();
  const { repo, revision, path } = address;
  return await inCache(options, async (cache) => {
    const folders = [hubName(access), repo, revision, ...path.split("/").filter(Boolean)];
    // No folder of a file contains this sign.
    const place = `${[cache, ...folders.map((part) => asFileName(part))].join("/")}/=list.json`;
    const kept = await keptList(place);
    if (kept !== null) return kept;
    const names = await list();
    try {
      await replaceFile(place, [new TextEncoder().encode(JSON.stringify(names))]);
    } catch (error) {
      throw new CacheError(`keeping a list of files in ${place}: ${reason(error)}`);
    }
    return names;
  }, list);
}

/** A cached list of names; `null` if there is none, or it is damaged. */
async function keptList(path: string): Promise<string[] | null> {
  try {
    const found: unknown = JSON.parse(await disk().readFile(path, "utf8"));
    return Array.isArray(found) && found.every((name) => typeof name === "string") ? found : null;
  } catch (error) {
    if (hasCode(error, "ENOENT") || error instanceof SyntaxError) return null;
    throw new CacheError(`looking for ${path}: ${reason(error)}`);
  }
}

/** User cache folders that failed, which is reported once. */
const useless = new Set<string>();

/**
 * Works with the cache folder, or without one. A folder that the program gave must be usable; the user's own need not
 * be.
 */
async function inCache<T>(
  { cache: given, onNotice }: HubOptions,
  work: (cache: string) => Promise<T>,
  without: () => Promise<T>,
): Promise<T> {
  const cache = given === undefined ? userCache() : given;
  if (cache === null || useless.has(cache)) return await without();
  try {
    return await work(cache);
  } catch (error) {
    if (!(error instanceof CacheError) || given !== undefined) throw error;
    useless.add(cache);
    onNotice?.(`${error.message}; continuing without copies`);
    return await without();
  }
}

function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

async function hexDigest(text: string): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The environment is read only if the program may read it. */
function hubAccess({ endpoint, token, signal, onNotice, maxBytes, clock }: HubOptions): HubAccess {
  return {
    endpoint: endpoint ?? environment("HF_ENDPOINT") ?? HUB_ENDPOINT,
    ...defined({ token: token ?? (environment("HF_TOKEN")?.trim() || undefined), signal, onNotice, maxBytes, clock }),
  };
}

/** The user's own cache folder for copies, if it is accessible without a prompt. */
function userCache(): string | null {
  const folder = userCacheFolder();
  if (folder === null) return null;
  const path = `${folder}/hub`;
  return mayUse(path, "read") && mayUse(path, "write") ? path : null;
}

/** This package's folder in the user's cache; `null` if unknown. It need not exist. */
export function userCacheFolder(): string | null {
  const home = environment(pathSystem() === "windows" ? "USERPROFILE" : "HOME");
  const base = environment("XDG_CACHE_HOME") ?? (home && `${home}/.cache`);
  return base === undefined ? null : `${base}/saev-nn`;
}

/** All bytes of a source. */
export async function readBytes(from: ByteSource): Promise<Uint8Array> {
  const source = await openSource(from);
  return await source.read(0, source.size);
}

function isOnHub(from: string | URL): from is string {
  if (from instanceof URL && from.protocol === "hf:") {
    throw new TypeError(`reading ${from}: give the hub address as a string; a URL object percent-encodes it`);
  }
  return typeof from === "string" && isHubAddress(from);
}

function isRemote(from: string | URL): boolean {
  return !hasDisk() || (from instanceof URL ? from.protocol !== "file:" : /^https?:/i.test(from));
}

/**
 * Writes all parts. At a path or a `file:` URL, the file is replaced atomically; symbolic links are followed. A pipe or
 * a device is written into, as is what a name such as `/dev/stdout` stands for.
 *
 * @throws {RangeError} if the path is a folder, or a link that leads back to itself.
 */
export async function writeBytes(to: ByteTarget, parts: readonly FilePart[]): Promise<void> {
  if (typeof to === "string" || to instanceof URL) return await writeAtPath(to, parts);
  if (!(to instanceof WritableStream)) return await writeToSink(to, parts);
  const writer = to.getWriter();
  try {
    for await (const piece of partPieces(parts)) await writer.write(piece);
  } finally {
    writer.releaseLock();
  }
}

async function writeToSink(sink: ByteSink, parts: readonly FilePart[]): Promise<void> {
  for await (const piece of partPieces(parts)) await writeAll(sink, piece);
  await sink.sync?.();
}

async function writeAll(sink: ByteSink, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) {
    const count = await sink.write(rest);
    if (!(Number.isInteger(count) && count > 0 && count <= rest.length)) {
      throw new TypeError(`writing ${rest.length} bytes: the handle reports ${count} bytes written`);
    }
    rest = rest.subarray(count);
  }
}

/** What is at a path that is to be written. */
export type Target =
  /** Nothing. */
  | "absent"
  /** A file, which is replaced. */
  | "file"
  /** A device, or what a name such as `/dev/stdout` stands for; it is written into. */
  | "stream"
  /** A pipe, which is written into once it has a reader. */
  | "pipe";

/**
 * What {@link writeBytes} finds at a path, after following links.
 *
 * @throws {RangeError} for a folder.
 */
export async function targetAt(path: string | URL): Promise<Target> {
  const found = await statOrNull(path);
  if (found === null) return "absent";
  if (found.isDirectory()) throw new RangeError(`writing ${path}: found a folder, expected the path of a file`);
  if (DESCRIPTOR.test(String(path))) return "stream";
  return found.isFile() ? "file" : found.isFIFO() ? "pipe" : "stream";
}

/** Names of this process's open files. */
const DESCRIPTOR = /^\/(?:dev\/(?:stdout|stderr|fd\/\d+)|proc\/(?:self|\d+)\/fd\/\d+)$/;

async function writeAtPath(to: string | URL, parts: readonly FilePart[]): Promise<void> {
  if (!hasDisk() || (to instanceof URL && to.protocol !== "file:")) {
    throw new TypeError(
      `writing ${to}: there is no file system here that has it; give a file handle or a stream instead`,
    );
  }
  const path = to instanceof URL ? pathOfUrl(to, pathSystem()) : to;
  const target = await targetAt(path);
  if (target === "absent" || target === "file") return await replaceFile(await followLinks(path), parts);
  // Files to which a shell appends are not truncated.
  await using stream = await disk().open(path, "a");
  const failed = (cause: Error): never => {
    const why = hasCode(cause, "EPIPE") ? "its reader stopped before everything was written" : cause.message;
    throw retold(`writing ${path}: ${why}`, cause);
  };
  for await (const piece of partPieces(parts)) await writeAll(sinkOf(stream), piece).catch(failed);
}

function sinkOf(file: OpenHandle): { write(bytes: Uint8Array): Promise<number> } {
  return { write: async (bytes) => (await file.write(bytes)).bytesWritten };
}

const MAX_LINKS = 40;

/** The end of a chain of links, whether or not anything is there. */
async function followLinks(path: string): Promise<string> {
  let at = path;
  for (let n = 0; n < MAX_LINKS; n++) {
    if (!(await statOrNull(at, "lstat"))?.isSymbolicLink()) return at;
    at = pathFrom(at, await disk().readlink(at), pathSystem());
  }
  throw new RangeError(`writing ${path}: found a symbolic link that leads back to itself, expected the path of a file`);
}

/**
 * Creates the folders, writes a temporary file beside the target, flushes it, renames it, and flushes the new name. On
 * any failure the temporary file is removed and the target is unchanged; if the disk failed, the message gives the size
 * of the file.
 */
async function replaceFile(to: string, parts: readonly FilePart[]): Promise<void> {
  const temporary = await writeBeside(to, parts);
  try {
    await disk().rename(temporary, to);
  } catch (error) {
    await removeQuietly(temporary);
    throw error;
  }
  await syncFolder(parentOf(to));
}

function parentOf(path: string): string {
  return splitPath(path, pathSystem()).folder || ".";
}

/** Writes a temporary file beside a path, creating its folder, and returns its path. */
async function writeBeside(to: string, parts: readonly FilePart[]): Promise<string> {
  const temporary = `${to}.${crypto.randomUUID()}.tmp`;
  const bytes = parts.reduce((sum, { length }) => sum + length, 0).toLocaleString("en");
  const failed = (cause: Error): never => {
    if (lacksPermission(cause) || hasCode(cause, ...PATH_CODES)) throw cause;
    throw retold(
      `writing ${to}: ${cause.message}; the file needs ${bytes} bytes; the old file, if any, is unchanged`,
      cause,
    );
  };
  const folder = parentOf(to);
  await disk().mkdir(folder, { recursive: true }).catch((cause: Error) => {
    const isFile = hasCode(cause, "EEXIST", "ENOTDIR");
    throw isFile ? retold(`writing ${to}: a file is in the way of the folder ${folder}`, cause) : cause;
  });
  try {
    await using file = await disk().open(temporary, "wx").catch(failed);
    const sink = sinkOf(file);
    await writeToSink(
      { write: (piece) => sink.write(piece).catch(failed), sync: () => file.sync().catch(failed) },
      parts,
    );
    return temporary;
  } catch (error) {
    await removeQuietly(temporary);
    throw error;
  }
}

/** Failures about a path, whose messages name it. */
const PATH_CODES = ["EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ELOOP", "EBUSY"];

/**
 * Flushes the names in a folder to disk, so that a renamed file keeps its new name even after a power failure. Does
 * nothing where folders cannot be flushed (Windows, some network file systems) or must not be read.
 */
export async function syncFolder(path: string): Promise<void> {
  if (!mayUse(path, "read")) return;
  try {
    await using folder = await disk().open(path);
    await folder.sync();
  } catch {
    // The file itself is on disk already.
  }
}

/**
 * Writes files that belong together, at paths or `file:` URLs. All are written under temporary names first; then the
 * old files are moved away, and only then are the new ones moved in, so that new and old files are never mixed. On any
 * failure the old files are restored.
 *
 * @throws {RangeError} as {@link writeBytes}, before anything is written.
 */
export async function writeTogether(
  files: Iterable<readonly [to: string | URL, parts: readonly FilePart[]]>,
): Promise<void> {
  const places: { readonly to: string; readonly parts: readonly FilePart[]; readonly isTaken: boolean }[] = [];
  for (const [to, parts] of files) {
    const path = to instanceof URL ? pathOfUrl(to, pathSystem()) : to;
    const target = await targetAt(path);
    if (target !== "absent" && target !== "file") {
      throw new RangeError(`writing ${path}: found a device or a pipe; this format needs several files side by side`);
    }
    places.push({ to: await followLinks(path), parts, isTaken: target === "file" });
  }
  const undo: (() => Promise<void>)[] = [];
  const kept: string[] = [];
  try {
    const written: string[] = [];
    for (const { to, parts } of places) {
      const temporary = await writeBeside(to, parts);
      undo.push(() => removeQuietly(temporary));
      written.push(temporary);
    }
    for (const { to } of places.filter(({ isTaken }) => isTaken)) {
      const old = `${to}.${crypto.randomUUID()}.old`;
      await disk().rename(to, old);
      undo.push(() => disk().rename(old, to));
      kept.push(old);
    }
    for (const [i, { to }] of places.entries()) {
      await disk().rename(written[i]!, to);
      undo.push(() => removeQuietly(to));
    }
  } catch (error) {
    for (const step of undo.toReversed()) await step();
    throw error;
  }
  for (const folder of new Set(places.map(({ to }) => parentOf(to)))) await syncFolder(folder);
  for (const old of kept) await removeQuietly(old);
}

/** The name of a file within its folder. */
function baseOf(path: string | URL): string {
  if (path instanceof URL) return decodeURIComponent(path.pathname.slice(path.pathname.lastIndexOf("/") + 1));
  return splitPath(path, pathSystem()).name;
}

/** A path below a folder (which ends with a separator), or beside an address. */
function below(folder: string | URL, path: string): string | URL {
  return typeof folder === "string"
    ? folder + path
    : new URL(path.split("/").map(encodeURIComponent).join("/"), folder);
}

function folderOf(to: string | URL): string | URL {
  return to instanceof URL ? new URL(".", to) : splitPath(to, pathSystem()).folder;
}

/** The original failure matters more than one of the removal. */
async function removeQuietly(path: string | URL): Promise<void> {
  await disk().unlink(path).catch(() => {});
}
