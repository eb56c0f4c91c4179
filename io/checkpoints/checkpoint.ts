/**
 * Writes models to files and reads them back.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import type { WeightStorage } from "../../nn/arrays.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { crc32 } from "../crc32.ts";
import { CheckpointError } from "../errors.ts";
import {
  type ByteTarget,
  type FilesSource,
  SOURCE_OPTIONS,
  type SourceOptions,
  withFiles,
  writeBytes,
} from "../files.ts";
import type { Folded } from "../fold.ts";
import { READ_OPTIONS, type ReadOptions } from "./format.ts";
import { readModel, recogniseFiles } from "./recognised_files.ts";
import type { ReadCheckpoint } from "./saev_reader.ts";
import { FORMAT_OPTIONS, type FormatOptions, planCheckpoint } from "./saev_schemas.ts";
import { formatCheckpointPieces, formatMeasuredCheckpoint, type MeasuredParameter } from "./saev_writer.ts";
import { checkFinite, type ParameterName, parameterPieces } from "../model.ts";
import { littleEndianBytes } from "../numbers.ts";
import { type FilePart, joinBytes, partPieces } from "../source.ts";

/** Options of {@link dump}. */
export type DumpOptions = FormatOptions;

/** Options of {@link load}. */
export interface LoadOptions extends ReadOptions, SourceOptions {
  /** The device of the parameters; the shared default device if left out. */
  readonly device?: GPUDevice;
  /**
   * Precision of W_enc and W_dec on the device; `"f32"` if left out. `"f16"` takes half the memory; values are rounded
   * to the nearest f16, and the model cannot be trained.
   */
  readonly weights?: WeightStorage;
}

/** A model read from a file. */
export type LoadedAutoencoder = SparseAutoencoder & {
  /**
   * Warnings about the file, one sentence each, with what would settle the doubt: for example that its encoder formula
   * is unknown, or that codes depended on the batch in training. Usually empty.
   */
  readonly warnings: readonly string[];
};

/** The part of a model that {@link dump} needs. */
export type Dumpable = Pick<SparseAutoencoder, "cfg" | "input" | "readParameters" | "readPieces">;

/** The result of {@link dump}. */
export interface Dumped {
  /**
   * What was folded into the parameters because the file has no field for it. The file then computes the same up to one
   * rounding of `b_enc`, and of what a scale multiplies. If empty, {@link load} returns the same configuration and the
   * same bits.
   */
  readonly folded: readonly Folded[];
}

/**
 * Writes a model as a file that Python's `saev.nn.load` reads as the same function.
 *
 * Python's format has no field for `subtract_b_dec`, nor for a mean and a scale of the inputs. They are folded into the
 * parameters, and the result says so; see {@link DumpOptions} for alternatives.
 *
 * At a path or a `file:` URL folders are made, and a file that stands there is replaced, at once or not at all: what
 * may be replaced is the program's own decision. A link is followed to its target; a pipe or a device is written into.
 * An open file handle or stream stays open.
 *
 * Parameters go from the device to the file in pieces: beside the device's memory it takes some 100 MB, however large
 * the model is. Folding holds them as a whole meanwhile, up to three times.
 *
 * @example
 * ```ts
 * import { dump, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 });
 * const folder = await Deno.makeTempDir();
 * const { folded } = await dump(`${folder}/runs/mine/sae.pt`, sae);
 * console.log(folded.length); // 0: load gives back the same bits
 * await Deno.remove(folder, { recursive: true });
 * ```
 *
 * @throws {CheckpointError} where no such file can say what the model computes; see {@link DumpOptions}. Nothing is
 * written then. Also where a matrix changes meanwhile: the model must not be trained before this is done.
 * @throws {TypeError} for an unknown option.
 */
export async function dump(to: ByteTarget, sae: Dumpable, options: DumpOptions = {}): Promise<Dumped> {
  const { parts, folded } = await checkpointParts(sae, options);
  await writeBytes(to, parts);
  return { folded };
}

/**
 * The bytes that {@link dump} writes. Equal models give equal bytes. With `fold: false` they are never those of a
 * folded model.
 *
 * @throws {CheckpointError} as {@link dump}.
 * @throws {TypeError} for an unknown option.
 */
export async function dumpBytes(sae: Dumpable, options: DumpOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
  const { parts } = await checkpointParts(sae, options);
  return joinBytes(await Array.fromAsync(partPieces(parts)));
}

async function checkpointParts(
  sae: Dumpable,
  options: DumpOptions,
): Promise<Dumped & { readonly parts: readonly FilePart[] }> {
  checkOptions("dump", options, FORMAT_OPTIONS);
  const { schema, folded } = planCheckpoint(sae, options);
  if (folded.length > 0) {
    return { folded, parts: formatCheckpointPieces(sae.cfg, await sae.readParameters(), sae.input, { schema }) };
  }
  const names = Object.keys(sae.readPieces()) as ParameterName[];
  const measured = await Promise.all(names.map(async (name) => [name, await measure(sae, name)] as const));
  return { folded, parts: formatMeasuredCheckpoint(sae, Object.fromEntries(measured), schema) };
}

