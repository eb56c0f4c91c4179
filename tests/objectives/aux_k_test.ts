/**
 * AuxK by dense products over few dead latents and by sparse ones over many: the same bits.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { ParameterArrays } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/train_state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { narrow } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { freshDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertSameBits } from "../support/tolerance.ts";

const [B, D, S] = [70, 20, 150];

/** A device on which the dense products are allowed, or not. */
const device = {
  any: freshDevice(),
  sparse: freshDevice({
    rewriteShader: (name, wgsl) => name === "auxiliary_starts" ? wgsl.replace("count[0] <= dims.most", "false") : wgsl,
  }),
};

Deno.test.afterAll(async () => {
  for (const made of Object.values(device)) (await made).destroy();
});

/** Gradients with `n_dead` dead latents. */
async function step(n_dead: number, k_aux: number, products: keyof typeof device): Promise<ParameterArrays> {
  const p = narrow(randomParameters(new Random(3), { D, S }));
  for (let s = 0; s < n_dead; s++) p.b_enc[2 * s] = -20;
  const activation = { key: "top-k", top_k: 4, aux: { key: "auxk", k_aux } } as const;
  using sae = await SparseAutoencoder.fromParameters({ d_model: D, d_sae: S, activation }, p, {
    device: await device[products],
  });
  using fresh = new TrainState(sae);
  const tokens_since_active = Uint32Array.from({ length: S }, (_, s) => s % 2 === 0 && s < 2 * n_dead ? 1000 : 0);
  using state = TrainState.restore(sae, { ...await fresh.read(), tokens_since_active });
  const objective = getObjective({ key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 1000 });
  const { loss, gradients } = objective.lossAndGradients(sae, new Random(4).normal(B * D), { state });
  using _ = loss;
  const numbers = await loss.read();
  assertEquals(numbers.n_dead, n_dead);
  assert(n_dead === 0 || numbers.aux > 0);
  const aux = state.workspace(B, 3, 4).aux!;
  const [count] = await aux.dense.count.read();
  assertEquals(count, products === "any" && n_dead <= 4 * k_aux ? n_dead : 0, "dead latents of dense products");
  return await gradients.read();
}

Deno.test("dense and sparse products over dead latents give the same bits", async () => {
  for (const [n_dead, k_aux] of [[0, 6], [1, 6], [6, 6], [17, 5], [20, 5], [75, 100]] as const) {
    const dense = await step(n_dead, k_aux, "any");
    const sparse = await step(n_dead, k_aux, "sparse");
    for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
      assertSameBits(dense[name], sparse[name], `grad_${name} with ${n_dead} dead, k_aux ${k_aux}`);
    }
  }
});

Deno.test("more dead latents than dense products take go through sparse ones", async () => {
  const many = await step(60, 6, "any");
  const sparse = await step(60, 6, "sparse");
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) assertSameBits(many[name], sparse[name], name);
});
