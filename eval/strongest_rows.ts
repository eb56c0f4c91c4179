/**
 * The rows on which each latent fires most strongly, collected while rows pass.
 *
 * @module
 */

/** The strongest rows of each latent, 12 bytes per row kept. */
export class StrongestRows {
  /** [S], rows kept so far. */
  readonly counts: Uint32Array;
  /** [S, k], by descending activation, the earlier row on ties. */
  readonly rows: Float64Array;
  /** [S, k], their activations. */
  readonly values: Float32Array;
  /** The largest number of rows per latent, k. */
  readonly k: number;

  /** Starts with no rows. */
  constructor(d_sae: number, k: number) {
    this.k = k;
    this.counts = new Uint32Array(d_sae);
    this.rows = new Float64Array(d_sae * k);
    this.values = new Float32Array(d_sae * k);
  }

  /** Keeps a row if it is among the strongest, after an equal one. */
  add(latent: number, row: number, value: number): void {
    const { k, counts, rows, values } = this;
    const start = latent * k;
    const count = counts[latent]!;
    if (count === k && value <= values[start + k - 1]!) return;
    let at = Math.min(count, k - 1);
    counts[latent] = at + 1;
    for (; at > 0 && values[start + at - 1]! < value; at--) {
      values[start + at] = values[start + at - 1]!;
      rows[start + at] = rows[start + at - 1]!;
    }
    values[start + at] = value;
    rows[start + at] = row;
  }

  /** The rows of a latent, the strongest first. */
  of(latent: number): { readonly row: number; readonly value: number }[] {
    const start = latent * this.k;
    return Array.from({ length: this.counts[latent]! }, (_, i) => ({
      row: this.rows[start + i]!,
      value: this.values[start + i]!,
    }));
  }
}
