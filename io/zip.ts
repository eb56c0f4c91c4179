/**
 * Reads zip archives. A record's content is read on demand, and nothing in the archive is trusted.
 *
 * Format: PKWARE's APPNOTE 6.3.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { CheckpointError, naming, quote } from "./errors.ts";
import { bytesSource, joinBytes, readPieces, sliceSource, type Source } from "./source.ts";
import {
  CENTRAL_HEADER,
  CENTRAL_HEADER_SIZE,
  type Directory,
  END,
  END_SIZE,
  LOCAL_HEADER,
  LOCAL_HEADER_SIZE,
  MAX_16,
  MAX_32,
  SIZES_FOLLOW,
  UTF8_NAMES,
  ZIP64_END,
  ZIP64_END_SIZE,
  ZIP64_EXTRA,
  ZIP64_LOCATOR,
  ZIP64_LOCATOR_SIZE,
  type ZipEntry,
} from "./zip_format.ts";

const STORED = 0;
const DEFLATED = 8;
/** The effort of the compressor, which readers ignore. */
const DEFLATE_EFFORT = 0x0006;

/** A listed record takes more memory than its 46 bytes; PyTorch's archives have one per storage. */
const MAX_RECORDS = 2 ** 16;
const MAX_DIRECTORY_BYTES = 2 ** 24;
/** The most that can follow the directory: the end record with the longest comment, and zip64's records. */
const TAIL_BYTES = ZIP64_END_SIZE + ZIP64_LOCATOR_SIZE + END_SIZE + MAX_16;
/** The largest deflate ratio: a repetition of 258 bytes takes two bits. */
const MAX_DEFLATED = 1032;
/** A larger record that shrinks far more than numbers do is meant to fill the memory. */
const LARGE_BYTES = 2 ** 26;
const MAX_DEFLATED_IF_LARGE = 64;
/** Small archives may always decompress to this many bytes. */
const SMALL_BYTES = 2 ** 20;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Compressed content can be read in parts only from memory. */
const MAX_IN_MEMORY = 2 ** 32;
/** Bytes fed to the decompressor at a time. */
const CHUNK_BYTES = 2 ** 14;

/** A record of an archive; its content is read on demand. */
export interface ZipMember extends ZipEntry {
  /**
   * The content.
   *
   * @throws {CheckpointError} if it is damaged, or the header before it contradicts the directory.
   */
  read(): Promise<Uint8Array>;
  /** The content in pieces of any length; its checksum is checked after the last. */
  pieces(): AsyncGenerator<Uint8Array>;
  /** The first bytes of the content, without a checksum check; all of them if there are fewer than `length`. */
  head(length: number): Promise<Uint8Array>;
  /** The content as a source, without a checksum check; compressed content is held in memory. */
  open(): Promise<Source>;
}

/** Options of {@link readZip}. */
export interface ZipOptions {
  /** Whether records may be compressed with `deflate`. */
  readonly allowDeflated?: boolean;
  /** Limit on the total decompressed size, as a multiple of the archive's size, if all will be in memory together. */
  readonly mostDeflated?: number;
}

interface CentralEntry extends ZipEntry {
  readonly flags: number;
  readonly isDeflated: boolean;
  /** Length of the content as stored in the archive. */
  readonly storedSize: number;
  readonly offset: number;
  /** Length of the name in bytes. */
  readonly nameSize: number;
}

/**
 * The records of an archive by name, in archive order. Only the directory is read.
 *
 * Encrypted records, compressed ones unless allowed, duplicate names, records that overlap or leave the archive, and
 * wrong checksums are refused, as is an archive with bytes before or after it.
 *
 * @throws {CheckpointError} for every such archive.
 */
export async function readZip(source: Source, options: ZipOptions = {}): Promise<Map<string, ZipMember>> {
  return await naming(source.name, () => readMembers(source, options));
}

async function readMembers(source: Source, options: ZipOptions): Promise<Map<string, ZipMember>> {
  const { entries, directory } = await readEntries(source, options);
  const sorted = entries.toSorted((a, b) => a.offset - b.offset);
  const limits = new Map<CentralEntry, number>();
  for (const [i, entry] of sorted.entries()) {
    const least = entry.offset + LOCAL_HEADER_SIZE + entry.nameSize + entry.storedSize;
    const next = sorted[i + 1];
    if (entry.offset + LOCAL_HEADER_SIZE > directory.offset) failAbsent(entry);
    if (least > directory.offset) failBeyond(entry);
    if (next !== undefined && least > next.offset) fail(`record ${quote(next.name)} overlaps the one before it`);
    limits.set(entry, next?.offset ?? directory.offset);
  }
  return new Map(entries.map((entry) => [entry.name, new ArchiveMember(source, entry, limits.get(entry)!)]));
}

