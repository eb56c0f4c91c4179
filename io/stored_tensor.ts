/**
 * A tensor that lies in a file until its numbers are asked for.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import { BYTES_PER_NUMBER, collectNumbers, isFloatType, type NumberType, readFloats, readIntegers } from "./numbers.ts";

/** A tensor in a file. */
export interface StoredTensor {
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** How the file holds its numbers. */
  readonly dtype: NumberType;
  /**
   * Its elements, row-major, as float32; wider ones are rounded. They may be a view of the file's bytes, where those are
   * in memory: do not write into them.
   *
   * @throws {CheckpointError} for damaged bytes, and for a tensor of integers.
   */
  read(): Promise<Float32Array>;
  /**
   * Its elements, row-major, where they are integers or bools.
   *
   * @throws {CheckpointError} for damaged bytes, an integer beyond 2^53, and for a tensor of floating-point numbers.
   */
  readIntegers(): Promise<Float64Array>;
}

/** A tensor to be written. */
export interface NamedTensor {
  /** Its name in the file. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array | Int32Array;
}

/** Numbers that lie one after the other in a file. */
export interface NumberRun {
  /** What messages call them. */
  readonly what: string;
  /** Their type. */
  readonly dtype: NumberType;
  /** The byte order. */
  readonly isLittleEndian: boolean;
  /** How many there are. */
  readonly length: number;
  /** All their bytes at once. */
  readonly bytes: () => Promise<Uint8Array>;
  /** All their bytes in pieces of any length. */
  readonly pieces: () => AsyncIterable<Uint8Array>;
}

/** Dimensions beyond this are refused. */
export const MAX_RANK = 8;

/** A tensor whose elements all lie in a run: element `[i, j, …]` is number `offset + i strides[0] + j strides[1] + …`. */
export class TensorView implements StoredTensor {
  readonly shape: readonly number[];
  readonly #run: NumberRun;
  readonly #strides: readonly number[];
  readonly #offset: number;

  /** Row-major from the run's start, unless told otherwise. */
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

  async read(): Promise<Float32Array> {
    const { what, dtype, isLittleEndian } = this.#run;
    if (!isFloatType(dtype)) {
      throw new CheckpointError(`reading ${what}: found ${dtype}; expected floating-point numbers`);
    }
    const convert = (bytes: Uint8Array): Float32Array => readFloats(bytes, dtype, isLittleEndian);
    const isWhole = countElements(this.shape) === this.#run.length && isRowMajor(this.shape, this.#strides);
    if (dtype === "float32" && isWhole) return convert(await this.#run.bytes());
    return await this.#collect(convert, (length) => new Float32Array(length));
  }

  async readIntegers(): Promise<Float64Array> {
    const { what, dtype, isLittleEndian } = this.#run;
    if (isFloatType(dtype)) throw new CheckpointError(`reading ${what}: found ${dtype}; expected integers`);
    const convert = (bytes: Uint8Array): Float64Array => readIntegers(bytes, dtype, isLittleEndian);
    return await this.#collect(convert, (length) => new Float64Array(length));
  }

  /** What does not lie row-major in the run is gathered from the whole of it. */
  async #collect<T extends Float32Array | Float64Array>(
    convert: (bytes: Uint8Array) => T,
    allocate: (length: number) => T,
  ): Promise<T> {
    const { dtype, length: runLength, pieces } = this.#run;
    const length = countElements(this.shape);
    const isPlain = isRowMajor(this.shape, this.#strides);
    const numbers = await collectNumbers(pieces(), {
      into: allocate(isPlain ? length : runLength),
      bytesPerNumber: BYTES_PER_NUMBER[dtype],
      skip: isPlain ? this.#offset : 0,
      convert,
    });
    return isPlain ? numbers : gather(numbers, allocate(length), this.#offset, this.shape, this.#strides);
  }
}

/** How many elements a tensor has. */
export function countElements(shape: readonly number[]): number {
  return shape.reduce((length, size) => length * size, 1);
}

/** How far apart neighbours lie along each axis, where the last axis is contiguous. */
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
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): T {
  const runLength = shape.at(-1)!;
  const runStride = strides.at(-1)!;
  const index = shape.map(() => 0);
  for (let start = 0; start < into.length; start += runLength) {
    let from = index.reduce((sum, position, axis) => sum + position * strides[axis]!, offset);
    for (let i = 0; i < runLength; i++, from += runStride) into[start + i] = numbers[from]!;
    for (let axis = shape.length - 2; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return into;
}
