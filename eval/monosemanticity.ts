/**
 * Monosemanticity: how similar the rows are that activate a latent, in one pass over any number of rows.
 *
 * For latent s, let a_i be its activation on row i (zeros included), scaled so that the smallest is 0 and the largest
 * 1, and e_i the unit vector along row i's embedding:
 *
 *     MS_s = Σ_{i<j} a_i a_j e_i·e_j / Σ_{i<j} a_i a_j
 *
 * The largest cancels. So with m the smallest, c_i = A_i − m for the unscaled activation A_i, and P = Σ_{i<j} c_i e_i
 * over the rows before j, both sums grow row by row by c_j e_j·P and c_j Σ_{i<j} c_i. N rows cost N · L0 · E operations
 * instead of N² pairs. ½(‖Σ c e‖² − Σ c²) is the same number, but as a difference of two large ones where a few rows
 * dominate.
 *
 * Source: Pach et al. 2025, arXiv 2504.02821.
 *
 * @module
 */

import type { CodeArrays } from "../nn/codes.ts";

/** How similar the rows are that activate each latent: the mean cosine of their embeddings, weighted by activation. */
export interface Monosemanticity {
  /**
   * [S], Σ_{i<j} a_i a_j cos(e_i, e_j) / Σ_{i<j} a_i a_j for each latent: 1 if all its rows are alike. NaN if fewer
   * than two rows activate it above its smallest activation.
   */
  readonly per_latent: Float64Array;
  /** Number of latents that have a value. */
  readonly n_latents: number;
  /** Mean over those latents; NaN if there are none. */
  readonly mean: number;
}

/**
 * The sums over rows from which {@link Monosemanticity} is computed: one [S, E] matrix in float64, and a few of [S] and
 * [E].
 *
 * A latent's sums are those of c = A − base. The base is 0 from the first row on which the latent is silent, so that
 * silent rows add nothing. While the latent has fired on every row, the base is its smallest activation so far: if
 * activations are far from zero only their differences count, and sums of the full values would lose them.
 */
export class MonosemanticitySums {
  readonly #d_sae: number;
  readonly #d_embedding: number;
  /** Rows so far; those with a non-zero embedding, which has a direction; latents in `#constant`. */
  readonly #counts = new Float64Array(3);
  /** [E], Σ e. */
  readonly #all_E: Float64Array;
  /** [E], e of the current row. */
  readonly #row_E: Float64Array;
  /** [S, E], Σ c e. */
  readonly #weighted_SE: Float64Array;
  /** [S], Σ c. */
  readonly #weight_S: Float64Array;
  /** [S], Σ_{i<j} c_i c_j e_i·e_j. */
  readonly #similarity_S: Float64Array;
  /** [S], Σ_{i<j} c_i c_j. */
  readonly #pairs_S: Float64Array;
  /** [S], 0 unless the latent has fired on every row. */
  readonly #base_S: Float64Array;
  /**
   * [S], rows on which the latent fired, its smallest activation there, and the number of rows with that activation.
   */
  readonly #fired_S: Float64Array;
  readonly #least_S: Float64Array;
  readonly #atLeast_S: Float64Array;
  /** Latents that have fired on every row, in the first places. */
  readonly #constant: Uint32Array;

  /** Starts with no rows. */
  constructor(d_sae: number, d_embedding: number) {
    this.#d_sae = d_sae;
    this.#d_embedding = d_embedding;
    this.#all_E = new Float64Array(d_embedding);
    this.#row_E = new Float64Array(d_embedding);
    this.#weighted_SE = new Float64Array(d_sae * d_embedding);
    this.#weight_S = new Float64Array(d_sae);
    this.#similarity_S = new Float64Array(d_sae);
    this.#pairs_S = new Float64Array(d_sae);
    this.#base_S = new Float64Array(d_sae);
    this.#fired_S = new Float64Array(d_sae);
    this.#least_S = new Float64Array(d_sae).fill(Infinity);
    this.#atLeast_S = new Float64Array(d_sae);
    this.#constant = new Uint32Array(d_sae);
  }

