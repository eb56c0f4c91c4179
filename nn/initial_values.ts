/**
 * Initial values from data: a dictionary of data points, b_dec at their centre, an encoder whose reconstructions have
 * the norm of the inputs, and the unit of a JumpReLU's thresholds and windows.
 *
 * Everything is computed on the CPU in float64 with + − × ÷ √ only and rounded once, so that it is the same everywhere.
 *
 * @module
 */

import { kindOf, ShapeError, shown } from "../kernels/engine/errors.ts";
import { RandomStream, STREAMS } from "../kernels/random.ts";
import { activationKind } from "./activations/mod.ts";
import { type InputScaling, type ParameterArrays, transposed } from "./arrays.ts";
import type { SparseAutoencoderConfig } from "./config.ts";
import { drawDecoder, initialParameters, makeRowsUnit } from "./parameters.ts";
import type { Rows } from "./rows.ts";

/** Where `b_dec` starts. */
export type InitialBDec = "zeros" | "mean" | "geometric-median";

/** All of them. */
export const CENTRES: readonly InitialBDec[] = ["zeros", "mean", "geometric-median"];

/** Rows to make initial values from, and which of them. */
export interface InitialData {
  /** [N, d_model], rows before the model standardises them: as loaders yield them, or a bare array. */
  readonly x: Float32Array | (Rows & { readonly x: Float32Array });
  /**
   * Whether to initialise the dictionary from rows, in the share that `reinit_blend` gives; `true` if left out. Needs
   * N ≥ d_sae.
   *
   * A row is p · (xᵢ − μ) + (1 − p) · r, with p = `reinit_blend`, xᵢ a row of x that no other latent has, μ the mean of x,
   * all standardised, and r ~ U(±√(6/d_model)); p = 0 is the initialisation without data, bit by bit. With
   * `normalize_w_dec` rows are made unit length, in the encoder too: rows of 768 standardised values are so long that the
   * first codes would be about 24 times too large otherwise. These are the columns of `W_enc`. The rows of `W_dec` are the
   * same, or with `reinit_enc_dec_tranpose: false` the random ones that they are without data. (Upstream then copies
   * those into `W_enc` too, and nothing of the data is left.)
   */
  readonly data_points?: boolean;
  /**
   * Initial value of `b_dec`: `"zeros"` if left out, as upstream's; the `"mean"` of the rows, as its April 2025 version's; or
   * their `"geometric-median"` (Gao et al. 2024), which a few outliers do not move.
   */
  readonly b_dec?: InitialBDec;
  /**
   * Whether to scale `W_enc` so that Σ‖x̂ − b_dec‖ = Σ‖x − b_dec‖ at the first training step (Gao et al. 2024); `false`
   * if left out. Measured on 64 to 4096 of the rows, the fewer the larger the model.
   */
  readonly scale_encoder?: boolean;
}

/** Steps of the {@link RandomStream}: each use has its own numbers. */
const USES = { dictionary: 0, median: 1, scale: 2 } as const;

/** Rows of a model's data, checked. */
interface CheckedRows {
  /** [N, D] */
  readonly x: Float32Array;
  readonly n_rows: number;
  readonly d_model: number;
}

/**
 * Initial values from data. For an activation with fields in units of pre-activations, the returned `input` has a
 * `pre_act_scale`: its own, or the root mean square of the pre-activations at these values.
 *
 * @throws {ShapeError} if x is not a whole number of rows of d_model, or has none.
 * @throws {RangeError} for a value that is not finite, fewer rows than latents, a row without direction, an unknown
 * `b_dec`, or a first reconstruction that equals b_dec.
 * @throws {TypeError} for rows of another kind, or a switch that is neither `true` nor `false`.
 */
