/**
 * Bytes that can be read anywhere without reading the rest: in memory, in a file, or at an address.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";

/** Bytes of known length, any of which can be read at any time, also concurrently. There is nothing to close. */
export interface Source {
  /** Its name in messages. */
  readonly name: string;
  /** Its length in bytes. */
  readonly size: number;
  /**
   * The bytes from `from` to `to` (exclusive). They may be a view of the source's own memory: do not write into them.
   *
   * @throws {CheckpointError} if there are no such bytes, or they have changed.
   */
  read(from: number, to: number): Promise<Uint8Array>;
}

/** Large ranges are read in pieces of this size if they need not be in memory at once. */
const PIECE_BYTES = 2 ** 23;

/** Smaller reads are served from blocks of this size. */
const BLOCK_BYTES = 2 ** 16;
const MAX_BLOCKS = 16;

/** @throws {CheckpointError} if the source has no such bytes. */
export function checkRange({ name, size }: Pick<Source, "name" | "size">, from: number, to: number): void {
  if (!(Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from <= to && to <= size)) {
    throw new CheckpointError(`reading ${name}: found ${size} bytes; expected bytes ${from} to ${to}`);
  }
}

/** Bytes in memory; reads return views. */
export function bytesSource(bytes: Uint8Array, name = "the bytes"): Source {
  const source = {
    name,
    size: bytes.length,
    read(from: number, to: number): Promise<Uint8Array> {
      return Promise.try(() => {
        checkRange(source, from, to);
        return bytes.subarray(from, to);
      });
    },
  };
  return source;
}

/** A `Blob`, or a `File` that a user picked. */
export function blobSource(blob: Blob): Source {
  const name = blob instanceof File ? blob.name : "the Blob";
  return buffered({
    name,
    size: blob.size,
    read: async (from, to) => new Uint8Array(await blob.slice(from, to).arrayBuffer()),
  });
}

/** A part of a source, by default up to its end. */
export function sliceSource(source: Source, start: number, end: number = source.size): Source {
  const slice = {
    name: source.name,
    size: end - start,
    async read(from: number, to: number): Promise<Uint8Array> {
      checkRange(slice, from, to);
      return await source.read(start + from, start + to);
    },
  };
  checkRange(source, start, end);
  return slice;
}

/**
 * The same source, with small reads served from the blocks read last, so that a header or directory costs one request
 * instead of dozens. Long reads pass through. `head` are known bytes of its start.
 */
export function buffered(source: Source, head?: Uint8Array): Source {
  const { name, size } = source;
  const blocks = new Map<number, Promise<Uint8Array>>();
  if (head !== undefined) blocks.set(0, Promise.resolve(head.subarray(0, BLOCK_BYTES)));
  const block = (index: number): Promise<Uint8Array> => {
    const start = index * BLOCK_BYTES;
    const bytes = blocks.get(index) ?? source.read(start, Math.min(start + BLOCK_BYTES, size));
    // Moves the block to the end of the map, so that the first one is the least recently used.
    blocks.delete(index);
    blocks.set(index, bytes);
    bytes.catch(() => blocks.delete(index));
    if (blocks.size > MAX_BLOCKS) blocks.delete(blocks.keys().next().value!);
    return bytes;
  };
  return {
    name,
    size,
    async read(from, to) {
      checkRange(source, from, to);
      if (to - from >= BLOCK_BYTES) return await source.read(from, to);
      if (from === to) return new Uint8Array();
      const first = Math.floor(from / BLOCK_BYTES);
      const last = Math.floor((to - 1) / BLOCK_BYTES);
      const bytes = first === last ? await block(first) : joinBytes(await Promise.all([block(first), block(last)]));
      return bytes.subarray(from - first * BLOCK_BYTES, to - first * BLOCK_BYTES);
    },
  };
}

/** The same source, whose reads reject with the signal's reason once it is aborted. */
export function stoppable(source: Source, signal: AbortSignal | undefined): Source {
  if (signal === undefined) return source;
  const { name, size } = source;
  return {
    name,
    size,
    async read(from, to) {
      signal.throwIfAborted();
      return await source.read(from, to);
    },
  };
}

/** A range of a source in pieces, none of which stays in memory. */
export async function* readPieces(source: Source, from = 0, to = source.size): AsyncGenerator<Uint8Array> {
  for (let at = from; at < to; at += PIECE_BYTES) yield await source.read(at, Math.min(at + PIECE_BYTES, to));
}

/** Bytes that are read or computed on demand. */
export interface LazyBytes {
  /** Their number; for compressed bytes, an upper bound. */
  readonly length: number;
  /** All bytes, in pieces. */
  readonly pieces: () => AsyncIterable<Uint8Array>;
}

/** A part of a file to write. */
export type FilePart = Uint8Array | LazyBytes;

/** The bytes of the parts, in order. */
export async function* partPieces(parts: readonly FilePart[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    if (part instanceof Uint8Array) yield part;
    else yield* part.pieces();
  }
}

/** Joins all pieces into one array. */
export function joinBytes(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}
