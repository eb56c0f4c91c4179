/**
 * Matrix products in all layouts: exact on integers, precise on normal data, and the same bits for every tile.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { KernelError, ShapeError } from "../../kernels/engine/errors.ts";
import { gatheredMatmul, type Limit, matmul, type Matrix } from "../../kernels/matmul.ts";
import { canUse, type Layout, MAXIMA_COLUMNS, type TileName, TILES } from "../../kernels/matmul_tiles.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import {
  caseContext,
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../support/kernel_harness.ts";
import { columnMaxima } from "../reference/keys.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumClose } from "../support/tolerance.ts";

const LAYOUTS: readonly Layout[] = ["nn", "nt", "tn"];
const SIZES = [1, 2, 3, 5, 7, 16, 17, 31, 33, 63, 64, 65, 100, 129];

/** Who computes what; the results must have the same bits. */
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, subgroups: false }, { lanes: 32 }];
/** The variant that compiles fastest, where the sharing of work is not what is asked. */
const SIMPLE: Variant = { subgroups: false };

/** A matrix in a tensor: where it starts and how far its rows are apart. NaN is everywhere else. */
interface Lie {
  readonly offset: number;
  readonly stride: number;
}

interface Product {
  readonly layout: Layout;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly a: Lie;
  readonly b: Lie;
  readonly c: Lie;
  readonly bias: boolean;
  readonly relu: boolean;
  readonly accumulate: boolean;
  readonly tile?: TileName;
}

interface Numbers {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly c: Float32Array;
  readonly bias: Float32Array;
}

/** Rows and columns of the stored factors. */
function stored({ layout, M, N, K }: Pick<Product, "layout" | "M" | "N" | "K">) {
  return {
    a: layout === "tn" ? [K, M] as const : [M, K] as const,
    b: layout === "nt" ? [N, K] as const : [K, N] as const,
  };
}

/** The product in float64, and Σ|terms| of each element. */
function reference(product: Product, { a, b, c, bias }: Numbers): { want: Float64Array; absSum: Float64Array } {
  const { layout, M, N, K, relu, accumulate } = product;
  const want = new Float64Array(M * N);
  const absSum = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      const start = (accumulate ? c[m * N + n]! : 0) + (product.bias ? bias[n]! : 0);
      let sum = start;
      let size = Math.abs(start);
      for (let k = 0; k < K; k++) {
        const term = a[layout === "tn" ? k * M + m : m * K + k]! * b[layout === "nt" ? n * K + k : k * N + n]!;
        sum += term;
        size += Math.abs(term);
      }
      want[m * N + n] = relu ? Math.max(0, sum) : sum;
      absSum[m * N + n] = size;
    }
  }
  return { want, absSum };
}

/** A tensor with a matrix in it and NaN around. */
function placed(gpu: Recording, values: Float32Array, [rows, columns]: readonly [number, number], lie: Lie): Matrix {
  const { offset, stride } = lie;
  const data = new Float32Array(Math.ceil((offset + rows * stride) / stride) * stride).fill(NaN);
  for (let r = 0; r < rows; r++) data.set(values.subarray(r * columns, (r + 1) * columns), offset + r * stride);
  return { in: gpu.f32(data), offset, stride };
}

/** Records a product and hands its elements to `judge`; what lies around them must stay NaN. */
function record(gpu: Recording, product: Product, numbers: Numbers, judge: (got: Float32Array) => void): void {
  const { layout, M, N, K, relu, accumulate, bias } = product;
  const shapes = stored(product);
  const c = placed(gpu, accumulate ? numbers.c : new Float32Array(M * N).fill(NaN), [M, N], product.c);
  matmul(gpu.commands, {
    layout,
    M,
    N,
    K,
    relu,
    accumulate,
    ...(product.tile ? { tile: product.tile } : {}),
    a: placed(gpu, numbers.a, shapes.a, product.a),
    b: placed(gpu, numbers.b, shapes.b, product.b),
    c,
    ...(bias ? { bias: gpu.f32(numbers.bias) } : {}),
  });
  gpu.expect(c.in as Tensor, (got) => {
    const { offset, stride } = product.c;
    const inside = new Float32Array(M * N);
    for (let m = 0; m < M; m++) {
      const at = offset + m * stride;
      inside.set(got.subarray(at, at + N), m * N);
      got.fill(NaN, at, at + N);
    }
    assertExact(got, new Float32Array(got.length).fill(NaN), `around ${JSON.stringify(product)}`);
    judge(inside);
  });
}

