/**
 * SAELens, versions 3 to 6: a folder with `cfg.json` and `sae_weights.safetensors`.
 *
 * `h = (s x − [apply_b_dec_to_input] b_dec) W_enc + b_enc`, `x̂ = (f W_dec + b_dec) / s`
 *
 * | tensor | shape | |
 * | --- | --- | --- |
 * | `W_enc` | [d_in, d_sae] | |
 * | `b_enc` | [d_sae] | |
 * | `W_dec` | [d_sae, d_in] | |
 * | `b_dec` | [d_in] | |
 * | `threshold` | [d_sae] | of a `jumprelu`; its logarithm in `log_threshold` in old training checkpoints |
 * | `topk_threshold` | [] | of a `batchtopk` in training |
 * | `scaling_factor` | [d_sae] | ones, in old files; any other is refused |
 *
 * | `architecture` | read as |
 * | --- | --- |
 * | `standard` | relu |
 * | `topk` | top-k with relu; with `rescale_acts_by_decoder_norm` the norms are folded into the weights |
 * | `jumprelu`, also what `batchtopk` and `matryoshka_batchtopk` are saved as | jump-relu |
 * | `batchtopk`, `matryoshka_batchtopk`, in training checkpoints | jump-relu, as `save_inference_model` saves them |
 * | `gated`, with `b_gate` for `b_enc`, and `r_mag` and `b_mag` [d_sae] | gated |
 * | transcoders, all others | refused |
 *
 * | `normalize_activations` | read as |
 * | --- | --- |
 * | `none` | |
 * | `expected_average_only_in` | s, from `activation_scaler.json` or the caller's `input`; refused without either |
 * | `layer_norm`, `constant_norm_rescale` | refused, unless the caller accepts normalised rows |
 *
 * Before version 6 fields had other names: `activation_fn_str` or `activation_fn` with `activation_fn_kwargs`,
 * `hook_point`, a bool for `normalize_activations`, and no `architecture`. `reshape_activations: "hook_z"` means that x
 * is the concatenation of the heads.
 *
 * Training checkpoints have the same two files, with fields about training that are ignored.
 *
 * @module
 */

import { type InputScaling, NO_SCALING, type ParameterArrays } from "../../nn/arrays.ts";
import { quote } from "../errors.ts";
import { foldedInto, foldModel } from "../fold.ts";
import { describeValue, type JsonObject } from "../json.ts";
import { HeaderFields } from "../json_header.ts";
import {
  checkShape,
  fail,
  foreignFormat,
  foreignModel,
  GATED,
  hasTensors,
  jsonFile,
  JUMP_RELU,
  loseNegatives,
  openParameters,
  type OwnTensor,
  readFinite,
  relevantFields,
  RELU,
  requireConcession,
  requireJson,
  rescaledLines,
  rescaleLatents,
  rowNorms,
  topKActivation,
} from "./foreign.ts";
import type { ForeignOptions, Formatted, LoseNegatives, Weights, WritableFormat } from "./format.ts";
import { checkFinite, type ParsedCheckpoint, readParameter, readParameters } from "../model.ts";
import { formatSafetensors } from "../safetensors.ts";
import { REMEDIES } from "./remedies.ts";

/** The file with the tensors. */
export const SAELENS_WEIGHTS = "sae_weights.safetensors";
/** The file with the configuration. */
export const SAELENS_CONFIG = "cfg.json";
const SCALER = "activation_scaler.json";
const LOG_THRESHOLD = "log_threshold";

