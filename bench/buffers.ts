/**
 * The bytes in a device's buffers and textures, by label.
 *
 * @module
 */

/** The buffers and textures that a device has created since the watch began. */
export interface Held {
  /** Bytes of those not destroyed, by label. */
  readonly bytes: ReadonlyMap<string, number>;
  /** Number of those not destroyed. */
  readonly count: number;
}

/** Watches what a device creates and destroys from now on. */
export function watchBuffers(device: GPUDevice): () => Held {
  const held = new Map<GPUBuffer | GPUTexture, { readonly label: string; readonly size: number }>();
  const watch = <T extends GPUBuffer | GPUTexture>(made: T, label: string | undefined, size: number): T => {
    const destroy = made.destroy.bind(made);
    made.destroy = () => {
      held.delete(made);
      destroy();
    };
    held.set(made, { label: label ?? "", size });
    return made;
  };
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => watch(createBuffer(descriptor), descriptor.label, descriptor.size);
  const createTexture = device.createTexture.bind(device);
  device.createTexture = (descriptor) => {
    const texture = createTexture(descriptor);
    // All formats have four words per pixel.
    return watch(texture, descriptor.label, 16 * texture.width * texture.height);
  };
  return () => {
    const bytes = new Map<string, number>();
    for (const { label, size } of held.values()) bytes.set(label, (bytes.get(label) ?? 0) + size);
    return { bytes, count: held.size };
  };
}
