/** The log of a run: what is kept of it, cut off and written again. @module */
import { assertEquals } from "@std/assert";
import { lossAt, lossColumnNames, type TrainLoss } from "../../objectives/loss_record.ts";
import { MetricsLog, type MetricsLogOptions } from "../../runner/metrics_log.ts";
import { RunDirectory } from "../../runner/run_directory.ts";

const LOSS_COLUMNS = lossColumnNames([]);

/** Losses that tell their step. */
function losses(from: number, to: number): TrainLoss[] {
  const columns = new Map(
    LOSS_COLUMNS.map((name, i) => [name, Float32Array.from({ length: to }, (_, t) => 100 * i + t)]),
  );
  return Array.from({ length: to - from }, (_, t) => lossAt(columns, from + t));
}

const rate = (step: number) => step / 10;

async function inLog(
  before: string | null,
  options: Partial<MetricsLogOptions>,
  work: (log: MetricsLog, lines: () => Promise<Record<string, unknown>[]>) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await using directory = await RunDirectory.open(path);
    await directory.begin();
    if (before !== null) await Deno.writeTextFile(`${path}/metrics.jsonl`, before);
    const log = await MetricsLog.open(directory, { losses: [], rate, ...options });
    await work(log, async () => {
      const text = await Deno.readTextFile(`${path}/metrics.jsonl`);
      return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
    });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

const line = (step: number, seconds: number | null) => JSON.stringify({ step, loss: -1, seconds }) + "\n";

Deno.test("a line has the step, its numbers, its rate and the time", () =>
  inLog(null, {}, async (log, lines) => {
    await log.append(losses(0, 2), 3);
    await log.append([], 7);
    await log.append(losses(2, 3), 0.5);
    const found = await lines();
    assertEquals(found.map(({ step, lr, seconds }) => [step, lr, seconds]), [[1, 0, 3], [2, 0.1, 3], [3, 0.2, 3.5]]);
    for (const [t, line] of found.entries()) {
      assertEquals(LOSS_COLUMNS.map((name) => line[name]), LOSS_COLUMNS.map((_, i) => 100 * i + t));
    }
    assertEquals(log.timed, { steps: 3, seconds: 3.5 });
  }));

Deno.test("the line of a validated step says so, and a resumed log knows of it", async () => {
  const validation = { step: 2, n_rows: 60, nmse: 0.5, l0: 2, dead_fraction: 0.25 };
  let text = "";
  await inLog(null, {}, async (log, lines) => {
    await log.append(losses(0, 3), 1, validation);
    await log.append(losses(3, 5), 1, { ...validation, step: 5, nmse: null });
    assertEquals(log.validations.map(({ step }) => step), [2, 5]);
    const found = await lines();
    const { step: _, ...measured } = validation;
    const expected = [undefined, measured, undefined, undefined, { ...measured, nmse: null }];
    assertEquals(found.map((line) => line.validation), expected);
    text = found.map((line) => JSON.stringify(line) + "\n").join("");
  });
  await inLog(text, { losses: losses(0, 4) }, (log) => {
    assertEquals(log.validations, [validation]);
    return Promise.resolve();
  });
});

/** What stands there, how many lines of it are kept, and the seconds once four steps were resumed and one was made. */
const CASES: readonly (readonly [what: string, before: string | null, kept: number, seconds: (number | null)[]])[] = [
  ["whole, and longer", [1, 2, 3, 4, 5, 6].map((step) => line(step, step)).join(""), 4, [1, 2, 3, 4, 14]],
  ["not there", null, 0, [null, null, null, null, 10]],
  ["cut off within a line", line(1, 1) + line(2, 2) + '{"step":3,"los', 2, [1, 2, null, null, 12]],
  ["without its end", line(1, null) + line(2, 2) + line(3, 3).trimEnd(), 2, [null, 2, null, null, 12]],
  ["of other steps", line(1, 1) + line(3, 3), 1, [1, null, null, null, 11]],
  ["no log", "step,loss\n1,2\n", 0, [null, null, null, null, 10]],
];

for (const [what, before, kept, seconds] of CASES) {
  Deno.test(`a log that is continued: ${what}`, () =>
    inLog(before, { losses: losses(0, 4) }, async (log, lines) => {
      await log.append(losses(4, 5), 10);
      const found = await lines();
      assertEquals(found.map(({ step, seconds }) => [step, seconds]), seconds.map((time, i) => [i + 1, time]));
      assertEquals(found.map(({ loss }) => loss), [0, 1, 2, 3, 4].map((t) => t < kept ? -1 : t));
      assertEquals(log.timed.steps, seconds.filter((time) => time !== null).length);
    }));
}

Deno.test("where there is no line of them, it may be known how long the steps took", () =>
  inLog(null, { losses: losses(0, 4), timed: { steps: 4, seconds: 8 } }, async (log, lines) => {
    assertEquals(log.timed, { steps: 4, seconds: 8 });
    await log.append(losses(4, 5), 1);
    assertEquals((await lines()).map(({ seconds }) => seconds), [null, null, null, null, 9]);
  }));
