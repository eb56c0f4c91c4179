/**
 * The model on the GPU against the goldens and the float64 reference: codes, selections, reconstructions, the decoder's
 * rows, standardised inputs, ownership, and what it refuses.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { contextOf } from "../../kernels/engine/device.ts";
import { DeviceError, ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import type { PiecewiseParameters } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { train } from "../../train/train.ts";
import { decode, encode, narrow, type Parameters, standardise, unstandardise, widen } from "../reference/model.ts";
import { everyProblem, randomParameters } from "../reference/problems.ts";
import { initBDec, normalizeRows } from "../reference/training.ts";
import { loadGoldens, loadMatryoshkaGoldens } from "../support/goldens.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import {
  assertExact,
  assertSameBits,
  assertTensorClose,
  assertUlps,
  assertValidSelection,
  seededBound,
} from "../support/tolerance.ts";

const SIZES = { d_model: 12, d_sae: 37 };

for (const golden of loadGoldens("relu_vanilla")) {
  const d_model = golden.cfg.d_vit;
  const d_sae = d_model * golden.cfg.exp_factor;
  Deno.test(`relu_vanilla: codes, reconstruction, unit rows and b_dec, d_model ${d_model}, d_sae ${d_sae}`, async () => {
    const options = { d_model, d_sae, subtract_b_dec: true, activation: { key: "relu" } } as const;
    using sae = await SparseAutoencoder.fromParameters(options, golden.params, { device: await sharedDevice() });
    using output = sae.forward(golden.x);
    using f_BS = output.f_x.dense();
    assertTensorClose(await f_BS.read(), golden.f_x, "f_x");
    assertTensorClose(await output.x_hat.read(), golden.x_hat, "x_hat");
    sae.normalizeWDec();
    assertTensorClose((await sae.readParameters()).W_dec, golden.W_dec_normalized, "W_dec");
    await sae.initBDec(golden.x);
    assertTensorClose((await sae.readParameters()).b_dec, golden.b_dec_after_init_b_dec, "b_dec");
  });
}

// A BatchTopK's f_x are those of training, which this is not.
for (const golden of loadMatryoshkaGoldens().filter(({ name }) => name !== "batch_top_k")) {
  Deno.test("reading codes brings their entries, not the room that a ReLU's or BatchTopK's might need", async () => {
    const device = await freshDevice();
    for (const key of ["relu", "batch-top-k", "top-k"] as const) {
      using sae = await SparseAutoencoder.create({ d_model: 12, d_sae: 3000, activation: { key } }, { device });
      using codes = sae.encode(new Float32Array(40 * 12).map((_, i) => Math.sin(i)));
      const copied: number[] = [];
      const { createCommandEncoder } = device;
      device.createCommandEncoder = (descriptor) => {
        const encoder = createCommandEncoder.call(device, descriptor);
        const copy = encoder.copyBufferToBuffer.bind(encoder) as (...given: unknown[]) => void;
        encoder.copyBufferToBuffer = (...given: unknown[]) => {
          copied.push(given[4] as number);
          copy(...given);
        };
        return encoder;
      };
      const { row_starts, indices, values } = await codes.read();
      device.createCommandEncoder = createCommandEncoder;
      const entries = row_starts[40]!;
      assertEquals([indices.length, values.length], [entries, entries]);
      assertEquals(copied.reduce((sum, bytes) => sum + bytes, 0), 4 * (41 + 2 * entries), key);
    }
    device.destroy();
  });

  Deno.test(`matryoshka: codes and reconstructions, ${golden.name}, prefixes ${golden.prefixes}`, async () => {
    using sae = await SparseAutoencoder.fromParameters(golden.cfg, golden.params, { device: await sharedDevice() });
    using codes = sae.encode(golden.x);
    using f_BS = codes.dense();
    using x_hats_BPD = sae.decode(codes, golden.prefixes);
    const D = golden.cfg.d_model;
    assertEquals(f_BS.shape, [golden.x.length / D, golden.cfg.d_sae]);
    assertEquals(x_hats_BPD.shape, [golden.x.length / D, golden.n_prefixes, D]);
    assertTensorClose(await f_BS.read(), golden.f_x, "f_x");
    assertTensorClose(await x_hats_BPD.read(), golden.x_hats, "x_hats");
    using output = sae.forward(golden.x);
    using whole = sae.decode(codes);
    assertEquals(whole.shape, [golden.x.length / D, D]);
    assertSameBits(await output.x_hat.read(), await whole.read(), "forward is decode after encode");
  });
}

for (const { name, problem, p } of everyProblem({ B: 7, D: 12, S: 37 }, 2)) {
  const { cfg, x_BD, prefixes } = problem;
  if (cfg.activation.aux.key === "auxk") continue;
  Deno.test(`codes are valid and reconstructions follow from them: ${name}`, async () => {
    using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice() });
    using codes = sae.encode(Float32Array.from(x_BD));
    const { row_starts, indices, values } = await codes.read();
    const f_BS = await checkedCodes(cfg, p, x_BD, { row_starts, indices, values });
    using dense = codes.dense();
    assertExact(await dense.read(), f_BS, "the dense view");
    using x_hats_BPD = sae.decode(codes, prefixes);
    assertTensorClose(await x_hats_BPD.read(), decode(f_BS, p.W_dec, p.b_dec, prefixes), "x_hats");
  });
}

Deno.test("TopK: ties go to the lowest index, negative values and zeros count", async () => {
  const options = { d_model: 1, d_sae: 6, activation: { key: "top-k", top_k: 3 } } as const;
  const parameters = {
    W_enc: Float32Array.of(1, 1, -1, 1, 1, 0),
    b_enc: new Float32Array(6),
    W_dec: new Float32Array(6),
    b_dec: new Float32Array(1),
  };
  using sae = await SparseAutoencoder.fromParameters(options, parameters, { device: await sharedDevice() });
  using codes = sae.encode(Float32Array.of(2, -3, 0));
  const { row_starts, indices, values } = await codes.read();
  assertEquals([...row_starts], [0, 3, 6, 9]);
  assertEquals([...indices.subarray(0, 9)], [0, 1, 3, 0, 2, 5, 0, 1, 2]);
  assertExact(values.subarray(0, 9), [2, 2, 2, -3, 3, 0, 0, 0, 0]);
});

Deno.test("parameters come back bit by bit", async () => {
  const p = narrow(randomParameters(new Random(3), { D: 12, S: 37 }));
  using sae = await SparseAutoencoder.fromParameters(SIZES, p, { device: await sharedDevice() });
  const again = await sae.readParameters();
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) assertSameBits(again[name], p[name], name);
});

Deno.test("the configuration is complete and frozen", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  assertEquals(sae.cfg, completeConfig(SIZES));
  assert(Object.isFrozen(sae.cfg));
  assertEquals(sae.input, { mean: null, scale: 1 });
});

Deno.test("create: the seed decides every bit", async () => {
  const device = await sharedDevice();
  const made = async (seed: number) => {
    using sae = await SparseAutoencoder.create(SIZES, { device, seed });
    return await sae.readParameters();
  };
  const [one, again, other] = [await made(1), await made(1), await made(2)];
  assertSameBits(one.W_enc, again.W_enc);
  assertSameBits(one.W_dec, again.W_dec);
  assert(one.W_dec.some((w, i) => w !== other.W_dec[i]));
});

Deno.test("create: as upstream of 2026, unit rows and an encoder that is their transpose", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice(), seed: 5 });
  const p = await sae.readParameters();
  const { d_model: D, d_sae: S } = SIZES;
  const unit_SD = Float64Array.from(p.W_dec);
  normalizeRows(unit_SD, D);
  assertUlps(p.W_dec, unit_SD, 1, 0, "W_dec");
  assertSameBits(p.W_enc, transpose(p.W_dec, S, D), "W_enc");
  assertExact(p.b_enc, new Float32Array(S));
  assertExact(p.b_dec, new Float32Array(D));
});

Deno.test("create: as upstream before August 2025, uniform with bounds from the second size", async () => {
  const options = { ...SIZES, subtract_b_dec: true, activation: { key: "relu" } } as const;
  using sae = await SparseAutoencoder.create(options, { device: await sharedDevice(), seed: 5 });
  const p = await sae.readParameters();
  for (const [values, bound] of [[p.W_enc, Math.sqrt(6 / 37)], [p.W_dec, Math.sqrt(6 / 12)]] as const) {
    assert(values.every((w) => Math.abs(w) <= bound));
    assert(values.some((w) => w > 0.9 * bound) && values.some((w) => w < -0.9 * bound));
  }
});

Deno.test("create: rows stay as they were drawn where the configuration says so", async () => {
  const options = { ...SIZES, normalize_w_dec: false };
  using sae = await SparseAutoencoder.create(options, { device: await sharedDevice(), seed: 5 });
  const before = await sae.readParameters();
  assert(before.W_dec.some((w) => Math.abs(w) > 0.9 * Math.sqrt(6 / 12)));
  sae.normalizeWDec();
  assertSameBits((await sae.readParameters()).W_dec, before.W_dec);
});

Deno.test("initBDec: the mean of the inputs as the model sees them", async () => {
  const random = new Random(13);
  const [x, mean] = [random.normal(30 * 12, 4), random.normal(12, 3)];
  const device = await sharedDevice();
  using plain = await SparseAutoencoder.create(SIZES, { device });
  using scaled = await SparseAutoencoder.create(SIZES, { device, input: { mean, scale: 2 } });
  await plain.initBDec(x);
  await scaled.initBDec(x);
  const p = widen(await plain.readParameters());
  assertTensorClose(p.b_dec, initBDec(p, Float64Array.from(x)).b_dec, "b_dec");
  const standard = initBDec(p, standardise(x, mean, 2));
  assertTensorClose((await scaled.readParameters()).b_dec, standard.b_dec, "b_dec of standardised inputs");
});

Deno.test("tensors are as good as arrays, and stay the caller's", async () => {
  const device = await sharedDevice();
  const x = new Random(14).normal(5 * 12);
  using sae = await SparseAutoencoder.create(SIZES, { device });
  using tensor = Tensor.from(contextOf(device), x, [5, 12], "x");
  using fromArray = sae.forward(x);
  using fromTensor = sae.forward(tensor);
  assertSameBits(await fromTensor.x_hat.read(), await fromArray.x_hat.read());
  assertSameBits(await tensor.read(), x);
  using flat = Tensor.from(contextOf(device), x, [60], "x");
  assertThrows(() => sae.forward(flat), ShapeError, "[60]");
  using other = Tensor.from(contextOf(device), x, [12, 5], "x");
  assertThrows(() => sae.forward(other), ShapeError, "[12, 5]");
});

Deno.test("codes of another dictionary are refused", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create(SIZES, { device });
  using other = await SparseAutoencoder.create({ ...SIZES, d_sae: 38 }, { device });
  using codes = other.encode(new Float32Array(12));
  assertThrows(() => sae.decode(codes), ShapeError, "38");
});

Deno.test("normalizeWDec: rows of unit length, zero rows untouched", async () => {
  const p = randomParameters(new Random(8), { D: 12, S: 37 });
  p.W_dec.fill(0, 12, 24);
  using sae = await SparseAutoencoder.fromParameters(SIZES, narrow(p), { device: await sharedDevice() });
  sae.normalizeWDec();
  normalizeRows(p.W_dec, 12);
  assertTensorClose((await sae.readParameters()).W_dec, p.W_dec, "W_dec");
});

Deno.test("standardised inputs: encoded by mean and scale, reconstructions brought back", async () => {
  const random = new Random(9);
  const cfg = completeConfig({ ...SIZES, activation: { key: "relu" } });
  const p = randomParameters(random, { D: 12, S: 37 });
  const mean = random.normal(12, 3);
  const scale = 2.5;
  const x = random.normal(5 * 12, 4);
  const input = { mean, scale };
  using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice(), input });
  assertEquals(sae.input, input);
  using output = sae.forward(x);
  const standard_BD = standardise(x, mean, scale);
  const f_BS = await checkedCodes(cfg, p, standard_BD, await output.f_x.read());
  const x_hat_BD = unstandardise(decode(f_BS, p.W_dec, p.b_dec, [37]), mean, scale);
  assertTensorClose(await output.x_hat.read(), x_hat_BD, "x_hat");
});

Deno.test("permuted latents permute the codes and leave the reconstruction", async () => {
  const device = await sharedDevice();
  const property = fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 }), async (seed) => {
    const random = new Random(seed);
    const cfg = completeConfig({ ...SIZES, activation: { key: "top-k", top_k: 5 } });
    const p = randomParameters(random, { D: 12, S: 37 });
    const order = random.permutation(37);
    const x = random.normal(4 * 12);
    using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device });
    using permuted = await SparseAutoencoder.fromParameters(cfg, narrow(permuteLatents(p, order)), { device });
    using before = sae.forward(x);
    using after = permuted.forward(x);
    assertTensorClose(await after.x_hat.read(), await before.x_hat.read(), "x_hat");
    using f_BS = before.f_x.dense();
    using g_BS = after.f_x.dense();
    const f = await f_BS.read();
    assertSameBits(await g_BS.read(), f.map((_, i) => f[i - i % 37 + order[i % 37]!]!), "f_x");
  });
  await fc.assert(property, { numRuns: 10, seed: 1 });
});

Deno.test("row blocks of any size give the same bits", async () => {
  const random = new Random(10);
  const sizes = { d_model: 80, d_sae: 250 };
  const p = narrow(randomParameters(random, { D: sizes.d_model, S: sizes.d_sae }));
  for (const [activation, B] of [[{ key: "relu" }, 60], [{ key: "top-k", top_k: 9 }, 150]] as const) {
    const x = random.normal(B * sizes.d_model);
    let wanted: Float32Array[] | undefined;
    for (const bindingLimit of [2 ** 27, 2 ** 18, 2 ** 16]) {
      const device = await freshDevice({ bindingLimit, guardWords: 64 });
      using sae = await SparseAutoencoder.fromParameters({ ...sizes, activation }, p, { device });
      using codes = sae.encode(x);
      using x_hats_BPD = sae.decode(codes, [1, 50, 250]);
      const { indices, values } = await codes.read();
      const found = [Float32Array.from(indices), values, await x_hats_BPD.read()];
      wanted ??= found;
      for (const [i, name] of ["indices", "values", "x_hats"].entries()) {
        assertSameBits(found[i]!, wanted[i]!, `${activation.key}, ${name} with bindings of ${bindingLimit} bytes`);
      }
      device.destroy();
    }
  }
});

Deno.test("more rows of a ReLU than a binding holds are refused, and the number that it names is not", async () => {
  const device = await freshDevice({ bindingLimit: 2 ** 16 });
  const options = { d_model: 80, d_sae: 250, activation: { key: "relu" } } as const;
  using sae = await SparseAutoencoder.create(options, { device });
  const { message } = assertThrows(() => sae.encode(new Float32Array(150 * 80)), RangeError, "at most");
  const most = Number(/at most (\d+) rows/.exec(message)![1]);
  using codes = sae.encode(new Float32Array(most * 80).fill(1));
  assertEquals((await codes.read()).row_starts.length, most + 1);
  device.destroy();
});

Deno.test("a NaN in x is never turned into a number", async () => {
  const x = new Random(11).normal(3 * 12);
  x[17] = NaN;
  for (
    const activation of [
      { key: "relu" },
      { key: "top-k", top_k: 4 },
      { key: "batch-top-k", top_k: 4 },
      { key: "jump-relu" },
      { key: "gated" },
    ] as const
  ) {
    using sae = await SparseAutoencoder.create({ ...SIZES, activation }, { device: await sharedDevice() });
    using output = sae.forward(x);
    const x_hat = await output.x_hat.read();
    assert(x_hat.subarray(12, 24).every(Number.isNaN), `${activation.key}: the row with NaN is NaN`);
    assert(x_hat.subarray(0, 12).every(Number.isFinite) && x_hat.subarray(24).every(Number.isFinite));
  }
});

Deno.test("refused: arrays that do not fit", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  assertThrows(() => sae.encode(new Float32Array(13)), ShapeError, "13");
  assertThrows(() => sae.forward(new Float32Array(11)), ShapeError, "11");
  await assertRejects(() => sae.initBDec(new Float32Array(7)), ShapeError, "7");
  await assertRejects(() => sae.initBDec(new Float32Array(0)), ShapeError, "0");
  assertThrows(() => sae.encode(new Float32Array(0)), ShapeError, "0");
  const p = narrow(randomParameters(new Random(12), { D: 12, S: 37 }));
  await assertRejects(
    async () => await SparseAutoencoder.fromParameters(SIZES, { ...p, W_enc: new Float32Array(3) }),
    ShapeError,
    "W_enc",
  );
  await assertRejects(
    async () => await SparseAutoencoder.fromParameters({ ...SIZES, d_sae: 36 }, p),
    ShapeError,
  );
});

Deno.test("refused: inputs of another kind, without rows, or on another device", async () => {
  const device = await sharedDevice();
  const elsewhere = await freshDevice();
  const context = contextOf(device);
  using sae = await SparseAutoencoder.create(SIZES, { device });
  using state = new TrainState(sae);
  using empty = new Tensor(context, "f32", [0, 12], "x");
  using words = new Tensor(context, "u32", [1, 12], "x");
  using distant = new Tensor(contextOf(elsewhere), "f32", [1, 12], "x");
  const refused: readonly (readonly [x: unknown, error: new (message: string) => Error, message: string])[] = [
    [new Float64Array(12), TypeError, "x must be Rows, a Float32Array or a Tensor, found Float64Array"],
    [new Array(12).fill(0), TypeError, "found Array"],
    [undefined, TypeError, "found Undefined"],
    [words, TypeError, "x must be a tensor of f32, found one of u32"],
    [empty, ShapeError, "x must be [B, d_model 12] of one or more rows, found [0, 12]"],
    [distant, DeviceError, "x lies on another device than the model"],
  ];
  const objective = getObjective({ key: "vanilla" });
  for (const [found, error, message] of refused) {
    const x = found as Float32Array;
    assertThrows(() => sae.encode(x), error, message);
    assertThrows(() => objective.lossAndGradients(sae, x, { state }), error, message);
    await assertRejects(() => objective.loss(sae, x), error, message);
    await assertRejects(() => evaluate(sae, [x]), error, message);
    await assertRejects(() => Array.fromAsync(train(sae, objective, [x])), error, message);
  }
  using codes = sae.encode(new Float32Array(12));
  assertEquals((await codes.read()).row_starts.length, 2, "the device continues");
  elsewhere.destroy();
});

Deno.test("refused: prefixes that are none", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using codes = sae.encode(new Float32Array(12));
  for (const prefixes of [[], [0, 37], [5, 5, 37], [7, 3, 37], [1, 36], [1.5, 37]]) {
    assertThrows(() => sae.decode(codes, prefixes), RangeError, "prefix");
  }
});

Deno.test("refused: standardisation by nothing", async () => {
  const device = await sharedDevice();
  for (const scale of [0, -1, NaN, Infinity]) {
    await assertRejects(
      async () => await SparseAutoencoder.create(SIZES, { device, input: { mean: null, scale } }),
      RangeError,
      "scale",
    );
  }
  await assertRejects(
    async () => await SparseAutoencoder.create(SIZES, { device, input: { mean: new Float32Array(3), scale: 1 } }),
    ShapeError,
    "mean",
  );
  const mean = new Float32Array(12).fill(NaN, 5);
  await assertRejects(
    async () => await SparseAutoencoder.create(SIZES, { device, input: { mean, scale: 1 } }),
    RangeError,
    "the mean of the inputs must be finite, found NaN in column 5",
  );
});

Deno.test("after dispose, use throws and names what was used", async () => {
  const sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  const output = sae.forward(new Float32Array(12));
  output[Symbol.dispose]();
  await assertRejects(() => output.x_hat.read(), Error, "x_hat");
  sae[Symbol.dispose]();
  sae[Symbol.dispose]();
  assertThrows(() => sae.encode(new Float32Array(12)), Error, "was used after it was disposed of");
  await assertRejects(() => sae.readParameters(), Error, "was used after it was disposed of");
});

Deno.test("outputs outlive their model, and belong to the caller", async () => {
  const sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using output = sae.forward(new Float32Array(12).fill(1));
  const before = await output.x_hat.read();
  sae[Symbol.dispose]();
  assertSameBits(await output.x_hat.read(), before);
});

/** Codes as a dense array, after checking that they are a valid selection with the right values. */
function checkedCodes(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  x_BD: Float64Array,
  codes: { readonly row_starts: Uint32Array; readonly indices: Uint32Array; readonly values: Float32Array },
): Float64Array {
  const { d_model: D, d_sae: S, activation } = cfg;
  const B = x_BD.length / D;
  const h_BS = encode(cfg, p, x_BD);
  const bound_BS = seededBound(absoluteSums(cfg, p, x_BD), D + 1);
  const f_BS = new Float64Array(B * S);
  for (let b = 0; b < B; b++) {
    const [from, to] = [codes.row_starts[b]!, codes.row_starts[b + 1]!];
    const row = codes.indices.subarray(from, to);
    assert(row.every((s, i) => i === 0 || s > row[i - 1]!), `row ${b}: indices ascend`);
    row.forEach((s, i) => f_BS[b * S + s] = codes.values[from + i]!);
    if (activation.key === "top-k") {
      assertEquals(row.length, Math.min(activation.top_k, S));
      assertValidSelection(new Set(row), h_BS.subarray(b * S, b * S + S), bound_BS.subarray(b * S, b * S + S));
    } else assert(row.every((_, i) => codes.values[from + i]! > 0), `row ${b}: codes are positive`);
  }
  // Whatever exceeds its threshold by more than rounding is there, and nothing that lies below it by as much.
  if (activation.key !== "top-k") {
    h_BS.forEach((h, i) => {
      const beyond = h - Math.max(p.threshold?.[i % S] ?? 0, 0);
      if (Math.abs(beyond) > bound_BS[i]!) assertEquals(f_BS[i] !== 0, beyond > 0, `latent ${i % S} fires`);
    });
  }
  const wanted_BS = h_BS.map((h, i) => f_BS[i] !== 0 ? h : 0);
  if (activation.key === "relu") h_BS.forEach((h, i) => wanted_BS[i] = Math.max(h, 0));
  assertTensorClose(f_BS, wanted_BS, "f_x");
  return f_BS;
}

