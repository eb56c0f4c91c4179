/**
 * Writes zip archives, with zip64 where needed: stored records as PyTorch writes them, each aligned to 64 bytes with
 * sizes in the central directory; and deflated ones, which are compressed while they are written.
 *
 * Format: PKWARE's APPNOTE 6.3.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { type FilePart, joinBytes, type LazyBytes, partPieces } from "./source.ts";
import {
  CENTRAL_HEADER,
  CENTRAL_HEADER_SIZE,
  DATA_DESCRIPTOR,
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

/** A record to write. */
export interface ZipRecord<Part extends FilePart = Uint8Array> extends ZipEntry {
  /** Its content. */
  readonly bytes: Part;
}

/** Everything in an archive except the contents. */
export interface ZipLayout {
  /** The bytes before each record. */
  readonly heads: readonly Uint8Array[];
  /** The bytes after each record. */
  readonly tails: readonly Uint8Array[];
  /** The bytes at the end. */
  readonly directory: Uint8Array;
}

/** Every record's content starts at a multiple of this, so that it can be mapped into memory as any type. */
const ALIGNMENT = 64;

/** A record with these bytes. */
export function zipRecord(name: string, bytes: Uint8Array): ZipRecord {
  return { name, bytes, size: bytes.length, crc32: crc32(bytes) };
}

/** The archive of these records, in pieces; the contents are the given bytes themselves. */
export function formatZip<Part extends FilePart>(records: readonly ZipRecord<Part>[]): (Uint8Array | Part)[] {
  const { heads, tails, directory } = layoutZip(records);
  return [...records.flatMap(({ bytes }, i) => [heads[i]!, bytes, tails[i]!]), directory];
}

/** A record to compress. */
export interface RecordToDeflate {
  /** Its full name. */
  readonly name: string;
  /** Its content. */
  readonly parts: readonly FilePart[];
}

/**
 * The archive of these records, each compressed while it is written. The same content gives the same bytes, however it
 * is split into pieces. The exact length is known only afterwards; the given one is an upper bound.
 */
export function formatDeflatedZip(records: readonly RecordToDeflate[]): LazyBytes {
  const most = records.reduce((sum, { name, parts }) => sum + mostDeflated(sizeOf(parts)) + 2 * name.length + 256, 256);
  return { length: most, pieces: () => deflatedZip(records) };
}

async function* deflatedZip(records: readonly RecordToDeflate[]): AsyncGenerator<Uint8Array> {
  const central: Uint8Array[] = [];
  let offset = 0;
  for (const { name, parts } of records) {
    const encoded = new TextEncoder().encode(name);
    const announced = { name, size: sizeOf(parts), crc32: 0, deflatedSize: 0 };
    const head = formatLocalHeader(announced, encoded, offset);
    yield head;
    const found = { size: 0, crc32: 0 };
    let deflatedSize = 0;
    for await (const piece of deflate(parts, found)) {
      deflatedSize += piece.length;
      yield piece;
    }
    if (found.size !== announced.size) {
      throw new RangeError(`writing record ${name}: found ${found.size} bytes; expected ${announced.size}`);
    }
    const entry = { ...announced, ...found, deflatedSize };
    const tail = formatDescriptor(entry);
    yield tail;
    central.push(formatCentralHeader(entry, encoded, offset));
    offset += head.length + deflatedSize + tail.length;
  }
  yield* central;
  yield formatEnd({ offset, size: central.reduce((sum, { length }) => sum + length, 0), count: central.length });
}

/** Bytes fed to the compressor at a time, so that its output does not depend on the pieces. */
const CHUNK_BYTES = 2 ** 20;

/** Compresses the parts; `found` receives the length and checksum of the uncompressed content. */
async function* deflate(
  parts: readonly FilePart[],
  found: { size: number; crc32: number },
): AsyncGenerator<Uint8Array> {
  const chunks = inChunks(partPieces(parts));
  const raw = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) return controller.close();
      found.size += value.length;
      found.crc32 = crc32(value, found.crc32);
      controller.enqueue(value);
    },
  });
  const reader = raw.pipeThrough(new CompressionStream("deflate-raw")).getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function* inChunks(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let chunk = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  for await (let piece of pieces) {
    while (piece.length > 0) {
      const part = piece.subarray(0, CHUNK_BYTES - filled);
      chunk.set(part, filled);
      filled += part.length;
      piece = piece.subarray(part.length);
      if (filled < CHUNK_BYTES) continue;
      yield chunk;
      [chunk, filled] = [new Uint8Array(CHUNK_BYTES), 0];
    }
  }
  if (filled > 0) yield chunk.subarray(0, filled);
}

