/**
 * The file from which training resumes: the model in its own units, all state beside the parameters, and the losses so
 * far, as safetensors. A resumed run equals, bit by bit, one that never stopped. One checksum per tensor and one of all
 * other texts reveal a damaged file.
 *
 * @module
 */

import { activationKind, parameterLayout, parameterShapes } from "../nn/activations/mod.ts";
import { crc32 } from "../io/crc32.ts";
import { CheckpointError, naming, quote } from "../io/errors.ts";
import { type ByteSource, type ByteTarget, openSource } from "../io/files.ts";
import { littleEndianBytes } from "../io/numbers.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { NamedTensor, StoredTensor } from "../io/stored_tensor.ts";
import type { ParameterArrays } from "../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "../nn/config.ts";
import { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { RECENT_ERRORS, TrainState, type TrainStateData } from "../nn/state.ts";
import { lossAt, lossColumnNames, lossColumns, type TrainLoss } from "../objectives/loss_record.ts";

/** Input of {@link saveTraining}. */
export interface TrainingToSave {
  /** The model. */
  readonly sae: SparseAutoencoder;
  /** Its training state. */
  readonly state: TrainState;
  /** Losses of the steps so far; none if left out. */
  readonly losses?: readonly TrainLoss[];
  /** Any text, returned unchanged when the file is opened; empty if left out. */
  readonly note?: string;
}

/** What {@link openTraining} returns, before the numbers are read. */
export interface SavedTraining {
  /** Number of updates done. */
  readonly step: number;
  /** The note that was saved. */
  readonly note: string;
  /**
   * Reads the whole file and compares its checksums, once. Files of 0.1.0 have none.
   *
   * @throws {CheckpointError} if the file is damaged; the message names the tensor.
   */
  verify(): Promise<void>;
  /**
   * Restores the model and its training state on a device, by default the shared one.
   *
   * @throws {CheckpointError} if the file is damaged.
   * @throws {DeviceError} if there is no usable GPU.
   */
  restore(options?: { readonly device?: GPUDevice }): Promise<RestoredTraining>;
}

/** A model ready for more training. The caller disposes of it. */
export interface RestoredTraining extends Disposable {
  /** The model. */
  readonly sae: SparseAutoencoder;
  /** Its training state. */
  readonly state: TrainState;
  /** Losses of the steps that were saved. */
  readonly losses: readonly TrainLoss[];
}

/** The metadata key of the description. */
const DESCRIPTION = "saev_nn_training";
/** The metadata key of the checksums of tensors, by name. */
const CHECKSUMS = "checksums";
/** The metadata key of the checksum of the other texts. */
const CHECKSUM = "checksum";
const VERSION = 3;
/** Format of 0.1.0: it stored only the first squared error, and no checksums. */
const WITHOUT_RECENT_ERRORS = 2;

/** The description in the metadata. */
interface Description {
  readonly version: number;
  readonly cfg: SparseAutoencoderConfig;
  readonly input: { readonly hasMean: boolean; readonly scale: number; readonly pre_act_scale: number };
  readonly state: Pick<TrainStateData, typeof STATE[number] | "optimizer">;
  readonly n_losses: number;
}

const STATE = ["step", "n_tokens", "seed", "stepsAbove", "control", "controlledL0", "thresholdSeen"] as const;

/**
 * Writes a model and its training state. A file at a path is replaced atomically.
 *
 * @example
 * ```ts
 * import { getObjective, SparseAutoencoder } from "@saev/nn";
 * import { openTraining, saveTraining, train, TrainState } from "@saev/nn/train";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * using state = new TrainState(sae);
 * const batch = Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i));
 * for await (const _ of train(sae, getObjective({ key: "vanilla" }), [batch, batch], { state }));
 * const path = `${await Deno.makeTempDir()}/training.safetensors`;
 * await saveTraining(path, { sae, state });
 *
 * using again = await (await openTraining(path)).restore();
 * console.log(again.state.step); // 2; train again.sae on, with again.state
 * ```
 *
 * @throws {RangeError} if the state belongs to another model; then nothing is written.
 */
export async function saveTraining(to: ByteTarget, training: TrainingToSave): Promise<void> {
  const { sae, state, losses = [], note = "" } = training;
  state.checkModel(sae);
  const { cfg, input: { mean, scale, pre_act_scale = 1 } } = sae;
  const [parameters, data] = await Promise.all([sae.readParameters(), state.read()]);
  const description: Description = {
    version: VERSION,
    cfg,
    input: { hasMean: mean !== null, scale, pre_act_scale },
    state: { ...Object.fromEntries(STATE.map((name) => [name, data[name]])), optimizer: data.optimizer } as Description[
      "state"
    ],
    n_losses: losses.length,
  };
  const tensors: NamedTensor[] = [];
  const values = new Map<string, Float32Array | Int32Array>([
    ...mean ? [["input_mean", mean] as const] : [],
    ["tokens_since_active", asSigned(data.tokens_since_active)],
    ["recent_errors", data.recentErrors],
    ...lossColumns(losses).entries().map(([name, column]) => [`losses.${name}`, column] as const),
    ...arraysOf("parameters", parameters),
    ...arraysOf("moment1", data.moment1),
    ...arraysOf("moment2", data.moment2),
  ]);
  for (const [name, shape] of shapesOf(description)) tensors.push({ name, shape, data: values.get(name)! });
  const checksums = Object.fromEntries(tensors.map(({ name, data }) => [name, asHex(crc32(littleEndianBytes(data)))]));
  const texts = { [DESCRIPTION]: JSON.stringify(description), note, [CHECKSUMS]: JSON.stringify(checksums) };
  await writeSafetensors(to, tensors, { ...texts, [CHECKSUM]: checksumOf(new Map(Object.entries(texts))) });
}

function asHex(checksum: number): string {
  return checksum.toString(16).padStart(8, "0");
}

/** The checksum of all texts except itself. */
function checksumOf(metadata: ReadonlyMap<string, string>): string {
  const texts = [...metadata].filter(([name]) => name !== CHECKSUM).sort(([a], [b]) => a < b ? -1 : 1);
  return asHex(crc32(new TextEncoder().encode(JSON.stringify(texts))));
}

/**
 * Opens what {@link saveTraining} wrote. Only the file's header is read.
 *
 * @throws {CheckpointError} for any other file; the message says what was found.
 */
export async function openTraining(from: ByteSource): Promise<SavedTraining> {
  const source = await openSource(from);
  const doing = `reading the training in ${source.name}`;
  const { tensors, metadata } = await naming(source.name, () => readSafetensors(source));
  const [wanted, found] = [metadata.get(CHECKSUM), checksumOf(metadata)];
  if (wanted !== undefined && wanted !== found) {
    throw new CheckpointError(`${doing}: its metadata is damaged: the checksum is ${found}; expected ${wanted}`);
  }
  const description = readDescription(doing, metadata.get(DESCRIPTION));
  const shapes = shapesOf(description);
  for (const [name, shape] of shapes) {
    const found = tensors.get(name);
    if (!found) throw new CheckpointError(`${doing}: found no ${name}; expected [${shape}]`);
    if (String(found.shape) !== String(shape)) {
      throw new CheckpointError(`${doing}: ${name} is [${found.shape}]; expected [${shape}]`);
    }
  }
  const surplus = [...tensors.keys()].find((name) => !shapes.has(name));
  if (surplus !== undefined) throw new CheckpointError(`${doing}: found the unexpected tensor ${quote(surplus)}`);
  const isOld = description.version === WITHOUT_RECENT_ERRORS && wanted === undefined;
  const checksums = isOld ? null : readChecksums(doing, metadata);
  let verified: Promise<void> | undefined;
  const verify = () => verified ??= naming(source.name, () => verifyTensors(doing, tensors, checksums));
  return {
    step: description.state.step,
    note: metadata.get("note") ?? "",
    verify,
    async restore(options) {
      await verify();
      return await naming(source.name, () => restore(description, tensors, options));
    },
  };
}

/** @throws {CheckpointError} that names the first tensor whose bytes have changed. */
async function verifyTensors(
  doing: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  checksums: ReadonlyMap<string, unknown> | null,
): Promise<void> {
  if (!checksums) return;
  for (const [name, tensor] of tensors) {
    let checksum = 0;
    if (tensor.dtype === "int32") {
      checksum = crc32(littleEndianBytes(Int32Array.from(await tensor.readIntegers())));
    } else for await (const piece of tensor.pieces()) checksum = crc32(littleEndianBytes(piece), checksum);
    const [found, wanted] = [asHex(checksum), checksums.get(name)];
    if (found === wanted) continue;
    throw new CheckpointError(`${doing}: ${name} is damaged: the checksum is ${found}; expected ${wanted}`);
  }
}

/** @throws {CheckpointError} if there are none. */
function readChecksums(doing: string, metadata: ReadonlyMap<string, string>): Map<string, unknown> {
  const text = metadata.get(CHECKSUMS);
  if (text === undefined || !metadata.has(CHECKSUM)) throw new CheckpointError(`${doing}: found no checksums`);
  try {
    return new Map(Object.entries(JSON.parse(text)));
  } catch (cause) {
    throw new CheckpointError(`${doing}: its ${CHECKSUMS} are not JSON`, { cause });
  }
}

async function restore(
  { version, cfg, input: { hasMean, scale, pre_act_scale }, state: numbers, n_losses: nLosses }: Description,
  tensors: ReadonlyMap<string, StoredTensor>,
  { device }: { readonly device?: GPUDevice } = {},
): Promise<RestoredTraining> {
  const read = async (name: string): Promise<Float32Array> => await tensors.get(name)?.read() ?? new Float32Array(0);
  const arrays = async (group: string): Promise<ParameterArrays> => {
    const names = [...tensors.keys()].filter((name) => name.startsWith(`${group}.`));
    const found = await Promise.all(names.map(async (name) => [name.slice(group.length + 1), await read(name)]));
    return { W_enc: new Float32Array(0), W_dec: new Float32Array(0), ...Object.fromEntries(found) };
  };
  const mean = hasMean ? await read("input_mean") : null;
  using stack = new DisposableStack();
  const placement = { input: { mean, scale, pre_act_scale }, ...device && { device } };
  const sae = stack.use(await SparseAutoencoder.fromParameters(cfg, await arrays("parameters"), placement));
  const columns = new Map(
    await Promise.all(columnNames(cfg).map(async (name) => [name, await read(`losses.${name}`)] as const)),
  );
  const recentErrors = version === WITHOUT_RECENT_ERRORS
    ? lastErrors(columns.get("mse")!)
    : await read("recent_errors");
  const state = stack.use(TrainState.restore(sae, {
    ...numbers,
    recentErrors,
    moment1: await arrays("moment1"),
    moment2: await arrays("moment2"),
    tokens_since_active: Uint32Array.from(await tensors.get("tokens_since_active")!.readIntegers(), (n) => n >>> 0),
  }));
  const losses = Array.from({ length: nLosses }, (_, step) => lossAt(columns, step));
  const owned = stack.move();
  return { sae, state, losses, [Symbol.dispose]: () => owned.dispose() };
}

/** [16], the last squared errors that are finite and not zero. */
function lastErrors(mse: Float32Array): Float32Array {
  const errors = mse.filter((error) => Number.isFinite(error) && error !== 0).slice(-RECENT_ERRORS);
  const recent = new Float32Array(RECENT_ERRORS);
  recent.set(errors, RECENT_ERRORS - errors.length);
  return recent;
}

/** The same bits as int32, which the file format supports. */
function asSigned({ buffer, byteOffset, length }: Uint32Array): Int32Array {
  return new Int32Array(buffer, byteOffset, length);
}

function* arraysOf(group: string, arrays: ParameterArrays): Generator<readonly [string, Float32Array]> {
  for (const [name, values] of Object.entries(arrays)) if (values) yield [`${group}.${name}`, values];
}

/** Names of the columns of losses in a file. */
function columnNames(cfg: SparseAutoencoderConfig): string[] {
  return lossColumnNames(parameterLayout(cfg).own.map(({ name }) => name));
}

/** Every tensor of a file, with its shape. */
function shapesOf(
  { version, cfg, input, state: { optimizer }, n_losses }: Description,
): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>([["tokens_since_active", [cfg.d_sae]]]);
  if (version !== WITHOUT_RECENT_ERRORS) shapes.set("recent_errors", [RECENT_ERRORS]);
  if (input.hasMean) shapes.set("input_mean", [cfg.d_model]);
  for (const name of columnNames(cfg)) shapes.set(`losses.${name}`, [n_losses]);
  const estimated = activationKind(cfg.activation).parameters.filter(({ isTrained }) => !isTrained);
  for (const [name, shape] of parameterShapes(cfg)) {
    shapes.set(`parameters.${name}`, shape);
    if (estimated.some((parameter) => parameter.name === name)) continue;
    shapes.set(`moment1.${name}`, shape);
    if (optimizer === "muon" && (name === "W_enc" || name === "W_dec")) continue;
    shapes.set(`moment2.${name}`, shape);
  }
  return shapes;
}

