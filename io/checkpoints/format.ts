/**
 * What a checkpoint format is: a name, by what its files are recognised, how they are read, and how they are written where
 * they can be. Each is one file beside this one, `saev` among them, and one line in `formats.ts`.
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

/** How to read a file. */
export interface ParseOptions {
  /**
   * Which encoder formula the weights were trained with, where you know better than the file's schema does: `true` is
   * `h = (x − b_dec) W_enc + b_enc`, `false` `h = x W_enc + b_enc`. Left out, `cfg.subtract_b_dec` says what the schema
   * means.
   */
  readonly subtract_b_dec?: boolean;
}

/**
 * What a caller can agree to, where a file holds more than this library's models compute.
 *
 * - `"normalised-rows"`: the library normalises each row before the encoder and undoes it after the decoder. The caller
 *   does both; the model is what stands between.
 * - `"rescaled-codes"`: each code is the library's times the norm of its latent's decoder row. Reconstructions are the
 *   same.
 */
export type Concession = "normalised-rows" | "rescaled-codes";

/** How to read another library's file. */
export interface ForeignOptions {
  /** Mean and scale of the inputs, where the file was made with some that it does not hold. */
  readonly input?: InputScaling;
  /** What to read although it is not all that the library does; nothing if left out. */
  readonly accept?: readonly Concession[];
}

/** How to read a file of any format. */
export interface ReadOptions extends ParseOptions, ForeignOptions {}

/** The names of {@link ReadOptions}. */
export const READ_OPTIONS = {
  subtract_b_dec: true,
  input: true,
  accept: true,
} as const satisfies Record<keyof ReadOptions, true>;

/** A file of tensors and what lies beside it. */
export interface Weights {
  /** What messages call the file. */
  readonly name: string;
  /** How the tensors are packed. */
  readonly container: "safetensors" | "torch" | "npz";
  /** Whether the tensors lie in a dict inside the file's dict. */
  readonly isNested: boolean;
  /** The tensors by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** What else a PyTorch file holds, by name. */
  readonly extras: ReadonlyMap<string, PickledValue>;
  /** A file of JSON in the same folder; `null` where there is none. */
  readonly findJson: (name: string) => Promise<JsonObject | null>;
  /** The same in the folder above. */
  readonly findJsonAbove: (name: string) => Promise<JsonObject | null>;
}

/** What a format is recognised by, and read from. */
export interface CheckpointContents {
  /** The file with the tensors. */
  readonly source: Source;
  /** What it holds; `null` for one of `saev`, whose header comes first. */
  readonly weights: Weights | null;
}

/** A model, and what its file leaves open. */
export interface OpenedModel {
  /** The model, its parameters not read yet. */
  readonly model: StoredModel;
  /** What a user should know about the file, in sentences; mostly nothing. */
  readonly warnings: readonly string[];
  /** What parameters are that are computed from the file's tensors, a line each; none where they are those tensors. */
  readonly where: readonly string[];
}

/** A file of JSON. */
export interface FoundConfig {
  /** Its path from the weights' folder. */
  readonly file: string;
  /** What it holds. */
  readonly object: JsonObject;
}

/** What may be in files before it is known that they are of a format. */
export interface FormatFiles {
  /** What the file with the tensors is called in a folder; a name that several formats use stands with each. */
  readonly weights?: readonly string[];
  /** The entries of a PyTorch file of which one may be the dict with the tensors. */
  readonly dicts?: readonly string[];
  /** The classes, as `module.name`, whose objects a PyTorch file may hold. Nothing of them runs. */
  readonly classes?: RegExp;
  /** The most arrays of an archive of them. */
  readonly maxArrays?: number;
}

/** A format that is read. */
export interface CheckpointFormat<Name extends string = string> {
  /** Whose it is. */
  readonly name: Name;
  /** What its files may be called and hold; nothing of its own if left out. */
  readonly files?: FormatFiles;
  /** Whether files with such contents are of this format. */
  readonly recognise: (contents: CheckpointContents) => boolean | Promise<boolean>;
  /**
   * The model in files that were recognised, its parameters not read yet.
   *
   * @throws {CheckpointError} for whatever is not exactly such a file.
   */
  readonly read: (contents: CheckpointContents, options: ReadOptions) => Promise<OpenedModel>;
  /** How it is written; left out where it is only read. */
  readonly write?: FormatWriter;
  /** The configuration and its place; left out where it is always beside the weights. */
  readonly findConfig?: (weights: Weights) => Promise<FoundConfig | null>;
  /** What the library's own loader does to a model of such a file, in sentences; left out where it does nothing. */
  readonly loaderChanges?: (model: ParsedCheckpoint) => readonly string[];
}

/** A format that is read and written. */
export interface WritableFormat<Name extends string = string> extends CheckpointFormat<Name> {
  /** How it is written. */
  readonly write: FormatWriter;
}

/** How a model becomes files. */
export interface FormatWriter {
  /** The files' names in the order in which they are written; `""` for the only one, which goes where the caller says. */
  readonly files: readonly string[];
  /**
   * Their contents. `schema` is for `saev` alone.
   *
   * @throws {CheckpointError} where the format cannot compute what the model does.
   */
  readonly format: (model: ParsedCheckpoint, lose: LoseNegatives, schema?: 5 | 1) => Formatted;
}

/** Says what becomes of negative ones among the k largest pre-activations; throws unless that is allowed. */
export type LoseNegatives = (top_k: number, what: string) => void;

/** The files of a model. */
export interface Formatted {
  /** The files' contents in pieces, by name; of a format of one file under the name `""`. */
  readonly files: ReadonlyMap<string, readonly Uint8Array[]>;
  /** What of the model went into the parameters, because the format has no place for it. */
  readonly folded: readonly Folded[];
}

/** The files of a format of one. */
export function oneFile(pieces: readonly Uint8Array[], folded: readonly Folded[] = []): Formatted {
  return { files: new Map([["", pieces]]), folded };
}
