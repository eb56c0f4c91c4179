/**
 * The sums of the metrics against plain loops: on any split of the rows, on data that float32 sums cannot hold, and where
 * a definition has an edge.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { densityHistogram, type DensityThresholds, type Metrics, MetricSums } from "../../eval/metrics.ts";
import { metrics } from "../reference/metrics.ts";
import { compress } from "../support/codes.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertFloat64Close, assertRefuses, assertScalarClose } from "../support/tolerance.ts";

const NUMBERS = [
  "mse",
  "nmse",
  "explained_variance",
  "cosine",
  "norm_ratio",
  "reconstruction_bias",
  "l0",
  "l1",
  "dead_fraction",
] as const;
const COUNTS = ["n_rows", "n_dead", "n_almost_dead", "n_dense"] as const;

/** Rows, their reconstructions and their codes. */
interface Data {
  readonly x: Float32Array;
  readonly x_hat: Float32Array;
  readonly f: Float32Array;
  readonly D: number;
  readonly S: number;
}

/** The metrics of the data, split after the given rows, all of it `times` times. */
function measured({ x, x_hat, f, D, S }: Data, { splits = [] as number[], times = 1, ...thresholds } = {}): Metrics {
  const sums = new MetricSums(D, S, thresholds as DensityThresholds);
  const edges = [0, ...splits, x.length / D];
  for (let time = 0; time < times; time++) {
    for (let i = 1; i < edges.length; i++) {
      const [from, to] = [edges[i - 1]!, edges[i]!];
      const codes = compress(f.subarray(from * S, to * S), S);
      sums.add(x.subarray(from * D, to * D), x_hat.subarray(from * D, to * D), codes);
    }
  }
  return sums.result();
}

function wanted({ x, x_hat, f, D }: Data, thresholds = {}) {
  return metrics(Float64Array.from(x), Float64Array.from(x_hat), Float64Array.from(f), D, thresholds);
}

/** Rows around `mean` with deviations of about 1, reconstructed with errors of about ½, and codes of some density. */
function around(mean: number, seed: number, { N = 50, D = 6, S = 20 } = {}): Data {
  const random = new Random(seed);
  const x = random.normal(N * D).map((value) => mean + value);
  const errors = random.normal(N * D, 0.5);
  const f = random.normal(N * S, 3).map((value, i) => random.unit() < (i % S) / S / 2 ? value : 0);
  return { x, x_hat: x.map((value, i) => value + errors[i]!), f, D, S };
}

function assertMetrics(found: Metrics, want: ReturnType<typeof wanted>): void {
  for (const name of NUMBERS) assertFloat64Close([found[name]], [want[name]], name);
  for (const name of COUNTS) assertEquals(found[name], want[name], name);
  assertExact(found.density, want.density, "density");
  assertExact(found.density_histogram.counts, want.histogram, "histogram");
}

Deno.test("the metrics are those of the definitions, wherever the rows' mean is", () => {
  for (const [i, mean] of [0, 1, -30, 1e3, 1e6].entries()) {
    const data = around(mean, i);
    assertMetrics(measured(data), wanted(data));
  }
});

Deno.test("how rows are split does not change a bit", () => {
  const data = around(1e3, 7);
  const whole = measured(data);
  for (const splits of [[1], [49], [3, 4, 30], Array.from({ length: 49 }, (_, i) => i + 1)]) {
    assertEquals(measured(data, { splits }), whole, `split after ${splits}`);
  }
});

/** What sums in float32 make of it. */
function nmseOfFloat32({ x, x_hat, D }: Data, times: number): number {
  const sums_D = new Float32Array(D);
  const [squares, errors] = [new Float32Array(1), new Float32Array(1)];
  for (let i = 0; i < x.length * times; i++) {
    const [value, reconstructed] = [x[i % x.length]!, x_hat[i % x.length]!];
    sums_D[i % D]! += value;
    squares[0]! += value * value;
    errors[0]! += (value - reconstructed) ** 2;
  }
  const n_rows = x.length / D * times;
  return errors[0]! / (squares[0]! - sums_D.reduce((sum, s) => sum + s * s / n_rows, 0));
}

