/**
 * Initial values from data: rows as the dictionary, the middle as b_dec, an encoder of the right scale.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { ShapeError } from "../../kernels/engine/errors.ts";
import type { InputScaling } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";
import { geometricMedian, type InitialData, initialParametersFromData } from "../../nn/initial_values.ts";
import { initialParameters } from "../../nn/parameters.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { firstLengths, pullAt } from "../reference/initial_values.ts";
import { encode, PARAMETER_NAMES, standardise, widen } from "../reference/model.ts";
import { initBDec, normalizeRows } from "../reference/training.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import {
  assertExact,
  assertMedianHolds,
  assertSameBits,
  assertSameFrequencies,
  assertScalarClose,
  assertSumBound,
  assertTensorClose,
  assertUlps,
} from "../support/tolerance.ts";

const D = 6;
const S = 10;
const SIZES = { d_model: D, d_sae: S };
const NO_SCALING: InputScaling = { mean: null, scale: 1 };
const RAW = { ...SIZES, reinit_blend: 1, normalize_w_dec: false };

/** Rows with a middle of their own, more than there are latents. */
function someRows(seed: number, n_rows = 40): Float32Array {
  const random = new Random(seed);
  const middle = random.normal(D, 3);
  return random.normal(n_rows * D).map((value, i) => value + middle[i % D]!);
}

function made(
  options: SparseAutoencoderOptions,
  data: InitialData,
  { seed = 1, input = NO_SCALING }: { seed?: number; input?: InputScaling } = {},
) {
  return initialParametersFromData(completeConfig({ ...SIZES, ...options }), { seed, input, data }).parameters;
}

