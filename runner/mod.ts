/**
 * Runs, from configuration to folder: what `saev train` does, and everything that needs a file system or a terminal.
 *
 * @module
 */

export { completeRunConfig, completeSlurm, type RunConfig, runConfigOf } from "./run_config.ts";
export {
  type DataConfig,
  EXCLUSIVE_FIELDS,
  fieldsWithKey,
  type InitConfig,
  type LogConfig,
  type LoopConfig,
  type SlurmConfig,
} from "./config_sections.ts";
export { configText, type ConfigTextOptions } from "./config_text.ts";
export { completeSweep, groupRuns, type SweptConfig } from "./sweep_config.ts";
export { quoted, type SlurmPlan, slurmScript, taskAdapter } from "./slurm.ts";
export { stageRows, type StagingOptions } from "./staging.ts";
export { aboutChanges, aboutOutcome, outcomeOf, type RunEnd, type SweepOutcome } from "./sweep_summary.ts";
export { type CollectedRun, type CollectedSweep, collectSweep, writeCollected } from "./collect.ts";
export { type RunState, type RunStatus, RunTable, type RunTableOptions, shownNmse } from "./run_status.ts";
export type { ResolvedDefaults } from "./defaults.ts";
export { nearest } from "../kernels/engine/nearest.ts";
export { adapterName } from "../kernels/engine/device.ts";
export {
  RunDirectory,
  type RunDirectoryOptions,
  runNames,
  type RunStart,
  type SweepDirectories,
  type TaskDirectories,
} from "./run_directory.ts";
export { JOB_SCRIPT } from "./run_files.ts";
export type { RunLockOptions } from "./run_lock.ts";
export type { RunSession } from "./run_record.ts";
export type { DataFingerprint } from "./fingerprint.ts";
export {
  type RunOptions,
  type RunPlan,
  type RunResult,
  runSweep,
  runTraining,
  stateOf,
  type SweepOptions,
  type SweepRun,
  untrainedModel,
} from "./run.ts";
export {
  type ExtractionPlan,
  type ExtractionResult,
  type ExtractionSurroundings,
  extractToShards,
  findBadImages,
  layerNumbers,
  type LayerSummary,
  listLayers,
  modelSize,
  type SkippedImage,
  type VisionModel,
  withoutImages,
} from "./activations.ts";
export { encodeToFolder, type EncodingPlan, type EncodingResult, type EncodingSurroundings } from "./encode.ts";
export { openLabels, type TokenLabels } from "./labels.ts";
export { probeFolders, type ProbePlan, type ProbeResult, type TokensToProbe } from "./probe.ts";
export { openTokens, type Tokens } from "./tokens.ts";
export type { ExampleCounts } from "../eval/feature_examples.ts";
export type {
  FeatureImages,
  FeatureOrder,
  FeatureSelection,
  FeaturesPlan,
  FeatureStage,
  FeatureSurroundings,
} from "./feature_plan.ts";
export { writeFeaturePage } from "./feature_page.ts";
export { type MadeFeatures, makeFeatures } from "./features.ts";
export { type ShardImages, shardImages, thumbnailPlan } from "./shard_images.ts";
export { type ImageFolder, listImages } from "./image_folder.ts";
export {
  CountLine,
  DownloadLine,
  type DownloadState,
  duration,
  type LineOptions,
  printable,
  ProgressLine,
  type ProgressOptions,
  type ProgressState,
  writeStderr,
} from "./terminal.ts";
export {
  type ComparedRun,
  measuredCheckpoint,
  type MeasuredNumbers,
  measuredRun,
  readRun,
  runFoldersAt,
} from "./compared_runs.ts";
export {
  checkPickFolder,
  compare,
  type Comparison,
  comparisonFiles,
  type PickedRun,
  pickRuns,
  writeComparison,
  writeComparisonFiles,
} from "./comparison.ts";
export type { ComparedCurve, FieldDifference, PageDensity, PageLine } from "./pages/data.ts";
export { TunerFile } from "./tuner_store.ts";
export {
  renderReport,
  type Report,
  type ReportCurve,
  type ReportFeature,
  type ReportNumber,
  type ReportPicture,
  type ReportTable,
} from "./report.ts";
export {
  compareStability,
  type CompareStabilityOptions,
  readStability,
  type StabilityFile,
  type StabilityNumbers,
  type StableModel,
  writeStability,
} from "./stability.ts";
export { colourOf } from "./pages/colours.ts";
