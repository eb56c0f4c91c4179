/**
 * What the readers of other libraries' files share: weights with a configuration beside them, strict reading of both,
 * and the resulting model.
 *
 * Each reader maps a file to the function that its library computes from it, or refuses it and names the field that
 * this library does not support. Nothing is approximated. Numbers are read as float32; wider ones are rounded. Training
 * settings that a file does not give are off: no penalty, no auxiliary loss, no unit rows.
 *
 * @module
 */

import type { OwnParameterName } from "../../nn/parameters.ts";
import type { Activation, ActivationOptions } from "../../nn/activations/mod.ts";
import { type InputScaling, NO_SCALING, type ParameterArrays } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../../nn/config.ts";
import { CheckpointError, quote } from "../errors.ts";
import type { JsonObject } from "../json.ts";
import { HeaderFields } from "../json_header.ts";
import { countElements, floatsTensor } from "../stored_tensor.ts";
import { checkFinite, checkScaling, type StoredParameter, type StoredParameters, tensorParameter } from "../model.ts";
import type {
  CheckpointFormat,
  Concession,
  ForeignOptions,
  FormatFiles,
  LoseNegatives,
  OpenedModel,
  Weights,
} from "./format.ts";
import { REMEDIES } from "./remedies.ts";

/** A library's format without `saev`'s header. */
interface ForeignFormat<Name extends string> {
  /** Its name. */
  readonly name: Name;
  /** Names and classes that its files may contain. */
  readonly files?: FormatFiles;
  /** Whether a file with such tensors has this format. */
  readonly recognise: (weights: Weights) => boolean | Promise<boolean>;
  /** @throws {CheckpointError} for any file that is not exactly of this format. */
  readonly read: (weights: Weights, options: ForeignOptions) => Promise<OpenedModel>;
}

/** A library's format, which refuses an option about `saev`'s encoder formulas. */
export function foreignFormat<Name extends string>(
  { name, files, recognise, read }: ForeignFormat<Name>,
): CheckpointFormat<Name> {
  return {
    name,
    ...files && { files },
    recognise: async ({ weights }) => weights !== null && await recognise(weights),
    read: async ({ source, weights }, { subtract_b_dec, ...options }) => {
      // A recognised file has weights.
      if (subtract_b_dec === undefined) return await read(weights!, options);
      throw new CheckpointError(
        `reading ${source.name}: ${
          subtract_b_dec ? REMEDIES.subtracts : REMEDIES.doesNotSubtract
        } is for files of saev; this one is ${name}'s`,
      );
    },
  };
}

/** Training settings, which no other library's file gives. */
const NOT_TRAINED = { sparsity: { key: "no-sparsity" }, aux: { key: "no-aux" } } as const;

/** Activations by key, without penalty and auxiliary loss. */
export const RELU: ActivationOptions = { key: "relu", ...NOT_TRAINED };

/** `f = h · 1[h > max(θ_s, 0)]` */
export const JUMP_RELU: ActivationOptions = { key: "jump-relu", ...NOT_TRAINED };

/** `f = 1[h > 0] · max(exp(r_mag) (h − b_enc) + b_mag, 0)` */
export const GATED: ActivationOptions = { key: "gated", ...NOT_TRAINED };

/** The k largest of each row; by default negative ones among them become 0. */
export function topKActivation(top_k: number, relu = true): ActivationOptions {
  return { key: "top-k", top_k, relu, ...NOT_TRAINED };
}

/** `f = h · 1[h > max(θ, 0)]`, as a BatchTopK computes outside training. */
export function batchTopKActivation(top_k: number): ActivationOptions {
  return { key: "batch-top-k", top_k, relu: true, ...NOT_TRAINED };
}

/** Throws a {@link CheckpointError} about a file. */
export function fail(name: string, what: string): never {
  throw new CheckpointError(`reading ${name}: ${what}`);
}

/** Whether the weights have all of these tensors. */
export function hasTensors({ tensors }: Weights, ...names: readonly string[]): boolean {
  return names.every((name) => tensors.has(name));
}

/** The configuration beside the weights, which must exist. */
export async function requireJson({ name, findJson }: Weights, file: string): Promise<JsonObject> {
  return await findJson(file) ??
    fail(name, `found no ${file} beside it; that file says what the model computes. Give the folder that holds both`);
}

/**
 * The relevant fields of a configuration: without those that are known to change nothing. Unknown fields are found by
 * {@link HeaderFields.done}.
 */
export function relevantFields(what: string, object: JsonObject, harmless: ReadonlySet<string>): HeaderFields {
  return new HeaderFields(what, new Map([...object].filter(([name]) => !harmless.has(name))));
}

