/**
 * Describes a checkpoint, whether or not it can be loaded as a model.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { activationKind } from "../../nn/activations/mod.ts";
import type { InputScaling } from "../../nn/arrays.ts";
import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import { CheckpointError, naming } from "../errors.ts";
import { type FilesSource, SOURCE_OPTIONS, type SourceOptions, withFiles } from "../files.ts";
import type { JsonObject, JsonValue } from "../json.ts";
import { parseHeader, splitHeader } from "../json_header.ts";
import { isFloatType, type NumberType } from "../numbers.ts";
import { pickledJson, PickledRecord } from "../pickle.ts";
import type { Source } from "../source.ts";
import { countElements, type StoredTensor } from "../stored_tensor.ts";
import { readTorchFile } from "../torch_file.ts";
import { ConcessionError } from "./foreign.ts";
import { type Concession, READ_OPTIONS, type ReadOptions } from "./format.ts";
import type { FormatName } from "./formats.ts";
import { type ReadModel, readModel, type RecognisedFiles, recogniseFiles } from "./recognised_files.ts";

/** Statistics of one tensor, over its finite elements. */
export interface TensorStatistics {
  /** The smallest. */
  readonly min: number;
  /** The largest. */
  readonly max: number;
  /** The mean. */
  readonly mean: number;
  /** The standard deviation. */
  readonly std: number;
  /** Number of elements that are 0. */
  readonly n_zero: number;
  /** Number of NaN or infinite elements, which the other statistics leave out. */
  readonly n_not_finite: number;
}

/** One tensor of a file. */
export interface TensorSummary {
  /** Its name in the file. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** The type of its numbers in the file. */
  readonly dtype: NumberType;
  /** `null` if it has no elements. */
  readonly statistics: TensorStatistics | null;
}

/** The result of {@link inspectCheckpoint}. */
export interface Inspection {
  /** Its format. */
  readonly format: FormatName;
  /** The variant of the format, if it has several; else `null`. */
  readonly schema: string | null;
  /** The raw configurations by file; the header of a `saev` file is under `header`. */
  readonly configs: Readonly<Record<string, unknown>>;
  /** The tensors, in file order. */
  readonly tensors: readonly TensorSummary[];
  /** The configuration in this library's form; `null` if the model cannot be read. */
  readonly cfg: SparseAutoencoderConfig | null;
  /** Mean and scale of the inputs; `null` if the model cannot be read. */
  readonly input: InputScaling | null;
  /** The formulas of pre-activations, codes and reconstruction, one line each; empty if the model cannot be read. */
  readonly formula: readonly string[];
  /**
   * How the parameters in the formulas are computed from the tensors, one line each; empty if they are the tensors
   * themselves.
   */
  readonly where: readonly string[];
  /** What must be accepted to read the model. */
  readonly accept: readonly Concession[];
  /** Why {@link load} refuses the file with the same options; `null` if it reads it. */
  readonly refused: string | null;
  /** Warnings, one sentence each, with what would settle the doubt. */
  readonly warnings: readonly string[];
}

/**
 * Tensors may share storage. Reading all of them may take at most this many times the file's bytes: a number takes 8 in
 * memory.
 */
const MAX_SHARED = 16;

/**
 * Describes a checkpoint of any readable format, and what is wrong with it, if anything. Needs no GPU.
 *
 * Concessions that the file needs are assumed for the description, even if `accept` lacks them; the reason is then in
 * `refused`.
 *
 * @throws {CheckpointError} for files of no known format, or too damaged to say what they hold.
 * @throws {TypeError} for an unknown option.
 */
export async function inspectCheckpoint(
  from: FilesSource,
  options: ReadOptions & SourceOptions = {},
): Promise<Inspection> {
  checkOptions("inspectCheckpoint", options, { ...READ_OPTIONS, ...SOURCE_OPTIONS });
  const { hub, signal, ...readOptions } = options;
  return await withFiles(
    from,
    { ...hub && { hub }, ...signal && { signal } },
    async (files, explain) => await describe(await recogniseFiles(files), readOptions, explain),
  );
}

