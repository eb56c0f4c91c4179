/**
 * How well a dictionary knows a world: by hand, and of one that knows everything.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { makeDirections } from "../../../bench/synth/directions.ts";
import {
  absoluteCosines,
  bestFeatures,
  Detection,
  evaluateInWorld,
  meanAssigned,
} from "../../../bench/synth/metrics.ts";
import { Samples } from "../../../bench/synth/samples.ts";
import { makeWorld } from "../../../bench/synth/world.ts";
import { contextOf, type DeviceContext } from "../../../kernels/engine/device.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import type { CodeArrays } from "../../../nn/codes.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { freshDevice, sharedDevice } from "../../support/gpu.ts";
import { Random } from "../../support/random.ts";
import { assertFloat64Close, assertTensorClose } from "../../support/tolerance.ts";
import { worldConfig } from "./worlds.ts";

/** Rows given as lists of what is in them; negative ones stand for entries of value 0. */
function codes(...rows: number[][]): CodeArrays {
  const entries = rows.flat();
  return {
    row_starts: Uint32Array.from([0, ...rows.map((_, row) => rows.slice(0, row + 1).flat().length)]),
    indices: Uint32Array.from(entries, Math.abs),
    values: Float32Array.from(entries, (entry) => entry < 0 ? 0 : 2),
  };
}

Deno.test("F1, precision and recall are means over latents, 0 for the dead, and do not see batches", () => {
  // Latents 0 and 1 stand for feature 3, latent 2 for feature 1, latent 3 for feature 0.
  const best = Int32Array.of(3, 3, 1, 0);
  const fired = [[0, 2], [0], [1, -2], []];
  const on = [[3], [0, -3], [1, 3], [0, 3]];
  // 0: fires twice, once rightly, of 3. 1: once, rightly, of 3. 2: once, wrongly. 3: never.
  const want = [(2 / 5 + 2 / 4) / 4, (1 / 2 + 1) / 4, (1 / 3 + 1 / 3) / 4];
  for (const split of [4, 1]) {
    const detection = new Detection(best, 4);
    for (let row = 0; row < 4; row += split) {
      detection.add(codes(...fired.slice(row, row + split)), codes(...on.slice(row, row + split)));
    }
    const { f1, precision, recall } = detection.result();
    assertFloat64Close([f1, precision, recall], want, `batches of ${split}`);
  }
});

Deno.test("the best feature is the first of the largest, and MCC takes none twice", async () => {
  const cosines = Float32Array.of(0.5, 0.875, 0.875, 0.25, 0.75, 0);
  assertEquals([...bestFeatures(cosines, 3)], [1, 1]);
  assertFloat64Close([await meanAssigned(cosines, 2, 3)], [(0.875 + 0.75) / 2]);
});

Deno.test("cosines do not see lengths and signs, whatever fits a binding", async () => {
  const random = new Random(1);
  const [S, F, D] = [130, 40, 16];
  const unit = (row: Float32Array) => row.map((value) => value / Math.hypot(...row));
  const W_dec = random.normal(S * D, 3);
  const directions_FD = new Float32Array(F * D);
  for (let f = 0; f < F; f++) directions_FD.set(unit(random.normal(D)), f * D);
  const want = Float64Array.from({ length: S * F }, (_, i) => {
    const row = unit(W_dec.subarray(Math.floor(i / F) * D, (Math.floor(i / F) + 1) * D));
    return Math.abs(row.reduce((sum, value, d) => sum + value * directions_FD[(i % F) * D + d]!, 0));
  });
  for (const options of [{}, { bindingLimit: 16384 }]) {
    const context: DeviceContext = contextOf(await freshDevice(options));
    using directions = Tensor.from(context, directions_FD, [F, D], "directions");
    assertTensorClose(await absoluteCosines(context, W_dec, directions), want, JSON.stringify(options));
    context.device.destroy();
  }
});

Deno.test("a dictionary that is the world's own knows everything", async () => {
  const device = await sharedDevice();
  const context = contextOf(device);
  // As many directions as dimensions, pushed to be orthogonal; strengths far above a threshold.
  const cfg = worldConfig({
    n_features: 12,
    d_model: 16,
    strength: { first: 5, last: 4, spread: 0.01 },
    orthogonalisation: { steps: 400, lr: 1e-2 },
  });
  const world = makeWorld(cfg);
  using directions = makeDirections(context, cfg);
  using samples = new Samples(context, world, directions, 64);
  const W_dec = await directions.read();
  const W_enc = Float32Array.from(W_dec, (_, i) => W_dec[(i % 12) * 16 + Math.floor(i / 12)]!);
  const b_enc = Float32Array.from(
    { length: 12 },
    (_, f) => -samples.bias_D.reduce((sum, value, d) => sum + value * W_dec[f * 16 + d]!, 0),
  );
  const parameters = { W_enc, b_enc, W_dec, b_dec: samples.bias_D, threshold: new Float32Array(12).fill(1) };
  const options = { d_model: 16, d_sae: 12, activation: { key: "jump-relu" } } as const;
  using sae = await SparseAutoencoder.fromParameters(options, parameters, { device });
  const metrics = await evaluateInWorld(sae, samples, { seed: 5, n_batches: 4 });
  assertEquals([metrics.f1, metrics.precision, metrics.recall, metrics.uniqueness, metrics.n_dead], [1, 1, 1, 1, 0]);
  assertTensorClose([metrics.mcc, metrics.ev], [1, 1], "MCC and explained variance");
});
