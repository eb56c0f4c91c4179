/**
 * Half-precision floats: what float32 values are rounded to where a tensor holds halves.
 *
 * They are rounded here and not on the GPU, since WGSL lets an adapter round up or down, and says nothing of values that
 * are too large.
 *
 * @module
 */

/** The largest half. */
const LARGEST = 65504;

/** The bits of an infinite half, without its sign. */
const INFINITE = 0x7c00;

/**
 * `values` rounded to the nearest half, of two as near to the even one. Below 2⁻²⁵ that is zero. An odd number of them is
 * followed by a zero, so that there are whole words.
 *
 * @throws {RangeError} naming `what` and the value, if a finite one is too large for any half.
 */
export function toHalves(values: Float32Array, what: string): Float16Array<ArrayBuffer> {
  const halves = new Float16Array(Math.ceil(values.length / 2) * 2);
  halves.set(values);
  const bits = new Uint16Array(halves.buffer);
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & 0x7fff) === INFINITE && Number.isFinite(values[i])) {
      throw new RangeError(`${what}: ${values[i]} is beyond the largest half, ${LARGEST}`);
    }
  }
  return halves;
}
