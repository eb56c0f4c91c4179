/** Types that users of `@saev/nn/io` rely on: where one changes, this file no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type * as nn from "../../mod.ts";
import type * as io from "../../io/mod.ts";
import type { Keeps } from "../support/types.ts";

Deno.test("@saev/nn/io has these functions, classes and constants", () => {
  assertType<
    IsExact<
      keyof typeof io,
      | "CheckpointError"
      | "REMEDIES"
      | "TARGET_FORMATS"
      | "blobSource"
      | "bytesSource"
      | "dump"
      | "dumpBytes"
      | "findTargets"
      | "formatCheckpoint"
      | "formatModel"
      | "formatSafetensors"
      | "furtherOutputs"
      | "inspectCheckpoint"
      | "load"
      | "openFiles"
      | "openNpy"
      | "openNpz"
      | "openScipyCsr"
      | "openSource"
      | "parseCheckpoint"
      | "pathFrom"
      | "pickedFiles"
      | "readCheckpoint"
      | "readNpy"
      | "readOnnxModel"
      | "readSafetensors"
      | "readTorchFile"
      | "recognise"
      | "requireFile"
      | "shownAddress"
      | "splitPath"
      | "writeCheckpoint"
      | "writeNpy"
      | "writeSafetensors"
    >
  >(true);
});

Deno.test("what @saev/nn/io exports keeps its type", () => {
  assertType<IsExact<typeof io.dump, typeof nn.dump>>(true);
  assertType<IsExact<io.Dumpable, Pick<nn.SparseAutoencoder, "cfg" | "input" | "readParameters" | "readPieces">>>(true);
  assertType<IsExact<typeof io.dumpBytes, typeof nn.dumpBytes>>(true);
  assertType<IsExact<io.Dumped, nn.Dumped>>(true);
  assertType<IsExact<io.DumpOptions, nn.DumpOptions>>(true);
  assertType<IsExact<typeof io.load, typeof nn.load>>(true);
  assertType<IsExact<io.LoadedAutoencoder, nn.LoadedAutoencoder>>(true);
  assertType<IsExact<io.LoadOptions, nn.LoadOptions>>(true);
  assertType<
    IsExact<
      typeof io.readCheckpoint,
      (from: io.FilesSource, options?: Omit<io.LoadOptions, "device" | "weights">) => Promise<io.ReadCheckpoint>
    >
  >(true);
  assertType<IsExact<io.CheckpointError, nn.CheckpointError>>(true);
  assertType<
    Keeps<
      io.FileSet,
      {
        readonly name: string;
        readonly main: string | null;
        list: () => Promise<readonly string[]>;
        find: (path: string) => Promise<io.Source | null>;
        findAbove?: (name: string) => Promise<io.Source | null>;
      }
    >
  >(true);
  assertType<IsExact<typeof io.pickedFiles, (picked: Iterable<File>) => io.FileSet>>(true);
  assertType<IsExact<typeof io.requireFile, (files: io.FileSet, path: string) => Promise<io.Source>>>(true);
  assertType<
    Keeps<io.ByteSink, { write: (bytes: Uint8Array) => number | Promise<number>; sync?: () => void | Promise<void> }>
  >(true);
  assertType<IsExact<io.ByteSource, string | URL | Uint8Array | ArrayBuffer | Blob | io.FileHandle | io.Source>>(true);
  assertType<IsExact<io.ByteTarget, string | URL | io.ByteSink | WritableStream<Uint8Array>>>(true);
  assertType<Keeps<io.FileHandle, { getFile: () => Promise<File> }>>(true);
  assertType<IsExact<io.FilesSource, io.ByteSource | Iterable<File> | io.FileSet>>(true);
  assertType<IsExact<typeof io.openFiles, (from: io.FilesSource, options?: io.SourceOptions) => Promise<io.FileSet>>>(
    true,
  );
  assertType<IsExact<typeof io.openSource, (from: io.ByteSource, options?: io.SourceOptions) => Promise<io.Source>>>(
    true,
  );
  assertType<Keeps<io.SourceOptions, { readonly hub?: io.HubOptions; readonly signal?: AbortSignal }>>(true);
  assertType<IsExact<io.Target, "absent" | "file" | "stream" | "pipe">>(true);
  assertType<IsExact<io.Folded, "subtract_b_dec" | "mean" | "scale">>(true);
  assertType<IsExact<io.Concession, "normalised-rows" | "rescaled-codes">>(true);
  assertType<
    Keeps<io.ForeignOptions, { readonly input?: nn.InputScaling; readonly accept?: readonly io.Concession[] }>
  >(true);
  assertType<
    Keeps<
      io.Formatted,
      { readonly files: ReadonlyMap<string, readonly Uint8Array[]>; readonly folded: readonly io.Folded[] }
    >
  >(true);
  assertType<Keeps<io.ParseOptions, { readonly subtract_b_dec?: boolean }>>(true);
  assertType<io.ReadOptions extends io.ParseOptions ? true : false>(true);
  assertType<io.ReadOptions extends io.ForeignOptions ? true : false>(true);
  assertType<
    IsExact<
      io.FormatName,
      | "saev"
      | "saelens"
      | "dictionary_learning"
      | "sparsify"
      | "openai"
      | "gemma_scope"
      | "vit_prisma"
      | "llamascopium"
      | "llama_scope"
    >
  >(true);
  assertType<
    IsExact<
      (typeof io.TARGET_FORMATS)[number],
      ("saev" | "saev_nn" | "saelens" | "dictionary_learning" | "onnx" | "onnx_encoder")
    >
  >(true);
  assertType<IsExact<io.TargetFormat, (typeof io.TARGET_FORMATS)[number]>>(true);
  assertType<
    IsExact<
      typeof io.inspectCheckpoint,
      (from: io.FilesSource, options?: io.ReadOptions & io.SourceOptions) => Promise<io.Inspection>
    >
  >(true);
  assertType<
    Keeps<
      io.Inspection,
      {
        readonly format: io.FormatName;
        readonly schema: string | null;
        readonly configs: Readonly<Record<string, unknown>>;
        readonly tensors: readonly io.TensorSummary[];
        readonly cfg: nn.SparseAutoencoderConfig | null;
        readonly input: nn.InputScaling | null;
        readonly formula: readonly string[];
        readonly where: readonly string[];
        readonly accept: readonly io.Concession[];
        readonly refused: string | null;
        readonly warnings: readonly string[];
      }
    >
  >(true);
  assertType<
    Keeps<
      io.TensorStatistics,
      {
        readonly min: number;
        readonly max: number;
        readonly mean: number;
        readonly std: number;
        readonly n_zero: number;
        readonly n_not_finite: number;
      }
    >
  >(true);
  assertType<
    Keeps<
      io.TensorSummary,
      {
        readonly name: string;
        readonly shape: readonly number[];
        readonly dtype: io.NumberType;
        readonly statistics: io.TensorStatistics | null;
      }
    >
  >(true);
  assertType<typeof io.REMEDIES extends Readonly<Record<string, string>> ? true : false>(true);
  assertType<Keeps<io.Clock, { now: () => number; after: (milliseconds: number, then: () => void) => () => void }>>(
    true,
  );
  assertType<
    Keeps<
      io.HubOptions,
      {
        readonly endpoint?: string;
        readonly token?: string;
        readonly cache?: string | null;
        readonly onProgress?: (progress: io.HubProgress) => void;
        readonly onNotice?: (line: string) => void;
        readonly signal?: AbortSignal;
        readonly maxBytes?: number;
        readonly clock?: io.Clock;
      }
    >
  >(true);
  assertType<Keeps<io.HubProgress, { readonly path: string; readonly received: number; readonly size: number | null }>>(
    true,
  );
  assertType<IsExact<typeof io.shownAddress, (address: string | URL) => string>>(true);
  assertType<
    IsExact<typeof io.parseCheckpoint, (source: io.Source, options?: io.ParseOptions) => Promise<io.ReadCheckpoint>>
  >(true);
  assertType<Keeps<io.ReadCheckpoint, { readonly warnings: readonly string[] }>>(true);
  assertType<io.ReadCheckpoint extends io.ParsedCheckpoint ? true : false>(true);
  assertType<IsExact<io.CheckpointSchema, 5 | 1 | "saev_nn">>(true);
  assertType<Keeps<io.FormatOptions, { readonly schema?: io.CheckpointSchema; readonly fold?: boolean }>>(true);
  assertType<
    IsExact<
      typeof io.formatCheckpoint,
      (
        cfg: nn.SparseAutoencoderConfig,
        parameters: nn.ParameterArrays,
        input?: nn.InputScaling,
        options?: io.FormatOptions,
      ) => Uint8Array<ArrayBuffer>
    >
  >(true);
  assertType<
    IsExact<
      typeof io.findTargets,
      (to: string | URL, options: Pick<io.WriteOptions, "format" | "overwrite">) => Promise<readonly io.WriteTarget[]>
    >
  >(true);
  assertType<
    IsExact<typeof io.formatModel, (given: io.ParsedCheckpoint, options: io.WriteOptions) => io.FormattedModel>
  >(true);
  assertType<Keeps<io.FormattedModel, { readonly lost: readonly string[]; readonly perhapsLost: readonly string[] }>>(
    true,
  );
  assertType<io.FormattedModel extends io.Formatted ? true : false>(true);
  assertType<
    IsExact<
      typeof io.writeCheckpoint,
      (to: string | URL, model: io.ParsedCheckpoint, options: io.WriteOptions) => Promise<io.WrittenModel>
    >
  >(true);
  assertType<
    Keeps<
      io.WriteOptions,
      {
        readonly format: io.TargetFormat;
        readonly schema?: 5 | 1;
        readonly lossy?: boolean;
        readonly overwrite?: boolean;
      }
    >
  >(true);
  assertType<Keeps<io.WriteTarget, { readonly path: string | URL; readonly target: io.Target }>>(true);
  assertType<
    Keeps<
      io.WrittenModel,
      {
        readonly paths: readonly string[];
        readonly folded: readonly io.Folded[];
        readonly lost: readonly string[];
        readonly perhapsLost: readonly string[];
      }
    >
  >(true);
  assertType<
    Keeps<
      io.ParsedCheckpoint,
      {
        readonly cfg: nn.SparseAutoencoderConfig;
        readonly parameters: nn.ParameterArrays;
        readonly input: nn.InputScaling;
      }
    >
  >(true);
  assertType<Keeps<io.NpyMatrix, { readonly data: Float32Array; readonly rows: number; readonly cols: number }>>(true);
  assertType<IsExact<typeof io.openNpy, (source: io.Source) => Promise<io.StoredTensor>>>(true);
  assertType<IsExact<typeof io.readNpy, (source: io.Source) => Promise<io.NpyMatrix>>>(true);
  assertType<IsExact<typeof io.writeNpy, (given: io.NpyMatrix) => Uint8Array<ArrayBuffer>>>(true);
  assertType<
    Keeps<
      io.Npz,
      {
        readonly names: readonly string[];
        open: (name: string) => Promise<io.StoredTensor>;
        text: (name: string) => Promise<string>;
        locate: (name: string) => Promise<io.ArrayPlace>;
      }
    >
  >(true);
  assertType<Keeps<io.NpzOptions, { readonly mostDeflated?: number }>>(true);
  assertType<IsExact<typeof io.openNpz, (source: io.Source, options?: io.NpzOptions) => Promise<io.Npz>>>(true);
  assertType<
    Keeps<
      io.CsrMatrix,
      {
        readonly name: string;
        readonly shape: readonly [number, number];
        readonly n_entries: number;
        rows: () => AsyncIterable<io.CsrRows>;
      }
    >
  >(true);
  assertType<
    Keeps<
      io.CsrRows,
      { readonly row_starts: Uint32Array; readonly indices: Uint32Array; readonly values: Float32Array }
    >
  >(true);
  assertType<IsExact<typeof io.openScipyCsr, (source: io.Source) => Promise<io.CsrMatrix>>>(true);
  assertType<
    Keeps<
      io.ArrayPlace,
      {
        readonly what: string;
        readonly python: string;
        readonly source: io.Source;
        readonly start: number;
        readonly type: io.NumberType;
        readonly isLittleEndian: boolean;
        readonly isFortranOrder: boolean;
        readonly shape: readonly number[];
      }
    >
  >(true);
  assertType<IsExact<io.FloatType, "float16" | "bfloat16" | "float32" | "float64">>(true);
  assertType<
    IsExact<io.IntegerType, "bool" | "int8" | "uint8" | "int16" | "uint16" | "int32" | "uint32" | "int64" | "uint64">
  >(true);
  assertType<IsExact<io.NumberType, io.FloatType | io.IntegerType>>(true);
  assertType<
    IsExact<
      typeof io.formatSafetensors,
      (tensors: readonly io.NamedTensor[], metadata?: Readonly<Record<string, string>>) => Uint8Array[]
    >
  >(true);
  assertType<IsExact<typeof io.readSafetensors, (source: io.Source) => Promise<io.Safetensors>>>(true);
  assertType<
    Keeps<
      io.Safetensors,
      { readonly tensors: ReadonlyMap<string, io.StoredTensor>; readonly metadata: ReadonlyMap<string, string> }
    >
  >(true);
  assertType<
    IsExact<
      typeof io.writeSafetensors,
      (
        to: io.ByteTarget,
        tensors: readonly io.NamedTensor[],
        metadata?: Readonly<Record<string, string>>,
      ) => Promise<void>
    >
  >(true);
  assertType<IsExact<typeof io.pathFrom, (file: string, path: string, system: io.PathSystem) => string>>(true);
  assertType<Keeps<io.PathParts, { readonly folder: string; readonly name: string }>>(true);
  assertType<IsExact<io.PathSystem, "windows" | "linux">>(true);
  assertType<IsExact<typeof io.splitPath, (path: string, system: io.PathSystem) => io.PathParts>>(true);
  assertType<IsExact<typeof io.blobSource, (blob: Blob) => io.Source>>(true);
  assertType<IsExact<typeof io.bytesSource, (bytes: Uint8Array, name?: string) => io.Source>>(true);
  assertType<
    Keeps<
      io.Source,
      { readonly name: string; readonly size: number; read: (from: number, to: number) => Promise<Uint8Array> }
    >
  >(true);
  assertType<
    Keeps<
      io.NamedTensor,
      { readonly name: string; readonly shape: readonly number[]; readonly data: Float32Array | Int32Array }
    >
  >(true);
  assertType<
    Keeps<
      io.StoredTensor,
      {
        readonly shape: readonly number[];
        readonly dtype: io.NumberType;
        readonly storedBytes: number;
        readonly isRowMajor: boolean;
        read: () => Promise<Float32Array>;
        readIntegers: () => Promise<Float64Array>;
        pieces: () => AsyncIterable<Float32Array>;
        integerPieces: () => AsyncIterable<Float64Array>;
        transposed: () => io.StoredTensor;
      }
    >
  >(true);
  assertType<IsExact<io.FileKind, "saev" | "torch" | "pickle" | "safetensors" | "npz" | "npy" | "json">>(true);
  assertType<IsExact<typeof io.recognise, (source: io.Source) => Promise<io.FileKind>>>(true);
  assertType<IsExact<typeof io.readTorchFile, (source: io.Source) => Promise<Map<string, io.StoredTensor>>>>(true);
  assertType<IsExact<typeof io.furtherOutputs, (names: readonly string[]) => Uint8Array<ArrayBuffer>>>(true);
  assertType<
    Keeps<io.OnnxInput, { readonly name: string; readonly type: number; readonly shape: readonly (number | null)[] }>
  >(true);
  assertType<
    Keeps<
      io.OnnxModel,
      {
        readonly inputs: readonly io.OnnxInput[];
        readonly outputs: readonly string[];
        readonly operators: readonly io.OnnxOperator[];
        readonly constants: ReadonlySet<string>;
        readonly externalFiles: readonly string[];
      }
    >
  >(true);
  assertType<
    Keeps<
      io.OnnxOperator,
      {
        readonly op: string;
        readonly name: string;
        readonly inputs: readonly string[];
        readonly outputs: readonly string[];
        readonly ints: ReadonlyMap<string, readonly number[]>;
      }
    >
  >(true);
  assertType<IsExact<typeof io.readOnnxModel, (bytes: Uint8Array, name?: string) => io.OnnxModel>>(true);
});
