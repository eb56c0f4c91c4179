/**
 * Sparse matrices on the GPU: compressed rows (CSR), and their entries by column (CSC).
 *
 * @module
 */

import type { Bindable } from "./engine/commands.ts";

/** A sparse matrix as compressed rows: the entries of row r are `starts[r]` … `starts[r + 1]`, their indices ascending. */
export interface Csr {
  /** Rows. */
  readonly rows: number;
  /** Size of `indices` and `values`. */
  readonly capacity: number;
  /** [rows + 1] */
  readonly starts: Bindable;
  /** [capacity] */
  readonly indices: Bindable;
  /** [capacity] */
  readonly values: Bindable;
}

/** The entries of a sparse matrix by column, as `Transposition` lists them. */
export interface Csc {
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Size of `entries`. */
  readonly capacity: number;
  /** [columns + 1] */
  readonly starts: Bindable;
  /** [capacity], entry numbers, ascending within a column. */
  readonly entries: Bindable;
}
