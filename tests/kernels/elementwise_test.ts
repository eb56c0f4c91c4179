/**
 * Kernels that treat every element on its own.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  aboveThreshold,
  addRow,
  copyColumns,
  fill,
  positiveMask,
  scaleAndAdd,
  subtractRow,
  zeroNegatives,
} from "../../kernels/elementwise.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumBound } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [2, 3], [5, 1], [7, 17], [31, 33], [3, 63], [4, 64], [2, 65], [100, 129], [1, 1000]] as const;

const filling: KernelCase = (gpu) => {
  for (const [rows, columns] of SHAPES) {
    const size = rows * columns;
    for (const value of [0, 7, 0xffffffff]) {
      const to = gpu.outU32(size);
      fill(gpu.commands, to, size, value);
      gpu.expect(to, (got) => assertExact(got, new Uint32Array(size).fill(value), `${size}`));
    }
  }
};

Deno.test("fill", async () => {
  await check(filling);
});

Deno.test("more elements than one dimension of workgroups has invocations for", async () => {
  const size = 65_536 * 256 + 77;
  await check((gpu) => {
    const to = gpu.own(new Tensor(gpu.context, "u32", [size], "many"));
    fill(gpu.commands, to, size, 0x40400000);
    gpu.expect(to, (got) => assertEquals(got.findIndex((word) => word !== 0x40400000), -1));
    const x = gpu.own(new Tensor(gpu.context, "f32", [size], "many more"));
    fill(gpu.commands, x, size, 0x40400000);
    aboveThreshold(gpu.commands, { x, size, threshold: gpu.f32([5]), thresholds: 1 });
    gpu.expect(x, (got) => assertEquals(got.findIndex((value) => value !== 0), -1));
  });
});

interface Shifted {
  readonly rows: number;
  readonly columns: number;
  readonly factor: number;
  readonly x: Float32Array;
  readonly row: Float32Array;
  readonly other: Float32Array;
}

const shifted = (random: Random, rows: number, columns: number, integers: boolean): Shifted => {
  const make = (length: number) => integers ? random.integers(length) : random.normal(length);
  return {
    rows,
    columns,
    factor: integers ? random.integer(-3, 3) : 0.37,
    x: make(rows * columns),
    row: make(columns),
    other: make(columns),
  };
};

function subtracted(gpu: Recording, { rows, columns, factor, x, row }: Shifted): void {
  const to = gpu.out(rows, columns);
  subtractRow(gpu.commands, { x: gpu.f32(x, rows, columns), row: gpu.f32(row), to, rows, columns, factor });
  const f = Math.fround(factor);
  const want = Float64Array.from(x, (value, i) => (value - row[i % columns]!) * f);
  const sizes = Float64Array.from(x, (value, i) => (Math.abs(value) + Math.abs(row[i % columns]!)) * Math.abs(f));
  gpu.expect(to, (got) => {
    if (Number.isInteger(factor)) assertExact(got, want, `${rows} × ${columns}`);
    else assertSumBound(got, want, sizes, 2, `${rows} × ${columns}`);
  });
}

function added(gpu: Recording, { rows, columns, factor, x, row, other }: Shifted): void {
  const tensor = gpu.f32(x, rows, columns);
  addRow(gpu.commands, { x: tensor, row: gpu.f32(row), other: gpu.f32(other), rows, columns, factor });
  const f = Math.fround(factor);
  const want = Float64Array.from(x, (value, i) => (value + row[i % columns]!) * f + other[i % columns]!);
  const sizes = Float64Array.from(x, (value, i) => {
    return (Math.abs(value) + Math.abs(row[i % columns]!)) * Math.abs(f) + Math.abs(other[i % columns]!);
  });
  gpu.expect(tensor, (got) => {
    if (Number.isInteger(factor)) assertExact(got, want, `${rows} × ${columns}`);
    else assertSumBound(got, want, sizes, 3, `${rows} × ${columns}`);
  });
}

const centring = (record: (gpu: Recording, given: Shifted) => void): KernelCase => (gpu) => {
  const random = new Random(1);
  for (const [rows, columns] of SHAPES) {
    record(gpu, shifted(random, rows, columns, true));
    record(gpu, shifted(random, rows, columns, false));
  }
};

Deno.test("a row is subtracted, and added", async () => {
  await check(centring(subtracted));
  await check(centring(added));
});

/** Signs, zeros of both, denormals, infinities and NaN of both. */
const SPECIAL = Float32Array.of(3, -3, 0, -0, 1e-45, -1e-45, Infinity, -Infinity, NaN, -NaN);

function anyValues(random: Random, size: number): Float32Array {
  return Float32Array.from({ length: size }, () => SPECIAL[random.integer(0, SPECIAL.length - 1)]!);
}

const masking: KernelCase = (gpu) => {
  const random = new Random(3);
  for (const [rows, columns] of SHAPES) {
    const size = rows * columns;
    const values = random.integers(size);
    const at = anyValues(random, size);
    const grad = gpu.f32(values);
    positiveMask(gpu.commands, { grad, at: gpu.f32(at), size });
    const want = values.map((value, i) => at[i]! > 0 || Number.isNaN(at[i]!) ? value : 0);
    gpu.expect(grad, (got) => assertExact(got, want, `${size}`));
  }
  const grad = gpu.f32([NaN, NaN, Infinity]);
  positiveMask(gpu.commands, { grad, at: gpu.f32([-1, 1, -1]), size: 3 });
  gpu.expect(grad, (got) => assertExact(got, [0, NaN, 0], "what is masked is 0, whatever it was"));
};

Deno.test("a gradient passes where the value is positive or NaN", async () => {
  await check(masking);
});

