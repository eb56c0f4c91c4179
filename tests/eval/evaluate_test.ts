/**
 * Evaluation against the reference's metrics, on any batching of the same rows and any kind of batch.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { Tensor } from "../../kernels/engine/tensor.ts";
import type { Batches } from "../../nn/rows.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { measureCoherence } from "../../eval/coherence.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { undefinedMetrics } from "../../eval/undefined_metrics.ts";
import { batchesInOrder } from "../../data/order.ts";
import { rowsOf } from "../../data/rows.ts";
import { train } from "../../train/train.ts";
import { metrics, monosemanticity } from "../reference/metrics.ts";
import { narrow } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertFloat64Close } from "../support/tolerance.ts";

const [D, S] = [12, 37];
const SIZES = { d_model: D, d_sae: S };
const NUMBERS = [
  "mse",
  "nmse",
  "explained_variance",
  "cosine",
  "norm_ratio",
  "reconstruction_bias",
  "l0",
  "l1",
] as const;

/** What a model makes of all rows at once, in float64. */
async function forwardOf(sae: SparseAutoencoder, x: Float32Array) {
  using output = sae.forward(x);
  using f_NS = output.f_x.dense();
  const [x_hat, f] = [await output.x_hat.read(), await f_NS.read()];
  return { x: Float64Array.from(x), x_hat: Float64Array.from(x_hat), f: Float64Array.from(f) };
}

Deno.test("metrics are those of the codes and reconstructions, however the rows are batched", async () => {
  const random = new Random(1);
  const x = random.normal(30 * D, 3).map((value) => value + 100);
  const embeddings = random.normal(30 * 5);
  for (
    const activation of [
      { key: "relu" },
      { key: "top-k", top_k: 4 },
      { key: "batch-top-k", top_k: 4 },
      { key: "jump-relu" },
    ] as const
  ) {
    const p = narrow(randomParameters(random, { D, S }));
    const input = { mean: new Float32Array(D).fill(100), scale: 3 };
    const device = await sharedDevice();
    using sae = await SparseAutoencoder.fromParameters({ ...SIZES, activation }, p, { device, input });
    const made = await forwardOf(sae, x);
    const want = metrics(made.x, made.x_hat, made.f, D, { almostDeadBelow: 0.1, denseAbove: 0.3 });
    const thresholds = { almost_dead_below: 0.1, dense_above: 0.3 };
    const found = await evaluate(sae, [x], { ...thresholds, monosemanticity: true });
    const { monosemanticity: ofInputs, ...plain } = found;
    for (const name of NUMBERS) assertFloat64Close([found[name]], [want[name]], `${activation.key}, ${name}`);
    for (const name of ["n_rows", "n_dead", "n_almost_dead", "n_dense"] as const) assertEquals(found[name], want[name]);
    assertExact(found.density, want.density, "density");
    assertExact(found.density_histogram.counts, want.histogram, "histogram");
    const comparable = (scores: Float64Array) => scores.filter((score) => !Number.isNaN(score));
    assertFloat64Close(comparable(ofInputs.per_latent), comparable(monosemanticity(made.f, made.x, S)));

    const other = { monosemanticity: { embeddings: rowsOf(embeddings, 5) } };
    const { monosemanticity: ofOthers } = await evaluate(sae, [x], other);
    const wanted = monosemanticity(made.f, Float64Array.from(embeddings), S);
    assertFloat64Close(comparable(ofOthers.per_latent), comparable(wanted), "other embeddings");

    using tensor = Tensor.from(sae.context, x.subarray(7 * D, 8 * D), [1, D], "one row");
    const splits: Batches[] = [
      [x.subarray(0, 7 * D), tensor, x.subarray(8 * D)],
      batchesInOrder(rowsOf(x, D), 4),
    ];
    for (const batches of splits) assertEquals(await evaluate(sae, batches, thresholds), plain, "not a bit differs");
    const inParts = batchesInOrder(rowsOf(x, D), 11);
    assertEquals((await evaluate(sae, inParts, other)).monosemanticity, ofOthers, "nor here");
  }
});

Deno.test("evaluation changes nothing, and its batches stay the caller's", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice(), seed: 2 });
  const before = await sae.readParameters();
  const x = new Random(3).normal(5 * D);
  using tensor = Tensor.from(sae.context, x, [5, D], "x");
  await evaluate(sae, [tensor, tensor], { monosemanticity: true });
  assertEquals(await sae.readParameters(), before);
  assertExact(await tensor.read(), x);
});

