/**
 * Bytes from and to places: paths, URLs, file handles, streams. The only module of `io/` that touches the system; where
 * there is no `Deno` (in a browser), URLs can be read and handles written.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import { checkPath, type FileSet, pickedFiles, singleFile } from "./file_set.ts";
import { type HttpOptions, openHttp, type RemoteSource, StatusError } from "./http.ts";
import {
  formatHubAddress,
  HUB_ENDPOINT,
  type HubAccess,
  type HubAddress,
  hubFiles,
  type HubOptions,
  isCommit,
  isHubAddress,
  openHubFile,
  parseHubAddress,
} from "./hub.ts";
import { blobSource, buffered, bytesSource, type FilePart, partPieces, type Source, stoppable } from "./source.ts";
import { pathFrom, pathOfUrl, type PathSystem, splitPath } from "./paths.ts";

/**
 * Where bytes can come from. A string is a path, an `http(s)` address, or an address on the Hugging Face hub such as
 * `hf:owner/repository/sae.pt@main`; without a file system it is an address.
 */
export type ByteSource = string | URL | Uint8Array | ArrayBuffer | Blob | FileHandle | Source;

/** Where files that belong together can come from: a folder, or what bytes can come from, or what a user picked. */
export type FilesSource = ByteSource | Iterable<File> | FileSet;

/** How to get at bytes elsewhere. */
export interface SourceOptions {
  /** For addresses on the Hugging Face hub. */
  readonly hub?: HubOptions;
  /** Ends every read, with its reason. */
  readonly signal?: AbortSignal;
}

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
export interface OpenFile extends Disposable {
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
  const found = await Deno.stat(path);
  if (!found.isFile) throw new RangeError(`reading ${path}: found ${kindOf(found)}, expected a file`);
  const file = await Deno.open(path);
  const { size, dev, ino, mtime } = await file.stat();
  return {
    size,
    identity: [dev, ino, size, mtime?.getTime()].join(),
    async read(start, length) {
      const doing = `reading ${length} bytes of ${path} from byte ${start}`;
      const failed = (cause: Error): never => {
        throw new Error(`${doing}: ${cause.message}`, { cause });
      };
      const bytes = new Uint8Array(length);
      await file.seek(start, Deno.SeekMode.Start).catch(failed);
      for (let end = 0; end < length;) {
        const count = await file.read(bytes.subarray(end)).catch(failed);
        if (count === null) throw new RangeError(`${doing}: it ends after ${start + end}`);
        end += count;
      }
      return bytes;
    },
    [Symbol.dispose]: () => file.close(),
  };
}

/**
 * Opens anything that bytes can come from. Nothing need be closed.
 *
 * A file of the hub is downloaded into a folder of the user's, where there is one, and read from there; see
 * {@link HubOptions}.
 *
 * @throws {CheckpointError} where a server does not answer with a file.
 */
export async function openSource(from: ByteSource, options: SourceOptions = {}): Promise<Source> {
  return stoppable(await openAny(from, options), options.signal);
}

async function openAny(from: ByteSource, options: SourceOptions): Promise<Source> {
  if (from instanceof Uint8Array) return bytesSource(from);
  if (from instanceof ArrayBuffer) return bytesSource(new Uint8Array(from));
  if (from instanceof Blob) return blobSource(from);
  if (typeof from === "string" || from instanceof URL) {
    if (isOnHub(from)) return await openHub(parseHubAddress(from), hubOptions(options));
    return isRemote(from) ? await openHttp(from, requestOptions(options)) : await fileSource(from);
  }
  return "getFile" in from ? blobSource(await from.getFile()) : from;
}

/**
 * Opens files that belong together: those of a folder, those beside a file, or what a user picked.
 *
 * @throws {CheckpointError} where a server does not answer with files.
 */
