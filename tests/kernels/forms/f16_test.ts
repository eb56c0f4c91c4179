/**
 * f16: how values are rounded, and that kernels read f16 tensors as the numbers that they hold.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { toF16 } from "../../../kernels/forms/f16.ts";
import { defineKernel, reads, readsOften, writes } from "../../../kernels/engine/kernel.ts";
import { matmul } from "../../../kernels/matmul.ts";
import type { Layout, TileName } from "../../../kernels/matmul_tiles.ts";
import { spmm } from "../../../kernels/spmm.ts";
import { spans, type Tensor } from "../../../kernels/engine/tensor.ts";
import {
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../../support/kernel_harness.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../../support/tolerance.ts";

/** Buffers and textures. Without subgroups, kernels compile fastest. */
const VARIANTS: readonly Variant[] = [{ textureCopyBytes: Infinity, subgroups: false }, {
  ...TEXTURES,
  subgroups: false,
}];

/** The bits of f16's infinity: those below it are finite, in ascending order. */
const INFINITE = 0x7c00;

/** The number that an f16 value's bits mean, in float64 as IEEE 754 has it. */
function meaning(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The f32 next to a positive one. */
function neighbour(value: number, step: 1 | -1): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0]! += step;
  return new Float32Array(bits.buffer)[0]!;
}

const bitsOf = (f16: Float16Array) => [...new Uint16Array(f16.buffer, f16.byteOffset, f16.length)];

Deno.test("every f16 value stays what it is, and means what IEEE 754 says", () => {
  const bits = Array.from({ length: 2 ** 16 }, (_, i) => i).filter((i) => !Number.isNaN(meaning(i)));
  assertEquals(bitsOf(toF16(Float32Array.from(bits, meaning), "f16")).slice(0, bits.length), bits);
  assertEquals([...toF16(Float32Array.of(NaN, 1), "f16")], [NaN, 1]);
});

Deno.test("between two f16 values, values go to the nearest, and from the middle to the even one", () => {
  const values: number[] = [];
  const want: number[] = [];
  for (let below = 0; below < INFINITE - 1; below++) {
    const middle = (meaning(below) + meaning(below + 1)) / 2;
    for (const sign of [1, -1]) {
      const signBit = sign < 0 ? 0x8000 : 0;
      values.push(sign * neighbour(middle, -1), sign * middle, sign * neighbour(middle, 1));
      want.push(signBit | below, signBit | (below + below % 2), signBit | (below + 1));
    }
  }
  assertEquals(bitsOf(toF16(Float32Array.from(values), "values")), want);
});

Deno.test("what is beyond the largest f16 value is an error that names it, and infinity is none", () => {
  const last = neighbour(65520, -1);
  assertEquals([...toF16(Float32Array.of(last, -last, Infinity, -Infinity), "W")], [
    65504,
    -65504,
    Infinity,
    -Infinity,
  ]);
  for (const value of [65520, -65520, 1e38]) {
    const given = Float32Array.of(0, value, Infinity);
    assertThrows(
      () => toF16(given, "a matrix"),
      RangeError,
      `a matrix: ${given[1]} is beyond the largest f16 value, 65504`,
    );
  }
});

Deno.test("an odd number of f16 values is followed by zero", () => {
  assertEquals([...toF16(Float32Array.of(1, 2, 3), "three")], [1, 2, 3, 0]);
});

const copyOf = (element: "f32" | "vec4f") =>
  defineKernel({
    name: `copy_${element}`,
    dims: ["size"],
    bindings: { source: readsOften(element, "size"), result: writes(element, "size") },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / 64),
    cost: ({ size }) => ({ flops: 0, bytes: 8 * size }),
    body: `
  let i = group * 64u + lane;
  if (i < dims.size / ${element === "f32" ? 1 : 4}u) { result[i] = source[i]; }`,
  });
const copies = { f32: copyOf("f32"), vec4f: copyOf("vec4f") };

