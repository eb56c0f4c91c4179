/**
 * A `GPUDevice` and what belongs to it: limits, compiled pipelines, staging buffers, and its end.
 *
 * Every `GPUDevice` has one {@link DeviceContext}, made on first sight by {@link contextOf}. Users pass plain
 * `GPUDevice`s around and never see contexts.
 *
 * @module
 */

import { checkOptions } from "./options.ts";
import { DeviceError, KernelError } from "./errors.ts";
import type { DispatchTimings } from "./timings.ts";

/** What tests change about a device. Everything has the device's own value as default. */
export interface DeviceContextOptions {
  /** Bytes of the largest storage binding; smaller than the device's own makes tensors go in row blocks. */
  readonly bindingLimit?: number;
  /** Words of all-ones bits (NaN as f32) after the end of every tensor, inside its binding. */
  readonly guardWords?: number;
  /** Rewrites a kernel's WGSL before it is compiled. */
  readonly rewriteShader?: (name: string, wgsl: string) => string;
  /** Invocations that work on neighbouring columns of one row. */
  readonly lanes?: number;
  /** Bytes from which on what kernels read often is brought into textures first; `Infinity` for never. */
  readonly textureCopyBytes?: number;
}

/** A compiled kernel. */
export interface CompiledKernel {
  /** The pipeline. */
  readonly pipeline: GPUComputePipeline;
  /** Its only bind group layout. */
  readonly layout: GPUBindGroupLayout;
  /** Bind groups that it had of late, by what they bind. */
  readonly bindGroups: Map<string, BindGroup>;
}

/** A bind group, and the buffers of tensors in it, by the number that no other buffer has. */
export interface BindGroup {
  /** What is set. */
  readonly group: GPUBindGroup;
  /** Numbers of the buffers. */
  readonly buffers: readonly number[];
}

const contexts = new WeakMap<GPUDevice, DeviceContext>();

/** Bytes between two uniform slots: the alignment that every adapter accepts. */
export const SLOT_BYTES = 256;
/** The words of a slot that are a run's own; the others say on what it depends. */
export const SLOT_FIELDS: number = SLOT_BYTES / 4 - 3;
/** Which word says what decides about a dispatch, in the slot of its first run; 0 where nothing does. */
export const DECISION_WORD: number = SLOT_FIELDS;
/** Which word of that slot says how many runs the dispatch has. */
export const RUNS_WORD: number = SLOT_FIELDS + 1;
/** Which word says where a run's flag is among those that are decided together. */
export const FLAG_WORD: number = SLOT_FIELDS + 2;

/** Bytes of the three numbers of workgroups of a dispatch. */
export const GROUPS_BYTES = 12;

/** How many dispatches one submission may hold before another is begun. */
const SLOTS = 2048;
/** How many decisions and counts it may hold. */
const DECISIONS = 256;

/** How many sets of arguments one dispatch takes; their slots fit the uniform binding of any adapter. */
export const MAX_JOINED = 32;

/** The state that this library keeps for a `GPUDevice`. */
export class DeviceContext {
  /** The platform's device. */
  readonly device: GPUDevice;
  /** Bytes of the largest storage binding. */
  readonly bindingLimit: number;
  /** Words of NaN bits after every tensor (0 but in tests). */
  readonly guardWords: number;
  /** Invocations that work on neighbouring columns of one row: as many as the adapter's SIMD width is likely to have. */
  readonly lanes: number;
  /** Bytes from which on what kernels read often is brought into textures first, where that has the faster loads. */
  textureCopyBytes: number;
  /** One uniform buffer for all dispatches of a submission, a slot each. */
  readonly slots: GPUBuffer;
  /** The numbers of workgroups of those dispatches that the GPU decides about, by slot. */
  readonly conditionalGroups: GPUBuffer;
  /** How many slots there are. */
  readonly slotCount: number = SLOTS;
  /** The same for what decides about dispatches, which writes to the slots of their runs. */
  readonly decisionSlots: GPUBuffer;
  /** How many of these there are. */
  readonly decisionCount: number = DECISIONS;
  /** What they are going to hold. */
  readonly decisionWords: Uint32Array<ArrayBuffer> = new Uint32Array(DECISIONS * SLOT_BYTES / 4);
  /** What the slots are going to hold. */
  readonly slotWords: Uint32Array<ArrayBuffer> = new Uint32Array(SLOTS * SLOT_BYTES / 4);
  /** Compiled kernels, by what declares them. */
  readonly pipelines: Map<object, CompiledKernel> = new Map();
  /** What a kernel says first when it uses subgroups of eight; `undefined` where it cannot. */
  subgroups: string | undefined;
  /** Variants of kernels that were chosen by measuring, by what they were chosen for. */
  readonly tuned: Map<string, string> = new Map();
  /** Times every dispatch, when somebody measures. */
  timings: DispatchTimings | undefined;
  /** Bytes of the buffers of tensors that have not been disposed of. */
  heldBytes = 0;
  /** Told of every dispatch and what it binds, when somebody counts. */
  onDispatch: ((name: string, bound: readonly string[]) => void) | undefined;

