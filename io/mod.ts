/**
 * Files: checkpoints that the Python package `saev` reads and writes, PyTorch files of plain tensors, and `.npy`
 * matrices.
 *
 * @example
 * ```ts ignore
 * import { dump, load, readNpy } from "@saev/nn/io";
 *
 * using sae = await load("sae.pt");
 * const { data, rows } = readNpy(await Deno.readFile("activations.npy"));
 * await dump("copy.pt", sae);
 * ```
 *
 * @module
 */

export { dump, type Dumpable, dumpBytes, type DumpOptions, load, type LoadOptions } from "./checkpoint.ts";
export { CheckpointError } from "./errors.ts";
export type { ByteSink, ByteSource, ByteTarget } from "./files.ts";
export {
  type CheckpointSchema,
  formatCheckpoint,
  type FormatOptions,
  parseCheckpoint,
  type ParsedCheckpoint,
  type ParseOptions,
} from "./formats/saev.ts";
export { type NpyMatrix, readNpy, writeNpy } from "./npy.ts";
export type { FloatType } from "./numbers.ts";
export { readTorchFile, type TorchTensor } from "./torch_file.ts";
