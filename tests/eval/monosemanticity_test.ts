/**
 * Monosemanticity in one pass against the loop over all pairs of rows: every way in which a latent can fire, activations
 * and embeddings far from zero, any split of the rows.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type Monosemanticity, MonosemanticitySums } from "../../eval/monosemanticity.ts";
import { monosemanticity } from "../reference/metrics.ts";
import { compress } from "../support/codes.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertFloat64Close, assertRefuses, assertScalarClose } from "../support/tolerance.ts";

/** Codes [N, S] and embeddings [N, E]. */
interface Data {
  readonly f: Float32Array;
  readonly e: Float32Array;
  readonly N: number;
}

function measured({ f, e, N }: Data, splits: readonly number[] = []): Monosemanticity {
  const [S, E] = [f.length / N, e.length / N];
  const sums = new MonosemanticitySums(S, E);
  const edges = [0, ...splits, N];
  for (let i = 1; i < edges.length; i++) {
    const [from, to] = [edges[i - 1]!, edges[i]!];
    sums.add(e.subarray(from * E, to * E), compress(f.subarray(from * S, to * S), S));
  }
  return sums.result();
}

function wanted({ f, e, N }: Data): Float64Array {
  return monosemanticity(Float64Array.from(f), Float64Array.from(e), f.length / N);
}

/** The same latents have none, and the others' are the same. */
function assertScores(data: Data, what: string): void {
  const found = measured(data);
  const want = wanted(data);
  assertExact(
    found.per_latent.map((score) => Number(Number.isNaN(score))),
    want.map((s) => Number(Number.isNaN(s))),
    what,
  );
  const scores = want.filter((score) => !Number.isNaN(score));
  assertFloat64Close(found.per_latent.filter((score) => !Number.isNaN(score)), scores, what);
  assertEquals(found.n_latents, scores.length, what);
  if (scores.length === 0) assertExact([found.mean], [NaN], what);
  else assertFloat64Close([found.mean], [scores.reduce((sum, score) => sum + score, 0) / scores.length], what);
}

/** One column of codes for each way to fire; `at` and `until` are rows. */
function patterns(random: Random, N: number): Float32Array[] {
  const column = (make: (n: number) => number) => Float32Array.from({ length: N }, (_, n) => make(n));
  const [at, until] = [random.integer(0, N - 1), random.integer(0, N)];
  return [
    column(() => 0),
    column((n) => n === at ? 3 : 0),
    column((n) => n === at ? -3 : 0),
    column((n) => n === at || n === N - 1 ? random.unit() : 0),
    column(() => random.unit() < 0.3 ? random.unit() : 0),
    column(() => random.unit() < 0.3 ? random.unit() - 0.5 : 0),
    column(() => 1 + random.unit()),
    column(() => -1 - random.unit()),
    column(() => random.unit() - 0.5),
    column(() => 7),
    column(() => -7),
    column((n) => n === at ? 8 : 7),
    column((n) => n < until ? 1 + random.unit() : 0),
    column((n) => n < until ? -1 - random.unit() : 0),
    column((n) => n < until ? 2 : random.unit() < 0.5 ? 1 : 0),
    column((n) => n >= until ? 1 + random.unit() : 0),
    column((n) => N - n),
    column((n) => n + 1),
    column((n) => n < until ? random.integer(1, 3) : random.integer(-1, 1)),
  ];
}

/** The columns side by side. */
function rowsOf(columns: readonly Float32Array[], N: number): Float32Array {
  return Float32Array.from(
    { length: N * columns.length },
    (_, i) => columns[i % columns.length]![Math.floor(i / columns.length)]!,
  );
}

Deno.test("however a latent fires, its score is that of the loop over pairs", () => {
  const random = new Random(1);
  for (const N of [1, 2, 3, 4, 7, 40]) {
    for (let round = 0; round < 8; round++) {
      const f = rowsOf(patterns(random, N), N);
      const e = random.normal(N * 5, 3);
      assertScores({ f, e, N }, `${N} rows, round ${round}`);
      // Rows without an embedding are left out, wherever they are.
      const holes = e.map((value, i) => Math.floor(i / 5) % 3 === round % 3 ? 0 : value);
      assertScores({ f, e: holes, N }, `${N} rows with holes, round ${round}`);
    }
  }
});

Deno.test("how rows are split does not change a bit", () => {
  const random = new Random(2);
  const N = 30;
  const data = { f: rowsOf(patterns(random, N), N), e: random.normal(N * 4), N };
  const whole = measured(data);
  for (const splits of [[1], [29], [7, 8, 20], Array.from({ length: 29 }, (_, i) => i + 1)]) {
    assertEquals(measured(data, splits), whole, `split after ${splits}`);
  }
});

