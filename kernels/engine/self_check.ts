/**
 * Checks that a device computes: some drivers return nonsense, so every device first computes a known result.
 *
 * @module
 */

import { Commands } from "./commands.ts";
import {
  adapterName,
  contextOf,
  MAX_JOINED,
  probeSubgroups,
  probeTextureCopies,
  requestDevice,
  SLOT_BYTES,
} from "./device.ts";
import { DeviceError } from "./errors.ts";
import { matmul } from "../matmul.ts";
import { randomBits, RandomStream, STREAMS } from "../random.ts";
import { Tensor } from "./tensor.ts";

const checked = new WeakMap<GPUDevice, Promise<void>>();
let shared: Promise<GPUDevice> | undefined;

/**
 * The device that is used where none is given: asked for once, checked, and never destroyed by this library.
 *
 * @throws {DeviceError} if there is none, or if it computes nonsense.
 */
export async function defaultDevice(): Promise<GPUDevice> {
  shared ??= requestDevice().then((device) => {
    // The next caller asks for a new device.
    device.lost.then(() => shared = undefined);
    return device;
  });
  try {
    const device = await shared;
    await checkDevice(device);
    if (!contextOf(device).hasFailed) return device;
    // Out of memory, for instance: the next caller starts again.
    shared = undefined;
    return await defaultDevice();
  } catch (error) {
    shared = undefined;
    throw error;
  }
}

/**
 * Compares random bits and a product of small integers with what they must be, once a device.
 *
 * @throws {DeviceError} if they differ, or if the device's limits are below WebGPU's own defaults.
 */
export function checkDevice(device: GPUDevice): Promise<void> {
  const check = checked.get(device) ?? ask(device);
  checked.set(device, check);
  return check;
}

/** What kernels need of a device: WebGPU's own defaults, which some adapters of OpenGL are below. */
const NEEDED = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
  maxUniformBufferBindingSize: MAX_JOINED * SLOT_BYTES,
} as const;

async function ask(device: GPUDevice): Promise<void> {
  const lacking = Object.entries(NEEDED).filter(([name, needed]) =>
    device.limits[name as keyof typeof NEEDED] < needed
  );
  if (lacking.length > 0) {
    const limits = lacking.map(([name, needed]) =>
      `${name} ${device.limits[name as keyof typeof NEEDED]} of ${needed}`
    );
    throw new DeviceError(
      `${adapterName(device)} offers less than kernels need: ${limits.join(", ")}. Use another adapter or driver`,
    );
  }
  const context = contextOf(device);
  await probeSubgroups(context);
  await probeTextureCopies(context);
  const question = new RandomStream(0, STREAMS.selfCheck);
  const expected = Uint32Array.from({ length: 70 }, () => question.bits());
  using bits = new Tensor(context, "u32", [expected.length], "self check: bits");
  const [rows, terms] = [10, 7];
  const factor = Float32Array.from({ length: rows * terms }, (_, index) => expected[index]! % 17 - 8);
  using a = Tensor.from(context, factor, [rows, terms], "self check: factor");
  using c = new Tensor(context, "f32", [rows, rows], "self check: product");
  const commands = new Commands(context);
  randomBits(commands, { to: bits, seed: 0, stream: STREAMS.selfCheck, step: 0 });
  matmul(commands, { layout: "nt", M: rows, N: rows, K: terms, a: { in: a }, b: { in: a }, c: { in: c } });
  commands.submit();
  const [foundBits, product] = await Promise.all([bits.read(), c.read()]);
  const wrongBit = expected.findIndex((word, index) => word !== foundBits[index]);
  const wrongProduct = product.findIndex((value, index) => {
    const [row, column] = [Math.floor(index / rows), index % rows];
    let sum = 0;
    for (let k = 0; k < terms; k++) sum += factor[row * terms + k]! * factor[column * terms + k]!;
    return value !== sum;
  });
  if (wrongBit >= 0 || wrongProduct >= 0) {
    throw new DeviceError(
      `the driver of ${
        adapterName(device)
      } computes nonsense: a known answer came back wrong. Update it, or use another`,
    );
  }
}
