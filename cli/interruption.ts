/**
 * What ends a command early: a signal, or a reader of its results who has gone.
 *
 * @module
 */

import { writeStderr } from "../runner/mod.ts";
import { IGNORES_HANGUP } from "./hangup.ts";

/** Signals that end a command, and their numbers, from which the exit code follows. */
const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGPIPE: 13, SIGTERM: 15, SIGBREAK: 21 } as const;

type SignalName = keyof typeof NUMBERS;

/** A command that ended before its work was done. */
export class Interruption extends Error {
  /** 128 plus the number of the signal, as in shells. */
  readonly exitCode: number;

  constructor(name: SignalName) {
    super(`ended by ${name}`);
    this.exitCode = 128 + NUMBERS[name];
  }
}

/** The environment of {@link Interrupts}, for tests. */
export interface InterruptsOptions {
  /** Whether a person at a terminal presses the keys. */
  readonly isTerminal?: boolean;
  /** Ends the process. */
  readonly exit?: (code: number) => void;
  /** Writes text for people. */
  readonly write?: (text: string) => void;
  /** Calls a function a moment later; returns a function that cancels it. */
  readonly wait?: (then: () => void) => () => void;
}

/** Milliseconds, waited for twice, after which a SIGINT is not a copy of the one before. */
const COPIES_WITHIN = 100;

function wait(then: () => void): () => void {
  const timer = setTimeout(then, COPIES_WITHIN);
  return () => clearTimeout(timer);
}

/**
 * Listens for the signals that end a command. The first aborts, so that the command ends after the work under way; a
 * second Ctrl-C ends the process at once.
 *
 * Other signals may arrive any number of times: schedulers signal every process of a job, and a parent passes on its
 * own copy. Without a terminal, SIGINT may too. Copies may be delivered late, after a computation that blocks this
 * thread, but before the second of two timers ends.
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

  /** Handles a signal. */
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
