/**
 * Which latents fire on which rows: the codes of each row, the strongest latents of a row, the strongest rows of a
 * latent, and the nearest latents of a latent.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { type Batches, isRowSource, type RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { batchPieces } from "./batch_pieces.ts";
import { StrongestRows } from "./strongest_rows.ts";

/** The code of one row: the latents that fire on it. */
export interface RowCode {
  /** The number of the row among all rows given. */
  readonly row: number;
  /** Latents in ascending order. */
  readonly latents: Uint32Array;
  /** Their activations. */
  readonly values: Float32Array;
}

/** A latent and its activation. */
export interface FiringLatent {
  /** Its number. */
  readonly latent: number;
  /** Its activation. */
  readonly value: number;
}

/** A row and the activation of a latent on it. */
export interface FiringRow {
  /** Its number among all rows given. */
  readonly row: number;
  /** The latent's activation. */
  readonly value: number;
}

/**
 * The code of each row, in order, encoded batch by batch.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { rowsOf } from "@saev/nn/data";
 * import { encodeRows, topLatents } from "@saev/nn/eval";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const rows = rowsOf(Float32Array.from({ length: 3 * 8 }, (_, i) => Math.sin(i * i)), 8);
 * for await (const code of encodeRows(sae, rows)) console.log(code.row, topLatents(code, 2));
 * ```
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 */
export async function* encodeRows(sae: SparseAutoencoder, rows: Batches | RowSource): AsyncGenerator<RowCode> {
  let first = 0;
  for await (const x of batchPieces(sae, rows)) {
    using codes = sae.encode(x);
    const { row_starts, indices, values } = await codes.read();
    for (let b = 0; b < codes.n_rows; b++) {
      const [from, to] = [row_starts[b]!, row_starts[b + 1]!];
      yield { row: first + b, latents: indices.subarray(from, to), values: values.subarray(from, to) };
    }
    first += codes.n_rows;
  }
}

/** The `k` latents with the largest activations on a row, the largest first, the lower latent on ties. */
export function topLatents({ latents, values }: Omit<RowCode, "row">, k = 10): FiringLatent[] {
  return Array.from(latents, (latent, i) => ({ latent, value: values[i]! }))
    .sort((a, b) => b.value - a.value || a.latent - b.latent)
    .slice(0, k);
}

/** Options of {@link topRows}. */
export interface TopRowsOptions {
  /** Rows kept per latent; 16 if left out. */
  readonly k?: number;
  /**
   * Keeps only the strongest row of each example (an image with its patches), so that the rows come from `k` examples.
   * Needs a source that knows its examples; otherwise each row is an example of its own.
   */
  readonly oneOfExample?: boolean;
  /** Stops after the current batch. */
  readonly signal?: AbortSignal;
}

/** The strongest rows of each latent. */
export interface TopRows {
  /** The rows on which a latent fires most strongly, the strongest first, the lower row on ties. */
  of(latent: number): FiringRow[];
}

/**
 * Finds the rows on which each latent fires most strongly, in one pass. It needs 12 bytes per latent and row kept.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { rowsOf } from "@saev/nn/data";
 * import { topRows } from "@saev/nn/eval";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const rows = rowsOf(Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i)), 8);
 * const top = await topRows(sae, rows, { k: 3 });
 * console.log(top.of(0)); // up to three { row, value }; rows.read(row, row + 1) has its numbers
 * ```
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {RangeError} if `k` is not a positive integer.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function topRows(
  sae: SparseAutoencoder,
  rows: Batches | RowSource,
  options: TopRowsOptions = {},
): Promise<TopRows> {
  checkOptions("topRows", options, { k: true, oneOfExample: true, signal: true });
  const { k = 16, oneOfExample = false, signal } = options;
  if (!(Number.isSafeInteger(k) && k > 0)) {
    throw new RangeError(`k must be an integer of at least 1, found ${shown(k)}`);
  }
  const strongest = new StrongestRows(sae.cfg.d_sae, k);
  const exampleStart = oneOfExample && isRowSource(rows) ? rows.exampleStart?.bind(rows) : undefined;
  /** For each latent that fires on the current example, its strongest row. */
  const ofExample = new Map<number, FiringRow>();
  const endExample = (): void => {
    for (const [latent, { row, value }] of ofExample) strongest.add(latent, row, value);
    ofExample.clear();
  };
  let first = 0;
  for await (const x of batchPieces(sae, rows, signal)) {
    using codes = sae.encode(x);
    const { row_starts, indices, values } = await codes.read();
    for (let b = 0; b < codes.n_rows; b++) {
      const row = first + b;
      if (exampleStart?.(row) === row) endExample();
      for (let entry = row_starts[b]!; entry < row_starts[b + 1]!; entry++) {
        const [latent, value] = [indices[entry]!, values[entry]!];
        const best = ofExample.get(latent);
        if (!exampleStart) strongest.add(latent, row, value);
        else if (!best || value > best.value) ofExample.set(latent, { row, value });
      }
    }
    first += codes.n_rows;
  }
  endExample();

  return {
    of(latent) {
      checkLatent(sae, latent);
      return strongest.of(latent);
    },
  };
}

/** A latent and the cosine of its decoder row. */
export interface NearLatent {
  /** Its number. */
  readonly latent: number;
  /** The cosine of the two decoder rows. */
  readonly cosine: number;
}

/**
 * The `k` latents whose decoder rows have the largest cosine with that of a latent, the nearest first. A row of zeros
 * has cosine 0 with every other.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { nearestLatents } from "@saev/nn/eval";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * console.log(await nearestLatents(sae, 5, 3));
 * ```
 *
 * @throws {RangeError} if there is no such latent.
 */
export async function nearestLatents(sae: SparseAutoencoder, latent: number, k = 10): Promise<NearLatent[]> {
  checkLatent(sae, latent);
  const { d_model, d_sae } = sae.cfg;
  const W_dec_SD = await sae.parameters.W_dec.read();
  const row = (i: number): Float32Array => W_dec_SD.subarray(i * d_model, (i + 1) * d_model);
  const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const [wanted, norm] = [row(latent), Math.sqrt(dot(row(latent), row(latent)))];
  return Array.from({ length: d_sae }, (_, i): NearLatent => {
    const other = row(i);
    return { latent: i, cosine: dot(wanted, other) / (norm * Math.sqrt(dot(other, other)) || 1) };
  }).filter((near) => near.latent !== latent).sort((a, b) => b.cosine - a.cosine || a.latent - b.latent).slice(0, k);
}

function checkLatent({ cfg: { d_sae } }: SparseAutoencoder, latent: number): void {
  if (Number.isSafeInteger(latent) && latent >= 0 && latent < d_sae) return;
  throw new RangeError(`there is no latent ${latent}; expected an integer from 0 to ${d_sae - 1}`);
}
