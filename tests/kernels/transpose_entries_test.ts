/**
 * Sparse rows listed by column: every entry once, by column and then by row, however often it is done.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { scanKernel, Transposition } from "../../kernels/transpose_entries.ts";
import type { Tensor } from "../../kernels/engine/tensor.ts";
import {
  caseContext,
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact } from "../support/tolerance.ts";

const VARIANTS: readonly Variant[] = [{}, { lanes: 32 }, TEXTURES];

interface Sparse {
  readonly columns: number;
  /** [rows + 1] */
  readonly starts: Uint32Array;
  readonly indices: Uint32Array;
}

/** Rows whose columns `has` says. */
function sparse(rows: number, columns: number, has: (row: number, column: number) => boolean): Sparse {
  const starts = new Uint32Array(rows + 1);
  const indices: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) if (has(r, c)) indices.push(c);
    starts[r + 1] = indices.length;
  }
  return { columns, starts, indices: Uint32Array.from(indices) };
}

/** The same the obvious way: a list a column. */
function reference({ columns, starts, indices }: Sparse) {
  const entryRows = new Uint32Array(indices.length);
  const counts = new Uint32Array(columns + 1);
  for (const column of indices) counts[column + 1]!++;
  for (let c = 0; c < columns; c++) counts[c + 1]! += counts[c]!;
  const next = counts.slice();
  const entries = new Uint32Array(indices.length);
  for (let r = 0; r + 1 < starts.length; r++) {
    for (let e = starts[r]!; e < starts[r + 1]!; e++) {
      entryRows[e] = r;
      entries[next[indices[e]!]!++] = e;
    }
  }
  return { entryRows, starts: counts, entries };
}

/**
 * Transposes `times` in the same buffers, after others of that shape. `room` entries more than there are stay as
 * they were.
 */
function transpose(
  gpu: Recording,
  given: Sparse,
  { room = 5, times = 1, after = [] }: {
    readonly room?: number;
    readonly times?: number;
    readonly after?: readonly Sparse[];
  } = {},
): void {
  const { columns } = given;
  const rows = given.starts.length - 1;
  const capacity = given.indices.length + room;
  const transposition = new Transposition(gpu.context, rows, columns, capacity, "transposition");
  const { columns: result, entryRows } = transposition;
  const record = ({ starts, indices }: Sparse) => {
    const padded = new Uint32Array(capacity).fill(0xffffffff);
    padded.set(indices);
    const entries = { starts: gpu.u32(starts), indices: gpu.u32(padded), values: gpu.out(capacity) };
    transposition.transpose(gpu.commands, { rows, capacity, ...entries });
  };
  after.forEach(record);
  for (let i = 0; i < times; i++) record(given);
  const want = reference(given);
  const filled = (values: Uint32Array) => [...values, ...new Uint32Array(room)];
  gpu.own(entryRows);
  gpu.expect(entryRows, (got) => assertExact(got, filled(want.entryRows), "row of each entry"));
  for (const [name, values] of [["starts", want.starts], ["entries", filled(want.entries)]] as const) {
    const tensor = result[name] as Tensor<"u32">;
    gpu.own(tensor);
    gpu.expect(tensor, (got) => assertExact(got, values, `${name} by column, ${rows} × ${columns}`));
  }
  gpu.after(transposition);
}

const ragged: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const rows of [1, 2, 31, 33, 64, 65, 129]) {
    for (const columns of [1, 3, 32, 65, 100]) {
      const density = random.unit();
      transpose(gpu, sparse(rows, columns, () => random.unit() < density), { room: random.integer(0, 9) });
    }
  }
};

Deno.test("entries are listed by column and row at ragged shapes", async () => {
  await check(ragged, ...VARIANTS);
});

Deno.test("columns without entries, rows without entries, and no entries at all", async () => {
  await check((gpu) => {
    transpose(gpu, sparse(10, 40, () => false));
    transpose(gpu, sparse(40, 10, (row, column) => row === 39 && column === 9));
    transpose(gpu, sparse(40, 10, (row, column) => row % 7 === 3 && column % 3 === 1));
    transpose(gpu, sparse(0, 7, () => false));
  }, ...VARIANTS);
});

