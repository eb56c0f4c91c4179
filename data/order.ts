/**
 * Batches of rows, in file order or in the seeded order of training.
 *
 * The order depends only on the seed and the options. Within an epoch every row occurs once. Rows lie in blocks of
 * neighbours; an epoch draws an order of the blocks, reads as many of them as `buffer_rows` allows, and shuffles the
 * rows it holds. With a buffer of all rows that is a full shuffle. With a smaller one, rows that are far apart in a
 * large file still meet, but only the rows of one buffer mix freely.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";
import { RandomStream, STREAMS } from "../kernels/random.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { readRows, type Rows, type RowSource } from "../nn/rows.ts";

/** A batch from a loader: in memory, with the number of each row in its source, so that `read(i, i + 1)` is row i. */
export interface LoadedRows extends Rows {
  /** [B, d_model], row-major. */
  readonly x: Float32Array;
  /** [B], the number of each row in the source given to the loader. */
  readonly index: Float64Array;
}

/** Options of {@link shuffledBatches}. */
export interface ShuffleOptions {
  /** Rows per batch. */
  readonly batch_size: number;
  /** The number of batches, over as many epochs as needed; endless if left out. */
  readonly n_steps?: number;
  /** The batch to start with, as if the earlier ones had been taken; 0 if left out. */
  readonly firstStep?: number;
  /** Seed of the order; 0 if left out. */
  readonly seed?: number;
  /**
   * Rows shuffled together, at least one block; 256 MiB of rows if left out or `null`. As many more are read meanwhile.
   */
  readonly buffer_rows?: number | null;
}

/** Neighbouring rows that are read together: a buffer holds this many from each place in the source. */
export const SHUFFLED_TOGETHER = 1024;

const DEFAULT_BUFFER_BYTES = 2 ** 28;

/** The default number of rows that are held and shuffled together. */
export function defaultBufferRows(d_model: number): number {
  return Math.max(1, Math.floor(DEFAULT_BUFFER_BYTES / (4 * d_model)));
}

/**
 * All rows in order, `batch_size` at a time; the last batch may be smaller.
 *
 * @throws {RangeError} if `batch_size` is not a positive integer.
 */
export async function* batchesInOrder(source: RowSource, batch_size: number): AsyncGenerator<LoadedRows> {
  positiveInteger("batch_size", batch_size);
  for (let from = 0; from < source.n_rows; from += batch_size) {
    const to = Math.min(from + batch_size, source.n_rows);
    const x = await readRows(source, from, to);
    yield loaded(source, { x, index: Float64Array.from({ length: to - from }, (_, row) => from + row) });
  }
}

/**
 * Batches of `batch_size` rows in a seeded order, one epoch after the other. A batch that an epoch leaves unfinished is
 * filled from the next epoch, so that every batch is full and no row is skipped.
 *
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} if the source has no rows, an option is not a positive integer, or a batch exceeds the
 * platform's memory.
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
    throw new RangeError(`firstStep must be an integer of at least 0, found ${shown(firstStep)}`);
  }
  if (n_rows === 0) throw new RangeError("there are no rows to make batches of");
  const plans = bufferPlans(n_rows, {
    bufferRows,
    seed,
    from: firstStep * batch_size,
    n_left: (n_steps - firstStep) * batch_size,
  });
  let batch = roomFor(batch_size, d_model);
  let filled = 0;
  for await (const { blocks, plan: { sources, skipped, taken } } of readAhead(source, plans)) {
    let place = skipped;
    /** The next batch, if the buffer holds enough rows. */
    const fill = (): RowBuffer | null => {
      for (; place < taken && filled < batch_size; place++) {
        copyRow(blocks, sources[place]!, { batch, at: filled++, d_model });
      }
      if (filled < batch_size) return null;
      const full = batch;
      batch = roomFor(batch_size, d_model);
      filled = 0;
      return full;
    };
    for (let full = fill(); full !== null;) {
      // Fill the next batch while the caller awaits something else.
      let ahead: RowBuffer | null | undefined;
      const timer = setTimeout(() => ahead = fill());
      try {
        yield loaded(source, full);
      } finally {
        clearTimeout(timer);
      }
      full = ahead === undefined ? fill() : ahead;
    }
  }
}

/** What to read for one buffer, and where each row goes. */
interface BufferPlan {
  /** Blocks of neighbours, in the order of the epoch. */
  readonly spans: readonly { readonly from: number; readonly to: number }[];
  /** For each place in the shuffled buffer, the row of the blocks that goes there. */
  readonly sources: Uint32Array;
  /** Places at the start that were taken before. */
  readonly skipped: number;
  /** Places to take in all; the last buffer may not be used to its end. */
  readonly taken: number;
}