async function readEntries(
  source: Source,
  options: ZipOptions,
): Promise<{ readonly entries: readonly CentralEntry[]; readonly directory: Directory }> {
  const tailStart = Math.max(0, source.size - TAIL_BYTES);
  const tail = await source.read(tailStart, source.size);
  const directory = findDirectory(tail, tailStart);
  if (directory.size > MAX_DIRECTORY_BYTES) {
    fail(`the directory has ${directory.size} bytes; expected at most ${MAX_DIRECTORY_BYTES}`);
  }
  const start = directory.offset - tailStart;
  const bytes = start >= 0
    ? tail.subarray(start, start + directory.size)
    : await source.read(directory.offset, directory.offset + directory.size);
  return { entries: readDirectory(bytes, directory, options), directory };
}

/** Finds the directory. The archive ends with `tail`, which starts at its byte `tailStart`. */
function findDirectory(tail: Uint8Array, tailStart: number): Directory {
  const view = viewOf(tail);
  const least = Math.max(0, tail.length - END_SIZE - MAX_16);
  let end = tail.length - END_SIZE;
  while (end >= least && !(view.getUint32(end, true) === END && commentEndsFile(view, end))) end--;
  if (end < least) fail("this is not a zip archive, or its end is missing");

  const disks = [view.getUint16(end + 4, true), view.getUint16(end + 6, true)];
  const counts = [view.getUint16(end + 8, true), view.getUint16(end + 10, true)];
  const plain: Directory = {
    count: counts[0]!,
    size: view.getUint32(end + 12, true),
    offset: view.getUint32(end + 16, true),
  };
  if (disks[0] !== 0 || disks[1] !== 0 || counts[0] !== counts[1]) {
    fail("archives split into several parts are not supported");
  }

  const locator = end - ZIP64_LOCATOR_SIZE;
  const isZip64 = locator >= 0 && view.getUint32(locator, true) === ZIP64_LOCATOR;
  const directory = isZip64 ? readZip64End(view, tailStart, locator, plain) : plain;
  const directoryEnd = tailStart + (isZip64 ? locator - ZIP64_END_SIZE : end);
  if (directory.offset + directory.size !== directoryEnd) {
    fail(
      `the directory of ${directory.size} bytes at ${directory.offset} does not end at ${directoryEnd}, ` +
        "where the archive says it does",
    );
  }
  return directory;
}

function commentEndsFile(view: DataView, end: number): boolean {
  return end + END_SIZE + view.getUint16(end + 20, true) === view.byteLength;
}

function readZip64End(view: DataView, tailStart: number, locator: number, plain: Directory): Directory {
  const at = locator - ZIP64_END_SIZE;
  if (
    view.getUint32(locator + 4, true) !== 0 || view.getUint32(locator + 16, true) !== 1 || at < 0 ||
    readUint64(view, locator + 8, "the place of the zip64 end record") !== tailStart + at ||
    view.getUint32(at, true) !== ZIP64_END ||
    readUint64(view, at + 4, "the size of the zip64 end record") !== ZIP64_END_SIZE - 12
  ) fail("the zip64 end record is not where its locator says, or has an unknown form");
  const directory: Directory = {
    count: readUint64(view, at + 32, "the number of records"),
    size: readUint64(view, at + 40, "the size of the directory"),
    offset: readUint64(view, at + 48, "the place of the directory"),
  };
  const agrees = (short: number, long: number, most: number): boolean => short === long || short === most;
  if (
    view.getUint32(at + 16, true) !== 0 || view.getUint32(at + 20, true) !== 0 ||
    readUint64(view, at + 24, "the number of records") !== directory.count ||
    !agrees(plain.count, directory.count, MAX_16) || !agrees(plain.size, directory.size, MAX_32) ||
    !agrees(plain.offset, directory.offset, MAX_32)
  ) fail("the zip64 end record contradicts the end record");
  return directory;
}

