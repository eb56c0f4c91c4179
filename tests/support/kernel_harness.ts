/**
 * Runs one kernel case on a device, and checks for every case what the GPU does not: that nothing was written past the
 * end of a tensor, that results do not depend on limits or lanes, and that the case fails when the kernel is wrong.
 *
 * Every tensor is followed by NaN inside its binding, and outputs start as NaN, so reads past an end and elements never
 * written show.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { DeviceContext, probeSubgroups, requestDevice } from "../../kernels/engine/device.ts";
import { type ElementArrays, type ElementType, Tensor } from "../../kernels/engine/tensor.ts";
import { assertRefuses } from "./tolerance.ts";

/** All bits set: NaN as f32, 4294967295 as u32. Marks what no kernel has written yet. */
const UNWRITTEN = 0xffffffff;
/** NaN with a payload: each guard has its own, so that NaN carried from one tensor to another shows. */
const GUARD = 0xffc00000;
/** Words after the end of every tensor. */
const GUARD_WORDS = 64;

/** Settings that results may not depend on. Anything left out is the device's own. */
export interface Variant {
  /** Size of the largest binding in bytes; smaller ones cause row blocks. */
  readonly bindingLimit?: number;
  /** Invocations that share a row. */
  readonly lanes?: number;
  /** `false` avoids subgroups even if the device has them. */
  readonly subgroups?: boolean;
  /** Size in bytes from which frequently read data comes from textures. */
  readonly textureCopyBytes?: number;
}

/** Reads from textures whatever can be. */
export const TEXTURES: Variant = { textureCopyBytes: 16 };

/** Records kernels on tensors that it creates, and registers the expected results. */
export type KernelCase = (gpu: Recording) => void | Promise<void>;

interface Expected {
  readonly tensor: Tensor<ElementType>;
  readonly check: (got: ElementArrays[ElementType]) => void;
}

/** The tensors, commands and expectations of one run of a case. */
export class Recording {
  /** The context that the case runs on. */
  readonly context: DeviceContext;
  /** Commands that are submitted after the case. */
  readonly commands: Commands;
  /** All tensors created, in order. */
  readonly tensors: Tensor<ElementType>[] = [];
  /** Disposed of after the run. */
  readonly owners: DisposableStack = new DisposableStack();
  /** The results to read back. */
  readonly expected: Expected[] = [];

  constructor(context: DeviceContext) {
    this.context = context;
    this.commands = new Commands(context);
  }

