/** Types that users of `@saev/nn/train` rely on: where one changes, this file no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type * as nn from "../../mod.ts";
import type * as train from "../../train/mod.ts";
import type * as evaluation from "../../eval/mod.ts";
import type * as io from "../../io/mod.ts";
import type { Keeps } from "../support/types.ts";

Deno.test("@saev/nn/train has these functions, classes and constants", () => {
  assertType<
    IsExact<
      keyof typeof train,
      | "DivergenceError"
      | "TrainState"
      | "fitKMeans"
      | "fitPca"
      | "openTraining"
      | "saveTraining"
      | "train"
      | "trainMany"
      | "warmup"
      | "warmupCosine"
    >
  >(true);
});

Deno.test("what @saev/nn/train exports keeps its type", () => {
  assertType<
    Keeps<
      train.ModelOptions,
      {
        readonly lr?: number;
        readonly n_lr_warmup?: number;
        readonly n_sparsity_warmup?: number;
        readonly k_start?: number;
        readonly n_k_warmup?: number;
        readonly optimizer?: train.OptimizerOptions;
        readonly grad_clip?: number | false;
        readonly state?: train.TrainState;
      }
    >
  >(true);
  assertType<
    Keeps<train.DivergenceError, { readonly step: number; readonly tensor: string; readonly isOfRows: boolean }>
  >(true);
  assertType<train.DivergenceError extends Error ? true : false>(true);
  assertType<
    Keeps<
      train.LoopOptions,
      {
        readonly n_steps?: number;
        readonly log_every?: number;
        readonly signal?: AbortSignal;
        readonly validation?: { readonly every: number; readonly batches: () => nn.Batches | nn.RowSource };
        readonly batch_size?: number;
        readonly seed?: number;
        readonly onWarning?: (warning: string, model: number) => void;
      }
    >
  >(true);
  assertType<
    Keeps<
      train.Progress,
      {
        readonly step: number;
        readonly losses: readonly train.TrainLoss[];
        readonly lr: number;
        readonly validation?: evaluation.Metrics;
        readonly stepsAbove: number;
        readonly diverged?: train.DivergenceError;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof train.train,
      (
        sae: nn.SparseAutoencoder,
        objective: nn.Objective,
        batches: nn.Batches | nn.RowSource,
        options?: train.TrainOptions,
      ) => AsyncGenerator<train.Progress, void, void>
    >
  >(true);
  assertType<
    Keeps<
      train.Training,
      { readonly sae: nn.SparseAutoencoder; readonly objective: nn.Objective; readonly options?: train.ModelOptions }
    >
  >(true);
  assertType<
    IsExact<
      typeof train.trainMany,
      (
        trainings: readonly train.Training[],
        batches: nn.Batches | nn.RowSource,
        options?: train.LoopOptions,
      ) => AsyncGenerator<readonly train.Progress[], void, void>
    >
  >(true);
  assertType<train.TrainOptions extends train.ModelOptions ? true : false>(true);
  assertType<train.TrainOptions extends train.LoopOptions ? true : false>(true);
  assertType<
    Keeps<
      train.TrainLoss,
      {
        readonly grad_norm: number;
        readonly grad_norms:
          & Readonly<Record<"W_enc" | "b_enc" | "W_dec" | "b_dec" | "threshold", number>>
          & Readonly<Partial<Record<keyof nn.ParameterArrays, number>>>;
      }
    >
  >(true);
  assertType<train.TrainLoss extends nn.Loss ? true : false>(true);
  assertType<IsExact<train.OptimizerOptions, nn.OptimizerOptions>>(true);
  assertType<IsExact<train.MuonOptions, nn.MuonOptions>>(true);
  assertType<IsExact<train.TrainState, nn.TrainState>>(true);
  assertType<IsExact<train.TrainStateData, nn.TrainStateData>>(true);
  assertType<Keeps<train.Schedule, { at: (n: number) => number }>>(true);
  assertType<IsExact<typeof train.warmup, (init: number, final: number, n_steps: number) => train.Schedule>>(true);
  assertType<
    IsExact<
      typeof train.warmupCosine,
      (init: number, n_warmup: number, peak: number, n_steps: number, final: number) => train.Schedule
    >
  >(true);
  assertType<IsExact<typeof train.openTraining, (from: io.ByteSource) => Promise<train.SavedTraining>>>(true);
  assertType<
    Keeps<
      train.RestoredTraining,
      {
        readonly sae: nn.SparseAutoencoder;
        readonly state: train.TrainState;
        readonly losses: readonly train.TrainLoss[];
      }
    >
  >(true);
  assertType<train.RestoredTraining extends Disposable ? true : false>(true);
  assertType<
    Keeps<
      train.SavedTraining,
      {
        readonly step: number;
        readonly note: string;
        verify: () => Promise<void>;
        restore: (options?: { readonly device?: GPUDevice }) => Promise<train.RestoredTraining>;
      }
    >
  >(true);
  assertType<IsExact<typeof train.saveTraining, (to: io.ByteTarget, training: train.TrainingToSave) => Promise<void>>>(
    true,
  );
  assertType<
    Keeps<
      train.TrainingToSave,
      {
        readonly sae: nn.SparseAutoencoder;
        readonly state: train.TrainState;
        readonly losses?: readonly train.TrainLoss[];
        readonly note?: string;
      }
    >
  >(true);
  assertType<
    Keeps<
      train.BaselineOptions,
      {
        readonly batch_size?: number;
        readonly device?: GPUDevice;
        readonly signal?: AbortSignal;
        readonly onProgress?: (done: number, n_rows: number) => void;
      }
    >
  >(true);
  assertType<Keeps<train.PcaOptions, { readonly n_components: number }>>(true);
  assertType<
    IsExact<typeof train.fitPca, (rows: nn.RowSource, options: train.PcaOptions) => Promise<train.Pca>>
  >(true);
  assertType<
    Keeps<
      train.Pca,
      {
        readonly sae: nn.SparseAutoencoder;
        readonly variances: Float64Array;
        readonly explained_variance: number;
      }
    >
  >(true);
  assertType<
    Keeps<
      train.KMeansOptions,
      {
        readonly n_clusters: number;
        readonly seed?: number;
        readonly max_iter?: number;
        readonly tolerance?: number;
      }
    >
  >(true);
  assertType<
    IsExact<typeof train.fitKMeans, (rows: nn.RowSource, options: train.KMeansOptions) => Promise<train.KMeans>>
  >(true);
  assertType<
    Keeps<
      train.KMeans,
      {
        readonly sae: nn.SparseAutoencoder;
        readonly errors: readonly number[];
        readonly counts: Float64Array;
      }
    >
  >(true);
});
