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

export type {
  Activation,
  ActivationOptions,
  Aux,
  AuxK,
  AuxOptions,
  BatchTopK,
  InputScaling,
  JumpRelu,
  L0Sparsity,
  L1Sparsity,
  NoAux,
  NoSparsity,
  ParameterArrays,
  ParameterPieces,
  PiecewiseParameters,
  PreAct,
  Relu,
  SparseAutoencoderConfig,
  SparseAutoencoderOptions,
  Sparsity,
  TanhSparsity,
  TargetL0Sparsity,
  TopK,
  WeightedL1Sparsity,
  WeightStorage,
} from "./nn/config.ts";
export type { Model } from "./nn/encode.ts";
export { type OpeningOptions, type Output, type PlacementOptions, SparseAutoencoder } from "./nn/sparse_autoencoder.ts";
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
  type Loss,
  Objective,
  type ObjectiveConfig,
  type ObjectiveOptions,
  type PendingLoss,
} from "./objectives/objective.ts";
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
