/**
 * The loop: PyTorch's 40 steps, the learning rates, what comes out when, nothing allocated on the way, the same bits
 * however it is run, and how it stops.
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";
import type { CodeArrays } from "../../nn/codes.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective, type Objective, type ObjectiveOptions } from "../../objectives/objective.ts";
import { shuffledBatches } from "../../data/order.ts";
import { rowsOf } from "../../data/rows.ts";
import { measureScaling } from "../../data/scaling.ts";
import type { TrainLoss } from "../../objectives/loss_record.ts";
import type { ModelOptions } from "../../train/options.ts";
import { DivergenceError, type Progress, train, trainMany, type TrainOptions } from "../../train/train.ts";
import { watchBuffers } from "../../bench/buffers.ts";
import { narrow, PARAMETER_NAMES, parameterNames, widen } from "../reference/model.ts";
import { MUON } from "../reference/muon.ts";
import { randomParameters } from "../reference/problems.ts";
import { haltedAt, initialState, learningRate, trainStep, warmup, warmupCosine } from "../reference/training.ts";
import { loadGoldens } from "../support/goldens.ts";
import { countBuffers, freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import {
  assertExact,
  assertRunLosses,
  assertRunParameter,
  assertSameBits,
  assertScheduleClose,
} from "../support/tolerance.ts";

const SIZES = { d_model: 20, d_sae: 45 };
const TOP_K = { key: "top-k", top_k: 5, aux: { key: "auxk", k_aux: 6 } } as const;
const OBJECTIVE = { key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 40 } as const;
const OPTIONS = { lr: 3e-3, n_lr_warmup: 3 } as const;

/** A run from seeded data and parameters, and what became of it. */
interface Run {
  readonly losses: TrainLoss[];
  readonly yields: Progress[];
  readonly end: ParameterArrays;
}

Deno.test("train_relu_vanilla: PyTorch's 40 steps", async () => {
  for (const golden of loadGoldens("train_relu_vanilla")) {
    const { start, sparsity_coeff, batch } = golden;
    const sizes = { d_model: start.b_dec.length, d_sae: start.b_enc.length };
    const cfg = { ...sizes, subtract_b_dec: true, activation: { key: "relu" } } as const;
    using sae = await SparseAutoencoder.fromParameters(cfg, start, { device: await sharedDevice() });
    const objective = getObjective({ key: "vanilla", sparsity_coeff });
    const batches = rows(golden.data, batch * sizes.d_model);
    const { losses, end } = await run(sae, objective, batches, { lr: 3e-3, n_lr_warmup: 10, grad_clip: false });
    for (const name of ["loss", "mse", "l0", "l1", "sparsity"] as const) {
      assertRunLosses(losses.map((loss) => loss[name]), golden.losses.map((loss) => loss[name]), name);
    }
    for (const name of PARAMETER_NAMES) assertRunParameter(end[name], golden.end[name], name);
  }
});

Deno.test("train_top_k_matryoshka: PyTorch's 40 steps", async () => {
  for (const golden of loadGoldens("train_top_k_matryoshka")) {
    const { start, top_k, k_aux, alpha, dead_threshold_tokens, batch } = golden;
    const sizes = { d_model: start.b_dec.length, d_sae: start.b_enc.length };
    const aux = { key: "auxk", k_aux, alpha, include_b_dec: true } as const;
    const cfg = { ...sizes, activation: { key: "top-k", top_k, aux } } as const;
    using sae = await SparseAutoencoder.fromParameters(cfg, start, { device: await sharedDevice() });
    const objective = getObjective({ key: "matryoshka", n_prefixes: 4, dead_threshold_tokens });
    objective.prefixes = (_d_sae, { step }) => golden.prefixes[step]!;
    const batches = rows(golden.data, batch * sizes.d_model);
    const { losses, end } = await run(sae, objective, batches, { lr: 3e-3, n_lr_warmup: 8, n_steps: 40, grad_clip: 1 });
    for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux", "grad_norm"] as const) {
      assertRunLosses(losses.map((loss) => loss[name]), golden.losses.map((loss) => loss[name]), name);
    }
    assertExact(losses.map((loss) => loss.n_dead), golden.losses.map((loss) => loss.n_dead), "n_dead");
    for (const name of PARAMETER_NAMES) assertRunParameter(end[name], golden.end[name], name);
  }
});

Deno.test("rates: 0 at first, a warm-up, then constant or down a cosine", async () => {
  const rates = async (options: TrainOptions) => {
    using sae = await newModel({ key: "relu" });
    const { yields } = await run(sae, getObjective({ key: "vanilla" }), someBatches(9), { ...options, log_every: 1 });
    return yields.map(({ lr }) => lr);
  };
  const steps = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  assertExact(
    await rates({ lr: 0.5, n_lr_warmup: 4 }),
    steps.map((step) => learningRate((k) => warmup(0, 0.5, 4, k), step)),
  );
  assertExact(await rates({ lr: 0.5, n_lr_warmup: 0 }), steps.map((step) => step === 0 ? 0 : 0.5));
  assertScheduleClose(
    await rates({ lr: 0.5, n_lr_warmup: 4, n_steps: 7 }),
    steps.slice(0, 7).map((step) => learningRate((k) => warmupCosine([0, 4, 0.5, 7, 0], k), step)),
  );
});

Deno.test("k goes from k_start to top_k in a straight line, and stays", async () => {
  for (
    const [k_start, expected] of [[11, [11, 10, 8, 7, 5, 5]], [1, [1, 2, 3, 4, 5, 5]], [99, [
      45,
      35,
      25,
      15,
      5,
      5,
    ]]] as const
  ) {
    for (const activation of [TOP_K, BATCH_TOP_K]) {
      using sae = await newModel(activation);
      const options = { ...OPTIONS, k_start, n_k_warmup: 4 };
      const { losses } = await run(sae, getObjective(OBJECTIVE), someBatches(6), options);
      assertEquals(losses.map(({ l0 }) => l0), [...expected], `${activation.key} from ${k_start}`);
      using codes = sae.encode(someBatches(1)[0]!);
      if (activation.key === "top-k") assertEquals((await codes.read()).row_starts.at(-1), 16 * 5);
    }
  }
});

