/**
 * The images that activation shards are of: which example is which file, and how its pixels became patches.
 *
 * @module
 */

import type { Preprocessing } from "../data/images.ts";
import type { ImageSize } from "../data/resample.ts";
import type { ShardsMetadata } from "../data/shards/metadata.ts";
import { listImages } from "./image_folder.ts";

/** The images of shards. */
export interface ShardImages {
  /** Paths below the folder of images, in the order of the examples. */
  readonly paths: readonly string[];
  /** Their classes; `null` without. */
  readonly classes: { readonly names: readonly string[]; readonly labels: readonly number[] } | null;
  /** What was done with an image before the model saw it; `null` where the folder does not say. */
  readonly preprocessing: Preprocessing | null;
  /** Patches of an image. */
  readonly grid: ImageSize;
}

/**
 * Finds the images of shards: by `extraction.json` and `labels.json`, which `saev activations` writes beside them, and
 * otherwise all images of the folder in order.
 *
 * @throws {RangeError} if there are not as many images as examples, the first is not there, or the patches are no square.
 */
export async function shardImages(
  shards: string,
  root: string,
  { n_examples, content_tokens_per_example: patches }: ShardsMetadata,
  givenGrid: ImageSize | null = null,
): Promise<ShardImages> {
  const about = await readBeside(shards, "extraction.json") as Extraction | null;
  const listed = about === null ? await listImages(root) : null;
  const paths = about === null ? listed!.paths : about.images.paths;
  if (paths.length !== n_examples) {
    throw new RangeError(
      `${shards} has ${n_examples} examples; expected one for each image, found ${paths.length} images in ` +
        (about === null ? root : `${shards}/extraction.json`),
    );
  }
  const isThere = await Deno.stat(`${root}/${paths[0]}`).then(({ isFile }) => isFile, () => false);
  if (!isThere) {
    throw new RangeError(`${root} has no image ${paths[0]}; expected the folder from which ${shards} was made`);
  }
  const side = Math.sqrt(patches);
  const grid = givenGrid ?? about?.tokens.grid ?? { height: side, width: side };
  if (!Number.isInteger(grid.height) || grid.height * grid.width !== patches) {
    throw new RangeError(
      givenGrid === null
        ? `${shards} has ${patches} patches per image, which is not a square; give the grid`
        : `${shards} has ${patches} patches per image; expected ${grid.height} × ${grid.width}`,
    );
  }
  const classes = about === null ? listed!.classes : await readBeside(shards, "labels.json") as ShardImages["classes"];
  return { paths, classes, preprocessing: about?.preprocessing ?? null, grid };
}

/** What is read of `extraction.json`. */
interface Extraction {
  readonly images: { readonly paths: readonly string[] };
  readonly tokens: { readonly grid: ImageSize };
  readonly preprocessing: Preprocessing;
}

/** Pixels of the longer edge of images on pages. */
const THUMBNAIL_EDGE = 256;

/** The same part of an image as a model sees, in as many pixels as pages show. */
export function thumbnailPlan(preprocessing: Preprocessing): Preprocessing {
  const { resize, crop } = preprocessing;
  const size = crop ?? (resize && "height" in resize ? resize : null);
  if (size === null) return preprocessing;
  const factor = THUMBNAIL_EDGE / Math.max(size.height, size.width);
  const scaled = (length: number): number => Math.max(1, Math.round(length * factor));
  const bothScaled = ({ height, width }: ImageSize): ImageSize => ({ height: scaled(height), width: scaled(width) });
  return {
    ...preprocessing,
    resample: "bicubic",
    ...resize && {
      resize: "height" in resize ? bothScaled(resize) : { shortest_edge: scaled(resize.shortest_edge) },
    },
    ...crop && { crop: bothScaled(crop) },
  };
}

async function readBeside(folder: string, name: string): Promise<unknown> {
  const text = await Deno.readTextFile(`${folder}/${name}`).catch((error: unknown) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
  if (text === null) return null;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new RangeError(`reading ${folder}/${name}: it is not JSON; ${(cause as Error).message}`, { cause });
  }
}
