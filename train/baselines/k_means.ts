/**
 * k-means as a model: each row has one latent, that of the nearest centroid, and is reconstructed as the centroid.
 *
 * With rows and centroids c_s around the mean μ of all rows, the nearest centroid has the largest
 * z_s = (x − μ) · c_s − ‖c_s‖² / 2. So a TopK that keeps one latent of
 *
 *     h_s = 1 + ε z_s,  x̂ = f W_dec + μ,  W_dec = c
 *
 * takes that one, with a code of 1: ε is so small that codes of the rows seen lie within 2⁻¹⁰ of 1. Every reader of
 * checkpoints knows it.
 *
 * Fitted by Lloyd's algorithm, a pass over all rows each time. Up to 1024 centroids are chosen among some thousands of rows
 * by greedy k-means++ (Arthur and Vassilvitskii 2007); as long as more are missing, each pass adds as many as there are, rows
 * drawn with a probability proportional to their squared distance from the nearest centroid (Bahmani et al. 2012).
 *
 * @module
 */

import { batchesInOrder } from "../../data/order.ts";
import { shown } from "../../kernels/engine/errors.ts";
import { checkOptions } from "../../kernels/engine/options.ts";
import { defaultDevice } from "../../kernels/engine/self_check.ts";
import { encodableRows } from "../../nn/model.ts";
import { RandomStream, STREAMS } from "../../kernels/random.ts";
import { transposed } from "../../nn/arrays.ts";
import { readRows, type RowSource } from "../../nn/rows.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import type { BaselineOptions } from "./pca.ts";
import { spans } from "../../kernels/engine/tensor.ts";

/** How {@link fitKMeans} fits. */
export interface KMeansOptions extends BaselineOptions {
  /** Centroids, and latents of the model. */
  readonly n_clusters: number;
  /** Draws the first centroids; 0 if left out. */
  readonly seed?: number;
  /** Passes with all centroids at most; 20 if left out. More than 1024 clusters take some before. */
  readonly max_iter?: number;
  /** It ends after a pass that lowers the error by less than this share; 1e-3 if left out. */
  readonly tolerance?: number;
}

/** Centroids. */
export interface KMeans {
  /** The model, yours to dispose of. */
  readonly sae: SparseAutoencoder;
  /** Σ‖x − c‖² of each pass with all centroids, those that it began with. */
  readonly errors: readonly number[];
  /** [n_clusters], rows of each cluster in the last pass. */
  readonly counts: Float64Array;
}

/** How far codes lie from 1. */
const MOST_DEVIATION = 2 ** -10;
/** The most centroids that k-means++ chooses, the rows among which it does, and those that it tries for each. */
const [FIRST_CENTROIDS, FIRST_ROWS, TRIALS] = [1024, 8192, 4];
/** Rows that are drawn in a pass for centroids that lose all of theirs. */
const SPARE_ROWS = 256;

/**
 * Finds centroids of rows. A centroid that loses all of its rows begins anew at a drawn row. The same rows and seed give the
 * same centroids on the same adapter.
 *
 * @throws {RangeError} for fewer rows than clusters, rows that are not finite, or an option that is out of range.
 * @throws {TypeError} for an unknown option.
 * @throws {unknown} the signal's reason, once it is aborted.
 */
