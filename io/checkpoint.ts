/**
 * Models to files and back.
 *
 * @module
 */

import { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { type ByteTarget, type FilesSource, openFiles, type SourceOptions, writeBytes } from "./files.ts";
import { readModel, type ReadOptions, recognise } from "./formats/recognise.ts";
import { formatCheckpointPieces, type FormatOptions } from "./formats/saev.ts";
import { parameterPieces, type ParsedCheckpoint } from "./model.ts";
import { joinBytes } from "./source.ts";

/** How to write a model. */
export type DumpOptions = FormatOptions;

/** How to read a model. */
export interface LoadOptions extends ReadOptions, SourceOptions {
  /** Where the parameters go; the shared default device where it is left out. */
  readonly device?: GPUDevice;
}

/** What {@link dump} needs of a model. */
export type Dumpable = Pick<SparseAutoencoder, "cfg" | "input" | "readParameters">;

/**
 * Writes a model as a file that Python's `saev.nn.load` reads as the same function.
 *
 * At a path or a `file:` URL folders are made, and the file is replaced at once or not at all. An open file handle or
 * stream stays open.
 *
 * @example
 * ```ts
 * import { dump, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 });
 * const folder = await Deno.makeTempDir();
 * await dump(`${folder}/runs/mine/sae.pt`, sae);
 * await Deno.remove(folder, { recursive: true });
 * ```
 *
 * @throws {CheckpointError} where no such file can say exactly what the model computes; see {@link DumpOptions}. Nothing
 * is written then.
 */
export async function dump(to: ByteTarget, sae: Dumpable, options: DumpOptions = {}): Promise<void> {
  await writeBytes(to, formatCheckpointPieces(sae.cfg, await sae.readParameters(), sae.input, options));
}

/**
 * The bytes that {@link dump} writes. Equal models give equal bytes.
 *
 * @throws {CheckpointError} as {@link dump}.
 */
export async function dumpBytes(sae: Dumpable, options: DumpOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
  return joinBytes(formatCheckpointPieces(sae.cfg, await sae.readParameters(), sae.input, options));
}

/**
 * Reads a model from a path, a web address, the Hugging Face hub (`hf:owner/repository/sae.pt@revision`), a browser's
 * file, or bytes; for formats of several files from their folder, or from one of them beside the others.
 *
 * The format is known by what the files hold: `saev` in all its schemas, SAELens, dictionary_learning, sparsify, OpenAI,
 * Gemma Scope 1 and 2, ViT-Prisma, Llamascopium, Llama Scope. The model computes what the library computes from the file, or there is an
 * error that names the field with which it could not. Nothing in a file is executed, and everything in it is checked: the
 * archive's checksums, the configuration's fields, names and shapes of the tensors, and that every number is finite.
 *
 * Parameters go to the device as they are read: beside the device's memory it takes some 100 MB, however large the file is.
 * Weights that have to be computed from those in the file (a SAELens topk with `rescale_acts_by_decoder_norm`,
 * Llamascopium's topk with `sparsity_include_decoder_norm`, every Llama Scope) are held as a whole meanwhile, up to three
 * times.
 *
 * @example
 * ```ts
 * import { dumpBytes, load, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 });
 * using again = await load(await dumpBytes(sae));
 * console.log(again.cfg.d_sae);
 * ```
 *
 * @throws {CheckpointError} naming what was found, for any file that is not such a checkpoint.
 */
export async function load(from: FilesSource, options: LoadOptions = {}): Promise<SparseAutoencoder> {
  const { device, hub, ...readOptions } = options;
  const recognised = await recognise(await openFiles(from, hub === undefined ? {} : { hub }));
  const { cfg, parameters, input } = (await recognised.open(readOptions)).model;
  return await SparseAutoencoder.fromPieces(cfg, parameterPieces(parameters), {
    input,
    ...(device === undefined ? {} : { device }),
  });
}

/**
 * What {@link load} reads, without a GPU: the configuration, and the parameters as arrays.
 *
 * @throws {CheckpointError} as {@link load}.
 */
export async function readCheckpoint(
  from: FilesSource,
  options: Omit<LoadOptions, "device"> = {},
): Promise<ParsedCheckpoint> {
  const { hub, ...readOptions } = options;
  const recognised = await recognise(await openFiles(from, hub === undefined ? {} : { hub }));
  return (await readModel(recognised, readOptions)).model;
}