Deno.test("k_start and n_k_warmup must be given together and to what keeps a k", async () => {
  const refused = async (activation: ActivationOptions, options: TrainOptions, kind: new () => Error, what: string) => {
    using sae = await newModel(activation);
    await assertRejects(() => run(sae, getObjective(OBJECTIVE), someBatches(1), options), kind, what);
  };
  await refused(TOP_K, { k_start: 8 }, TypeError, "must be given together");
  await refused(TOP_K, { n_k_warmup: 8 }, TypeError, "must be given together");
  await refused(RELU, { k_start: 8, n_k_warmup: 8 }, TypeError, "k_start requires");
  await refused(TOP_K, { k_start: 0, n_k_warmup: 8 }, RangeError, "k_start");
  await refused(TOP_K, { k_start: 8, n_k_warmup: 0.5 }, RangeError, "n_k_warmup");
  await refused(TOP_K, { n_sparsity_warmup: -1 }, RangeError, "n_sparsity_warmup");
});

Deno.test("the penalty's weight grows in a straight line from 0 to what it is", async () => {
  for (const activation of [{ ...RELU, sparsity: { key: "l1-sparsity", coeff: 0.5 } }, JUMP_RELU] as const) {
    using sae = await newModel(activation);
    const options = { ...OPTIONS, n_sparsity_warmup: 4 };
    const { losses } = await run(sae, getObjective(OBJECTIVE), someBatches(7), options);
    const { coeff } = activation.sparsity;
    assertExact(
      losses.map((loss) => loss.sparsity_coeff),
      [0, 0.25, 0.5, 0.75, 1, 1, 1].map((t) => Math.fround(coeff * t)),
    );
    if (activation.key !== "relu") continue;
    assertEquals(losses.map(({ sparsity }) => sparsity > 0), [false, true, true, true, true, true, true]);
    for (const { sparsity, sparsity_coeff, l1 } of losses) assertExact([sparsity], [Math.fround(sparsity_coeff * l1)]);
  }
});

Deno.test("yields after every log_every steps, and once more for the rest", async () => {
  using sae = await newModel(TOP_K);
  const { yields } = await run(sae, getObjective(OBJECTIVE), someBatches(11), { ...OPTIONS, log_every: 4 });
  assertEquals(yields.map(({ step, losses }) => [step, losses.length]), [[4, 4], [8, 4], [11, 3]]);
});

Deno.test("without batches or steps there is nothing to yield", async () => {
  using sae = await newModel(TOP_K);
  assertEquals((await run(sae, getObjective(OBJECTIVE), [], OPTIONS)).yields, []);
  assertEquals((await run(sae, getObjective(OBJECTIVE), someBatches(3), { ...OPTIONS, n_steps: 0 })).yields, []);
});

Deno.test("n_steps ends training and takes no batch more", async () => {
  let taken = 0;
  const batches = function* () {
    for (const batch of someBatches(20)) {
      taken++;
      yield batch;
    }
  };
  using sae = await newModel(TOP_K);
  const { losses } = await run(sae, getObjective(OBJECTIVE), batches(), { ...OPTIONS, n_steps: 6 });
  assertEquals([losses.length, taken], [6, 6]);
});

const BATCH_TOP_K = { key: "batch-top-k", top_k: 5, aux: { key: "auxk", k_aux: 6 } } as const;

/** Everything at once: weighted penalty, loss of dead latents, thresholds that a few pre-activations in a hundred exceed. */
const JUMP_RELU = {
  key: "jump-relu",
  threshold_init: 2,
  bandwidth: 0.25,
  sparsity: { key: "tanh-sparsity", coeff: 0.01, scale: 4 },
  aux: { key: "pre-act", coeff: 3e-6 },
} as const;
const RELU = { key: "relu", sparsity: { key: "weighted-l1-sparsity", coeff: 0.01 } } as const;
const L0 = { key: "l0-sparsity", coeff: 0.05 } as const;

for (
  const [name, activation, schedule] of [
    ["relu", { ...RELU, aux: { ...TOP_K.aux, normalize: true } }, { n_sparsity_warmup: 8 }],
    ["top-k", TOP_K, { k_start: 11, n_k_warmup: 8 }],
    ["batch-top-k", { ...BATCH_TOP_K, relu: true, bias_correction: true }, { k_start: 1, n_k_warmup: 8 }],
    ["jump-relu", JUMP_RELU, { n_sparsity_warmup: 8 }],
    ["jump-relu with AuxK", { ...JUMP_RELU, sparsity: L0, aux: TOP_K.aux }, { n_sparsity_warmup: 8 }],
    ["jump-relu with Muon", { ...JUMP_RELU, aux: TOP_K.aux }, { optimizer: { key: "muon" } }],
  ] as const
) {
  Deno.test(`twenty steps are the reference's, with schedules: ${name}`, async () => {
    const start = randomParameters(new Random(1), { D: 20, S: 45 });
    for (let s = 1; s < 45; s += 4) start.b_enc[s]! -= 20;
    const device = await sharedDevice();
    // Lengths of the decoder's rows are learned where the penalty alone would pull at them.
    const learned = activation.key === "relu" ? { normalize_w_dec: false, remove_parallel_grads: false } : {};
    const options = { ...SIZES, ...learned, activation };
    using sae = await SparseAutoencoder.fromParameters(options, narrow(start), { device });
    // A BatchTopK's threshold is no parameter: it is estimated, and not trained.
    const p = activation.key === "batch-top-k" ? start : widen(await sae.readParameters());
    const objective = getObjective(OBJECTIVE);
    const { losses, end } = await run(sae, objective, someBatches(20), { ...OPTIONS, ...schedule });

    const state = initialState(p);
    const { k_start = null, n_sparsity_warmup = 0 } = schedule as ModelOptions;
    const wanted = someBatches(20).map((batch, step) => {
      const share = step < n_sparsity_warmup ? step / n_sparsity_warmup : 1;
      const { sparsity } = sae.cfg.activation;
      const top_k = k_start === null ? {} : { top_k: Math.round(warmup(k_start, 5, 8, step)) };
      const cfg = completeConfig({ ...sae.cfg, activation: { ...sae.cfg.activation, ...top_k } as ActivationOptions });
      return trainStep(cfg, p, state, Float64Array.from(batch), {
        lr: learningRate((k) => warmup(0, OPTIONS.lr, OPTIONS.n_lr_warmup, k), step),
        grad_clip: 1,
        prefixes: objective.prefixes(SIZES.d_sae, { seed: 0, step }),
        dead_threshold_tokens: OBJECTIVE.dead_threshold_tokens,
        sparsity: "coeff" in sparsity ? { ...sparsity, coeff: sparsity.coeff * share } : sparsity,
        ..."optimizer" in schedule && { muon: MUON },
      });
    });
    for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux", "grad_norm"] as const) {
      assertRunLosses(losses.map((loss) => loss[name]), wanted.map((loss) => loss[name]), name);
    }
    assertExact(losses.map((loss) => loss.n_dead), wanted.map((loss) => loss.n_dead), "n_dead");
    assert(
      losses.some(({ l0 }) => l0 > 1) && losses.some(({ aux }) => aux > 0),
      "latents fire, and dead ones take part",
    );
    for (const name of parameterNames(p)) assertRunParameter(end[name]!, p[name]!, name);
    if (activation.key === "batch-top-k") assertRunParameter(end.threshold!, [state.threshold], "threshold");
  });
}

