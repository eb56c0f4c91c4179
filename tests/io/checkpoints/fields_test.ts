/** Fields of other libraries' configurations that are left out, spelt otherwise, or known better by the caller. @module */

import { assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../../io/errors.ts";
import type { ReadOptions } from "../../../io/checkpoints/format.ts";
import { readModel, recogniseFiles } from "../../../io/checkpoints/recognised_files.ts";
import { formatSafetensors } from "../../../io/safetensors.ts";
import { joinBytes } from "../../../io/source.ts";
import { bitsOf } from "../models.ts";
import { goldenCase, type GoldenFiles, goldenFiles, memoryFiles, withField } from "./golden_files.ts";

const ACCEPT = ["normalised-rows", "rescaled-codes"] as const;

/** Every bit of the model, or why there is none. */
async function outcome({ files }: GoldenFiles, options: ReadOptions = {}): Promise<string> {
  try {
    const found = await recogniseFiles(memoryFiles(files, null));
    const { model: { cfg, input, parameters } } = await readModel(found, { accept: ACCEPT, ...options });
    return JSON.stringify([cfg, input, bitsOf(parameters)]);
  } catch (error) {
    if (error instanceof CheckpointError) return error.message;
    throw error;
  }
}

const HOOK = "blocks.2.hook_resid_post";

/** What the library takes a field for that is left out, and something else. */
const DEFAULTS: readonly [golden: string, field: string, fallback: unknown, other: unknown][] = [
  ["saelens/topk", "apply_b_dec_to_input", true, false],
  ["saelens/topk", "normalize_activations", "none", "batch"],
  ["saelens/topk", "rescale_acts_by_decoder_norm", false, true],
  ["saelens/standard", "architecture", "standard", "jumprelu"],
  ["saelens/standard", "finetuning_scaling_factor", false, true],
  ["saelens/standard", "activation_fn", "relu", "tanh-relu"],
  ["saelens/training_batchtopk", "rescale_acts_by_decoder_norm", true, false],
  ["sparsify/topk", "activation", "topk", "groupmax"],
  ["sparsify/topk", "k", 32, 3],
  ["sparsify/topk", "num_latents", 0, 16],
  ["sparsify/topk_expansion", "expansion_factor", 32, 2],
  ["sparsify/topk", "transcode", false, true],
  ["sparsify/topk", "skip_connection", false, true],
  ["sparsify/topk", "signed", false, true],
  ["gemma_scope/scope_2", "type", "sae", "crosscoder"],
  ["gemma_scope/scope_2", "affine_connection", false, true],
  ["gemma_scope/scope_2", "hf_hook_point_out", "model.layers.17.output", "model.layers.18.output"],
  ["gemma_scope/scope_2", "width", 16, 32],
  ["vit_prisma/relu", "architecture", "standard", "gated"],
  ["vit_prisma/relu", "is_transcoder", false, true],
  ["vit_prisma/relu", "transcoder_with_skip_connection", false, true],
  ["vit_prisma/relu", "activation_fn_str", "relu", "topk"],
  ["llamascopium/relu", "sae_type", "sae", "clt"],
  ["llamascopium/relu", "use_glu_encoder", false, true],
  ["llamascopium/relu", "use_decoder_bias", true, false],
  ["llamascopium/relu", "act_fn", "relu", "jumprelu"],
  ["llamascopium/relu", "norm_activation", "dataset-wise", "inference"],
  ["llamascopium/topk", "sparsity_include_decoder_norm", true, false],
  ["llamascopium/topk", "top_k", 50, 3],
  ["llama_scope/subtracts", "use_glu_encoder", false, true],
  ["llama_scope/subtracts", "hook_point_out", HOOK, "blocks.3.hook_resid_post"],
  ["llama_scope/subtracts", "use_decoder_bias", true, false],
  ["llama_scope/subtracts", "apply_decoder_bias_to_pre_encoder", true, false],
  ["llama_scope/subtracts", "sparsity_include_decoder_norm", true, false],
  ["llama_scope/relu_plain", "norm_activation", "token-wise", "none"],
  ["llama_scope/relu_plain", "act_fn", "relu", "jumprelu"],
  ["llama_scope/jumprelu", "jump_relu_threshold", 0, 2.5],
  ["llama_scope/topk", "top_k", 50, 3],
];

Deno.test("a field that is left out is what the library takes it for", async () => {
  for (const [key, field, fallback, other] of DEFAULTS) {
    const golden = goldenCase(key);
    const stated = await outcome(withField(golden, field, fallback));
    assertEquals(await outcome(withField(golden, field, undefined)), stated, `${key}: ${field}`);
    assertNotEquals(await outcome(withField(golden, field, other)), stated, `${key}: ${field}`);
  }
});

Deno.test("what SAELens' runners add to a configuration changes nothing", async () => {
  const golden = goldenCase("saelens/old_standard");
  const plain = await outcome(golden);
  // Of LanguageModelSAERunnerConfig, versions 3 to 5, with what a run of theirs has there.
  const added: Readonly<Record<string, unknown>> = {
    act_store_device: "cpu",
    autocast: false,
    autocast_lm: false,
    compile_llm: false,
    compile_sae: false,
    decoder_heuristic_init_norm: 0.1,
    eval_batch_size_prompts: null,
    eval_every_n_wandb_logs: 100,
    finetuning_method: null,
    finetuning_tokens: 0,
    llm_compilation_mode: null,
    log_activations_store_to_wandb: false,
    log_optimizer_state_to_wandb: false,
    model_kwargs: {},
    resume: false,
    sae_compilation_mode: null,
  };
  const all = Object.entries(added).reduce((golden, [field, value]) => withField(golden, field, value), golden);
  assertEquals(await outcome(all), plain);
  assertStringIncludes(await outcome(withField(golden, "whiten", true)), `unknown field "whiten"`);
});

Deno.test("SAELens' architectures are named by their configuration, whatever their tensors are", async () => {
  const golden = goldenCase("saelens/standard");
  const weights = { name: "W_dec", shape: [16, 8], data: new Float32Array(128) };
  const bytes = joinBytes(formatSafetensors([weights, { name: "b_dec", shape: [8], data: new Float32Array(8) }]));
  const without = { ...golden, files: new Map([...golden.files, ["sae_weights.safetensors", bytes]]) };
  for (const architecture of ["matching_pursuit", "temporal", "abstopk", "skip_transcoder"]) {
    for (const files of [golden, without]) {
      const message = await outcome(withField(files, "architecture", architecture));
      assertStringIncludes(
        message,
        `reading cfg.json: the architecture is "${architecture}"; expected standard`,
      );
    }
  }
  assertStringIncludes(await outcome(without), "missing tensors: W_enc, b_enc");
  assertStringIncludes(
    await outcome(withField(goldenCase("saelens/topk"), "activation_fn", "relu")),
    `activation_fn is "relu" with the architecture "topk"; expected "topk"`,
  );
});

Deno.test("ViT-Prisma's rows are normalised unless it says otherwise, and in no way that is unknown", async () => {
  const golden = goldenCase("vit_prisma/relu");
  const plain = await outcome(golden);
  for (const value of [null, "none"]) {
    assertEquals(await outcome(withField(golden, "normalize_activations", value), { accept: [] }), plain);
  }
  const refused: [value: unknown, message: string][] = [
    [undefined, `normalize_activations is missing, which means "layer_norm": each row is normalised`],
    ["layer_norm", `normalize_activations is "layer_norm": each row is normalised`],
    ["constant_norm_rescale", `normalize_activations is "constant_norm_rescale": each row is normalised`],
    ["batch", `normalize_activations is "batch"; this library does not support it`],
    [true, "normalize_activations is true; this library does not support it"],
  ];
  for (const [value, message] of refused) {
    assertStringIncludes(await outcome(withField(golden, "normalize_activations", value), { accept: [] }), message);
  }
});

Deno.test("activations are known in any case where the library knows them so", async () => {
  for (
    const [key, usual, other] of [
      ["llamascopium/relu", "relu", "ReLU"],
      ["llamascopium/jumprelu", "jumprelu", "JumpReLU"],
      ["llama_scope/relu_plain", "relu", "ReLU"],
      ["llama_scope/jumprelu", "jumprelu", "JumpReLU"],
    ] as const
  ) {
    const golden = goldenCase(key);
    const stated = await outcome(withField(golden, "act_fn", usual));
    assertEquals(stated, await outcome(golden), key);
    assertEquals(await outcome(withField(golden, "act_fn", other)), stated, key);
  }
});

Deno.test("the scaling of inputs that a caller gives is the model's, in every format", async () => {
  const input = { mean: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), scale: 2 };
  for (const { format, name, files, main, refused } of goldenFiles()) {
    if (refused !== undefined) continue;
    const found = await recogniseFiles(memoryFiles(files, main));
    assertEquals((await readModel(found, { accept: ACCEPT, input })).model.input, input, `${format}/${name}`);
  }
  assertEquals(
    await outcome(goldenCase("saelens/topk"), { input: { mean: new Float32Array(3), scale: 1 } }).then((text) =>
      text.replace(/^reading \S+: /, "")
    ),
    "input_mean has 3 elements; expected d_model = 8",
  );
});