export function initialParametersFromData(
  cfg: SparseAutoencoderConfig,
  given: { readonly seed: number; readonly input: InputScaling; readonly data: InitialData },
): { readonly parameters: ParameterArrays; readonly input: InputScaling } {
  const { seed, input, data: { x, b_dec = "zeros", ...switches } } = given;
  for (const name of ["data_points", "scale_encoder"] as const) {
    const found: unknown = switches[name] ?? false;
    if (typeof found !== "boolean") throw new TypeError(`${name} must be true or false, found ${shown(found)}`);
  }
  if (!CENTRES.includes(b_dec)) {
    throw new RangeError(`b_dec must start as one of ${CENTRES.join(", ")}, found ${JSON.stringify(b_dec)}`);
  }
  const rows = checkedRows(x, cfg.d_model);
  let values = initialParameters(cfg, seed);
  if ((switches.data_points ?? true) && cfg.reinit_blend > 0) {
    values = { ...values, ...dataPoints(cfg, values, { seed, input, rows }) };
  }
  if (b_dec !== "zeros") {
    const centre_D = b_dec === "mean" ? rowMean(rows.x, cfg.d_model) : sampledMedian(rows, seed);
    values = { ...values, b_dec: standardised(centre_D, input) };
  }
  const measures = activationKind(cfg.activation).countsInPreActs && input.pre_act_scale === undefined;
  if (!switches.scale_encoder && !measures) return { parameters: values, input };
  const first = firstStep(cfg, values, { seed, input, rows });
  const factor = switches.scale_encoder ? encoderScale(cfg, values, first) : 1;
  return {
    parameters: switches.scale_encoder ? { ...values, W_enc: values.W_enc.map((w) => w * factor) } : values,
    input: measures ? { ...input, pre_act_scale: factor * preActScale(first.h_BS) } : input,
  };
}

/** √ mean h², or 1 where every h is 0. */
function preActScale(h_BS: Float64Array): number {
  return length(h_BS) / Math.sqrt(h_BS.length) || 1;
}

function checkedRows(data: InitialData["x"], d_model: number): CheckedRows {
  const x = "d_model" in data ? data.x : data;
  if ("d_model" in data && data.d_model !== d_model) {
    throw new ShapeError(`initial values of d_model ${d_model} cannot be made from rows of d_model ${data.d_model}`);
  }
  if (!(x instanceof Float32Array)) throw new TypeError(`the rows of data must be a Float32Array, found ${kindOf(x)}`);
  const n_rows = x.length / d_model;
  if (!Number.isInteger(n_rows) || n_rows === 0) {
    throw new ShapeError(
      `initial values are made from one or more rows of d_model ${d_model} values, found ${x.length} values`,
    );
  }
  for (let i = 0; i < x.length; i++) {
    if (Number.isFinite(x[i]!)) continue;
    const [row, column] = [Math.floor(i / d_model), i % d_model];
    throw new RangeError(`initial values: row ${row} of the data has ${x[i]} in column ${column}`);
  }
  return { x, n_rows, d_model };
}

/** W_enc and W_dec from rows p · (xᵢ − μ) / scale + (1 − p) · r; the mean of the inputs cancels. */
function dataPoints(
  cfg: SparseAutoencoderConfig,
  ordinary: ParameterArrays,
  given: { readonly seed: number; readonly input: InputScaling; readonly rows: CheckedRows },
): Pick<ParameterArrays, "W_enc" | "W_dec"> {
  const { seed, input: { scale }, rows: { x, n_rows } } = given;
  const { d_model, d_sae, reinit_blend } = cfg;
  if (n_rows < d_sae) {
    throw new RangeError(
      `a dictionary of data points takes a row for each of d_sae ${d_sae} latents, found ${n_rows} rows`,
    );
  }
  const mean_D = rowMean(x, d_model);
  const rows_SD = drawDecoder(cfg, seed);
  choose(n_rows, d_sae, new RandomStream(seed, STREAMS.initialRows, USES.dictionary)).forEach((row, s) => {
    let isZero = true;
    for (let d = 0; d < d_model; d++) {
      const point = (x[row * d_model + d]! - mean_D[d]!) / scale;
      const at = s * d_model + d;
      rows_SD[at] = reinit_blend * point + (1 - reinit_blend) * rows_SD[at]!;
      isZero &&= rows_SD[at] === 0;
    }
    if (isZero) {
      throw new RangeError(
        `row ${row} of the data equals their mean, so that no latent can start as it; use a reinit_blend below 1`,
      );
    }
  });
  if (cfg.normalize_w_dec) makeRowsUnit(rows_SD, d_model);
  const rows = new Float32Array(rows_SD);
  return {
    W_enc: transposed(rows, d_sae, d_model),
    W_dec: cfg.reinit_enc_dec_tranpose ? rows : ordinary.W_dec,
  };
}