/** Fields about the model's origin, its training, and devices. */
const HARMLESS: ReadonlySet<string> = new Set([
  ..."dtype device metadata reshape_activations seed verbose".split(" "),
  ..."model_name model_class_name model_from_pretrained_kwargs hook_name hook_layer hook_head_index".split(" "),
  ..."hook_point hook_point_layer hook_point_head_index hook_eval prepend_bos exclude_special_tokens".split(" "),
  ..."context_size seqpos_slice dataset_path dataset_trust_remote_code streaming is_dataset_tokenized".split(" "),
  ..."sae_lens_version sae_lens_training_version neuronpedia_id release checkpoint_path".split(" "),
  // A training configuration, which the first versions saved instead.
  ..."expansion_factor from_pretrained_path l1_coefficient lp_norm lr lr_end lr_scheduler_name".split(" "),
  ..."lr_warm_up_steps lr_decay_steps l1_warm_up_steps n_restart_cycles adam_beta1 adam_beta2".split(" "),
  ..."train_batch_size train_batch_size_tokens training_tokens n_batches_in_buffer store_batch_size".split(" "),
  ..."store_batch_size_prompts total_training_tokens tokens_per_buffer use_cached_activations".split(" "),
  ..."cached_activations_path b_dec_init_method use_ghost_grads feature_sampling_window".split(" "),
  ..."dead_feature_window dead_feature_threshold n_checkpoints n_eval_batches mse_loss_normalization".split(" "),
  ..."decoder_orthogonal_init decoder_heuristic_init init_encoder_as_decoder_transpose".split(" "),
  ..."normalize_sae_decoder noise_scale scale_sparsity_penalty_by_decoder_norm".split(" "),
  ..."log_to_wandb wandb_project wandb_entity wandb_log_frequency wandb_id run_name".split(" "),
  // Fields that the runners of versions 3 to 6 add.
  ..."act_store_device activations_mixing_fraction autocast autocast_lm compile_llm compile_sae".split(" "),
  ..."decoder_heuristic_init_norm disable_concat_sequences eval_batch_size_prompts eval_every_n_wandb_logs".split(" "),
  ..."finetuning_method finetuning_tokens llm_compilation_mode llm_device log_activations_store_to_wandb".split(" "),
  ..."log_optimizer_state_to_wandb log_weights_to_wandb logger model_kwargs n_batches_for_norm_estimate".split(" "),
  ..."output_path prefetch_llm_batches resume resume_from_checkpoint sae_compilation_mode".split(" "),
  ..."save_final_checkpoint sequence_separator_token total_training_samples train_batch_size_samples".split(" "),
  ..."use_chat_formatting".split(" "),
  // Fields that version 6 adds in training checkpoints.
  ..."decoder_init_norm jumprelu_init_threshold jumprelu_bandwidth jumprelu_sparsity_loss_mode".split(" "),
  ..."l0_coefficient l0_warm_up_steps pre_act_loss_coefficient jumprelu_tanh_scale jumprelu_ste_to_input".split(" "),
  ..."target_l0 use_sparse_activations aux_loss_coefficient topk_threshold_lr matryoshka_widths".split(" "),
  ..."use_matryoshka_aux_loss".split(" "),
]);

/** The format. */
export const SAELENS: WritableFormat<"saelens"> = {
  ...foreignFormat({
    name: "saelens",
    files: { weights: [SAELENS_WEIGHTS] },
    recognise: async (weights) =>
      weights.container === "safetensors" &&
      (hasTensors(weights, "W_enc", "W_dec") || await namesArchitecture(weights)),
    read: async (weights, options) => {
      const cfg = await requireJson(weights, SAELENS_CONFIG);
      const fields = relevantFields(SAELENS_CONFIG, cfg, HARMLESS);
      const architecture = fields.string("architecture", "standard");
      if (!ARCHITECTURES.includes(architecture)) {
        fields.fail(
          `the architecture is ${quote(architecture)}; expected ${ARCHITECTURES.slice(0, -1).join(", ")} or ` +
            ARCHITECTURES.at(-1),
        );
      }
      const d_model = fields.integer("d_in");
      const d_sae = fields.integer("d_sae");
      const subtract_b_dec = fields.boolean("apply_b_dec_to_input", true);
      if (![undefined, false, null].includes(fields.value("finetuning_scaling_factor") as undefined)) {
        fields.fail("finetuning_scaling_factor is set; this library does not scale codes after the activation");
      }
      const input = await readInput(weights, fields, options);
      const activation = readActivation(fields, architecture);
      fields.done();

      await checkFactors(weights, d_sae);
      const threshold = thresholdOf(weights, activation.key, d_sae);
      const isGated = activation.key === "gated";
      const magnitude = (name: string): OwnTensor => ({ name, shape: [d_sae] });
      const stored = openParameters(weights, { d_model, d_sae }, {
        names: { W_enc: "W_enc", b_enc: isGated ? "b_gate" : "b_enc", W_dec: "W_dec", b_dec: "b_dec" },
        ...threshold && { own: { threshold } },
        ...isGated && { own: { r_mag: magnitude("r_mag"), b_mag: magnitude("b_mag") } },
        ignored: ["scaling_factor"],
      });
      const { threshold: storedThreshold, ...linear } = stored;
      const isRescaled = "isRescaled" in activation && activation.isRescaled;
      const parameters = isRescaled ? withNormsFolded(weights.name, await readParameters(linear), d_model) : linear;
      const where = isRescaled ? rescaledLines(RESCALED, "the norm of W_dec[s, :] in the file") : [];
      const sizes = { d_model, d_sae, subtract_b_dec };
      switch (activation.key) {
        case "standard":
          return foreignModel(weights.name, { ...sizes, activation: RELU }, parameters, { input });
        case "gated":
          return foreignModel(weights.name, { ...sizes, activation: GATED }, parameters, { input });
        case "topk":
          return foreignModel(weights.name, { ...sizes, activation: topKActivation(activation.k) }, parameters, {
            input,
            where,
          });
        case "jumprelu": {
          const found = await readParameter(storedThreshold!);
          const values = threshold?.name === LOG_THRESHOLD ? found.map(Math.exp) : found;
          checkFinite(`reading ${weights.name}`, "the threshold", values);
          const cfg = { ...sizes, activation: JUMP_RELU };
          return foreignModel(weights.name, cfg, { ...parameters, threshold: values }, {
            input,
            where: threshold?.name === LOG_THRESHOLD ? [`threshold[s] = exp(${LOG_THRESHOLD}[s])`] : [],
          });
        }
        case "batchtopk": {
          const [value] = await readParameter(storedThreshold!);
          const cfg = { ...sizes, activation: JUMP_RELU };
          const filled = { ...parameters, threshold: new Float32Array(d_sae).fill(value!) };
          return foreignModel(weights.name, cfg, filled, {
            input,
            warnings: [
              "this is a training checkpoint, whose codes depend on the batch; it is read in the form that SAELens saves for inference",
            ],
            where: [...where, "threshold[s] = topk_threshold"],
          });
        }
      }
    },
  }),
  write: { files: [SAELENS_CONFIG, SAELENS_WEIGHTS], format: formatSaelens },
};

