/**
 * The training of a demo: an ordinary run, in a folder of its own, that can be resumed. What it was trained and evaluated
 * on, and what the report shows, is the demo's.
 *
 * @module
 */

import type { RowSource } from "../../data/mod.ts";
import { completeRunConfig, ProgressLine, type RunDirectory, type RunResult, runTraining } from "../../runner/mod.ts";

/** How a demo reports progress and is stopped. */
export interface DemoSurroundings {
  /** Receives one line at a time. */
  readonly say: (line: string) => void;
  /** Ends training early, with a checkpoint, or what follows it. */
  readonly signal?: AbortSignal;
}

/** The options that all demos have. */
export interface DemoTraining {
  /** The folder of the run. */
  readonly out: string;
  /** Training steps. */
  readonly steps: number;
  /** Seed of the initial values and of the order of the rows. */
  readonly seed: number;
  /** Number of latents. */
  readonly d_sae: number;
  /** Active latents per row. */
  readonly top_k: number;
  /** Rows per step. */
  readonly batch_size: number;
  /** Peak learning rate. */
  readonly lr: number;
  /** Whether a run that was stopped in the folder continues; without it, an older demo there is replaced. */
  readonly resumes?: boolean;
}

/** The rows of a demo: the last ones are held out. */
export interface DemoRows {
  /** All of them. */
  readonly source: RowSource;
  /** How many are held out. */
  readonly n_held_out: number;
}

/** A finished run. */
export interface FinishedRun extends RunResult {
  /** The rows' metrics; a finished run has them. */
  readonly metrics: NonNullable<RunResult["metrics"]>;
  /** What its `metrics.json` holds. */
  readonly written: {
    /** The configuration, complete. */
    readonly config: Readonly<Record<string, unknown>>;
    /** The name of the adapter. */
    readonly adapter: string;
    /** A column for each number of a step. */
    readonly losses: Readonly<Record<"loss" | "l0", readonly number[]>>;
  };
}

/**
 * Trains as a configuration says, and evaluates on the rows that are held out; `null` if the signal ended it.
 *
 * @throws {unknown} as `runTraining`.
 */
export async function trainDemo(
  directory: RunDirectory,
  config: Readonly<Record<string, unknown>>,
  { source, n_held_out }: DemoRows,
  { say, signal }: DemoSurroundings,
): Promise<FinishedRun | null> {
  const cfg = completeRunConfig(config);
  // Of few rows more may be held out than a configuration file allows.
  const data = { ...cfg.data, validation_share: n_held_out / source.n_rows };
  let progress: ProgressLine | undefined;
  const endLine = () => progress?.[Symbol.dispose]();
  const result = await runTraining({ ...cfg, data }, source, {
    directory,
    ...signal && { signal },
    onStart({ n_steps, firstStep, batch_size, n_rows, adapter }) {
      const from = firstStep === 0 ? "" : `, from step ${firstStep} on`;
      say(
        `training ${cfg.sae.d_sae} latents on ${n_rows.toLocaleString("en")} patches for ${n_steps} steps of ` +
          `${batch_size} on ${adapter}${from}`,
      );
      progress = new ProgressLine({ n_steps, firstStep, batch_size });
    },
    onProgress: (state) => progress?.show(state),
    onWarning(warning) {
      endLine();
      say(`warning: ${warning}`);
    },
  }).finally(endLine);
  const { metrics, steps, isInterrupted } = result;
  if (metrics === null || isInterrupted) {
    say(`stopped after ${steps} steps; the same command with --resume continues`);
    return null;
  }
  return { ...result, metrics, written: JSON.parse(await directory.readText("metrics.json")) };
}

/** Adds what a demo has measured itself to the run's `metrics.json`. */
export async function addMeasured(directory: RunDirectory, run: FinishedRun, demo: object): Promise<void> {
  await directory.writeJson("metrics.json", { ...run.written, demo });
}
