/**
 * The report of a run: which of its numbers are shown, and what each means.
 *
 * @module
 */

import type { MetricsWithCoherence } from "../eval/coherence.ts";
import { undefinedMetrics } from "../eval/undefined_metrics.ts";
import type { TrainLoss } from "../objectives/loss_record.ts";
import { renderReport } from "./report.ts";
import type { RunConfig } from "./run_config.ts";

/** A run's configuration as files have it. */
export type WrittenConfig = Readonly<Record<string, unknown>> & Pick<RunConfig, "data" | "train">;

/** What the report shows of a run. */
export interface MeasuredRun {
  /** Steps made. */
  readonly steps: number;
  /** Seconds of training. */
  readonly seconds: number;
  /** Rows a second while training; `null` where that is not known. */
  readonly examples_per_second: number | null;
  /** The rows kept back, or those of training if none were. */
  readonly evaluated_on: "validation" | "training";
  /** On those rows, and of the dictionary. */
  readonly metrics: MetricsWithCoherence;
  /** Who computed. */
  readonly adapter: string;
}

/** So many decimals, or `none` for what is not defined. */
function decimals(value: number, n: number): string {
  return Number.isFinite(value) ? value.toFixed(n) : "none";
}

/** The report of a run as an HTML document. */
export function runReport(config: WrittenConfig, result: MeasuredRun, losses: readonly TrainLoss[]): string {
  const { metrics, steps, seconds, adapter, examples_per_second: speed } = result;
  const { n_rows, density, n_dead, n_dense, dense_above, coherence } = metrics;
  const reasons = undefinedMetrics(metrics);
  return renderReport({
    title: `A sparse autoencoder of ${density.length.toLocaleString("en")} latents`,
    summary:
      `Trained on ${config.data.path} for ${steps.toLocaleString("en")} steps of ${config.train.batch_size} rows; ` +
      `measured on ${n_rows.toLocaleString("en")} rows of ${result.evaluated_on}.`,
    numbers: [
      {
        label: "NMSE",
        value: decimals(metrics.nmse, 4),
        note: reasons.nmse ??
          `the unexplained share of the variance; explained ${metrics.explained_variance.toFixed(4)}; MSE ${
            metrics.mse.toPrecision(3)
          }`,
      },
      {
        label: "Cosine",
        value: decimals(metrics.cosine, 4),
        note: reasons.cosine ??
          `of x and x̂; ‖x̂‖ / ‖x‖ is ${decimals(metrics.norm_ratio, 3)}, γ is ${
            decimals(metrics.reconstruction_bias, 3)
          }`,
      },
      { label: "Active latents", value: metrics.l0.toFixed(1), note: `a row; L1 ${metrics.l1.toPrecision(3)}` },
      {
        label: "Dead latents",
        value: `${(100 * metrics.dead_fraction).toFixed(1)} %`,
        note: `${n_dead}, active on none of these rows`,
      },
      {
        label: "Dense latents",
        value: `${(100 * n_dense / density.length).toFixed(1)} %`,
        note: `${n_dense}, active on more than ${100 * dense_above} % of these rows`,
      },
      {
        label: "Coherence",
        value: decimals(coherence?.max ?? NaN, 3),
        note: reasons.coherence ??
          `the largest |cosine| of two decoder rows; of each with its nearest ${
            decimals(coherence?.mean_max ?? NaN, 3)
          }`,
      },
      {
        label: "Speed",
        value: speed === null ? "unknown" : Math.round(speed).toLocaleString("en"),
        note: `rows a second; ${steps} steps in ${seconds.toFixed(1)} s on ${adapter}`,
      },
    ],
    curves: [
      { title: "Loss", values: losses.map(({ loss }) => loss) },
      { title: "L0, active latents a row", values: losses.map(({ l0 }) => l0) },
      { title: "Norm of the gradient, before clipping", values: losses.map(({ grad_norm: norm }) => norm) },
    ],
    density,
    configuration: config,
  });
}
