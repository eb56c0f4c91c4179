/**
 * All tolerances of the tests, and the comparators that apply them. No test has a number of its own.
 *
 * With u = 2⁻²⁴ (half the distance between 1 and the next f32), K terms in a sum and S = Σ|aᵢbᵢ|, a sum in f32 is off
 * by about √K·u·S on data without pattern and by (K+1)·u·S at the very most. A relative tolerance on the result is
 * meaningless: cancellation can make it arbitrarily bad in a correct product.
 *
 * Each comparator returns the worst ratio of error to bound (at most 1), and throws an `AssertionError` with the worst
 * element, both values, the bound and their ratio.
 *
 * @module
 */

import { AssertionError } from "@std/assert";

/** Unit round-off of f32. */
export const U = 2 ** -24;

/** The smallest normal f32; on an adapter that flushes denormals, a product loses up to this. */
const LEAST_NORMAL = 2 ** -126;

/** Seeded data without pattern: 2·√K·u·S. */
const SEEDED = 2;

/** Elementwise kernels: 4 ulp per operation. */
const ULPS_PER_OPERATION = 4;

/** Whole tensors of the model tier: ‖Δ‖ ≤ 32·u·‖ref‖. */
const MODEL = 32 * U;

/** A quarter of that: a tensor that moves by more when its inputs are rounded once may exceed the bound. */
const SENSITIVE = 8 * U;

/** For a whole tensor computed in float16, whose u is 2⁻¹¹. */
const FLOAT16 = 32 * 2 ** -11;

/** 40-step runs, every loss and each end parameter's norm. A permuted summation moves them by at most 2.7e-7. */
const RUN = 2e-6;

/** Central differences of a piecewise quadratic loss in f64: exact except for rounding; the worst seen is 8e-11. */
const FINITE_DIFFERENCE = 1e-9;

/** The same sum in another order, in f64. */
const FLOAT64 = 1e-12;

/** Schedules in f64: the last bits of `cos` differ among standard libraries. */
const SCHEDULE_ULPS = 4;

/** The loss of a logistic regression with two parameters at its float32 optimum. */
const PROBE = 1e-6;

/** Frequencies of draws: how many standard deviations χ² may exceed its expectation. */
const CHI_SQUARE_DEVIATIONS = 4;

/**
 * How many standard deviations each of many frequencies may lie from its probability: a normal variable is further off
 * with 6e-7, so among a thousand features none is. Small expected counts are skewed, and get the same number again in
 * draws.
 */
const FREQUENCY_DEVIATIONS = 5;

/** Φ in f32: the error of its approximation (7.5e-8), and some thirty roundings of numbers below 1. */
const NORMAL_CDF = 7.5e-8 + 32 * U;

/** The error that WGSL allows for cosine, and for the logarithm between ½ and 2. */
const COSINE = 2 ** -11;
const LOGARITHM = 2 ** -21;

/**
 * The iteration for a geometric median stops at a residual of 1e-5 of the rows' pull; the median may be off by some
 * such parts of their distance.
 */
const MEDIAN = 1e-4;

/**
 * Muon against PyTorch's own, which orthogonalises in bfloat16 (unit round-off 2⁻⁹): its fifteen products and sums
 * contribute up to 8 such units of the steps' movement.
 */
const BFLOAT16 = 16 * 2 ** -9;

/** The input of the comparators. */
export type Numbers = ArrayLike<number>;

/** One bound for all elements, or one each. */
export type Bound = number | Numbers;

/** Equal as numbers, element by element: NaN equals NaN, −0 equals +0. For integers, at any shape. */
export function assertExact(got: Numbers, want: Numbers, what = "array"): number {
  return compare(got, want, () => 0, what);
}

/** Equal bit by bit: the sign of zero and the payload of NaN count. For reruns of the same arithmetic. */
export function assertSameBits(got: Float32Array, want: Float32Array, what = "array"): void {
  sameLength(got, want, what);
  const gotBits = new Uint32Array(got.buffer, got.byteOffset, got.length);
  const wantBits = new Uint32Array(want.buffer, want.byteOffset, want.length);
  let n_different = 0;
  let first = -1;
  for (let i = 0; i < gotBits.length; i++) {
    if (gotBits[i] !== wantBits[i]) {
      if (first < 0) first = i;
      n_different++;
    }
  }
  if (first < 0) return;
  throw new AssertionError(
    `${what}: ${n_different} of ${got.length} elements differ in their bits, the first at [${first}]: ` +
      `got ${got[first]} (${hex(gotBits[first]!)}), want ${want[first]} (${hex(wantBits[first]!)})`,
  );
}

