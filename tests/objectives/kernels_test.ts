/**
 * The kernels that objectives add: norms of codes, who fired and who is dead, residuals and squared errors.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { spans, type Tensor } from "../../kernels/engine/tensor.ts";
import { Codes } from "../../nn/codes.ts";
import { markDying, markFired, markFiredDense, updateDead } from "../../objectives/dead_latents.ts";
import { denseRowNorms, rowNorms } from "../../objectives/sparsity.ts";
import { auxiliaryResiduals, meanSquaredErr, residuals } from "../../objectives/squared_error.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSumBound, assertSumClose, assertUlps } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [2, 3], [3, 17], [5, 31], [7, 33], [33, 63], [4, 64], [31, 65], [65, 100], [9, 129]] as const;

/** Codes on the GPU from a dense [rows, columns] matrix and a mask of which elements are entries, zeros among them. */
function codesOf(gpu: Recording, dense: Float32Array, rows: number, isEntry: (i: number) => boolean): Codes {
  const columns = dense.length / rows;
  const starts = new Uint32Array(rows + 1);
  const entries: number[] = [];
  for (let i = 0; i < dense.length; i++) {
    if (isEntry(i)) entries.push(i);
    if ((i + 1) % columns === 0) starts[(i + 1) / columns] = entries.length;
  }
  const room = 3;
  const codes = new Codes(gpu.context, rows, columns, entries.length + room);
  codes.row_starts.write(starts);
  codes.indices.write(Uint32Array.from([...entries.map((i) => i % columns), ...new Array<number>(room).fill(0)]));
  codes.values.write(Float32Array.from([...entries.map((i) => dense[i]!), ...new Array<number>(room).fill(NaN)]));
  for (const tensor of [codes.row_starts, codes.indices, codes.values]) gpu.own<"f32" | "u32">(tensor);
  return codes;
}

/** Integers, half of them zero. */
function halfZero(random: Random, length: number): Float32Array {
  return random.integers(length).map((value) => random.integer(0, 1) * value);
}

interface Norms {
  readonly l0: Float64Array;
  readonly l1: Float64Array;
}

function normsOf(dense: Float32Array, rows: number): Norms {
  const columns = dense.length / rows;
  const norms = { l0: new Float64Array(rows), l1: new Float64Array(rows) };
  dense.forEach((value, i) => {
    norms.l0[Math.floor(i / columns)]! += value === 0 ? 0 : 1;
    norms.l1[Math.floor(i / columns)]! += Math.abs(value);
  });
  return norms;
}

function expectNorms(gpu: Recording, l0: Tensor, l1: Tensor, { want, K }: { want: Norms; K?: number }): void {
  gpu.expect(l0, (got) => assertExact(got, want.l0, "l0"));
  gpu.expect(l1, (got) => {
    if (K === undefined) assertExact(got, want.l1, "l1");
    else assertSumClose(got, want.l1, want.l1, K, "l1");
  });
}

const sparseNorms: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const [rows, columns] of SHAPES) {
    const dense = halfZero(random, rows * columns);
    // A code may be zero and still be an entry; it does not count.
    const codes = codesOf(gpu, dense, rows, (i) => dense[i] !== 0 || i % 3 === 0);
    const [l0, l1] = [gpu.out(rows), gpu.out(rows)];
    rowNorms(gpu.commands, codes, l0, l1);
    expectNorms(gpu, l0, l1, { want: normsOf(dense, rows) });
  }
};

function normsInBlocks(
  gpu: Recording,
  values_BS: Tensor,
  l0: Tensor,
  l1: Tensor,
  { block = values_BS.shape[0]!, threshold }: { readonly block?: number; readonly threshold?: Tensor } = {},
): void {
  for (const span of spans(values_BS.shape[0]!, block)) {
    const codes = { values: values_BS.rows(span.from, span.to), threshold };
    denseRowNorms(gpu.commands, { codes, span, l0, l1 });
  }
}