  readonly #rewriteShader: ((name: string, wgsl: string) => string) | undefined;
  readonly #staging = new Map<number, GPUBuffer[]>();
  readonly #pending = new Set<Promise<void>>();
  readonly #lost: Promise<never>;
  #failure: Error | undefined;
  /** Buffers of tensors that are destroyed, and may still stand in bind groups. */
  readonly #gone = new Set<number>();
  #submissions = 0;
  /** Since the last of them. */
  #writtenBytes = 0;

  /** Use {@link contextOf}; tests construct one with options before anything else uses the device. */
  constructor(device: GPUDevice, options: DeviceContextOptions = {}) {
    checkOptions("a DeviceContext", options, {
      bindingLimit: true,
      guardWords: true,
      rewriteShader: true,
      lanes: true,
      textureCopyBytes: true,
    });
    this.device = device;
    this.bindingLimit = Math.min(options.bindingLimit ?? Infinity, device.limits.maxStorageBufferBindingSize);
    this.guardWords = options.guardWords ?? 0;
    this.#rewriteShader = options.rewriteShader;
    this.lanes = options.lanes ?? (device.adapterInfo?.isFallbackAdapter ? 8 : 32);
    this.textureCopyBytes = options.textureCopyBytes ?? (hasFasterTextures(device) ? TEXTURE_COPY_BYTES : Infinity);
    this.slots = device.createBuffer({
      label: "uniform slots",
      // A joined dispatch binds as many slots as it could need, whichever it begins with.
      size: (SLOTS + MAX_JOINED) * SLOT_BYTES,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
    });
    this.decisionSlots = device.createBuffer({
      label: "uniform slots of decisions",
      size: DECISIONS * SLOT_BYTES,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.conditionalGroups = device.createBuffer({
      label: "conditional workgroups",
      size: SLOTS * GROUPS_BYTES,
      usage: GPUBufferUsage.INDIRECT | GPUBufferUsage.STORAGE,
    });
    this.#lost = device.lost.then((info) => {
      const why = info.message ? `: ${info.message}` : "";
      this.#failure ??= new DeviceError(`the GPU device was lost (${info.reason})${why}`);
      throw this.#failure;
    });
    // A caller that waits for the device sees the rejection; without one it is not an error.
    this.#lost.catch(() => {});
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      if (error instanceof GPUOutOfMemoryError) {
        return this.fail(this.#outOfMemory("another buffer", this.heldBytes));
      }
      // Some errors of drivers have no message in Deno.
      this.fail(
        new KernelError(
          `${this.adapter} refused a command: ${error.message || `${error.constructor.name}, without a message`}`,
        ),
      );
    });
    contexts.set(device, this);
  }

  /** Remembers the first failure; every later read of a tensor rejects with it. */
  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Whether the device is of no more use. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** What messages call the adapter. */
  get adapter(): string {
    return adapterName(this.device);
  }

  /** A buffer; if the device has no room for it, that is the device's failure, which says what it was for. */
  createBuffer(descriptor: GPUBufferDescriptor & { readonly label: string }): GPUBuffer {
    const held = this.heldBytes;
    this.device.pushErrorScope("out-of-memory");
    const buffer = this.device.createBuffer(descriptor);
    this.heldBytes += buffer.size;
    this.watch(
      this.device.popErrorScope().then((error) => {
        if (error) throw this.#outOfMemory(`${descriptor.label} of ${descriptor.size} bytes`, held);
      }),
    );
    return buffer;
  }

  /**
   * What `make` gives, once the device has said that it had room for all of it. If it had not, what was made is disposed
   * of, and the device is as good as before.
   *
   * @throws {DeviceError} if it had no room, beginning with `what`.
   */
  async making<T extends Disposable>(what: string, make: () => T): Promise<T> {
    this.check();
    // Whatever is written to what there was no room for is an error too.
    this.device.pushErrorScope("validation");
    let made: T;
    let refusal: Promise<GPUError | null>;
    try {
      made = make();
    } finally {
      refusal = this.device.popErrorScope();
    }
    const refused = await refusal;
    await Promise.all(this.#pending);
    if (refused) this.fail(new KernelError(`${what}: ${this.adapter} refused a command: ${refused.message}`));
    const failure = this.#failure;
    if (!failure) return made;
    made[Symbol.dispose]();
    if (!(failure instanceof OutOfMemoryError)) throw failure;
    this.#failure = undefined;
    throw new DeviceError(`${what}: ${failure.message}`, { cause: failure });
  }

  /** Notes that a buffer is destroyed. Once many are, the bind groups that they stand in are let go. */
  forget(buffer: number): void {
    this.#gone.add(buffer);
    if (this.#gone.size < MAX_GONE) return;
    for (const { bindGroups } of this.pipelines.values()) {
      for (const [key, { buffers }] of bindGroups) {
        if (buffers.some((buffer) => this.#gone.has(buffer))) bindGroups.delete(key);
      }
    }
    this.#gone.clear();
  }

  #outOfMemory(what: string, held: number): DeviceError {
    return new OutOfMemoryError(
      `${this.adapter} has no memory left for ${what}, beside ${held} bytes that this program holds there. Make it ` +
        "smaller, or dispose first of what is no longer used",
    );
  }

  /** Throws the failure, if there was one. */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  /**
   * What `work` gives, or why the device refuses a kernel of it, which is then no failure of the device. Nothing else may
   * use the device meanwhile.
   */
  async attempt<T>(work: () => Promise<T>): Promise<T | KernelError> {
    this.check();
    this.device.pushErrorScope("validation");
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#failure = undefined;
      return error;
    } finally {
      await this.device.popErrorScope();
    }
  }

  /** Lets {@link settled} wait for `work`; its rejection becomes the device's failure. */
  watch(work: Promise<void>): void {
    const watched = work.catch((error) => this.fail(error)).finally(() => this.#pending.delete(watched));
    this.#pending.add(watched);
  }

  /**
   * Writes to a buffer. Implementations keep a copy of the data, and the buffer even if it is destroyed, until the next
   * submission: no other may follow for long, as where models are only loaded.
   */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBufferLike>): void {
    // As bytes: Dawn does not know the size of a Float16Array's elements, and ends the process.
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    this.device.queue.writeBuffer(buffer, offset, bytes);
    this.#writtenBytes += data.byteLength;
    if (this.#writtenBytes >= MAX_WRITTEN_BYTES) this.submit();
  }

  /** How often something was submitted. */
  get submissions(): number {
    return this.#submissions;
  }

  /** Hands command buffers to the GPU, or without any, what was written since the last submission. */
  submit(commands: readonly GPUCommandBuffer[] = []): void {
    this.device.queue.submit([...commands]);
    this.#submissions++;
    this.#writtenBytes = 0;
  }

  /** Waits until everything submitted or written so far is done, so that what was held for it is free again. */
  async drained(): Promise<void> {
    this.submit();
    await this.settled(this.device.queue.onSubmittedWorkDone());
  }

  /** Waits for `work`, or rejects when the device goes away or anything before it failed. */
  async settled<T>(work: Promise<T>): Promise<T> {
    let value: T;
    try {
      value = await Promise.race([work, this.#lost]);
    } catch (error) {
      // A lost device also rejects the pending map, with a message that says less.
      await Promise.race([this.#lost, new Promise((resolve) => setTimeout(resolve, 0))]);
      this.check();
      throw new DeviceError(`reading from the GPU failed: ${(error as Error).message}`, { cause: error });
    }
    await Promise.all(this.#pending);
    this.check();
    return value;
  }

  /** WGSL as it will be compiled. */
  shader(name: string, wgsl: string): string {
    return this.#rewriteShader ? this.#rewriteShader(name, wgsl) : wgsl;
  }

  /** A mappable buffer of at least `bytes`, reused; give it back with {@link returnStaging}. */
  takeStaging(bytes: number): GPUBuffer {
    const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, 256)));
    return this.#staging.get(size)?.pop() ?? this.device.createBuffer({
      label: "staging",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /** Keeps a small unmapped staging buffer for the next read and destroys a large one. */
  returnStaging(buffer: GPUBuffer): void {
    const kept = this.#staging.get(buffer.size) ?? [];
    if (buffer.size > 2 ** 22 || kept.length >= 4) return buffer.destroy();
    kept.push(buffer);
    this.#staging.set(buffer.size, kept);
  }
}

/** What {@link DeviceContext.making} recovers from. */
class OutOfMemoryError extends DeviceError {}

/** Destroyed buffers after which bind groups are looked through: as many as a training has. */
const MAX_GONE = 128;

/** Bytes that are written between two submissions at most. */
const MAX_WRITTEN_BYTES = 2 ** 25;

/** Bytes that are read often for which a copy, some 50 µs, is soon made up for. */
const TEXTURE_COPY_BYTES = 2 ** 16;

/**
 * Whether loads from textures are faster than those from buffers. Mesa's software driver takes the invocations of a vector
 * one by one through its checks of a buffer's bounds, and all of them together through a texture's.
 */
function hasFasterTextures({ adapterInfo }: GPUDevice): boolean {
  return /\bllvmpipe\b/.test(adapterInfo?.description ?? "");
}

/** What an adapter calls itself; browsers keep the description to themselves. */
export function adapterName({ adapterInfo }: GPUDevice): string {
  const { description = "", vendor = "", architecture = "" } = adapterInfo ?? {};
  return description || `${vendor} ${architecture}`.trim() || "an adapter without a name";
}

/** Whether the adapter of a device computes on the CPU. */
export function isSoftware({ adapterInfo }: GPUDevice): boolean {
  return adapterInfo?.isFallbackAdapter === true;
}

/** The context of a device, made on first use. */
export function contextOf(device: GPUDevice): DeviceContext {
  return contexts.get(device) ?? new DeviceContext(device);
}

/** Where a device is asked for, as far as it matters here. */
export interface Surroundings {
  /** Who has the GPU. */
  readonly navigator?: Pick<Navigator, "gpu" | "userAgent">;
  /** Whether a page came safely; other platforms do not say. */
  readonly isSecureContext?: boolean;
}

/**
 * Asks the platform for its best adapter and a device with all of that adapter's memory limits.
 *
 * @throws {DeviceError} where there is no WebGPU or no adapter, saying what to do about it.
 */
export async function requestDevice(surroundings: Surroundings = globalThis as Surroundings): Promise<GPUDevice> {
  const { navigator, isSecureContext } = surroundings;
  const gpu = navigator?.gpu;
  // Every browser calls itself so; Deno, Node and Bun do not.
  const isBrowser = /^Mozilla\//.test(navigator?.userAgent ?? "");
  if (!gpu) {
    const remedy = !isBrowser
      ? "Use Deno 2.8 or newer, a browser with WebGPU, or, in Node and Bun, npm's webgpu (the README shows how)"
      : isSecureContext === false
      ? "Browsers have it only on pages from https or from localhost"
      : "Use a current Chrome, Edge, Safari or Firefox; on Linux, Chrome may want chrome://flags/#enable-unsafe-webgpu";
    throw new DeviceError(
      `this ${isBrowser ? "page" : "platform"} has no WebGPU (navigator.gpu is missing). ${remedy}`,
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DeviceError(
      isBrowser
        ? "the browser offers no GPU adapter. Turn on graphics acceleration in its settings and restart it; chrome://gpu " +
          "or about:support says why WebGPU is off; on Linux, Chrome may want chrome://flags/#enable-unsafe-webgpu"
        : "no GPU adapter was found. Install a GPU driver with Vulkan, Metal or D3D12; without a GPU, a software driver " +
          "will do (on Debian or Ubuntu: apt-get install mesa-vulkan-drivers). If DENO_WEBGPU_BACKEND is set, it may " +
          "exclude the driver",
    );
  }
  const { limits } = adapter;
  const wanted = {
    label: "@saev/nn",
    requiredLimits: {
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxBufferSize: limits.maxBufferSize,
    },
  };
  // Some adapters have subgroups without listing them: only asking tells.
  return await adapter.requestDevice({ ...wanted, requiredFeatures: ["subgroups" as GPUFeatureName] })
    .catch(() => adapter.requestDevice(wanted));
}

/**
 * Finds out whether kernels may use subgroups of eight, and whether they must say so: some implementations demand the
 * line `enable subgroups;` and others refuse it. Without an answer, kernels do without; results are the same.
 */
export async function probeSubgroups(context: DeviceContext): Promise<void> {
  const { device } = context;
  const info = device.adapterInfo as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const eight = info?.subgroupMinSize === 8 && info.subgroupMaxSize === 8;
  if (!eight || context.lanes !== 8 || !device.features.has("subgroups" as GPUFeatureName)) return;
  for (const directive of ["", "enable subgroups;\n"]) {
    device.pushErrorScope("validation");
    const code = `${directive}@compute @workgroup_size(8) fn main() { _ = subgroupBroadcast(1u, 0u); }`;
    device.createShaderModule({ label: "subgroups probe", code });
    if (await device.popErrorScope() === null) {
      context.subgroups = directive;
      return;
    }
  }
}

/**
 * Finds out whether kernels may read from textures: the shaders of OpenGL cannot hand one to a function. Without, kernels
 * read from buffers; results are the same.
 */
export async function probeTextureCopies(context: DeviceContext): Promise<void> {
  if (context.textureCopyBytes === Infinity) return;
  const { device } = context;
  const code = `
@group(0) @binding(0) var copy: texture_storage_2d<r32float, read>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
fn first(values: texture_storage_2d<r32float, read>) -> f32 { return textureLoad(values, vec2u(0u, 0u)).x; }
@compute @workgroup_size(1) fn main() { result[0] = first(copy); }`;
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: "texture probe", code });
  device.createComputePipeline({ label: "texture probe", layout: "auto", compute: { module } });
  const refused = [await device.popErrorScope(), await device.popErrorScope()];
  if (refused.some((error) => error)) context.textureCopyBytes = Infinity;
}
