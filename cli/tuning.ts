/**
 * What `saev tune` found, for the commands that multiply.
 *
 * @module
 */

import { defaultDevice, restoreTuning } from "../kernels/mod.ts";
import { TunerFile } from "../runner/mod.ts";

/** Multiplies as `saev tune` found best on this machine, if it was asked; says whether it was. */
export async function useTuning(): Promise<boolean> {
  return await restoreTuning(await defaultDevice(), await TunerFile.open()) > 0;
}

export const TUNED = "matrices are multiplied as saev tune found best";
