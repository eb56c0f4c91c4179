/**
 * Reasons why a metric has no value.
 *
 * @module
 */

import type { Coherence } from "./coherence.ts";
import type { Metrics } from "./metrics.ts";
import type { Monosemanticity } from "./monosemanticity.ts";

/** A metric that may be undefined for some rows or models. */
export type PartialMetric =
  | "nmse"
  | "explained_variance"
  | "cosine"
  | "norm_ratio"
  | "reconstruction_bias"
  | "coherence"
  | "monosemanticity";

/** Metrics on data, optionally with those of the model alone. */
export interface MeasuredMetrics extends Metrics {
  /** How similar the rows of W_dec are. */
  readonly coherence?: Coherence | null;
  /** How similar the rows are that activate each latent. */
  readonly monosemanticity?: Monosemanticity;
}

/**
 * A reason for each metric that is NaN or infinite. In JSON, which has neither, such a metric is `null`.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { evaluate, undefinedMetrics } from "@saev/nn/eval";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 });
 * const metrics = await evaluate(sae, [new Float32Array(4 * 8).fill(1)]);
 * console.log(metrics.nmse, undefinedMetrics(metrics).nmse); // NaN "the rows do not vary"
 * ```
 */
export function undefinedMetrics(metrics: MeasuredMetrics): Readonly<Partial<Record<PartialMetric, string>>> {
  const { nmse, cosine, norm_ratio: normRatio, reconstruction_bias: bias, coherence, monosemanticity } = metrics;
  const still = "the rows do not vary";
  const zero = "all rows are zero";
  return {
    ...Number.isNaN(nmse) && { nmse: still, explained_variance: still },
    ...Number.isNaN(cosine) && { cosine: zero },
    ...Number.isNaN(normRatio) && { norm_ratio: zero },
    ...!Number.isFinite(bias) && {
      reconstruction_bias: Number.isNaN(bias)
        ? "all reconstructions are zero"
        : "the reconstructions are orthogonal to their rows on average",
    },
    ...coherence === null && { coherence: "it was not measured" },
    ...coherence && Number.isNaN(coherence.max) && {
      coherence: coherence.per_latent.length === 1 ? "there is one latent" : "W_dec is not finite",
    },
    ...monosemanticity && Number.isNaN(monosemanticity.mean) && {
      monosemanticity: "no latent is active on two rows",
    },
  };
}
