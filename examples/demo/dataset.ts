/**
 * The demo's data: whitened patches of some photographs to train on, and of others that are held out.
 *
 * @module
 */
import { COMMITTED, concatenate, cutPatches, type GreyImage, type Patches, type PhotographSet } from "./patches.ts";
import { fitWhitening, whiten, type Whitening } from "./whitening.ts";

/** Width and height of a patch in pixels. */
export const PATCH_SIZE = 12;

/** Principal components kept of the 144 numbers: 99 % of the variance. The rest is mostly compression noise. */
export const COMPONENTS = 100;

/** Pixels between patches; increased if there would be more patches than the limit. */
const TRAINING = { stride: 3, maxPatches: 250_000, leastContrast: 0.02 };
const HELD_OUT = { stride: 4, maxPatches: 60_000, leastContrast: 0 };

/** Whitened patches, and the transform back to pixels. */
export interface Dataset {
  /** Their source. */
  readonly photographs: PhotographSet;
  /** Fitted to the training patches. */
  readonly whitening: Whitening;
  /** [n, COMPONENTS], in the order of the photographs. */
  readonly training: Float32Array;
  /** [m, COMPONENTS]: all patches of the held-out photographs, including flat sky. */
  readonly heldOut: Float32Array;
  /** The same patches as pixels, by photograph. */
  readonly heldOutPatches: readonly Patches[];
}

/**
 * Loads, cuts and whitens; takes about two seconds for the photographs of the package.
 *
 * @throws {RangeError} if the photographs have fewer patches with contrast than components to keep.
 */
export async function loadDataset(photographs: PhotographSet = COMMITTED): Promise<Dataset> {
  const { training, heldOut, load } = photographs;
  const trainingPatches = concatenate((await cut(training, load, TRAINING)).map(({ values }) => values));
  const n_patches = trainingPatches.length / PATCH_SIZE ** 2;
  const heldOutPatches = await cut(heldOut, load, HELD_OUT);
  if (n_patches < COMPONENTS || heldOutPatches.every(({ corners }) => corners.length === 0)) {
    throw new RangeError(
      `cutting patches of ${PATCH_SIZE} × ${PATCH_SIZE} pixels: found ${n_patches} with contrast in ${training.length} ` +
        `training photographs; expected at least ${COMPONENTS}, and some in the ${heldOut.length} held out. Use more or larger photographs`,
    );
  }
  const whitening = fitWhitening(trainingPatches, PATCH_SIZE ** 2, COMPONENTS);
  return {
    photographs,
    whitening,
    training: whiten(whitening, trainingPatches),
    heldOut: whiten(whitening, concatenate(heldOutPatches.map(({ values }) => values))),
    heldOutPatches,
  };
}

/** The patches of each photograph, on the finest grid that does not exceed the limit. */
async function cut(
  names: readonly string[],
  load: (name: string) => Promise<GreyImage>,
  { stride, maxPatches, leastContrast }: typeof TRAINING,
): Promise<Patches[]> {
  const images: GreyImage[] = [];
  for (const name of names) images.push(await load(name));
  const along = (side: number, stride: number) => Math.max(0, Math.floor((side - PATCH_SIZE) / stride) + 1);
  const count = (stride: number) =>
    images.reduce((sum, { width, height }) => sum + along(width, stride) * along(height, stride), 0);
  let taken = stride;
  while (count(taken) > maxPatches) taken++;
  return images.map((image) => cutPatches(image, { size: PATCH_SIZE, stride: taken, leastContrast }));
}