for (
  const [name, activation] of [
    ["relu", RELU],
    ["top-k", TOP_K],
    ["batch-top-k", BATCH_TOP_K],
    ["jump-relu", JUMP_RELU],
  ] as const
) {
  Deno.test(`the same bits again, and whatever log_every is: ${name}`, async () => {
    const isControlled = !("top_k" in activation);
    for (const objective of [OBJECTIVE, ...isControlled ? [{ ...OBJECTIVE, target_l0: 5 }] : []]) {
      const wanted = await freshRun(activation, { log_every: 25 }, someBatches(12), objective);
      assert(wanted.losses.every(({ l0 }) => l0 > 0.5), "latents fire");
      for (const log_every of [25, 1, 7]) {
        const found = await freshRun(activation, { log_every }, someBatches(12), objective);
        assertSameRun(found, wanted, `${JSON.stringify(objective)}, ${log_every}`);
      }
    }
  });

  Deno.test(`the same bits from arrays, tensors and asynchronous batches: ${name}`, async () => {
    const wanted = await freshRun(activation, {});
    const context = contextOf(await sharedDevice());
    using tensors = new DisposableStack();
    const onDevice = someBatches(12).map((batch) => tensors.use(Tensor.from(context, batch, [16, 20], "batch")));
    assertSameRun(await freshRun(activation, {}, onDevice), wanted, "tensors");
    const later = async function* () {
      for (const batch of someBatches(12)) {
        await Promise.resolve();
        yield batch;
      }
    };
    assertSameRun(await freshRun(activation, {}, later()), wanted, "asynchronous");
  });

  Deno.test(`the same bits in row blocks of any size, from buffers and from textures: ${name}`, async () => {
    const sizes = { d_model: 80, d_sae: 250 };
    const random = new Random(4);
    const p = narrow(randomParameters(random, { D: sizes.d_model, S: sizes.d_sae }));
    const batches = Array.from({ length: 4 }, () => random.normal(150 * sizes.d_model));
    let wanted: Run | undefined;
    const limits = [
      { bindingLimit: 2 ** 27, textureCopyBytes: Infinity },
      { bindingLimit: 2 ** 17, textureCopyBytes: 16 },
      { bindingLimit: 2 ** 16, textureCopyBytes: Infinity },
    ];
    for (const { bindingLimit, textureCopyBytes } of limits) {
      const device = await freshDevice({ bindingLimit, textureCopyBytes, guardWords: 64 });
      using sae = await SparseAutoencoder.fromParameters({ ...sizes, activation }, p, { device });
      const objective = getObjective({ ...OBJECTIVE, dead_threshold_tokens: 300 });
      const found = await run(sae, objective, batches, OPTIONS);
      wanted ??= found;
      assertSameRun(found, wanted, `bindings of ${bindingLimit} bytes`);
      device.destroy();
    }
    if (activation.key !== "relu") assert(wanted!.losses.some(({ aux }) => aux > 0), "dead latents take part");
  });

  Deno.test(`nothing is allocated per step, and one submission is made: ${name}`, async () => {
    const device = await freshDevice();
    const { labels } = countBuffers(device);
    const submissions = countSubmissions(device);
    using sae = await newModel(activation, device);
    const created: number[] = [];
    const submitted: number[] = [];
    for await (const _ of train(sae, getObjective(OBJECTIVE), someBatches(20), { ...OPTIONS, log_every: 5 })) {
      created.push(labels.length);
      submitted.push(submissions());
    }
    assertEquals(labels.slice(created[0]), [], "buffers made after the first yield");
    // Losses are read, and how long latents have waited where dead ones are trained.
    const reads = sae.cfg.activation.aux.key === "auxk" ? 2 : 1;
    assertEquals(submitted.slice(1).map((n, i) => n - submitted[i]!), Array(3).fill(5 + reads), "steps and reads");
    device.destroy();
  });
}

