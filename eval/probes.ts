/**
 * One-dimensional probes: how well one latent alone predicts one class, for every latent and class.
 *
 * A probe is a logistic regression with two parameters: the probability of the class at activation x is 1 / (1 + e^−(b
 * + w x)). It minimises the mean log-loss over the rows plus `ridge`/2 · (w² + (b − b₀)²), where b₀ is the log-odds of
 * the class. The fit is Levenberg–Marquardt on the device, for all latents and classes of a block at once. Losses are
 * reported without the ridge.
 *
 * Source: `probe1d` and `metrics` of the Python package's trait discovery (commit 3d73f1f), whose numbers are the same
 * where it converges. It stops early where a latent separates a class, orders tied scores arbitrarily, and counts
 * latents that never fire as pure.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { Commands } from "../kernels/engine/commands.ts";
import { contextOf, type DeviceContext } from "../kernels/engine/device.ts";
import { ShapeError, shown } from "../kernels/engine/errors.ts";
import { defaultDevice } from "../kernels/engine/self_check.ts";
import { elementsPerBinding, spans, Tensor } from "../kernels/engine/tensor.ts";
import { classScores, purity } from "./class_scores.ts";
import { type CodeColumns, codeColumns, type LabelledCodes } from "./code_columns.ts";
import { largestOf } from "./largest.ts";
import {
  CLASS,
  type EntryWindow,
  FEATURE,
  FIT,
  measureProbes,
  stepProbes,
  sumProbes,
  SUMS,
  TRIAL,
} from "./probe_kernels.ts";

/** Options of {@link fitProbes}. */
export interface ProbeOptions {
  /** Weight of the ridge; 1e-8 if left out. */
  readonly ridge?: number;
  /** Number of classes, some of which may be missing among the rows; the largest label plus one if left out. */
  readonly n_classes?: number;
  /** Largest number of steps; 100 if left out. */
  readonly max_iter?: number;
  /** The device; the shared default one if left out. */
  readonly device?: GPUDevice;
  /** Stops after the current block of latents. */
  readonly signal?: AbortSignal;
  /** Called with the number of latents done. */
  readonly onProgress?: (done: number, n_latents: number) => void;
}

/** Results of probes on rows. Matrices are [n_latents, n_classes], row-major. */
export interface ProbeMeasures {
  /** The mean log-loss of each probe. */
  readonly loss: Float32Array;
  /** Rows of the class with b + w x > 0 (true positives). */
  readonly tp: Float32Array;
  /** Other rows with b + w x > 0 (false positives). */
  readonly fp: Float32Array;
  /** Other rows with b + w x ≤ 0 (true negatives). */
  readonly tn: Float32Array;
  /** Rows of the class with b + w x ≤ 0 (false negatives). */
  readonly fn: Float32Array;
  /** [n_classes], rows of each class. */
  readonly n_rows_of: Float64Array;
}

/** Probes of every latent and class. Matrices are [n_latents, n_classes], row-major. */
export interface Probes {
  /** Latents. */
  readonly n_latents: number;
  /** Classes. */
  readonly n_classes: number;
  /** w; 0 for a latent that never fires. */
  readonly weights: Float32Array;
  /** b. */
  readonly biases: Float32Array;
  /** Their results on the rows of the fit. */
  readonly train: ProbeMeasures;
  /** [n_classes], the latent whose probe has the smallest loss there, the lowest on ties. */
  readonly best: Uint32Array;
  /** Number of probes that used all steps. */
  readonly n_unfinished: number;
}

/** The strongest entries of each latent. */
export interface TopLabels {
  /** Largest number kept per latent. */
  readonly k: number;
  /** [n_latents], the number kept: at most the rows on which the latent fires. */
  readonly counts: Uint32Array;
  /** [n_latents, k], the classes of their rows, the strongest first, the first on ties. 0 beyond a latent's count. */
  readonly labels: Uint16Array;
}

