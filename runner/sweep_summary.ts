/**
 * `sweep.json`: what became of each run of a sweep, in its order.
 *
 * @module
 */

import { shownAddress } from "../io/http.ts";
import type { MetricsWithCoherence } from "../eval/coherence.ts";
import type { RunResult } from "./run.ts";
import type { RunState } from "./run_status.ts";
import type { SweptConfig } from "./sweep_config.ts";

/** A run in a sweep's summary. */
export interface SweepOutcome {
  /** Its folder within that of the sweep. */
  readonly directory: string;
  /** What became of it. */
  readonly state: RunState;
  /** What the lists of the configuration say about this run. */
  readonly changes: SweptConfig["changes"];
  /** Steps made. */
  readonly steps: number;
  /** The unexplained share of the variance; `null` where it was not evaluated. */
  readonly nmse: number | null;
  /** Active latents a row. */
  readonly l0: number | null;
  /** The share of latents that fired on no row of the evaluation. */
  readonly dead_fraction: number | null;
  /** Why its numbers let it go no further. */
  readonly diverged: string | null;
  /** What else ended it. */
  readonly failed: string | null;
  /** What was said of it. */
  readonly warnings: readonly string[];
}

/** What a summary needs to know of a run that has ended, or may have. */
export interface RunEnd extends Pick<RunResult, "steps" | "warnings"> {
  /** In a word. */
  readonly state: RunState;
  /** `null` where it was not evaluated. */
  readonly metrics: Pick<MetricsWithCoherence, "nmse" | "l0" | "dead_fraction"> | null;
  /** Why its numbers let it go no further. */
  readonly diverged: Pick<Error, "message"> | null;
  /** What else ended it. */
  readonly failed: Pick<Error, "message"> | null;
}

/** The summary of one run. */
export function outcomeOf(
  directory: string,
  { changes }: Pick<SweptConfig, "changes">,
  { state, metrics, steps, diverged, failed, warnings }: RunEnd,
): SweepOutcome {
  const { nmse = null, l0 = null, dead_fraction = null } = metrics ?? {};
  const ends = { diverged: diverged?.message ?? null, failed: failed?.message ?? null };
  return { directory, state, changes: shownChanges(changes), steps, nmse, l0, dead_fraction, ...ends, warnings };
}

/** The same without what an address may not show. */
function shownChanges(changes: SweptConfig["changes"]): SweptConfig["changes"] {
  const shown = (value: unknown) => typeof value === "string" ? shownAddress(value) : value;
  return Object.fromEntries(Object.entries(changes).map(([field, value]) => [field, shown(value)]));
}

/** What a run differs from the others by, in a line: `train.lr 0.001, train.seed 2`. */
export function aboutChanges(changes: SweptConfig["changes"]): string {
  return Object.entries(shownChanges(changes)).map(([field, value]) => `${field} ${JSON.stringify(value)}`).join(", ");
}

/** What became of a run, in a line. */
export function aboutOutcome({ nmse, l0, diverged, failed }: SweepOutcome): string {
  if (nmse === null || l0 === null) return diverged ?? failed ?? "stopped";
  return `NMSE ${Number.isNaN(nmse) ? "none (the rows do not vary)" : nmse.toFixed(4)}, L0 ${l0.toFixed(1)}`;
}
