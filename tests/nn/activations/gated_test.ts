/**
 * Gated: forty steps of the training code of dictionary_learning and SAELens, codes outside training, and its kernels.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { openNpz } from "../../../io/npz.ts";
import { bytesSource } from "../../../io/source.ts";
import { completeConfig } from "../../../nn/config.ts";
import type { Sparsity } from "../../../nn/loss_terms.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../../nn/state.ts";
import { getObjective } from "../../../objectives/objective.ts";
import { train } from "../../../train/train.ts";
import { checkStep } from "../../conformance/checks.ts";
import { decoderOfGates } from "../../conformance/field_bugs.ts";
import { activate, encode, gatedMask, magnitudes, narrow, type Parameters, widen } from "../../reference/model.ts";
import { type Example, gatedProblems } from "../../reference/problems.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { type KernelCase, mutants } from "../../support/kernel_harness.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertScalarClose, assertTensorClose } from "../../support/tolerance.ts";

const [D, S, N_STEPS] = [6, 12, 40];
const GOLDENS = new URL("../../goldens/gated/", import.meta.url);
const NAMES = { W_enc: "W_enc", b_enc: "b_gate", r_mag: "r_mag", b_mag: "b_mag", W_dec: "W_dec", b_dec: "b_dec" };

/** One array of every step, step by step. */
async function golden(library: string): Promise<(name: string, step: number) => Float32Array> {
  const npz = await openNpz(bytesSource(Deno.readFileSync(new URL(`${library}.npz`, GOLDENS))));
  const arrays = new Map<string, Float32Array>();
  for (const name of npz.names) arrays.set(name, await (await npz.open(name)).read());
  return (name, step) => {
    const all = arrays.get(name)!;
    const size = all.length / N_STEPS;
    return all.slice(step * size, (step + 1) * size);
  };
}

for (
  const [library, sparsity] of [
    ["dictionary_learning", (coeff: number): Sparsity => ({ key: "l1-sparsity", coeff })],
    ["saelens", (coeff: number): Sparsity => ({ key: "weighted-l1-sparsity", coeff })],
  ] as const
) {
  Deno.test(`every loss and gradient of forty training steps is ${library}'s`, async () => {
    const at = await golden(library);
    // They sum the squared errors of a row, and we take the mean.
    const cfg = completeConfig({
      d_model: D,
      d_sae: S,
      subtract_b_dec: true,
      activation: { key: "gated", sparsity: sparsity(0.3 / D) },
    });
    for (let step = 0; step < N_STEPS; step++) {
      const named = (prefix: string) =>
        Object.fromEntries(Object.entries(NAMES).map(([ours, theirs]) => [ours, at(prefix + theirs, step)]));
      const p = named("") as unknown as Parameters;
      const x = at("x", step);
      using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice() });
      using state = new TrainState(sae);
      const { loss: pending, gradients } = getObjective({ key: "vanilla" }).lossAndGradients(sae, x, { state });
      using loss = pending;
      const { mse, sparsity, aux } = await loss.read();
      const penalty = library === "saelens" ? at("l1", step)[0]! / D : 0.3 / D * at("l1", step)[0]!;
      assertScalarClose(mse, at("mse", step)[0]! / D, `mse ${step}`);
      assertScalarClose(aux, at("aux", step)[0]! / D, `aux ${step}`);
      assertScalarClose(sparsity, penalty, `sparsity ${step}`);
      const wanted = widen(
        Object.fromEntries(
          Object.entries(named("grad_")).map(([name, gradient]) => [name, gradient.map((g) => g / D)]),
        ) as unknown as Parameters,
      );
      if (library === "saelens") {
        // Its decoder also learns from the reconstruction by the gates, which in the paper is a constant.
        const decoder = decoderOfGates(cfg, widen(p), Float64Array.from(x));
        wanted.W_dec.forEach((_, i) => wanted.W_dec[i]! -= decoder.W_dec[i]!);
        wanted.b_dec.forEach((_, d) => wanted.b_dec[d]! -= decoder.bias[d]!);
      }
      const read = widen(await gradients.read());
      for (const name of ["W_enc", "b_enc", "r_mag", "b_mag", "W_dec", "b_dec"] as const) {
        assertTensorClose(read[name]!, wanted[name]!, `grad_${name} ${step}`);
      }
    }
  });
}

/** A problem whose gates are open for about half of all latents. */
const DENSE = gatedProblems({ B: 9, D: 20, S: 45 }, 4);

/** The same with so few open gates that a step is sparse. */
const SPARSE = gatedProblems({ B: 24, D: 20, S: 150 }, 5).map(({ name, problem, p }): Example => ({
  name,
  problem: { ...problem, dead_S: new Uint8Array(150).fill(1, 7, 9) },
  p: { ...p, b_enc: p.b_enc.map((_, s) => s === 7 || s === 8 ? -20 : -1.7), b_mag: p.b_mag!.map(() => 0.1) },
}));

Deno.test("codes outside training are the formula's, whatever the shape", async () => {
  for (const { problem: { cfg, x_BD }, p } of [DENSE[0]!, SPARSE[8]!]) {
    using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice() });
    using codes = sae.encode(Float32Array.from(x_BD));
    using dense = codes.dense();
    const h_BS = encode(cfg, p, x_BD);
    const mask_BS = gatedMask(p, h_BS);
    assertTensorClose(await dense.read(), activate(magnitudes(p, h_BS), mask_BS), "f_x");
    assertEquals((await codes.read()).values.length, mask_BS.reduce((n, one) => n + one, 0));
  }
});