/** Sums of K products of seeded data without pattern: |err| ≤ 2·√K·u·S. Finds a loss of precision. */
export function assertSumClose(got: Numbers, want: Numbers, absSum: Bound, K: number, what = "sum"): number {
  return compare(got, want, (i) => SEEDED * Math.sqrt(K) * U * at(absSum, i), what);
}

/** Sums of K products of any data: |err| ≤ (K+1)·u·S + K·2⁻¹²⁶. No correct kernel exceeds it. */
export function assertSumBound(got: Numbers, want: Numbers, absSum: Bound, K: number, what = "sum"): number {
  return compare(got, want, (i) => (K + 1) * U * at(absSum, i) + K * LEAST_NORMAL, what);
}

/**
 * Elementwise arithmetic of a few operations: 4 ulp each.
 *
 * @param functionUlps the error that WGSL allows for functions among them, such as 2.5 for a division
 */
export function assertUlps(
  got: Numbers,
  want: Numbers,
  operations: number,
  functionUlps = 0,
  what = "array",
): number {
  return compare(got, want, (i) => (ULPS_PER_OPERATION * operations + functionUlps) * ulp(want[i]!), what);
}

/** A whole tensor of the model tier: ‖got − want‖ ≤ 32·u·‖want‖. */
export function assertTensorClose(got: Numbers, want: Numbers, what = "tensor"): number {
  return compareNorm(got, want, MODEL, what);
}

/**
 * Whether rounding the inputs of a tensor once moves it by more than a quarter of {@link assertTensorClose}'s bound:
 * the root mean square over several ways of rounding, because a single one may happen to leave a number unchanged.
 */
export function isSensitive(moved: readonly Numbers[], want: Numbers): boolean {
  const square = moved.reduce((sum, values) => {
    sameLength(values, want, "tensor");
    return sum + distance(values, want) ** 2;
  }, 0);
  return !(Math.sqrt(square / moved.length) <= SENSITIVE * norm(want));
}

/** The same for a difference whose terms are rounded once each. */
export function isSensitiveDifference(a: number, b: number): boolean {
  return U * (Math.abs(a) + Math.abs(b)) > SENSITIVE * Math.abs(a - b);
}

/** One loss of the model tier, relative like a tensor of one element. */
export function assertScalarClose(got: number, want: number, what = "scalar"): number {
  return compareNorm([got], [want], MODEL, what);
}

/** The losses of a run, one per step: each within 2e-6 relative. */
export function assertRunLosses(got: Numbers, want: Numbers, what = "losses"): number {
  return compare(got, want, (i) => RUN * Math.abs(want[i]!), what);
}

/** A parameter at the end of a run: ‖got − want‖ ≤ 2e-6·‖want‖. */
export function assertRunParameter(got: Numbers, want: Numbers, what = "parameter"): number {
  return compareNorm(got, want, RUN, what);
}

/** A whole tensor that another runtime computed in float16, u = 2⁻¹¹: ‖got − want‖ ≤ 32 · 2⁻¹¹ · ‖want‖. */
export function assertFloat16Close(got: Numbers, want: Numbers, what = "tensor"): number {
  return compareNorm(got, want, FLOAT16, what);
}

/** A parameter after some steps from `start`, where one side rounds to bfloat16: ‖got − want‖ ≤ 2⁻⁵ ‖want − start‖. */
export function assertBfloat16Close(got: Numbers, want: Numbers, start: Numbers, what = "parameter"): number {
  return judge(got, want, distance(got, want), BFLOAT16 * distance(want, start), what);
}

/** A code of k-means, which lies within 2⁻¹⁰ of 1, or what depends on it: within 2⁻⁹ relative. */
export function assertKMeans(got: number, want: number, what = "k-means"): number {
  return compare([got], [want], () => 2 ** -9 * Math.abs(want), what);
}

