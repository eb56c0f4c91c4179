/**
 * Rows of activations: where they come from, the order in which training sees them, and their mean and scale.
 *
 * @module
 */

export { rowRange, rowsOf, type RowSource } from "./rows.ts";
export { batchesInOrder, shuffledBatches, type ShuffleOptions } from "./order.ts";
export { measureScaling, type Standardisation } from "./scaling.ts";
export { openRows, type RowFile, type RowFileOptions } from "./row_file.ts";