Deno.test("200,000 rows of mean 1000 and deviation 1 have the metrics of the 50 that they repeat", async () => {
  const data = around(1e3, 8);
  const want = wanted(data);
  const times = 4000;
  const found = measured(data, { times });
  assertEquals(found.n_rows, 200_000);
  assertMetrics({ ...found, n_rows: 50 }, want);
  await assertRefuses(() => assertScalarClose(nmseOfFloat32(data, times), want.nmse), "float32 sums");
});

Deno.test("explained variance is relative to the mean row, not to zero", async () => {
  const D = 4;
  // Deviations of ±1 around 1000, so that the mean is a number of float32.
  const x = new Random(9).normal(20 * D).map((value) => 1000 + Math.sign(value));
  const symmetric = Float32Array.of(...x, ...x.map((value) => 2000 - value));
  const codes = { f: new Float32Array(40), D, S: 1 };
  const atMean = measured({ x: symmetric, x_hat: symmetric.map(() => 1000), ...codes });
  assertExact([atMean.nmse, atMean.explained_variance, atMean.mse], [1, 0, 1]);
  // Within a thousandth of the data's size, and yet it explains nothing.
  const relativeToZero = 1 - atMean.mse / (symmetric.reduce((sum, value) => sum + value ** 2, 0) / symmetric.length);
  await assertRefuses(() => assertScalarClose(relativeToZero, atMean.explained_variance), "relative to zero");
  const zeros = measured({ x: symmetric, x_hat: symmetric.map(() => 0), ...codes });
  assertExact([zeros.nmse], [1e6 + 1]);
  // A constant error is an error: the variance of x − x̂ alone would explain everything.
  const shifted = measured({ x: symmetric, x_hat: symmetric.map((value) => value + 1), ...codes });
  assertExact([shifted.explained_variance, shifted.mse], [0, 1]);
  const perfect = measured({ x: symmetric, x_hat: symmetric, ...codes });
  assertExact([perfect.nmse, perfect.explained_variance, perfect.norm_ratio], [0, 1, 1]);
  assertFloat64Close([perfect.cosine, perfect.reconstruction_bias], [1, 1]);
});

Deno.test("shrinkage shows in the norm ratio and in γ, and not in the cosine", () => {
  const data = around(2, 10);
  const { norm_ratio: ratio, reconstruction_bias: bias, cosine } = measured({
    ...data,
    x_hat: data.x.map((x) => x / 4),
  });
  assertFloat64Close([ratio, bias, cosine], [1 / 4, 1 / 4, 1]);
});

Deno.test("a row of zeros has no direction and is left out; one reconstructed as zeros counts as 0", () => {
  const codes = { f: new Float32Array(3), D: 2, S: 1 };
  const some = measured({ x: Float32Array.of(0, 0, 3, 4, 3, 4), x_hat: Float32Array.of(1, 1, 0, 0, 6, 8), ...codes });
  assertExact([some.cosine, some.norm_ratio], [1 / 2, 1]);
  const none = measured({ x: new Float32Array(6), x_hat: Float32Array.of(1, 1, 1, 1, 1, 1), ...codes });
  assertExact([none.cosine, none.norm_ratio, none.nmse, none.explained_variance], [NaN, NaN, NaN, NaN]);
  assertExact([none.mse], [1]);
});

Deno.test("a latent that is listed with 0 did not fire", () => {
  const { x, x_hat, f, D, S } = around(0, 13);
  const sums = new MetricSums(D, S);
  sums.add(x, x_hat, compress(f, S, { zeros: true }));
  assertMetrics(sums.result(), wanted({ x, x_hat, f, D, S }));
});

Deno.test("data that do not vary have no nmse, whatever their value", () => {
  for (const value of [0.1, 1e-30, -12345.678]) {
    const x = new Float32Array(300).fill(value);
    const found = measured({ x, x_hat: x.map((x) => x + 1), f: new Float32Array(100), D: 3, S: 1 });
    assertExact([found.nmse, found.explained_variance], [NaN, NaN], `${value}`);
  }
});