const ARCHITECTURES: readonly string[] = ["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"];

/** Whether the configuration is SAELens', some of whose architectures have no encoder. */
async function namesArchitecture({ findJson }: Weights): Promise<boolean> {
  const cfg = await findJson(SAELENS_CONFIG);
  return cfg !== null && typeof cfg.get("architecture") === "string" && cfg.has("d_in") && cfg.has("d_sae");
}

/** The tensor with the thresholds, if the activation has any. */
function thresholdOf(weights: Weights, key: SaelensActivation["key"], d_sae: number): OwnTensor | undefined {
  if (key === "batchtopk") return { name: "topk_threshold", shape: [] };
  if (key !== "jumprelu") return undefined;
  return { name: weights.tensors.has(LOG_THRESHOLD) ? LOG_THRESHOLD : "threshold", shape: [d_sae] };
}

/** The tensors that the norms change. */
const RESCALED = {
  W_enc: "the file's W_enc[:, s]",
  b_enc: "the file's b_enc[s]",
  W_dec: "the file's W_dec[s, :]",
} as const;

/** Multiplies codes by the norms of their decoder rows, which become 1. */
function withNormsFolded(
  file: string,
  parameters: ParameterArrays,
  d_model: number,
): Omit<ParameterArrays, "threshold"> {
  const norms = rowNorms(parameters.W_dec, d_model);
  const zero = norms.indexOf(0);
  if (zero >= 0) fail(file, `rescale_acts_by_decoder_norm divides by the norm of W_dec's row ${zero}, 0`);
  return rescaleLatents(file, parameters, norms);
}

/** Old versions wrote a factor for the codes, usually ones. */
async function checkFactors(weights: Weights, d_sae: number): Promise<void> {
  if (!weights.tensors.has("scaling_factor")) return;
  checkShape(weights, "scaling_factor", [d_sae]);
  if ((await readFinite(weights, "scaling_factor")).some((factor) => factor !== 1)) {
    fail(weights.name, "scaling_factor is not 1 everywhere; this library does not scale codes after the activation");
  }
}

type SaelensActivation =
  | { readonly key: "standard" | "jumprelu" | "gated" }
  | { readonly key: "batchtopk"; readonly isRescaled: boolean }
  | { readonly key: "topk"; readonly k: number; readonly isRescaled: boolean };