/** h of a JumpReLU, its thresholds, of which some are negative and count as 0, and what its codes are. */
function jumps(random: Random, rows: number, columns: number) {
  const threshold_S = random.integers(columns);
  const h_BS = random.integers(rows * columns);
  if (h_BS.length > 2) h_BS.set([NaN, -0], 1);
  const isAbove = (h: number, i: number) => Number.isNaN(h) || h > Math.max(threshold_S[i % columns]!, 0);
  return { h_BS, threshold_S, f_BS: h_BS.map((h, i) => isAbove(h, i) ? h : 0) };
}

const denseNorms: KernelCase = (gpu) => {
  const random = new Random(2);
  for (const [rows, columns] of [...SHAPES, [200, 64]] as const) {
    const dense = halfZero(random, rows * columns);
    const [l0, l1] = [gpu.out(rows), gpu.out(rows)];
    normsInBlocks(gpu, gpu.f32(dense, rows, columns), l0, l1, { block: 64 });
    expectNorms(gpu, l0, l1, { want: normsOf(dense, rows) });
  }
};

const jumpNorms: KernelCase = (gpu) => {
  const random = new Random(22);
  for (const [rows, columns] of [...SHAPES, [200, 64]] as const) {
    const { h_BS, threshold_S, f_BS } = jumps(random, rows, columns);
    const [l0, l1] = [gpu.out(rows), gpu.out(rows)];
    normsInBlocks(gpu, gpu.f32(h_BS, rows, columns), l0, l1, { block: 64, threshold: gpu.f32(threshold_S) });
    expectNorms(gpu, l0, l1, { want: normsOf(f_BS, rows) });
  }
};

const preciseNorms: KernelCase = (gpu) => {
  const dense = new Random(3).normal(20 * 700);
  for (const sparse of [false, true]) {
    const [l0, l1] = [gpu.out(20), gpu.out(20)];
    if (sparse) rowNorms(gpu.commands, codesOf(gpu, dense, 20, () => true), l0, l1);
    else normsInBlocks(gpu, gpu.f32(dense, 20, 700), l0, l1);
    expectNorms(gpu, l0, l1, { want: normsOf(dense, 20), K: 700 });
  }
};

Deno.test("L0 counts what is not zero and L1 sums magnitudes, of sparse and of dense codes", async () => {
  await check(sparseNorms, {}, { subgroups: false }, { lanes: 32 }, TEXTURES);
  await check(denseNorms, {}, TEXTURES);
  await check(jumpNorms, {}, TEXTURES);
  await check(preciseNorms);
});

Deno.test("L0 counts NaN and denormals", async () => {
  await check((gpu) => {
    const dense = Float32Array.of(NaN, 1e-45, -0, 0);
    const results = [gpu.out(1), gpu.out(1), gpu.out(1), gpu.out(1)] as const;
    rowNorms(gpu.commands, codesOf(gpu, dense, 1, () => true), results[0], results[1]);
    normsInBlocks(gpu, gpu.f32(dense, 1, 4), results[2], results[3]);
    for (const l0 of [results[0], results[2]]) gpu.expect(l0, (got) => assertExact(got, [2]));
    for (const l1 of [results[1], results[3]]) gpu.expect(l1, (got) => assertExact(got, [NaN]));
  });
});

Deno.test("rows of 3 million latents are normed whole, and so are 70,000 rows", async () => {
  await check((gpu) => {
    for (const [rows, columns] of [[1, 3_000_000], [70_000, 3]] as const) {
      const [l0, l1] = [gpu.out(rows), gpu.out(rows)];
      normsInBlocks(gpu, gpu.f32(new Float32Array(rows * columns).fill(-1), rows, columns), l0, l1);
      const want = new Float32Array(rows).fill(columns);
      gpu.expect(l0, (got) => assertExact(got, want));
      gpu.expect(l1, (got) => assertExact(got, want));
    }
  });
});

