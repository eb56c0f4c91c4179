/**
 * f16 tensors: how float32 values are rounded to 16 bits (IEEE 754 binary16).
 *
 * The CPU rounds them and not the GPU, since WGSL lets an adapter round up or down, and leaves values that are too large
 * undefined.
 *
 * @module
 */

/** The largest finite f16 value. */
const LARGEST = 65504;

/** The bits of infinity, without its sign. */
const INFINITE = 0x7c00;

/**
 * `values` rounded to the nearest f16 value, ties to the even one; values below 2⁻²⁵ become 0. A zero follows an odd number
 * of values, so that the result fills whole 32-bit words.
 *
 * @throws {RangeError} naming `what` and the value, if a finite one is beyond the largest f16 value, 65504.
 */
export function toF16(values: Float32Array, what: string): Float16Array<ArrayBuffer> {
  const rounded = new Float16Array(Math.ceil(values.length / 2) * 2);
  rounded.set(values);
  const bits = new Uint16Array(rounded.buffer);
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & 0x7fff) === INFINITE && Number.isFinite(values[i])) {
      throw new RangeError(`${what}: ${values[i]} is beyond the largest f16 value, ${LARGEST}`);
    }
  }
  return rounded;
}
