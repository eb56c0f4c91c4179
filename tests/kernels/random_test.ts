/**
 * Philox against the known answers of its authors' Random123, the same on the GPU, and fair.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { philox, randomBits, RandomStream, STREAMS, type Words } from "../../kernels/random.ts";
import { check, type KernelCase, mutants } from "../support/kernel_harness.ts";
import { assertExact, assertSameFrequencies } from "../support/tolerance.ts";

/** `kat_vectors` of Random123: philox 4×32, 10 rounds. */
const KNOWN: readonly (readonly [counter: Words, key: readonly [number, number], want: Words])[] = [
  [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
];

Deno.test("Philox gives its authors' known answers", () => {
  for (const [counter, key, want] of KNOWN) assertEquals(philox(counter, key), want);
});

Deno.test("a stream is Philox of block, step and stream, with the seed as key", () => {
  const [seed, stream, step] = [2 ** 40 + 12345, 3, 77];
  const random = new RandomStream(seed, stream, step);
  const got = Array.from({ length: 10 }, () => random.bits());
  const want = [0, 1, 2].flatMap((block) => philox([block, step, stream, 0], [12345, 2 ** 8])).slice(0, 10);
  assertEquals(got, want);
});

Deno.test("streams, steps and seeds do not share numbers", () => {
  const firsts = new Set<number>();
  for (const seed of [0, 1, 2 ** 32, 2 ** 52]) {
    for (const stream of Object.values(STREAMS)) {
      for (const step of [0, 1, 2 ** 32 - 1]) firsts.add(new RandomStream(seed, stream, step).bits());
    }
  }
  assertEquals(firsts.size, 4 * Object.keys(STREAMS).length * 3);
  assertEquals(new Set(Object.values(STREAMS)).size, Object.keys(STREAMS).length);
});

Deno.test("a stream refuses what is no unsigned integer", () => {
  for (const seed of [-1, 0.5, NaN, 2 ** 53]) assertThrows(() => new RandomStream(seed, 0), RangeError, `${seed}`);
  for (const word of [-1, 0.5, 2 ** 32]) {
    assertThrows(() => new RandomStream(0, word), RangeError, `${word}`);
    assertThrows(() => new RandomStream(0, 0, word), RangeError, `${word}`);
  }
});

const onGpu: KernelCase = (gpu) => {
  for (const size of [1, 2, 3, 4, 5, 7, 63, 64, 65, 255, 256, 257, 1000, 70_001]) {
    for (const [seed, stream, step] of [[0, 0, 0], [2 ** 53 - 1, 3, 2 ** 32 - 1], [12345, 1, 7]] as const) {
      const to = gpu.outU32(size);
      randomBits(gpu.commands, { to, seed, stream, step });
      const random = new RandomStream(seed, stream, step);
      const want = Uint32Array.from({ length: size }, () => random.bits());
      gpu.expect(to, (got) => assertExact(got, want, `${size} words of seed ${seed}`));
    }
  }
};

Deno.test("the GPU draws what the CPU draws", async () => {
  await check(onGpu);
});

Deno.test("uniform numbers are multiples of 2⁻⁵³ in [0, 1), evenly spread", () => {
  const random = new RandomStream(1, 0);
  const draws = 20_000;
  const counts = new Uint32Array(32);
  for (let i = 0; i < draws; i++) {
    const value = random.uniform();
    assertEquals(value >= 0 && value < 1 && Number.isInteger(value * 2 ** 53), true);
    counts[Math.floor(value * 32)]!++;
  }
  assertSameFrequencies(counts, draws, new Float64Array(32).fill(draws * 1000 / 32), draws * 1000);
});

Deno.test("below(n) draws every number below n equally often", () => {
  for (const n of [1, 2, 3, 7, 10, 100]) {
    const random = new RandomStream(n, 2);
    const draws = 20_000;
    const counts = new Uint32Array(n);
    for (let i = 0; i < draws; i++) counts[random.below(n)]!++;
    assertEquals(counts.reduce((sum, count) => sum + count, 0), draws);
    assertSameFrequencies(counts, draws, new Float64Array(n).fill(draws * 1000 / n), draws * 1000, `below(${n})`);
  }
});

Deno.test("below(n) favours nobody where n does not divide 2³²", () => {
  // Of 3·2³⁰ numbers, those below 2³⁰ would come twice as often if the rest of the division were not drawn again.
  const n = 3 * 2 ** 30;
  const random = new RandomStream(3, 2);
  const draws = 20_000;
  const counts = new Uint32Array(3);
  for (let i = 0; i < draws; i++) counts[Math.floor(random.below(n) / 2 ** 30)]!++;
  assertSameFrequencies(counts, draws, new Float64Array(3).fill(draws * 1000 / 3), draws * 1000);
});

Deno.test("mutants of the random bits are found", async () => {
  await mutants("random_bits", [
    ["group * 64u + lane", "group * 63u + lane"],
    ["block * 4u + i < dims.size", "block * 4u + i <= dims.size"],
    ["+ carry", ""],
    ["round < 10u", "round < 9u"],
  ], onGpu);
});
