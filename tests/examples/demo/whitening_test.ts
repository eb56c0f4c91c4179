/** Whitening: the eigenvectors, what whitening must do to data, and the baselines of the demo. @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  bestLinearNmse,
  fitWhitening,
  leadingComponentsNmse,
  nmse,
  symmetricEigen,
  unwhiten,
  whiten,
} from "../../../examples/demo/whitening.ts";
import { Random } from "../../support/random.ts";
import { assertFloat64Close, assertSameBits, assertScalarClose, assertTensorClose } from "../../support/tolerance.ts";

function product(a: Float64Array, b: Float64Array, n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, at) => {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < n; i++) sum += a[row * n + i]! * b[i * n + column]!;
    return sum;
  });
}

function transposed(a: Float64Array, n: number): Float64Array {
  return a.map((_, at) => a[(at % n) * n + Math.floor(at / n)]!);
}

function diagonal(values: ArrayLike<number>): Float64Array {
  const n = values.length;
  return Float64Array.from({ length: n * n }, (_, at) => (Math.floor(at / n) === at % n ? values[at % n]! : 0));
}

/** Rows with correlated columns of very different variance and a mean. */
function correlated(n: number, d: number, seed: number): Float32Array {
  const random = new Random(seed);
  const mixing = random.normal(d * d);
  const rows = new Float32Array(n * d);
  for (let row = 0; row < n; row++) {
    const source = random.normal(d);
    for (let i = 0; i < d; i++) {
      rows[row * d + i] = 3 + source.reduce((sum, value, j) => sum + value * mixing[i * d + j]! / (1 + j), 0);
    }
  }
  return rows;
}

const MATRICES: readonly [name: string, n: number, matrix: (n: number) => Float64Array][] = [
  ["random", 17, (n) => {
    const a = Float64Array.from(new Random(1).normal(n * n));
    return a.map((value, at) => value + transposed(a, n)[at]!);
  }],
  ["with equal eigenvalues", 9, (n) => new Float64Array(n * n).fill(1)],
  ["diagonal", 5, () => diagonal([1, -3, 2, 0, 2])],
  ["zero", 4, (n) => new Float64Array(n * n)],
  ["of one element", 1, () => Float64Array.of(-2)],
];

for (const [name, n, make] of MATRICES) {
  Deno.test(`symmetricEigen: a matrix ${name}`, () => {
    const matrix = make(n);
    const { values, vectors } = symmetricEigen(matrix, n);
    assertFloat64Close(product(vectors, transposed(vectors, n), n), diagonal(new Float64Array(n).fill(1)), "V Vᵀ");
    const back = product(transposed(vectors, n), product(diagonal(values), vectors, n), n);
    assertFloat64Close(back, matrix, "Vᵀ Λ V");
    assertEquals([...values], [...values.toSorted().reverse()]);
  });
}

Deno.test("whitened data has zero mean and the identity for covariance", () => {
  const [n, d] = [501, 6];
  const rows = correlated(n, d, 2);
  const whitening = fitWhitening(rows, d, 4);
  const whitened = whiten(whitening, rows);
  assertEquals(whitened.length, n * 4);
  const moments = new Float64Array(16);
  const means = new Float64Array(4);
  for (let at = 0; at < whitened.length; at += 4) {
    for (let i = 0; i < 4; i++) {
      means[i]! += whitened[at + i]! / n;
      for (let j = 0; j < 4; j++) moments[4 * i + j]! += whitened[at + i]! * whitened[at + j]! / n;
    }
  }
  assertTensorClose(means.map((value) => 1 + value), new Float64Array(4).fill(1), "means");
  assertTensorClose(moments, diagonal([1, 1, 1, 1]), "covariance");
  assert(whitening.explained > 0.5 && whitening.explained < 1);
});

Deno.test("unwhitening takes all components back to the data", () => {
  const d = 5;
  const rows = correlated(40, d, 3);
  const whitening = fitWhitening(rows, d, d);
  const back = unwhiten(whitening, whiten(whitening, rows)).map((value, i) => value + whitening.mean[i % d]!);
  assertTensorClose(back, rows);
});

Deno.test("a row's whitening does not depend on the rows around it", () => {
  const d = 3;
  const rows = correlated(7, d, 4);
  const whitening = fitWhitening(rows, d, 2);
  const single = Array.from({ length: 7 }, (_, row) => [...whiten(whitening, rows.subarray(d * row, d * (row + 1)))]);
  assertSameBits(whiten(whitening, rows), Float32Array.from(single.flat()));
});

Deno.test("whitening to more components than the data has is refused", () => {
  const rows = Float32Array.from({ length: 30 }, (_, i) => (i % 3 === 2 ? 1 : i * i));
  fitWhitening(rows, 3, 2);
  assertThrows(() => fitWhitening(rows, 3, 3), RangeError, "3 components");
  assertThrows(() => fitWhitening(rows, 3, 4), RangeError, "4 components");
});

Deno.test("the error of the leading coordinates is that of zeroing the others", () => {
  const d = 4;
  const rows = correlated(100, d, 5);
  for (let k = 0; k <= d; k++) {
    const mean = new Float64Array(d);
    rows.forEach((value, i) => mean[i % d]! += value / 100);
    const kept = rows.map((value, i) => (i % d < k ? value : mean[i % d]!));
    assertScalarClose(1 + leadingComponentsNmse(rows, d, k), 1 + nmse(rows, kept, d), `${k} coordinates`);
  }
});

Deno.test("no choice of coordinates beats the best linear subspace", () => {
  const d = 4;
  const rows = correlated(100, d, 6);
  for (let k = 1; k < d; k++) assert(bestLinearNmse(rows, d, k) < leadingComponentsNmse(rows, d, k));
  const onALine = Float32Array.from({ length: 60 }, (_, i) => Math.floor(i / 3) * (1 + i % 3));
  assertScalarClose(1 + bestLinearNmse(onALine, 3, 1), 1);
});
