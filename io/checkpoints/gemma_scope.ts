/**
 * Gemma Scope: `params.npz`, an archive of NumPy arrays, and Gemma Scope 2: `params.safetensors` with `config.json`
 * beside it. A JumpReLU with `h = x W_enc + b_enc`, `x̂ = f W_dec + b_dec`.
 *
 * | array | shape (D inputs, S latents) |
 * | --- | --- |
 * | `W_enc` | [D, S] |
 * | `b_enc` | [S] |
 * | `W_dec` | [S, D] |
 * | `b_dec` | [D] |
 * | `threshold` | [S] |
 *
 * `w_enc` and `w_dec` are alternative names. An archive whose `scaling_factor` is not 1 everywhere is refused. The
 * files for token embeddings expect inputs multiplied by √D, which only the name of their folder shows.
 *
 * In Gemma Scope 2 transcoders have the tensors of an autoencoder, so `config.json` is required; its `width` is S. Any
 * `architecture` other than `jump_relu`, any `type` other than `sae`, an `affine_connection`, and different hook points
 * for input and output are refused.
 *
 * @module
 */

import { quote } from "../errors.ts";
import { describeValue } from "../json.ts";
import {
  checkShape,
  fail,
  foreignFormat,
  foreignModel,
  hasTensors,
  JUMP_RELU,
  matrixShape,
  openParameters,
  readFinite,
  relevantFields,
  requireJson,
} from "./foreign.ts";
import type { CheckpointFormat, Weights } from "./format.ts";

const CONFIG = "config.json";

/** A file has five; each costs a stream. */
const MAX_ARRAYS = 64;

/** Fields about the source of the activations and the sparsity of the codes. */
const HARMLESS: ReadonlySet<string> = new Set(["model_name", "l0"]);

/** The format. */
export const GEMMA_SCOPE: CheckpointFormat<"gemma_scope"> = foreignFormat({
  name: "gemma_scope",
  files: { weights: ["params.npz", "params.safetensors"], maxArrays: MAX_ARRAYS },
  recognise: (weights) =>
    weights.container === "npz" ||
    weights.container === "safetensors" && hasTensors(weights, "w_enc", "w_dec", "threshold"),
  read: async (weights, { input }) => {
    const { name, tensors } = weights;
    const W_enc = tensors.has("w_enc") ? "w_enc" : "W_enc";
    const W_dec = tensors.has("w_dec") ? "w_dec" : "W_dec";
    const [d_model, d_sae] = matrixShape(weights, W_enc);
    if (weights.container === "safetensors") await checkConfig(weights, d_sae);
    if (tensors.has("scaling_factor")) {
      checkShape(weights, "scaling_factor", [d_sae]);
      if ((await readFinite(weights, "scaling_factor")).some((factor) => factor !== 1)) {
        fail(name, "scaling_factor is not 1 everywhere; this library does not scale codes after the activation");
      }
    }
    const parameters = openParameters(weights, { d_model, d_sae }, {
      names: { W_enc, b_enc: "b_enc", W_dec, b_dec: "b_dec" },
      own: { threshold: { name: "threshold", shape: [d_sae] } },
      ignored: ["scaling_factor"],
    });
    const cfg = { d_model, d_sae, subtract_b_dec: false, activation: JUMP_RELU };
    return foreignModel(name, cfg, parameters, {
      ...input && { input },
      warnings: ["Gemma Scope's models of token embeddings expect inputs multiplied by √d_model; no file records this"],
    });
  },
});

/** Refuses what the configuration of Gemma Scope 2 adds beyond the tensors. */
async function checkConfig(weights: Weights, d_sae: number): Promise<void> {
  const fields = relevantFields(CONFIG, await requireJson(weights, CONFIG), HARMLESS);
  const architecture = fields.string("architecture");
  if (architecture !== "jump_relu") {
    fields.fail(`the architecture is ${quote(architecture)}; expected "jump_relu"`);
  }
  const type = fields.string("type", "sae");
  if (type !== "sae") fields.fail(`the type is ${quote(type)}; expected "sae"`);
  if (fields.boolean("affine_connection", false)) {
    fields.fail("affine_connection is true; this library has no skip connection from input to output");
  }
  const hookIn = fields.string("hf_hook_point_in");
  const hookOut = fields.value("hf_hook_point_out") ?? hookIn;
  if (hookOut !== hookIn) {
    fields.fail(
      `hf_hook_point_out is ${describeValue(hookOut)} and hf_hook_point_in ${quote(hookIn)}; ` +
        "this library does not support transcoders",
    );
  }
  const width = fields.integer("width", d_sae);
  if (width !== d_sae) fields.fail(`width is ${width}; the tensors in ${weights.name} have ${d_sae}`);
  fields.done();
}