/** Records a copy of some rows of a tensor. */
function copy(
  gpu: Recording,
  commands: Commands,
  element: keyof typeof copies,
  x: Tensor,
  [from, to] = [0, x.shape[0]!],
): Tensor {
  const result = gpu.out((to - from) * x.rowSize);
  commands.run(copies[element], { size: result.size, source: x.rows(from, to), result });
  return result;
}

const everyHalf: KernelCase = (gpu) => {
  const values = Float32Array.from({ length: 2 ** 16 }, (_, i) => meaning(i));
  for (const element of ["f32", "vec4f"] as const) {
    const result = copy(gpu, gpu.commands, element, gpu.f16(values));
    gpu.expect(result, (got) => assertExact(got, values));
  }
  for (const length of [1, 3, 7]) {
    const result = copy(
      gpu,
      gpu.commands,
      "f32",
      gpu.f16(values.subarray(0x3c00, 0x3c00 + length)),
    );
    gpu.expect(result, (got) => assertExact(got, values.subarray(0x3c00, 0x3c00 + length)));
  }
};

Deno.test("a kernel reads every f16 value as it is, one by one and by fours, from buffers and from textures", async () => {
  await check(everyHalf);
});

Deno.test("rows of f16 tensors are bound alone, and lists of them share a dispatch", async () => {
  await check((gpu) => {
    const wants: [Tensor, Float32Array][] = [];
    const lists = [3, 5, 2].map((rows, list) => {
      const commands = new Commands(gpu.context);
      const values = Float32Array.from({ length: (128 + rows) * 3 }, (_, i) => list * 500 + i);
      const result = copy(gpu, commands, "f32", gpu.f16(values, 128 + rows, 3), [128, 128 + rows]);
      wants.push([result, values.subarray(128 * 3)]);
      return commands;
    });
    // What a list has as floats is read by itself.
    const floats = new Commands(gpu.context);
    wants.push([copy(gpu, floats, "f32", gpu.f32([1 / 3, 5], 2, 1)), Float32Array.of(1 / 3, 5)]);
    let dispatches = 0;
    gpu.context.onDispatch = () => dispatches++;
    Commands.submitTogether(lists);
    assertEquals(dispatches, 1);
    const more = new Commands(gpu.context);
    wants.push([copy(gpu, more, "f32", gpu.f16([7, 8], 2, 1)), Float32Array.of(7, 8)]);
    Commands.submitTogether([floats, more]);
    gpu.context.onDispatch = undefined;
    assertEquals(dispatches, 3);
    for (const [result, want] of wants) gpu.expect(result, (got) => assertExact(got, want));
  });
});

Deno.test("runs on f16 tensors happen or not, as the GPU has found by then", async () => {
  await check((gpu) => {
    const f16 = gpu.f16([1, 2, 3]);
    for (const flag of [0, 1]) {
      const result = gpu.f32([0, 0, 0]);
      gpu.commands.onlyIf(gpu.u32([flag]), () => {
        gpu.commands.run(copies.f32, { size: 3, source: f16, result });
      });
      gpu.expect(result, (got) => assertExact(got, flag === 1 ? [1, 2, 3] : [0, 0, 0]));
    }
  });
});

interface Product {
  readonly layout: Layout;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** Where the f16 values begin, and how many columns more than they need their rows have. */
  readonly offset: number;
  readonly gap: number;
  readonly tile?: TileName;
}

