/**
 * Rows into batches: in their order, or in the seeded order in which training sees them.
 *
 * The order depends on the seed and the options alone. Within an epoch every row comes once. Rows lie in blocks of
 * neighbours; an epoch draws an order of the blocks, reads as many of them as `buffer_rows` allows, and shuffles the rows
 * it holds. With a buffer of all rows that is a full shuffle. With less, rows that are far apart in a file larger than
 * memory still meet, but only those of one buffer mix freely.
 *
 * @module
 */

import { RandomStream, STREAMS } from "../kernels/random.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { readRows, type Rows, type RowSource } from "../nn/rows.ts";

/** A batch of a loader: in memory, and with the number of each row in its source, so that `read(i, i + 1)` is row i. */
export interface LoadedRows extends Rows {
  /** [B, d_model], row-major. */
  readonly x: Float32Array;
  /** [B], the number of each row in the source that the loader was given. */
  readonly index: Float64Array;
}

/** How {@link shuffledBatches} goes through a source. */
export interface ShuffleOptions {
  /** Rows in a batch. */
  readonly batch_size: number;
  /** The batch at which the order ends, over as many epochs as it takes; without it they never end. */
  readonly n_steps?: number;
  /** The batch of the order to begin with, as if those before it had been taken; 0 if left out. */
  readonly firstStep?: number;
  /** Of the order; 0 if left out. */
  readonly seed?: number;
  /** Rows held in memory at a time, at least one block; 256 MiB of them if left out or `null`. */
  readonly buffer_rows?: number | null;
}

/** Neighbouring rows that are read together: a buffer holds so many of each place in the source. */
export const SHUFFLED_TOGETHER = 1024;

const DEFAULT_BUFFER_BYTES = 2 ** 28;

/** Rows that are held and shuffled at a time, where nobody says how many. */
export function defaultBufferRows(d_model: number): number {
  return Math.max(1, Math.floor(DEFAULT_BUFFER_BYTES / (4 * d_model)));
}

/**
 * All rows in their order, `batch_size` at a time; the last batch holds what is left.
 *
 * @throws {RangeError} if `batch_size` is not a positive integer.
 */
export async function* batchesInOrder(source: RowSource, batch_size: number): AsyncGenerator<LoadedRows> {
  positiveInteger("batch_size", batch_size);
  for (let from = 0; from < source.n_rows; from += batch_size) {
    const to = Math.min(from + batch_size, source.n_rows);
    const x = await readRows(source, from, to);
    yield loaded(source, x, Float64Array.from({ length: to - from }, (_, row) => from + row));
  }
}

/**
 * Batches of `batch_size` rows in a seeded order, one epoch after the other. A batch that an epoch leaves unfinished is
 * filled up by the next, so that every batch is full and no row is left out.
 *
 * @throws {TypeError} for an option that there is not.
 * @throws {RangeError} if the source has no rows, an option is not a positive integer, or a batch or the buffer is larger
 * than the platform's memory.
 */
export async function* shuffledBatches(source: RowSource, options: ShuffleOptions): AsyncGenerator<LoadedRows> {
  checkOptions("shuffledBatches", options, {
    batch_size: true,
    n_steps: true,
    firstStep: true,
    seed: true,
    buffer_rows: true,
  });
  const { batch_size, n_steps = Infinity, firstStep = 0, seed = 0 } = options;
  const { n_rows, d_model } = source;
  const bufferRows = options.buffer_rows ?? defaultBufferRows(d_model);
  positiveInteger("batch_size", batch_size);
  positiveInteger("buffer_rows", bufferRows);
  if (!(Number.isSafeInteger(firstStep) && firstStep >= 0)) {
    throw new RangeError(`firstStep must be an integer of at least 0, found ${firstStep}`);
  }
  if (n_rows === 0) throw new RangeError("there are no rows to make batches of");
  let batch = roomFor(batch_size, d_model, "batch_size");
  let filled = 0;
  let step = firstStep;
  const firstEpoch = Math.floor(firstStep * batch_size / n_rows);
  for (let epoch = firstEpoch; step < n_steps; epoch++) {
    const random = new RandomStream(seed, STREAMS.shuffle, epoch);
    const taken = epoch === firstEpoch ? firstStep * batch_size % n_rows : 0;
    for await (const buffer of shuffledBuffers(source, bufferRows, { random, taken })) {
      for (let at = 0; at < buffer.index.length && step < n_steps;) {
        const index = buffer.index.subarray(at, at + batch_size - filled);
        batch.index.set(index, filled);
        batch.x.set(buffer.x.subarray(at * d_model, (at + index.length) * d_model), filled * d_model);
        at += index.length;
        filled += index.length;
        if (filled === batch_size) {
          yield loaded(source, batch.x, batch.index);
          step++;
          batch = roomFor(batch_size, d_model, "batch_size");
          filled = 0;
        }
      }
      if (step >= n_steps) return;
    }
  }
}