  get #rows(): number {
    return this.#counts[1]!;
  }

  get #constants(): number {
    return this.#counts[2]!;
  }

  /** Its whole state: written back into the arrays of other sums of the same size, they continue from there. */
  arrays(): Readonly<Record<string, Float64Array | Uint32Array>> {
    return {
      counts: this.#counts,
      all: this.#all_E,
      weighted: this.#weighted_SE,
      weight: this.#weight_S,
      similarity: this.#similarity_S,
      pairs: this.#pairs_S,
      base: this.#base_S,
      fired: this.#fired_S,
      least: this.#least_S,
      at_least: this.#atLeast_S,
      constant: this.#constant,
    };
  }

  /**
   * Adds rows: their embeddings, of any length, and their codes.
   *
   * @throws {RangeError} for an embedding that is not finite.
   */
  add(embeddings_BE: Float32Array, { row_starts, indices, values }: CodeArrays): void {
    for (let row = 0; row + 1 < row_starts.length; row++, this.#counts[0]!++) {
      if (!this.#point(embeddings_BE, row)) continue;
      const end = row_starts[row + 1]!;
      for (let entry = row_starts[row]!; entry < end; entry++) {
        if (values[entry] !== 0) this.#fire(indices[entry]!, values[entry]!);
      }
      this.#releaseSilent();
      for (let e = 0; e < this.#d_embedding; e++) this.#all_E[e]! += this.#row_E[e]!;
      this.#counts[1]!++;
    }
  }

  /** Computes e of a row; returns whether it has a direction. */
  #point(embeddings_BE: Float32Array, row: number): boolean {
    const E = this.#d_embedding;
    let squares = 0;
    for (let e = 0; e < E; e++) squares += embeddings_BE[row * E + e]! ** 2;
    const norm = Math.sqrt(squares);
    if (!Number.isFinite(norm)) {
      const column = embeddings_BE.subarray(row * E, (row + 1) * E).findIndex((value) => !Number.isFinite(value));
      const value = embeddings_BE[row * E + column];
      throw new RangeError(
        `evaluating: embedding ${this.#counts[0]} has ${value} in column ${column}; remove such rows`,
      );
    }
    for (let e = 0; e < E; e++) this.#row_E[e] = embeddings_BE[row * E + e]! / norm;
    return norm !== 0;
  }

  /** Adds the activation of a latent on the current row. */
  #fire(s: number, activation: number): void {
    if (this.#rows === 0) {
      this.#constant[this.#counts[2]!++] = s;
      this.#base_S[s] = activation;
    } else if (this.#base_S[s] !== 0 && activation < this.#base_S[s]!) this.#setBase(s, activation);
    this.#fired_S[s]!++;
    if (activation < this.#least_S[s]!) {
      this.#least_S[s] = activation;
      this.#atLeast_S[s] = 1;
    } else if (activation === this.#least_S[s]) this.#atLeast_S[s]!++;

    const c = activation - this.#base_S[s]!;
    const row_E = this.#row_E;
    const weighted_SE = this.#weighted_SE;
    const from = s * row_E.length;
    let along = 0;
    for (let e = 0; e < row_E.length; e++) {
      const direction = row_E[e]!;
      const before = weighted_SE[from + e]!;
      along += direction * before;
      weighted_SE[from + e] = before + c * direction;
    }
    this.#similarity_S[s]! += c * along;
    this.#pairs_S[s]! += c * this.#weight_S[s]!;
    this.#weight_S[s]! += c;
  }

  /** Latents that fired on every earlier row but not on this one get the base 0. */
  #releaseSilent(): void {
    let kept = 0;
    for (let at = 0; at < this.#constants; at++) {
      const s = this.#constant[at]!;
      if (this.#fired_S[s] === this.#rows + 1) this.#constant[kept++] = s;
      else this.#setBase(s, 0);
    }
    this.#counts[2] = kept;
  }

  /** Converts a latent's sums over the earlier rows to another base. */
  #setBase(s: number, base: number): void {
    const shift = this.#base_S[s]! - base;
    const { similarity, pairs } = this.#shifted(s, shift);
    this.#similarity_S[s] = similarity;
    this.#pairs_S[s] = pairs;
    this.#weight_S[s]! += this.#rows * shift;
    for (let e = 0; e < this.#d_embedding; e++) {
      this.#weighted_SE[s * this.#d_embedding + e]! += shift * this.#all_E[e]!;
    }
    this.#base_S[s] = base;
  }

  /**
   * Both sums over pairs with c + shift instead of c on every row: Σ_{i<j} (c_i + t)(c_j + t) e_i·e_j = Σ_{i<j} c_i c_j
   * e_i·e_j + t (Σ c e · Σ e − Σ c) + t² ½(‖Σ e‖² − N).
   */
  #shifted(s: number, shift: number): { similarity: number; pairs: number } {
    const N = this.#rows;
    const weight = this.#weight_S[s]!;
    let along = 0;
    let square = 0;
    for (let e = 0; e < this.#d_embedding; e++) {
      along += this.#weighted_SE[s * this.#d_embedding + e]! * this.#all_E[e]!;
      square += this.#all_E[e]! ** 2;
    }
    return {
      similarity: this.#similarity_S[s]! + shift * (along - weight) + shift * shift * (square - N) / 2,
      pairs: this.#pairs_S[s]! + shift * (N - 1) * weight + shift * shift * N * (N - 1) / 2,
    };
  }

  /** The monosemanticity of all rows so far. */
  result(): Monosemanticity {
    const per_latent = Float64Array.from({ length: this.#d_sae }, (_, s) => this.#of(s));
    const found = per_latent.filter((score) => !Number.isNaN(score));
    return { per_latent, n_latents: found.length, mean: found.reduce((sum, score) => sum + score, 0) / found.length };
  }

  #of(s: number): number {
    const silent = this.#rows - this.#fired_S[s]!;
    const lowest = this.#least_S[s]!;
    const isSilenceLeast = silent > 0 && lowest > 0;
    const n_least = isSilenceLeast ? silent : this.#atLeast_S[s]!;
    if (this.#rows - n_least < 2) return NaN;
    const { similarity, pairs } = this.#shifted(s, this.#base_S[s]! - (isSilenceLeast ? 0 : lowest));
    return similarity / pairs;
  }
}
