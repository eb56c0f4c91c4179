/** The table of a sweep's runs: on a terminal and elsewhere, with more runs than fit. @module */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type RunStatus, RunTable, type RunTableOptions, shownNmse } from "../../runner/run_status.ts";

const NOTHING = { l0: null, nmse: null, dead_fraction: null, problem: null };

function status(run: number, state: RunStatus["state"], step: number, more: Partial<RunStatus> = {}): RunStatus {
  return { run, state, step, n_steps: 100, ...NOTHING, ...more };
}

function fakeTable(n_runs: number, options: Partial<RunTableOptions> = {}) {
  const written: string[] = [];
  let time = 0;
  const runs = Array.from({ length: n_runs }, (_, i) => ({ name: String(i), about: `train.lr ${i}` }));
  const table = new RunTable({
    runs,
    isTerminal: false,
    ...options,
    write: (text) => written.push(text),
    now: () => time,
  });
  return { table, written, at: (ms: number) => time = ms };
}

Deno.test("elsewhere a run's row is written at every quarter and when its state changes, under one head", () => {
  const { table, written, at } = fakeTable(2);
  for (let step = 0; step <= 100; step += 5) {
    at(100 * step);
    table.show(status(0, "training", step, { l0: 31.25, nmse: 0.25, dead_fraction: 0.125 }));
  }
  table.show(status(1, "failed", 0, { problem: "no \x1b[2J disk" }));
  table.show(status(0, "evaluating", 100));
  table.show(status(0, "finished", 100, { l0: 32, nmse: NaN, dead_fraction: 0 }));
  assertEquals(written.join("").split("\n"), [
    "  run  state          step        L0     NMSE     dead          left",
    "  0    training     25/100      31.3   0.2500   12.5 %           8 s  train.lr 0",
    "  0    training     50/100      31.3   0.2500   12.5 %           5 s  train.lr 0",
    "  0    training     75/100      31.3   0.2500   12.5 %           3 s  train.lr 0",
    "  0    training    100/100      31.3   0.2500   12.5 %           0 s  train.lr 0",
    "  1    failed        0/100                                            train.lr 1: no \\u001b[2J disk",
    "  0    finished    100/100      32.0     none    0.0 %                train.lr 0",
    "",
  ]);
});

Deno.test("on a terminal the table is redrawn in place, and below what was said in between", () => {
  const { table, written } = fakeTable(2, { isTerminal: true, size: () => ({ columns: 30, rows: 24 }) });
  table.show(status(0, "training", 1));
  table.show(status(0, "training", 2));
  table[Symbol.dispose]();
  table.show(status(0, "training", 3));
  assertEquals(written.map((text) => text.startsWith("\x1b[3A")), [false, true, false]);
  const lines = written[1]!.slice("\x1b[3A".length).replaceAll("\r\x1b[K", "").split("\n");
  assertEquals(lines, ["  run  state          step", "  0    training      2/100", "  1    waiting", "\x1b[J"]);
});

Deno.test("an NMSE takes few characters, however large it is", () => {
  assertEquals([0.12345, 999.5, 1.554e19, NaN].map(shownNmse), ["0.1235", "999.5000", "1.6e+19", "none"]);
});

Deno.test("of more runs than fit, those under way and those that came to nothing are shown, and all are counted", () => {
  const { table, written } = fakeTable(50, { isTerminal: true, size: () => ({ columns: 100, rows: 8 }) });
  for (let run = 0; run < 40; run++) table.show(status(run, run === 7 ? "diverged" : "finished", 100));
  for (const run of [41, 42]) table.show(status(run, "training", 10));
  const last = written.at(-1)!;
  const shown = last.split("\n").flatMap((line) => / {2}(\d+) {2,}\w/.exec(line)?.[1] ?? []);
  assertEquals(shown.length, 5);
  for (const run of ["7", "41", "42"]) assert(shown.includes(run), `${run} of ${shown}`);
  assertStringIncludes(last, "  50 runs: 39 finished, 1 diverged, 8 waiting, 2 training");
});
