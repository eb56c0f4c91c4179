/**
 * Devices for tests: one that all tests of a file share, and fresh ones with small limits or a count of their buffers.
 *
 * @module
 */

import { DeviceContext, type DeviceContextOptions, requestDevice } from "../../kernels/engine/device.ts";

let shared: Promise<GPUDevice> | undefined;

/** The device of this file's tests. Its tensors are followed by NaN, so that a read past an end shows. */
export function sharedDevice(): Promise<GPUDevice> {
  return shared ??= freshDevice({ guardWords: 64 });
}

/** A device of its own, with limits and guards as asked for. */
export async function freshDevice(options: DeviceContextOptions = {}): Promise<GPUDevice> {
  const device = await requestDevice();
  new DeviceContext(device, options);
  return device;
}

/** Counts the buffers and textures that a device creates from now on, by label, and the bytes of the buffers. */
export function countBuffers(device: GPUDevice): { readonly labels: string[]; readonly sizes: number[] } {
  const labels: string[] = [];
  const sizes: number[] = [];
  const createTexture = device.createTexture.bind(device);
  device.createTexture = (descriptor) => {
    labels.push(descriptor.label ?? "");
    return createTexture(descriptor);
  };
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    labels.push(descriptor.label ?? "");
    sizes.push(descriptor.size);
    return createBuffer(descriptor);
  };
  return { labels, sizes };
}
