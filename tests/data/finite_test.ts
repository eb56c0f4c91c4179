/** Rows that are not finite are named by file, row and column. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { finiteRows, firstNonFinite, largest } from "../../data/finite.ts";
import { rowRange, rowsOf } from "../../data/rows.ts";

Deno.test("the first number that is not finite, row by row", () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    assertEquals(firstNonFinite(Float32Array.of(1, 2, 3, 4, 5, value, value, 1), 2), { row: 2, column: 1, value });
  }
  assertEquals(firstNonFinite(Float32Array.of(3e38, -1e-45), 1), undefined);
});

Deno.test("the number that is the farthest from zero", () => {
  assertEquals(largest(Float32Array.of(1, -2, 3, 4, -7, 7), 2), { row: 2, column: 0, value: -7 });
});

Deno.test("reading such a row is refused, by its number in the file; the others are as they were", async () => {
  const x = Float32Array.of(1, 2, 3, 4, 5, NaN, 7, 8);
  const labels = Int32Array.of(4, 5, 6, 7);
  const rows = finiteRows(rowsOf(x, 2, { labels }), "acts.npy");
  assertEquals([rows.n_rows, rows.d_model, rows.labels], [4, 2, labels]);
  assertEquals(await rows.read(0, 2), x.subarray(0, 4));
  const message = "acts.npy: row 2 has NaN in column 1; remove rows that are not finite";
  await assertRejects(() => rows.read(1, 4), RangeError, message);
  await assertRejects(() => rowRange(rows, 1, 4).read(1, 2), RangeError, message);
});
