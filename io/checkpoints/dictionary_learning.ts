/**
 * dictionary_learning: `ae.pt`, a PyTorch file of tensors, usually with `config.json` beside it, or in the folder
 * above, where its trainer puts it for `checkpoints/ae_40.pt`.
 *
 * `f = activation((x − [subtracts] b_dec) W_enc + b_enc)`, `x̂ = f W_dec + b_dec`
 *
 * | `dict_class` | tensors (D activation_dim, F dict_size) | read as |
 * | --- | --- | --- |
 * | `AutoEncoder` | `bias` [D], `encoder.weight` [F, D], `encoder.bias` [F], `decoder.weight` [D, F] | relu, subtracts |
 * | `AutoEncoderNew` | the same with `decoder.bias` [D] for `bias` | relu |
 * | `AutoEncoderTopK` | `b_dec` [D], the encoder's and decoder's as above, `k`, `threshold` | top-k with relu, subtracts |
 * | `BatchTopKSAE` | the same | batch-top-k, subtracts |
 * | `MatryoshkaBatchTopKSAE` | `W_enc` [D, F], `b_enc`, `W_dec` [F, D], `b_dec`, `k`, `threshold`, `group_sizes` | the same |
 * | `JumpReluAutoEncoder` | `W_enc`, `b_enc`, `W_dec`, `b_dec`, `threshold` [F] | jump-relu |
 * | `GatedAutoEncoder` | `decoder_bias` [D], `encoder.weight`, `decoder.weight`, `gate_bias`, `r_mag`, `mag_bias` [F] | gated, subtracts |
 * | others | | refused |
 *
 * Without `config.json` only an `AutoEncoder`, a `GatedAutoEncoder` and a `MatryoshkaBatchTopKSAE` are recognised, by
 * tensor names that no other library uses. A TopK and a BatchTopK have the same tensors, a JumpReLU has those of
 * SAELens (which subtracts), and an `AutoEncoderNew` those of any autoencoder. Training settings in the configuration
 * are ignored. A BatchTopK applies its threshold, as the library does outside training. Codes are computed from the
 * weights in the file. The library's own loader by default rescales an `AutoEncoder` to unit decoder rows, which
 * changes codes but not reconstructions.
 *
 * @module
 */

import { CheckpointError, quote } from "../errors.ts";
import { foldedInto, foldModel } from "../fold.ts";
import { describeValue } from "../json.ts";
import { HeaderFields } from "../json_header.ts";
import {
  batchTopKActivation,
  fail,
  foreignFormat,
  foreignModel,
  GATED,
  hasTensors,
  jsonFile,
  JUMP_RELU,
  loseNegatives,
  matrixShape,
  openParameters,
  readInteger,
  RELU,
  rowNorms,
  topKActivation,
} from "./foreign.ts";
import type {
  ForeignOptions,
  Formatted,
  FoundConfig,
  LoseNegatives,
  OpenedModel,
  Weights,
  WritableFormat,
} from "./format.ts";
import { type ParsedCheckpoint, readParameter, type StoredParameters } from "../model.ts";
import { formatTorchFile } from "../torch_file.ts";

/** The file with the tensors. */
export const DICTIONARY_LEARNING_WEIGHTS = "ae.pt";
/** The file with the class and the training settings. */
export const DICTIONARY_LEARNING_CONFIG = "config.json";

const LINEAR = { W_enc: "encoder.weight", b_enc: "encoder.bias", W_dec: "decoder.weight" } as const;
const PLAIN = { W_enc: "W_enc", b_enc: "b_enc", W_dec: "W_dec", b_dec: "b_dec" } as const;
const FLIPPED = ["W_enc", "W_dec"] as const;

