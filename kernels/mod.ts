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
export * from "./commands.ts";
export * from "./compact_rows.ts";
export * from "./device.ts";
export * from "./elementwise.ts";
export { DeviceError, KernelError, ShapeError } from "./errors.ts";
export * from "./halves.ts";
export * from "./kernel.ts";
export * from "./matmul.ts";
export type { Layout, ProductClass, ProductShape, TileName } from "./matmul_tiles.ts";
export * from "./muon.ts";
export * from "./newton_schulz.ts";
export * from "./random.ts";
export * from "./reduce.ts";
export * from "./row_sums.ts";
export * from "./self_check.ts";
export * from "./sparse_matmul.ts";
export * from "./tensor.ts";
export * from "./timings.ts";
export * from "./top_k.ts";
export * from "./transpose.ts";
export * from "./transpose_entries.ts";
export { type MeasuredTile, restoreTuning, tune, type TuneOptions, type TunerStore, type Tuning } from "./tuner.ts";
export * from "./unit_rows.ts";
export * from "./wgsl.ts";
