/**
 * The report of a run: which of its numbers are shown, and their meaning.
 *
 * @module
 */

import type { MetricsWithCoherence } from "../eval/coherence.ts";
import { undefinedMetrics } from "../eval/undefined_metrics.ts";
import type { TrainLoss } from "../objectives/loss_record.ts";
import type { Validation } from "./metrics_log.ts";
import { renderReport, type ReportCurve, type ReportTable } from "./report.ts";
import type { RunConfig } from "./run_config.ts";
import type { RunSession } from "./run_record.ts";

/** A run's configuration as written to files. */
export type WrittenConfig = Readonly<Record<string, unknown>> & Pick<RunConfig, "data" | "train" | "log">;

/** What the report shows of a run. */
export interface MeasuredRun {
  /** Steps done. */
  readonly steps: number;
  /** Seconds of training. */
  readonly seconds: number;
  /** Rows per second of training; `null` if unknown. */
  readonly examples_per_second: number | null;
  /** Whether validation or training rows were evaluated; the latter if none were held out. */
  readonly evaluated_on: "validation" | "training";
  /** Metrics of those rows and of the dictionary. */
  readonly metrics: MetricsWithCoherence;
  /** The name of the adapter. */
  readonly adapter: string;
  /** The warnings. */
  readonly warnings: readonly string[];
}

/** What was logged during the run. */
export interface RunHistory {
  /** [steps] */
  readonly losses: readonly TrainLoss[];
  /** The learning rate of step 0, 1, …. */
  readonly rate: (step: number) => number;
  /** The validations during training. */
  readonly validations: readonly Validation[];
  /** Each start and resume, as in `run.json`. */
  readonly sessions: readonly unknown[];
}

/** This many decimals, or `none` for an undefined value. */
function decimals(value: number, n: number): string {
  return Number.isFinite(value) ? value.toFixed(n) : "none";
}

/** The report of a run as an HTML document. */
export function runReport(config: WrittenConfig, result: MeasuredRun, history: RunHistory): string {
  const { losses, rate, validations, sessions } = history;
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
          `share of the variance that is not explained; explained variance ${
            metrics.explained_variance.toFixed(4)
          }; MSE ${metrics.mse.toPrecision(3)}`,
      },
      {
        label: "Cosine",
        value: decimals(metrics.cosine, 4),
        note: reasons.cosine ??
          `of x and x̂; ‖x̂‖ / ‖x‖ is ${decimals(metrics.norm_ratio, 3)}, γ is ${
            decimals(metrics.reconstruction_bias, 3)
          }`,
      },
      { label: "Active latents", value: metrics.l0.toFixed(1), note: `per row; L1 ${metrics.l1.toPrecision(3)}` },
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
          `largest |cosine| of two decoder rows; mean over nearest neighbours ${
            decimals(coherence?.mean_max ?? NaN, 3)
          }`,
      },
      {
        label: "Speed",
        value: speed === null ? "unknown" : Math.round(speed).toLocaleString("en"),
        note: `rows per second; ${steps} steps in ${seconds.toFixed(1)} s on ${adapter}`,
      },
    ],
    warnings: result.warnings,
    curves: [
      { title: "Loss", values: losses.map(({ loss }) => loss) },
      { title: "L0, active latents per row", values: losses.map(({ l0 }) => l0) },
      { title: "Dead latents", values: losses.map(({ n_dead }) => n_dead) },
      ...validationCurves(validations),
      { title: "Learning rate", values: losses.map((_, step) => rate(step)) },
      { title: "Norm of the gradient, before clipping", values: losses.map(({ grad_norm: norm }) => norm) },
    ],
    density,
    tables: [largestGradients(losses), versions(sessions)],
    configuration: config,
  });
}

function validationCurves(validations: readonly Validation[]): ReportCurve[] {
  if (validations.length === 0) return [];
  const { n_rows } = validations.at(-1)!;
  return [{
    title: `NMSE of ${n_rows.toLocaleString("en")} validation rows`,
    steps: validations.map(({ step }) => step),
    values: validations.map(({ nmse }) => nmse ?? NaN),
  }];
}

/** Rows in the table of the largest gradients. */
const LARGEST = 8;

function largestGradients(losses: readonly TrainLoss[]): ReportTable {
  const steps = losses.map((_, step) => step)
    .sort((a, b) => losses[b]!.grad_norm - losses[a]!.grad_norm || a - b).slice(0, LARGEST);
  // Parameters that this activation does not train are zero at every step.
  const names = Object.keys(losses[0]?.grad_norms ?? {}) as (keyof TrainLoss["grad_norms"])[];
  const trained = names.filter((name) => steps.some((step) => losses[step]!.grad_norms[name] !== 0));
  return {
    title: "Largest gradients",
    caption: "The steps with the largest gradient norm before clipping, and the gradient norm of each parameter.",
    columns: ["step", "loss", "norm", ...trained],
    rows: steps.map((step) => {
      const { loss, grad_norm, grad_norms } = losses[step]!;
      return [step + 1, loss, grad_norm, ...trained.map((name) => grad_norms[name] ?? null)];
    }),
  };
}

function versions(sessions: readonly unknown[]): ReportTable {
  return {
    title: "Versions",
    caption: "Versions, adapter and rows of the run: one line for each start or resume, as in run.json.",
    columns: ["date", "from step", "@saev/nn", "Deno", "adapter", "driver", "rows", "SHA-256 of the rows"],
    rows: (sessions as readonly Partial<RunSession>[]).map((session) => [
      session.date?.replace(/\.\d+Z$/, "Z") ?? null,
      session.step ?? null,
      session.package ?? null,
      session.deno ?? null,
      session.adapter?.description || session.adapter?.device || null,
      Object.entries(session.driver ?? {}).map(([name, value]) => `${name} ${value}`).join(", ") || null,
      session.data?.n_rows ?? null,
      session.data?.sha256?.slice(0, 12) ?? null,
    ]),
  };
}
