/**
 * The arithmetic of one-dimensional probes: logistic regressions of a class on one sparse feature, for every pair of both.
 *
 * With η = b + w x, μ = 1 / (1 + e^−η) and y whether a row is of the class, a probe's mean log-loss over n rows has the
 * gradient (Σ(μ − y), Σ(μ − y) x) / n and the curvature (Σμ(1 − μ), Σμ(1 − μ) x, Σμ(1 − μ) x²) / n. Rows on which the
 * feature is silent share one x: they are counted, not listed.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, readsOften, updates, writes } from "../kernels/engine/kernel.ts";
import { spans, type Tensor } from "../kernels/engine/tensor.ts";

/** Some entries of a block of features, listed by feature. */
export interface EntryWindow {
  /** [F + 1], where each feature's entries begin in the window. */
  readonly starts: Tensor<"u32">;
  /** [entries], x. */
  readonly values: Tensor;
  /** [entries], the class of each entry's row. */
  readonly labels: Tensor<"u32">;
  /** The most entries that one feature has in it. */
  readonly most: number;
}

const THREADS = 64;
/** Entries that are summed before they are added to the rest: sums of many stay exact. */
const BLOCK = 64;
/** A software driver ends loops at 65,535 turns, those of inner loops counted together with those of outer ones. */
const MAX_ENTRIES = 960 * BLOCK;

/** Numbers of a probe that {@link sumProbes} adds up: loss, both gradients, three curvatures. */
export const SUMS = 6;
/** Numbers of a probe that is being fitted: b, w, and whether it still is. */
export const TRIAL = 3;
/** Numbers that {@link stepProbes} keeps of a probe: b, w, loss, λ, two gradients, three curvatures. */
export const FIT = 9;
/** Numbers of a feature: the share of rows on which it is silent, x there, mean / spread, 1 / spread, RMS where it is not. */
export const FEATURE = 5;
/** Numbers of a class: its share of the rows, and the log-odds of that. */
export const CLASS = 2;

/**
 * WGSL. `log1p(e)` for 0 ≤ e ≤ 1 as 2 artanh(e / (2 + e)), to float32's last bits; `log()` may be off by 5e-7, and losses
 * are smaller than that.
 */
const LOG1P = `
fn log1p(e: f32) -> f32 {
  let z = e / (2.0 + e);
  let q = z * z;
  var series = 1.0 / 15.0;
  series = fma(series, q, 1.0 / 13.0);
  series = fma(series, q, 1.0 / 11.0);
  series = fma(series, q, 1.0 / 9.0);
  series = fma(series, q, 1.0 / 7.0);
  series = fma(series, q, 1.0 / 5.0);
  series = fma(series, q, 1.0 / 3.0);
  return 2.0 * fma(z * q, series, z);
}`;

/** WGSL: the entries of feature `f` that a run takes, as `at` … `end`. */
const ENTRIES = `
  var at = min(starts[f] + dims.first, starts[f + 1u]);
  let end = min(at + ${MAX_ENTRIES}u, starts[f + 1u]);`;

const sumKernel = defineKernel({
  name: "probe_sums",
  dims: ["features", "classes", "entries", "first"],
  bindings: {
    starts: reads("u32", "features+1"),
    values: readsOften("f32", "entries"),
    labels: readsOften("u32", "entries"),
    trials: reads("f32", `features classes ${TRIAL}`),
    sums: updates("f32", `features classes ${SUMS}`),
  },
  workgroup: THREADS,
  grid: ({ features, classes }) => Math.ceil(features * classes / THREADS),
  cost: ({ classes, entries }) => ({ flops: 40 * entries * classes, bytes: 8 * entries * classes }),
  declarations: LOG1P,
  body: `
  let probe = group * ${THREADS}u + lane;
  if (probe >= dims.features * dims.classes) { return; }
  let f = probe / dims.classes;
  let c = probe % dims.classes;
  let b = trials[${TRIAL}u * probe];
  let w = trials[${TRIAL}u * probe + 1u];
  if (trials[${TRIAL}u * probe + 2u] == 0.0) { return; }${ENTRIES}
  if (at == end) { return; }
  var loss = 0.0;
  var gradients = vec2f();
  var curvatures = vec3f();
  while (at < end) {
    var some_loss = 0.0;
    var some_gradients = vec2f();
    var some_curvatures = vec3f();
    let stop = min(at + ${BLOCK}u, end);
    for (; at < stop; at += 1u) {
      let x = values[at];
      let eta = fma(w, x, b);
      let e = exp(-abs(eta));
      let r = 1.0 / (1.0 + e);
      // η towards the class: the error keeps its digits where it is small.
      let is_class = labels[at] == c;
      let towards = select(-eta, eta, is_class);
      let miss = select(r, e * r, towards >= 0.0);
      let error = select(miss, -miss, is_class);
      let s = e * r * r;
      some_loss += max(-towards, 0.0) + log1p(e);
      some_gradients += error * vec2f(1.0, x);
      some_curvatures += s * vec3f(1.0, x, x * x);
    }
    loss += some_loss;
    gradients += some_gradients;
    curvatures += some_curvatures;
  }
  let to = ${SUMS}u * probe;
  sums[to] = old_sums[to] + loss;
  sums[to + 1u] = old_sums[to + 1u] + gradients.x;
  sums[to + 2u] = old_sums[to + 2u] + gradients.y;
  sums[to + 3u] = old_sums[to + 3u] + curvatures.x;
  sums[to + 4u] = old_sums[to + 4u] + curvatures.y;
  sums[to + 5u] = old_sums[to + 5u] + curvatures.z;`,
});

