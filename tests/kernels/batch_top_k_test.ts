/**
 * The k largest of a whole matrix: exact against a sort, for any input, whatever the blocks.
 *
 * @module
 */

import { BatchTopK, type MatrixRows } from "../../kernels/batch_top_k.ts";
import { aboveThreshold } from "../../kernels/elementwise.ts";
import { MAXIMA_COLUMNS } from "../../kernels/matmul_tiles.ts";
import { spans } from "../../kernels/engine/tensor.ts";
import { columnMaxima } from "../reference/keys.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";

/** NaN above all numbers, −0 as 0, and of equals the first. */
function before(values: Float32Array, i: number, j: number): number {
  const [a, b] = [values[i]!, values[j]!];
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? -1 : 1;
  return a > b ? -1 : a < b ? 1 : i - j;
}

/** Some rows with their maxima; what is behind them is larger than everything. */
function tileOf(gpu: Recording, values: Float32Array, columns: number, from: number, to: number): MatrixRows {
  const rows = to - from;
  const blocks = Math.ceil(columns / MAXIMA_COLUMNS);
  const maxima = new Uint32Array(blocks * (rows + 1)).fill(0xffffffff);
  for (let r = 0; r < rows; r++) {
    const keys = columnMaxima(values.subarray((from + r) * columns, (from + r + 1) * columns));
    keys.forEach((key, g) => maxima[g * (rows + 1) + r] = key);
  }
  const tile = new Float32Array((rows + 1) * columns).fill(NaN);
  tile.set(values.subarray(from * columns, to * columns));
  return { values: gpu.f32(tile, rows + 1, columns), maxima: gpu.u32(maxima, blocks, rows + 1), from, to };
}

/** How a matrix is handed over: so many rows at a time, to a selection of an earlier one. */
interface Way {
  readonly tile?: number;
  readonly used?: BatchTopK;
}

/** Selects `k` of `values` on the GPU, and expects what a sort says. */
function select(gpu: Recording, values: Float32Array, rows: number, k: number, way: Way = {}): BatchTopK {
  const { tile = Math.ceil(rows / 3), used } = way;
  const columns = values.length / rows;
  const kept = Array.from(values.keys()).sort((i, j) => before(values, i, j)).slice(0, k).sort((i, j) => i - j);
  const wantedStarts = Array.from({ length: rows + 1 }, (_, row) => kept.filter((i) => i < row * columns).length);
  const selection = used ?? new BatchTopK(gpu.context, rows, columns, k);
  if (!used) gpu.after(selection);
  const [starts, indices, selected] = [gpu.outU32(rows + 1), gpu.outU32(k), gpu.out(k)];
  const tiles = [...spans(rows, tile)].map(({ from, to }) => tileOf(gpu, values, columns, from, to));
  selection.select(gpu.commands, { k, capacity: k, starts, indices, selected, forEach: (use) => tiles.forEach(use) });
  const what = `${k} of ${rows} × ${columns}`;
  gpu.expect(starts, (got) => assertExact(got, wantedStarts, `starts, ${what}`));
  gpu.expect(indices, (got) => assertExact(got, kept.map((i) => i % columns), `indices, ${what}`));
  gpu.expect(selected, (got) => assertSameBits(got, Float32Array.from(kept, (i) => values[i]!), `values, ${what}`));
  return selection;
}

const ragged: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const [rows, columns] of [[1, 1], [1, 65], [2, 3], [5, 31], [33, 7], [63, 64], [65, 129], [300, 65]] as const) {
    const size = rows * columns;
    const values = Float32Array.from({ length: size }, () => random.integer(-6, 6));
    for (const k of new Set([1, Math.ceil(size / 3), size - 1, size].filter((k) => k > 0 && k < 16000))) {
      select(gpu, values, rows, k);
    }
    select(gpu, random.normal(size), rows, Math.ceil(size / 4));
  }
};

const special: KernelCase = (gpu) => {
  const odd = Float32Array.of(0, -0, NaN, -Infinity, Infinity, 1e-45, -1e-45, 1, -1, 3.4e38, -3.4e38, 0);
  for (let k = 1; k <= odd.length; k++) select(gpu, odd, 3, k);
  select(gpu, new Float32Array(40 * 25).fill(-2), 40, 77);
  select(gpu, new Float32Array(40 * 25), 40, 999);
  // What a selection leaves behind does not reach the next one.
  const used = select(gpu, Float32Array.from({ length: 60 }, (_, i) => 1e30 - i * 1e28), 6, 30);
  select(gpu, Float32Array.from({ length: 60 }, (_, i) => -i), 6, 30, { used });
  // The bound is the k-th value itself, and in the fourth column of its neighbours.
  const few = new Float32Array(5 * 40).fill(-1);
  [3, 51, 99].forEach((place, i) => few[place] = 2 ** i);
  select(gpu, few, 5, 3, { tile: 5 });
  // What lies behind a row is larger than its own last values.
  const edges = new Random(6).normal(40 * 31).map((value, i) => [10, 5][i % 31 / 30] ?? value / 8);
  select(gpu, edges.map((value, i) => value > 1 ? value + Math.floor(i / 31) : value), 40, 12);
  // Fewer candidates than there is room for, all of them negative.
  select(gpu, new Random(5).normal(30 * 40).map((value) => -Math.abs(value)), 30, 25);
  // Every tile is larger than those before: more candidates than there is room for.
  const growing = new Random(4).normal(96 * 64).map((value, i) => Math.floor(i / 64) + value / 8);
  select(gpu, growing, 96, 20, { tile: 1 });
  select(gpu, growing, 96, 500, { tile: 2 });
  // One row owns all of them.
  select(gpu, Float32Array.from({ length: 50 * 100 }, (_, i) => Math.floor(i / 100) === 31 ? 1 + i : -i), 50, 90);
};