export async function openFiles(from: FilesSource, options: SourceOptions = {}): Promise<FileSet> {
  const files = await findFiles(from, options);
  const { signal } = options;
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

async function findFiles(from: FilesSource, options: SourceOptions): Promise<FileSet> {
  if (typeof from === "string" || from instanceof URL) {
    if (isOnHub(from)) {
      const hub = hubOptions(options);
      const open = (address: HubAddress): Promise<Source> => openHub(address, hub);
      return await hubFiles(parseHubAddress(from), hubAccess(hub), open);
    }
    return isRemote(from) ? webFiles(new URL(from), requestOptions(options)) : await localFiles(from);
  }
  if ("find" in from && "list" in from) return from;
  if (!(from instanceof Uint8Array) && Symbol.iterator in from) return pickedFiles(from);
  return singleFile(await openAny(from, options));
}

function hubOptions({ hub = {}, signal }: SourceOptions): HubOptions {
  return { ...signal && { signal }, ...hub };
}

function requestOptions({ signal }: SourceOptions): Pick<HttpOptions, "signal"> {
  return { ...signal && { signal } };
}

/** Files at web addresses, of which there is no list. */
function webFiles(url: URL, options: Pick<HttpOptions, "signal">): FileSet {
  const base = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf("/") + 1));
  const main = base === "" ? null : base;
  const open = async (address: string | URL): Promise<Source | null> => {
    try {
      return await openHttp(address, options);
    } catch (error) {
      if (error instanceof StatusError && [404, 410].includes(error.status)) return null;
      throw error;
    }
  };
  return {
    name: url.href,
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
  const found = await Deno.stat(path);
  const { isDirectory } = found;
  if (!isDirectory && !found.isFile) {
    throw new RangeError(`reading ${path}: found ${kindOf(found)}, expected a file or a folder`);
  }
  const folder = !isDirectory ? folderOf(path) : path instanceof URL ? new URL(`${path.pathname}/`, path) : `${path}/`;
  return {
    name: String(path),
    main: isDirectory ? null : baseOf(path),
    async list() {
      const names: string[] = [];
      for await (const { name } of Deno.readDir(folder)) {
        const info = await statOrNull(below(folder, name));
        if (info?.isFile) names.push(name);
        if (info?.isDirectory) names.push(`${name}/`);
      }
      return names.sort();
    },
    async find(path) {
      checkPath(path);
      const place = below(folder, path);
      return (await statOrNull(place))?.isFile ? await fileSource(place) : null;
    },
    async findAbove(name) {
      checkPath(name);
      const place = typeof folder === "string" ? `${folder}../${name}` : below(new URL("..", folder), name);
      try {
        return (await statOrNull(place))?.isFile ? await fileSource(place) : null;
      } catch (error) {
        // A program that may read the file's folder alone has nothing above it.
        if (error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied) return null;
        throw error;
      }
    },
  };
}

/** What stands at a path, as messages call it. */
function kindOf({ isFile, isDirectory, isFifo, isSocket }: Deno.FileInfo): string {
  if (isFile) return "a file";
  if (isDirectory) return "a folder";
  return isFifo ? "a pipe, which can be read but once" : isSocket ? "a socket" : "a device";
}

/** What stands at a path, at the end of links unless `look` is `Deno.lstat`; `null` where nothing does. */
async function statOrNull(path: string | URL, look: typeof Deno.stat = Deno.stat): Promise<Deno.FileInfo | null> {
  try {
    return await look(path);
  } catch (error) {
    const { FilesystemLoop, NotADirectory, NotFound } = Deno.errors;
    if ([FilesystemLoop, NotADirectory, NotFound].some((kind) => error instanceof kind)) return null;
    throw error;
  }
}

/**
 * A file on disk. It is opened for each read and closed again, so that nobody need close it, and is an error once it is
 * another file than it was.
 */
async function fileSource(path: string | URL, name = String(path)): Promise<Source> {
  using first = await openFile(path);
  return buffered({
    name,
    size: first.size,
    async read(from, to) {
      using file = await openFile(path);
      if (file.identity !== first.identity) throw new CheckpointError(`reading ${name}: the file changed meanwhile`);
      return await file.read(from, to - from);
    },
  });
}

// ------------------------------------------------------------------------------------------------------ the hub's files

