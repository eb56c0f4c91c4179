/** Rows into batches: every row once an epoch, the same order every time, and what is measured of the inputs. @module */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ShapeError } from "../../kernels/engine/errors.ts";
import type { RowSource } from "../../nn/rows.ts";
import { batchesInOrder, shuffledBatches, type ShuffleOptions } from "../../data/order.ts";
import { rowRange, rowsOf } from "../../data/rows.ts";
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
  return batches.map(({ x, d_model, index }) => {
    assertEquals([x.length, d_model], [options.batch_size * 2, 2]);
    assert(x.every((value, i) => value === x[i - i % 2]), "rows are torn apart");
    const rows = Array.from({ length: options.batch_size }, (_, row) => x[2 * row]!);
    assertEquals(Array.from(index), rows, "the index is not the row's number");
    return rows;
  });
}

Deno.test("rows come in their order, the last batch shorter", async () => {
  const source = numbered(7);
  assertEquals(source.n_rows, 7);
  const batches = await Array.fromAsync(batchesInOrder(rowRange(source, 1, 6), 2));
  assertEquals(batches.map(({ x }) => [...x]), [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5]]);
  // Numbers count in the source that the loader was given, here the range.
  assertEquals(batches.map(({ index }) => [...index]), [[0, 1], [2, 3], [4]]);
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
    assertEquals(batch.x.length, 4);
    if (++n_batches === 100) break;
  }
  assertEquals(n_batches, 100);
});

Deno.test("options and sources that make no batch are refused", async () => {
  const first = (source: RowSource, options: ShuffleOptions) => shuffledBatches(source, options).next();
  await assertRejects(() => first(numbered(3), { batch_size: 0 }), RangeError, "batch_size");
  await assertRejects(() => first(numbered(3), { batch_size: 1, buffer_rows: 0.5 }), RangeError, "buffer_rows");
  await assertRejects(() => first(numbered(0), { batch_size: 1 }), RangeError, "no rows");
  for (const batch_size of [0, -1, 1.5, NaN]) {
    await assertRejects(() => batchesInOrder(numbered(3), batch_size).next(), RangeError, `found ${batch_size}`);
  }
  const large = () => first(numbered(3), { batch_size: 2 ** 45 });
  await assertRejects(large, RangeError, "batch_size: 35184372088832 rows of d_model 2 take 281474976710656 bytes");
});

Deno.test("ranges past the end, reversed or of broken rows are refused, however they nest", async () => {
  const source = numbered(10);
  const wrong = [[0, 11], [7, 3], [-1, 2], [0.5, 2], [11, 12], [NaN, 2], [0, Infinity]] as const;
  for (const [from, to] of wrong) {
    const message = `rows ${from} to ${to} were asked for; expected a range within rows 0 to 10`;
    assertThrows(() => rowRange(source, from, to), RangeError, message);
    await assertRejects(() => source.read(from, to), RangeError, message);
  }
  const inner = rowRange(rowRange(source, 2, 9), 1, 4);
  assertEquals([...await inner.read(0, 3)], [3, 3, 4, 4, 5, 5]);
  assertEquals((await inner.read(3, 3)).length, 0);
  // The rows exist in what the range is of, and are not the range's.
  await assertRejects(() => inner.read(2, 4), RangeError, "rows 2 to 4");
  await assertRejects(() => inner.read(-1, 2), RangeError, "rows -1 to 2");
});

Deno.test("a source that gives more or fewer rows than were asked for is named, and not trained on", async () => {
  for (const [given, found] of [[new Float32Array(3), "3 numbers"], [new Float32Array(8), "8 numbers"]] as const) {
    const broken: RowSource = { n_rows: 3, d_model: 2, read: () => Promise.resolve(given) };
    for (const batches of [batchesInOrder(broken, 4), shuffledBatches(broken, { batch_size: 1 })]) {
      await assertRejects(() => batches.next(), ShapeError, `the source gave ${found}; expected 6`);
    }
  }
  const doubles = { n_rows: 1, d_model: 2, read: () => Promise.resolve(new Float64Array(2)) };
  const batches = batchesInOrder(doubles as unknown as RowSource, 1);
  await assertRejects(() => batches.next(), TypeError, "the source gave Float64Array");
});

/** A source whose `read` needs its `this`, and whose sizes are getters of its class. */
class Counted implements RowSource {
  readonly #rows = numbered(3000);
  reads = 0;

  get n_rows(): number {
    return this.#rows.n_rows;
  }

  get d_model(): number {
    return this.#rows.d_model;
  }

  async read(from: number, to: number): Promise<Float32Array> {
    this.reads++;
    return await this.#rows.read(from, to);
  }
}

Deno.test("a source may be a class", async () => {
  const source = new Counted();
  const rows = (batches: readonly { readonly index: Float64Array }[]) => batches.flatMap(({ index }) => [...index]);
  const options = { batch_size: 1000, n_steps: 3 };
  const shuffled = rows(await Array.fromAsync(shuffledBatches(source, options)));
  assertEquals(shuffled, (await order(numbered(3000), options)).flat());
  assertEquals(rows(await Array.fromAsync(batchesInOrder(source, 1000))).length, 3000);
  assertEquals((await rowRange(source, 5, 7).read(0, 2)).length, 4);
  await measureScaling(source, "mean_scale");
  assert(source.reads > 6);
});

Deno.test("labels come with their rows", async () => {
  const labels = Int32Array.from({ length: 50 }, (_, row) => 1000 - row);
  const source = rowRange(rowsOf(new Float32Array(100), 2, { labels }), 10, 45);
  for (const batches of [batchesInOrder(source, 8), shuffledBatches(source, { batch_size: 8, n_steps: 9 })]) {
    for await (const batch of batches) {
      assertEquals([...batch.labels!], Array.from(batch.index, (row) => 1000 - (row + 10)));
    }
  }
  assertThrows(() => rowsOf(new Float32Array(100), 2, { labels: new Int32Array(49) }), ShapeError, "49 labels");
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
  await assertRejects(
    () => measureScaling(rowsOf(new Float32Array(8).fill(2), 2), "mean_scale"),
    RangeError,
    "all rows are equal",
  );
  await assertRejects(() => measureScaling(rowsOf(new Float32Array(8), 2), "scale"), RangeError, "zero");
  const data = new Float32Array(4000);
  data[3001] = NaN;
  await assertRejects(() => measureScaling(rowsOf(data, 2), "mean"), RangeError, "row 1500 has NaN in column 1");
});

Deno.test("an unknown option is refused, with the nearest one", async () => {
  const wrong = { batch_size: 2, nsteps: 3 } as { batch_size: number };
  const batches = shuffledBatches(rowsOf(new Float32Array(6), 2), wrong);
  await assertRejects(() => batches.next(), TypeError, 'no option "nsteps"; did you mean n_steps?');
});

Deno.test("the rows of the next buffer are read while those of one are taken, and none that nobody takes", async () => {
  const reads: number[] = [];
  const n_rows = 4 * 1024;
  const { read, ...rest } = numbered(n_rows);
  const source: RowSource = {
    ...rest,
    read: (from, to) => {
      reads.push(from / 1024);
      return read(from, to);
    },
  };
  const counts: number[] = [];
  const options = { batch_size: 512, buffer_rows: 1024, n_steps: 6, seed: 1 };
  for await (const _ of shuffledBatches(source, options)) counts.push(reads.length);
  // Two batches a buffer; six batches take three of the four.
  assertEquals(counts, [2, 2, 3, 3, 3, 3]);
  assertEquals(new Set(reads).size, 3);
});