export async function fitKMeans(rows: RowSource, options: KMeansOptions): Promise<KMeans> {
  checkOptions("fitKMeans", options, {
    n_clusters: true,
    seed: true,
    max_iter: true,
    tolerance: true,
    batch_size: true,
    device: true,
    signal: true,
    onProgress: true,
  });
  const { n_clusters: K, seed = 0, max_iter = 20, tolerance = 1e-3 } = options;
  const { n_rows, d_model: D } = rows;
  for (const [name, value] of Object.entries({ n_clusters: K, max_iter })) {
    if (!(Number.isSafeInteger(value) && value > 0)) {
      throw new RangeError(`${name} must be an integer of at least 1, found ${shown(value)}`);
    }
  }
  if (!(tolerance >= 0 && tolerance < 1)) {
    throw new RangeError(`tolerance must be from 0 to below 1, found ${shown(tolerance)}`);
  }
  if (n_rows < K) throw new RangeError(`k-means: found ${n_rows} rows for ${K} clusters; expected as many or more`);
  const device = options.device ?? await defaultDevice();
  const mean_D = await meanRow(rows, options);
  const first = Math.min(K, FIRST_CENTROIDS);
  const passes = Math.ceil(Math.log2(K / first)) + max_iter;
  const watched = { ...options, device, mean_D };
  const random = new RandomStream(seed, STREAMS.centroids, 0);
  const sample = await randomRows(rows, { count: Math.min(n_rows, Math.max(first, FIRST_ROWS)), random, mean_D });
  let centroids = spreadRows(sample, { D, count: first, random });
  const errors: number[] = [];
  let last: Assignment | undefined;
  for (let pass = 0; errors.length < max_iter; pass++) {
    const k = centroids.length / D;
    const n_new = Math.min(k, K - k);
    const random = new RandomStream(seed, STREAMS.centroids, pass + 1);
    const found = await assign(rows, {
      ...watched,
      centroids_KD: centroids,
      random,
      n_drawn: n_new + Math.min(k, SPARE_ROWS),
      progress: { before: (pass + 1) * n_rows, most: (passes + 1) * n_rows },
    });
    if (k === K) errors.push(found.error);
    last = found;
    const before = errors.at(-2);
    const isDone = before !== undefined && before - found.error <= tolerance * before;
    // The last pass's centroids are those that it measured.
    if (isDone || errors.length === max_iter) break;
    centroids = movedCentroids(centroids, found, k + n_new);
  }
  const { largest, counts } = last!;
  const epsilon = MOST_DEVIATION / (largest || 1);
  return { sae: await modelOf(centroids, { D, device, mean_D, epsilon, at: 1 }), errors, counts };
}

/** [D], the mean of all rows. */
async function meanRow(
  rows: RowSource,
  { batch_size = 4096, signal }: KMeansOptions,
): Promise<Float64Array> {
  const { n_rows, d_model: D } = rows;
  const sums_D = new Float64Array(D);
  for await (const { x } of batchesInOrder(rows, batch_size)) {
    x.forEach((value, i) => sums_D[i % D]! += value);
    signal?.throwIfAborted();
  }
  return sums_D.map((sum) => sum / n_rows);
}

/** [count, D], different rows around the mean. */
async function randomRows(
  rows: RowSource,
  { count, random, mean_D }: { readonly count: number; readonly random: RandomStream; readonly mean_D: Float64Array },
): Promise<Float64Array> {
  const { n_rows, d_model: D } = rows;
  // Floyd's: each of the last numbers, or one before it that is not taken yet.
  const taken = new Set<number>();
  for (let most = n_rows - count; most < n_rows; most++) {
    const row = random.below(most + 1);
    taken.add(taken.has(row) ? most : row);
  }
  const drawn = new Float64Array(count * D);
  for (const [k, row] of [...taken].sort((a, b) => a - b).entries()) {
    const x_D = await readRows(rows, row, row + 1);
    x_D.forEach((value, d) => drawn[k * D + d] = value - mean_D[d]!);
  }
  return drawn;
}

/**
 * [count, D], rows of a sample that are far apart: each is, of some that are drawn with a probability proportional to the
 * squared distance from the nearest one before, that which leaves the least of those.
 */
