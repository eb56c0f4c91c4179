/** Types that users of `@saev/nn/data` rely on: where one changes, this file no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type * as nn from "../../mod.ts";
import type * as data from "../../data/mod.ts";
import type * as io from "../../io/mod.ts";
import type { Keeps } from "../support/types.ts";

Deno.test("@saev/nn/data has these functions, classes and constants", () => {
  assertType<
    IsExact<
      keyof typeof data,
      | "FAR"
      | "IMAGENET_PREPROCESSING"
      | "ROW_FORMATS"
      | "SHARD_TOKENS"
      | "batchesInOrder"
      | "concatRows"
      | "countTokens"
      | "examineRows"
      | "extractActivations"
      | "finiteRows"
      | "fitImage"
      | "hashMetadata"
      | "isShardsFolder"
      | "measureScaling"
      | "normalisePixels"
      | "openRows"
      | "openShards"
      | "patchLabels"
      | "patchSize"
      | "pixelSize"
      | "planResize"
      | "readPreprocessor"
      | "resample"
      | "residualStream"
      | "rowRange"
      | "rowsOf"
      | "shuffledBatches"
      | "tokenLayout"
      | "tokensPerShard"
      | "withoutLabels"
      | "writeShards"
    >
  >(true);
});

Deno.test("what @saev/nn/data exports keeps its type", () => {
  assertType<IsExact<data.Batch, nn.Batch>>(true);
  assertType<IsExact<data.Batches, nn.Batches>>(true);
  assertType<IsExact<data.Rows, nn.Rows>>(true);
  assertType<IsExact<data.RowSource, nn.RowSource>>(true);
  assertType<IsExact<typeof data.concatRows, (sources: readonly data.RowSource[]) => data.RowSource>>(true);
  assertType<IsExact<typeof data.rowRange, (source: data.RowSource, from: number, to: number) => data.RowSource>>(true);
  assertType<
    IsExact<
      typeof data.rowsOf,
      (data: Float32Array, d_model: number, options?: { readonly labels?: Int32Array }) => data.RowSource
    >
  >(true);
  assertType<
    IsExact<typeof data.batchesInOrder, (source: data.RowSource, batch_size: number) => AsyncGenerator<data.LoadedRows>>
  >(true);
  assertType<Keeps<data.LoadedRows, { readonly x: Float32Array; readonly index: Float64Array }>>(true);
  assertType<data.LoadedRows extends data.Rows ? true : false>(true);
  assertType<
    IsExact<
      typeof data.shuffledBatches,
      (source: data.RowSource, options: data.ShuffleOptions) => AsyncGenerator<data.LoadedRows>
    >
  >(true);
  assertType<
    Keeps<
      data.ShuffleOptions,
      {
        readonly batch_size: number;
        readonly n_steps?: number;
        readonly firstStep?: number;
        readonly seed?: number;
        readonly buffer_rows?: number | null;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof data.measureScaling,
      (source: data.RowSource, standardisation: data.Standardisation) => Promise<nn.InputScaling>
    >
  >(true);
  assertType<IsExact<data.Standardisation, "none" | "mean" | "scale" | "mean_scale">>(true);
  assertType<
    IsExact<
      typeof data.examineRows,
      (x: Float32Array, d_model: number, options?: { readonly blockRows?: number }) => data.RowsExamination
    >
  >(true);
  assertType<typeof data.FAR extends number ? true : false>(true);
  assertType<
    Keeps<
      data.RowsExamination,
      {
        readonly n_rows: number;
        readonly n_zero: number;
        readonly variance: number;
        readonly gamma: number;
        readonly widest: { readonly column: number; readonly share: number };
        readonly farthest: { readonly column: number; readonly share: number };
        readonly far: { readonly largest: number; readonly n_rows: number; readonly share: number };
        readonly between: number;
      }
    >
  >(true);
  assertType<IsExact<typeof data.finiteRows, (source: data.RowSource, name: string) => data.RowSource>>(true);
  assertType<
    IsExact<typeof data.openRows, (from: io.FilesSource, options?: data.RowFileOptions) => Promise<data.RowSource>>
  >(true);
  assertType<
    IsExact<(typeof data.ROW_FORMATS)[number], ("npy" | "npz" | "safetensors" | "f16" | "bf16" | "f32" | "f64")>
  >(true);
  assertType<
    Keeps<
      data.RowFileOptions,
      {
        readonly format?: data.RowFormat | null;
        readonly d_model?: number | null;
        readonly key?: string | null;
        readonly layer?: number | null;
        readonly tokens?: data.ShardTokens | null;
        readonly ignore_labels?: readonly number[] | null;
      }
    >
  >(true);
  assertType<data.RowFileOptions extends io.SourceOptions ? true : false>(true);
  assertType<IsExact<data.RowFormat, (typeof data.ROW_FORMATS)[number]>>(true);
  assertType<IsExact<typeof data.isShardsFolder, (folder: io.FileSet) => Promise<boolean>>>(true);
  assertType<
    IsExact<typeof data.openShards, (from: io.FilesSource, options?: io.SourceOptions) => Promise<data.Shards>>
  >(true);
  assertType<IsExact<(typeof data.SHARD_TOKENS)[number], ("content" | "cls" | "all")>>(true);
  assertType<
    Keeps<
      data.ShardRows,
      {
        readonly rows_per_example: number;
        exampleStart: (row: number) => number;
        locate: (row: number) => { readonly example: number; readonly token: number };
      }
    >
  >(true);
  assertType<data.ShardRows extends data.RowSource ? true : false>(true);
  assertType<Keeps<data.ShardRowsOptions, { readonly layer?: number; readonly tokens?: data.ShardTokens }>>(true);
  assertType<
    Keeps<
      data.Shards,
      {
        readonly name: string;
        readonly metadata: data.ShardsMetadata;
        readonly files: readonly data.ShardFile[];
        rows: (options?: data.ShardRowsOptions) => data.ShardRows;
        readLabels: () => Promise<Uint8Array | null>;
      }
    >
  >(true);
  assertType<IsExact<data.ShardTokens, (typeof data.SHARD_TOKENS)[number]>>(true);
  assertType<IsExact<typeof data.hashMetadata, (metadata: data.ShardsMetadata) => Promise<string>>>(true);
  assertType<Keeps<data.ShardFile, { readonly name: string; readonly n_examples: number }>>(true);
  assertType<
    Keeps<
      data.ShardsMetadata,
      {
        readonly family: string;
        readonly ckpt: string;
        readonly layers: readonly number[];
        readonly content_tokens_per_example: number;
        readonly cls_token: boolean;
        readonly d_model: number;
        readonly n_examples: number;
        readonly max_tokens_per_shard: number;
        readonly data: string;
        readonly dataset: string;
        readonly pixel_agg: "majority" | "prefer-fg" | null;
        readonly dtype: "float32";
        readonly protocol: string;
      }
    >
  >(true);
  assertType<
    Keeps<
      data.ShardsToWrite,
      {
        readonly metadata: data.ShardsMetadata;
        readonly examples: (from: number) => AsyncIterable<Float32Array>;
        readonly labels?: () => Promise<Uint8Array>;
        readonly beside?: Readonly<Record<string, Uint8Array>>;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof data.tokensPerShard,
      (metadata: Omit<data.ShardsMetadata, "max_tokens_per_shard">, bytes: number) => number
    >
  >(true);
  assertType<
    IsExact<typeof data.writeShards, (folder: string, shards: data.ShardsToWrite) => Promise<data.WrittenShards>>
  >(true);
  assertType<Keeps<data.WrittenShards, { readonly n_kept: number }>>(true);
  assertType<
    Keeps<
      data.PatchLabelOptions,
      {
        readonly width: number;
        readonly patch_size: number;
        readonly pixel_agg: data.PixelAggregation;
        readonly bg_label?: number;
      }
    >
  >(true);
  assertType<
    IsExact<typeof data.patchLabels, (mask: Uint8Array, options: data.PatchLabelOptions) => Uint8Array<ArrayBuffer>>
  >(true);
  assertType<IsExact<data.PixelAggregation, "majority" | "prefer-fg">>(true);
  assertType<
    IsExact<typeof data.fitImage, (image: data.ByteImage, preprocessing: data.Preprocessing) => data.ByteImage>
  >(true);
  assertType<
    Keeps<
      data.ImageDecoder,
      { decode: (path: string) => Promise<data.ByteImage>; decodeMask: (path: string) => Promise<data.ByteImage> }
    >
  >(true);
  assertType<IsExact<typeof data.IMAGENET_PREPROCESSING, data.Preprocessing>>(true);
  assertType<
    IsExact<
      typeof data.normalisePixels,
      (
        rgb: Uint8Array,
        into: Float32Array,
        given2: data.Preprocessing,
        order?: "channels-first" | "channels-last",
      ) => void
    >
  >(true);
  assertType<IsExact<typeof data.pixelSize, (given: data.Preprocessing) => data.ImageSize | null>>(true);
  assertType<IsExact<typeof data.planResize, (given: data.Preprocessing, given1: data.ImageSize) => data.ResizePlan>>(
    true,
  );
  assertType<
    Keeps<
      data.Preprocessing,
      {
        readonly resize: data.ImageSize | { readonly shortest_edge: number } | null;
        readonly crop: data.ImageSize | null;
        readonly resample: data.Resampling;
        readonly rescale_factor: number;
        readonly image_mean: readonly [number, number, number];
        readonly image_std: readonly [number, number, number];
      }
    >
  >(true);
  assertType<IsExact<typeof data.readPreprocessor, (from: io.ByteSource) => Promise<data.Preprocessing>>>(true);
  assertType<
    IsExact<
      typeof data.countTokens,
      (given: data.TokenLayout, keep: data.KeptTokens) => { cls: number; patches: number }
    >
  >(true);
  assertType<
    IsExact<
      typeof data.extractActivations,
      <Image>(extraction: data.Extraction<Image>, from?: number) => AsyncGenerator<Float32Array<ArrayBuffer>>
    >
  >(true);
  assertType<
    Keeps<
      data.Extraction<string>,
      {
        readonly images: readonly string[];
        readonly decode: (image: string) => Promise<Uint8Array>;
        readonly run: data.RunModel;
        readonly preprocessing: data.Preprocessing;
        readonly size: data.ImageSize;
        readonly order: "channels-first" | "channels-last";
        readonly batch_size: number;
        readonly isFixedBatch: boolean;
        readonly layers: readonly string[];
        readonly tokens: data.TokenLayout;
        readonly keep: data.KeptTokens;
        readonly d_model: number;
        readonly nameOf: (image: string) => string;
      }
    >
  >(true);
  assertType<IsExact<data.KeptTokens, "patches" | "cls" | "all">>(true);
  assertType<Keeps<data.ModelTensor, { readonly shape: readonly number[]; readonly data: Float32Array }>>(true);
  assertType<Keeps<data.OpenModel, { readonly run: data.RunModel }>>(true);
  assertType<data.OpenModel extends AsyncDisposable ? true : false>(true);
  assertType<IsExact<typeof data.patchSize, (given: io.OnnxModel) => data.ImageSize | null>>(true);
  assertType<IsExact<typeof data.residualStream, (given: io.OnnxModel) => string[]>>(true);
  assertType<
    IsExact<
      data.RunModel,
      (pixels: Float32Array, shape: readonly number[]) => Promise<readonly (data.ModelTensor | null)[]>
    >
  >(true);
  assertType<
    Keeps<data.TokenLayout, { readonly n_prefix: number; readonly cls_token: boolean; readonly grid: data.ImageSize }>
  >(true);
  assertType<
    IsExact<
      typeof data.tokenLayout,
      (T: number, size: data.ImageSize, patch: data.ImageSize | null) => data.TokenLayout | null
    >
  >(true);
  assertType<Keeps<data.ByteImage, { readonly data: Uint8Array }>>(true);
  assertType<data.ByteImage extends data.ImageSize ? true : false>(true);
  assertType<Keeps<data.ImageSize, { readonly height: number; readonly width: number }>>(true);
  assertType<
    IsExact<
      typeof data.resample,
      (
        image: data.ByteImage,
        given1: data.ResizePlan,
        given2: { readonly filter: data.Resampling; readonly channels: number },
      ) => data.ByteImage
    >
  >(true);
  assertType<IsExact<data.Resampling, "nearest" | "lanczos" | "bilinear" | "bicubic" | "box" | "hamming">>(true);
  assertType<
    Keeps<
      data.ResizePlan,
      {
        readonly resized: data.ImageSize;
        readonly crop: data.ImageSize & { readonly top: number; readonly left: number };
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof data.withoutLabels,
      (rows: data.ShardRows, labels: Uint8Array, ignored: readonly number[]) => data.RowSource
    >
  >(true);
});