function readDirectory(
  bytes: Uint8Array,
  directory: Directory,
  { allowDeflated, mostDeflated = Infinity }: ZipOptions,
): CentralEntry[] {
  const view = viewOf(bytes);
  const entries: CentralEntry[] = [];
  const names = new Set<string>();
  let [at, total] = [0, 0];
  while (at < bytes.length) {
    if (at + CENTRAL_HEADER_SIZE > bytes.length || view.getUint32(at, true) !== CENTRAL_HEADER) {
      fail(`the directory has no record at ${directory.offset + at}`);
    }
    const nameSize = view.getUint16(at + 28, true);
    const extraSize = view.getUint16(at + 30, true);
    const next = at + CENTRAL_HEADER_SIZE + nameSize + extraSize + view.getUint16(at + 32, true);
    if (next > bytes.length) {
      fail(`the directory's record at ${directory.offset + at} reaches beyond the directory`);
    }

    const extraStart = at + CENTRAL_HEADER_SIZE + nameSize;
    const name = decodeName(bytes.subarray(at + CENTRAL_HEADER_SIZE, extraStart));
    if (names.size === MAX_RECORDS) fail(`the directory has more than ${MAX_RECORDS} records`);
    if (names.has(name)) fail(`record ${quote(name)} appears twice in the archive`);
    names.add(name);

    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const isDeflated = method === DEFLATED && allowDeflated === true;
    const known = SIZES_FOLLOW | UTF8_NAMES | (isDeflated ? DEFLATE_EFFORT : 0);
    if ((flags & ~known) !== 0) {
      fail(`record ${quote(name)} is encrypted or has unknown flags (${hex(flags)})`);
    }
    if (method !== STORED && !isDeflated) {
      const expected = allowDeflated ? "stored or deflated" : "stored";
      fail(`record ${quote(name)} is compressed (method ${method}); expected ${expected} records`);
    }
    if (view.getUint16(at + 34, true) !== 0) fail(`record ${quote(name)} is on another disk`);

    const long = zip64Fields(view, extraStart, extraSize, name);
    const wide = (value: number, what: string): number => value === MAX_32 ? long(what) : value;
    const size = wide(view.getUint32(at + 24, true), "its size");
    const storedSize = wide(view.getUint32(at + 20, true), "its stored size");
    const offset = wide(view.getUint32(at + 42, true), "its place");
    const most = storedSize * (size > LARGE_BYTES ? MAX_DEFLATED_IF_LARGE : MAX_DEFLATED);
    if (isDeflated ? size > most : size !== storedSize) {
      fail(`record ${quote(name)} is stored in ${storedSize} bytes but claims ${size}`);
    }
    if (isDeflated) total += size;
    if (total > Math.max(SMALL_BYTES, mostDeflated * directory.offset)) {
      fail(`its records would decompress to more than ${mostDeflated} times the archive's ${directory.offset} bytes`);
    }

    entries.push({ name, size, crc32: view.getUint32(at + 16, true), flags, isDeflated, storedSize, offset, nameSize });
    at = next;
  }
  if (entries.length !== directory.count) {
    fail(`the directory has ${entries.length} records; the archive says ${directory.count}`);
  }
  return entries;
}

/** Returns the 64-bit fields of a central record's zip64 extra, in the format's fixed order. */
function zip64Fields(view: DataView, start: number, size: number, name: string): (what: string) => number {
  let at = start;
  let left = 0;
  while (at + 4 <= start + size) {
    const id = view.getUint16(at, true);
    const length = view.getUint16(at + 2, true);
    at += 4;
    if (id === ZIP64_EXTRA) {
      left = Math.min(length, start + size - at);
      break;
    }
    at += length;
  }
  return (what) => {
    if (left < 8) fail(`record ${quote(name)} lacks the zip64 field for ${what}`);
    left -= 8;
    at += 8;
    return readUint64(view, at - 8, `${what} (record ${quote(name)})`);
  };
}

class ArchiveMember implements ZipMember {
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
  readonly #source: Source;
  readonly #entry: CentralEntry;
  /** The start of the next record, or of the directory. */
  readonly #limit: number;

  constructor(source: Source, entry: CentralEntry, limit: number) {
    this.name = entry.name;
    this.size = entry.size;
    this.crc32 = entry.crc32;
    this.#source = source;
    this.#entry = entry;
    this.#limit = limit;
  }

  async read(): Promise<Uint8Array> {
    if (this.#entry.isDeflated) {
      const content = new Uint8Array(this.size);
      let at = 0;
      for await (const piece of this.pieces()) {
        content.set(piece, at);
        at += piece.length;
      }
      return content;
    }
    const start = await this.#start();
    const content = await this.#source.read(start, start + this.size);
    this.#check(crc32(content));
    return content;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    let crc = 0;
    for await (const piece of this.#unchecked(await this.#start())) {
      crc = crc32(piece, crc);
      yield piece;
    }
    this.#check(crc);
  }

