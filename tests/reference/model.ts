/**
 * The model again, in plain float64 loops: what `nn/` must compute, written to be read.
 *
 * Key: B batch, D d_model, S d_sae, P prefixes. Arrays are row-major, and their suffix is their shape. Every forward
 * stands above its backward, which adds into the gradients it is given.
 *
 * @module
 */

import type { Activation } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import type { SparseAutoencoderConfig } from "../../nn/config.ts";

/**
 * The parameters in f64, laid out as in files: W_enc [D, S], b_enc [S], W_dec [S, D], b_dec [D], a JumpReLU's threshold [S],
 * a Gated's r_mag and b_mag [S].
 */
export interface Parameters {
  readonly W_enc: Float64Array;
  readonly b_enc: Float64Array;
  readonly W_dec: Float64Array;
  readonly b_dec: Float64Array;
  readonly threshold?: Float64Array;
  readonly r_mag?: Float64Array;
  readonly b_mag?: Float64Array;
}

/** In the order in which torch clips and steps them, which does not matter but in rounding. */
export const PARAMETER_NAMES = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;

/** What only some activations train. */
const OWN_NAMES = ["threshold", "r_mag", "b_mag"] as const;

/** The same, and what the activation of a model trains besides. */
export function parameterNames(p: Parameters): readonly (keyof Parameters)[] {
  return [...PARAMETER_NAMES, ...OWN_NAMES.filter((name) => p[name])];
}

/** What is made of each of those that there are. */
function ofOwn<T>(p: Parameters | ParameterArrays, make: (values: ArrayLike<number>) => T): Record<string, T> {
  return Object.fromEntries(OWN_NAMES.flatMap((name) => {
    const values = p[name];
    return values ? [[name, make(values)]] : [];
  }));
}

/** The same numbers in f64. */
export function widen(p: ParameterArrays | Parameters): Parameters {
  return {
    W_enc: Float64Array.from(p.W_enc),
    b_enc: Float64Array.from(p.b_enc),
    W_dec: Float64Array.from(p.W_dec),
    b_dec: Float64Array.from(p.b_dec),
    ...ofOwn(p, (values) => Float64Array.from(values)),
  };
}

/** Rounded to f32. */
export function narrow(p: Parameters): ParameterArrays {
  return {
    W_enc: Float32Array.from(p.W_enc),
    b_enc: Float32Array.from(p.b_enc),
    W_dec: Float32Array.from(p.W_dec),
    b_dec: Float32Array.from(p.b_dec),
    ...ofOwn(p, (values) => Float32Array.from(values)),
  };
}

/** Gradients, or moments, before anything has been added. */
export function zerosLike(p: Parameters): Parameters {
  return {
    W_enc: new Float64Array(p.W_enc.length),
    b_enc: new Float64Array(p.b_enc.length),
    W_dec: new Float64Array(p.W_dec.length),
    b_dec: new Float64Array(p.b_dec.length),
    ...ofOwn(p, (values) => new Float64Array(values.length)),
  };
}

/** (x − mean) / scale: the inputs that the encoder sees and that the losses are about. */
export function standardise(x_BD: ArrayLike<number>, mean_D: ArrayLike<number>, scale: number): Float64Array {
  return Float64Array.from(x_BD, (value, i) => (value - mean_D[i % mean_D.length]!) / scale);
}

/** x̂ · scale + mean: reconstructions brought back to where the inputs came from. */
export function unstandardise(x_hat_BD: ArrayLike<number>, mean_D: ArrayLike<number>, scale: number): Float64Array {
  return Float64Array.from(x_hat_BD, (value, i) => value * scale + mean_D[i % mean_D.length]!);
}

/** h_BS = (x_BD [− b_dec_D]) W_enc_DS + b_enc_S. The bracket is the formula from before August 2025. */
export function encode(cfg: SparseAutoencoderConfig, p: Parameters, x_BD: Float64Array): Float64Array {
  const { d_model: D, d_sae: S } = cfg;
  const B = x_BD.length / D;
  const h_BS = new Float64Array(B * S);
  for (let b = 0; b < B; b++) {
    for (let s = 0; s < S; s++) {
      let h = 0;
      for (let d = 0; d < D; d++) h += encoderInput(cfg, p, x_BD, b, d) * p.W_enc[d * S + s]!;
      h_BS[b * S + s] = h + p.b_enc[s]!;
    }
  }
  return h_BS;
}

