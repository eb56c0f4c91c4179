/**
 * PCA whitening: rows are projected onto the leading principal components of the data and scaled to unit variance on
 * each.
 *
 * Natural images have most of their variance in slow gradients. After whitening every direction counts alike, and the
 * sparse structure that remains is edges.
 *
 * Sums are in float64 in a fixed order with + − × ÷ √ only, so the result is the same on every machine.
 *
 * @module
 */

/** A linear map from D numbers to C uncorrelated ones of unit variance, and back. */
export interface Whitening {
  /** Width of the data, D. */
  readonly d_in: number;
  /** Number of components, C. */
  readonly d_out: number;
  /** [D] */
  readonly mean: Float64Array;
  /** [C, D]: orthonormal rows, the direction of most variance first. */
  readonly components: Float64Array;
  /** [C]: the data's standard deviation along each component. */
  readonly scales: Float64Array;
  /** The share of the data's variance in the components. */
  readonly explained: number;
}

/** Eigenvalues in descending order, and their unit eigenvectors as rows. */
export interface Eigen {
  /** [n] */
  readonly values: Float64Array;
  /** [n, n] */
  readonly vectors: Float64Array;
}

/** The whitening of the data's leading `d_out` principal components; `rows` is [n, d_in]. */
export function fitWhitening(rows: Float32Array, d_in: number, d_out: number): Whitening {
  const { mean, matrix } = covariance(rows, d_in);
  const { values, vectors } = symmetricEigen(matrix, d_in);
  const total = values.reduce((sum, value) => sum + value, 0);
  const kept = values.subarray(0, d_out);
  if (d_out > d_in || !(kept[d_out - 1]! > total * Number.EPSILON)) {
    throw new RangeError(`cannot whiten to ${d_out} components: the data varies in fewer directions`);
  }
  return {
    d_in,
    d_out,
    mean,
    components: vectors.slice(0, d_out * d_in),
    scales: kept.map(Math.sqrt),
    explained: kept.reduce((sum, value) => sum + value, 0) / total,
  };
}

/** z = (x − mean) Eᵀ / s: [n, D] to [n, C]. */
export function whiten({ d_in, d_out, mean, components, scales }: Whitening, rows: Float32Array): Float32Array {
  const n = rows.length / d_in;
  const whitened = new Float32Array(n * d_out);
  // Four rows at a time, so that each element of a component is loaded once for all four.
  const centred = new Float64Array(4 * d_in);
  for (let row = 0; row < n; row += 4) {
    const block = rows.subarray(row * d_in, (row + 4) * d_in);
    for (let i = 0; i < block.length; i++) centred[i] = block[i]! - mean[i % d_in]!;
    for (let c = 0; c < d_out; c++) {
      let [z0, z1, z2, z3] = [0, 0, 0, 0];
      for (let i = 0; i < d_in; i++) {
        const weight = components[c * d_in + i]!;
        z0 += weight * centred[i]!;
        z1 += weight * centred[d_in + i]!;
        z2 += weight * centred[2 * d_in + i]!;
        z3 += weight * centred[3 * d_in + i]!;
      }
      // For the last rows of a ragged block, writes fall outside the array, which ignores them.
      const at = row * d_out + c;
      whitened[at] = z0 / scales[c]!;
      whitened[at + d_out] = z1 / scales[c]!;
      whitened[at + 2 * d_out] = z2 / scales[c]!;
      whitened[at + 3 * d_out] = z3 / scales[c]!;
    }
  }
  return whitened;
}

/** x = z s E, without the mean: [n, C] to [n, D]. Maps back directions, such as decoder rows, and centred data. */
export function unwhiten({ d_in, d_out, components, scales }: Whitening, whitened: Float32Array): Float32Array {
  const rows = new Float32Array(whitened.length / d_out * d_in);
  const sum = new Float64Array(d_in);
  for (let row = 0, at = 0; at < whitened.length; row += d_in, at += d_out) {
    sum.fill(0);
    for (let c = 0; c < d_out; c++) {
      const weight = whitened[at + c]! * scales[c]!;
      for (let i = 0; i < d_in; i++) sum[i]! += weight * components[c * d_in + i]!;
    }
    rows.set(sum, row);
  }
  return rows;
}

/**
 * The same without the scales: [n, C] to [n, D] pixels in which neighbours are uncorrelated (ZCA). White noise stays
 * white here, where {@link unwhiten} would turn it into smooth blobs; shapes are judged in this space.
 */
export function unrotate(whitening: Whitening, whitened: Float32Array): Float32Array {
  return unwhiten({ ...whitening, scales: new Float64Array(whitening.d_out).fill(1) }, whitened);
}

/**
 * The share of `rows` [n, d] that principal components leave unexplained: 1 − (Σ of the `k` largest eigenvalues) / (Σ
 * of all), for the covariance of these rows themselves. No other linear method with k numbers per row does better on
 * them.
 */
