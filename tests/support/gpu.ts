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

/** What a device holds from now on, in bytes, as far as the platform's own rules say. */
export interface HeldMemory {
  /** Buffers that are not destroyed; those that are, and were written to since the last submission; copies of what was written. */
  readonly now: number;
  /** The most of that at any time. */
  readonly most: number;
}

/**
 * Counts what a device holds. What is written to a buffer is copied, and the copy and the buffer stay until something is
 * submitted, also if the buffer is destroyed meanwhile.
 */
export function watchMemory(device: GPUDevice): HeldMemory {
  const held = { now: 0, most: 0 };
  const add = (bytes: number) => {
    held.now += bytes;
    held.most = Math.max(held.most, held.now);
  };
  let copied = 0;
  let written = new Set<GPUBuffer>();
  const leaving = new Set<GPUBuffer>();
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    add(buffer.size);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      if (written.has(buffer)) leaving.add(buffer);
      else held.now -= buffer.size;
      buffer.destroy = destroy;
      destroy();
    };
    return buffer;
  };
  const { queue } = device;
  const [writeBuffer, submit] = [queue.writeBuffer.bind(queue), queue.submit.bind(queue)];
  queue.writeBuffer = (buffer, offset, data, from, size) => {
    const view = data as Float32Array;
    const bytes = size === undefined ? view.byteLength : size * view.BYTES_PER_ELEMENT;
    copied += bytes;
    add(bytes);
    written.add(buffer);
    writeBuffer(buffer, offset, data, from, size);
  };
  queue.submit = (commands) => {
    submit(commands);
    held.now -= copied;
    for (const { size } of leaving) held.now -= size;
    copied = 0;
    written = new Set();
    leaving.clear();
  };
  return held;
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
