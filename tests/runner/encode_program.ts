/**
 * Encodes 1000 rows into a folder and saves after every batch. With a number of rows behind the folder it kills itself once
 * so many are done: what `encode_test.ts` continues.
 *
 * @module
 */
import { rowsOf } from "../../data/mod.ts";
import { SparseAutoencoder } from "../../mod.ts";
import { encodeToFolder } from "../../runner/mod.ts";
import { Random } from "../support/random.ts";

const [out, end] = Deno.args as [string, string?];
using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 24, activation: { key: "top-k", top_k: 3 } });
let now = 0;
await encodeToFolder({
  sae,
  rows: rowsOf(new Random(5).normal(1000 * 8), 8),
  out,
  batch_size: 40,
  about: { run: "run", shards: "shards", tokens: "content", layer: null },
}, {
  now: () => now += 60_000,
  onProgress: (done) => {
    if (done === Number(end)) Deno.kill(Deno.pid, "SIGKILL");
  },
});
