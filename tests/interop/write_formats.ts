/**
 * Writes every kind of model in the formats of others, and what it computes beside it, for `check_formats.py`.
 *
 * `deno run -A tests/interop/write_formats.ts FOLDER`
 *
 * @module
 */

import { CheckpointError } from "../../io/errors.ts";
import { writeCheckpoint } from "../../io/checkpoints/write.ts";
import { compute, modelsOfEveryKind } from "../io/checkpoints/compute.ts";
import { Random } from "../support/random.ts";

const folder = Deno.args[0];
if (folder === undefined) throw new TypeError("name the folder to write into");

const x = new Random(3).normal(8 * 5);
const models: Record<string, unknown> = {};
for (const [name, model] of modelsOfEveryKind()) {
  const written: string[] = [];
  for (const format of ["saelens", "dictionary_learning", "onnx", "onnx_encoder"] as const) {
    const isFile = format.startsWith("onnx");
    try {
      await writeCheckpoint(`${folder}/${name}/${format}${isFile ? ".onnx" : ""}`, model, { format });
      written.push(format);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
    }
  }
  const { codes, x_hat } = compute(model, x);
  models[name] = { written, codes: [...codes], x_hat: [...x_hat] };
}
Deno.writeTextFileSync(`${folder}/index.json`, JSON.stringify({ x: [...x], d_model: 5, d_sae: 9, models }));