/** Loss of a fitted probe: at least the optimum − 1e-6, and at most the optimum + 1e-6. */
export function assertProbeOptimal(got: Numbers, optimum: Numbers, what = "probe losses"): number {
  return compare(got, optimum, () => PROBE, what);
}

/** The same where the Python package stopped early: at least the optimum − 1e-6, at most the package's loss + 1e-5. */
export function assertProbeBetween(got: Numbers, optimum: Numbers, theirs: Numbers, what = "probe losses"): void {
  for (let i = 0; i < optimum.length; i++) {
    if (got[i]! >= optimum[i]! - PROBE && got[i]! <= theirs[i]! + 10 * PROBE) continue;
    throw new AssertionError(
      `${what}: [${i}] is ${got[i]}; the optimum is ${optimum[i]}, the package has ${theirs[i]}`,
    );
  }
}

/** Sums of n terms with an exponential, off by 3 + 2 |η| ulps with |η| ≤ 10, and a dozen roundings. */
export function assertProbeSums(got: Numbers, want: Numbers, sizes: Numbers, n: number, what = "probe sums"): number {
  return compare(got, want, (i) => (n + 64) * U * sizes[i]!, what);
}

/** A gradient written by hand against central differences of the float64 loss. */
export function assertFiniteDifference(got: Numbers, want: Numbers, what = "gradient"): number {
  return compare(got, want, (i) => FINITE_DIFFERENCE * (1 + Math.abs(want[i]!)), what);
}

/** The same value in f64 computed another way: ‖got − want‖ ≤ 1e-12·(1 + ‖want‖). */
export function assertFloat64Close(got: Numbers, want: Numbers, what = "array"): number {
  sameLength(got, want, what);
  const bound = FLOAT64 * (1 + norm(want));
  return judge(got, want, distance(got, want), bound, what);
}

/**
 * A mean over the midpoints of `points` equally likely intervals against the integral: the midpoint is off by at most
 * half an interval's share of the integrand's total `variation`, and float32 sums the terms, whose mean size is
 * `absMean`.
 */
export function assertQuadratureClose(
  got: Numbers,
  want: Numbers,
  { points, variation, absMean }: { readonly points: number; readonly variation: Numbers; readonly absMean: Numbers },
  what = "integral",
): number {
  return compare(got, want, (i) => 0.5 * variation[i]! / points + (points + 1) * U * absMean[i]!, what);
}

/** A learning rate or weight of a schedule, computed in f64: equal except for the last bits of a cosine. */
export function assertScheduleClose(got: Numbers, want: Numbers, what = "schedule"): number {
  return compare(got, want, (i) => SCHEDULE_ULPS * 2 ** -53 * Math.max(Math.abs(want[i]!), maximum(want)), what);
}

/** A part that has been removed: |value| ≤ 32·u·`scale`, where `scale` is the size of what it was removed from. */
export function assertVanishes(got: Numbers, scale: Bound, what = "remainder"): number {
  return compare(got, new Float64Array(got.length), (i) => MODEL * at(scale, i), what);
}

/**
 * Checks that a point is the expected geometric median, and that the expected one is a median: each coordinate is
 * within 1e-4 of the mean distance, and the remaining pull is no larger than points at it can hold, or than such an
 * offset explains.
 */
export function assertMedianHolds(
  got: Numbers,
  want: Numbers,
  { norm, n_here, stiffness, distance }: {
    readonly norm: number;
    readonly n_here: number;
    readonly stiffness: number;
    readonly distance: number;
  },
  what = "median",
): void {
  compare(got, want, () => MEDIAN * distance, what);
  const allowed = Math.max(n_here, MEDIAN * stiffness * distance);
  if (norm > allowed) {
    throw new AssertionError(`${what}: a subgradient of norm ${norm} is left; at most ${allowed} is allowed`);
  }
}

/** Every value is at least `least`, up to the rounding of an f64 sum whose terms have the size `scale`. */
export function assertAtLeast(got: Numbers, least: number, scale: Bound, what = "value"): number {
  const clamped = Float64Array.from({ length: got.length }, (_, i) => Math.max(least, got[i]!));
  return compare(got, clamped, (i) => FLOAT64 * at(scale, i), what);
}

/**
 * A selection of the k largest is valid within the error of its inputs: no value left out exceeds one kept by more than
 * the two errors together.
 *
 * @param exact the inputs of the selection, in f64
 * @param bound the largest error of each input of the adapter
 */
