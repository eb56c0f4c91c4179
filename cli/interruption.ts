/**
 * What ends a command before its work is done: a signal, or a reader of its results who has gone.
 *
 * @module
 */

import { writeStderr } from "../runner/mod.ts";
import { IGNORES_HANGUP } from "./hangup.ts";

/** What may end a command, by the number that its exit code is made of. */
const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGPIPE: 13, SIGTERM: 15, SIGBREAK: 21 } as const;

type SignalName = keyof typeof NUMBERS;

/** A command that ended before its work was done. */
export class Interruption extends Error {
  /** 128 and the number of the signal, as shells count. */
  readonly exitCode: number;

  constructor(name: SignalName) {
    super(`ended by ${name}`);
    this.exitCode = 128 + NUMBERS[name];
  }
}

/** What {@link Interrupts} needs of the world. */
export interface InterruptsOptions {
  /** Whether a person at a terminal presses the keys. */
  readonly isTerminal?: boolean;
  /** Ends the process. */
  readonly exit?: (code: number) => void;
  /** Where text for people goes. */
  readonly write?: (text: string) => void;
  /** Does something a moment later; returns what prevents it. */
  readonly wait?: (then: () => void) => () => void;
}

/** Milliseconds, waited for twice, after which a SIGINT is no copy of the one before. */
const COPIES_WITHIN = 100;

function wait(then: () => void): () => void {
  const timer = setTimeout(then, COPIES_WITHIN);
  return () => clearTimeout(timer);
}

/**
 * Listens for the signals that end a command. The first one aborts, so that the command ends after what is under way; a
 * second Ctrl-C ends the process at once.
 *
 * Other signals may come any number of times: schedulers send SIGTERM to every process of a job, and a parent passes its
 * own copy on. Without a terminal, so may SIGINT at first. Copies can be told late, after a computation that blocks this
 * thread; they are told before the second of two timers ends.
 */
export class Interrupts implements Disposable {
  readonly #aborter = new AbortController();
  readonly #options: Required<InterruptsOptions>;
  readonly #listeners: readonly (readonly [SignalName & Deno.Signal, () => void])[];
  #cancelWait: () => void = () => {};
  #mayExit = false;

  constructor({
    isTerminal = [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal()),
    exit = Deno.exit,
    write = writeStderr,
    wait: later = wait,
  }: InterruptsOptions = {}) {
    this.#options = { isTerminal, exit, write, wait: later };
    const names: readonly (SignalName & Deno.Signal)[] = Deno.build.os === "windows"
      ? ["SIGINT", "SIGBREAK"]
      : ["SIGINT", "SIGTERM", "SIGHUP"];
    this.#listeners = names.map((name) => [
      name,
      name === "SIGHUP" && IGNORES_HANGUP ? () => {} : () => this.receive(name),
    ]);
    for (const [name, listener] of this.#listeners) Deno.addSignalListener(name, listener);
  }

  /** Aborted by the first signal, with an {@link Interruption}. */
  get signal(): AbortSignal {
    return this.#aborter.signal;
  }

  /** Takes note of a signal. */
  receive(name: SignalName): void {
    if (this.signal.aborted) {
      if (name === "SIGINT" && this.#mayExit) this.#options.exit(new Interruption(name).exitCode);
      return;
    }
    this.#options.write(name === "SIGINT" ? "\nstopping; Ctrl-C again to stop at once\n" : `\n${name}: stopping\n`);
    this.#aborter.abort(new Interruption(name));
    if (this.#options.isTerminal) this.#mayExit = true;
    else this.#wait(() => this.#wait(() => this.#mayExit = true));
  }

  [Symbol.dispose](): void {
    this.#cancelWait();
    for (const [name, listener] of this.#listeners) Deno.removeSignalListener(name, listener);
  }

  #wait(then: () => void): void {
    this.#cancelWait = this.#options.wait(then);
  }
}