/** The quality of the best latent of each class, and the purity of latents. */
export interface ProbeScores {
  /** Results of the probes on the rows. */
  readonly measures: ProbeMeasures;
  /**
   * [n_classes], average precision of the best latents, with ties grouped as in scikit-learn; 0 for a class without
   * rows.
   */
  readonly ap: Float32Array;
  /** [n_classes], tp / (tp + fp); 0 if no row is predicted. */
  readonly precision: Float32Array;
  /** [n_classes], tp / (tp + fn); 0 for a class without rows. */
  readonly recall: Float32Array;
  /** [n_classes], 2 precision recall / (precision + recall), or 0. */
  readonly f1: Float32Array;
  /** The classes of the rows that activate each latent most. */
  readonly top: TopLabels;
  /** The mean of `ap` over all classes, including those without rows. */
  readonly mean_ap: number;
  /** 1 − the mean loss of the best latents / the mean entropy of the classes' shares. */
  readonly probe_r: number;
  /** The mean of {@link purityAt} 16 over the best latents that fire; NaN if none does. */
  readonly purity_at_16: number;
}

/** Limits of a block on the device: entries, and probes of about 100 bytes each. */
const [BLOCK_ENTRIES, BLOCK_PROBES] = [2 ** 24, 2 ** 20];
/** Steps between two checks of how many probes are left. */
const STEPS_AT_ONCE = 5;

