/**
 * The types of rows of activations, for all code that reads, orders, trains on or measures them.
 *
 * This file does not depend on the model, so that the loaders of `data/` can yield what models take.
 *
 * @module
 */

import { kindOf, ShapeError } from "../kernels/engine/errors.ts";
import type { Tensor } from "../kernels/engine/tensor.ts";

/**
 * Rows that know their width, as loaders yield them. A model of another `d_model` refuses them with a {@link
 * ShapeError}; of a bare array it can only check that it is a whole number of rows.
 */
export interface Rows {
  /** [B, d_model], row-major. A tensor stays the caller's. */
  readonly x: Float32Array | Tensor;
  /** Numbers in a row. */
  readonly d_model: number;
  /** [B], the number of each row in the source that it was read from; float64 is exact beyond 2³² rows too. */
  readonly index?: Float64Array;
  /** [B], the class of each row, where its source knows the classes. */
  readonly labels?: Int32Array;
}

/** A batch: rows that know their width, or a bare array or [B, d_model] tensor, whose width cannot be checked. */
export type Batch = Rows | Float32Array | Tensor;

/** Batches, one after the other. */
export type Batches = Iterable<Batch> | AsyncIterable<Batch>;

/** Rows of `d_model` numbers, wherever they lie. */
export interface RowSource {
  /** How many rows. */
  readonly n_rows: number;
  /** Numbers in a row. */
  readonly d_model: number;
  /** [n_rows], the class of each row, where the classes are known; loaders hand them on. */
  readonly labels?: Int32Array;
  /** The first row of the example that a row is of, where rows belong to examples, as patches to an image. */
  exampleStart?(row: number): number;
  /**
   * Rows `from` to `to` (not included), row-major.
   *
   * @throws {RangeError} unless 0 ≤ from ≤ to ≤ n_rows.
   */
  read(from: number, to: number): Promise<Float32Array>;
}

/** Whether this is a source of rows, rather than batches of them. */
export function isRowSource(value: unknown): value is RowSource {
  if (typeof value !== "object" || value === null) return false;
  const { read, n_rows, d_model } = value as Partial<RowSource>;
  return typeof read === "function" && typeof n_rows === "number" && typeof d_model === "number";
}

/** @throws {TypeError} for what is neither batches nor a source of rows: above all, a batch alone. */
export function checkBatches(batches: unknown): void {
  const isIterable = typeof batches === "object" && batches !== null && !ArrayBuffer.isView(batches) &&
    (Symbol.iterator in batches || Symbol.asyncIterator in batches);
  if (isIterable || isRowSource(batches)) return;
  throw new TypeError(
    `batches must be a list or a stream of them, or a source of rows, found ${kindOf(batches)}; one batch x is [x]`,
  );
}

/** @throws {RangeError} unless 0 ≤ from ≤ to ≤ n_rows. */
export function checkRange({ n_rows }: Pick<RowSource, "n_rows">, from: number, to: number): void {
  if (Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from <= to && to <= n_rows) return;
  throw new RangeError(`rows ${from} to ${to} were asked for; expected a range within rows 0 to ${n_rows}`);
}

/**
 * Rows `from` to `to` of a source, and as many of them as that.
 *
 * @throws {RangeError} unless 0 ≤ from ≤ to ≤ n_rows.
 * @throws {ShapeError | TypeError} if the source gives more or fewer numbers, or numbers of another kind.
 */
export async function readRows(source: RowSource, from: number, to: number): Promise<Float32Array> {
  checkRange(source, from, to);
  const x: unknown = await source.read(from, to);
  if (!(x instanceof Float32Array)) {
    throw new TypeError(`reading rows ${from} to ${to}: the source gave ${kindOf(x)}; expected a Float32Array`);
  }
  const expected = (to - from) * source.d_model;
  if (x.length === expected) return x;
  throw new ShapeError(
    `reading rows ${from} to ${to} of d_model ${source.d_model}: the source gave ${x.length} numbers; expected ${expected}`,
  );
}
