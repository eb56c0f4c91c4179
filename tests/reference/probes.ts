/** One-dimensional probes in float64, one at a time and as plain as they can be. @module */

/** A probe of some rows: the activation of each, silent ones 0, and whether it is of the class. */
export interface ProbeRows {
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number | boolean>;
}

/** Sums over rows at b and w, and the sums of their terms' sizes. */
export interface ProbeSums {
  /** Loss, ∂/∂b, ∂/∂w, ∂²/∂b², ∂²/∂b∂w, ∂²/∂w². */
  readonly sums: number[];
  readonly sizes: number[];
}

function softplus(eta: number): number {
  return Math.log1p(Math.exp(-Math.abs(eta))) + Math.max(eta, 0);
}

/** Σ over rows of the log-loss and its derivatives. */
export function probeSums({ x, y }: ProbeRows, b: number, w: number): ProbeSums {
  const [sums, sizes] = [new Array<number>(6).fill(0), new Array<number>(6).fill(0)];
  for (let i = 0; i < x.length; i++) {
    const eta = b + w * x[i]!;
    const mu = 1 / (1 + Math.exp(-eta));
    const error = y[i] ? -1 / (1 + Math.exp(eta)) : mu;
    const s = mu / (1 + Math.exp(eta));
    const terms = [softplus(y[i] ? -eta : eta), error, error * x[i]!, s, s * x[i]!, s * x[i]! ** 2];
    terms.forEach((term, t) => {
      sums[t]! += term;
      sizes[t]! += Math.abs(term);
    });
  }
  return { sums, sizes };
}

/** The mean log-loss. */
export function probeLoss(rows: ProbeRows, b: number, w: number): number {
  return probeSums(rows, b, w).sums[0]! / rows.x.length;
}

/** The least mean log-loss + ridge/2 (w² + (b − b₀)²), by Newton's method with halved steps, and the log-loss there. */
export function optimalLoss(rows: ProbeRows, ridge: number): number {
  const n = rows.x.length;
  const share = Array.from(rows.y).filter(Boolean).length / n;
  const b0 = Math.log(share / (1 - share));
  // Activations of any size are fitted as if the largest were 1.
  const size = Array.from(rows.x).reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1;
  const scaled = { x: Array.from(rows.x, (x) => x / size), y: rows.y };
  const evaluate = (b: number, w: number) => {
    const [loss, g0, g1, h0, h1, h2] = probeSums(scaled, b, w).sums.map((sum) => sum / n) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const r = ridge / size ** 2;
    return {
      loss,
      total: loss + 0.5 * (ridge * (b - b0) ** 2 + r * w ** 2),
      g: [g0 + ridge * (b - b0), g1 + r * w] as const,
      h: [h0 + ridge, h1, h2 + r] as const,
    };
  };
  let [b, w] = [b0, 0];
  let now = evaluate(b, w);
  for (let step = 0; step < 500; step++) {
    const [g0, g1] = now.g;
    const [h0, h1, h2] = now.h;
    const determinant = h0 * h2 - h1 * h1;
    const [db, dw] = [(h1 * g1 - h2 * g0) / determinant, (h1 * g0 - h0 * g1) / determinant];
    if (!(-(g0 * db + g1 * dw) > 1e-15)) break;
    let factor = 1;
    let next = evaluate(b + db, w + dw);
    while (!(next.total < now.total) && factor > 1e-12) {
      factor /= 2;
      next = evaluate(b + factor * db, w + factor * dw);
    }
    if (!(next.total < now.total)) break;
    [b, w, now] = [b + factor * db, w + factor * dw, next];
  }
  return now.loss;
}

/** Σ over distinct scores, descending, of the change of recall times the precision so far. */
export function averagePrecision(scores: ArrayLike<number>, y: ArrayLike<number | boolean>): number {
  const all = Array.from(scores, (score, i) => ({ score, of: Number(y[i]) }));
  const n_of = all.reduce((sum, { of }) => sum + of, 0);
  let [before, sum] = [0, 0];
  for (const threshold of [...new Set(all.map(({ score }) => score))].sort((a, b) => b - a)) {
    const called = all.filter(({ score }) => score >= threshold);
    const hits = called.reduce((sum, { of }) => sum + of, 0);
    sum += (hits - before) / n_of * (hits / called.length);
    before = hits;
  }
  return sum;
}
