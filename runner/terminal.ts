/**
 * Progress for people: on a terminal one line that is redrawn, elsewhere plain lines at every twentieth of the way.
 *
 * @module
 */

/** How far a run has come. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  /** Of the last step. */
  readonly loss: number;
  /** Active latents a row, of the last step. */
  readonly l0: number;
}

/** What {@link ProgressLine} needs of the world. */
export interface ProgressOptions {
  /** Steps the run will make, when that is known. */
  readonly n_steps?: number;
  /** Steps that a resumed run had made before. */
  readonly firstStep?: number;
  /** Rows in a step. */
  readonly batch_size: number;
  /** Whether a line can be redrawn; without it, whether stderr is a terminal. */
  readonly isTerminal?: boolean;
  /** Where text goes; without it stderr, so that results on stdout stay clean. If it throws, the text is lost. */
  readonly write?: (text: string) => void;
  /** Milliseconds since any fixed moment. */
  readonly now?: () => number;
}

/** How far a download has come. */
export interface DownloadState {
  /** The file. */
  readonly path: string;
  /** Bytes that have arrived. */
  readonly received: number;
  /** Bytes of the whole file; `null` where that is not known. */
  readonly size: number | null;
}

/**
 * Writes to stderr. Progress that cannot be shown, because its reader has gone or the disk behind it is full, is no
 * reason to end the work that it tells of.
 */
export const writeStderr: (text: string) => void = quietly((text) => {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
});

/** The same where what cannot be written is lost. */
export function quietly(write: (text: string) => void): (text: string) => void {
  return (text) => {
    try {
      write(text);
    } catch {
      // There is no reader to tell.
    }
  };
}

/** Plain lines a run writes, at least. */
const LINES = 20;
const BAR = 20;
const CLEAR_LINE = "\r\x1b[K";

/** Says how far a run has come, how fast it goes, and how long it will take. */
export class ProgressLine implements Disposable {
  readonly #options: Required<Omit<ProgressOptions, "n_steps">> & { readonly n_steps: number | undefined };
  readonly #start: number;
  #lastPart = 0;
  #isLineOpen = false;

  /** Starts the clock. */
  constructor({
    n_steps,
    firstStep = 0,
    batch_size,
    isTerminal = Deno.stderr.isTerminal(),
    write = writeStderr,
    now = () => performance.now(),
  }: ProgressOptions) {
    this.#options = { n_steps, firstStep, batch_size, isTerminal, write: quietly(write), now };
    this.#start = now();
  }

