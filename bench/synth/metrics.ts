/**
 * How well a dictionary recovers a world's features.
 *
 * With |cos|_sf between row s of W_dec and direction f, and best_s the feature where it is largest:
 *
 * - MCC is the mean of |cos| over the best one-to-one assignment of latents to features (arXiv 2505.20254);
 * - uniqueness is the number of different best_s over the number of latents;
 * - F1 is the mean over latents of 2 TP / (2 TP + FP + FN) of "s fires" as a sign of "best_s is on"; 0 for a dead
 *   latent;
 * - explained variance is that of `evaluate`.
 *
 * The definitions are those of SynthSAEBench (arXiv 2602.14687).
 *
 * @module
 */

import { Commands, type DeviceContext, matmul, rowsPerBlock, spans, Tensor, unitRows } from "../../kernels/mod.ts";
import type { CodeArrays, SparseAutoencoder } from "../../mod.ts";
import { evaluate } from "../../eval/mod.ts";
import { largestAssignment } from "../../eval/assignment.ts";
import type { Samples } from "./samples.ts";

/** The metrics of a dictionary in a world. */
export interface WorldMetrics {
  /** Mean over latents of the F1 of each. */
  readonly f1: number;
  /** Mean over latents of TP / (TP + FP). */
  readonly precision: number;
  /** Mean over latents of TP / (TP + FN). */
  readonly recall: number;
  /** Mean |cos| of assigned latents and features. */
  readonly mcc: number;
  /** Different best features per latent. */
  readonly uniqueness: number;
  /** Explained variance. */
  readonly ev: number;
  /** Latents that fire, averaged over rows. */
  readonly l0: number;
  /** Latents that never fired. */
  readonly n_dead: number;
}

/** Evaluates a model on batches 0 … n_batches − 1 of a seed. */
export async function evaluateInWorld(
  sae: SparseAutoencoder,
  samples: Samples,
  { seed, n_batches }: { readonly seed: number; readonly n_batches: number },
): Promise<WorldMetrics> {
  const { d_sae } = sae.cfg;
  const { n_features } = samples.world.cfg;
  const { W_dec } = await sae.readParameters();
  const cosines_SF = await absoluteCosines(sae.context, W_dec, samples.directions);
  const best_S = bestFeatures(cosines_SF, n_features);
  const counts = new Detection(best_S, n_features);
  async function* counted() {
    for (const x of samples.batches(seed, n_batches)) {
      using codes = sae.encode(x);
      counts.add(...await Promise.all([codes.read(), samples.truth.read()]));
      yield x;
    }
  }
  const { explained_variance: ev, l0, n_dead } = await evaluate(sae, counted());
  const mcc = await meanAssigned(cosines_SF, d_sae, n_features);
  return { ...counts.result(), mcc, uniqueness: new Set(best_S).size / d_sae, ev, l0, n_dead };
}

/** |cos| [S, F] between the rows of W_dec [S, D] and unit directions [F, D]; 0 for rows of zeros. */
export async function absoluteCosines(
  context: DeviceContext,
  W_dec: Float32Array,
  directions: Tensor,
): Promise<Float32Array> {
  const [n_features = 0, d_model = 1] = directions.shape;
  const d_sae = W_dec.length / d_model;
  using rows_SD = Tensor.from(context, W_dec, [d_sae, d_model], "unit rows of W_dec");
  using halted = new Tensor(context, "u32", [1], "never halted");
  const commands = new Commands(context);
  unitRows(commands, rows_SD, halted);
  const cosines_SF = new Float32Array(d_sae * n_features);
  for (const { from, to } of spans(d_sae, rowsPerBlock(context, d_sae, n_features * 4, "cosines"))) {
    using block = new Tensor(context, "f32", [to - from, n_features], "cosines");
    matmul(commands, {
      layout: "nt",
      M: to - from,
      N: n_features,
      K: d_model,
      a: { in: rows_SD.rows(from, to) },
      b: { in: directions },
      c: { in: block },
    });
    commands.submit();
    cosines_SF.set((await block.read()).map(Math.abs), from * n_features);
  }
  return cosines_SF;
}

/** The column of the largest value in each row; the first on ties. */
export function bestFeatures(cosines_SF: Float32Array, n_features: number): Int32Array {
  return Int32Array.from({ length: cosines_SF.length / n_features }, (_, s) => {
    const row = cosines_SF.subarray(s * n_features, (s + 1) * n_features);
    return row.reduce((best, value, f) => value > row[best]! ? f : best, 0);
  });
}

/** The mean score of the best one-to-one assignment of rows to columns. */
export async function meanAssigned(score: Float32Array, rows: number, columns: number): Promise<number> {
  return (await largestAssignment(score, rows, columns)).reduce((sum, c, r) => sum + score[r * columns + c]!, 0) / rows;
}

/** Counts, for each latent, how often it fires with and without its feature. */
export class Detection {
  readonly #best_S: Int32Array;
  readonly #both_S: Float64Array;
  readonly #fired_S: Float64Array;
  readonly #on_F: Float64Array;
  /** The last row in which each feature was on, counted from 1. */
  readonly #lastOn_F: Float64Array;
  #rows = 0;

  /** `best_S` gives the feature of each latent. */
  constructor(best_S: Int32Array, n_features: number) {
    this.#best_S = best_S;
    this.#both_S = new Float64Array(best_S.length);
    this.#fired_S = new Float64Array(best_S.length);
    this.#on_F = new Float64Array(n_features);
    this.#lastOn_F = new Float64Array(n_features);
  }

  /** Adds rows of codes and true features. Entries of value 0 count as inactive. */
  add(codes: CodeArrays, truth: CodeArrays): void {
    for (let row = 0; row + 1 < codes.row_starts.length; row++) {
      this.#rows++;
      for (let at = truth.row_starts[row]!; at < truth.row_starts[row + 1]!; at++) {
        if (truth.values[at] === 0) continue;
        this.#on_F[truth.indices[at]!]!++;
        this.#lastOn_F[truth.indices[at]!] = this.#rows;
      }
      for (let at = codes.row_starts[row]!; at < codes.row_starts[row + 1]!; at++) {
        if (codes.values[at] === 0) continue;
        const s = codes.indices[at]!;
        this.#fired_S[s]!++;
        if (this.#lastOn_F[this.#best_S[s]!] === this.#rows) this.#both_S[s]!++;
      }
    }
  }

  /** Means over all latents; 0/0 counts as 0. */
  result(): { readonly f1: number; readonly precision: number; readonly recall: number } {
    const mean = (ratio: (both: number, fired: number, on: number) => number) =>
      this.#both_S.reduce(
        (sum, both, s) => sum + (both && ratio(both, this.#fired_S[s]!, this.#on_F[this.#best_S[s]!]!)),
        0,
      ) / this.#both_S.length;
    return {
      f1: mean((both, fired, on) => 2 * both / (fired + on)),
      precision: mean((both, fired) => both / fired),
      recall: mean((both, _, on) => both / on),
    };
  }
}
