/**
 * Checkpoints of the Python package `saev`: a line of JSON, then a PyTorch file of the four parameters.
 *
 * Read and written are schema 5 (since November 2025; `h = x W_enc + b_enc`), schema 1 with `cls: "Relu"` (April 2025;
 * `h = (x − b_dec) W_enc + b_enc`), and the schema `"saev_nn"`, which holds every model of this library exactly and
 * which Python refuses. Schema 1 is exact for the Python versions that wrote it; those of August and September 2025 leave
 * the subtraction out when they read it, from any writer, and later ones refuse it.
 *
 * What upstream's header has no place for stands in one more top-level key, `"saev_nn"`, which Python ignores. Its last
 * field is a CRC-32 of the header's text before it. Headers without the key (all of upstream's own) have no checksum, so
 * that a damaged digit in one may go unnoticed; the parameters are always under the archive's checksums.
 *
 * @module
 */

import {
  type Activation,
  type ActivationOptions,
  type Aux,
  type AuxOptions,
  completeConfig,
  type InputScaling,
  type ParameterArrays,
  type SparseAutoencoderConfig,
  type SparseAutoencoderOptions,
  type Sparsity,
} from "../../nn/config.ts";
import { crc32 } from "../crc32.ts";
import { CheckpointError, quote } from "../errors.ts";
import {
  describeValue,
  formatHeader,
  HeaderFields,
  type HeaderStyle,
  type HeaderValue,
  parseHeader,
  PythonFloat,
  splitHeader,
} from "../json_header.ts";
import { formatTorchFile, type NamedTensor, readTorchFile, type TorchTensor } from "../torch_file.ts";
import { joinBytes } from "../zip.ts";

/** A model out of a file. */
export interface ParsedCheckpoint {
  /** Complete and frozen. */
  readonly cfg: SparseAutoencoderConfig;
  /** Finite numbers in the shapes that `cfg` says; possibly views into the file's bytes. */
  readonly parameters: ParameterArrays;
  /** Mean and scale of the inputs. */
  readonly input: InputScaling;
}

/** How to read a file. */
export interface ParseOptions {
  /** Which encoder formula the weights were trained with, where you know better than the file's schema does. */
  readonly subtract_b_dec?: boolean;
}

/** The forms of a header that can be written. */
export type CheckpointSchema = 5 | 1 | "saev_nn";

/** How to write a file. */
export interface FormatOptions {
  /**
   * The form of the file. Left out, it is 5 where that says exactly what the model computes, else 1, else an error that
   * names the choices. `"saev_nn"` keeps everything of any model; Python refuses to read it.
   */
  readonly schema?: CheckpointSchema;
  /**
   * Rewrites the parameters so that they compute the same function without what the schema cannot say: the mean and
   * scale of the inputs, and the other encoder formula. Sums are float64, rounded once.
   */
  readonly fold?: boolean;
}

/** Version of this library, which the files it writes name. */
const VERSION = "0.1.0";
/** Version of the Python package whose schemas 1 and 5 these are. */
const LIB = "0.1.0";

/** PyTorch lists the modules of upstream's model in the state dict's metadata. */
const MODULES = ["", "activation"];
const PARAMETERS = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;
const ORDER_OF_SCHEMA_1 = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;
const ORDER_OF_SCHEMA_5 = ["W_dec", "b_dec", "W_enc", "b_enc"] as const;

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
  k_aux: 512,
  alpha: 1 / 32,
} as const;

const NO_SCALING: InputScaling = Object.freeze({ mean: null, scale: 1 });

// ---------------------------------------------------------------------------------------------------------- reading

interface Header {
  readonly options: SparseAutoencoderOptions;
  readonly input: InputScaling;
}

/** How each schema's header is read. `own` are the fields of the `"saev_nn"` key, where the header has it. */
const SCHEMAS: ReadonlyMap<unknown, (header: HeaderFields, own: HeaderFields | null) => Header> = new Map<
  unknown,
  (header: HeaderFields, own: HeaderFields | null) => Header
>([
  [5, readSchema5],
  [1, readSchema1],
  ["saev_nn", readOwnSchema],
]);

/**
 * The model that a file holds.
 *
 * @throws {CheckpointError} naming what was found, for an unknown schema, class or field, parameters that are missing,
 * unexpected, of other shapes or not finite, and for damaged or malicious bytes.
 */
