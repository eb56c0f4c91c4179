/**
 * The reference against the goldens: what the Python package computes in f32, within what f32 can hold.
 *
 * @module
 */

import { assert } from "@std/assert";
import { completeConfig } from "../../nn/config.ts";
import { loadGoldens, loadMatryoshkaGoldens, loadSquaredErrorGoldens } from "../support/goldens.ts";
import {
  assertExact,
  assertRunLosses,
  assertRunParameter,
  assertScalarClose,
  assertScheduleClose,
  assertTensorClose,
} from "../support/tolerance.ts";
import { PARAMETER_NAMES, widen } from "./model.ts";
import {
  backward,
  countSinceActive,
  dead,
  decide,
  forward,
  lossAndGradients,
  squaredError,
  squaredErrorOverNorm,
} from "./objective.ts";
import {
  clip,
  initBDec,
  initialState,
  learningRate,
  normalizeRows,
  removeParallel,
  trainStep,
  warmup,
  warmupCosine,
} from "./training.ts";

for (const golden of loadGoldens("relu_vanilla")) {
  const d_model = golden.cfg.d_vit;
  const d_sae = d_model * golden.cfg.exp_factor;
  Deno.test(`relu_vanilla: d_model ${d_model}, d_sae ${d_sae}`, () => {
    const sparsity = { key: "l1-sparsity", coeff: golden.sparsity_coeff } as const;
    const cfg = completeConfig({ d_model, d_sae, subtract_b_dec: true, activation: { key: "relu", sparsity } });
    const p = widen(golden.params);
    const x_BD = Float64Array.from(golden.x);
    const problem = { cfg, x_BD, prefixes: [d_sae], dead_S: new Uint8Array(d_sae) };
    const { record, gradients } = lossAndGradients(problem, p);
    assertTensorClose(record.f_BS, golden.f_x, "f_x");
    assertTensorClose(record.x_hats_BPD, golden.x_hat, "x_hat");
    for (const name of ["loss", "mse", "l0", "l1", "sparsity"] as const) {
      assertScalarClose(record.loss[name], golden.loss[name], name);
    }
    for (const name of PARAMETER_NAMES) assertTensorClose(gradients[name], golden.grads[name], `grad_${name}`);

    normalizeRows(p.W_dec, d_model);
    assertTensorClose(p.W_dec, golden.W_dec_normalized, "W_dec");
    removeParallel(gradients.W_dec, p.W_dec, d_model);
    assertTensorClose(gradients.W_dec, golden.grad_W_dec_without_parallel_after_normalize, "grad_W_dec");
    assertTensorClose(initBDec(p, x_BD).b_dec, golden.b_dec_after_init_b_dec, "b_dec");
  });
}

for (const golden of loadMatryoshkaGoldens()) {
  Deno.test(`matryoshka: ${golden.name}, prefixes ${golden.prefixes}`, () => {
    const cfg = completeConfig(golden.cfg);
    const p = widen(golden.params);
    const x_BD = Float64Array.from(golden.x);
    const alive = { cfg, x_BD, prefixes: golden.prefixes, dead_S: new Uint8Array(cfg.d_sae) };
    const { f_BS } = forward(alive, p, decide(alive, p));
    const counters_S = countSinceActive(golden.tokens_since_active_before, f_BS);
    assertExact(counters_S, golden.tokens_since_active_after, "tokens since active");

    const problem = { ...alive, dead_S: dead(counters_S, golden.dead_threshold_tokens) };
    const decisions = decide(problem, p);
    const record = forward(problem, p, decisions);
    const gradients = backward(problem, p, decisions, record);
    assertTensorClose(record.h_BS, golden.h_x, "h_x");
    assertTensorClose(record.f_BS, golden.f_x, "f_x");
    assertTensorClose(record.x_hats_BPD, golden.x_hats, "x_hats");
    for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux"] as const) {
      assertScalarClose(record.loss[name], golden.loss[name], name);
    }
    assertExact([record.loss.n_dead], [golden.loss.n_dead], "n_dead");
    for (const name of PARAMETER_NAMES) assertTensorClose(gradients[name], golden.grads[name], `grad_${name}`);

    removeParallel(gradients.W_dec, p.W_dec, cfg.d_model);
    assertTensorClose(gradients.W_dec, golden.grad_W_dec_without_parallel, "grad_W_dec without its parallel part");
    assertScalarClose(clip(gradients, 0.05), golden.grad_norm_before_clip, "grad_norm");
    for (const name of PARAMETER_NAMES) {
      assertTensorClose(gradients[name], golden["grads_after_clip_0.05"][name], `clipped grad_${name}`);
    }
  });
}

