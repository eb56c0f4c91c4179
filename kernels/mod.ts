/**
 * GPU arithmetic for arrays: devices, tensors, declared kernels, and the kernels themselves.
 *
 * Knows arrays and shapes; what they mean is for others to say.
 *
 * @module
 */

export * from "./adam.ts";
export * from "./batch_top_k.ts";
export * from "./clip.ts";
export * from "./csr.ts";
export * from "./csr_columns.ts";
export * from "./csr_to_dense.ts";
export * from "./dense_to_csr.ts";
export * from "./elementwise.ts";
export * from "./engine/commands.ts";
export * from "./engine/device.ts";
export { DeviceError, KernelError, ShapeError } from "./engine/errors.ts";
export {
  type Binding,
  defineKernel,
  type Kernel,
  type KernelDeclaration,
  reads,
  readsAcross,
  readsOften,
  readsOnce,
  updates,
  writes,
} from "./engine/kernel.ts";
export * from "./engine/self_check.ts";
export * from "./engine/tensor.ts";
export * from "./engine/timings.ts";
export {
  type MeasuredTile,
  restoreTuning,
  tune,
  type TuneOptions,
  type TunerStore,
  type Tuning,
} from "./engine/tuner.ts";
export * from "./engine/vector_width.ts";
export * from "./engine/wgsl.ts";
export { toF16 } from "./forms/f16.ts";
export type { TextureCopy } from "./forms/texture_copies.ts";
export * from "./matmul.ts";
export { type Layout, MAXIMA_COLUMNS, type ProductClass, type ProductShape, type TileName } from "./matmul_tiles.ts";
export * from "./muon.ts";
export * from "./newton_schulz.ts";
export * from "./random.ts";
export * from "./reduce.ts";
export * from "./row_layout.ts";
export * from "./sddmm.ts";
export * from "./spmm.ts";
export * from "./spmm_transposed.ts";
export * from "./top_k.ts";
export * from "./transpose.ts";
export * from "./transpose_entries.ts";
export * from "./unit_rows.ts";