/** The format. */
export const DICTIONARY_LEARNING: WritableFormat<"dictionary_learning"> = {
  ...foreignFormat({
    name: "dictionary_learning",
    files: { weights: [DICTIONARY_LEARNING_WEIGHTS] },
    recognise: (weights) =>
      weights.container === "torch" && !weights.isNested && weights.extras.size === 0 && (
        hasTensors(weights, "encoder.weight", "decoder.weight") && !weights.tensors.has("pre_bias") ||
        hasTensors(weights, "W_enc", "threshold")
      ),
    read: async (weights, { input }: ForeignOptions) => {
      const config = await findTrainerConfig(weights);
      const trainer = config === null ? null : new HeaderFields(config.file, config.object).object("trainer");
      const name = trainer?.string("dict_class") ?? classOf(weights);
      const dict = Object.hasOwn(CLASSES, name) ? CLASSES[name] : undefined;
      if (dict === undefined) {
        return fail(
          weights.name,
          `the dict_class ${quote(name)} is not supported; expected one of ${Object.keys(CLASSES).join(", ")}`,
        );
      }
      const [rows, columns] = matrixShape(weights, dict.isLinear ? LINEAR.W_enc : PLAIN.W_enc);
      const sizes = dict.isLinear ? { d_model: columns, d_sae: rows } : { d_model: rows, d_sae: columns };
      if (trainer !== null) {
        for (const [field, size] of [["activation_dim", sizes.d_model], ["dict_size", sizes.d_sae]] as const) {
          const said = trainer.integer(field);
          if (said !== size) trainer.fail(`${field} is ${said}; the tensors in ${weights.name} have ${size}`);
        }
      }
      const { model, ...more } = await dict.read(weights, sizes);
      if (trainer !== null && "top_k" in model.cfg.activation) {
        const { top_k } = model.cfg.activation;
        const said = trainer.integer("k");
        if (said !== top_k) trainer.fail(`k is ${said}; the tensor in ${weights.name} is ${top_k}`);
      }
      return { model: { ...model, input: input ?? model.input }, ...more };
    },
  }),
  findConfig: findTrainerConfig,
  loaderChanges: warningsAboutNorms,
  write: { files: [DICTIONARY_LEARNING_CONFIG, DICTIONARY_LEARNING_WEIGHTS], format: formatDictionaryLearning },
};

/** The tolerance of `torch.allclose`, which decides in that library. */
const UNIT_TOLERANCE = 1e-5;

/** Only for an `AutoEncoder` does the library's own loader change codes. */
function warningsAboutNorms({ cfg, parameters }: ParsedCheckpoint): string[] {
  if (cfg.activation.key !== "relu" || !cfg.subtract_b_dec) return [];
  const norms = rowNorms(parameters.W_dec, cfg.d_model);
  const [least, most] = [Math.min, Math.max].map((choose) => norms.reduce((a, b) => choose(a, b)));
  if (least! >= 1 - UNIT_TOLERANCE && most! <= 1 + UNIT_TOLERANCE) return [];
  const [low, high] = [least!, most!].map((norm) => Number(norm.toPrecision(4)));
  return [
    `the rows of W_dec have norms from ${low} to ${high}; dictionary_learning's from_pretrained normalises them unless called with ` +
    "normalize_decoder=False, and its codes are then these times the norm; reconstructions are the same",
  ];
}

/** The configuration, beside the file or in the folder above; a file above may also belong to something else. */
async function findTrainerConfig({ findJson, findJsonAbove }: Weights): Promise<FoundConfig | null> {
  const beside = await findJson(DICTIONARY_LEARNING_CONFIG);
  if (beside !== null) return { file: DICTIONARY_LEARNING_CONFIG, object: beside };
  const above = await findJsonAbove(DICTIONARY_LEARNING_CONFIG).catch((error: unknown) => {
    if (error instanceof CheckpointError) return null;
    throw error;
  });
  const trainer = above?.get("trainer");
  if (!(trainer instanceof Map && trainer.has("dict_class"))) return null;
  return { file: `../${DICTIONARY_LEARNING_CONFIG}`, object: above! };
}

interface Sizes {
  readonly d_model: number;
  readonly d_sae: number;
}

interface DictClass {
  /** Whether its matrices are `torch.nn.Linear`s, which are stored transposed. */
  readonly isLinear: boolean;
  readonly read: (weights: Weights, sizes: Sizes) => OpenedModel | Promise<OpenedModel>;
}

