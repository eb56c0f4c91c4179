/** Rows of shards without some labels, against all rows picked one by one. @module */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { openRows, openShards, withoutLabels } from "../../../data/mod.ts";
import { ShapeError } from "../../../kernels/engine/errors.ts";

const FOLDER = new URL("../../goldens/shards/v2.1-cls-labels/858efe9c", import.meta.url).pathname;

Deno.test("rows of the labels left out are gone, in every range, and splits part no image", async () => {
  const shards = await openShards(FOLDER);
  const labels = (await shards.readLabels())!;
  const all = shards.rows();
  const { d_model } = all;
  const x = await all.read(0, all.n_rows);
  for (const ignored of [[], [0], [1, 3, 4], [0, 1, 2, 4]]) {
    const kept = Array.from(labels.keys()).filter((row) => !ignored.includes(labels[row]!));
    const expected = Float32Array.from(kept.flatMap((row) => [...x.subarray(row * d_model, (row + 1) * d_model)]));
    const rows = withoutLabels(all, labels, ignored);
    assertEquals([rows.n_rows, rows.d_model], [kept.length, d_model]);
    for (const [from, to] of [[0, rows.n_rows], [0, 0], [1, 2], [3, rows.n_rows - 2], [rows.n_rows, rows.n_rows]]) {
      assertEquals(await rows.read(from!, to!), expected.slice(from! * d_model, to! * d_model));
    }
    for (const [i, row] of kept.entries()) {
      const start = kept.findIndex((other) => Math.floor(other / 12) === Math.floor(row / 12));
      assertEquals(rows.exampleStart!(i), start);
    }
    assertEquals(rows.exampleStart!(rows.n_rows), rows.n_rows);
    await assertRejects(() => rows.read(0, rows.n_rows + 1), RangeError);
    assertEquals((await openRows(FOLDER, { ignore_labels: ignored })).n_rows, kept.length);
  }
  assertThrows(() => withoutLabels(all, labels, [0, 1, 2, 3, 4]), RangeError, "no rows are left");
  assertThrows(() => withoutLabels(all, labels.subarray(1), [0]), ShapeError, "found 239 labels for 240 rows");
});

Deno.test("labels are left out where there are labels of rows, and nowhere else", async () => {
  const without = new URL("../../goldens/shards/v2.1-cls-exact/3be8efe2", import.meta.url).pathname;
  await assertRejects(() => openRows(without, { layer: 6, ignore_labels: [0] }), RangeError, "found no labels.bin");
  const cls = openRows(FOLDER, { tokens: "cls", ignore_labels: [0] });
  await assertRejects(() => cls, RangeError, "ignore_labels applies only to patches");
});