Deno.test("steps do nothing for dead latents while none can be dead, which changes nothing", async () => {
  const device = await freshDevice();
  const started = async (top_k: number, log_every: number) => {
    using sae = await newModel({ ...TOP_K, top_k }, device);
    let auxiliary = 0;
    contextOf(device).onDispatch = (kernel) => auxiliary += Number(kernel === "auxiliary_starts");
    const objective = getObjective({ ...OBJECTIVE, dead_threshold_tokens: 100 });
    const found = await run(sae, objective, someBatches(24), { ...OPTIONS, log_every });
    return { found, auxiliary, n_dead: found.losses.map((loss) => loss.n_dead) };
  };
  // Where all latents fire in every batch of 16, the seventh could be the first with a dead one, as far as nobody looks.
  const [looked, blind] = [await started(45, 4), await started(45, 1000)];
  assertEquals([looked.auxiliary, blind.auxiliary], [0, 24 - 6]);
  assertSameRun(looked.found, blind.found, "none dies");
  const [dying, all] = [await started(1, 1), await started(1, 1000)];
  const first = all.n_dead.findIndex((count) => count > 0);
  assert(first >= 6 && all.auxiliary === 24 - 6, "some die as soon as they can, or later");
  assertEquals(dying.auxiliary, 24 - first, "what has been looked for every time is there when it is needed");
  assertSameRun(dying.found, all.found, "some die");
  device.destroy();
});

Deno.test("what buffers hold does not grow with steps, whatever the sizes of batches", async () => {
  const device = await freshDevice();
  const held = watchBuffers(device);
  for (const activation of [RELU, TOP_K]) {
    using sae = await newModel(activation, device);
    const random = new Random(8);
    const sizes = [16, 5, 16, 9];
    const batches = Array.from({ length: 160 }, (_, step) => random.normal(sizes[step % 4]! * 20));
    const counts: string[] = [];
    for await (const _ of train(sae, getObjective(OBJECTIVE), batches, { ...OPTIONS, log_every: 16 })) {
      const { bytes, count } = held();
      counts.push(`${count} buffers, ${bytes.values().reduce((sum, size) => sum + size, 0)} bytes`);
    }
    assertEquals([...new Set(counts)], [counts[0]]);
  }
  device.destroy();
});

Deno.test("a TopK step has one dense product and stores its pre-activations nowhere else", async () => {
  const device = await freshDevice();
  using sae = await newModel({ key: "top-k", top_k: 5, aux: { key: "no-aux" } }, device);
  const dispatches: { readonly name: string; readonly bound: readonly string[] }[] = [];
  contextOf(device).onDispatch = (name, bound) => dispatches.push({ name, bound });
  await run(sae, getObjective(OBJECTIVE), someBatches(1), OPTIONS);
  assertEquals(dispatches.filter(({ name }) => name.startsWith("matmul")).length, 1);
  const users = dispatches.filter(({ bound }) => bound.includes("pre-activations")).map(({ name }) => name);
  assertEquals(users.map((name) => name.replace(/_(nn|nt|tn)$/, "")), ["matmul", "top_k"]);
  device.destroy();
});

Deno.test("at most 256 steps wait for the GPU, however seldom losses are read", async () => {
  const device = await freshDevice();
  let [submissions, most] = [0, 0];
  const { queue } = device;
  const [submit, done] = [queue.submit, queue.onSubmittedWorkDone];
  queue.submit = (buffers) => {
    most = Math.max(most, ++submissions);
    submit.call(queue, buffers);
  };
  queue.onSubmittedWorkDone = () => {
    submissions = 0;
    return done.call(queue);
  };
  using sae = await SparseAutoencoder.create({ d_model: 2, d_sae: 4, activation: { key: "relu" } }, { device });
  const batches = Array(520).fill(new Float32Array(2).fill(1));
  submissions = most = 0;
  const { losses } = await run(sae, getObjective({ key: "vanilla" }), batches, { ...OPTIONS, log_every: 1000 });
  assertEquals(losses.length, 520);
  // How many exactly is a matter of time; see the pace's own tests.
  assert(most >= 4 && most <= 256, `${most} steps`);
  device.destroy();
});

Deno.test("where a batch cannot be had, the steps before it are told, then why", async () => {
  for (const bad of [new RangeError("the disk is gone"), new Float32Array(3)]) {
    using sae = await SparseAutoencoder.create({ d_model: 2, d_sae: 4, activation: { key: "relu" } });
    const batches = function* () {
      for (let i = 0; i < 7; i++) yield new Float32Array(2).fill(1);
      if (bad instanceof Error) throw bad;
      yield bad;
    };
    const losses: TrainLoss[] = [];
    const trained = async () => {
      for await (const progress of train(sae, getObjective({ key: "vanilla" }), batches(), { log_every: 5 })) {
        losses.push(...progress.losses);
      }
    };
    await assertRejects(trained, bad instanceof Error ? RangeError : ShapeError);
    assertEquals(losses.length, 7);
  }
});

Deno.test("a signal ends the loop also where it ends the batches", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 2, d_sae: 4, activation: { key: "relu" } });
  const aborter = new AbortController();
  const { signal } = aborter;
  const batches = function* () {
    for (let i = 0; i < 7; i++) yield new Float32Array(2).fill(1);
    aborter.abort();
    signal.throwIfAborted();
  };
  const objective = getObjective({ key: "vanilla" });
  const found = await Array.fromAsync(train(sae, objective, batches(), { n_steps: 20, log_every: 5, signal }));
  assertEquals(found.map(({ step }) => step), [5, 7]);
});

Deno.test("a BatchTopK step holds the pre-activations of some rows, never of a batch", async () => {
  const device = await freshDevice();
  const { labels, sizes } = countBuffers(device);
  const [B, d_model, d_sae] = [256, 20, 1024];
  const activation = { key: "batch-top-k", top_k: 4, aux: { key: "no-aux" } } as const;
  using sae = await SparseAutoencoder.create({ d_model, d_sae, activation }, { device });
  const batches = Array.from({ length: 2 }, (_, step) => new Random(step).normal(B * d_model));
  const { losses } = await run(sae, getObjective({ key: "vanilla" }), batches, OPTIONS);
  assertEquals(losses.map(({ l0 }) => l0), [4, 4]);
  assertEquals(labels.filter((_, at) => sizes[at]! >= 4 * B * d_sae), []);
  device.destroy();
});

Deno.test("a batch of another size in between changes nothing but its own step", async () => {
  using sae = await newModel(TOP_K);
  const sizes = [16, 16, 5, 16, 3, 7, 16];
  const random = new Random(5);
  const batches = sizes.map((size) => random.normal(size * 20));
  const { losses } = await run(sae, getObjective({ key: "vanilla" }), batches, OPTIONS);
  assertEquals(losses.length, sizes.length);
  assert(losses.every(({ loss }) => Number.isFinite(loss)));
});

