/** `io/checkpoint.ts`: models to files and back, through the model itself. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { dump, dumpBytes, load } from "../../io/checkpoint.ts";
import { CheckpointError } from "../../io/errors.ts";
import { formatCheckpoint } from "../../io/formats/saev.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { bitsOf, goldenCheckpoint, type Model, randomModel } from "./models.ts";

const TOP_K = { d_model: 5, d_sae: 7, activation: { key: "top-k", top_k: 2 } } as const;

/** A model without a device, as far as writing needs one. */
function written(model: Model): Parameters<typeof dump>[1] {
  return { cfg: model.cfg, input: model.input, readParameters: () => Promise.resolve(model.parameters) };
}

Deno.test("a model is written as its format says, to bytes, paths, handles and streams", async () => {
  const model = randomModel(TOP_K);
  const expected = formatCheckpoint(model.cfg, model.parameters);
  assertEquals(await dumpBytes(written(model)), expected);

  const folder = await Deno.makeTempDir();
  try {
    await dump(`${folder}/runs/sae.pt`, written(model));
    assertEquals(await Deno.readFile(`${folder}/runs/sae.pt`), expected);
    {
      using file = await Deno.open(`${folder}/handle.pt`, { write: true, create: true });
      await dump(file, written(model));
    }
    assertEquals(await Deno.readFile(`${folder}/handle.pt`), expected);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }

  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>();
  const received = new Response(readable).bytes();
  await dump(writable, written(model));
  await writable.close();
  assertEquals(await received, expected);
});

Deno.test("a model that cannot be written leaves the old file", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "old");
    const model = randomModel({ ...TOP_K, subtract_b_dec: true });
    await assertRejects(() => dump(path, written(model)), CheckpointError, "{ fold: true }");
    assertEquals(await Deno.readTextFile(path), "old");
    await dump(path, written(model), { fold: true });
    assert((await Deno.stat(path)).size > 1000);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a model on the device is the identity through a file", async () => {
  const model = randomModel({ ...TOP_K, subtract_b_dec: true }, { mean: new Float32Array(5).fill(0.3), scale: 0.7 });
  const { cfg, parameters, input } = model;
  using sae = await SparseAutoencoder.fromParameters(cfg, parameters, { input });
  using again = await load(await dumpBytes(sae, { schema: "saev_nn" }));
  assertEquals(again.cfg, cfg);
  assertEquals(again.input, input);
  assertEquals(bitsOf(await again.readParameters()), bitsOf(parameters));
});

Deno.test("upstream's files load onto the device, from a path, a URL and a Blob", async () => {
  const url = new URL("../goldens/checkpoints/schema5_top_k.pt", import.meta.url);
  const { bytes, parameters } = goldenCheckpoint("schema5_top_k.pt");
  for (const from of [url.pathname, url, bytes, bytes.slice().buffer, new Blob([bytes.slice()])]) {
    using sae = await load(from);
    assertEquals(bitsOf(await sae.readParameters()), bitsOf(parameters));
    assertEquals(sae.cfg.subtract_b_dec, false);
  }
  using told = await load(url, { subtract_b_dec: true });
  assertEquals(told.cfg.subtract_b_dec, true);
});
