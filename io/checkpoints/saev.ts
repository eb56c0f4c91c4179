/**
 * Checkpoints of the Python package `saev`: a line of JSON, then a PyTorch file of the four parameters, and a BatchTopK's
 * threshold.
 *
 * Every schema is read, also those that Python itself no longer opens:
 *
 * | schema | written | encoder, unless told otherwise |
 * | --- | --- | --- |
 * | none | until April 2025 | `h = (x − b_dec) W_enc + b_enc` |
 * | 1, `cls` an activation | until July 2025 | the same |
 * | 1, `cls` the configuration; 2 | until October 2025 | `h = x W_enc + b_enc` |
 * | 3, 4, 5 | since | the same |
 *
 * The formula changed on 31 July 2025, and no file says on which side its weights were trained: those of that day, and
 * Matryoshka models until September, which went on to subtract b_dec in training alone, may need
 * {@link ParseOptions.subtract_b_dec}. A BatchTopK has a threshold since 16 November 2025. Before, its codes depended on
 * the batch, or, in all versions that wrote schema 3 and some that wrote its neighbours, it was a TopK of each row under
 * another name. Such files of schema 3 are read as that TopK, the others refused.
 *
 * Written are schema 5 and, when asked for by name, schema 1 with `cls: "Relu"` and the schema `"saev_nn"`, which holds
 * every model of this library exactly and which Python refuses. The subtraction of b_dec, and the mean and scale of the
 * inputs, have no place in schema 5 and are folded into the parameters. Schema 1 is exact for the two Python versions that
 * subtract b_dec; those of August and September 2025 leave the subtraction out when they read it, from any writer, and
 * later ones refuse it.
 *
 * What upstream's header has no place for stands in one more top-level key, `"saev_nn"`, which Python ignores: above all
 * the activation as this library spells it, with everything that only matters to training. Its last field is a CRC-32 of the header's text before it. Headers without the key (all of upstream's own) have no checksum, so
 * that a damaged digit in one, or the loss of a field that has a default, may go unnoticed; the parameters are always
 * under the archive's checksums.
 *
 * @module
 */

import {
  type Activation,
  activationKind,
  type ActivationOptions,
  ownValues,
  parameterShapes,
} from "../../nn/activations/mod.ts";
import type { InputScaling, ParameterArrays } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";
import type { Aux, AuxOptions, Sparsity } from "../../nn/loss_terms.ts";
import { crc32 } from "../crc32.ts";
import { CheckpointError, quote } from "../errors.ts";
import { type Folded, foldedInto, foldModel } from "../fold.ts";
import { describeValue } from "../json.ts";
import {
  formatHeader,
  HeaderFields,
  type HeaderStyle,
  type HeaderValue,
  parseHeader,
  PythonFloat,
  splitHeader,
} from "../json_header.ts";
import {
  checkFinite,
  checkScaling,
  isIdentity,
  NO_SCALING,
  type ParameterName,
  type ParsedCheckpoint,
  readParameters,
  type StoredParameter,
  type StoredParameters,
  tensorParameter,
} from "../model.ts";
import { type FilePart, joinBytes, type Source } from "../source.ts";
import type { MeasuredNumbers, StoredTensor } from "../stored_tensor.ts";
import { formatIdentifiedTorchFile, readSerializationId, readTorchFile } from "../torch_file.ts";
import {
  type Formatted,
  type FormatWriter,
  type LoseNegatives,
  oneFile,
  type OpenedModel,
  type ParseOptions,
  type WritableFormat,
} from "./format.ts";
import { REMEDIES } from "./remedies.ts";

/** The forms of a header that can be written. */
export type CheckpointSchema = 5 | 1 | "saev_nn";

/** How to write a file. */
export interface FormatOptions {
  /**
   * The form of the file; 5 if left out. 1 is for Python's versions from before August 2025, which subtract `b_dec`.
   * `"saev_nn"` keeps everything of any model; Python refuses to read it.
   */
  readonly schema?: CheckpointSchema;
  /**
   * Whether the parameters may be rewritten so that they compute the same function without what the schema has no place
   * for: the mean and scale of the inputs, and the other encoder formula. Sums are float64, rounded once. `true` if left
   * out; with `false` a model that needs it is an error.
   */
  readonly fold?: boolean;
}

/** How a model is going to be written. */
export interface CheckpointPlan {
  /** The form of the file. */
  readonly schema: CheckpointSchema;
  /** What goes into the parameters; nothing where they are written as they are. */
  readonly folded: readonly Folded[];
}

/** Version of this library, which the files it writes name. */
export const VERSION = "0.2.0";
/** Version of the Python package whose schemas 1 and 5 these are. */
const LIB = "0.1.0";

