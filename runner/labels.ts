/**
 * The class of each token: from the patches of shards, from their images, or from a file.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { hashMetadata, type ShardsMetadata } from "../data/shards/metadata.ts";
import { readFolderMetadata, readLabels } from "../data/shards/reader.ts";
import { CheckpointError } from "../io/errors.ts";
import type { FileSet } from "../io/file_set.ts";
import { openFiles, openSource, type SourceOptions } from "../io/files.ts";
import { readJsonObject } from "../io/json.ts";
import { openNpy } from "../io/npy.ts";

/** The classes of tokens. */
export interface TokenLabels {
  /** The class of each token, from 0. */
  readonly labels: Uint16Array;
  /** Names of the classes by number, if known. */
  readonly names: readonly string[] | null;
  /** The shards' name in the Python package; `null` for a file. */
  readonly hash: string | null;
}

/**
 * Opens the classes of tokens: those of a folder of shards are in its `labels.bin`, or in `labels.json` for each image
 * as `saev activations` writes it; a `.npy` file has an integer for each token. The activations are not read.
 *
 * @throws {CheckpointError} for anything else; the message says what was found.
 */
export async function openLabels(from: string, options: SourceOptions = {}): Promise<TokenLabels> {
  checkOptions("openLabels", options, { hub: true, signal: true });
  const files = await openFiles(from, options);
  if (files.main !== null) {
    const array = await openNpy(await openSource(from, options));
    return { labels: asClasses(await array.readIntegers(), from), names: null, hash: null };
  }
  const metadata = await readFolderMetadata(files);
  const hash = await hashMetadata(metadata);
  const labels = await readLabels(files, metadata);
  if (labels !== null) return { labels: Uint16Array.from(labels), names: null, hash };
  return { ...await ofImages(files, metadata), hash };
}

/** Every patch has the class of its image. */
async function ofImages(
  files: FileSet,
  { n_examples, content_tokens_per_example }: ShardsMetadata,
): Promise<Pick<TokenLabels, "labels" | "names">> {
  const source = await files.find("labels.json");
  if (source === null) {
    throw new CheckpointError(
      `reading ${files.name}: found neither labels.bin, a class for each patch, nor labels.json, one for each image`,
    );
  }
  const json = await readJsonObject(source);
  const [names, ofImage] = [json.get("names"), json.get("labels")];
  const areNames = Array.isArray(names) && names.every((name) => typeof name === "string");
  if (!areNames || !Array.isArray(ofImage) || ofImage.length !== n_examples) {
    throw new CheckpointError(`reading ${source.name}: expected names, and labels of ${n_examples} images`);
  }
  const classes = asClasses(ofImage as readonly number[], source.name);
  const labels = new Uint16Array(n_examples * content_tokens_per_example);
  classes.forEach((label, image) => {
    labels.fill(label, image * content_tokens_per_example, (image + 1) * content_tokens_per_example);
  });
  return { labels, names: names as string[] };
}

function asClasses(numbers: ArrayLike<number>, name: string): Uint16Array {
  return Uint16Array.from(numbers, (label, i) => {
    if (Number.isInteger(label) && label >= 0 && label < 2 ** 16) return label;
    throw new CheckpointError(`reading ${name}: label ${i} is ${label}; expected an integer from 0 to 65535`);
  });
}