/** k different numbers of 0 … n − 1, in random order. */
function choose(n: number, k: number, random: RandomStream): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = 0; i < k; i++) {
    const j = i + random.below(n - i);
    const value = order[i]!;
    order[i] = order[j]!;
    order[j] = value;
  }
  return order.subarray(0, k);
}

/** The mean of the rows of x [N, D], which has at least one. */
export function rowMean(x: Float32Array, d_model: number): Float64Array {
  const sums_D = new Float64Array(d_model);
  const n_rows = x.length / d_model;
  for (let row = 0; row < n_rows; row++) {
    for (let d = 0; d < d_model; d++) sums_D[d]! += x[row * d_model + d]!;
  }
  return sums_D.map((sum) => sum / n_rows);
}

/** An input, standardised. */
export function standardised(point_D: Float64Array, { mean, scale }: InputScaling): Float32Array {
  return Float32Array.from(point_D, (value, d) => (value - (mean?.[d] ?? 0)) / scale);
}

/** The most rows for a geometric median, as in OpenAI's code. */
const MEDIAN_ROWS = 32768;

/** The geometric median of the rows, or of a random sample of {@link MEDIAN_ROWS}. */
function sampledMedian({ x, n_rows, d_model }: CheckedRows, seed: number): Float64Array {
  const random = new RandomStream(seed, STREAMS.initialRows, USES.median);
  // Sorted, since reading memory in order is fastest.
  return geometricMedian(x, d_model, choose(n_rows, Math.min(n_rows, MEDIAN_ROWS), random).sort());
}

const MEDIAN_ITERATIONS = 100;
const MEDIAN_TOLERANCE = 1e-5;

/**
 * The point y [D] with the least Σ ‖xᵢ − y‖ over the listed rows of x [N, D].
 *
 * Weiszfeld's iteration y ← Σ xᵢ/dᵢ / Σ 1/dᵢ, dᵢ = ‖xᵢ − y‖, from the mean, as Vardi and Zhang (2000) correct it where
 * y is a row: with η rows at y, W = Σ 1/dᵢ and the pull R = Σ (xᵢ − y)/dᵢ of the others,
 *
 * y ← y + max(0, 1 − η/‖R‖) · R/W.
 *
 * Ends where ‖R‖ is at most η + 1e-5 n, of n rows, or after 100 iterations. "At y" is within 1e-5 of the mean distance:
 * a row that only rounding keeps apart from y would otherwise hold it there by its weight 1/dᵢ.
 */
export function geometricMedian(x: Float32Array, d_model: number, rows: Uint32Array): Float64Array {
  const y_D = new Float64Array(d_model);
  for (const row of rows) {
    for (let d = 0; d < d_model; d++) y_D[d]! += x[row * d_model + d]! / rows.length;
  }
  let near = 0;
  for (let iteration = 0; iteration < MEDIAN_ITERATIONS; iteration++) {
    const R_D = new Float64Array(d_model);
    let [n_here, weights, distances] = [0, 0, 0];
    for (const row of rows) {
      const start = row * d_model;
      let squares = 0;
      for (let d = 0; d < d_model; d++) {
        const away = x[start + d]! - y_D[d]!;
        squares += away * away;
      }
      const distance = Math.sqrt(squares);
      if (distance <= near) {
        n_here++;
        continue;
      }
      distances += distance;
      weights += 1 / distance;
      for (let d = 0; d < d_model; d++) R_D[d]! += (x[start + d]! - y_D[d]!) / distance;
    }
    const pull = length(R_D);
    if (pull <= n_here + MEDIAN_TOLERANCE * rows.length) break;
    for (let d = 0; d < d_model; d++) y_D[d]! += (1 - n_here / pull) * R_D[d]! / weights;
    near = MEDIAN_TOLERANCE * distances / rows.length;
  }
  return y_D;
}