function readActivation(fields: HeaderFields, architecture: string): SaelensActivation {
  if (fields.has("activation_fn_str") && fields.has("activation_fn")) {
    fields.fail("found both activation_fn_str and activation_fn; expected one of them");
  }
  const fieldName = fields.has("activation_fn") ? "activation_fn" : "activation_fn_str";
  const functionName = fields.string(fieldName, architecture === "topk" ? "topk" : "relu");
  const kwargs = fields.has("activation_fn_kwargs") && fields.value("activation_fn_kwargs") !== null
    ? fields.object("activation_fn_kwargs")
    : null;
  if (functionName === "topk" && (architecture === "standard" || architecture === "topk")) {
    const k = kwargs?.has("k") ? kwargs.integer("k") : fields.integer("k");
    if (fields.has("k") && fields.integer("k") !== k) fields.fail(`k is ${describeValue(fields.value("k"))}, and ${k}`);
    kwargs?.done();
    return { key: "topk", k, isRescaled: fields.boolean("rescale_acts_by_decoder_norm", false) };
  }
  kwargs?.done();
  const expected = architecture === "topk" ? "topk" : "relu";
  if (functionName !== expected) {
    fields.fail(
      `${fieldName} is ${quote(functionName)} with the architecture ${quote(architecture)}; expected ${
        quote(expected)
      }`,
    );
  }
  if (architecture === "standard" || architecture === "jumprelu" || architecture === "gated") {
    return { key: architecture };
  }
  // The average number of codes per row in training, which need not be an integer.
  fields.number("k");
  return { key: "batchtopk", isRescaled: fields.boolean("rescale_acts_by_decoder_norm", true) };
}

async function readInput(weights: Weights, fields: HeaderFields, options: ForeignOptions): Promise<InputScaling> {
  const field = "normalize_activations";
  const found = fields.value(field);
  switch (found) {
    case undefined:
    case null:
    case false:
    case "none":
      return options.input ?? NO_SCALING;
    case true:
    case "expected_average_only_in": {
      if (options.input !== undefined) return options.input;
      const scaler = await weights.findJson(SCALER);
      if (scaler === null) {
        return fields.fail(
          `${field} is "expected_average_only_in", but neither this file nor an ${SCALER} beside it holds the factor; give ` +
            `${REMEDIES.inputScale}, where scale is the factor by which your inputs exceed the training inputs`,
        );
      }
      return { mean: null, scale: 1 / readScaler(scaler) };
    }
    case "layer_norm":
    case "constant_norm_rescale":
      requireConcession(
        weights.name,
        options,
        "normalised-rows",
        `${field} is ${quote(found)}: each row is normalised`,
      );
      return options.input ?? NO_SCALING;
    default:
      return fields.fail(`${field} is ${describeValue(found)}; this library does not support it`);
  }
}

function readScaler(object: JsonObject): number {
  const fields = new HeaderFields(SCALER, object);
  const factor = fields.number("scaling_factor");
  if (fields.boolean("has_whitening", false)) fields.fail("has_whitening is true; this library does not whiten inputs");
  fields.done();
  if (!(factor > 0)) fields.fail(`scaling_factor is ${factor}; expected a positive number`);
  return factor;
}

// ---------------------------------------------------------------------------------------------------------- writing

/** The version whose configuration format is written. */
const SAELENS_VERSION = "6.0.0";

const ARCHITECTURE_OF = {
  "relu": "standard",
  "top-k": "topk",
  // One threshold per latent, as SAELens itself saves a BatchTopK.
  "batch-top-k": "jumprelu",
  "jump-relu": "jumprelu",
  "gated": "gated",
} as const;

function formatSaelens(given: ParsedCheckpoint, lose: LoseNegatives): Formatted {
  const folded = foldedInto(given, given.cfg.subtract_b_dec);
  const { cfg, parameters } = foldModel(given, given.cfg.subtract_b_dec);
  const { d_model, d_sae, activation, subtract_b_dec } = cfg;
  loseNegatives(activation, "SAELens", lose);
  const config = {
    d_in: d_model,
    d_sae,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: subtract_b_dec,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: { sae_lens_version: SAELENS_VERSION },
    ...activation.key === "top-k" && { k: Math.min(activation.top_k, d_sae), rescale_acts_by_decoder_norm: false },
    architecture: ARCHITECTURE_OF[activation.key],
  };
  const { W_enc, b_enc, W_dec, b_dec, threshold, r_mag, b_mag } = parameters;
  const tensors = [
    { name: "W_enc", shape: [d_model, d_sae], data: W_enc },
    { name: activation.key === "gated" ? "b_gate" : "b_enc", shape: [d_sae], data: b_enc },
    { name: "W_dec", shape: [d_sae, d_model], data: W_dec },
    { name: "b_dec", shape: [d_model], data: b_dec },
  ];
  if (threshold !== undefined) {
    const data = threshold.length === d_sae ? threshold : new Float32Array(d_sae).fill(threshold[0]!);
    tensors.push({ name: "threshold", shape: [d_sae], data });
  }
  for (const [name, data] of Object.entries({ r_mag, b_mag })) if (data) tensors.push({ name, shape: [d_sae], data });
  return {
    files: new Map([[SAELENS_CONFIG, jsonFile(config)], [SAELENS_WEIGHTS, formatSafetensors(tensors)]]),
    folded,
  };
}
