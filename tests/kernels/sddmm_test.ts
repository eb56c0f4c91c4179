/**
 * Sampled products: exact on integers, precise on normal data, the same bits in blocks and in one go.
 *
 * @module
 */

import { sddmm } from "../../kernels/sddmm.ts";
import { spans, type Tensor } from "../../kernels/engine/tensor.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumClose } from "../support/tolerance.ts";
import {
  add,
  integersOf,
  normalOf,
  onGpu,
  paddedWithOnes,
  partEnds,
  partOf,
  ROOM,
  type Sparse,
  sparse,
  type Sums,
  sums,
  VARIANTS,
} from "./sparse_matrices.ts";

interface Sampled {
  readonly given: Sparse;
  readonly columns: number;
  readonly ends: Uint32Array;
  readonly left: Float32Array;
  readonly right: Float32Array;
  readonly block: readonly [rows: number, right: number];
}

function sampled(gpu: Recording, { given, columns, ends, left, right, block }: Sampled): Tensor {
  const result = gpu.out(given.indices.length + ROOM);
  const [l, r] = [gpu.f32(left, given.rows, ends.length, columns), gpu.f32(right, given.width, columns)];
  const shared = {
    sparse: onGpu(gpu, given),
    entryRows: gpu.u32(paddedWithOnes(given.entryRows)),
    parts: ends.length,
    ends: gpu.u32(ends),
    columns,
    result,
  };
  for (const rows of spans(given.rows, block[0])) {
    for (const { from, to } of spans(given.width, block[1])) {
      sddmm(gpu.commands, {
        ...shared,
        firstRow: rows.from,
        rows: rows.to - rows.from,
        left: l.rows(rows.from, rows.to),
        right: r.rows(from, to),
        from,
        to,
      });
    }
  }
  return result;
}

function sampledReference({ given, columns, ends, left, right }: Sampled): Sums {
  const result = sums(given.indices.length + ROOM);
  result.want.fill(NaN, given.indices.length);
  given.indices.forEach((index, e) => {
    const row = given.entryRows[e]! * ends.length + partOf(ends, index);
    for (let c = 0; c < columns; c++) add(result, e, left[row * columns + c]! * right[index * columns + c]!);
  });
  return result;
}

const sampledCase: KernelCase = (gpu) => {
  const random = new Random(9);
  for (const columns of [1, 2, 3, 4, 5, 17, 64, 100, 129]) {
    for (const [rows, width] of [[1, 7], [130, 65], [65, 129], [70, 3]] as const) {
      const given = sparse(rows, width, () => random.unit() < 0.3, integersOf(random));
      const parts = random.integer(1, 3);
      const product = {
        given,
        columns,
        ends: partEnds(random, width, parts),
        left: random.integers(rows * parts * columns),
        right: random.integers(width * columns),
        block: [64, 64] as const,
      };
      const { want } = sampledReference(product);
      gpu.expect(sampled(gpu, product), (got) => assertExact(got, want, `${rows} × ${width}, ${columns} terms`));
    }
  }
  // Four neighbours of which the first is in the block of rows before, and the last in the last row of the next.
  const product = {
    given: sparse(66, 2, (row, column) => row === 64 || (row === 63 || row === 65) && column === 1, integersOf(random)),
    columns: 8,
    ends: Uint32Array.of(2),
    left: random.integers(66 * 8),
    right: random.integers(2 * 8),
    block: [64, 2] as const,
  };
  gpu.expect(sampled(gpu, product), (got) => assertExact(got, sampledReference(product).want, "at the end of a block"));
};

const preciseSampled: KernelCase = (gpu) => {
  const random = new Random(10);
  const given = sparse(7, 30, () => random.unit() < 0.5, normalOf(random));
  for (const columns of [300, 301]) {
    const product = {
      given,
      columns,
      ends: Uint32Array.of(10, 30),
      left: random.normal(7 * 2 * columns),
      right: random.normal(30 * columns),
      block: [7, 30] as const,
    };
    const { want, absSum } = sampledReference(product);
    gpu.expect(sampled(gpu, product), (got) => assertSumClose(got, want, absSum, columns, "sampled product"));
  }
};

Deno.test("a sampled product is exact on integers and precise on normal data, where the entries are", async () => {
  await check(sampledCase, ...VARIANTS);
  await check(preciseSampled);
});

Deno.test("a sampled product of 70,001 terms is whole", async () => {
  await check((gpu) => {
    const random = new Random(11);
    const given = sparse(2, 3, () => true, integersOf(random));
    const product = {
      given,
      columns: 70_001,
      ends: Uint32Array.of(3),
      left: random.integers(2 * 70_001),
      right: random.integers(3 * 70_001),
      block: [2, 3] as const,
    };
    const { want } = sampledReference(product);
    gpu.expect(sampled(gpu, product), (got) => assertExact(got, want));
  });
});

Deno.test("mutants of sddmm are found", async () => {
  await mutants("sddmm", [
    ["if (index1 < ends[part1]) { break; }", "if (index1 <= ends[part1]) { break; }"],
    ["* dims.parts + part0)", "* dims.parts)"],
    ["if (row0 == row3 && part0 == part3)", "if (row0 == row2 && part0 == part2)"],
    ["if (row0 == row3 && part0 == part3)", "if (l0 == l3)"],
    ["if (wanted3) {", "if (wanted2) {"],
    ["let x2 = left[l2 + c];", "let x2 = left[l1 + c];"],
  ], sampledCase);
  await mutants("sddmm", [["= sum1;", "= quantizeToF16(sum1);"]], preciseSampled);
});
