/**
 * Floating-point numbers in files: four types, two byte orders; in memory always float32.
 *
 * @module
 */

/** The types that can be read. */
export type FloatType = "float16" | "bfloat16" | "float32" | "float64";

/** How many bytes a number of each type takes. */
export const BYTES_PER_NUMBER: Readonly<Record<FloatType, number>> = Object.freeze({
  float16: 2,
  bfloat16: 2,
  float32: 4,
  float64: 8,
});

const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/**
 * The numbers in these bytes, rounded to float32 where they are wider. A view of the bytes where they are float32,
 * aligned and in this machine's order already; a copy otherwise.
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

/** The numbers' bytes in little-endian order: their own where this machine has that order. */
export function littleEndianBytes(numbers: Float32Array): Uint8Array {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  return HOST_IS_LITTLE_ENDIAN ? bytes : swapped(bytes, 4);
}

function inHostOrder(bytes: Uint8Array, size: number, isLittleEndian: boolean): Uint8Array {
  if (isLittleEndian !== HOST_IS_LITTLE_ENDIAN) return swapped(bytes, size);
  return bytes.byteOffset % size === 0 ? bytes : bytes.slice();
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
  // A subnormal half is a normal float: shift its leading one out and lower the exponent as often.
  const shift = Math.clz32(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}
