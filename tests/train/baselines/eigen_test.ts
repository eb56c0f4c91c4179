/** Eigenvectors of symmetric matrices: what they must be, for matrices of every kind. @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { symmetricEigen } from "../../../train/baselines/eigen.ts";
import { Random } from "../../support/random.ts";
import { assertFloat64Close } from "../../support/tolerance.ts";

function symmetric(n: number, element: (i: number, j: number) => number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    return element(Math.min(i, j), Math.max(i, j));
  });
}

/** Σ λ v vᵀ is the matrix, vectors are orthonormal, values descend, and the largest element is positive. */
function assertEigen(A: Float64Array, n: number, what: string): void {
  const pairs = symmetricEigen(A, n);
  const again = new Float64Array(n * n);
  for (const { value, vector } of pairs) {
    for (let at = 0; at < n * n; at++) again[at]! += value * vector[Math.floor(at / n)]! * vector[at % n]!;
    const largest = vector.reduce((most, x) => Math.abs(x) > Math.abs(most) ? x : most, 0);
    assert(largest > 0, what);
  }
  assertFloat64Close(again, A, what);
  const products = pairs.flatMap(({ vector: a }) =>
    pairs.map(({ vector: b }) => a.reduce((sum, x, i) => sum + x * b[i]!, 0))
  );
  assertFloat64Close(products, products.map((_, at) => Number(at % n === Math.floor(at / n))), what);
  for (let i = 1; i < n; i++) assert(pairs[i - 1]!.value >= pairs[i]!.value, what);
}

Deno.test("random matrices of many sizes are put together again", () => {
  const random = new Random(1);
  for (const n of [1, 2, 3, 5, 8, 21, 50]) {
    const numbers = random.normal(n * n);
    assertEigen(symmetric(n, (i, j) => numbers[i * n + j]!), n, `n = ${n}`);
  }
});

Deno.test("zeros, diagonals, equal eigenvalues, and matrices of low rank are no exception", () => {
  const kinds: Record<string, (i: number, j: number) => number> = {
    zeros: () => 0,
    identity: (i, j) => Number(i === j),
    diagonal: (i, j) => i === j ? i - 3 : 0,
    ones: () => 1,
    pairs: (i, j) => i === j ? 2 : j === i + 1 && i % 2 === 0 ? 1 : 0,
    "of very different sizes": (i, j) => 10 ** -(i + j),
  };
  for (const [kind, element] of Object.entries(kinds)) assertEigen(symmetric(7, element), 7, kind);
});

Deno.test("a number that is not finite is refused", () => {
  assertEquals(symmetricEigen(Float64Array.of(-2), 1), [{ value: -2, vector: Float64Array.of(1) }]);
  assertThrows(() => symmetricEigen(Float64Array.of(1, NaN, NaN, 1), 2), RangeError, "element 1 of the matrix is NaN");
});
