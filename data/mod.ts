/**
 * Rows of activations: sources, the order in which training sees them, and their mean and scale.
 *
 * @module
 */

export type { Batch, Batches, Rows, RowSource } from "../nn/rows.ts";
export { concatRows, rowRange, rowsOf } from "./rows.ts";
export { batchesInOrder, type LoadedRows, shuffledBatches, type ShuffleOptions } from "./order.ts";
export { measureScaling, type Standardisation } from "./scaling.ts";
export { examineRows, FAR, type RowsExamination } from "./examination.ts";
export { finiteRows } from "./finite.ts";
export { openRows, ROW_FORMATS, type RowFileOptions, type RowFormat } from "./row_file.ts";
export {
  isShardsFolder,
  openShards,
  SHARD_TOKENS,
  type ShardRows,
  type ShardRowsOptions,
  type Shards,
  type ShardTokens,
} from "./shards/reader.ts";
export { hashMetadata, type ShardFile, type ShardsMetadata } from "./shards/metadata.ts";
export { type ShardsToWrite, tokensPerShard, writeShards, type WrittenShards } from "./shards/writer.ts";
export { type PatchLabelOptions, patchLabels, type PixelAggregation } from "./shards/patch_labels.ts";
export {
  fitImage,
  type ImageDecoder,
  IMAGENET_PREPROCESSING,
  normalisePixels,
  pixelSize,
  planResize,
  type Preprocessing,
  readPreprocessor,
} from "./images.ts";
export {
  countTokens,
  extractActivations,
  type Extraction,
  type KeptTokens,
  type ModelTensor,
  type OpenModel,
  patchSize,
  residualStream,
  type RunModel,
  type TokenLayout,
  tokenLayout,
} from "./activations.ts";
export { type ByteImage, type ImageSize, resample, type Resampling, type ResizePlan } from "./resample.ts";
export { withoutLabels } from "./shards/labelled_rows.ts";
