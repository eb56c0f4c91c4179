/**
 * Bytes from and to places: paths, URLs, file handles, streams. The only module of `io/` that touches the system; where
 * there is no `Deno` (in a browser), URLs can be read and handles written.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";

/** Where bytes can come from. A string is a path, or an `http(s)` address; without a file system it is an address. */
export type ByteSource = string | URL | Uint8Array | ArrayBuffer | Blob;

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
  /** `length` bytes from `start` on. */
  read(start: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Opens a file, for what is too large to be read whole.
 *
 * @throws {RangeError} if the path is that of a folder or of anything else that has no end.
 */
export async function openFile(path: string | URL): Promise<OpenFile> {
  const file = await Deno.open(path);
  const { size, isFile, isDirectory } = await file.stat();
  if (!isFile) {
    file.close();
    throw new RangeError(`reading ${path}: found ${isDirectory ? "a folder" : "no regular file"}, expected a file`);
  }
  return {
    size,
    async read(start, length) {
      const bytes = new Uint8Array(length);
      await file.seek(start, Deno.SeekMode.Start);
      for (let end = 0; end < length;) {
        const count = await file.read(bytes.subarray(end));
        if (count === null) {
          throw new RangeError(`reading ${length} bytes of ${path} from byte ${start}: it ends after ${start + end}`);
        }
        end += count;
      }
      return bytes;
    },
    [Symbol.dispose]: () => file.close(),
  };
}

/** All bytes of a source. */
export async function readBytes(from: ByteSource): Promise<Uint8Array> {
  if (from instanceof Uint8Array) return from;
  if (from instanceof ArrayBuffer) return new Uint8Array(from);
  if (from instanceof Blob) return new Uint8Array(await from.arrayBuffer());
  if (isRemote(from)) return await fetchBytes(from);
  return await Deno.readFile(from);
}

function hasFileSystem(): boolean {
  return typeof Deno !== "undefined";
}

function isRemote(from: string | URL): boolean {
  return !hasFileSystem() || (from instanceof URL ? from.protocol !== "file:" : /^https?:/i.test(from));
}

async function fetchBytes(from: string | URL): Promise<Uint8Array> {
  const response = await fetch(from);
  if (!response.ok) {
    await response.body?.cancel();
    throw new CheckpointError(`reading ${from}: the server answered ${response.status} ${response.statusText}`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

/** Writes all pieces. At a path or a `file:` URL, either the whole new file stands there afterwards or the old one. */
export async function writeBytes(to: ByteTarget, pieces: Iterable<Uint8Array>): Promise<void> {
  if (typeof to === "string" || to instanceof URL) return await replaceFile(to, pieces);
  if (!(to instanceof WritableStream)) return await writeToSink(to, pieces);
  const writer = to.getWriter();
  try {
    for (const piece of pieces) await writer.write(piece);
  } finally {
    writer.releaseLock();
  }
}

async function writeToSink(sink: ByteSink, pieces: Iterable<Uint8Array>): Promise<void> {
  for (let piece of pieces) {
    while (piece.length > 0) {
      const count = await sink.write(piece);
      if (!(Number.isInteger(count) && count > 0 && count <= piece.length)) {
        throw new TypeError(`writing ${piece.length} bytes: the handle says it wrote ${count}`);
      }
      piece = piece.subarray(count);
    }
  }
  await sink.sync?.();
}

/**
 * Makes the folders, writes a temporary file beside the target, flushes it to disk and renames it. Whatever fails, the
 * temporary file is removed and what stood at the target still stands there.
 */
async function replaceFile(to: string | URL, pieces: Iterable<Uint8Array>): Promise<void> {
  if (!hasFileSystem() || (to instanceof URL && to.protocol !== "file:")) {
    throw new TypeError(`writing ${to}: there is no file system for it here; give a file handle or a stream instead`);
  }
  const temporary = besides(to, `.${crypto.randomUUID()}.tmp`);
  await Deno.mkdir(folderOf(to), { recursive: true });
  try {
    {
      using file = await Deno.open(temporary, { write: true, createNew: true });
      await writeToSink(file, pieces);
    }
    await Deno.rename(temporary, to);
  } catch (error) {
    await removeQuietly(temporary);
    throw error;
  }
}

function besides(to: string | URL, suffix: string): string | URL {
  if (typeof to === "string") return to + suffix;
  const beside = new URL(to);
  beside.pathname += suffix;
  return beside;
}

function folderOf(to: string | URL): string | URL {
  if (to instanceof URL) return new URL(".", to);
  const separator = Deno.build.os === "windows" ? /[\\/][^\\/]*$/ : /\/[^/]*$/;
  const at = to.search(separator);
  return at < 0 ? "." : to.slice(0, at + 1);
}

/** The failure that led here matters more than one of the removal. */
async function removeQuietly(path: string | URL): Promise<void> {
  await Deno.remove(path).catch(() => {});
}