const CLASSES: Readonly<Record<string, DictClass>> = {
  AutoEncoder: { isLinear: true, read: (weights, sizes) => readRelu(weights, sizes, "bias") },
  AutoEncoderNew: { isLinear: true, read: (weights, sizes) => readRelu(weights, sizes, "decoder.bias") },
  AutoEncoderTopK: {
    isLinear: true,
    read: async (weights, sizes) => {
      const top_k = await readInteger(weights, "k");
      const { threshold: _, ...parameters } = openParameters(weights, sizes, {
        names: { ...LINEAR, b_dec: "b_dec" },
        transposed: FLIPPED,
        own: { threshold: { name: "threshold", shape: [] } },
        ignored: ["k"],
      });
      return foreignModel(
        weights.name,
        { ...sizes, subtract_b_dec: true, activation: topKActivation(top_k) },
        parameters,
      );
    },
  },
  BatchTopKSAE: { isLinear: true, read: readBatchTopK },
  MatryoshkaBatchTopKSAE: { isLinear: false, read: readMatryoshka },
  GatedAutoEncoder: {
    isLinear: true,
    read: (weights, sizes) => {
      const shape = [sizes.d_sae];
      const parameters = openParameters(weights, sizes, {
        names: { W_enc: LINEAR.W_enc, b_enc: "gate_bias", W_dec: LINEAR.W_dec, b_dec: "decoder_bias" },
        transposed: FLIPPED,
        own: { r_mag: { name: "r_mag", shape }, b_mag: { name: "mag_bias", shape } },
      });
      return foreignModel(weights.name, { ...sizes, subtract_b_dec: true, activation: GATED }, parameters);
    },
  },
  JumpReluAutoEncoder: {
    isLinear: false,
    read: (weights, sizes) => {
      const threshold = { name: "threshold", shape: [sizes.d_sae] };
      const parameters = openParameters(weights, sizes, { names: PLAIN, own: { threshold } });
      return foreignModel(weights.name, { ...sizes, subtract_b_dec: false, activation: JUMP_RELU }, parameters);
    },
  },
};

function readRelu(weights: Weights, sizes: Sizes, b_dec: string): OpenedModel {
  const parameters = openParameters(weights, sizes, { names: { ...LINEAR, b_dec }, transposed: FLIPPED });
  return foreignModel(weights.name, { ...sizes, subtract_b_dec: b_dec === "bias", activation: RELU }, parameters);
}

async function readBatchTopK(weights: Weights, sizes: Sizes): Promise<OpenedModel> {
  const top_k = await readInteger(weights, "k");
  const parameters = openParameters(weights, sizes, {
    names: { ...LINEAR, b_dec: "b_dec" },
    transposed: FLIPPED,
    own: { threshold: { name: "threshold", shape: [] } },
    ignored: ["k"],
  });
  return await batchTopKModel(weights, sizes, top_k, parameters);
}

async function readMatryoshka(weights: Weights, sizes: Sizes): Promise<OpenedModel> {
  const top_k = await readInteger(weights, "k");
  const groups = await weights.tensors.get("group_sizes")?.readIntegers() ??
    fail(weights.name, "missing tensors: group_sizes");
  const sum = groups.reduce((sum, size) => sum + size, 0);
  if (sum !== sizes.d_sae) fail(weights.name, `group_sizes sum to ${sum}; expected dict_size, ${sizes.d_sae}`);
  const parameters = openParameters(weights, sizes, {
    names: PLAIN,
    own: { threshold: { name: "threshold", shape: [] } },
    ignored: ["k", "group_sizes"],
  });
  return await batchTopKModel(weights, sizes, top_k, parameters);
}

async function batchTopKModel(
  { name }: Weights,
  sizes: Sizes,
  top_k: number,
  parameters: StoredParameters,
): Promise<OpenedModel> {
  const [threshold] = await readParameter(parameters.threshold!);
  const warnings = threshold! < 0
    ? [
      "the threshold is negative, which means that training had not estimated it yet; every positive pre-activation becomes a code",
    ]
    : [];
  return foreignModel(
    name,
    { ...sizes, subtract_b_dec: true, activation: batchTopKActivation(top_k) },
    { ...parameters, threshold: Float32Array.of(threshold!) },
    { warnings },
  );
}

