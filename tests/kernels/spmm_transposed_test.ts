/**
 * A transposed sparse matrix times a dense one, and its column sums: exact on integers, precise on normal data, the same bits
 * in blocks and in one go.
 *
 * @module
 */

import { sparseColumnSums, spmmTransposed } from "../../kernels/spmm_transposed.ts";
import { spans, type Tensor } from "../../kernels/engine/tensor.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { paddedWithNaN, Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../support/tolerance.ts";
import {
  add,
  columnsOnGpu,
  integersOf,
  normalOf,
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

interface ColumnsProduct {
  readonly given: Sparse;
  readonly columns: number;
  readonly ends: Uint32Array;
  readonly matrix: Float32Array;
  /** Rows of the dense factor that are bound at once, and sparse columns of the result. */
  readonly block: readonly [rows: number, columns: number];
  /** What the result holds before, if it is added to. */
  readonly before?: Float32Array;
}

function columnsProduct(gpu: Recording, product: ColumnsProduct): Tensor {
  const { given, columns, ends, matrix, block, before } = product;
  const result = before ? gpu.f32(before, given.width, columns) : gpu.out(given.width, columns);
  const bound = gpu.f32(matrix, given.rows, ends.length, columns);
  const shared = {
    sparse: columnsOnGpu(gpu, given),
    entryRows: gpu.u32(paddedWithOnes(given.entryRows)),
    values: gpu.f32(paddedWithNaN(given.values, ROOM)),
    parts: ends.length,
    ends: gpu.u32(ends),
    columns,
  };
  for (const rows of spans(given.rows, block[0])) {
    for (const { from, to } of spans(given.width, block[1])) {
      spmmTransposed(gpu.commands, {
        ...shared,
        firstRow: rows.from,
        rows: rows.to - rows.from,
        matrix: bound.rows(rows.from, rows.to),
        from,
        to,
        result: result.rows(from, to),
        accumulate: before !== undefined || rows.from > 0,
      });
    }
  }
  return result;
}

function columnsReference({ given, columns, ends, matrix, before }: ColumnsProduct): Sums {
  const result = sums(given.width * columns);
  before?.forEach((value, at) => add(result, at, value));
  given.indices.forEach((index, e) => {
    const row = given.entryRows[e]! * ends.length + partOf(ends, index);
    for (let c = 0; c < columns; c++) {
      add(result, index * columns + c, given.values[e]! * matrix[row * columns + c]!);
    }
  });
  return result;
}

const columnsCase: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const columns of [1, 2, 3, 4, 5, 17, 31, 33, 64, 100, 129, 260]) {
    for (const [rows, width] of [[1, 7], [130, 65], [65, 129], [200, 3]] as const) {
      const density = [0, 0.1, 0.5, 1][random.integer(0, 3)]!;
      const given = sparse(rows, width, () => random.unit() < density, integersOf(random));
      const parts = random.integer(1, 3);
      const product = {
        given,
        columns,
        ends: partEnds(random, width, parts),
        matrix: random.integers(rows * parts * columns),
        block: [64, 64] as const,
        ...(random.integer(0, 1) ? { before: random.integers(width * columns) } : {}),
      };
      const { want } = columnsReference(product);
      gpu.expect(columnsProduct(gpu, product), (got) => assertExact(got, want, `${rows} × ${width}ᵀ · ${columns}`));
    }
  }
};

Deno.test("sparse columns times a matrix are exact on integers, for every part and in blocks", async () => {
  await check(columnsCase, ...VARIANTS);
});

const preciseColumns: KernelCase = (gpu) => {
  const random = new Random(5);
  const given = sparse(400, 9, () => random.unit() < 0.8, normalOf(random));
  const shared = { given, columns: 37, ends: Uint32Array.of(3, 9), matrix: random.normal(400 * 2 * 37) };
  const { want, absSum } = columnsReference({ ...shared, block: [400, 9] });
  let whole: Float32Array;
  gpu.expect(columnsProduct(gpu, { ...shared, block: [400, 9] }), (got) => {
    assertSumClose(got, want, absSum, 400, "sparse columns");
    whole = got;
  });
  for (const rows of [64, 128]) {
    gpu.expect(columnsProduct(gpu, { ...shared, block: [rows, 9] }), (got) => {
      assertSameBits(got, whole, `blocks of ${rows} rows`);
    });
  }
};

Deno.test("sparse columns times a matrix are precise, and blocks do not change a bit", async () => {
  await check(preciseColumns, ...VARIANTS);
});

/** One column that all of 70,000 rows use, and others with few. */
const hot = (random: Random, rows = 70_000) =>
  sparse(rows, 3, (row, column) => column === 1 || row % 997 === 5, integersOf(random));

