/**
 * Many models on the same batches: each is what it would be alone, bit by bit, also where others diverge, and what is
 * alike is done at once.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective, type ObjectiveOptions } from "../../objectives/objective.ts";
import type { TrainLoss } from "../../objectives/loss_record.ts";
import type { ModelOptions } from "../../train/options.ts";
import { DivergenceError, type Progress, train, type Training, trainMany } from "../../train/train.ts";
import { PARAMETER_NAMES } from "../reference/model.ts";
import { countBuffers, freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertSameBits } from "../support/tolerance.ts";

const D = 20;
const STEPS = 7;

/** A model, and how it is trained. */
interface Recipe {
  readonly activation: ActivationOptions;
  readonly objective: ObjectiveOptions;
  readonly d_sae?: number;
  readonly seed?: number;
  readonly options?: ModelOptions;
}

const VANILLA = { key: "vanilla", dead_threshold_tokens: 40 } as const;
const MATRYOSHKA = { key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 40 } as const;
const TOP_K = { key: "top-k", top_k: 5, aux: { key: "auxk", k_aux: 6 } } as const;
const BATCH_TOP_K = { ...TOP_K, key: "batch-top-k" } as const;
const JUMP_RELU = { key: "jump-relu", threshold_init: 2, sparsity: { key: "l0-sparsity", coeff: 0.1 } } as const;
const TANH = {
  key: "jump-relu",
  threshold_init: 2,
  sparsity: { key: "tanh-sparsity", coeff: 0.1, scale: 4 },
  aux: { key: "pre-act", coeff: 0.5 },
} as const;
const QUICK = { lr: 3e-3, n_lr_warmup: 3 } as const;

/** Of every kind at least two: of other sizes, seeds, rates, penalties, or optimizers. */
const RECIPES: readonly Recipe[] = [
  { activation: TOP_K, objective: MATRYOSHKA },
  { activation: { ...TOP_K, top_k: 9 }, objective: MATRYOSHKA, seed: 1, options: { lr: 1e-2, grad_clip: false } },
  { activation: { ...TOP_K, top_k: 3 }, objective: MATRYOSHKA, d_sae: 70, options: { k_start: 20, n_k_warmup: 5 } },
  { activation: BATCH_TOP_K, objective: VANILLA },
  { activation: { ...BATCH_TOP_K, top_k: 2 }, objective: VANILLA, seed: 3 },
  { activation: { key: "relu" }, objective: { ...VANILLA, sparsity_coeff: 1e-2, target_l0: 4 } },
  { activation: { key: "relu" }, objective: { ...VANILLA, sparsity_coeff: 0.1 }, options: { n_sparsity_warmup: 5 } },
  { activation: JUMP_RELU, objective: VANILLA },
  { activation: JUMP_RELU, objective: VANILLA, d_sae: 33, options: { optimizer: { key: "muon" } } },
  { activation: { ...JUMP_RELU, threshold_init: 1 }, objective: VANILLA, options: { optimizer: { key: "muon" } } },
  { activation: TANH, objective: VANILLA },
  { activation: { ...TANH, threshold_init: 1 }, objective: VANILLA, seed: 2 },
  { activation: { key: "gated" }, objective: { ...VANILLA, sparsity_coeff: 1e-2, target_l0: 4 } },
  { activation: { key: "gated", aux: TOP_K.aux }, objective: VANILLA, d_sae: 33 },
  { activation: { key: "gated", sparsity: TANH.sparsity }, objective: MATRYOSHKA, seed: 2 },
  { activation: { ...TOP_K, sparsity: TANH.sparsity }, objective: VANILLA },
  { activation: { ...TOP_K, sparsity: TANH.sparsity, relu: true }, objective: VANILLA },
];

/** What became of a model. */
interface Outcome {
  readonly losses: readonly TrainLoss[];
  readonly end: ParameterArrays;
  readonly tokens_since_active: Uint32Array;
}

Deno.test("each model is what it would be alone, bit by bit, whatever log_every is", async () => {
  const alone: Outcome[] = [];
  for (const recipe of RECIPES) {
    using made = await make([recipe]);
    const [{ sae, objective, options }] = made.trainings as [Required<Training>];
    const losses: TrainLoss[] = [];
    for await (const progress of train(sae, objective, batches(), { ...options, n_steps: STEPS })) {
      losses.push(...progress.losses);
    }
    alone.push((await outcomes(made.trainings, [losses]))[0]!);
  }
  for (const log_every of [25, 4]) {
    using made = await make(RECIPES);
    const together = await run(made.trainings, { n_steps: STEPS, log_every });
    together.forEach((outcome, i) => assertSameOutcome(outcome, alone[i]!, `model ${i}, log_every ${log_every}`));
  }
});

