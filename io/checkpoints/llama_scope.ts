/**
 * Llama Scope, as OpenMOSS published it before Llamascopium: a folder with `hyperparams.json` and
 * `checkpoints/final.safetensors`.
 *
 * `h = n (x W_enc + b_enc / a_in)`, `f = activation(h)`, `x̂ = f W_dec a_in / (a_out n) + b_dec / a_out`, where n are
 * the norms of the rows of `W_dec a_in / a_out` with `sparsity_include_decoder_norm`, and otherwise 1. This is what the
 * library itself computed from these files.
 *
 * | tensor | shape |
 * | --- | --- |
 * | `encoder.weight` | [d_sae, d_model], W_enc transposed |
 * | `encoder.bias` | [d_sae] |
 * | `decoder.weight` | [d_model, d_sae], W_dec transposed |
 * | `decoder.bias` | [d_model]; none without `use_decoder_bias` |
 *
 * | `act_fn` | read as |
 * | --- | --- |
 * | `relu` | relu |
 * | `jumprelu`, and `topk` with a `jump_relu_threshold` above 0 | jump-relu, with that threshold for all latents |
 * | `topk` | top-k with relu |
 *
 * | `norm_activation` | a_in, a_out |
 * | --- | --- |
 * | `dataset-wise` | √d_model / `dataset_average_activation_norm.in` and `.out` |
 * | `none`, `inference` | 1 |
 * | `token-wise`, `batch-wise` | refused |
 *
 * With `apply_decoder_bias_to_pre_encoder` the encoder sees `x − b_dec / a_out`. `use_glu_encoder` and different hook
 * points for input and output are refused.
 *
 * @module
 */

import type { ParameterArrays } from "../../nn/arrays.ts";
import { quote } from "../errors.ts";
import type { HeaderFields } from "../json_header.ts";
import {
  fail,
  foreignFormat,
  foreignModel,
  hasTensors,
  JUMP_RELU,
  openParameters,
  relevantFields,
  RELU,
  requireJson,
  rescaledLines,
  rescaleLatents,
  rowNorms,
  topKActivation,
  withZeros,
} from "./foreign.ts";
import type { CheckpointFormat } from "./format.ts";
import { checkFinite, readParameters } from "../model.ts";

/** The file with the tensors, relative to the configuration. */
const WEIGHTS = "checkpoints/final.safetensors";
const CONFIG = "hyperparams.json";

/** Fields about devices and training. */
const HARMLESS: ReadonlySet<string> = new Set([
  ..."device seed dtype expansion_factor bias_init_method decoder_exactly_fixed_norm init_decoder_norm".split(" "),
  ..."init_encoder_norm init_encoder_with_decoder_transpose lp l1_coefficient l1_coefficient_warmup_steps".split(" "),
  ..."k_warmup_steps initial_k use_batch_norm_mse use_ghost_grads tp_size ddp_size init_search".split(" "),
  ..."remove_gradient_parallel_to_decoder_directions sae_pretrained_name_or_path strict_loading".split(" "),
]);

/** The format. */
export const LLAMA_SCOPE: CheckpointFormat<"llama_scope"> = foreignFormat({
  name: "llama_scope",
  files: { weights: [WEIGHTS], dicts: ["sae"] },
  // The same library also wrote it as a PyTorch file with the state dict in a dict. A bare state dict is
  // dictionary_learning's.
  recognise: (weights) =>
    (weights.container === "safetensors" || weights.isNested) &&
    hasTensors(weights, "encoder.weight", "decoder.weight"),
  read: async (weights, { input }) => {
    const { name } = weights;
    const fields = relevantFields(CONFIG, await requireJson(weights, CONFIG), HARMLESS);
    if (fields.boolean("use_glu_encoder", false)) {
      fields.fail("use_glu_encoder is true; this library does not support GLU encoders");
    }
    const hookIn = fields.string("hook_point_in");
    const hookOut = fields.string("hook_point_out", hookIn);
    if (hookIn !== hookOut) {
      fields.fail(
        `hook_point_out is ${quote(hookOut)} and hook_point_in ${
          quote(hookIn)
        }; this library does not support transcoders`,
      );
    }
    const d_model = fields.integer("d_model");
    const d_sae = fields.integer("d_sae");
    const hasBias = fields.boolean("use_decoder_bias", true);
    const subtract_b_dec = fields.boolean("apply_decoder_bias_to_pre_encoder", true) && hasBias;
    const includesNorm = fields.boolean("sparsity_include_decoder_norm", true);
    const factors = readFactors(fields, d_model);
    const activation = readActivation(fields);
    fields.done();

    const given = hasBias ? weights : withZeros(weights, "decoder.bias", "decoder.weight", 0);
    const stored = openParameters(given, { d_model, d_sae }, {
      names: {
        W_enc: "encoder.weight",
        b_enc: "encoder.bias",
        W_dec: "decoder.weight",
        b_dec: "decoder.bias",
      },
      transposed: ["W_enc", "W_dec"],
    });
    const standard = withoutFactors(name, await readParameters(stored), factors);
    const parameters = includesNorm ? withUnitRows(name, standard, d_model) : standard;
    const sizes = { d_model, d_sae, subtract_b_dec };
    const more = { ...input && { input }, where: derivations(factors, includesNorm) };
    switch (activation.key) {
      case "relu":
        return foreignModel(name, { ...sizes, activation: RELU }, parameters, more);
      case "topk":
        return foreignModel(name, { ...sizes, activation: topKActivation(activation.top_k) }, parameters, more);
      case "jumprelu": {
        const threshold = new Float32Array(d_sae).fill(activation.threshold);
        checkFinite(`reading ${CONFIG}`, "jump_relu_threshold", threshold);
        return foreignModel(name, { ...sizes, activation: JUMP_RELU }, { ...parameters, threshold }, {
          ...more,
          where: [...more.where, "threshold[s] = jump_relu_threshold"],
        });
      }
    }
  },
});

