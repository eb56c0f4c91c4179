/**
 * What the library keeps for a `GPUDevice`: limits, compiled pipelines, staging buffers, and failures.
 *
 * Every `GPUDevice` has one {@link DeviceContext}, which {@link contextOf} makes on first use. Users pass plain
 * `GPUDevice`s and never see contexts.
 *
 * @module
 */

import { checkOptions } from "./options.ts";
import { DeviceError, KernelError } from "./errors.ts";
import type { DispatchTimings } from "./timings.ts";

/** Settings of a device that tests change; each defaults to the device's own value. */
export interface DeviceContextOptions {
  /** Bytes of the largest storage binding; with less than the device's own, kernels process tensors in row blocks. */
  readonly bindingLimit?: number;
  /** Words of all-ones bits (NaN as f32) after the end of every tensor, inside its binding. */
  readonly guardWords?: number;
  /** Rewrites a kernel's WGSL before it is compiled. */
  readonly rewriteShader?: (name: string, wgsl: string) => string;
  /** Invocations that work on neighbouring columns of one row. */
  readonly lanes?: number;
  /** Bytes of reading from which a texture copy pays; `Infinity` turns texture copies off. */
  readonly textureCopyBytes?: number;
}

/** A compiled kernel. */
export interface CompiledKernel {
  /** The pipeline. */
  readonly pipeline: GPUComputePipeline;
  /** Its only bind group layout. */
  readonly layout: GPUBindGroupLayout;
  /** Recent bind groups, by what they bind. */
  readonly bindGroups: Map<string, BindGroup>;
}

/** A bind group, and the unique numbers of the tensors' buffers in it. */
export interface BindGroup {
  /** What is set. */
  readonly group: GPUBindGroup;
  /** Numbers of the buffers. */
  readonly buffers: readonly number[];
}

const contexts = new WeakMap<GPUDevice, DeviceContext>();

/** Bytes between two uniform slots: the alignment that every adapter accepts. */
export const SLOT_BYTES = 256;
/** The words of a slot that hold a run's arguments; the others say what the run depends on. */
export const SLOT_FIELDS: number = SLOT_BYTES / 4 - 3;
/** The word, in the slot of a dispatch's first run, with the number of the decision that it depends on; 0 for none. */
export const DECISION_WORD: number = SLOT_FIELDS;
/** The word of that slot with the number of runs in the dispatch. */
export const RUNS_WORD: number = SLOT_FIELDS + 1;
/** The word with the place of a run's flag among those that are decided together. */
export const FLAG_WORD: number = SLOT_FIELDS + 2;

/** Bytes of the three numbers of workgroups of a dispatch. */
export const GROUPS_BYTES = 12;

/** Dispatches that one submission may hold before another begins. */
const SLOTS = 2048;
/** Decisions and counts that one submission may hold. */
const DECISIONS = 256;

/** Sets of arguments that one dispatch may take: their slots fit the uniform binding of any adapter. */
export const MAX_JOINED = 32;

/** The state that this library keeps for a `GPUDevice`. */
export class DeviceContext {
  /** The platform's device. */
  readonly device: GPUDevice;
  /** Bytes of the largest storage binding. */
  readonly bindingLimit: number;
  /** Words of NaN bits after every tensor (0 but in tests). */
  readonly guardWords: number;
  /** Invocations that work on neighbouring columns of one row: the adapter's likely SIMD width. */
  readonly lanes: number;
  /** Bytes of reading from which a texture copy pays; `Infinity` where textures are not faster than buffers. */
  textureCopyBytes: number;
  /** One uniform buffer for all dispatches of a submission, a slot each. */
  readonly slots: GPUBuffer;
  /** The numbers of workgroups of dispatches that the GPU decides about, by slot. */
  readonly conditionalGroups: GPUBuffer;
  /** How many slots there are. */
  readonly slotCount: number = SLOTS;
  /** The uniform slots of the kernels that decide about dispatches, which write to the slots of those runs. */
  readonly decisionSlots: GPUBuffer;
  /** How many of these slots there are. */
  readonly decisionCount: number = DECISIONS;
  /** Their contents at the next submission. */
  readonly decisionWords: Uint32Array<ArrayBuffer> = new Uint32Array(DECISIONS * SLOT_BYTES / 4);
  /** The contents of the slots at the next submission. */
  readonly slotWords: Uint32Array<ArrayBuffer> = new Uint32Array(SLOTS * SLOT_BYTES / 4);
  /** Compiled kernels, by what declares them. */
  readonly pipelines: Map<object, CompiledKernel> = new Map();
  /** The directive of a kernel that uses subgroups of eight; `undefined` where the device has none. */
  subgroups: string | undefined;
  /** Measured choices of kernel variants, by what they were chosen for. */
  readonly tuned: Map<string, string> = new Map();
  /** Times every dispatch, if set. */
  timings: DispatchTimings | undefined;
  /** Bytes of the buffers of tensors that have not been disposed of. */
  heldBytes = 0;
  /** Called with every dispatch and the labels of what it binds, if set. */
  onDispatch: ((name: string, bound: readonly string[]) => void) | undefined;

