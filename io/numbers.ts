/**
 * Numbers in files: many types and two byte orders. In memory floating-point numbers are always float32, and integers
 * are float64, which is exact up to 2^53.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import { joinBytes } from "./source.ts";

/** The floating-point types that can be read. */
export type FloatType = "float16" | "bfloat16" | "float32" | "float64";

/** The integer types that can be read; for `bool`, 0 is false and 1 is true. */
export type IntegerType = "bool" | "int8" | "uint8" | "int16" | "uint16" | "int32" | "uint32" | "int64" | "uint64";

/** The types of numbers in files. */
export type NumberType = FloatType | IntegerType;

/** Bytes per number of each type. */
export const BYTES_PER_NUMBER: Readonly<Record<NumberType, number>> = Object.freeze({
  float16: 2,
  bfloat16: 2,
  float32: 4,
  float64: 8,
  bool: 1,
  int8: 1,
  uint8: 1,
  int16: 2,
  uint16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  uint64: 8,
});

/** Whether it is a floating-point type. */
export function isFloatType(type: NumberType): type is FloatType {
  return type === "float32" || type === "float16" || type === "bfloat16" || type === "float64";
}

const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/**
 * The numbers in these bytes, with wider ones rounded to float32. A view if the bytes are aligned float32 in this
 * machine's order, else a copy.
 */
export function readFloats(bytes: Uint8Array, type: FloatType, isLittleEndian: boolean): Float32Array {
  const { buffer, byteOffset, length } = inHostOrder(bytes, BYTES_PER_NUMBER[type], isLittleEndian);
  switch (type) {
    case "float32":
      return new Float32Array(buffer, byteOffset, length / 4);
    case "float64":
      return new Float32Array(new Float64Array(buffer, byteOffset, length / 8));
    case "float16":
      return widen(new Uint16Array(buffer, byteOffset, length / 2), float16Bits);
    case "bfloat16":
      return widen(new Uint16Array(buffer, byteOffset, length / 2), (bits) => bits << 16);
  }
}

/**
 * The integers in these bytes.
 *
 * @throws {CheckpointError} for one beyond 2^53, and for a `bool` that is neither 0 nor 1.
 */
export function readIntegers(bytes: Uint8Array, type: IntegerType, isLittleEndian: boolean): Float64Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = BYTES_PER_NUMBER[type];
  const integers = new Float64Array(bytes.length / size);
  for (let i = 0; i < integers.length; i++) integers[i] = integerAt(view, i * size, type, isLittleEndian);
  return integers;
}

/**
 * The integers in these bytes as float32, which is exact up to 2^24 and for some beyond.
 *
 * @throws {InexactError} for the first that float32 cannot hold.
 */
export function readIntegersAsFloats(bytes: Uint8Array, type: IntegerType, isLittleEndian: boolean): Float32Array {
  const { buffer, byteOffset, length } = inHostOrder(bytes, BYTES_PER_NUMBER[type], isLittleEndian);
  switch (type) {
    case "bool":
    case "uint8":
      return new Float32Array(bytes);
    case "int8":
      return new Float32Array(new Int8Array(buffer, byteOffset, length));
    case "int16":
      return new Float32Array(new Int16Array(buffer, byteOffset, length / 2));
    case "uint16":
      return new Float32Array(new Uint16Array(buffer, byteOffset, length / 2));
    case "int32":
      return exactFloats(new Int32Array(buffer, byteOffset, length / 4));
    case "uint32":
      return exactFloats(new Uint32Array(buffer, byteOffset, length / 4));
    case "int64":
      return exactFloats(new BigInt64Array(buffer, byteOffset, length / 8));
    case "uint64":
      return exactFloats(new BigUint64Array(buffer, byteOffset, length / 8));
  }
}

/** An integer that float32 cannot hold. */
export class InexactError extends RangeError {
  /** Its index among the numbers. */
  readonly index: number;
  /** Its value. */
  readonly value: number | bigint;

  /** The integer at that index. */
  constructor(index: number, value: number | bigint) {
    super(`float32 cannot hold ${value}, number ${index}`);
    [this.index, this.value] = [index, value];
  }
}

function exactFloats(integers: Int32Array | Uint32Array | BigInt64Array | BigUint64Array): Float32Array {
  const floats = new Float32Array(integers.length);
  for (let i = 0; i < floats.length; i++) {
    const value = integers[i]!;
    floats[i] = Number(value);
    // Loose inequality compares a number with a bigint by value.
    if (floats[i] != value) throw new InexactError(i, value);
  }
  return floats;
}

function integerAt(view: DataView, at: number, type: IntegerType, isLittleEndian: boolean): number {
  switch (type) {
    case "bool":
      return checked(view.getUint8(at), (value) => value <= 1, "expected 0 or 1");
    case "int8":
      return view.getInt8(at);
    case "uint8":
      return view.getUint8(at);
    case "int16":
      return view.getInt16(at, isLittleEndian);
    case "uint16":
      return view.getUint16(at, isLittleEndian);
    case "int32":
      return view.getInt32(at, isLittleEndian);
    case "uint32":
      return view.getUint32(at, isLittleEndian);
    case "int64":
      return checked(Number(view.getBigInt64(at, isLittleEndian)), Number.isSafeInteger, "expected less than 2^53");
    case "uint64":
      return checked(Number(view.getBigUint64(at, isLittleEndian)), Number.isSafeInteger, "expected less than 2^53");
  }
}

function checked(value: number, isRight: (value: number) => boolean, expected: string): number {
  if (!isRight(value)) throw new CheckpointError(`reading integers: found ${value}; ${expected}`);
  return value;
}

/**
 * Converts pieces of bytes to pieces of numbers, wherever the pieces end; `convert` gets only complete numbers, at most
 * `most` bytes at a time.
 */
export async function* convertPieces<T>(
  pieces: AsyncIterable<Uint8Array>,
  bytesPerNumber: number,
  convert: (bytes: Uint8Array) => T,
  most: number = Infinity,
): AsyncGenerator<T> {
  let rest: Uint8Array = new Uint8Array();
  for await (const piece of pieces) {
    const bytes = rest.length === 0 ? piece : joinBytes([rest, piece]);
    const whole = bytes.length - bytes.length % bytesPerNumber;
    rest = new Uint8Array(bytes.subarray(whole));
    for (let at = 0; at < whole; at += most) yield convert(bytes.subarray(at, Math.min(at + most, whole)));
  }
}

/** The bytes of the numbers in little-endian order; a view on a little-endian machine. */
export function littleEndianBytes(numbers: Float32Array | Int32Array): Uint8Array {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  return HOST_IS_LITTLE_ENDIAN ? bytes : swapped(bytes, 4);
}

function inHostOrder(bytes: Uint8Array, size: number, isLittleEndian: boolean): Uint8Array {
  if (isLittleEndian !== HOST_IS_LITTLE_ENDIAN) return swapped(bytes, size);
  // Not slice(): Node's Buffer.slice copies nothing.
  return bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
}

function swapped(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(bytes.length);
  for (let start = 0; start < bytes.length; start += size) {
    for (let i = 0; i < size; i++) result[start + i] = bytes[start + size - 1 - i]!;
  }
  return result;
}

function widen(halves: Uint16Array, bitsOf: (half: number) => number): Float32Array {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = bitsOf(halves[i]!);
  return new Float32Array(bits.buffer);
}

/** The bits of the float32 that equals a float16 (IEEE 754 binary16). */
function float16Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  // A subnormal f16 is a normal float32: shift its leading one out and lower the exponent accordingly.
  const shift = Math.clz32(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}
