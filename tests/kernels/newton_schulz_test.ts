/**
 * Newton and Schulz's iteration against the reference: exact on integers, precise on normal data, the same bits in blocks.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { fill } from "../../kernels/elementwise.ts";
import { divideByNorm, newtonSchulz, type Quintic, STEEPEST } from "../../kernels/newton_schulz.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import * as reference from "../reference/muon.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumBound, assertTensorClose } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [1, 5], [6, 1], [2, 3], [3, 2], [7, 7], [16, 33], [33, 16], [65, 20], [20, 65]] as const;
/** Larger than a binding of 64 KiB in every direction. */
const BLOCKED = [[300, 130], [130, 200], [150, 150]] as const;

/** Row blocks; who computes what in a product is the products' own test. */
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, bindingLimit: 2 ** 16 }];

/** Records some steps on a copy of `values`. */
function steps(
  gpu: Recording,
  values: Float32Array,
  [rows, columns]: readonly [number, number],
  { steps, coefficients }: { readonly steps: number; readonly coefficients: Quintic },
): Tensor {
  const m = Math.min(rows, columns);
  const x = gpu.f32(values, rows, columns);
  const room = { spare: gpu.out(rows, columns), gram: gpu.out(m, m), square: gpu.out(m, m) };
  return newtonSchulz(gpu.commands, { x, ...room, steps, coefficients });
}

const integers = (shapes: readonly (readonly [number, number])[]): KernelCase => (gpu) => {
  const random = new Random(1);
  const coefficients = [3, -2, 1] as const;
  for (const [rows, columns] of shapes) {
    const values = random.integers(rows * columns, -1, 1);
    const x = { rows, columns, values: Float64Array.from(values) };
    const want = reference.newtonSchulz(x, 1, coefficients).values;
    gpu.expect(steps(gpu, values, [rows, columns], { steps: 1, coefficients }), (got) => {
      assertExact(got, want, `[${rows}, ${columns}]`);
    });
  }
};

Deno.test("a step on integers is exact at any shape, also in row blocks", async () => {
  await check(integers([...SHAPES, ...BLOCKED]), ...VARIANTS);
});

Deno.test("any number of steps: the result is where it is said to be", async () => {
  await check((gpu) => {
    // A permutation with signs, whose singular values are all 1: 1 → 2 → −2 → 2 → … under 3σ − σ³.
    const order = new Random(2).permutation(9);
    const values = Float32Array.from({ length: 14 * 9 }, (_, i) => {
      const [row, column] = [Math.floor(i / 9), i % 9];
      return order[column] === row ? (column % 2 === 0 ? 1 : -1) : 0;
    });
    [1, 2, -2, 2].forEach((sigma, n) => {
      gpu.expect(steps(gpu, values, [14, 9], { steps: n, coefficients: [3, -1, 0] }), (got) => {
        assertExact(got, values.map((value) => sigma * value), `${n} steps`);
      });
    });
  }, ...VARIANTS);
});

const precise: KernelCase = (gpu) => {
  const random = new Random(3);
  for (const [rows, columns] of [...SHAPES, ...BLOCKED]) {
    const values = random.normal(rows * columns);
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    const unit = values.map((value) => value / norm);
    const x = { rows, columns, values: Float64Array.from(unit) };
    const want = reference.newtonSchulz(x, 5, STEEPEST).values;
    gpu.expect(steps(gpu, unit, [rows, columns], { steps: 5, coefficients: STEEPEST }), (got) => {
      assertTensorClose(got, want, `[${rows}, ${columns}]`);
    });
  }
};

Deno.test("five steps on normal data", async () => {
  await check(precise, ...VARIANTS);
});

/** x / max(‖x‖, least), with the sum of squares within its bound: one division, one root, a sum. */
function divide(gpu: Recording, values: Float32Array, [rows, columns]: readonly [number, number], least: number): void {
  const x = gpu.f32(values, rows, columns);
  divideByNorm(gpu.commands, { x, squares: gpu.out(rows), total: gpu.out(1), least });
  const norm = Math.max(least, Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)));
  gpu.expect(x, (got) => {
    const want = Float64Array.from(values, (value) => value / norm);
    assertSumBound(got, want, want.map(Math.abs), rows * columns + 16, `[${rows}, ${columns}] by its norm`);
  });
}

const divided: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const shape of [...SHAPES, ...BLOCKED]) {
    for (const scale of [1, 1e-12, 1e12]) divide(gpu, random.normal(shape[0] * shape[1], scale), shape, 0);
  }
};

const least: KernelCase = (gpu) => {
  // Its norm is 2, and all quotients are exact.
  const values = Float32Array.of(1, -1, 0, 1, 0, -1);
  for (const [floor, divisor] of [[0, 2], [1, 2], [8, 8]] as const) {
    const x = gpu.f32(values, 2, 3);
    divideByNorm(gpu.commands, { x, squares: gpu.out(2), total: gpu.out(1), least: floor });
    gpu.expect(x, (got) => assertExact(got, values.map((value) => value / divisor), `at least ${floor}`));
  }
  const zeros = gpu.f32(new Float32Array(6), 2, 3);
  divideByNorm(gpu.commands, { x: zeros, squares: gpu.out(2), total: gpu.out(1), least: 1e-7 });
  gpu.expect(zeros, (got) => assertExact(got, new Float32Array(6), "zeros"));
};

Deno.test("a matrix divided by its norm, or by the least that there may be", async () => {
  await check(divided, ...VARIANTS);
  await check(least);
});

Deno.test("more elements than one dimension of workgroups has invocations for", async () => {
  const [rows, columns] = [65_539, 257];
  await check((gpu) => {
    const x = gpu.own(new Tensor(gpu.context, "f32", [rows, columns], "ones"));
    fill(gpu.commands, x, x.size, 0x3f800000);
    divideByNorm(gpu.commands, { x, squares: gpu.out(rows), total: gpu.out(1), least: 1e-7 });
    gpu.expect(x, (got) => {
      assertSumBound(got.subarray(0, 1), [1 / Math.sqrt(rows * columns)], 1 / Math.sqrt(rows * columns), columns);
      assertEquals(got.findIndex((value) => value !== got[0]), -1, "elements that differ from the first");
    });
  });
});

Deno.test("mutants of the iteration are found", async () => {
  await mutants(
    "matrix_polynomial",
    [
      ["dims.firstRow + i / dims.columns ==", "i / dims.columns =="],
      ["i < min((group", "i < max((group"],
      ["fma(dims.linear, gram[i], constant)", "dims.linear * gram[i]"],
    ],
    integers(BLOCKED),
    { bindingLimit: 2 ** 16 },
  );
  await mutants("matrix_polynomial", [[
    "fma(dims.quadratic, square[i]",
    "fma(dims.quadratic, quantizeToF16(square[i])",
  ]], precise);
  await mutants("divide_by_norm", [
    ["min((group + 1u) * 256u, ", "max((group + 1u) * 256u, "],
    ["sqrt(total[0])", "quantizeToF16(sqrt(total[0]))"],
    ["i = group * 256u + lane", "i = group * 256u + lane + 1u"],
  ], divided);
  await mutants("divide_by_norm", [["max(sqrt(total[0]), dims.least)", "sqrt(total[0])"]], least);
});
