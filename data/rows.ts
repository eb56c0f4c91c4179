/**
 * The simplest sources of rows: rows in memory, a range of another source, and several sources joined.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { checkRange, readRows, type RowSource } from "../nn/rows.ts";

/**
 * Rows in memory, with the class of each row if `labels` is given.
 *
 * @throws {ShapeError} if the length is not a multiple of `d_model`, or the number of labels differs from the number of
 * rows.
 * @throws {TypeError} for an unknown option.
 */
export function rowsOf(
  data: Float32Array,
  d_model: number,
  options: { readonly labels?: Int32Array } = {},
): RowSource {
  checkOptions("rowsOf", options, { labels: true });
  const { labels } = options;
  if (!(Number.isSafeInteger(d_model) && d_model > 0 && data.length % d_model === 0)) {
    throw new ShapeError(
      `making rows of ${d_model} numbers: found ${data.length} numbers; expected a multiple of ${d_model}`,
    );
  }
  const n_rows = data.length / d_model;
  if (labels && labels.length !== n_rows) {
    throw new ShapeError(`${n_rows} rows need one label each, found ${labels.length} labels`);
  }
  return {
    n_rows,
    d_model,
    ...labels && { labels },
    read: async (from, to) => {
      checkRange({ n_rows }, from, to);
      return await Promise.resolve(data.subarray(from * d_model, to * d_model));
    },
  };
}

/**
 * Rows `from` to `to` (exclusive) of a source, as a source whose first row has number 0.
 *
 * @example
 * ```ts
 * import { batchesInOrder, rowRange, rowsOf, shuffledBatches } from "@saev/nn/data";
 *
 * const rows = rowsOf(Float32Array.from({ length: 100 * 8 }, (_, i) => Math.sin(i * i)), 8); // or await openRows(path)
 * const [training, heldOut] = [rowRange(rows, 0, 90), rowRange(rows, 90, rows.n_rows)];
 * for await (const { x, index } of shuffledBatches(training, { batch_size: 32, n_steps: 4, seed: 1 })) {
 *   console.log(x.length, index[0]); // 32 rows of 8, and the number of the first
 * }
 * for await (const { x } of batchesInOrder(heldOut, 32)) console.log(x.length / 8); // 10
 * ```
 *
 * @throws {RangeError} unless 0 ≤ from ≤ to ≤ n_rows.
 */
export function rowRange(source: RowSource, from: number, to: number): RowSource {
  checkRange(source, from, to);
  const { d_model, labels } = source;
  const n_rows = to - from;
  return {
    n_rows,
    d_model,
    ...labels && { labels: labels.subarray(from, to) },
    read: async (first, end) => {
      checkRange({ n_rows }, first, end);
      return await source.read(from + first, from + end);
    },
  };
}

/** The same rows, of which none are read after the signal is aborted. */
export function untilAborted(source: RowSource, signal: AbortSignal | undefined): RowSource {
  const { n_rows, d_model } = source;
  const read = (from: number, to: number): Promise<Float32Array> => {
    signal?.throwIfAborted();
    return source.read(from, to);
  };
  return { n_rows, d_model, read };
}

/**
 * The rows of several sources, one source after the other.
 *
 * @throws {ShapeError} if there is no source, or their rows differ in width.
 */
export function concatRows(sources: readonly RowSource[]): RowSource {
  const [first] = sources;
  if (!first) throw new ShapeError("joining rows: found no source; expected one or more");
  const { d_model } = first;
  const other = sources.findIndex((source) => source.d_model !== d_model);
  if (other >= 0) {
    throw new ShapeError(
      `joining rows: source 0 has rows of ${d_model} numbers, source ${other} of ${sources[other]!.d_model}`,
    );
  }
  const starts = [0];
  for (const { n_rows } of sources) starts.push(starts.at(-1)! + n_rows);
  const n_rows = starts.at(-1)!;
  const sourceOf = (row: number): number => starts.findLastIndex((start) => start <= row);
  return {
    n_rows,
    d_model,
    exampleStart: (row) => {
      const i = Math.min(sourceOf(row), sources.length - 1);
      return starts[i]! + (sources[i]!.exampleStart?.(row - starts[i]!) ?? row - starts[i]!);
    },
    async read(from, to) {
      checkRange({ n_rows }, from, to);
      const x_BD = new Float32Array((to - from) * d_model);
      for (const [i, source] of sources.entries()) {
        const [start, end] = [Math.max(from, starts[i]!), Math.min(to, starts[i + 1]!)];
        if (start >= end) continue;
        x_BD.set(await readRows(source, start - starts[i]!, end - starts[i]!), (start - from) * d_model);
      }
      return x_BD;
    },
  };
}
