/**
 * What `saev tune` found, for the commands that multiply.
 *
 * @module
 */

import { defaultDevice, restoreTuning } from "../kernels/mod.ts";
import { TunerFile } from "../runner/mod.ts";
import { say } from "./command.ts";

/** Multiplies as `saev tune` found best on this machine, if it was asked; says whether it was. */
export async function useTuning(): Promise<boolean> {
  const store = await TunerFile.open();
  if (store.problem !== null) say(`not using results of saev tune: ${store.problem}`);
  return await restoreTuning(await defaultDevice(), store) > 0;
}

export const TUNED = "using the matrix kernels that saev tune found fastest";
