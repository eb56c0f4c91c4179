/**
 * A tensor that stays in its file until its numbers are needed.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import {
  BYTES_PER_NUMBER,
  convertPieces,
  type FloatType,
  isFloatType,
  littleEndianBytes,
  type NumberType,
  readFloats,
  readIntegers,
} from "./numbers.ts";

/** A tensor in a file. */
export interface StoredTensor {
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** The type of its numbers in the file. */
  readonly dtype: NumberType;
  /**
   * Its elements, row-major, as float32; wider ones are rounded. They may be a view of the file's bytes in memory: do
   * not write into them.
   *
   * @throws {CheckpointError} for damaged bytes, and for a tensor of integers.
   */
  read(): Promise<Float32Array>;
  /**
   * Its elements, row-major, for integers and bools.
   *
   * @throws {CheckpointError} for damaged bytes, an integer beyond 2^53, and for a tensor of floating-point numbers.
   */
  readIntegers(): Promise<Float64Array>;
  /** The result of {@link StoredTensor.read} in pieces of any length; for a row-major tensor, none stays in memory. */
  pieces(): AsyncIterable<Float32Array>;
  /** The result of {@link StoredTensor.readIntegers} in pieces, likewise. */
  integerPieces(): AsyncIterable<Float64Array>;
  /** Bytes of the file that must be read to get them: the whole storage, which other tensors may share. */
  readonly storedBytes: number;
  /** Whether the elements are contiguous and row-major. */
  readonly isRowMajor: boolean;
  /** The transpose of a matrix, as a view of the same numbers in the file. */
  transposed(): StoredTensor;
}

/** A tensor to write. */
export interface NamedTensor {
  /** Its name in the file. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array | Int32Array;
}

/** Numbers to write, of which length and checksum are known in advance. */
export interface MeasuredNumbers {
  /** Their number. */
  readonly length: number;
  /** The checksum of their bytes, little-endian. */
  readonly crc32: number;
  /** Their bytes, which must be those that were measured. */
  readonly pieces: () => AsyncIterable<Uint8Array>;
}

/** Contiguous numbers in a file. */
export interface NumberRun {
  /** Their name in messages. */
  readonly what: string;
  /** Their type. */
  readonly dtype: NumberType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** How many there are. */
  readonly length: number;
  /** All their bytes at once. */
  readonly bytes: () => Promise<Uint8Array>;
  /** All their bytes, in pieces of any length. */
  readonly pieces: () => AsyncIterable<Uint8Array>;
}

/** Largest number of dimensions. */
export const MAX_RANK = 8;

/** Bytes of integers converted at a time, a multiple of each type's size. */
const INTEGER_BYTES = 2 ** 16;

/** A tensor whose elements lie in a run: element `[i, j, …]` is number `offset + i strides[0] + j strides[1] + …`. */
export class TensorView implements StoredTensor {
  readonly shape: readonly number[];
  readonly #run: NumberRun;
  readonly #strides: readonly number[];
  readonly #offset: number;

  /** By default row-major from the start of the run. */
  constructor(
    run: NumberRun,
    shape: readonly number[],
    strides: readonly number[] = rowMajorStrides(shape),
    offset = 0,
  ) {
    this.shape = shape;
    this.#run = run;
    this.#strides = strides;
    this.#offset = offset;
  }

  get dtype(): NumberType {
    return this.#run.dtype;
  }

  get storedBytes(): number {
    return this.#run.length * BYTES_PER_NUMBER[this.#run.dtype];
  }