/** A · B with B as f16: within the bound of the sum of its rounded values, with the bits that these give as f32. */
function product(gpu: Recording, { offset, gap, ...shape }: Product, random: Random, exact: boolean): void {
  const { layout, M, N, K } = shape;
  const a = exact ? random.integers(M * K) : random.normal(M * K);
  const b = (exact ? random.integers(N * K) : random.normal(N * K)).map(Math.f16round);
  const want = new Float64Array(M * N);
  const absSum = new Float64Array(M * N);
  for (let i = 0; i < M * N; i++) {
    const [m, n] = [Math.floor(i / N), i % N];
    for (let k = 0; k < K; k++) {
      const term = a[m * K + k]! * b[layout === "nt" ? n * K + k : k * N + n]!;
      want[i]! += term;
      absSum[i]! += Math.abs(term);
    }
  }
  const [rows, columns] = layout === "nt" ? [N, K] : [K, N];
  const stride = columns + gap;
  const data = new Float32Array(Math.ceil((offset + rows * stride) / stride) * stride).fill(NaN);
  for (let r = 0; r < rows; r++) data.set(b.subarray(r * columns, (r + 1) * columns), offset + r * stride);
  const shared = { ...shape, a: { in: gpu.f32(a, M, K) } };
  const results = [gpu.f16(data), gpu.f32(data)].map((factor) => {
    const c = gpu.out(M, N);
    matmul(gpu.commands, { ...shared, b: { in: factor, stride, offset }, c: { in: c } });
    return c;
  });
  const what = `${layout} ${M} × ${N} × ${K}`;
  let f16: Float32Array;
  gpu.expect(results[0]!, (got) => {
    if (exact) assertExact(got, want, what);
    else assertSumClose(got, want, absSum, K, what);
    f16 = got;
  });
  gpu.expect(results[1]!, (got) => assertSameBits(got, f16, what));
}

const products = (layout: Layout, exact: boolean): KernelCase => (gpu) => {
  const random = new Random(1);
  for (const [M, N, K] of [[1, 1, 1], [3, 5, 7], [17, 33, 12], [64, 65, 31], [5, 129, 64]] as const) {
    const fours = 4 - (layout === "nt" ? K : N) % 4;
    for (const [offset, gap] of [[0, 0], [3, 2], [4, fours]] as const) {
      product(gpu, { layout, M, N, K, offset, gap, tile: "register 4x4" }, random, exact);
    }
  }
};

for (const layout of ["nt", "nn"] as const) {
  Deno.test(`${layout}: products with f16 are exact on integers, and sums of their values are float32`, async () => {
    await check(products(layout, true), ...VARIANTS);
    await check(products(layout, false), ...VARIANTS);
  });
}

Deno.test("f16 tensors are multiplied with the device's own tiles too", async () => {
  const [M, N, K] = [68, 140, 36];
  const shape = { layout: "nt", M, N, K, offset: 0, gap: 0 } as const;
  await check((gpu) => {
    product(gpu, shape, new Random(3), false);
    product(gpu, { ...shape, tile: "workgroup 4x4" }, new Random(3), false);
  });
});

/** Sparse rows times an f16 matrix, in blocks of its rows: the bits that the values give as f32. */
const sparseProducts = (exact: boolean): KernelCase => (gpu) => {
  const random = new Random(2);
  for (const columns of [1, 3, 4, 6, 33, 64]) {
    const [rows, width, each] = [5, 300, 40];
    const starts = Uint32Array.from({ length: rows + 1 }, (_, r) => r * each);
    const indices = Uint32Array.from({ length: rows * each }, (_, e) => (e % each) * 7 + random.integer(0, 6));
    const values = exact ? random.integers(rows * each) : random.normal(rows * each);
    const matrix = (exact ? random.integers(width * columns) : random.normal(width * columns)).map(Math.f16round);
    const ends = Uint32Array.of(20, 150, width);
    const want = new Float64Array(rows * ends.length * columns);
    const absSum = new Float64Array(want.length);
    for (let i = 0; i < want.length; i++) {
      const [row, part, c] = [Math.floor(i / (3 * columns)), Math.floor(i / columns) % 3, i % columns];
      for (let e = row * each; e < (row + 1) * each; e++) {
        if (indices[e]! >= ends[part]!) continue;
        const term = values[e]! * matrix[indices[e]! * columns + c]!;
        want[i]! += term;
        absSum[i]! += Math.abs(term);
      }
    }
    const sparse = {
      rows,
      capacity: indices.length,
      starts: gpu.u32(starts),
      indices: gpu.u32(indices),
      values: gpu.f32(values),
    };
    const shared = { sparse, firstRow: 0, rows, columns, ends: gpu.u32(ends), parts: ends.length };
    const results = [gpu.f16(matrix, width, columns), gpu.f32(matrix, width, columns)].map((dense) => {
      const result = gpu.out(rows, ends.length, columns);
      for (const { from, to } of spans(width, 128)) {
        const given = { ...shared, matrix: dense.rows(from, to), from, to, result, accumulate: from > 0 };
        spmm(gpu.commands, given);
      }
      return result;
    });
    let f16: Float32Array;
    gpu.expect(results[0]!, (got) => {
      if (exact) assertExact(got, want, `${columns} columns`);
      else assertSumClose(got, want, absSum, each, `${columns} columns`);
      f16 = got;
    });
    gpu.expect(results[1]!, (got) => assertSameBits(got, f16, `${columns} columns`));
  }
};

