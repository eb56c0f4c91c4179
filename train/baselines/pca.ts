/**
 * Principal components as a model: `f = (x − μ) Cᵀ`, `x̂ = f C + μ`, with the n directions C of the largest variance.
 *
 * It is a TopK that keeps all of its latents, so that codes have either sign; every reader of checkpoints knows it.
 *
 * The covariance is summed around the first rows in products of float32 a batch, which float64 adds up.
 *
 * @module
 */

import { batchesInOrder } from "../../data/order.ts";
import { Commands } from "../../kernels/engine/commands.ts";
import { contextOf } from "../../kernels/engine/device.ts";
import { shown } from "../../kernels/engine/errors.ts";
import { checkOptions } from "../../kernels/engine/options.ts";
import { defaultDevice } from "../../kernels/engine/self_check.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { matmul } from "../../kernels/matmul.ts";
import { transposed } from "../../nn/arrays.ts";
import type { RowSource } from "../../nn/rows.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { symmetricEigen } from "./eigen.ts";

/** What every baseline may be told. */
export interface BaselineOptions {
  /** Rows at a time; 4096 if left out. */
  readonly batch_size?: number;
  /** The device; the shared default one if left out. */
  readonly device?: GPUDevice;
  /** Ends it after the batch under way. */
  readonly signal?: AbortSignal;
  /** Told how many rows were read, of how many that are to be. */
  readonly onProgress?: (done: number, n_rows: number) => void;
}

/** How {@link fitPca} fits. */
export interface PcaOptions extends BaselineOptions {
  /** Components, and latents of the model. */
  readonly n_components: number;
}

/** Principal components. */
export interface Pca {
  /** The model, yours to dispose of. */
  readonly sae: SparseAutoencoder;
  /** [n_components], the variance along each component, the largest first. */
  readonly variances: Float64Array;
  /** The share of all variance that the components have; NaN where rows do not vary. */
  readonly explained_variance: number;
}

/**
 * Finds the principal components of rows, in one pass. It keeps d_model² numbers, and takes some d_model³ steps at the end:
 * seconds for 768.
 *
 * @throws {RangeError} for no rows, rows that are not finite, or another number of components than 1 to d_model.
 * @throws {TypeError} for an unknown option.
 * @throws {unknown} the signal's reason, once it is aborted.
 */
export async function fitPca(rows: RowSource, options: PcaOptions): Promise<Pca> {
  checkOptions("fitPca", options, {
    n_components: true,
    batch_size: true,
    device: true,
    signal: true,
    onProgress: true,
  });
  const { n_components, batch_size = 4096, signal, onProgress } = options;
  const { n_rows, d_model: D } = rows;
  if (!(Number.isSafeInteger(n_components) && n_components > 0 && n_components <= D)) {
    throw new RangeError(`n_components must be an integer from 1 to d_model ${D}, found ${shown(n_components)}`);
  }
  if (n_rows === 0) throw new RangeError("principal components: found no rows");
  const device = options.device ?? await defaultDevice();
  const context = contextOf(device);
  const [sums_D, scatter_DD] = [new Float64Array(D), new Float64Array(D * D)];
  let origin_D: Float64Array | undefined;
  let done = 0;
  for await (const { x: x_BD } of batchesInOrder(rows, batch_size)) {
    const B = x_BD.length / D;
    origin_D ??= meanOf(x_BD, D);
    const deviations_BD = x_BD.map((value, i) => value - origin_D![i % D]!);
    deviations_BD.forEach((value, i) => sums_D[i % D]! += value);
    using stack = new DisposableStack();
    const x = stack.use(Tensor.from(context, deviations_BD, [B, D], "deviations"));
    const c = stack.use(new Tensor(context, "f32", [D, D], "scatter"));
    const commands = new Commands(context);
    matmul(commands, { layout: "tn", M: D, N: D, K: B, a: { in: x }, b: { in: x }, c: { in: c } });
    commands.submit();
    const scatter = await c.read();
    for (let i = 0; i < scatter.length; i++) scatter_DD[i]! += scatter[i]!;
    if (!sums_D.every(Number.isFinite)) {
      throw new RangeError(`principal components: one of the rows ${done} to ${done + B} is not finite`);
    }
    done += B;
    onProgress?.(done, n_rows);
    signal?.throwIfAborted();
  }

  const covariance_DD = scatter_DD.map((sum, i) => {
    const [row, column] = [Math.floor(i / D), i % D];
    return sum / n_rows - sums_D[row]! * sums_D[column]! / n_rows ** 2;
  });
  const pairs = symmetricEigen(covariance_DD, D).slice(0, n_components);
  const total = covariance_DD.reduce((sum, value, i) => i % (D + 1) === 0 ? sum + value : sum, 0);
  // Of a direction without variance rounding may leave some of either sign.
  const variances = Float64Array.from(pairs, ({ value }) => Math.max(value, 0));
  const mean_D = sums_D.map((sum, d) => origin_D![d]! + sum / n_rows);
  const W_dec = new Float32Array(n_components * D);
  pairs.forEach(({ vector }, s) => W_dec.set(vector, s * D));
  const b_enc = Float32Array.from(pairs, ({ vector }) => -vector.reduce((sum, c, d) => sum + c * mean_D[d]!, 0));
  const sae = await SparseAutoencoder.fromParameters(
    {
      d_model: D,
      d_sae: n_components,
      activation: { key: "top-k", top_k: n_components, aux: { key: "no-aux" } },
    },
    { W_enc: transposed(W_dec, n_components, D), b_enc, W_dec, b_dec: Float32Array.from(mean_D) },
    { device },
  );
  return { sae, variances, explained_variance: variances.reduce((sum, value) => sum + value, 0) / total };
}

/** [D], the mean row. */
function meanOf(x_BD: Float32Array, D: number): Float64Array {
  const sums_D = new Float64Array(D);
  x_BD.forEach((value, i) => sums_D[i % D]! += value);
  return sums_D.map((sum) => sum / (x_BD.length / D));
}
