/** `io/checkpoint.ts`: models to files and back, through the model itself. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { dump, dumpBytes, load, readCheckpoint } from "../../../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { formatCheckpoint } from "../../../io/checkpoints/saev_writer.ts";
import { formatModel } from "../../../io/checkpoints/write.ts";
import { splitHeader } from "../../../io/json_header.ts";
import { bytesSource, joinBytes } from "../../../io/source.ts";
import { readTorchFile } from "../../../io/torch_file.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertRefuses, assertTensorClose } from "../../support/tolerance.ts";
import { memoryFiles } from "./golden_files.ts";
import { bitsOf, goldenCheckpoint, type Model, PARAMETERS, randomModel } from "../models.ts";

const TOP_K = { d_model: 5, d_sae: 7, activation: { key: "top-k", top_k: 2 } } as const;

const PIECE = 9;

/** A model without a device, as far as writing needs one. */
function written({ cfg, input, parameters }: Model): Parameters<typeof dump>[1] {
  const inPieces = async function* (data: Float32Array): AsyncGenerator<Float32Array> {
    for (let at = 0; at < data.length; at += PIECE) yield await Promise.resolve(data.slice(at, at + PIECE));
  };
  return {
    cfg,
    input,
    readParameters: () => Promise.resolve(parameters),
    readPieces: () => {
      const entries = Object.entries(parameters) as [string, Float32Array][];
      const pieces = entries.map(([name, data]) => [name, { pieces: inPieces(data), isTransposed: false }]);
      return Object.fromEntries(pieces);
    },
  };
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

Deno.test("matrices are never whole on their way into a file, and lie there as on the device", async () => {
  const model = randomModel({ ...TOP_K, activation: { key: "batch-top-k" } });
  const readParameters = () => Promise.reject(new Error("the parameters are read whole"));
  const bytes = await dumpBytes({ ...written(model), readParameters });
  assertEquals(bytes, formatCheckpoint(model.cfg, model.parameters));
  using sae = await SparseAutoencoder.fromParameters(model.cfg, model.parameters);
  const { body } = await splitHeader(bytesSource(await dumpBytes(sae)));
  const tensors = await readTorchFile(body);
  assertEquals([...tensors].map(([name, { isRowMajor }]) => [name, isRowMajor]), [
    ["W_dec", true],
    ["b_dec", true],
    ["W_enc", false],
    ["b_enc", true],
    ["activation.threshold", true],
  ]);
  assertExact(await tensors.get("W_enc")!.read(), model.parameters.W_enc);
});

Deno.test("a model that changes while it is written, or is not finite, is an error", async () => {
  const model = randomModel(TOP_K);
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "old");
    for (const name of PARAMETERS.filter((name) => model.parameters[name].length > PIECE)) {
      let n_reads = 0;
      const changing = {
        ...written(model),
        readPieces: () => {
          const data = model.parameters[name].slice();
          if (++n_reads > PARAMETERS.length + 1) data[PIECE + 1]! += 1;
          return written({ ...model, parameters: { ...model.parameters, [name]: data } }).readPieces();
        },
      };
      await assertRejects(() => dump(path, changing), CheckpointError, `${name} changed while it was being written`);
      const data = model.parameters[name].slice();
      data[PIECE + 1] = NaN;
      const broken = written({ ...model, parameters: { ...model.parameters, [name]: data } });
      const nowhere = { write: () => Promise.reject(new Error("something is written")) };
      const message = `${name} is NaN at element ${PIECE + 1}`;
      await assertRejects(() => dump(nowhere, broken), CheckpointError, message);
    }
    assertEquals(await Deno.readTextFile(path), "old");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a model that cannot be written leaves the old file", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "old");
    const model = randomModel({ ...TOP_K, subtract_b_dec: true });
    await assertRejects(() => dump(path, written(model), { fold: false }), CheckpointError, "fold: true");
    assertEquals(await Deno.readTextFile(path), "old");
    assertEquals(await dump(path, written(model)), { folded: ["subtract_b_dec"] });
    assert((await Deno.stat(path)).size > 1000);
    assertEquals(await dump(path, written(model), { schema: "saev_nn" }), { folded: [] });
    assertEquals(await dump(path, written(randomModel(TOP_K))), { folded: [] });
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("on its way to the device a number that is not finite is refused, and so are damaged bytes", async () => {
  const model = randomModel({ ...TOP_K, activation: { key: "relu" } });
  const { files } = formatModel(model, { format: "saelens" });
  const inMemory = new Map([...files].map(([name, pieces]) => [name, joinBytes(pieces)]));
  using whole = await load(memoryFiles(inMemory, null));
  assertEquals(bitsOf(await whole.readParameters()), bitsOf(model.parameters));
  for (const [name, data] of Object.entries(model.parameters) as [string, Float32Array][]) {
    const weights = inMemory.get("sae_weights.safetensors")!.slice();
    const at = indexOf(weights, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    weights.set(new Uint8Array(Float32Array.of(NaN).buffer), at + 8);
    const broken = memoryFiles(new Map([...inMemory, ["sae_weights.safetensors", weights]]), null);
    await assertRejects(() => load(broken), CheckpointError, `${name} is NaN at element 2`);
    const bytes = formatCheckpoint(model.cfg, model.parameters).slice();
    bytes[indexOf(bytes, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))]! ^= 1;
    await assertRejects(() => load(bytes), CheckpointError, "is damaged");
  }
});

/** Where the bytes stand in others. */
function indexOf(bytes: Uint8Array, part: Uint8Array): number {
  for (let at = 0; at + part.length <= bytes.length; at++) {
    if (part.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  throw new RangeError("the bytes are not there");
}

Deno.test("a model on the device is the identity through a file", async () => {
  const model = randomModel({ ...TOP_K, subtract_b_dec: true }, { mean: new Float32Array(5).fill(0.3), scale: 0.7 });
  const { cfg, parameters, input } = model;
  using sae = await SparseAutoencoder.fromParameters(cfg, parameters, { input });
  using again = await load(await dumpBytes(sae, { schema: "saev_nn" }));
  assertEquals(again.cfg, cfg);
  assertEquals(again.input, input);
  assertEquals(bitsOf(await again.readParameters()), bitsOf(parameters));
});

Deno.test("a BatchTopK on the device is the identity through a file, threshold included", async () => {
  const { cfg, parameters } = randomModel({ ...TOP_K, activation: { key: "batch-top-k", top_k: 2, momentum: 0.3 } });
  using sae = await SparseAutoencoder.fromParameters(cfg, parameters);
  using again = await load(await dumpBytes(sae));
  assertEquals(again.cfg, cfg);
  assertEquals(bitsOf(await again.readParameters()), bitsOf(parameters));
});

Deno.test("weights load as halves from any format, and are written as the values that they have", async () => {
  const model = randomModel({ ...TOP_K, activation: { key: "relu" } });
  const { cfg, parameters } = model;
  const { files } = formatModel(model, { format: "saelens" });
  const saelens = memoryFiles(new Map([...files].map(([name, pieces]) => [name, joinBytes(pieces)])), null);
  const [W_enc, W_dec] = [parameters.W_enc.map(Math.f16round), parameters.W_dec.map(Math.f16round)];
  const rounded = { ...parameters, W_enc, W_dec };
  for (const from of [formatCheckpoint(cfg, parameters), saelens]) {
    using sae = await load(from, { weights: "f16" });
    assertEquals(sae.parameters.weights, "f16");
    assertEquals(bitsOf(await sae.readParameters()), bitsOf(rounded));
    using again = await load(await dumpBytes(sae));
    assertEquals(again.parameters.weights, "f32");
    assertEquals(bitsOf(await again.readParameters()), bitsOf(rounded));
  }
  const large = formatCheckpoint(cfg, { ...parameters, W_dec: W_dec.with(3, 1e6) });
  await assertRejects(
    () => load(large, { weights: "f16" }),
    RangeError,
    "W_dec: 1000000 is beyond the largest f16 value",
  );
});

const GOLDENS: readonly { file: string; options?: Parameters<typeof load>[1] }[] = [
  { file: "preschema_relu.pt" },
  { file: "schema1_relu.pt" },
  // The Python package that computed the golden outputs applied today's formula to these weights.
  { file: "schema1a_top_k.pt", options: { subtract_b_dec: false } },
  { file: "schema1b_top_k.pt" },
  { file: "schema2_top_k.pt" },
  { file: "schema3_top_k.pt" },
  { file: "schema4_top_k_kind.pt" },
  { file: "schema5_relu.pt" },
  { file: "schema5_top_k.pt" },
  { file: "schema5_batch_top_k.pt" },
  { file: "schema5_float16.pt" },
  { file: "schema5_shared_storage.pt" },
];

for (const { file, options } of GOLDENS) {
  Deno.test(`${file} computes what the Python package computes`, async () => {
    const { bytes, parameters, x, f_x, x_hat } = goldenCheckpoint(file);
    using sae = await load(bytes, options);
    assertEquals(bitsOf(await sae.readParameters()), bitsOf(parameters));
    using codes = sae.encode(x);
    using dense = codes.dense();
    const encoded = await dense.read();
    assertExact(encoded.map((f) => f === 0 ? 0 : 1), f_x.map((f) => f === 0 ? 0 : 1), "which latents are active");
    assertTensorClose(encoded, f_x, "f_x");
    using out = sae.forward(x);
    assertTensorClose(await out.x_hat.read(), x_hat, "x_hat");
  });
}

Deno.test("the encoder formula that a file needs is not the other one", async () => {
  for (const { file, options } of GOLDENS) {
    const { bytes, x, f_x } = goldenCheckpoint(file);
    using right = await load(bytes, options);
    using wrong = await load(bytes, { subtract_b_dec: !right.cfg.subtract_b_dec });
    using codes = wrong.encode(x);
    using dense = codes.dense();
    const encoded = await dense.read();
    await assertRefuses(() => assertTensorClose(encoded, f_x, "f_x"), file);
  }
});

for (const subtract_b_dec of [false, true]) {
  for (const [mean, scale] of [[false, 4], [true, 1], [true, 0.25]] as const) {
    const how = `subtract_b_dec ${subtract_b_dec}, mean ${mean}, scale ${scale}`;
    Deno.test(`a folded BatchTopK computes the same on the device: ${how}`, async () => {
      // Integers, and a power of two: every sum is exact, so that even a pre-activation at the threshold must agree.
      const random = new Random(11);
      const parameters = {
        W_enc: random.integers(5 * 7),
        b_enc: random.integers(7),
        W_dec: random.integers(7 * 5),
        b_dec: random.integers(5),
        threshold: Float32Array.of(4),
      };
      const input = { mean: mean ? random.integers(5) : null, scale };
      const x = random.integers(9 * 5, -16, 16);
      const cfg = { ...TOP_K, activation: { key: "batch-top-k", top_k: 2 }, subtract_b_dec } as const;
      using sae = await SparseAutoencoder.fromParameters(cfg, parameters, { input });
      using folded = await load(await dumpBytes(sae));
      assertEquals((await folded.readParameters()).threshold, parameters.threshold);
      assertEquals([folded.cfg.subtract_b_dec, folded.input], [false, { mean: null, scale: 1 }]);
      using before = sae.forward(x);
      using after = folded.forward(x);
      assertEquals(await after.f_x.read(), await before.f_x.read());
      assertExact(await after.x_hat.read(), await before.x_hat.read(), "x_hat");
      const { indices } = await before.f_x.read();
      assert(indices.length > 0 && indices.length < 9 * 7, `${indices.length} active`);
    });
  }
}

Deno.test("what loads says where the encoder formula cannot be known, and what would settle it", async () => {
  const doubtful = ["schema1_relu.pt", "schema1a_top_k.pt", "schema1b_top_k.pt", "schema2_top_k.pt"];
  for (const { file } of GOLDENS) {
    const url = new URL(`../../goldens/checkpoints/${file}`, import.meta.url);
    using sae = await load(url);
    const { warnings } = await readCheckpoint(url);
    assertEquals(sae.warnings, warnings);
    assertEquals(warnings.length, doubtful.includes(file) ? 1 : 0, file);
    if (warnings.length === 0) continue;
    const how = sae.cfg.subtract_b_dec ? "assumes that it is." : "assumes that it is not.";
    for (const part of [how, "commit", "{ subtract_b_dec: true }"]) assert(warnings[0]!.includes(part), warnings[0]);
    using told = await load(url, { subtract_b_dec: sae.cfg.subtract_b_dec });
    assertEquals(told.warnings, []);
  }
  // Where b_dec is zeros both formulas are one.
  const model = randomModel({ d_model: 8, d_sae: 32, activation: { key: "relu" } });
  const { body } = await splitHeader(
    bytesSource(formatCheckpoint(model.cfg, { ...model.parameters, b_dec: new Float32Array(8) })),
  );
  const golden = goldenCheckpoint("schema1_relu.pt").bytes;
  const header = golden.slice(0, golden.indexOf(10) + 1);
  const same = await readCheckpoint(joinBytes([header, await body.read(0, body.size)]));
  assertEquals([same.cfg.subtract_b_dec, same.warnings], [true, []]);
});

Deno.test("upstream's files load onto the device, from a path, a URL and a Blob", async () => {
  const url = new URL("../../goldens/checkpoints/schema5_top_k.pt", import.meta.url);
  const { bytes, parameters } = goldenCheckpoint("schema5_top_k.pt");
  for (const from of [url.pathname, url, bytes, bytes.slice().buffer, new Blob([bytes.slice()])]) {
    using sae = await load(from);
    assertEquals(bitsOf(await sae.readParameters()), bitsOf(parameters));
    assertEquals(sae.cfg.subtract_b_dec, false);
  }
  using told = await load(url, { subtract_b_dec: true });
  assertEquals(told.cfg.subtract_b_dec, true);
});