export function assertValidSelection(
  kept: ReadonlySet<number>,
  exact: Numbers,
  bound: Bound,
  what = "selection",
): void {
  let least = -1;
  let greatest = -1;
  for (let i = 0; i < exact.length; i++) {
    if (kept.has(i)) {
      if (least < 0 || exact[i]! < exact[least]!) least = i;
    } else if (greatest < 0 || exact[i]! > exact[greatest]!) greatest = i;
  }
  if (least < 0 || greatest < 0) return;
  const excess = exact[greatest]! - exact[least]!;
  const allowed = at(bound, greatest) + at(bound, least);
  if (excess <= allowed) return;
  throw new AssertionError(
    `${what}: keeps [${least}] = ${exact[least]} and leaves out [${greatest}] = ${exact[greatest]}; ` +
      `the inputs explain a difference of ${allowed}, ratio ${(excess / allowed).toPrecision(3)}`,
  );
}

/** The error bound of a seeded sum of K products, for {@link assertValidSelection}: 2·√K·u·S. */
export function seededBound(absSum: Numbers, K: number): Float64Array {
  return Float64Array.from(absSum, (sum) => SEEDED * Math.sqrt(K) * U * sum);
}

/**
 * Two counts of the same draws agree: z² of each count summed over the bins, at most 4 standard deviations above its
 * expectation. A bin counts a draw at most once, so its variance is N·p·(1 − p); bins expected fewer than 5 times are
 * counted together.
 */
export function assertSameFrequencies(
  got: Numbers,
  gotDraws: number,
  want: Numbers,
  wantDraws: number,
  what = "counts",
): void {
  sameLength(got, want, what);
  let chiSquare = 0;
  let n_bins = 0;
  const bin = (a: number, b: number) => {
    const p = (a + b) / (gotDraws + wantDraws);
    if (p <= 0 || p >= 1) return;
    const variance = p * (1 - p) * (1 / gotDraws + 1 / wantDraws);
    chiSquare += (a / gotDraws - b / wantDraws) ** 2 / variance;
    n_bins++;
  };
  let rareGot = 0;
  let rareWant = 0;
  for (let i = 0; i < want.length; i++) {
    if (got[i] !== 0 && want[i] === 0 && got[i]! > 5) {
      throw new AssertionError(`${what}: [${i}] came up ${got[i]} times in ${gotDraws} draws, and should never`);
    }
    if (want[i]! < 5) {
      rareGot += got[i]!;
      rareWant += want[i]!;
    } else bin(got[i]!, want[i]!);
  }
  bin(rareGot, rareWant);
  const bound = n_bins + CHI_SQUARE_DEVIATIONS * Math.sqrt(2 * n_bins);
  if (chiSquare <= bound) return;
  throw new AssertionError(
    `${what}: χ² is ${chiSquare} over ${n_bins} bins, bound ${bound}, ratio ${(chiSquare / bound).toPrecision(3)}`,
  );
}

/** Each count is that of independent draws with its probability: within 5 √(N p (1 − p)) + 5 of N p. */
export function assertFrequencies(counts: Numbers, draws: number, probability: Numbers, what = "frequencies"): number {
  const expected = Float64Array.from({ length: probability.length }, (_, i) => draws * probability[i]!);
  return compare(
    counts,
    expected,
    (i) => FREQUENCY_DEVIATIONS * (1 + Math.sqrt(expected[i]! * (1 - probability[i]!))),
    what,
  );
}

/** 1 if a uniform number is below Φ of something computed in f32, else 0; if the two are too close, either. */
export function assertDecisions(got: Numbers, uniform: Numbers, probability: Numbers, what = "decisions"): number {
  const decided = Float64Array.from({ length: uniform.length }, (_, i) => {
    const isOpen = Math.abs(uniform[i]! - probability[i]!) <= NORMAL_CDF;
    return isOpen ? got[i]! : Number(uniform[i]! < probability[i]!);
  });
  return assertExact(got, decided, what);
}

/**
 * Normal numbers of Box–Muller times `spread`, plus a mean, within the precision of WGSL's functions: with the radius r
 * = √(−2 ln u), the cosine contributes 2⁻¹¹ r, and a logarithm that is off by 2⁻²¹ contributes 2⁻²¹ / r; twice that,
 * plus the rounding of the sum.
 */
