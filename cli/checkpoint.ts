/**
 * What commands that open a checkpoint share: options, help, and the display of downloads.
 *
 * @module
 */

import { type Concession, type ReadOptions, REMEDIES, type SourceOptions } from "../io/mod.ts";
import { DownloadLine, printable } from "../runner/mod.ts";
import { type Arguments, type Option, say, unknown } from "./command.ts";

export const CHECKPOINT_DETAILS =
  `CHECKPOINT is a file, a folder, a web address, or hf:owner/repository/path@revision, in the format of saev, SAELens,
dictionary_learning, sparsify, OpenAI, Gemma Scope, ViT-Prisma, Llamascopium or Llama Scope. The format is detected from the content.`;

/** Options for what a file may leave open and its user may know. */
export const READ_OPTIONS: Readonly<Record<string, Option>> = {
  "subtract-b-dec": {
    value: "WHETHER",
    help: "yes or no: whether the encoder subtracts b_dec, if you know better than the file's schema",
  },
  accept: {
    value: "WHAT",
    help:
      "load a model that this library computes differently: normalised-rows, rescaled-codes, or both separated by a comma",
  },
  "input-scale": {
    value: "X",
    help: "factor by which your inputs exceed the training inputs, if the file does not hold it",
  },
};

export function readOptions(args: Arguments): ReadOptions {
  const subtracts = args.choice("subtract-b-dec", ["yes", "no"]);
  const scale = args.number("input-scale", 0);
  const accept = args.text("accept")?.split(",") ?? [];
  const unknownOne = accept.find((what) => !CONCESSIONS.includes(what as Concession));
  if (unknownOne !== undefined) throw unknown("value of --accept", unknownOne, CONCESSIONS);
  return {
    accept: accept as Concession[],
    ...subtracts && { subtract_b_dec: subtracts === "yes" },
    ...scale !== undefined && { input: { mean: null, scale } },
  };
}

/** Shows the progress of downloads during `work`, and reports delays. */
export async function opening<T>(signal: AbortSignal, work: (source: SourceOptions) => Promise<T>): Promise<T> {
  using line = new DownloadLine();
  const onNotice = (notice: string): void => {
    line[Symbol.dispose]();
    say(printable(notice));
  };
  return await work({ signal, hub: { onProgress: (state) => line.show(state), onNotice } });
}

const CONCESSIONS = ["normalised-rows", "rescaled-codes"] as const satisfies readonly Concession[];

/** The command-line form of each remedy. */
const FLAGS: Readonly<Record<keyof typeof REMEDIES, string>> = {
  normalisedRows: "--accept normalised-rows",
  rescaledCodes: "--accept rescaled-codes",
  inputScale: "--input-scale scale",
  subtracts: "--subtract-b-dec yes",
  doesNotSubtract: "--subtract-b-dec no",
  lossy: "--lossy",
  overwrite: "--overwrite",
  noNegativeCodes: "relu = true in [sae.activation]",
  schema5: "--schema 5",
  schema5Folded: "--schema 5",
  schema1: "--schema 1",
  ownSchema: "--to saev_nn",
};

/** A message of the library, with its remedies as command-line flags. */
export function inFlags(message: string): string {
  const remedies = Object.keys(REMEDIES) as (keyof typeof REMEDIES)[];
  return remedies.reduce((text, remedy) => text.replaceAll(REMEDIES[remedy], FLAGS[remedy]), message);
}

/** Prints the warnings about a file. */
export function warn(warnings: readonly string[]): void {
  // One line each, whatever line breaks the names in a file contain.
  for (const warning of warnings) say(`warning: ${printable(inFlags(warning))}`);
}
