/**
 * A user's own photographs for the demo: a folder of images, each scaled to about the size of those in the package.
 *
 * @module
 */

import { type ImageDecoder, resample } from "../../data/mod.ts";
import { listImages } from "../../runner/mod.ts";
import { type GreyImage, type PhotographSet, toGrey } from "./patches.ts";

/**
 * Longer images are scaled to this many pixels, so that edges are a few pixels wide, as in the photographs of the
 * package.
 */
const LONGEST_SIDE = 512;

/** Largest number of photographs used, spread evenly over all. */
const MAX_PHOTOGRAPHS = 200;

/** One in this many photographs is held out. */
const HELD_OUT_EVERY = 4;

/** The result of {@link ownPhotographs}. */
export interface OwnPhotographs extends PhotographSet {
  /** Number of images in the folder. */
  readonly n_found: number;
}

/**
 * The photographs of a folder, every fourth of which is held out. The decoder is opened only if there are enough.
 *
 * @throws {RangeError} if there are fewer than two.
 */
export async function ownPhotographs(
  folder: string,
  openDecoder: () => Promise<ImageDecoder>,
): Promise<OwnPhotographs> {
  const { paths } = await listImages(folder);
  if (paths.length < 2) {
    throw new RangeError(
      `reading ${folder}: found ${paths.length} image; expected at least two, one to train on and one to evaluate on`,
    );
  }
  const decoder = await openDecoder();
  const n = Math.min(paths.length, MAX_PHOTOGRAPHS);
  const taken = Array.from({ length: n }, (_, i) => paths[Math.floor(i * paths.length / n)]!);
  const isHeldOut = (i: number): boolean => i % HELD_OUT_EVERY === Math.min(HELD_OUT_EVERY, n) - 1;
  return {
    n_found: paths.length,
    path: folder,
    training: taken.filter((_, i) => !isHeldOut(i)),
    heldOut: taken.filter((_, i) => isHeldOut(i)),
    load: (path) => loadScaled(`${folder}/${path}`, decoder),
  };
}

/** An image in grey, at most as long as the limit. */
async function loadScaled(path: string, decoder: ImageDecoder): Promise<GreyImage> {
  let image: Awaited<ReturnType<ImageDecoder["decode"]>>;
  try {
    image = await decoder.decode(path);
  } catch (error) {
    throw new RangeError(`decoding ${path}: ${error instanceof Error ? error.message.split("\n")[0] : error}`, {
      cause: error,
    });
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale))) as [
    number,
    number,
  ];
  const plan = { resized: { width, height }, crop: { width, height, left: 0, top: 0 } };
  return toGrey(resample(image, plan, { filter: "lanczos", channels: 3 }));
}