/**
 * ∂W_enc += (x [− b_dec])ᵀ ∂h, ∂b_enc += Σ_b ∂h, [∂b_dec −= Σ_b ∂h W_encᵀ].
 *
 * With `b_dec: "constant"` the bracketed path is cut, as the auxiliary loss wants it.
 */
export function encodeBackward(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  x_BD: Float64Array,
  grad_h_BS: Float64Array,
  b_dec: "differentiated" | "constant",
  into: Parameters,
): void {
  const { d_model: D, d_sae: S } = cfg;
  const B = x_BD.length / D;
  for (let b = 0; b < B; b++) {
    for (let s = 0; s < S; s++) {
      const grad_h = grad_h_BS[b * S + s]!;
      if (grad_h === 0) continue;
      into.b_enc[s]! += grad_h;
      for (let d = 0; d < D; d++) {
        into.W_enc[d * S + s]! += encoderInput(cfg, p, x_BD, b, d) * grad_h;
        if (cfg.subtract_b_dec && b_dec === "differentiated") into.b_dec[d]! -= grad_h * p.W_enc[d * S + s]!;
      }
    }
  }
}

function encoderInput(cfg: SparseAutoencoderConfig, p: Parameters, x_BD: Float64Array, b: number, d: number): number {
  const x = x_BD[b * cfg.d_model + d]!;
  return cfg.subtract_b_dec ? x - p.b_dec[d]! : x;
}

/**
 * Which pre-activations become codes: a mask of 0 and 1, a constant to every gradient.
 *
 * A new activation is a new case here.
 */
export function select(
  activation: Activation,
  h_BS: Float64Array,
  d_sae: number,
  threshold_S: ArrayLike<number> = [],
): Uint8Array {
  const mask_BS = new Uint8Array(h_BS.length);
  const keep = (i: number, relu: boolean) => mask_BS[i] = !relu || h_BS[i]! > 0 ? 1 : 0;
  switch (activation.key) {
    case "relu":
      for (let i = 0; i < h_BS.length; i++) mask_BS[i] = h_BS[i]! > 0 ? 1 : 0;
      return mask_BS;
    case "top-k":
      for (let start = 0; start < h_BS.length; start += d_sae) {
        const h_S = h_BS.subarray(start, start + d_sae);
        for (const s of largest(h_S, activation.top_k)) keep(start + s, activation.relu);
      }
      return mask_BS;
    case "batch-top-k":
      for (const i of largest(h_BS, activation.top_k * h_BS.length / d_sae)) keep(i, activation.relu);
      return mask_BS;
    case "jump-relu":
      for (let i = 0; i < h_BS.length; i++) mask_BS[i] = h_BS[i]! > Math.max(threshold_S[i % d_sae]!, 0) ? 1 : 0;
      return mask_BS;
    case "gated":
      throw new TypeError("the codes of a gated are where its gate is open and its magnitude positive: gatedMask");
  }
}

/** Where the gate of a Gated is open and its magnitude positive. */
export function gatedMask(p: Parameters, h_BS: Float64Array): Uint8Array {
  return Uint8Array.from(magnitudes(p, h_BS), (m, i) => h_BS[i]! > 0 && m > 0 ? 1 : 0);
}

/** m = exp(r_mag) ∘ (h − b_enc) + b_mag: how strongly a latent fires, with the bias of the gate taken away. */
export function magnitudes({ b_enc, r_mag, b_mag }: Parameters, h_BS: Float64Array): Float64Array {
  const S = b_enc.length;
  return h_BS.map((h, i) => Math.exp(r_mag![i % S]!) * (h - b_enc[i % S]!) + b_mag![i % S]!);
}

/** ∂b_mag += Σ_b ∂m, ∂r_mag += Σ_b exp(r_mag) ∂m (h − b_enc); returns exp(r_mag) ∘ ∂m, the gradient of h − b_enc. */
export function magnitudesBackward(
  { b_enc, r_mag }: Parameters,
  h_BS: Float64Array,
  grad_m_BS: Float64Array,
  into: Parameters,
): Float64Array {
  const S = b_enc.length;
  return grad_m_BS.map((grad_m, i) => {
    const grad_u = Math.exp(r_mag![i % S]!) * grad_m;
    into.b_mag![i % S]! += grad_m;
    into.r_mag![i % S]! += grad_u * (h_BS[i]! - b_enc[i % S]!);
    return grad_u;
  });
}

