/**
 * The training loop, and the file from which training resumes.
 *
 * @module
 */

export type { ModelOptions } from "./options.ts";
export {
  DivergenceError,
  type LoopOptions,
  type Progress,
  train,
  type Training,
  trainMany,
  type TrainOptions,
} from "./train.ts";
export type { TrainLoss } from "../objectives/loss_record.ts";
export type { OptimizerOptions } from "../nn/optim/adam.ts";
export type { MuonOptions } from "../nn/optim/muon.ts";
export { type BaselineOptions, fitPca, type Pca, type PcaOptions } from "./baselines/pca.ts";
export { fitKMeans, type KMeans, type KMeansOptions } from "./baselines/k_means.ts";
export { TrainState, type TrainStateData } from "../nn/state.ts";
export { type Schedule, warmup, warmupCosine } from "../nn/optim/schedule.ts";
export {
  openTraining,
  type RestoredTraining,
  type SavedTraining,
  saveTraining,
  type TrainingToSave,
} from "./training_file.ts";
