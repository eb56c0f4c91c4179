/**
 * Memory: what is disposed of is free, whatever it was used for; what does not fit is refused before any of it is made;
 * and a device that has no room left is as good as before.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import { DeviceError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { initialParameters } from "../../nn/parameters.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { dumpBytes, load } from "../../io/checkpoints/checkpoint.ts";
import { rowsOf } from "../../data/rows.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { train } from "../../train/train.ts";
import { freshDevice, sharedDevice, watchMemory } from "../support/gpu.ts";
import { Random } from "../support/random.ts";

const MEBIBYTE = 2 ** 20;
/** What may wait for a submission, and be needed beside it. */
const SLACK = 40 * MEBIBYTE;
const OBJECTIVE = getObjective({ key: "matryoshka", n_prefixes: 3 });

Deno.test("models that are made, loaded and disposed of without any work between leave nothing behind", async () => {
  const device = await freshDevice();
  const options = { d_model: 64, d_sae: 4096, activation: { key: "top-k", top_k: 8 } } as const;
  let bytes: Uint8Array;
  {
    using sae = await SparseAutoencoder.create(options, { device });
    bytes = await dumpBytes(sae);
  }
  const held = watchMemory(device);
  for (let i = 0; i < 40; i++) {
    using _made = await SparseAutoencoder.create({ ...options, d_sae: 512 }, { device });
    using _loaded = await load(bytes, { device });
  }
  // 40 models of 2 MiB, each written to from arrays of as many bytes.
  assertEquals(held.now, 0);
  assert(held.most < 12 * MEBIBYTE, `${held.most} bytes at once`);
  device.destroy();
});

Deno.test("tensors that are only written to, over and over, hold little that waits", async () => {
  const device = await freshDevice();
  const context = contextOf(device);
  const held = watchMemory(device);
  const data = new Float32Array(MEBIBYTE);
  using one = new Tensor(context, "f32", [data.length], "one");
  for (let i = 0; i < 50; i++) one.write(data);
  assert(held.most < SLACK, `${held.most} bytes at once`);
  for (let i = 0; i < 50; i++) {
    using _another = Tensor.from(context, data, [data.length], "another");
  }
  assert(held.most < SLACK, `${held.most} bytes at once`);
  assertEquals(context.heldBytes, one.bytes);
  device.destroy();
});

for (const key of ["top-k", "batch-top-k", "relu", "jump-relu"] as const) {
  Deno.test(`models that are made, trained, used and disposed of leave nothing behind: ${key}`, async () => {
    const device = await freshDevice();
    const x = new Random(1).normal(32 * 16);
    const cycle = async () => {
      using sae = await SparseAutoencoder.create({ d_model: 16, d_sae: 64, activation: { key } }, { device });
      using state = new TrainState(sae);
      for await (const _ of train(sae, OBJECTIVE, [x, x], { state, n_lr_warmup: 0 }));
      using _out = sae.forward(x);
      await evaluate(sae, [x]);
      await OBJECTIVE.loss(sae, x);
    };
    // The first makes what the device keeps: staging buffers, pipelines.
    await cycle();
    const { heldBytes } = contextOf(device);
    const held = watchMemory(device);
    await cycle();
    const { now, most } = held;
    for (let i = 0; i < 4; i++) await cycle();
    assertEquals([held.now, held.most, contextOf(device).heldBytes], [now, most, heldBytes]);
    assertEquals([now, heldBytes], [0, 0]);
    device.destroy();
  });
}

/** What is thrown, with how many buffers were made by then. */
async function refusal(device: GPUDevice, work: () => Promise<unknown>): Promise<{ error: Error; made: number }> {
  const held = watchMemory(device);
  const error = await assertRejects(work, Error);
  return { error, made: held.most };
}

Deno.test("a model that no buffer holds is refused before a value is drawn, by field and limit", async () => {
  // With WebGPU's own limits, and not those of the adapter at hand.
  const device = await (await navigator.gpu.requestAdapter())!.requestDevice();
  const { device: { limits: { maxBufferSize } } } = contextOf(device);
  const sizes: readonly (readonly [d_sae: number, d_model: number])[] = [[1e9, 1024], [600e6, 1], [1e15, 1]];
  for (const [d_sae, d_model] of sizes) {
    const { error, made } = await refusal(device, () => SparseAutoencoder.create({ d_sae, d_model }, { device }));
    assert(error instanceof DeviceError);
    assertStringIncludes(
      error.message,
      `d_sae ${d_sae} × d_model ${d_model}: W_enc and W_dec would have ${4 * d_sae * d_model}`,
    );
    assertStringIncludes(error.message, `${maxBufferSize} (maxBufferSize)`);
    assertEquals(made, 0);
  }
  device.destroy();
  const small = await freshDevice({ bindingLimit: 65536 });
  const wide = { d_sae: 20_000, d_model: 1 };
  await assertRejects(
    () => SparseAutoencoder.create(wide, { device: small }),
    DeviceError,
    "d_sae 20000: the pre-activations of a row would have 80000 bytes",
  );
  const pieces = { W_enc: none(), b_enc: none(), W_dec: none(), b_dec: none() };
  await assertRejects(() => SparseAutoencoder.fromPieces(wide, pieces, { device: small }), DeviceError, "d_sae 20000");
  const long = { d_sae: 100, d_model: 400 };
  await assertRejects(() => SparseAutoencoder.create(long, { device: small }), DeviceError, "W_enc (d_model 400)");
  small.destroy();
});

