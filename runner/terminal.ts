/**
 * Progress for people: on a terminal one line that is redrawn, elsewhere plain lines at every twentieth of the work.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";

/** The progress of a run. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  /** Loss of the last step. */
  readonly loss: number;
  /** Active latents per row in the last step. */
  readonly l0: number;
}

/** Where progress is written. */
export interface LineOptions {
  /** Whether a line can be redrawn; if left out, whether stderr is a terminal. */
  readonly isTerminal?: boolean;
  /** Writes text; to stderr if left out, so that results on stdout stay clean. If it throws, the text is lost. */
  readonly write?: (text: string) => void;
  /** Milliseconds since any fixed moment. */
  readonly now?: () => number;
}

/** Input of {@link ProgressLine}. */
export interface ProgressOptions extends LineOptions {
  /** Number of steps, if known. */
  readonly n_steps?: number;
  /** Steps that a resumed run did before. */
  readonly firstStep?: number;
  /** Rows per step. */
  readonly batch_size: number;
}

/** The progress of a download. */
export interface DownloadState {
  /** The file. */
  readonly path: string;
  /** Bytes that have arrived. */
  readonly received: number;
  /** Size of the file in bytes; `null` if unknown. */
  readonly size: number | null;
}

/**
 * Writes to stderr. If progress cannot be written, because its reader has gone or the disk is full, the work continues.
 */
export const writeStderr: (text: string) => void = quietly((text) => {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
});

/** The same function, but text that cannot be written is lost. */
export function quietly(write: (text: string) => void): (text: string) => void {
  return (text) => {
    try {
      write(text);
    } catch {
      // There is no reader to tell.
    }
  };
}

/** Smallest number of plain lines per run. */
const LINES = 20;
const BAR = 20;
const CLEAR_LINE = "\r\x1b[K";

const LINE_OPTIONS = { isTerminal: true, write: true, now: true } as const satisfies Record<keyof LineOptions, true>;

/** A line that is redrawn on a terminal; elsewhere one at every twentieth of the work. */
class Line {
  readonly isTerminal: boolean;
  readonly now: () => number;
  readonly #write: (text: string) => void;
  #lastPart = 0;
  #isOpen = false;

  constructor(
    { isTerminal = Deno.stderr.isTerminal(), write = writeStderr, now = () => performance.now() }: LineOptions,
  ) {
    this.isTerminal = isTerminal;
    this.now = now;
    this.#write = quietly(write);
  }