/** Name and shape of a tensor. */
export interface OwnTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** How a file names and stores the parameters. */
export interface Layout {
  /** Their names in the file. */
  readonly names: Readonly<Record<"W_enc" | "b_enc" | "W_dec" | "b_dec", string>>;
  /** Which matrices the file stores transposed. */
  readonly transposed?: readonly ("W_enc" | "W_dec")[];
  /** Names and shapes of the activation's own parameters. */
  readonly own?: { readonly [Name in OwnParameterName]?: OwnTensor };
  /** Tensors that have no effect or were read already. */
  readonly ignored?: readonly string[];
}

/** The sizes of a matrix, for files that give them nowhere else. */
export function matrixShape({ name, tensors }: Weights, key: string): readonly [number, number] {
  const shape = tensors.get(key)?.shape ?? fail(name, `found no tensor ${quote(key)}`);
  const [rows, columns] = shape;
  if (shape.length !== 2 || !(rows! > 0 && columns! > 0)) {
    fail(name, `${quote(key)} has the shape [${shape}]; expected a matrix`);
  }
  return [rows!, columns!];
}

/** Opens the parameters without reading them. Any unexpected tensor is refused. */
export function openParameters(
  weights: Weights,
  { d_model, d_sae }: Pick<SparseAutoencoderConfig, "d_model" | "d_sae">,
  { names, transposed: flipped = [], own = {}, ignored = [] }: Layout,
): StoredParameters {
  const { name: file, tensors } = weights;
  const shapeOf = (matrix: "W_enc" | "W_dec"): readonly number[] =>
    (matrix === "W_enc") === flipped.includes(matrix) ? [d_sae, d_model] : [d_model, d_sae];
  const expected = new Map<string, readonly number[]>([
    [names.W_enc, shapeOf("W_enc")],
    [names.b_enc, [d_sae]],
    [names.W_dec, shapeOf("W_dec")],
    [names.b_dec, [d_model]],
  ]);
  for (const { name, shape } of Object.values(own)) expected.set(name, shape);
  const missing = [...expected.keys()].filter((name) => !tensors.has(name));
  const unexpected = [...tensors.keys()].filter((name) => !expected.has(name) && !ignored.includes(name));
  if (missing.length + unexpected.length > 0) {
    const complaints = [
      missing.length > 0 ? `missing tensors: ${missing.join(", ")}` : "",
      unexpected.length > 0 ? `unexpected tensors: ${unexpected.slice(0, 8).map(quote).join(", ")}` : "",
    ];
    fail(file, complaints.filter(Boolean).join("; "));
  }
  for (const [name, shape] of expected) checkShape(weights, name, shape);
  const open = (name: string, isTransposed = false): StoredParameter =>
    tensorParameter(`reading ${file}`, name, tensors.get(name)!, isTransposed);
  return {
    W_enc: open(names.W_enc, flipped.includes("W_enc")),
    b_enc: open(names.b_enc),
    W_dec: open(names.W_dec, flipped.includes("W_dec")),
    b_dec: open(names.b_dec),
    ...Object.fromEntries(Object.entries(own).map(([name, tensor]) => [name, open(tensor.name)])),
  };
}

/** The same weights plus a tensor of zeros, which the file leaves out, one for each column or row of a matrix. */
export function withZeros(weights: Weights, name: string, matrix: string, axis: 0 | 1): Weights {
  const length = matrixShape(weights, matrix)[axis];
  if (weights.tensors.has(name)) {
    fail(weights.name, `found the tensor ${quote(name)}; the configuration says that there is none`);
  }
  const zeros = floatsTensor(quote(name), new Float32Array(length), [length]);
  return { ...weights, tensors: new Map([...weights.tensors, [name, zeros]]) };
}

/** @throws {CheckpointError} if the tensor is missing or has another shape. */
export function checkShape({ name: file, tensors }: Weights, name: string, shape: readonly number[]): void {
  const found = tensors.get(name)?.shape ?? fail(file, `missing tensors: ${name}`);
  if (found.length !== shape.length || found.some((size, axis) => size !== shape[axis])) {
    fail(file, `${quote(name)} has the shape [${found}]; expected [${shape}]`);
  }
}

/** The numbers of a tensor, all finite. */
export async function readFinite({ name: file, tensors }: Weights, name: string): Promise<Float32Array> {
  const data = await tensors.get(name)!.read();
  checkFinite(`reading ${file}`, name, data);
  return data;
}

/** An integer from a tensor without dimensions. */
export async function readInteger({ name, tensors }: Weights, key: string): Promise<number> {
  const tensor = tensors.get(key) ?? fail(name, `missing tensors: ${key}`);
  if (countElements(tensor.shape) !== 1) {
    fail(name, `${quote(key)} has the shape [${tensor.shape}]; expected one number`);
  }
  const [value] = await tensor.readIntegers();
  return value!;
}

