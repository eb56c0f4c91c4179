/**
 * The non-zero elements of dense rows, or those near and above thresholds, in order, appended block by block.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { denseToCsr, type DenseToCsrArguments } from "../../kernels/dense_to_csr.ts";
import { spans } from "../../kernels/engine/tensor.ts";
import { caseContext, check, type KernelCase, mutants, type Recording, TEXTURES } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";

/** Compacts `dense` in blocks of `block` rows. `room` elements more than needed stay as they were. */
function compact(gpu: Recording, dense: Float32Array, rows: number, block = rows, room = 4): void {
  const columns = dense.length / rows;
  const bits = new Uint32Array(dense.buffer, dense.byteOffset, dense.length);
  const starts = new Uint32Array(rows + 1);
  const indices: number[] = [];
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      // By bits: a denormal is not zero, and −0 is.
      if ((bits[r * columns + c]! & 0x7fffffff) !== 0) {
        indices.push(c);
        values.push(bits[r * columns + c]!);
      }
    }
    starts[r + 1] = indices.length;
  }
  const capacity = indices.length + room;
  const x = gpu.f32(dense, rows, columns);
  const results = { starts: gpu.outU32(rows + 1), indices: gpu.outU32(capacity), values: gpu.out(capacity) };
  for (const { from, to } of spans(rows, block)) {
    denseToCsr(gpu.commands, {
      ...results,
      dense: x.rows(from, to),
      rows: to - from,
      columns,
      firstRow: from,
      allRows: rows,
      capacity,
    });
  }
  const untouched = new Array<number>(room).fill(0xffffffff);
  const what = `${rows} × ${columns}`;
  gpu.expect(results.starts, (got) => assertExact(got, starts, `starts of ${what}`));
  gpu.expect(results.indices, (got) => assertExact(got, [...indices, ...untouched], `indices of ${what}`));
  gpu.expect(results.values, (got) => {
    const want = new Float32Array(Uint32Array.from([...values, ...untouched]).buffer);
    assertSameBits(got, want, `values of ${what}`);
  });
}

function thinned(random: Random, length: number, density: number): Float32Array {
  return random.normal(length).map((value) => random.unit() < density ? value : 0);
}

const ragged: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const rows of [1, 2, 3, 31, 33, 129, 300]) {
    for (const columns of [1, 2, 5, 63, 64, 65, 100, 129, 333, 2200]) {
      const density = [0, 0.05, 0.5, 1][random.integer(0, 3)]!;
      compact(gpu, thinned(random, rows * columns, density), rows);
    }
  }
  compact(gpu, thinned(random, 300 * 33, 0.3), 300, 64);
  compact(gpu, thinned(random, 200 * 64, 0.3), 200, 128);
};

Deno.test("non-zero elements keep their order at ragged shapes and in blocks of rows", async () => {
  await check(ragged, {}, { lanes: 32 }, TEXTURES);
});

Deno.test("NaN, infinities and denormals are not zero, and −0 is", async () => {
  await check((gpu) => {
    const bits = Uint32Array.of(
      0,
      0x80000000,
      1,
      0x80000001,
      0x7f800000,
      0xff800000,
      0x7fc00000,
      0xff800001,
      0x3f800000,
    );
    compact(gpu, new Float32Array(bits.buffer), 1);
    compact(gpu, new Float32Array(bits.buffer), 3);
  });
});

Deno.test("rows of as many columns as there may be are compacted whole, and wider ones refused", async () => {
  const most = 64 * 32_000;
  await check((gpu) => {
    const dense = new Float32Array(2 * most);
    for (let i = 0; i < dense.length; i += 997) dense[i] = i + 1;
    dense[most - 1] = dense[2 * most - 1] = -1;
    compact(gpu, dense, 2);
  });
  const commands = new Commands(await caseContext());
  const none = { rows: 1, firstRow: 0, allRows: 1, capacity: 0 } as never as DenseToCsrArguments;
  assertThrows(() => denseToCsr(commands, { ...none, columns: most + 1 }), RangeError, `${most + 1}`);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => compact(gpu, thinned(new Random(2), 140_000, 0.5), 70_000));
});

interface NearbyCase {
  readonly rows: number;
  readonly columns: number;
  readonly block?: number;
  /** The share of the entries that there is room for. */
  readonly room?: number;
}

