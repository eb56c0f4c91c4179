/**
 * Devices for tests: one shared by all tests of a file, and fresh ones with small limits or a count of their buffers.
 *
 * @module
 */

import { DeviceContext, type DeviceContextOptions, requestDevice } from "../../kernels/engine/device.ts";

let shared: Promise<GPUDevice> | undefined;

/** The shared device of this file's tests. Its tensors are followed by NaN, so that reads past the end show. */
export function sharedDevice(): Promise<GPUDevice> {
  return shared ??= freshDevice({ guardWords: 64 });
}

/** A separate device with the given limits and guards. */
export async function freshDevice(options: DeviceContextOptions = {}): Promise<GPUDevice> {
  const device = await requestDevice();
  new DeviceContext(device, options);
  return device;
}

/** The bytes that a device holds from now on, according to the platform's own rules. */
export interface HeldMemory {
  /**
   * Buffers that are not destroyed; destroyed ones that were written to since the last submission; and copies of
   * written data.
   */
  readonly now: number;
  /** The largest value so far. */
  readonly most: number;
}

/**
 * Counts the bytes that a device holds. Data written to a buffer is copied, and the copy and the buffer stay until
 * something is submitted, even if the buffer is destroyed meanwhile.
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
