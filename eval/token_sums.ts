/**
 * The sums over tokens behind the Python package's inference folder: how often and how strongly each latent fires, and
 * the errors of the reconstruction. They can be saved and resumed.
 *
 * For N tokens with rows x_n [D], reconstructions x̂_n [D], codes f_n [S] and mean row x̄: mean_values[s] = Σ_n f_ns /
 * #(f_ns ≠ 0), sparsity[s] = #(f_ns ≠ 0) / N, sse_recon = Σ_n ‖x_n − x̂_n‖², sse_baseline = Σ_n ‖x_n − x̄‖².
 *
 * Sums are kept in float64, row by row: they do not depend on how rows are split into batches.
 *
 * @module
 */

import type { CodeArrays } from "../nn/codes.ts";

/** The content of `metrics.json` in an inference folder. If all rows are equal, normalized_mse is NaN or infinite. */
export interface TokenMetrics {
  /** sse_recon / n_elements. */
  readonly mse_per_dim: number;
  /** sse_recon / n_tokens. */
  readonly mse_per_token: number;
  /** sse_recon / sse_baseline, the share of the variance that is not explained. */
  readonly normalized_mse: number;
  /** sse_baseline / n_elements. */
  readonly baseline_mse_per_dim: number;
  /** sse_baseline / n_tokens. */
  readonly baseline_mse_per_token: number;
  /** Σ‖x − x̂‖². */
  readonly sse_recon: number;
  /** Σ‖x − x̄‖². */
  readonly sse_baseline: number;
  /** Tokens counted. */
  readonly n_tokens: number;
  /** Width of a token. */
  readonly d_model: number;
  /** n_tokens × d_model. */
  readonly n_elements: number;
}

/** {@link TokenSums} in the form stored as JSON, without loss. */
export interface SavedTokenSums {
  /** Tokens counted. */
  readonly n_tokens: number;
  /** Σ‖x − x̂‖². */
  readonly errors: number;
  /** Σ‖x − origin‖². */
  readonly squares: number;
  /** [D], the first row counted; empty before there is one. */
  readonly origin: readonly number[];
  /** [D], Σ (x − origin). */
  readonly sums: readonly number[];
  /** [S], #(f ≠ 0). */
  readonly fired: readonly number[];
  /** [S], Σ f. */
  readonly strengths: readonly number[];
}

/** A batch with its reconstruction and codes. */
export interface EncodedBatch {
  /** [B, D], the rows. */
  readonly x_BD: Float32Array;
  /** [B, D], their reconstructions. */
  readonly x_hat_BD: Float32Array;
  /** Their codes. */
  readonly codes: CodeArrays;
  /** The number of the batch's first row among all rows. */
  readonly firstRow: number;
}

/** The sums. */
export class TokenSums {
  readonly #d_model: number;
  #n_tokens = 0;
  #errors = 0;
  /** Sums around the first row lose nothing to the rows' mean. */
  #squares = 0;
  #origin_D: Float64Array | undefined;
  readonly #sums_D: Float64Array;
  readonly #fired_S: Float64Array;
  readonly #strengths_S: Float64Array;

  /** Starts from zeros, or from `saved`. */
  constructor(d_model: number, d_sae: number, saved?: SavedTokenSums) {
    this.#d_model = d_model;
    this.#sums_D = saved ? Float64Array.from(saved.sums) : new Float64Array(d_model);
    this.#fired_S = saved ? Float64Array.from(saved.fired) : new Float64Array(d_sae);
    this.#strengths_S = saved ? Float64Array.from(saved.strengths) : new Float64Array(d_sae);
    if (saved === undefined) return;
    this.#n_tokens = saved.n_tokens;
    this.#errors = saved.errors;
    this.#squares = saved.squares;
    if (saved.origin.length > 0) this.#origin_D = Float64Array.from(saved.origin);
  }

  /**
   * Adds row `row` of a batch; messages count from `firstRow`, the number of the batch's first row.
   *
   * @throws {RangeError} for a reconstruction or a code that is not finite.
   */
  add({ x_BD, x_hat_BD, codes, firstRow }: EncodedBatch, row: number): void {
    const { row_starts, indices, values } = codes;
    const D = this.#d_model;
    const from = row * D;
    const origin_D = this.#origin_D ??= Float64Array.from(x_BD.subarray(from, from + D));
    const sums_D = this.#sums_D;
    let [errors, squares, strength] = [0, 0, 0];
    for (let d = 0; d < D; d++) {
      const x = x_BD[from + d]!;
      const [error, deviation] = [x - x_hat_BD[from + d]!, x - origin_D[d]!];
      errors += error * error;
      squares += deviation * deviation;
      sums_D[d]! += deviation;
    }
    for (let entry = row_starts[row]!; entry < row_starts[row + 1]!; entry++) {
      const value = values[entry]!;
      if (value === 0) continue;
      strength += value;
      this.#fired_S[indices[entry]!]!++;
      this.#strengths_S[indices[entry]!]! += value;
    }
    if (!Number.isFinite(errors + strength)) {
      throw new RangeError(
        `encoding row ${
          firstRow + row
        }: a code or the reconstruction is not finite; the model's parameters are not, or ` +
          "too large",
      );
    }
    this.#n_tokens++;
    this.#errors += errors;
    this.#squares += squares;
  }

  /** The sums in the form stored as JSON. */
  save(): SavedTokenSums {
    return {
      n_tokens: this.#n_tokens,
      errors: this.#errors,
      squares: this.#squares,
      origin: Array.from(this.#origin_D ?? []),
      sums: Array.from(this.#sums_D),
      fired: Array.from(this.#fired_S),
      strengths: Array.from(this.#strengths_S),
    };
  }

  /** [S], the mean activation of each latent where it fires; NaN if it never does. */
  meanValues(): Float32Array<ArrayBuffer> {
    return Float32Array.from(this.#strengths_S, (sum, s) => sum / this.#fired_S[s]!);
  }

  /** [S], the share of tokens on which a latent fires. */
  sparsity(): Float32Array<ArrayBuffer> {
    return Float32Array.from(this.#fired_S, (fired) => fired / this.#n_tokens);
  }

  /** The reconstruction metrics. */
  metrics(): TokenMetrics {
    const [n_tokens, d_model, sse_recon] = [this.#n_tokens, this.#d_model, this.#errors];
    const n_elements = n_tokens * d_model;
    const sse_baseline = Math.max(0, this.#squares - this.#sums_D.reduce((sum, s) => sum + s * s, 0) / n_tokens);
    return {
      mse_per_dim: sse_recon / n_elements,
      mse_per_token: sse_recon / n_tokens,
      normalized_mse: sse_recon / sse_baseline,
      baseline_mse_per_dim: sse_baseline / n_elements,
      baseline_mse_per_token: sse_baseline / n_tokens,
      sse_recon,
      sse_baseline,
      n_tokens,
      d_model,
      n_elements,
    };
  }
}
