/**
 * How much alike the rows of a dictionary are.
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
  return `coherence is not measured: it takes ${d_sae}² · ${d_model} multiply-adds, more than ${most.toExponential(0)}`;
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
 * @throws {TypeError} for an option that there is not.
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
  // Rounding may carry a cosine of 1 past it.
  const per_latent = largest.map((cosine) => Math.min(cosine, 1));
  return {
    max: per_latent.reduce((most, cosine) => Math.max(most, cosine)),
    mean_max: per_latent.reduce((sum, cosine) => sum + cosine, 0) / d_sae,
    per_latent,
  };
}