/**
 * Fits a probe for each latent and class.
 *
 * @example
 * ```ts
 * import { coverage, fitProbes, scoreProbes } from "@saev/nn/eval";
 * import { bytesSource, openScipyCsr } from "@saev/nn/io";
 *
 * async function probe(file: Uint8Array, labels: Uint16Array) {
 *   const codes = await openScipyCsr(bytesSource(file)); // token_acts.npz, as saev encode writes it
 *   const probes = await fitProbes({ codes, labels });
 *   const { ap, mean_ap } = await scoreProbes(probes, { codes, labels });
 *   console.log(probes.best, mean_ap, coverage(ap, 0.3));
 * }
 * ```
 *
 * @throws {ShapeError} if the number of labels differs from the number of rows.
 * @throws {RangeError} if there are no rows, or a label or an option is out of range.
 * @throws {TypeError} for an unknown option.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function fitProbes(train: LabelledCodes, options: ProbeOptions = {}): Promise<Probes> {
  checkOptions("fitProbes", options, {
    ridge: true,
    n_classes: true,
    max_iter: true,
    device: true,
    signal: true,
    onProgress: true,
  });
  const { ridge = 1e-8, max_iter = 100, signal, onProgress } = options;
  if (!(ridge > 0 && Number.isFinite(ridge))) {
    throw new RangeError(`ridge must be a positive number, found ${shown(ridge)}`);
  }
  if (!(Number.isSafeInteger(max_iter) && max_iter > 0)) {
    throw new RangeError(`max_iter must be an integer of at least 1, found ${shown(max_iter)}`);
  }
  const n_classes = options.n_classes ?? train.labels.reduce((most, label) => Math.max(most, label), 0) + 1;
  const n_rows_of = countClasses(train, n_classes);
  const [n_rows, n_latents] = train.codes.shape;
  const context = contextOf(options.device ?? await defaultDevice());
  const size = n_latents * n_classes;
  const [weights, biases] = [new Float32Array(size), new Float32Array(size)];
  const measures = emptyMeasures(n_latents, n_rows_of);
  let n_unfinished = 0;
  for await (const columns of codeColumns(train, limitsOf(context, n_classes))) {
    signal?.throwIfAborted();
    const at = columns.from * n_classes;
    const fitted = await fitBlock(context, columns, { n_rows, n_rows_of, ridge, max_iter });
    weights.set(fitted.weights, at);
    biases.set(fitted.biases, at);
    n_unfinished += fitted.n_unfinished;
    await measureBlock(context, columns, { weights, biases, n_rows, measures });
    onProgress?.(columns.to, n_latents);
  }
  return {
    n_latents,
    n_classes,
    weights,
    biases,
    train: measures,
    best: bestLatents(measures.loss, n_classes),
    n_unfinished,
  };
}

/**
 * Scores probes on other rows, or the same.
 *
 * @throws {ShapeError} if the codes have another number of latents, or the number of labels differs from the number of
 * rows.
 * @throws {RangeError} if a label is beyond the probes' classes, or there are no rows.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function scoreProbes(
  probes: Probes,
  test: LabelledCodes,
  options: Pick<ProbeOptions, "device" | "signal" | "onProgress"> = {},
): Promise<ProbeScores> {
  checkOptions("scoreProbes", options, { device: true, signal: true, onProgress: true });
  const { signal, onProgress } = options;
  const { n_latents, n_classes, weights, biases, best } = probes;
  const n_rows_of = countClasses(test, n_classes);
  const [n_rows, found] = test.codes.shape;
  if (found !== n_latents) {
    throw new ShapeError(`scoring probes of ${n_latents} latents: ${test.codes.name} has codes of ${found}`);
  }
  const context = contextOf(options.device ?? await defaultDevice());
  const measures = emptyMeasures(n_latents, n_rows_of);
  const k = Math.min(256, n_rows);
  const top = { k, counts: new Uint32Array(n_latents), labels: new Uint16Array(n_latents * k) };
  const ap = new Float32Array(n_classes);
  for await (const columns of codeColumns(test, limitsOf(context, n_classes))) {
    signal?.throwIfAborted();
    await measureBlock(context, columns, { weights, biases, n_rows, measures });
    for (let latent = columns.from; latent < columns.to; latent++) {
      const { values, labels } = columnOf(columns, latent);
      const strongest = largestOf(values, k);
      top.counts[latent] = strongest.length;
      top.labels.set(strongest.map((entry) => labels[entry]!), latent * k);
      for (let c = 0; c < n_classes; c++) {
        if (best[c] !== latent || n_rows_of[c] === 0) continue;
        // The order of w x + b is that of x, or its reverse.
        const sign = Math.sign(weights[latent * n_classes + c]!);
        ap[c] = classScores(values.map((value) => sign * value), labels, n_rows_of)[c]!.average_precision;
      }
    }
    onProgress?.(columns.to, n_latents);
  }
  const rate = (of: (i: number) => [part: number, whole: number]): Float32Array =>
    Float32Array.from(best, (latent, c) => {
      const [part, whole] = of(latent * n_classes + c);
      return whole > 0 ? part / whole : 0;
    });
  const { tp, fp, fn, loss } = measures;
  const [precision, recall] = [rate((i) => [tp[i]!, tp[i]! + fp[i]!]), rate((i) => [tp[i]!, tp[i]! + fn[i]!])];
  const purities = Array.from(best, (latent) => purityAt(top, latent, Math.min(16, k))).filter((share) =>
    !Number.isNaN(share)
  );
  return {
    measures,
    ap,
    precision,
    recall,
    f1: precision.map((p, c) => p + recall[c]! > 0 ? 2 * p * recall[c]! / (p + recall[c]!) : 0),
    top,
    mean_ap: mean(ap),
    probe_r: probeR(Array.from(best, (latent, c) => loss[latent * n_classes + c]!), n_rows_of),
    purity_at_16: mean(purities),
  };
}

/** 1 − the mean loss / the mean entropy of the classes' shares: the share of their uncertainty that probes remove. */
export function probeR(losses: ArrayLike<number>, n_rows_of: ArrayLike<number>): number {
  const n_rows = Array.from(n_rows_of).reduce((sum, count) => sum + count, 0);
  const part = (share: number): number => share === 0 ? 0 : -share * Math.log(share);
  const entropies = Array.from(n_rows_of, (count) => part(count / n_rows) + part(1 - count / n_rows));
  return 1 - mean(losses) / mean(entropies);
}

/** The share of classes whose average precision exceeds a threshold. */
export function coverage(ap: ArrayLike<number>, threshold = 0.3): number {
  return mean(Array.from(ap, (value) => Number(value > threshold)));
}

/**
 * The share of the most frequent class among the `k` rows that activate a latent most, or fewer if it fires on fewer.
 * NaN if it never fires.
 *
 * @throws {RangeError} if `k` exceeds the number kept.
 */
