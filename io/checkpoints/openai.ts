/**
 * OpenAI's sparse autoencoders: a PyTorch file of a state dict that also names its activation.
 *
 * `f = activation((x − pre_bias) W_enc + latent_bias)`, `x̂ = f W_dec + pre_bias`
 *
 * | entry | shape (d inputs, n latents) |
 * | --- | --- |
 * | `pre_bias` | [d] |
 * | `encoder.weight` | [n, d], W_enc transposed |
 * | `latent_bias` | [n] |
 * | `decoder.weight` | [d, n], W_dec transposed; `decoder.linear.weight` [n, d], a copy of the encoder's, if they are tied |
 * | `activation` | the string `ReLU` or `TopK` |
 * | `activation_state_dict` | for a TopK: `k`, and `postact_fn`, `ReLU` or `Identity` |
 * | `stats_last_nonzero`, `latents_activation_frequency`, `latents_mean_square` | [n], from training; not read |
 *
 * Whether rows are normalised (`(x − mean) / (std + 1e-5)`, the mean and the unbiased standard deviation of the row,
 * undone after the decoder) is not recorded in the file. OpenAI's loader assumes normalisation for every TopK and for
 * no other model, and so does this one: a TopK is read if the caller accepts normalised rows.
 *
 * @module
 */

import { quote } from "../errors.ts";
import { PickledDict, type PickledValue } from "../pickle.ts";
import {
  checkShape,
  fail,
  foreignFormat,
  foreignModel,
  hasTensors,
  matrixShape,
  openParameters,
  readFinite,
  RELU,
  requireConcession,
  topKActivation,
} from "./foreign.ts";
import type { CheckpointFormat, Weights } from "./format.ts";
import type { StoredParameters } from "../model.ts";

const TIED = "decoder.linear.weight";
const STATISTICS = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

/** The format. */
export const OPENAI: CheckpointFormat<"openai"> = foreignFormat({
  name: "openai",
  recognise: (weights) => weights.container === "torch" && hasTensors(weights, "pre_bias", "latent_bias"),
  read: async (weights, options) => {
    const { name, extras, tensors } = weights;
    for (const key of extras.keys()) {
      if (key !== "activation" && key !== "activation_state_dict") fail(name, `unknown entry ${quote(key)}`);
    }
    const activation = readActivation(name, extras);
    if (activation.key === "TopK") {
      requireConcession(
        name,
        options,
        "normalised-rows",
        `activation is "TopK", for which OpenAI's loader normalises rows`,
      );
    }
    const [d_sae, d_model] = matrixShape(weights, "encoder.weight");
    const isTied = tensors.has(TIED) && !tensors.has("decoder.weight");
    const parameters = isTied ? await readTied(weights, d_model, d_sae) : openParameters(
      weights,
      { d_model, d_sae },
      { names: { ...NAMES, W_dec: "decoder.weight" }, transposed: ["W_enc", "W_dec"], ignored: STATISTICS },
    );
    const cfg = {
      d_model,
      d_sae,
      subtract_b_dec: true,
      activation: activation.key === "ReLU" ? RELU : topKActivation(activation.k, activation.relu),
    };
    return foreignModel(name, cfg, parameters, options.input && { input: options.input });
  },
});

const NAMES = { W_enc: "encoder.weight", b_enc: "latent_bias", b_dec: "pre_bias" } as const;

/** The decoder is the encoder's transpose, and the file contains the encoder's matrix twice. */
async function readTied(weights: Weights, d_model: number, d_sae: number): Promise<StoredParameters> {
  checkShape(weights, TIED, [d_sae, d_model]);
  const parameters = openParameters(weights, { d_model, d_sae }, {
    names: { ...NAMES, W_dec: TIED },
    transposed: ["W_enc"],
    ignored: STATISTICS,
  });
  const [encoder, decoder] = [await readFinite(weights, NAMES.W_enc), await readFinite(weights, TIED)];
  const at = decoder.findIndex((value, i) => value !== encoder[i]);
  if (at >= 0) fail(weights.name, `${TIED} differs from ${NAMES.W_enc} at element ${at}; tied weights must be equal`);
  return parameters;
}

type OpenaiActivation = { readonly key: "ReLU" } | { readonly key: "TopK"; readonly k: number; readonly relu: boolean };

function readActivation(name: string, extras: ReadonlyMap<string, PickledValue>): OpenaiActivation {
  // Older models name no activation.
  const key = extras.get("activation") ?? "ReLU";
  const state = extras.get("activation_state_dict");
  if (state !== undefined && !(state instanceof PickledDict)) return fail(name, "activation_state_dict is not a dict");
  const fields = state?.items ?? new Map<string, PickledValue>();
  const known = key === "TopK" ? ["k", "postact_fn"] : [];
  for (const field of fields.keys()) {
    if (!known.includes(field)) fail(name, `activation_state_dict has the unknown entry ${quote(field)}`);
  }
  if (key === "ReLU") return { key };
  if (key !== "TopK") {
    return fail(
      name,
      `activation is ${typeof key === "string" ? quote(key) : "not a string"}; expected "ReLU" or "TopK"`,
    );
  }
  const k = fields.get("k");
  const after = fields.get("postact_fn");
  if (typeof k !== "number" || !Number.isInteger(k)) return fail(name, "activation_state_dict.k is not an integer");
  if (after !== "ReLU" && after !== "Identity") {
    return fail(name, `activation_state_dict.postact_fn is not "ReLU" or "Identity"`);
  }
  return { key, k, relu: after === "ReLU" };
}
