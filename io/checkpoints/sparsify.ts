/**
 * sparsify (EleutherAI): a folder with `cfg.json` and `sae.safetensors`.
 *
 * `f = TopK_k(max((x − b_dec) W_enc + b_enc, 0))`, `x̂ = f W_dec + b_dec`
 *
 * | tensor | shape (M num_latents, D d_in) |
 * | --- | --- |
 * | `encoder.weight` | [M, D], W_enc transposed |
 * | `encoder.bias` | [M] |
 * | `W_dec` | [M, D] |
 * | `b_dec` | [D] |
 *
 * `num_latents: 0` is `d_in` · `expansion_factor`. `normalize_decoder` and `multi_topk` affect only training.
 * `activation: "groupmax"`, `transcode`, `skip_connection` and `signed` are refused.
 *
 * @module
 */

import { quote } from "../errors.ts";
import {
  foreignFormat,
  foreignModel,
  hasTensors,
  openParameters,
  relevantFields,
  requireJson,
  topKActivation,
} from "./foreign.ts";
import type { CheckpointFormat } from "./format.ts";

const CONFIG = "cfg.json";

const HARMLESS: ReadonlySet<string> = new Set(["normalize_decoder", "multi_topk"]);

/** The format. */
export const SPARSIFY: CheckpointFormat<"sparsify"> = foreignFormat({
  name: "sparsify",
  files: { weights: ["sae.safetensors"] },
  recognise: (weights) => weights.container === "safetensors" && hasTensors(weights, "encoder.weight", "W_dec"),
  read: async (weights, { input }) => {
    const fields = relevantFields(CONFIG, await requireJson(weights, CONFIG), HARMLESS);
    const d_model = fields.integer("d_in");
    const expansion = fields.integer("expansion_factor", 32);
    const d_sae = fields.integer("num_latents", 0) || d_model * expansion;
    const top_k = fields.integer("k", 32);
    const activation = fields.string("activation", "topk");
    if (activation !== "topk") fields.fail(`the activation is ${quote(activation)}; expected "topk"`);
    for (const field of ["transcode", "skip_connection", "signed"]) {
      if (fields.boolean(field, false)) fields.fail(`${field} is true; this library does not support it`);
    }
    fields.done();
    const parameters = openParameters(weights, { d_model, d_sae }, {
      names: { W_enc: "encoder.weight", b_enc: "encoder.bias", W_dec: "W_dec", b_dec: "b_dec" },
      transposed: ["W_enc"],
    });
    const cfg = { d_model, d_sae, subtract_b_dec: true, activation: topKActivation(top_k) };
    return foreignModel(weights.name, cfg, parameters, input && { input });
  },
});
