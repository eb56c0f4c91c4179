/**
 * Summarises several runs: means, deviations, and which differences are significant.
 *
 * @module
 */

import type { WorldMetrics } from "./metrics.ts";

/** The mean of several runs, and their deviation around it; NaN for one run. */
export interface Estimate {
  /** Mean. */
  readonly mean: number;
  /** √(Σ (value − mean)² / (n − 1)). */
  readonly deviation: number;
}

/** One kind of dictionary, over its seeds. */
export interface Summary {
  /** Its name in the table. */
  readonly name: string;
  /** Each metric over the seeds. */
  readonly metrics: Readonly<Record<keyof WorldMetrics, Estimate>>;
}

/** The mean and deviation of each metric. */
export function summarise(name: string, runs: readonly WorldMetrics[]): Summary {
  const keys = Object.keys(runs[0]!) as (keyof WorldMetrics)[];
  const metrics = Object.fromEntries(keys.map((key) => [key, estimate(runs.map((run) => run[key]))]));
  return { name, metrics: metrics as Summary["metrics"] };
}

function estimate(values: readonly number[]): Estimate {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / (values.length - 1)) };
}

/** Relative deviation of L0 from its target above which a row says so. */
const L0_TOLERANCE = 0.05;

/** A dictionary's line of the table. */
export function line({ name, metrics }: Summary, l0: number): Record<string, string> {
  const cell = ({ mean, deviation }: Estimate, digits: number) =>
    Number.isNaN(deviation) ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
  const isOff = Math.abs(metrics.l0.mean / l0 - 1) > L0_TOLERANCE;
  return {
    dictionary: name,
    L0: `${cell(metrics.l0, 2)}${isOff ? `, not ${l0}` : ""}`,
    F1: cell(metrics.f1, 3),
    MCC: cell(metrics.mcc, 3),
    uniqueness: cell(metrics.uniqueness, 3),
    EV: cell(metrics.ev, 3),
    precision: cell(metrics.precision, 3),
    recall: cell(metrics.recall, 3),
    dead: cell(metrics.n_dead, 1),
  };
}

/**
 * From best to worst by a metric, with ` > ` between neighbours that differ by more than two deviations of their
 * difference, √(s² + s'²), and ` ≈ ` otherwise.
 */
export function ranking(summaries: readonly Summary[], key: keyof WorldMetrics): string {
  const sorted = summaries.toSorted((a, b) => b.metrics[key].mean - a.metrics[key].mean);
  return sorted.map(({ name, metrics }, at) => {
    const before = sorted[at - 1]?.metrics[key];
    if (!before) return name;
    const { mean, deviation } = metrics[key];
    return `${before.mean - mean > 2 * Math.hypot(before.deviation, deviation) ? " > " : " ≈ "}${name}`;
  }).join("");
}