function spreadRows(
  sample_ND: Float64Array,
  { D, count, random }: { readonly D: number; readonly count: number; readonly random: RandomStream },
): Float64Array {
  const N = sample_ND.length / D;
  const chosen = new Float64Array(count * D);
  /** The squared distances after row `n` is chosen too, and their sum. */
  const including = (n: number, before: Float64Array): { readonly left: Float64Array; readonly sum: number } => {
    const left = before.slice();
    let sum = 0;
    for (let i = 0; i < N; i++) {
      let square = 0;
      for (let d = 0; d < D; d++) square += (sample_ND[i * D + d]! - sample_ND[n * D + d]!) ** 2;
      if (square < left[i]!) left[i] = square;
      sum += left[i]!;
    }
    return { left, sum };
  };
  const choose = (n: number, k: number) => chosen.set(sample_ND.subarray(n * D, (n + 1) * D), k * D);
  const start = random.below(N);
  choose(start, 0);
  let now = including(start, new Float64Array(N).fill(Infinity));
  for (let k = 1; k < count; k++) {
    let best: { readonly n: number; readonly left: Float64Array; readonly sum: number } | undefined;
    for (let trial = 0; trial < TRIALS; trial++) {
      let rest = random.uniform() * now.sum;
      let n = 0;
      while (n < N - 1 && (rest -= now.left[n]!) > 0) n++;
      const next = including(n, now.left);
      if (best === undefined || next.sum < best.sum) best = { n, ...next };
    }
    choose(best!.n, k);
    now = best!;
  }
  return chosen;
}

/** What a pass finds. */
interface Assignment {
  /** Σ‖x − c‖² */
  readonly error: number;
  /** [K], rows of each centroid. */
  readonly counts: Float64Array<ArrayBuffer>;
  /** [K, D], their sums around the mean. */
  readonly sums_KD: Float64Array;
  /** The largest |z| of a row and its centroid. */
  readonly largest: number;
  /** Rows around the mean, drawn without replacement with a probability proportional to ‖x − c‖². */
  readonly drawn: readonly Float32Array[];
}

/** Gives every row to its nearest centroid. */
async function assign(
  rows: RowSource,
  { device, mean_D, centroids_KD, random, n_drawn, batch_size = 4096, signal, onProgress, progress }: KMeansOptions & {
    readonly device: GPUDevice;
    readonly mean_D: Float64Array;
    readonly centroids_KD: Float64Array;
    readonly random: RandomStream;
    readonly n_drawn: number;
    readonly progress: { readonly before: number; readonly most: number };
  },
): Promise<Assignment> {
  const D = rows.d_model;
  const K = centroids_KD.length / D;
  using nearest = await modelOf(centroids_KD, { D, device, mean_D: new Float64Array(D), epsilon: 1, at: 0 });
  const [counts, sums_KD] = [new Float64Array(K), new Float64Array(K * D)];
  const drawn = new WeightedDraw(n_drawn);
  let [error, largest, done] = [0, 0, 0];
  for await (const { x } of batchesInOrder(rows, batch_size)) {
    for (const { from, to } of spans(x.length / D, encodableRows(nearest, x.length / D))) {
      const deviations_BD = x.slice(from * D, to * D).map((value, i) => value - mean_D[i % D]!);
      using codes = nearest.encode(deviations_BD);
      const { indices, values } = await codes.read();
      for (let b = 0; b < to - from; b++) {
        const k = indices[b]!;
        let distance = 0;
        for (let d = 0; d < D; d++) {
          const deviation = deviations_BD[b * D + d]!;
          distance += (deviation - centroids_KD[k * D + d]!) ** 2;
          sums_KD[k * D + d]! += deviation;
        }
        counts[k]!++;
        error += distance;
        largest = Math.max(largest, Math.abs(values[b]!));
        drawn.offer(distance, random, () => deviations_BD.slice(b * D, (b + 1) * D));
      }
    }
    if (!Number.isFinite(error)) {
      throw new RangeError(`k-means: one of the rows ${done} to ${done + x.length / D} is not finite`);
    }
    done += x.length / D;
    onProgress?.(progress.before + done, progress.most);
    signal?.throwIfAborted();
  }
  return { error, counts, sums_KD, largest, drawn: drawn.rows };
}