  readonly #rewriteShader: ((name: string, wgsl: string) => string) | undefined;
  readonly #staging = new Map<number, GPUBuffer[]>();
  readonly #pending = new Set<Promise<void>>();
  readonly #lost: Promise<never>;
  #failure: Error | undefined;
  /** Destroyed buffers that bind groups may still refer to. */
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
      // A joined dispatch always binds as many slots as it could need, wherever it begins.
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
      // In Deno, some driver errors have no message.
      const refused = new KernelError(
        `${this.adapter} refused a command: ${error.message || `${error.constructor.name}, without a message`}`,
      );
      // In Dawn, this may come before what the compiler says of the kernel that the command uses.
      this.watch(
        Promise.all(this.#pending).then(() => {
          throw refused;
        }),
      );
    });
    contexts.set(device, this);
  }

  /** Remembers the first failure; every later read of a tensor rejects with it. */
  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Whether the device has failed and cannot be used any more. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** The adapter's name for messages. */
  get adapter(): string {
    return adapterName(this.device);
  }

  /**
   * A new buffer. If the device has no memory for it, the device fails with an error that says what the buffer was for.
   */
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
   * What `make` returns, once the device has confirmed that it had memory for all of it. Otherwise the result is
   * disposed of, and the device stays usable.
   *
   * @throws {DeviceError} if there was not enough memory; the message begins with `what`.
   */
  async making<T extends Disposable>(what: string, make: () => T): Promise<T> {
    this.check();
    // Writing to a buffer that could not be allocated is a validation error too.
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

  /** Notes that a buffer was destroyed. After many, drops the bind groups that refer to them. */
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
   * What `work` returns, or the error with which the device refuses one of its kernels, which then does not fail the
   * device. Nothing else may use the device meanwhile.
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
   * submission. Loading models alone may not submit anything for long, so this submits after many bytes.
   */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBufferLike>): void {
    // As bytes: Dawn does not know the size of a Float16Array's elements, and ends the process.
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    this.device.queue.writeBuffer(buffer, offset, bytes);
    this.#writtenBytes += data.byteLength;
    if (this.#writtenBytes >= MAX_WRITTEN_BYTES) this.submit();
  }

  /** How many submissions there have been. */
  get submissions(): number {
    return this.#submissions;
  }

  /** Submits command buffers or, without any, the writes since the last submission. */
  submit(commands: readonly GPUCommandBuffer[] = []): void {
    this.device.queue.submit([...commands]);
    this.#submissions++;
    this.#writtenBytes = 0;
  }

  /** Waits until everything submitted or written so far is done and its memory is free again. */
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

/** The failure that {@link DeviceContext.making} recovers from. */
class OutOfMemoryError extends DeviceError {}

/** Destroyed buffers after which bind groups are searched for them: about as many as a training run has. */
const MAX_GONE = 128;

/** The most bytes written between two submissions. */
const MAX_WRITTEN_BYTES = 2 ** 25;

/** Bytes of reading that make up for a copy, which takes about 50 µs. */
const TEXTURE_COPY_BYTES = 2 ** 16;

/**
 * Whether loads from textures are faster than loads from buffers. Mesa's software driver checks a buffer's bounds for
 * one invocation of a vector after the other, and a texture's for all of them at once.
 */
function hasFasterTextures({ adapterInfo }: GPUDevice): boolean {
  return /\bllvmpipe\b/.test(adapterInfo?.description ?? "");
}

/** An adapter's name; browsers do not reveal the description. */
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

/** The parts of `globalThis` that asking for a device needs. */
export interface Surroundings {
  /** Where the GPU is. */
  readonly navigator?: Pick<Navigator, "gpu" | "userAgent">;
  /** Whether a page is a secure context; undefined on other platforms. */
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
  // All browsers call themselves Mozilla; Deno, Node and Bun do not.
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
 * Finds out whether kernels may use subgroups of eight, and with which directive: some implementations require `enable
 * subgroups;` and others refuse it. If neither compiles, kernels do not use subgroups; results are the same.
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
 * Finds out whether kernels may read from textures: OpenGL's shaders cannot pass one to a function. If not, kernels
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