async function openHub(address: HubAddress, options: HubOptions = {}): Promise<Source> {
  const access = hubAccess(options);
  const cache = await hubCache(options.cache);
  const report = (received: number, size: number): void => {
    options.onProgress?.({ path: address.path, received, size });
  };
  if (cache === null) {
    let [received, size] = [0, 0];
    const remote = await openHubFile(address, access, (count) => {
      received += count;
      if (size > 0) report(received, size);
    });
    size = remote.size;
    report(received, size);
    return remote;
  }
  const { repo, revision, path } = address;
  const place = [access.endpoint, repo, revision, ...path.split("/")];
  const folder = [cache, ...place.map(asFileName)].join("/");
  const name = formatHubAddress(address);
  if (isCommit(revision)) {
    const kept = await findCopy(folder);
    if (kept !== null) return await fileSource(kept, name);
  }
  const remote = await openHubFile(address, access);
  return remote.etag === null ? remote : await fileSource(await keepCopy(remote, remote.etag, folder, report), name);
}

/** The environment is asked only where the program may read it. */
function hubAccess({ endpoint, token, signal }: HubOptions = {}): HubAccess {
  const secret = token ?? (environment("HF_TOKEN")?.trim() || undefined);
  return {
    endpoint: endpoint ?? environment("HF_ENDPOINT") ?? HUB_ENDPOINT,
    ...(secret === undefined ? {} : { token: secret }),
    ...(signal === undefined ? {} : { signal }),
  };
}

/** A variable that is set to something, and may be read without asking anybody. */
function environment(variable: string): string | undefined {
  if (!hasFileSystem() || Deno.permissions.querySync({ name: "env", variable }).state !== "granted") return undefined;
  return Deno.env.get(variable) || undefined;
}

/** The folder for copies. The user's own is taken where it can be had without asking anybody. */
async function hubCache(given: string | null | undefined): Promise<string | null> {
  if (given !== undefined) return given;
  if (!hasFileSystem()) return null;
  const home = environment(Deno.build.os === "windows" ? "USERPROFILE" : "HOME");
  const base = environment("XDG_CACHE_HOME") ?? (home && `${home}/.cache`);
  if (base === undefined) return null;
  const path = `${base}/saev-nn/hub`;
  const may = (name: "read" | "write"): boolean => Deno.permissions.querySync({ name, path }).state === "granted";
  if (!may("read") || !may("write")) return null;
  try {
    await Deno.mkdir(path, { recursive: true, mode: 0o700 });
    return path;
  } catch {
    return null;
  }
}

/** One name for a file, whatever is in the text. */
function asFileName(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*~]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`);
}

const PARTIAL = ".partial";

/** Any whole copy of a file that never changes. */
async function findCopy(folder: string): Promise<string | null> {
  if (await statOrNull(folder) === null) return null;
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile && !name.endsWith(PARTIAL)) return `${folder}/${name}`;
  }
  return null;
}

/**
 * The path of a copy of the file, made if there is none. A download that was interrupted goes on where it stopped.
 *
 * Whoever downloads holds a lock on the partial file, which ends with the process; others wait for it.
 */
async function keepCopy(
  remote: RemoteSource,
  etag: string,
  folder: string,
  report: (received: number, size: number) => void,
): Promise<string> {
  const { size } = remote;
  const path = `${folder}/${asFileName(etag)}`;
  const isThere = async (): Promise<boolean> => (await statOrNull(path))?.size === size;
  if (await isThere()) return path;
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  using file = await Deno.open(path + PARTIAL, { read: true, write: true, create: true });
  await file.lock(true);
  if (await isThere()) {
    await removeQuietly(path + PARTIAL);
    return path;
  }
  let at = (await file.stat()).size;
  // A weak tag does not promise that the bytes are the same.
  if (at > size || etag.startsWith("W/")) await file.truncate(at = 0);
  await file.seek(at, Deno.SeekMode.Start);
  report(at, size);
  for await (const piece of remote.stream(at, size)) {
    await writeAll(file, piece);
    report(at += piece.length, size);
  }
  await file.sync();
  await Deno.rename(path + PARTIAL, path);
  return path;
}

/** All bytes of a source. */
export async function readBytes(from: ByteSource): Promise<Uint8Array> {
  const source = await openSource(from);
  return await source.read(0, source.size);
}

function hasFileSystem(): boolean {
  return typeof Deno !== "undefined";
}

function isOnHub(from: string | URL): from is string {
  if (from instanceof URL && from.protocol === "hf:") {
    throw new TypeError(`reading ${from}: give the hub's address as a string, which is not percent-encoded`);
  }
  return typeof from === "string" && isHubAddress(from);
}