function integers(random: Random, { M, N, K }: Product): Numbers {
  return {
    a: random.integers(M * K),
    b: random.integers(N * K),
    c: random.integers(M * N, -20, 20),
    bias: random.integers(N, -20, 20),
  };
}

function exactly(gpu: Recording, product: Product, numbers: Numbers): void {
  const { want } = reference(product, numbers);
  record(gpu, product, numbers, (got) => assertExact(got, want, JSON.stringify(product)));
}

const plain = (layout: Layout, M: number, N: number, K: number): Product => {
  const { a, b } = stored({ layout, M, N, K });
  return {
    layout,
    M,
    N,
    K,
    a: { offset: 0, stride: a[1] },
    b: { offset: 0, stride: b[1] },
    c: { offset: 0, stride: N },
    bias: false,
    relu: false,
    accumulate: false,
  };
};

/** Rows that start at multiples of four, so that four neighbours can be loaded at once, and rows that do not. */
const ALIGNMENTS = [[true, true], [true, false], [false, true], [false, false]] as const;

/** Any of the sizes, with gaps around the matrices; every second one adds to what C holds. */
function ragged(random: Random, layout: Layout, [alignedA, alignedB]: readonly [boolean, boolean]): Product {
  const pick = () => SIZES[random.integer(0, SIZES.length - 1)]!;
  const product = plain(layout, pick(), pick(), pick());
  const lie = (columns: number, aligned: boolean): Lie => {
    const stride = 4 * Math.ceil(columns / 4) + 4 * random.integer(0, 2);
    return aligned
      ? { offset: 4 * random.integer(0, 3), stride }
      : { offset: random.integer(0, 9), stride: stride + random.integer(1, 3) };
  };
  const { a, b } = stored(product);
  return {
    ...product,
    a: lie(a[1], alignedA),
    b: lie(b[1], alignedB),
    c: lie(product.N, random.integer(0, 1) === 1),
    accumulate: true,
  };
}

for (const layout of LAYOUTS) {
  Deno.test(`${layout}: integers are exact at ragged shapes, strides and offsets`, async () => {
    await check((gpu) => {
      const random = new Random(1);
      for (const alignment of ALIGNMENTS) {
        for (let i = 0; i < 16; i++) {
          const product: Product = { ...ragged(random, layout, alignment), tile: "register 4x4" };
          exactly(gpu, product, integers(random, product));
        }
      }
    }, SIMPLE);
  });

  Deno.test(`${layout}: sums of 70,000 terms are whole`, async () => {
    await check((gpu) => {
      const random = new Random(2);
      const product = plain(layout, 12, 20, 70000);
      exactly(gpu, product, integers(random, product));
    }, SIMPLE);
  });
}

/** Of every kind small ones and large ones. */
const ENDS: readonly TileName[] = ["register 4x4", "register 16x8", "subgroup 8x8", "subgroup 64x4", "workgroup 8x8"];

/**
 * Ragged in every tile. With rows of fours, as real ones are; or with nothing of the kind, where no subgroups can be used.
 */
const tiled = (layout: Layout, aligned: boolean, wanted?: readonly TileName[]): KernelCase => (gpu) => {
  const random = new Random(9);
  const product = aligned ? plain(layout, 136, 140, 36) : plain(layout, 135, 137, 37);
  const { M, N, K } = product;
  const whole = integers(random, product);
  const fractions = { ...whole, a: random.normal(M * K), b: random.normal(N * K) };
  let first: Float32Array | undefined;
  for (const [tile, how] of TILES) {
    if (!canUse(gpu.context, how, aligned) || !(wanted?.includes(tile) ?? true)) continue;
    exactly(gpu, { ...product, tile }, whole);
    record(gpu, { ...product, tile }, fractions, (got) => assertSameBits(got, first ??= got, `${layout}, ${tile}`));
  }
};

for (const layout of LAYOUTS) {
  Deno.test(`${layout}: every tile is exact on integers, and gives the same bits`, async () => {
    await check(tiled(layout, true, layout === "nt" ? undefined : ENDS));
    await check(tiled(layout, false, ENDS), { subgroups: false, lanes: 32 });
  });
}

Deno.test("a tile that the device or the matrix cannot have is refused", async () => {
  const context = await caseContext(SIMPLE);
  using c = new Tensor(context, "f32", [4, 4], "c");
  const given = { layout: "nn", M: 4, N: 4, K: 4, a: { in: c }, b: { in: c }, c: { in: c } } as const;
  assertThrows(() => matmul(new Commands(context), { ...given, tile: "subgroup 8x8" }), KernelError, "subgroup 8x8");
});