async function describe(
  recognised: RecognisedFiles,
  readOptions: ReadOptions,
  explain: (problem: string) => Promise<string>,
): Promise<Inspection> {
  const { header, tensors, configs } = await openContents(recognised);
  checkSharing(recognised.source, tensors);
  const summaries: TensorSummary[] = [];
  for (const [name, tensor] of tensors) summaries.push(await summarise(name, tensor));
  const { found, accept, refused } = await tryReading(recognised, readOptions);
  return {
    format: recognised.format.name,
    schema: header === null ? null : header.has("schema") ? String(header.get("schema")) : "none",
    configs,
    tensors: summaries,
    cfg: found?.model.cfg ?? null,
    input: found?.model.input ?? null,
    formula: found === null ? [] : formulaOf(found),
    where: found?.where ?? [],
    accept,
    refused: found === null && refused !== null ? await explain(refused) : refused,
    warnings: [
      ...found?.warnings ?? [],
      ...warningsAbout(summaries, found),
      ...found !== null ? recognised.format.loaderChanges?.(found.model) ?? [] : [],
    ],
  };
}

/** @throws {CheckpointError} for a small file whose tensors would take far longer to read than its size suggests. */
function checkSharing({ name, size }: Source, tensors: ReadonlyMap<string, StoredTensor>): void {
  let bytes = 0;
  for (const { storedBytes, shape } of tensors.values()) bytes += Math.max(storedBytes, 8 * countElements(shape));
  if (bytes <= MAX_SHARED * size) return;
  throw new CheckpointError(
    `reading ${name}: its ${tensors.size} tensors share storage, so that reading them takes ${bytes} bytes from ` +
      `a file of ${size}; expected at most ${MAX_SHARED} times the file's size`,
  );
}

interface Contents {
  /** Only for files of `saev`. */
  readonly header: JsonObject | null;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly configs: Readonly<Record<string, unknown>>;
}

async function openContents({ source, weights, format }: RecognisedFiles): Promise<Contents> {
  if (weights === null) {
    const { header: text, body } = await splitHeader(source);
    const header = parseHeader(text);
    return { header, tensors: await readTorchFile(body), configs: { header: plain(header) } };
  }
  const configs: [string, JsonValue][] = [];
  for (const file of ["cfg.json", "config.json", "activation_scaler.json", "hyperparams.json"]) {
    const json = await weights.findJson(file);
    if (json !== null) configs.push([file, json]);
  }
  const config = await format.findConfig?.(weights) ?? null;
  if (config !== null && !configs.some(([file]) => file === config.file)) configs.push([config.file, config.object]);
  for (const [name, value] of weights.extras) {
    configs.push([name, pickledJson(value instanceof PickledRecord ? value.attributes : value)]);
  }
  return { header: null, tensors: weights.tensors, configs: plain(new Map(configs)) as Contents["configs"] };
}