/** Who fired, from sparse or dense codes, kept beside what was marked before. */
const firing = (sparse: boolean): KernelCase => (gpu) => {
  const random = new Random(4);
  for (const [rows, columns] of [...SHAPES, [200, 64]] as const) {
    // Most are never used.
    const dense = random.integers(rows * columns).map((value) => random.unit() < 0.7 / rows ? value : 0);
    if (rows > 1) dense.set([NaN, -1e-45].slice(0, columns), columns);
    const before = Uint32Array.from({ length: columns }, (_, s) => Number(s % 5 === 2));
    const fired = gpu.u32(before);
    if (sparse) markFired(gpu.commands, codesOf(gpu, dense, rows, (i) => dense[i] !== 0 || i % 3 === 0), fired);
    else {
      const f_BS = gpu.f32(dense, rows, columns);
      for (const { from, to } of spans(rows, 64)) {
        markFiredDense(gpu.commands, { values: f_BS.rows(from, to), threshold: undefined }, fired);
      }
    }
    const want = before.map((was, s) => {
      for (let r = 0; r < rows; r++) if (dense[r * columns + s] !== 0) return 1;
      return was;
    });
    gpu.expect(fired, (got) => assertExact(got, want, `${rows} × ${columns}`));
  }
};

const jumping: KernelCase = (gpu) => {
  const random = new Random(24);
  for (const [rows, columns] of [...SHAPES, [200, 64], [1, 301], [1, 300]] as const) {
    const { h_BS, threshold_S, f_BS } = jumps(random, rows, columns);
    const fired = gpu.u32(new Uint32Array(columns));
    const values = gpu.f32(h_BS, rows, columns).rows(0, rows);
    markFiredDense(gpu.commands, { values, threshold: gpu.f32(threshold_S) }, fired);
    const want = Array.from({ length: columns }, (_, s) => Number(f_BS.some((f, i) => i % columns === s && f !== 0)));
    gpu.expect(fired, (got) => assertExact(got, want, `${rows} × ${columns}`));
  }
};

Deno.test("who fired is marked, from sparse and from dense codes, and from what is behind them", async () => {
  await check(firing(true));
  await check(firing(false), {}, TEXTURES);
  await check(jumping, {}, TEXTURES);
});

Deno.test("of 70,000 rows the first and the last wake their latents", async () => {
  await check((gpu) => {
    const [rows, columns] = [70_000, 4];
    const dense = new Float32Array(rows * columns);
    dense[1] = 1;
    dense[dense.length - 1] = -1;
    const fired = gpu.u32(new Uint32Array(columns));
    markFiredDense(gpu.commands, { values: gpu.f32(dense, rows, columns).rows(0, rows), threshold: undefined }, fired);
    gpu.expect(fired, (got) => assertExact(got, [0, 1, 0, 1]));
  });
});

const dying: KernelCase = (gpu) => {
  const random = new Random(5);
  for (const d_sae of [1, 2, 31, 64, 65, 129, 1000]) {
    const [n_rows, threshold] = [7, 20];
    const fired = Uint32Array.from({ length: d_sae }, () => Number(random.integer(0, 3) === 0));
    const counters = Uint32Array.from({ length: d_sae }, () => [0, 12, 13, 14, 0xfffffffe][random.integer(0, 4)]!);
    const waited = counters.map((count, s) => fired[s] ? 0 : Math.min(count + n_rows, 0xffffffff));
    const dead = [...waited.keys()].filter((s) => waited[s]! >= threshold);
    const tensors = {
      fired: gpu.u32(fired),
      flags: gpu.outU32(d_sae),
      places: gpu.outU32(d_sae + 1),
      list: gpu.outU32(d_sae),
      count: gpu.outU32(1),
    };
    const counts = gpu.u32(counters);
    const wanted = gpu.outU32(d_sae);
    markDying(gpu.commands, { wanted, tokens_since_active: counts, n_rows, dead_threshold_tokens: threshold });
    gpu.expect(wanted, (got) => {
      assertExact(got, counters.map((count) => Number(count + n_rows >= threshold)), `dying of ${d_sae}`);
    });
    const halted = gpu.u32([0]);
    const given = { dead: tensors, tokens_since_active: counts, halted, n_rows, dead_threshold_tokens: threshold };
    updateDead(gpu.commands, { ...given, canBeDead: true });
    gpu.expect(counts, (got) => assertExact(got, waited, `counters of ${d_sae}`));
    gpu.expect(tensors.fired, (got) => assertExact(got, new Uint32Array(d_sae), "fired, forgotten"));
    gpu.expect(tensors.count, (got) => assertEquals(got[0], dead.length, `dead of ${d_sae}`));
    gpu.expect(tensors.list, (got) => {
      const rest = new Array<number>(d_sae - dead.length).fill(0xffffffff);
      assertExact(got, [...dead, ...rest], `list of ${d_sae}`);
    });
  }
};