/** Σ|xᵢwᵢ| + |b|, what the rounding of h is measured by. */
function absoluteSums(cfg: SparseAutoencoderConfig, p: Parameters, x_BD: Float64Array): Float64Array {
  const absolute = {
    W_enc: p.W_enc.map(Math.abs),
    b_enc: p.b_enc.map(Math.abs),
    W_dec: p.W_dec,
    b_dec: p.b_dec.map((b) => -Math.abs(b)),
  };
  return encode(cfg, absolute, x_BD.map(Math.abs));
}

function permuteLatents(p: Parameters, order: Uint32Array): Parameters {
  const S = order.length;
  const D = p.b_dec.length;
  return widen({
    W_enc: p.W_enc.map((_, i) => p.W_enc[i - i % S + order[i % S]!]!),
    b_enc: p.b_enc.map((_, s) => p.b_enc[order[s]!]!),
    W_dec: p.W_dec.map((_, i) => p.W_dec[order[Math.floor(i / D)]! * D + i % D]!),
    b_dec: p.b_dec,
  });
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** Values in pieces of the given lengths, over and over; the pieces do not stay what they were. */
async function* inPieces(values: Float32Array, ...lengths: number[]): AsyncGenerator<Float32Array> {
  const piece = new Float32Array(Math.max(...lengths));
  for (let at = 0, i = 0; at < values.length; i++) {
    const part = values.subarray(at, at + lengths[i % lengths.length]!);
    piece.set(part);
    at += part.length;
    yield await Promise.resolve(piece.subarray(0, part.length));
  }
}

Deno.test("values that arrive in pieces make the model that they make at once, whichever way a matrix lies", async () => {
  const device = await sharedDevice();
  for (const key of ["relu", "batch-top-k", "jump-relu"] as const) {
    for (const [d_model, d_sae] of [[12, 37], [1, 3], [5, 1]] as const) {
      const random = new Random(d_sae);
      const options = { d_model, d_sae, activation: { key } };
      const n_thresholds = { "relu": 0, "batch-top-k": 1, "jump-relu": d_sae }[key];
      const matrices = { W_enc: random.normal(d_model * d_sae), W_dec: random.normal(d_model * d_sae) };
      const vectors = { b_enc: random.normal(d_sae), b_dec: random.normal(d_model) };
      const threshold = n_thresholds > 0 ? { threshold: random.normal(n_thresholds) } : {};
      const values = { ...matrices, ...vectors, ...threshold };
      for (const isTransposed of [false, true]) {
        const sizes = { W_enc: [d_model, d_sae], W_dec: [d_sae, d_model] } as const;
        const pieces = Object.fromEntries(
          Object.entries(values).map(([name, data]) => {
            const [rows, columns] = isTransposed && name in sizes ? sizes[name as "W_enc"] : [1, data.length];
            const order = data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
            return [name, { pieces: inPieces(order, 7, 1, 40), isTransposed: rows > 1 }];
          }),
        ) as unknown as PiecewiseParameters;
        using sae = await SparseAutoencoder.fromPieces(options, pieces, { device });
        assertEquals(await sae.readParameters(), values, `${key}, ${d_model} × ${d_sae}, ${isTransposed}`);
        using again = await SparseAutoencoder.fromPieces(options, sae.readPieces(), { device });
        assertEquals(await again.readParameters(), values, `${key}, ${d_model} × ${d_sae}, read in pieces`);
      }
    }
  }
});

Deno.test("a matrix of more rows than are transposed at once comes out whole", async () => {
  const [d_model, d_sae] = [260, 9000];
  const W_enc = Float32Array.from({ length: d_model * d_sae }, (_, i) => i % 65_521);
  const zeros = (length: number) => ({ pieces: inPieces(new Float32Array(length), length), isTransposed: false });
  using sae = await SparseAutoencoder.fromPieces({ d_model, d_sae, activation: { key: "relu" } }, {
    W_enc: { pieces: inPieces(W_enc, 100_001), isTransposed: false },
    b_enc: zeros(d_sae),
    W_dec: zeros(d_sae * d_model),
    b_dec: zeros(d_model),
  }, { device: await sharedDevice() });
  assertExact((await sae.readParameters()).W_enc, W_enc);
});

Deno.test("pieces that are too few or too many are refused by name, and what they throw is thrown on", async () => {
  const device = await sharedDevice();
  const whole = (length: number) => ({ pieces: inPieces(new Float32Array(length), 100), isTransposed: false });
  const good = () => ({ W_enc: whole(12 * 37), b_enc: whole(37), W_dec: whole(12 * 37), b_dec: whole(12) });
  for (const [name, size] of [["W_enc", 12 * 37], ["W_dec", 12 * 37], ["b_dec", 12]] as const) {
    for (const length of [size - 1, size + 1]) {
      const pieces = { ...good(), [name]: whole(length) };
      await assertRejects(() => SparseAutoencoder.fromPieces(SIZES, pieces, { device }), ShapeError, name);
    }
  }
  async function* broken(): AsyncGenerator<Float32Array> {
    yield await Promise.resolve(new Float32Array(3));
    throw new RangeError("the file ends here");
  }
  const pieces = { ...good(), W_dec: { pieces: broken(), isTransposed: false } };
  await assertRejects(() => SparseAutoencoder.fromPieces(SIZES, pieces, { device }), RangeError, "the file ends here");
});

Deno.test("unknown options are refused, with the nearest one, wherever a model or a state is made", async () => {
  const device = await sharedDevice();
  const sizes = { d_model: 4, d_sae: 8 };
  const wrong = { device, sead: 1 } as { device: GPUDevice };
  await assertRejects(() => SparseAutoencoder.create(sizes, wrong), TypeError, 'no option "sead"; did you mean seed?');
  using sae = await SparseAutoencoder.create(sizes, { device });
  const parameters = await sae.readParameters();
  const half = { device, weight: "f16" } as { device: GPUDevice };
  await assertRejects(
    () => SparseAutoencoder.fromParameters(sizes, parameters, half),
    TypeError,
    "did you mean weights?",
  );
  assertThrows(() => new TrainState(sae, { optimiser: "muon" } as object), TypeError, "did you mean optimizer?");
});
