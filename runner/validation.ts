/**
 * Validation during training: a sample of the held-out rows, the same each time.
 *
 * @module
 */

import { rowsOf } from "../data/rows.ts";
import type { RowSource } from "../nn/rows.ts";
import type { Metrics } from "../eval/metrics.ts";
import type { Validation } from "./metrics_log.ts";
import type { RunConfig } from "./run_config.ts";

/** Largest number of rows. */
export const VALIDATION_ROWS = 4096;

/** Rows that lie together in the file, so that few reads are needed. */
const TOGETHER = 256;

/** Validations per run if the configuration does not set their interval. */
const VALIDATIONS = 20;

/** Steps between two validations; `null` for none. Validations coincide with the reports every `log_every` steps. */
export function validationEvery(
  { log: { validation_every }, train: { log_every } }: Pick<RunConfig, "log" | "train">,
  n_steps: number,
): number | null {
  const wanted = validation_every ?? Math.ceil(n_steps / VALIDATIONS);
  return wanted === 0 ? null : Math.ceil(wanted / log_every) * log_every;
}

/**
 * At most {@link VALIDATION_ROWS} rows, in pieces spread evenly, held in memory. Rows that are not finite are skipped
 * here; the evaluation at the end reports them. `null` if there are no others.
 */
export async function validationSample(rows: RowSource): Promise<RowSource | null> {
  const { n_rows, d_model } = rows;
  const pieces = Math.ceil(Math.min(n_rows, VALIDATION_ROWS) / TOGETHER);
  const size = Math.min(TOGETHER, Math.floor(n_rows / pieces));
  const finite: Float32Array[] = [];
  for (let piece = 0; piece < pieces; piece++) {
    const from = pieces === 1 ? 0 : Math.floor(piece * (n_rows - size) / (pieces - 1));
    const x = await rows.read(from, from + size);
    for (let row = 0; row < size; row++) {
      const values = x.subarray(row * d_model, (row + 1) * d_model);
      if (values.every(Number.isFinite)) finite.push(values);
    }
  }
  if (finite.length === 0) return null;
  const together = new Float32Array(finite.length * d_model);
  finite.forEach((values, row) => together.set(values, row * d_model));
  return rowsOf(together, d_model);
}

/** The fields of a validation that the log keeps. */
export function validationOf(step: number, { n_rows, nmse, l0, dead_fraction }: Metrics): Validation {
  return { step, n_rows, nmse: Number.isFinite(nmse) ? nmse : null, l0, dead_fraction };
}