Deno.test("leaving the loop leaves the model at the yielded step", async () => {
  const stopped = await freshRun(TOP_K, { log_every: 4 }, someBatches(4));
  using sae = await newModel(TOP_K);
  for await (const { step } of train(sae, getObjective(OBJECTIVE), someBatches(12), { ...OPTIONS, log_every: 4 })) {
    assertEquals(step, 4);
    break;
  }
  const end = await sae.readParameters();
  for (const name of PARAMETER_NAMES) assertSameBits(end[name], stopped.end[name], name);
});

for (
  const [name, activation, objective] of [
    ["top-k", TOP_K, OBJECTIVE],
    ["batch-top-k", { ...BATCH_TOP_K, bias_correction: true }, OBJECTIVE],
    ["jump-relu with a target", { key: "jump-relu" }, { ...OBJECTIVE, target_l0: 5 }],
  ] as const
) {
  Deno.test(`a run continues from its state, bit by bit, also from one that was read and restored: ${name}`, async () => {
    using unbroken = await newModel(activation);
    const wanted = await run(unbroken, getObjective(objective), someBatches(12), { ...OPTIONS, n_steps: 12 });
    for (const restored of [false, true]) {
      using stack = new DisposableStack();
      const sae = stack.use(await newModel(activation));
      const batches = someBatches(12);
      let state = stack.use(new TrainState(sae));
      const first = { losses: [] as TrainLoss[] };
      const options = { ...OPTIONS, n_steps: 12, log_every: 5, state };
      for await (const { losses } of train(sae, getObjective(objective), batches, options)) {
        first.losses.push(...losses);
        break;
      }
      if (restored) state = stack.use(TrainState.restore(sae, structuredClone(await state.read())));
      const second = await run(sae, getObjective(objective), batches.slice(5), { ...OPTIONS, n_steps: 12, state });
      const losses = [...first.losses, ...second.losses];
      assertSameRun({ ...second, losses }, wanted, restored ? "restored" : "kept");
      assertEquals(state.step, 12);
    }
    const weights = new Set(wanted.losses.map((loss) => loss.sparsity_coeff));
    assertEquals(weights.size, "target_l0" in objective ? 12 : 1, "the controller moves the weight");
  });
}

Deno.test("after a third of a run the controller of L0 aims at the target, and of an endless one as the rate allows", async () => {
  const target_l0 = 3;
  const aimAfter = async (n_batches: number, n_steps?: number) => {
    using sae = await newModel({ key: "relu" });
    using state = new TrainState(sae);
    const options = { ...OPTIONS, lr: 1e-5, state, ...n_steps === undefined ? {} : { n_steps } };
    const running = run(sae, getObjective({ ...OBJECTIVE, target_l0 }), someBatches(n_batches), options);
    if (n_steps === undefined) await running;
    else await assertRejects(() => running, RangeError, `batches ended after ${n_batches} of ${n_steps} steps`);
    return (await state.read()).controlledL0;
  };
  assertAlmostEquals(await aimAfter(4, 12), target_l0, 1e-5);
  assert(await aimAfter(3, 12) > 1.1 * target_l0);
  assert(await aimAfter(4) > 1.1 * target_l0);
});

Deno.test("validation comes with the yields, and changes no bit", async () => {
  const wanted = await freshRun(TOP_K, { log_every: 2 });
  const [batch] = someBatches(1);
  const validation = { every: 3, batches: () => [batch!] };
  const found = await freshRun(TOP_K, { log_every: 2, validation });
  assertSameRun(found, wanted, "validated");
  assertEquals(found.yields.map((progress) => progress.validation?.n_rows), [undefined, 16, 16, undefined, 16, 16]);
});

Deno.test("validation rows that are not finite are named; a model that was halted is not validated", async () => {
  const [batch] = someBatches(1);
  const validation = { every: 2, batches: () => [batch!.with(20 + 7, NaN)] };
  using sae = await newModel(TOP_K);
  const running = run(sae, getObjective(OBJECTIVE), someBatches(5), { ...OPTIONS, validation });
  await assertRejects(() => running, RangeError, "evaluating: row 1 has NaN in column 7");
  // At a rate of 1e30 nothing is finite after two steps, and the reason is the divergence.
  using wild = await newModel({ key: "relu" });
  const options = { lr: 1e30, n_lr_warmup: 0, validation: { every: 4, batches: () => [batch!] } };
  await assertRejects(() => run(wild, getObjective(OBJECTIVE), someBatches(6), options), DivergenceError);
});

for (const [name, value] of [["NaN", NaN], ["infinity", Infinity]] as const) {
  for (const log_every of [1, 25]) {
    Deno.test(`${name} in x stops training at its step, log_every ${log_every}`, async () => {
      const good = await freshRun(TOP_K, {}, someBatches(3));
      const batches = someBatches(9);
      batches[3]![37] = value;
      using sae = await newModel(TOP_K);
      const error = await assertRejects(
        () => run(sae, getObjective(OBJECTIVE), batches, { ...OPTIONS, log_every }),
        DivergenceError,
        "training stopped at step 3: x ",
      );
      assertEquals([error.step, error.tensor], [3, "x"]);
      const end = await sae.readParameters();
      const unit = await withUnitRows(good.end);
      for (const parameter of PARAMETER_NAMES) assertSameBits(end[parameter], unit[parameter], parameter);
    });
  }
}

for (const activation of [{ key: "relu" }, TOP_K] as const) {
  Deno.test(`a parameter that is not finite stops training and is named: ${activation.key}`, async () => {
    for (const [parameter, tensor] of [["b_enc", "f_x"], ["W_dec", "x_hat"], ["b_dec", "x_hat"]] as const) {
      const p = narrow(randomParameters(new Random(6), { D: 20, S: 45 }));
      p[parameter].fill(NaN);
      const device = await sharedDevice();
      using sae = await SparseAutoencoder.fromParameters({ ...SIZES, activation }, p, { device });
      const error = await assertRejects(
        () => run(sae, getObjective({ key: "vanilla" }), someBatches(3), OPTIONS),
        DivergenceError,
      );
      assertEquals([error.step, error.tensor], [0, tensor], parameter);
    }
  });
}