/** How the parameters are computed from the tensors. */
function derivations(factors: Factors, includesNorm: boolean): string[] {
  const digits = (factor: number): string => String(Number(factor.toPrecision(7)));
  const isPlain = factors.in === 1 && factors.out === 1;
  const divisor = isPlain ? "" : " / a_in";
  const W_dec = `decoder.weight[:, s]${isPlain ? "" : " · a_in / a_out"}`;
  const latents = includesNorm
    ? rescaledLines(
      { W_enc: "encoder.weight[s, :]", b_enc: `encoder.bias[s]${divisor}`, W_dec },
      `the norm of ${W_dec}`,
    )
    : isPlain
    ? []
    : [`b_enc[s] = encoder.bias[s]${divisor}`, `W_dec[s, :] = ${W_dec}`];
  if (isPlain) return latents;
  return [...latents, "b_dec = decoder.bias / a_out", `a_in = ${digits(factors.in)}, a_out = ${digits(factors.out)}`];
}

interface Factors {
  readonly in: number;
  readonly out: number;
}

function readFactors(fields: HeaderFields, d_model: number): Factors {
  const normalisation = fields.string("norm_activation", "token-wise");
  if (normalisation === "none" || normalisation === "inference") {
    fields.value("dataset_average_activation_norm");
    return { in: 1, out: 1 };
  }
  if (normalisation !== "dataset-wise") {
    return fields.fail(`norm_activation is ${quote(normalisation)}; this library does not support it`);
  }
  const norms = fields.object("dataset_average_activation_norm");
  const factorOf = (key: string): number => {
    const norm = norms.number(key);
    return norm > 0 ? Math.sqrt(d_model) / norm : norms.fail(`${key} is ${norm}; expected a positive number`);
  };
  const factors = { in: factorOf("in"), out: factorOf("out") };
  norms.done();
  return factors;
}

type ScopeActivation =
  | { readonly key: "relu" }
  | { readonly key: "topk"; readonly top_k: number }
  | { readonly key: "jumprelu"; readonly threshold: number };

function readActivation(fields: HeaderFields): ScopeActivation {
  const key = fields.string("act_fn", "relu").toLowerCase();
  const threshold = fields.number("jump_relu_threshold", 0);
  const top_k = fields.integer("top_k", 50);
  if (key === "jumprelu" || key === "topk" && threshold > 0) return { key: "jumprelu", threshold };
  if (key === "topk") return { key, top_k };
  if (key === "relu") return { key };
  return fields.fail(`act_fn is ${quote(key)}; expected relu, jumprelu or topk`);
}

/** The parameters for unscaled inputs: computed in float64 and rounded once. */
function withoutFactors(file: string, parameters: ParameterArrays, factors: Factors): ParameterArrays {
  const { W_enc, b_enc, W_dec, b_dec } = parameters;
  const standard = {
    W_enc,
    b_enc: b_enc.map((b) => b / factors.in),
    W_dec: factors.in === factors.out ? W_dec : W_dec.map((w) => w * (factors.in / factors.out)),
    b_dec: b_dec.map((b) => b / factors.out),
  };
  for (const [key, data] of Object.entries(standard)) checkFinite(`reading ${file}`, `${key}, standardised,`, data);
  return standard;
}

function withUnitRows(file: string, parameters: ParameterArrays, d_model: number): ParameterArrays {
  const norms = rowNorms(parameters.W_dec, d_model);
  const zero = norms.indexOf(0);
  if (zero >= 0) {
    fail(file, `sparsity_include_decoder_norm divides by the norm of decoder.weight's column ${zero}, which is 0`);
  }
  return rescaleLatents(file, parameters, norms);
}
