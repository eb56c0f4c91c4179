/**
 * Reads checkpoints of the Python package `saev` in every schema; `saev.ts` describes them.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { type ActivationOptions, parameterShapes } from "../../nn/activations/mod.ts";
import { type InputScaling, NO_SCALING } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";
import type { AuxOptions, Sparsity } from "../../nn/loss_terms.ts";
import { CheckpointError, quote } from "../errors.ts";
import { describeValue } from "../json.ts";
import { HeaderFields, parseHeader, splitHeader } from "../json_header.ts";
import {
  checkScaling,
  type ParameterName,
  type ParsedCheckpoint,
  readParameters,
  type StoredParameter,
  type StoredParameters,
  tensorParameter,
} from "../model.ts";
import type { Source } from "../source.ts";
import type { StoredTensor } from "../stored_tensor.ts";
import { readSerializationId, readTorchFile } from "../torch_file.ts";
import type { OpenedModel, ParseOptions } from "./format.ts";
import { REMEDIES } from "./remedies.ts";
import { ACTIVATIONS, formatChecksum, stateDictKey, THRESHOLD_KEY, UPSTREAM } from "./saev_schemas.ts";

interface Header {
  readonly options: SparseAutoencoderOptions;
  readonly input: InputScaling;
  /** How to read a BatchTopK without a threshold in the file; an error if left out. */
  readonly withoutThreshold?: ActivationOptions;
  /** Why the encoder formula is unknown, if it is. */
  readonly doubt?: string;
  /** The id of the archive after the header, in files of this library since version 0.2.0. */
  readonly serializationId?: string;
}

/** The reader of each schema's header. `own` are the fields of the `"saev_nn"` key, if the header has it. */
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

/** A model from a file, with warnings about the file. */
export interface ReadCheckpoint extends ParsedCheckpoint {
  /** Warnings about the file, one sentence each; usually none. */
  readonly warnings: readonly string[];
}

/**
 * Reads the model in a file.
 *
 * @throws {CheckpointError} naming what was found, for an unknown schema, class or field, parameters that are missing,
 * unexpected, of other shapes or not finite, and for damaged or malicious bytes.
 * @throws {TypeError} for an unknown option.
 */
export async function parseCheckpoint(source: Source, options: ParseOptions = {}): Promise<ReadCheckpoint> {
  checkOptions("parseCheckpoint", options, { subtract_b_dec: true });
  const { model: { cfg, parameters, input }, warnings } = await openCheckpoint(source, options);
  return Object.freeze({ cfg, parameters: await readParameters(parameters), input, warnings });
}

/**
 * Opens the model in a file without reading its parameters.
 *
 * @throws {CheckpointError} as {@link parseCheckpoint}, as far as the header and the list of tensors show.
 */
