/**
 * Sparse autoencoders on vision-transformer activations, on any GPU: create, run, save and load them.
 *
 * Training is in `@saev/nn/train`.
 *
 * @example
 * ```ts
 * import { dumpBytes, load, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * using again = await load(await dumpBytes(sae));
 * using codes = again.encode(new Float32Array(2 * 8).fill(0.5));
 * console.log((await codes.read()).row_starts);
 * ```
 *
 * @module
 */

export type { BatchTopK } from "./nn/activations/batch_top_k.ts";
export type { Gated } from "./nn/activations/gated.ts";
export type { JumpRelu } from "./nn/activations/jump_relu.ts";
export type { Activation, ActivationOptions } from "./nn/activations/mod.ts";
export type { Relu } from "./nn/activations/relu.ts";
export type { TopK } from "./nn/activations/top_k.ts";
export type {
  InputScaling,
  ParameterArrays,
  ParameterPieces,
  PiecewiseParameters,
  WeightStorage,
} from "./nn/arrays.ts";
export type { SparseAutoencoderConfig, SparseAutoencoderOptions } from "./nn/config.ts";
export type {
  Aux,
  AuxK,
  AuxOptions,
  L0Sparsity,
  L1Sparsity,
  NoAux,
  NoSparsity,
  PreAct,
  Sparsity,
  TanhSparsity,
  TargetL0Sparsity,
  WeightedL1Sparsity,
} from "./nn/loss_terms.ts";
export type { AffineMaps } from "./nn/encode.ts";
export { intervene, type LatentChange } from "./nn/intervene.ts";
export type { Model } from "./nn/model.ts";
export { type OpeningOptions, type Output, type PlacementOptions, SparseAutoencoder } from "./nn/sparse_autoencoder.ts";
export type { Batch, Batches, Rows, RowSource } from "./nn/rows.ts";
export type { InitialBDec, InitialData } from "./nn/initial_values.ts";
export { type CodeArrays, Codes } from "./nn/codes.ts";
export { type Gradients, ParameterTensors } from "./nn/parameters.ts";
export type { OptimizerOptions } from "./nn/optim/adam.ts";
export type { MuonOptions } from "./nn/optim/muon.ts";
export { TrainState, type TrainStateData } from "./nn/state.ts";
export { type ElementArrays, type ElementType, Tensor, type TensorRows } from "./kernels/engine/tensor.ts";
export { DeviceError, KernelError, ShapeError } from "./kernels/engine/errors.ts";
export {
  getObjective,
  Objective,
  type ObjectiveConfig,
  type ObjectiveOptions,
  type PendingLoss,
} from "./objectives/objective.ts";
export type { Loss } from "./objectives/loss_record.ts";
export type { Vanilla } from "./objectives/vanilla.ts";
export type { Matryoshka } from "./objectives/matryoshka.ts";
export { meanSquaredErr } from "./objectives/squared_error.ts";
export {
  dump,
  dumpBytes,
  type Dumped,
  type DumpOptions,
  load,
  type LoadedAutoencoder,
  type LoadOptions,
} from "./io/checkpoints/checkpoint.ts";
export { CheckpointError } from "./io/errors.ts";
