/**
 * Models to the formats of others.
 *
 * A format that has no place for the scaling of inputs, or for one of the encoder formulas, gets parameters that compute
 * the same without it; sums are float64, rounded once. What a format cannot compute is an error, unless the caller wants
 * it anyway, and then listed.
 *
 * | format | files | cannot compute |
 * | --- | --- | --- |
 * | `saev` | one, schema 5; schema 1 when asked for | a jump-relu, a top-k whose negative codes become 0 |
 * | `saev_nn` | one, which this library alone reads | |
 * | `saelens` | `cfg.json`, `sae_weights.safetensors` | a top-k that keeps negative codes |
 * | `dictionary_learning` | `config.json`, `ae.pt` | a top-k that keeps negative codes |
 * | `onnx` | one: `x` to `x_hat` and `f_x` | |
 * | `onnx_encoder` | one: `x` to `f_x` | |
 *
 * How a model was trained, its penalty, auxiliary loss and the like, only `saev` and `saev_nn` hold.
 *
 * @module
 */

import { type Activation, ownValues, parameterShapes } from "../../nn/activations/mod.ts";
import { completeConfig } from "../../nn/config.ts";
import { CheckpointError } from "../errors.ts";
import { type Target, targetAt, writeBytes, writeTogether } from "../files.ts";
import { type Folded, foldedInto, foldModel } from "../fold.ts";
import { checkFinite, checkScaling, type ParsedCheckpoint } from "../model.ts";
import { formatOnnx } from "../onnx.ts";
import { formatSafetensors } from "../safetensors.ts";
import { countElements } from "../stored_tensor.ts";
import { formatTorchFile } from "../torch_file.ts";
import { searchNegativeCodes } from "./negative_codes.ts";
import { REMEDIES } from "./remedies.ts";
import { DICTIONARY_LEARNING_CONFIG, DICTIONARY_LEARNING_WEIGHTS } from "./dictionary_learning.ts";
import { onnxGraph } from "./onnx.ts";
import { SAELENS_CONFIG, SAELENS_WEIGHTS } from "./saelens.ts";
import { formatCheckpointPieces, planCheckpoint, VERSION } from "./saev.ts";

/** The formats that can be written. */
export const TARGET_FORMATS = [
  "saev",
  "saev_nn",
  "saelens",
  "dictionary_learning",
  "onnx",
  "onnx_encoder",
] as const;

/** A format that can be written. */
export type TargetFormat = (typeof TARGET_FORMATS)[number];

/** How to write a model in another's format. */
export interface WriteOptions {
  /** Whose format. */
  readonly format: TargetFormat;
  /** Of `saev`'s formats which one: 5 if left out; 1 is for Python's versions from before August 2025. */
  readonly schema?: 5 | 1;
  /** Writes also what the format computes differently; what that is the result says. */
  readonly lossy?: boolean;
  /** Whether files that stand there are replaced; `true` if left out. */
  readonly overwrite?: boolean;
}

/** A model as files. */
export interface FormattedModel {
  /** The files' contents in pieces, by name; of a format of one file under the name `""`. */
  readonly files: ReadonlyMap<string, readonly Uint8Array[]>;
  /** What of the model went into the parameters, because the format has no place for it. */
  readonly folded: readonly Folded[];
  /** What the files compute differently, in sentences; nothing unless it was allowed. */
  readonly lost: readonly string[];
  /** What they would compute differently on inputs of which none was found; nothing unless it was allowed. */
  readonly perhapsLost: readonly string[];
}

/** What {@link writeCheckpoint} wrote. */
export interface WrittenModel {
  /** Where the files are. */
  readonly paths: readonly string[];
  /** What of the model went into the parameters, because the format has no place for it. */
  readonly folded: readonly Folded[];
  /** What they compute differently, in sentences. */
  readonly lost: readonly string[];
  /** What they would compute differently on inputs of which none was found. */
  readonly perhapsLost: readonly string[];
}

/** Somewhere that {@link writeCheckpoint} writes. */
export interface WriteTarget {
  /** Where it is. */
  readonly path: string | URL;
  /** What stands there. */
  readonly target: Target;
}

/** The files of each format, in the order in which they are written; one without a name is `to` itself. */
const FILES: Readonly<Record<TargetFormat, readonly string[]>> = {
  saev: [""],
  saev_nn: [""],
  saelens: [SAELENS_CONFIG, SAELENS_WEIGHTS],
  dictionary_learning: [DICTIONARY_LEARNING_CONFIG, DICTIONARY_LEARNING_WEIGHTS],
  onnx: [""],
  onnx_encoder: [""],
};

/**
 * Where {@link writeCheckpoint} would write, and what stands there.
 *
 * @throws {RangeError} where it would refuse to.
 */
