/** Rows into batches: every row once an epoch, the same order every time, and what is measured of the inputs. @module */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { batchesInOrder, shuffledBatches, type ShuffleOptions } from "../../data/order.ts";
import { rowRange, rowsOf, type RowSource } from "../../data/rows.ts";
import { measureScaling } from "../../data/scaling.ts";
import { Random } from "../support/random.ts";
import { assertTensorClose } from "../support/tolerance.ts";

/** Rows that hold their own number, twice. */
function numbered(n_rows: number): RowSource {
  return rowsOf(Float32Array.from({ length: 2 * n_rows }, (_, i) => Math.floor(i / 2)), 2);
}

/** The numbers of the rows, batch by batch. */
async function order(source: RowSource, options: ShuffleOptions): Promise<number[][]> {
  const batches = await Array.fromAsync(shuffledBatches(source, options));
  return batches.map((batch) => {
    assertEquals(batch.length, options.batch_size * 2);
    assert(batch.every((value, i) => value === batch[i - i % 2]), "rows are torn apart");
    return Array.from({ length: options.batch_size }, (_, row) => batch[2 * row]!);
  });
}

Deno.test("rows come in their order, the last batch shorter", async () => {
  const source = numbered(7);
  assertEquals(source.n_rows, 7);
  const batches = await Array.fromAsync(batchesInOrder(rowRange(source, 1, 6), 2));
  assertEquals(batches.map((batch) => [...batch]), [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5]]);
  assertThrows(() => rowsOf(new Float32Array(7), 2), ShapeError, "7 numbers");
});

Deno.test("every epoch has every row once, whatever the sizes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: 300 }),
      fc.option(fc.integer({ min: 1, max: 6000 })),
      fc.nat(1000),
      async (n_rows, batch_size, bufferRows, seed) => {
        const n_steps = Math.ceil(2 * n_rows / batch_size);
        const rows = (await order(numbered(n_rows), { batch_size, n_steps, seed, buffer_rows: bufferRows })).flat();
        for (const epoch of [0, 1]) {
          const seen = rows.slice(epoch * n_rows, (epoch + 1) * n_rows);
          assertEquals(seen.toSorted((a, b) => a - b), Array.from({ length: n_rows }, (_, i) => i));
        }
      },
    ),
    { numRuns: 30, seed: 1 },
  );
});

Deno.test("an order that begins anywhere is the rest of the whole, and reads no more than that", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: 300 }),
      fc.option(fc.integer({ min: 1, max: 6000 })),
      fc.double({ min: 0, max: 1, noNaN: true }),
      async (n_rows, batch_size, bufferRows, share) => {
        const options = { batch_size, n_steps: Math.ceil(2.5 * n_rows / batch_size), seed: 1, buffer_rows: bufferRows };
        const firstStep = Math.floor(share * options.n_steps);
        const whole = await order(numbered(n_rows), options);
        assertEquals(await order(numbered(n_rows), { ...options, firstStep }), whole.slice(firstStep));
      },
    ),
    { numRuns: 30, seed: 1 },
  );
  let reads = 0;
  const { read, ...sizes } = numbered(5000);
  const counted: RowSource = { ...sizes, read: (from, to) => (reads++, read(from, to)) };
  // Of five blocks, one at a time, three and a bit are over.
  await order(counted, { batch_size: 100, n_steps: 35, firstStep: 33, buffer_rows: 1024 });
  assertEquals(reads, 1);
  await assertRejects(() => order(counted, { batch_size: 1, firstStep: -1 }), RangeError, "firstStep");
});

Deno.test("the order depends on the seed alone", async () => {
  const options = { batch_size: 10, n_steps: 20, seed: 3 };
  const first = await order(numbered(100), options);
  assertEquals(await order(numbered(100), options), first);
  assertNotEquals(await order(numbered(100), { ...options, seed: 4 }), first);
  assertNotEquals(first.slice(0, 10), first.slice(10), "two epochs have the same order");
  assertEquals((await order(numbered(100), { ...options, n_steps: 7 })).length, 7);
  assertEquals(await order(numbered(100), { ...options, n_steps: 7 }), first.slice(0, 7));
});

Deno.test("a small buffer still draws from all over the file, but mixes only what it holds", async () => {
  const rows = (await order(numbered(8192), { batch_size: 2048, n_steps: 4, buffer_rows: 2048 })).map((batch) =>
    new Set(batch.map((row) => Math.floor(row / 1024)))
  );
  assert(rows.every((blocks) => blocks.size === 2));
  assertNotEquals(rows.map((blocks) => [...blocks].sort()), [[0, 1], [2, 3], [4, 5], [6, 7]]);
});

Deno.test("without a number of steps the batches never end", async () => {
  let n_batches = 0;
  for await (const batch of shuffledBatches(numbered(3), { batch_size: 2 })) {
    assertEquals(batch.length, 4);
    if (++n_batches === 100) break;
  }
  assertEquals(n_batches, 100);
});

Deno.test("options and sources that make no batch are refused", async () => {
  const first = (source: RowSource, options: ShuffleOptions) => shuffledBatches(source, options).next();
  await assertRejects(() => first(numbered(3), { batch_size: 0 }), RangeError, "batch_size");
  await assertRejects(() => first(numbered(3), { batch_size: 1, buffer_rows: 0.5 }), RangeError, "buffer_rows");
  await assertRejects(() => first(numbered(0), { batch_size: 1 }), RangeError, "no rows");
});

Deno.test("inputs are measured over all rows", async () => {
  const [n_rows, d_model] = [2500, 3];
  const data = new Random(1).normal(n_rows * d_model, 2).map((value, i) => value + 10 * (i % d_model));
  const source = rowsOf(data, d_model);
  assertEquals(await measureScaling(source, "none"), { mean: null, scale: 1 });
  const mean = Float64Array.from(
    { length: d_model },
    (_, d) => data.filter((_, i) => i % d_model === d).reduce((sum, value) => sum + value, 0) / n_rows,
  );
  const measured = await measureScaling(source, "mean");
  assertTensorClose(measured.mean!, mean);
  assertEquals(measured.scale, 1);
  const squares = data.reduce((sum, value, i) => sum + (value - mean[i % d_model]!) ** 2, 0);
  const scaled = await measureScaling(source, "mean_scale");
  assertEquals(scaled.mean, measured.mean);
  const ratio = Math.sqrt(squares / (n_rows * d_model)) / scaled.scale;
  assert(Number.isInteger(Math.log2(scaled.scale)) && ratio >= Math.SQRT1_2 && ratio <= Math.SQRT2, `${ratio}`);
  const about0 = await measureScaling(source, "scale");
  assertEquals([about0.mean, about0.scale], [null, 16]);
});

Deno.test("inputs without a scale, or that are no numbers, are refused", async () => {
  await assertRejects(() => measureScaling(rowsOf(new Float32Array(8).fill(2), 2), "mean_scale"), RangeError, "alike");
  await assertRejects(() => measureScaling(rowsOf(new Float32Array(8), 2), "scale"), RangeError, "zero");
  const data = new Float32Array(4000);
  data[3001] = NaN;
  await assertRejects(() => measureScaling(rowsOf(data, 2), "mean"), RangeError, "row 1500 has NaN in column 1");
});

Deno.test("an option that there is not is refused, with the nearest one", async () => {
  const wrong = { batch_size: 2, nsteps: 3 } as { batch_size: number };
  const batches = shuffledBatches(rowsOf(new Float32Array(6), 2), wrong);
  await assertRejects(() => batches.next(), TypeError, 'no option "nsteps"; did you mean n_steps?');
});
