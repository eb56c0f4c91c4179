/**
 * Seeded test data. The generator (SplitMix32 seeds xoshiro128**, Blackman and Vigna 2018) shares nothing with the
 * library's, so that a fault there cannot hide here.
 *
 * @module
 */

/** A stream of numbers that depends only on the seed. */
export class Random {
  readonly #state: Uint32Array;

  constructor(seed: number) {
    this.#state = Uint32Array.from(splitMix32(seed, 4));
  }

  /** 32 random bits. */
  bits(): number {
    const s = this.#state;
    const result = Math.imul(rotate(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const shifted = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= shifted;
    s[3] = rotate(s[3]!, 11);
    return result;
  }

  /** In (0, 1). */
  unit(): number {
    return (this.bits() + 0.5) / 2 ** 32;
  }

  /** An integer from `least` to `most`, inclusive. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.unit() * (most - least + 1));
  }

  /** Standard normal f32 values times `scale` (Box–Muller). */
  normal(length: number, scale = 1): Float32Array {
    return Float32Array.from(
      { length },
      () => scale * Math.sqrt(-2 * Math.log(this.unit())) * Math.cos(2 * Math.PI * this.unit()),
    );
  }

  /** Small integers as f32, for which sums and products are exact in any order. */
  integers(length: number, least = -4, most = 4): Float32Array {
    return Float32Array.from({ length }, () => this.integer(least, most));
  }

  /** 0 … length − 1 in random order (Fisher–Yates). */
  permutation(length: number): Uint32Array {
    const order = Uint32Array.from({ length }, (_, i) => i);
    for (let i = length - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

/** The values, followed by NaN: shows a kernel that reads past the end. */
export function paddedWithNaN(values: Float32Array, padding: number): Float32Array {
  const padded = new Float32Array(values.length + padding).fill(NaN);
  padded.set(values);
  return padded;
}

function* splitMix32(seed: number, count: number): Generator<number> {
  let state = seed >>> 0;
  for (let i = 0; i < count; i++) {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    yield (z ^ (z >>> 16)) >>> 0;
  }
}

function rotate(x: number, by: number): number {
  return ((x << by) | (x >>> (32 - by))) >>> 0;
}
