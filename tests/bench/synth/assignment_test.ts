/**
 * The assignment against all there are.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { assign } from "../../../bench/synth/assignment.ts";
import { Random } from "../../support/random.ts";
import { assertFloat64Close } from "../../support/tolerance.ts";

/** The largest Σ score[r, column_r] over all choices of different columns. */
function largest(score: Float32Array, rows: number, columns: number, row = 0, taken: readonly number[] = []): number {
  if (row === rows) return 0;
  let most = -Infinity;
  for (let c = 0; c < columns; c++) {
    if (taken.includes(c)) continue;
    most = Math.max(most, score[row * columns + c]! + largest(score, rows, columns, row + 1, [...taken, c]));
  }
  return most;
}

Deno.test("no other assignment has a larger sum", () => {
  const random = new Random(1);
  for (const [rows, columns] of [[1, 1], [1, 6], [2, 2], [3, 7], [5, 5], [5, 7], [6, 6]] as const) {
    for (let round = 0; round < 20; round++) {
      // Integers make ties; normal numbers do not, and are negative too.
      const score = round % 2 === 0 ? random.integers(rows * columns, 0, 3) : random.normal(rows * columns);
      const found = assign(score, rows, columns);
      assertEquals(new Set(found).size, rows, "every row has a column of its own");
      const sum = found.reduce((total, c, r) => total + score[r * columns + c]!, 0);
      assertFloat64Close([sum], [largest(score, rows, columns)], `${rows} × ${columns}`);
    }
  }
});

Deno.test("a permutation is found again, also of rows that all like the same column", () => {
  const size = 200;
  const want = new Random(2).permutation(size);
  const score = Float32Array.from({ length: size * size }, (_, i) => {
    const [row, column] = [Math.floor(i / size), i % size];
    return column === want[row] ? 0.5 : column === 0 ? 0.4 : 0;
  });
  assertEquals([...assign(score, size, size)], [...want]);
});

Deno.test("what has no assignment is refused", () => {
  assertThrows(() => assign(new Float32Array(6), 3, 2), RangeError, "3 rows");
  assertThrows(() => assign(new Float32Array(5), 2, 3), RangeError, "found 5");
  assertThrows(() => assign(Float32Array.of(1, NaN), 1, 2), RangeError, "finite");
});