/** PyTorch lists the modules of upstream's model in the state dict's metadata. */
const MODULES = ["", "activation"];
const ORDER_OF_SCHEMA_1 = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;
const ORDER_OF_SCHEMA_5 = ["W_dec", "b_dec", "W_enc", "b_enc"] as const;
/** The threshold is a buffer of the activation's module. */
const THRESHOLD_KEY = "activation.threshold";

/** What upstream's configuration classes fill in where a header leaves a field out. */
const UPSTREAM = {
  reinit_blend: 0.8,
  reinit_enc_dec_tranpose: true,
  remove_parallel_grads: true,
  normalize_w_dec: true,
  n_reinit_samples: 524288,
  seed: 0,
  reluSparsity: { key: "l1-sparsity", coeff: 4e-4 },
  l1Coeff: 1e-4,
  momentum: 0.1,
  k_aux: 512,
  alpha: 1 / 32,
  dead_threshold_tokens: 10_000_000,
} as const;

/** The format. */
export const SAEV: WritableFormat<"saev"> = {
  name: "saev",
  recognise: ({ weights }) => weights === null,
  read: async ({ source }, { subtract_b_dec, input }) => {
    const opened = await openCheckpoint(source, subtract_b_dec === undefined ? {} : { subtract_b_dec });
    const { model } = opened;
    if (input === undefined) return opened;
    if (!isIdentity(model.input)) {
      throw new CheckpointError(
        `reading ${source.name}: it holds the scaling of its inputs, which ${REMEDIES.inputScale} contradicts`,
      );
    }
    checkScaling(`reading ${source.name}`, model.cfg, input);
    return { ...opened, model: { ...model, input } };
  },
  write: { files: [""], format: formatForPython },
};

/** Every model exactly, for this library alone; read as a schema of {@link SAEV}. */
export const SAEV_NN: FormatWriter = {
  files: [""],
  format: ({ cfg, parameters, input }) =>
    oneFile(formatCheckpointPieces(cfg, parameters, input, { schema: "saev_nn" })),
};

// ---------------------------------------------------------------------------------------------------------- reading

interface Header {
  readonly options: SparseAutoencoderOptions;
  readonly input: InputScaling;
  /** What a BatchTopK is where the file has no threshold for it; nothing is, if left out. */
  readonly withoutThreshold?: ActivationOptions;
  /** Why the encoder formula cannot be known, where it cannot. */
  readonly doubt?: string;
  /** That of the archive behind the header, in files of this library since version 0.2.0. */
  readonly serializationId?: string;
}

/** How each schema's header is read. `own` are the fields of the `"saev_nn"` key, where the header has it. */
const SCHEMAS: ReadonlyMap<unknown, (header: HeaderFields, own: HeaderFields | null) => Header> = new Map<
  unknown,
  (header: HeaderFields, own: HeaderFields | null) => Header
>([
  [undefined, readPreSchema],
  [1, readSchema1],
  [2, readSchemas2To4],
  [3, readSchema3],
  [4, readSchemas2To4],
  [5, readSchema5],
  ["saev_nn", readOwnSchema],
]);

/** A model out of a file, and what the file leaves open. */
export interface ReadCheckpoint extends ParsedCheckpoint {
  /** What a user should know about the file, in sentences; mostly nothing. */
  readonly warnings: readonly string[];
}

/**
 * The model that a file holds.
 *
 * @throws {CheckpointError} naming what was found, for an unknown schema, class or field, parameters that are missing,
 * unexpected, of other shapes or not finite, and for damaged or malicious bytes.
 */
export async function parseCheckpoint(source: Source, options: ParseOptions = {}): Promise<ReadCheckpoint> {
  const { model: { cfg, parameters, input }, warnings } = await openCheckpoint(source, options);
  return Object.freeze({ cfg, parameters: await readParameters(parameters), input, warnings });
}

/**
 * The same, its parameters not read yet.
 *
 * @throws {CheckpointError} as {@link parseCheckpoint}, as far as the header and the list of tensors say.
 */