/** Makes a model, with the checks that all formats share. */
export function foreignModel(
  name: string,
  cfg: Pick<SparseAutoencoderConfig, "d_model" | "d_sae" | "subtract_b_dec"> & {
    readonly activation: ActivationOptions;
  },
  parameters: StoredParameters,
  { input = NO_SCALING, warnings = [], where = [] }: Partial<Omit<OpenedModel, "model">> & {
    readonly input?: InputScaling;
  } = {},
): OpenedModel {
  let complete: SparseAutoencoderConfig;
  try {
    complete = completeConfig({ ...cfg, normalize_w_dec: false, remove_parallel_grads: false });
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`reading ${name}: ${message}`, { cause });
  }
  checkScaling(`reading ${name}`, complete, input);
  return { model: Object.freeze({ cfg: complete, parameters: Object.freeze(parameters), input }), warnings, where };
}

/** A file that can be read only if the caller agrees to a difference. */
export class ConcessionError extends CheckpointError {
  /** What the caller can agree to. */
  readonly concession: Concession;

  /** A refusal that names the concession. */
  constructor(message: string, concession: Concession) {
    super(message);
    this.concession = concession;
  }
}

/** @throws {ConcessionError} that names the field, unless the caller agreed. */
export function requireConcession(
  name: string,
  { accept = [] }: ForeignOptions,
  concession: Concession,
  because: string,
): void {
  if (accept.includes(concession)) return;
  const CONSEQUENCES = {
    "normalised-rows":
      `this library's models do not. To normalise the rows yourself and undo it on reconstructions, use ${REMEDIES.normalisedRows}`,
    "rescaled-codes":
      `this library's models cannot. To load codes multiplied by that norm, with the same reconstructions, use ${REMEDIES.rescaledCodes}`,
  };
  throw new ConcessionError(`reading ${name}: ${because}; ${CONSEQUENCES[concession]}`, concession);
}

/** The norm of each row, in float64. */
export function rowNorms(matrix: Float32Array, columns: number): Float64Array {
  return Float64Array.from({ length: matrix.length / columns }, (_, row) => {
    let sum = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) sum += matrix[i]! ** 2;
    return Math.sqrt(sum);
  });
}

/**
 * Lines for {@link OpenedModel.where}: what {@link rescaleLatents} computes from tensors with these names; `n`
 * describes the factors.
 */
export function rescaledLines(
  { W_enc, b_enc, W_dec }: { readonly W_enc: string; readonly b_enc: string; readonly W_dec: string },
  n: string,
): string[] {
  return [
    `W_enc[:, s] = n[s] · ${W_enc}`,
    `b_enc[s] = n[s] · ${b_enc}`,
    `W_dec[s, :] = ${W_dec} / n[s]`,
    `n[s] = ${n}`,
  ];
}

/**
 * The same reconstructions with codes multiplied by `factor`: `h'_s = a_s h_s`, `W_dec'_s = W_dec_s / a_s`. Computed in
 * float64 and rounded once.
 *
 * @throws {CheckpointError} if a number becomes too large for float32.
 */
export function rescaleLatents(
  file: string,
  { W_enc, b_enc, W_dec, b_dec }: Omit<ParameterArrays, "threshold">,
  factor: Float64Array,
): Omit<ParameterArrays, "threshold"> {
  const d_sae = b_enc.length;
  const d_model = b_dec.length;
  const rescaled = {
    W_enc: W_enc.map((w, i) => w * factor[i % d_sae]!),
    b_enc: b_enc.map((b, s) => b * factor[s]!),
    W_dec: W_dec.map((w, i) => w / factor[Math.floor(i / d_model)]!),
  };
  for (const [name, data] of Object.entries(rescaled)) checkFinite(`reading ${file}`, `${name}, rescaled,`, data);
  return { ...rescaled, b_dec };
}

/**
 * Handles the negative codes of a TopK, which several libraries set to 0.
 *
 * @throws {CheckpointError} unless the caller allows it.
 */
export function loseNegatives(activation: Activation, library: string, lose: LoseNegatives): void {
  if (activation.key !== "top-k" || activation.relu) return;
  lose(
    activation.top_k,
    `this model keeps negative pre-activations that are among a row's largest; ${library} sets them to 0; ` +
      `a model trained with ${REMEDIES.noNegativeCodes} has none`,
  );
}

/** A JSON file, in pieces. */
export function jsonFile(value: unknown): Uint8Array[] {
  return [new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)];
}
