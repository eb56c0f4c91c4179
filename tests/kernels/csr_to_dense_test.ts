/**
 * Sparse rows written out are the dense rows, bit by bit.
 *
 * @module
 */

import { csrToDense } from "../../kernels/csr_to_dense.ts";
import { check, type KernelCase, mutants } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";
import { integersOf, normalOf, onGpu, sparse, VARIANTS } from "./sparse_matrices.ts";

const dense: KernelCase = (gpu) => {
  const random = new Random(12);
  for (const [rows, columns] of [[1, 1], [2, 63], [5, 64], [7, 65], [33, 200], [3, 1000]] as const) {
    const density = [0, 0.2, 1][random.integer(0, 2)]!;
    const given = sparse(rows, columns, () => random.unit() < density, normalOf(random));
    const firstRow = random.integer(0, rows - 1);
    const result = gpu.out(rows - firstRow, columns);
    csrToDense(gpu.commands, { sparse: onGpu(gpu, given), firstRow, rows: rows - firstRow, columns, result });
    const want = new Float32Array(rows * columns);
    given.indices.forEach((index, e) => want[given.entryRows[e]! * columns + index] = given.values[e]!);
    gpu.expect(result, (got) => assertSameBits(got, want.slice(firstRow * columns), `dense ${rows} × ${columns}`));
  }
};

Deno.test("sparse rows are written out with their zeros", async () => {
  await check(dense, ...VARIANTS);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => {
    const random = new Random(13);
    const given = sparse(70_000, 3, () => random.unit() < 0.5, integersOf(random));
    const result = gpu.out(70_000, 3);
    csrToDense(gpu.commands, { sparse: onGpu(gpu, given), firstRow: 0, rows: 70_000, columns: 3, result });
    const written = new Float32Array(210_000);
    given.indices.forEach((index, e) => written[given.entryRows[e]! * 3 + index] = given.values[e]!);
    gpu.expect(result, (got) => assertExact(got, written));
  });
});

Deno.test("mutants of csrToDense are found", async () => {
  await mutants("csr_to_dense", [
    ["starts[dims.firstRow + group] + lane", "starts[dims.firstRow + group] + lane + 1u"],
    ["] = 0.0;", "] = 1.0;"],
    ["c < dims.columns", "c <= dims.columns"],
  ], dense);
});
