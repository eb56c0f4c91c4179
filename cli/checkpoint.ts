/**
 * What every command that opens a checkpoint shares: its options, its help, and how downloads show.
 *
 * @module
 */

import type { ReadOptions, SourceOptions } from "../io/mod.ts";
import { CheckpointError } from "../mod.ts";
import { DownloadLine } from "../runner/mod.ts";
import type { Arguments, Option } from "./command.ts";

export const CHECKPOINT_DETAILS =
  `CHECKPOINT is a file, a folder, a web address, or hf:owner/repository/path@revision, of saev, SAELens,
dictionary_learning, sparsify, OpenAI, Gemma Scope, ViT-Prisma, Llamascopium or Llama Scope. What it is is known by its content.`;

/** What a file may leave open and its user know. */
export const READ_OPTIONS: Readonly<Record<string, Option>> = {
  "subtract-b-dec": {
    value: "WHETHER",
    help: "yes or no: the encoder formula, where you know better than saev's schema",
  },
  "input-scale": { value: "X", help: "how often larger the inputs are than those trained on, where the file lacks it" },
};

export function readOptions(args: Arguments): ReadOptions {
  const subtracts = args.choice("subtract-b-dec", ["yes", "no"]);
  const scale = args.number("input-scale", 0);
  return {
    ...subtracts && { subtract_b_dec: subtracts === "yes" },
    ...scale !== undefined && { input: { mean: null, scale } },
  };
}

/** Shows the way of whatever is downloaded meanwhile, and names the checkpoint where an error does not. */
export async function opening<T>(
  checkpoint: string,
  signal: AbortSignal,
  work: (source: SourceOptions) => Promise<T>,
): Promise<T> {
  using line = new DownloadLine();
  try {
    return await work({ signal, hub: { onProgress: (state) => line.show(state) } });
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.message.includes(checkpoint)) throw error;
    throw new CheckpointError(`${checkpoint}: ${error.message}`, { cause: error });
  }
}

/** Text out of a file without anything that a terminal would obey. */
export function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]+/g, " ");
}
