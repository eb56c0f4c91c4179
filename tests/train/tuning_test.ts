/** Whatever the tuner finds, training gives the same bytes. @module */
import { assert, assertEquals } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import type { TileName } from "../../kernels/matmul_tiles.ts";
import { tune } from "../../kernels/engine/tuner.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { getObjective } from "../../objectives/objective.ts";
import { train } from "../../train/train.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertSameBits } from "../support/tolerance.ts";

const [B, D, S] = [35, 20, 48];

/** The parameters after three steps. */
async function trained(device: GPUDevice, activation: ActivationOptions): Promise<Float32Array[]> {
  const random = new Random(5);
  const batches = [0, 1, 2].map(() => random.normal(B * D));
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation }, { device });
  const objective = getObjective({ key: "vanilla" });
  for await (const _ of train(sae, objective, batches, { lr: 1e-2, n_lr_warmup: 0 }));
  const { W_enc, b_enc, W_dec, b_dec } = await sae.readParameters();
  return [W_enc, b_enc, W_dec, b_dec];
}

/** Throws where the parameters after three steps depend on the tile. */
async function assertSame(
  activation: ActivationOptions,
  choose: (device: GPUDevice) => AsyncIterable<TileName>,
): Promise<void> {
  const device = await sharedDevice();
  const want = await trained(device, activation);
  for await (const tile of choose(device)) {
    const got = await trained(device, activation);
    got.forEach((values, at) => assertSameBits(values, want[at]!, `${tile}, parameter ${at}`));
  }
  contextOf(device).tuned.clear();
}

Deno.test("a sparse step gives the same bytes whatever turns out to be the fastest", async () => {
  await assertSame({ key: "top-k", top_k: 4 }, async function* (device) {
    const shapes = [{ layout: "nt", M: B, N: S, K: D }] as const;
    const lead = (fastest: TileName) =>
      tune(device, { shapes, budget: 1000, time: (_, tile) => Promise.resolve(tile === fastest ? 1 : 10) });
    const [first] = await lead("register 8x8");
    assert(first!.tiles.length > 5);
    for (const { tile } of first!.tiles) {
      const [tuning] = await lead(tile);
      assertEquals(tuning!.chosen, tile);
      yield tile;
    }
  });
});

Deno.test("a dense step gives the same bytes with other tiles in all its products", async () => {
  await assertSame({ key: "relu" }, async function* (device) {
    const { tuned } = contextOf(device);
    for (const tile of ["register 4x4", "workgroup 4x4"] as const) {
      for (const layout of ["nn", "nt", "tn"]) tuned.set(`${layout}, small`, tile);
      yield await Promise.resolve(tile);
    }
  });
});
