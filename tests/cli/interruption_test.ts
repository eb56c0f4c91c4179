/** Signals: the first ends a command after what is under way, a second Ctrl-C at once, and copies mean nothing. @module */
import { assert, assertEquals } from "@std/assert";
import { Interruption, Interrupts, type InterruptsOptions } from "../../cli/interruption.ts";

/** Interrupts of a process that does not end, and a clock that the test moves. */
function fake(options: Pick<InterruptsOptions, "isTerminal">) {
  const [written, exits, waiting]: [string[], number[], (() => void)[]] = [[], [], []];
  const interrupts = new Interrupts({
    ...options,
    exit: (code) => exits.push(code),
    write: (text) => written.push(text),
    wait(then) {
      waiting.push(then);
      return () => waiting.splice(0);
    },
  });
  return { interrupts, written, exits, waiting };
}

Deno.test("the first signal aborts with its exit code", () => {
  for (const [name, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    const { interrupts, written } = fake({ isTerminal: true });
    assertEquals(interrupts.signal.aborted, false);
    interrupts.receive(name);
    const { reason } = interrupts.signal;
    assert(reason instanceof Interruption);
    assertEquals([reason.exitCode, written.length], [code, 1]);
    interrupts[Symbol.dispose]();
  }
});

Deno.test("a second Ctrl-C ends the process at once, other signals any number of times do not", () => {
  const { interrupts, exits, written } = fake({ isTerminal: true });
  interrupts.receive("SIGTERM");
  interrupts.receive("SIGTERM");
  interrupts.receive("SIGHUP");
  assertEquals(exits, []);
  interrupts.receive("SIGINT");
  assertEquals([exits, written], [[130], ["\nSIGTERM: stopping\n"]]);
  interrupts[Symbol.dispose]();
});

Deno.test("without a terminal, copies of a SIGINT that come soon do not end the process", () => {
  const { interrupts, exits, waiting, written } = fake({ isTerminal: false });
  interrupts.receive("SIGINT");
  interrupts.receive("SIGINT");
  waiting.shift()!();
  // A copy that came while this thread was blocked, after the timer that had ended meanwhile.
  interrupts.receive("SIGINT");
  assertEquals(exits, []);
  waiting.shift()!();
  interrupts.receive("SIGINT");
  assertEquals([exits, written], [[130], ["\nstopping; Ctrl-C again to stop at once\n"]]);
  interrupts[Symbol.dispose]();
});

Deno.test("once disposed of, it waits for nothing and listens to nothing", () => {
  const { interrupts, waiting } = fake({ isTerminal: false });
  interrupts.receive("SIGINT");
  assertEquals(waiting.length, 1);
  interrupts[Symbol.dispose]();
  assertEquals(waiting.length, 0);
});
