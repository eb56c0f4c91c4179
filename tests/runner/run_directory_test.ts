/** The folder of a run: made on demand, never overwritten unasked, files replaced whole. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { RunDirectory } from "../../runner/run_directory.ts";

const CFG = { d_model: 2, d_sae: 1, activation: { key: "relu" } } as const;
const PARAMETERS = {
  W_enc: Float32Array.of(1, 2),
  b_enc: Float32Array.of(3),
  W_dec: Float32Array.of(4, 5),
  b_dec: Float32Array.of(6, 7),
};

Deno.test("a folder is made, filled, and not overwritten unasked", async () => {
  const root = await Deno.makeTempDir();
  try {
    const path = `${root}/a/b`;
    const directory = await RunDirectory.create(path);
    await directory.write("report.html", "one");
    await directory.write("report.html", Uint8Array.of(50));
    await directory.writeJson("metrics.json", { nmse: NaN, l0: [1], density: Float64Array.of(0.5) });
    assertEquals(await Deno.readTextFile(`${path}/report.html`), "2");
    assertEquals(
      await Deno.readTextFile(`${path}/metrics.json`),
      JSON.stringify({ nmse: null, l0: [1], density: [0.5] }, null, 2) + "\n",
    );
    await RunDirectory.create(path);

    using sae = await SparseAutoencoder.fromParameters(CFG, PARAMETERS);
    await directory.writeCheckpoint(sae);
    using again = await load(`${path}/sae.pt`);
    assertEquals(await again.readParameters(), PARAMETERS);
    await assertRejects(() => RunDirectory.create(path), RangeError, `${path} holds a run already`);
    await RunDirectory.create(path, { overwrite: true });
    const names = await Array.fromAsync(Deno.readDir(path), ({ name }) => name);
    assertEquals(names.sort(), ["metrics.json", "report.html", "sae.pt"]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
