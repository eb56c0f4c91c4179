/**
 * Unit rows, removal of the parallel part, and sums of squares of rows.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { parallelRows, rowSquares, subtractParallelRows, unitRows } from "../../kernels/unit_rows.ts";
import {
  caseContext,
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose, assertUlps, assertVanishes } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [2, 3], [5, 2], [7, 5], [3, 17], [17, 31], [4, 33], [31, 63], [3, 64], [65, 65], [2, 100], [
  9,
  129,
], [3, 1000]] as const;
/** Row blocks of 64 rows and more; sums with barriers, which other devices have, and where subgroups are eight without. */
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, bindingLimit: 65_536 }, { lanes: 32 }, {
  ...TEXTURES,
  subgroups: false,
}];

/** Rows with lengths that are integers: multiples of (3, 4), (2, 3, 6) or a single number, scattered. */
function pythagorean(random: Random, rows: number, columns: number): Float32Array {
  const matrix = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const legs = [[3, 4], [2, -3, 6], [-5]].filter((legs) => legs.length <= columns);
    const places = random.permutation(columns);
    const scale = 2 ** random.integer(-3, 3);
    legs[random.integer(0, legs.length - 1)]!.forEach((leg, i) => matrix[r * columns + places[i]!] = leg * scale);
  }
  return matrix;
}

function lengths(matrix: Float32Array, columns: number): Float64Array {
  const squares = new Float64Array(matrix.length / columns);
  matrix.forEach((value, i) => squares[Math.floor(i / columns)]! += value * value);
  return squares.map(Math.sqrt);
}

type Judge = (got: Float32Array) => void;

function normalised(gpu: Recording, matrix: Float32Array, rows: number, judge: Judge, halted = 0): void {
  const tensor = gpu.f32(matrix, rows, matrix.length / rows);
  unitRows(gpu.commands, tensor, gpu.u32([halted]));
  gpu.expect(tensor, judge);
}

const unit: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const [rows, columns] of SHAPES) {
    const matrix = pythagorean(random, rows, columns);
    const length = lengths(matrix, columns);
    // A division of what divides: at most what WGSL allows a division and a root.
    const want = matrix.map((value, i) => value / length[Math.floor(i / columns)]!);
    normalised(gpu, matrix, rows, (got) => assertUlps(got, want, 1, 5, `${rows} × ${columns}`));
  }
};

Deno.test("rows of any shape get the length one", async () => {
  await check(unit, ...VARIANTS);
});

const preciseUnit: KernelCase = (gpu) => {
  const random = new Random(2);
  const [rows, columns] = [200, 233];
  const matrix = random.normal(rows * columns, 7);
  const length = lengths(matrix, columns);
  normalised(gpu, matrix, rows, (got) => {
    const want = Float64Array.from(matrix, (value, i) => value / length[Math.floor(i / columns)]!);
    // The relative error of the length is that of a sum of positive terms, and hits the largest element hardest.
    assertSumClose(got, want, want.map(Math.abs), columns, "unit rows");
  });
};

Deno.test("normal rows get the length one, and row blocks do not change a bit", async () => {
  await check(preciseUnit, ...VARIANTS);
});

const zeros: KernelCase = (gpu) => {
  const matrix = Float32Array.of(0, 0, 0, 0, 4, 0, -0, 0, 0);
  normalised(gpu, matrix, 3, (got) => assertExact(got, [0, 0, 0, 0, 1, 0, 0, 0, 0]));
  const withNaN = Float32Array.of(1, NaN, 3, 4);
  normalised(gpu, withNaN, 2, (got) => assertUlps(got, [NaN, NaN, 0.6, 0.8], 1, 5));
};

const halted: KernelCase = (gpu) => {
  for (const columns of [3, 4]) {
    const matrix = new Random(9).normal(5 * columns);
    normalised(gpu, matrix, 5, (got) => assertSameBits(got, matrix), 1);
  }
};