async function openCheckpoint(source: Source, options: ParseOptions): Promise<OpenedModel> {
  const { header: text, body } = await splitHeader(source);
  const { options: read, input, withoutThreshold, doubt, serializationId } = readHeader(text);
  const tensors = await readTorchFile(body);
  if (serializationId !== undefined && await readSerializationId(body) !== serializationId) {
    throw new CheckpointError(
      "reading the header: it is that of another file; its serialization_id is not the archive's",
    );
  }
  const activation = tensors.has(THRESHOLD_KEY) ? undefined : withoutThreshold;
  const overridden = {
    ...read,
    ...activation && { activation },
    ...options.subtract_b_dec !== undefined && { subtract_b_dec: options.subtract_b_dec },
  };
  let cfg: SparseAutoencoderConfig;
  try {
    cfg = completeConfig(overridden);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`reading the header's cfg: ${message}`, { cause });
  }
  checkScaling("reading the header", cfg, input);
  const parameters = storedParameters(cfg, tensors);
  const isOpen = doubt !== undefined && options.subtract_b_dec === undefined;
  // Without a bias both formulas are the same.
  const matters = isOpen && (await tensors.get("b_dec")!.read()).some((b) => b !== 0);
  return { model: Object.freeze({ cfg, parameters, input }), warnings: matters ? [doubt] : [], where: [] };
}

function readHeader(text: string): Header {
  const object = parseHeader(text);
  const header = new HeaderFields("the header", object);
  const schema = header.value("schema");
  const read = SCHEMAS.get(schema);
  if (read === undefined) {
    const known = [...SCHEMAS.keys()].map((known) => known === undefined ? "none" : JSON.stringify(known)).join(", ");
    return header.fail(`the schema ${describeValue(schema)} is not supported; expected one of ${known}`);
  }
  const commit = header.string("commit", "");
  header.string("lib", "");
  const own = header.has("saev_nn") ? header.object("saev_nn") : null;
  if (own !== null) {
    verifyChecksum(text, own);
    own.string("version");
  }
  const serializationId = own?.has("serialization_id") ? own.string("serialization_id") : undefined;
  const result = { ...read(header, own), ...serializationId !== undefined && { serializationId } };
  own?.done();
  header.done();
  if ((schema !== 1 && schema !== 2) || own !== null) return result;
  return { ...result, doubt: formulaDoubt(schema, commit, result.options.subtract_b_dec ?? false) };
}

/** Upstream changed the formula on a day of these schemas, and not their numbers. */
function formulaDoubt(schema: 1 | 2, commit: string, subtracts: boolean): string {
  const writer = ["", "unknown"].includes(commit) ? "The version" : `The commit ${quote(commit)}`;
  return `schema ${schema} does not say whether b_dec is subtracted before the encoder; here it ${
    subtracts ? "is" : "is not"
  }. Upstream subtracted it until its commit e7ca004 of 31 July 2025, and ` +
    `in the training of Matryoshka models until September. ${writer} that wrote the file settles it, or the explained ` +
    `variance on rows of its training, which is higher with the right one of ${REMEDIES.subtracts} and ` +
    REMEDIES.doesNotSubtract;
}

function verifyChecksum(text: string, own: HeaderFields): void {
  const checksum = own.string("crc32");
  const tail = /"crc32": ?"[0-9a-f]{8}"\}\}$/.exec(text)?.[0];
  if (tail === undefined) return own.fail("the field crc32 is not the header's last");
  const found = formatChecksum(text.slice(0, -tail.length));
  if (found !== checksum) {
    own.fail(`the header was changed after it was written: its CRC-32 is ${found}, it says ${checksum}`);
  }
}

function formatChecksum(text: string): string {
  return crc32(new TextEncoder().encode(text)).toString(16).padStart(8, "0");
}

function readSchema5(header: HeaderFields, own: HeaderFields | null): Header {
  const cfg = header.object("cfg");
  const activation = readActivation(cfg.object("activation"), { bareSparsity: false });
  const options = {
    d_model: cfg.integer("d_model"),
    d_sae: cfg.integer("d_sae"),
    activation: own === null ? activation : refined(activation, own),
    subtract_b_dec: false,
    ...readTrainingSwitches(cfg),
  };
  cfg.done();
  return { options, input: NO_SCALING };
}

/** Our own words for the activation, which must say the same function as upstream's. */
function refined(activation: ActivationOptions, own: HeaderFields): ActivationOptions {
  const exact = readOwnActivation(own);
  const top_k = (options: ActivationOptions) => "top_k" in options ? options.top_k : undefined;
  // A BatchTopK's relu matters while it trains alone: in evaluation no threshold lets a negative code pass.
  const keepsNegatives = exact.key !== "top-k" || !exact.relu;
  if (exact.key !== activation.key || top_k(exact) !== top_k(activation) || !keepsNegatives) {
    own.fail(`the activation ${String(exact.key)} contradicts that of the cfg, ${activation.key}`);
  }
  return exact;
}