Deno.test("matryoshka: the goldens reach every activation and auxiliary loss", () => {
  const goldens = loadMatryoshkaGoldens();
  for (const name of ["relu", "relu_auxk", "top_k", "top_k_auxk", "top_k_clamped", "batch_top_k"]) {
    assert(goldens.filter((golden) => golden.name === name).length === 2, `${name} with 1 and 4 prefixes`);
  }
  assert(goldens.every(({ cfg, loss }) => (cfg.activation!.aux!.key === "auxk") === loss.aux > 0));
});

for (const golden of loadSquaredErrorGoldens()) {
  Deno.test(`mean_squared_err: ${golden.name}`, () => {
    const [x, x_hat] = [Float64Array.from(golden.x), Float64Array.from(golden.x_hat)];
    assertTensorClose(squaredError(x_hat, x), golden.mse, "mse");
    assertTensorClose(squaredError(x_hat, x), golden.reference, "reference");
    assertTensorClose(squaredErrorOverNorm(x_hat, x, golden.d_model), golden.mse_norm, "mse_norm");
    assertTensorClose(squaredErrorOverNorm(x_hat, x, golden.d_model), golden.reference_norm, "reference_norm");
  });
}

Deno.test("mean_squared_err: all-zero inputs are no NaN, large ones no infinity", () => {
  assertExact(squaredError(Float64Array.of(1, 0), Float64Array.of(0, 0)), [1, 0]);
  assertTensorClose(squaredErrorOverNorm(Float64Array.of(1), Float64Array.of(3e28), 1), [3e28]);
});

Deno.test("warmup", () => {
  for (const { init, final, n_steps, values } of loadGoldens("warmup")) {
    assertScheduleClose(values.map((_, i) => warmup(init, final, n_steps, i + 1)), values);
  }
});

Deno.test("warmup_cosine", () => {
  for (const { args, values } of loadGoldens("warmup_cosine")) {
    assertScheduleClose(values.map((_, i) => warmupCosine(args, i + 1)), values, `warmupCosine(${args})`);
  }
});

Deno.test("train_relu_vanilla: 40 steps", () => {
  for (const golden of loadGoldens("train_relu_vanilla")) {
    const sparsity = { key: "l1-sparsity", coeff: golden.sparsity_coeff } as const;
    const sizes = { d_model: golden.start.b_dec.length, d_sae: golden.start.b_enc.length };
    const cfg = completeConfig({ ...sizes, subtract_b_dec: true, activation: { key: "relu", sparsity } });
    const p = widen(golden.start);
    const state = initialState(p);
    const losses = golden.losses.map((_, step) =>
      trainStep(cfg, p, state, rows(golden, cfg.d_model, step), {
        lr: learningRate((k) => warmup(0, 3e-3, 10, k), step),
        grad_clip: false,
        prefixes: [cfg.d_sae],
        dead_threshold_tokens: Infinity,
      })
    );
    for (const name of ["loss", "mse", "l0", "l1", "sparsity"] as const) {
      assertRunLosses(losses.map((loss) => loss[name]), golden.losses.map((loss) => loss[name]), name);
    }
    for (const name of PARAMETER_NAMES) assertRunParameter(p[name], golden.end[name], name);
  }
});

Deno.test("train_top_k_matryoshka: 40 steps", () => {
  for (const golden of loadGoldens("train_top_k_matryoshka")) {
    const { top_k, k_aux, alpha, dead_threshold_tokens } = golden;
    const sizes = { d_model: golden.start.b_dec.length, d_sae: golden.start.b_enc.length };
    const aux = { key: "auxk", k_aux, alpha, include_b_dec: true } as const;
    const cfg = completeConfig({ ...sizes, activation: { key: "top-k", top_k, aux } });
    const p = widen(golden.start);
    const state = initialState(p);
    const losses = golden.losses.map((_, step) =>
      trainStep(cfg, p, state, rows(golden, cfg.d_model, step), {
        lr: learningRate((k) => warmupCosine([0, 8, 3e-3, 40, 0], k), step),
        grad_clip: 1,
        prefixes: golden.prefixes[step]!,
        dead_threshold_tokens,
      })
    );
    for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux", "grad_norm"] as const) {
      assertRunLosses(losses.map((loss) => loss[name]), golden.losses.map((loss) => loss[name]), name);
    }
    assertExact(losses.map((loss) => loss.n_dead), golden.losses.map((loss) => loss.n_dead), "n_dead");
    for (const name of PARAMETER_NAMES) assertRunParameter(p[name], golden.end[name], name);
  }
});

function rows(golden: { readonly batch: number; readonly data: Float32Array }, D: number, step: number): Float64Array {
  const size = golden.batch * D;
  return Float64Array.from(golden.data.subarray(step * size, (step + 1) * size));
}
