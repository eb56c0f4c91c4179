/**
 * Files: checkpoints of the Python package `saev` and of seven other libraries, safetensors, PyTorch files of plain
 * tensors, ONNX models, and NumPy's arrays.
 *
 * @example
 * ```ts
 * import { bytesSource, readNpy, writeNpy } from "@saev/nn/io";
 *
 * const bytes = writeNpy({ rows: 2, cols: 3, data: Float32Array.of(1, 2, 3, 4, 5, 6) });
 * const { rows, data } = await readNpy(bytesSource(bytes));
 * console.log(rows, data);
 * ```
 *
 * @module
 */

export {
  dump,
  type Dumpable,
  dumpBytes,
  type Dumped,
  type DumpOptions,
  load,
  type LoadedAutoencoder,
  type LoadOptions,
  readCheckpoint,
} from "./checkpoints/checkpoint.ts";
export { CheckpointError } from "./errors.ts";
export { type FileSet, pickedFiles, requireFile } from "./file_set.ts";
export {
  type ByteSink,
  type ByteSource,
  type ByteTarget,
  type FileHandle,
  type FilesSource,
  openFiles,
  openSource,
  type SourceOptions,
  type Target,
} from "./files.ts";
export type { Folded } from "./fold.ts";
export type { Concession, ForeignOptions, Formatted, ParseOptions, ReadOptions } from "./checkpoints/format.ts";
export { type FormatName, TARGET_FORMATS, type TargetFormat } from "./checkpoints/formats.ts";
export {
  inspectCheckpoint,
  type Inspection,
  type TensorStatistics,
  type TensorSummary,
} from "./checkpoints/inspect.ts";
export { REMEDIES } from "./checkpoints/remedies.ts";
export type { Clock } from "./clock.ts";
export type { HubOptions, HubProgress } from "./hub.ts";
export { shownAddress } from "./http.ts";
export { parseCheckpoint, type ReadCheckpoint } from "./checkpoints/saev_reader.ts";
export type { CheckpointSchema, FormatOptions } from "./checkpoints/saev_schemas.ts";
export { formatCheckpoint } from "./checkpoints/saev_writer.ts";
export {
  findTargets,
  formatModel,
  type FormattedModel,
  writeCheckpoint,
  type WriteOptions,
  type WriteTarget,
  type WrittenModel,
} from "./checkpoints/write.ts";
export type { ParsedCheckpoint } from "./model.ts";
export { type NpyMatrix, openNpy, readNpy, writeNpy } from "./npy.ts";
export { type Npz, type NpzOptions, openNpz } from "./npz.ts";
export { type CsrMatrix, type CsrRows, openScipyCsr } from "./scipy_csr.ts";
export type { ArrayPlace } from "./array_place.ts";
export type { FloatType, IntegerType, NumberType } from "./numbers.ts";
export { formatSafetensors, readSafetensors, type Safetensors, writeSafetensors } from "./safetensors.ts";
export { pathFrom, type PathParts, type PathSystem, splitPath } from "./paths.ts";
export { blobSource, bytesSource, type Source } from "./source.ts";
export type { NamedTensor, StoredTensor } from "./stored_tensor.ts";
export { type FileKind, recognise } from "./file_kind.ts";
export { readTorchFile } from "./torch_file.ts";
export { furtherOutputs, type OnnxInput, type OnnxModel, type OnnxOperator, readOnnxModel } from "./onnx_model.ts";