export async function findTargets(
  to: string | URL,
  { format, overwrite = true }: Pick<WriteOptions, "format" | "overwrite">,
): Promise<readonly WriteTarget[]> {
  const targets: WriteTarget[] = [];
  for (const name of FILES[format]) {
    const path = placeOf(to, name);
    const target = await targetAt(path);
    if (target === "file" && !overwrite) {
      throw new RangeError(
        `writing ${path}: found a file there; choose another path, or replace it with ${REMEDIES.overwrite}`,
      );
    }
    targets.push({ path, target });
  }
  return targets;
}

/**
 * Writes a model in another's format. `to` is a file's path or URL, or a folder's, for formats of several files; folders
 * are made, and the files are replaced together or not at all. Links are followed; a device or a pipe can take a format of
 * one file.
 *
 * @throws {CheckpointError} where the format cannot compute what the model does. Nothing is written then.
 * @throws {RangeError} where a folder stands in the place of a file, or a file where `overwrite` is `false`.
 */
export async function writeCheckpoint(
  to: string | URL,
  model: ParsedCheckpoint,
  options: WriteOptions,
): Promise<WrittenModel> {
  const { files, folded, lost, perhapsLost } = formatModel(model, options);
  const targets = await findTargets(to, options);
  const placed = [...files.values()].map((pieces, i) => [targets[i]!.path, pieces] as const);
  const [first] = placed;
  if (placed.length === 1) await writeBytes(...first!);
  else await writeTogether(placed);
  return { paths: targets.map(({ path }) => String(path)), folded, lost, perhapsLost };
}

/** Where a file goes: into the folder that was named, or, where it is the only one, there. */
function placeOf(to: string | URL, name: string): string | URL {
  if (name === "") return to;
  if (to instanceof URL) return new URL(name, `${to.href.replace(/\/?$/, "/")}`);
  return to.endsWith("/") ? to + name : `${to}/${name}`;
}

/**
 * The files that {@link writeCheckpoint} writes. Equal models give equal bytes.
 *
 * @throws {CheckpointError} as {@link writeCheckpoint}.
 */
export function formatModel(
  given: ParsedCheckpoint,
  { format, lossy = false, schema }: WriteOptions,
): FormattedModel {
  if (schema !== undefined && format !== "saev") {
    throw new RangeError(`writing ${format}: found the schema ${schema}, which is for saev alone`);
  }
  const model = checkedModel(given);
  const [lost, perhapsLost]: [string[], string[]] = [[], []];
  const loseNegatives = (top_k: number, what: string): void => {
    const k = Math.min(top_k, model.cfg.d_sae);
    if (!lossy) throw new CheckpointError(`writing ${format}: ${what}. Write it nevertheless with ${REMEDIES.lossy}`);
    const { n_active, n_tried } = searchNegativeCodes(model, k);
    if (n_active < k) lost.push(`${what}; there is an input with ${n_active} that are not negative, and k is ${k}`);
    else perhapsLost.push(`${what}; each of ${n_tried} inputs that were tried has k = ${k} that are not negative`);
  };
  return { ...FORMATTERS[format](model, loseNegatives, schema), lost, perhapsLost };
}

/** Says what becomes of negative ones among the k largest pre-activations; throws unless that is allowed. */
type LoseNegatives = (top_k: number, what: string) => void;

type Formatted = Pick<FormattedModel, "files" | "folded">;

type Formatter = (model: ParsedCheckpoint, lose: LoseNegatives, schema: 5 | 1 | undefined) => Formatted;

const FORMATTERS: Readonly<Record<TargetFormat, Formatter>> = {
  saev: formatForPython,
  saev_nn: ({ cfg, parameters, input }) =>
    oneFile(formatCheckpointPieces(cfg, parameters, input, { schema: "saev_nn" })),
  saelens: formatSaelens,
  dictionary_learning: formatDictionaryLearning,
  onnx: (model) => oneFile(formatOnnx(onnxGraph(model, "forward"), PRODUCER)),
  onnx_encoder: (model) => oneFile(formatOnnx(onnxGraph(model, "encoder"), PRODUCER)),
};

const PRODUCER = { name: "@saev/nn", version: VERSION };

function oneFile(pieces: readonly Uint8Array[], folded: readonly Folded[] = []): Formatted {
  return { files: new Map([["", pieces]]), folded };
}

