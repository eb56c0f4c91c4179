/**
 * Products with a sparse factor: exact on integers, precise on normal data, the same bits in row blocks and in one go.
 *
 * @module
 */

import { type Csr, csrToDense, sddmm, sparseColumnSums, spmm, spmmTransposed } from "../../kernels/sparse_matmul.ts";
import { spans, type Tensor } from "../../kernels/engine/tensor.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { paddedWithNaN, Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../support/tolerance.ts";

const VARIANTS: readonly Variant[] = [{}, { subgroups: false }, { lanes: 32 }, TEXTURES];

/** A sparse [rows, width] matrix on the CPU. */
interface Sparse {
  readonly rows: number;
  readonly width: number;
  readonly starts: Uint32Array;
  readonly entryRows: Uint32Array;
  readonly indices: Uint32Array;
  readonly values: Float32Array;
}

/** Room beyond the entries, full of NaN and of indices that do not exist. */
const ROOM = 5;

type Values = (length: number) => Float32Array;

function sparse(rows: number, width: number, has: (row: number, column: number) => boolean, values: Values): Sparse {
  const starts = new Uint32Array(rows + 1);
  const entryRows: number[] = [];
  const indices: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < width; c++) {
      if (has(r, c)) {
        indices.push(c);
        entryRows.push(r);
      }
    }
    starts[r + 1] = indices.length;
  }
  return {
    rows,
    width,
    starts,
    entryRows: Uint32Array.from(entryRows),
    indices: Uint32Array.from(indices),
    values: values(indices.length),
  };
}

function paddedWithOnes(values: Uint32Array): Uint32Array {
  const padded = new Uint32Array(values.length + ROOM).fill(0xffffffff);
  padded.set(values);
  return padded;
}

function onGpu(gpu: Recording, given: Sparse): Csr {
  const { rows, starts, indices, values } = given;
  return {
    rows,
    capacity: indices.length + ROOM,
    starts: gpu.u32(starts),
    indices: gpu.u32(paddedWithOnes(indices)),
    values: gpu.f32(paddedWithNaN(values, ROOM)),
  };
}

/** Entries by column, on the CPU and on the GPU. */
function columnsOnGpu(gpu: Recording, { rows, width, indices }: Sparse) {
  const starts = new Uint32Array(width + 1);
  for (const column of indices) starts[column + 1]!++;
  for (let c = 0; c < width; c++) starts[c + 1]! += starts[c]!;
  const next = starts.slice();
  const entries = new Uint32Array(indices.length);
  indices.forEach((column, e) => entries[next[column]!++] = e);
  return {
    rows,
    columns: width,
    capacity: indices.length + ROOM,
    starts: gpu.u32(starts),
    entries: gpu.u32(paddedWithOnes(entries)),
  };
}

/** Results of each element and Σ|terms|. */
interface Sums {
  readonly want: Float64Array;
  readonly absSum: Float64Array;
}

function sums(size: number): Sums {
  return { want: new Float64Array(size), absSum: new Float64Array(size) };
}

function add({ want, absSum }: Sums, at: number, term: number): void {
  want[at]! += term;
  absSum[at]! += Math.abs(term);
}

const integersOf = (random: Random): Values => (length) => random.integers(length);
const normalOf = (random: Random): Values => (length) => random.normal(length);

/** `parts` ascending ends up to `width`, some of them equal to none. */
function partEnds(random: Random, width: number, parts: number): Uint32Array {
  const inner = Array.from({ length: parts - 1 }, () => random.integer(1, width));
  return Uint32Array.from([...inner, width]).sort();
}

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

const partOf = (ends: Uint32Array, index: number) => Math.min(ends.length - 1, ends.findIndex((end) => index < end));

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
    const product = {
      given,
      columns: 2,
      ends: Uint32Array.of(1, 3),
      matrix: random.integers(6),
      block: 3,
      firstRow: 0,
    };
    const { want } = rowsReference(product);
    gpu.expect(rowsProduct(gpu, product), (got) => assertExact(got, want, "sparse rows"));
    const wide = { ...given, rows: 1, width: 70_000, starts: Uint32Array.of(0, 35_000) };
    const indices = Uint32Array.from({ length: 35_000 }, (_, e) => 2 * e + 1);
    const transposed = { ...wide, indices, entryRows: new Uint32Array(35_000), values: random.integers(35_000) };
    const columns = {
      given: transposed,
      columns: 2,
      ends: Uint32Array.of(70_000),
      matrix: random.integers(2),
      block: [1, 70_000] as const,
    };
    gpu.expect(columnsProduct(gpu, columns), (got) => {
      assertExact(got, columnsReference(columns).want, "sparse columns");
    });
    const result = gpu.out(70_000, 3);
    csrToDense(gpu.commands, { sparse: onGpu(gpu, given), firstRow: 0, rows: 70_000, columns: 3, result });
    const written = new Float32Array(210_000);
    given.indices.forEach((index, e) => written[given.entryRows[e]! * 3 + index] = given.values[e]!);
    gpu.expect(result, (got) => assertExact(got, written, "dense rows"));
  });
});

Deno.test("mutants of the sparse products are found", async () => {
  await mutants("spmm", [
    ["if (index >= below) { break; }", "if (index > below) { break; }"],
    ["indices[middle] < dims.begin", "indices[middle] <= dims.begin"],
    ["row * dims.parts + part", "row * dims.parts + dims.parts - 1u - part"],
    ["if (first + 0u < loads)", "if (first + 0u <= loads)"],
  ], rowsCase);
  await mutants("spmm", [["= sum1;", "= quantizeToF16(sum1);"]], preciseRows);
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
  await mutants("sddmm", [
    ["if (index1 < ends[part1]) { break; }", "if (index1 <= ends[part1]) { break; }"],
    ["* dims.parts + part0)", "* dims.parts)"],
    ["if (row0 == row3 && part0 == part3)", "if (row0 == row2 && part0 == part2)"],
    ["if (row0 == row3 && part0 == part3)", "if (l0 == l3)"],
    ["if (wanted3) {", "if (wanted2) {"],
    ["let x2 = left[l2 + c];", "let x2 = left[l1 + c];"],
  ], sampledCase);
  await mutants("sddmm", [["= sum1;", "= quantizeToF16(sum1);"]], preciseSampled);
  await mutants("csr_to_dense", [
    ["starts[dims.firstRow + group] + lane", "starts[dims.firstRow + group] + lane + 1u"],
    ["] = 0.0;", "] = 1.0;"],
    ["c < dims.columns", "c <= dims.columns"],
  ], dense);
});