export async function openCheckpoint(source: Source, options: ParseOptions): Promise<OpenedModel> {
  const { header: text, body } = await splitHeader(source);
  const { options: read, input, withoutThreshold, doubt, serializationId } = readHeader(text);
  const tensors = await readTorchFile(body);
  if (serializationId !== undefined && await readSerializationId(body) !== serializationId) {
    throw new CheckpointError(
      "reading the header: its serialization_id is not the archive's; the header belongs to another file",
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
  // If b_dec is zero, both formulas are the same.
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

/** Upstream changed the formula within these schemas, without changing their numbers. */
function formulaDoubt(schema: 1 | 2, commit: string, subtracts: boolean): string {
  const writer = ["", "unknown"].includes(commit) ? "The version" : `The commit ${quote(commit)}`;
  return `schema ${schema} does not say whether b_dec is subtracted before the encoder; this reader assumes that it ${
    subtracts ? "is" : "is not"
  }. Python saev subtracted it until commit e7ca004 of 31 July 2025, and ` +
    `for Matryoshka models in training until September 2025. ${writer} that wrote the file settles it. Or measure the explained ` +
    `variance on training rows with ${REMEDIES.subtracts} and with ` +
    `${REMEDIES.doesNotSubtract}; the right one gives the higher value`;
}

function verifyChecksum(text: string, own: HeaderFields): void {
  const checksum = own.string("crc32");
  const tail = /"crc32": ?"[0-9a-f]{8}"\}\}$/.exec(text)?.[0];
  if (tail === undefined) return own.fail("crc32 is not the last field of the header");
  const found = formatChecksum(text.slice(0, -tail.length));
  if (found !== checksum) {
    own.fail(`the header was changed after it was written: its CRC-32 is ${found}; expected ${checksum}`);
  }
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

/** The activation in our own form, which must be the same function as upstream's. */
function refined(activation: ActivationOptions, own: HeaderFields): ActivationOptions {
  const exact = readOwnActivation(own);
  const top_k = (options: ActivationOptions) => "top_k" in options ? options.top_k : undefined;
  // A BatchTopK's relu matters only in training: in evaluation no threshold lets a negative code pass.
  const keepsNegatives = exact.key !== "top-k" || !exact.relu;
  if (exact.key !== activation.key || top_k(exact) !== top_k(activation) || !keepsNegatives) {
    own.fail(`the activation ${String(exact.key)} contradicts the cfg's, ${activation.key}`);
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

/** In the form that {@link completeConfig} checks. */
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

/** The `cfg` of every schema before 5, except its activation. */
function readOldConfig(cfg: HeaderFields): SparseAutoencoderOptions {
  // The names changed within schema 2, for a day, and with schemas 3 and 4.
  const d_model = cfg.integer(eitherField(cfg, "d_model", "d_vit"));
  const size = eitherField(cfg, "d_sae", "exp_factor");
  const d_sae = cfg.integer(size) * (size === "exp_factor" ? d_model : 1);
  // Neither changes what the model computes, or how it trains here.
  cfg.integer("n_reinit_samples", UPSTREAM.n_reinit_samples);
  cfg.integer("seed", UPSTREAM.seed);
  return { d_model, d_sae, ...readTrainingSwitches(cfg) };
}

/** Which of a field's two names the header uses. */
function eitherField(fields: HeaderFields, usual: string, other: string): string {
  if (fields.has(usual) && fields.has(other)) {
    fields.fail(`found both ${quote(usual)} and ${quote(other)}; expected one of them`);
  }
  return fields.has(other) ? other : usual;
}

function readSchemas2To4(header: HeaderFields): Header {
  const cfg = header.object("cfg");
  const activation = readActivation(cfg.object("activation"), OLD);
  const options = { ...readOldConfig(cfg), activation, subtract_b_dec: false };
  cfg.done();
  return { options, input: NO_SCALING };
}

/** Every version that wrote this schema had a BatchTopK that kept the largest of each row, like its TopK. */
function readSchema3(header: HeaderFields): Header {
  const read = readSchemas2To4(header);
  const { activation } = read.options;
  if (activation?.key !== "batch-top-k") return read;
  const { momentum: _, ...rest } = activation;
  return { ...read, withoutThreshold: { ...rest, key: "top-k" } };
}

/** Either `cls` names the activation, with its fields among the others, or this is schema 2 under another number. */
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
    // What we write into schema 1 beyond its own fields.
    const activation = refined(options.activation, own);
    const reinit_blend = own.number("reinit_blend");
    const reinit_enc_dec_tranpose = own.boolean("reinit_enc_dec_tranpose");
    options = { ...options, activation, reinit_blend, reinit_enc_dec_tranpose };
  }
  return { options, input: NO_SCALING };
}

/** The header is the configuration. It includes the objective's coefficient, which later moved to the activation. */
function readPreSchema(header: HeaderFields): Header {
  const coeff = header.number(eitherField(header, "sparsity_coeff", "l1_coeff"), UPSTREAM.reluSparsity.coeff);
  // Whether training had a separate loss for dead latents, which no longer exists.
  header.boolean(eitherField(header, "ghost_grads", "use_ghost_grads"), false);
  const activation = { key: "relu", sparsity: { key: "l1-sparsity", coeff }, aux: { key: "no-aux" } } as const;
  return { options: { ...readOldConfig(header), activation, subtract_b_dec: true }, input: NO_SCALING };
}

/** How a header spells an activation. */
interface Dialect {
  /** Whether the penalty may appear without its class, as before schema 5. */
  readonly bareSparsity: boolean;
}

const OLD: Dialect = { bareSparsity: true };

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

/** The class follows from the field that only one of the two has. */
function readBareSparsity(fields: HeaderFields): Sparsity {
  const sparsity: Sparsity = fields.has("coeff")
    ? { key: "l1-sparsity", coeff: fields.number("coeff") }
    : { key: "no-sparsity" };
  checkDiscriminator(fields, sparsity.key, "its fields");
  fields.done();
  return sparsity;
}

function readAux(owner: HeaderFields, fallback: "no-aux" | "auxk"): AuxOptions {
  // Upstream always includes b_dec.
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
    // It was here for some hours on 9 December 2025, and belongs to the objective since.
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

/** It was called `kind` for some days; older files have none. */
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
  "a BatchTopK file without a threshold was written before 16 November 2025, when BatchTopK either chose codes over " +
  "the batch or was a TopK of each row; the file does not say which";
