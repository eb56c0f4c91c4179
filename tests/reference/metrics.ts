/**
 * The metrics of an evaluation again, in plain float64 loops over the whole data at once: the mean row first, then what
 * deviates from it; pairs of rows one by one; the cosines of all pairs of latents.
 *
 * @module
 */

/** What an evaluation says. */
export interface Metrics {
  readonly n_rows: number;
  /** Mean of (x̂ − x)² over rows and D. */
  readonly mse: number;
  /** Σ‖x − x̂‖² / Σ‖x − x̄‖²: 0 is perfect, 1 is no better than the mean. */
  readonly nmse: number;
  readonly explained_variance: number;
  /** Of the rows with x ≠ 0. */
  readonly cosine: number;
  /** Of the rows with x ≠ 0. */
  readonly norm_ratio: number;
  readonly reconstruction_bias: number;
  readonly l0: number;
  readonly l1: number;
  /** Latents that no row made other than 0. */
  readonly n_dead: number;
  readonly dead_fraction: number;
  readonly n_almost_dead: number;
  readonly n_dense: number;
  /** [S] share of rows in which each latent is not 0. */
  readonly density: Float64Array;
  /** [32] latents whose log10 density is in each quarter of a decade from −8 on. */
  readonly histogram: readonly number[];
}

/** Metrics of codes f and reconstructions x̂ of the rows x. */
export function metrics(
  x_ND: Float64Array,
  x_hat_ND: Float64Array,
  f_NS: Float64Array,
  d_model: number,
  { almostDeadBelow = 1e-7, denseAbove = 0.01 } = {},
): Metrics {
  const N = x_ND.length / d_model;
  const S = f_NS.length / N;
  const mean_D = new Float64Array(d_model);
  for (let i = 0; i < x_ND.length; i++) mean_D[i % d_model]! += x_ND[i]! / N;
  const error = squares(x_ND.map((x, i) => x_hat_ND[i]! - x));
  const nmse = error / squares(x_ND.map((x, i) => x - mean_D[i % d_model]!));

  let cosine = 0;
  let ratio = 0;
  let n_directed = 0;
  for (let n = 0; n < N; n++) {
    const x_D = x_ND.subarray(n * d_model, (n + 1) * d_model);
    const x_hat_D = x_hat_ND.subarray(n * d_model, (n + 1) * d_model);
    const [length, other] = [Math.sqrt(squares(x_D)), Math.sqrt(squares(x_hat_D))];
    if (length === 0) continue;
    n_directed++;
    ratio += other / length;
    cosine += other === 0 ? 0 : dot(x_D, x_hat_D) / length / other;
  }

  const density = new Float64Array(S);
  for (let i = 0; i < f_NS.length; i++) if (f_NS[i] !== 0) density[i % S]! += 1;
  for (let s = 0; s < S; s++) density[s]! /= N;
  const n_dead = density.filter((share) => share === 0).length;
  const histogram = new Array<number>(32).fill(0);
  for (const share of density) {
    if (share > 0) histogram[Math.min(31, Math.max(0, Math.floor(4 * (8 + Math.log10(share)))))]! += 1;
  }
  return {
    n_rows: N,
    mse: error / x_ND.length,
    nmse,
    explained_variance: 1 - nmse,
    cosine: cosine / n_directed,
    norm_ratio: ratio / n_directed,
    reconstruction_bias: squares(x_hat_ND) / dot(x_ND, x_hat_ND),
    l0: f_NS.filter((f) => f !== 0).length / N,
    l1: f_NS.reduce((sum, f) => sum + Math.abs(f), 0) / N,
    n_dead,
    dead_fraction: n_dead / S,
    n_almost_dead: density.filter((share) => share < almostDeadBelow).length,
    n_dense: density.filter((share) => share > denseAbove).length,
    density,
    histogram,
  };
}

/**
 * Σ_{i<j} a_i a_j cos(e_i, e_j) / Σ_{i<j} a_i a_j for each latent, with its activations scaled to 0 … 1; NaN without a pair.
 * Rows with the embedding 0 are left out.
 */
export function monosemanticity(f_NS: Float64Array, embeddings_NE: Float64Array, d_sae: number): Float64Array {
  const N = f_NS.length / d_sae;
  const E = embeddings_NE.length / N;
  const embedding = (n: number) => embeddings_NE.subarray(n * E, (n + 1) * E);
  const rows = Array.from({ length: N }, (_, n) => n).filter((n) => squares(embedding(n)) > 0);
  return Float64Array.from({ length: d_sae }, (_, s) => {
    const f = rows.map((n) => f_NS[n * d_sae + s]!);
    const [least, most] = [Math.min(...f), Math.max(...f)];
    const a = f.map((value) => (value - least) / (most - least));
    let similarity = 0;
    let weight = 0;
    for (let i = 0; i < a.length; i++) {
      for (let j = i + 1; j < a.length; j++) {
        const [e, g] = [embedding(rows[i]!), embedding(rows[j]!)];
        weight += a[i]! * a[j]!;
        similarity += a[i]! * a[j]! * dot(e, g) / Math.sqrt(squares(e) * squares(g));
      }
    }
    return similarity / weight;
  });
}

/** [S], the largest |cosine| of each row of W_dec with another; 0 with a row of zeros. */
export function largestCosines(W_dec_SD: Float64Array, d_model: number): Float64Array {
  const S = W_dec_SD.length / d_model;
  const row = (s: number) => W_dec_SD.subarray(s * d_model, (s + 1) * d_model);
  return Float64Array.from({ length: S }, (_, s) => {
    let most = 0;
    for (let other = 0; other < S; other++) {
      const length = Math.sqrt(squares(row(s)) * squares(row(other)));
      if (other !== s && length > 0) most = Math.max(most, Math.abs(dot(row(s), row(other))) / length);
    }
    return most;
  });
}

function squares(values: Float64Array): number {
  return dot(values, values);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