Deno.test("ten reruns in the same buffers give the same lists", async () => {
  const random = new Random(2);
  // A hot column, whose entries come in any order at first.
  const given = sparse(700, 50, (_, column) => column === 7 || random.unit() < 0.1);
  for (let i = 0; i < 10; i++) await check((gpu) => transpose(gpu, given, { times: 1 + i % 3 }), ...VARIANTS);
});

/** Columns of many entries, none of which is one in the matrices before. */
const others: KernelCase = (gpu) => {
  const half = (first: number) => sparse(201, 20, (row, column) => column % 2 === first && (row + column) % 3 > 0);
  transpose(gpu, half(0), { after: [half(1), half(1)], room: 0 });
};

Deno.test("columns of many entries are those of this matrix, whatever those before were", async () => {
  await check(others, ...VARIANTS);
});

/** The hottest column there can be: every row uses it. */
const hot = (rows: number): Sparse => ({
  columns: 100,
  starts: Uint32Array.from({ length: rows + 1 }, (_, row) => 2 * row),
  indices: Uint32Array.from({ length: 2 * rows }, (_, e) => e % 2 === 0 ? 3 : 4 + (e * 7) % 96),
});

Deno.test("a column that every one of 100,000 rows uses, or of as many as there may be", async () => {
  const [many, most] = [hot(100_000), hot(262_144)];
  await check((gpu) => transpose(gpu, many), ...VARIANTS);
  await check((gpu) => transpose(gpu, most), ...VARIANTS);
});

Deno.test("more rows than an invocation can order are refused", async () => {
  const context = await caseContext();
  assertThrows(() => new Transposition(context, 262_145, 3, 9, "too many"), RangeError, "too many");
});

Deno.test("more entries than one dimension of workgroups has invocations", async () => {
  const [rows, each] = [66_000, 64];
  const given = {
    columns: 64 * each,
    starts: Uint32Array.from({ length: rows + 1 }, (_, row) => row * each),
    indices: Uint32Array.from({ length: rows * each }, (_, e) => 64 * (e % each) + Math.imul(e, 7) % 64),
  };
  await check((gpu) => transpose(gpu, given));
});

const scan = (n: number): KernelCase => (gpu) => {
  const random = new Random(n);
  const counts = Uint32Array.from({ length: n }, () => random.integer(0, 9));
  const want = new Uint32Array(n + 1);
  counts.forEach((count, i) => want[i + 1] = want[i]! + count);
  const starts = gpu.outU32(n + 1);
  gpu.commands.run(scanKernel, { n, counts: gpu.u32(counts), starts });
  gpu.expect(starts, (got) => assertExact(got, want, `scan of ${n}`));
};

Deno.test("a scan is whole at ragged sizes and over 200,000 counts", async () => {
  for (const n of [1, 2, 255, 256, 257, 1000, 65_537, 200_000]) await check(scan(n));
});

Deno.test("mutants of the transposition are found", async () => {
  await mutants("count_entries", [
    ["if (row_starts[middle] <= entry)", "if (row_starts[middle] < entry)"],
    ["row_starts[dims.rows]);", "row_starts[dims.rows] + 1u);"],
    ["atomicAdd(&counts[indices[entry]], 1u)", "atomicMax(&counts[indices[entry]], 1u)"],
  ], ragged);
  await mutants("count_entries", [["manyCount[0] = 0u", "manyCount[0] += 0u"]], others);
  await mutants("scan", [
    ["lane >= step", "lane > step"],
    ["starts[dims.n] = sum", "starts[dims.n - 1u] = sum"],
    ["let high = min(low + stretch, dims.n)", "let high = min(low + stretch, dims.n - 1u)"],
  ], scan(1000));
  await mutants("place_entries", [
    ["starts[column] + ", "starts[column] / 2u + "],
    ["row_starts[dims.rows]);", "row_starts[dims.rows] - 1u);"],
  ], ragged);
  await mutants("order_entries", [
    ["unordered[o] < entry", "unordered[o] <= entry"],
    ["entries[first_entry + lower]", "entries[i]"],
    ["i == first_entry", "i < first_entry"],
    ["&& i == first_entry", "&& column != 2u && i == first_entry"],
  ], ragged);
  await mutants("order_many_entries", [
    ["((1u << (row % 32u)) - 1u)", "(1u << (row % 32u))"],
    ["before[w] += earlier", "before[w] += 0u"],
    ["placed + before[row / 32u] + lower", "placed + lower"],
    ["many[group]", "many[0]"],
  ], ragged);
});