Deno.test("values that the program itself has no memory for are an error that says so", () => {
  const cfg = { d_sae: 1e9, d_model: 1e9, subtract_b_dec: false, normalize_w_dec: true };
  const message = "the initial values of d_sae 1000000000 × d_model 1000000000 take 16000000000000000000 bytes";
  for (const subtract_b_dec of [false, true]) {
    assertThrows(() => initialParameters({ ...cfg, subtract_b_dec }, 0), RangeError, message);
  }
});

/** A parameter whose values nobody may ask for. */
function none() {
  return {
    pieces: [new Promise<Float32Array>(() => {})] as unknown as AsyncIterable<Float32Array>,
    isTransposed: false,
  };
}

Deno.test("a batch that no step takes is refused by field and limit, and the model trains on", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create({ d_model: 1, d_sae: 8, activation: { key: "top-k", top_k: 2 } }, {
    device,
  });
  const x = new Float32Array(300_000);
  const message = "a batch of 300000 rows: a step takes 262144 at most. Choose a smaller batch_size";
  await assertRejects(() => train(sae, OBJECTIVE, [x]).next(), RangeError, message);
  const unread = { n_rows: 300_000, d_model: 1, read: () => Promise.reject(new Error("it was read")) };
  await assertRejects(
    () => train(sae, OBJECTIVE, unread, { n_steps: 1, batch_size: 300_000 }).next(),
    RangeError,
    message,
  );
  await assertRejects(() => OBJECTIVE.loss(sae, x), RangeError, message);
  // Evaluation takes a batch apart.
  assertEquals((await evaluate(sae, [x])).n_rows, 300_000);
  const batches = [x.subarray(0, 64), x.subarray(64, 128)];
  for await (const { step } of train(sae, getObjective({ key: "vanilla" }), batches)) assertEquals(step, 2);

  const small = await freshDevice({ bindingLimit: 65536 });
  const cfg = { d_model: 4, d_sae: 64, activation: { key: "top-k", top_k: 32, aux: { key: "no-aux" } } } as const;
  using narrow = await SparseAutoencoder.create(cfg, { device: small });
  await assertRejects(
    () => train(narrow, OBJECTIVE, [new Float32Array(4 * 1000)]).next(),
    DeviceError,
    "a batch of 1000 rows with top_k 32: its codes would have 128000 bytes",
  );
  small.destroy();
});

/** A device that has no room for a buffer of this label and all after it, until `grow` is called. */
function withoutRoomFor(device: GPUDevice, label: string): { grow(): void } {
  const [createBuffer, popErrorScope] = [device.createBuffer.bind(device), device.popErrorScope.bind(device)];
  let isFull = false;
  device.createBuffer = (descriptor) => {
    isFull ||= descriptor.label === label;
    return createBuffer(descriptor);
  };
  device.popErrorScope = async () => {
    const error = isFull ? new GPUOutOfMemoryError("not enough memory left") : null;
    return await popErrorScope() ?? error;
  };
  return { grow: () => Object.assign(device, { createBuffer, popErrorScope }) };
}

Deno.test("where the device has no room left, what there was none for is named, and everything else continues", async () => {
  const device = await freshDevice();
  const cfg = { d_model: 16, d_sae: 64, activation: { key: "top-k", top_k: 4 } } as const;
  const x = new Random(1).normal(32 * 16);
  const { heldBytes } = contextOf(device);
  const atCreate = withoutRoomFor(device, "W_dec");
  await assertRejects(
    () => SparseAutoencoder.create(cfg, { device }),
    DeviceError,
    "a model of d_sae 64 and d_model 16: ",
  );
  atCreate.grow();
  assertEquals(contextOf(device).heldBytes, heldBytes, "what was made by then is free");
  using sae = await SparseAutoencoder.create(cfg, { device });
  const before = await sae.parameters.W_enc.read();
  const cases = [["first moment of W_dec", "training a model of d_sae 64"], [
    "x_hats",
    "training with batches of 32 rows",
  ]];
  for (const [label, what] of cases as [string, string][]) {
    using state = new TrainState(sae);
    const full = withoutRoomFor(device, label);
    const given = label === "x_hats" ? { state } : {};
    const error = await assertRejects(() => train(sae, OBJECTIVE, [x], given).next(), DeviceError, what);
    assertStringIncludes(error.message, `no memory left for ${label} of`);
    full.grow();
    assertEquals(await sae.parameters.W_enc.read(), before);
    for await (const { step } of train(sae, OBJECTIVE, rowsOf(x, 16), { ...given, n_steps: 1, batch_size: 32 })) {
      assertEquals(step, 1);
    }
    assertEquals(await sae.parameters.W_enc.read(), before, "the first step has rate 0");
  }
  device.destroy();
});