export function parseCheckpoint(bytes: Uint8Array, options: ParseOptions = {}): ParsedCheckpoint {
  const { header: text, body } = splitHeader(bytes);
  const { options: read, input } = readHeader(text);
  const overridden = options.subtract_b_dec === undefined ? read : { ...read, subtract_b_dec: options.subtract_b_dec };
  let cfg: SparseAutoencoderConfig;
  try {
    cfg = completeConfig(overridden);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`reading the header's cfg: ${message}`, { cause });
  }
  checkScaling("reading the header", cfg, input);
  return Object.freeze({ cfg, parameters: readParameters(cfg, readTorchFile(body)), input });
}

function readHeader(text: string): Header {
  const object = parseHeader(text);
  const header = new HeaderFields("the header", object);
  const schema = header.value("schema");
  const read = SCHEMAS.get(schema);
  if (read === undefined) {
    const known = [...SCHEMAS.keys()].map((known) => JSON.stringify(known)).join(", ");
    return header.fail(
      schema === undefined
        ? `it has no "schema" (files from before April 2025); expected one of ${known}`
        : `the schema ${describeValue(schema)} is not supported; expected one of ${known}`,
    );
  }
  header.string("commit", "");
  header.string("lib", "");
  const own = header.has("saev_nn") ? header.object("saev_nn") : null;
  if (own !== null) {
    verifyChecksum(text, own);
    own.string("version");
  }
  const result = read(header, own);
  own?.done();
  header.done();
  return result;
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
  return { options: { ...readConfig(header, own), subtract_b_dec: false }, input: NO_SCALING };
}

function readOwnSchema(header: HeaderFields, own: HeaderFields | null): Header {
  if (own === null) return header.fail(`the schema "saev_nn" needs the key "saev_nn"`);
  const mean = own.value("input_mean") === null ? null : Float32Array.from(own.numbers("input_mean"));
  const input = Object.freeze({ mean, scale: own.number("input_scale") });
  return { options: { ...readConfig(header, own), subtract_b_dec: own.boolean("subtract_b_dec") }, input };
}

/** The `cfg` that schema 5 and our own schema share. */
function readConfig(header: HeaderFields, own: HeaderFields | null): SparseAutoencoderOptions {
  const cfg = header.object("cfg");
  const options = {
    d_model: cfg.integer("d_model"),
    d_sae: cfg.integer("d_sae"),
    activation: readActivation(cfg.object("activation"), own),
    reinit_blend: cfg.number("reinit_blend", UPSTREAM.reinit_blend),
    reinit_enc_dec_tranpose: cfg.boolean("reinit_enc_dec_tranpose", UPSTREAM.reinit_enc_dec_tranpose),
    ...readDecoderSwitches(cfg),
  };
  cfg.done();
  return options;
}

function readDecoderSwitches(cfg: HeaderFields): SparseAutoencoderOptions {
  return {
    remove_parallel_grads: cfg.boolean("remove_parallel_grads", UPSTREAM.remove_parallel_grads),
    normalize_w_dec: cfg.boolean("normalize_w_dec", UPSTREAM.normalize_w_dec),
  };
}

function readSchema1(header: HeaderFields, own: HeaderFields | null): Header {
  const cls = header.string("cls");
  if (cls !== "Relu") header.fail(`the class ${quote(cls)} of schema 1 is not supported; expected "Relu"`);
  const cfg = header.object("cfg");
  const d_model = cfg.integer("d_vit");
  // Schema 1 has no field for these; upstream kept the penalty with the objective.
  const options = {
    d_model,
    d_sae: d_model * cfg.integer("exp_factor"),
    activation: own === null ? reluOfSchema1() : readActivation(own.object("activation"), own),
    reinit_blend: own === null ? UPSTREAM.reinit_blend : own.number("reinit_blend"),
    reinit_enc_dec_tranpose: own === null ? UPSTREAM.reinit_enc_dec_tranpose : own.boolean("reinit_enc_dec_tranpose"),
    ...readDecoderSwitches(cfg),
    subtract_b_dec: true,
  };
  if (options.activation.key !== "relu") own?.fail("the activation contradicts the class Relu");
  // Neither changes what the model computes, nor how it trains here.
  cfg.integer("n_reinit_samples", UPSTREAM.n_reinit_samples);
  cfg.integer("seed", UPSTREAM.seed);
  cfg.done();
  return { options, input: NO_SCALING };
}

function reluOfSchema1(): ActivationOptions {
  return { key: "relu", sparsity: UPSTREAM.reluSparsity, aux: { key: "no-aux" } };
}

