/**
 * Eigenvalues and eigenvectors of a symmetric matrix, in float64.
 *
 * Householder reflections make it tridiagonal, then QL steps with implicit shifts make it diagonal: 4 n³ steps or so.
 *
 * Source: the procedures tred2 and tql2 of Bowdler, Martin, Reinsch and Wilkinson, Handbook for Automatic Computation II
 * (1971), as EISPACK and JAMA have them.
 *
 * @module
 */

/** An eigenvalue and its eigenvector. */
export interface EigenPair {
  /** λ */
  readonly value: number;
  /** [n], of length 1; its largest element, of equal ones the first, is positive. */
  readonly vector: Float64Array;
}

/** Steps for one eigenvalue: three are usual. */
const MAX_STEPS = 60;

/**
 * A = Σ λ v vᵀ for a symmetric A [n, n]; the pair with the largest λ first.
 *
 * @throws {RangeError} for a matrix with a number that is not finite.
 */
export function symmetricEigen(A: Float64Array, n: number): EigenPair[] {
  const bad = A.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new RangeError(`eigenvectors: element ${bad} of the matrix is ${A[bad]}; expected finite numbers`);
  }
  // Row j of V becomes the j-th eigenvector, so that both procedures go along rows.
  const V = A.slice();
  const [d, e] = [new Float64Array(n), new Float64Array(n)];
  tridiagonalise(V, d, e, n);
  diagonalise(V, d, e, n);
  return Array.from(d, (value, j): EigenPair => {
    const vector = V.slice(j * n, (j + 1) * n);
    const largest = vector.reduce((most, x) => Math.abs(x) > Math.abs(most) ? x : most, 0);
    return { value, vector: largest < 0 ? vector.map((x) => -x) : vector };
  }).sort((a, b) => b.value - a.value);
}

/** V becomes the transpose of the reflections' product, d the diagonal, e the one beside it, from e[1] on. */
function tridiagonalise(V: Float64Array, d: Float64Array, e: Float64Array, n: number): void {
  for (let j = 0; j < n; j++) d[j] = V[j * n + n - 1]!;
  for (let i = n - 1; i > 0; i--) {
    let [scale, h] = [0, 0];
    for (let k = 0; k < i; k++) scale += Math.abs(d[k]!);
    if (scale === 0) {
      e[i] = d[i - 1]!;
      for (let j = 0; j < i; j++) {
        d[j] = V[j * n + i - 1]!;
        V[j * n + i] = 0;
        V[i * n + j] = 0;
      }
    } else {
      for (let k = 0; k < i; k++) {
        d[k]! /= scale;
        h += d[k]! * d[k]!;
      }
      const f = d[i - 1]!;
      const g = f > 0 ? -Math.sqrt(h) : Math.sqrt(h);
      e[i] = scale * g;
      h -= f * g;
      d[i - 1] = f - g;
      e.fill(0, 0, i);
      for (let j = 0; j < i; j++) {
        const row = j * n;
        const dj = d[j]!;
        V[i * n + j] = dj;
        let sum = e[j]! + V[row + j]! * dj;
        for (let k = j + 1; k < i; k++) {
          sum += V[row + k]! * d[k]!;
          e[k]! += V[row + k]! * dj;
        }
        e[j] = sum;
      }
      let dot = 0;
      for (let j = 0; j < i; j++) {
        e[j]! /= h;
        dot += e[j]! * d[j]!;
      }
      const half = dot / (h + h);
      for (let j = 0; j < i; j++) e[j]! -= half * d[j]!;
      for (let j = 0; j < i; j++) {
        const row = j * n;
        const [dj, ej] = [d[j]!, e[j]!];
        for (let k = j; k < i; k++) V[row + k]! -= dj * e[k]! + ej * d[k]!;
        d[j] = V[row + i - 1]!;
        V[row + i] = 0;
      }
    }
    d[i] = h;
  }
  for (let i = 0; i < n - 1; i++) {
    V[i * n + n - 1] = V[i * n + i]!;
    V[i * n + i] = 1;
    const h = d[i + 1]!;
    const next = (i + 1) * n;
    if (h !== 0) {
      for (let k = 0; k <= i; k++) d[k] = V[next + k]! / h;
      for (let j = 0; j <= i; j++) {
        const row = j * n;
        let g = 0;
        for (let k = 0; k <= i; k++) g += V[next + k]! * V[row + k]!;
        for (let k = 0; k <= i; k++) V[row + k]! -= g * d[k]!;
      }
    }
    V.fill(0, next, next + i + 1);
  }
  for (let j = 0; j < n; j++) {
    d[j] = V[j * n + n - 1]!;
    V[j * n + n - 1] = 0;
  }
  V[n * n - 1] = 1;
  e[0] = 0;
}

/** d becomes the eigenvalues, and V's rows their vectors. */
function diagonalise(V: Float64Array, d: Float64Array, e: Float64Array, n: number): void {
  e.copyWithin(0, 1);
  e[n - 1] = 0;
  let [f, most] = [0, 0];
  for (let l = 0; l < n; l++) {
    most = Math.max(most, Math.abs(d[l]!) + Math.abs(e[l]!));
    let m = l;
    while (m < n - 1 && Math.abs(e[m]!) > Number.EPSILON * most) m++;
    for (let step = 0; m > l && Math.abs(e[l]!) > Number.EPSILON * most; step++) {
      if (step === MAX_STEPS) throw new RangeError(`eigenvectors: eigenvalue ${l} is not found after ${step} steps`);
      let g = d[l]!;
      let p = (d[l + 1]! - g) / (2 * e[l]!);
      let r = p < 0 ? -Math.hypot(p, 1) : Math.hypot(p, 1);
      d[l] = e[l]! / (p + r);
      d[l + 1] = e[l]! * (p + r);
      const dl1 = d[l + 1]!;
      const h = g - d[l]!;
      for (let i = l + 2; i < n; i++) d[i]! -= h;
      f += h;
      p = d[m]!;
      let [c, c2, c3, s, s2] = [1, 1, 1, 0, 0];
      const el1 = e[l + 1]!;
      for (let i = m - 1; i >= l; i--) {
        [c3, c2, s2] = [c2, c, s];
        g = c * e[i]!;
        const hp = c * p;
        r = Math.hypot(p, e[i]!);
        e[i + 1] = s * r;
        s = e[i]! / r;
        c = p / r;
        p = c * d[i]! - s * g;
        d[i + 1] = hp + s * (c * g + s * d[i]!);
        const [row, next] = [i * n, (i + 1) * n];
        for (let k = 0; k < n; k++) {
          const old = V[next + k]!;
          V[next + k] = s * V[row + k]! + c * old;
          V[row + k] = c * V[row + k]! - s * old;
        }
      }
      p = -s * s2 * c3 * el1 * e[l]! / dl1;
      e[l] = s * p;
      d[l] = c * p;
    }
    d[l]! += f;
    e[l] = 0;
  }
}
