/**
 * What a device's buffers hold, by label.
 *
 * @module
 */

/** The buffers that a device has made since it is watched. */
export interface Held {
  /** Bytes of those that are not destroyed, by label. */
  readonly bytes: ReadonlyMap<string, number>;
  /** How many are not destroyed. */
  readonly count: number;
}

/** Watches what a device makes and destroys from now on. */
export function watchBuffers(device: GPUDevice): () => Held {
  const held = new Map<GPUBuffer, string>();
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      held.delete(buffer);
      destroy();
    };
    held.set(buffer, descriptor.label ?? "");
    return buffer;
  };
  return () => {
    const bytes = new Map<string, number>();
    for (const [{ size }, label] of held) bytes.set(label, (bytes.get(label) ?? 0) + size);
    return { bytes, count: held.size };
  };
}