function readOwnSchema(header: HeaderFields, own: HeaderFields | null): Header {
  if (own === null) return header.fail(`the schema "saev_nn" needs the key "saev_nn"`);
  const mean = own.value("input_mean") === null ? null : Float32Array.from(own.numbers("input_mean"));
  const scale = own.number("input_scale");
  const pre_act_scale = own.number("pre_act_scale", 1);
  const input = Object.freeze({ mean, scale, ...pre_act_scale !== 1 && { pre_act_scale } });
  const cfg = header.object("cfg");
  const options = {
    d_model: cfg.integer("d_model"),
    d_sae: cfg.integer("d_sae"),
    activation: readOwnActivation(own),
    subtract_b_dec: own.boolean("subtract_b_dec"),
    ...readTrainingSwitches(cfg),
  };
  cfg.done();
  return { options, input };
}

/** As {@link completeConfig} takes and checks it. */
function readOwnActivation(own: HeaderFields): ActivationOptions {
  return own.plain("activation") as unknown as ActivationOptions;
}

function readTrainingSwitches(cfg: HeaderFields): SparseAutoencoderOptions {
  return {
    reinit_blend: cfg.number("reinit_blend", UPSTREAM.reinit_blend),
    reinit_enc_dec_tranpose: cfg.boolean("reinit_enc_dec_tranpose", UPSTREAM.reinit_enc_dec_tranpose),
    remove_parallel_grads: cfg.boolean("remove_parallel_grads", UPSTREAM.remove_parallel_grads),
    normalize_w_dec: cfg.boolean("normalize_w_dec", UPSTREAM.normalize_w_dec),
  };
}

/** What the `cfg` of every schema before 5 says besides its activation. */
function readOldConfig(cfg: HeaderFields): SparseAutoencoderOptions {
  // The names changed within schema 2, for a day, and with schemas 3 and 4.
  const d_model = cfg.integer(eitherField(cfg, "d_model", "d_vit"));
  const size = eitherField(cfg, "d_sae", "exp_factor");
  const d_sae = cfg.integer(size) * (size === "exp_factor" ? d_model : 1);
  // Neither changes what the model computes, nor how it trains here.
  cfg.integer("n_reinit_samples", UPSTREAM.n_reinit_samples);
  cfg.integer("seed", UPSTREAM.seed);
  return { d_model, d_sae, ...readTrainingSwitches(cfg) };
}

/** Which of a field's two names the header uses. */
function eitherField(fields: HeaderFields, usual: string, other: string): string {
  if (fields.has(usual) && fields.has(other)) fields.fail(`both ${quote(usual)} and ${quote(other)} are there`);
  return fields.has(other) ? other : usual;
}

function readSchemas2To4(header: HeaderFields): Header {
  const cfg = header.object("cfg");
  const activation = readActivation(cfg.object("activation"), OLD);
  const options = { ...readOldConfig(cfg), activation, subtract_b_dec: false };
  cfg.done();
  return { options, input: NO_SCALING };
}

/** Every version that wrote this schema had a BatchTopK that kept the largest of each row, as its TopK did. */
function readSchema3(header: HeaderFields): Header {
  const read = readSchemas2To4(header);
  const { activation } = read.options;
  if (activation?.key !== "batch-top-k") return read;
  const { momentum: _, ...rest } = activation;
  return { ...read, withoutThreshold: { ...rest, key: "top-k" } };
}

/** Has the activation's name in `cls` and its fields among the others, or else is schema 2 by another number. */
function readSchema1(header: HeaderFields, own: HeaderFields | null): Header {
  const cls = header.string("cls", "SparseAutoencoderConfig");
  if (cls === "SparseAutoencoderConfig") return readSchemas2To4(header);
  if (!isKeyOf(cls, ACTIVATIONS)) {
    const known = [...Object.keys(ACTIVATIONS), "SparseAutoencoderConfig"].join(", ");
    return header.fail(`the class ${quote(cls)} of schema 1 is not supported; expected one of ${known}`);
  }
  const cfg = header.object("cfg");
  let options = { ...readOldConfig(cfg), activation: readActivationFields(cls, cfg, OLD), subtract_b_dec: true };
  cfg.done();
  if (own !== null) {
    // What we write into schema 1 beyond what it has fields for.
    const activation = refined(options.activation, own);
    const reinit_blend = own.number("reinit_blend");
    const reinit_enc_dec_tranpose = own.boolean("reinit_enc_dec_tranpose");
    options = { ...options, activation, reinit_blend, reinit_enc_dec_tranpose };
  }
  return { options, input: NO_SCALING };
}

