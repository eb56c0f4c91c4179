/**
 * Losses and gradients on the GPU against the goldens and the float64 reference: every activation, auxiliary loss,
 * encoder and number of prefixes, on the adapter's own selection.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ShapeError } from "../../kernels/engine/errors.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import type { Loss } from "../../objectives/loss_record.ts";
import { getObjective, type Objective } from "../../objectives/objective.ts";
import { train } from "../../train/train.ts";
import { narrow, PARAMETER_NAMES, standardise, unstandardise } from "../reference/model.ts";
import { everyProblem, PROBLEMS, randomParameters } from "../reference/problems.ts";
import { removeParallel } from "../reference/training.ts";
import { checkGolden, checkStep } from "../conformance/checks.ts";
import { loadGoldens, loadMatryoshkaGoldens } from "../support/goldens.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertSameBits, assertScalarClose, assertTensorClose, assertVanishes } from "../support/tolerance.ts";

for (const golden of loadGoldens("relu_vanilla")) {
  const d_model = golden.cfg.d_vit;
  const d_sae = d_model * golden.cfg.exp_factor;
  Deno.test(`relu_vanilla: loss and gradients, d_model ${d_model}, d_sae ${d_sae}`, async () => {
    const options = { d_model, d_sae, subtract_b_dec: true, activation: { key: "relu" } } as const;
    using sae = await SparseAutoencoder.fromParameters(options, golden.params, { device: await sharedDevice() });
    const objective = getObjective({ key: "vanilla", sparsity_coeff: golden.sparsity_coeff });
    const { loss, gradients } = await run(sae, objective, golden.x);
    for (const name of ["loss", "mse", "l0", "l1", "sparsity"] as const) {
      assertScalarClose(loss[name], golden.loss[name], name);
    }
    for (const name of PARAMETER_NAMES) assertTensorClose(gradients[name], golden.grads[name], `grad_${name}`);
  });

  Deno.test(`relu_vanilla: gradient without its parallel part, d_model ${d_model}, d_sae ${d_sae}`, async () => {
    const options = { d_model, d_sae, subtract_b_dec: true, activation: { key: "relu" } } as const;
    using sae = await SparseAutoencoder.fromParameters(options, golden.params, { device: await sharedDevice() });
    const objective = getObjective({ key: "vanilla", sparsity_coeff: golden.sparsity_coeff });
    using state = new TrainState(sae);
    const step = objective.lossAndGradients(sae, golden.x, { state });
    using _loss = step.loss;
    sae.normalizeWDec();
    sae.removeParallelGrads(step.gradients);
    const { W_dec } = await step.gradients.read();
    assertTensorClose(W_dec, golden.grad_W_dec_without_parallel_after_normalize, "grad_W_dec");
  });
}

for (const golden of loadMatryoshkaGoldens()) {
  Deno.test(`matryoshka: loss, gradients and counters, ${golden.name}, prefixes ${golden.prefixes}`, async () => {
    await checkGolden(golden, await sharedDevice());
  });
}

for (const golden of loadMatryoshkaGoldens().filter(({ name }) => name === "batch_top_k")) {
  Deno.test(`matryoshka: threshold and evaluation, ${golden.name}, prefixes ${golden.prefixes}`, async () => {
    using sae = await SparseAutoencoder.fromParameters(golden.cfg, golden.params, { device: await sharedDevice() });
    using state = new TrainState(sae);
    using _loss = getObjective({ key: "matryoshka" }).lossAndGradients(sae, golden.x, {
      state,
      prefixes: golden.prefixes,
    }).loss;
    const { threshold } = await sae.readParameters();
    assertScalarClose(threshold![0]!, golden.threshold_after!, "threshold");
    using out = sae.forward(golden.x);
    using f_BS = out.f_x.dense();
    assertTensorClose(await f_BS.read(), golden.eval_f_x!, "f_x in evaluation");
    assertTensorClose(await out.x_hat.read(), golden.eval_x_hats!, "x_hat in evaluation");
    assertSameBits((await sae.readParameters()).threshold!, threshold!, "evaluation changes nothing");
  });
}

for (const which of [1, 7, 11, 15, 21, 25, 28, 31, 32, 37, 51, 58, 67]) {
  const { name, problem, p } = everyProblem({ B: 130, D: 150, S: 300 }, 20)[which]!;
  Deno.test(`loss and gradients are the reference's at more than a tile: ${name}`, async () => {
    await checkStep({ problem, p }, { device: await sharedDevice() });
  });
}

Deno.test("standardised inputs: losses and gradients are about them", async () => {
  const mean = new Random(21).normal(20, 5);
  for (const which of [0, 9, 18, 27, 50, 65]) {
    const { problem, p } = everyProblem({ B: 9, D: 20, S: 45 }, 22)[which]!;
    const x = Float32Array.from(unstandardise(problem.x_BD, mean, 3));
    const x_BD = standardise(x, mean, 3);
    await checkStep({ problem: { ...problem, x_BD }, p }, {
      device: await sharedDevice(),
      raw: { mean, scale: 3, x },
    });
  }
});

Deno.test("loss and gradients are the reference's at ragged and at empty-handed sizes", async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 17 }),
    fc.integer({ min: 1, max: 33 }),
    fc.integer({ min: 9, max: 70 }),
    fc.nat(),
    fc.integer({ min: 0, max: PROBLEMS - 1 }),
    async (B, D, S, seed, which) => {
      const { problem, p } = everyProblem({ B, D, S }, seed)[which]!;
      await checkStep({ problem, p }, { device: await sharedDevice() });
    },
  );
  await fc.assert(property, { numRuns: 20, seed: 5 });
});

Deno.test("loss alone is the loss, and changes nothing", async () => {
  const { problem, p } = everyProblem({ B: 9, D: 20, S: 45 }, 6).find(({ name }) => name.startsWith("top-k, no-aux"))!;
  using sae = await SparseAutoencoder.fromParameters(problem.cfg, narrow(p), { device: await sharedDevice() });
  const objective = getObjective({ key: "vanilla" });
  const x = Float32Array.from(problem.x_BD);
  const alone = await objective.loss(sae, x);
  const { loss } = await run(sae, objective, x);
  assertEquals({ ...alone, n_dead: 0 }, { ...loss, n_dead: 0 });
});

for (
  const activation of [
    { key: "relu" },
    { key: "top-k", top_k: 5 },
    { key: "batch-top-k", top_k: 5 },
    { key: "jump-relu", threshold_init: 0.25, aux: { key: "auxk", k_aux: 6 } },
  ] as const
) {
  Deno.test(`Matryoshka with one prefix is vanilla, bit by bit: ${activation.key}`, async () => {
    const random = new Random(7);
    const cfg = { d_model: 20, d_sae: 45, activation } as const;
    const p = narrow(randomParameters(random, { D: 20, S: 45 }));
    const x = random.normal(9 * 20);
    using sae = await SparseAutoencoder.fromParameters(cfg, p, { device: await sharedDevice() });
    const shared = { dead_threshold_tokens: 9 } as const;
    const vanilla = await run(sae, getObjective({ key: "vanilla", ...shared }), x);
    const matryoshka = await run(sae, getObjective({ key: "matryoshka", n_prefixes: 1, ...shared }), x);
    assertEquals(vanilla.loss.aux > 0, activation.key !== "relu", "dead latents take part");
    assertEquals(matryoshka.loss, vanilla.loss);
    for (const [name, gradient] of Object.entries(vanilla.gradients)) {
      assertSameBits(matryoshka.gradients[name as keyof ParameterArrays]!, gradient, name);
    }
  });
}

for (const key of ["top-k", "batch-top-k"] as const) {
  Deno.test(`a k above d_sae keeps all latents, in training and outside: ${key}`, async () => {
    const random = new Random(13);
    const p = narrow(randomParameters(random, { D: 20, S: 45 }));
    const x = random.normal(9 * 20);
    const found = [];
    for (const top_k of [45, 46, 1000]) {
      const cfg = { d_model: 20, d_sae: 45, activation: { key, top_k } } as const;
      using sae = await SparseAutoencoder.fromParameters(cfg, p, { device: await sharedDevice() });
      const step = await run(sae, getObjective({ key: "vanilla" }), x);
      using codes = sae.encode(x);
      found.push({ ...step, codes: await codes.read(), l0: (await getObjective({ key: "vanilla" }).loss(sae, x)).l0 });
    }
    assertEquals(found[0]!.loss.l0, 45);
    for (const more of found.slice(1)) assertEquals(more, found[0]!);
  });
}

Deno.test("fixed groups are the prefixes that they add up to", async () => {
  const random = new Random(8);
  const cfg = { d_model: 20, d_sae: 45, activation: { key: "top-k", top_k: 5 } } as const;
  const p = narrow(randomParameters(random, { D: 20, S: 45 }));
  const x = random.normal(9 * 20);
  using sae = await SparseAutoencoder.fromParameters(cfg, p, { device: await sharedDevice() });
  const groups = await run(sae, getObjective({ key: "matryoshka", group_sizes: [5, 10, 30] }), x);
  const prefixes = await run(sae, getObjective({ key: "matryoshka", n_prefixes: 3 }), x, [5, 15, 45]);
  assertEquals(groups.loss, prefixes.loss);
  for (const name of PARAMETER_NAMES) assertSameBits(groups.gradients[name], prefixes.gradients[name], name);
});

Deno.test("a batch stacked on itself keeps loss and gradients", async () => {
  const random = new Random(9);
  for (
    const activation of [{ key: "relu" }, { key: "top-k", top_k: 5 }, { key: "batch-top-k", top_k: 5 }] as const
  ) {
    const p = narrow(randomParameters(random, { D: 20, S: 45 }));
    const x = random.normal(9 * 20);
    const options = { d_model: 20, d_sae: 45, activation };
    using sae = await SparseAutoencoder.fromParameters(options, p, { device: await sharedDevice() });
    const objective = getObjective({ key: "matryoshka", n_prefixes: 3 });
    const once = await run(sae, objective, x, [2, 9, 45]);
    const twice = await run(sae, objective, Float32Array.of(...x, ...x), [2, 9, 45]);
    for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux"] as const) {
      assertScalarClose(twice.loss[name], once.loss[name], name);
    }
    for (const name of PARAMETER_NAMES) assertTensorClose(twice.gradients[name], once.gradients[name], name);
  }
});

Deno.test("AuxK with nothing dead is 0 and changes no bit of any gradient", async () => {
  const random = new Random(10);
  const p = narrow(randomParameters(random, { D: 20, S: 45 }));
  const x = random.normal(9 * 20);
  const objective = getObjective({ key: "vanilla" });
  const results = [];
  for (const key of ["auxk", "no-aux"] as const) {
    const options = { d_model: 20, d_sae: 45, activation: { key: "top-k", top_k: 5, aux: { key } } } as const;
    using sae = await SparseAutoencoder.fromParameters(options, p, { device: await sharedDevice() });
    results.push(await run(sae, objective, x));
  }
  const [withAux, without] = results;
  assertEquals(withAux!.loss.aux, 0);
  for (const name of PARAMETER_NAMES) assertSameBits(withAux!.gradients[name], without!.gradients[name], name);
});

Deno.test("without its parallel part, a gradient is orthogonal to its row", async () => {
  const { problem, p } = everyProblem({ B: 9, D: 20, S: 45 }, 11)[9]!;
  using sae = await SparseAutoencoder.fromParameters(problem.cfg, narrow(p), { device: await sharedDevice() });
  using state = new TrainState(sae);
  const step = getObjective({ key: "vanilla" }).lossAndGradients(sae, Float32Array.from(problem.x_BD), { state });
  using _loss = step.loss;
  const before_SD = Float64Array.from((await step.gradients.read()).W_dec);
  sae.removeParallelGrads(step.gradients);
  const after_SD = (await step.gradients.read()).W_dec;
  const wanted_SD = before_SD.slice();
  removeParallel(wanted_SD, p.W_dec, 20);
  assertTensorClose(after_SD, wanted_SD, "grad_W_dec");
  const [products_S, sizes_S] = [new Float64Array(45), new Float64Array(45)];
  for (let s = 0; s < 45; s++) {
    const row = p.W_dec.subarray(s * 20, s * 20 + 20);
    products_S[s] = row.reduce((sum, w, d) => sum + w * after_SD[s * 20 + d]!, 0);
    sizes_S[s] = Math.hypot(...row) * Math.hypot(...before_SD.subarray(s * 20, s * 20 + 20));
  }
  assertVanishes(products_S, sizes_S, "⟨grad, row⟩");
});

Deno.test("inputs of zero and large inputs have a finite loss", async () => {
  using sae = await SparseAutoencoder.create(
    { d_model: 20, d_sae: 45, activation: { key: "top-k", top_k: 5 } },
    { device: await sharedDevice() },
  );
  const objective = getObjective({ key: "vanilla" });
  assertEquals((await objective.loss(sae, new Float32Array(40))).mse, 0);
  const large = await objective.loss(sae, new Float32Array(40).fill(1e17));
  assert(Number.isFinite(large.mse) && large.mse > 0);
});

Deno.test("the objective's sparsity replaces the activation's", async () => {
  const random = new Random(12);
  const sparsity = { key: "l1-sparsity", coeff: 0.5 } as const;
  const options = { d_model: 20, d_sae: 45, activation: { key: "relu", sparsity } } as const;
  const p = narrow(randomParameters(random, { D: 20, S: 45 }));
  const x = random.normal(9 * 20);
  using sae = await SparseAutoencoder.fromParameters(options, p, { device: await sharedDevice() });
  const own = await getObjective({ key: "vanilla" }).loss(sae, x);
  const given = await getObjective({ key: "vanilla", sparsity_coeff: 0.25 }).loss(sae, x);
  assertScalarClose(own.sparsity, 0.5 * own.l1, "sparsity");
  assertScalarClose(given.sparsity, 0.25 * own.l1, "sparsity");
});

Deno.test("refused: objectives that are none", () => {
  const refused: readonly (readonly [options: object, error: new (message: string) => Error, message: string])[] = [
    [{ key: "mse" }, RangeError, 'unknown objective key "mse"; expected one of vanilla, matryoshka'],
    [{ key: "constructor" }, RangeError, 'unknown objective key "constructor"'],
    [{ key: "vanilla", n_prefixes: 3 }, TypeError, 'objective vanilla has no field "n_prefixes"; it has key, '],
    [{ key: "matryoshka", prefixes: [1] }, TypeError, 'objective matryoshka has no field "prefixes"'],
    [{ key: "vanilla", sparsity_coeff: -1 }, RangeError, "sparsity_coeff must be a finite number of at least 0"],
    [{ key: "vanilla", sparsity_coeff: NaN }, RangeError, "found NaN"],
    [{ key: "vanilla", target_l0: 0 }, RangeError, "target_l0 must be positive, found 0"],
    [{ key: "matryoshka", n_prefixes: 0 }, RangeError, "n_prefixes must be an integer of at least 1, found 0"],
    [{ key: "matryoshka", n_prefixes: 2.5 }, RangeError, "found 2.5"],
    [{ key: "matryoshka", group_sizes: [] }, RangeError, "group_sizes must be a list of positive integers, found []"],
    [{ key: "matryoshka", group_sizes: [4, 0] }, RangeError, "found [4,0]"],
    [{ key: "matryoshka", group_sizes: 45 }, RangeError, "found 45"],
    [{ key: "matryoshka", n_prefixes: 2, group_sizes: [5, 40] }, TypeError, "n_prefixes or group_sizes, not both"],
    [{ key: "matryoshka", dead_threshold_tokens: -1 }, RangeError, "dead_threshold_tokens must be an integer from 1"],
  ];
  for (const [options, error, message] of refused) {
    assertThrows(() => getObjective(options as { key: "vanilla" }), error, message);
  }
});

Deno.test("refused: a target that cannot be reached, and one of what has no penalty to move", async () => {
  const device = await sharedDevice();
  const relu = { key: "relu" } as const;
  const refused: readonly (readonly [activation: ActivationOptions, target_l0: number, message: string])[] = [
    [relu, 46, "target_l0 must be at most d_sae 45, found 46"],
    [{ key: "jump-relu" }, 45.5, "found 45.5"],
    [{ key: "top-k" }, 4, "the mean L0 of a top-k is its top_k"],
    [{ key: "batch-top-k" }, 4, "the mean L0 of a batch-top-k is its top_k"],
    [{ ...relu, sparsity: { key: "no-sparsity" } }, 4, "no-sparsity has none to move"],
    [{ ...relu, sparsity: { key: "l1-sparsity", coeff: 0 } }, 4, "l1-sparsity has none to move"],
  ];
  for (const [activation, target_l0, message] of refused) {
    using sae = await SparseAutoencoder.create({ d_model: 20, d_sae: 45, activation }, { device });
    using state = new TrainState(sae);
    const objective = getObjective({ key: "vanilla", target_l0 });
    assertThrows(() => objective.lossAndGradients(sae, new Float32Array(20), { state }), RangeError, message);
  }
});

Deno.test("refused: the state of another model", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create({ d_model: 20, d_sae: 45 }, { device });
  using other = await SparseAutoencoder.create({ d_model: 20, d_sae: 45, activation: { key: "relu" } }, { device });
  using state = new TrainState(other);
  const objective = getObjective({ key: "vanilla" });
  const message = "the state was made for another model";
  assertThrows(() => objective.lossAndGradients(sae, new Float32Array(20), { state }), RangeError, message);
  await assertRejects(() => Array.fromAsync(train(sae, objective, [], { state })), RangeError, message);
});

Deno.test("refused: groups that are not the model's, inputs that do not fit", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 20, d_sae: 45 }, { device: await sharedDevice() });
  using state = new TrainState(sae);
  const objective = getObjective({ key: "matryoshka", group_sizes: [5, 10] });
  assertThrows(() => objective.lossAndGradients(sae, new Float32Array(20), { state }), RangeError, "45");
  const vanilla = getObjective({ key: "vanilla" });
  assertThrows(() => vanilla.lossAndGradients(sae, new Float32Array(19), { state }), ShapeError, "19");
  assertThrows(() => vanilla.lossAndGradients(sae, new Float32Array(20), { state, prefixes: [3] }), RangeError, "45");
  const many = getObjective({ key: "matryoshka", n_prefixes: 46 });
  assertThrows(() => many.lossAndGradients(sae, new Float32Array(20), { state }), RangeError, "between 1 and d_sae 45");
  await assertRejects(async () => await getObjective({ key: "vanilla" }).loss(sae, new Float32Array(21)), ShapeError);
});

async function run(
  sae: SparseAutoencoder,
  objective: Objective,
  x: Float32Array,
  prefixes?: readonly number[],
): Promise<{ loss: Loss; gradients: ParameterArrays }> {
  using state = new TrainState(sae);
  const step = objective.lossAndGradients(sae, x, prefixes ? { state, prefixes } : { state });
  using loss = step.loss;
  return { loss: await loss.read(), gradients: await step.gradients.read() };
}
