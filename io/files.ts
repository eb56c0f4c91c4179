/**
 * Bytes from and to places: paths, URLs, file handles, streams. Where there is no file system (in a browser), URLs can be
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
 * Where bytes can come from. A string is a path, an `http(s)` address, or an address on the Hugging Face hub such as
 * `hf:owner/repository/sae.pt@main`. Without a file system it is an address, which may be relative to the page's.
 */
export type ByteSource = string | URL | Uint8Array | ArrayBuffer | Blob | FileHandle | Source;

/** Where files that belong together can come from: a folder, or what bytes can come from, or what a user picked. */
export type FilesSource = ByteSource | Iterable<File> | FileSet;

/** How to get at bytes elsewhere. */
export interface SourceOptions {
  /**
   * For addresses on the Hugging Face hub. What it says of a cache, of progress and notices, of bounds and of an end
   * holds for other addresses too.
   */
  readonly hub?: HubOptions;
  /** Ends every read, with its reason. */
  readonly signal?: AbortSignal;
}

/** The names of {@link SourceOptions}. */
export const SOURCE_OPTIONS = { hub: true, signal: true } as const satisfies Record<keyof SourceOptions, true>;

/** A file that a browser's user picked or that lies in its private file system: a `FileSystemFileHandle`. */
export interface FileHandle {
  /** The file as it is now. */
  getFile(): Promise<File>;
}

/** Something open for writing, such as a `Deno.FsFile`. It stays open. */
export interface ByteSink {
  /** Writes some of the bytes and says how many. */
  write(bytes: Uint8Array): number | Promise<number>;
  /** Flushes what was written to disk. */
  sync?(): void | Promise<void>;
}

/** Where bytes can go to. A stream stays open. */
export type ByteTarget = string | URL | ByteSink | WritableStream<Uint8Array>;

/** A file open for reading anywhere in it. */
export interface OpenFile extends AsyncDisposable {
  /** Its length in bytes. */
  readonly size: number;
  /** Differs where the file was replaced or written since. */
  readonly identity: string;
  /** `length` bytes from `start` on. */
  read(start: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Opens a file, for what is too large to be read whole.
 *
 * @throws {RangeError} if the path is that of a folder or of anything else that has no end.
 */
export async function openFile(path: string | URL): Promise<OpenFile> {
  // To open a pipe would wait until somebody writes into it.
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
 * Opens anything that bytes can come from. Nothing need be closed.
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

/** Opens one file; `onCopy` is told where it is read from a copy. */
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
 * Opens files that belong together: those of a folder, those beside a file, or what a user picked.
 *
 * @throws {CheckpointError} where a server does not answer with files.
 * @throws {TypeError} for an unknown option.
 */
export async function openFiles(from: FilesSource, options: SourceOptions = {}): Promise<FileSet> {
  checkOptions("openFiles", options, SOURCE_OPTIONS);
  return stoppableFiles(await openTogether(from, hubOptions(options), () => {}), options.signal);
}

/** The same files, which are read no more once the signal is aborted. */
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
 * Does something with files that belong together. Where one of them proves to be at fault, the message names it and the
 * copies that were read, and those that are no longer what was kept are removed; `explain` does the same for a message
 * that is not thrown.
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

/** What a message adds about a copy that was read. */
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

/** Files at web addresses, of which there is no list. */
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
        // A program that may read the file's folder alone has nothing above it.
        if (isForbidden(error)) return null;
        throw error;
      }
    },
  };
}

/** What stands at a path, as messages call it. */
function kindOf(found: Stats): string {
  if (found.isFile()) return "a file";
  if (found.isDirectory()) return "a folder";
  return found.isFIFO() ? "a pipe, which can be read only once" : found.isSocket() ? "a socket" : "a device";
}

/** What stands at a path that is to be read. */
async function statToRead(path: string | URL): Promise<Stats> {
  return await disk().stat(path).catch((cause: Error) => {
    throw hasCode(cause, "ENOENT") ? retold(`reading ${path}: there is no such file or folder`, cause) : cause;
  });
}

/** What stands at a path, at the end of links unless `look` is `"lstat"`; `null` where nothing does. */
async function statOrNull(path: string | URL, look: "stat" | "lstat" = "stat"): Promise<Stats | null> {
  try {
    return await disk()[look](path);
  } catch (error) {
    if (hasCode(error, "ELOOP", "ENOTDIR", "ENOENT")) return null;
    throw error;
  }
}

/**
 * A file on disk. It is opened for each read and closed again, so there is nothing to close, and is an error once it is
 * another file than it was.
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

/** A file of the hub: its copy, made if there is none, or ranges of it where no copy can be kept. */
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

/** A file at a web address. A copy is kept only where the server knows no ranges. */
async function openWeb(address: string | URL, options: HubOptions, onCopy: (copy: Copy) => void): Promise<Source> {
  const url = webAddress(address);
  const name = shownAddress(url);
  const { signal, onNotice, maxBytes, clock } = options;
  const given = { name, ...defined({ signal, onNotice, maxBytes, clock }) };
  // A query may be a signature, which is not for the names of files.
  const place = ["web", url.host, await hexDigest(url.href)];
  return await fromCopy(options, place, { name, path: url.pathname }, onCopy, {
    isPinned: false,
    keepsRanged: false,
    open: (more) => openHttp(url, { ...given, ...more }),
  });
}