/** A model without biases at a rate of 0: rows that are f times as large have f² times the error. */
async function homogeneousModel(): Promise<SparseAutoencoder> {
  const p = narrow(randomParameters(new Random(1), { D: 20, S: 45 }));
  p.b_enc.fill(0);
  p.b_dec.fill(0);
  return await SparseAutoencoder.fromParameters({ ...SIZES, activation: TOP_K }, p, { device: await sharedDevice() });
}

/** The step at which a run on batches of these sizes halts, whatever log_every is and wherever it is resumed. */
async function haltOf(sizes: readonly number[], log_every: number, resumeAt?: number): Promise<number | undefined> {
  using stack = new DisposableStack();
  const sae = stack.use(await homogeneousModel());
  const batches = someBatches(sizes.length).map((batch, i) => batch.map((value) => value * sizes[i]!));
  let state = stack.use(new TrainState(sae));
  const part = async (from: number, to?: number) => {
    await run(sae, getObjective(OBJECTIVE), batches.slice(from, to), { lr: 0, log_every, state });
  };
  try {
    if (resumeAt !== undefined) {
      await part(0, resumeAt);
      state = stack.use(TrainState.restore(sae, structuredClone(await state.read())));
    }
    await part(resumeAt ?? 0);
  } catch (error) {
    if (!(error instanceof DivergenceError)) throw error;
    assertEquals(state.step, error.step, "the state is at the step that halted the run");
    return error.step;
  }
  return undefined;
}

Deno.test("a run halts at the third step in a row far above the median of the last 16, and at no other", async () => {
  const ones = (n: number) => new Array<number>(n).fill(1);
  const random = new Random(41);
  const cases: readonly [sizes: readonly number[], halts: number | undefined][] = [
    [[1, 1, 1, 1e3, 1, 1e3, 1e3, 1], undefined],
    [[1, 1, 1, 1e3, 1e3, 1e3, 1], 5],
    // A first batch of padding, all zero or nearly.
    [[0, 1, 1, 1, 1], undefined],
    [[1e-3, 1, 1, 1, 1], undefined],
    [[1e-3, 0, 1, 1, 0, 1], undefined],
    // A loss that has fallen far is measured against where it is.
    [[...new Array<number>(4).fill(1e3), ...ones(16), 150, 150, 150], 22],
    [[...new Array<number>(9).fill(1e3), ...ones(7), 150, 150, 150], undefined],
    ...Array.from({ length: 3 }, (): [number[], number | undefined] => {
      const sizes = Array.from({ length: 24 }, () => [0, 1e-3, 1, 1, 1e3, 1e3][random.integer(0, 5)]!);
      return [sizes, haltedAt(sizes.map((size) => size ** 2))];
    }),
  ];
  for (const [sizes, wanted] of cases) {
    assertEquals(haltedAt(sizes.map((size) => size ** 2)), wanted, `the reference: ${sizes}`);
    for (const log_every of [1, 25]) assertEquals(await haltOf(sizes, log_every), wanted, `${sizes}`);
    for (const at of [2, 4]) assertEquals(await haltOf(sizes, 25, at), wanted, `${sizes}, resumed at ${at}`);
  }
});

Deno.test("eight rows that are a thousand times as large, in one batch, do not end a run", async () => {
  using sae = await newModel(TOP_K);
  const batches = someBatches(12);
  batches[5] = batches[5]!.map((value, i) => i < 8 * 20 ? 1e3 * value : value);
  const { losses, yields } = await run(sae, getObjective(OBJECTIVE), batches, { ...OPTIONS, log_every: 2 });
  assert(losses[5]!.mse > 1e5 * losses[4]!.mse, "its error is far above the others");
  assertEquals(yields.map(({ stepsAbove }) => stepsAbove), [0, 0, 1, 0, 0, 0]);
});

for (
  const [name, activation, objective] of [
    ["top-k", TOP_K, OBJECTIVE],
    ["batch-top-k", BATCH_TOP_K, OBJECTIVE],
    ["relu with a target", { key: "relu" }, { ...OBJECTIVE, target_l0: 5 }],
  ] as const
) {
  Deno.test(`after a halt nothing changes, however many steps were under way: ${name}`, async () => {
    for (const spoil of [(x: Float32Array) => x.with(37, NaN), (x: Float32Array) => x.map((value) => 1e4 * value)]) {
      const batches = someBatches(16).map((x, i) => i < 4 || i > 6 ? x : spoil(x));
      const halted = async (log_every: number) => {
        using sae = await newModel(activation);
        using state = new TrainState(sae);
        const running = run(sae, getObjective(objective), batches, { ...OPTIONS, log_every, state });
        const { step } = await assertRejects(() => running, DivergenceError);
        assertEquals([state.step, state.n_tokens], [step, 16 * step]);
        return { state: await state.read(), end: await sae.readParameters() };
      };
      const wanted = await halted(1);
      for (const log_every of [4, 25]) assertEquals(await halted(log_every), wanted, `log_every ${log_every}`);
    }
  });
}

Deno.test("a state that was halted is trained on, with other rows", async () => {
  using sae = await newModel(TOP_K);
  using state = new TrainState(sae);
  const batches = someBatches(8);
  const bad = batches[2]!.with(3, NaN);
  await assertRejects(
    () => run(sae, getObjective(OBJECTIVE), [batches[0]!, batches[1]!, bad], { ...OPTIONS, state }),
    DivergenceError,
  );
  const before = await sae.readParameters();
  const { losses, end } = await run(sae, getObjective(OBJECTIVE), batches.slice(2), { ...OPTIONS, state });
  assertEquals([losses.length, state.step], [6, 8]);
  assert(end.W_enc.some((value, i) => value !== before.W_enc[i]), "it learns");
});