/** The configuration is the header. It holds the objective's coefficient too, which later belongs to the activation. */
function readPreSchema(header: HeaderFields): Header {
  const coeff = header.number(eitherField(header, "sparsity_coeff", "l1_coeff"), UPSTREAM.reluSparsity.coeff);
  // Whether dead latents were given a loss of their own in training, which no longer exists.
  header.boolean(eitherField(header, "ghost_grads", "use_ghost_grads"), false);
  const activation = { key: "relu", sparsity: { key: "l1-sparsity", coeff }, aux: { key: "no-aux" } } as const;
  return { options: { ...readOldConfig(header), activation, subtract_b_dec: true }, input: NO_SCALING };
}

/** How a header spells an activation. */
interface Dialect {
  /** Whether the penalty may stand there without its class, as before schema 5. */
  readonly bareSparsity: boolean;
}

const OLD: Dialect = { bareSparsity: true };

/** Upstream's classes and their discriminators. */
const ACTIVATIONS = { Relu: "relu", TopK: "top-k", BatchTopK: "batch-top-k" } as const;

/** Whether upstream has the activation. */
function isUpstreams(activation: Activation): activation is Extract<Activation, { key: UpstreamKey }> {
  return Object.values<string>(ACTIVATIONS).includes(activation.key);
}

type UpstreamKey = typeof ACTIVATIONS[keyof typeof ACTIVATIONS];

function readActivation(fields: HeaderFields, dialect: Dialect): ActivationOptions {
  const { cls, params } = openClass(fields, ACTIVATIONS);
  const activation = readActivationFields(cls, params, dialect);
  params.done();
  return activation;
}

function readActivationFields(
  cls: keyof typeof ACTIVATIONS,
  params: HeaderFields,
  dialect: Dialect,
): ActivationOptions {
  const key = ACTIVATIONS[cls];
  const sparsity = readSparsity(params, key === "relu" ? UPSTREAM.reluSparsity : { key: "no-sparsity" }, dialect);
  const aux = readAux(params, key === "relu" ? "no-aux" : "auxk");
  switch (key) {
    case "relu":
      return { key, sparsity, aux };
    case "top-k":
      return { key, top_k: params.integer("top_k"), sparsity, aux };
    case "batch-top-k": {
      const momentum = params.number("momentum", UPSTREAM.momentum);
      return { key, top_k: params.integer("top_k"), sparsity, momentum, aux };
    }
  }
}

function readSparsity(owner: HeaderFields, fallback: Sparsity, { bareSparsity }: Dialect): Sparsity {
  if (!owner.has("sparsity")) return fallback;
  const fields = owner.object("sparsity");
  if (bareSparsity && !fields.has("cls")) return readBareSparsity(fields);
  const { cls, params } = openClass(fields, { NoSparsity: "no-sparsity", L1Sparsity: "l1-sparsity" });
  const sparsity: Sparsity = cls === "NoSparsity"
    ? { key: "no-sparsity" }
    : { key: "l1-sparsity", coeff: params.number("coeff", UPSTREAM.l1Coeff) };
  params.done();
  return sparsity;
}

/** The class can be told by the field that only one of the two has. */
function readBareSparsity(fields: HeaderFields): Sparsity {
  const sparsity: Sparsity = fields.has("coeff")
    ? { key: "l1-sparsity", coeff: fields.number("coeff") }
    : { key: "no-sparsity" };
  checkDiscriminator(fields, sparsity.key, "its fields");
  fields.done();
  return sparsity;
}

function readAux(owner: HeaderFields, fallback: "no-aux" | "auxk"): AuxOptions {
  // Upstream has no other way than to include b_dec.
  const auxk = { key: "auxk", k_aux: UPSTREAM.k_aux, alpha: UPSTREAM.alpha, include_b_dec: true } as const;
  if (!owner.has("aux")) return fallback === "no-aux" ? { key: fallback } : auxk;
  const { cls, params } = openClass(owner.object("aux"), { NoAux: "no-aux", AuxK: "auxk" });
  let aux: AuxOptions = { key: "no-aux" };
  if (cls === "AuxK") {
    aux = {
      ...auxk,
      k_aux: params.integer("k_aux", UPSTREAM.k_aux),
      alpha: params.number("alpha", UPSTREAM.alpha),
    };
    // It stood here for some hours of 9 December 2025, and is the objective's since.
    params.integer("dead_threshold_tokens", UPSTREAM.dead_threshold_tokens);
  }
  params.done();
  return aux;
}

/** `{"cls": …, "params": {"key": …}}` */
function openClass<Cls extends string>(
  fields: HeaderFields,
  keys: Readonly<Record<Cls, string>>,
): { readonly cls: Cls; readonly params: HeaderFields } {
  const cls = fields.string("cls");
  const params = fields.object("params");
  fields.done();
  if (!isKeyOf(cls, keys)) {
    return fields.fail(`the class ${quote(cls)} is not supported; expected one of ${Object.keys(keys).join(", ")}`);
  }
  checkDiscriminator(params, keys[cls], `the class ${cls}`);
  return { cls, params };
}

