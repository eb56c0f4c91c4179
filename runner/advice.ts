/**
 * Warnings before the first step of a run and after its last: settings and rows that make a poor dictionary, one line
 * each, with the remedy.
 *
 * The thresholds are measured; DECISIONS.md has the numbers.
 *
 * @module
 */

import { examineRows, FAR, type RowsExamination } from "../data/examination.ts";
import { defaultBufferRows, SHUFFLED_TOGETHER } from "../data/order.ts";
import type { Metrics } from "../eval/metrics.ts";
import { readRows, type RowSource } from "../nn/rows.ts";
import type { RunConfig } from "./run_config.ts";

/** Rows to examine: this many blocks of neighbours, spread evenly. */
const BLOCKS = 16;
const BLOCK_ROWS = 256;

/** Share of zero rows above which there may be padding. */
const ZERO_SHARE = 0.01;
/** ‖mean row‖ / ‖deviations‖ above which the mean should be subtracted. */
const MAX_GAMMA = 0.5;
/** A column is an outlier above this share of the variance, and above this multiple of a fair share. */
const COLUMN_SHARE = 0.5;
const FAIR_SHARES = 10;
/** Share of the variance in far rows above which mostly those are learned. */
const FAR_SHARE = 0.05;
/**
 * Share of the variance between blocks above which neighbours are alike, and the number of blocks in a buffer that
 * suffices.
 */
const BETWEEN_SHARE = 0.1;
const ENOUGH_BLOCKS = 16;
/** Fewer steps than this form no dictionary. */
const FEW_STEPS = 100;

/** Advice about the rows, from a few thousand of them. */
export interface RowAdvice {
  /** Problems with the rows, one line each. */
  readonly warnings: readonly string[];
  /** Their variance around the mean row, Σ σ_d². */
  readonly variance: number;
}

/**
 * Finds problems with the training rows, from a few thousand of them.
 *
 * @throws {RangeError} whatever reading the rows throws.
 */
export async function adviceOnRows({ data }: Pick<RunConfig, "data">, training: RowSource): Promise<RowAdvice> {
  const { n_rows, d_model } = training;
  const blocks = Math.min(BLOCKS, Math.ceil(n_rows / BLOCK_ROWS));
  const rows = Math.min(BLOCK_ROWS, n_rows);
  const parts: Float32Array[] = [];
  for (let block = 0; block < blocks; block++) {
    const from = blocks === 1 ? 0 : Math.floor(block * (n_rows - rows) / (blocks - 1));
    parts.push(await readRows(training, from, from + rows));
  }
  const x = new Float32Array(blocks * rows * d_model);
  parts.forEach((part, i) => x.set(part, i * part.length));
  const examined = examineRows(x, d_model, { blockRows: rows });
  return { warnings: rowWarnings(data, training, examined), variance: examined.variance };
}

function rowWarnings(data: RunConfig["data"], { n_rows, d_model }: RowSource, examined: RowsExamination): string[] {
  const { n_zero, gamma, widest, farthest, far, between, n_rows: seen } = examined;
  if (n_zero === seen) {
    return [`all rows in ${data.path} are zero: there is nothing to learn; set data.path to other rows`];
  }
  if (gamma === Infinity) {
    return [`all rows in ${data.path} are equal: there is nothing to learn; set data.path to other rows`];
  }
  const warnings: string[] = [];
  if (n_zero > ZERO_SHARE * seen) {
    warnings.push(
      `${percent(n_zero / seen)} of the rows are zero; if they are padding, remove them from data.path`,
    );
  }
  const takesMean = data.standardise === "mean" || data.standardise === "mean_scale";
  if (gamma > MAX_GAMMA && !takesMean) {
    const column = farthest.share > COLUMN_SHARE ? `, mostly because of column ${farthest.column}` : "";
    warnings.push(
      `the mean row is ${significant(gamma)} times as long as the rows' deviations from it${column}; ` +
        'this kills latents; set data.standardise = "mean"',
    );
  }
  if (widest.share > COLUMN_SHARE && widest.share * d_model > FAIR_SHARES) {
    warnings.push(
      `column ${widest.column} has ${percent(widest.share)} of all variance and dominates the loss; ` +
        "remove it from data.path, or divide it by its standard deviation",
    );
  }
  if (far.share > FAR_SHARE) {
    warnings.push(
      `${percent(far.n_rows / seen)} of the rows are ${FAR} to ${
        significant(far.largest)
      } times as far from the mean as ` +
        `the median row and have ${
          percent(far.share)
        } of all variance, so that the other rows will be reconstructed badly; ` +
        "remove them from data.path, or train on them separately",
    );
  }
  const buffer = data.buffer_rows ?? defaultBufferRows(d_model);
  if (buffer < n_rows && buffer < ENOUGH_BLOCKS * SHUFFLED_TOGETHER && between > BETWEEN_SHARE) {
    warnings.push(
      `neighbouring rows are alike (${percent(between)} of all variance lies between groups of them) and only ` +
        `${count(buffer)} rows are shuffled together; set data.buffer_rows to ${
          count(ENOUGH_BLOCKS * SHUFFLED_TOGETHER)
        } or more`,
    );
  }
  return warnings;
}

/** Problems with the length of a run. */
export function lengthWarnings({ train }: Pick<RunConfig, "train">, n_steps: number): string[] {
  if (n_steps >= FEW_STEPS) return [];
  const { n_epochs, batch_size } = train;
  const remedy = n_epochs === null
    ? `raise train.n_steps (now ${n_steps})`
    : `raise train.n_epochs (now ${n_epochs}) or lower train.batch_size (now ${batch_size})`;
  return [`${n_steps} steps are too few for a dictionary to form; ${remedy}`];
}

/** Problems with the result of a run. */
export function resultWarnings(
  { data, train }: Pick<RunConfig, "data" | "train">,
  { nmse }: Pick<Metrics, "nmse">,
  given: { readonly n_steps: number; readonly on: "validation" | "training" },
): string[] {
  if (!(nmse > 1)) return [];
  const remedy = given.n_steps < FEW_STEPS
    ? "train for more steps (train.n_epochs, train.batch_size)"
    : data.standardise === "mean_scale"
    ? `lower train.lr (now ${train.lr}), or train for more steps`
    : 'set data.standardise = "mean_scale", or lower train.lr';
  return [
    `the NMSE on the ${given.on} rows is ${significant(nmse)}, which is worse than predicting the mean row (1); ` +
    remedy,
  ];
}

function percent(share: number): string {
  return `${significant(100 * share)} %`;
}

function significant(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3, useGrouping: false });
}

function count(n: number): string {
  return n.toLocaleString("en");
}
