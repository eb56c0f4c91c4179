/**
 * What a step needs of memory: nothing of the size of all pre-activations of a large batch, and reconstructions of as many
 * rows as a binding holds, however many there are.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { watchBuffers } from "../../bench/buffers.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import { ElementwiseCodes, keepsBatch } from "../../nn/elementwise_codes.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { StepBuffers } from "../../nn/step_buffers.ts";
import { LossTerms } from "../../objectives/terms.ts";
import { freshDevice } from "../support/gpu.ts";

const SIZES = { d_model: 20, d_sae: 500 };
const USE = { training: true, mostK: 8 };

for (
  const activation of [
    { key: "relu" },
    { key: "jump-relu", aux: { key: "pre-act" } },
    { key: "gated" },
    { key: "top-k", top_k: 8, aux: { key: "auxk", k_aux: 16 } },
  ] as const satisfies readonly ActivationOptions[]
) {
  Deno.test(`a large batch keeps neither its pre-activations nor all reconstructions: ${activation.key}`, async () => {
    const device = await freshDevice({ bindingLimit: 2 ** 18 });
    using sae = await SparseAutoencoder.create({ ...SIZES, activation }, { device });
    const held = watchBuffers(device);
    const rows: number[] = [];
    for (const B of [2000, 4000]) {
      using buffers = new StepBuffers(sae, B, 10, USE);
      buffers.keep(LossTerms, () => new LossTerms(sae, buffers));
      const [[label, largest] = ["", 0]] = [...held().bytes].sort(([, a], [, b]) => b - a);
      assert(largest < 4 * B * SIZES.d_sae, `${label} has ${largest} bytes`);
      rows.push(buffers.x_hats.shape[0]!);
    }
    // 262,144 bytes hold 327 rows of ten reconstructions.
    assertEquals(rows, [320, 320]);
    device.destroy();
  });
}

Deno.test("a batch is kept where that takes no more than training does already", async () => {
  const device = await freshDevice();
  using sae = await SparseAutoencoder.create({ ...SIZES, activation: { key: "relu" } }, { device });
  for (const [B, isWhole] of [[160, true], [161, false]] as const) {
    assertEquals(keepsBatch(sae, B), isWhole);
    using buffers = new StepBuffers(sae, B, 1, USE);
    assert(buffers.f_x instanceof ElementwiseCodes);
    assertEquals([buffers.f_x.isWhole, buffers.f_x.kept.shape[0]], [isWhole, B]);
  }
  device.destroy();
});
