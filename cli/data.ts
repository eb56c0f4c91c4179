/**
 * What commands that open rows share: options and help.
 *
 * @module
 */

import { ROW_FORMATS, type RowFileOptions, SHARD_TOKENS } from "../data/mod.ts";
import type { Arguments, Option } from "./command.ts";

export const DATA_DETAILS =
  `DATA is a .npy, .npz or safetensors file, a file of bare numbers, or a folder of activation shards;
it is a path, a web address, or hf:owner/repository/path@revision. Its type is detected from the content, not the name.
A file of bare numbers such as acts.bin needs acts.json beside it, {"shape": [rows, columns], "dtype": "float32"},
or --format.`;

/** Options for what a file of rows may leave open. */
export const DATA_OPTIONS: Readonly<Record<string, Option>> = {
  format: { value: "FORMAT", help: "type of the numbers in a DATA file of bare numbers: f16, bf16, f32 or f64" },
  key: { value: "NAME", help: "name of the array in a .npz or safetensors DATA" },
  layer: { value: "N", help: "layer of the activation shards" },
  tokens: { value: "WHICH", help: "tokens of the activation shards: content, cls or all (default: content)" },
};

export function dataOptions(args: Arguments): Omit<RowFileOptions, "d_model"> {
  return {
    format: args.choice("format", ROW_FORMATS) ?? null,
    key: args.text("key") ?? null,
    layer: args.integer("layer", Number.MIN_SAFE_INTEGER) ?? null,
    tokens: args.choice("tokens", SHARD_TOKENS) ?? null,
  };
}
