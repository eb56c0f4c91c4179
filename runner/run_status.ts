/**
 * The progress of each run of a sweep as a table. On a terminal it is redrawn in place; elsewhere a run's row is
 * written when its state changes and at every quarter of its steps.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { duration, printable, quietly, terminalSize, writeStderr } from "./terminal.ts";

/** The state or outcome of a run. `failed` means that something other than its numbers ended it. */
export type RunState = "waiting" | "training" | "evaluating" | "finished" | "diverged" | "failed" | "stopped";

/** The progress of a run. */
export interface RunStatus {
  /** The index of the run. */
  readonly run: number;
  /** Its state or outcome. */
  readonly state: RunState;
  /** Steps done. */
  readonly step: number;
  /** Number of steps. */
  readonly n_steps: number;
  /** Active latents per row, of the last step or as evaluated. */
  readonly l0: number | null;
  /** During training an estimate from the last step, with the mean over prefixes; later as evaluated. */
  readonly nmse: number | null;
  /** Share of dead latents, as training counts them or as evaluated. */
  readonly dead_fraction: number | null;
  /** Why it diverged or failed. */
  readonly problem: string | null;
}

/** The environment of {@link RunTable}. */
export interface RunTableOptions {
  /** Each run's name and its changes, in order. */
  readonly runs: readonly { readonly name: string; readonly about: string }[];
  /** Whether text can be redrawn; if left out, whether stderr is a terminal. */
  readonly isTerminal?: boolean;
  /** Columns and rows of the terminal; asked of it if left out. */
  readonly size?: () => { readonly columns: number; readonly rows: number };
  /** Writes text; to stderr if left out. If it throws, the text is lost. */
  readonly write?: (text: string) => void;
  /** Milliseconds since any fixed moment. */
  readonly now?: () => number;
}

/** A row of the table. */
interface Row extends RunStatus {
  readonly name: string;
  readonly about: string;
  /** When it was first seen training, and its step then. */
  readonly since: { readonly time: number; readonly step: number } | null;
}

/** How often a run in training is written if nothing can be redrawn. */
const QUARTERS = 4;
const CLEAR_LINE = "\r\x1b[K";
const HEAD = ["run", "state", "step", "L0", "NMSE", "dead", "left", ""];

/** The table. */
export class RunTable implements Disposable {
  readonly #options: Required<RunTableOptions>;
  readonly #rows: Row[];
  /** Lines on the terminal that the next drawing replaces. */
  #drawn = 0;
  #isHeadWritten = false;

  /** Writes nothing before the first news. */
  constructor(options: RunTableOptions) {
    checkOptions("a RunTable", options, { runs: true, isTerminal: true, size: true, write: true, now: true });
    const {
      runs,
      isTerminal = Deno.stderr.isTerminal(),
      size = terminalSize,
      write = writeStderr,
      now = () => performance.now(),
    } = options;
    this.#options = { runs, isTerminal, size, write: quietly(write), now };
    const nothing = {
      state: "waiting",
      step: 0,
      n_steps: 0,
      l0: null,
      nmse: null,
      dead_fraction: null,
      problem: null,
    } as const;
    this.#rows = runs.map(({ name, about }, run) => ({ run, name, about, ...nothing, since: null }));
  }

  /** Shows news of a run. */
  show(status: RunStatus): void {
    const before = this.#rows[status.run]!;
    const since = before.since ??
      (status.state === "training" ? { time: this.#options.now(), step: status.step } : null);
    const row = { ...before, ...status, since };
    this.#rows[status.run] = row;
    if (this.#options.isTerminal) return this.#redraw();
    const quarter = ({ step, n_steps }: RunStatus) => Math.floor(QUARTERS * step / Math.max(1, n_steps));
    const isNews = before.state !== row.state && row.state !== "training" && row.state !== "evaluating";
    if (!isNews && !(row.state === "training" && quarter(row) > quarter(before))) return;
    const lines = this.#lines([row]);
    this.#options.write((this.#isHeadWritten ? lines.slice(1) : lines).map((line) => `${line}\n`).join(""));
    this.#isHeadWritten = true;
  }

  /** Leaves the table in place; the next news draws a new one below. */
  [Symbol.dispose](): void {
    this.#drawn = 0;
    this.#isHeadWritten = false;
  }

  #redraw(): void {
    const { size, write } = this.#options;
    const { columns, rows } = size();
    const lines = this.#lines(this.#fitting(rows - 3)).concat(this.#hidden(rows - 3));
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    const drawn = lines.map((line) => `${CLEAR_LINE}${[...line].slice(0, columns - 1).join("").trimEnd()}\n`);
    // Clears the rest of a longer earlier table.
    write(`${up}${drawn.join("")}\x1b[J`);
    this.#drawn = lines.length;
  }

  /** The rows that fit. If not all do: runs in progress first, then failed ones, then the last that are done. */
  #fitting(most: number): readonly Row[] {
    if (this.#rows.length <= most) return this.#rows;
    const order: readonly RunState[] = [
      "training",
      "evaluating",
      "failed",
      "diverged",
      "stopped",
      "finished",
      "waiting",
    ];
    const ranked = this.#rows.toSorted((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
    return ranked.slice(0, Math.max(1, most)).toSorted((a, b) => a.run - b.run);
  }

  /** The number of runs in each state, if not all rows are shown. */
  #hidden(most: number): readonly string[] {
    if (this.#rows.length <= most) return [];
    const counts = Map.groupBy(this.#rows, ({ state }) => state);
    const parts = [...counts].map(([state, { length }]) => `${length.toLocaleString("en")} ${state}`);
    return [`  ${this.#rows.length.toLocaleString("en")} runs: ${parts.join(", ")}`];
  }

  /** The header and some rows, in columns. */
  #lines(rows: readonly Row[]): string[] {
    const widths = [Math.max(3, ...this.#rows.map(({ name }) => name.length)), 10, this.#stepWidth(), 8, 7, 7, 12];
    return [HEAD, ...rows.map((row) => this.#cells(row))].map((cells) =>
      `  ${
        cells.map((cell, i) => i === 0 || i === 1 || i === 7 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i]!))
          .join("  ")
      }`
        .trimEnd()
    );
  }

  #stepWidth(): number {
    return Math.max(4, ...this.#rows.map(({ n_steps }) => 2 * String(n_steps).length + 1));
  }

  #cells({ name, about, state, step, n_steps, l0, nmse, dead_fraction, problem, since }: Row): string[] {
    const made = since === null ? 0 : step - since.step;
    const left = state === "training" && made > 0
      ? duration((this.#options.now() - since!.time) / 1000 / made * (n_steps - step))
      : "";
    return [
      name,
      state,
      n_steps === 0 ? "" : `${step}/${n_steps}`,
      l0 === null ? "" : l0.toFixed(1),
      nmse === null ? "" : shownNmse(nmse),
      dead_fraction === null ? "" : `${(100 * dead_fraction).toFixed(1)} %`,
      left,
      [about, problem ?? ""].filter((text) => text !== "").map(printable).join(": "),
    ];
  }
}

/** An NMSE in few characters; `none` where the rows do not vary. */
export function shownNmse(nmse: number): string {
  return Number.isNaN(nmse) ? "none" : nmse < 1000 ? nmse.toFixed(4) : nmse.toExponential(1);
}