function isKeyOf<Key extends string>(name: string, record: Readonly<Record<Key, unknown>>): name is Key {
  return Object.hasOwn(record, name);
}

/** It was called `kind` for some days, and older files have none. */
function checkDiscriminator(params: HeaderFields, key: string, what: string): void {
  const found = params.string(eitherField(params, "key", "kind"), key);
  if (found !== key) params.fail(`the key ${quote(found)} contradicts ${what}; expected ${quote(key)}`);
}

function storedParameters(
  cfg: SparseAutoencoderConfig,
  tensors: ReadonlyMap<string, StoredTensor>,
): StoredParameters {
  const doing = "reading the parameters";
  const shapes = parameterShapes(cfg);
  const expected = new Set(shapes.keys().map((name) => stateDictKey(cfg, name)));
  const missing = [...expected].filter((key) => !tensors.has(key));
  const unexpected = [...tensors.keys()].filter((key) => !expected.has(key));
  if (missing.length + unexpected.length > 0) {
    const complaints = [
      missing.length > 0 ? `missing: ${missing.join(", ")}` : "",
      unexpected.length > 0 ? `unexpected: ${unexpected.slice(0, 8).map(quote).join(", ")}` : "",
    ];
    const why = missing.includes(THRESHOLD_KEY) ? `; ${WHY_NO_THRESHOLD}` : "";
    throw new CheckpointError(`${doing}: ${complaints.filter(Boolean).join("; ")}${why}`);
  }
  const parameters: Partial<Record<ParameterName, StoredParameter>> = {};
  for (const [name, shape] of shapes) {
    const tensor = tensors.get(stateDictKey(cfg, name))!;
    if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
      throw new CheckpointError(`${doing}: ${name} has shape [${tensor.shape}]; the header says [${shape}]`);
    }
    parameters[name] = tensorParameter(doing, name, tensor);
  }
  return Object.freeze(parameters) as StoredParameters;
}

const WHY_NO_THRESHOLD =
  "a BatchTopK without its threshold is from before 16 November 2025, when its codes depended on " +
  "the batch or it was a TopK of each row, which of them the file does not say";

function stateDictKey({ activation }: SparseAutoencoderConfig, name: ParameterName): string {
  return activationKind(activation).parameters.find((own) => own.name === name)?.inFiles ?? name;
}

// ---------------------------------------------------------------------------------------------------------- writing

/**
 * The file of a model. Equal models give equal bytes.
 *
 * @throws {CheckpointError} where the schema cannot say exactly what the model computes, or its numbers are not finite.
 */
