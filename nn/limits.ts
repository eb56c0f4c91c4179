/**
 * Checks that a model or batch fits a device, before anything is allocated.
 *
 * @module
 */

import type { DeviceContext } from "../kernels/engine/device.ts";
import { DeviceError } from "../kernels/engine/errors.ts";
import { elementsPerBinding, rowsPerBlock } from "../kernels/engine/tensor.ts";
import { MAX_ROWS } from "../kernels/transpose_entries.ts";
import type { WeightStorage } from "./arrays.ts";
import type { SparseAutoencoderConfig } from "./config.ts";
import { auxCapabilities } from "./loss_terms.ts";

/** The most rows of a batch: listing entries by latent is limited to this many. */
export const MAX_BATCH_ROWS: number = MAX_ROWS;

/**
 * @throws {DeviceError} for a model whose matrices are larger than the device's largest buffer, or of which the device
 * cannot bind the pre-activations of one row, or a block of rows of a matrix.
 */
export function checkModelFits(
  { d_model, d_sae }: Pick<SparseAutoencoderConfig, "d_model" | "d_sae">,
  context: DeviceContext,
  weights: WeightStorage = "f32",
): void {
  const { adapter, bindingLimit, device: { limits: { maxBufferSize } } } = context;
  const valueBytes = weights === "f16" ? 2 : 4;
  const bytes = d_sae * d_model * valueBytes;
  if (bytes > maxBufferSize) {
    throw new DeviceError(
      `d_sae ${d_sae} × d_model ${d_model}: W_enc and W_dec would have ${bytes} bytes each; the largest buffer of ` +
        `${adapter} has ${maxBufferSize} (maxBufferSize). Choose a smaller d_sae`,
    );
  }
  if (d_sae > elementsPerBinding(context)) {
    throw new DeviceError(
      `d_sae ${d_sae}: the pre-activations of a row would have ${4 * d_sae} bytes; ` +
        `${adapter} binds ${bindingLimit} at once (maxStorageBufferBindingSize). Choose a smaller d_sae`,
    );
  }
  rowsPerBlock(context, d_sae, d_model * valueBytes, `W_enc (d_model ${d_model})`);
}

/**
 * @throws {RangeError} for a batch of more rows than a step takes.
 * @throws {DeviceError} if its rows are larger than the device's largest buffer, or the codes that a training step selects
 * larger than what it binds.
 */
export function checkBatchFits(
  { d_model, d_sae, activation }: SparseAutoencoderConfig,
  { context, n_rows, training, mostK = "top_k" in activation ? activation.top_k : 0 }: {
    readonly context: DeviceContext;
    readonly n_rows: number;
    readonly training: boolean;
    /** The largest k of any step of training; the configuration's `top_k` if left out. */
    readonly mostK?: number;
  },
): void {
  const { adapter, bindingLimit, device: { limits: { maxBufferSize } } } = context;
  if (n_rows > MAX_BATCH_ROWS) {
    throw new RangeError(
      `a batch of ${n_rows} rows: a step takes ${MAX_BATCH_ROWS} at most. Choose a smaller batch_size`,
    );
  }
  const bytes = 4 * n_rows * d_model;
  if (bytes > maxBufferSize) {
    throw new DeviceError(
      `a batch of ${n_rows} rows of d_model ${d_model} would have ${bytes} bytes; the largest buffer of ${adapter} has ` +
        `${maxBufferSize} (maxBufferSize). Choose a smaller batch_size`,
    );
  }
  if (!training) return;
  const { k_aux } = auxCapabilities(activation.aux);
  for (const [field, k] of [["top_k", mostK], ["k_aux", k_aux]] as const) {
    const entries = n_rows * Math.min(k, d_sae);
    if (entries <= elementsPerBinding(context)) continue;
    throw new DeviceError(
      `a batch of ${n_rows} rows with ${field} ${k}: its codes would have ${4 * entries} bytes; ${adapter} binds ` +
        `${bindingLimit} at once (maxStorageBufferBindingSize). Choose a smaller batch_size or ${field}`,
    );
  }
}