/** One epoch: all rows but the first `taken` of its order, a buffer of them at a time. */
async function* shuffledBuffers(
  source: RowSource,
  bufferRows: number,
  { random, taken }: { readonly random: RandomStream; readonly taken: number },
): AsyncGenerator<RowBuffer> {
  const { n_rows, d_model } = source;
  const blocks = shuffle(Uint32Array.from({ length: Math.ceil(n_rows / SHUFFLED_TOGETHER) }, (_, i) => i), random);
  const perBuffer = Math.max(1, Math.floor(bufferRows / SHUFFLED_TOGETHER));
  let passed = 0;
  for (let first = 0; first < blocks.length; first += perBuffer) {
    const spans = Array.from(
      blocks.subarray(first, first + perBuffer),
      (block) => ({ from: block * SHUFFLED_TOGETHER, to: Math.min((block + 1) * SHUFFLED_TOGETHER, n_rows) }),
    );
    const held = spans.reduce((sum, { from, to }) => sum + to - from, 0);
    const order = shuffle(Uint32Array.from({ length: held }, (_, i) => i), random);
    const skipped = Math.min(Math.max(taken - passed, 0), held);
    passed += held;
    if (skipped === held) continue;
    const parts: { readonly from: number; readonly x: Float32Array }[] = [];
    for (const { from, to } of spans) parts.push({ from, x: await readRows(source, from, to) });
    const buffer = roomFor(held, d_model, "buffer_rows");
    let row = 0;
    for (const { from, x } of parts) {
      for (let at = 0; at < x.length; at += d_model) {
        const place = order[row++]!;
        buffer.x.set(x.subarray(at, at + d_model), place * d_model);
        buffer.index[place] = from + at / d_model;
      }
    }
    yield { x: buffer.x.subarray(skipped * d_model), index: buffer.index.subarray(skipped) };
  }
}

/** Rows and their numbers in the source. */
type RowBuffer = Pick<LoadedRows, "x" | "index">;

/** @throws {RangeError} if the platform has no room for so many, naming what asks for them. */
function roomFor(n_rows: number, d_model: number, name: "batch_size" | "buffer_rows"): RowBuffer {
  try {
    return { x: new Float32Array(n_rows * d_model), index: new Float64Array(n_rows) };
  } catch (cause) {
    throw new RangeError(
      `${name}: ${n_rows} rows of d_model ${d_model} take ${
        4 * n_rows * d_model
      } bytes, more than this platform gives ` +
        `to one array; choose a smaller ${name}`,
      { cause },
    );
  }
}

/** With the labels that the source has for these rows. */
function loaded({ d_model, labels }: RowSource, x: Float32Array, index: Float64Array): LoadedRows {
  return { x, d_model, index, ...labels && { labels: Int32Array.from(index, (row) => labels[row]!) } };
}

function positiveInteger(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value > 0) return;
  throw new RangeError(`${name} must be an integer of at least 1, found ${value}`);
}

/** Fisher and Yates's shuffle, in place. */
function shuffle(values: Uint32Array, random: RandomStream): Uint32Array {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const value = values[i]!;
    values[i] = values[j]!;
    values[j] = value;
  }
  return values;
}
