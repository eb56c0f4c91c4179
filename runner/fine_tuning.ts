/**
 * Runs that start from a checkpoint: the model is the checkpoint's, except for the fields that the configuration sets; the
 * optimizer starts anew.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { recogniseFiles } from "../io/checkpoints/recognised_files.ts";
import { REMEDIES } from "../io/checkpoints/remedies.ts";
import { load } from "../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../io/errors.ts";
import { type SourceOptions, withFiles } from "../io/files.ts";
import { shownAddress } from "../io/http.ts";
import type { Source } from "../io/source.ts";
import { activationKind, type ActivationOptions } from "../nn/activations/mod.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "../nn/config.ts";
import { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";

/** The checkpoint that a run started from. */
export interface RecordedCheckpoint {
  /** The file with the weights, in a form that may be shown. */
  readonly path: string;
  /** The SHA-256 of that file. */
  readonly sha256: string;
  /** The configuration of its model; for a run that has begun, that of the run. */
  readonly cfg: SparseAutoencoderConfig;
}

/** The checkpoint that a run will start from. */
export interface InitialCheckpoint extends RecordedCheckpoint {
  /** Warnings about the file. */
  readonly warnings: readonly string[];
  /**
   * Its model on the default device, with the configuration of the run.
   *
   * @throws {CheckpointError} as {@link openInitial}.
   */
  load(cfg: SparseAutoencoderConfig): Promise<SparseAutoencoder>;
}

/** Options for opening a checkpoint. */
export interface InitialOptions extends SourceOptions {
  /** The encoder formula, if the configuration sets it. */
  readonly subtract_b_dec?: boolean;
}

/**
 * Opens a checkpoint of any format. Its weights are read only for the hash.
 *
 * @throws {CheckpointError} for any other file, and for one that needs an option of `load`.
 */
export async function openInitial(from: string, options: InitialOptions): Promise<InitialCheckpoint> {
  const { subtract_b_dec, ...access } = options;
  const reading = { ...subtract_b_dec !== undefined && { subtract_b_dec } };
  const load = (cfg: SparseAutoencoderConfig) => loadInitial(from, cfg, options);
  return await explained(async () =>
    await withFiles(from, access, async (files) => {
      const recognised = await recogniseFiles(files);
      const { model: { cfg }, warnings } = await recognised.open(reading);
      const { source } = recognised;
      return { path: shownAddress(source.name), sha256: await hashOf(source), cfg, warnings, load };
    })
  );
}

/** Says of an error that it is about `init.from`, and how to get a file without the option that it recommends. */
async function explained<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof CheckpointError)) throw cause;
    const needsOption = Object.values(REMEDIES).some((remedy) => cause.message.includes(remedy));
    const hint = needsOption ? "; saev convert with that option writes a file for init.from" : "";
    throw new CheckpointError(`init.from: ${cause.message}${hint}`, { cause });
  }
}

const PIECE_BYTES = 2 ** 23;

async function hashOf(source: Source): Promise<string> {
  const hash = createHash("sha256");
  for (let at = 0; at < source.size; at += PIECE_BYTES) {
    hash.update(await source.read(at, Math.min(source.size, at + PIECE_BYTES)));
  }
  return hash.digest("hex");
}

/**
 * The model of a run that starts from a checkpoint with the configuration `file`: that of the file with the fields that
 * the run's configuration sets. Its parameters must be the file's.
 *
 * @throws {RangeError} for different widths, another encoder formula, or an activation with other trained parameters.
 */
export function fineTunedConfig(
  given: SparseAutoencoderOptions,
  { cfg: file, path }: Pick<RecordedCheckpoint, "cfg" | "path">,
): SparseAutoencoderConfig {
  for (const field of ["d_model", "d_sae", "subtract_b_dec"] as const) {
    if (given[field] === undefined || given[field] === file[field]) continue;
    throw new RangeError(
      `sae.${field} is ${given[field]}, but init.from, ${path}, has ${file[field]}; leave sae.${field} out`,
    );
  }
  const { activation = file.activation, ...others } = given;
  const merged = activation.key === file.activation.key
    ? { ...file.activation, ...activation } as ActivationOptions
    : activation;
  const trainedBy = ({ key }: Pick<ActivationOptions, "key">) =>
    activationKind({ key }).parameters.filter(({ isTrained }) => isTrained).map(({ name }) => name).join(", ");
  if (trainedBy(merged) !== trainedBy(file.activation)) {
    throw new RangeError(
      `sae.activation.key is ${merged.key}, but init.from, ${path}, has ${file.activation.key}, which has other parameters; ` +
        "leave sae.activation out, or train without init.from",
    );
  }
  return completeConfig({ ...file, ...others, activation: merged });
}

async function loadInitial(
  from: string,
  cfg: SparseAutoencoderConfig,
  options: InitialOptions,
): Promise<SparseAutoencoder> {
  using sae = await explained(() => load(from, options));
  const { threshold, ...parameters } = await sae.readParameters();
  // An estimated threshold belongs to the activation that it was estimated for.
  const keepsThreshold = threshold !== undefined && activationKind(cfg.activation).key === sae.cfg.activation.key;
  const { input, device } = sae;
  return await SparseAutoencoder.fromParameters(cfg, { ...parameters, ...keepsThreshold && { threshold } }, {
    input,
    device,
  });
}