/** How to get at the bytes of a remote file. */
interface RemoteWays {
  /** Whether they never change. */
  readonly isPinned: boolean;
  /** Whether a copy is kept of what can be read by ranges. */
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
    // Only what can be checked as a whole may be put together of two downloads.
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

/** The hub, as folders are called. */
function hubName({ endpoint }: HubAccess): string {
  return shownAddress(endpoint).replace(/\/+$/, "");
}

/** The names in a folder of the hub; those of a commit never change, and are kept. */
async function listHub(address: HubAddress, options: HubOptions): Promise<readonly string[]> {
  const access = hubAccess(options);
  const list = (): Promise<readonly string[]> => listHubFolder(address, access);
  if (!isCommit(address.revision)) return await list();
  const { repo, revision, path } = address;
  return await inCache(options, async (cache) => {
    const folders = [hubName(access), repo, revision, ...path.split("/").filter(Boolean)];
    // No file's folder has a name with this sign.
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

/** A list of names that was kept; `null` where there is none, or it is damaged. */
async function keptList(path: string): Promise<string[] | null> {
  try {
    const found: unknown = JSON.parse(await disk().readFile(path, "utf8"));
    return Array.isArray(found) && found.every((name) => typeof name === "string") ? found : null;
  } catch (error) {
    if (hasCode(error, "ENOENT") || error instanceof SyntaxError) return null;
    throw new CacheError(`looking for ${path}: ${reason(error)}`);
  }
}

/** Folders of the user's that could not be used, which is said once. */
const useless = new Set<string>();

/**
 * Does something with the folder for copies, or without where there is none. One that the program gave must be usable;
 * the user's own need not.
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

/** The environment is asked only where the program may read it. */
function hubAccess({ endpoint, token, signal, onNotice, maxBytes, clock }: HubOptions): HubAccess {
  return {
    endpoint: endpoint ?? environment("HF_ENDPOINT") ?? HUB_ENDPOINT,
    ...defined({ token: token ?? (environment("HF_TOKEN")?.trim() || undefined), signal, onNotice, maxBytes, clock }),
  };
}

/** The user's own folder for copies, where it can be had without asking anybody. */
function userCache(): string | null {
  const folder = userCacheFolder();
  if (folder === null) return null;
  const path = `${folder}/hub`;
  return mayUse(path, "read") && mayUse(path, "write") ? path : null;
}

/** This package's folder among the user's caches; `null` where that cannot be known. It need not be there. */
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
 * Writes all parts. At a path or a `file:` URL, either the whole new file stands there afterwards or the old one: of a link
 * at the file that it leads to. A pipe or a device is written into, as is what a name such as `/dev/stdout` stands for.
 *
 * @throws {RangeError} if a folder stands at the path, or a link leads in a circle.
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

/** How a path is written to. */
export type Target =
  /** Nothing stands there. */
  | "absent"
  /** A file stands there, and is replaced. */
  | "file"
  /** A device, or what a name such as `/dev/stdout` stands for: it is written into. */
  | "stream"
  /** A pipe, which is written into once somebody reads it. */
  | "pipe";

/**
 * What {@link writeBytes} finds at a path, at the end of links.
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

/** Names of what this process has open. */
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
  // What a shell appends to is not truncated.
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

/** Where a link leads, whether or not something stands there yet. */
async function followLinks(path: string): Promise<string> {
  let at = path;
  for (let n = 0; n < MAX_LINKS; n++) {
    if (!(await statOrNull(at, "lstat"))?.isSymbolicLink()) return at;
    at = pathFrom(at, await disk().readlink(at), pathSystem());
  }
  throw new RangeError(`writing ${path}: found a symbolic link that leads back to itself, expected the path of a file`);
}

/**
 * Makes the folders, writes a temporary file beside the target, flushes it to disk, renames it, and flushes the new name.
 * Whatever fails, the temporary file is removed and what stood at the target still stands there; if it is the disk, the
 * message says how much the file takes.
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

/** Writes a temporary file beside a path, whose folder is made, and says where. */
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

/** Failures that are those of a path, which their messages name. */
const PATH_CODES = ["EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ELOOP", "EBUSY"];

/**
 * Flushes the names in a folder to disk: a file that was renamed there has its new name even after a power failure. Where
 * folders cannot be flushed, as on Windows and some network file systems, or must not be read, nothing happens.
 */
export async function syncFolder(path: string): Promise<void> {
  if (!mayUse(path, "read")) return;
  try {
    await using folder = await disk().open(path);
    await folder.sync();
  } catch {
    // The file itself is on disk.
  }
}

/**
 * Writes files that belong together, at paths or `file:` URLs. All are written beside their places first; then those that
 * stand there are moved away, and only then the new ones move in, so that never one of them stands beside one of the old.
 * Whatever fails, what stood there stands there again.
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

/** A path below a folder, which ends with a separator; or, of an address, beside it. */
function below(folder: string | URL, path: string): string | URL {
  return typeof folder === "string"
    ? folder + path
    : new URL(path.split("/").map(encodeURIComponent).join("/"), folder);
}

function folderOf(to: string | URL): string | URL {
  return to instanceof URL ? new URL(".", to) : splitPath(to, pathSystem()).folder;
}

/** The failure that led here matters more than one of the removal. */
async function removeQuietly(path: string | URL): Promise<void> {
  await disk().unlink(path).catch(() => {});
}