Deno.test("the same bits in small bindings, by textures, from tensors, and from batches of several sizes", async () => {
  const recipes = RECIPES.slice(0, 5);
  const random = new Random(4);
  const sizes = [16, 16, 5, 16, 7, 16].map((rows) => random.normal(rows * D));
  let wanted: Outcome[] | undefined;
  for (const bindingLimit of [2 ** 27, 2 ** 15]) {
    const textureCopyBytes = bindingLimit === 2 ** 15 ? 16 : Infinity;
    const device = await freshDevice({ bindingLimit, textureCopyBytes, guardWords: 64 });
    for (const asTensors of [false, true]) {
      using made = await make(recipes, device);
      using tensors = new DisposableStack();
      const given = sizes.map((batch) =>
        asTensors ? tensors.use(Tensor.from(contextOf(device), batch, [batch.length / D, D], "batch")) : batch
      );
      const found = await run(made.trainings, {}, given);
      wanted ??= found;
      found.forEach((outcome, i) =>
        assertSameOutcome(outcome, wanted![i]!, `model ${i}, ${bindingLimit}, ${asTensors}`)
      );
    }
    device.destroy();
  }
});

Deno.test("models of a kind make the dispatches of one, a step one submission, and nothing is allocated", async () => {
  const device = await freshDevice();
  const count = async (recipes: readonly Recipe[]) => {
    using made = await make(recipes, device);
    let [dispatches, submissions] = [0, 0];
    const submit = device.queue.submit;
    device.queue.submit = (buffers) => {
      submissions++;
      submit.call(device.queue, buffers);
    };
    const { labels } = countBuffers(device);
    contextOf(device).onDispatch = () => dispatches++;
    const seen: number[][] = [];
    for await (const _ of trainMany(made.trainings, batches(20), { log_every: 5 })) {
      seen.push([dispatches, submissions, labels.length]);
    }
    contextOf(device).onDispatch = undefined;
    device.queue.submit = submit;
    return seen.slice(1).map((now, i) => now.map((n, which) => n - seen[i]![which]!));
  };
  // What the GPU decides about, as it does about the auxiliary loss, stays a dispatch of each.
  const aux = { key: "no-aux" } as const;
  const of = (top_k: number) => ({ activation: { ...TOP_K, top_k, aux }, objective: MATRYOSHKA });
  const [alone] = await count([of(5)]);
  const together = await count([of(5), of(4), { ...of(5), d_sae: 61 }]);
  // Alone, each step has the GPU count the workgroups of one run; a joined dispatch has all that there can be.
  assertEquals(together, Array(3).fill([alone![0]! - 5, 5 + 3, 0]));
  device.destroy();
});

Deno.test("a model that diverges stops, and the others continue without it", async () => {
  const bad: Recipe = { ...RECIPES[0]!, options: { lr: 100, n_lr_warmup: 0, grad_clip: false } };
  const [first, last] = [RECIPES[0]!, RECIPES[1]!];
  using alone = await make([first, last]);
  const wanted = await run(alone.trainings, { log_every: 4 }, batches(30));
  using made = await make([first, bad, last]);
  const yields: (readonly Progress[])[] = [];
  for await (const progress of trainMany(made.trainings, batches(30), { log_every: 4 })) yields.push(progress);
  const found = await outcomes(made.trainings, [0, 1, 2].map((i) => yields.flatMap((all) => all[i]!.losses)));
  assertSameOutcome(found[0]!, wanted[0]!, "before it");
  assertSameOutcome(found[2]!, wanted[1]!, "after it");
  const { diverged, step } = yields.at(-1)![1]!;
  assert(diverged instanceof DivergenceError);
  assertEquals([step, found[1]!.losses.length, yields.at(-1)![1]!.losses], [diverged.step, diverged.step, []]);
  assert(Object.values(found[1]!.end).every((values) => values.every(Number.isFinite)));
  // Nothing of it changed while the others continued: it is what it is alone, where the loop ends at the step itself.
  using single = await make([bad]);
  const stopped = await run(single.trainings, { log_every: 1 }, batches(30));
  assertSameOutcome(found[1]!, stopped[0]!, "the diverged one");
  const [left, right] = [made.trainings[1]!, single.trainings[0]!].map(({ options }) => options!.state!);
  assertEquals(await left!.read(), await right!.read());

  using hopeless = await make([bad]);
  let taken = 0;
  const counted = function* () {
    for (const batch of batches(90)) {
      taken++;
      yield batch;
    }
  };
  for await (const _ of trainMany(hopeless.trainings, counted(), { log_every: 4 }));
  assert(taken < 90, "when all have diverged, it ends");
});