/** The most multiplications and codes of {@link firstStep}: some seconds on one core, and 32 MiB. */
const SCALE_PRODUCTS = 2 ** 31;
const SCALE_CODES = 2 ** 22;

/** The rows that fit both limits, but at least 64, so that the estimate is stable. */
function scaleRows({ d_model, d_sae }: SparseAutoencoderConfig, n_rows: number): number {
  const most = Math.floor(Math.min(SCALE_PRODUCTS / d_model, SCALE_CODES) / d_sae);
  return Math.min(n_rows, Math.max(64, Math.min(4096, most)));
}

/** Some rows of the data in training's first step. */
interface FirstStep {
  /** [B, S], pre-activations. */
  readonly h_BS: Float64Array;
  /** Σ‖x − b_dec‖ */
  readonly lengths: number;
}

function firstStep(
  cfg: SparseAutoencoderConfig,
  { W_enc, b_dec }: ParameterArrays,
  given: { readonly seed: number; readonly input: InputScaling; readonly rows: CheckedRows },
): FirstStep {
  const { seed, input: { mean, scale }, rows: { x, n_rows } } = given;
  const { d_model: D, d_sae: S } = cfg;
  const B = scaleRows(cfg, n_rows);
  const chosen = choose(n_rows, B, new RandomStream(seed, STREAMS.initialRows, USES.scale));
  const x_BD = new Float64Array(B * D);
  chosen.forEach((row, b) => {
    for (let d = 0; d < D; d++) x_BD[b * D + d] = (x[row * D + d]! - (mean?.[d] ?? 0)) / scale;
  });

  let lengths = 0;
  const h_BS = new Float64Array(B * S);
  for (let b = 0; b < B; b++) {
    const away_D = x_BD.subarray(b * D, (b + 1) * D).map((value, d) => value - b_dec[d]!);
    lengths += length(away_D);
    const h_S = h_BS.subarray(b * S, (b + 1) * S);
    for (let d = 0; d < D; d++) {
      const value = cfg.subtract_b_dec ? away_D[d]! : x_BD[b * D + d]!;
      for (let s = 0; s < S; s++) h_S[s]! += value * W_enc[d * S + s]!;
    }
  }
  return { h_BS, lengths };
}

/**
 * The factor of W_enc for which Σ‖x̂ − b_dec‖ = Σ‖x − b_dec‖. Rows of W_dec have unit norm if training normalises them,
 * BatchTopK selects among all rows (its threshold is still 0), and a JumpReLU's thresholds scale with the encoder.
 *
 * b_enc is zero, so that x̂ − b_dec is proportional to W_enc's scale and one measurement is enough.
 */
function encoderScale(cfg: SparseAutoencoderConfig, { W_dec }: ParameterArrays, { h_BS, lengths }: FirstStep): number {
  const { d_model: D, d_sae: S } = cfg;
  const B = h_BS.length / S;
  const { activation } = cfg;
  const f_BS = activationKind(activation).inFloat64(activation, h_BS, {
    d_sae: S,
    pre_act_scale: preActScale(h_BS),
  });
  let reconstructed = 0;
  const row_D = (s: number) => W_dec.subarray(s * D, (s + 1) * D);
  const units_S = Float64Array.from({ length: S }, (_, s) => cfg.normalize_w_dec ? 1 / length(row_D(s)) : 1);
  for (let b = 0; b < B; b++) {
    const sum_D = new Float64Array(D);
    for (let s = 0; s < S; s++) {
      const f = f_BS[b * S + s]! * units_S[s]!;
      if (f === 0) continue;
      const start = s * D;
      for (let d = 0; d < D; d++) sum_D[d]! += f * W_dec[start + d]!;
    }
    reconstructed += length(sum_D);
  }
  if (lengths === 0 || reconstructed === 0) {
    throw new RangeError(
      `the encoder cannot be scaled: over ${B} rows of data, Σ‖x − b_dec‖ is ${lengths} and Σ‖x̂ − b_dec‖ ${reconstructed}`,
    );
  }
  return lengths / reconstructed;
}

function length(vector: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < vector.length; i++) squares += vector[i]! * vector[i]!;
  return Math.sqrt(squares);
}
