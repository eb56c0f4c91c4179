/**
 * Files: checkpoints that the Python package `saev` reads and writes, PyTorch files of plain tensors, and `.npy`
 * matrices.
 *
 * @example
 * ```ts
 * import { readNpy, writeNpy } from "@saev/nn/io";
 *
 * const bytes = writeNpy({ rows: 2, cols: 3, data: Float32Array.of(1, 2, 3, 4, 5, 6) });
 * const { rows, data } = readNpy(bytes);
 * console.log(rows, data);
 * ```
 *
 * @module
 */

export { dump, type Dumpable, dumpBytes, type DumpOptions, load, type LoadOptions } from "./checkpoint.ts";
export { CheckpointError } from "./errors.ts";
export type { ByteSink, ByteSource, ByteTarget } from "./files.ts";
export {
  type CheckpointSchema,
  formatCheckpoint,
  type FormatOptions,
  parseCheckpoint,
  type ParsedCheckpoint,
  type ParseOptions,
} from "./formats/saev.ts";
export { type NpyMatrix, readNpy, writeNpy } from "./npy.ts";
export type { FloatType } from "./numbers.ts";
export { readTorchFile, type TorchTensor } from "./torch_file.ts";