  /** Shows the text; `share` is the part done, or `undefined` if the whole is unknown. */
  show(share: number | undefined, text: string): void {
    if (this.isTerminal) {
      this.#write(redrawn((share === undefined ? "" : `${bar(share)} `) + text));
      this.#isOpen = true;
      return;
    }
    const part = share === undefined ? this.#lastPart + 1 : Math.floor(share * LINES);
    if (part === this.#lastPart) return;
    this.#lastPart = part;
    this.#write(`${text}\n`);
  }

  /** Leaves the last text in place. */
  end(): void {
    if (this.#isOpen) this.#write("\n");
    this.#isOpen = false;
  }
}

/** Shows the progress of a run, its speed and the time left. */
export class ProgressLine implements Disposable {
  readonly #line: Line;
  readonly #n_steps: number | undefined;
  readonly #firstStep: number;
  readonly #batch_size: number;
  readonly #start: number;

  /** Starts the clock. */
  constructor(options: ProgressOptions) {
    checkOptions("a ProgressLine", options, { ...LINE_OPTIONS, n_steps: true, firstStep: true, batch_size: true });
    const { n_steps, firstStep = 0, batch_size } = options;
    this.#line = new Line(options);
    this.#n_steps = n_steps;
    this.#firstStep = firstStep;
    this.#batch_size = batch_size;
    this.#start = this.#line.now();
  }

  /** Shows news. */
  show({ step, loss, l0 }: ProgressState): void {
    const n_steps = this.#n_steps;
    const made = step - this.#firstStep;
    const seconds = Math.max(this.#line.now() - this.#start, 1) / 1000;
    const parts = [
      `step ${step}${n_steps === undefined ? "" : `/${n_steps}`}`,
      `${Math.round(made * this.#batch_size / seconds).toLocaleString("en")} examples/s`,
      `loss ${loss.toPrecision(4)}`,
      `L0 ${l0.toFixed(1)}`,
    ];
    if (n_steps !== undefined) parts.push(`${duration(seconds / Math.max(made, 1) * (n_steps - step))} left`);
    this.#line.show(n_steps === undefined ? undefined : step / n_steps, parts.join(" · "));
  }

  /** Leaves the last state in place and starts the next line. */
  [Symbol.dispose](): void {
    this.#line.end();
  }
}

/** Milliseconds between two drawings of a download. */
const REDRAWN_EVERY = 100;

/** Shows the progress of downloads on a terminal; elsewhere nothing. */
export class DownloadLine implements Disposable {
  readonly #line: Line;
  #path: string | undefined;
  #start = 0;
  #receivedBefore = 0;
  #drawnAt = 0;

  /** Starts with the first news. */
  constructor(options: LineOptions = {}) {
    checkOptions("a DownloadLine", options, LINE_OPTIONS);
    this.#line = new Line(options);
  }

  /** Shows news; every file gets its own line. */
  show({ path, received, size }: DownloadState): void {
    if (!this.#line.isTerminal) return;
    const time = this.#line.now();
    if (path !== this.#path) {
      this.#line.end();
      [this.#path, this.#start, this.#receivedBefore, this.#drawnAt] = [path, time, received, -Infinity];
    }
    const isWhole = size !== null && received >= size;
    if (!isWhole && time - this.#drawnAt < REDRAWN_EVERY) return;
    this.#drawnAt = time;
    // Bytes from before a resumed download do not count towards its speed.
    const speed = (received - this.#receivedBefore) / Math.max(time - this.#start, 1) * 1000;
    const known = size === null ? "" : ` of ${megabytes(size)}`;
    const parts = [`${megabytes(received)}${known} MB`, `${megabytes(speed)} MB/s`];
    if (size !== null && !isWhole && speed > 0) parts.push(`${duration((size - received) / speed)} left`);
    const share = size === null ? undefined : size === 0 ? 1 : received / size;
    this.#line.show(share, [...parts, printable(path)].join(" · "));
  }

  /** Leaves the last state in place and starts the next line. */
  [Symbol.dispose](): void {
    this.#line.end();
    this.#path = undefined;
  }
}

/** Shows how many items of a known number are done: on a terminal one line, elsewhere one at every twentieth. */
export class CountLine implements Disposable {
  readonly #line: Line;
  readonly #what: string;
  readonly #total: number;
  #first: { readonly done: number; readonly time: number } | undefined;

  /** `what` is the plural name of the items. */
  constructor(what: string, total: number, options: LineOptions = {}) {
    checkOptions("a CountLine", options, LINE_OPTIONS);
    this.#what = what;
    this.#total = total;
    this.#line = new Line(options);
  }

  /** Shows news; the first call gives the number done before. */
  show(done: number): void {
    const time = this.#line.now();
    this.#first ??= { done, time };
    const speed = (done - this.#first.done) / Math.max(time - this.#first.time, 1) * 1000;
    const parts = [`${done.toLocaleString("en")}/${this.#total.toLocaleString("en")} ${this.#what}`];
    if (speed > 0) {
      parts.push(`${speed.toPrecision(3)}/s`);
      if (done < this.#total) parts.push(`${duration((this.#total - done) / speed)} left`);
    }
    this.#line.show(this.#total === 0 ? 1 : done / this.#total, parts.join(" · "));
  }

  /** Leaves the last state in place and starts the next line. */
  [Symbol.dispose](): void {
    this.#line.end();
  }
}

function bar(part: number): string {
  const filled = Math.round(BAR * part);
  return "█".repeat(filled) + "░".repeat(BAR - filled);
}

/** Replaces the previous line, cut to the width of the terminal. */
function redrawn(line: string): string {
  return CLEAR_LINE + [...line].slice(0, terminalSize().columns - 1).join("");
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/**
 * Foreign text without anything that a terminal would obey or that would change text direction: control and format
 * characters, line separators and lone surrogates become escapes such as `\\u202e`. JSON text stays the same JSON.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
    ).join(""));
}

/** Columns and rows of the terminal; 80 and 24 if unknown. */
export function terminalSize(): { readonly columns: number; readonly rows: number } {
  try {
    // 0 if the terminal does not know it.
    const { columns, rows } = Deno.consoleSize();
    return { columns: columns || 80, rows: rows || 24 };
  } catch {
    return { columns: 80, rows: 24 };
  }
}

/** `42 s`, `3 min 05 s` or `2 h 07 min`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}
