/**
 * Sums and maxima of whole arrays, of rows and of columns, also where a thread has more than 65,535 elements.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { chunksOf, columnSums, maxAbsBits, rowMaxAbsBits, subtractWeightedRows, sum } from "../../kernels/reduce.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { caseContext, check, type KernelCase, mutants, type Recording, TEXTURES } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumClose } from "../support/tolerance.ts";

const SIZES = [1, 2, 3, 5, 7, 17, 31, 33, 63, 64, 65, 100, 129, 255, 256, 257, 1000];

/** The largest |x| as bits, for rows × columns. */
function largest(gpu: Recording, values: Float32Array, rows: number): void {
  const bits = gpu.outU32(1);
  const x = gpu.f32(values, rows, values.length / rows);
  maxAbsBits(gpu.commands, x, gpu.outU32(chunksOf(values.length)), bits);
  const all = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const want = all.reduce((most, word) => Math.max(most, word & 0x7fffffff), 0);
  gpu.expect(bits, (got) => assertEquals(got[0], want, `largest of ${rows} rows`));
}

const maxima: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const size of SIZES) {
    const values = random.normal(size);
    // Wherever it is, negative or not.
    values[random.integer(0, size - 1)] = -77;
    largest(gpu, values, 1);
    largest(gpu, random.normal(size, 1e-40), size);
  }
  largest(gpu, new Float32Array(300), 3);
  for (const special of [NaN, -Infinity, Infinity, -1e-45]) {
    largest(gpu, random.normal(300).map((value, i) => i === 299 ? special : 0 * value), 2);
  }
  const payload = new Float32Array(Uint32Array.of(0x7f800000, 0xffc12345, 0x7fc00000).buffer);
  largest(gpu, payload, 1);
  for (const size of [16383, 16384, 16385, 70_000]) {
    const values = random.normal(size);
    for (const at of [0, size - 1]) {
      largest(gpu, values.with(at, 99), size);
    }
  }
};

Deno.test("the largest |x| is found at ragged sizes, NaN and infinity included, in row blocks as in one go", async () => {
  await check(maxima, {}, { ...TEXTURES, bindingLimit: 65_536 });
});

Deno.test("the largest of 20 million values is found at either end", async () => {
  await check((gpu) => {
    for (const at of [0, 19_999_999]) {
      const values = new Float32Array(20_000_000).fill(0.5);
      values[at] = -3;
      largest(gpu, values, 20_000);
    }
  });
});

/** The largest |x| of each row of a square matrix off its diagonal, `block` rows at a time. */
function largestOfRows(gpu: Recording, values: Float32Array, columns: number, block: number): void {
  const allRows = values.length / columns;
  const x = gpu.f32(values, allRows, columns);
  const bits = gpu.outU32(allRows);
  for (let firstRow = 0; firstRow < allRows; firstRow += block) {
    const end = Math.min(firstRow + block, allRows);
    rowMaxAbsBits(gpu.commands, { x: x.rows(firstRow, end), rows: end - firstRow, columns, firstRow, bits, allRows });
  }
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const want = Uint32Array.from({ length: allRows }, (_, r) => {
    const row = words.slice(r * columns, (r + 1) * columns);
    return row.reduce((most, word, c) => c === r ? most : Math.max(most, word & 0x7fffffff), 0);
  });
  gpu.expect(bits, (got) => assertExact(got, want, `${allRows} rows of ${columns}`));
}

const rowMaxima: KernelCase = (gpu) => {
  const random = new Random(8);
  for (const size of SIZES.filter((size) => size < 300)) {
    // The diagonal is larger than everything else, and the first element of every row too.
    const values = random.normal(size * size).map((value, i) =>
      i % (size + 1) === 0 ? 99 : i % size === 0 ? -9 : value
    );
    largestOfRows(gpu, values, size, 64);
    largestOfRows(gpu, random.normal(size * size, 1e-40), size, 128);
  }
  // Wherever it is in the row, whatever it is, also where the matrix is no square.
  for (const special of [NaN, -Infinity, -7, 1e-45]) {
    const values = new Float32Array(130 * 200);
    for (let r = 0; r < 130; r++) values[r * 200 + (r * 3 + 1) % 200] = special;
    largestOfRows(gpu, values, 200, 64);
  }
};

Deno.test("the largest |x| of a row is found off the diagonal, NaN and infinity included", async () => {
  await check(rowMaxima);
});

Deno.test("rows of as many columns as there may be are seen whole, and longer ones refused", async () => {
  const most = 4_160_000;
  await check((gpu) => {
    for (const at of [1, most - 1]) largestOfRows(gpu, new Float32Array(most).fill(0.5).with(at, -3), most, 1);
  });
  const context = await caseContext();
  using none = new Tensor(context, "f32", [1], "none");
  const given = { x: none, rows: 1, columns: most + 1, firstRow: 0, bits: none, allRows: 1 };
  assertThrows(() => rowMaxAbsBits(new Commands(context), given), RangeError, `${most + 1}`);
});

