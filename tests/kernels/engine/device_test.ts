/**
 * Devices: how they fail, how they end, and what they leave behind.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { contextOf, DeviceContext, probeTextureCopies, requestDevice } from "../../../kernels/engine/device.ts";
import { fill } from "../../../kernels/elementwise.ts";
import { DeviceError, KernelError } from "../../../kernels/engine/errors.ts";
import { defineKernel, writes } from "../../../kernels/engine/kernel.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { recordingDevice } from "../../../tools/gpu/recording_device.ts";

Deno.test("a device has the adapter's memory limits and one context", async () => {
  const device = await requestDevice();
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  assertEquals(device.limits.maxStorageBufferBindingSize, adapter!.limits.maxStorageBufferBindingSize);
  assertEquals(device.limits.maxBufferSize, adapter!.limits.maxBufferSize);
  assert(contextOf(device) === contextOf(device));
  const special = new DeviceContext(device, { bindingLimit: 65_536, guardWords: 3, lanes: 16 });
  assert(contextOf(device) === special);
  assertEquals([special.bindingLimit, special.guardWords, special.lanes], [65_536, 3, 16]);
  device.destroy();
});

Deno.test("a fake binding limit never exceeds the device's own", async () => {
  const device = await requestDevice();
  const { bindingLimit } = new DeviceContext(device, { bindingLimit: Infinity });
  assertEquals(bindingLimit, device.limits.maxStorageBufferBindingSize);
  device.destroy();
});

Deno.test("a device that goes away rejects pending reads and all later ones with DeviceError", async () => {
  const device = await requestDevice();
  const context = contextOf(device);
  using tensor = new Tensor(context, "f32", [1_000_000], "x");
  const commands = new Commands(context);
  for (let i = 0; i < 50; i++) fill(commands, tensor, 1_000_000, i);
  commands.submit();
  const pending = [tensor.read(), tensor.read()];
  device.destroy();
  for (const read of pending) await assertRejects(() => read, DeviceError, "lost");
  await assertRejects(() => tensor.read(), DeviceError, "lost");
  assertThrows(() => new Tensor(context, "f32", [1], "y"), DeviceError, "lost");
});

Deno.test("a device that is destroyed before anything was asked of it says so", async () => {
  const device = await requestDevice();
  const context = contextOf(device);
  using tensor = new Tensor(context, "f32", [10], "x");
  device.destroy();
  await device.lost;
  await assertRejects(() => tensor.read(), DeviceError, "destroyed");
});

Deno.test("without a driver the error says what to do", async () => {
  const program = `
    import { requestDevice } from ${JSON.stringify(new URL("../../../kernels/engine/device.ts", import.meta.url).href)};
    try {
      await requestDevice();
      console.log("a device");
    } catch (error) {
      console.log(error.name, error.message);
    }`;
  const { stdout, code } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-lock", "--ext=ts", program],
    env: { DENO_WEBGPU_BACKEND: "none" },
    stderr: "null",
  }).output();
  const text = new TextDecoder().decode(stdout);
  assertEquals(code, 0);
  for (const word of ["DeviceError", "no GPU adapter", "apt-get install mesa-vulkan-drivers", "DENO_WEBGPU_BACKEND"]) {
    assertStringIncludes(text, word);
  }
});

/** Counts buffers from their creation to their end. */
async function countedDevice(): Promise<{ readonly device: GPUDevice; readonly alive: Set<GPUBuffer> }> {
  const device = await requestDevice();
  const alive = new Set<GPUBuffer>();
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    alive.add(buffer);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      alive.delete(buffer);
      destroy();
    };
    return buffer;
  };
  return { device, alive };
}

const labels = (alive: ReadonlySet<GPUBuffer>) => [...alive].map(({ label }) => label).sort();

Deno.test("buffers live as long as their tensors; only the slots and a few small staging buffers stay", async () => {
  const { device, alive } = await countedDevice();
  const context = contextOf(device);
  for (let round = 0; round < 3; round++) {
    using small = new Tensor(context, "f32", [10], "small");
    // Too large to be kept for the next read.
    using large = new Tensor(context, "f32", [2_000_000], "large");
    const many = Array.from({ length: 9 }, () => small.read());
    await Promise.all([...many, large.read()]);
  }
  assertEquals(labels(alive), [
    "conditional workgroups",
    "staging",
    "staging",
    "staging",
    "staging",
    "uniform slots",
    "uniform slots of decisions",
  ]);
  device.destroy();
});