export function formatCheckpoint(
  cfg: SparseAutoencoderConfig,
  parameters: ParameterArrays,
  input: InputScaling = NO_SCALING,
  options: FormatOptions = {},
): Uint8Array<ArrayBuffer> {
  return joinBytes(formatCheckpointPieces(cfg, parameters, input, options));
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

/** All of a model but its parameters. */
type Described = Pick<ParsedCheckpoint, "cfg" | "input">;

/** {@link formatCheckpoint} in pieces, which share the memory of `parameters` where they can. */
export function formatCheckpointPieces(
  cfg: SparseAutoencoderConfig,
  parameters: ParameterArrays,
  input: InputScaling = NO_SCALING,
  options: FormatOptions = {},
): Uint8Array[] {
  const given = withOwn({ cfg: completeConfig(cfg), parameters, input });
  checkModel(given);
  const { schema, folded } = planCheckpoint(given, options);
  const model = folded.length > 0 ? foldModel(given, schema === 1) : given;
  checkModel(model);
  const tensors = stateDict(schema, model.cfg, (name) => ({ data: model.parameters[name]! }));
  const { parts, serializationId } = formatIdentifiedTorchFile(tensors, MODULES);
  return [headerLine(schema, model, serializationId), ...parts];
}

/** @throws {CheckpointError} where the schema cannot say what the model computes, or could not unless it is folded. */
export function planCheckpoint(model: Described, { schema = 5, fold = true }: FormatOptions = {}): CheckpointPlan {
  const unsayable = unsayableIn(schema, model);
  const folded = unplacedIn(schema, model);
  if (unsayable.length === 0 && (fold || folded.length === 0)) return { schema, folded };
  const words: Readonly<Record<Folded, string>> = {
    subtract_b_dec: `the model ${model.cfg.subtract_b_dec ? "subtracts" : "does not subtract"} b_dec first`,
    mean: "the model subtracts the mean of its inputs",
    scale: `the model divides its inputs by ${model.input.scale}`,
  };
  const reasons = [...unsayable, ...fold ? [] : folded.map((what) => words[what])];
  throw new CheckpointError(
    `writing a checkpoint of schema ${schema}: ${reasons.join(" and ")}, which the schema cannot say. ${
      choices(model)
    }`,
  );
}

/** A parameter that is finite, and need not be in memory. */
export interface MeasuredParameter {
  /** Its elements, row-major. */
  readonly data: Float32Array | MeasuredNumbers;
  /** Whether they are those of its transpose. */
  readonly isTransposed: boolean;
}

/** {@link formatCheckpoint} of a model that nothing is folded into, and whose parameters need not be in memory. */
export function formatMeasuredCheckpoint(
  model: Described,
  parameters: { readonly [Name in ParameterName]?: MeasuredParameter },
  schema: CheckpointSchema,
): FilePart[] {
  checkScaling("writing a checkpoint", model.cfg, model.input);
  const tensors = stateDict(schema, model.cfg, (name) => parameters[name]!);
  const { parts, serializationId } = formatIdentifiedTorchFile(tensors, MODULES);
  return [headerLine(schema, model, serializationId), ...parts];
}

function stateDict<Data extends object>(
  schema: CheckpointSchema,
  cfg: SparseAutoencoderConfig,
  parameter: (name: ParameterName) => Data,
): (Data & { readonly name: string; readonly shape: readonly number[] })[] {
  const shapes = parameterShapes(cfg);
  const order = new Set([...schema === 1 ? ORDER_OF_SCHEMA_1 : ORDER_OF_SCHEMA_5, ...shapes.keys()]);
  return [...order].map((name) => ({
    name: stateDictKey(cfg, name),
    shape: shapes.get(name)!,
    ...parameter(name),
  }));
}

function headerLine(schema: CheckpointSchema, model: Described, serializationId: string): Uint8Array {
  return new TextEncoder().encode(`${formatModelHeader(schema, model, serializationId)}\n`);
}

/** What is left out of an activation's own parameters is as before training. */
function withOwn(model: ParsedCheckpoint): ParsedCheckpoint {
  const { cfg, parameters, input: { pre_act_scale = 1 } } = model;
  return { ...model, parameters: { ...parameters, ...ownValues(cfg, parameters, pre_act_scale) } };
}

function checkModel({ cfg, parameters, input }: ParsedCheckpoint): void {
  const doing = "writing a checkpoint";
  const shapes = parameterShapes(cfg);
  if (parameters.threshold !== undefined && !shapes.has("threshold")) {
    throw new CheckpointError(`${doing}: found a threshold; the activation ${cfg.activation.key} has none`);
  }
  for (const [name, shape] of shapes) {
    const length = shape.reduce((product, size) => product * size, 1);
    const data = parameters[name]!;
    if (data.length !== length) {
      throw new CheckpointError(`${doing}: ${name} has ${data.length} elements; expected [${shape}]`);
    }
    checkFinite(doing, name, data);
  }
  checkScaling(doing, cfg, input);
}

/** What no parameters could make up for in a file of this schema. */
function unsayableIn(schema: CheckpointSchema, { cfg: { activation, d_model, d_sae } }: Described): string[] {
  if (schema === "saev_nn") return [];
  const reasons: string[] = [];
  if (!isUpstreams(activation)) reasons.push(`the activation is ${activation.key}`);
  if (activation.key === "top-k" && activation.relu) reasons.push("the activation's negative codes become 0");
  if (schema === 5) return reasons;
  if (isUpstreams(activation) && activation.key !== "relu") {
    reasons.push(`the activation is ${activation.key} instead of relu`);
  }
  if (d_sae % d_model !== 0) reasons.push(`d_sae ${d_sae} is not a multiple of d_model ${d_model}`);
  return reasons;
}

/** Whether a file of this schema can say what a model computes, if parts of it may be folded into the parameters. */
export function canSay(schema: CheckpointSchema, model: Pick<ParsedCheckpoint, "cfg" | "input">): boolean {
  return unsayableIn(schema, model).length === 0;
}

/** What a file of this schema has no place for and the parameters can take up. */
function unplacedIn(schema: CheckpointSchema, model: Described): Folded[] {
  return schema === "saev_nn" ? [] : foldedInto(model, schema === 1);
}

function choices(model: Described): string {
  const isExact = (schema: CheckpointSchema): boolean =>
    canSay(schema, model) && unplacedIn(schema, model).length === 0;
  const choices = [
    ...isExact(1) ? [`${REMEDIES.schema1} is exact, for Python's versions from before August 2025`] : [],
    ...isExact(5)
      ? [`${REMEDIES.schema5} is exact, for Python's versions since late November 2025`]
      : canSay(5, model)
      ? [`${REMEDIES.schema5Folded} rewrites the parameters to the same function, as schema 5`]
      : [],
    `${REMEDIES.ownSchema} keeps everything for this library; Python refuses the file`,
  ];
  return `Choose one: ${choices.join("; ")}`;
}

function formatModelHeader(schema: CheckpointSchema, model: Described, serializationId: string): string {
  const { cfg } = model;
  if (schema === 1) {
    const fields = {
      schema,
      cfg: {
        d_vit: cfg.d_model,
        exp_factor: cfg.d_sae / cfg.d_model,
        n_reinit_samples: UPSTREAM.n_reinit_samples,
        remove_parallel_grads: cfg.remove_parallel_grads,
        normalize_w_dec: cfg.normalize_w_dec,
        seed: UPSTREAM.seed,
      },
      cls: "Relu",
    };
    const own = {
      activation: plainValue(cfg.activation),
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      serialization_id: serializationId,
    };
    return signHeader(fields, own, "json.dumps");
  }
  const fields = {
    schema,
    cfg: {
      d_model: cfg.d_model,
      d_sae: cfg.d_sae,
      ...schema === 5 && { activation: activationValue(cfg.activation) },
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      remove_parallel_grads: cfg.remove_parallel_grads,
      normalize_w_dec: cfg.normalize_w_dec,
    },
  };
  const { mean, scale, pre_act_scale = 1 } = model.input;
  const own = {
    activation: plainValue(cfg.activation),
    ...schema === "saev_nn" && {
      subtract_b_dec: cfg.subtract_b_dec,
      input_mean: mean === null ? null : Array.from(mean, (m) => new PythonFloat(m)),
      input_scale: new PythonFloat(scale),
      ...pre_act_scale !== 1 && { pre_act_scale: new PythonFloat(pre_act_scale) },
    },
    serialization_id: serializationId,
  };
  return signHeader(fields, own, "orjson");
}

/** An activation as this library spells it; its integers are those of the fields that count something. */
function plainValue(activation: Activation): HeaderValue {
  const plain = (value: unknown, name: string): HeaderValue => {
    if (typeof value === "object") {
      return Object.fromEntries(Object.entries(value!).map(([name, inner]) => [name, plain(inner, name)]));
    }
    const isCount = name === "top_k" || name === "k_aux";
    return typeof value === "number" && !isCount ? new PythonFloat(value) : value as HeaderValue;
  };
  return plain(activation, "activation");
}

/** Adds what all headers end with. */
function signHeader(
  fields: Readonly<Record<string, HeaderValue>>,
  own: Readonly<Record<string, HeaderValue>>,
  style: HeaderStyle,
): string {
  const format = (checksum: string): string =>
    formatHeader(
      { ...fields, commit: "unknown", lib: LIB, saev_nn: { version: VERSION, ...own, crc32: checksum } },
      style,
    );
  const blank = format("00000000");
  return format(formatChecksum(blank.slice(0, blank.lastIndexOf(`"crc32"`))));
}

/** What upstream has words for; the rest is training's, and stands in our own key. */
function activationValue(activation: Activation): HeaderValue {
  if (!isUpstreams(activation)) {
    throw new CheckpointError(
      `writing a checkpoint of schema 5: the activation is ${activation.key}, which Python lacks`,
    );
  }
  const sparsity = sparsityValue(activation.sparsity);
  const aux = auxClassValue(activation.aux);
  switch (activation.key) {
    case "relu":
      return { cls: "Relu", params: { key: activation.key, sparsity, aux } };
    case "top-k":
      return { cls: "TopK", params: { key: activation.key, top_k: activation.top_k, sparsity, aux } };
    case "batch-top-k": {
      const { key, top_k } = activation;
      return {
        cls: "BatchTopK",
        params: { key, top_k, sparsity, momentum: new PythonFloat(activation.momentum), aux },
      };
    }
  }
}

function sparsityValue(sparsity: Sparsity): HeaderValue {
  return sparsity.key === "l1-sparsity"
    ? { cls: "L1Sparsity", params: { key: sparsity.key, coeff: new PythonFloat(sparsity.coeff) } }
    : { cls: "NoSparsity", params: { key: "no-sparsity" } };
}

function auxClassValue(aux: Aux): HeaderValue {
  return aux.key === "auxk"
    ? { cls: "AuxK", params: { key: aux.key, k_aux: aux.k_aux, alpha: new PythonFloat(aux.alpha) } }
    : { cls: "NoAux", params: { key: "no-aux" } };
}
