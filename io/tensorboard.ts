/**
 * TensorBoard's event files: records that are framed as TFRecords, each a protocol buffer `Event`.
 *
 * A record is `length` (8 bytes), the masked CRC-32C of these 8 bytes (4), the event, and the masked CRC-32C of the event (4),
 * all little endian. Only the fields that TensorBoard needs for scalars and histograms are written.
 *
 * Source: tensorboard/compat/proto/{event,summary,histogram}.proto; tensorflow/core/lib/io/record_writer.h.
 *
 * @module
 */

/** A histogram in TensorBoard's form. */
export interface EventHistogram {
  /** The smallest value. */
  readonly min: number;
  /** The largest. */
  readonly max: number;
  /** Number of values. */
  readonly num: number;
  /** Their sum. */
  readonly sum: number;
  /** The sum of their squares. */
  readonly sumSquares: number;
  /** [bins], the right edge of each, ascending. */
  readonly bucketLimit: readonly number[];
  /** [bins], the number of values in each. */
  readonly bucket: readonly number[];
}

/** The content of an event. */
export type EventContent =
  /** The first event of a file. */
  | { readonly fileVersion: true }
  /** Writing starts, or restarts, at this step: earlier events about it and later steps are void. */
  | { readonly restart: true }
  /** Numbers and histograms by tag. */
  | {
    readonly scalars: Readonly<Record<string, number>>;
    readonly histograms?: Readonly<Record<string, EventHistogram>>;
  };

/** The time and step of an event. */
export interface EventPlace {
  /** Seconds since 1970. */
  readonly wallTime: number;
  /** The step. */
  readonly step: number;
}

/** An event as a record. */
export function eventRecord({ wallTime, step }: EventPlace, content: EventContent): Uint8Array<ArrayBuffer> {
  return record([...double(1, wallTime), ...step === 0 ? [] : varint(2, step), ...contentOf(content)]);
}

function contentOf(content: EventContent): number[] {
  if ("fileVersion" in content) return text(3, "brain.Event:2");
  // SessionLog with status START.
  if ("restart" in content) return message(7, varint(1, 1));
  const { scalars, histograms = {} } = content;
  return message(5, [
    ...Object.entries(scalars).flatMap(([tag, value]) => message(1, [...text(1, tag), ...float(2, value)])),
    ...Object.entries(histograms).flatMap(([tag, value]) =>
      message(1, [...text(1, tag), ...message(5, histogram(value))])
    ),
  ]);
}

function histogram({ min, max, num, sum, sumSquares, bucketLimit, bucket }: EventHistogram): number[] {
  return [
    ...[min, max, num, sum, sumSquares].flatMap((value, i) => double(i + 1, value)),
    ...message(6, bucketLimit.flatMap((value) => [...doubleBytes(value)])),
    ...message(7, bucket.flatMap((value) => [...doubleBytes(value)])),
  ];
}

// --------------------------------------------------------------------------------------------------- protocol buffers

/** Seven bits per byte, lowest first; all bytes but the last have their highest bit set. */
function groups(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...groups(Math.floor(value / 128))];
}

function varint(field: number, value: number): number[] {
  return [field << 3, ...groups(value)];
}

function double(field: number, value: number): number[] {
  return [field << 3 | 1, ...doubleBytes(value)];
}

function doubleBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value, true);
  return bytes;
}

function float(field: number, value: number): number[] {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return [field << 3 | 5, ...bytes];
}

function message(field: number, content: readonly number[]): number[] {
  return [field << 3 | 2, ...groups(content.length), ...content];
}

function text(field: number, value: string): number[] {
  return message(field, [...new TextEncoder().encode(value)]);
}

// ------------------------------------------------------------------------------------------------------------ records

const HEADER = 12;
const FOOTER = 4;

function record(data: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER + data.length + FOOTER);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(bytes.subarray(0, 8)), true);
  bytes.set(data, HEADER);
  view.setUint32(HEADER + data.length, maskedCrc(bytes.subarray(HEADER, HEADER + data.length)), true);
  return bytes;
}

/** This library writes no larger events. */
const MAX_EVENT = 2 ** 20;

/**
 * The length of the complete records at the start, each with correct checksums: a killed process may leave part of one
 * after them.
 */
export async function wholeRecords(chunks: AsyncIterable<Uint8Array>): Promise<number> {
  let whole = 0;
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of chunks) {
    const bytes = new Uint8Array(rest.length + chunk.length);
    bytes.set(rest);
    bytes.set(chunk, rest.length);
    let at = 0;
    for (;;) {
      const length = recordLength(bytes.subarray(at));
      if (length === "wrong") return whole + at;
      if (length === "cut") break;
      at += length;
    }
    whole += at;
    rest = bytes.subarray(at);
  }
  return whole;
}

/** The length of the first record; or that it is cut off, or invalid. */
function recordLength(bytes: Uint8Array): number | "cut" | "wrong" {
  if (bytes.length < HEADER) return "cut";
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  if (length > MAX_EVENT || view.getUint32(8, true) !== maskedCrc(bytes.subarray(0, 8))) return "wrong";
  const end = HEADER + length + FOOTER;
  if (bytes.length < end) return "cut";
  const isRight = view.getUint32(HEADER + length, true) === maskedCrc(bytes.subarray(HEADER, HEADER + length));
  return isRight ? end : "wrong";
}

/** TFRecord's CRC: ((crc >> 15) | (crc << 17)) + 0xa282ead8, so that the CRC of data with CRCs in it stays a good one. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** For each byte, the remainder of dividing it by the polynomial 0x82F63B78 (Castagnoli, reflected). */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

/** The CRC-32C of the bytes, unsigned. */
export function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