Deno.test("before training, a Gated is a ReLU", async () => {
  const device = await sharedDevice();
  const x = new Random(3).normal(7 * 12);
  const read = async (key: "gated" | "relu") => {
    using sae = await SparseAutoencoder.create({ d_model: 12, d_sae: 37, activation: { key } }, { device });
    using codes = sae.encode(x);
    return await codes.read();
  };
  assertEquals(await read("gated"), await read("relu"));
});

Deno.test("training lowers the error, and moves every parameter", async () => {
  const random = new Random(4);
  const batches = Array.from({ length: 60 }, () => random.normal(64 * 12));
  const options = { d_model: 12, d_sae: 24, activation: { key: "gated" } } as const;
  using sae = await SparseAutoencoder.create(options, { device: await sharedDevice() });
  const before = await sae.readParameters();
  const losses = [];
  for await (const progress of train(sae, getObjective({ key: "vanilla" }), batches, { lr: 5e-3, n_lr_warmup: 0 })) {
    losses.push(...progress.losses);
  }
  assert(losses.at(-1)!.mse < 0.6 * losses[0]!.mse, `mse ${losses[0]!.mse} → ${losses.at(-1)!.mse}`);
  assert(losses.every(({ grad_norms: norms }) => norms.r_mag! > 0 && norms.b_mag! > 0));
  const after = await sae.readParameters();
  for (const name of ["W_enc", "b_enc", "r_mag", "b_mag", "W_dec", "b_dec"] as const) {
    assert(after[name]!.some((value, i) => value !== before[name]![i]), name);
  }
});

Deno.test("a NaN in a row shows in its codes and in the loss", async () => {
  using sae = await SparseAutoencoder.create(
    { d_model: 4, d_sae: 8, activation: { key: "gated" } },
    { device: await sharedDevice() },
  );
  using codes = sae.encode(Float32Array.of(NaN, 1, 1, 1, 1, 1, 1, 1));
  const { row_starts, values } = await codes.read();
  assertExact(values.slice(0, row_starts[1]), new Float32Array(8).fill(NaN));
  assert(values.slice(row_starts[1]).every(Number.isFinite));
});

Deno.test("what only a gate has is refused elsewhere, and what needs thresholds is refused of a gate", () => {
  const refused: [options: object, message: string][] = [
    [{ key: "gated", top_k: 3 }, 'activation gated has no field "top_k"'],
    [{ key: "gated", sparsity: { key: "l0-sparsity", coeff: 1 } }, "trains the thresholds of a jump-relu"],
    [{ key: "gated", aux: { key: "pre-act" } }, "needs the thresholds of a jump-relu"],
  ];
  for (const [activation, message] of refused) {
    assertThrows(() => completeConfig({ activation: activation as { key: "gated" } }), Error, message);
  }
});

Deno.test("loss and gradients are the reference's at ragged and at empty-handed sizes", async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 17 }),
    fc.integer({ min: 1, max: 33 }),
    fc.integer({ min: 9, max: 70 }),
    fc.nat(),
    fc.integer({ min: 0, max: DENSE.length - 1 }),
    async (B, D, S, seed, which) => {
      await checkStep(gatedProblems({ B, D, S }, seed)[which]!, { device: await sharedDevice() });
    },
  );
  await fc.assert(property, { numRuns: 10, seed: 5 });
});

const step = (example: Example): KernelCase => async (gpu) => await checkStep(example, { device: gpu.context.device });

Deno.test("mutants of the kernels of a Gated are found", async () => {
  const dense = step(DENSE[0]!);
  await mutants("gated_codes", [
    ["h - b", "h"],
    ["exp(r)", "r"],
    ["is_open(h) && ", ""],
    ["i % dims.d_sae", "0u"],
  ], dense);
  await mutants("magnitude_backward", [
    ["h[i] - bias", "h[i]"],
    ["by_m * factor", "by_m"],
    ["by_b += by_m", "by_b += by_u"],
    ["is_open(h[i]) && ", ""],
    ["grad[i], is_code", "grad[i], true"],
  ], dense);
  await mutants("gate_backward", [
    ["is_open(h[i]))", "true)"],
    ["grad[i] + by_gate", "by_gate"],
    ["sum += by_gate", "sum += grad[i]"],
  ], dense);
  const sparse = step(SPARSE[0]!);
  await mutants("gated_entries", [
    ["h - b", "h"],
    ["let s = indices[entry]", "let s = entry % dims.d_sae"],
    ["entry >= starts[dims.n_rows]", "entry >= 5u"],
  ], sparse);
  await mutants("magnitude_entries_backward", [
    ["let e = entries[at]", "let e = at"],
    ["h[e] - bias", "h[e]"],
    ["fma(by_u, u, by_r)", "fma(by_m, u, by_r)"],
  ], sparse);
  await mutants("gate_entries_backward", [
    ["let e = entries[at]", "let e = at"],
    ["grad[e] + grad_gate[e]", "grad_gate[e]"],
    ["sum += grad_gate[e]", "sum -= grad_gate[e]"],
  ], sparse);
  await mutants("gated_codes_in_place", [
    ["h - b", "h"],
    ["is_open(h) && ", ""],
    ["i % dims.d_sae", "0u"],
  ], async (gpu) => {
    const { problem: { cfg, x_BD }, p } = DENSE[0]!;
    using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: gpu.context.device });
    using codes = sae.encode(Float32Array.from(x_BD));
    using dense = codes.dense();
    const h_BS = encode(cfg, p, x_BD);
    assertTensorClose(await dense.read(), activate(magnitudes(p, h_BS), gatedMask(p, h_BS)), "f_x");
  });
});