  /** An f32 tensor; one-dimensional without a shape. */
  f32(values: ArrayLike<number>, ...shape: number[]): Tensor {
    const data = values instanceof Float32Array ? values : Float32Array.from(values);
    return this.own(Tensor.from(this.context, data, shape.length > 0 ? shape : [data.length], this.#label("f32")));
  }

  /** An f16 tensor; one-dimensional without a shape. The padding of its last word is NaN. */
  f16(values: ArrayLike<number>, ...shape: number[]): Tensor {
    const data = Float32Array.from(values);
    const sizes = shape.length > 0 ? shape : [data.length];
    const tensor = this.own(new Tensor(this.context, "f32", sizes, this.#label("f16"), { isF16: true }));
    tensor.write(data);
    if (data.length % 2 === 1) {
      const last = new Uint16Array(Float16Array.of(data.at(-1)!, NaN).buffer);
      this.context.device.queue.writeBuffer(tensor.buffer, 2 * (data.length - 1), last);
    }
    return tensor;
  }

  /** A u32 tensor; one-dimensional without a shape. */
  u32(values: ArrayLike<number>, ...shape: number[]): Tensor<"u32"> {
    const data = values instanceof Uint32Array ? values : Uint32Array.from(values);
    return this.own(Tensor.from(this.context, data, shape.length > 0 ? shape : [data.length], this.#label("u32")));
  }

  /** An f32 tensor for results, full of NaN. */
  out(...shape: number[]): Tensor {
    return this.#filled(new Tensor(this.context, "f32", shape, this.#label("f32 result")));
  }

  /** A u32 tensor for results, full of ones. */
  outU32(...shape: number[]): Tensor<"u32"> {
    return this.#filled(new Tensor(this.context, "u32", shape, this.#label("u32 result")));
  }

  /** An f16 tensor for results, full of NaN. */
  outF16(...shape: number[]): Tensor {
    return this.#filled(new Tensor(this.context, "f32", shape, this.#label("f16 result"), { isF16: true }));
  }

  /** A tensor that the case made itself: guarded, and disposed of after the run. */
  own<T extends ElementType>(tensor: Tensor<T>): Tensor<T> {
    const { queue } = this.context.device;
    queue.writeBuffer(
      tensor.buffer,
      4 * wordsOf(tensor),
      guardsOf(this.tensors.length, tensor.bytes / 4 - wordsOf(tensor)),
    );
    this.tensors.push(tensor as Tensor<ElementType>);
    return tensor;
  }

  /** Owns other tensors, which are disposed of after the run. */
  after(owner: Disposable): void {
    this.owners.use(owner);
  }

  /** After the run, calls `check` with the content of `tensor`. */
  expect<T extends ElementType>(tensor: Tensor<T>, check: (got: ElementArrays[T]) => void): void {
    this.expected.push({ tensor, check } as unknown as Expected);
  }

  #filled<T extends ElementType>(tensor: Tensor<T>): Tensor<T> {
    if (tensor.size > 0) {
      this.context.device.queue.writeBuffer(tensor.buffer, 0, new Uint32Array(wordsOf(tensor)).fill(UNWRITTEN));
    }
    return this.own(tensor);
  }

  #label(type: string): string {
    return `tensor ${this.tensors.length} (${type})`;
  }
}

/** The number of words that a tensor's values occupy. */
function wordsOf(tensor: Tensor<ElementType>): number {
  return tensor.bytesOf(tensor.size) / 4;
}

/** The guard words of the tensor with this number. */
function guardsOf(at: number, length: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, (_, word) => (GUARD | ((at + 1) * 128 + word)) >>> 0);
}

let device: Promise<GPUDevice> | undefined;
const contexts = new Map<string, Promise<DeviceContext>>();
/** The current mutation of WGSL. */
let mutate: ((name: string, wgsl: string) => string) | undefined;

/** The device of this file's cases, destroyed at the end of the file. */
export function caseDevice(): Promise<GPUDevice> {
  return device ??= requestDevice();
}

Deno.test.afterAll(async () => {
  if (device) (await device).destroy();
});

/** The context of a variant, cached with its compiled kernels. */
export function caseContext(variant: Variant = {}): Promise<DeviceContext> {
  const id = JSON.stringify(variant);
  const context = contexts.get(id) ?? makeContext(variant);
  contexts.set(id, context);
  return context;
}

async function makeContext({ subgroups = true, ...limits }: Variant): Promise<DeviceContext> {
  const context = new DeviceContext(await caseDevice(), {
    guardWords: GUARD_WORDS,
    rewriteShader: (name, wgsl) => mutate ? mutate(name, wgsl) : wgsl,
    ...limits,
  });
  if (subgroups) await probeSubgroups(context);
  return context;
}

/** Runs a case on each variant (by default the device's own and {@link TEXTURES}); all must give the same bits. */
export async function check(run: KernelCase, ...variants: Variant[]): Promise<void> {
  let first: Uint32Array[] | undefined;
  for (const variant of variants.length > 0 ? variants : [{}, TEXTURES]) {
    const results = await runOn(await caseContext(variant), run);
    first ??= results;
    results.forEach((bits, at) => {
      const differs = bits.findIndex((word, i) => word !== first![at]![i]);
      if (differs >= 0) {
        throw new AssertionError(
          `result ${at} depends on ${JSON.stringify(variant)}: at [${differs}] it has the bits ${bits[differs]}, ` +
            `with ${JSON.stringify(variants[0])} it has ${first![at]![differs]}`,
        );
      }
    });
  }
}

/**
 * Checks that a case passes, and that it fails for every replacement in the WGSL of `kernel` (in all of its variants
 * that the case compiles).
 */
export async function mutants(
  kernel: string,
  replacements: readonly (readonly [from: string, to: string])[],
  run: KernelCase,
  variant: Variant = {},
): Promise<void> {
  const context = await caseContext(variant);
  await runOn(context, run);
  for (const [from, to] of replacements) {
    let found = false;
    forget(context, kernel);
    mutate = (name, wgsl) => {
      if (name !== kernel) return wgsl;
      found ||= wgsl.includes(from);
      return wgsl.replaceAll(from, to);
    };
    let failure: unknown;
    try {
      await runOn(context, run);
    } catch (error) {
      failure = error;
    } finally {
      mutate = undefined;
      forget(context, kernel);
    }
    if (!found) throw new Error(`the WGSL of kernel ${kernel} has no ${JSON.stringify(from)}`);
    await assertRefuses(() => {
      if (failure) throw failure;
    }, `kernel ${kernel} with ${JSON.stringify(to)} for ${JSON.stringify(from)}`);
  }
}

function forget(context: DeviceContext, kernel: string): void {
  for (const declared of context.pipelines.keys()) {
    if ((declared as { readonly name: string }).name === kernel) context.pipelines.delete(declared);
  }
}

/** Runs the case, reads everything at once, checks the guards and then the expectations; returns the results' bits. */
async function runOn(context: DeviceContext, run: KernelCase): Promise<Uint32Array[]> {
  const recording = new Recording(context);
  const { tensors, expected, commands } = recording;
  try {
    await run(recording);
    commands.submit();
    const wanted = new Set(expected.map(({ tensor }) => tensor));
    // Results with their guards; for other tensors only the guards.
    const parts = tensors.map((tensor) => ({ tensor, from: wanted.has(tensor) ? 0 : wordsOf(tensor) }));
    const read = await readParts(context, parts);
    for (const [at, { tensor, from }] of parts.entries()) {
      const found = read[at]!.subarray(wordsOf(tensor) - from);
      const guards = guardsOf(at, found.length);
      const broken = found.findIndex((word, i) => word !== guards[i]);
      if (broken >= 0) {
        throw new AssertionError(`${tensor.label} [${tensor.shape}]: word ${wordsOf(tensor) + broken} was written`);
      }
    }
    return expected.map(({ tensor, check }) => {
      const bits = read[tensors.indexOf(tensor)]!.slice(0, wordsOf(tensor));
      if (tensor.isF16) check(new Float32Array(new Float16Array(bits.buffer).subarray(0, tensor.size)));
      else check(tensor.type === "f32" ? new Float32Array(bits.buffer) : bits);
      return bits;
    });
  } finally {
    for (const tensor of tensors) tensor[Symbol.dispose]();
    recording.owners.dispose();
  }
}

/** The words of every buffer from element `from` to the end of its guards, with one wait for all. */
async function readParts(
  context: DeviceContext,
  parts: readonly { readonly tensor: Tensor<ElementType>; readonly from: number }[],
): Promise<Uint32Array[]> {
  const { device } = context;
  const sizes = parts.map(({ tensor, from }) => tensor.bytes - 4 * from);
  const staging = device.createBuffer({
    label: "results",
    size: sizes.reduce((sum, size) => sum + size, 0),
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  try {
    const encoder = device.createCommandEncoder();
    let to = 0;
    for (const [at, { tensor, from }] of parts.entries()) {
      encoder.copyBufferToBuffer(tensor.buffer, tensor.offset + 4 * from, staging, to, sizes[at]!);
      to += sizes[at]!;
    }
    device.queue.submit([encoder.finish()]);
    await context.settled(staging.mapAsync(GPUMapMode.READ));
    const mapped = staging.getMappedRange();
    let at = 0;
    return sizes.map((size) => new Uint32Array(mapped.slice(at, at += size)));
  } finally {
    staging.destroy();
  }
}
