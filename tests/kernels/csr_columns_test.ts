/**
 * Listed columns of sparse rows, against the rows written out.
 *
 * @module
 */

import { csrColumns } from "../../kernels/csr_columns.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumBound } from "../support/tolerance.ts";

interface Sizes {
  readonly rows: number;
  readonly width: number;
  readonly density: number;
  readonly listed: number;
}

function taken(gpu: Recording, random: Random, { rows, width, density, listed }: Sizes, integers: boolean): void {
  const make = (length: number) => integers ? random.integers(length) : random.normal(length);
  const dense = make(rows * width).map((value) => random.unit() < density ? value : 0);
  const starts = [0];
  const indices: number[] = [];
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < width; c++) {
      if (dense[r * width + c] === 0) continue;
      indices.push(c);
      values.push(dense[r * width + c]!);
    }
    starts.push(indices.length);
  }
  const columns = Array.from({ length: listed }, (_, m) => m === 0 ? width - 1 : random.integer(0, width - 1));
  const [factors, addends] = [make(listed), make(listed)];
  const [want, sizes] = [new Float64Array(rows * listed), new Float64Array(rows * listed)];
  for (let at = 0; at < want.length; at++) {
    const [r, m] = [Math.floor(at / listed), at % listed];
    const product = factors[m]! * dense[r * width + columns[m]!]!;
    want[at] = product + addends[m]!;
    sizes[at] = Math.abs(product) + Math.abs(addends[m]!);
  }
  const result = gpu.out(rows, listed);
  csrColumns(gpu.commands, {
    sparse: {
      rows,
      capacity: values.length,
      starts: gpu.u32(starts),
      indices: gpu.u32(indices),
      values: gpu.f32(values),
    },
    listed,
    columns: gpu.u32(columns),
    factors: gpu.f32(factors),
    addends: gpu.f32(addends),
    result,
  });
  gpu.expect(result, (got) => {
    if (integers) assertExact(got, want, `${rows} × ${listed} of ${width}`);
    else assertSumBound(got, want, sizes, 2);
  });
}

const CASES: readonly Sizes[] = [
  { rows: 1, width: 1, density: 1, listed: 1 },
  { rows: 3, width: 5, density: 0.4, listed: 2 },
  { rows: 33, width: 100, density: 0.1, listed: 7 },
  { rows: 65, width: 64, density: 1, listed: 1 },
  { rows: 7, width: 1000, density: 0.02, listed: 129 },
];

const integers: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const sizes of CASES) taken(gpu, random, sizes, true);
};

Deno.test("listed columns, integers, at ragged shapes", async () => {
  await check(integers);
});

Deno.test("listed columns, of rows without entries too", async () => {
  await check((gpu) => {
    const random = new Random(2);
    for (const density of [0.5, 0.05]) taken(gpu, random, { rows: 40, width: 30, density, listed: 11 }, false);
  });
});

Deno.test("listed columns: wrong search, row and line are found", async () => {
  await mutants("csr_columns", [
    ["indices[low] == column", "true"],
    ["starts[row + 1u]", "starts[row]"],
    ["low = middle + 1u", "low = high"],
    ["fma(factors[m], value, addends[m])", "factors[m] * value"],
  ], integers);
});
