/**
 * How similar the rows of a dictionary are.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { Tensor } from "../kernels/engine/tensor.ts";
import { rowMaxAbsBits } from "../kernels/reduce.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { cosineTiles, unitRows } from "./cosines.ts";
import type { Metrics } from "./metrics.ts";

/** The cosines between the rows of W_dec. */
export interface Coherence {
  /**
   * The largest |cos(W_dec[i], W_dec[j])|, i ≠ j: 1 if two latents have the same or opposite directions. Python's saev
   * logs it as `dictionary_coherence`. NaN for a single latent.
   */
  readonly max: number;
  /** The mean of `per_latent`: how close the nearest other latent is on average. */
  readonly mean_max: number;
  /** [S], the largest |cos(W_dec[i], W_dec[j])| over j ≠ i. */
  readonly per_latent: Float32Array;
}

/** {@link Metrics} on some data, with the coherence of the dictionary. */
export interface MetricsWithCoherence extends Metrics {
  /** How similar the rows of W_dec are; `null` if not measured. */
  readonly coherence: Coherence | null;
}

/** Options of {@link measureCoherence}. */
export interface CoherenceOptions {
  /** Stops between two tiles of rows, with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called with the number of rows of W_dec compared so far. */
  readonly onProgress?: (done: number) => void;
}

/** Multiply-adds that take about a minute on two CPU cores; most GPUs do a hundred times as many. */
const MINUTE_OF_SOFTWARE = 1e12;
const MINUTE_OF_HARDWARE = 1e14;

/**
 * Why coherence should not be measured unasked: d_sae² · d_model multiply-adds take more than about a minute. `null` if
 * they do not.
 */
export function slowCoherence({ cfg: { d_model, d_sae }, device }: SparseAutoencoder): string | null {
  const most = device.adapterInfo?.isFallbackAdapter ? MINUTE_OF_SOFTWARE : MINUTE_OF_HARDWARE;
  const work = d_sae ** 2 * d_model;
  if (work <= most) return null;
  return `coherence is not measured: it takes ${d_sae}² · ${d_model} multiply-adds, more than ${most.toExponential(0)}`;
}

/**
 * Measures the coherence of a model's dictionary; from ŵ [S, D], the unit rows of W_dec, the largest off-diagonal
 * element of |ŵ ŵᵀ|. A row of zeros has cosine 0 with every other.
 *
 * It costs as much as encoding d_sae rows, with memory for 512 of them. It does not change the model.
 *
 * @throws {DeviceError} if the GPU is lost.
 * @throws {unknown} the signal's reason, if it is aborted.
 * @throws {TypeError} for an unknown option.
 */
export async function measureCoherence(
  sae: SparseAutoencoder,
  options: CoherenceOptions = {},
): Promise<Coherence> {
  checkOptions("measureCoherence", options, { signal: true, onProgress: true });
  const { signal, onProgress } = options;
  const { cfg: { d_model, d_sae }, context } = sae;
  signal?.throwIfAborted();
  if (d_sae === 1) return { max: NaN, mean_max: NaN, per_latent: Float32Array.of(NaN) };
  const directions = unitRows(await sae.parameters.W_dec.read(), d_model);
  using bits = new Tensor(context, "u32", [d_sae], "largest cosines");
  const tiles = cosineTiles(context, {
    a: directions,
    b: directions,
    d_model,
    signal,
    record: (commands, { from, to }, x) =>
      rowMaxAbsBits(commands, { x, rows: to - from, columns: d_sae, firstRow: from, bits, allRows: d_sae }),
  });
  for await (const { rows } of tiles) onProgress?.(rows.to);
  const largest = new Float32Array((await bits.read()).buffer);
  // Rounding can push a cosine of 1 above 1.
  const per_latent = largest.map((cosine) => Math.min(cosine, 1));
  return {
    max: per_latent.reduce((most, cosine) => Math.max(most, cosine)),
    mean_max: per_latent.reduce((sum, cosine) => sum + cosine, 0) / d_sae,
    per_latent,
  };
}