/**
 * Measures a parameter and checks that it is finite. A large one is measured before anything is written and read again
 * when it is written; it must not have changed.
 */
async function measure(sae: Dumpable, name: ParameterName): Promise<MeasuredParameter> {
  const { pieces, isTransposed } = sae.readPieces()[name]!;
  let [length, checksum, n_pieces] = [0, 0, 0];
  let last = new Float32Array();
  for await (const piece of pieces) {
    checkFinite("writing a checkpoint", name, piece, length);
    [length, checksum, n_pieces] = [length + piece.length, crc32(littleEndianBytes(piece), checksum), n_pieces + 1];
    last = piece as Float32Array<ArrayBuffer>;
  }
  if (n_pieces <= 1) return { data: last, isTransposed };
  const again = async function* (): AsyncGenerator<Uint8Array> {
    let found = 0;
    for await (const piece of sae.readPieces()[name]!.pieces) {
      const bytes = littleEndianBytes(piece);
      found = crc32(bytes, found);
      yield bytes;
    }
    if (found !== checksum) {
      throw new CheckpointError(`writing a checkpoint: ${name} changed while it was being written`);
    }
  };
  return { data: { length, crc32: checksum, pieces: again }, isTransposed };
}

/**
 * Reads a model from a path, a web address, the Hugging Face hub (`hf:owner/repository/sae.pt@revision`), a browser's
 * file, or bytes. A format of several files can be given by its folder, or by one of the files beside the others.
 *
 * The format is known by what the files hold: `saev` in all its schemas, SAELens, dictionary_learning, sparsify,
 * OpenAI, Gemma Scope 1 and 2, ViT-Prisma, Llamascopium, Llama Scope. The model computes what the library computes from
 * the file, or there is an error that names the field with which it could not. Nothing in a file is executed, and
 * everything in it is checked: the archive's checksums, the configuration's fields, names and shapes of the tensors,
 * and that every number is finite.
 *
 * Parameters go to the device as they are read: beside the device's memory it takes some 100 MB, however large the file
 * is. Weights that have to be computed from those in the file (a SAELens topk with `rescale_acts_by_decoder_norm`,
 * Llamascopium's topk with `sparsity_include_decoder_norm`, every Llama Scope) are held as a whole meanwhile, up to
 * three times.
 *
 * What a file leaves open is in the model's `warnings`; nothing is printed.
 *
 * @example
 * ```ts
 * import { dumpBytes, load, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 });
 * using again = await load(await dumpBytes(sae));
 * console.log(again.cfg.d_sae, again.warnings);
 * ```
 *
 * @throws {CheckpointError} naming what was found, for any file that is not such a checkpoint.
 * @throws {RangeError} for other `weights` than there are, or `"f16"` where a matrix has values that are larger than
 * any half.
 * @throws {TypeError} for an unknown option.
 */
export async function load(from: FilesSource, options: LoadOptions = {}): Promise<LoadedAutoencoder> {
  checkOptions("load", options, { ...READ_OPTIONS, ...SOURCE_OPTIONS, device: true, weights: true });
  const { device, weights, hub, signal, ...readOptions } = options;
  return await withFiles(from, { ...hub && { hub }, ...signal && { signal } }, async (files) => {
    const { model: { cfg, parameters, input }, warnings } = await (await recogniseFiles(files)).open(readOptions);
    const sae = await SparseAutoencoder.fromPieces(cfg, parameterPieces(parameters), {
      input,
      ...(device === undefined ? {} : { device }),
      ...(weights === undefined ? {} : { weights }),
    });
    return Object.assign(sae, { warnings: Object.freeze([...warnings]) });
  });
}

/**
 * What {@link load} reads, without a GPU: the configuration, and the parameters as arrays.
 *
 * @throws {CheckpointError} as {@link load}.
 * @throws {TypeError} for an unknown option.
 */
export async function readCheckpoint(
  from: FilesSource,
  options: Omit<LoadOptions, "device" | "weights"> = {},
): Promise<ReadCheckpoint> {
  checkOptions("readCheckpoint", options, { ...READ_OPTIONS, ...SOURCE_OPTIONS });
  const { hub, signal, ...readOptions } = options;
  return await withFiles(from, { ...hub && { hub }, ...signal && { signal } }, async (files) => {
    const { model, warnings } = await readModel(await recogniseFiles(files), readOptions);
    return Object.freeze({ ...model, warnings });
  });
}