Deno.test("a row of zeros stays, and NaN keeps to its row", async () => {
  await check(zeros);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => {
    const matrix = pythagorean(new Random(3), 70_000, 3);
    const length = lengths(matrix, 3);
    const want = matrix.map((value, i) => value / length[Math.floor(i / 3)]!);
    normalised(gpu, matrix, 70_000, (got) => assertUlps(got, want, 1, 5));
    parallel(gpu, matrix, matrix, 70_000, (got) => assertVanishes(got, matrix.map(Math.abs)));
    squared(gpu, matrix, 70_000, (got) => assertExact(got, length.map((value) => value ** 2)));
  });
});

function parallel(
  gpu: Recording,
  grad: Float32Array,
  matrix: Float32Array,
  rows: number,
  judge: Judge,
): void {
  const tensor = gpu.f32(grad, rows, grad.length / rows);
  const squares = gpu.out(rows);
  const shared = { grad: tensor, matrix: gpu.f32(matrix, rows, grad.length / rows), parallel: gpu.out(rows) };
  parallelRows(gpu.commands, { ...shared, squares });
  subtractParallelRows(gpu.commands, shared);
  // The squares of what is left are those that it has by itself.
  const own = gpu.out(rows);
  rowSquares(gpu.commands, tensor, own);
  let left: Float32Array;
  gpu.expect(tensor, judge);
  gpu.expect(own, (got) => left = got);
  gpu.expect(squares, (got) => assertSameBits(got, left, "squares of what is left"));
}

/** Rows with a single power of two: what is parallel is exact. */
const parallelExact: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const [rows, columns] of SHAPES) {
    const grad = random.integers(rows * columns, -99, 99);
    const matrix = new Float32Array(rows * columns);
    const want = grad.slice();
    for (let r = 0; r < rows; r++) {
      const at = r * columns + random.integer(0, columns - 1);
      matrix[at] = (random.integer(0, 1) ? -1 : 1) * 2 ** random.integer(-2, 2);
      want[at] = 0;
    }
    parallel(gpu, grad, matrix, rows, (got) => assertExact(got, want, `${rows} × ${columns}`));
  }
};

const parallelPrecise: KernelCase = (gpu) => {
  const random = new Random(5);
  const [rows, columns] = [150, 233];
  const grad = random.normal(rows * columns);
  const matrix = random.normal(rows * columns, 3);
  const along = new Float64Array(rows);
  const size = new Float64Array(rows);
  const squares = lengths(matrix, columns).map((length) => length ** 2);
  grad.forEach((value, i) => {
    along[Math.floor(i / columns)]! += value * matrix[i]!;
    size[Math.floor(i / columns)]! += Math.abs(value * matrix[i]!);
  });
  const want = Float64Array.from(grad, (value, i) => {
    const r = Math.floor(i / columns);
    return value - along[r]! / squares[r]! * matrix[i]!;
  });
  const absSum = Float64Array.from(grad, (value, i) => {
    const r = Math.floor(i / columns);
    return Math.abs(value) + size[r]! / squares[r]! * Math.abs(matrix[i]!);
  });
  parallel(gpu, grad, matrix, rows, (got) => assertSumClose(got, want, absSum, columns, "without the parallel part"));
};

const zeroDirection: KernelCase = (gpu) => {
  const grad = Float32Array.of(1, 2, 3, 4);
  parallel(gpu, grad, Float32Array.of(0, 0, 0, 2), 2, (got) => assertExact(got, [1, 2, 3, 0]));
};

Deno.test("what is parallel is removed, exactly on integers and precisely on normal data", async () => {
  await check(parallelExact, ...VARIANTS);
  await check(parallelPrecise, ...VARIANTS);
});

Deno.test("nothing is parallel to a row of zeros", async () => {
  await check(zeroDirection);
});

function squared(gpu: Recording, matrix: Float32Array, rows: number, judge: Judge): void {
  const squares = gpu.out(rows);
  rowSquares(gpu.commands, gpu.f32(matrix, rows, matrix.length / rows), squares);
  gpu.expect(squares, judge);
}

