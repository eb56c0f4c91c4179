/** Types that users of `@saev/nn/eval` rely on: where one changes, this file no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type * as nn from "../../mod.ts";
import type * as evaluation from "../../eval/mod.ts";
import type * as io from "../../io/mod.ts";
import type * as kernels from "../../kernels/mod.ts";
import type { Keeps } from "../support/types.ts";

Deno.test("@saev/nn/eval has these functions, classes and constants", () => {
  assertType<
    IsExact<
      keyof typeof evaluation,
      | "MAX_EXACT_LATENTS"
      | "coverage"
      | "encodeRows"
      | "evaluate"
      | "fitProbes"
      | "measureCoherence"
      | "measureStability"
      | "metricsTable"
      | "nearestLatents"
      | "openFeatures"
      | "probeR"
      | "purityAt"
      | "readAnnotations"
      | "scoreProbes"
      | "slowCoherence"
      | "stabilityMember"
      | "topLatents"
      | "topRows"
      | "typedArraysAsArrays"
      | "undefinedMetrics"
    >
  >(true);
});

Deno.test("what @saev/nn/eval exports keeps its type", () => {
  assertType<IsExact<evaluation.Batches, nn.Batches>>(true);
  assertType<
    IsExact<
      typeof evaluation.evaluate,
      {
        (
          sae: nn.SparseAutoencoder,
          batches: evaluation.Batches | nn.RowSource,
          options: evaluation.EvaluateOptions & { readonly monosemanticity: evaluation.MonosemanticityEmbeddings },
        ): Promise<evaluation.MetricsWithMonosemanticity>;
        (
          sae: nn.SparseAutoencoder,
          batches: evaluation.Batches | nn.RowSource,
          options?: evaluation.EvaluateOptions,
        ): Promise<evaluation.Metrics>;
      }
    >
  >(true);
  assertType<Keeps<evaluation.EvaluateOptions, { readonly signal?: AbortSignal }>>(true);
  assertType<evaluation.EvaluateOptions extends evaluation.DensityThresholds ? true : false>(true);
  assertType<Keeps<evaluation.MetricsWithMonosemanticity, { readonly monosemanticity: evaluation.Monosemanticity }>>(
    true,
  );
  assertType<evaluation.MetricsWithMonosemanticity extends evaluation.Metrics ? true : false>(true);
  assertType<IsExact<evaluation.MonosemanticityEmbeddings, true | { readonly embeddings: nn.RowSource }>>(true);
  assertType<
    Keeps<evaluation.DensityHistogram, { readonly log10_edges: readonly number[]; readonly counts: readonly number[] }>
  >(true);
  assertType<
    Keeps<evaluation.DensityThresholds, { readonly almost_dead_below?: number; readonly dense_above?: number }>
  >(true);
  assertType<
    Keeps<
      evaluation.Metrics,
      {
        readonly n_rows: number;
        readonly mse: number;
        readonly nmse: number;
        readonly explained_variance: number;
        readonly cosine: number;
        readonly norm_ratio: number;
        readonly reconstruction_bias: number;
        readonly l0: number;
        readonly l1: number;
        readonly n_dead: number;
        readonly dead_fraction: number;
        readonly n_almost_dead: number;
        readonly almost_dead_below: number;
        readonly n_dense: number;
        readonly dense_above: number;
        readonly density: Float64Array;
        readonly density_histogram: evaluation.DensityHistogram;
      }
    >
  >(true);
  assertType<IsExact<typeof evaluation.typedArraysAsArrays, (key: string, value: unknown) => unknown>>(true);
  assertType<
    Keeps<
      evaluation.Monosemanticity,
      { readonly per_latent: Float64Array; readonly n_latents: number; readonly mean: number }
    >
  >(true);
  assertType<
    Keeps<evaluation.Coherence, { readonly max: number; readonly mean_max: number; readonly per_latent: Float32Array }>
  >(true);
  assertType<
    Keeps<evaluation.CoherenceOptions, { readonly signal?: AbortSignal; readonly onProgress?: (done: number) => void }>
  >(true);
  assertType<
    IsExact<
      typeof evaluation.measureCoherence,
      (sae: nn.SparseAutoencoder, options?: evaluation.CoherenceOptions) => Promise<evaluation.Coherence>
    >
  >(true);
  assertType<Keeps<evaluation.MetricsWithCoherence, { readonly coherence: evaluation.Coherence | null }>>(true);
  assertType<evaluation.MetricsWithCoherence extends evaluation.Metrics ? true : false>(true);
  assertType<IsExact<typeof evaluation.slowCoherence, (given: nn.SparseAutoencoder) => string | null>>(true);
  assertType<Keeps<evaluation.MeasuredModel, { readonly monosemanticity?: evaluation.Monosemanticity }>>(true);
  assertType<evaluation.MeasuredModel extends evaluation.MetricsWithCoherence ? true : false>(true);
  assertType<IsExact<typeof evaluation.metricsTable, (metrics: evaluation.MeasuredModel) => string>>(true);
  assertType<
    Keeps<
      evaluation.MeasuredMetrics,
      { readonly coherence?: evaluation.Coherence | null; readonly monosemanticity?: evaluation.Monosemanticity }
    >
  >(true);
  assertType<evaluation.MeasuredMetrics extends evaluation.Metrics ? true : false>(true);
  assertType<
    IsExact<
      evaluation.PartialMetric,
      "nmse" | "explained_variance" | "cosine" | "norm_ratio" | "reconstruction_bias" | "coherence" | "monosemanticity"
    >
  >(true);
  assertType<
    IsExact<
      typeof evaluation.undefinedMetrics,
      (metrics: evaluation.MeasuredMetrics) => Readonly<Partial<Record<evaluation.PartialMetric, string>>>
    >
  >(true);
  assertType<Keeps<evaluation.LabelledCodes, { readonly codes: io.CsrMatrix; readonly labels: Uint16Array }>>(true);
  assertType<IsExact<typeof evaluation.coverage, (ap: ArrayLike<number>, threshold?: number) => number>>(true);
  assertType<
    IsExact<
      typeof evaluation.fitProbes,
      (train: evaluation.LabelledCodes, options?: evaluation.ProbeOptions) => Promise<evaluation.Probes>
    >
  >(true);
  assertType<
    Keeps<
      evaluation.ProbeMeasures,
      {
        readonly loss: Float32Array;
        readonly tp: Float32Array;
        readonly fp: Float32Array;
        readonly tn: Float32Array;
        readonly fn: Float32Array;
        readonly n_rows_of: Float64Array;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.ProbeOptions,
      {
        readonly ridge?: number;
        readonly n_classes?: number;
        readonly max_iter?: number;
        readonly device?: GPUDevice;
        readonly signal?: AbortSignal;
        readonly onProgress?: (done: number, n_latents: number) => void;
      }
    >
  >(true);
  assertType<IsExact<typeof evaluation.probeR, (losses: ArrayLike<number>, n_rows_of: ArrayLike<number>) => number>>(
    true,
  );
  assertType<
    Keeps<
      evaluation.Probes,
      {
        readonly n_latents: number;
        readonly n_classes: number;
        readonly weights: Float32Array;
        readonly biases: Float32Array;
        readonly train: evaluation.ProbeMeasures;
        readonly best: Uint32Array;
        readonly n_unfinished: number;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.ProbeScores,
      {
        readonly measures: evaluation.ProbeMeasures;
        readonly ap: Float32Array;
        readonly precision: Float32Array;
        readonly recall: Float32Array;
        readonly f1: Float32Array;
        readonly top: evaluation.TopLabels;
        readonly mean_ap: number;
        readonly probe_r: number;
        readonly purity_at_16: number;
      }
    >
  >(true);
  assertType<IsExact<typeof evaluation.purityAt, (given: evaluation.TopLabels, latent: number, k?: number) => number>>(
    true,
  );
  assertType<
    IsExact<
      typeof evaluation.scoreProbes,
      (
        probes: evaluation.Probes,
        test: evaluation.LabelledCodes,
        options?: Pick<evaluation.ProbeOptions, "device" | "signal" | "onProgress">,
      ) => Promise<evaluation.ProbeScores>
    >
  >(true);
  assertType<
    Keeps<evaluation.TopLabels, { readonly k: number; readonly counts: Uint32Array; readonly labels: Uint16Array }>
  >(true);
  assertType<
    Keeps<
      evaluation.TokenMetrics,
      {
        readonly mse_per_dim: number;
        readonly mse_per_token: number;
        readonly normalized_mse: number;
        readonly baseline_mse_per_dim: number;
        readonly baseline_mse_per_token: number;
        readonly sse_recon: number;
        readonly sse_baseline: number;
        readonly n_tokens: number;
        readonly d_model: number;
        readonly n_elements: number;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof evaluation.encodeRows,
      (sae: nn.SparseAutoencoder, rows: evaluation.Batches | nn.RowSource) => AsyncGenerator<evaluation.RowCode>
    >
  >(true);
  assertType<Keeps<evaluation.FiringLatent, { readonly latent: number; readonly value: number }>>(true);
  assertType<Keeps<evaluation.FiringRow, { readonly row: number; readonly value: number }>>(true);
  assertType<
    IsExact<
      typeof evaluation.nearestLatents,
      (sae: nn.SparseAutoencoder, latent: number, k?: number) => Promise<evaluation.NearLatent[]>
    >
  >(true);
  assertType<Keeps<evaluation.NearLatent, { readonly latent: number; readonly cosine: number }>>(true);
  assertType<
    Keeps<evaluation.RowCode, { readonly row: number; readonly latents: Uint32Array; readonly values: Float32Array }>
  >(true);
  assertType<
    IsExact<
      typeof evaluation.topLatents,
      (given: Omit<evaluation.RowCode, "row">, k?: number) => evaluation.FiringLatent[]
    >
  >(true);
  assertType<Keeps<evaluation.TopRows, { of: (latent: number) => evaluation.FiringRow[] }>>(true);
  assertType<
    IsExact<
      typeof evaluation.topRows,
      (
        sae: nn.SparseAutoencoder,
        rows: evaluation.Batches | nn.RowSource,
        options?: evaluation.TopRowsOptions,
      ) => Promise<evaluation.TopRows>
    >
  >(true);
  assertType<
    Keeps<
      evaluation.TopRowsOptions,
      { readonly k?: number; readonly oneOfExample?: boolean; readonly signal?: AbortSignal }
    >
  >(true);
  assertType<typeof evaluation.MAX_EXACT_LATENTS extends number ? true : false>(true);
  assertType<
    IsExact<
      typeof evaluation.measureStability,
      (
        members: readonly evaluation.StabilityMember[],
        options?: evaluation.StabilityOptions,
      ) => Promise<evaluation.Stability>
    >
  >(true);
  assertType<
    Keeps<
      evaluation.PairStability,
      {
        readonly members: readonly [number, number];
        readonly best: readonly [Float32Array, Float32Array];
        readonly nearest: readonly [Uint32Array, Uint32Array];
        readonly mean_best: number;
        readonly share_recurring: number;
        readonly assignment: {
          readonly is_exact: boolean;
          readonly latents: Int32Array;
          readonly mean_cosine: number;
          readonly cost: number;
          readonly mean_jaccard: number | null;
        };
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.Stability,
      {
        readonly threshold: number;
        readonly pairs: readonly evaluation.PairStability[];
        readonly recurrence: readonly Float32Array[];
        readonly mean_best: number;
        readonly mean_recurrence: number;
        readonly share_in_all: number;
        readonly mean_assigned: number;
        readonly mean_jaccard: number | null;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.StabilityMember,
      {
        readonly d_model: number;
        readonly d_sae: number;
        readonly unit_SD: Float32Array;
        readonly examples: readonly Float64Array[] | null;
        readonly context: kernels.DeviceContext;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof evaluation.stabilityMember,
      (sae: nn.SparseAutoencoder, options?: evaluation.StabilityMemberOptions) => Promise<evaluation.StabilityMember>
    >
  >(true);
  assertType<
    Keeps<
      evaluation.StabilityMemberOptions,
      { readonly rows?: nn.RowSource; readonly k?: number; readonly signal?: AbortSignal }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.StabilityOptions,
      {
        readonly threshold?: number;
        readonly signal?: AbortSignal;
        readonly onProgress?: (done: number, pairs: number) => void;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeatureAnnotation,
      {
        readonly latent: number;
        readonly name: string;
        readonly tags: readonly string[];
        readonly verdict: "" | "interpretable" | "unclear" | "mixed";
        readonly note: string;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeatureClassScore,
      { readonly class: number; readonly auroc: number; readonly average_precision: number }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeatureExample,
      {
        readonly kind: evaluation.FeatureExampleKind;
        readonly image: number;
        readonly value: number;
        readonly patch: number;
        readonly quantile: number | null;
      }
    >
  >(true);
  assertType<IsExact<evaluation.FeatureExampleKind, "top" | "quantile" | "counter">>(true);
  assertType<
    Keeps<
      evaluation.FeatureImage,
      { readonly example: number; readonly path: string; readonly file: string; readonly class: number | null }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeatureRecord,
      {
        readonly latent: number;
        readonly n_rows: number;
        readonly n_images: number;
        readonly density: number;
        readonly mean: number;
        readonly max: number;
        readonly monosemanticity: number | null;
        readonly histogram: { readonly first: number; readonly counts: readonly number[] };
        readonly nearest: readonly { readonly latent: number; readonly cosine: number }[];
        readonly together: readonly { readonly latent: number; readonly share: number }[];
        readonly classes: readonly evaluation.FeatureClassScore[] | null;
        readonly purity_at_16: number | null;
        readonly masks: readonly { readonly class: number; readonly share: number }[] | null;
        readonly recurrence: number | null;
        readonly examples: readonly evaluation.FeatureExample[];
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.Features,
      { readonly file: evaluation.FeaturesFile; heatMaps: (latent: number) => Promise<Float32Array[]> }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeaturesFile,
      {
        readonly saev_features: 1;
        readonly model: {
          readonly name: string;
          readonly d_model: number;
          readonly d_sae: number;
          readonly activation: string;
        };
        readonly data: {
          readonly name: string;
          readonly n_images: number;
          readonly n_rows: number;
          readonly grid: { readonly height: number; readonly width: number };
        };
        readonly n_dead: number;
        readonly classes: readonly string[] | null;
        readonly mask_classes: readonly number[] | null;
        readonly images: readonly evaluation.FeatureImage[];
        readonly latents: readonly evaluation.FeatureRecord[];
        readonly annotations: readonly evaluation.FeatureAnnotation[];
        readonly stability: evaluation.FeatureStability | null;
      }
    >
  >(true);
  assertType<
    Keeps<
      evaluation.FeatureStability,
      {
        readonly n_others: number;
        readonly threshold: number;
        readonly mean_recurrence: readonly [number, number | null];
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof evaluation.openFeatures,
      (from: io.FilesSource, options?: io.SourceOptions) => Promise<evaluation.Features>
    >
  >(true);
  assertType<
    IsExact<
      typeof evaluation.readAnnotations,
      (from: io.ByteSource, options?: io.SourceOptions) => Promise<evaluation.AnnotationsFile>
    >
  >(true);
  assertType<
    Keeps<
      evaluation.AnnotationsFile,
      {
        readonly saev_annotations: 1;
        readonly model: string;
        readonly d_sae: number;
        readonly annotations: readonly evaluation.FeatureAnnotation[];
      }
    >
  >(true);
});
