/**
 * Where an array lies in a file, so that any part of it can be read without the rest.
 *
 * @module
 */

import type { NumberType } from "./numbers.ts";
import type { Source } from "./source.ts";

/** An array whose numbers are contiguous in a source. */
export interface ArrayPlace {
  /** Its name in messages. */
  readonly what: string;
  /** Python code that loads it, for messages: `numpy.load("a.npy")`. */
  readonly python: string;
  /** The source. */
  readonly source: Source;
  /** The offset of its numbers in the source, in bytes. */
  readonly start: number;
  /** The type of its numbers. */
  readonly type: NumberType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** Whether the first axis is the contiguous one, instead of the last. */
  readonly isFortranOrder: boolean;
  /** The dimensions. */
  readonly shape: readonly number[];
}
