/**
 * Rows, with what a folder of activation shards adds: the labels of its patches, and the shards' name.
 *
 * @module
 */

import { openRows, type RowFileOptions } from "../data/row_file.ts";
import { hashMetadata } from "../data/shards/metadata.ts";
import { openShards } from "../data/shards/reader.ts";
import type { RowSource } from "../nn/rows.ts";
import { fingerprintOf } from "./fingerprint.ts";

/** Rows and what is known about them. */
export interface Tokens {
  /** The rows. */
  readonly rows: RowSource;
  /** The label of each row, for the content tokens of shards with `labels.bin`. */
  readonly labels: Uint8Array | null;
  /** Eight digits: for shards their name in the Python package, for other rows part of their fingerprint. */
  readonly hash: string;
  /** The layer of shards. */
  readonly layer: number | null;
}

/** Opens rows as {@link openRows} does. @throws what that throws. */
export async function openTokens(from: string, options: Omit<RowFileOptions, "ignore_labels">): Promise<Tokens> {
  const rows = await openRows(from, options);
  if (!("rows_per_example" in rows)) {
    return { rows, labels: null, hash: (await fingerprintOf(rows)).sha256.slice(0, 8), layer: null };
  }
  const { hub, signal, tokens, layer } = options;
  const { metadata, readLabels } = await openShards(from, { ...hub && { hub }, ...signal && { signal } });
  return {
    rows,
    labels: (tokens ?? "content") === "content" ? await readLabels() : null,
    hash: await hashMetadata(metadata),
    layer: layer ?? metadata.layers[0]!,
  };
}