function readActivation(fields: HeaderFields, own: HeaderFields | null): ActivationOptions {
  const { cls, params } = openClass(fields, { Relu: "relu", TopK: "top-k" });
  const isRelu = cls === "Relu";
  const sparsity = readSparsity(params, isRelu ? UPSTREAM.reluSparsity : { key: "no-sparsity" });
  const activation: ActivationOptions = isRelu
    ? { key: "relu", sparsity, aux: readAux(params, { key: "no-aux" }, own) }
    : { key: "top-k", top_k: params.integer("top_k"), sparsity, aux: readAux(params, { key: "auxk" }, own) };
  params.done();
  return activation;
}

function readSparsity(owner: HeaderFields, fallback: Sparsity): Sparsity {
  if (!owner.has("sparsity")) return fallback;
  const { cls, params } = openClass(owner.object("sparsity"), {
    NoSparsity: "no-sparsity",
    L1Sparsity: "l1-sparsity",
  });
  const sparsity: Sparsity = cls === "NoSparsity"
    ? { key: "no-sparsity" }
    : { key: "l1-sparsity", coeff: params.number("coeff", UPSTREAM.l1Coeff) };
  params.done();
  return sparsity;
}

function readAux(owner: HeaderFields, fallback: AuxOptions, own: HeaderFields | null): AuxOptions {
  let aux = fallback;
  if (owner.has("aux")) {
    const { cls, params } = openClass(owner.object("aux"), { NoAux: "no-aux", AuxK: "auxk" });
    aux = cls === "NoAux" ? { key: "no-aux" } : {
      key: "auxk",
      k_aux: params.integer("k_aux", UPSTREAM.k_aux),
      alpha: params.number("alpha", UPSTREAM.alpha),
    };
    params.done();
  }
  if (aux.key === "no-aux") return aux;
  // Upstream has no other way than to include it.
  const include_b_dec = own === null ? true : own.boolean("include_b_dec");
  return { k_aux: UPSTREAM.k_aux, alpha: UPSTREAM.alpha, ...aux, include_b_dec };
}

/** `{"cls": …, "params": {"key": …}}`; the discriminator was called `kind` for some days, and may be missing. */
function openClass(
  fields: HeaderFields,
  keys: Readonly<Record<string, string>>,
): { readonly cls: string; readonly params: HeaderFields } {
  const cls = fields.string("cls");
  const params = fields.object("params");
  fields.done();
  const key = Object.hasOwn(keys, cls) ? keys[cls] : undefined;
  if (key === undefined) {
    return fields.fail(`the class ${quote(cls)} is not supported; expected one of ${Object.keys(keys).join(", ")}`);
  }
  if (params.has("key") && params.has("kind")) params.fail(`both "key" and "kind" are there`);
  const found = params.string(params.has("kind") ? "kind" : "key", key);
  if (found !== key) params.fail(`the key ${quote(found)} contradicts the class ${cls}; expected ${quote(key)}`);
  return { cls, params };
}

function readParameters(cfg: SparseAutoencoderConfig, tensors: ReadonlyMap<string, TorchTensor>): ParameterArrays {
  const shapes = parameterShapes(cfg);
  const missing = PARAMETERS.filter((name) => !tensors.has(name));
  const unexpected = [...tensors.keys()].filter((name) => !Object.hasOwn(shapes, name));
  if (missing.length + unexpected.length > 0) {
    const complaints = [
      missing.length > 0 ? `missing: ${missing.join(", ")}` : "",
      unexpected.length > 0 ? `unexpected: ${unexpected.slice(0, 8).map(quote).join(", ")}` : "",
    ];
    throw new CheckpointError(`reading the parameters: ${complaints.filter(Boolean).join("; ")}`);
  }
  const read = (name: keyof ParameterArrays): Float32Array => {
    const tensor = tensors.get(name)!;
    const expected = shapes[name];
    if (tensor.shape.length !== expected.length || tensor.shape.some((size, axis) => size !== expected[axis])) {
      throw new CheckpointError(
        `reading the parameters: ${name} has shape [${tensor.shape}]; the header says [${expected}]`,
      );
    }
    const data = tensor.read();
    checkFinite(`reading the parameters`, name, data);
    return data;
  };
  return Object.freeze({ W_enc: read("W_enc"), b_enc: read("b_enc"), W_dec: read("W_dec"), b_dec: read("b_dec") });
}

