/**
 * Loads the results of `saev tune` for commands that multiply matrices.
 *
 * @module
 */

import { defaultDevice, restoreTuning } from "../kernels/mod.ts";
import { TunerFile } from "../runner/mod.ts";
import { say } from "./command.ts";

/** Uses the results of `saev tune` for this machine; returns whether there are any. */
export async function useTuning(): Promise<boolean> {
  const store = await TunerFile.open();
  if (store.problem !== null) say(`not using results of saev tune: ${store.problem}`);
  return await restoreTuning(await defaultDevice(), store) > 0;
}

export const TUNED = "using the matrix kernels that saev tune found fastest";
