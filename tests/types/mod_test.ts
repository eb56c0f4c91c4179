/** Types that users of `@saev/nn` rely on: where one changes, this file no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type * as nn from "../../mod.ts";
import type * as io from "../../io/mod.ts";
import type * as kernels from "../../kernels/mod.ts";
import type { Keeps } from "../support/types.ts";

Deno.test("@saev/nn has these functions, classes and constants", () => {
  assertType<
    IsExact<
      keyof typeof nn,
      | "CheckpointError"
      | "Codes"
      | "DeviceError"
      | "KernelError"
      | "Objective"
      | "ParameterTensors"
      | "ShapeError"
      | "SparseAutoencoder"
      | "Tensor"
      | "TrainState"
      | "dump"
      | "dumpBytes"
      | "getObjective"
      | "intervene"
      | "load"
      | "meanSquaredErr"
    >
  >(true);
});

Deno.test("what @saev/nn exports keeps its type", () => {
  assertType<
    Keeps<
      nn.BatchTopK,
      {
        readonly key: "batch-top-k";
        readonly top_k: number;
        readonly relu: boolean;
        readonly sparsity: nn.Sparsity;
        readonly momentum: number;
        readonly bias_correction: boolean;
        readonly aux: nn.Aux;
      }
    >
  >(true);
  assertType<Keeps<nn.Gated, { readonly key: "gated"; readonly sparsity: nn.Sparsity; readonly aux: nn.Aux }>>(true);
  assertType<
    Keeps<
      nn.JumpRelu,
      {
        readonly key: "jump-relu";
        readonly bandwidth: number;
        readonly threshold_init: number;
        readonly sparsity: nn.Sparsity;
        readonly aux: nn.Aux;
      }
    >
  >(true);
  assertType<IsExact<nn.Activation, nn.Relu | nn.TopK | nn.BatchTopK | nn.JumpRelu | nn.Gated>>(true);
  assertType<
    IsExact<
      nn.ActivationOptions,
      {
        readonly [A in nn.Activation as A["key"]]: Pick<A, "key"> & Partial<Omit<A, "key" | "aux">> & {
          readonly aux?: nn.AuxOptions;
        };
      }[nn.Activation["key"]]
    >
  >(true);
  assertType<Keeps<nn.Relu, { readonly key: "relu"; readonly sparsity: nn.Sparsity; readonly aux: nn.Aux }>>(true);
  assertType<
    Keeps<
      nn.TopK,
      {
        readonly key: "top-k";
        readonly top_k: number;
        readonly relu: boolean;
        readonly sparsity: nn.Sparsity;
        readonly aux: nn.Aux;
      }
    >
  >(true);
  assertType<
    Keeps<
      nn.InputScaling,
      { readonly mean: Float32Array | null; readonly scale: number; readonly pre_act_scale?: number }
    >
  >(true);
  assertType<
    Keeps<
      nn.ParameterArrays,
      {
        readonly W_enc: Float32Array;
        readonly b_enc: Float32Array;
        readonly W_dec: Float32Array;
        readonly b_dec: Float32Array;
        readonly threshold?: Float32Array;
        readonly r_mag?: Float32Array;
        readonly b_mag?: Float32Array;
      }
    >
  >(true);
  assertType<
    Keeps<nn.ParameterPieces, { readonly pieces: AsyncIterable<Float32Array>; readonly isTransposed: boolean }>
  >(true);
  assertType<IsExact<nn.PiecewiseParameters, { readonly [Name in keyof nn.ParameterArrays]: nn.ParameterPieces }>>(
    true,
  );
  assertType<IsExact<nn.WeightStorage, "f32" | "f16">>(true);
  assertType<
    Keeps<
      nn.SparseAutoencoderConfig,
      {
        readonly d_model: number;
        readonly d_sae: number;
        readonly activation: nn.Activation;
        readonly reinit_blend: number;
        readonly reinit_enc_dec_tranpose: boolean;
        readonly remove_parallel_grads: boolean;
        readonly normalize_w_dec: boolean;
        readonly subtract_b_dec: boolean;
      }
    >
  >(true);
  assertType<
    IsExact<
      nn.SparseAutoencoderOptions,
      Partial<Omit<nn.SparseAutoencoderConfig, "activation">> & { readonly activation?: nn.ActivationOptions }
    >
  >(true);
  assertType<IsExact<nn.Aux, nn.NoAux | nn.AuxK | nn.PreAct>>(true);
  assertType<
    Keeps<
      nn.AuxK,
      {
        readonly key: "auxk";
        readonly k_aux: number;
        readonly alpha: number;
        readonly include_b_dec: boolean;
        readonly normalize: boolean;
      }
    >
  >(true);
  assertType<
    IsExact<
      nn.AuxOptions,
      nn.NoAux | (Pick<nn.AuxK, "key"> & Partial<nn.AuxK>) | (Pick<nn.PreAct, "key"> & Partial<nn.PreAct>)
    >
  >(true);
  assertType<Keeps<nn.L0Sparsity, { readonly key: "l0-sparsity"; readonly coeff: number }>>(true);
  assertType<Keeps<nn.L1Sparsity, { readonly key: "l1-sparsity"; readonly coeff: number }>>(true);
  assertType<Keeps<nn.NoAux, { readonly key: "no-aux" }>>(true);
  assertType<Keeps<nn.NoSparsity, { readonly key: "no-sparsity" }>>(true);
  assertType<Keeps<nn.PreAct, { readonly key: "pre-act"; readonly coeff: number }>>(true);
  assertType<
    IsExact<
      nn.Sparsity,
      nn.NoSparsity | nn.L1Sparsity | nn.WeightedL1Sparsity | nn.TanhSparsity | nn.L0Sparsity | nn.TargetL0Sparsity
    >
  >(true);
  assertType<Keeps<nn.TanhSparsity, { readonly key: "tanh-sparsity"; readonly coeff: number; readonly scale: number }>>(
    true,
  );
  assertType<
    Keeps<
      nn.TargetL0Sparsity,
      { readonly key: "target-l0-sparsity"; readonly coeff: number; readonly target_l0: number }
    >
  >(true);
  assertType<Keeps<nn.WeightedL1Sparsity, { readonly key: "weighted-l1-sparsity"; readonly coeff: number }>>(true);
  assertType<
    Keeps<
      nn.AffineMaps,
      {
        readonly cfg: { readonly d_model: number; readonly d_sae: number; readonly subtract_b_dec: boolean };
        readonly parameters: nn.ParameterTensors;
        readonly threshold: nn.Tensor;
        readonly input: nn.InputScaling;
        readonly inputMean: nn.Tensor;
        readonly context: kernels.DeviceContext;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof nn.intervene,
      (sae: nn.SparseAutoencoder, x: nn.Batch, changes: readonly nn.LatentChange[]) => nn.Tensor
    >
  >(true);
  assertType<
    IsExact<
      nn.LatentChange,
      { readonly latent: number } & ({ readonly set: number } | { readonly scale: number } | { readonly ablate: true })
    >
  >(true);
  assertType<Keeps<nn.Model, { readonly cfg: nn.SparseAutoencoderConfig }>>(true);
  assertType<nn.Model extends nn.AffineMaps ? true : false>(true);
  assertType<Keeps<nn.OpeningOptions, { readonly weights?: nn.WeightStorage }>>(true);
  assertType<nn.OpeningOptions extends nn.PlacementOptions ? true : false>(true);
  assertType<Keeps<nn.Output, { readonly x_hat: nn.Tensor; readonly f_x: nn.Codes }>>(true);
  assertType<nn.Output extends Disposable ? true : false>(true);
  assertType<Keeps<nn.PlacementOptions, { readonly device?: GPUDevice; readonly input?: nn.InputScaling }>>(true);
  assertType<
    Keeps<
      nn.SparseAutoencoder,
      {
        readonly cfg: nn.SparseAutoencoderConfig;
        readonly input: nn.InputScaling;
        readonly device: GPUDevice;
        readonly parameters: nn.ParameterTensors;
        readonly threshold: nn.Tensor;
        readParameters: () => Promise<nn.ParameterArrays>;
        readPieces: () => nn.PiecewiseParameters;
        encode: (x: nn.Batch) => nn.Codes;
        decode: (codes: nn.Codes, prefixes?: readonly number[]) => nn.Tensor;
        forward: (x: nn.Batch) => nn.Output;
        initBDec: (x: nn.Batch) => Promise<void>;
        normalizeWDec: () => void;
        removeParallelGrads: (gradients: nn.Gradients) => void;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof nn.SparseAutoencoder.create,
      (
        options?: nn.SparseAutoencoderOptions,
        making?: nn.PlacementOptions & { readonly seed?: number; readonly data?: nn.InitialData },
      ) => Promise<nn.SparseAutoencoder>
    >
  >(true);
  assertType<
    IsExact<
      typeof nn.SparseAutoencoder.fromParameters,
      (
        options: nn.SparseAutoencoderOptions,
        parameters: nn.ParameterArrays,
        opening?: nn.OpeningOptions,
      ) => Promise<nn.SparseAutoencoder>
    >
  >(true);
  assertType<
    IsExact<
      typeof nn.SparseAutoencoder.fromPieces,
      (
        options: nn.SparseAutoencoderOptions,
        pieces: nn.PiecewiseParameters,
        opening?: nn.OpeningOptions,
      ) => Promise<nn.SparseAutoencoder>
    >
  >(true);
  assertType<IsExact<nn.Batch, nn.Rows | Float32Array | nn.Tensor>>(true);
  assertType<IsExact<nn.Batches, Iterable<nn.Batch> | AsyncIterable<nn.Batch>>>(true);
  assertType<
    Keeps<
      nn.Rows,
      {
        readonly x: Float32Array | nn.Tensor;
        readonly d_model: number;
        readonly index?: Float64Array;
        readonly labels?: Int32Array;
      }
    >
  >(true);
  assertType<
    Keeps<
      nn.RowSource,
      {
        readonly n_rows: number;
        readonly d_model: number;
        readonly labels?: Int32Array;
        exampleStart?: (row: number) => number;
        read: (from: number, to: number) => Promise<Float32Array>;
      }
    >
  >(true);
  assertType<IsExact<nn.InitialBDec, "zeros" | "mean" | "geometric-median">>(true);
  assertType<
    Keeps<
      nn.InitialData,
      {
        readonly x: Float32Array | (nn.Rows & { readonly x: Float32Array });
        readonly data_points?: boolean;
        readonly b_dec?: nn.InitialBDec;
        readonly scale_encoder?: boolean;
      }
    >
  >(true);
  assertType<
    Keeps<
      nn.CodeArrays,
      { readonly row_starts: Uint32Array; readonly indices: Uint32Array; readonly values: Float32Array }
    >
  >(true);
  assertType<
    Keeps<
      nn.Codes,
      {
        readonly n_rows: number;
        readonly d_sae: number;
        readonly row_starts: nn.Tensor<"u32">;
        readonly indices: nn.Tensor<"u32">;
        readonly values: nn.Tensor;
        read: () => Promise<nn.CodeArrays>;
        dense: () => nn.Tensor;
      }
    >
  >(true);
  assertType<IsExact<nn.Gradients, nn.ParameterTensors>>(true);
  assertType<
    Keeps<
      nn.ParameterTensors,
      {
        readonly W_enc: nn.Tensor;
        readonly b_enc: nn.Tensor;
        readonly W_dec: nn.Tensor;
        readonly b_dec: nn.Tensor;
        readonly own: ReadonlyMap<keyof nn.ParameterArrays, nn.Tensor>;
        read: () => Promise<nn.ParameterArrays>;
        write: (arrays: nn.ParameterArrays) => void;
      }
    >
  >(true);
  assertType<IsExact<nn.OptimizerOptions, { readonly key: "adam" } | nn.MuonOptions>>(true);
  assertType<
    Keeps<
      nn.MuonOptions,
      { readonly key: "muon"; readonly momentum?: number; readonly weight_decay?: number; readonly nesterov?: boolean }
    >
  >(true);
  assertType<
    Keeps<
      nn.TrainState,
      {
        step: number;
        n_tokens: number;
        readonly seed: number;
        readonly optimizer: nn.OptimizerOptions["key"];
        readonly moment1: nn.ParameterTensors;
        readonly moment2: nn.ParameterTensors;
        readonly gradients: nn.Gradients;
        readonly tokens_since_active: nn.Tensor<"u32">;
        read: () => Promise<nn.TrainStateData>;
      }
    >
  >(true);
  assertType<IsExact<typeof nn.TrainState.restore, (model: nn.Model, data: nn.TrainStateData) => nn.TrainState>>(true);
  assertType<
    Keeps<
      nn.TrainStateData,
      {
        readonly step: number;
        readonly n_tokens: number;
        readonly seed: number;
        readonly optimizer: nn.OptimizerOptions["key"];
        readonly moment1: nn.ParameterArrays;
        readonly moment2: nn.ParameterArrays;
        readonly tokens_since_active: Uint32Array;
        readonly recentErrors: Float32Array;
        readonly stepsAbove: number;
        readonly control: number;
        readonly controlledL0: number;
        readonly thresholdSeen: number;
      }
    >
  >(true);
  assertType<Keeps<nn.ElementArrays, { f32: Float32Array; u32: Uint32Array }>>(true);
  assertType<IsExact<nn.ElementType, "f32" | "u32">>(true);
  assertType<
    Keeps<
      nn.Tensor,
      {
        readonly shape: readonly number[];
        readonly size: number;
        readonly type: "f32";
        readonly label: string;
        read: (size?: number) => Promise<nn.ElementArrays["f32"]>;
        write: (data: nn.ElementArrays["f32"]) => void;
      }
    >
  >(true);
  assertType<
    Keeps<nn.TensorRows, { readonly tensor: nn.Tensor<nn.ElementType>; readonly from: number; readonly to: number }>
  >(true);
  assertType<InstanceType<typeof nn.DeviceError> extends Error ? true : false>(true);
  assertType<InstanceType<typeof nn.KernelError> extends Error ? true : false>(true);
  assertType<InstanceType<typeof nn.ShapeError> extends TypeError ? true : false>(true);
  assertType<IsExact<typeof nn.getObjective, (options: nn.ObjectiveOptions) => nn.Objective>>(true);
  assertType<
    Keeps<
      nn.Objective,
      {
        readonly cfg: nn.ObjectiveConfig;
        prefixes: (d_sae: number, at: { readonly seed: number; readonly step: number }) => readonly number[];
        sparsity: (given: Pick<nn.Model, "cfg">) => nn.Sparsity;
        loss: (
          model: nn.Model,
          x: nn.Batch | nn.RowSource,
          options?: { readonly prefixes?: readonly number[] },
        ) => Promise<nn.Loss>;
        lossAndGradients: (
          model: nn.Model,
          x: nn.Batch,
          options: { readonly state: nn.TrainState; readonly prefixes?: readonly number[] },
        ) => { readonly loss: nn.PendingLoss; readonly gradients: nn.Gradients };
      }
    >
  >(true);
  assertType<IsExact<nn.ObjectiveConfig, nn.Vanilla | nn.Matryoshka>>(true);
  assertType<
    IsExact<
      nn.ObjectiveOptions,
      (Pick<nn.Vanilla, "key"> & Partial<nn.Vanilla>) | (Pick<nn.Matryoshka, "key"> & Partial<nn.Matryoshka>)
    >
  >(true);
  assertType<Keeps<nn.PendingLoss, { read: () => Promise<nn.Loss> }>>(true);
  assertType<nn.PendingLoss extends Disposable ? true : false>(true);
  assertType<
    Keeps<
      nn.Loss,
      {
        readonly loss: number;
        readonly mse: number;
        readonly sparsity: number;
        readonly l0: number;
        readonly l1: number;
        readonly aux: number;
        readonly n_dead: number;
        readonly sparsity_coeff: number;
      }
    >
  >(true);
  assertType<
    Keeps<
      nn.Vanilla,
      {
        readonly key: "vanilla";
        readonly sparsity_coeff: number | null;
        readonly target_l0: number | null;
        readonly dead_threshold_tokens: number;
      }
    >
  >(true);
  assertType<
    Keeps<
      nn.Matryoshka,
      {
        readonly key: "matryoshka";
        readonly n_prefixes: number;
        readonly group_sizes: readonly number[] | null;
        readonly target_l0: number | null;
        readonly dead_threshold_tokens: number;
      }
    >
  >(true);
  assertType<
    IsExact<
      typeof nn.meanSquaredErr,
      (x_hat: nn.Tensor, x: nn.Tensor, options?: { readonly norm?: boolean }) => nn.Tensor
    >
  >(true);
  assertType<
    IsExact<typeof nn.dump, (to: io.ByteTarget, sae: io.Dumpable, options?: nn.DumpOptions) => Promise<nn.Dumped>>
  >(true);
  assertType<
    IsExact<typeof nn.dumpBytes, (sae: io.Dumpable, options?: nn.DumpOptions) => Promise<Uint8Array<ArrayBuffer>>>
  >(true);
  assertType<Keeps<nn.Dumped, { readonly folded: readonly io.Folded[] }>>(true);
  assertType<IsExact<nn.DumpOptions, io.FormatOptions>>(true);
  assertType<
    IsExact<typeof nn.load, (from: io.FilesSource, options?: nn.LoadOptions) => Promise<nn.LoadedAutoencoder>>
  >(true);
  assertType<IsExact<nn.LoadedAutoencoder, nn.SparseAutoencoder & { readonly warnings: readonly string[] }>>(true);
  assertType<Keeps<nn.LoadOptions, { readonly device?: GPUDevice; readonly weights?: nn.WeightStorage }>>(true);
  assertType<nn.LoadOptions extends io.ReadOptions ? true : false>(true);
  assertType<nn.LoadOptions extends io.SourceOptions ? true : false>(true);
  assertType<InstanceType<typeof nn.CheckpointError> extends SyntaxError ? true : false>(true);
});
