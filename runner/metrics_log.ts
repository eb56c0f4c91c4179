/**
 * `metrics.jsonl`: one line of JSON for each step, written while a run trains. It has the step, counted from 1, every number of
 * its loss, its learning rate, and the seconds of training until these numbers were known; and `validation` after a step at
 * which rows that were kept back were measured.
 *
 * @module
 */

import { lossColumns, type TrainLoss } from "../objectives/loss_record.ts";
import type { RunDirectory } from "./run_directory.ts";

/** The file's name. */
export const METRICS_LOG = "metrics.jsonl";

/** What a log needs to begin. */
export interface MetricsLogOptions {
  /** Of the steps that were made before. */
  readonly losses: readonly TrainLoss[];
  /** The learning rate of step 0, 1, … */
  readonly rate: (step: number) => number;
  /** Of how many of these steps it is known how long they took together, where there is no line of them. */
  readonly timed?: Timed;
}

/** What rows that were kept back say of the model after a step. */
export interface Validation {
  /** The step, counted from 1. */
  readonly step: number;
  /** Rows. */
  readonly n_rows: number;
  /** The unexplained share of the variance; `null` where the rows do not vary. */
  readonly nmse: number | null;
  /** Active latents, mean over rows. */
  readonly l0: number;
  /** The share of latents that are active on none of these rows. */
  readonly dead_fraction: number;
}

/** How long training took. */
export interface Timed {
  /** How many steps were timed. */
  readonly steps: number;
  /** Seconds that these took together. */
  readonly seconds: number;
}

/** A run's log, open for more lines. */
export class MetricsLog {
  readonly #directory: RunDirectory;
  /** The learning rate of step 0, 1, … */
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
   * Begins the log of a run, or continues it: lines after the resumed step are removed, and so are broken ones. Missing
   * lines are written again, with `null` for their seconds.
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

  /** How many steps were timed, and how long they took. */
  get timed(): Timed {
    return this.#timed;
  }

  /** Those of all steps so far, also of those before it was resumed. */
  get validations(): readonly Validation[] {
    return this.#validations;
  }

  /** Adds the next steps, which took so many seconds together, and a validation after one of them. */
  async append(losses: readonly TrainLoss[], seconds: number, validation?: Validation): Promise<void> {
    if (losses.length === 0) return;
    if (validation) this.#validations.push(validation);
    // Rounded as in the file, so that a resumed run counts from the same number.
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

/** The lines of the first steps, as far as they are whole. */
async function keptLines(
  lines: AsyncIterable<string>,
  most: number,
): Promise<KeptLines> {
  let [steps, bytes, timed] = [0, 0, { steps: 0, seconds: 0 }];
  const validations: Validation[] = [];
  // A line counts once another, which may be empty, follows: then its end is there.
  let whole: string | undefined;
  for await (const next of lines) {
    if (whole !== undefined) {
      const line = lineOf(whole);
      if (steps === most || line?.step !== steps + 1) break;
      steps++;
      // Every character of it is ASCII.
      bytes += whole.length + 1;
      if (line.seconds !== null) timed = { steps: timed.steps + 1, seconds: line.seconds };
      if (line.validation) validations.push({ step: steps, ...line.validation });
    }
    whole = next;
  }
  return { steps, bytes, timed, validations };
}

/** What is kept of a log. */
interface KeptLines {
  readonly steps: number;
  readonly bytes: number;
  readonly timed: Timed;
  readonly validations: Validation[];
}

/** A line as far as it is read again. */
interface LogLine {
  readonly step: number;
  readonly seconds: number | null;
  readonly validation?: Omit<Validation, "step">;
}

/** `undefined` for what is no line of a log. */
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
