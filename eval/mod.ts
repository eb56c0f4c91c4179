/**
 * Evaluation of trained models: metrics on data, similarity of decoder rows, and which latents fire on which rows.
 *
 * @module
 */

export type { Batches } from "../nn/rows.ts";
export {
  evaluate,
  type EvaluateOptions,
  type MetricsWithMonosemanticity,
  type MonosemanticityEmbeddings,
} from "./evaluate.ts";
export { type DensityHistogram, type DensityThresholds, type Metrics, typedArraysAsArrays } from "./metrics.ts";
export type { Monosemanticity } from "./monosemanticity.ts";
export {
  type Coherence,
  type CoherenceOptions,
  measureCoherence,
  type MetricsWithCoherence,
  slowCoherence,
} from "./coherence.ts";
export { type MeasuredModel, metricsTable } from "./metrics_table.ts";
export { type MeasuredMetrics, type PartialMetric, undefinedMetrics } from "./undefined_metrics.ts";
export type { LabelledCodes } from "./code_columns.ts";
export {
  coverage,
  fitProbes,
  type ProbeMeasures,
  type ProbeOptions,
  probeR,
  type Probes,
  type ProbeScores,
  purityAt,
  scoreProbes,
  type TopLabels,
} from "./probes.ts";
export type { TokenMetrics } from "./token_sums.ts";
export {
  encodeRows,
  type FiringLatent,
  type FiringRow,
  nearestLatents,
  type NearLatent,
  type RowCode,
  topLatents,
  type TopRows,
  topRows,
  type TopRowsOptions,
} from "./latents.ts";
export {
  MAX_EXACT_LATENTS,
  measureStability,
  type PairStability,
  type Stability,
  type StabilityMember,
  stabilityMember,
  type StabilityMemberOptions,
  type StabilityOptions,
} from "./stability.ts";
export {
  type AnnotationsFile,
  type FeatureAnnotation,
  type FeatureClassScore,
  type FeatureExample,
  type FeatureExampleKind,
  type FeatureImage,
  type FeatureRecord,
  type FeaturesFile,
  type FeatureStability,
} from "./feature_file.ts";
export { type Features, openFeatures, readAnnotations } from "./feature_reader.ts";