function parameterShapes(cfg: SparseAutoencoderConfig): Readonly<Record<keyof ParameterArrays, readonly number[]>> {
  const { d_model, d_sae } = cfg;
  return { W_enc: [d_model, d_sae], b_enc: [d_sae], W_dec: [d_sae, d_model], b_dec: [d_model] };
}

/** A model with a NaN or an infinity computes nothing of use, so it is neither written nor read. */
function checkFinite(doing: string, name: string, data: Float32Array): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) {
      throw new CheckpointError(`${doing}: ${name} is ${data[i]} at element ${i}; expected finite numbers`);
    }
  }
}

function checkScaling(doing: string, cfg: SparseAutoencoderConfig, { mean, scale }: InputScaling): void {
  if (mean !== null && mean.length !== cfg.d_model) {
    throw new CheckpointError(`${doing}: input_mean has ${mean.length} elements; expected d_model = ${cfg.d_model}`);
  }
  if (mean !== null) checkFinite(doing, "input_mean", mean);
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new CheckpointError(`${doing}: input_scale is ${scale}; expected a positive finite number`);
  }
}

// ---------------------------------------------------------------------------------------------------------- writing

interface Model {
  readonly cfg: SparseAutoencoderConfig;
  readonly parameters: ParameterArrays;
  readonly input: InputScaling;
}

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

/** {@link formatCheckpoint} in pieces, which share the memory of `parameters` where they can. */
export function formatCheckpointPieces(
  cfg: SparseAutoencoderConfig,
  parameters: ParameterArrays,
  input: InputScaling = NO_SCALING,
  options: FormatOptions = {},
): Uint8Array[] {
  const given: Model = { cfg: completeConfig(cfg), parameters, input };
  checkModel(given);
  const schema = options.schema ?? (options.fold ? 5 : chooseSchema(given));
  const model = options.fold ? foldModel(given, schema === 1) : given;
  checkModel(model);
  const reasons = reasonsAgainst(schema, model);
  if (reasons.length > 0) {
    throw new CheckpointError(
      `writing a checkpoint of schema ${schema}: ${reasons.join(" and ")}, which Python would not know. ${
        choices(model)
      }`,
    );
  }
  const shapes = parameterShapes(model.cfg);
  const order = schema === 1 ? ORDER_OF_SCHEMA_1 : ORDER_OF_SCHEMA_5;
  const tensors = order.map((name): NamedTensor => ({ name, shape: shapes[name], data: model.parameters[name] }));
  return [new TextEncoder().encode(`${formatModelHeader(schema, model)}\n`), ...formatTorchFile(tensors, MODULES)];
}

function checkModel({ cfg, parameters, input }: Model): void {
  const doing = "writing a checkpoint";
  const shapes = parameterShapes(cfg);
  for (const name of PARAMETERS) {
    const length = shapes[name].reduce((product, size) => product * size, 1);
    const found = parameters[name].length;
    if (found !== length) {
      throw new CheckpointError(`${doing}: ${name} has ${found} elements; expected [${shapes[name]}]`);
    }
    checkFinite(doing, name, parameters[name]);
  }
  checkScaling(doing, cfg, input);
}

function chooseSchema(model: Model): CheckpointSchema {
  const schema = ([5, 1] as const).find((schema) => reasonsAgainst(schema, model).length === 0);
  if (schema !== undefined) return schema;
  const reasons = ([5, 1] as const).map((schema) =>
    `not of schema ${schema}: ${reasonsAgainst(schema, model).join(", ")}`
  );
  throw new CheckpointError(
    `writing a checkpoint: no file for Python says what this model computes (${reasons.join("; ")}). ${choices(model)}`,
  );
}

/** Why a file of this schema would be read as another function. */
function reasonsAgainst(schema: CheckpointSchema, { cfg, input }: Model): string[] {
  if (schema === "saev_nn") return [];
  const reasons: string[] = [];
  const { subtract_b_dec, activation, d_model, d_sae } = cfg;
  if (!isIdentity(input)) reasons.push("the model standardises its inputs");
  if (schema === 5 && subtract_b_dec) reasons.push("the model subtracts b_dec before the encoder");
  if (schema === 1) {
    if (!subtract_b_dec) reasons.push("the model does not subtract b_dec before the encoder");
    if (activation.key !== "relu") reasons.push(`the activation is ${activation.key} instead of relu`);
    if (d_sae % d_model !== 0) reasons.push(`d_sae ${d_sae} is not a multiple of d_model ${d_model}`);
  }
  return reasons;
}

