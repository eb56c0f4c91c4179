/**
 * `metrics.jsonl`: one line of JSON per step, written during training. It has the step, counted from 1, every number of
 * its loss, the learning rate, and the seconds of training until these numbers were known; and `validation` after a
 * step with a validation.
 *
 * @module
 */

import { lossColumns, type TrainLoss } from "../objectives/loss_record.ts";
import type { RunDirectory } from "./run_directory.ts";

/** The file's name. */
export const METRICS_LOG = "metrics.jsonl";

/** Input of {@link MetricsLog.open}. */
export interface MetricsLogOptions {
  /** Losses of the steps before. */
  readonly losses: readonly TrainLoss[];
  /** The learning rate of step 0, 1, …. */
  readonly rate: (step: number) => number;
  /** How many of these steps were timed, and their time together, if the log does not hold it. */
  readonly timed?: Timed;
}

/** A validation after a step. */
export interface Validation {
  /** The step, counted from 1. */
  readonly step: number;
  /** Number of rows. */
  readonly n_rows: number;
  /** The unexplained share of the variance; `null` if all rows are equal. */
  readonly nmse: number | null;
  /** Active latents per row, on average. */
  readonly l0: number;
  /** The share of latents that are active on none of these rows. */
  readonly dead_fraction: number;
}

/** How long training took. */
export interface Timed {
  /** Number of steps timed. */
  readonly steps: number;
  /** Their time together, in seconds. */
  readonly seconds: number;
}

/** A run's log, open for more lines. */
export class MetricsLog {
  readonly #directory: RunDirectory;
  /** The learning rate of step 0, 1, …. */
  readonly rate: (step: number) => number;
  #step = 0;
  #timed: Timed;
  #validations: Validation[] = [];

  private constructor(directory: RunDirectory, rate: (step: number) => number, timed: Timed) {
    this.#directory = directory;
    this.rate = rate;
    this.#timed = timed;
  }

  /**
   * Starts the log of a run, or continues it: lines after the resumed step, and broken lines, are removed. Missing
   * lines are rewritten with `null` for their seconds.
   */
  static async open(
    directory: RunDirectory,
    { losses, rate, timed = { steps: 0, seconds: 0 } }: MetricsLogOptions,
  ): Promise<MetricsLog> {
    const kept = await keptLines(directory.lines(METRICS_LOG), losses.length);
    await directory.truncate(METRICS_LOG, kept.bytes);
    const log = new MetricsLog(directory, rate, kept.timed.steps > 0 ? kept.timed : timed);
    log.#step = kept.steps;
    log.#validations = kept.validations;
    await log.#write(losses.slice(kept.steps), null);
    return log;
  }

  /** The number of steps timed, and their time. */
  get timed(): Timed {
    return this.#timed;
  }

  /** All validations so far, including those before a resume. */
  get validations(): readonly Validation[] {
    return this.#validations;
  }

  /** Appends the next steps, their time in seconds, and a validation if there was one. */
  async append(losses: readonly TrainLoss[], seconds: number, validation?: Validation): Promise<void> {
    if (losses.length === 0) return;
    if (validation) this.#validations.push(validation);
    // Rounded as in the file, so that a resumed run continues from the same number.
    const total = Math.round(1000 * (this.#timed.seconds + seconds)) / 1000;
    this.#timed = { steps: this.#timed.steps + losses.length, seconds: total };
    await this.#write(losses, this.#timed.seconds, validation);
  }

  async #write(losses: readonly TrainLoss[], seconds: number | null, validation?: Validation): Promise<void> {
    const columns = [...lossColumns(losses)];
    const { step: validated, ...measured } = validation ?? {};
    const lines = losses.map((_, i) =>
      JSON.stringify({
        step: this.#step + i + 1,
        ...Object.fromEntries(columns.map(([name, column]) => [name, column[i]])),
        lr: this.rate(this.#step + i),
        seconds,
        ...validated === this.#step + i + 1 && { validation: measured },
      }) + "\n"
    );
    this.#step += losses.length;
    await this.#directory.append(METRICS_LOG, lines.join(""));
  }
}

/** The complete lines of the first steps. */
async function keptLines(
  lines: AsyncIterable<string>,
  most: number,
): Promise<KeptLines> {
  let [steps, bytes, timed] = [0, 0, { steps: 0, seconds: 0 }];
  const validations: Validation[] = [];
  // A line counts only if another (possibly empty) line follows it: then it is complete.
  let whole: string | undefined;
  for await (const next of lines) {
    if (whole !== undefined) {
      const line = lineOf(whole);
      if (steps === most || line?.step !== steps + 1) break;
      steps++;
      // Every character of a line is ASCII.
      bytes += whole.length + 1;
      if (line.seconds !== null) timed = { steps: timed.steps + 1, seconds: line.seconds };
      if (line.validation) validations.push({ step: steps, ...line.validation });
    }
    whole = next;
  }
  return { steps, bytes, timed, validations };
}

/** The part of a log that is kept. */
interface KeptLines {
  readonly steps: number;
  readonly bytes: number;
  readonly timed: Timed;
  readonly validations: Validation[];
}

/** The fields of a line that are read again. */
interface LogLine {
  readonly step: number;
  readonly seconds: number | null;
  readonly validation?: Omit<Validation, "step">;
}

/** `undefined` for text that is not a line of a log. */
function lineOf(text: string): LogLine | undefined {
  try {
    const { step, seconds, validation } = JSON.parse(text);
    return typeof step === "number" && (seconds === null || typeof seconds === "number")
      ? { step, seconds, ...typeof validation?.l0 === "number" && { validation } }
      : undefined;
  } catch {
    return undefined;
  }
}
