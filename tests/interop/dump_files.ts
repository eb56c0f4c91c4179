/**
 * Writes checkpoints of every kind into a folder, with what they hold beside them, for `check_dump.py`.
 *
 * `deno run -A tools/driver/main.ts deno run -A tests/interop/dump_files.ts FOLDER`
 *
 * @module
 */

import { dumpBytes } from "../../io/checkpoints/checkpoint.ts";
import { parseCheckpoint } from "../../io/checkpoints/saev_reader.ts";
import type { FormatOptions } from "../../io/checkpoints/saev_schemas.ts";
import { formatHeader, PythonFloat } from "../../io/json_header.ts";
import { writeNpy } from "../../io/npy.ts";
import { bytesSource } from "../../io/source.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { type Model, randomModel } from "../io/models.ts";
import { Random } from "../support/random.ts";

const folder = Deno.args[0];
if (folder === undefined) throw new TypeError("name the folder to write into");
Deno.mkdirSync(folder, { recursive: true });

const RELU = { d_model: 8, d_sae: 32, activation: { key: "relu" } } as const;
const mean = new Random(1).normal(8);
const MODELS: Record<string, [model: Model, options: FormatOptions]> = {
  top_k: [randomModel({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } }), {}],
  relu: [randomModel(RELU), {}],
  ragged: [randomModel({ d_model: 3, d_sae: 5, activation: { key: "top-k" } }), {}],
  one: [randomModel({ d_model: 1, d_sae: 1, activation: { key: "relu" } }), {}],
  large: [randomModel({ d_model: 768, d_sae: 1000, activation: { key: "top-k" } }), {}],
  batch_top_k: [randomModel({ ...RELU, activation: { key: "batch-top-k", top_k: 4 } }), {}],
  folded_batch_top_k: [
    randomModel({ ...RELU, activation: { key: "batch-top-k" }, subtract_b_dec: true }, { mean, scale: 0.7 }),
    {},
  ],
  schema1: [randomModel({ ...RELU, subtract_b_dec: true }), { schema: 1 }],
  folded: [randomModel({ ...RELU, subtract_b_dec: true }, { mean, scale: 0.7 }), {}],
  own: [randomModel({ ...RELU, subtract_b_dec: true }, { mean, scale: 0.7 }), { schema: "saev_nn" }],
};

const index: Record<string, unknown> = {};
for (const [name, [model, options]] of Object.entries(MODELS)) {
  using sae = await SparseAutoencoder.fromParameters(model.cfg, model.parameters, { input: model.input });
  const bytes = await dumpBytes(sae, options);
  Deno.writeFileSync(`${folder}/${name}.pt`, bytes);
  const { parameters } = await parseCheckpoint(bytesSource(bytes));
  for (const [parameter, data] of Object.entries(parameters) as [string, Float32Array][]) {
    Deno.writeFileSync(`${folder}/${name}.${parameter}.f32`, new Uint8Array(data.slice().buffer));
  }
  const schema = options.schema ?? 5;
  const { d_model, d_sae, activation } = model.cfg;
  index[name] = { schema, d_model, d_sae, activation: activation.key };
}

const random = new Random(2);
const floats = Array.from({ length: 2000 }, () => (random.unit() - 0.5) * 10 ** random.integer(-30, 30));
const written = (style: "orjson" | "json.dumps"): string => formatHeader(floats.map((x) => new PythonFloat(x)), style);
Deno.writeFileSync(`${folder}/matrix.npy`, writeNpy({ data: random.normal(15), rows: 3, cols: 5 }));
Deno.writeTextFileSync(
  `${folder}/index.json`,
  JSON.stringify({ models: index, floats, orjson: written("orjson"), dumps: written("json.dumps") }),
);