/**
 * Rows drawn without replacement with probabilities proportional to weights, while they pass by: those with the least
 * −log(u) / weight (Efraimidis and Spirakis 2006), in a heap whose root has the largest of them.
 */
class WeightedDraw {
  readonly #most: number;
  readonly #heap: { readonly key: number; readonly row: Float32Array }[] = [];

  /** For so many rows at most. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Those that are drawn, in the order in which they would be drawn one after the other. */
  get rows(): Float32Array[] {
    return this.#heap.toSorted((a, b) => a.key - b.key).map(({ row }) => row);
  }

  /** A row, which is copied only if it is drawn. */
  offer(weight: number, random: RandomStream, row: () => Float32Array): void {
    const key = -Math.log1p(-random.uniform()) / weight;
    const heap = this.#heap;
    if (!(weight > 0) || (heap.length === this.#most && !(key < (heap[0]?.key ?? 0)))) return;
    if (heap.length < this.#most) {
      let at = heap.push({ key, row: row() }) - 1;
      for (let above = (at - 1) >> 1; at > 0 && heap[above]!.key < heap[at]!.key; above = (at - 1) >> 1) {
        [heap[at], heap[above]] = [heap[above]!, heap[at]!];
        at = above;
      }
      return;
    }
    heap[0] = { key, row: row() };
    for (let at = 0;;) {
      const below = [2 * at + 1, 2 * at + 2].filter((child) => child < heap.length)
        .reduce((most, child) => heap[child]!.key > heap[most]!.key ? child : most, at);
      if (below === at) return;
      [heap[at], heap[below]] = [heap[below]!, heap[at]!];
      at = below;
    }
  }
}

/**
 * [n, D], each centroid at the mean of its rows, and those without, or more than there were, at drawn rows. Where these do
 * not suffice, since fewer rows are different, the rest is where the first is, and never nearest.
 */
function movedCentroids(
  centroids_KD: Float64Array,
  { counts, sums_KD, drawn }: Assignment,
  n: number,
): Float64Array {
  const D = sums_KD.length / counts.length;
  const moved = new Float64Array(n * D);
  let next = 0;
  for (let k = 0; k < n; k++) {
    const count = counts[k] ?? 0;
    const place = count > 0
      ? sums_KD.subarray(k * D, (k + 1) * D).map((sum) => sum / count)
      : drawn[next++] ?? (k < counts.length ? centroids_KD.subarray(k * D, (k + 1) * D) : moved.subarray(0, D));
    moved.set(place, k * D);
  }
  return moved;
}

/** The TopK of one latent with h = at + epsilon z. */
async function modelOf(
  centroids_KD: Float64Array,
  { D, device, mean_D, epsilon, at }: {
    readonly D: number;
    readonly device: GPUDevice;
    readonly mean_D: Float64Array;
    readonly epsilon: number;
    readonly at: number;
  },
): Promise<SparseAutoencoder> {
  const K = centroids_KD.length / D;
  const W_dec = Float32Array.from(centroids_KD);
  const b_enc = Float32Array.from({ length: K }, (_, k) => {
    let [square, product] = [0, 0];
    for (let d = 0; d < D; d++) {
      const c = centroids_KD[k * D + d]!;
      square += c * c;
      product += c * mean_D[d]!;
    }
    return at - epsilon * (product + square / 2);
  });
  return await SparseAutoencoder.fromParameters(
    {
      d_model: D,
      d_sae: K,
      activation: { key: "top-k", top_k: 1, aux: { key: "no-aux" } },
      normalize_w_dec: false,
      remove_parallel_grads: false,
    },
    {
      W_enc: transposed(Float32Array.from(centroids_KD, (c) => epsilon * c), K, D),
      b_enc,
      W_dec,
      b_dec: Float32Array.from(mean_D),
    },
    { device },
  );
}