Deno.test("a loss that explodes stops training", async () => {
  using sae = await newModel(TOP_K);
  await assertRejects(
    () =>
      run(sae, getObjective(OBJECTIVE), someBatches(40), { lr: 100, n_lr_warmup: 0, grad_clip: false, log_every: 5 }),
    DivergenceError,
    "x_hat",
  );
});

Deno.test("too few batches: what there is is yielded, and then an error says so", async () => {
  for (const log_every of [4, 5, 25]) {
    using sae = await newModel(TOP_K);
    using state = new TrainState(sae);
    const steps: number[] = [];
    const running = async () => {
      const options = { ...OPTIONS, n_steps: 50, log_every, state };
      for await (const { losses } of train(sae, getObjective(OBJECTIVE), someBatches(10), options)) {
        steps.push(losses.length);
      }
    };
    await assertRejects(running, RangeError, "batches ended after 10 of 50 steps");
    assertEquals(steps.reduce((sum, n) => sum + n, 0), 10);
    await assertRejects(running, RangeError, "batches ended after 20 of 50 steps");
  }
});

Deno.test("unknown options are refused, with the nearest one", async () => {
  using sae = await newModel(TOP_K);
  const objective = getObjective(OBJECTIVE);
  const refused = async (options: object, message: string) => {
    await assertRejects(() => run(sae, objective, someBatches(1), options as TrainOptions), TypeError, message);
  };
  await refused({ nsteps: 3 }, 'train has no option "nsteps"; did you mean n_steps?');
  await refused({ learning_rate: 3 }, 'train has no option "learning_rate"; it has');
  await refused({ validation: { ever: 1, batches: () => [] } }, "did you mean every?");
  const together = async (options: object, own: object, message: string) => {
    const given = [{ sae, objective, options: own }];
    await assertRejects(() => Array.fromAsync(trainMany(given, someBatches(1), options)), TypeError, message);
  };
  await together({ lr: 3 }, {}, 'trainMany has no option "lr"');
  await together({}, { log_every: 3 }, 'options has no option "log_every"');
});

Deno.test("a model or a state trains in one loop at a time", async () => {
  using sae = await newModel(TOP_K);
  using other = await newModel(TOP_K);
  using state = new TrainState(sae);
  const objective = getObjective(OBJECTIVE);
  const options = { ...OPTIONS, log_every: 1 };
  const loop = train(sae, objective, someBatches(9), { ...options, state });
  await loop.next();
  const again = (options: TrainOptions) => run(sae, objective, someBatches(1), options);
  await assertRejects(() => again(options), RangeError, "another loop is training this model; leave that loop first");
  await assertRejects(() => run(other, objective, someBatches(1), { ...options, state }), RangeError, "this state");
  const many = () => Array.fromAsync(trainMany([{ sae, objective }], someBatches(1)));
  await assertRejects(many, RangeError, "another loop is training this model");
  assertEquals((await loop.next()).value!.step, 2, "the first loop is as it was");
  await loop.return();
  assertEquals((await again({ ...options, state })).yields.map(({ step }) => step), [3]);
  // A loop that ended with an error is over too.
  await assertRejects(() => run(sae, objective, [new Float32Array(21)], options), ShapeError);
  await again(options);
});

Deno.test("what a training cannot reach is said once, before the first step or at the end of an endless one", async () => {
  const warningsOf = async (options: TrainOptions, objective: ObjectiveOptions) => {
    using sae = await newModel({ ...TOP_K, top_k: 45 });
    const said: [warning: string, model: number][] = [];
    const onWarning = (warning: string, model: number) => said.push([warning, model]);
    const given = { lr: 1e-3, log_every: 2, onWarning, ...options };
    let before = -1;
    for await (const _ of train(sae, getObjective(objective), someBatches(6), given)) {
      if (before < 0) before = said.length;
    }
    return { said, before };
  };
  const schedules = { n_lr_warmup: 6, n_k_warmup: 7, k_start: 45, n_sparsity_warmup: 8 };
  const wanted: [warning: string, model: number][] = [
    [
      "the learning rate does not reach its peak: n_lr_warmup is 6 and the run has 6 steps; lower it or train longer",
      0,
    ],
    [
      "the penalty does not reach its weight: n_sparsity_warmup is 8 and the run has 6 steps; lower it or train longer",
      0,
    ],
    ["k does not reach top_k: n_k_warmup is 7 and the run has 6 steps; lower it or train longer", 0],
    ["top_k keeps every latent on every row: top_k is 45, d_sae is 45; lower top_k or raise d_sae", 0],
    [
      "AuxK never acts and n_dead stays 0: a latent counts as dead after dead_threshold_tokens 97 rows, but there are only 96; train on more rows, or lower dead_threshold_tokens",
      0,
    ],
  ];
  const never = { ...OBJECTIVE, dead_threshold_tokens: 97 };
  assertEquals(await warningsOf({ ...schedules, n_steps: 6 }, never), { said: wanted, before: 5 });
  assertEquals(await warningsOf(schedules, never), { said: wanted, before: 0 });
  const reached = { n_lr_warmup: 5, n_k_warmup: 5, k_start: 45, n_sparsity_warmup: 5 };
  const { said } = await warningsOf({ ...reached, n_steps: 6 }, { ...OBJECTIVE, dead_threshold_tokens: 96 });
  assertEquals(said.map(([warning]) => warning.slice(0, 21)), ["top_k keeps every lat"]);
});

Deno.test("an aborted signal ends the loop after the step under way", async () => {
  using sae = await newModel(TOP_K);
  const controller = new AbortController();
  const batches = function* () {
    for (const [i, batch] of someBatches(12).entries()) {
      if (i === 5) controller.abort();
      yield batch;
    }
  };
  const { signal } = controller;
  const { yields, losses } = await run(sae, getObjective(OBJECTIVE), batches(), { ...OPTIONS, log_every: 4, signal });
  assertEquals(yields.map(({ step }) => step), [4, 6]);
  assertEquals(losses.length, 6);
  assertEquals((await run(sae, getObjective(OBJECTIVE), someBatches(3), { ...OPTIONS, signal })).yields, []);
});