  async head(length: number): Promise<Uint8Array> {
    const start = await this.#start();
    const wanted = Math.min(length, this.size);
    if (!this.#entry.isDeflated) return await this.#source.read(start, start + wanted);
    const pieces: Uint8Array[] = [];
    let found = 0;
    for await (const piece of this.#unchecked(start)) {
      pieces.push(piece);
      found += piece.length;
      if (found >= wanted) break;
    }
    return joinBytes(pieces).subarray(0, wanted);
  }

  async open(): Promise<Source> {
    const { name, size, isDeflated, storedSize } = this.#entry;
    if (isDeflated) {
      if (size > MAX_IN_MEMORY) {
        fail(
          `record ${quote(name)} is compressed and needs ${size} bytes of memory; expected at most ${MAX_IN_MEMORY}`,
        );
      }
      return bytesSource(await this.read(), this.#source.name);
    }
    const start = await this.#start();
    return sliceSource(this.#source, start, start + storedSize);
  }

  #unchecked(start: number): AsyncIterable<Uint8Array> {
    const { name, size, storedSize, isDeflated } = this.#entry;
    const content = sliceSource(this.#source, start, start + storedSize);
    return isDeflated ? inflate(content, size, `record ${quote(name)}`) : readPieces(content);
  }

  #check(found: number): void {
    const { name, crc32: expected } = this.#entry;
    if (found !== expected) {
      fail(`record ${quote(name)} is damaged: its CRC-32 is ${hex(found)}, the directory says ${hex(expected)}`);
    }
  }

  /** The start of the content, after a local header that agrees with the directory. */
  async #start(): Promise<number> {
    const { name, size, storedSize, flags, isDeflated, offset, nameSize } = this.#entry;
    const head = await this.#source.read(offset, offset + LOCAL_HEADER_SIZE + nameSize);
    const view = viewOf(head);
    if (view.getUint32(0, true) !== LOCAL_HEADER) failAbsent(this.#entry);
    const start = offset + head.length + view.getUint16(28, true);
    if (start + storedSize > this.#limit) failBeyond(this.#entry);
    const sizes = [view.getUint32(18, true), view.getUint32(22, true)];
    const sizesAgree = [storedSize, size].every((size, i) => sizes[i] === size || sizes[i] === MAX_32);
    const followingSizes = (flags & SIZES_FOLLOW) !== 0 && sizes.every((size) => size === 0);
    if (
      view.getUint16(26, true) !== nameSize || decodeName(head.subarray(LOCAL_HEADER_SIZE)) !== name ||
      view.getUint16(6, true) !== flags || view.getUint16(8, true) !== (isDeflated ? DEFLATED : STORED) ||
      !(sizesAgree || followingSizes)
    ) fail(`the header before record ${quote(name)} contradicts the directory`);
    return start;
  }
}

/** Decompresses deflated bytes, which must give `size` bytes. */
async function* inflate(deflated: Source, size: number, what: string): AsyncGenerator<Uint8Array> {
  const chunks = inChunks(readPieces(deflated));
  const compressed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
  const reader = compressed.pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  let found = 0;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      found += next.value.length;
      if (found > size) fail(`${what} decompresses to more than the ${size} bytes that it claims`);
      yield next.value;
    }
  } catch (cause) {
    // The platform's decompressor throws this for damaged bytes.
    if (cause instanceof TypeError) fail(`${what} does not decompress`, cause);
    throw cause;
  } finally {
    await reader.cancel().catch(() => {});
  }
  if (found !== size) fail(`${what} decompresses to ${found} bytes; it claims ${size}`);
}

/** The decompressor emits everything that a chunk expands to at once, up to 1032 times its size. */
async function* inChunks(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; at += CHUNK_BYTES) yield new Uint8Array(piece.subarray(at, at + CHUNK_BYTES));
  }
}

function failAbsent({ name, offset }: CentralEntry): never {
  return fail(`record ${quote(name)} is not at ${offset}, where the directory says it is`);
}

function failBeyond({ name, storedSize }: CentralEntry): never {
  return fail(
    `record ${quote(name)} of ${storedSize} bytes reaches past the end of the archive, or into the record after it`,
  );
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decodeName(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw new CheckpointError("reading the zip archive: a record's name is not UTF-8 text", { cause });
  }
}

function readUint64(view: DataView, at: number, what: string): number {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  if (!Number.isSafeInteger(value)) fail(`${what} is beyond 2^53`);
  return value;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function fail(what: string, cause?: unknown): never {
  throw new CheckpointError(`reading the zip archive: ${what}`, { cause });
}