/** The class, if the tensors alone determine it. */
function classOf(weights: Weights): string {
  const has = (...names: readonly string[]): boolean => hasTensors(weights, ...names);
  if (has("gate_bias", "mag_bias")) return "GatedAutoEncoder";
  if (has("encoder.weight", "bias")) return "AutoEncoder";
  if (has("W_enc", "group_sizes")) return "MatryoshkaBatchTopKSAE";
  const found = [...weights.tensors.keys()].slice(0, 8).map((name) => describeValue(name)).join(", ");
  return fail(
    weights.name,
    `the tensors ${found} fit more than one library and class; put a ${DICTIONARY_LEARNING_CONFIG} that gives the dict_class ` +
      "beside the file or in the folder above it",
  );
}

// ---------------------------------------------------------------------------------------------------------- writing

function formatDictionaryLearning(given: ParsedCheckpoint, lose: LoseNegatives): Formatted {
  const { activation } = given.cfg;
  loseNegatives(activation, "dictionary_learning", lose);
  // AutoEncoderNew and JumpReLU do not subtract b_dec; the others always do.
  const subtracts = activation.key !== "jump-relu" && (activation.key !== "relu" || given.cfg.subtract_b_dec);
  const { cfg, parameters } = foldModel(given, subtracts);
  const { d_model, d_sae } = cfg;
  const { W_enc, b_enc, W_dec, b_dec, threshold, r_mag, b_mag } = parameters;
  const encoder = { name: "encoder.weight", shape: [d_sae, d_model], data: W_enc, isTransposed: true };
  const decoder = { name: "decoder.weight", shape: [d_model, d_sae], data: W_dec, isTransposed: true };
  const matrices = [encoder, { name: "encoder.bias", shape: [d_sae], data: b_enc }, decoder];
  const biasCalled = (name: string) => ({ name, shape: [d_model], data: b_dec });
  const numberCalled = (name: string, data: Float32Array | Int32Array) => ({ name, shape: [], data });
  const written = (() => {
    switch (activation.key) {
      case "relu":
        return subtracts
          ? { dict_class: "AutoEncoder", tensors: [biasCalled("bias"), ...matrices] }
          : { dict_class: "AutoEncoderNew", tensors: [...matrices, biasCalled("decoder.bias")] };
      case "top-k":
      case "batch-top-k": {
        const k = Math.min(activation.top_k, d_sae);
        // The library's value before training estimates it. Its TopK uses only k.
        const theta = threshold ?? Float32Array.of(-1);
        return {
          dict_class: activation.key === "top-k" ? "AutoEncoderTopK" : "BatchTopKSAE",
          k,
          tensors: [
            biasCalled("b_dec"),
            numberCalled("k", Int32Array.of(k)),
            numberCalled("threshold", theta),
            ...matrices,
          ],
        };
      }
      case "gated":
        return {
          dict_class: "GatedAutoEncoder",
          tensors: [
            biasCalled("decoder_bias"),
            { name: "r_mag", shape: [d_sae], data: r_mag! },
            { name: "gate_bias", shape: [d_sae], data: b_enc },
            { name: "mag_bias", shape: [d_sae], data: b_mag! },
            encoder,
            decoder,
          ],
        };
      case "jump-relu":
        return {
          dict_class: "JumpReluAutoEncoder",
          tensors: [
            { name: "W_enc", shape: [d_model, d_sae], data: W_enc },
            { name: "b_enc", shape: [d_sae], data: b_enc },
            { name: "W_dec", shape: [d_sae, d_model], data: W_dec },
            biasCalled("b_dec"),
            { name: "threshold", shape: [d_sae], data: threshold! },
          ],
        };
    }
  })();
  const { tensors, ...fields } = written;
  const config = { trainer: { ...fields, activation_dim: d_model, dict_size: d_sae }, buffer: {} };
  const modules = activation.key === "jump-relu" ? [""] : ["", "encoder", "decoder"];
  return {
    files: new Map([
      [DICTIONARY_LEARNING_CONFIG, jsonFile(config)],
      [DICTIONARY_LEARNING_WEIGHTS, formatTorchFile(tensors, modules)],
    ]),
    folded: foldedInto(given, subtracts),
  };
}
