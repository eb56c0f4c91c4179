/**
 * The k largest of a whole matrix: exact against a sort, for any input, whatever the blocks.
 *
 * @module
 */

import { BatchTopK } from "../../kernels/batch_top_k.ts";
import { aboveThreshold } from "../../kernels/elementwise.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";

/** NaN above all numbers, −0 as 0, and of equals the first. */
function before(values: Float32Array, i: number, j: number): number {
  const [a, b] = [values[i]!, values[j]!];
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? -1 : 1;
  return a > b ? -1 : a < b ? 1 : i - j;
}

/** Selects `k` of `values` on the GPU, and expects what a sort says. */
function select(gpu: Recording, values: Float32Array, rows: number, k: number, used?: BatchTopK): BatchTopK {
  const columns = values.length / rows;
  const kept = Array.from(values.keys()).sort((i, j) => before(values, i, j)).slice(0, k).sort((i, j) => i - j);
  const wantedStarts = Array.from({ length: rows + 1 }, (_, row) => kept.filter((i) => i < row * columns).length);
  const selection = used ?? new BatchTopK(gpu.context, rows, columns);
  if (!used) gpu.after(selection);
  const [starts, indices, selected] = [gpu.outU32(rows + 1), gpu.outU32(k), gpu.out(k)];
  selection.record(gpu.commands, { values: gpu.f32(values, rows, columns), k, capacity: k, starts, indices, selected });
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
  select(gpu, Float32Array.from({ length: 60 }, (_, i) => -i), 6, 30, used);
  // One row owns all of them.
  select(gpu, Float32Array.from({ length: 50 * 100 }, (_, i) => Math.floor(i / 100) === 31 ? 1 + i : -i), 50, 90);
};

Deno.test("the k largest of a matrix at ragged shapes, with ties, in blocks of rows", async () => {
  await check(ragged, {}, { lanes: 32 }, { bindingLimit: 2 ** 16 });
});

Deno.test("any input: zeros of both signs, NaN, infinities, denormals, all equal, one row with all", async () => {
  await check(special);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  const random = new Random(2);
  await check((gpu) => {
    const values = random.normal(70_000);
    values[69_999] = 50;
    select(gpu, values, 70_000, 20);
  });
});

const both: KernelCase = (gpu) => {
  ragged(gpu);
  special(gpu);
};

Deno.test("mutants of the selection are found", async () => {
  await mutants("key_histogram", [
    ["group * dims.columns + c", "c"],
    ["let known_bits = found[0] & known;", "let known_bits = found[0];"],
    ["atomicAdd(&histogram[bin], count)", "atomicAdd(&histogram[bin], 1u)"],
  ], both);
  await mutants("pick_digit", [
    ["select(found[1], dims.k, is_first)", "dims.k"],
    ["left -= histogram[bin];", "left -= 1u;"],
    ["found[0] = above |", "found[0] ="],
  ], both);
  await mutants(
    "count_above",
    [
      ["larger += u32(key > bound)", "larger += u32(key >= bound)"],
      ["above[dims.firstRow + group] = larger", "above[group] = larger"],
      ["let high = min(low + stretch, dims.columns)", "let high = low + stretch"],
    ],
    both,
    { bindingLimit: 2 ** 16 },
  );
  await mutants("batch_starts", [
    ["starts[row] = larger + min(same, found[1])", "starts[row] = larger + same"],
    ["i < lane", "i <= lane"],
    ["min(same + equal[row], found[1])", "same + equal[row]"],
  ], both);
  await mutants(
    "write_above",
    [
      ["indices[at] = c", "indices[at] = c + 1u"],
      ["same < quota", "same <= quota"],
      ["taken[dims.firstRow + group]", "taken[group]"],
    ],
    both,
    { bindingLimit: 2 ** 16 },
  );
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
    ["value > max(", "value >= max("],
    ["max(threshold[i % dims.thresholds], 0.0)", "threshold[0]"],
    ["is_nan || ", ""],
  ], thresholds);
});