Deno.test("a row, a reconstruction or a code that is not finite is refused, by its number", () => {
  const data = around(0, 11);
  const { D, S } = data;
  const refused = (changes: Partial<typeof data>, message: string) => {
    assertThrows(() => measured({ ...data, ...changes }), RangeError, message);
  };
  for (const value of [NaN, Infinity, -Infinity]) {
    refused({ x: data.x.with(2 * D + 1, value) }, `evaluating: row 2 has ${value} in column 1; remove rows`);
    refused({ x_hat: data.x_hat.with(3 * D, value) }, `the reconstruction of row 3 has ${value} in column 0`);
    refused({ f: data.f.with(4 * S + 2, value) }, "a code of row 4 is not finite; the model's parameters");
  }
  // Rows are counted over all batches.
  const sums = new MetricSums(D, S);
  sums.add(data.x, data.x_hat, compress(data.f, S));
  const n_rows = data.x.length / D;
  const again = () => sums.add(data.x.with(0, NaN), data.x_hat, compress(data.f, S));
  assertThrows(again, RangeError, `row ${n_rows} has NaN in column 0`);
});

Deno.test("dead, almost dead and dense latents are those below and above the thresholds, which are told", () => {
  const [N, S] = [1000, 6];
  const fires = [0, 1, 10, 11, 500, 1000];
  const f = Float32Array.from({ length: N * S }, (_, i) => Math.floor(i / S) < fires[i % S]! ? 1 : 0);
  const x = new Random(12).normal(N);
  const data = { x, x_hat: x, f, D: 1, S };
  const plain = measured(data);
  assertEquals([plain.n_dead, plain.dead_fraction], [1, 1 / 6]);
  assertEquals([plain.n_almost_dead, plain.almost_dead_below, plain.n_dense, plain.dense_above], [1, 1e-7, 3, 0.01]);
  for (
    const [almost_dead_below, n_almost_dead, dense_above, n_dense] of [
      [0.001, 1, 0.011, 2],
      [0.002, 2, 0.5, 1],
      [0.01, 2, 0.499, 2],
      [1, 5, 0, 5],
      [0, 1, 1, 0],
    ] as const
  ) {
    const found = measured(data, { almost_dead_below, dense_above } as object);
    assertEquals([found.n_almost_dead, found.almost_dead_below], [n_almost_dead, almost_dead_below]);
    assertEquals([found.n_dense, found.dense_above], [n_dense, dense_above]);
  }
  for (const name of ["almost_dead_below", "dense_above"] as const) {
    for (const value of [-0.1, 1.1, NaN]) {
      assertThrows(() => new MetricSums(1, 1, { [name]: value }), RangeError, `${name} must be a share from 0 to 1`);
    }
  }
});

Deno.test("the histogram has quarters of a decade, closed below, and leaves the dead out", () => {
  const { log10_edges: edges, counts } = densityHistogram([]);
  assertEquals([edges.length, counts.length, edges[0], edges[1], edges.at(-1)], [33, 32, -8, -7.75, 0]);
  assertEquals(counts.reduce((sum, count) => sum + count), 0);
  const binOf = (share: number) => densityHistogram([0, share, 0]).counts.indexOf(1);
  // Every decade's edge belongs to the bin above it; 1 to the last.
  for (let decade = -8; decade < 0; decade++) assertEquals(binOf(Number(`1e${decade}`)), 4 * (decade + 8));
  for (const n of [3, 10, 30, 1000]) assertEquals(binOf(n / (n * 1000)), 20);
  assertEquals([binOf(1), binOf(0.999), binOf(0.0999), binOf(1e-12)], [31, 31, 27, 0]);
  assert(edges.every((edge, i) => i === 0 || binOf(10 ** (edge - 0.01)) === i - 1));
});

Deno.test("refused: no rows at all", () => {
  assertThrows(() => new MetricSums(2, 3).result(), RangeError, "at least one row");
});
