/**
 * A shaped, labelled, disposable array on the GPU.
 *
 * @module
 */

import { checkOptions } from "./options.ts";
import type { DeviceContext } from "./device.ts";
import { DeviceError, kindOf, ShapeError } from "./errors.ts";
import { toF16 } from "../forms/f16.ts";
import { copyToTexture, newTextureCopy, type TextureCopy } from "../forms/texture_copies.ts";

/** Element type: 32-bit float or 32-bit unsigned integer. */
export type ElementType = "f32" | "u32";

/** The array that a tensor of a type is read into. */
export interface ElementArrays {
  /** For `f32`. */
  f32: Float32Array;
  /** For `u32`. */
  u32: Uint32Array;
}

const ARRAYS = { f32: Float32Array, u32: Uint32Array } as const;

/** Rows `from` to `to` of a tensor (its first dimension), as a kernel binds them. */
export interface TensorRows {
  /** The whole. */
  readonly tensor: Tensor<ElementType>;
  /** First row. */
  readonly from: number;
  /** One past the last row. */
  readonly to: number;
}

/** A GPU buffer and how many tensors lie in it. */
interface Storage {
  readonly buffer: GPUBuffer;
  readonly id: number;
  tensors: number;
  /** How often its values have changed. */
  changes: number;
  /** The number of submissions when the CPU last wrote to it. */
  written?: number;
  /** A copy of its values in a texture. */
  textureCopy?: TextureCopy;
}

let storages = 0;

/** A multiple that every adapter accepts as the offset of a binding. */
const OFFSET_BYTES = 256;

/** Values read back at once by `pieces`: each read takes milliseconds, whatever its size. */
const PIECE_SIZE = 2 ** 22;

/** A row-major array in a GPU buffer. The code that creates it must dispose of it. */
export class Tensor<T extends ElementType = "f32"> implements Disposable {
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Elements in one row, the product of all sizes but the first. */
  readonly rowSize: number;
  /** Element type. */
  readonly type: T;
  /** Its name in errors. */
  readonly label: string;
  /** Whether it stores its floats as f16, two in a word. Kernels can read an f16 tensor but not compute into one. */
  readonly isF16: boolean;
  /** Bytes that it takes in its buffer, padding included. */
  readonly bytes: number;
  /** The device it lives on. */
  readonly context: DeviceContext;
  #storage: Storage | undefined;
  #offset = 0;

