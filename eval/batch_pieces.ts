/**
 * Rows for one pass of a model over data, from batches or a source, in pieces that the model can encode.
 *
 * @module
 */

import { batchesInOrder } from "../data/order.ts";
import { spans, type Tensor } from "../kernels/engine/tensor.ts";
import { encodableRows } from "../nn/model.ts";
import { type Batch, type Batches, checkBatches, isRowSource, type RowSource } from "../nn/rows.ts";
import { checkWidth, countRows, type SparseAutoencoder, valuesOf } from "../nn/sparse_autoencoder.ts";

/** Rows per batch when reading a source. */
const SOURCE_ROWS = 2048;

/**
 * The rows in order, in pieces of whole rows, each an array or a tensor.
 *
 * @throws {ShapeError} if the rows do not have width d_model, or a batch does not hold whole rows.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function* batchPieces(
  sae: SparseAutoencoder,
  batches: Batches | RowSource,
  signal?: AbortSignal,
): AsyncGenerator<Float32Array | Tensor> {
  checkBatches(batches);
  if (isRowSource(batches)) checkWidth(batches, sae);
  for await (const batch of isRowSource(batches) ? batchesInOrder(batches, SOURCE_ROWS) : batches) {
    for await (const piece of pieces(sae, batch)) {
      signal?.throwIfAborted();
      yield piece;
    }
  }
}

/** Yields a batch, split if the model cannot encode all of it at once. */
async function* pieces(sae: SparseAutoencoder, batch: Batch): AsyncGenerator<Float32Array | Tensor> {
  const { d_model } = sae.cfg;
  const n_rows = countRows(batch, sae);
  const { maxBufferSize } = sae.device.limits;
  const most = Math.min(encodableRows(sae, n_rows), Math.floor(maxBufferSize / (4 * d_model)));
  const x = valuesOf(batch);
  if (n_rows <= most) return yield x;
  const x_BD = x instanceof Float32Array ? x : await x.read();
  for (const { from, to } of spans(n_rows, most)) yield x_BD.subarray(from * d_model, to * d_model);
}