  get isRowMajor(): boolean {
    return isRowMajor(this.shape, this.#strides);
  }

  transposed(): StoredTensor {
    return new TensorView(this.#run, this.shape.toReversed(), this.#strides.toReversed(), this.#offset);
  }

  async read(): Promise<Float32Array> {
    this.#requireFloats();
    const { dtype, length } = this.#run;
    const isWhole = countElements(this.shape) === length && this.isRowMajor;
    if (dtype === "float32" && isWhole) return this.#floats(await this.#run.bytes());
    return await this.#collect((bytes) => this.#floats(bytes), (length) => new Float32Array(length));
  }

  async readIntegers(): Promise<Float64Array> {
    return await this.#collect(this.#integers(), (length) => new Float64Array(length));
  }

  async *pieces(): AsyncGenerator<Float32Array> {
    this.#requireFloats();
    if (this.isRowMajor) yield* this.#runPieces((bytes) => this.#floats(bytes), countElements(this.shape));
    else yield await this.read();
  }

  async *integerPieces(): AsyncGenerator<Float64Array> {
    const convert = this.#integers();
    if (this.isRowMajor) yield* this.#runPieces(convert, countElements(this.shape));
    else yield await this.readIntegers();
  }

  #integers(): (bytes: Uint8Array) => Float64Array {
    const { what, dtype, isLittleEndian } = this.#run;
    if (isFloatType(dtype)) throw new CheckpointError(`reading ${what}: found ${dtype}; expected integers`);
    return (bytes) => readIntegers(bytes, dtype, isLittleEndian);
  }

  #requireFloats(): void {
    const { what, dtype } = this.#run;
    if (isFloatType(dtype)) return;
    throw new CheckpointError(`reading ${what}: found ${dtype}; expected floating-point numbers`);
  }

  #floats(bytes: Uint8Array): Float32Array {
    const { dtype, isLittleEndian } = this.#run;
    return readFloats(bytes, dtype as FloatType, isLittleEndian);
  }

  /**
   * The given number of elements from the tensor's first on. All pieces are consumed, even after that, because their
   * source may check them at the end.
   */
  async *#runPieces<T extends Float32Array | Float64Array>(
    convert: (bytes: Uint8Array) => T,
    length: number,
  ): AsyncGenerator<T> {
    let at = -this.#offset;
    // Integers grow to eight times their bytes in memory; float32 is a view of them.
    const most = isFloatType(this.dtype) ? Infinity : INTEGER_BYTES;
    for await (const numbers of convertPieces(this.#run.pieces(), BYTES_PER_NUMBER[this.dtype], convert, most)) {
      const [first, last] = [Math.max(0, -at), Math.min(numbers.length, length - at)];
      if (first < last) yield numbers.subarray(first, last) as T;
      at += numbers.length;
    }
  }

  /** Gathers elements that are not row-major from the part of the run after the tensor's first number. */
  async #collect<T extends Float32Array | Float64Array>(
    convert: (bytes: Uint8Array) => T,
    allocate: (length: number) => T,
  ): Promise<T> {
    const length = countElements(this.shape);
    const numbers = allocate(this.isRowMajor ? length : this.#run.length - this.#offset);
    let at = 0;
    for await (const piece of this.#runPieces(convert, numbers.length)) {
      numbers.set(piece, at);
      at += piece.length;
    }
    return this.isRowMajor ? numbers : gather(numbers, allocate(length), this.shape, this.#strides);
  }
}

/** A tensor of numbers in memory. */
export function floatsTensor(what: string, data: Float32Array, shape: readonly number[]): StoredTensor {
  const bytes = littleEndianBytes(data);
  return new TensorView({
    what,
    dtype: "float32",
    isLittleEndian: true,
    length: data.length,
    bytes: () => Promise.resolve(bytes),
    async *pieces() {
      yield await Promise.resolve(bytes);
    },
  }, shape);
}

/** Number of elements of a tensor. */
export function countElements(shape: readonly number[]): number {
  return shape.reduce((length, size) => length * size, 1);
}

/** Distances between neighbours along each axis, with the last axis contiguous. */
export function rowMajorStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => countElements(shape.slice(axis + 1)));
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (strides[axis] !== expected) return countElements(shape) === 0;
    expected *= shape[axis]!;
  }
  return true;
}

/** Copies a strided view into row-major order, one run of the last axis at a time. */
function gather<T extends Float32Array | Float64Array>(
  numbers: T,
  into: T,
  shape: readonly number[],
  strides: readonly number[],
): T {
  const runLength = shape.at(-1)!;
  const runStride = strides.at(-1)!;
  const index = shape.map(() => 0);
  for (let start = 0; start < into.length; start += runLength) {
    let from = index.reduce((sum, position, axis) => sum + position * strides[axis]!, 0);
    for (let i = 0; i < runLength; i++, from += runStride) into[start + i] = numbers[from]!;
    for (let axis = shape.length - 2; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return into;
}
