/**
 * AuxK by dense products over few dead latents and by sparse ones over many, the same bits; and whom its gradient reaches.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import type { AuxOptions } from "../../nn/loss_terms.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { AuxKLoss } from "../../objectives/aux_k.ts";
import { getObjective } from "../../objectives/objective.ts";
import { LossTerms } from "../../objectives/terms.ts";
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
  const buffers = state.buffers(B, 3, 4);
  const { aux: [aux] } = buffers.keep(LossTerms, () => new LossTerms(sae, buffers));
  assert(aux instanceof AuxKLoss);
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

/** All latents of a multiple of four and one are dead, and the first of them is the last that a row would take. */
const isDead = (s: number) => s % 4 === 1;
const NEVER = 1;

/** Gradients of a step with and without an auxiliary loss. */
async function gradientsWith(
  activation: ActivationOptions,
  aux: AuxOptions,
  subtract_b_dec: boolean,
): Promise<ParameterArrays> {
  const p = narrow(randomParameters(new Random(5), { D, S }));
  for (let s = 0; s < S; s++) if (isDead(s)) p.b_enc[s]! -= s === NEVER ? 60 : 20;
  const cfg = { d_model: D, d_sae: S, subtract_b_dec, activation: { ...activation, aux } as ActivationOptions };
  using sae = await SparseAutoencoder.fromParameters(cfg, p, { device: await device.any });
  using state = new TrainState(sae);
  state.tokens_since_active.write(Uint32Array.from({ length: S }, (_, s) => isDead(s) ? 1000 : 0));
  const objective = getObjective({ key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 1000 });
  const { loss, gradients } = objective.lossAndGradients(sae, new Random(6).normal(B * D), { state });
  using _ = loss;
  const numbers = await loss.read();
  assertEquals([numbers.n_dead, numbers.aux > 0], [
    Array.from({ length: S }, (_, s) => s).filter(isDead).length,
    aux.key === "auxk",
  ]);
  return await gradients.read();
}

/** What a latent has of the gradients. */
function ofLatent(
  { W_enc, b_enc, W_dec, threshold }: ParameterArrays,
  s: number,
): Readonly<Record<string, Float32Array>> {
  return {
    W_enc: W_enc.filter((_, i) => i % S === s),
    b_enc: b_enc.subarray(s, s + 1),
    W_dec: W_dec.subarray(s * D, (s + 1) * D),
    threshold: threshold?.subarray(s, s + 1) ?? new Float32Array(1),
  };
}

for (
  const activation of [
    { key: "relu" },
    { key: "top-k", top_k: 4 },
    { key: "batch-top-k", top_k: 4 },
    { key: "jump-relu", threshold_init: 1 },
  ] as const
) {
  for (const include_b_dec of [false, true]) {
    const what = `${activation.key}${include_b_dec ? ", with b_dec" : ""}`;
    Deno.test(`AuxK changes gradients of the dead latents it selects, and no other bit: ${what}`, async () => {
      for (const subtract_b_dec of [false, true]) {
        const without = await gradientsWith(activation, { key: "no-aux" }, subtract_b_dec);
        // Through dense and through sparse products.
        for (const k_aux of [30, 2]) {
          const found = await gradientsWith(activation, { key: "auxk", k_aux, include_b_dec }, subtract_b_dec);
          for (let s = 0; s < S; s++) {
            const [before, after] = [ofLatent(without, s), ofLatent(found, s)];
            const isReached = isDead(s) && s !== NEVER && k_aux === 30;
            for (const [name, values] of Object.entries(before)) {
              const label = `grad_${name} of latent ${s}, k_aux ${k_aux}`;
              if (!isDead(s) || s === NEVER || name === "threshold") assertSameBits(after[name]!, values, label);
              else if (isReached) assert(after[name]!.every((value, i) => value !== values[i]), `${label} is reached`);
            }
          }
          if (include_b_dec) {
            assert(found.b_dec.every((value, d) => value !== without.b_dec[d]), "grad_b_dec is reached");
          } else assertSameBits(found.b_dec, without.b_dec, "grad_b_dec");
        }
      }
    });
  }
}