Deno.test("counters go up for all but those that fired, stop at the top, and the dead are listed in order", async () => {
  await check(dying);
});

Deno.test("where none can be dead, counters go up all the same, and there are none", async () => {
  await check((gpu) => {
    const dead = {
      fired: gpu.u32([1, 0, 0]),
      flags: gpu.outU32(3),
      places: gpu.outU32(4),
      list: gpu.outU32(3),
      count: gpu.u32([2]),
    };
    const counts = gpu.u32([5, 6, 0]);
    updateDead(gpu.commands, {
      dead,
      tokens_since_active: counts,
      halted: gpu.u32([0]),
      n_rows: 10,
      dead_threshold_tokens: 17,
      canBeDead: false,
    });
    gpu.expect(counts, (got) => assertExact(got, [0, 16, 10]));
    gpu.expect(dead.fired, (got) => assertExact(got, [0, 0, 0]));
    gpu.expect(dead.flags, (got) => assertExact(got, [0, 0, 0]));
    gpu.expect(dead.count, (got) => assertExact(got, [0]));
  });
});

/** Sums of a row by subgroups, where there are any, and by barriers. */
const SUMS: readonly Variant[] = [{}, { subgroups: false }];

/** The float64 way, straight from the definitions. */
interface Residuals {
  readonly x: Float32Array;
  readonly x_hats: Float32Array;
  readonly b_dec: Float32Array;
  readonly n_rows: number;
  readonly n_prefixes: number;
  /** Rows in one call. */
  readonly block: number;
  readonly keep: boolean;
}

/** Of bits: the power of two at or below the largest |x|, at least 2⁻⁴⁰. */
function scaleOf(x: Float32Array): number {
  const most = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return 2 ** Math.max(-40, Math.floor(Math.log2(most || 1e-30)));
}

function largestBits(x: Float32Array): number {
  return new Uint32Array(Float32Array.of(x.reduce((most, value) => Math.max(most, Math.abs(value)), 0)).buffer)[0]!;
}