function summed(gpu: Recording, values: Float32Array, judge: (got: number) => void): void {
  const into = gpu.out(3);
  sum(gpu.commands, { x: gpu.f32(values), size: values.length, into, results: 3, at: 1 });
  gpu.expect(into, (got) => {
    assertExact([got[0]!, got[2]!], [NaN, NaN], "other results");
    judge(got[1]!);
  });
}

const sums: KernelCase = (gpu) => {
  const random = new Random(2);
  for (const size of [...SIZES, 70_000]) {
    const values = random.integers(size);
    const want = values.reduce((a, b) => a + b, 0);
    summed(gpu, values, (got) => assertExact([got], [want], `sum of ${size}`));
  }
};

const preciseSum: KernelCase = (gpu) => {
  const values = new Random(3).normal(5000).map(Math.abs);
  const want = values.reduce((a, b) => a + b, 0);
  summed(gpu, values, (got) => assertSumClose([got], [want], want, 5000, "sum"));
};

Deno.test("a sum is exact on integers and precise on normal data", async () => {
  await check(sums, {}, { lanes: 32 }, TEXTURES);
  await check(preciseSum);
});

Deno.test("a sum of as many terms as there may be is whole, and of one more is refused", async () => {
  const most = 32_768 * 256;
  await check((gpu) => {
    // Ones and minus ones, so that every partial sum is exact.
    const values = Float32Array.from({ length: most }, (_, i) => i % 3 === 1 ? -1 : 1);
    summed(gpu, values, (got) => assertExact([got], [values.reduce((a, b) => a + b, 0)], "largest sum"));
  });
  const context = await caseContext();
  const none = { rows: 0 } as never;
  assertThrows(
    () => sum(new Commands(context), { x: none, size: most + 1, into: none, results: 1, at: 0 }),
    RangeError,
    `${most + 1}`,
  );
});

interface Columns {
  readonly rows: number;
  readonly columns: number;
  readonly offset: number;
  readonly stride: number;
  readonly before?: Float32Array;
  readonly values: Float32Array;
  /** How many columns matter; all if left out. */
  readonly count?: number;
}

function columns(gpu: Recording, given: Columns, judge: (got: Float32Array, want: Float64Array) => void): void {
  const { rows, columns, offset, stride, before, values, count } = given;
  const x = new Float32Array(rows * stride).fill(NaN);
  const want = new Float64Array(columns);
  before?.forEach((value, c) => want[c] = value);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      x[r * stride + offset + c] = values[r * columns + c]!;
      want[c]! += values[r * columns + c]!;
    }
  }
  const result = before ? gpu.f32(before) : gpu.out(columns);
  const accumulate = before !== undefined;
  columnSums(gpu.commands, {
    x: gpu.f32(x, rows, stride),
    rows,
    stride,
    offset,
    columns,
    result,
    accumulate,
    ...count === undefined ? {} : { count: gpu.u32([count]) },
  });
  gpu.expect(result, (got) => judge(got.subarray(0, count), want.subarray(0, count)));
}

const columnCase: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const width of SIZES) {
    const rows = SIZES[random.integer(0, SIZES.length - 1)]!;
    const offset = random.integer(0, 5);
    const given = { rows, columns: width, offset, stride: offset + width + random.integer(0, 5) };
    const values = random.integers(rows * width);
    const what = `${rows} × ${width}`;
    columns(gpu, { ...given, values }, (got, want) => assertExact(got, want, what));
    const before = random.integers(width, -99, 99);
    columns(gpu, { ...given, values, before }, (got, want) => assertExact(got, want, `added to, ${what}`));
    // Where all is in fours.
    const four = { rows, columns: 4 * width, offset: 4 * offset, stride: 4 * given.stride };
    const fourValues = random.integers(rows * 4 * width);
    columns(gpu, { ...four, values: fourValues }, (got, want) => assertExact(got, want, `fours, ${what}`));
    for (const count of [0, Math.ceil(width / 2), 4 * width, 9 * width]) {
      const some = { ...four, values: fourValues, before: random.integers(4 * width), count };
      columns(gpu, some, (got, want) => assertExact(got, want, `the first ${count}, ${what}`));
    }
  }
};

const preciseColumns: KernelCase = (gpu) => {
  const values = new Random(5).normal(2000 * 40).map(Math.abs);
  const absSum = new Float64Array(40);
  values.forEach((value, i) => absSum[i % 40]! += value);
  const given = { rows: 2000, columns: 40, offset: 0, stride: 40, values };
  columns(gpu, given, (got, want) => assertSumClose(got, want, absSum, 2000, "sums of columns"));
};

