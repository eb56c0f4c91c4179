/**
 * The non-zero elements of dense rows, in order, appended block by block.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/commands.ts";
import { compactRows, type CompactRowsArguments } from "../../kernels/compact_rows.ts";
import { spans } from "../../kernels/tensor.ts";
import { caseContext, check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
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
    compactRows(gpu.commands, {
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
    for (const columns of [1, 2, 5, 63, 64, 65, 100, 129]) {
      const density = [0, 0.05, 0.5, 1][random.integer(0, 3)]!;
      compact(gpu, thinned(random, rows * columns, density), rows);
    }
  }
  compact(gpu, thinned(random, 300 * 33, 0.3), 300, 64);
  compact(gpu, thinned(random, 200 * 64, 0.3), 200, 128);
};

Deno.test("non-zero elements keep their order at ragged shapes and in blocks of rows", async () => {
  await check(ragged, {}, { lanes: 32 });
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
  const none = { rows: 1, firstRow: 0, allRows: 1, capacity: 0 } as never as CompactRowsArguments;
  assertThrows(() => compactRows(commands, { ...none, columns: most + 1 }), RangeError, `${most + 1}`);
});

Deno.test("70,000 rows are more than one dimension of workgroups", async () => {
  await check((gpu) => compact(gpu, thinned(new Random(2), 140_000, 0.5), 70_000));
});

Deno.test("mutants of the compaction are found", async () => {
  await mutants("count_rows", [
    ["starts[dims.firstRow + group + 1u] = all", "starts[group + 1u] = all"],
    ["& 0x7fffffffu", "& 0xffffffffu"],
    ["let high = min(low + stretch, dims.columns)", "let high = low + stretch"],
  ], (gpu) => {
    ragged(gpu);
    compact(gpu, new Float32Array(20).fill(-0), 2);
  });
  await mutants("row_starts", [
    ["sum = starts[dims.firstRow];", "sum = 0u;"],
    ["i < lane", "i <= lane"],
    ["let high = min(low + stretch, dims.rows)", "let high = min(low + stretch, dims.rows - 1u)"],
  ], ragged);
  await mutants("write_rows", [
    ["indices[at] = c", "indices[at] = c - low"],
    ["at += counts[i]", "at += 0u"],
    ["var at = starts[dims.firstRow + group]", "var at = starts[group]"],
  ], ragged);
});
