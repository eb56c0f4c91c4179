/**
 * Fingerprints of rows and of models. The fingerprint of rows is their number, their width, and a hash of some blocks:
 * it distinguishes data of the same shape, but misses a change in rows between the blocks.
 *
 * @module
 */

import type { Dumpable } from "../io/checkpoints/checkpoint.ts";
import { crc32 } from "../io/crc32.ts";
import { littleEndianBytes } from "../io/numbers.ts";
import type { RowSource } from "../nn/rows.ts";

/** What identifies rows. */
export interface DataFingerprint {
  /** Their number. */
  readonly n_rows: number;
  /** Numbers in a row. */
  readonly d_model: number;
  /** The SHA-256 of the rows of all blocks as little-endian float32, one block after the other. */
  readonly sha256: string;
}

/** Bytes per block, and the number of blocks spread over the rows, from their start to their end. */
const BLOCK_BYTES = 2 ** 16;
const BLOCKS = 64;

/** Hashes the blocks, or all rows if these are not more. */
export async function fingerprintOf(source: RowSource): Promise<DataFingerprint> {
  const { n_rows, d_model } = source;
  const perBlock = Math.max(1, Math.floor(BLOCK_BYTES / (4 * d_model)));
  const count = Math.min(BLOCKS, Math.ceil(n_rows / perBlock));
  const blocks: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const from = count < BLOCKS ? i * perBlock : Math.floor(i * (n_rows - perBlock) / (BLOCKS - 1));
    blocks.push(littleEndianBytes(await source.read(from, Math.min(n_rows, from + perBlock))));
  }
  const bytes = await new Blob(blocks as Uint8Array<ArrayBuffer>[]).arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return { n_rows, d_model, sha256: hash.toHex() };
}

/** The SHA-256 of a model's configuration, the checksums of its parameters, and its input scaling. */
export async function modelFingerprint(sae: Dumpable): Promise<string> {
  const checksums: [string, number][] = [];
  for (const [name, { pieces }] of Object.entries(sae.readPieces())) {
    let checksum = 0;
    for await (const piece of pieces) checksum = crc32(littleEndianBytes(piece), checksum);
    checksums.push([name, checksum]);
  }
  const { mean, ...scales } = sae.input;
  const text = JSON.stringify([sae.cfg, scales, mean && Array.from(mean), checksums]);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))).toHex();
}