/**
 * The indices of the k largest values among the eligible, ascending; all of them if there are no more than k.
 * Negative values count like others, −0 equals +0, and of equal values the lowest index goes first.
 */
export function largest(values: ArrayLike<number>, k: number, eligible?: ArrayLike<number>): number[] {
  const candidates: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i]!)) throw new RangeError(`cannot order values: [${i}] is NaN`);
    if (eligible === undefined || eligible[i] !== 0) candidates.push(i);
  }
  candidates.sort((i, j) => values[i]! > values[j]! ? -1 : values[i]! < values[j]! ? 1 : i - j);
  return candidates.slice(0, k).sort((i, j) => i - j);
}

/** f = mask · h. What is not selected is +0. */
export function activate(h_BS: Float64Array, mask_BS: Uint8Array): Float64Array {
  return h_BS.map((h, i) => mask_BS[i] ? h : 0);
}

/** ∂h = mask · ∂f */
export function activateBackward(grad_f_BS: Float64Array, mask_BS: Uint8Array): Float64Array {
  return grad_f_BS.map((grad_f, i) => mask_BS[i] ? grad_f : 0);
}

/**
 * x̂_BPD[b, p] = bias_D + Σ_{s < prefixes[p]} f_bs W_dec_s: blocks of latents summed up, the bias added once.
 *
 * @param prefixes ascending, the last one S
 */
export function decode(
  f_BS: Float64Array,
  W_dec_SD: Float64Array,
  bias_D: Float64Array,
  prefixes: readonly number[],
): Float64Array {
  const D = bias_D.length;
  const S = W_dec_SD.length / D;
  const B = f_BS.length / S;
  const P = prefixes.length;
  const x_hats_BPD = new Float64Array(B * P * D);
  for (let b = 0; b < B; b++) {
    for (let d = 0; d < D; d++) {
      let x_hat = bias_D[d]!;
      let s = 0;
      for (let p = 0; p < P; p++) {
        for (; s < prefixes[p]!; s++) x_hat += f_BS[b * S + s]! * W_dec_SD[s * D + d]!;
        x_hats_BPD[(b * P + p) * D + d] = x_hat;
      }
    }
  }
  return x_hats_BPD;
}

/**
 * Latent s is part of every prefix from its own block's on, so with R_j = Σ_{p ≥ j} ∂x̂_p and j the block of s:
 * ∂f_bs = ⟨W_dec_s, R_j⟩, ∂W_dec_s += Σ_b f_bs R_j, ∂bias += Σ_b R_0.
 */
export function decodeBackward(
  f_BS: Float64Array,
  W_dec_SD: Float64Array,
  prefixes: readonly number[],
  grad_x_hats_BPD: Float64Array,
  into: { readonly W_dec: Float64Array; readonly bias: Float64Array },
): Float64Array {
  const P = prefixes.length;
  const D = into.bias.length;
  const S = W_dec_SD.length / D;
  const B = f_BS.length / S;
  const summed_BPD = grad_x_hats_BPD.slice();
  for (let b = 0; b < B; b++) {
    for (let p = P - 2; p >= 0; p--) {
      for (let d = 0; d < D; d++) summed_BPD[(b * P + p) * D + d]! += summed_BPD[(b * P + p + 1) * D + d]!;
    }
  }
  const grad_f_BS = new Float64Array(B * S);
  for (let b = 0; b < B; b++) {
    for (let d = 0; d < D; d++) into.bias[d]! += summed_BPD[b * P * D + d]!;
    for (let s = 0; s < S; s++) {
      const block = prefixes.findIndex((length) => s < length);
      let grad_f = 0;
      for (let d = 0; d < D; d++) {
        const summed = summed_BPD[(b * P + block) * D + d]!;
        grad_f += W_dec_SD[s * D + d]! * summed;
        into.W_dec[s * D + d]! += f_BS[b * S + s]! * summed;
      }
      grad_f_BS[b * S + s] = grad_f;
    }
  }
  return grad_f_BS;
}