export function purityAt({ k: most, counts, labels }: TopLabels, latent: number, k = 16): number {
  if (!(Number.isSafeInteger(k) && k > 0 && k <= most)) {
    throw new RangeError(`purity takes k from 1 to the ${most} rows that are kept of a latent, found ${shown(k)}`);
  }
  return purity(Array.from(labels.subarray(latent * most, latent * most + Math.min(k, counts[latent]!))));
}

// ------------------------------------------------------------------------------------------------------------- checks

/** [C], rows of each class. */
function countClasses({ codes: { name, shape: [n_rows] }, labels }: LabelledCodes, n_classes: number): Float64Array {
  if (!(Number.isSafeInteger(n_classes) && n_classes > 0 && n_classes <= 2 ** 16)) {
    throw new RangeError(`n_classes must be an integer from 1 to 65536, found ${shown(n_classes)}`);
  }
  if (labels.length !== n_rows) {
    throw new ShapeError(`probing ${name}: found ${labels.length} labels for ${n_rows} rows; expected one for each`);
  }
  if (n_rows === 0) throw new RangeError(`probing ${name}: found no rows`);
  const counts = new Float64Array(n_classes);
  for (const [row, label] of labels.entries()) {
    if (label >= n_classes) {
      throw new RangeError(`probing ${name}: row ${row} has the label ${label}; expected 0 to ${n_classes - 1}`);
    }
    counts[label]!++;
  }
  return counts;
}

function emptyMeasures(n_latents: number, n_rows_of: Float64Array): ProbeMeasures {
  const make = () => new Float32Array(n_latents * n_rows_of.length);
  return { loss: make(), tp: make(), fp: make(), tn: make(), fn: make(), n_rows_of };
}

function limitsOf(context: DeviceContext, n_classes: number) {
  const most = Math.min(BLOCK_PROBES, Math.floor(elementsPerBinding(context) / FIT));
  return { entries: BLOCK_ENTRIES, latents: Math.max(1, Math.floor(most / n_classes)) };
}

// -------------------------------------------------------------------------------------------------------- on the device

/** The entries of a block on the device, in as many tensors as bindings need. */
function uploadWindows(
  context: DeviceContext,
  { starts, labels }: CodeColumns,
  values: Float32Array,
  stack: DisposableStack,
): EntryWindow[] {
  return [...spans(values.length, elementsPerBinding(context))].map(({ from, to }) => {
    const clipped = Uint32Array.from(starts, (start) => Math.min(Math.max(start, from), to) - from);
    const [n, of] = [to - from, (what: string) => `probes: ${what}`];
    return {
      starts: stack.use(Tensor.from(context, clipped, [clipped.length], of("starts"))),
      values: stack.use(Tensor.from(context, values.slice(from, to), [n], of("activations"))),
      labels: stack.use(Tensor.from(context, Uint32Array.from(labels.subarray(from, to)), [n], of("classes"))),
      most: clipped.reduce((most, start, i) => i === 0 ? 0 : Math.max(most, start - clipped[i - 1]!), 0),
    };
  });
}

/** Input of the fit of a block. */
interface BlockFit {
  readonly n_rows: number;
  /** [C] */
  readonly n_rows_of: Float64Array;
  readonly ridge: number;
  readonly max_iter: number;
}