function choices(model: Model): string {
  const choices = [
    `{ fold: true } rewrites the parameters to the same function, as schema 5`,
    `{ schema: "saev_nn" } keeps everything for this library; Python refuses the file`,
  ];
  if (reasonsAgainst(1, model).length === 0) {
    choices.unshift(`{ schema: 1 } is exact, for Python's versions from before August 2025`);
  }
  return `Choose one: ${choices.join("; ")}`;
}

function isIdentity({ mean, scale }: InputScaling): boolean {
  return scale === 1 && (mean === null || mean.every((element) => element === 0));
}

/**
 * The same function without scaling of the inputs, and with `subtract` as its encoder formula.
 *
 * With m and s the mean and scale, [p] for 1 where p holds and 0 elsewhere:
 *
 * - `W_enc' = W_enc / s`, `W_dec' = s W_dec`, `b_dec' = s b_dec + m`
 * - `b_enc' = b_enc + ([subtract] (b_dec + m/s) − [subtracted] b_dec − m/s) W_enc`
 */
function foldModel(model: Model, subtract: boolean): Model {
  const { cfg, parameters, input: { mean, scale } } = model;
  const { d_model, d_sae, subtract_b_dec } = cfg;
  if (isIdentity(model.input) && subtract_b_dec === subtract) return { ...model, input: NO_SCALING };
  const { W_enc, b_enc, W_dec, b_dec } = parameters;
  const shift = Float64Array.from(b_dec, (b, d) => {
    const m = (mean?.[d] ?? 0) / scale;
    return (subtract ? b + m : 0) - (subtract_b_dec ? b : 0) - m;
  });
  const sums = Float64Array.from(b_enc);
  for (let d = 0; d < d_model; d++) {
    for (let s = 0; s < d_sae; s++) sums[s]! += shift[d]! * W_enc[d * d_sae + s]!;
  }
  return {
    cfg: completeConfig({ ...cfg, subtract_b_dec: subtract }),
    parameters: {
      W_enc: W_enc.map((w) => w / scale),
      b_enc: Float32Array.from(sums),
      W_dec: W_dec.map((w) => w * scale),
      b_dec: b_dec.map((b, d) => b * scale + (mean?.[d] ?? 0)),
    },
    input: NO_SCALING,
  };
}

function formatModelHeader(schema: CheckpointSchema, model: Model): string {
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
      activation: activationValue(cfg.activation),
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      ...auxValue(cfg.activation.aux),
    };
    return signHeader(fields, own, "json.dumps");
  }
  const fields = {
    schema,
    cfg: {
      d_model: cfg.d_model,
      d_sae: cfg.d_sae,
      activation: activationValue(cfg.activation),
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      remove_parallel_grads: cfg.remove_parallel_grads,
      normalize_w_dec: cfg.normalize_w_dec,
    },
  };
  const own = schema === 5 ? auxValue(cfg.activation.aux) : {
    subtract_b_dec: cfg.subtract_b_dec,
    ...auxValue(cfg.activation.aux),
    input_mean: model.input.mean === null ? null : Array.from(model.input.mean, (m) => new PythonFloat(m)),
    input_scale: new PythonFloat(model.input.scale),
  };
  return signHeader(fields, own, "orjson");
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

function activationValue(activation: Activation): HeaderValue {
  const { key, sparsity, aux } = activation;
  const rest = { sparsity: sparsityValue(sparsity), aux: auxClassValue(aux) };
  return key === "relu"
    ? { cls: "Relu", params: { key, ...rest } }
    : { cls: "TopK", params: { key, top_k: activation.top_k, ...rest } };
}

function sparsityValue(sparsity: Sparsity): HeaderValue {
  const { key } = sparsity;
  return key === "no-sparsity"
    ? { cls: "NoSparsity", params: { key } }
    : { cls: "L1Sparsity", params: { key, coeff: new PythonFloat(sparsity.coeff) } };
}

function auxClassValue(aux: Aux): HeaderValue {
  const { key } = aux;
  return key === "no-aux"
    ? { cls: "NoAux", params: { key } }
    : { cls: "AuxK", params: { key, k_aux: aux.k_aux, alpha: new PythonFloat(aux.alpha) } };
}

/** What upstream's AuxK has no field for. */
function auxValue(aux: Aux): Readonly<Record<string, HeaderValue>> {
  return aux.key === "auxk" ? { include_b_dec: aux.include_b_dec } : {};
}
