/**
 * Where an array lies in a file, so that any part of it can be read without the rest.
 *
 * @module
 */

import type { NumberType } from "./numbers.ts";
import type { Source } from "./source.ts";

/** An array whose numbers lie one after the other in a source. */
export interface ArrayPlace {
  /** What messages call it. */
  readonly what: string;
  /** How Python loads it, for messages: `numpy.load("a.npy")`. */
  readonly python: string;
  /** Where it lies. */
  readonly source: Source;
  /** The byte of the source at which its numbers start. */
  readonly start: number;
  /** Of each number. */
  readonly type: NumberType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** Whether the first axis is the contiguous one, instead of the last. */
  readonly isFortranOrder: boolean;
  /** The dimensions. */
  readonly shape: readonly number[];
}
