/**
 * How long each dispatch takes on the GPU's own clock.
 *
 * @module
 */

/** Timestamps of up to `capacity` dispatches. Needs the device feature `timestamp-query`. */
export class DispatchTimings implements Disposable {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #read: GPUBuffer;
  readonly #capacity: number;
  #names: string[] = [];

  /** Room for `capacity` dispatches between two calls of {@link take}; later ones are not timed. */
  constructor(device: GPUDevice, capacity = 2048) {
    this.#device = device;
    this.#capacity = capacity;
    this.#queries = device.createQuerySet({ label: "timings", type: "timestamp", count: 2 * capacity });
    const size = 16 * capacity;
    this.#resolved = device.createBuffer({
      label: "timings",
      size,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
    this.#read = device.createBuffer({
      label: "timings, read",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /** Where the next dispatch notes its beginning and end. */
  writesOf(name: string): Required<GPUComputePassTimestampWrites> | undefined {
    const at = this.#names.length;
    if (at === this.#capacity) return undefined;
    this.#names.push(name);
    return { querySet: this.#queries, beginningOfPassWriteIndex: 2 * at, endOfPassWriteIndex: 2 * at + 1 };
  }

  /** Names and milliseconds of the dispatches since the last call, in order, once they are done. */
  async take(): Promise<{ readonly name: string; readonly milliseconds: number }[]> {
    const names = this.#names;
    this.#names = [];
    if (names.length === 0) return [];
    const encoder = this.#device.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, 2 * names.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#read, 0, 16 * names.length);
    this.#device.queue.submit([encoder.finish()]);
    await this.#read.mapAsync(GPUMapMode.READ);
    const stamps = new BigUint64Array(this.#read.getMappedRange().slice(0, 16 * names.length));
    this.#read.unmap();
    return names.map((name, at) => ({ name, milliseconds: Number(stamps[2 * at + 1]! - stamps[2 * at]!) / 1e6 }));
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#queries.destroy();
    this.#resolved.destroy();
    this.#read.destroy();
  }
}
