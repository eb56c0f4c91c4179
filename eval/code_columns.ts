/**
 * Codes by latent, some latents at a time, with the class of each row: what is asked of one latent is asked of a column.
 *
 * @module
 */

import type { CsrMatrix } from "../io/scipy_csr.ts";

/** Codes of rows whose classes are known. */
export interface LabelledCodes {
  /** Rows × latents. */
  readonly codes: CsrMatrix;
  /** [rows], the class of each row, from 0. */
  readonly labels: Uint16Array;
}

/** Latents `from` to `to` (not included): latent `from + i` has the entries `starts[i]` to `starts[i + 1]`, rows ascending. */
export interface CodeColumns {
  /** The first latent. */
  readonly from: number;
  /** The latent after the last. */
  readonly to: number;
  /** [to − from + 1] */
  readonly starts: Float64Array;
  /** [entries], activations. */
  readonly values: Float32Array;
  /** [entries], the class of each entry's row. */
  readonly labels: Uint16Array;
}

/** How many latents are in memory at a time. */
export interface ColumnLimits {
  /** Entries, unless one latent alone has more. */
  readonly entries: number;
  /** Latents. */
  readonly latents: number;
}

/** All latents, some at a time. The codes are read once to count, and once for each block. */
export async function* codeColumns(
  { codes, labels }: LabelledCodes,
  limits: ColumnLimits,
): AsyncGenerator<CodeColumns> {
  const [, n_latents] = codes.shape;
  const counts = new Float64Array(n_latents);
  for await (const { indices } of codes.rows()) for (const latent of indices) counts[latent]!++;
  for (let from = 0; from < n_latents;) {
    let [to, entries] = [from, 0];
    while (to < n_latents && to - from < limits.latents && (to === from || entries + counts[to]! <= limits.entries)) {
      entries += counts[to++]!;
    }
    yield await readColumns({ codes, labels }, counts.subarray(from, to), from);
    from = to;
  }
}

async function readColumns(
  { codes, labels: classes }: LabelledCodes,
  counts: Float64Array,
  from: number,
): Promise<CodeColumns> {
  const to = from + counts.length;
  const starts = new Float64Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) starts[i + 1] = starts[i]! + counts[i]!;
  const values = new Float32Array(starts.at(-1)!);
  const labels = new Uint16Array(values.length);
  const ends = starts.slice();
  let row = 0;
  for await (const some of codes.rows()) {
    for (let i = 0; i + 1 < some.row_starts.length; i++, row++) {
      for (let entry = some.row_starts[i]!; entry < some.row_starts[i + 1]!; entry++) {
        const latent = some.indices[entry]!;
        if (latent < from || latent >= to) continue;
        const at = ends[latent - from]!++;
        values[at] = some.values[entry]!;
        labels[at] = classes[row]!;
      }
    }
  }
  return { from, to, starts, values, labels };
}