/** @throws {CheckpointError} for a text that does not describe a training. */
function readDescription(doing: string, text: string | undefined): Description {
  if (text === undefined) throw new CheckpointError(`${doing}: its metadata has no ${DESCRIPTION}`);
  try {
    const { version, cfg, input, state: found, n_losses } = JSON.parse(text) as Description;
    if (version !== VERSION && version !== WITHOUT_RECENT_ERRORS) {
      throw new TypeError(`version ${JSON.stringify(version)}; expected ${WITHOUT_RECENT_ERRORS} or ${VERSION}`);
    }
    const state = version === WITHOUT_RECENT_ERRORS ? { ...found, stepsAbove: 0 } : found;
    for (const name of STATE) {
      if (!Number.isFinite(state[name])) throw new TypeError(`${name} ${JSON.stringify(state[name])}`);
    }
    const { step, n_tokens, stepsAbove } = state;
    for (const [name, value] of Object.entries({ step, n_tokens, stepsAbove, n_losses })) {
      if (!(Number.isSafeInteger(value) && value >= 0)) throw new TypeError(`${name} ${JSON.stringify(value)}`);
    }
    if (state.optimizer !== "adam" && state.optimizer !== "muon") {
      throw new TypeError(`the optimizer ${JSON.stringify(state.optimizer)}`);
    }
    const complete = completeConfig(cfg as SparseAutoencoderOptions);
    if (JSON.stringify(complete) !== JSON.stringify(cfg)) throw new TypeError("an incomplete configuration");
    const { hasMean, scale, pre_act_scale } = input;
    if (typeof hasMean !== "boolean" || !(scale > 0) || !(pre_act_scale > 0)) throw new TypeError("a wrong scaling");
    return { version, cfg: complete, input, state, n_losses };
  } catch (cause) {
    throw new CheckpointError(`${doing}: found ${(cause as Error).message}`, { cause });
  }
}
