/**
 * A configuration is completed with upstream's defaults, checked field by field, and frozen.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { completeConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";

Deno.test("defaults are upstream's of 2026", () => {
  assertEquals(completeConfig(), {
    d_model: 1024,
    d_sae: 16384,
    activation: {
      key: "top-k",
      top_k: 32,
      relu: false,
      sparsity: { key: "no-sparsity" },
      aux: { key: "auxk", k_aux: 512, alpha: 1 / 32, include_b_dec: false, normalize: false },
    },
    reinit_blend: 0.8,
    reinit_enc_dec_tranpose: true,
    remove_parallel_grads: true,
    normalize_w_dec: true,
    subtract_b_dec: false,
  });
  assertEquals(completeConfig({ activation: { key: "relu" } }).activation, {
    key: "relu",
    sparsity: { key: "l1-sparsity", coeff: 4e-4 },
    aux: { key: "no-aux" },
  });
});

Deno.test("what is given is kept, what is left out is filled in", () => {
  const { activation } = completeConfig({
    activation: { key: "top-k", top_k: 7, aux: { key: "auxk", include_b_dec: true } },
  });
  assertEquals(activation, {
    key: "top-k",
    top_k: 7,
    relu: false,
    sparsity: { key: "no-sparsity" },
    aux: { key: "auxk", k_aux: 512, alpha: 1 / 32, include_b_dec: true, normalize: false },
  });
});

Deno.test("a complete configuration completes to itself", () => {
  const cfg = completeConfig({ d_model: 5, subtract_b_dec: true, activation: { key: "relu" } });
  assertEquals(completeConfig(cfg), cfg);
});

Deno.test("frozen to the bottom", () => {
  const cfg = completeConfig();
  const parts: object[] = [cfg, cfg.activation, cfg.activation.sparsity, cfg.activation.aux];
  for (const part of parts) assert(Object.isFrozen(part));
});

const refused: [what: string, options: unknown, error: typeof RangeError | typeof TypeError, message: string][] = [
  ["an unknown field", { d_vit: 3 }, TypeError, 'the configuration has no field "d_vit"'],
  ["no width", { d_model: 0 }, RangeError, "d_model must be an integer of at least 1, found 0"],
  ["a fraction of a latent", { d_sae: 2.5 }, RangeError, "d_sae must be an integer of at least 1, found 2.5"],
  ["a width in words", { d_model: "8" }, RangeError, 'd_model must be an integer of at least 1, found "8"'],
  ["a blend above one", { reinit_blend: 1.5 }, RangeError, "reinit_blend must be between 0 and 1, found 1.5"],
  ["NaN", { reinit_blend: NaN }, RangeError, "reinit_blend must be between 0 and 1, found NaN"],
  ["a switch that is no boolean", { normalize_w_dec: 1 }, TypeError, "normalize_w_dec must be true or false, found 1"],
  ["an unknown activation", { activation: { key: "gelu" } }, RangeError, 'unknown activation key "gelu"'],
  ["top_k on a ReLU", { activation: { key: "relu", top_k: 3 } }, TypeError, 'activation relu has no field "top_k"'],
  [
    "no latents to keep",
    { activation: { key: "top-k", top_k: 0 } },
    RangeError,
    "top_k must be an integer of at least 1",
  ],
  [
    "an unknown sparsity",
    { activation: { key: "relu", sparsity: { key: "l0" } } },
    RangeError,
    'unknown sparsity key "l0"',
  ],
  [
    "a negative penalty",
    { activation: { key: "relu", sparsity: { key: "l1-sparsity", coeff: -1 } } },
    RangeError,
    "coeff must be a finite number of at least 0, found -1",
  ],
  [
    "an infinite penalty",
    { activation: { key: "relu", sparsity: { key: "l1-sparsity", coeff: Infinity } } },
    RangeError,
    "coeff must be a finite number of at least 0, found Infinity",
  ],
  [
    "more latents to aim at than there are",
    { d_sae: 45, activation: { key: "jump-relu", sparsity: { key: "target-l0-sparsity", coeff: 1, target_l0: 46 } } },
    RangeError,
    "target_l0 must be at most d_sae 45, found 46",
  ],
  [
    "a correction for a start that is never left",
    { activation: { key: "batch-top-k", momentum: 0, bias_correction: true } },
    RangeError,
    "bias_correction needs a momentum above 0",
  ],
  [
    "a window of no width",
    { activation: { key: "jump-relu", bandwidth: 0 } },
    RangeError,
    "bandwidth must be positive, found 0",
  ],
  [
    "thresholds' penalties where there are none",
    { activation: { key: "relu", sparsity: { key: "l0-sparsity", coeff: 1 } } },
    RangeError,
    "l0-sparsity trains the thresholds of a jump-relu; the activation is relu",
  ],
  [
    "thresholds' auxiliary loss where there are none",
    { activation: { key: "batch-top-k", aux: { key: "pre-act" } } },
    RangeError,
    "pre-act needs the thresholds of a jump-relu; the activation is batch-top-k",
  ],
  ["an unknown auxiliary loss", { activation: { key: "top-k", aux: { key: "ghost" } } }, RangeError, 'key "ghost"'],
  [
    "an auxiliary loss without latents",
    { activation: { key: "top-k", aux: { key: "auxk", k_aux: 0 } } },
    RangeError,
    "k_aux must be an integer of at least 1, found 0",
  ],
];

for (const [what, options, error, message] of refused) {
  Deno.test(`refused: ${what}`, () => {
    assertThrows(() => completeConfig(options as SparseAutoencoderOptions), error, message);
  });
}
