/**
 * ViT-Prisma: a folder with `config.json` and `weights.pt`, a PyTorch file of four tensors; or, older, one PyTorch file
 * with a dict of both: `cfg`, an object of the library's configuration class, and `state_dict`. The object's fields are
 * read from the pickle; the class is not needed, and none of its code runs.
 *
 * `f = activation((x − b_dec) W_enc + b_enc)`, `x̂ = f W_dec + b_dec`
 *
 * | tensor | shape |
 * | --- | --- |
 * | `W_enc` | [d_in, d_sae] |
 * | `b_enc` | [d_sae] |
 * | `W_dec` | [d_sae, d_in] |
 * | `b_dec` | [d_in] |
 *
 * | field | read as |
 * | --- | --- |
 * | `activation_fn_str` `relu` | relu |
 * | `activation_fn_str` `topk`, `activation_fn_kwargs.k` | top-k with relu |
 * | `activation_fn_str` `tanh-relu`, others | refused |
 * | `architecture` `gated`, with `b_gate`, `r_mag` and `b_mag` [d_sae] in addition, and an unused `b_enc` | gated |
 * | `is_transcoder` | refused |
 * | `normalize_activations` `layer_norm` (the default), `constant_norm_rescale` | refused, unless the caller accepts normalised rows |
 *
 * In the one-file form normalised rows are always refused: some versions that wrote it subtracted `b_dec` before
 * normalising the row, others after, and the file does not record which.
 *
 * @module
 */

import { quote } from "../errors.ts";
import { describeValue, type JsonObject } from "../json.ts";
import { pickledJson, PickledRecord } from "../pickle.ts";
import {
  fail,
  foreignFormat,
  foreignModel,
  GATED,
  hasTensors,
  openParameters,
  relevantFields,
  RELU,
  requireConcession,
  requireJson,
  topKActivation,
} from "./foreign.ts";
import type { CheckpointFormat, Weights } from "./format.ts";

const CONFIG = "config.json";

/** Fields about the model's origin and its training. */
const HARMLESS: ReadonlySet<string> = new Set([
  ..."model_class_name model_name vit_model_cfg model_path hook_point hook_point_layer layer_subtype".split(" "),
  ..."hook_point_head_index context_size use_cached_activations use_patches_only cached_activations_path".split(" "),
  ..."cls_token_only max_grad_norm initialization_method n_batches_in_buffer store_batch_size num_workers".split(" "),
  ..."num_epochs total_training_images total_training_tokens total_training_steps image_size device seed".split(" "),
  ..."dtype verbose b_dec_init_method expansion_factor from_pretrained_path l1_coefficient lp_norm lr".split(" "),
  ..."lr_scheduler_name lr_warm_up_steps train_batch_size out_hook_point_layer layer_out_subtype d_out".split(" "),
  ..."dataset_name dataset_path dataset_train_path dataset_val_path use_ghost_grads tokens_per_buffer".split(" "),
  ..."feature_sampling_window dead_feature_window dead_feature_threshold log_to_wandb wandb_project".split(" "),
  ..."wandb_entity wandb_log_frequency n_validation_runs n_checkpoints checkpoint_path".split(" "),
  ..."min_l0 min_explained_variance prepend_bos".split(" "),
]);

/** Classes and names that the pickled configuration mentions: its own class, and the device and type of tensors. */
const CLASSES = /^(vit_prisma(\.[a-z_]+)*\.\w*Config|torch\.(device|float16|bfloat16|float32|float64))$/;

/** The format. */
export const VIT_PRISMA: CheckpointFormat<"vit_prisma"> = foreignFormat({
  name: "vit_prisma",
  files: { weights: ["weights.pt"], dicts: ["state_dict"], classes: CLASSES },
  recognise: (weights) =>
    weights.container === "torch" && (weights.extras.has("cfg") || hasTensors(weights, "W_enc", "W_dec")),
  read: async (weights, options) => {
    const { name } = weights;
    const isPickled = weights.extras.has("cfg");
    for (const entry of weights.extras.keys()) {
      if (entry !== "cfg") fail(name, `found the entry ${quote(entry)}; expected cfg and state_dict, or tensors only`);
    }
    const fields = isPickled
      ? relevantFields("cfg", pickledConfig(weights), HARMLESS)
      : relevantFields(CONFIG, await requireJson(weights, CONFIG), HARMLESS);
    const d_model = fields.integer("d_in");
    const d_sae = fields.integer("d_sae");
    const architecture = fields.string("architecture", "standard");
    if (architecture !== "standard" && architecture !== "gated") {
      fields.fail(`the architecture is ${quote(architecture)}; expected "standard" or "gated"`);
    }
    const isGated = architecture === "gated";
    for (const field of ["is_transcoder", "transcoder_with_skip_connection"]) {
      if (fields.boolean(field, false)) fields.fail(`${field} is true; this library does not support transcoders`);
    }
    const normalisation = fields.value("normalize_activations");
    if (normalisation === "layer_norm" || normalisation === "constant_norm_rescale" || normalisation === undefined) {
      const what = normalisation === undefined ? `missing, which means "layer_norm"` : quote(normalisation);
      if (isPickled) {
        fields.fail(
          `normalize_activations is ${what}; whether b_dec is subtracted from the row or from the normalised row depends ` +
            "on the ViT-Prisma version that wrote the file, which the file does not record",
        );
      }
      requireConcession(name, options, "normalised-rows", `normalize_activations is ${what}: each row is normalised`);
    } else if (normalisation !== null && normalisation !== "none") {
      fields.fail(`normalize_activations is ${describeValue(normalisation)}; this library does not support it`);
    }
    const functionName = fields.string("activation_fn_str", "relu");
    const kwargs = fields.has("activation_fn_kwargs") ? fields.object("activation_fn_kwargs") : null;
    if (functionName !== "relu" && functionName !== "topk") {
      fields.fail(`activation_fn_str is ${quote(functionName)}; expected "relu" or "topk"`);
    }
    if (isGated && functionName !== "relu") {
      fields.fail(`activation_fn_str is ${quote(functionName)} with the architecture "gated"; expected "relu"`);
    }
    const top_k = functionName === "topk"
      ? kwargs?.integer("k") ?? fields.fail("activation_fn_kwargs, which holds k, is missing")
      : null;
    kwargs?.done();
    fields.done();
    const parameters = openParameters(weights, { d_model, d_sae }, {
      names: { W_enc: "W_enc", b_enc: isGated ? "b_gate" : "b_enc", W_dec: "W_dec", b_dec: "b_dec" },
      ...isGated && {
        own: { r_mag: { name: "r_mag", shape: [d_sae] }, b_mag: { name: "b_mag", shape: [d_sae] } },
        // Every class has it; the gated one does not use it.
        ignored: ["b_enc"],
      },
    });
    const activation = isGated ? GATED : top_k === null ? RELU : topKActivation(top_k);
    const cfg = { d_model, d_sae, subtract_b_dec: true, activation };
    return foreignModel(name, cfg, parameters, options.input && { input: options.input });
  },
});

/** The fields of the configuration in the file. */
function pickledConfig({ name, extras }: Weights): JsonObject {
  const cfg = extras.get("cfg");
  if (!(cfg instanceof PickledRecord) || cfg.attributes === null || cfg.args.length > 0) {
    return fail(name, "cfg is not an object with fields");
  }
  return pickledJson(cfg.attributes) as JsonObject;
}
