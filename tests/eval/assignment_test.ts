/**
 * Assignments against all permutations, against prices that prove them, and the greedy one against its plain form.
 *
 * @module
 */

import { assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { type Candidates, greedyAssignment, largestAssignment } from "../../eval/assignment.ts";
import { Random } from "../support/random.ts";

function valueOf(values: Float32Array, columns: number, columnOf: ArrayLike<number>): number {
  return Array.from(columnOf).reduce((sum, column, row) => sum + values[row * columns + column]!, 0);
}

/** The largest value of all ways to give each row a column of its own. */
function largestOfAll(values: Float32Array, rows: number, columns: number): number {
  const best = (row: number, taken: ReadonlySet<number>): number => {
    if (row === rows) return 0;
    let most = -Infinity;
    for (let c = 0; c < columns; c++) {
      if (!taken.has(c)) most = Math.max(most, values[row * columns + c]! + best(row + 1, new Set([...taken, c])));
    }
    return most;
  };
  return best(0, new Set());
}

Deno.test("the assignment is the best of all, in squares and in wider matrices, with ties and without", async () => {
  const random = new Random(1);
  for (const [rows, columns] of [[1, 1], [1, 4], [2, 2], [3, 5], [5, 5], [6, 6], [4, 7]] as const) {
    for (
      const values of [random.normal(rows * columns), random.integers(rows * columns), new Float32Array(rows * columns)]
    ) {
      const columnOf = await largestAssignment(values, rows, columns);
      assertEquals(new Set(columnOf).size, rows);
      assertAlmostEquals(valueOf(values, columns, columnOf), largestOfAll(values, rows, columns), 1e-6);
    }
  }
});

Deno.test("a hidden permutation among noise is found, and any swap of two rows makes it worse", async () => {
  const n = 300;
  const random = new Random(2);
  const values = random.normal(n * n, 0.1);
  const hidden = Array.from({ length: n }, (_, row) => (row * 7 + 3) % n);
  for (const [row, column] of hidden.entries()) values[row * n + column] = 0.9;
  assertEquals(Array.from(await largestAssignment(values, n, n)), hidden);
  const noise = random.normal(n * n);
  const columnOf = await largestAssignment(noise, n, n);
  const at = (row: number, of: number) => noise[row * n + columnOf[of]!]!;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      if (at(i, j) + at(j, i) > at(i, i) + at(j, j) + 1e-6) throw new Error(`rows ${i} and ${j} should be swapped`);
    }
  }
});

Deno.test("an assignment ends when it is told to", async () => {
  const reason = new Error("enough");
  const error = await assertRejects(() => largestAssignment(new Float32Array(4), 2, 2, AbortSignal.abort(reason)));
  assertEquals(error === reason, true);
});

Deno.test("a permutation is found again, also of rows that all like the same column", async () => {
  const size = 200;
  const want = new Random(2).permutation(size);
  const values = Float32Array.from({ length: size * size }, (_, i) => {
    const [row, column] = [Math.floor(i / size), i % size];
    return column === want[row] ? 0.5 : column === 0 ? 0.4 : 0;
  });
  assertEquals([...await largestAssignment(values, size, size)], [...want]);
});

Deno.test("what has no assignment is refused", async () => {
  await assertRejects(() => largestAssignment(new Float32Array(6), 3, 2), RangeError, "3 rows");
  await assertRejects(() => largestAssignment(new Float32Array(5), 2, 3), RangeError, "found 5");
  await assertRejects(() => largestAssignment(Float32Array.of(1, NaN), 1, 2), RangeError, "finite");
});

/** The largest pair, again and again. */
function plainGreedy(values: Float32Array, rows: number, columns: number): number[] {
  const columnOf = new Array<number>(rows).fill(-1);
  const pairs = Array.from(values, (value, at) => ({ value, row: Math.floor(at / columns), column: at % columns }))
    .sort((a, b) => b.value - a.value || a.row - b.row || a.column - b.column);
  for (const { row, column } of pairs) {
    if (columnOf[row]! < 0 && !columnOf.includes(column)) columnOf[row] = column;
  }
  return columnOf;
}

Deno.test("the greedy assignment is the plain one, however few candidates it is given at a time", async () => {
  const random = new Random(3);
  for (const [rows, columns] of [[1, 1], [2, 5], [40, 40], [30, 90]] as const) {
    for (const values of [random.normal(rows * columns), random.integers(rows * columns)]) {
      for (const n of [1, 2, 8, columns]) {
        let rounds = 0;
        const columnOf = await greedyAssignment(rows, (open, isFree) => {
          rounds++;
          return Promise.resolve(open.map((row): Candidates => {
            const free = Array.from({ length: columns }, (_, column) => column).filter(isFree)
              .sort((a, b) => values[row * columns + b]! - values[row * columns + a]! || a - b);
            const best = free.slice(0, n);
            return {
              row,
              columns: Uint32Array.from(best),
              values: Float32Array.from(best, (column) => values[row * columns + column]!),
              isComplete: best.length === free.length,
            };
          }));
        });
        assertEquals(Array.from(columnOf), plainGreedy(values, rows, columns), `${rows} × ${columns}, ${n} candidates`);
        if (n === columns) assertEquals(rounds, 1);
      }
    }
  }
});