function sizeOf(parts: readonly FilePart[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}

/** If numbers do not shrink at all, deflate adds five bytes per block. */
function mostDeflated(size: number): number {
  return size + Math.ceil(size / 2 ** 10) + 64;
}

/** Everything in an archive except the contents, in PyTorch's layout. */
export function layoutZip(entries: readonly ZipEntry[]): ZipLayout {
  const heads: Uint8Array[] = [];
  const tails: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let offset = 0;
  for (const entry of entries) {
    const name = new TextEncoder().encode(entry.name);
    const head = formatLocalHeader(entry, name, offset);
    const tail = formatDescriptor(entry);
    heads.push(head);
    tails.push(tail);
    central.push(formatCentralHeader(entry, name, offset));
    offset += head.length + entry.size + tail.length;
  }
  const size = central.reduce((sum, { length }) => sum + length, 0);
  return { heads, tails, directory: joinBytes([...central, formatEnd({ offset, size, count: entries.length })]) };
}

/** A record as its headers describe it. */
interface WrittenEntry extends ZipEntry {
  /** Size of the compressed content, 0 until it is known; stored records have none. */
  readonly deflatedSize?: number;
}

/** The code of the method, and the format version that supports it. */
const DEFLATED = { method: 8, version: 20 };
const STORED = { method: 0, version: 0 };

/** Decided before the content is compressed. */
function isLarge({ size, deflatedSize }: WrittenEntry): boolean {
  return (deflatedSize === undefined ? size : mostDeflated(size)) >= MAX_32;
}

function formatLocalHeader(entry: WrittenEntry, name: Uint8Array, offset: number): Uint8Array {
  const large = isLarge(entry);
  const isStored = entry.deflatedSize === undefined;
  const { method, version } = isStored ? STORED : DEFLATED;
  const unpadded = LOCAL_HEADER_SIZE + name.length + (large ? 20 : 0) + (isStored ? 4 : 0);
  const padding = isStored ? (ALIGNMENT - (offset + unpadded) % ALIGNMENT) % ALIGNMENT : 0;
  const { size, deflatedSize = size } = entry;
  const writer = new ByteWriter(unpadded + padding)
    .uint32(LOCAL_HEADER).uint16(version).uint16(SIZES_FOLLOW | UTF8_NAMES).uint16(method).uint32(0).uint32(0)
    .uint32(large ? MAX_32 : 0).uint32(large ? MAX_32 : 0)
    .uint16(name.length).uint16(unpadded + padding - LOCAL_HEADER_SIZE - name.length).bytes(name);
  if (large) writer.uint16(ZIP64_EXTRA).uint16(16).uint64(isStored ? size : 0).uint64(deflatedSize);
  if (!isStored) return writer.done();
  return writer.bytes(new TextEncoder().encode("FB")).uint16(padding).bytes(new Uint8Array(padding).fill(0x5a)).done();
}

function formatDescriptor(entry: WrittenEntry): Uint8Array {
  const large = isLarge(entry);
  const { size, deflatedSize = size } = entry;
  const writer = new ByteWriter(large ? 24 : 16).uint32(DATA_DESCRIPTOR).uint32(entry.crc32);
  if (large) writer.uint64(deflatedSize).uint64(size);
  else writer.uint32(deflatedSize).uint32(size);
  return writer.done();
}

function formatCentralHeader(entry: WrittenEntry, name: Uint8Array, offset: number): Uint8Array {
  const large = isLarge(entry);
  const far = offset >= MAX_32;
  const fields = (large ? 16 : 0) + (far ? 8 : 0);
  const extra = fields === 0 ? 0 : 4 + fields;
  const { size, deflatedSize = size } = entry;
  const { method, version } = entry.deflatedSize === undefined ? STORED : DEFLATED;
  const writer = new ByteWriter(CENTRAL_HEADER_SIZE + name.length + extra)
    .uint32(CENTRAL_HEADER).uint16(version).uint16(version).uint16(SIZES_FOLLOW | UTF8_NAMES).uint16(method).uint32(0)
    .uint32(entry.crc32).uint32(large ? MAX_32 : deflatedSize).uint32(large ? MAX_32 : size)
    .uint16(name.length).uint16(extra).uint16(0).uint16(0).uint16(0).uint32(0)
    .uint32(far ? MAX_32 : offset).bytes(name);
  if (extra > 0) writer.uint16(ZIP64_EXTRA).uint16(fields);
  if (large) writer.uint64(size).uint64(deflatedSize);
  if (far) writer.uint64(offset);
  return writer.done();
}

/** PyTorch always writes the zip64 end record and its locator. */
function formatEnd({ offset, size, count }: Directory): Uint8Array {
  return new ByteWriter(ZIP64_END_SIZE + ZIP64_LOCATOR_SIZE + END_SIZE)
    .uint32(ZIP64_END).uint64(ZIP64_END_SIZE - 12).uint16(0x031e).uint16(45).uint32(0).uint32(0)
    .uint64(count).uint64(count).uint64(size).uint64(offset)
    .uint32(ZIP64_LOCATOR).uint32(0).uint64(offset + size).uint32(1)
    .uint32(END).uint16(0).uint16(0).uint16(Math.min(count, MAX_16)).uint16(Math.min(count, MAX_16))
    .uint32(Math.min(size, MAX_32)).uint32(Math.min(offset, MAX_32)).uint16(0)
    .done();
}

/** Fills a buffer of known size with little-endian fields. */
class ByteWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
    this.#view = new DataView(this.#bytes.buffer);
  }

  uint16(value: number): this {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
    return this;
  }

  uint32(value: number): this {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  uint64(value: number): this {
    return this.uint32(value % 2 ** 32).uint32(Math.floor(value / 2 ** 32));
  }

  bytes(bytes: Uint8Array): this {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  done(): Uint8Array {
    return this.#bytes;
  }
}