export function bestLinearNmse(rows: Float32Array, d: number, k: number): number {
  const { values } = symmetricEigen(covariance(rows, d).matrix, d);
  const sum = (array: Float64Array): number => array.reduce((total, value) => total + value, 0);
  return 1 - sum(values.subarray(0, k)) / sum(values);
}

/** The share of `rows` [n, d] that the first `k` coordinates leave unexplained, in principal-component coordinates. */
export function leadingComponentsNmse(rows: Float32Array, d: number, k: number): number {
  const n = rows.length / d;
  let [left, total] = [0, 0];
  for (let c = 0; c < d; c++) {
    let [sum, squares] = [0, 0];
    for (let at = c; at < rows.length; at += d) {
      sum += rows[at]!;
      squares += rows[at]! * rows[at]!;
    }
    total += squares - sum * sum / n;
    if (c >= k) left += squares - sum * sum / n;
  }
  return left / total;
}

/** Σ‖x − y‖² / (Σ‖x‖² − ‖Σx‖²/n), for x and y [n, d]. */
export function nmse(x: Float32Array, y: Float32Array, d: number): number {
  const sums = new Float64Array(d);
  let [errors, squares] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    errors += (x[i]! - y[i]!) ** 2;
    squares += x[i]! * x[i]!;
    sums[i % d]! += x[i]!;
  }
  const ofMean = sums.reduce((sum, value) => sum + value * value, 0) * d / x.length;
  return errors / (squares - ofMean);
}

/** The mean of the rows, and their covariance [d, d]. */
function covariance(rows: Float32Array, d: number): { mean: Float64Array; matrix: Float64Array } {
  const n = rows.length / d;
  const mean = new Float64Array(d);
  for (let at = 0; at < rows.length; at++) mean[at % d]! += rows[at]! / n;
  const matrix = new Float64Array(d * d);
  const centred = new Float64Array(d);
  for (let row = 0; row < rows.length; row += d) {
    for (let i = 0; i < d; i++) centred[i] = rows[row + i]! - mean[i]!;
    for (let i = 0; i < d; i++) {
      const value = centred[i]!;
      for (let j = i; j < d; j++) matrix[i * d + j]! += value * centred[j]!;
    }
  }
  for (let i = 0; i < d; i++) {
    for (let j = i; j < d; j++) matrix[j * d + i] = matrix[i * d + j]! /= n;
  }
  return { mean, matrix };
}

/**
 * Eigenvalues and eigenvectors of a symmetric matrix [n, n] by the cyclic Jacobi method (Golub and Van Loan, Matrix
 * Computations, 8.5): plane rotations in a fixed order zero one pair of elements after another until none is left. The
 * sign of each vector makes its largest element positive.
 */
export function symmetricEigen(matrix: Float64Array, n: number): Eigen {
  const a = matrix.slice();
  const v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  const norm = a.reduce((sum, value) => sum + value * value, 0);
  const MAX_SWEEPS = 60;
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    let rest = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) rest += a[p * n + q]! ** 2;
    }
    if (rest <= norm * Number.EPSILON ** 2) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) rotate(a, v, n, p, q);
    }
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => a[j * n + j]! - a[i * n + i]! || i - j);
  const vectors = new Float64Array(n * n);
  order.forEach((source, row) => {
    const vector = v.subarray(source * n, (source + 1) * n);
    let largest = 0;
    for (const value of vector) if (Math.abs(value) > Math.abs(largest)) largest = value;
    for (let i = 0; i < n; i++) vectors[row * n + i] = largest < 0 ? -vector[i]! : vector[i]!;
  });
  return { values: Float64Array.from(order, (i) => a[i * n + i]!), vectors };
}

/** a ← JᵀaJ with the rotation J in the plane (p, q) that makes a[p, q] zero; the rows of v are rotated alike. */
function rotate(a: Float64Array, v: Float64Array, n: number, p: number, q: number): void {
  const apq = a[p * n + q]!;
  if (apq === 0) return;
  const theta = (a[q * n + q]! - a[p * n + p]!) / (2 * apq);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const cosine = 1 / Math.sqrt(t * t + 1);
  const sine = t * cosine;
  for (let k = 0; k < n; k++) {
    const [akp, akq] = [a[k * n + p]!, a[k * n + q]!];
    a[k * n + p] = cosine * akp - sine * akq;
    a[k * n + q] = sine * akp + cosine * akq;
  }
  for (const rows of [a, v]) {
    for (let k = 0; k < n; k++) {
      const [pk, qk] = [rows[p * n + k]!, rows[q * n + k]!];
      rows[p * n + k] = cosine * pk - sine * qk;
      rows[q * n + k] = sine * pk + cosine * qk;
    }
  }
}
