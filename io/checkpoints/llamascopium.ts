/**
 * Llamascopium (OpenMOSS, Language-Model-SAEs): a folder with `config.json` and `sae_weights.safetensors`.
 *
 * `h = a x W_E + b_E`, `f = h · [h n kept by the activation]`, `x̂ = (f W_D + b_D) / a`, where n are the norms of W_D's
 * rows with `sparsity_include_decoder_norm`, and otherwise 1
 *
 * | tensor | shape |
 * | --- | --- |
 * | `W_E` | [d_model, d_sae] |
 * | `b_E` | [d_sae] |
 * | `W_D` | [d_sae, d_model] |
 * | `b_D` | [d_model]; none without `use_decoder_bias` |
 * | `activation_function.log_jumprelu_threshold` | [d_sae], of a `jumprelu` |
 * | `dataset_average_activation_norm.…` | a number for each hook point |
 *
 * | `act_fn` | read as |
 * | --- | --- |
 * | `relu` | relu |
 * | `jumprelu` | jump-relu, its thresholds exp(…) / n |
 * | `topk` | top-k with relu. This library cannot select by h n and keep h: with `sparsity_include_decoder_norm` refused, unless the caller accepts codes h n |
 * | `batchtopk`, others | refused: codes depend on the batch |
 *
 * | `norm_activation` | a |
 * | --- | --- |
 * | `inference` | 1 |
 * | `dataset-wise` | √d_model / the average norm of the hook point |
 * | `token-wise` | 1, if the caller accepts normalised rows |
 * | `batch-wise` | refused |
 *
 * `use_glu_encoder`, types other than `sae`, and different hook points for input and output are refused.
 *
 * @module
 */

import { type InputScaling, NO_SCALING } from "../../nn/arrays.ts";
import { quote } from "../errors.ts";
import type { HeaderFields } from "../json_header.ts";
import {
  checkShape,
  fail,
  foreignFormat,
  foreignModel,
  hasTensors,
  JUMP_RELU,
  openParameters,
  readFinite,
  relevantFields,
  RELU,
  requireConcession,
  requireJson,
  rescaledLines,
  rescaleLatents,
  rowNorms,
  topKActivation,
  withZeros,
} from "./foreign.ts";
import type { CheckpointFormat, ForeignOptions, Weights } from "./format.ts";
import { checkFinite, readParameter, readParameters, type StoredParameters } from "../model.ts";

const CONFIG = "config.json";
const LOG_THRESHOLD = "activation_function.log_jumprelu_threshold";
const NORM = "dataset_average_activation_norm.";

/** Fields about devices, kernels and training. */
const HARMLESS: ReadonlySet<string> = new Set([
  ..."device dtype use_triton_kernel sparsity_threshold_for_triton_spmm_kernel".split(" "),
  ..."jumprelu_threshold_window sae_pretrained_name_or_path strict_loading".split(" "),
]);