/** What the kernels of a fit share. */
export interface ProbeSizes {
  /** F */
  readonly features: number;
  /** C */
  readonly classes: number;
}

/** sums[f, c] += loss, gradients and curvatures of the window's entries at `trials`, for the probes that are being fitted. */
export function sumProbes(
  commands: Commands,
  { features, classes }: ProbeSizes,
  { starts, values, labels, most }: EntryWindow,
  { trials, sums }: { readonly trials: Tensor; readonly sums: Tensor },
): void {
  const entries = values.size;
  for (const { from: first } of spans(most, MAX_ENTRIES)) {
    commands.run(sumKernel, { features, classes, entries, first, starts, values, labels, trials, sums });
  }
}

/** Steps at most so long, in log-odds. */
const MAX_STEP = 6;
/** λ of Levenberg and Marquardt: at first, at least, and where a fit ends because no step makes it better. */
const [FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING] = [1e-3, 1e-7, 1e5];
/** A probe is fitted once a step promises less than this of its loss. */
const PROMISED = 1e-10;

const stepKernel = defineKernel({
  name: "probe_step",
  dims: ["features", "classes"],
  scalars: ["share", "ridge"],
  bindings: {
    featureFacts: reads("f32", `features ${FEATURE}`),
    classFacts: reads("f32", `classes ${CLASS}`),
    silent: reads("f32", "features classes"),
    sums: writes("f32", `features classes ${SUMS}`),
    fits: writes("f32", `features classes ${FIT}`),
    trials: writes("f32", `features classes ${TRIAL}`),
    left: writes("atomic<u32>", "1"),
  },
  workgroup: THREADS,
  grid: ({ features, classes }) => Math.ceil(features * classes / THREADS),
  cost: ({ features, classes }) => ({ flops: 120 * features * classes, bytes: 120 * features * classes }),
  declarations: LOG1P,
  body: `
  let probe = group * ${THREADS}u + lane;
  if (probe >= dims.features * dims.classes) { return; }
  let trial = ${TRIAL}u * probe;
  if (trials[trial + 2u] == 0.0) { return; }
  let f = ${FEATURE}u * (probe / dims.classes);
  let c = ${CLASS}u * (probe % dims.classes);
  let fit = ${FIT}u * probe;
  let b = trials[trial];
  let w = trials[trial + 1u];

  // The rows on which the feature is silent.
  let rest = featureFacts[f];
  let x0 = featureFacts[f + 1u];
  let of_class = silent[probe];
  let eta = fma(w, x0, b);
  let e = exp(-abs(eta));
  let r = 1.0 / (1.0 + e);
  let up = select(e * r, r, eta >= 0.0);
  let down = select(r, e * r, eta >= 0.0);
  let error = (rest - of_class) * up - of_class * down;
  let s = rest * e * r * r;
  var loss = rest * log1p(e) + (rest - of_class) * max(eta, 0.0) + of_class * max(-eta, 0.0);
  var g0 = error;
  var g1 = error * x0;
  var h0 = s;
  var h1 = s * x0;
  var h2 = s * x0 * x0;

  let sum = ${SUMS}u * probe;
  loss += dims.share * sums[sum];
  g0 += dims.share * sums[sum + 1u];
  g1 += dims.share * sums[sum + 2u];
  h0 += dims.share * sums[sum + 3u];
  h1 += dims.share * sums[sum + 4u];
  h2 += dims.share * sums[sum + 5u];
  for (var i = 0u; i < ${SUMS}u; i += 1u) { sums[sum + i] = 0.0; }

  // The ridge is on b and w of the feature as it is, b − w mean / spread and w / spread of the standardised one.
  let shift = featureFacts[f + 2u];
  let scale = featureFacts[f + 3u];
  let off = fma(-w, shift, b) - classFacts[c + 1u];
  let steep = w * scale;
  loss += 0.5 * dims.ridge * (off * off + steep * steep);
  g0 += dims.ridge * off;
  g1 += dims.ridge * (steep * scale - off * shift);
  h0 += dims.ridge;
  h1 -= dims.ridge * shift;
  h2 += dims.ridge * (scale * scale + shift * shift);

  var damping = fits[fit + 3u];
  let before = fits[fit + 2u];
  // Not so for NaN.
  if (loss <= before + 2e-7 * abs(before)) {
    fits[fit] = b;
    fits[fit + 1u] = w;
    fits[fit + 2u] = loss;
    fits[fit + 4u] = g0;
    fits[fit + 5u] = g1;
    fits[fit + 6u] = h0;
    fits[fit + 7u] = h1;
    fits[fit + 8u] = h2;
    damping = max(0.1 * damping, ${LEAST_DAMPING});
  } else {
    damping = max(10.0 * damping, ${FIRST_DAMPING});
    g0 = fits[fit + 4u];
    g1 = fits[fit + 5u];
    h0 = fits[fit + 6u];
    h1 = fits[fit + 7u];
    h2 = fits[fit + 8u];
  }
  fits[fit + 3u] = damping;

  let d0 = h0 * (1.0 + damping);
  let d2 = h2 * (1.0 + damping);
  // d0 d2 − h1², with the rounding of the square put right.
  let square = h1 * h1;
  let determinant = fma(d0, d2, -square) + fma(-h1, h1, square);
  var db = (h1 * g1 - d2 * g0) / determinant;
  var dw = (h1 * g0 - d0 * g1) / determinant;
  let promised = -0.5 * (g0 * db + g1 * dw);
  let reach = featureFacts[f + 4u] * dw;
  let length = sqrt(db * db + reach * reach);
  if (length > ${MAX_STEP}.0) {
    db *= ${MAX_STEP}.0 / length;
    dw *= ${MAX_STEP}.0 / length;
  }
  let is_fitted = (promised < ${PROMISED} && damping <= ${FIRST_DAMPING}) || damping > ${MOST_DAMPING} || !(determinant > 0.0);
  if (is_fitted) { trials[trial + 2u] = 0.0; } else { atomicAdd(&left[0], 1u); }
  trials[trial] = fits[fit] + db;
  trials[trial + 1u] = fits[fit + 1u] + dw;`,
});

