/**
 * From files to their format, by content and never by name, and then to the model.
 *
 * @module
 */

import { CheckpointError, quote } from "../errors.ts";
import type { FileSet } from "../file_set.ts";
import { type JsonObject, readJsonObject } from "../json.ts";
import { openNpz } from "../npz.ts";
import { PickledDict, type PickledValue } from "../pickle.ts";
import { type FileKind, recognise } from "../file_kind.ts";
import { readSafetensors } from "../safetensors.ts";
import type { Source } from "../source.ts";
import type { StoredTensor } from "../stored_tensor.ts";
import { PickledTensor, readTorchObject } from "../torch_file.ts";
import type { CheckpointContents, CheckpointFormat, OpenedModel, ReadOptions, Weights } from "./format.ts";
import { type FormatName, FORMATS } from "./formats.ts";
import { type ParsedCheckpoint, readParameters } from "../model.ts";

/** What files may contain while their format is unknown: what any format allows. */
const FILES = FORMATS.flatMap(({ files }) => files ?? []);
const USUAL_NAMES = [...new Set(FILES.flatMap(({ weights = [] }) => weights))];
const DICTS = [...new Set(FILES.flatMap(({ dicts = [] }) => dicts))];
const CLASSES = new RegExp(FILES.flatMap(({ classes }) => classes?.source ?? []).join("|"));
const MAX_ARRAYS = Math.max(...FILES.map(({ maxArrays = 0 }) => maxArrays));

/** Files of a known format, before they are read as a model. */
export interface RecognisedFiles extends CheckpointContents {
  /** Its format. */
  readonly format: CheckpointFormat<FormatName>;
  /**
   * The model; its parameters are not read yet.
   *
   * @throws {CheckpointError} for any file that is not exactly of its format.
   */
  open(options?: ReadOptions): Promise<OpenedModel>;
}

/** A model, with warnings about its file. */
export interface ReadModel extends Omit<OpenedModel, "model"> {
  /** The model. */
  readonly model: ParsedCheckpoint;
}

/**
 * The model in the files, with its parameters as arrays.
 *
 * @throws {CheckpointError} as {@link RecognisedFiles.open}.
 */
export async function readModel(files: RecognisedFiles, options: ReadOptions = {}): Promise<ReadModel> {
  const { model: { cfg, parameters, input }, ...more } = await files.open(options);
  return { model: Object.freeze({ cfg, parameters: await readParameters(parameters), input }), ...more };
}

/**
 * Finds the file with the tensors, and its format.
 *
 * @throws {CheckpointError} if there is no such file, or none of a known format.
 */
export async function recogniseFiles(files: FileSet): Promise<RecognisedFiles> {
  const source = await findWeights(files);
  const kind = await recognise(source);
  const weights = kind === "saev" ? null : await openWeights(files, source, kind);
  const contents = { source, weights };
  for (const format of FORMATS) {
    if (!await format.recognise(contents)) continue;
    return { format, ...contents, open: async (options = {}) => await format.read(contents, options) };
  }
  const entries = [...weights?.tensors.keys() ?? [], ...weights?.extras.keys() ?? []].slice(0, 8).map(quote);
  throw new CheckpointError(
    `reading ${source.name}: found a ${weights?.container ?? kind} file with the entries ${
      entries.join(", ") || "none"
    }; expected those of one of ${FORMATS.map(({ name }) => name).join(", ")}`,
  );
}

async function findWeights(files: FileSet): Promise<Source> {
  if (files.main !== null) {
    const source = await files.find(files.main);
    // A single file was requested; ignore files beside it.
    if (source === null) throw new CheckpointError(`reading ${files.name}: there is no file of that name`);
    return source;
  }
  const names = await files.list();
  const found: string[] = [];
  for (const name of USUAL_NAMES) {
    const folder = name.slice(0, name.indexOf("/") + 1);
    const isThere = folder === "" ? names.includes(name) : names.includes(folder) && await files.find(name) !== null;
    if (isThere) found.push(name);
  }
  if (found.length !== 1) {
    const what = found.length > 1 ? found.join(" and ") : names.slice(0, 20).map(quote).join(", ") || "nothing";
    throw new CheckpointError(
      `reading ${files.name}: found ${what}; expected one of ${USUAL_NAMES.join(", ")}, or the name of the file itself`,
    );
  }
  return (await files.find(found[0]!))!;
}

async function openWeights(files: FileSet, source: Source, kind: Exclude<FileKind, "saev">): Promise<Weights> {
  const { name } = source;
  const readJson = async (found: Source | null): Promise<JsonObject | null> => found && await readJsonObject(found);
  const findJson = async (file: string) => await readJson(await files.find(file));
  const findJsonAbove = async (file: string) => await readJson(await files.findAbove?.(file) ?? null);
  const common = { name, findJson, findJsonAbove, extras: new Map<string, PickledValue>(), isNested: false };
  switch (kind) {
    case "npz":
      return { ...common, container: "npz", tensors: await npzTensors(source) };
    case "safetensors":
      return { ...common, container: "safetensors", tensors: (await readSafetensors(source)).tensors };
    case "torch":
    case "pickle": {
      const root = await readTorchObject(source, { records: CLASSES });
      return { ...common, container: "torch", ...splitObject(name, root) };
    }
    case "npy":
    case "json": {
      const found = kind === "npy" ? "a single array" : "JSON without tensors after it";
      throw new CheckpointError(
        `reading ${name}: found ${found}; expected the file with all the tensors, or the folder that holds it`,
      );
    }
  }
}

/** Trained numbers shrink to half at best, and all of a model's are in memory together. */
const MAX_DEFLATED = 16;

async function npzTensors(source: Source): Promise<Map<string, StoredTensor>> {
  const npz = await openNpz(source, { mostDeflated: MAX_DEFLATED });
  if (npz.names.length > MAX_ARRAYS) {
    throw new CheckpointError(
      `reading ${source.name}: found ${npz.names.length} arrays; expected at most ${MAX_ARRAYS}`,
    );
  }
  const tensors = new Map<string, StoredTensor>();
  for (const name of npz.names) tensors.set(name, await npz.open(name));
  return tensors;
}

/** Separates the tensors of a dict, or of the state dict inside it, from the other entries. */
function splitObject(
  name: string,
  root: PickledValue,
): Pick<Weights, "tensors" | "extras" | "isNested"> {
  if (!(root instanceof PickledDict)) {
    throw new CheckpointError(`reading ${name}: the PyTorch file does not hold a dict`);
  }
  const inner = DICTS.map((key) => root.items.get(key)).filter((value) => value instanceof PickledDict);
  const tensors = new Map<string, StoredTensor>();
  const extras = new Map<string, PickledValue>();
  for (const { items } of [root, ...inner]) {
    for (const [key, value] of items) {
      if (tensors.has(key) || extras.has(key)) {
        throw new CheckpointError(`reading ${name}: the entry ${quote(key)} appears in two of its dicts`);
      }
      if (value instanceof PickledTensor) tensors.set(key, value.tensor);
      else if (!inner.includes(value as PickledDict)) extras.set(key, value);
    }
  }
  return { tensors, extras, isNested: inner.length > 0 };
}
