/**
 * Rows of shards without the rows of certain labels, such as the background.
 *
 * @module
 */

import { ShapeError } from "../../kernels/engine/errors.ts";
import { checkRange, readRows, type RowSource } from "../../nn/rows.ts";
import type { ShardRows } from "./reader.ts";

/**
 * The rows whose label is not ignored, in order. `labels` has one for each row. Splits keep examples whole; memory is 8
 * bytes per example.
 *
 * @throws {ShapeError} if the number of labels differs from the number of rows.
 * @throws {RangeError} if no rows are left.
 */
export function withoutLabels(rows: ShardRows, labels: Uint8Array, ignored: readonly number[]): RowSource {
  const { rows_per_example: perExample, d_model } = rows;
  if (labels.length !== rows.n_rows) {
    throw new ShapeError(`leaving out labels: found ${labels.length} labels for ${rows.n_rows} rows`);
  }
  const isLeft = Uint8Array.from({ length: 256 }, (_, label) => ignored.includes(label) ? 0 : 1);
  const n_examples = rows.n_rows / perExample;
  /** The number of the first row of each example, and finally the number of all rows. */
  const starts = new Float64Array(n_examples + 1);
  for (let example = 0; example < n_examples; example++) {
    let count = 0;
    for (let i = example * perExample; i < (example + 1) * perExample; i++) count += isLeft[labels[i]!]!;
    starts[example + 1] = starts[example]! + count;
  }
  const n_rows = starts[n_examples]!;
  if (n_rows === 0) throw new RangeError(`leaving out the labels ${ignored.join(", ")}: no rows are left`);

  /** The example of a row: the last one that starts at or before it and has rows. */
  function exampleOf(row: number): number {
    let [low, high] = [0, n_examples - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (starts[middle]! <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  return {
    n_rows,
    d_model,
    exampleStart: (row) => row >= n_rows ? n_rows : starts[exampleOf(row)]!,
    async read(from, to) {
      checkRange({ n_rows }, from, to);
      const x_BD = new Float32Array((to - from) * d_model);
      if (from === to) return x_BD;
      const [first, last] = [exampleOf(from), exampleOf(to - 1)];
      const whole = await readRows(rows, first * perExample, (last + 1) * perExample);
      let row = starts[first]!;
      for (let i = first * perExample; i < (last + 1) * perExample; i++) {
        if (!isLeft[labels[i]!]) continue;
        if (row >= from && row < to) {
          const at = (i - first * perExample) * d_model;
          x_BD.set(whole.subarray(at, at + d_model), (row - from) * d_model);
        }
        row++;
      }
      return x_BD;
    },
  };
}