/** Integers, with thresholds (some below 0) and windows of integers, whose ends are no neighbours; every seventh column whole. */
function compactNearby(gpu: Recording, random: Random, given: NearbyCase): void {
  const { rows, columns, block = rows, room = 1 } = given;
  const dense = random.integers(rows * columns);
  if (dense.length > 3) dense.set([NaN, -Infinity, -0], 1);
  const thresholds = random.integers(columns);
  const whole = Uint32Array.from({ length: columns }, (_, c) => Number(c % 7 === 3));
  const width = 2 * random.integer(1, 3);
  const isKept = (value: number, c: number): boolean => {
    const threshold = Math.max(thresholds[c]!, 0);
    return Number.isNaN(value) || value > threshold || Math.abs(value - threshold) < width / 2 || whole[c] === 1;
  };
  const starts = new Uint32Array(rows + 1);
  const indices: number[] = [];
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      if (!isKept(dense[r * columns + c]!, c)) continue;
      indices.push(c);
      values.push(dense[r * columns + c]!);
    }
    starts[r + 1] = indices.length;
  }
  const capacity = Math.floor(room * indices.length) + (room === 1 ? 4 : 0);
  // Only whole rows are written.
  const written = starts.findLast((start) => start <= capacity)!;
  const x = gpu.f32(dense, rows, columns);
  const results = { starts: gpu.outU32(rows + 1), indices: gpu.outU32(capacity), values: gpu.out(capacity) };
  const nearby = { thresholds: gpu.f32(thresholds), width, whole: gpu.u32(whole) };
  for (const { from, to } of spans(rows, block)) {
    denseToCsr(gpu.commands, {
      ...results,
      dense: x.rows(from, to),
      rows: to - from,
      columns,
      firstRow: from,
      allRows: rows,
      capacity,
      nearby,
    });
  }
  const what = JSON.stringify(given);
  const rest = new Array<number>(capacity - written).fill(0xffffffff);
  gpu.expect(results.starts, (got) => assertExact(got, starts, `starts of ${what}`));
  gpu.expect(results.indices, (got) => assertExact(got, [...indices.slice(0, written), ...rest], `indices of ${what}`));
  gpu.expect(results.values, (got) => {
    assertExact(got.slice(0, written), values.slice(0, written), `values of ${what}`);
    assertExact(new Uint32Array(got.slice(written).buffer), rest, `the rest of ${what}`);
  });
}

const nearbyCase: KernelCase = (gpu) => {
  const random = new Random(3);
  for (const rows of [1, 2, 3, 31, 129]) {
    for (const columns of [1, 5, 63, 64, 65, 129, 300]) compactNearby(gpu, random, { rows, columns });
  }
  compactNearby(gpu, random, { rows: 200, columns: 64, block: 128 });
};

/** Rows that do not fit, in the first block, in a later one, and everywhere. */
const overflow: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const room of [0, 0.3, 0.7, 0.999]) compactNearby(gpu, random, { rows: 200, columns: 64, block: 64, room });
};

Deno.test("elements above, near or in whole columns keep their order, zeros among them", async () => {
  await check(nearbyCase, {}, { lanes: 32 }, TEXTURES);
});

Deno.test("rows past the capacity are counted and not written, and nothing is behind it", async () => {
  await check(overflow);
});

Deno.test("counts stop before 32 bits end", async () => {
  await check((gpu) => {
    const starts = gpu.u32([0, 0xfffffff0 >>> 1, 0, 0]);
    const dense = gpu.f32(new Float32Array(2 * 64).fill(1), 2, 64);
    const entries = { indices: gpu.outU32(1), values: gpu.out(1), capacity: 1 };
    const sizes = { rows: 1, columns: 64, allRows: 3 };
    for (const row of [1, 2]) {
      denseToCsr(gpu.commands, { ...sizes, ...entries, dense: dense.rows(row - 1, row), firstRow: row, starts });
    }
    gpu.expect(starts, (got) => assertExact(got, [0, 0x7ffffff8, 0x80000000, 0x80000000]));
  });
});

Deno.test("mutants of the compaction near thresholds are found", async () => {
  await mutants("count_nearby", [
    ["max(limit, Load(0.0))", "limit"],
    ["0.5 * width", "width"],
    ["!= Words(0u)", "== Words(9u)"],
  ], nearbyCase);
  await mutants("write_nearby", [
    ["is_nan | ", ""],
    ["< Load(0.5 * width)", "<= Load(0.5 * width)"],
    ["indices[at] = c", "indices[at] = c + 1u"],
  ], nearbyCase);
  await mutants("write_nearby", [
    ["> dims.capacity", "> dims.capacity + 64u"],
    ["starts[dims.firstRow + group + 1u] > dims.capacity", "starts[dims.firstRow + group] > dims.capacity"],
    ["starts[dims.firstRow + group + 1u] > dims.capacity", "starts[dims.allRows] > dims.capacity"],
  ], overflow);
});

Deno.test("mutants of the compaction are found", async () => {
  await mutants("count_rows", [
    ["starts[dims.firstRow + group + 1u] = all", "starts[group + 1u] = all"],
    ["& Words(0x7fffffffu)", "& Words(0xffffffffu)"],
    ["< loads", "<= loads"],
    ["min(low + stretch, words)", "min(low + 1u, words)"],
  ], (gpu) => {
    ragged(gpu);
    compact(gpu, new Float32Array(20).fill(-0), 2);
  });
  await mutants("row_starts", [
    ["sum = starts[dims.firstRow] + ", "sum = "],
    ["lane >= step", "lane > step"],
    ["let high = min(low + stretch, dims.rows)", "let high = min(low + stretch, dims.rows - 1u)"],
  ], ragged);
  await mutants("write_rows", [
    ["indices[at] = c", "indices[at] = c - low"],
    ["at += counts[i]", "at += 0u"],
    ["var at = starts[dims.firstRow + group]", "var at = starts[group]"],
  ], ragged);
});