/** The buffers of successive epochs, from row `from` of the order on, for `n_left` rows. */
function* bufferPlans(
  n_rows: number,
  { bufferRows, seed, from, n_left }: Readonly<Record<"bufferRows" | "seed" | "from" | "n_left", number>>,
): Generator<BufferPlan> {
  const perBuffer = Math.max(1, Math.floor(bufferRows / SHUFFLED_TOGETHER));
  const firstEpoch = Math.floor(from / n_rows);
  let passed = firstEpoch * n_rows;
  for (let epoch = firstEpoch; passed < from + n_left; epoch++) {
    const random = new RandomStream(seed, STREAMS.shuffle, epoch);
    const blocks = shuffle(Uint32Array.from({ length: Math.ceil(n_rows / SHUFFLED_TOGETHER) }, (_, i) => i), random);
    for (let first = 0; first < blocks.length && passed < from + n_left; first += perBuffer) {
      const spans = Array.from(
        blocks.subarray(first, first + perBuffer),
        (block) => ({ from: block * SHUFFLED_TOGETHER, to: Math.min((block + 1) * SHUFFLED_TOGETHER, n_rows) }),
      );
      const held = spans.reduce((sum, { from, to }) => sum + to - from, 0);
      const order = shuffle(Uint32Array.from({ length: held }, (_, i) => i), random);
      const skipped = Math.min(Math.max(from - passed, 0), held);
      const taken = Math.min(held, from + n_left - passed);
      passed += held;
      if (skipped < taken) yield { spans, sources: inverse(order), skipped, taken };
    }
  }
}

/** Rows of one block, as read. */
interface ReadBlock {
  /** The first row, counted across the blocks of the buffer. */
  readonly start: number;
  readonly n_rows: number;
  /** The first row, counted in the source. */
  readonly from: number;
  readonly x: Float32Array;
}

/** The rows of each buffer. The next buffer is read while the current one is taken. */
async function* readAhead(
  source: RowSource,
  plans: Iterator<BufferPlan>,
): AsyncGenerator<{ readonly plan: BufferPlan; readonly blocks: readonly ReadBlock[] }> {
  const begin = () => {
    const { value: plan } = plans.next();
    if (!plan) return null;
    const blocks = readBlocks(source, plan);
    // The failure is reported when its rows are needed.
    blocks.catch(() => {});
    return { plan, blocks };
  };
  for (let coming = begin(); coming;) {
    const { plan } = coming;
    const blocks = await coming.blocks;
    coming = begin();
    yield { plan, blocks };
  }
}

/** Largest number of concurrent reads. */
const MAX_READS = 4;

async function readBlocks(source: RowSource, { spans }: BufferPlan): Promise<ReadBlock[]> {
  const blocks: ReadBlock[] = [];
  let start = 0;
  for (let at = 0; at < spans.length; at += MAX_READS) {
    const some = spans.slice(at, at + MAX_READS);
    const read = await Promise.all(some.map(({ from, to }) => readRows(source, from, to)));
    for (const [i, { from, to }] of some.entries()) {
      blocks.push({ start, n_rows: to - from, from, x: read[i]! });
      start += to - from;
    }
  }
  return blocks;
}

/** Copies a row, counted across all blocks, into its place in a batch. */
function copyRow(
  blocks: readonly ReadBlock[],
  row: number,
  { batch, at, d_model }: { readonly batch: RowBuffer; readonly at: number; readonly d_model: number },
): void {
  // The last block of the source may be shorter; then later blocks begin before their multiple.
  let block = blocks[Math.floor(row / SHUFFLED_TOGETHER)]!;
  if (row - block.start >= block.n_rows) block = blocks[Math.floor(row / SHUFFLED_TOGETHER) + 1]!;
  const offset = row - block.start;
  batch.x.set(block.x.subarray(offset * d_model, (offset + 1) * d_model), at * d_model);
  batch.index[at] = block.from + offset;
}

/** Rows and their numbers in the source. */
type RowBuffer = Pick<LoadedRows, "x" | "index">;

/** @throws {RangeError} if the platform has no room for so many. */
function roomFor(n_rows: number, d_model: number): RowBuffer {
  try {
    return { x: new Float32Array(n_rows * d_model), index: new Float64Array(n_rows) };
  } catch (cause) {
    throw new RangeError(
      `batch_size: ${n_rows} rows of d_model ${d_model} take ${
        4 * n_rows * d_model
      } bytes, more than this platform allows ` +
        `for one array; choose a smaller batch_size`,
      { cause },
    );
  }
}

/** The batch, with the labels of its rows if the source has them. */
function loaded({ d_model, labels }: RowSource, { x, index }: RowBuffer): LoadedRows {
  return { x, d_model, index, ...labels && { labels: Int32Array.from(index, (row) => labels[row]!) } };
}

function positiveInteger(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value > 0) return;
  throw new RangeError(`${name} must be an integer of at least 1, found ${shown(value)}`);
}

/** The inverse of a permutation. */
function inverse(permutation: Uint32Array): Uint32Array {
  const undone = new Uint32Array(permutation.length);
  for (const [i, place] of permutation.entries()) undone[place] = i;
  return undone;
}

/** Fisher–Yates shuffle, in place. */
function shuffle(values: Uint32Array, random: RandomStream): Uint32Array {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const value = values[i]!;
    values[i] = values[j]!;
    values[j] = value;
  }
  return values;
}
