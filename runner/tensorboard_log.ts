/**
 * `events.out.tfevents.saev`: what TensorBoard shows of a run while it trains. Scalars come with every report, those of
 * held-out rows and the histogram of densities with every validation.
 *
 * @module
 */

import type { Metrics } from "../eval/metrics.ts";
import { type EventHistogram, eventRecord, wholeRecords } from "../io/tensorboard.ts";
import { lossColumns, type TrainLoss } from "../objectives/loss_record.ts";
import type { RunDirectory } from "./run_directory.ts";
import { EVENTS } from "./run_files.ts";

/** How a log begins. */
export interface TensorBoardLogOptions {
  /** Steps that have been made before. */
  readonly step: number;
  /** The learning rate of step 0, 1, … */
  readonly rate: (step: number) => number;
  /** Seconds since 1970; the system's if left out. */
  readonly wallTime?: () => number;
}

/** A run's event file, open for more events. */
export class TensorBoardLog {
  readonly #directory: RunDirectory;
  readonly #rate: (step: number) => number;
  readonly #wallTime: () => number;

  private constructor(directory: RunDirectory, { rate, wallTime = () => Date.now() / 1000 }: TensorBoardLogOptions) {
    this.#directory = directory;
    this.#rate = rate;
    this.#wallTime = wallTime;
  }

  /**
   * Begins the file of a run, or continues it: what a killed process has left half written is removed, and events of steps
   * that are made again are declared void, which TensorBoard obeys also while it reads.
   */
  static async open(directory: RunDirectory, options: TensorBoardLogOptions): Promise<TensorBoardLog> {
    const log = new TensorBoardLog(directory, options);
    const { step } = options;
    const bytes = step === 0 ? 0 : await wholeRecords(directory.chunks(EVENTS));
    await directory.truncate(EVENTS, bytes);
    const place = { wallTime: log.#wallTime(), step: 0 };
    if (bytes === 0) await directory.append(EVENTS, eventRecord(place, { fileVersion: true }));
    else await directory.append(EVENTS, eventRecord({ ...place, step: step + 1 }, { restart: true }));
    return log;
  }

  /** Adds the numbers of the last of some steps, which is step `step`, counted from 1. */
  async append(step: number, losses: readonly TrainLoss[]): Promise<void> {
    if (losses.length === 0) return;
    const columns = [...lossColumns(losses.slice(-1))];
    const scalars = columns.map(([name, values]) => {
      const tag = name.startsWith("grad_norms.") ? name.replace("grad_norms.", "gradients/") : `train/${name}`;
      return [tag, values[0]!] as const;
    });
    await this.#write(step, { ...Object.fromEntries(scalars), "train/lr": this.#rate(step - 1) });
  }

  /** Adds what rows say of the model after a step: a sample of those held out (`validation`), or all (`evaluation`). */
  async appendMetrics(step: number, rows: "validation" | "evaluation", metrics: Metrics): Promise<void> {
    const { nmse, l0, dead_fraction, n_dense, cosine } = metrics;
    const named = Object.entries({ nmse, l0, dead_fraction, n_dense, cosine }).filter(([, value]) =>
      Number.isFinite(value)
    );
    const histogram = densityEvent(metrics);
    await this.#write(
      step,
      Object.fromEntries(named.map(([name, value]) => [`${rows}/${name}`, value])),
      histogram ? { [`${rows}/log10_density`]: histogram } : {},
    );
  }

  async #write(
    step: number,
    scalars: Readonly<Record<string, number>>,
    histograms: Readonly<Record<string, EventHistogram>> = {},
  ): Promise<void> {
    const place = { wallTime: this.#wallTime(), step };
    await this.#directory.append(EVENTS, eventRecord(place, { scalars, histograms }));
  }
}

/** log10 of the densities of the latents that are active at all; `undefined` if none is. */
export function densityEvent(
  { density, density_histogram: { log10_edges, counts } }: Pick<Metrics, "density" | "density_histogram">,
): EventHistogram | undefined {
  const logs = Array.from(density).filter((share) => share > 0).map(Math.log10);
  if (logs.length === 0) return undefined;
  const total = (of: (log: number) => number) => logs.reduce((sum, log) => sum + of(log), 0);
  // TensorBoard takes the first bin to begin at the least value, and the last to end at the largest.
  const [first, last] = [counts.findIndex((count) => count > 0), counts.findLastIndex((count) => count > 0)];
  return {
    min: logs.reduce((a, b) => Math.min(a, b)),
    max: logs.reduce((a, b) => Math.max(a, b)),
    num: logs.length,
    sum: total((log) => log),
    sumSquares: total((log) => log ** 2),
    bucketLimit: log10_edges.slice(first + 1, last + 2),
    bucket: counts.slice(first, last + 1),
  };
}
