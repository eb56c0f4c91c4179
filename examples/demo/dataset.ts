/**
 * The demo's data: whitened patches of six photographs to train on, and of two that training never sees.
 *
 * @module
 */
import {
  concatenate,
  cutPatches,
  HELD_OUT_PHOTOGRAPHS,
  loadPhotograph,
  type Patches,
  TRAINING_PHOTOGRAPHS,
} from "./patches.ts";
import { fitWhitening, whiten, type Whitening } from "./whitening.ts";

/** Side of a patch in pixels. */
export const PATCH_SIZE = 12;

/** Principal components kept of its 144 numbers: 99 % of the variance. The rest is mostly compression noise. */
export const COMPONENTS = 100;

const TRAINING_STRIDE = 3;
const HELD_OUT_STRIDE = 4;
const LEAST_CONTRAST = 0.02;

/** Whitened patches, and how to go back to pixels. */
export interface Dataset {
  /** Fitted to the training patches. */
  readonly whitening: Whitening;
  /** [n, COMPONENTS], in the order of the photographs. */
  readonly training: Float32Array;
  /** [m, COMPONENTS]: all patches of the held-out photographs, flat sky included. */
  readonly heldOut: Float32Array;
  /** The same patches as pixels, by photograph. */
  readonly heldOutPatches: readonly Patches[];
}

/** Loads, cuts and whitens; takes about two seconds. */
export async function loadDataset(): Promise<Dataset> {
  const cut = async (names: readonly string[], stride: number, leastContrast: number): Promise<Patches[]> => {
    const photographs = await Promise.all(names.map((name) => loadPhotograph(name)));
    return photographs.map((photograph) => cutPatches(photograph, { size: PATCH_SIZE, stride, leastContrast }));
  };
  const trainingPatches = concatenate(
    (await cut(TRAINING_PHOTOGRAPHS, TRAINING_STRIDE, LEAST_CONTRAST)).map(({ values }) => values),
  );
  const heldOutPatches = await cut(HELD_OUT_PHOTOGRAPHS, HELD_OUT_STRIDE, 0);
  const whitening = fitWhitening(trainingPatches, PATCH_SIZE ** 2, COMPONENTS);
  return {
    whitening,
    training: whiten(whitening, trainingPatches),
    heldOut: whiten(whitening, concatenate(heldOutPatches.map(({ values }) => values))),
    heldOutPatches,
  };
}