/** What {@link stepProbes} changes. */
export interface ProbeFit {
  /** [F, C, 6], of the entries at `trials`; zeros afterwards. */
  readonly sums: Tensor;
  /** [F, C, 9], the best so far. */
  readonly fits: Tensor;
  /** [F, C, 3], what is tried next. */
  readonly trials: Tensor;
  /** [1], to which the number of probes that are not fitted yet is added. */
  readonly left: Tensor<"u32">;
}

/**
 * One step of Levenberg and Marquardt for each probe that is not fitted yet: a trial is taken if its loss is not larger,
 * and the next made, at most 6 in log-odds away.
 */
export function stepProbes(
  commands: Commands,
  sizes: ProbeSizes,
  given: ProbeFit & {
    /** [F, 5] */
    readonly features: Tensor;
    /** [C, 2] */
    readonly classes: Tensor;
    /** [F, C], the share of rows that are of the class and on which the feature is silent. */
    readonly silent: Tensor;
    readonly n_rows: number;
    readonly ridge: number;
  },
): void {
  const { features: featureFacts, classes: classFacts, n_rows, ridge, ...tensors } = given;
  commands.run(stepKernel, { ...sizes, share: 1 / n_rows, ridge, featureFacts, classFacts, ...tensors });
}

const measureKernel = defineKernel({
  name: "probe_measures",
  dims: ["features", "classes", "entries", "first"],
  bindings: {
    starts: reads("u32", "features+1"),
    values: readsOften("f32", "entries"),
    labels: readsOften("u32", "entries"),
    probes: reads("f32", "features classes 2"),
    losses: updates("f32", "features classes"),
    positives: updates("u32", "features classes 2"),
  },
  workgroup: THREADS,
  grid: ({ features, classes }) => Math.ceil(features * classes / THREADS),
  cost: ({ classes, entries }) => ({ flops: 30 * entries * classes, bytes: 8 * entries * classes }),
  declarations: LOG1P,
  body: `
  let probe = group * ${THREADS}u + lane;
  if (probe >= dims.features * dims.classes) { return; }
  let f = probe / dims.classes;
  let c = probe % dims.classes;
  let b = probes[2u * probe];
  let w = probes[2u * probe + 1u];${ENTRIES}
  if (at == end) { return; }
  var loss = 0.0;
  var hits = 0u;
  var false_alarms = 0u;
  while (at < end) {
    var some_loss = 0.0;
    let stop = min(at + ${BLOCK}u, end);
    for (; at < stop; at += 1u) {
      let eta = fma(w, values[at], b);
      let is_class = labels[at] == c;
      some_loss += max(select(eta, -eta, is_class), 0.0) + log1p(exp(-abs(eta)));
      hits += u32(eta > 0.0 && is_class);
      false_alarms += u32(eta > 0.0 && !is_class);
    }
    loss += some_loss;
  }
  losses[probe] = old_losses[probe] + loss;
  positives[2u * probe] = old_positives[2u * probe] + hits;
  positives[2u * probe + 1u] = old_positives[2u * probe + 1u] + false_alarms;`,
});

/** losses[f, c] += the log-losses of the window's entries, and positives[f, c] += those with η > 0 of the class, and not. */
export function measureProbes(
  commands: Commands,
  { features, classes }: ProbeSizes,
  { starts, values, labels, most }: EntryWindow,
  given: { readonly probes: Tensor; readonly losses: Tensor; readonly positives: Tensor<"u32"> },
): void {
  const entries = values.size;
  for (const { from: first } of spans(most, MAX_ENTRIES)) {
    commands.run(measureKernel, { features, classes, entries, first, starts, values, labels, ...given });
  }
}
