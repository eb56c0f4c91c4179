/**
 * The training loop and what surrounds it.
 *
 * @module
 */

export { type Batches, evaluate, type MetricsWithMonosemanticity, type MonosemanticityEmbeddings } from "./evaluate.ts";
export { type DensityHistogram, type DensityThresholds, type Metrics, typedArraysAsArrays } from "./metrics.ts";
export type { Monosemanticity } from "./monosemanticity.ts";
export { type Coherence, measureCoherence, type MetricsWithCoherence } from "./coherence.ts";
export { type MeasuredModel, metricsTable } from "./metrics_table.ts";
export {
  DivergenceError,
  type LoopOptions,
  type ModelOptions,
  type Progress,
  train,
  type Training,
  type TrainLoss,
  trainMany,
  type TrainOptions,
} from "./train.ts";
export type { OptimizerOptions } from "../nn/adam.ts";
export type { MuonOptions } from "../nn/muon.ts";
export { TrainState, type TrainStateData } from "../nn/train_state.ts";
export { type Schedule, warmup, warmupCosine } from "../nn/schedule.ts";
export {
  batchesInOrder,
  measureScaling,
  rowRange,
  rowsOf,
  type RowSource,
  shuffledBatches,
  type ShuffleOptions,
  type Standardisation,
} from "./loader.ts";
export { nearest } from "./nearest.ts";
export { openRows, type RowFile, type RowFileOptions } from "./row_file.ts";
export {
  completeRunConfig,
  completeSweep,
  type DataConfig,
  type InitConfig,
  type LoopConfig,
  type RunConfig,
  type SweptConfig,
} from "./run_config.ts";
export { RunDirectory } from "./run_directory.ts";
export {
  adapterName,
  type RunOptions,
  type RunPlan,
  type RunResult,
  runSweep,
  runTraining,
  type SweepOptions,
  type SweepRun,
} from "./run.ts";
export {
  openTraining,
  type RestoredTraining,
  type SavedTraining,
  saveTraining,
  type TrainingToSave,
} from "./training_file.ts";
export {
  DownloadLine,
  type DownloadState,
  duration,
  ProgressLine,
  type ProgressOptions,
  type ProgressState,
} from "./terminal.ts";
export { TunerFile } from "./tuner_store.ts";
export {
  renderReport,
  type Report,
  type ReportCurve,
  type ReportFeature,
  type ReportNumber,
  type ReportPicture,
} from "./report.ts";