Deno.test("sparse rows times f16 are exact on integers, and sums of their values are float32, for every prefix", async () => {
  await check(sparseProducts(true), ...VARIANTS);
  await check(sparseProducts(false), ...VARIANTS);
});

/** A kernel that reads one f16 binding by words as they lie, and another as floats. */
const bothWays = defineKernel({
  name: "both_ways",
  dims: ["size"],
  bindings: { words: reads("f16", "size"), floats: reads("f32", "size"), result: writes("f16", "size") },
  workgroup: 1,
  grid: ({ size }) => Math.ceil(size / 2),
  cost: () => ({ flops: 0, bytes: 0 }),
  body: "  result[group] = select(0u, words[group], floats[2u * group] > 0.0);",
});

Deno.test("words of f16 tensors are read and written as they lie, joined too", async () => {
  await check((gpu) => {
    const results = [5, 8].map((size) => {
      const values = Float32Array.from({ length: size }, (_, i) => i - 3);
      const result = gpu.outF16(size);
      const commands = new Commands(gpu.context);
      commands.run(bothWays, { size, words: gpu.f16(values), floats: gpu.f16(values), result });
      return { commands, result, want: values.map((v, i) => values[i - i % 2]! > 0 ? v : 0) };
    });
    Commands.submitTogether(results.map(({ commands }) => commands));
    for (const { result, want } of results) gpu.expect(result, (got) => assertExact(got, want));
  });
});

Deno.test("mutants of what a kernel sees of f16 tensors are found", async () => {
  const buffers: Variant = { textureCopyBytes: Infinity };
  await mutants("copy_f32", [["[i % 2u]", "[1u - i % 2u]"], ["[i / 2u]", "[(i + 1u) / 2u]"]], everyHalf, buffers);
  await mutants("copy_vec4f", [["unpack2x16float(words.y)", "unpack2x16float(words.x)"]], everyHalf, buffers);
  await mutants("copy_f32", [["unpack2x16float(", "unpack2x16snorm("]], everyHalf, buffers);
  await mutants(
    "matmul_nt",
    [["unpack2x16float(words.y))", "unpack2x16float(words.y & 0xfff0fff0u))"]],
    products("nt", false),
    buffers,
  );
  await mutants("spmm", [["[i / 2u])[i % 2u]", "[i / 2u])[0]"]], sparseProducts(true), buffers);
  await mutants(
    "copy_f32",
    [[
      "rgba16float, read>, i: u32) -> f32 {\n  return textureLoad(copy, texel(textureDimensions(copy), i / 4u))[i % 4u]",
      "rgba16float, read>, i: u32) -> f32 {\n  return textureLoad(copy, texel(textureDimensions(copy), i / 4u))[0]",
    ]],
    everyHalf,
    TEXTURES,
  );
  await mutants("copy_vec4f", [["dims.start_source + (i)", "dims.start_source + (i ^ 1u)"]], everyHalf, TEXTURES);
});
