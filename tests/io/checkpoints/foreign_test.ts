/** Every file that another library wrote: read as what that library computes from it, or refused by name. @module */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import { load, readCheckpoint } from "../../../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { inspectCheckpoint } from "../../../io/checkpoints/inspect.ts";
import { recogniseFiles } from "../../../io/checkpoints/recognised_files.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { assertTensorClose } from "../../support/tolerance.ts";
import { bitsOf, goldenCheckpoint } from "../models.ts";
import { FORMATS, goldenFiles, goldenUrl, memoryFiles } from "./golden_files.ts";

const CASES = goldenFiles();

for (const format of FORMATS) {
  const cases = CASES.filter((golden) => golden.format === format);

  Deno.test(`${format}: codes and reconstructions are the library's`, async () => {
    const accepted = cases.filter(({ codes }) => codes !== undefined);
    assert(accepted.length > 0);
    for (const golden of accepted) {
      const { name, x, codes, x_hat, accept } = golden;
      using sae = await load(goldenUrl(golden), { device: await sharedDevice(), ...accept && { accept } });
      using out = sae.forward(x);
      using dense = out.f_x.dense();
      const found = await dense.read();
      assertEquals(
        Array.from(found, (code) => code !== 0),
        Array.from(codes!, (code) => code !== 0),
        `${name}: support`,
      );
      assertTensorClose(found, codes!, `${name}: codes`);
      assertTensorClose(await out.x_hat.read(), x_hat!, `${name}: x_hat`);
    }
  });

  Deno.test(`${format}: what the library's file has beyond a model of this library is refused by name`, async () => {
    for (const { name, files, main, accept, refused } of cases) {
      if (refused === undefined && accept === undefined) continue;
      const recognised = await recogniseFiles(memoryFiles(files, main));
      assertEquals(recognised.format.name, format, name);
      const error = await assertRejects(() => recognised.open(), CheckpointError, refused ?? accept![0]!, name);
      assert(!error.message.includes("undefined"), error.message);
    }
  });
}

Deno.test("dictionary_learning's steps have their configuration in the folder above", async () => {
  const { files } = CASES.find(({ format, name }) => format === "dictionary_learning" && name === "batch_top_k")!;
  const bare = CASES.find(({ format, name }) => format === "dictionary_learning" && name === "bare_standard.pt")!;
  const folder = await Deno.makeTempDir();
  const checkpoints = `${folder}/trainer_0/checkpoints`;
  const config = `${folder}/trainer_0/config.json`;
  try {
    await Deno.mkdir(checkpoints, { recursive: true });
    await Deno.writeFile(`${checkpoints}/ae_40.pt`, files.get("ae.pt")!);
    await assertRejects(() => readCheckpoint(`${checkpoints}/ae_40.pt`), CheckpointError, "or in the folder above");
    await Deno.writeFile(config, files.get("config.json")!);
    assertEquals((await readCheckpoint(`${checkpoints}/ae_40.pt`)).cfg.activation.key, "batch-top-k");
    const { format, configs } = await inspectCheckpoint(`${checkpoints}/ae_40.pt`);
    assertEquals([format, Object.keys(configs)], ["dictionary_learning", ["../config.json"]]);

    const other = JSON.parse(new TextDecoder().decode(files.get("config.json")));
    other.trainer.dict_size++;
    await Deno.writeTextFile(config, JSON.stringify(other));
    const message = `reading ../config.json.trainer: dict_size is ${other.trainer.dict_size}`;
    await assertRejects(() => readCheckpoint(`${checkpoints}/ae_40.pt`), CheckpointError, message);

    // Anything else may lie above a file that says by itself what it is.
    await Deno.writeFile(`${checkpoints}/ae_80.pt`, bare.files.get(bare.main!)!);
    for (const text of ["{}", '{"trainer": {"lr": 1}}', '{"model_type": "gemma"}', "not JSON"]) {
      await Deno.writeTextFile(config, text);
      assertEquals((await readCheckpoint(`${checkpoints}/ae_80.pt`)).cfg.activation.key, "relu");
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bytes of every kind of view hold the same model", async () => {
  // Parts of a pool, as Node's Buffers are, where no number is aligned.
  const views: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
    Buffer: (bytes) => {
      const pool = Buffer.alloc(bytes.length + 7);
      pool.set(bytes, 3);
      return pool.subarray(3, 3 + bytes.length);
    },
    shared: (bytes) => {
      const pool = new Uint8Array(new SharedArrayBuffer(bytes.length + 1));
      pool.set(bytes, 1);
      return pool.subarray(1);
    },
  };
  const upstream = ["schema5_batch_top_k.pt", "schema5_float16.pt", "schema5_shared_storage.pt"];
  const wholes: [string, Uint8Array][] = upstream.map((name) => [name, goldenCheckpoint(name).bytes]);
  for (const [name, bytes] of wholes) {
    const expected = bitsOf((await readCheckpoint(bytes)).parameters);
    for (const [kind, view] of Object.entries(views)) {
      assertEquals(bitsOf((await readCheckpoint(view(bytes))).parameters), expected, `${name} in a ${kind}`);
      using sae = await load(view(bytes), { device: await sharedDevice() });
      assertEquals(bitsOf(await sae.readParameters()), expected, `${name} in a ${kind}`);
    }
  }
  for (const { format, name, files, main, refused, accept = [] } of CASES) {
    if (refused !== undefined) continue;
    const read = async (view: (bytes: Uint8Array) => Uint8Array) => {
      const viewed = new Map([...files].map(([file, bytes]) => [file, view(bytes)]));
      const { parameters } = await readCheckpoint(memoryFiles(viewed, main), { accept });
      return bitsOf(parameters);
    };
    const expected = await read((bytes) => bytes);
    for (const [kind, view] of Object.entries(views)) {
      assertEquals(await read(view), expected, `${format}/${name} in a ${kind}`);
    }
  }
});