function recordResiduals(gpu: Recording, given: Residuals, integers: boolean): void {
  const { x, x_hats, b_dec, n_rows, n_prefixes, block, keep } = given;
  const D = b_dec.length;
  const scale = scaleOf(x);
  const tensors = {
    x: gpu.f32(x, n_rows, D),
    hats: gpu.f32(x_hats, n_rows, n_prefixes, D),
    residual: gpu.out(n_rows, D),
    squares: gpu.out(n_rows),
  };
  const shared = {
    b_dec: gpu.f32(b_dec),
    largest: gpu.u32([largestBits(x)]),
    squares: tensors.squares,
    n_rows,
    d_model: D,
    n_prefixes,
  };
  for (const { from, to } of spans(n_rows, block)) {
    residuals(gpu.commands, {
      ...shared,
      x: tensors.x.rows(from, to),
      x_hats: tensors.hats.rows(from, to),
      ...(keep ? { residual: tensors.residual.rows(from, to) } : {}),
      rows: to - from,
      firstRow: from,
    });
  }
  const weight = Math.fround(2 / (n_rows * n_prefixes * D));
  const squares = new Float64Array(n_rows);
  const squareSizes = new Float64Array(n_rows);
  const blocks = new Float64Array(x_hats.length);
  const blockSizes = new Float64Array(x_hats.length);
  const left = new Float64Array(n_rows * D);
  const leftSizes = new Float64Array(n_rows * D);
  for (let b = 0; b < n_rows; b++) {
    for (let d = 0; d < D; d++) {
      let sum = 0;
      let size = 0;
      for (let p = n_prefixes - 1; p >= 0; p--) {
        const at = (b * n_prefixes + p) * D + d;
        const error = x_hats[at]! + b_dec[d]! - x[b * D + d]!;
        const magnitude = Math.abs(x_hats[at]!) + Math.abs(b_dec[d]!) + Math.abs(x[b * D + d]!);
        if (p === n_prefixes - 1) {
          left[b * D + d] = -error;
          leftSizes[b * D + d] = magnitude;
        }
        squares[b]! += (error / scale) ** 2;
        squareSizes[b]! += (magnitude / scale) ** 2;
        sum += weight * error;
        size += weight * magnitude;
        blocks[at] = sum;
        blockSizes[at] = size;
      }
    }
  }
  const what = `${n_rows} rows of ${D}, ${n_prefixes} prefixes`;
  const terms = n_prefixes * D;
  gpu.expect(tensors.squares, (got) => {
    if (integers) assertExact(got, squares, `squares of ${what}`);
    else assertSumClose(got, squares, squareSizes, terms, `squares of ${what}`);
  });
  gpu.expect(tensors.hats, (got) => assertSumBound(got, blocks, blockSizes, n_prefixes + 2, `blocks of ${what}`));
  gpu.expect(tensors.residual, (got) => {
    if (keep) assertSumBound(got, left, leftSizes, 2, `residual of ${what}`);
    else assertExact(got, new Float32Array(n_rows * D).fill(NaN), `no residual of ${what}`);
  });
}

const residualCase = (keep: boolean): KernelCase => (gpu) => {
  const random = new Random(6);
  for (const [rows, D] of [...SHAPES, [200, 64]] as const) {
    for (const integers of [true, false]) {
      const make = (length: number) => integers ? random.integers(length) : random.normal(length, 5);
      const n_prefixes = random.integer(1, 4);
      recordResiduals(gpu, {
        x: make(rows * D),
        x_hats: make(rows * n_prefixes * D),
        b_dec: make(D),
        n_rows: rows,
        n_prefixes,
        block: 64,
        keep,
      }, integers);
    }
  }
};

const huge: KernelCase = (gpu) => {
  const random = new Random(7);
  const shared = { n_rows: 5, n_prefixes: 1, block: 5, keep: true };
  for (const scale of [2 ** 100, 2 ** -30]) {
    const make = (length: number) => random.integers(length).map((value) => value * scale);
    recordResiduals(gpu, { ...shared, x: make(50), x_hats: make(50), b_dec: make(10) }, true);
  }
  recordResiduals(
    gpu,
    { ...shared, x: new Float32Array(50), x_hats: random.integers(50), b_dec: random.integers(10) },
    true,
  );
};

Deno.test("residual blocks and squared errors of every prefix, in blocks of rows", async () => {
  await check(residualCase(false), ...SUMS);
  await check(residualCase(true), ...SUMS);
});

Deno.test("the square of a huge or a tiny x does not overflow or vanish, and a zero x gives numbers", async () => {
  await check(huge);
});

Deno.test("70,000 rows have residuals", async () => {
  await check((gpu) => {
    const random = new Random(8);
    const make = (length: number) => random.integers(length);
    const shared = { n_rows: 70_000, n_prefixes: 1, block: 70_000, keep: true };
    recordResiduals(gpu, { ...shared, x: make(140_000), x_hats: make(140_000), b_dec: make(2) }, true);
  });
});

interface Auxiliary {
  readonly rows: number;
  readonly D: number;
  readonly include_b_dec: boolean;
  readonly count: number;
  readonly inverse: number;
  readonly integers: boolean;
}