  /** Call it as often as there is news. */
  show(state: ProgressState): void {
    const { n_steps, isTerminal, write } = this.#options;
    if (isTerminal) {
      write(redrawn(this.#line(state)));
      this.#isLineOpen = true;
      return;
    }
    const part = n_steps === undefined ? this.#lastPart + 1 : Math.floor(state.step / n_steps * LINES);
    if (part === this.#lastPart) return;
    this.#lastPart = part;
    write(`${this.#line(state)}\n`);
  }

  /** Leaves the last state standing and starts the next line. */
  [Symbol.dispose](): void {
    if (this.#isLineOpen) this.#options.write("\n");
    this.#isLineOpen = false;
  }

  #line({ step, loss, l0 }: ProgressState): string {
    const { n_steps, firstStep, batch_size, isTerminal, now } = this.#options;
    const seconds = Math.max(now() - this.#start, 1) / 1000;
    const parts = [
      `step ${step}${n_steps === undefined ? "" : `/${n_steps}`}`,
      `${Math.round((step - firstStep) * batch_size / seconds).toLocaleString("en")} examples/s`,
      `loss ${loss.toPrecision(4)}`,
      `L0 ${l0.toFixed(1)}`,
    ];
    if (n_steps !== undefined) {
      parts.push(`${duration(seconds / Math.max(step - firstStep, 1) * (n_steps - step))} left`);
    }
    return (isTerminal && n_steps !== undefined ? `${bar(step / n_steps)} ` : "") + parts.join(" · ");
  }
}

/** Milliseconds between two drawings of a download. */
const REDRAWN_EVERY = 100;

/** Says how far downloads have come, on a terminal; elsewhere nothing. */
export class DownloadLine implements Disposable {
  readonly #options: Required<Omit<ProgressOptions, "n_steps" | "firstStep" | "batch_size">>;
  #path: string | undefined;
  #start = 0;
  #receivedBefore = 0;
  #drawnAt = 0;

  /** Starts with the first news. */
  constructor({
    isTerminal = Deno.stderr.isTerminal(),
    write = writeStderr,
    now = () => performance.now(),
  }: Omit<ProgressOptions, "n_steps" | "firstStep" | "batch_size"> = {}) {
    this.#options = { isTerminal, write: quietly(write), now };
  }

  /** Call it as often as there is news; every file gets a line of its own. */
  show({ path, received, size }: DownloadState): void {
    const { isTerminal, write, now } = this.#options;
    if (!isTerminal) return;
    const time = now();
    if (path !== this.#path) {
      this[Symbol.dispose]();
      [this.#path, this.#start, this.#receivedBefore, this.#drawnAt] = [path, time, received, -Infinity];
    }
    const isWhole = size !== null && received >= size;
    if (!isWhole && time - this.#drawnAt < REDRAWN_EVERY) return;
    this.#drawnAt = time;
    // What was there already when the download was taken up says nothing of its speed.
    const speed = (received - this.#receivedBefore) / Math.max(time - this.#start, 1) * 1000;
    const known = size === null ? "" : ` of ${megabytes(size)}`;
    const parts = [`${megabytes(received)}${known} MB`, `${megabytes(speed)} MB/s`];
    if (size !== null && !isWhole && speed > 0) parts.push(`${duration((size - received) / speed)} left`);
    const way = size === null ? "" : `${bar(size === 0 ? 1 : received / size)} `;
    write(redrawn(way + [...parts, printable(path)].join(" · ")));
  }

  /** Leaves the last state standing and starts the next line. */
  [Symbol.dispose](): void {
    if (this.#path !== undefined) this.#options.write("\n");
    this.#path = undefined;
  }
}

/** Says how many of a known number of things are done: on a terminal a line, elsewhere one at every twentieth. */
export class CountLine implements Disposable {
  readonly #options: Required<Omit<ProgressOptions, "n_steps" | "firstStep" | "batch_size">>;
  readonly #what: string;
  readonly #total: number;
  #first: { readonly done: number; readonly time: number } | undefined;
  #lastPart = 0;
  #isLineOpen = false;

  /** `what` is the plural of what is counted. */
  constructor(what: string, total: number, {
    isTerminal = Deno.stderr.isTerminal(),
    write = writeStderr,
    now = () => performance.now(),
  }: Omit<ProgressOptions, "n_steps" | "firstStep" | "batch_size"> = {}) {
    this.#what = what;
    this.#total = total;
    this.#options = { isTerminal, write: quietly(write), now };
  }

  /** Call it as often as there is news; the first call says how many were done before. */
  show(done: number): void {
    const { isTerminal, write, now } = this.#options;
    this.#first ??= { done, time: now() };
    const seconds = Math.max(now() - this.#first.time, 1) / 1000;
    const speed = (done - this.#first.done) / seconds;
    const parts = [`${done.toLocaleString("en")}/${this.#total.toLocaleString("en")} ${this.#what}`];
    if (speed > 0) {
      parts.push(`${speed.toPrecision(3)}/s`);
      if (done < this.#total) parts.push(`${duration((this.#total - done) / speed)} left`);
    }
    if (isTerminal) {
      write(redrawn(`${bar(this.#total === 0 ? 1 : done / this.#total)} ${parts.join(" · ")}`));
      this.#isLineOpen = true;
      return;
    }
    const part = Math.floor(done / this.#total * LINES);
    if (part === this.#lastPart) return;
    this.#lastPart = part;
    write(`${parts.join(" · ")}\n`);
  }

  /** Leaves the last state standing and starts the next line. */
  [Symbol.dispose](): void {
    if (this.#isLineOpen) this.#options.write("\n");
    this.#isLineOpen = false;
  }
}

function bar(part: number): string {
  const filled = Math.round(BAR * part);
  return "█".repeat(filled) + "░".repeat(BAR - filled);
}

/** A line in place of the one before, no longer than the terminal is wide. */
function redrawn(line: string): string {
  return CLEAR_LINE + [...line].slice(0, terminalSize().columns - 1).join("");
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/**
 * Text from elsewhere without anything that a terminal would obey or that would change the direction of what stands beside
 * it: control and format characters, line separators and halves of characters become escapes such as `\\u202e`. JSON text
 * stays the same JSON.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
    ).join(""));
}

/** Columns and rows of the terminal; 80 and 24 where it does not know them. */
export function terminalSize(): { readonly columns: number; readonly rows: number } {
  try {
    // 0 where a terminal does not know it.
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