const rectifying: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const [rows, columns] of SHAPES) {
    const size = rows * columns;
    // Whether a denormal is negative is up to the adapter.
    const values = anyValues(random, size).map((value) => Math.abs(value) < 1 ? 0.5 : value);
    const x = gpu.f32(values);
    zeroNegatives(gpu.commands, { x, size });
    gpu.expect(x, (got) => assertExact(got, values.map((value) => value < 0 ? 0 : value), `${size}`));
  }
};

Deno.test("what is negative becomes 0, and NaN stays", async () => {
  await check(rectifying);
});

/** Every column its own threshold, some of them negative, which count as 0. */
const thresholds = (copying: boolean): KernelCase => (gpu) => {
  const random = new Random(6);
  for (const [rows, columns] of SHAPES) {
    const size = rows * columns;
    const values = random.integers(size).map((value) => random.unit() < 0.1 ? NaN : value);
    const threshold = random.integers(columns);
    const x = gpu.f32(values);
    const to = copying ? gpu.out(size) : x;
    aboveThreshold(gpu.commands, {
      x,
      size,
      threshold: gpu.f32(threshold),
      thresholds: columns,
      ...copying && { to },
    });
    const want = values.map((value, i) => value > Math.max(threshold[i % columns]!, 0) || value !== value ? value : 0);
    gpu.expect(to, (got) => assertExact(got, want, `${rows} × ${columns}`));
  }
};

Deno.test("every column has its threshold, in place and copied", async () => {
  await check(thresholds(false));
  await check(thresholds(true));
});

const copying: KernelCase = (gpu) => {
  const random = new Random(5);
  const cases = [[1, 2, 1, 0, 1], [7, 100, 17, 3, 83], [33, 64, 32, 32, 0], [3, 300, 129, 150, 2], [65, 5, 1, 4, 0]];
  for (const [rows, stride, columns, from, to] of cases as [number, number, number, number, number][]) {
    const values = random.normal(rows * stride);
    const x = gpu.f32(values, rows, stride);
    copyColumns(gpu.commands, { x, rows, stride, columns, from, to });
    const want = values.slice();
    for (let r = 0; r < rows; r++) {
      want.set(values.subarray(r * stride + from, r * stride + from + columns), r * stride + to);
    }
    gpu.expect(x, (got) => assertExact(got, want, `${columns} columns of ${rows} × ${stride}`));
  }
};

Deno.test("columns are copied within their rows", async () => {
  await check(copying);
});

Deno.test("mutants of the elementwise kernels are found", async () => {
  const end = ["min((group + 1u) * 256u, dims.size / 1u)", "(group + 1u) * 256u"] as const;
  // In place, what lies past the end stays NaN: there, only an end that is too early shows.
  const short = ["min((group + 1u) * 256u, dims.size / 1u)", "min((group + 1u) * 256u, dims.size - 1u)"] as const;
  await mutants("fill", [end, short, ["= dims.value", "= dims.value & 0xffffu"]], filling);
  await mutants("subtract_row", [
    end,
    ["i % dims.columns", "i / dims.columns"],
    ["* dims.factor", "* quantizeToF16(dims.factor)"],
  ], centring(subtracted));
  await mutants("add_row", [
    short,
    ["other[column]", "row[column]"],
    ["dims.factor", "quantizeToF16(dims.factor)"],
  ], centring(added));
  await mutants("positive_mask", [
    short,
    ["| ((bits & u32(0x7fffffffu)) > u32(0x7f800000u))", ""],
    ["(bits > u32(0u)) & ", ""],
    ["grad[i] = 0.0", "grad[i] = -1.0"],
  ], masking);
  await mutants("zero_negatives", [short, ["< 0.0", "< 1.0"], ["x[i] < 0.0", "!(x[i] >= 0.0)"]], rectifying);
  await mutants(
    "above_threshold",
    [short, ["i % (dims.thresholds / 1u)", "0"], ["f32(0.0));", "f32(-3.0));"]],
    thresholds(false),
  );
  await mutants("copy_above_threshold", [
    end,
    ["i % (dims.thresholds / 1u)", "i / (dims.thresholds / 1u)"],
    ["is_nan | ", ""],
  ], thresholds(true));
  await mutants("copy_columns", [
    ["row + dims.source", "dims.source"],
    ["i % dims.columns", "i % (dims.columns + 1u)"],
    short,
  ], copying);
});

function scaledAndAdded(gpu: Recording, random: Random, size: number, integers: boolean): void {
  const make = () => integers ? random.integers(size) : random.normal(size);
  const [x, other] = [make(), make()];
  const factor = integers ? 3 : 0.37;
  const f = Math.fround(factor);
  const tensor = gpu.f32(x);
  scaleAndAdd(gpu.commands, { x: tensor, other: gpu.f32(other), size, factor });
  const want = Float64Array.from(x, (value, i) => value * f + other[i]!);
  const sizes = Float64Array.from(x, (value, i) => Math.abs(value * f) + Math.abs(other[i]!));
  gpu.expect(tensor, (got) => {
    if (integers) assertExact(got, want, `${size}`);
    else assertSumBound(got, want, sizes, 2);
  });
}

const scaling: KernelCase = (gpu) => {
  const random = new Random(21);
  for (const size of [1, 63, 64, 65, 1000]) {
    scaledAndAdded(gpu, random, size, true);
    scaledAndAdded(gpu, random, size, false);
  }
};

Deno.test("scale and add", async () => {
  await check(scaling);
  await mutants("scale_and_add", [
    ["fma(x[i], dims.factor, other[i])", "x[i] + other[i]"],
    ["dims.size / 1u", "dims.size / 2u"],
    ["other[i]", "other[0]"],
  ], scaling);
});
