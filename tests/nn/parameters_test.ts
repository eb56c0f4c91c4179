/**
 * Weights that lie as f16: the model computes what one with the rounded values does, in half of the memory, and is not
 * trained.
 *
 * @module
 */

import { ownValues } from "../../nn/activations/mod.ts";
import { completeConfig } from "../../nn/config.ts";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { KernelError } from "../../kernels/engine/errors.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { InputScaling, ParameterArrays, PiecewiseParameters } from "../../nn/arrays.ts";
import type { SparseAutoencoderOptions } from "../../nn/config.ts";
import { type OpeningOptions, SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { train } from "../../train/train.ts";
import { narrow } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { countBuffers, freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";

const ACTIVATIONS: readonly ActivationOptions[] = [
  { key: "relu" },
  { key: "top-k", top_k: 5 },
  { key: "batch-top-k", top_k: 5 },
  { key: "jump-relu" },
  { key: "gated" },
];

/** Parameters of a model, with values between f16 ones, some too small to be normal f16 values. */
function parametersOf(
  { d_model, d_sae, activation }: Required<Pick<SparseAutoencoderOptions, "d_model" | "d_sae" | "activation">>,
) {
  const random = new Random(d_model * d_sae);
  const p = narrow(randomParameters(random, { D: d_model, S: d_sae }));
  for (let i = 0; i < p.W_dec.length; i += 7) p.W_dec[i]! *= 1e-5;
  const cfg = completeConfig({ d_model, d_sae, activation });
  const own = Object.entries(ownValues(cfg, {}, 1)).map(([name, { length }]) => [
    name,
    random.normal(length).map(Math.abs),
  ]);
  return { ...p, ...Object.fromEntries(own) } as typeof p;
}

/** The same with the matrices' values rounded to f16. */
function rounded(p: ParameterArrays): ParameterArrays {
  return { ...p, W_enc: p.W_enc.map(Math.f16round), W_dec: p.W_dec.map(Math.f16round) };
}

/** A model with f16 weights, and a float32 model with the same values. */
async function both(options: SparseAutoencoderOptions, p: ParameterArrays, placement: OpeningOptions) {
  using stack = new DisposableStack();
  const f16 = stack.use(await SparseAutoencoder.fromParameters(options, p, { ...placement, weights: "f16" }));
  const floats = stack.use(await SparseAutoencoder.fromParameters(options, rounded(p), placement));
  return { f16, floats, owned: stack.move() };
}

/** Codes and reconstructions of every prefix. */
async function outputs(sae: SparseAutoencoder, x: Float32Array, prefixes: readonly number[]): Promise<Float32Array[]> {
  using codes = sae.encode(x);
  using x_hats = sae.decode(codes, prefixes);
  using out = sae.forward(x);
  const { row_starts, indices, values } = await codes.read();
  return [
    Float32Array.from(row_starts),
    Float32Array.from(indices),
    values,
    await x_hats.read(),
    await out.x_hat.read(),
  ];
}

const NAMES = ["row_starts", "indices", "values", "x_hats", "x_hat"];

Deno.test("f16 weights give the bits of float32 weights with their values, whatever the shape and the activation", async () => {
  const device = await sharedDevice();
  const input: InputScaling = { mean: null, scale: 2.5 };
  for (const activation of ACTIVATIONS) {
    for (const [d_model, d_sae] of [[1, 5], [5, 7], [6, 37], [12, 65]] as const) {
      const options = { d_model, d_sae, activation, subtract_b_dec: d_model === 6 };
      const { f16, floats, owned } = await both(options, parametersOf(options), { device, input });
      using _ = owned;
      const x = new Random(3).normal(9 * d_model);
      const prefixes = d_sae === 5 ? [d_sae] : [1, 5, 6, d_sae];
      const [found, wanted] = [await outputs(f16, x, prefixes), await outputs(floats, x, prefixes)];
      for (const [i, name] of NAMES.entries()) {
        assertSameBits(found[i]!, wanted[i]!, `${activation.key}, ${d_model} × ${d_sae}, ${name}`);
      }
    }
  }
});

Deno.test("row blocks and textures of f16 weights change no bit", async () => {
  for (const [d_model, d_sae] of [[150, 250], [151, 250]] as const) {
    const options = { d_model, d_sae, activation: { key: "top-k", top_k: 9 } } as const;
    const p = parametersOf(options);
    const x = new Random(4).normal(20 * d_model);
    let wanted: Float32Array[] | undefined;
    for (const limits of [{}, { bindingLimit: 2 ** 16 }, { textureCopyBytes: 16 }, { textureCopyBytes: Infinity }]) {
      const device = await freshDevice({ ...limits, guardWords: 64 });
      const { f16, floats, owned } = await both(options, p, { device });
      wanted ??= await outputs(floats, x, [1, 50, d_sae]);
      const found = await outputs(f16, x, [1, 50, d_sae]);
      for (const [i, name] of NAMES.entries()) {
        assertSameBits(found[i]!, wanted[i]!, `d_model ${d_model}, ${name} with ${JSON.stringify(limits)}`);
      }
      owned.dispose();
      device.destroy();
    }
  }
});

Deno.test("metrics and losses of f16 weights are those of their values", async () => {
  const device = await sharedDevice();
  for (const activation of ACTIVATIONS) {
    const options = { d_model: 7, d_sae: 90, activation };
    const { f16, floats, owned } = await both(options, parametersOf(options), { device });
    using _ = owned;
    const x = new Random(5).normal(30 * 7);
    assertEquals(await evaluate(f16, [x]), await evaluate(floats, [x]));
    const objective = getObjective({ key: "matryoshka", n_prefixes: 3 });
    const given = { prefixes: [1, 65, 90] };
    const wanted = await objective.loss(floats, x, given);
    assertEquals(await objective.loss(f16, x, given), wanted, activation.key);
  }
});

/** Values in pieces of odd and even lengths. */
async function* inPieces(values: Float32Array): AsyncGenerator<Float32Array> {
  for (let at = 0, length = 1; at < values.length; at += length, length = 1 + (length * 5) % 11) {
    yield await Promise.resolve(values.slice(at, at + length));
  }
}

Deno.test("f16 weights that arrive in pieces are those that are there at once, whichever way a matrix lies, and come back", async () => {
  const device = await sharedDevice();
  for (const [d_model, d_sae] of [[12, 37], [5, 9], [1, 3], [7, 1]] as const) {
    const options = { d_model, d_sae, activation: { key: "jump-relu" } } as const;
    const p = parametersOf(options);
    for (const isTransposed of [false, true]) {
      const pieces = Object.fromEntries(
        Object.entries(p).map(([name, values]: [string, Float32Array]) => {
          const isMatrix = isTransposed && name.startsWith("W");
          const [rows, columns] = name === "W_enc" ? [d_model, d_sae] : [d_sae, d_model];
          const order = isMatrix ? values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!) : values;
          return [name, { pieces: inPieces(order), isTransposed: isMatrix }];
        }),
      ) as unknown as PiecewiseParameters;
      using sae = await SparseAutoencoder.fromPieces(options, pieces, { device, weights: "f16" });
      assertEquals(await sae.readParameters(), rounded(p), `${d_model} × ${d_sae}, ${isTransposed}`);
      using again = await SparseAutoencoder.fromPieces(options, sae.readPieces(), { device });
      assertEquals(await again.readParameters(), rounded(p), `${d_model} × ${d_sae}, read in pieces`);
    }
  }
});

Deno.test("f16 weights of more rows than are transposed at once come out whole", async () => {
  const [d_model, d_sae] = [260, 9001];
  const W_enc = Float32Array.from({ length: d_model * d_sae }, (_, i) => i % 2039);
  const of = (values: Float32Array) => ({ pieces: inLongPieces(values), isTransposed: false });
  async function* inLongPieces(values: Float32Array): AsyncGenerator<Float32Array> {
    for (let at = 0; at < values.length; at += 100_001) yield await Promise.resolve(values.subarray(at, at + 100_001));
  }
  using sae = await SparseAutoencoder.fromPieces({ d_model, d_sae, activation: { key: "relu" } }, {
    W_enc: of(W_enc),
    b_enc: of(new Float32Array(d_sae)),
    W_dec: of(new Float32Array(d_sae * d_model)),
    b_dec: of(new Float32Array(d_model)),
  }, { device: await sharedDevice(), weights: "f16" });
  assertExact((await sae.readParameters()).W_enc, W_enc);
});

Deno.test("a model of f16 weights takes half of the bytes", async () => {
  const options = { d_model: 64, d_sae: 512 };
  const p = parametersOf({ ...options, activation: { key: "relu" } });
  const bytes: number[] = [];
  for (const weights of ["f32", "f16"] as const) {
    const device = await freshDevice();
    using _first = await SparseAutoencoder.fromParameters(
      { d_model: 1, d_sae: 1 },
      parametersOf({ d_model: 1, d_sae: 1, activation: { key: "relu" } }),
      { device },
    );
    const { sizes } = countBuffers(device);
    using _sae = await SparseAutoencoder.fromParameters(options, p, { device, weights });
    bytes.push(sizes.reduce((sum, size) => sum + size, 0));
    device.destroy();
  }
  // Biases, the inputs' mean and a threshold are float32 in both.
  const rest = 4 * (512 + 64 + 64) + 16;
  assertEquals(bytes, [2 * 4 * 64 * 512 + rest, 2 * 2 * 64 * 512 + rest]);
});

Deno.test("a weight beyond the largest f16 value is an error that names matrix and value, however it arrives", async () => {
  const device = await sharedDevice();
  const options = { d_model: 4, d_sae: 3 };
  const p = parametersOf({ ...options, activation: { key: "top-k" } });
  const large = (name: "W_enc" | "W_dec") => ({ ...p, [name]: p[name].with(5, -70_000) });
  for (const name of ["W_enc", "W_dec"] as const) {
    const values = large(name);
    const message = `${name}: -70000 is beyond the largest f16 value, 65504`;
    const opening = { device, weights: "f16" } as const;
    await assertRejects(() => SparseAutoencoder.fromParameters(options, values, opening), RangeError, message);
    const pieces = Object.fromEntries(
      Object.entries(values).map(([name, data]) => [name, { pieces: inPieces(data), isTransposed: false }]),
    ) as unknown as PiecewiseParameters;
    await assertRejects(() => SparseAutoencoder.fromPieces(options, pieces, opening), RangeError, message);
    using _floats = await SparseAutoencoder.fromParameters(options, values, { device });
  }
  // Biases are float32.
  const b_enc = p.b_enc.with(1, 70_000);
  using sae = await SparseAutoencoder.fromParameters(options, { ...p, b_enc }, { device, weights: "f16" });
  assertSameBits((await sae.readParameters()).b_enc, b_enc);
});

Deno.test("weights of another kind are refused", async () => {
  const device = await sharedDevice();
  const options = { d_model: 4, d_sae: 3 };
  const opening = { device, weights: "f8" } as unknown as OpeningOptions;
  const p = parametersOf({ ...options, activation: { key: "top-k" } });
  await assertRejects(
    () => SparseAutoencoder.fromParameters(options, p, opening),
    RangeError,
    'weights must be f32 or f16, found "f8"',
  );
});

Deno.test("a model of f16 weights is not trained, by any way", async () => {
  const device = await sharedDevice();
  const options = { d_model: 4, d_sae: 6, activation: { key: "top-k", top_k: 2 } } as const;
  const { f16, floats, owned } = await both(options, parametersOf(options), { device });
  using _ = owned;
  assertEquals([f16.parameters.weights, floats.parameters.weights], ["f16", "f32"]);
  const before = await f16.readParameters();
  const x = new Random(6).normal(5 * 4);
  const message = "training takes a model with weights f32, found one with weights f16";
  for (const key of ["adam", "muon"] as const) {
    const run = train(f16, getObjective({ key: "vanilla" }), [x], { optimizer: { key } });
    await assertRejects(() => run.next(), TypeError, message);
  }
  assertThrows(() => new TrainState(f16), TypeError, message);
  // Nor with the state of another model, and any kernel that would write weights is an error.
  using state = new TrainState(floats);
  const run = train(f16, getObjective({ key: "vanilla" }), [x], { state });
  await assertRejects(() => run.next(), RangeError, "the state was made for another model");
  assertThrows(() => f16.normalizeWDec(), KernelError, "W_dec holds f16");
  assertEquals(await f16.readParameters(), before);
});