Deno.test("bias, ReLU and what C holds go together in every way", async () => {
  await check((gpu) => {
    const random = new Random(3);
    for (const bias of [false, true]) {
      for (const relu of [false, true]) {
        for (const accumulate of [false, true]) {
          const product = { ...plain("nt", 33, 17, 20), bias, relu, accumulate };
          exactly(gpu, product, integers(random, product));
        }
      }
    }
  }, SIMPLE);
});

/** Normal data, against the bound of seeded data; for ReLU too, which moves nothing apart. */
const precise = (layout: Layout, relu: boolean): KernelCase => (gpu) => {
  const random = new Random(4);
  const product = { ...plain(layout, 20, 36, 300), relu, bias: relu };
  const { M, N, K } = product;
  const numbers = {
    a: random.normal(M * K),
    b: random.normal(N * K),
    c: new Float32Array(M * N),
    bias: random.normal(N),
  };
  const { want, absSum } = reference(product, numbers);
  record(gpu, product, numbers, (got) => assertSumClose(got, want, absSum, K + 1, layout));
};

Deno.test("normal data lies within the bound of an f32 sum", async () => {
  for (const layout of LAYOUTS) await check(precise(layout, false), SIMPLE);
  await check(precise("nt", true), ...VARIANTS, TEXTURES);
});

/** NaN and infinities are numbers like others. */
const special: KernelCase = (gpu) => {
  const product = { ...plain("nt", 3, 2, 4), bias: true, relu: true };
  const numbers = {
    a: Float32Array.of(NaN, 1, 1, 1, Infinity, 1, 1, 1, 1, 1, 1, 1),
    b: Float32Array.of(1, 1, 1, 1, -1, -1, -1, -1),
    c: new Float32Array(6),
    bias: Float32Array.of(-5, -NaN),
  };
  record(gpu, product, numbers, (got) => assertExact(got, [NaN, NaN, Infinity, NaN, 0, NaN], "ReLU"));
};

Deno.test("a ReLU keeps NaN, makes negative values 0 and leaves infinity", async () => {
  await check(special, SIMPLE);
});

Deno.test("a product without terms is the bias, and one without rows is nothing", async () => {
  await check((gpu) => {
    const c = gpu.out(3, 4);
    matmul(gpu.commands, {
      layout: "nt",
      M: 3,
      N: 4,
      K: 0,
      a: { in: gpu.f32([], 3, 0), stride: 4 },
      b: { in: gpu.f32([], 4, 0), stride: 4 },
      c: { in: c },
      bias: gpu.f32([1, 2, 3, 4]),
    });
    gpu.expect(c, (got) => assertExact(got, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]));
    const untouched = gpu.out(3, 4);
    const a = gpu.f32([], 0, 4);
    matmul(gpu.commands, { layout: "nt", M: 0, N: 4, K: 4, a: { in: a }, b: { in: c }, c: { in: untouched } });
    gpu.expect(untouched, (got) => assertExact(got, new Float32Array(12).fill(NaN)));
  }, SIMPLE);
});

Deno.test("rows of a tensor are a matrix of their own", async () => {
  await check((gpu) => {
    const random = new Random(5);
    const product = plain("nt", 64, 5, 12);
    const numbers = integers(random, product);
    const { want } = reference(product, numbers);
    const a = gpu.f32([...random.integers(64 * 12), ...numbers.a, ...random.integers(7 * 12)], 135, 12);
    const c = gpu.out(128, 5);
    matmul(gpu.commands, {
      layout: "nt",
      M: 64,
      N: 5,
      K: 12,
      a: { in: a.rows(64, 128) },
      b: { in: gpu.f32(numbers.b, 5, 12) },
      c: { in: c.rows(64, 128) },
    });
    gpu.expect(c, (got) => assertExact(got, [...new Float32Array(64 * 5).fill(NaN), ...want]));
  }, SIMPLE);
});

