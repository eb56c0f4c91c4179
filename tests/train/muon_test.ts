/**
 * Training with Muon: the reference's steps, a falling loss, the same bits however it is run, and the norms of gradients.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import type { ActivationOptions } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import { completeConfig } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import type { TrainLoss } from "../../objectives/loss_record.ts";
import { train, type TrainOptions } from "../../train/train.ts";
import { narrow, PARAMETER_NAMES, widen } from "../reference/model.ts";
import { MUON } from "../reference/muon.ts";
import { randomParameters } from "../reference/problems.ts";
import { initialState, learningRate, trainStep, warmup } from "../reference/training.ts";
import { countBuffers, freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertRunLosses, assertRunParameter, assertSameBits, assertScalarClose } from "../support/tolerance.ts";

const SIZES = { d_model: 20, d_sae: 45 };
const ACTIVATION = { key: "top-k", top_k: 5, aux: { key: "auxk", k_aux: 6 } } as const;
const OBJECTIVE = { key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 40 } as const;
const OPTIONS = { lr: 0.02, n_lr_warmup: 3, optimizer: { key: "muon" } } as const;

interface Run {
  readonly losses: readonly TrainLoss[];
  readonly end: ParameterArrays;
}

function someBatches(count: number): Float32Array[] {
  const random = new Random(2);
  return Array.from({ length: count }, () => random.normal(16 * 20));
}

async function newModel(
  { device, activation = ACTIVATION }: { readonly device?: GPUDevice; readonly activation?: ActivationOptions } = {},
): Promise<SparseAutoencoder> {
  const p = narrow(randomParameters(new Random(1), { D: 20, S: 45 }));
  const options = { ...SIZES, activation };
  return await SparseAutoencoder.fromParameters(options, p, { device: device ?? await sharedDevice() });
}

async function run(sae: SparseAutoencoder, batches: Iterable<Float32Array>, options: TrainOptions): Promise<Run> {
  const reports = await Array.fromAsync(train(sae, getObjective(OBJECTIVE), batches, { ...OPTIONS, ...options }));
  return { losses: reports.flatMap(({ losses }) => losses), end: await sae.readParameters() };
}

function assertSameRun(got: Run, want: Run, what: string): void {
  assertEquals(got.losses, want.losses, what);
  for (const name of PARAMETER_NAMES) assertSameBits(got.end[name], want.end[name], `${what}: ${name}`);
}

Deno.test("Muon: twenty steps are the reference's", async () => {
  using sae = await newModel();
  const cfg = completeConfig({ ...SIZES, activation: ACTIVATION });
  const p = widen(await sae.readParameters());
  const objective = getObjective({ key: "vanilla" });
  const reports = await Array.fromAsync(train(sae, objective, someBatches(20), OPTIONS));
  const losses = reports.flatMap(({ losses }) => losses);

  const state = initialState(p);
  const wanted = someBatches(20).map((batch, step) =>
    trainStep(cfg, p, state, Float64Array.from(batch), {
      lr: learningRate((k) => warmup(0, OPTIONS.lr, OPTIONS.n_lr_warmup, k), step),
      grad_clip: 1,
      prefixes: [SIZES.d_sae],
      dead_threshold_tokens: objective.cfg.dead_threshold_tokens,
      muon: MUON,
    })
  );
  for (const name of ["loss", "grad_norm"] as const) {
    assertRunLosses(losses.map((loss) => loss[name]), wanted.map((loss) => loss[name]), name);
  }
  const end = await sae.readParameters();
  for (const name of PARAMETER_NAMES) assertRunParameter(end[name], p[name], name);
});

Deno.test("Muon: a short training lowers the loss", async () => {
  const random = new Random(3);
  const directions = random.normal(40 * 20);
  const batch = new Float32Array(256 * 20);
  for (let row = 0; row < 256; row++) {
    const [one, other] = [random.integer(0, 39), random.integer(0, 39)];
    for (let d = 0; d < 20; d++) batch[row * 20 + d] = directions[one * 20 + d]! + directions[other * 20 + d]!;
  }
  using sae = await SparseAutoencoder.create({ ...SIZES, activation: ACTIVATION }, { device: await sharedDevice() });
  const options = { ...OPTIONS, lr: 0.1, n_steps: 60 };
  const reports = await Array.fromAsync(train(sae, getObjective({ key: "vanilla" }), Array(60).fill(batch), options));
  const [first, last] = [reports[0]!.losses[0]!.mse, reports.at(-1)!.losses.at(-1)!.mse];
  assert(last < first / 3, `the squared error went from ${first} to ${last}`);
});

Deno.test("Muon: the same bits again, whatever log_every is, and in row blocks", async () => {
  using first = await newModel();
  const wanted = await run(first, someBatches(12), {});
  for (const log_every of [1, 7]) {
    using sae = await newModel();
    assertSameRun(await run(sae, someBatches(12), { log_every }), wanted, `log_every ${log_every}`);
  }
  const sizes = { d_model: 80, d_sae: 250 };
  const random = new Random(4);
  const p = narrow(randomParameters(random, { D: sizes.d_model, S: sizes.d_sae }));
  const batches = Array.from({ length: 3 }, () => random.normal(50 * sizes.d_model));
  const runOn = async (device: GPUDevice) => {
    using sae = await SparseAutoencoder.fromParameters({ ...sizes, activation: ACTIVATION }, p, { device });
    return await run(sae, batches, {});
  };
  const small = await freshDevice({ bindingLimit: 2 ** 16, guardWords: 64 });
  assertSameRun(await runOn(small), await runOn(await sharedDevice()), "bindings of 64 KiB");
  small.destroy();
});

Deno.test("Muon: a run continues from its state, bit by bit, also from one that was read and restored", async () => {
  using uninterrupted = await newModel();
  const wanted = await run(uninterrupted, someBatches(12), { n_steps: 12 });
  for (const restored of [false, true]) {
    using stack = new DisposableStack();
    const sae = stack.use(await newModel());
    const batches = someBatches(12);
    let state = stack.use(new TrainState(sae, { optimizer: "muon" }));
    const first: TrainLoss[] = [];
    const options = { ...OPTIONS, n_steps: 12, log_every: 5, state };
    for await (const { losses } of train(sae, getObjective(OBJECTIVE), batches, options)) {
      first.push(...losses);
      break;
    }
    if (restored) state = stack.use(TrainState.restore(sae, structuredClone(await state.read())));
    const second = await run(sae, batches.slice(5), { n_steps: 12, state });
    assertSameRun({ ...second, losses: [...first, ...second.losses] }, wanted, restored ? "restored" : "kept");
  }
});

Deno.test("Muon: nothing is allocated per step", async () => {
  const device = await freshDevice();
  const { labels } = countBuffers(device);
  using sae = await newModel({ device });
  const created: number[] = [];
  const options = { ...OPTIONS, log_every: 3 };
  for await (const _ of train(sae, getObjective(OBJECTIVE), someBatches(9), options)) created.push(labels.length);
  assertEquals(labels.slice(created[0]), [], "buffers made after the first yield");
  device.destroy();
});

Deno.test("a state with the moments of another optimizer is refused", async () => {
  using sae = await newModel();
  using adam = new TrainState(sae);
  using muon = new TrainState(sae, { optimizer: "muon" });
  const message = "the state has moments of";
  await assertRejects(() => run(sae, someBatches(1), { state: adam }), RangeError, `${message} adam`);
  const optimizer = { key: "adam" } as const;
  await assertRejects(() => run(sae, someBatches(1), { state: muon, optimizer }), RangeError, `${message} muon`);
  const unknown = { key: "sgd" as "adam" };
  await assertRejects(() => run(sae, someBatches(1), { optimizer: unknown }), RangeError, "adam or muon");
  const text = "muon" as unknown as { key: "muon" };
  await assertRejects(() => run(sae, someBatches(1), { optimizer: text }), RangeError, 'adam or muon, found "muon"');
  const constants = { key: "adam", beta1: 0 } as { key: "adam" };
  await assertRejects(() => run(sae, someBatches(1), { optimizer: constants }), TypeError, 'no field "beta1"');
  const wrong = { key: "muon", momentum: 2 } as const;
  await assertRejects(() => run(sae, someBatches(1), { optimizer: wrong }), RangeError, "momentum");
});

for (const activation of [ACTIVATION, { key: "jump-relu", threshold_init: 1 }] as const) {
  Deno.test(`the norm of each parameter's gradient is reported, before clipping: ${activation.key}`, async () => {
    using sae = await newModel({ activation });
    using again = await newModel({ activation });
    using state = new TrainState(again);
    const [batch] = someBatches(1);
    const { losses: [loss] } = await run(sae, [batch!], { grad_clip: 1e-3, optimizer: { key: "adam" } });
    again.normalizeWDec();
    const { loss: pending, gradients } = getObjective(OBJECTIVE).lossAndGradients(again, batch!, { state });
    pending[Symbol.dispose]();
    again.removeParallelGrads(gradients);
    const read = await gradients.read();
    const { grad_norm, grad_norms } = loss!;
    assertEquals(Object.keys(grad_norms), [...PARAMETER_NAMES, "threshold"]);
    const sizes = { ...read, threshold: read.threshold ?? new Float32Array(1) };
    let squares = 0;
    for (const name of [...PARAMETER_NAMES, "threshold"] as const) {
      const square = sizes[name].reduce((sum, value) => sum + value * value, 0);
      assertEquals(square > 0, name !== "threshold" || activation.key === "jump-relu", `${name} has a gradient`);
      assertScalarClose(grad_norms[name], Math.sqrt(square), name);
      squares += square;
    }
    assertScalarClose(grad_norm, Math.sqrt(squares), "of all");
  });
}
