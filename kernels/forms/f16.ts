/**
 * f16 tensors: how float32 values are rounded to 16 bits (IEEE 754 binary16), and how a kernel that reads floats reads them.
 *
 * The CPU rounds them and not the GPU, since WGSL lets an adapter round up or down, and leaves values that are too large
 * undefined.
 *
 * @module
 */

import type { Binding } from "../engine/kernel.ts";

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

/** Whether an f16 tensor can be bound: kernels read its values as floats, or its packed words. */
export function takesF16({ element, access }: Pick<Binding, "element" | "access">): boolean {
  return element === "f16" || access === "read" && (element === "f32" || element === "vec4f");
}

/** The WGSL element of an f16 tensor's buffer where a kernel reads floats: two values share a word. */
export function f16Words(element: string): "vec2u" | "u32" {
  return element === "vec4f" ? "vec2u" : "u32";
}

/** WGSL: `f16_NAME(i)`, what `NAME[i]` is where the buffer is an f16 tensor. */
export function f16Wgsl(name: string, element: string): string {
  return element === "vec4f"
    ? `fn f16_${name}(i: u32) -> vec4f {
  let words = ${name}[i];
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
`
    : `fn f16_${name}(i: u32) -> f32 { return unpack2x16float(${name}[i / 2u])[i % 2u]; }
`;
}
