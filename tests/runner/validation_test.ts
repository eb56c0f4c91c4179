/** The rows that are measured while a run trains: how often, which, and what is kept of it. @module */
import { assertEquals } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import type { RowSource } from "../../nn/rows.ts";
import { VALIDATION_ROWS, validationEvery, validationSample } from "../../runner/validation.ts";

Deno.test("validations come with a report: as many steps apart as asked, or twenty in a run", () => {
  const every = (validation_every: number | null, log_every: number, n_steps: number) =>
    validationEvery(
      { log: { validation_every }, train: { log_every } } as Parameters<typeof validationEvery>[0],
      n_steps,
    );
  assertEquals([every(null, 25, 1000), every(null, 25, 10), every(null, 7, 1000)], [50, 25, 56]);
  assertEquals([every(100, 25, 9), every(101, 25, 9), every(1, 1, 9), every(0, 25, 9)], [100, 125, 1, null]);
});

/** Rows of two columns that hold their own number, and where they were read. */
function counted(n_rows: number, spoiled: readonly number[] = []): RowSource & { readonly reads: [number, number][] } {
  const rows = rowsOf(
    Float32Array.from({ length: 2 * n_rows }, (_, i) => spoiled.includes(i >> 1) ? NaN : i >> 1),
    2,
  );
  const reads: [number, number][] = [];
  const read = (from: number, to: number) => {
    reads.push([from, to]);
    return rows.read(from, to);
  };
  return { n_rows, d_model: 2, read, reads };
}

Deno.test("a sample is all of few rows, and of many some that lie evenly over them", async () => {
  const few = counted(300);
  const all = (await validationSample(few))!;
  assertEquals([all.n_rows, few.reads], [300, [[0, 150], [150, 300]]]);
  const many = counted(100_000);
  const some = (await validationSample(many))!;
  assertEquals([some.n_rows, many.reads.length], [VALIDATION_ROWS, 16]);
  assertEquals([many.reads[0], many.reads.at(-1)], [[0, 256], [99_744, 100_000]]);
  assertEquals(Array.from(await some.read(4095, 4096)), [99_999, 99_999]);
});

Deno.test("a sample has no rows that are not finite, and may be empty", async () => {
  const sample = (await validationSample(counted(4, [1, 3])))!;
  assertEquals(Array.from(await sample.read(0, sample.n_rows)), [0, 0, 2, 2]);
  assertEquals(await validationSample(counted(2, [0, 1])), null);
});