Deno.test("a lost device ends the loop with an error", async () => {
  const device = await freshDevice();
  using sae = await newModel(TOP_K, device);
  const batches = function* () {
    for (const [i, batch] of someBatches(12).entries()) {
      if (i === 3) device.destroy();
      yield batch;
    }
  };
  await assertRejects(() => run(sae, getObjective(OBJECTIVE), batches(), { ...OPTIONS, log_every: 2 }), Error, "lost");
});

Deno.test("refused: batches and options that make no sense", async () => {
  using sae = await newModel(TOP_K);
  const objective = getObjective(OBJECTIVE);
  await assertRejects(() => run(sae, objective, [new Float32Array(21)], OPTIONS), ShapeError, "21");
  const options: TrainOptions[] = [
    { log_every: 0 },
    { log_every: 1.5 },
    { lr: -1 },
    { lr: NaN },
    { n_lr_warmup: -1 },
    { n_steps: 2.5 },
    { grad_clip: 0 },
    { validation: { every: 0, batches: () => [] } },
  ];
  for (const option of options) await assertRejects(() => run(sae, objective, someBatches(1), option), RangeError);
  // What versions before 0.2.0 took.
  const unclipped = { grad_clip: null as unknown as false };
  const message = "grad_clip must be a positive number, or false for no clipping, found null";
  await assertRejects(() => run(sae, objective, someBatches(1), unclipped), RangeError, message);
});

Deno.test("a state that was disposed of is named", async () => {
  using sae = await newModel(TOP_K);
  const state = new TrainState(sae);
  state[Symbol.dispose]();
  await assertRejects(
    () => run(sae, getObjective(OBJECTIVE), someBatches(1), { ...OPTIONS, state }),
    Error,
    "was used after it was disposed of",
  );
});

for (
  const [name, activation, objective, standardise] of [
    ["the defaults", { key: "jump-relu" }, OBJECTIVE, "scale"],
    ["a target", { ...JUMP_RELU, threshold_init: 0.5 }, { ...OBJECTIVE, target_l0: 5 }, "scale"],
    [
      "a penalty on the distance from a target",
      {
        ...JUMP_RELU,
        threshold_init: 0.5,
        sparsity: { key: "target-l0-sparsity", coeff: 0.1, target_l0: 5 },
      },
      { key: "vanilla", dead_threshold_tokens: 40 },
      "mean_scale",
    ],
  ] as const
) {
  Deno.test(`a JumpReLU has the same codes, bit by bit, of data times 2⁻⁷, 1 and 2⁷: ${name}`, async () => {
    const rows = new Random(31).normal(200 * 20).map((value) => value + 0.5);
    const found: CodeArrays[] = [];
    for (const factor of [2 ** -7, 1, 2 ** 7]) {
      const x = rows.map((value) => value * factor);
      const input = await measureScaling(rowsOf(x, 20), standardise);
      using sae = await SparseAutoencoder.create({ ...SIZES, activation }, {
        device: await sharedDevice(),
        input,
        data: { x, b_dec: "geometric-median", scale_encoder: true },
      });
      using before = sae.encode(x);
      const batches = shuffledBatches(rowsOf(x, 20), { batch_size: 16, n_steps: 20 });
      await run(sae, getObjective(objective), batches, OPTIONS);
      using after = sae.encode(x);
      found.push(await before.read(), await after.read());
    }
    const [before, after] = found;
    assert(
      before!.values.length > 0 && after!.values.some((value, i) => value !== before!.values[i]),
      "it has learned",
    );
    for (const [i, codes] of found.entries()) {
      const wanted = found[i % 2]!;
      assertExact(codes.indices, wanted.indices, "latents");
      assertSameBits(codes.values, wanted.values, "codes");
    }
  });
}

async function run(
  sae: SparseAutoencoder,
  objective: Objective,
  batches: Parameters<typeof train>[2],
  options: TrainOptions,
): Promise<Run> {
  const yields: Progress[] = [];
  for await (const progress of train(sae, objective, batches, options)) yields.push(progress);
  return { yields, losses: yields.flatMap(({ losses }) => losses), end: await sae.readParameters() };
}

/** Twelve steps from the same start. */
async function freshRun(
  activation: ActivationOptions,
  options: TrainOptions,
  batches: Parameters<typeof train>[2] = someBatches(12),
  objective: ObjectiveOptions = OBJECTIVE,
): Promise<Run> {
  using sae = await newModel(activation);
  return await run(sae, getObjective(objective), batches, { ...OPTIONS, ...options });
}

async function newModel(activation: ActivationOptions, device?: GPUDevice): Promise<SparseAutoencoder> {
  const p = narrow(randomParameters(new Random(1), { D: 20, S: 45 }));
  const cfg: SparseAutoencoderOptions = { ...SIZES, activation };
  return await SparseAutoencoder.fromParameters(cfg, p, { device: device ?? await sharedDevice() });
}

function someBatches(count: number): Float32Array[] {
  const random = new Random(2);
  return Array.from({ length: count }, () => random.normal(16 * 20));
}

function rows(data: Float32Array, size: number): Float32Array[] {
  return Array.from({ length: data.length / size }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

/** A step begins with unit rows, also the one that is then found to be bad. */
async function withUnitRows(p: ParameterArrays): Promise<ParameterArrays> {
  using sae = await SparseAutoencoder.fromParameters(SIZES, p, { device: await sharedDevice() });
  sae.normalizeWDec();
  return await sae.readParameters();
}

function assertSameRun(got: Run, want: Run, what: string): void {
  assertEquals(got.losses, want.losses, what);
  for (const [name, values] of Object.entries(want.end)) {
    assertSameBits(got.end[name as keyof ParameterArrays]!, values, `${what}: ${name}`);
  }
}

/** Counts what is submitted to a device's queue from now on. */
function countSubmissions(device: GPUDevice): () => number {
  let count = 0;
  const submit = device.queue.submit.bind(device.queue);
  device.queue.submit = (buffers) => {
    count++;
    submit(buffers);
  };
  return () => count;
}
