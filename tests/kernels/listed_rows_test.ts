/**
 * Listed rows brought together and back, and sparse rows spread over listed columns: all of it exact.
 *
 * @module
 */

import { gatherRows, keepEntries, scatterRows, spreadEntries } from "../../kernels/listed_rows.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact } from "../support/tolerance.ts";

/** `count` of the numbers below `n`, ascending. */
function some(random: Random, n: number, count: number): number[] {
  const all = Array.from({ length: n }, (_, i) => i);
  while (all.length > count) all.splice(random.integer(0, all.length - 1), 1);
  return all;
}

/** Rows of a matrix of which the rows `from` to `to` are bound. */
function move(gpu: Recording, random: Random, { rows, columns, count, most, from, to }: Record<string, number>): void {
  const list = some(random, rows!, count!);
  const matrix = random.integers(rows! * columns!);
  const packed = random.integers(most! * columns!);
  const isBound = (row: number) => row >= from! && row < to!;
  const shared = {
    from: from!,
    to: to!,
    columns: columns!,
    list: gpu.u32([...list, ...new Array<number>(rows! - count!).fill(from!)]),
    listSize: rows!,
    count: gpu.u32([count!]),
    most: most!,
  };
  const what = `${count} of ${rows} × ${columns}`;
  const gathered = gpu.out(most!, columns!);
  const source = gpu.f32(matrix, rows!, columns!);
  gatherRows(gpu.commands, { ...shared, matrix: source.rows(from!, to!), packed: gathered });
  gpu.expect(gathered, (got) => {
    const want = new Float32Array(got.length).fill(NaN);
    list.forEach((row, j) => {
      if (isBound(row)) want.set(matrix.subarray(row * columns!, (row + 1) * columns!), j * columns!);
    });
    assertExact(got, want, `gathered: ${what}`);
  });
  const result = gpu.f32(matrix.slice(), rows!, columns!);
  scatterRows(gpu.commands, { ...shared, matrix: result.rows(from!, to!), packed: gpu.f32(packed, most!, columns!) });
  gpu.expect(result, (got) => {
    const want = matrix.slice();
    list.forEach((row, j) => {
      if (isBound(row)) want.set(packed.subarray(j * columns!, (j + 1) * columns!), row * columns!);
    });
    assertExact(got, want, `scattered: ${what}`);
  });
}

const moves: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const columns of [1, 3, 4, 36, 68]) {
    move(gpu, random, { rows: 150, columns, count: 40, most: 44, from: 0, to: 150 });
    move(gpu, random, { rows: 150, columns, count: 150, most: 150, from: 64, to: 150 });
    move(gpu, random, { rows: 150, columns, count: 30, most: 32, from: 0, to: 64 });
    move(gpu, random, { rows: 70, columns, count: 0, most: 8, from: 0, to: 70 });
  }
};

Deno.test("listed rows go to their places and back, those outside stay", async () => {
  await check(moves);
  const guards = [["group >= count[0]", "group > count[0]"], [
    "row - dims.first >= dims.extent",
    "false",
  ]] as const;
  await mutants("gather_rows", [...guards, ["group * loads + c]", "c]"]], moves);
  await mutants("scatter_rows", [["group >= count[0]", "group > count[0]"], [
    "matrix[(row - dims.first) *",
    "matrix[row *",
  ], [
    "packed[group * loads + c]",
    "packed[c]",
  ]], moves);
});

/** Sparse rows over `listed` of `columns` columns, the first of them row `firstRow` of a larger matrix. */
function spread(
  gpu: Recording,
  random: Random,
  given: Record<"rows" | "firstRow" | "columns" | "listed" | "most", number>,
): void {
  const { rows, firstRow, columns, listed, most } = given;
  const list = some(random, columns, listed);
  const places = Array.from({ length: columns + 1 }, (_, c) => list.filter((column) => column < c).length);
  const allRows = firstRow + rows + 1;
  const entries = Array.from({ length: allRows }, () => some(random, listed, random.integer(0, listed)));
  const starts = entries.reduce((sums, row) => [...sums, sums.at(-1)! + row.length], [0]);
  const values = random.integers(starts.at(-1)!);
  const capacity = values.length + 3;
  const sparse = {
    rows: allRows,
    capacity,
    starts: gpu.u32(starts),
    indices: gpu.u32([...entries.flat().map((place) => list[place]!), 0, 0, 0]),
    values: gpu.f32([...values, NaN, NaN, NaN]),
  };
  const before = random.integers(rows * most).map((value) => value + 100);
  const shared = { sparse, firstRow, rows, places: gpu.u32(places), placesSize: columns + 1, stride: most };
  for (const count of [listed, 0]) {
    const spreadOut = gpu.f32(before.slice(), rows, most);
    const kept = gpu.f32(before.slice(), rows, most);
    spreadEntries(gpu.commands, { ...shared, count: gpu.u32([count]), dense: spreadOut });
    keepEntries(gpu.commands, { ...shared, count: gpu.u32([count]), dense: kept });
    const wanted = (value: (row: number, place: number, entry: number) => number) => {
      const want = before.slice();
      for (let row = 0; row < rows; row++) {
        want.fill(0, row * most, row * most + count);
        if (count === 0) continue;
        entries[firstRow + row]!.forEach((place, e) =>
          want[row * most + place] = value(row, place, starts[firstRow + row]! + e)
        );
      }
      return want;
    };
    const what = `${rows} rows over ${count} of ${columns}`;
    gpu.expect(
      spreadOut,
      (got) => assertExact(got, wanted((_row, _place, entry) => values[entry]!), `spread: ${what}`),
    );
    gpu.expect(kept, (got) => assertExact(got, wanted((row, place) => before[row * most + place]!), `kept: ${what}`));
  }
}

const spreads: KernelCase = (gpu) => {
  const random = new Random(2);
  spread(gpu, random, { rows: 5, firstRow: 0, columns: 40, listed: 9, most: 12 });
  spread(gpu, random, { rows: 3, firstRow: 4, columns: 300, listed: 130, most: 132 });
  spread(gpu, random, { rows: 9, firstRow: 1, columns: 70, listed: 70, most: 72 });
  spread(gpu, random, { rows: 2, firstRow: 0, columns: 5, listed: 1, most: 4 });
};

Deno.test("entries go to their listed columns, and only they stay", async () => {
  await check(spreads);
  await mutants("spread_entries", [
    ["if (columns == 0u) { return; }", ""],
    ["dims.firstRow + group]", "group]"],
    ["places[indices[entry]]", "indices[entry]"],
  ], spreads);
  await mutants("keep_entries", [
    ["low == n_entries ||", ""],
    ["places[indices[entries + low]] != c", "false"],
    ["entries + middle", "middle"],
  ], spreads);
});