function recordAuxiliary(gpu: Recording, random: Random, given: Auxiliary): void {
  const { rows, D, include_b_dec, count, inverse, integers } = given;
  const make = (length: number) => integers ? random.integers(length) : random.normal(length);
  const [residual, attempt, b_dec] = [make(rows * D), make(rows * D), make(D)];
  const alpha = 1 / 32;
  const tensors = {
    residual: gpu.f32(residual, rows, D),
    attempt: gpu.f32(attempt, rows, 1, D),
    squares: gpu.out(rows),
  };
  for (const { from, to } of spans(rows, 64)) {
    auxiliaryResiduals(gpu.commands, {
      residual: tensors.residual.rows(from, to),
      reconstruction: tensors.attempt.rows(from, to),
      b_dec: gpu.f32(b_dec),
      include_b_dec,
      count: gpu.u32([count]),
      inverse: gpu.f32([inverse]),
      squares: tensors.squares,
      alpha,
      rows: to - from,
      firstRow: from,
      n_rows: rows,
      d_model: D,
    });
  }
  const bias = include_b_dec ? 1 : 0;
  const used = count > 0 ? 1 : 0;
  const errors = Float64Array.from(attempt, (value, i) => used * (value + bias * b_dec[i % D]! - residual[i]!));
  const sizes = Float64Array.from(attempt, (value, i) => {
    return Math.abs(value) + bias * Math.abs(b_dec[i % D]!) + Math.abs(residual[i]!);
  });
  const squares = new Float64Array(rows);
  const squareSizes = new Float64Array(rows);
  errors.forEach((error, i) => {
    squares[Math.floor(i / D)]! += error * error * inverse;
    squareSizes[Math.floor(i / D)]! += sizes[i]! ** 2 * inverse;
  });
  const weight = inverse * Math.fround(2 * alpha / (rows * D));
  const what = JSON.stringify(given);
  gpu.expect(tensors.squares, (got) => {
    if (integers) assertExact(got, squares, what);
    else assertSumClose(got, squares, squareSizes, D, what);
  });
  gpu.expect(tensors.attempt, (got) => {
    assertSumBound(got, errors.map((error) => weight * error), sizes.map((size) => weight * size), 3, what);
  });
}

const auxiliary: KernelCase = (gpu) => {
  const random = new Random(9);
  for (const [rows, D] of [...SHAPES, [200, 64]] as const) {
    for (const include_b_dec of [false, true]) {
      for (const count of [0, 3]) {
        const inverse = count + 1;
        for (const integers of [true, false]) {
          recordAuxiliary(gpu, random, { rows, D, include_b_dec, count, inverse, integers });
        }
      }
    }
  }
};

Deno.test("auxiliary residuals, with and without bias, and none where nothing is dead", async () => {
  await check(auxiliary, ...SUMS);
});

/** `(x̂ − x)²`, or over the length of x's row. A few operations, a root and a division. */
const squaredErrors = (norm: boolean): KernelCase => (gpu) => {
  const random = new Random(10);
  for (const [rows, D] of SHAPES) {
    const [x, x_hat] = [random.integers(rows * D), random.integers(rows * D)];
    const errors = meanSquaredErr(gpu.f32(x_hat, rows, D), gpu.f32(x, rows, D), { norm });
    gpu.own(errors);
    const lengths = new Float64Array(rows);
    x.forEach((value, i) => lengths[Math.floor(i / D)]! += value * value);
    const scale = scaleOf(x);
    const want = Float64Array.from(x, (value, i) => {
      const square = (x_hat[i]! - value) ** 2;
      if (!norm) return square;
      const length = Math.sqrt(lengths[Math.floor(i / D)]!) / scale + 1e-12;
      return (square / scale ** 2) / length * scale;
    });
    gpu.expect(errors, (got) => {
      if (norm) assertUlps(got, want, 3, 5, `${rows} × ${D}`);
      else assertExact(got, want, `${rows} × ${D}`);
    });
  }
};

Deno.test("squared errors element by element, plain and over the length of the row", async () => {
  await check(squaredErrors(false));
  await check(squaredErrors(true));
});

