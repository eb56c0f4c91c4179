/**
 * Sparse rows times a dense matrix: exact on integers, precise on normal data, the same bits in row blocks and in one go.
 *
 * @module
 */

import { spmm } from "../../kernels/spmm.ts";
import { spans, type Tensor } from "../../kernels/engine/tensor.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../support/tolerance.ts";
import {
  add,
  integersOf,
  normalOf,
  onGpu,
  partEnds,
  type Sparse,
  sparse,
  type Sums,
  sums,
  VARIANTS,
} from "./sparse_matrices.ts";

interface RowsProduct {
  readonly given: Sparse;
  readonly columns: number;
  readonly ends: Uint32Array;
  readonly matrix: Float32Array;
  /** Rows of the dense factor that are bound at once. */
  readonly block: number;
  readonly firstRow: number;
}

/** Records result[r, p] of the rows from `firstRow` on, in blocks of the dense factor's rows. */
function rowsProduct(gpu: Recording, product: RowsProduct): Tensor {
  const { given, columns, ends, matrix, block, firstRow } = product;
  const rows = given.rows - firstRow;
  const result = gpu.out(rows, ends.length, columns);
  const bound = gpu.f32(matrix, given.width, columns);
  const shared = {
    sparse: onGpu(gpu, given),
    firstRow,
    rows,
    columns,
    ends: gpu.u32(ends),
    parts: ends.length,
    result,
  };
  for (const { from, to } of spans(given.width, block)) {
    spmm(gpu.commands, { ...shared, matrix: bound.rows(from, to), from, to, accumulate: from > 0 });
  }
  return result;
}

function rowsReference({ given, columns, ends, matrix, firstRow }: RowsProduct): Sums {
  const result = sums((given.rows - firstRow) * ends.length * columns);
  for (let r = firstRow; r < given.rows; r++) {
    for (let p = 0; p < ends.length; p++) {
      for (let e = given.starts[r]!; e < given.starts[r + 1]!; e++) {
        const index = given.indices[e]!;
        if (index >= ends[p]!) continue;
        for (let c = 0; c < columns; c++) {
          const at = ((r - firstRow) * ends.length + p) * columns + c;
          add(result, at, given.values[e]! * matrix[index * columns + c]!);
        }
      }
    }
  }
  return result;
}

const rowsCase: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const columns of [1, 2, 3, 4, 5, 17, 31, 33, 64, 100, 129, 260]) {
    for (const [width, block] of [[7, 7], [130, 64], [200, 64], [192, 128]] as const) {
      const rows = [1, 3, 5, 33][random.integer(0, 3)]!;
      const density = [0, 0.1, 0.5, 1][random.integer(0, 3)]!;
      const given = sparse(rows, width, () => random.unit() < density, integersOf(random));
      const product = {
        given,
        columns,
        // Offsets of blocks are multiples of 256 bytes only at multiples of 64 rows.
        block: Math.min(block, width),
        ends: partEnds(random, width, random.integer(1, 4)),
        matrix: random.integers(width * columns),
        firstRow: random.integer(0, rows - 1),
      };
      const { want } = rowsReference(product);
      gpu.expect(rowsProduct(gpu, product), (got) => assertExact(got, want, `${rows} × ${width} · ${columns}`));
    }
  }
};

Deno.test("sparse rows times a matrix are exact on integers, for every prefix and in blocks", async () => {
  await check(rowsCase, ...VARIANTS);
});

const preciseRows: KernelCase = (gpu) => {
  const random = new Random(2);
  const given = sparse(9, 400, () => random.unit() < 0.8, normalOf(random));
  const shared = {
    given,
    columns: 37,
    ends: Uint32Array.of(20, 150, 400),
    matrix: random.normal(400 * 37),
    firstRow: 0,
  };
  const { want, absSum } = rowsReference({ ...shared, block: 400 });
  let whole: Float32Array;
  gpu.expect(rowsProduct(gpu, { ...shared, block: 400 }), (got) => {
    assertSumClose(got, want, absSum, 400, "sparse rows");
    whole = got;
  });
  for (const block of [64, 128]) {
    gpu.expect(rowsProduct(gpu, { ...shared, block }), (got) => assertSameBits(got, whole, `blocks of ${block}`));
  }
};

Deno.test("sparse rows times a matrix are precise, and blocks do not change a bit", async () => {
  await check(preciseRows, ...VARIANTS);
});

Deno.test("a row of 70,000 entries is summed whole", async () => {
  await check((gpu) => {
    const random = new Random(3);
    const given = sparse(2, 70_000, () => true, integersOf(random));
    for (const block of [70_000, 32_768]) {
      const product = {
        given,
        columns: 4,
        block,
        ends: Uint32Array.of(100, 66_000, 70_000),
        matrix: random.integers(70_000 * 4),
        firstRow: 0,
      };
      const { want } = rowsReference(product);
      gpu.expect(rowsProduct(gpu, product), (got) => assertExact(got, want));
    }
  });
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => {
    const random = new Random(13);
    const product = {
      given: sparse(70_000, 3, () => random.unit() < 0.5, integersOf(random)),
      columns: 2,
      ends: Uint32Array.of(1, 3),
      matrix: random.integers(6),
      block: 3,
      firstRow: 0,
    };
    const { want } = rowsReference(product);
    gpu.expect(rowsProduct(gpu, product), (got) => assertExact(got, want));
  });
});

Deno.test("mutants of spmm are found", async () => {
  await mutants("spmm", [
    ["if (index >= below) { break; }", "if (index > below) { break; }"],
    ["indices[middle] < dims.begin", "indices[middle] <= dims.begin"],
    ["row * dims.parts + part", "row * dims.parts + dims.parts - 1u - part"],
    ["if (first + 0u < loads)", "if (first + 0u <= loads)"],
  ], rowsCase);
  await mutants("spmm", [["= sum1;", "= quantizeToF16(sum1);"]], preciseRows);
});
