/**
 * Evaluates a trained model on data, in one pass over any number of rows.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { type Batches, readRows, type RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { batchPieces } from "./batch_pieces.ts";
import { type DensityThresholds, type Metrics, MetricSums } from "./metrics.ts";
import { type Monosemanticity, MonosemanticitySums } from "./monosemanticity.ts";

/** What monosemanticity compares: the model's inputs themselves (`true`), or other embeddings, one per row. */
export type MonosemanticityEmbeddings = true | {
  /** [N, E], in the order of the rows. */
  readonly embeddings: RowSource;
};

/** Options of {@link evaluate}. */
export interface EvaluateOptions extends DensityThresholds {
  /** Stops after the current batch. */
  readonly signal?: AbortSignal;
}

/** {@link Metrics} and the monosemanticity of each latent. */
export interface MetricsWithMonosemanticity extends Metrics {
  /** How similar the rows are that activate each latent. */
  readonly monosemanticity: Monosemanticity;
}

/**
 * Encodes and decodes all batches, or all rows of a source, with the full dictionary. The model does not change, and
 * the split into batches does not change a bit of the result.
 *
 * With `monosemanticity`, the result includes that of each latent. It needs d_sae × E sums in float64 (100 MB for 16384
 * latents and embeddings of 768), and N · L0 · E operations. Cosines are taken around zero: subtract the mean from
 * embeddings with a large common part.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { rowsOf } from "@saev/nn/data";
 * import { evaluate } from "@saev/nn/eval";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const rows = rowsOf(Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i)), 8);
 * const metrics = await evaluate(sae, rows, { dense_above: 0.1, monosemanticity: true });
 * console.log(metrics.explained_variance, metrics.l0, metrics.n_dense, metrics.monosemanticity.mean);
 * ```
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} if there are no rows, fewer embeddings than rows, or a threshold outside 0 to 1.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export function evaluate(
  sae: SparseAutoencoder,
  batches: Batches | RowSource,
  options: EvaluateOptions & { readonly monosemanticity: MonosemanticityEmbeddings },
): Promise<MetricsWithMonosemanticity>;
/**
 * The same without monosemanticity.
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {TypeError} for an unknown option.
 * @throws {RangeError} if there are no rows, or a threshold is outside 0 to 1.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export function evaluate(
  sae: SparseAutoencoder,
  batches: Batches | RowSource,
  options?: EvaluateOptions,
): Promise<Metrics>;
export async function evaluate(
  sae: SparseAutoencoder,
  batches: Batches | RowSource,
  options: EvaluateOptions & { readonly monosemanticity?: MonosemanticityEmbeddings } = {},
): Promise<Metrics | MetricsWithMonosemanticity> {
  checkOptions("evaluate", options, {
    almost_dead_below: true,
    dense_above: true,
    monosemanticity: true,
    signal: true,
  });
  const { d_model, d_sae } = sae.cfg;
  const { monosemanticity, signal, ...thresholds } = options;
  const sums = new MetricSums(d_model, d_sae, thresholds);
  const embeddings = typeof monosemanticity === "object" ? monosemanticity.embeddings : undefined;
  const similarities = monosemanticity && new MonosemanticitySums(d_sae, embeddings?.d_model ?? d_model);
  let n_rows = 0;
  for await (const x of batchPieces(sae, batches, signal)) {
    using out = sae.forward(x);
    const [x_BD, x_hat_BD, codes] = await Promise.all([
      x instanceof Float32Array ? x : x.read(),
      out.x_hat.read(),
      out.f_x.read(),
    ]);
    sums.add(x_BD, x_hat_BD, codes);
    const first = n_rows;
    n_rows += x_BD.length / d_model;
    if (embeddings && n_rows > embeddings.n_rows) throw mismatch(`${n_rows} rows or more`, embeddings);
    similarities?.add(embeddings ? await readRows(embeddings, first, n_rows) : x_BD, codes);
  }
  const metrics = sums.result();
  if (!similarities) return metrics;
  if (embeddings && n_rows < embeddings.n_rows) throw mismatch(`${n_rows} rows`, embeddings);
  return { ...metrics, monosemanticity: similarities.result() };
}

function mismatch(rows: string, { n_rows }: RowSource): RangeError {
  return new RangeError(`monosemanticity needs one embedding for each row, found ${n_rows} for ${rows}`);
}