Deno.test("mutants of the objectives' kernels are found", async () => {
  await mutants("row_norms", [
    ["entry < end", "entry + 1u < end"],
    ["total(lane, f32(count))", "f32(count)"],
    ["abs(values[entry])", "values[entry]"],
  ], sparseNorms);
  await mutants("row_norms", [["l1[group] = sum;", "l1[group] = quantizeToF16(sum);"]], preciseNorms);
  await mutants("dense_row_norms", [
    ["l0[dims.first_row + group]", "l0[group]"],
    ["i < loads", "i <= loads"],
    ["& 0x7fffffffu", "& 0xffffffffu"],
  ], (gpu) => {
    denseNorms(gpu);
    const [l0, l1] = [gpu.out(1), gpu.out(1)];
    normsInBlocks(gpu, gpu.f32([-0], 1, 1), l0, l1);
    expectNorms(gpu, l0, l1, { want: normsOf(Float32Array.of(0), 1) });
  });
  await mutants("dense_row_norms", [["= all.y;", "= quantizeToF16(all.y);"]], preciseNorms);
  await mutants("mark_fired", [
    ["& 0x7fffffffu) != 0u", "& 0x7fffffffu) > 0x7fffffu"],
    ["entry >= row_starts[dims.n_rows]", "entry >= row_starts[dims.n_rows] - 1u"],
    ["fired[indices[entry]]", "fired[indices[entry] / 2u]"],
  ], firing(true));
  await mutants("mark_fired_dense", [
    ["row < end", "row + 1u < end"],
    ["row * loads + first", "row * loads + 0u * first"],
    ["& 0x7fffffffu) != 0u) { atomicStore", "& 0x7fffffffu) == 0u) { atomicStore"],
  ], firing(false));
  await mutants("mark_fired_dense", [["is_nan | ", ""], ["max(threshold, f32(0.0))", "threshold"]], jumping);
  await mutants("dense_row_norms", [["value > limit", "value >= limit"], ["threshold[i]", "threshold[0]"]], jumpNorms);
  await mutants("update_dead", [
    ["min(n_rows, 0xffffffffu - waited)", "n_rows"],
    [">= dims.dead_threshold_tokens", "> dims.dead_threshold_tokens"],
    ["fired[s] = 0u;", ""],
  ], dying);
  await mutants("mark_dying", [
    ["min(n_rows, 0xffffffffu - waited)", "n_rows"],
    [">= dims.dead_threshold_tokens", "> dims.dead_threshold_tokens"],
    ["tokens_since_active[s]", "tokens_since_active[0]"],
  ], dying);
  await mutants("list_dead", [
    ["list[places[s]] = s", "list[places[s]] = places[s]"],
    ["if (flags[s] != 0u)", "if (flags[s] == 0u)"],
    ["count[0] = places[dims.d_sae]", "count[0] = places[dims.d_sae - 1u]"],
  ], dying);
  const residualMutants = [
    ["squares[dims.first_row + group]", "squares[group]"],
    [", error0, summed0)", ", error0, 0.0 * summed0)"],
    [", square)", ", 0.0)"],
    ["= sum;", "= quantizeToF16(sum);"],
  ] as const;
  await mutants("residuals", residualMutants, residualCase(false));
  await mutants("keeping_residuals", [...residualMutants, ["= -last0;", "= last0;"]], residualCase(true));
  await mutants("keeping_residuals", [["87u, 253u", "1u, 253u"]], huge);
  await mutants("auxiliary_residuals", [
    ["b_dec[d], reconstruction[at])", "b_dec[d] - b_dec[d], reconstruction[at])"],
    ["count[0] > 0u", "count[0] >= 0u"],
    ["dims.weight * error", "quantizeToF16(dims.weight) * error"],
  ], auxiliary);
  await mutants("squared_error", [
    ["group * dims.columns", "group"],
    ["sqrt(total(lane, square))", "total(lane, square)"],
    ["dims.norm == 1u", "dims.norm == 0u"],
  ], squaredErrors(true));
});