Deno.test("a matrix that does not lie in its tensor is refused by name", async () => {
  const context = await caseContext();
  const commands = new Commands(context);
  using a = new Tensor(context, "f32", [4, 8], "left");
  using b = new Tensor(context, "f32", [5, 8], "right");
  using c = new Tensor(context, "f32", [4, 5], "result");
  const given = { layout: "nt", M: 4, N: 5, K: 8, a: { in: a }, b: { in: b }, c: { in: c } } as const;
  assertThrows(() => matmul(commands, { ...given, M: 5 }), ShapeError, "left");
  assertThrows(() => matmul(commands, { ...given, a: { in: a, offset: 1 } }), ShapeError, "left");
  assertThrows(() => matmul(commands, { ...given, b: { in: b, stride: 9 } }), ShapeError, "right");
  assertThrows(() => matmul(commands, { ...given, b: { in: b, stride: 7 } }), ShapeError, "right");
  assertThrows(() => matmul(commands, { ...given, c: { in: c.rows(0, 3) } }), ShapeError, "result");
  using maxima = new Tensor(context, "u32", [1, 4], "maxima");
  assertThrows(() => matmul(commands, { ...given, maxima: { in: maxima, offset: 4 } }), ShapeError, "maxima");
  assertThrows(() => matmul(commands, { ...given, maxima: { in: maxima, stride: 2 } }), ShapeError, "maxima");
});

/** A product with the maxima of its columns' groups, which lie in a matrix with a gap. */
function withMaxima(gpu: Recording, product: Product, numbers: Numbers, want: ArrayLike<number>): void {
  const { layout, M, N, K, relu, accumulate } = product;
  const shapes = stored(product);
  const columns = 4 * Math.ceil(M / 4) + 8;
  const maxima = gpu.outU32(Math.ceil(N / MAXIMA_COLUMNS) + 2, columns);
  const c = gpu.f32(accumulate ? numbers.c : new Float32Array(M * N), M, N);
  matmul(gpu.commands, {
    layout,
    M,
    N,
    K,
    relu,
    accumulate,
    a: placed(gpu, numbers.a, shapes.a, product.a),
    b: placed(gpu, numbers.b, shapes.b, product.b),
    c: { in: c },
    bias: gpu.f32(numbers.bias),
    maxima: { in: maxima, offset: columns + 4 },
  });
  let found: Float32Array;
  gpu.expect(c, (got) => assertExact(found = got, want, JSON.stringify(product)));
  gpu.expect(maxima, (got) => {
    const keys = new Uint32Array(got.length).fill(0xffffffff);
    for (let m = 0; m < M; m++) {
      columnMaxima(found.subarray(m * N, (m + 1) * N)).forEach((key, g) => keys[(1 + g) * columns + 4 + m] = key);
    }
    // Up to the next multiple of four, anything goes.
    for (let at = columns + 4; at < got.length - columns; at += columns) {
      got.fill(0xffffffff, at + M, at + 4 * Math.ceil(M / 4));
    }
    assertExact(got, keys, `maxima of ${JSON.stringify(product)}`);
  });
}

/** All numbers there are: what C holds, as a product without terms. */
const anyMaxima: KernelCase = (gpu) => {
  const random = new Random(9);
  const stride4 = { offset: 0, stride: 4 };
  for (const [M, N] of [[1, 1], [3, 7], [8, 8], [33, 9], [5, 64], [34, 65], [70, 600]] as const) {
    const product = { ...plain("nt", M, N, 0), a: stride4, b: stride4, accumulate: true };
    const bits = Uint32Array.from({ length: M * N }, () => random.integer(0, 9) > 0 ? random.bits() : 0x80000000);
    const any = new Float32Array(bits.buffer);
    for (const c of [any, any.map((value) => -Math.abs(value))]) {
      withMaxima(gpu, product, { ...integers(random, product), c, bias: new Float32Array(N).fill(-0) }, c);
    }
  }
};

const sumMaxima: KernelCase = (gpu) => {
  const random = new Random(10);
  for (const [M, N, K] of [[2, 3, 4], [17, 31, 20], [33, 100, 12], [65, 129, 8]] as const) {
    const product = { ...plain("nt", M, N, K), relu: true };
    const numbers = integers(random, product);
    withMaxima(gpu, product, numbers, reference({ ...product, bias: true }, numbers).want);
  }
};

Deno.test("the maxima of neighbouring columns are those of what is stored, NaN above all", async () => {
  await check(anyMaxima, ...VARIANTS);
  await check(sumMaxima, ...VARIANTS);
  await check((gpu) => {
    const product = plain("nt", 6, 20, 70000);
    const numbers = integers(new Random(11), product);
    withMaxima(gpu, product, numbers, reference({ ...product, bias: true }, numbers).want);
  }, SIMPLE);
});

