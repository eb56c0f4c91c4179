/**
 * Writes zip archives of stored records, as PyTorch does: every record aligned to 64 bytes, sizes in the central
 * directory, zip64 where needed.
 *
 * Format: PKWARE's APPNOTE 6.3.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { type FilePart, joinBytes } from "./source.ts";
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

/** A record to be written. */
export interface ZipRecord<Part extends FilePart = Uint8Array> extends ZipEntry {
  /** Its content. */
  readonly bytes: Part;
}

/** Everything of an archive but the contents. */
export interface ZipLayout {
  /** What stands before each record. */
  readonly heads: readonly Uint8Array[];
  /** What stands after each record. */
  readonly tails: readonly Uint8Array[];
  /** What stands at the end. */
  readonly directory: Uint8Array;
}

/** Every record's content starts at a multiple of this, so that it can be mapped into memory as any type. */
const ALIGNMENT = 64;

/** A record of these bytes. */
export function zipRecord(name: string, bytes: Uint8Array): ZipRecord {
  return { name, bytes, size: bytes.length, crc32: crc32(bytes) };
}

/** The archive of these records, in pieces; the contents are the given bytes themselves. */
export function formatZip<Part extends FilePart>(records: readonly ZipRecord<Part>[]): (Uint8Array | Part)[] {
  const { heads, tails, directory } = layoutZip(records);
  return [...records.flatMap(({ bytes }, i) => [heads[i]!, bytes, tails[i]!]), directory];
}

/** Everything of an archive but the contents, in PyTorch's layout. */
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

function isLarge(entry: ZipEntry): boolean {
  return entry.size >= MAX_32;
}

function formatLocalHeader(entry: ZipEntry, name: Uint8Array, offset: number): Uint8Array {
  const large = isLarge(entry);
  const unpadded = LOCAL_HEADER_SIZE + name.length + (large ? 20 : 0) + 4;
  const padding = (ALIGNMENT - (offset + unpadded) % ALIGNMENT) % ALIGNMENT;
  const writer = new ByteWriter(unpadded + padding)
    .uint32(LOCAL_HEADER).uint16(0).uint16(SIZES_FOLLOW | UTF8_NAMES).uint16(0).uint32(0).uint32(0)
    .uint32(large ? MAX_32 : 0).uint32(large ? MAX_32 : 0)
    .uint16(name.length).uint16((large ? 20 : 0) + 4 + padding).bytes(name);
  if (large) writer.uint16(ZIP64_EXTRA).uint16(16).uint64(entry.size).uint64(entry.size);
  return writer.bytes(new TextEncoder().encode("FB")).uint16(padding).bytes(new Uint8Array(padding).fill(0x5a)).done();
}

function formatDescriptor(entry: ZipEntry): Uint8Array {
  const large = isLarge(entry);
  const writer = new ByteWriter(large ? 24 : 16).uint32(DATA_DESCRIPTOR).uint32(entry.crc32);
  if (large) writer.uint64(entry.size).uint64(entry.size);
  else writer.uint32(entry.size).uint32(entry.size);
  return writer.done();
}

function formatCentralHeader(entry: ZipEntry, name: Uint8Array, offset: number): Uint8Array {
  const large = isLarge(entry);
  const far = offset >= MAX_32;
  const fields = (large ? 16 : 0) + (far ? 8 : 0);
  const extra = fields === 0 ? 0 : 4 + fields;
  const writer = new ByteWriter(CENTRAL_HEADER_SIZE + name.length + extra)
    .uint32(CENTRAL_HEADER).uint16(0).uint16(0).uint16(SIZES_FOLLOW | UTF8_NAMES).uint16(0).uint32(0)
    .uint32(entry.crc32).uint32(large ? MAX_32 : entry.size).uint32(large ? MAX_32 : entry.size)
    .uint16(name.length).uint16(extra).uint16(0).uint16(0).uint16(0).uint32(0)
    .uint32(far ? MAX_32 : offset).bytes(name);
  if (extra > 0) writer.uint16(ZIP64_EXTRA).uint16(fields);
  if (large) writer.uint64(entry.size).uint64(entry.size);
  if (far) writer.uint64(offset);
  return writer.done();
}

/** PyTorch writes the zip64 end record and its locator always. */
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
