/**
 * What a checkpoint format is: a name, how its files are recognised and read, and how they are written, if they are.
 * Each format is one file beside this one, `saev` among them, and one line in `formats.ts`.
 *
 * @module
 */

import type { InputScaling } from "../../nn/arrays.ts";
import type { Folded } from "../fold.ts";
import type { JsonObject } from "../json.ts";
import type { ParsedCheckpoint, StoredModel } from "../model.ts";
import type { PickledValue } from "../pickle.ts";
import type { Source } from "../source.ts";
import type { StoredTensor } from "../stored_tensor.ts";

/** Options for reading files of `saev`. */
export interface ParseOptions {
  /**
   * Which encoder formula the weights were trained with, if you know better than the file's schema: `true` is `h = (x −
   * b_dec) W_enc + b_enc`, `false` is `h = x W_enc + b_enc`. If left out, the schema decides.
   */
  readonly subtract_b_dec?: boolean;
}

/**
 * What a caller can agree to if a file does something that this library's models do not.
 *
 * - `"normalised-rows"`: the library normalises each row before the encoder and undoes it after the decoder. The caller
 *   must do both; the model computes the part between.
 * - `"rescaled-codes"`: each code is the library's times the norm of its latent's decoder row. Reconstructions are the
 *   same.
 */
export type Concession = "normalised-rows" | "rescaled-codes";

/** Options for reading other libraries' files. */
export interface ForeignOptions {
  /** Mean and scale of the inputs, if the model was trained with some that the file does not hold. */
  readonly input?: InputScaling;
  /** Differences that the caller agrees to; none if left out. */
  readonly accept?: readonly Concession[];
}

/** Options for reading a file of any format. */
export interface ReadOptions extends ParseOptions, ForeignOptions {}

/** The names of {@link ReadOptions}. */
export const READ_OPTIONS = {
  subtract_b_dec: true,
  input: true,
  accept: true,
} as const satisfies Record<keyof ReadOptions, true>;

/** A file of tensors, and the JSON files beside it. */
export interface Weights {
  /** The file's name in messages. */
  readonly name: string;
  /** The container format. */
  readonly container: "safetensors" | "torch" | "npz";
  /** Whether the tensors are in a dict inside the file's dict. */
  readonly isNested: boolean;
  /** The tensors by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Other entries of a PyTorch file, by name. */
  readonly extras: ReadonlyMap<string, PickledValue>;
  /** Reads a JSON file in the same folder; `null` if there is none. */
  readonly findJson: (name: string) => Promise<JsonObject | null>;
  /** Reads a JSON file in the folder above; `null` if there is none. */
  readonly findJsonAbove: (name: string) => Promise<JsonObject | null>;
}

/** What a format is recognised by and read from. */
export interface CheckpointContents {
  /** The file with the tensors. */
  readonly source: Source;
  /** Its tensors; `null` for a file of `saev`, which begins with a header. */
  readonly weights: Weights | null;
}

/** A model, with warnings about its file. */
export interface OpenedModel {
  /** The model; its parameters are not read yet. */
  readonly model: StoredModel;
  /** Warnings about the file, one sentence each; usually none. */
  readonly warnings: readonly string[];
  /** How parameters are computed from the file's tensors, one line each; empty if they are the tensors themselves. */
  readonly where: readonly string[];
}

/** A JSON file. */
export interface FoundConfig {
  /** Its path relative to the folder of the weights. */
  readonly file: string;
  /** Its content. */
  readonly object: JsonObject;
}

/** What files may contain before their format is known. */
export interface FormatFiles {
  /** Names of the file with the tensors in a folder; several formats may share a name. */
  readonly weights?: readonly string[];
  /** Entries of a PyTorch file, one of which may be the dict with the tensors. */
  readonly dicts?: readonly string[];
  /** Classes, as `module.name`, whose objects a PyTorch file may contain. Nothing of them is executed. */
  readonly classes?: RegExp;
  /** Largest number of arrays in an archive. */
  readonly maxArrays?: number;
}

/** A format that can be read. */
export interface CheckpointFormat<Name extends string = string> {
  /** Its name. */
  readonly name: Name;
  /** Names and classes that its files may contain; nothing special if left out. */
  readonly files?: FormatFiles;
  /** Whether files with such contents have this format. */
  readonly recognise: (contents: CheckpointContents) => boolean | Promise<boolean>;
  /**
   * The model in recognised files; its parameters are not read yet.
   *
   * @throws {CheckpointError} for any file that is not exactly of this format.
   */
  readonly read: (contents: CheckpointContents, options: ReadOptions) => Promise<OpenedModel>;
  /** How it is written; left out if it is only read. */
  readonly write?: FormatWriter;
  /** Finds the configuration; left out if it is always beside the weights. */
  readonly findConfig?: (weights: Weights) => Promise<FoundConfig | null>;
  /** How the library's own loader changes a model from such a file, one sentence each; left out if it does not. */
  readonly loaderChanges?: (model: ParsedCheckpoint) => readonly string[];
}

/** A format that can be read and written. */
export interface WritableFormat<Name extends string = string> extends CheckpointFormat<Name> {
  /** How it is written. */
  readonly write: FormatWriter;
}

/** How a model becomes files. */
export interface FormatWriter {
  /** Names of the files in writing order; `""` for a single file, which goes to the caller's path. */
  readonly files: readonly string[];
  /**
   * Their contents. Only `saev` takes a `schema`.
   *
   * @throws {CheckpointError} if the format cannot express the model.
   */
  readonly format: (model: ParsedCheckpoint, lose: LoseNegatives, schema?: 5 | 1) => Formatted;
}

/** Handles negative values among the k largest pre-activations; throws unless that is allowed. */
export type LoseNegatives = (top_k: number, what: string) => void;

/** The files of a model. */
export interface Formatted {
  /** The files' contents in pieces, by name; a single file has the name `""`. */
  readonly files: ReadonlyMap<string, readonly Uint8Array[]>;
  /** What was folded into the parameters because the format has no field for it. */
  readonly folded: readonly Folded[];
}

/** The files of a format with one file. */
export function oneFile(pieces: readonly Uint8Array[], folded: readonly Folded[] = []): Formatted {
  return { files: new Map([["", pieces]]), folded };
}