  /**
   * An array of zeros; with `isF16`, of floats in half of the memory, rounded as {@link toF16} does.
   *
   * @throws {ShapeError} if a size is not a non-negative integer.
   * @throws {TypeError} for `isF16` with another type than `f32`.
   * @throws {DeviceError} if it is larger than the device's largest buffer.
   */
  constructor(
    context: DeviceContext,
    type: T,
    shape: readonly number[],
    label: string,
    options: { readonly isF16?: boolean } = {},
  ) {
    checkOptions("a Tensor", options, { isF16: true });
    const { isF16 = false } = options;
    if (isF16 && type !== "f32") {
      throw new TypeError(`${label} cannot store ${type} as f16; only f32 tensors can be f16`);
    }
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      throw new ShapeError(`the shape of ${label} must be non-negative integers, found [${shape.join(", ")}]`);
    }
    this.context = context;
    this.type = type;
    this.shape = Object.freeze([...shape]);
    this.size = shape.reduce((product, size) => product * size, 1);
    this.rowSize = shape.slice(1).reduce((product, size) => product * size, 1);
    this.label = label;
    this.isF16 = isF16;
    const held = this.bytesOf(this.size);
    // A multiple of 16 bytes, so that it can always be bound as vec4.
    const bytes = Math.max(16, Math.ceil(held / 16) * 16) + context.guardWords * 4;
    if (bytes > context.device.limits.maxBufferSize) {
      throw new DeviceError(
        `${label} [${
          shape.join(", ")
        }] needs ${bytes} bytes, and this device's largest buffer has ${context.device.limits.maxBufferSize} (maxBufferSize)`,
      );
    }
    context.check();
    this.bytes = bytes;
    this.#storage = newStorage(context, bytes, label, 1);
    if (context.guardWords > 0) {
      const guards = new Uint32Array((bytes - held) / 4).fill(0xffffffff);
      this.#write(held, guards);
    }
  }

  /** An array with the values of `data`, row-major. */
  static from(
    context: DeviceContext,
    data: Float32Array,
    shape: readonly number[],
    label: string,
  ): Tensor<"f32">;
  /** An array with the values of `data`, row-major. */
  static from(
    context: DeviceContext,
    data: Uint32Array,
    shape: readonly number[],
    label: string,
  ): Tensor<"u32">;
  static from(
    context: DeviceContext,
    data: Float32Array | Uint32Array,
    shape: readonly number[],
    label: string,
  ): Tensor<ElementType> {
    const type: ElementType = data instanceof Uint32Array ? "u32" : "f32";
    const tensor = new Tensor<ElementType>(context, type, shape, label);
    try {
      tensor.write(data);
    } catch (error) {
      tensor[Symbol.dispose]();
      throw error;
    }
    return tensor;
  }

  /** Bytes of a value. */
  get valueBytes(): number {
    return this.isF16 ? 2 : 4;
  }

  /** Bytes of the words that hold the first `size` values. */
  bytesOf(size: number): number {
    return Math.ceil(size * this.valueBytes / 4) * 4;
  }

  /** The GPU buffer. @throws {DeviceError} after dispose. */
  get buffer(): GPUBuffer {
    if (!this.#storage) throw new DeviceError(`${this.label} was used after it was disposed of`);
    return this.#storage.buffer;
  }

  /** The unique number of its buffer. */
  get bufferId(): number {
    return this.#storage?.id ?? 0;
  }

  /** Bytes before it in its buffer. */
  get offset(): number {
    return this.#offset;
  }

  /** Notes that its buffer was written to, so that copies of it become stale. */
  change(): void {
    if (this.#storage) this.#storage.changes++;
  }

  /** How often its buffer has been written to. */
  get changes(): number {
    return this.#storage?.changes ?? 0;
  }

  /** Whether its buffer has a texture copy that is up to date. */
  get hasTextureCopy(): boolean {
    return this.#storage?.textureCopy?.copied === this.changes;
  }

  /**
   * The texture copy of its whole buffer. If the values have changed since the last copy, `copy` must record a new one
   * now.
   */
  textureCopy(copy: (record: (encoder: GPUCommandEncoder) => void) => void): TextureCopy {
    const storage = this.#storage!;
    const { buffer, changes } = storage;
    const textureCopy = storage.textureCopy ??= newTextureCopy(this.context.device, this, buffer);
    if (textureCopy.copied !== changes) {
      const { valueBytes } = this;
      copy((encoder) => copyToTexture(encoder, { buffer, texture: textureCopy.texture, valueBytes }));
      textureCopy.copied = changes;
    }
    return textureCopy;
  }

  /** Whether no other tensor shares its buffer. */
  get isAlone(): boolean {
    return this.#storage?.tensors === 1;
  }

  /** Bytes of the buffer that {@link Tensor.join} makes. */
  static joinedBytes(tensors: readonly Tensor<ElementType>[]): number {
    return tensors.reduce((sum, { bytes }) => sum + aligned(bytes), 0);
  }

  /**
   * Moves tensors of one device, each alone in its buffer, into one buffer, so that a single dispatch can bind them
   * all. Values, labels and owners stay; the memory is freed with the last of the tensors. No commands that use them
   * may be encoded but not submitted.
   */
  static join(tensors: readonly Tensor<ElementType>[]): void {
    const [{ context, label }] = tensors as [Tensor<ElementType>];
    const joined = newStorage(context, Tensor.joinedBytes(tensors), label, tensors.length);
    const encoder = context.device.createCommandEncoder({ label: `join ${label}` });
    let offset = 0;
    for (const tensor of tensors) {
      encoder.copyBufferToBuffer(tensor.buffer, tensor.#offset, joined.buffer, offset, tensor.bytes);
      offset += aligned(tensor.bytes);
    }
    context.submit([encoder.finish()]);
    offset = 0;
    for (const tensor of tensors) {
      tensor[Symbol.dispose]();
      tensor.#storage = joined;
      tensor.#offset = offset;
      offset += aligned(tensor.bytes);
    }
  }

  /** Some rows, to bind. */
  rows(from: number, to: number): TensorRows {
    return { tensor: this, from, to };
  }

  /**
   * Copies `data` into the array, row-major.
   *
   * @throws {ShapeError} if the sizes differ.
   * @throws {TypeError} for an array of another kind.
   */
  write(data: ElementArrays[T]): void {
    this.#checkArray(data);
    if (data.length !== this.size) {
      throw new ShapeError(
        `${this.label} [${this.shape.join(", ")}] takes ${this.size} values, found an array of ${data.length}`,
      );
    }
    this.writeAt(0, data);
  }

  /**
   * Copies `data` over the elements from index `start` on. An f16 tensor is written in pairs: `start` must be even, and so
   * must the number of values unless they are the last.
   *
   * @throws {ShapeError} if it has fewer elements, or f16 values are not whole pairs.
   * @throws {RangeError} if a value is beyond the largest f16 value.
   * @throws {TypeError} for an array of another kind.
   */
  writeAt(start: number, data: ElementArrays[T]): void {
    this.#checkArray(data);
    if (start + data.length > this.size) {
      throw new ShapeError(
        `${this.label} [${this.shape.join(", ")}] has ${this.size} values, found an array that ends after ${
          start + data.length
        }`,
      );
    }
    if (this.isF16 && (start % 2 !== 0 || (data.length % 2 !== 0 && start + data.length < this.size))) {
      throw new ShapeError(
        `the f16 values of ${this.label} are written in pairs, found ${data.length} from index ${start} on`,
      );
    }
    if (data.length === 0) return;
    const stored = this.isF16 ? toF16(data as Float32Array, this.label) : data;
    this.change();
    this.#write(start * this.valueBytes, stored);
  }

  #write(at: number, data: ArrayBufferView<ArrayBufferLike>): void {
    this.context.write(this.buffer, this.#offset + at, data);
    this.#storage!.written = this.context.submissions;
  }

  /** The bytes of another kind of array would be read as other numbers, and too many of them would fail the device. */
  #checkArray(data: unknown): void {
    const { name } = ARRAYS[this.type];
    if (!(data instanceof ARRAYS[this.type])) {
      throw new TypeError(`${this.label} takes a ${name}, found ${kindOf(data)}`);
    }
  }

  /**
   * Reads the values back, row-major, after all work submitted before; with `size`, only the first `size` values.
   *
   * @throws {RangeError} if it has fewer than `size` values.
   * @throws {DeviceError} if the device was lost, also while waiting.
   * @throws {KernelError} if a kernel before it failed.
   */
  async read(size: number = this.size): Promise<ElementArrays[T]> {
    if (size > this.size) throw new RangeError(`${this.label} has ${this.size} values, asked for ${size}`);
    return await this.#readRange(0, size);
  }

  /**
   * The values in pieces of `size`, row-major. Each piece is read when it is requested.
   *
   * @throws {DeviceError | KernelError} as {@link Tensor.read}.
   */
  async *pieces(size: number = PIECE_SIZE): AsyncGenerator<ElementArrays[T]> {
    for (let from = 0; from < this.size; from += size) {
      yield await this.#readRange(from, Math.min(from + size, this.size));
    }
  }

  async #readRange(from: number, to: number): Promise<ElementArrays[T]> {
    const { buffer, context } = this;
    // An f16 value comes with the word that it shares.
    const shared = this.isF16 ? from % 2 : 0;
    const first = from - shared;
    const bytes = this.bytesOf(to - first);
    const staging = context.takeStaging(bytes);
    const encoder = context.device.createCommandEncoder({ label: `read ${this.label}` });
    if (bytes > 0) encoder.copyBufferToBuffer(buffer, this.#offset + first * this.valueBytes, staging, 0, bytes);
    context.submit([encoder.finish()]);
    try {
      await context.settled(staging.mapAsync(GPUMapMode.READ));
    } catch (error) {
      staging.destroy();
      throw error;
    }
    const copy = staging.getMappedRange().slice(0, bytes);
    staging.unmap();
    context.returnStaging(staging);
    if (this.isF16) {
      return new Float32Array(new Float16Array(copy).subarray(shared, shared + to - from)) as ElementArrays[T];
    }
    return (this.type === "f32" ? new Float32Array(copy) : new Uint32Array(copy)) as ElementArrays[T];
  }

  /** Frees the memory. A second call does nothing. */
  [Symbol.dispose](): void {
    const storage = this.#storage;
    this.#storage = undefined;
    if (!storage || --storage.tensors > 0) return;
    storage.buffer.destroy();
    this.context.forget(storage.id);
    this.context.heldBytes -= storage.buffer.size;
    storage.textureCopy?.texture.destroy();
    // A pending write would keep its memory until the next submission.
    if (storage.written === this.context.submissions) this.context.submit();
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / OFFSET_BYTES) * OFFSET_BYTES;
}

function newStorage(context: DeviceContext, size: number, label: string, tensors: number): Storage {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  return { buffer: context.createBuffer({ label, size, usage }), id: ++storages, tensors, changes: 0 };
}

/** The limits on how much of a tensor a binding holds. */
export type Limits = Pick<DeviceContext, "bindingLimit" | "guardWords">;

/** How many 4-byte elements fit a binding. */
export function elementsPerBinding(context: Limits): number {
  return Math.floor((context.bindingLimit - context.guardWords * 4 - 16) / 4);
}

/**
 * How many rows of `rowBytes` fit a binding. At least all of `rows`, if they fit; otherwise a multiple of
 * {@link alignedRows}.
 */
export function rowsPerBlock(context: Limits, rows: number, rowBytes: number, what: string): number {
  const limit = context.bindingLimit - context.guardWords * 4 - 16;
  if (rows * rowBytes <= limit) return Math.max(rows, 1);
  const least = alignedRows(rowBytes);
  const fit = Math.floor(limit / rowBytes / least) * least;
  if (fit === 0) {
    throw new DeviceError(
      `${least} rows of ${what} have ${
        least * rowBytes
      } bytes, more than the ${context.bindingLimit} that this device binds at once (maxStorageBufferBindingSize)`,
    );
  }
  return fit;
}

/** Bindings begin at multiples of so many rows of `rowBytes`; twice as many where f16 rows end within a word. */
export function alignedRows(rowBytes: number): number {
  return rowBytes % 4 === 0 ? OFFSET_BYTES / 4 : OFFSET_BYTES / 2;
}

/** Some rows. */
export interface Span {
  /** First row. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
}

/** Splits `rows` into spans of at most `size`. */
export function* spans(rows: number, size: number): Generator<Span> {
  for (let from = 0; from < rows; from += size) yield { from, to: Math.min(from + size, rows) };
}