/** A JSON value as plain JavaScript. */
function plain(value: JsonValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

async function tryReading(
  files: RecognisedFiles,
  options: ReadOptions,
): Promise<Pick<Inspection, "accept" | "refused"> & { readonly found: ReadModel | null }> {
  const { source: { name } } = files;
  const accept: Concession[] = [];
  const problems: string[] = [];
  while (true) {
    try {
      const found = await naming(name, () => readModel(files, { ...options, accept }));
      const isAccepted = accept.every((concession) => options.accept?.includes(concession));
      return { found, accept, refused: isAccepted ? null : problems[0]! };
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      problems.push(error.message);
      const cause = error instanceof ConcessionError ? error : error.cause;
      // The remaining error when everything is accepted.
      if (!(cause instanceof ConcessionError)) return { found: null, accept: [], refused: error.message };
      accept.push(cause.concession);
    }
  }
}

async function summarise(name: string, tensor: StoredTensor): Promise<TensorSummary> {
  const { shape, dtype } = tensor;
  const numbers = isFloatType(dtype) ? await tensor.read() : await tensor.readIntegers();
  return { name, shape, dtype, statistics: numbers.length === 0 ? null : statisticsOf(numbers) };
}

/** Two passes, because a mean that is large against the deviation would make a single pass inaccurate. */
function statisticsOf(numbers: Float32Array | Float64Array): TensorStatistics {
  let [min, max, sum, n_zero, n_not_finite] = [Infinity, -Infinity, 0, 0, 0];
  for (const value of numbers) {
    if (!Number.isFinite(value)) {
      n_not_finite++;
      continue;
    }
    if (value === 0) n_zero++;
    if (value < min) min = value;
    if (value > max) max = value;
    sum += value;
  }
  const n = numbers.length - n_not_finite;
  if (n === 0) return { min: NaN, max: NaN, mean: NaN, std: NaN, n_zero, n_not_finite };
  const mean = sum / n;
  let squares = 0;
  for (const value of numbers) if (Number.isFinite(value)) squares += (value - mean) ** 2;
  return { min, max, mean, std: Math.sqrt(squares / n), n_zero, n_not_finite };
}

function formulaOf({ model: { cfg, input, parameters } }: ReadModel): string[] {
  const { activation, subtract_b_dec } = cfg;
  const hasMean = input.mean?.some((mean) => mean !== 0) ?? false;
  const factor = input.scale === 1 ? "" : String(Number(input.scale.toPrecision(7)));
  const centred = hasMean ? "(x − mean)" : "x";
  const standardised = factor === "" ? centred : `${centred} / ${factor}`;
  const given = subtract_b_dec ? `(${standardised} − b_dec)` : /[ ]/.test(standardised) ? `(${standardised})` : "x";
  const decoded = factor === "" ? "f W_dec + b_dec" : `${factor} (f W_dec + b_dec)`;
  const codes = activationKind(activation).formula(activation, parameters);
  return [`h = ${given} W_enc + b_enc`, codes, `x̂ = ${decoded}${hasMean ? " + mean" : ""}`];
}

function warningsAbout(tensors: readonly TensorSummary[], found: ReadModel | null): string[] {
  const warnings = tensors.flatMap(({ name, statistics }) =>
    statistics !== null && statistics.n_not_finite > 0
      ? [`${name} has ${statistics.n_not_finite} NaN or infinite elements`]
      : []
  );
  const wide = tensors.filter(({ dtype }) => dtype === "float64").map(({ name }) => name);
  if (wide.length > 0) warnings.push(`float64 is rounded to float32: ${wide.join(", ")}`);
  if (found === null) return warnings;
  const { cfg: { d_sae, d_model, activation }, parameters: { W_enc, W_dec } } = found.model;
  const isDecoded = new Uint8Array(d_sae);
  W_dec.forEach((w, i) => isDecoded[Math.floor(i / d_model)]! |= Number(w !== 0));
  const n_undecoded = isDecoded.filter((flag) => flag === 0).length;
  if (n_undecoded > 0) warnings.push(`${n_undecoded} of ${d_sae} rows of W_dec are 0; these latents have no effect`);
  const isEncoded = new Uint8Array(d_sae);
  W_enc.forEach((w, i) => isEncoded[i % d_sae]! |= Number(w !== 0));
  const n_unencoded = isEncoded.filter((flag) => flag === 0).length;
  if (n_unencoded > 0) {
    warnings.push(`${n_unencoded} of ${d_sae} columns of W_enc are 0; these latents ignore the input`);
  }
  if ("top_k" in activation && activation.top_k > d_sae) {
    warnings.push(`top_k is ${activation.top_k}, but there are only ${d_sae} latents`);
  }
  return warnings;
}