Deno.test("a column of 70,000 entries is summed whole", async () => {
  await check((gpu) => {
    const random = new Random(6);
    const given = hot(random);
    const ends = Uint32Array.of(3);
    for (const before of [undefined, random.integers(12)]) {
      const product = {
        given,
        columns: 4,
        ends,
        matrix: random.integers(70_000 * 4),
        block: [70_000, 3] as const,
        ...(before ? { before } : {}),
      };
      const { want } = columnsReference(product);
      gpu.expect(columnsProduct(gpu, product), (got) => assertExact(got, want));
      gpu.expect(columnSums(gpu, given, 70_000, before?.subarray(0, 3)), (got) => {
        assertExact(got, columnSumsReference(given, before?.subarray(0, 3)).want);
      });
    }
  });
});

function columnSums(gpu: Recording, given: Sparse, block: number, before?: Float32Array): Tensor {
  const result = before ? gpu.f32(before) : gpu.out(given.width);
  const shared = {
    sparse: columnsOnGpu(gpu, given),
    entryRows: gpu.u32(paddedWithOnes(given.entryRows)),
    values: gpu.f32(paddedWithNaN(given.values, ROOM)),
    result,
  };
  for (const { from, to } of spans(given.rows, block)) {
    const accumulate = before !== undefined || from > 0;
    sparseColumnSums(gpu.commands, { ...shared, firstRow: from, rows: to - from, accumulate });
  }
  return result;
}

function columnSumsReference(given: Sparse, before?: Float32Array): Sums {
  const result = sums(given.width);
  before?.forEach((value, at) => add(result, at, value));
  given.indices.forEach((index, e) => add(result, index, given.values[e]!));
  return result;
}

const columnSumsCase: KernelCase = (gpu) => {
  const random = new Random(7);
  for (const [rows, width] of [[1, 1], [3, 65], [31, 129], [200, 7], [129, 64]] as const) {
    for (const block of [rows, 17]) {
      const before = random.integer(0, 1) ? random.integers(width) : undefined;
      const given = sparse(rows, width, () => random.unit() < 0.4, integersOf(random));
      gpu.expect(columnSums(gpu, given, block, before), (got) => {
        assertExact(got, columnSumsReference(given, before).want, `${rows} × ${width}`);
      });
    }
  }
};

const preciseColumnSums: KernelCase = (gpu) => {
  const random = new Random(8);
  const given = sparse(500, 40, () => random.unit() < 0.9, normalOf(random));
  const { want, absSum } = columnSumsReference(given);
  gpu.expect(columnSums(gpu, given, 500), (got) => assertSumClose(got, want, absSum, 500, "sums of columns"));
};

Deno.test("sums of sparse columns are exact on integers and precise on normal data", async () => {
  await check(columnSumsCase, ...VARIANTS);
  await check(preciseColumnSums);
});

Deno.test("70,000 columns are more than one dimension of workgroups", async () => {
  await check((gpu) => {
    const random = new Random(13);
    const given = {
      rows: 1,
      width: 70_000,
      starts: Uint32Array.of(0, 35_000),
      entryRows: new Uint32Array(35_000),
      indices: Uint32Array.from({ length: 35_000 }, (_, e) => 2 * e + 1),
      values: random.integers(35_000),
    };
    const product = {
      given,
      columns: 2,
      ends: Uint32Array.of(70_000),
      matrix: random.integers(2),
      block: [1, 70_000] as const,
    };
    gpu.expect(columnsProduct(gpu, product), (got) => assertExact(got, columnsReference(product).want));
  });
});

Deno.test("mutants of spmmTransposed and the column sums are found", async () => {
  await mutants("spmm_transposed", [
    ["if (column < ends[part]) { break; }", "if (column <= ends[part]) { break; }"],
    ["if (dims.accumulate == 1u && entry == end) { return; }", "if (entry == end) { return; }"],
    ["entryRows[entries[middle]] < dims.firstRow", "entryRows[entries[middle]] <= dims.firstRow"],
  ], columnsCase);
  await mutants("spmm_transposed", [["= sum1;", "= quantizeToF16(sum1);"]], preciseColumns);
  await mutants("sparse_column_sums", [
    ["if (dims.accumulate == 1u) { sum = result[column]; }", ""],
    ["entryRows[entries[middle]] < dims.firstRow", "entryRows[entries[middle]] <= dims.firstRow"],
  ], columnSumsCase);
  await mutants("sparse_column_sums", [["= sum;", "= quantizeToF16(sum);"]], preciseColumnSums);
});