export function assertNormals(got: Numbers, want: Numbers, radius: Numbers, spread: Bound, what = "normals"): number {
  const bound = (i: number) => at(spread, i) * (COSINE * radius[i]! + LOGARITHM / radius[i]!);
  return compare(got, want, (i) => 2 * bound(i) + ULPS_PER_OPERATION * ulp(want[i]!), what);
}

/** Runs a check that must fail, such as a mutant's; returns its message. */
export async function assertRefuses(check: () => unknown, what = "check"): Promise<string> {
  try {
    await check();
  } catch (error) {
    if (error instanceof AssertionError) return error.message;
    throw error;
  }
  throw new AssertionError(`${what}: passed, but must fail`);
}

/** The distance from |x| to the next f32. */
export function ulp(x: number): number {
  const size = Math.abs(x);
  if (!(size < Infinity)) return 0;
  return 2 ** (Math.max(-126, exponent(size)) - 23);
}

/** ⌊log₂ x⌋, exactly, for x > 0; −1075 for 0. */
function exponent(x: number): number {
  if (x === 0) return -1075;
  let e = Math.floor(Math.log2(x));
  if (2 ** e > x) e--;
  if (2 ** (e + 1) <= x) e++;
  return e;
}

function compare(got: Numbers, want: Numbers, boundAt: (i: number) => number, what: string): number {
  sameLength(got, want, what);
  let worst = 0;
  let worstAt = -1;
  let n_over = 0;
  for (let i = 0; i < want.length; i++) {
    const ratio = errorRatio(got[i]!, want[i]!, boundAt(i));
    if (ratio > 1) n_over++;
    if (ratio > worst) {
      worst = ratio;
      worstAt = i;
    }
  }
  if (n_over === 0) return worst;
  throw new AssertionError(
    `${what}: ${n_over} of ${want.length} elements are off, the worst at [${worstAt}]: got ${got[worstAt]}, ` +
      `want ${want[worstAt]}, error ${Math.abs(got[worstAt]! - want[worstAt]!)}, bound ${boundAt(worstAt)}, ` +
      `ratio ${worst.toPrecision(3)}`,
  );
}

/** Error over bound: 0 if both are the same number or both NaN, infinite if only one of them is finite. */
function errorRatio(got: number, want: number, bound: number): number {
  if (got === want || (Number.isNaN(got) && Number.isNaN(want))) return 0;
  const error = Math.abs(got - want);
  return Number.isFinite(error) ? error / bound : Infinity;
}

function compareNorm(got: Numbers, want: Numbers, relative: number, what: string): number {
  sameLength(got, want, what);
  return judge(got, want, distance(got, want), relative * norm(want), what);
}

/** A bound on the whole, reported with the element that is furthest off. */
function judge(got: Numbers, want: Numbers, error: number, bound: number, what: string): number {
  if (error === 0) return 0;
  if (error <= bound) return error / bound;
  let worstAt = 0;
  for (let i = 0; i < want.length; i++) {
    const off = Math.abs(got[i]! - want[i]!);
    if (!(off <= Math.abs(got[worstAt]! - want[worstAt]!))) worstAt = i;
    if (Number.isNaN(off)) break;
  }
  throw new AssertionError(
    `${what}: ‖Δ‖ is ${error}, bound ${bound}, ratio ${(error / bound).toPrecision(3)}; the worst element is ` +
      `[${worstAt}]: got ${got[worstAt]}, want ${want[worstAt]}`,
  );
}

function sameLength(got: Numbers, want: Numbers, what: string): void {
  if (got.length !== want.length) {
    throw new AssertionError(`${what}: has ${got.length} elements, want ${want.length}`);
  }
}

function distance(got: Numbers, want: Numbers): number {
  let sum = 0;
  for (let i = 0; i < want.length; i++) {
    if (got[i] !== want[i]) sum += (got[i]! - want[i]!) ** 2;
  }
  return Math.sqrt(sum);
}

function norm(values: Numbers): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

function maximum(values: Numbers): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

function at(bound: Bound, i: number): number {
  return typeof bound === "number" ? bound : bound[i]!;
}

function hex(bits: number): string {
  return `0x${bits.toString(16).padStart(8, "0")}`;
}