interface Gathered {
  readonly product: Product;
  /** All rows of B, and which of them are bound. */
  readonly allRows: number;
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** A gathered product beside the plain one of all rows: the same bits where a row is listed and bound, NaN elsewhere. */
function gathered(gpu: Recording, random: Random, { product, allRows, from, to, count }: Gathered): void {
  const { M, N, K } = product;
  const list = random.permutation(allRows).subarray(0, N);
  const aNumbers = random.normal(M * K);
  const bNumbers = random.normal(allRows * K);
  const biasNumbers = random.normal(allRows);
  const a = placed(gpu, aNumbers, [M, K], product.a);
  const b = gpu.f32(bNumbers, allRows, K);
  const bias = gpu.f32(biasNumbers);
  const c = gpu.out(M, N);
  gatheredMatmul(gpu.commands, {
    M,
    N,
    K,
    a,
    b: { in: b.rows(from, to) },
    firstRow: from,
    c: { in: c },
    bias: bias.rows(from, to),
    rows: gpu.u32(list),
    count: gpu.u32([count]),
  });
  let whole: Float32Array;
  const all = gpu.out(M, allRows);
  matmul(gpu.commands, { layout: "nt", M, N: allRows, K, a, b: { in: b }, c: { in: all }, bias });
  gpu.expect(all, (got) => whole = got);
  gpu.expect(c, (got) => {
    const want = new Float32Array(M * N).fill(NaN);
    for (let m = 0; m < M; m++) {
      for (let j = 0; j < Math.min(N, count); j++) {
        const row = list[j]!;
        if (row >= from && row < to) want[m * N + j] = whole[m * allRows + row]!;
      }
    }
    // NaN of another payload is no difference: only unwritten elements have it.
    assertSameBits(canonicalNaN(got), canonicalNaN(want), JSON.stringify({ M, N, K, allRows, from, to, count }));
  });
}

function canonicalNaN(values: Float32Array): Float32Array {
  return values.map((value) => Number.isNaN(value) ? NaN : value);
}

const gatheredCase = (gpu: Recording): void => {
  const random = new Random(6);
  const shape = (M: number, N: number, K: number) => plain("nt", M, N, K);
  gathered(gpu, random, { product: shape(9, 40, 20), allRows: 200, from: 64, to: 128, count: 33 });
  gathered(gpu, random, { product: shape(17, 65, 20), allRows: 65, from: 0, to: 65, count: 64 });
  gathered(gpu, random, { product: shape(3, 7, 20), allRows: 300, from: 192, to: 300, count: 0 });
  gathered(gpu, random, { product: shape(1, 100, 20), allRows: 129, from: 64, to: 129, count: 200 });
};

Deno.test("a gathered product has the bits of the plain one", async () => {
  await check(gatheredCase, {}, SIMPLE, { lanes: 32 });
  await check((gpu) => {
    const product = { ...plain("nt", 9, 40, 21), a: { offset: 3, stride: 23 } };
    gathered(gpu, new Random(7), { product, allRows: 200, from: 64, to: 128, count: 33 });
  }, SIMPLE);
});

const exact = (layout: Layout, aligned: boolean, tile?: TileName): KernelCase => (gpu) => {
  const random = new Random(8);
  const base = { ...plain(layout, 20, 13, 23), ...(tile ? { tile } : {}) };
  const { a } = stored(base);
  const product = aligned ? { ...base, a: { offset: 0, stride: 4 * Math.ceil(a[1] / 4) } } : base;
  exactly(gpu, product, integers(random, product));
};

Deno.test("mutants of the products are found", async () => {
  await mutants("matmul_nt", [
    ["(row + 0u + lane) * dims.lda", "(row + 0u + (lane ^ 1u)) * dims.lda"],
    ["u < M) {", "u <= M) {"],
  ], exact("nt", true));
  await mutants(
    "matmul_nn",
    [
      ["(k + 2u) * dims.ldb", "(k + 1u) * dims.ldb"],
      ["u < columns) {", "u <= columns) {"],
      ["; k < K; k += 1u", "; k + 1u < K; k += 1u"],
    ],
    exact("nn", false),
    SIMPLE,
  );
  await mutants(
    "matmul_tn",
    [
      ["(k + 3u) * dims.lda", "(k + 3u) * dims.ldb"],
      ["u < M) {", "u <= M) {"],
    ],
    exact("tn", false),
    SIMPLE,
  );
  for (const layout of ["nt", "tn"] as const) {
    await mutants(
      `matmul_${layout}`,
      [
        ["workgroupBarrier();\n    if", "if"],
        ["t < K - k", "t + 1u < K - k"],
        ["k += 16u", "k += 12u"],
      ],
      exact(layout, false, "workgroup 4x4"),
      SIMPLE,
    );
    await mutants(
      `matmul_${layout}`,
      [["c1_1, c1_2, ", "c1_1, quantizeToF16(c1_2), "]],
      precise(layout, false),
      SIMPLE,
    );
  }
  await mutants(
    "matmul_nt",
    [
      ["key_of(positive_or_nan(c1_2 + ", "key_of(positive_or_nan(c1_1 + "],
      ["column + 7u < columns))", "true))"],
      ["dims.ldm + row + 4u) >> 2u", "dims.ldm + row) >> 2u"],
    ],
    sumMaxima,
    SIMPLE,
  );
  await mutants(
    "matmul_nt",
    [["(bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu", "false) { return 0xffffffffu"]],
    anyMaxima,
    SIMPLE,
  );
  await mutants("matmul_nt", [[" || (bits & 0x7fffffffu) > 0x7f800000u", ""]], special, SIMPLE);
  await mutants(
    "gathered_matmul_nt",
    [
      [" - dims.firstRow < dims.b_rows", " - dims.firstRow < 0xffffffffu"],
      ["min(N, count[0])", "N"],
      ["bias[listed3 - dims.firstRow]", "bias[column + 3u]"],
    ],
    gatheredCase,
    SIMPLE,
  );
});

/** A product one of whose sizes is `limit`, as only the GPU knows; beyond it A and B are NaN and C stays as it was. */
const limited = (...cases: readonly (readonly [Layout, Limit["size"], accumulate: boolean])[]): KernelCase => (gpu) => {
  const random = new Random(31);
  for (const [layout, size, accumulate] of cases) {
    for (const limit of [0, 1, 7, 34, 1000]) {
      const whole = { ...plain(layout, 45, 37, 40), accumulate };
      const sizeOf = (name: typeof size) => name === size ? Math.min(whole[name], limit) : whole[name];
      const [M, N, K] = [sizeOf("M"), sizeOf("N"), sizeOf("K")];
      const numbers = integers(random, whole);
      const shapes = stored(whole);
      const inside = {
        a: (row: number, column: number) => layout === "tn" ? row < K && column < M : row < M && column < K,
        b: (row: number, column: number) => layout === "nt" ? row < N && column < K : row < K && column < N,
      };
      const factor = (name: "a" | "b") => {
        const [, columns] = shapes[name];
        const data = numbers[name].map((value, i) => inside[name](Math.floor(i / columns), i % columns) ? value : NaN);
        return { in: gpu.f32(data, ...shapes[name]) };
      };
      const c = gpu.f32(numbers.c.slice(), whole.M, whole.N);
      matmul(gpu.commands, {
        layout,
        M: whole.M,
        N: whole.N,
        K: whole.K,
        accumulate,
        a: factor("a"),
        b: factor("b"),
        c: { in: c },
        limit: { size, by: gpu.u32([limit]) },
      });
      const cut = { ...numbers, a: numbers.a.slice(), b: numbers.b.slice() };
      if (size === "K") {
        for (const name of ["a", "b"] as const) {
          const [, columns] = shapes[name];
          cut[name].forEach((_, i) => {
            if (!inside[name](Math.floor(i / columns), i % columns)) cut[name][i] = 0;
          });
        }
      }
      const { want } = reference(whole, cut);
      gpu.expect(c, (got) => {
        const expected = Float32Array.from(got, (_, i) => {
          const [m, n] = [Math.floor(i / whole.N), i % whole.N];
          return m < M && n < N ? want[i]! : numbers.c[i]!;
        });
        assertExact(got, expected, `${layout}, ${size} limited to ${limit}, accumulate ${accumulate}`);
      });
    }
  }
};

/** One size of each layout, and all of them. */
const LIMITS = [["nn", "K", true], ["nt", "N", false], ["tn", "M", true]] as const;
const OTHER_LIMITS = [
  ["nn", "M", false],
  ["nn", "N", true],
  ["nt", "M", true],
  ["nt", "K", false],
  ["tn", "N", false],
  ["tn", "K", true],
] as const;

Deno.test("a size that only the GPU knows limits what is read and written", async () => {
  await check(limited(...LIMITS), ...VARIANTS);
  await check(limited(...OTHER_LIMITS), SIMPLE);
});

Deno.test("limits: mutants", async () => {
  for (const limit of LIMITS) {
    const [layout, size] = limit;
    await mutants(`matmul_${layout}`, [[`min(dims.${size}, limit[0])`, `dims.${size}`]], limited(limit), SIMPLE);
  }
});