for (
  const activation of [
    { key: "relu" },
    { key: "top-k", top_k: 4 },
    { key: "batch-top-k", top_k: 4, bias_correction: true },
    { key: "jump-relu" },
    { key: "gated" },
  ] as const
) {
  Deno.test(`no way to look at a model changes it, or its training: ${activation.key}`, async () => {
    using sae = await SparseAutoencoder.create({ ...SIZES, activation }, { device: await sharedDevice() });
    using state = new TrainState(sae);
    const objective = getObjective({ key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 9 });
    const x = new Random(6).normal(9 * D);
    for await (const _ of train(sae, objective, [x, x], { state, lr: 0.1, n_lr_warmup: 0 }));
    const before = [await sae.readParameters(), await state.read()];
    using out = sae.forward(x);
    using codes = sae.encode(x);
    using x_hats = sae.decode(codes, [1, 9, S]);
    await x_hats.read();
    await objective.loss(sae, x, { prefixes: [1, 9, S] });
    await evaluate(sae, [x], { monosemanticity: true });
    await measureCoherence(sae);
    assertEquals([await sae.readParameters(), await state.read()], before);
    assertEquals(await codes.read(), await out.f_x.read());
  });
}

Deno.test("batches of more rows than the model encodes at once are taken apart", async () => {
  const random = new Random(4);
  const sizes = { d_model: 80, d_sae: 250 };
  const p = narrow(randomParameters(random, { D: sizes.d_model, S: sizes.d_sae }));
  const x = random.normal(150 * sizes.d_model);
  for (const activation of [{ key: "relu" }, { key: "batch-top-k", top_k: 4 }, { key: "top-k", top_k: 130 }] as const) {
    const found = [];
    for (const bindingLimit of [2 ** 27, 2 ** 16]) {
      const device = await freshDevice({ bindingLimit, guardWords: 64 });
      using sae = await SparseAutoencoder.fromParameters({ ...sizes, activation }, p, { device });
      using tensor = Tensor.from(sae.context, x, [150, sizes.d_model], "x");
      found.push(await evaluate(sae, [x]), await evaluate(sae, [tensor]));
      device.destroy();
    }
    for (const one of found) assertEquals(one, found[0], activation.key);
    assertEquals(found[0]!.n_rows, 150);
  }
});

Deno.test("data that do not vary have no nmse", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  const metrics = await evaluate(sae, [new Float32Array(2 * D).fill(0.1)]);
  assertExact([metrics.nmse], [NaN]);
  assertEquals(Number.isFinite(metrics.mse), true);
  assertEquals(undefinedMetrics(metrics), { nmse: "the rows do not vary", explained_variance: "the rows do not vary" });
});

Deno.test("refused: no rows, other than one embedding a row, thresholds that are no shares", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  await assertRejects(() => evaluate(sae, []), RangeError, "at least one row");
  const x = new Random(5).normal(4 * D);
  for (const [rows, message] of [[3, "found 3 for 4 rows or more"], [5, "found 5 for 4 rows"]] as const) {
    const options = { monosemanticity: { embeddings: rowsOf(new Float32Array(rows * 2).fill(1), 2) } };
    await assertRejects(() => evaluate(sae, [x], options), RangeError, message);
  }
  await assertRejects(() => evaluate(sae, [x], { dense_above: 2 }), RangeError, "dense_above must be a share");
});

Deno.test("rows, models and embeddings that are not finite are refused, by row and column", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create(SIZES, { device });
  const x = new Random(6).normal(8 * D);
  const bad = x.with(5 * D + 3, NaN);
  for (const batch_size of [1, 3, 8]) {
    const batches = batchesInOrder(rowsOf(bad, D), batch_size);
    await assertRejects(() => evaluate(sae, batches), RangeError, "evaluating: row 5 has NaN in column 3");
  }
  const embeddings = rowsOf(new Float32Array(16).fill(1).with(7, Infinity), 2);
  const options = { monosemanticity: { embeddings } };
  await assertRejects(() => evaluate(sae, [x], options), RangeError, "embedding 3 has Infinity in column 1");
  const p = await sae.readParameters();
  using broken = await SparseAutoencoder.fromParameters(sae.cfg, { ...p, b_dec: new Float32Array(D).with(2, NaN) }, {
    device,
  });
  await assertRejects(() => evaluate(broken, [x]), RangeError, "the reconstruction of row 0 has NaN in column 2");
});

Deno.test("a signal ends an evaluation after the batch under way", async () => {
  using sae = await SparseAutoencoder.create({ ...SIZES, activation: { key: "top-k", top_k: 4 } });
  const x = new Random(1).normal(4 * D);
  const aborter = new AbortController();
  let given = 0;
  const batches = function* () {
    for (; given < 9; given++) {
      if (given === 2) aborter.abort(new RangeError("enough"));
      yield x;
    }
  };
  await assertRejects(() => evaluate(sae, batches(), { signal: aborter.signal }), RangeError, "enough");
  assertEquals(given, 2);
});

Deno.test("an unknown option is refused, with the nearest one", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  const wrong = { dense_over: 0.1 } as object;
  await assertRejects(() => evaluate(sae, [new Float32Array(D)], wrong), TypeError, "did you mean dense_above?");
});
