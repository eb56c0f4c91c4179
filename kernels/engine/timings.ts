/**
 * How long each dispatch takes on the GPU's own clock.
 *
 * @module
 */

/** What one run of a kernel does, for benches. */
export interface Cost {
  /** Floating-point operations. */
  readonly flops: number;
  /** Bytes read and written. */
  readonly bytes: number;
}

/** How long a dispatch took, or a texture copy for it. */
export interface DispatchTiming {
  /** The kernel's name. */
  readonly name: string;
  /** Its cost; nothing for a copy, `undefined` where the GPU decides whether or how much is done. */
  readonly cost: Cost | undefined;
  /** How long. */
  readonly milliseconds: number;
}

/** Timestamps of up to `capacity` dispatches. Needs the device feature `timestamp-query`. */
export class DispatchTimings implements Disposable {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #read: GPUBuffer;
  readonly #capacity: number;
  #timed: Pick<DispatchTiming, "name" | "cost">[] = [];

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

  /** The timestamps that the next dispatch, or a copy for it, writes. */
  writesOf(name: string, cost: Cost | undefined): Required<GPUComputePassTimestampWrites> | undefined {
    const at = this.#timed.length;
    if (at === this.#capacity) return undefined;
    this.#timed.push({ name, cost });
    return { querySet: this.#queries, beginningOfPassWriteIndex: 2 * at, endOfPassWriteIndex: 2 * at + 1 };
  }

  /** The timings of the dispatches and copies since the last call, in order, once they are done. */
  async take(): Promise<DispatchTiming[]> {
    const timed = this.#timed;
    this.#timed = [];
    if (timed.length === 0) return [];
    const encoder = this.#device.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, 2 * timed.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#read, 0, 16 * timed.length);
    this.#device.queue.submit([encoder.finish()]);
    await this.#read.mapAsync(GPUMapMode.READ);
    const stamps = new BigUint64Array(this.#read.getMappedRange().slice(0, 16 * timed.length));
    this.#read.unmap();
    return timed.map((what, at) => ({ ...what, milliseconds: Number(stamps[2 * at + 1]! - stamps[2 * at]!) / 1e6 }));
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#queries.destroy();
    this.#resolved.destroy();
    this.#read.destroy();
  }
}
