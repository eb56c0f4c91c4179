/**
 * Sources that keep count of what is read.
 *
 * @module
 */

import { bytesSource, type Source } from "../../io/source.ts";

/** A source of bytes in memory that counts. */
export interface CountingSource extends Source {
  /** How often something was read. */
  readonly reads: number;
  /** How many bytes were read in all. */
  readonly bytesRead: number;
  /** The longest range that was read at once. */
  readonly longest: number;
}

/** Counts what is read of these bytes. What it gives are copies, as a file's bytes are. */
export function countingSource(bytes: Uint8Array): CountingSource {
  const source = bytesSource(bytes);
  const counter = {
    name: source.name,
    size: source.size,
    reads: 0,
    bytesRead: 0,
    longest: 0,
    async read(from: number, to: number): Promise<Uint8Array> {
      counter.reads++;
      counter.bytesRead += to - from;
      counter.longest = Math.max(counter.longest, to - from);
      return (await source.read(from, to)).slice();
    },
  };
  return counter;
}
