/**
 * `sweep.json`: the outcome of each run of a sweep, in order.
 *
 * @module
 */

import { shownAddress } from "../io/http.ts";
import type { MetricsWithCoherence } from "../eval/coherence.ts";
import type { RunResult } from "./run.ts";
import { type RunState, shownNmse } from "./run_status.ts";
import type { SweptConfig } from "./sweep_config.ts";

/** A run in a sweep's summary. */
export interface SweepOutcome {
  /** Its folder within the sweep's. */
  readonly directory: string;
  /** Its outcome. */
  readonly state: RunState;
  /** The values from the lists of the configuration for this run. */
  readonly changes: SweptConfig["changes"];
  /** Steps done. */
  readonly steps: number;
  /** The unexplained share of the variance; `null` if not evaluated. */
  readonly nmse: number | null;
  /** Active latents per row. */
  readonly l0: number | null;
  /** The share of latents that fired on no evaluated row. */
  readonly dead_fraction: number | null;
  /** Why its numbers stopped it. */
  readonly diverged: string | null;
  /** What else ended it. */
  readonly failed: string | null;
  /** Its warnings. */
  readonly warnings: readonly string[];
}

/** The facts about a run that has ended, or may have, for its summary. */
export interface RunEnd extends Pick<RunResult, "steps" | "warnings"> {
  /** Its outcome. */
  readonly state: RunState;
  /** `null` if not evaluated. */
  readonly metrics: Pick<MetricsWithCoherence, "nmse" | "l0" | "dead_fraction"> | null;
  /** Why its numbers stopped it. */
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

/** The changes, with addresses in a form that may be shown. */
function shownChanges(changes: SweptConfig["changes"]): SweptConfig["changes"] {
  const shown = (value: unknown) => typeof value === "string" ? shownAddress(value) : value;
  return Object.fromEntries(Object.entries(changes).map(([field, value]) => [field, shown(value)]));
}

/** A run's changes in one line: `train.lr 0.001, train.seed 2`. */
export function aboutChanges(changes: SweptConfig["changes"]): string {
  return Object.entries(shownChanges(changes)).map(([field, value]) => `${field} ${JSON.stringify(value)}`).join(", ");
}

/** A run's outcome in one line. */
export function aboutOutcome({ nmse, l0, diverged, failed }: SweepOutcome): string {
  if (nmse === null || l0 === null) return diverged ?? failed ?? "stopped";
  return `NMSE ${Number.isNaN(nmse) ? "none (the rows do not vary)" : shownNmse(nmse)}, L0 ${l0.toFixed(1)}`;
}