const squares: KernelCase = (gpu) => {
  const random = new Random(6);
  for (const [rows, columns] of [...SHAPES, [300, 100]] as const) {
    const matrix = random.integers(rows * columns);
    const want = new Float64Array(rows);
    matrix.forEach((value, i) => want[Math.floor(i / columns)]! += value * value);
    squared(gpu, matrix, rows, (got) => assertExact(got, want, `${rows} × ${columns}`));
  }
};

const preciseSquares: KernelCase = (gpu) => {
  const [rows, columns] = [300, 230];
  const matrix = new Random(7).normal(rows * columns);
  const want = lengths(matrix, columns).map((length) => length ** 2);
  squared(gpu, matrix, rows, (got) => assertSumClose(got, want, want, columns, "squares"));
};

Deno.test("squares of rows are exact on integers and precise on normal data", async () => {
  await check(squares, ...VARIANTS);
  await check(preciseSquares, ...VARIANTS);
});

Deno.test("rows of as many columns as there may be are read whole, and longer ones refused", async () => {
  const most = 256_000;
  await check((gpu) => {
    const random = new Random(8);
    for (const columns of [most - 1, most]) {
      const matrix = random.integers(columns, -1, 1);
      const want = matrix.reduce((sum, value) => sum + value * value, 0);
      squared(gpu, matrix, 1, (got) => assertExact(got, [want]));
      // A single one at the end of the row.
      const last = new Float32Array(columns).fill(8, columns - 1);
      normalised(gpu, last, 1, (got) => assertExact(got, new Float32Array(columns).fill(1, columns - 1)));
      parallel(gpu, matrix, last, 1, (got) => assertExact(got, matrix.with(columns - 1, 0)));
    }
  });
  const context = await caseContext();
  using long = new Tensor(context, "f32", [1, most + 1], "a long row");
  assertThrows(() => rowSquares(new Commands(context), long, long), RangeError, "a long row");
});

Deno.test("a run that is halted leaves the rows alone", async () => {
  await check(halted);
});

Deno.test("a vector has rows of one element", async () => {
  await check((gpu) => {
    const squares = gpu.out(5);
    rowSquares(gpu.commands, gpu.f32([1, -2, 3, 0, 5]), squares);
    gpu.expect(squares, (got) => assertExact(got, [1, 4, 9, 0, 25]));
  });
});

Deno.test("mutants of the row kernels are found", async () => {
  await mutants("unit_rows", [
    ["let i = group", "let i = 0u * group"],
    ["sqrt(total(lane, squares))", "total(lane, squares)"],
  ], unit);
  await mutants("unit_rows", [["if (norm == 0.0) { return; }", ""]], zeros);
  await mutants("unit_rows", [["if (halted[0] != 0u) { return; }", ""]], halted);
  for (const name of ["parallel_rows", "subtract_parallel_rows"]) {
    await mutants(name, [["let i = group", "let i = 0u * group"]], parallelExact);
    await mutants(name, [["(-parallel_part)", "(-quantizeToF16(parallel_part))"]], parallelPrecise);
    await mutants(name, [["(-parallel_part)", "(parallel_part)"]], parallelPrecise);
  }
  await mutants("parallel_rows", [["norm_squared == 0.0)", "norm_squared < 0.0)"]], zeroDirection);
  await mutants(
    "parallel_rows",
    [
      ["squared = fma(removed, removed, squared)", "squared = fma(removed, removed, 0.0 * squared)"],
      ["parallel[dims.firstRow + group]", "parallel[group]"],
      ["squares[dims.firstRow + group]", "squares[group]"],
    ],
    parallelPrecise,
    { bindingLimit: 65_536 },
  );
  await mutants("subtract_parallel_rows", [["parallel[dims.firstRow + group]", "parallel[group]"]], parallelPrecise, {
    bindingLimit: 65_536,
  });
  await mutants(
    "row_squares",
    [
      ["squares[dims.firstRow + group]", "squares[group]"],
      ["half > 0u", "half > 1u"],
    ],
    squares,
    { bindingLimit: 65_536, subgroups: false },
  );
  await mutants("row_squares", [["= sum;", "= quantizeToF16(sum);"]], preciseSquares);
});