Deno.test("refused: what cannot train together", async () => {
  using made = await make(RECIPES.slice(0, 2));
  const [a, b] = made.trainings as [Training, Training];
  using state = new TrainState(a.sae);
  using later = new TrainState(b.sae);
  later.step = 3;
  const device = await freshDevice();
  using elsewhere = await make(RECIPES.slice(0, 1), device);
  using wide = await SparseAutoencoder.create({ d_model: D + 1 }, { device: await sharedDevice() });
  const refused: readonly [trainings: Training[], message: string][] = [
    [[a, a], "each can belong to only one at a time"],
    [[{ ...a, options: { state } }, { ...b, options: { state } }], "each can belong to only one at a time"],
    [[a, { ...b, sae: wide }], "need the same d_model, found 20, 21"],
    [[a, elsewhere.trainings[0]!], "need the same device, found several"],
    [[{ ...a, options: { state } }, { ...b, options: { state: later } }], "at the same step, found 0, 3"],
    [[a, { ...b, options: { lr: -1 } }], "lr must be"],
  ];
  for (const [trainings, message] of refused) await assertRejects(() => run(trainings), RangeError, message);
  await assertRejects(() => run([a, b], {}, [new Float32Array(D + 1)]), ShapeError, `${D + 1}`);
  assertEquals(await Array.fromAsync(trainMany([], batches())), []);
  device.destroy();
});

/** Models that are gone after the test. */
async function make(recipes: readonly Recipe[], device?: GPUDevice): Promise<{ trainings: Training[] } & Disposable> {
  using stack = new DisposableStack();
  const trainings: Training[] = [];
  for (const { activation, objective, d_sae = 45, seed = 0, options = {} } of recipes) {
    const cfg = { d_model: D, d_sae, activation };
    const sae = stack.use(await SparseAutoencoder.create(cfg, { seed, device: device ?? await sharedDevice() }));
    const state = stack.use(new TrainState(sae, { seed, optimizer: options.optimizer?.key ?? "adam" }));
    trainings.push({ sae, objective: getObjective(objective), options: { ...QUICK, ...options, state } });
  }
  const owned = stack.move();
  return { trainings, [Symbol.dispose]: () => owned.dispose() };
}

async function run(
  trainings: readonly Training[],
  options: Parameters<typeof trainMany>[2] = {},
  given: Parameters<typeof trainMany>[1] = batches(),
): Promise<Outcome[]> {
  const losses: TrainLoss[][] = trainings.map(() => []);
  for await (const progress of trainMany(trainings, given, options)) {
    progress.forEach((one, i) => losses[i]!.push(...one.losses));
  }
  return await outcomes(trainings, losses);
}

async function outcomes(trainings: readonly Training[], losses: readonly (readonly TrainLoss[])[]): Promise<Outcome[]> {
  return await Promise.all(trainings.map(async ({ sae, options }, i) => ({
    losses: losses[i]!,
    end: await sae.readParameters(),
    tokens_since_active: await options!.state!.tokens_since_active.read(),
  })));
}

function batches(count = STEPS): Float32Array[] {
  const random = new Random(2);
  return Array.from({ length: count }, () => random.normal(16 * D));
}

function assertSameOutcome(got: Outcome, want: Outcome, what: string): void {
  assertEquals(got.losses, want.losses, what);
  for (const name of PARAMETER_NAMES) assertSameBits(got.end[name], want.end[name], `${what}: ${name}`);
  if (want.end.threshold) assertSameBits(got.end.threshold!, want.end.threshold, `${what}: threshold`);
  assertEquals(got.tokens_since_active, want.tokens_since_active, what);
}
