/**
 * The coherence of a dictionary against the cosines of all pairs, in one block and in many, and what it holds at a time.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { measureCoherence, slowCoherence } from "../../eval/coherence.ts";
import { largestCosines } from "../reference/metrics.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../support/tolerance.ts";

/** A model with these decoder rows. */
function withRows(W_dec: Float32Array, d_model: number, device: GPUDevice): Promise<SparseAutoencoder> {
  const d_sae = W_dec.length / d_model;
  const p = { W_enc: new Float32Array(W_dec.length), b_enc: new Float32Array(d_sae), b_dec: new Float32Array(d_model) };
  return SparseAutoencoder.fromParameters({ d_model, d_sae }, { ...p, W_dec }, { device });
}

Deno.test("the coherence is the largest cosine of two rows, whatever their length", async () => {
  const random = new Random(1);
  for (const [S, D] of [[2, 1], [3, 5], [64, 12], [130, 31], [700, 8]] as const) {
    const W_dec = random.normal(S * D).map((value, i) => value * (1 + Math.floor(i / D)));
    using sae = await withRows(W_dec, D, await sharedDevice());
    const { max, mean_max: mean, per_latent: found } = await measureCoherence(sae);
    const want = largestCosines(Float64Array.from(W_dec), D);
    // Σ |ŵᵢ ŵⱼ| is at most 1.
    assertSumClose(found, want, 1, D, `${S} rows of ${D}`);
    assertSumClose([max, mean], [Math.max(...want), want.reduce((sum, cosine) => sum + cosine) / S], 1, D);
    assertSameBits((await sae.readParameters()).W_dec, W_dec, "W_dec");
  }
});

Deno.test("the same direction and the opposite one have 1, right angles and zeros 0, one row alone nothing", async () => {
  const device = await sharedDevice();
  using sae = await withRows(Float32Array.of(0.3, 0.3, 0.1, 0.1, -1, -1, 5, -5, 0, 0), 2, device);
  const { max, mean_max: mean, per_latent: found } = await measureCoherence(sae);
  assertSumClose(found, [1, 1, 1, 0, 0], 1, 2);
  assertSumClose([max, mean], [1, 0.6], 1, 2);
  assert(max <= 1, "no cosine is above 1");
  using one = await withRows(Float32Array.of(1, 2), 2, device);
  assertEquals(await measureCoherence(one), { max: NaN, mean_max: NaN, per_latent: Float32Array.of(NaN) });
  using broken = await withRows(Float32Array.of(1, 2, NaN, 1, 1, 1), 2, device);
  assertExact([(await measureCoherence(broken)).max], [NaN]);
});

Deno.test("row blocks of any size give the same bits", async () => {
  const [S, D] = [200, 90];
  const W_dec = new Random(2).normal(S * D);
  let wanted: Float32Array | undefined;
  for (const bindingLimit of [2 ** 27, 2 ** 17, 2 ** 16]) {
    const device = await freshDevice({ bindingLimit, guardWords: 64 });
    using sae = await withRows(W_dec, D, device);
    const { per_latent: found } = await measureCoherence(sae);
    wanted ??= found;
    assertSameBits(found, wanted, `bindings of ${bindingLimit} bytes`);
    device.destroy();
  }
});

Deno.test("the cosines of all pairs are never there at once", async () => {
  const S = 1100;
  const device = await freshDevice();
  using sae = await withRows(new Random(3).normal(S), 1, device);
  const sizes: number[] = [];
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    sizes.push(descriptor.size);
    return createBuffer(descriptor);
  };
  await measureCoherence(sae);
  assert(Math.max(...sizes) < 4 * S * S, `a buffer of ${Math.max(...sizes)} bytes`);
  device.destroy();
});

Deno.test("it says how far it is, and ends between some rows and the next", async () => {
  const [S, D] = [1200, 3];
  using sae = await withRows(new Random(4).normal(S * D), D, await sharedDevice());
  const seen: number[] = [];
  await measureCoherence(sae, { onProgress: (done) => seen.push(done) });
  assertEquals(seen, [512, 1024, 1200]);
  for (const last of [0, 512, 1024]) {
    const [aborter, reason] = [new AbortController(), new Error("enough")];
    const told: number[] = [];
    const onProgress = (done: number): void => {
      told.push(done);
      if (done >= last) aborter.abort(reason);
    };
    if (last === 0) aborter.abort(reason);
    const error = await assertRejects(() => measureCoherence(sae, { signal: aborter.signal, onProgress }), Error);
    assertEquals([error === reason, told.at(-1) ?? 0], [true, last]);
  }
});

Deno.test("what takes more than some minute is known before", () => {
  const model = (d_sae: number, isFallbackAdapter: boolean) =>
    ({ cfg: { d_sae, d_model: 1000 }, device: { adapterInfo: { isFallbackAdapter } } }) as unknown as SparseAutoencoder;
  assertEquals(slowCoherence(model(31_622, true)), null);
  assertEquals(
    slowCoherence(model(31_623, true)),
    "coherence is not measured: it takes 31623² · 1000 multiply-adds, more than 1e+12",
  );
  assertEquals(slowCoherence(model(316_227, false)), null);
  assertEquals(slowCoherence(model(316_228, false)) === null, false);
});