Deno.test("a tensor whose data does not fit leaves no buffer behind", async () => {
  const { device, alive } = await countedDevice();
  const context = contextOf(device);
  assertThrows(() => Tensor.from(context, new Float32Array(3), [4], "x"), TypeError);
  assertEquals(labels(alive), ["conditional workgroups", "uniform slots", "uniform slots of decisions"]);
  device.destroy();
});

Deno.test("reads that fail leave no staging buffer behind", async () => {
  const { device, alive } = await countedDevice();
  const context = contextOf(device);
  using tensor = new Tensor(context, "f32", [10], "x");
  const gone = new Tensor(context, "f32", [10], "gone");
  gone[Symbol.dispose]();
  await assertRejects(() => gone.read(), DeviceError, "gone");
  const broken = defineKernel({
    name: "broken",
    dims: ["n"],
    bindings: { x: writes("f32", "n") },
    workgroup: 1,
    grid: () => 1,
    cost: () => ({ flops: 0, bytes: 0 }),
    body: "  x[0] = ;",
  });
  const commands = new Commands(context);
  commands.run(broken, { n: 10, x: tensor });
  commands.submit();
  for (let i = 0; i < 6; i++) await assertRejects(() => tensor.read(), KernelError, "broken");
  assertEquals(labels(alive), ["conditional workgroups", "uniform slots", "uniform slots of decisions", "x"]);
  device.destroy();
});

/** Refuses, as a driver does that gives no reason, every pipeline of a label from now on. */
function refusePipelines(device: GPUDevice, label: string): void {
  const [createComputePipeline, popErrorScope] = [
    device.createComputePipeline.bind(device),
    device.popErrorScope.bind(device),
  ];
  // The validity is asked for first, then what the driver says.
  let asked = -1;
  device.createComputePipeline = (descriptor) => {
    if (descriptor.label === label) asked = 0;
    return createComputePipeline(descriptor);
  };
  device.popErrorScope = () => {
    const found = popErrorScope();
    if (asked < 0 || ++asked < 2) return found;
    asked = -1;
    return found.then(() => new GPUInternalError(""));
  };
}

Deno.test("a kernel that the driver does not compile is named, where the driver gives no reason too", async () => {
  const device = await requestDevice();
  const context = contextOf(device);
  refusePipelines(device, "fill");
  using tensor = new Tensor(context, "f32", [10], "x");
  const commands = new Commands(context);
  fill(commands, tensor, 10, 1);
  commands.submit();
  const { message } = await assertRejects(
    () => tensor.read(),
    KernelError,
    "does not compile kernel fill: it gives no reason",
  );
  assertStringIncludes(message, "Use its Vulkan, Metal or D3D12 driver");
  device.destroy();
});

Deno.test("where a driver does not hand textures to functions, kernels read from buffers", async () => {
  const [able, unable] = [await requestDevice(), await requestDevice()];
  refusePipelines(unable, "texture probe");
  for (const [device, expected] of [[able, 1024], [unable, Infinity]] as const) {
    const context = new DeviceContext(device, { textureCopyBytes: 1024 });
    await probeTextureCopies(context);
    assertEquals(context.textureCopyBytes, expected);
    device.destroy();
  }
});

Deno.test("bind groups of what was disposed of are let go, and those of what is in use stay", async () => {
  const device = await requestDevice();
  const context = contextOf(device);
  using lasting = new Tensor(context, "f32", [16], "lasting");
  const use = (tensor: Tensor) => {
    const commands = new Commands(context);
    fill(commands, tensor, 16, 1);
    commands.submit();
  };
  use(lasting);
  let made = 0;
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => (made++, createBindGroup(descriptor));
  let most = 0;
  for (let i = 0; i < 1000; i++) {
    using brief = new Tensor(context, "f32", [16], "brief");
    use(brief);
    use(lasting);
    for (const { bindGroups } of context.pipelines.values()) most = Math.max(most, bindGroups.size);
  }
  assertEquals(made, 1000, "one for each brief tensor");
  assert(most < 150, `${most} kept`);
  device.destroy();
});

Deno.test("f16 tensors are written as bytes: Dawn cannot take a Float16Array, and ends the process", () => {
  const { device } = recordingDevice();
  const written: ArrayBufferView[] = [];
  device.queue.writeBuffer = (_buffer, _offset, data) => void written.push(data as ArrayBufferView);
  using tensor = new Tensor(contextOf(device), "f32", [4], "f16", { isF16: true });
  tensor.write(Float32Array.of(1, -2, 0.5, 3));
  assertEquals(written, [new Uint8Array(Float16Array.of(1, -2, 0.5, 3).buffer)]);
});