async function fitBlock(
  context: DeviceContext,
  columns: CodeColumns,
  { n_rows, n_rows_of, ridge, max_iter }: BlockFit,
): Promise<{ readonly weights: Float32Array; readonly biases: Float32Array; readonly n_unfinished: number }> {
  const [F, C] = [columns.to - columns.from, n_rows_of.length];
  const sizes = { features: F, classes: C };
  const { standardised, moments } = standardise(columns, n_rows);
  // The least and the largest log-odds that are told from certainty.
  const classes = Array.from(n_rows_of, (count) => {
    const share = Math.min(Math.max(count / n_rows, 1e-8), 1 - 1e-8);
    return { share, odds: Math.log(share / (1 - share)) };
  });
  const silent = silentShares(columns, { n_rows, n_rows_of });
  const trials = new Float32Array(F * C * TRIAL);
  const fits = new Float32Array(F * C * FIT);
  for (let probe = 0; probe < F * C; probe++) {
    const { odds } = classes[probe % C]!;
    trials.set([odds, 0, Number(moments[Math.floor(probe / C)]!.n_entries > 0)], TRIAL * probe);
    // No trial has a larger loss; λ is lowered when the first is taken.
    fits.set([odds, 0, 1e30, 1e-2], FIT * probe);
  }

  using stack = new DisposableStack();
  const of = (data: Float32Array, shape: number[], label: string) =>
    stack.use(Tensor.from(context, data, shape, `probes: ${label}`));
  const windows = uploadWindows(context, columns, standardised, stack);
  const facts = moments.flatMap(({ n_entries, shift, spread, rms }) => [
    1 - n_entries / n_rows,
    -shift,
    shift,
    1 / spread,
    rms,
  ]);
  const given = {
    features: of(Float32Array.from(facts), [F, FEATURE], "features"),
    classes: of(Float32Array.from(classes.flatMap(({ share, odds }) => [share, odds])), [C, CLASS], "shares"),
    silent: of(silent, [F, C], "silent rows"),
    sums: of(new Float32Array(F * C * SUMS), [F * C, SUMS], "sums"),
    fits: of(fits, [F * C, FIT], "fits"),
    trials: of(trials, [F * C, TRIAL], "trials"),
    left: stack.use(new Tensor(context, "u32", [1], "probes: left")),
    n_rows,
    ridge,
  };
  let n_unfinished = Infinity;
  for (let step = 0; step < max_iter && n_unfinished > 0; step++) {
    const commands = new Commands(context);
    given.left.write(new Uint32Array(1));
    for (const window of windows) sumProbes(commands, sizes, window, given);
    stepProbes(commands, sizes, given);
    commands.submit();
    if (step % STEPS_AT_ONCE === 0 || step === max_iter - 1) n_unfinished = (await given.left.read())[0]!;
  }
  const fitted = await given.fits.read();
  const [weights, biases] = [new Float32Array(F * C), new Float32Array(F * C)];
  for (let probe = 0; probe < F * C; probe++) {
    const { shift, spread } = moments[Math.floor(probe / C)]!;
    const [b, w] = [fitted[FIT * probe]!, fitted[FIT * probe + 1]!];
    weights[probe] = w / spread;
    biases[probe] = b - w * shift;
  }
  return { weights, biases, n_unfinished };
}

/** Mean and spread of a latent's activations over all rows, including silent ones. */
interface Moments {
  readonly n_entries: number;
  /** mean / spread, from which the standardised activation of a silent row is −shift. */
  readonly shift: number;
  /** The standard deviation; 1 if it is 0. */
  readonly spread: number;
  /** Root mean square of the standardised activations where the latent fires. */
  readonly rms: number;
}

/** (x − mean) / spread of every entry, so that float32 sums stay exact for any range of activations. */
function standardise(
  columns: CodeColumns,
  n_rows: number,
): { readonly standardised: Float32Array; readonly moments: readonly Moments[] } {
  const { from, to, values, starts } = columns;
  const standardised = new Float32Array(values.length);
  const moments = Array.from({ length: to - from }, (_, i): Moments => {
    const [start, end] = [starts[i]!, starts[i + 1]!];
    const n_entries = end - start;
    let sum = 0;
    for (let at = start; at < end; at++) sum += values[at]!;
    const middle = sum / n_rows;
    let squares = (n_rows - n_entries) * middle * middle;
    for (let at = start; at < end; at++) squares += (values[at]! - middle) ** 2;
    const spread = Math.sqrt(squares / n_rows) || 1;
    let inside = 0;
    for (let at = start; at < end; at++) {
      standardised[at] = (values[at]! - middle) / spread;
      inside += standardised[at]! ** 2;
    }
    return { n_entries, shift: middle / spread, spread, rms: Math.sqrt(inside / n_entries) || 1 };
  });
  return { standardised, moments };
}