function transpose(matrix: Float32Array, rows: number, columns: number): Float32Array {
  return matrix.map((_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** Which row of x each row of a dictionary of bare data points is. */
function origins(W_dec: Float32Array, x: Float32Array, mean_D: Float64Array, scale = 1): number[] {
  return Array.from({ length: W_dec.length / D }, (_, s) => {
    const row = W_dec.subarray(s * D, (s + 1) * D);
    const found = Array.from({ length: x.length / D }, (_, i) => i)
      .filter((i) => row.every((value, d) => value === Math.fround((x[i * D + d]! - mean_D[d]!) / scale)));
    assertEquals(found.length, 1, `row ${s} is one row of the data`);
    return found[0]!;
  });
}

function mean(x: Float32Array): Float64Array {
  const sums = new Float64Array(D);
  x.forEach((value, i) => sums[i % D]! += value);
  return sums.map((sum) => sum / (x.length / D));
}

Deno.test("data points: every latent starts as another row, less the mean", () => {
  const x = someRows(1);
  const { W_dec, W_enc, b_enc, b_dec } = made(RAW, { x });
  assertEquals(new Set(origins(W_dec, x, mean(x))).size, S);
  assertSameBits(W_enc, transpose(W_dec, S, D), "W_enc");
  assertExact(b_enc, new Float32Array(S));
  assertExact(b_dec, new Float32Array(D));
});

Deno.test("data points: as many rows as latents are enough, and all of them are taken", () => {
  const x = someRows(2, S);
  assertEquals(origins(made(RAW, { x }).W_dec, x, mean(x)).sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

Deno.test("data points: the seed chooses, and favours no row", () => {
  const N = 24;
  const x = someRows(3, N);
  const mean_D = mean(x);
  const draws = 400;
  const counts = new Float64Array(N);
  for (let seed = 0; seed < draws; seed++) {
    const { W_dec } = made({ ...RAW, d_sae: 5 }, { x }, { seed });
    for (const row of origins(W_dec, x, mean_D)) counts[row]!++;
  }
  const many = 1e12;
  assertSameFrequencies(counts, draws, new Float64Array(N).fill(many * 5 / N), many);
  assertSameBits(made(RAW, { x }, { seed: 7 }).W_dec, made(RAW, { x }, { seed: 7 }).W_dec);
});

Deno.test("data points: blended with the random rows that there are without data", () => {
  const x = someRows(4);
  const p = 0.7;
  const points = made(RAW, { x }).W_dec;
  const random = made({ ...RAW, reinit_blend: 0 }, { x }).W_dec;
  const mean_D = mean(x);
  const terms = (i: number) => [p * points[i]!, (1 - p) * random[i]!] as const;
  const want = Float64Array.from(points, (_, i) => terms(i)[0] + terms(i)[1]);
  const sizes = Float64Array.from(
    points,
    (_, i) => Math.abs(terms(i)[0]) + p * Math.abs(mean_D[i % D]!) + Math.abs(terms(i)[1]),
  );
  assertSumBound(made({ ...RAW, reinit_blend: p }, { x }).W_dec, want, sizes, 2);
});

Deno.test("data points: unit rows and their transpose where rows are kept at unit length", () => {
  const x = someRows(5);
  for (const subtract_b_dec of [false, true]) {
    const { W_dec, W_enc } = made({ reinit_blend: 0.8, subtract_b_dec }, { x });
    const unit = Float64Array.from(made({ reinit_blend: 0.8, normalize_w_dec: false, subtract_b_dec }, { x }).W_dec);
    normalizeRows(unit, D);
    assertUlps(W_dec, unit, 1, 0, "W_dec");
    assertSameBits(W_enc, transpose(W_dec, S, D), "W_enc");
  }
});

Deno.test("data points: reinit_enc_dec_tranpose = false leaves them in the encoder, and the decoder random", () => {
  const x = someRows(6);
  for (const options of [{}, { normalize_w_dec: false }, { subtract_b_dec: true }]) {
    const apart = made({ ...options, reinit_enc_dec_tranpose: false }, { x });
    const ordinary = initialParameters(completeConfig({ ...SIZES, ...options }), 1);
    assertSameBits(apart.W_enc, made(options, { x }).W_enc, "W_enc has the data");
    assertSameBits(apart.W_dec, ordinary.W_dec, "W_dec has not");
    // Upstream would end here.
    assertNotEquals(apart.W_enc, transpose(ordinary.W_dec, S, D));
  }
});

Deno.test("data points: a blend of 0, or none asked for, is the initialisation without data, bit by bit", () => {
  const x = someRows(7);
  const few = x.subarray(0, 3 * D);
  for (
    const options of [{}, { subtract_b_dec: true }, { normalize_w_dec: false }, { reinit_enc_dec_tranpose: false }]
  ) {
    const ordinary = initialParameters(completeConfig({ ...SIZES, ...options }), 1);
    for (
      const found of [
        made({ ...options, reinit_blend: 0 }, { x }),
        made({ ...options, reinit_blend: 0 }, { x: few }),
        made(options, { x: few, data_points: false }),
      ]
    ) {
      for (const name of PARAMETER_NAMES) assertSameBits(found[name], ordinary[name], name);
    }
  }
});

Deno.test("data points: of standardised inputs", () => {
  const x = someRows(8);
  const input = { mean: new Random(9).normal(D), scale: 2.5 };
  const rows = origins(made(RAW, { x }, { input }).W_dec, x, mean(x), input.scale);
  assertEquals(rows, origins(made(RAW, { x }).W_dec, x, mean(x)));
});

Deno.test("a JumpReLU counts in the root mean square of its first pre-activations, unless it is told the unit", async () => {
  const x = someRows(30);
  const device = await sharedDevice();
  const activation = { key: "jump-relu", threshold_init: 0.5 } as const;
  for (const options of [{}, { subtract_b_dec: true }, { reinit_blend: 0 }]) {
    for (const scale_encoder of [false, true]) {
      const cfg = completeConfig({ ...SIZES, ...options, activation });
      using sae = await SparseAutoencoder.create(cfg, { device, data: { x, b_dec: "mean", scale_encoder } });
      const p = widen(await sae.readParameters());
      const h_BS = encode(cfg, p, Float64Array.from(x));
      const unit = Math.sqrt(h_BS.reduce((sum, h) => sum + h * h, 0) / h_BS.length);
      assertScalarClose(sae.input.pre_act_scale!, unit, "unit");
      assertTensorClose(p.threshold!, new Float64Array(S).fill(0.5 * unit), "threshold");
      if (!scale_encoder) continue;
      const { reconstructed, wanted } = firstLengths(cfg, p, Float64Array.from(x));
      assertScalarClose(reconstructed, wanted, "Σ‖x̂ − b_dec‖");
    }
  }
  const input = { mean: null, scale: 1, pre_act_scale: 3 };
  using told = await SparseAutoencoder.create({ ...SIZES, activation }, { device, input, data: { x } });
  assertEquals(told.input.pre_act_scale, 3);
});

Deno.test("b_dec: the mean, as initBDec makes it", async () => {
  const x = someRows(10);
  const device = await sharedDevice();
  for (const input of [NO_SCALING, { mean: new Random(11).normal(D), scale: 2.5 }]) {
    using sae = await SparseAutoencoder.create(SIZES, { device, input, data: { x, b_dec: "mean" } });
    const p = await sae.readParameters();
    const want = initBDec(widen(p), standardise(x, input.mean ?? new Float32Array(D), input.scale));
    assertTensorClose(p.b_dec, want.b_dec, "b_dec");
    await sae.initBDec(x);
    assertSameBits((await sae.readParameters()).b_dec, p.b_dec, "b_dec");
  }
});

/** Points, and their geometric median where it is known. */
const MEDIANS: Readonly<Record<string, readonly [points: readonly (readonly number[])[], median?: readonly number[]]>> =
  {
    "the middle one of an odd number on a line": [[[0], [1], [5], [6], [100]], [5]],
    "the middle of a square": [[[0, 0], [2, 0], [0, 2], [2, 2]], [1, 1]],
    "a square far from zero": [[[1e6, 0], [1e6 + 2, 0], [1e6, 2], [1e6 + 2, 2]], [1e6 + 1, 1]],
    "a mean that is a row, and not the median": [[[0], [-1], [-1], [-1], [3]], [-1]],
    "a mean that is a row, in a plane": [[[0, 0], [-1, 1], [-1, -1], [-1, 0], [3, 0]], [Math.sqrt(1 / 3) - 1, 0]],
    "a mean that is a row but for rounding": [[[0.1], [-1], [-1], [-1], [3.4]], [-1]],
    "a mean next to a row": [[[1e-7, 0], [-1, 1], [-1, -1], [-1, 0], [3, 0]], [Math.sqrt(1 / 3) - 1, 0]],
    "a mean that is a row, and the median": [[[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], [0, 0]],
    "more than half of the rows alike": [[[3, 4], [3, 4], [3, 4], [100, -7], [-20, 8]], [3, 4]],
    "all rows alike": [[[0.1, 0.7], [0.1, 0.7], [0.1, 0.7]], [Math.fround(0.1), Math.fround(0.7)]],
    "one row": [[[2, -3, 5]], [2, -3, 5]],
    "a triangle with an angle of more than 120 degrees: its corner": [[[0, 0], [10, 1], [-10, 1]], [0, 0]],
    "seven without symmetry": [[[0, 1, 2], [3, 1, 0], [9, 9, 9], [-4, 2, 1], [0, 0, 7], [5, -3, 2], [1, 1, 1.5]]],
  };

for (const [name, [points, known]] of Object.entries(MEDIANS)) {
  Deno.test(`geometric median: ${name}`, () => {
    const d_model = points[0]!.length;
    const x = Float32Array.from(points.flat());
    const found = geometricMedian(x, d_model, Uint32Array.from(points, (_, i) => i));
    if (known) {
      assertMedianHolds(found, known, pullAt(x, known), name);
    } else assertMedianHolds(found, found, pullAt(x, found), name);
  });
}

Deno.test("geometric median: of random rows, with outliers that move the mean", () => {
  const random = new Random(12);
  for (const scale of [1e-20, 1, 1e15]) {
    const x = random.normal(300 * D, scale);
    for (let i = 0; i < 30 * D; i++) x[i]! += 1000 * scale;
    const found = geometricMedian(x, D, Uint32Array.from({ length: 300 }, (_, i) => i));
    assertMedianHolds(found, found, pullAt(x, found), `rows of size ${scale}`);
    assert(found.every((value) => Math.abs(value) < scale), "the outliers are 1000 away");
  }
});

Deno.test("b_dec: the geometric median, standardised, of no more than 32,768 rows", () => {
  const x = someRows(13);
  const input = { mean: new Random(14).normal(D), scale: 2.5 };
  const { b_dec } = made({}, { x, b_dec: "geometric-median" }, { input });
  const standard = standardise(x, input.mean, input.scale);
  assertMedianHolds(b_dec, b_dec, pullAt(standard, b_dec), "b_dec");

  const many = someRows(15, 32_768 + 5000);
  const sampled = (seed: number) =>
    made({}, { x: many, b_dec: "geometric-median", data_points: false }, { seed }).b_dec;
  const all = geometricMedian(many, D, Uint32Array.from({ length: many.length / D }, (_, i) => i));
  assertSameBits(sampled(1), sampled(1));
  assertNotEquals(sampled(1), sampled(2), "other rows");
  assertNotEquals(sampled(1), new Float32Array(all), "not all rows");
});

for (const key of ["relu", "top-k", "batch-top-k"] as const) {
  Deno.test(`scale_encoder: the first reconstructions are as long as the rows: ${key}`, () => {
    const activation = key === "relu" ? { key } : { key, top_k: 3 };
    const inputs = [NO_SCALING, { mean: new Random(16).normal(D), scale: 2.5 }];
    const kinds = [
      { b_dec: "zeros", data_points: true },
      { b_dec: "mean", data_points: true },
      // With subtract_b_dec, rows of W_dec are then of no particular length before the first step.
      { b_dec: "mean", data_points: false },
    ] as const;
    for (const input of inputs) {
      for (const subtract_b_dec of [false, true]) {
        for (const kind of kinds) {
          const x = someRows(17, 60);
          const options = { activation, subtract_b_dec };
          const found = made(options, { x, ...kind, scale_encoder: true }, { input });
          const cfg = completeConfig({ ...SIZES, ...options });
          const standard = standardise(x, input.mean ?? new Float32Array(D), input.scale);
          const { reconstructed, wanted } = firstLengths(cfg, widen(found), standard);
          const what = `subtract_b_dec ${subtract_b_dec}, ${JSON.stringify(kind)}`;
          assertScalarClose(reconstructed, wanted, what);
          const plain = made(options, { x, ...kind }, { input });
          assertSameBits(found.W_dec, plain.W_dec, "W_dec");
          assertSameBits(found.b_dec, plain.b_dec, "b_dec");
          const factor = found.W_enc[0]! / plain.W_enc[0]!;
          assertTensorClose(found.W_enc, plain.W_enc.map((w) => w * factor), "W_enc");
        }
      }
    }
  });
}

Deno.test("scale_encoder: measured on some of many rows", () => {
  // All rows are multiples of one, so that each has the same ratio.
  const [random, row] = [new Random(18), new Random(19).normal(D)];
  const x = Float32Array.from({ length: 5000 * D }, (_, i) => i % D === 0 ? 1 + random.unit() : 0);
  for (let i = 0; i < x.length; i++) x[i] = x[i - i % D]! * (i % D === 0 ? 1 : row[i % D]!);
  const options = { activation: { key: "top-k", top_k: 3 } } as const;
  const found = made(options, { x, data_points: false, scale_encoder: true });
  const { reconstructed, wanted } = firstLengths(
    completeConfig({ ...SIZES, ...options }),
    widen(found),
    Float64Array.from(x.subarray(0, 50 * D)),
  );
  assertScalarClose(reconstructed, wanted);
});

Deno.test("scale_encoder: on the device the reconstructions are as long", async () => {
  const x = someRows(20);
  const options = { ...SIZES, activation: { key: "top-k", top_k: 3 } } as const;
  using sae = await SparseAutoencoder.create(options, {
    device: await sharedDevice(),
    data: { x, scale_encoder: true },
  });
  using output = sae.forward(x);
  const lengths = (rows: Float32Array) => {
    let sum = 0;
    for (let start = 0; start < rows.length; start += D) sum += Math.hypot(...rows.subarray(start, start + D));
    return sum;
  };
  assertScalarClose(lengths(await output.x_hat.read()), lengths(x));
});

Deno.test("create: with data the seed decides every bit", async () => {
  const device = await sharedDevice();
  const data: InitialData = { x: someRows(21), b_dec: "geometric-median", scale_encoder: true };
  const create = async (seed: number) => {
    using sae = await SparseAutoencoder.create(SIZES, { device, seed, data });
    return await sae.readParameters();
  };
  const [one, again, other] = [await create(1), await create(1), await create(2)];
  for (const name of PARAMETER_NAMES) {
    assertSameBits(one[name], again[name], name);
    assertSameBits(one[name], made({}, data)[name], `${name}, as computed`);
  }
  assertNotEquals(one.W_dec, other.W_dec);
});

Deno.test("refused: data that nothing can be made from", async () => {
  const x = someRows(22);
  const withBad = (value: number) => x.with(2 * D + 3, value);
  const wrong: readonly (readonly [data: object, error: new (message: string) => Error, message: string])[] = [
    [{ x: x.subarray(0, 13) }, ShapeError, "found 13 values"],
    [{ x: new Float32Array(0) }, ShapeError, "found 0 values"],
    [{ x: withBad(NaN) }, RangeError, "row 2 of the data has NaN in column 3"],
    [{ x: withBad(-Infinity) }, RangeError, "row 2 of the data has -Infinity in column 3"],
    [{ x: x.subarray(0, 9 * D) }, RangeError, "d_sae 10 latents, found 9 rows"],
    [{ x, b_dec: "median" }, RangeError, 'zeros, mean, geometric-median, found "median"'],
    [{ x, scale_encoder: 1 }, TypeError, "scale_encoder must be true or false, found 1"],
    [{ x, data_points: "yes" }, TypeError, 'data_points must be true or false, found "yes"'],
  ];
  for (const [data, error, message] of wrong) assertThrows(() => made({}, data as InitialData), error, message);
  const alike = new Float32Array(40 * D).fill(2);
  assertThrows(() => made(RAW, { x: alike }), RangeError, "of the data equals their mean");
  const unmoved: InitialData = { x: alike, data_points: false, b_dec: "mean", scale_encoder: true };
  assertThrows(() => made({}, unmoved), RangeError, "Σ‖x − b_dec‖ is 0");
  const zeros = { x: new Float32Array(40 * D), data_points: false, scale_encoder: true };
  assertThrows(() => made({}, zeros), RangeError, "cannot be scaled");
  const device = await sharedDevice();
  for (const [input, error] of [[{ mean: null, scale: 0 }, RangeError], [{ mean: x, scale: 1 }, ShapeError]] as const) {
    await assertRejects(() => SparseAutoencoder.create(SIZES, { device, input, data: { x } }), error, "of the inputs");
  }
});
