/**
 * What a model computes, in float64 loops, and models of every kind to compute with.
 *
 * @module
 */

import type { ParsedCheckpoint } from "../../../io/model.ts";
import type { ActivationOptions } from "../../../nn/activations/mod.ts";
import { Random } from "../../support/random.ts";
import { randomModel } from "../models.ts";

/** Codes and reconstructions of rows. */
export interface Outputs {
  /** [N, d_sae] */
  readonly codes: Float64Array;
  /** [N, d_model] */
  readonly x_hat: Float64Array;
}

/** `f = activation(((x − mean) / scale − [subtracts] b_dec) W_enc + b_enc)`, `x̂ = scale (f W_dec + b_dec) + mean` */
export function compute({ cfg, parameters, input }: ParsedCheckpoint, x: Float32Array): Outputs {
  const { d_model, d_sae, subtract_b_dec } = cfg;
  const { W_enc, b_enc, W_dec, b_dec } = parameters;
  const n_rows = x.length / d_model;
  const codes = new Float64Array(n_rows * d_sae);
  const x_hat = new Float64Array(n_rows * d_model);
  for (let row = 0; row < n_rows; row++) {
    const x_D = Float64Array.from({ length: d_model }, (_, d) => {
      const standardised = (x[row * d_model + d]! - (input.mean?.[d] ?? 0)) / input.scale;
      return standardised - (subtract_b_dec ? b_dec[d]! : 0);
    });
    const h_S = Float64Array.from(b_enc, (b, s) => x_D.reduce((sum, x, d) => sum + x * W_enc[d * d_sae + s]!, b));
    const f_S = activate(cfg.activation, h_S, parameters);
    codes.set(f_S, row * d_sae);
    for (let d = 0; d < d_model; d++) {
      const decoded = f_S.reduce((sum, f, s) => sum + f * W_dec[s * d_model + d]!, b_dec[d]!);
      x_hat[row * d_model + d] = decoded * input.scale + (input.mean?.[d] ?? 0);
    }
  }
  return { codes, x_hat };
}

function activate(
  activation: ParsedCheckpoint["cfg"]["activation"],
  h_S: Float64Array,
  { threshold, b_enc, r_mag, b_mag }: ParsedCheckpoint["parameters"],
): Float64Array {
  switch (activation.key) {
    case "relu":
      return h_S.map((h) => Math.max(h, 0));
    case "top-k": {
      const largest = [...h_S.keys()].sort((a, b) => h_S[b]! - h_S[a]! || a - b).slice(0, activation.top_k);
      return h_S.map((h, s) => !largest.includes(s) || (activation.relu && h < 0) ? 0 : h);
    }
    case "gated":
      return h_S.map((h, s) => h > 0 ? Math.max(Math.exp(r_mag![s]!) * (h - b_enc[s]!) + b_mag![s]!, 0) : 0);
    case "batch-top-k":
    case "jump-relu":
      return h_S.map((h, s) => h > Math.max(threshold![activation.key === "jump-relu" ? s : 0]!, 0) ? h : 0);
  }
}

const ACTIVATIONS: Readonly<Record<string, ActivationOptions>> = {
  relu: { key: "relu" },
  top_k: { key: "top-k", top_k: 3, relu: true },
  top_k_negative: { key: "top-k", top_k: 6 },
  batch_top_k: { key: "batch-top-k", top_k: 3 },
  jump_relu: { key: "jump-relu" },
  gated: { key: "gated" },
};

/** Models with every activation, both encoder formulas, with and without scaling of their inputs. */
export function modelsOfEveryKind(): Map<string, ParsedCheckpoint> {
  const models = new Map<string, ParsedCheckpoint>();
  const mean = new Random(7).normal(5);
  for (const [name, activation] of Object.entries(ACTIVATIONS)) {
    for (const subtract_b_dec of [false, true]) {
      for (const [scaling, input] of [["", { mean: null, scale: 1 }], ["_scaled", { mean, scale: 0.7 }]] as const) {
        const model = randomModel({ d_model: 5, d_sae: 9, activation, subtract_b_dec }, input, models.size);
        const threshold = activation.key === "jump-relu"
          ? Float32Array.from(new Random(models.size).normal(9), (value) => value / 2)
          : model.parameters.threshold;
        const parameters = threshold === undefined ? model.parameters : { ...model.parameters, threshold };
        models.set(`${name}${subtract_b_dec ? "_subtracts" : ""}${scaling}`, { ...model, parameters });
      }
    }
  }
  return models;
}