function isRemote(from: string | URL): boolean {
  return !hasFileSystem() || (from instanceof URL ? from.protocol !== "file:" : /^https?:/i.test(from));
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
      throw new TypeError(`writing ${rest.length} bytes: the handle says it wrote ${count}`);
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
  if (found.isDirectory) throw new RangeError(`writing ${path}: found a folder, expected the path of a file`);
  if (DESCRIPTOR.test(String(path))) return "stream";
  return found.isFile ? "file" : found.isFifo ? "pipe" : "stream";
}

/** Names of what this process has open. */
const DESCRIPTOR = /^\/(?:dev\/(?:stdout|stderr|fd\/\d+)|proc\/(?:self|\d+)\/fd\/\d+)$/;

async function writeAtPath(to: string | URL, parts: readonly FilePart[]): Promise<void> {
  if (!hasFileSystem() || (to instanceof URL && to.protocol !== "file:")) {
    throw new TypeError(`writing ${to}: there is no file system for it here; give a file handle or a stream instead`);
  }
  const path = to instanceof URL ? pathOfUrl(to, pathSystem()) : to;
  const target = await targetAt(path);
  if (target === "absent" || target === "file") return await replaceFile(await followLinks(path), parts);
  // What a shell appends to is not truncated.
  using stream = await Deno.open(path, { append: true });
  try {
    for await (const piece of partPieces(parts)) await writeAll(stream, piece);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.BrokenPipe)) throw cause;
    throw new Deno.errors.BrokenPipe(`writing ${path}: its reader ended before all was written`, { cause });
  }
}

const MAX_LINKS = 40;

/** Where a link leads, whether or not something stands there yet. */
async function followLinks(path: string): Promise<string> {
  let at = path;
  for (let n = 0; n < MAX_LINKS; n++) {
    if (!(await statOrNull(at, Deno.lstat))?.isSymlink) return at;
    at = pathFrom(at, await Deno.readLink(at), pathSystem());
  }
  throw new RangeError(`writing ${path}: found a link that leads in a circle, expected the path of a file`);
}

/**
 * Makes the folders, writes a temporary file beside the target, flushes it to disk and renames it. Whatever fails, the
 * temporary file is removed and what stood at the target still stands there; if it is the disk, the message says how much
 * the file takes.
 */
async function replaceFile(to: string, parts: readonly FilePart[]): Promise<void> {
  const temporary = `${to}.${crypto.randomUUID()}.tmp`;
  const bytes = parts.reduce((sum, { length }) => sum + length, 0).toLocaleString("en");
  const failed = (cause: Error): never => {
    // Other kinds of errors, such as a folder that may not be written, name the path themselves.
    if (cause.name !== "Error") throw cause;
    throw new Error(`writing ${to}: ${cause.message}; it takes ${bytes} bytes, and what stood there is unchanged`, {
      cause,
    });
  };
  await Deno.mkdir(splitPath(to, pathSystem()).folder || ".", { recursive: true });
  try {
    {
      using file = await Deno.open(temporary, { write: true, createNew: true }).catch(failed);
      const sink = {
        write: (piece: Uint8Array) => file.write(piece).catch(failed),
        sync: () => file.sync().catch(failed),
      };
      await writeToSink(sink, parts);
    }
    await Deno.rename(temporary, to);
  } catch (error) {
    await removeQuietly(temporary);
    throw error;
  }
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
  return to instanceof URL ? new URL(".", to) : splitPath(to, pathSystem()).folder || "./";
}

function pathSystem(): PathSystem {
  return Deno.build.os === "windows" ? "windows" : "linux";
}

/** The failure that led here matters more than one of the removal. */
async function removeQuietly(path: string | URL): Promise<void> {
  await Deno.remove(path).catch(() => {});
}