/** With its thresholds, which may be left out before training; every size and number checked. */
function checkedModel({ cfg: options, parameters: given, input }: ParsedCheckpoint): ParsedCheckpoint {
  const doing = "writing a checkpoint";
  const cfg = completeConfig(options);
  const shapes = parameterShapes(cfg);
  const parameters = { ...given, ...ownValues(cfg, given, input.pre_act_scale ?? 1) };
  for (const [name, shape] of shapes) {
    const data = parameters[name]!;
    if (data.length !== countElements(shape)) {
      throw new CheckpointError(`${doing}: ${name} has ${data.length} elements; expected [${shape}]`);
    }
    checkFinite(doing, name, data);
  }
  checkScaling(doing, cfg, input);
  return { cfg, parameters, input };
}

/** A file that Python reads as the same function. */
function formatForPython(model: ParsedCheckpoint, lose: LoseNegatives, schema: 5 | 1 = 5): Formatted {
  const { cfg, parameters, input } = model;
  const { activation } = cfg;
  if (activation.key === "jump-relu" || activation.key === "gated") {
    throw new CheckpointError(
      `writing saev: the activation is ${activation.key}, which Python lacks; saev_nn keeps it`,
    );
  }
  if (activation.key === "top-k" && activation.relu) {
    lose(
      activation.top_k,
      "Python keeps the negative ones among a row's largest pre-activations, which become 0 in this model",
    );
    return formatForPython({ ...model, cfg: { ...cfg, activation: { ...activation, relu: false } } }, lose, schema);
  }
  return oneFile(
    formatCheckpointPieces(cfg, parameters, input, { schema }),
    planCheckpoint(model, { schema }).folded,
  );
}

/** What both libraries do to a TopK's codes. */
function loseNegatives(activation: Activation, library: string, lose: LoseNegatives): void {
  if (activation.key !== "top-k" || activation.relu) return;
  lose(
    activation.top_k,
    `the negative ones among a row's largest pre-activations, which this model keeps, become 0 in ${library}; ` +
      `a model that is trained with ${REMEDIES.noNegativeCodes} has none`,
  );
}

// --------------------------------------------------------------------------------------------------------- SAELens

/** The version whose form of the configuration this is. */
const SAELENS_VERSION = "6.0.0";

const ARCHITECTURES = {
  "relu": "standard",
  "top-k": "topk",
  // As SAELens itself saves a BatchTopK: a threshold for each latent.
  "batch-top-k": "jumprelu",
  "jump-relu": "jumprelu",
  "gated": "gated",
} as const;

function formatSaelens(given: ParsedCheckpoint, lose: LoseNegatives): Formatted {
  const folded = foldedInto(given, given.cfg.subtract_b_dec);
  const { cfg, parameters } = foldModel(given, given.cfg.subtract_b_dec);
  const { d_model, d_sae, activation, subtract_b_dec } = cfg;
  loseNegatives(activation, "SAELens", lose);
  const config = {
    d_in: d_model,
    d_sae,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: subtract_b_dec,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: { sae_lens_version: SAELENS_VERSION },
    ...activation.key === "top-k" && { k: Math.min(activation.top_k, d_sae), rescale_acts_by_decoder_norm: false },
    architecture: ARCHITECTURES[activation.key],
  };
  const { W_enc, b_enc, W_dec, b_dec, threshold, r_mag, b_mag } = parameters;
  const tensors = [
    { name: "W_enc", shape: [d_model, d_sae], data: W_enc },
    { name: activation.key === "gated" ? "b_gate" : "b_enc", shape: [d_sae], data: b_enc },
    { name: "W_dec", shape: [d_sae, d_model], data: W_dec },
    { name: "b_dec", shape: [d_model], data: b_dec },
  ];
  if (threshold !== undefined) {
    const data = threshold.length === d_sae ? threshold : new Float32Array(d_sae).fill(threshold[0]!);
    tensors.push({ name: "threshold", shape: [d_sae], data });
  }
  for (const [name, data] of Object.entries({ r_mag, b_mag })) if (data) tensors.push({ name, shape: [d_sae], data });
  return {
    files: new Map([[SAELENS_CONFIG, json(config)], [SAELENS_WEIGHTS, formatSafetensors(tensors)]]),
    folded,
  };
}

// ----------------------------------------------------------------------------------------------- dictionary_learning

function formatDictionaryLearning(given: ParsedCheckpoint, lose: LoseNegatives): Formatted {
  const { activation } = given.cfg;
  loseNegatives(activation, "dictionary_learning", lose);
  // An AutoEncoderNew does not subtract b_dec, a JumpReLU neither; the others always do.
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
        // What the library has before training estimates it. Its TopK computes with k alone.
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
      [DICTIONARY_LEARNING_CONFIG, json(config)],
      [DICTIONARY_LEARNING_WEIGHTS, formatTorchFile(tensors, modules)],
    ]),
    folded: foldedInto(given, subtracts),
  };
}

function json(value: unknown): Uint8Array[] {
  return [new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)];
}