Deno.test("a latent that is listed with 0 did not fire", () => {
  const random = new Random(5);
  const N = 20;
  const data = { f: rowsOf(patterns(random, N), N), e: random.normal(N * 4), N };
  const S = data.f.length / N;
  const sums = new MonosemanticitySums(S, 4);
  sums.add(data.e, compress(data.f, S, { zeros: true }));
  assertEquals(sums.result(), measured(data));
});

/** The closed form of sums of A itself: ½(‖Σ c e‖² − Σ c²) with Σ c e = Σ A e − m Σ e, and so on. */
function closedForm({ f, e, N }: Data, s: number): number {
  const [S, E] = [f.length / N, e.length / N];
  const [weighted, all] = [new Float64Array(E), new Float64Array(E)];
  let [sum, squares, least] = [0, 0, Infinity];
  for (let n = 0; n < N; n++) {
    const activation = f[n * S + s]!;
    const e_E = Float64Array.from(e.subarray(n * E, (n + 1) * E));
    const norm = Math.sqrt(e_E.reduce((total, value) => total + value * value, 0));
    e_E.forEach((value, i) => {
      weighted[i]! += activation * value / norm;
      all[i]! += value / norm;
    });
    sum += activation;
    squares += activation ** 2;
    least = Math.min(least, activation);
  }
  const c2 = squares - 2 * least * sum + N * least ** 2;
  const along = weighted.reduce((total, value, i) => total + (value - least * all[i]!) ** 2, 0);
  return (along - c2) / ((sum - N * least) ** 2 - c2);
}

Deno.test("activations and embeddings far from zero keep their score, where the closed form loses it", async () => {
  const random = new Random(3);
  const N = 60;
  const columns = (make: () => number) => rowsOf([0, 1, 2].map(() => Float32Array.from({ length: N }, make)), N);
  const near = { f: columns(random.unit.bind(random)), e: random.normal(N * 6), N };
  assertFloat64Close([closedForm(near, 0)], [wanted(near)[0]!], "the closed form, near zero");
  for (
    const [what, data] of [
      ["activations of 1000 to 1001", { ...near, f: columns(() => 1000 + random.unit()) }],
      ["activations of −1000 to −999", { ...near, f: columns(() => -1000 + random.unit()) }],
      ["the last bits of float32", { ...near, f: columns(() => 2 ** 24 - random.integer(0, 9)) }],
      ["embeddings of mean 1000", { ...near, e: near.e.map((value) => 1000 + value) }],
      ["both", { f: columns(() => 1e4 + random.unit()), e: near.e.map((value) => 1000 + value), N }],
    ] as const
  ) assertScores(data, what);
  const hard = { ...near, f: columns(() => 2 ** 24 - random.integer(0, 9)) };
  await assertRefuses(() => assertScalarClose(closedForm(hard, 0), wanted(hard)[0]!), "the closed form");
  // One row outweighs the other: the pair is lost in the square of the larger.
  const uneven = { f: Float32Array.of(1, 3e-15, 0), e: Float32Array.of(1, 0, 1, 2, 1, 1), N: 3 };
  assertScores(uneven, "uneven");
  await assertRefuses(() => assertScalarClose(closedForm(uneven, 0), wanted(uneven)[0]!), "the closed form");
});

Deno.test("200,000 rows have the score of their kinds", () => {
  const times = 50_000;
  // One latent on two kinds of rows at right angles, one on two alike, one always on.
  const f = Float32Array.of(2, 0, 1001, 1, 0, 1000, 0, 1, 1001, 0, 3, 1000);
  const e = Float32Array.of(1, 0, 0, 1, -1, 0, -1, 0);
  const sums = new MonosemanticitySums(3, 2);
  const codes = compress(f, 3);
  for (let time = 0; time < times; time++) sums.add(e, codes);
  const { per_latent: scores } = sums.result();
  // Pairs by kind, with k rows of each: k(k − 1)/2 a pair of the same, k² a pair of two.
  const k = times;
  const same = k * (k - 1) / 2;
  const first = (4 * same + same) / (4 * same + same + 2 * k * k);
  assertFloat64Close(scores, [first, 1, (same + same - k * k) / (same + same + k * k)]);
});

Deno.test("a score is from −1 to 1, and neither a scale nor a shift of a latent moves it", () => {
  const random = new Random(4);
  const N = 25;
  const data = { f: random.normal(N * 30).map((value) => Math.max(value, 0)), e: random.normal(N * 3), N };
  const { per_latent: scores } = measured(data);
  assert(scores.every((score) => score >= -1 && score <= 1));
  // Scaling or shifting what a latent says on every row changes nothing.
  assertFloat64Close(measured({ ...data, f: data.f.map((value) => 4 * value) }).per_latent, scores);
  const alwaysOn = random.normal(N * 30).map((value) => 8 + Math.round(value));
  assertFloat64Close(
    measured({ ...data, f: alwaysOn.map((value) => value + 64) }).per_latent,
    measured({ ...data, f: alwaysOn }).per_latent,
  );
});
