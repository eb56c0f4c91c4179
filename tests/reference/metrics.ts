/**
 * The metrics of an evaluation again, in plain float64 loops over the whole data at once.
 *
 * @module
 */

/** What an evaluation says. */
export interface Metrics {
  readonly n_rows: number;
  /** Mean of (x̂ − x)² over rows and D. */
  readonly mse: number;
  /** Σ‖x − x̂‖² / (Σ‖x‖² − ‖Σx‖²/N): 0 is perfect, 1 is no better than the mean. */
  readonly nmse: number;
  readonly l0: number;
  readonly l1: number;
  /** Latents that no row made other than 0. */
  readonly n_dead: number;
  readonly dead_fraction: number;
  /** [S] share of rows in which each latent is not 0. */
  readonly density: Float64Array;
}

/** Metrics of codes f and reconstructions x̂ of the rows x. */
export function metrics(x_ND: Float64Array, x_hat_ND: Float64Array, f_NS: Float64Array, d_model: number): Metrics {
  const N = x_ND.length / d_model;
  const S = f_NS.length / N;
  const sum_D = new Float64Array(d_model);
  let squaredError = 0;
  let square = 0;
  for (let i = 0; i < x_ND.length; i++) {
    squaredError += (x_hat_ND[i]! - x_ND[i]!) ** 2;
    square += x_ND[i]! ** 2;
    sum_D[i % d_model]! += x_ND[i]!;
  }
  const baseline = square - sum_D.reduce((total, sum) => total + sum * sum, 0) / N;

  const density = new Float64Array(S);
  let l1 = 0;
  for (let i = 0; i < f_NS.length; i++) {
    l1 += Math.abs(f_NS[i]!) / N;
    if (f_NS[i] !== 0) density[i % S]! += 1 / N;
  }
  const n_dead = density.filter((share) => share === 0).length;
  return {
    n_rows: N,
    mse: squaredError / x_ND.length,
    nmse: squaredError / baseline,
    l0: density.reduce((total, share) => total + share, 0),
    l1,
    n_dead,
    dead_fraction: n_dead / S,
    density,
  };
}