/** [F, C], the share of all rows that are in the class and on which the latent is silent. */
function silentShares(
  { from, to, starts, labels }: CodeColumns,
  { n_rows, n_rows_of }: Pick<BlockFit, "n_rows" | "n_rows_of">,
): Float32Array {
  const C = n_rows_of.length;
  const shares = new Float32Array((to - from) * C);
  for (let i = 0; i < to - from; i++) {
    const rest = n_rows_of.slice();
    for (let at = starts[i]!; at < starts[i + 1]!; at++) rest[labels[at]!]!--;
    shares.set(rest.map((count) => count / n_rows), i * C);
  }
  return shares;
}

/** Fills in the measures of a block's latents. */
async function measureBlock(
  context: DeviceContext,
  columns: CodeColumns,
  { weights, biases, n_rows, measures }: Pick<Probes, "weights" | "biases"> & {
    readonly n_rows: number;
    readonly measures: ProbeMeasures;
  },
): Promise<void> {
  const { n_rows_of, loss, tp, fp, tn, fn } = measures;
  const [F, C] = [columns.to - columns.from, n_rows_of.length];
  const first = columns.from * C;
  const parameters = new Float32Array(2 * F * C);
  for (let probe = 0; probe < F * C; probe++) {
    parameters.set([biases[first + probe]!, weights[first + probe]!], 2 * probe);
  }
  using stack = new DisposableStack();
  const make = <T extends "f32" | "u32">(type: T, shape: number[], label: string): Tensor<T> =>
    stack.use(new Tensor(context, type, shape, `probes: ${label}`));
  const given = {
    probes: stack.use(Tensor.from(context, parameters, [F * C, 2], "probes")),
    losses: make("f32", [F, C], "losses"),
    positives: make("u32", [F * C, 2], "positives"),
  };
  const commands = new Commands(context);
  for (const window of uploadWindows(context, columns, columns.values, stack)) {
    measureProbes(commands, { features: F, classes: C }, window, given);
  }
  commands.submit();
  const [losses, positives] = await Promise.all([given.losses.read(), given.positives.read()]);
  const silent = silentShares(columns, { n_rows, n_rows_of });
  for (let probe = 0; probe < F * C; probe++) {
    const [i, c, at] = [Math.floor(probe / C), probe % C, first + probe];
    const b = biases[at]!;
    const n_silent = n_rows - (columns.starts[i + 1]! - columns.starts[i]!);
    const n_of = Math.round(silent[probe]! * n_rows);
    const certain = Math.log1p(Math.exp(-Math.abs(b)));
    const rest = n_of * (certain + Math.max(-b, 0)) + (n_silent - n_of) * (certain + Math.max(b, 0));
    loss[at] = (losses[probe]! + rest) / n_rows;
    const isCalled = Number(b > 0);
    tp[at] = positives[2 * probe]! + isCalled * n_of;
    fp[at] = positives[2 * probe + 1]! + isCalled * (n_silent - n_of);
    fn[at] = n_rows_of[c]! - tp[at]!;
    tn[at] = n_rows - n_rows_of[c]! - fp[at]!;
  }
}

// ------------------------------------------------------------------------------------------------------- of one latent

/** The entries of one latent. */
interface Column {
  readonly values: Float32Array;
  readonly labels: Uint16Array;
}

function columnOf({ from, starts, values, labels }: CodeColumns, latent: number): Column {
  const [start, end] = [starts[latent - from]!, starts[latent - from + 1]!];
  return { values: values.subarray(start, end), labels: labels.subarray(start, end) };
}

function bestLatents(loss: Float32Array, n_classes: number): Uint32Array {
  const best = new Uint32Array(n_classes);
  for (let i = 0; i < loss.length; i++) {
    const c = i % n_classes;
    if (loss[i]! < loss[best[c]! * n_classes + c]!) best[c] = Math.floor(i / n_classes);
  }
  return best;
}

function mean(values: ArrayLike<number>): number {
  return Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;
}
