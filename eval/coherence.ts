/**
 * How much alike the rows of a dictionary are.
 *
 * @module
 */

import { Commands } from "../kernels/engine/commands.ts";
import { matmul } from "../kernels/matmul.ts";
import { rowMaxAbsBits } from "../kernels/reduce.ts";
import { rowsPerBlock, spans, Tensor } from "../kernels/engine/tensor.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import type { Metrics } from "./metrics.ts";

/** The cosines between the rows of W_dec. */
export interface Coherence {
  /**
   * The largest |cos(W_dec[i], W_dec[j])|, i ≠ j: 1 where two latents have the same direction, or opposite ones. Python's
   * saev logs it as `dictionary_coherence`. NaN for a dictionary of one.
   */
  readonly max: number;
  /** The mean of `per_latent`: how near the nearest other latent is. */
  readonly mean_max: number;
  /** [S], the largest |cos(W_dec[i], W_dec[j])| over j ≠ i. */
  readonly per_latent: Float32Array;
}

/** {@link Metrics} on some data, and the coherence of the dictionary. */
export interface MetricsWithCoherence extends Metrics {
  /** How much alike the rows of W_dec are; `null` where it was not measured. */
  readonly coherence: Coherence | null;
}

/** How to measure coherence. */
export interface CoherenceOptions {
  /** Ends it with the signal's reason, between some rows and the next. */
  readonly signal?: AbortSignal;
  /** Told how many of the rows of W_dec have been compared with all others. */
  readonly onProgress?: (done: number) => void;
}

/** Rows of the product that are there at a time. */
const TILE_ROWS = 512;
/** Multiply-adds between two looks at the signal, about a second of a software driver's. */
const TILE_WORK = 2 ** 34;
/** Multiply-adds that take about a minute on two CPU cores; and on a GPU, of which few are slower than a hundred times that. */
const MINUTE_OF_SOFTWARE = 1e12;
const MINUTE_OF_HARDWARE = 1e14;

/**
 * Why the coherence of a model should not be measured unasked: it takes d_sae² · d_model multiply-adds, more than its device
 * does in some minute. `null` where it does them.
 */
export function slowCoherence({ cfg: { d_model, d_sae }, device }: SparseAutoencoder): string | null {
  const most = device.adapterInfo?.isFallbackAdapter ? MINUTE_OF_SOFTWARE : MINUTE_OF_HARDWARE;
  const work = d_sae ** 2 * d_model;
  if (work <= most) return null;
  return `coherence is not measured: ${d_sae}² · ${d_model} multiply-adds are more than ${most.toExponential(0)}`;
}

/**
 * Measures the coherence of a model's dictionary; W_dec ŵ [S, D] with unit rows → the largest off the diagonal of |ŵ ŵᵀ|.
 * A row of zeros has a cosine of 0 with every other.
 *
 * It costs what encoding d_sae rows costs, and room for 512 of them. It depends on the model alone, which it does not
 * change.
 *
 * @throws {DeviceError} if the GPU goes away.
 * @throws {unknown} the signal's reason, once it is aborted.
 */
export async function measureCoherence(
  sae: SparseAutoencoder,
  { signal, onProgress }: CoherenceOptions = {},
): Promise<Coherence> {
  const { cfg: { d_model, d_sae }, context } = sae;
  signal?.throwIfAborted();
  if (d_sae === 1) return { max: NaN, mean_max: NaN, per_latent: Float32Array.of(NaN) };
  const directions = unitRows(await sae.parameters.W_dec.read(), d_model);
  using stack = new DisposableStack();
  const unit_SD = stack.use(Tensor.from(context, directions, [d_sae, d_model], "unit rows of W_dec"));
  const bits = stack.use(new Tensor(context, "u32", [d_sae], "largest cosines"));
  const tileRows = Math.min(
    TILE_ROWS,
    Math.max(1, Math.floor(TILE_WORK / (d_sae * d_model))),
    rowsPerBlock(context, d_sae, Math.max(d_model, d_sae) * 4, "cosines"),
  );
  const tile = stack.use(new Tensor(context, "f32", [tileRows, d_sae], "cosines"));
  const commands = new Commands(context);
  for (const { from, to } of spans(d_sae, tileRows)) {
    const cosines = tile.rows(0, to - from);
    for (const block of spans(d_sae, rowsPerBlock(context, d_sae, d_model * 4, unit_SD.label))) {
      matmul(commands, {
        layout: "nt",
        M: to - from,
        N: block.to - block.from,
        K: d_model,
        a: { in: unit_SD.rows(from, to) },
        b: { in: unit_SD.rows(block.from, block.to) },
        c: { in: cosines, stride: d_sae, offset: block.from },
      });
    }
    rowMaxAbsBits(commands, { x: cosines, rows: to - from, columns: d_sae, firstRow: from, bits, allRows: d_sae });
    // One submission a tile, so that none is so long that the system takes the GPU for hung.
    commands.submit();
    await context.drained();
    signal?.throwIfAborted();
    onProgress?.(to);
  }
  const largest = new Float32Array((await bits.read()).buffer);
  // Rounding may carry a cosine of 1 past it.
  const per_latent = largest.map((cosine) => Math.min(cosine, 1));
  return {
    max: per_latent.reduce((most, cosine) => Math.max(most, cosine)),
    mean_max: per_latent.reduce((sum, cosine) => sum + cosine, 0) / d_sae,
    per_latent,
  };
}

/** The rows made unit length in float64; rows of zeros stay. */
function unitRows(matrix: Float32Array, columns: number): Float32Array {
  const unit = new Float32Array(matrix.length);
  for (let from = 0; from < matrix.length; from += columns) {
    let squares = 0;
    for (let i = from; i < from + columns; i++) squares += matrix[i]! ** 2;
    const norm = Math.sqrt(squares) || 1;
    for (let i = from; i < from + columns; i++) unit[i] = matrix[i]! / norm;
  }
  return unit;
}
