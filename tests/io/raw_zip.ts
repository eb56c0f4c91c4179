/**
 * Builds zip archives field by field, wrong ones included. Shares nothing with the library's writer; checksums come from
 * the platform.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32, deflateRawSync } from "node:zlib";

/** A record; fields left out are true. */
export interface RawRecord {
  name: string;
  bytes: Uint8Array;
  /** As the local header spells it. */
  localName?: string;
  flags?: number;
  localFlags?: number;
  method?: number;
  crc?: number;
  /** Sizes as the directory says them; a bigint goes into a zip64 field. */
  size?: number | bigint;
  storedSize?: number | bigint;
  /** Sizes as the local header says them. */
  localSize?: number;
  /** Place as the directory says it. */
  offset?: number | bigint;
  disk?: number;
}

/** What stands behind the records. */
export interface RawEnd {
  count?: number;
  size?: number;
  offset?: number;
  comment?: Uint8Array;
  disk?: number;
  /** Writes a zip64 end record and locator, with these fields where given. */
  zip64?: { count?: bigint; size?: bigint; offset?: bigint; place?: bigint };
}

type Field = readonly [bits: 16 | 32 | 64, value: number | bigint];

/** The archive. */
export function rawZip(records: readonly RawRecord[], end: RawEnd = {}): Uint8Array {
  const pieces: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let at = 0;
  const push = (...added: Uint8Array[]): void => {
    for (const piece of added) {
      pieces.push(piece);
      at += piece.length;
    }
  };
  for (const record of records) {
    const { bytes } = record;
    const flags = record.flags ?? 0;
    const crc = record.crc ?? crc32(bytes);
    const name = new TextEncoder().encode(record.name);
    const localName = new TextEncoder().encode(record.localName ?? record.name);
    const size = record.size ?? bytes.length;
    const storedSize = record.storedSize ?? size;
    const offset = record.offset ?? at;
    const local = record.localSize ?? bytes.length;
    const method = record.method ?? 0;
    push(
      fields([32, 0x04034b50], [16, 20], [16, record.localFlags ?? flags], [16, method], [32, 0], [32, crc]),
      fields([32, local], [32, local], [16, localName.length], [16, 0]),
      localName,
      bytes,
    );
    const wide = [size, storedSize, offset].filter((value) => typeof value === "bigint");
    const extra = wide.length === 0
      ? new Uint8Array()
      : joined([fields([16, 1], [16, 8 * wide.length]), ...wide.map((value) => fields([64, value]))]);
    central.push(
      fields([32, 0x02014b50], [16, 20], [16, 20], [16, flags], [16, method], [32, 0], [32, crc]),
      fields([32, short(storedSize)], [32, short(size)], [16, name.length], [16, extra.length], [16, 0]),
      fields([16, record.disk ?? 0], [16, 0], [32, 0], [32, short(offset)]),
      name,
      extra,
    );
  }
  const directoryAt = at;
  push(...central);
  const directorySize = at - directoryAt;
  const count = end.count ?? records.length;
  if (end.zip64) {
    const { zip64 } = end;
    const place = at;
    const wideCount = zip64.count ?? BigInt(records.length);
    push(
      fields([32, 0x06064b50], [64, 44n], [16, 45], [16, 45], [32, 0], [32, 0], [64, wideCount], [64, wideCount]),
      fields([64, zip64.size ?? BigInt(directorySize)], [64, zip64.offset ?? BigInt(directoryAt)]),
      fields([32, 0x07064b50], [32, 0], [64, zip64.place ?? BigInt(place)], [32, 1]),
    );
  }
  const comment = end.comment ?? new Uint8Array();
  push(
    fields([32, 0x06054b50], [16, end.disk ?? 0], [16, end.disk ?? 0], [16, count], [16, count]),
    fields([32, end.size ?? directorySize], [32, end.offset ?? directoryAt], [16, comment.length]),
    comment,
  );
  return joined(pieces);
}

/** A record that is deflated, by another hand than the library's. */
export function deflated(name: string, content: Uint8Array, change: Partial<RawRecord> = {}): RawRecord {
  const bytes = new Uint8Array(deflateRawSync(content, { level: 9 }));
  return {
    name,
    bytes,
    method: 8,
    size: content.length,
    storedSize: bytes.length,
    crc: crc32(content),
    flags: 0x0808,
    localSize: 0,
    ...change,
  };
}

function short(value: number | bigint): number {
  return typeof value === "bigint" ? 0xffffffff : value;
}

function fields(...list: readonly Field[]): Uint8Array {
  const bytes = new Uint8Array(list.reduce((sum, [bits]) => sum + bits / 8, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [bits, value] of list) {
    if (bits === 16) view.setUint16(at, Number(value), true);
    else if (bits === 32) view.setUint32(at, Number(value), true);
    else view.setBigUint64(at, BigInt(value), true);
    at += bits / 8;
  }
  return bytes;
}

/** The pieces as one. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

/** UTF-8. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