Deno.test("the k largest of a matrix at ragged shapes, with ties, in blocks of rows", async () => {
  await check(ragged, {}, { lanes: 32 }, { ...TEXTURES, bindingLimit: 2 ** 16 });
});

Deno.test("any input: zeros of both signs, NaN, infinities, denormals, all equal, one row with all", async () => {
  await check(special);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => {
    const values = new Random(2).normal(70_000);
    values[69_999] = 50;
    select(gpu, values, 70_000, 20);
  });
});

const mutated: KernelCase = (gpu) => {
  const random = new Random(7);
  for (const [rows, columns, k] of [[5, 31, 60], [33, 7, 70], [65, 129, 2000], [300, 65, 1700]] as const) {
    select(gpu, random.integers(rows * columns, -6, 6), rows, k);
  }
  special(gpu);
};

Deno.test("mutants of the selection are found", async () => {
  await mutants("maxima_histogram", [["* dims.stride + row", "* dims.stride + row + 1u"]], mutated);
  await mutants("key_histogram", [
    ["(group * 16u + turn) * 64u", "group * 64u"],
    ["is_first || key >> above", "key >> above"],
    ["min(dims.size, limit[0])", "dims.size"],
  ], mutated);
  await mutants("pick_digit", [
    ["select(found[1], dims.k, is_first)", "dims.k"],
    ["left -= histogram[bin];", "left -= 1u;"],
    ["found[0] = before |", "found[0] ="],
    ["i < lane", "i <= lane"],
  ], mutated);
  await mutants("collect_candidates", [
    ["key_of(value3) >= bound[0]", "key_of(value3) > bound[0]"],
    ["first_column + 7u < dims.columns", "true"],
    ["min(32u, high - begin)", "32u"],
    ["if (fits == 0u) { overflow[0] = 1u; }", ""],
    ["candidates[at] = value2;", "candidates[at] = quantizeToF16(value2);"],
  ], mutated);
  await mutants("batch_starts", [
    ["start += tallies[2u * row] + taken", "start += tallies[2u * row] + tallies[2u * row + 1u]"],
    ["i < lane", "i <= lane"],
    ["found[2] = same", "found[2] = 0u"],
    ["if (dims.firstRow > 0u)", "if (false)"],
  ], mutated);
  for (const [rows, column] of [["candidates", "places[first + i]"], ["rows", "i;"]] as const) {
    await mutants(`count_${rows}_above`, [
      ["larger += u32(key > bound)", "larger += u32(key >= bound)"],
      ["tallies[2u * (dims.firstRow + group)] = larger", "tallies[2u * group + 1u] = larger"],
      ["let high = min(low + stretch, length)", "let high = low + stretch"],
    ], mutated);
    await mutants(`write_${rows}_above`, [
      [`indices[at] = ${column}`, `indices[at] = 1u + ${column}`],
      ["same < quota", "same <= quota"],
      ["starts[dims.firstRow + group]", "starts[dims.firstRow]"],
    ], mutated);
  }
});

const thresholds: KernelCase = (gpu) => {
  const random = new Random(3);
  for (const threshold of [0.5, 0, -1, 2]) {
    for (const size of [1, 63, 255, 257, 70_001]) {
      const values = Float32Array.from({ length: size }, () => random.integer(-4, 4) / 2);
      values[0] = NaN;
      const x = gpu.f32(values);
      aboveThreshold(gpu.commands, { x, size, threshold: gpu.f32([threshold]), thresholds: 1 });
      const want = values.map((value) => Number.isNaN(value) || value > Math.max(threshold, 0) ? value : 0);
      gpu.expect(x, (got) => assertSameBits(got, want, `${size} values above ${threshold}`));
    }
  }
};

Deno.test("what is not above the threshold becomes 0: strictly, never below 0, and NaN stays", async () => {
  await check(thresholds);
  await mutants("above_threshold", [
    ["value > limit", "value >= limit"],
    ["max(threshold, f32(0.0))", "threshold"],
    ["is_nan | ", ""],
  ], thresholds);
});