Deno.test("sums of columns are exact on integers and precise on normal data", async () => {
  await check(columnCase, {}, { lanes: 32 }, TEXTURES);
  await check(preciseColumns);
});

Deno.test("sums of columns of 70,000 rows are whole", async () => {
  await check((gpu) => {
    const random = new Random(6);
    const given = { rows: 70_000, columns: 3, offset: 1, stride: 5, values: random.integers(210_000) };
    columns(gpu, given, (got, want) => assertExact(got, want));
    columns(gpu, { ...given, before: random.integers(3) }, (got, want) => assertExact(got, want));
  });
});

interface Weighted {
  readonly rows: number;
  readonly columns: number;
  readonly weights: Float32Array;
  readonly matrix: Float32Array;
  readonly before: Float32Array;
}

type Judge = (got: Float32Array, want: Float64Array, absSum: Float64Array) => void;

function weighted(gpu: Recording, { rows, columns, weights, matrix, before }: Weighted, judge: Judge): void {
  const want = Float64Array.from(before);
  const absSum = want.map(Math.abs);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const term = weights[r]! * matrix[r * columns + c]!;
      want[c]! -= term;
      absSum[c]! += Math.abs(term);
    }
  }
  const result = gpu.f32(before);
  subtractWeightedRows(gpu.commands, {
    weights: gpu.f32(weights),
    matrix: gpu.f32(matrix, rows, columns),
    rows,
    columns,
    result,
  });
  gpu.expect(result, (got) => judge(got, want, absSum));
}

const weightedRandom = (make: (length: number) => Float32Array, rows: number, columns: number): Weighted => ({
  rows,
  columns,
  weights: make(rows),
  matrix: make(rows * columns),
  before: make(columns),
});

const weightedCase: KernelCase = (gpu) => {
  const random = new Random(7);
  for (const width of SIZES) {
    const rows = SIZES[random.integer(0, SIZES.length - 1)]!;
    const given = weightedRandom((length) => random.integers(length), rows, width);
    weighted(gpu, given, (got, want) => assertExact(got, want, `${rows} × ${width}`));
  }
};

const preciseWeighted: KernelCase = (gpu) => {
  const random = new Random(8);
  const given = weightedRandom((length) => random.normal(length), 900, 40);
  weighted(gpu, given, (got, want, absSum) => assertSumClose(got, want, absSum, 901, "weighted rows"));
};

Deno.test("weighted rows are subtracted exactly on integers and precisely on normal data", async () => {
  await check(weightedCase);
  await check(preciseWeighted);
});

Deno.test("70,000 weighted rows are subtracted whole", async () => {
  await check((gpu) => {
    const random = new Random(9);
    const given = weightedRandom((length) => random.integers(length), 70_000, 3);
    weighted(gpu, given, (got, want) => assertExact(got, want));
  });
});

Deno.test("mutants of the reductions are found", async () => {
  await mutants("max_abs_chunks", [
    ["& 0x7fffffffu", "& 0xffffffffu"],
    ["return largest_parts[0]", "return largest_parts[1]"],
    ["min((group + 1u) * 16384u, dims.size)", "(group + 1u) * 16384u"],
  ], maxima);
  await mutants("max", [
    ["i < dims.size", "i + 1u < dims.size"],
    ["lane < half", "lane + 1u < half"],
  ], maxima);
  await mutants("max", [["dims.accumulate == 1u", "false"]], maxima, { bindingLimit: 65_536 });
  await mutants("row_max_abs", [
    ["group * dims.columns + c", "c"],
    ["bits[diagonal]", "bits[group]"],
    ["c != diagonal", "c != group"],
    ["c < dims.columns", "c <= dims.columns"],
    ["& 0x7fffffffu", "& 0x7ffff000u"],
    ["half > 0u", "half > 1u"],
  ], rowMaxima);
  await mutants("sum", [
    ["into[dims.at]", "into[0]"],
    ["i < dims.size", "i <= dims.size"],
    ["half > 0u", "half > 1u"],
  ], sums);
  await mutants("sum", [["into[dims.at] = all;", "into[dims.at] = quantizeToF16(all);"]], preciseSum);
  await mutants("column_sums", [
    ["row * dims.stride + dims.offset", "row * dims.stride"],
    ["column >= dims.columns", "column > dims.columns"],
    ["row < dims.end", "row + 1u < dims.end"],
  ], columnCase);
  await mutants("column_sums", [["= sum;", "= quantizeToF16(sum);"]], preciseColumns);
  await mutants("subtract_weighted_rows", [
    ["row * dims.columns + column", "row * dims.columns"],
    ["row < dims.end", "row + 1u < dims.end"],
    ["-weights[row]", "weights[row]"],
  ], weightedCase);
  await mutants("subtract_weighted_rows", [["= sum;", "= quantizeToF16(sum);"]], preciseWeighted);
});
