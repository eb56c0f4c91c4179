/** By what rows are known again. @module */
import { assertEquals, assertNotEquals } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import { fingerprintOf } from "../../runner/fingerprint.ts";

Deno.test("of few rows every number counts", async () => {
  const x = Float32Array.from({ length: 3000 }, (_, i) => i);
  const { sha256, ...shape } = await fingerprintOf(rowsOf(x, 3));
  assertEquals(shape, { n_rows: 1000, d_model: 3 });
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", x));
  assertEquals(sha256, digest.toHex());
  for (const i of [0, 1234, 2999]) assertNotEquals((await fingerprintOf(rowsOf(x.with(i, -1), 3))).sha256, sha256);
});

Deno.test("of many rows blocks from the first to the last are read, and no more than 4 MiB", async () => {
  for (const [n_rows, d_model] of [[10_000_000, 16], [100, 100_000], [64 * 1024 + 1, 16]] as const) {
    const reads: [from: number, to: number][] = [];
    await fingerprintOf({
      n_rows,
      d_model,
      read: (from, to) => {
        reads.push([from, to]);
        return Promise.resolve(new Float32Array((to - from) * d_model));
      },
    });
    const perBlock = Math.max(1, 2 ** 14 / d_model | 0);
    assertEquals([reads.length, reads[0], reads.at(-1)], [64, [0, perBlock], [n_rows - perBlock, n_rows]]);
    const [second, third] = [reads[1]![0], reads[2]![0]];
    assertEquals(second, Math.floor((n_rows - perBlock) / 63));
    assertEquals(third, Math.floor(2 * (n_rows - perBlock) / 63));
  }
});
