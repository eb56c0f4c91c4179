/**
 * Counter-based random numbers: Philox 4×32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * The n-th number of a stream at a step is a function of (seed, stream, step, n), so nothing has to be stored to
 * continue a stream. The same function runs on the CPU and on the GPU.
 *
 * @module
 */

import { shown } from "./engine/errors.ts";
import type { Commands } from "./engine/commands.ts";
import { defineKernel, writes } from "./engine/kernel.ts";
import type { Tensor } from "./engine/tensor.ts";

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;
const ROUNDS = 10;

/** Four 32-bit words. */
export type Words = readonly [number, number, number, number];

/** The upper 32 bits of a 64-bit product. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = Math.imul(aLow, bLow) >>> 0;
  const middle = Math.imul(aHigh, bLow) >>> 0;
  const other = Math.imul(aLow, bHigh) >>> 0;
  const carry = ((low >>> 16) + (middle & 0xffff) + (other & 0xffff)) >>> 16;
  return ((Math.imul(aHigh, bHigh) >>> 0) + (middle >>> 16) + (other >>> 16) + carry) >>> 0;
}

/** Ten rounds over one counter. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = mulHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The numbers of one stream at one step, in order. */
export class RandomStream {
  readonly #key: readonly [number, number];
  readonly #stream: number;
  readonly #step: number;
  #block = 0;
  #words: number[] = [];

  /**
   * Starts at the first number.
   *
   * @throws {RangeError} if an argument is not an unsigned integer (of 53 bits for the seed, 32 for the others).
   */
  constructor(seed: number, stream: number, step = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(`a seed must be a non-negative integer, found ${shown(seed)}`);
    }
    for (const word of [stream, step]) {
      if (!(Number.isInteger(word) && word >= 0 && word < 2 ** 32)) {
        throw new RangeError(`stream and step must be unsigned 32-bit integers, found ${shown(word)}`);
      }
    }
    this.#key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
    this.#stream = stream;
    this.#step = step;
  }

  /** 32 random bits. */
  bits(): number {
    if (this.#words.length === 0) {
      this.#words = [...philox([this.#block++, this.#step, this.#stream, 0], this.#key)].reverse();
    }
    return this.#words.pop()!;
  }

  /** Uniform in [0, 1), a multiple of 2⁻⁵³. */
  uniform(): number {
    return ((this.bits() >>> 5) * 2 ** 26 + (this.bits() >>> 6)) / 2 ** 53;
  }

  /** Uniform among 0 … n − 1, for n up to 2³². */
  below(n: number): number {
    // The largest multiple of n: draws above it are rejected, so that no number is favoured.
    const fair = Math.floor(2 ** 32 / n) * n;
    for (;;) {
      const bits = this.bits();
      if (bits < fair) return bits % n;
    }
  }
}

/** The streams, so that no two uses of a seed ever share numbers. */
export const STREAMS = {
  decoder: 0,
  encoder: 1,
  lengths: 2,
  shuffle: 3,
  selfCheck: 4,
  initialRows: 5,
  centroids: 6,
} as const;

/**
 * WGSL: `fn philox(counter: vec4u, key: vec2u) -> vec4u`, the same as {@link philox}, for kernels that draw numbers
 * themselves. {@link RandomStream} counts `vec4u(block, step, stream, 0)` with the seed's low and high words as key.
 */
export const PHILOX_WGSL = `
fn mul_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu);
  let other = (a & 0xffffu) * (b >> 16u);
  let carry = ((low >> 16u) + (middle & 0xffffu) + (other & 0xffffu)) >> 16u;
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u) + carry;
}
fn philox(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var round = 0u; round < ${ROUNDS}u; round += 1u) {
    c = vec4u(
      mul_high(${M1}u, c.z) ^ c.y ^ k.x,
      ${M1}u * c.z,
      mul_high(${M0}u, c.x) ^ c.w ^ k.y,
      ${M0}u * c.x,
    );
    k += vec2u(${W0}u, ${W1}u);
  }
  return c;
}
`;

/** Fills `to` with the bits that {@link RandomStream.bits} gives for this seed, stream and step. */
export function randomBits(
  commands: Commands,
  given: { readonly to: Tensor<"u32">; readonly seed: number; readonly stream: number; readonly step: number },
): void {
  const { to, seed, stream, step } = given;
  commands.run(randomBitsKernel, {
    size: to.size,
    key0: seed % 2 ** 32,
    key1: Math.floor(seed / 2 ** 32),
    stream,
    step,
    to,
  });
}

const randomBitsKernel = defineKernel({
  name: "random_bits",
  dims: ["size", "key0", "key1", "stream", "step"],
  bindings: { to: writes("u32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 256),
  cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
  declarations: PHILOX_WGSL,
  body: `
  let block = group * 64u + lane;
  let words = philox(vec4u(block, dims.step, dims.stream, 0u), vec2u(dims.key0, dims.key1));
  for (var i = 0u; i < 4u; i += 1u) {
    if (block * 4u + i < dims.size) { to[block * 4u + i] = words[i]; }
  }`,
});