/** The format. */
export const LLAMASCOPIUM: CheckpointFormat<"llamascopium"> = foreignFormat({
  name: "llamascopium",
  files: { weights: ["sae_weights.safetensors", "sae_weights.pt"], dicts: ["sae"] },
  recognise: (weights) => weights.container !== "npz" && hasTensors(weights, "W_E", "W_D"),
  read: async (weights, options) => {
    const { name } = weights;
    const fields = relevantFields(CONFIG, await requireJson(weights, CONFIG), HARMLESS);
    const type = fields.string("sae_type", "sae");
    if (type !== "sae") fields.fail(`sae_type is ${quote(type)}; expected "sae"`);
    if (fields.boolean("use_glu_encoder", false)) {
      fields.fail("use_glu_encoder is true; this library does not support GLU encoders");
    }
    const d_model = fields.integer("d_model");
    // Python's int() truncates.
    const d_sae = Math.trunc(d_model * fields.number("expansion_factor"));
    const input = await readInput(weights, fields, options, d_model);
    const hasBias = fields.boolean("use_decoder_bias", true);
    const actFn = fields.string("act_fn", "relu").toLowerCase();
    if (actFn !== "relu" && actFn !== "jumprelu" && actFn !== "topk") {
      fields.fail(`act_fn is ${quote(actFn)}; expected relu, jumprelu or topk`);
    }
    const includesNorm = fields.boolean("sparsity_include_decoder_norm", true);
    const top_k = fields.integer("top_k", 50);
    fields.done();

    const stored = openScope(weights, { d_model, d_sae, hasBias, isJumpRelu: actFn === "jumprelu" });
    const sizes = { d_model, d_sae, subtract_b_dec: false };
    if (actFn === "relu") return foreignModel(name, { ...sizes, activation: RELU }, stored, { input });
    const norms = includesNorm ? rowNorms(await readParameter(stored.W_dec), d_model) : new Float64Array(d_sae).fill(1);
    const zero = norms.indexOf(0);
    if (zero >= 0) fail(name, `sparsity_include_decoder_norm divides by the norm of W_D's row ${zero}, which is 0`);
    if (actFn === "jumprelu") {
      const logs = await readParameter(stored.threshold!);
      const threshold = logs.map((log, s) => Math.fround(Math.exp(log)) / norms[s]!);
      checkFinite(`reading ${name}`, "the threshold", threshold);
      const exp = `exp(${LOG_THRESHOLD}[s])`;
      const where = includesNorm
        ? [`threshold[s] = ${exp} / n[s]`, "n[s] = the norm of W_D[s, :]"]
        : [`threshold[s] = ${exp}`];
      return foreignModel(name, { ...sizes, activation: JUMP_RELU }, { ...stored, threshold }, { input, where });
    }
    const cfg = { ...sizes, activation: topKActivation(top_k) };
    if (norms.every((norm) => norm === 1)) return foreignModel(name, cfg, stored, { input });
    requireConcession(
      name,
      options,
      "rescaled-codes",
      "sparsity_include_decoder_norm is true: the model keeps the largest products of code and norm, but its codes are not " +
        "those products",
    );
    const where = rescaledLines({ W_enc: "W_E[:, s]", b_enc: "b_E[s]", W_dec: "W_D[s, :]" }, "the norm of W_D[s, :]");
    return foreignModel(name, cfg, rescaleLatents(name, await readParameters(stored), norms), { input, where });
  },
});

async function readInput(
  weights: Weights,
  fields: HeaderFields,
  options: ForeignOptions,
  d_model: number,
): Promise<InputScaling> {
  const hookIn = fields.string("hook_point_in");
  const hookOut = fields.string("hook_point_out");
  if (hookIn !== hookOut) {
    fields.fail(
      `hook_point_out is ${quote(hookOut)} and hook_point_in ${
        quote(hookIn)
      }; this library does not support transcoders`,
    );
  }
  const normalisation = fields.string("norm_activation", "dataset-wise");
  switch (normalisation) {
    case "inference":
      return options.input ?? NO_SCALING;
    case "dataset-wise": {
      if (options.input !== undefined) return options.input;
      const key = `${NORM}${hookIn}`;
      checkShape(weights, key, []);
      const [norm] = await readFinite(weights, key);
      if (!(norm! > 0)) fail(weights.name, `${key} is ${norm}; expected a positive number`);
      return { mean: null, scale: norm! / Math.sqrt(d_model) };
    }
    case "token-wise":
      requireConcession(
        weights.name,
        options,
        "normalised-rows",
        `norm_activation is "token-wise": each row is rescaled to the norm √d_model`,
      );
      return options.input ?? NO_SCALING;
    default:
      return fields.fail(`norm_activation is ${quote(normalisation)}; this library does not support it`);
  }
}

/** The thresholds are still logarithms. */
function openScope(
  weights: Weights,
  { d_model, d_sae, hasBias, isJumpRelu }: {
    readonly d_model: number;
    readonly d_sae: number;
    readonly hasBias: boolean;
    readonly isJumpRelu: boolean;
  },
): StoredParameters {
  const norms = [...weights.tensors.keys()].filter((key) => key.startsWith(NORM));
  return openParameters(hasBias ? weights : withZeros(weights, "b_D", "W_D", 1), { d_model, d_sae }, {
    names: { W_enc: "W_E", b_enc: "b_E", W_dec: "W_D", b_dec: "b_D" },
    ...isJumpRelu && { own: { threshold: { name: LOG_THRESHOLD, shape: [d_sae] } } },
    ignored: norms,
  });
}
