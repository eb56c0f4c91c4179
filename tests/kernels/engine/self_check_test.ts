/**
 * A device answers a known question before it is trusted.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { contextOf, DeviceContext, requestDevice } from "../../../kernels/engine/device.ts";
import { DeviceError } from "../../../kernels/engine/errors.ts";
import { checkDevice, defaultDevice } from "../../../kernels/engine/self_check.ts";

Deno.test("a device that computes is accepted, and asked once", async () => {
  const device = await requestDevice();
  const context = new DeviceContext(device);
  const asked: string[] = [];
  context.onDispatch = (name) => asked.push(name);
  await checkDevice(device);
  const questions = asked.length;
  await checkDevice(device);
  assert(questions > 0 && asked.length === questions);
  device.destroy();
});

/** Wrong bits, a wrong product, and results that never arrive. */
const WRONG = [
  ["random_bits", (wgsl: string) => wgsl.replace("= words[i]", "= words[i] ^ u32(block == 17u)")],
  ["matmul_nt", (wgsl: string) => wgsl.replace("] = c1_1;", "] = c1_1 + 1.0;")],
  ["random_bits", (wgsl: string) => wgsl.replace("< dims.groups", "< 0u").replace(">= dims.groups", ">= 0u")],
] as const;

for (const [kernel, change] of WRONG) {
  Deno.test(`a device whose ${kernel} computes nonsense is refused, each time it is asked: ${change}`, async () => {
    const device = await requestDevice();
    let changed = false;
    new DeviceContext(device, {
      rewriteShader: (name, wgsl) => {
        if (name !== kernel) return wgsl;
        changed = change(wgsl) !== wgsl;
        return change(wgsl);
      },
    });
    await assertRejects(() => checkDevice(device), DeviceError, "computes nonsense");
    await assertRejects(() => checkDevice(device), DeviceError, "computes nonsense");
    assert(changed, `the WGSL of ${kernel} is as it was`);
    device.destroy();
  });
}

Deno.test("a device with too little to offer is refused with the numbers", async () => {
  const device = await requestDevice();
  const enough = Object.fromEntries(Object.keys(GPUSupportedLimits.prototype).map((name) => [name, 65535]));
  const poor = (limits: object) => ({ limits: { ...enough, ...limits } }) as unknown as GPUDevice;
  const cases = [
    [{ maxStorageBuffersPerShaderStage: 4 }, "maxStorageBuffersPerShaderStage 4 of 8. Use another"],
    [{ maxComputeWorkgroupStorageSize: 0 }, "maxComputeWorkgroupStorageSize 0 of 16384"],
    [
      { maxComputeInvocationsPerWorkgroup: 128, maxComputeWorkgroupSizeX: 128 },
      "128 of 256, maxComputeWorkgroupSizeX 128",
    ],
  ] as const;
  for (const [limits, message] of cases) await assertRejects(() => checkDevice(poor(limits)), DeviceError, message);
  device.destroy();
});

Deno.test("the default device is one and the same, until it is lost or fails", async () => {
  const [first, again] = await Promise.all([defaultDevice(), defaultDevice()]);
  assert(first === again && await defaultDevice() === first);
  first.destroy();
  await first.lost;
  const full = await defaultDevice();
  assert(full !== first);
  // A device that failed is of no more use, and is not lost.
  contextOf(full).fail(new DeviceError("no memory left"));
  const next = await defaultDevice();
  assert(next !== full);
  full.destroy();
  next.destroy();
  await next.lost;
});

Deno.test("without WebGPU or an adapter, a browser is told what helps in a browser, and a shell what helps there", async () => {
  const none = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
  const page = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36";
  const cases = [
    [{ userAgent: page }, true, "this page has no WebGPU", "current Chrome"],
    [{ userAgent: page }, false, "this page has no WebGPU", "https or from localhost"],
    [{ userAgent: page, gpu: none }, true, "the browser offers no GPU adapter", "graphics acceleration"],
    [{ userAgent: "Deno/2.9.6", gpu: none }, true, "no GPU adapter was found", "apt-get"],
    [{ userAgent: "Node.js/20" }, undefined, "this platform has no WebGPU", "Deno 2.8"],
  ] as const;
  for (const [navigator, isSecureContext, what, remedy] of cases) {
    const surroundings = { navigator: navigator as Navigator, ...isSecureContext !== undefined && { isSecureContext } };
    const { message } = await assertRejects(() => requestDevice(surroundings), DeviceError, what);
    assert(message.includes(remedy), message);
    assertEquals(/apt-get|DENO_/.test(message), navigator.userAgent.startsWith("Deno"), message);
  }
  await assertRejects(() => requestDevice({}), DeviceError, "this platform has no WebGPU");
});
