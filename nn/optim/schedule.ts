/**
 * Learning-rate schedules, with the exact values of upstream's.
 *
 * Upstream steps its scheduler after each update, and the first update runs at rate 0; {@link LearningRate} says so.
 *
 * @module
 */

/** A rate for the n-th call, n = 1, 2, … */
export interface Schedule {
  /** The value of call `n`. */
  at(n: number): number;
}

/** From `init` to `final` in `n_steps`, then constant: `init + (final − init) · n / n_steps`. */
export function warmup(init: number, final: number, n_steps: number): Schedule {
  return { at: (n) => n < n_steps ? init + (final - init) * (n / n_steps) : final };
}

/** From `init` to `peak` in `n_warmup`, then half a cosine down to `final` at `n_steps`. */
export function warmupCosine(init: number, n_warmup: number, peak: number, n_steps: number, final: number): Schedule {
  return {
    at: (n) => {
      if (n < n_warmup) return init + (peak - init) * (n / n_warmup);
      if (n >= n_steps) return final;
      const progress = (n - n_warmup) / (n_steps - n_warmup);
      return final + (peak - final) * (0.5 * (1 + Math.cos(Math.PI * progress)));
    },
  };
}
