/**
 * The objectives again, in plain float64 loops: squared error over prefixes, sparsity, AuxK, and all their gradients.
 *
 * A step first decides (which latents are selected, which are dead, what the residual is) and then differentiates with
 * those decisions held constant. They are a record of their own here, so that a test can hold them too while it moves
 * a parameter, or put an adapter's own selection in their place.
 *
 * @module
 */

import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import type { Sparsity } from "../../nn/loss_terms.ts";
import {
  activate,
  activateBackward,
  decode,
  decodeBackward,
  encode,
  encodeBackward,
  gatedMask,
  largest,
  magnitudes,
  magnitudesBackward,
  type Parameters,
  select,
  zerosLike,
} from "./model.ts";

/** Below this, max|x| no longer scales the squared error: all-zero inputs give 0/1e-12 and not 0/0. */
const LEAST_SCALE = 1e-12;

/** What a step says about itself. */
export interface Loss {
  /** mse + sparsity + aux */
  readonly loss: number;
  /** Mean over batch, prefixes and D. */
  readonly mse: number;
  /** coeff · l1 */
  readonly sparsity: number;
  /** Mean number of codes that are not 0. */
  readonly l0: number;
  /** mean_b Σ_s |f_bs| */
  readonly l1: number;
  /** alpha · mean (ê − e)² */
  readonly aux: number;
  /** How many latents are dead. */
  readonly n_dead: number;
}

/** Everything a step's loss depends on. */
export interface Problem {
  readonly cfg: SparseAutoencoderConfig;
  /** [B, D], standardised. */
  readonly x_BD: Float64Array;
  /** Ascending, the last one d_sae; `[d_sae]` is the vanilla objective. */
  readonly prefixes: readonly number[];
  /** 1 for each dead latent, as {@link countSinceActive} says after this batch. */
  readonly dead_S: Uint8Array;
  /** Replaces the activation's own. */
  readonly sparsity?: Sparsity;
}

/** What a step decides before it differentiates, constant to every gradient. */
export interface Decisions {
  /** Which pre-activations are codes. */
  readonly mask_BS: Uint8Array;
  /** The derivative of |f|: sign f, but 1 at the zeros of a ReLU or JumpReLU, whose codes only grow from there. */
  readonly sign_BS: Float64Array;
  /** A JumpReLU's thresholds at the base point, 0 where they are negative; zeros for others. */
  readonly threshold_S: Float64Array;
  /** The same as they are. */
  readonly unclamped_S: Float64Array;
  /** Which pre-activations lie in the window of the straight-through estimator: |h − θ| < ε/2. */
  readonly window_BS: Uint8Array;
  /** Which pre-activations of dead latents lie below their threshold. */
  readonly below_BS: Uint8Array;
  /** Which dead latents reconstruct the residual. */
  readonly auxMask_BS: Uint8Array;
  /** e = x − x̂ with all latents. */
  readonly residual_BD: Float64Array;
  /** What the auxiliary loss is divided by: 1, or the variance of e around its mean row. */
  readonly auxScale: number;
  /** The b_dec that the auxiliary encoder subtracts, where one is subtracted. */
  readonly auxInput_b_dec_D: Float64Array;
  /** Where the gates of a Gated are open. */
  readonly gate_BS: Uint8Array;
  /** The decoder that reconstructs from gates. */
  readonly frozen: { readonly W_dec: Float64Array; readonly b_dec: Float64Array };
}

/** A forward pass: what {@link backward} needs, and a test may look at. */
export interface Forward {
  readonly h_BS: Float64Array;
  readonly f_BS: Float64Array;
  /** What the penalty is on: the codes, or max(h, 0) of a Gated. */
  readonly penalised_BS: Float64Array;
  readonly x_hats_BPD: Float64Array;
  readonly auxCodes_BS: Float64Array;
  readonly auxError_BD: Float64Array;
  /** P, a mean over the batch. */
  readonly penalty: number;
  readonly loss: Loss;
}

/** Selections, residual and signs at these parameters. */
export function decide(problem: Problem, p: Parameters): Decisions {
  const h_BS = encode(problem.cfg, p, problem.x_BD);
  const { activation, d_sae } = problem.cfg;
  const mask_BS = activation.key === "gated" ? gatedMask(p, h_BS) : select(activation, h_BS, d_sae, p.threshold);
  return decideWith(problem, p, h_BS, mask_BS);
}

/** As {@link decide}, where the selection of codes is already known. */
export function decideWith(problem: Problem, p: Parameters, h_BS: Float64Array, mask_BS: Uint8Array): Decisions {
  const { cfg, x_BD, dead_S } = problem;
  const isGated = cfg.activation.key === "gated";
  const f_BS = activate(isGated ? magnitudes(p, h_BS) : h_BS, mask_BS);
  const x_hat_BD = decode(f_BS, p.W_dec, p.b_dec, [cfg.d_sae]);
  const { activation, d_sae: S } = cfg;
  const isDense = activation.key === "relu" || activation.key === "jump-relu" || isGated;
  const threshold_S = Float64Array.from({ length: S }, (_, s) => Math.max(p.threshold?.[s] ?? 0, 0));
  const half = activation.key === "jump-relu" ? activation.bandwidth / 2 : 0;
  const isPreAct = activation.aux.key === "pre-act";
  const residual_BD = x_BD.map((x, i) => x - x_hat_BD[i]!);
  return {
    mask_BS,
    sign_BS: f_BS.map((f) => isDense ? 1 : Math.sign(f)),
    threshold_S,
    unclamped_S: Float64Array.from(p.threshold ?? []),
    window_BS: Uint8Array.from(h_BS, (h, i) => Math.abs(h - threshold_S[i % S]!) < half ? 1 : 0),
    below_BS: Uint8Array.from(h_BS, (h, i) => isPreAct && dead_S[i % S] && h < threshold_S[i % S]! ? 1 : 0),
    auxMask_BS: selectDead(problem, h_BS, dead_S),
    residual_BD,
    auxScale: activation.aux.key === "auxk" && activation.aux.normalize ? variance(residual_BD, cfg.d_model) : 1,
    auxInput_b_dec_D: p.b_dec.slice(),
    gate_BS: Uint8Array.from(h_BS, (h) => isGated && h > 0 ? 1 : 0),
    frozen: { W_dec: p.W_dec.slice(), b_dec: p.b_dec.slice() },
  };
}

/** mean((e − mean_b e)²) */
function variance(e_BD: Float64Array, D: number): number {
  const mean_D = new Float64Array(D);
  for (let i = 0; i < e_BD.length; i++) mean_D[i % D]! += e_BD[i]! / (e_BD.length / D);
  return mean(e_BD.map((e, i) => (e - mean_D[i % D]!) ** 2));
}

/** Each row's k_aux largest pre-activations among the dead, negative ones too; all of them if there are no more. */
function selectDead({ cfg }: Problem, h_BS: Float64Array, dead_S: Uint8Array): Uint8Array {
  const auxMask_BS = new Uint8Array(h_BS.length);
  const { aux } = cfg.activation;
  if (aux.key !== "auxk") return auxMask_BS;
  for (let start = 0; start < h_BS.length; start += cfg.d_sae) {
    for (const s of largest(h_BS.subarray(start, start + cfg.d_sae), aux.k_aux, dead_S)) auxMask_BS[start + s] = 1;
  }
  return auxMask_BS;
}

/**
 * loss = mse + sparsity + aux at these parameters, with the decisions held.
 *
 * What jumps at a threshold θ has a straight line in θ in its place, whose slope is the straight-through estimator's
 * (Rajamanoharan et al. 2024): f = … − window · θ₀/ε · (θ − θ₀), and ‖f‖₀ = … − window / ε · (θ − θ₀).
 */
export function forward(problem: Problem, p: Parameters, decisions: Decisions): Forward {
  const { cfg, x_BD, prefixes, dead_S } = problem;
  const { d_sae: S, activation } = cfg;
  const B = x_BD.length / cfg.d_model;
  const h_BS = encode(cfg, p, x_BD);
  const moved_S = movedThresholds(p, decisions);
  const isGated = activation.key === "gated";
  const f_BS = activate(isGated ? magnitudes(p, h_BS) : h_BS, decisions.mask_BS);
  const bandwidth = bandwidthOf(problem);
  for (let i = 0; i < f_BS.length; i++) {
    if (decisions.window_BS[i]) f_BS[i]! -= decisions.threshold_S[i % S]! / bandwidth * moved_S[i % S]!;
  }
  const x_hats_BPD = decode(f_BS, p.W_dec, p.b_dec, prefixes);
  const mse = mean(squaredError(x_hats_BPD, repeated(x_BD, cfg.d_model, prefixes.length)));

  const penalised_BS = isGated ? activate(h_BS, decisions.gate_BS) : f_BS;
  let l1 = 0;
  let n_codes = 0;
  let penalty = 0;
  const lengths_S = rowLengths(p.W_dec, cfg.d_model);
  for (let i = 0; i < f_BS.length; i++) {
    const size = decisions.sign_BS[i]! * f_BS[i]!;
    l1 += size / B;
    if (f_BS[i] !== 0) n_codes++;
    const jump = decisions.window_BS[i] ? -moved_S[i % S]! / bandwidth : 0;
    penalty +=
      penaltyPart(problem, isGated ? penalised_BS[i]! : size, lengths_S[i % S]!, decisions.mask_BS[i]! + jump) / B;
  }
  const sparsity = penaltyLoss(problem, penalty);

  const auxHidden_BS = encode(cfg, { ...p, b_dec: decisions.auxInput_b_dec_D }, x_BD);
  const auxCodes_BS = activate(auxHidden_BS, decisions.auxMask_BS);
  const auxOutput_BD = decode(auxCodes_BS, p.W_dec, auxBias(problem, p), [cfg.d_sae]);
  const auxError_BD = auxOutput_BD.map((output, i) => output - decisions.residual_BD[i]!);
  let aux = auxWeight(problem, decisions) * mean(auxError_BD.map((error) => error * error));
  if (activation.aux.key === "pre-act") {
    for (let i = 0; i < h_BS.length; i++) {
      if (!decisions.below_BS[i]) continue;
      const missing = decisions.threshold_S[i % S]! + moved_S[i % S]! - h_BS[i]!;
      aux += activation.aux.coeff / B * missing * lengths_S[i % S]!;
    }
  }

  if (isGated) aux += mean(gateError(problem, penalised_BS, decisions).map((error) => error * error));

  const n_dead = dead_S.reduce((n, dead) => n + dead, 0);
  const loss = { loss: mse + sparsity + aux, mse, sparsity, l0: n_codes / B, l1, aux, n_dead };
  return { h_BS, f_BS, penalised_BS, x_hats_BPD, auxCodes_BS, auxError_BD, penalty, loss };
}

/** x̂ − x by the gates alone, with a decoder that is a constant. */
function gateError({ cfg, x_BD }: Problem, penalised_BS: Float64Array, { frozen }: Decisions): Float64Array {
  return decode(penalised_BS, frozen.W_dec, frozen.b_dec, [cfg.d_sae]).map((x_hat, i) => x_hat - x_BD[i]!);
}

/** All gradients of {@link forward}'s loss, from last to first. */
export function backward(problem: Problem, p: Parameters, decisions: Decisions, record: Forward): Parameters {
  const { cfg, x_BD, prefixes } = problem;
  const { d_model: D, d_sae: S, activation } = cfg;
  const B = x_BD.length / D;
  const gradients = zerosLike(p);
  const lengths_S = rowLengths(p.W_dec, D);
  const grad_lengths_S = new Float64Array(S);

  // mse: ∂x̂ = 2 (x̂ − x) / (B P D)
  const repeated_BPD = repeated(x_BD, D, prefixes.length);
  const grad_x_hats_BPD = record.x_hats_BPD.map((x_hat, i) => 2 * (x_hat - repeated_BPD[i]!) / repeated_BPD.length);
  const grad_f_BS = decodeBackward(record.f_BS, p.W_dec, prefixes, grad_x_hats_BPD, {
    W_dec: gradients.W_dec,
    bias: gradients.b_dec,
  });

  // gate: ∂ max(h, 0) = 2 (x̂ − x) W_decᵀ / (B D), and nothing for the decoder
  const isGated = activation.key === "gated";
  const gateErrors_BD = isGated ? gateError(problem, record.penalised_BS, decisions) : new Float64Array(x_BD.length);
  const grad_gate_BS = decodeBackward(
    record.penalised_BS,
    decisions.frozen.W_dec,
    [S],
    gateErrors_BD.map((error) => 2 * error / x_BD.length),
    { W_dec: new Float64Array(p.W_dec.length), bias: new Float64Array(D) },
  );

  // sparsity: ∂f += slope · ∂P/∂f, ∂‖W_dec_s‖ += slope · ∂P/∂‖W_dec_s‖; of a Gated, max(h, 0) replaces f
  const slope = penaltySlope(problem, record.penalty) / B;
  const grad_penalised_BS = isGated ? grad_gate_BS : grad_f_BS;
  for (let i = 0; i < grad_f_BS.length; i++) {
    const size = decisions.sign_BS[i]! * record.penalised_BS[i]!;
    const { bySize, byLength } = penaltySlopes(problem, size, lengths_S[i % S]!);
    grad_penalised_BS[i]! += slope * bySize * decisions.sign_BS[i]!;
    grad_lengths_S[i % S]! += slope * byLength;
  }
  const grad_codes_BS = activateBackward(grad_f_BS, decisions.mask_BS);
  const grad_u_BS = isGated ? magnitudesBackward(p, record.h_BS, grad_codes_BS, gradients) : grad_codes_BS;
  const grad_h_BS = grad_u_BS.map((grad, i) => decisions.gate_BS[i] ? grad + grad_gate_BS[i]! : grad);

  // thresholds: ∂θ = Σ_b −window · (θ₀/ε ∂f + 1/ε ∂‖f‖₀)
  const onL0 = ["l0-sparsity", "target-l0-sparsity"].includes(sparsityOf(problem).key);
  for (let i = 0; i < grad_f_BS.length; i++) {
    if (!decisions.window_BS[i]) continue;
    const jump = decisions.threshold_S[i % S]! * grad_f_BS[i]! + (onL0 ? slope : 0);
    gradients.threshold![i % S]! -= jump / bandwidthOf(problem);
  }

  // pre-activation loss: ∂h = −w ‖W_dec_s‖, ∂θ = w ‖W_dec_s‖, ∂‖W_dec_s‖ = w (θ − h)
  if (activation.aux.key === "pre-act") {
    const weight = activation.aux.coeff / B;
    for (let i = 0; i < grad_h_BS.length; i++) {
      if (!decisions.below_BS[i]) continue;
      grad_h_BS[i]! -= weight * lengths_S[i % S]!;
      gradients.threshold![i % S]! += weight * lengths_S[i % S]!;
      grad_lengths_S[i % S]! += weight * (decisions.threshold_S[i % S]! - record.h_BS[i]!);
    }
  }
  encodeBackward(cfg, p, x_BD, grad_h_BS, "differentiated", gradients);
  // The magnitudes of a Gated are those of h − b_enc.
  if (isGated) grad_u_BS.forEach((grad, i) => gradients.b_enc[i % S]! -= grad);
  for (let i = 0; i < p.W_dec.length; i++) {
    const s = Math.floor(i / D);
    if (lengths_S[s]! > 0) gradients.W_dec[i]! += grad_lengths_S[s]! * p.W_dec[i]! / lengths_S[s]!;
  }

  // aux: ∂ê = 2 alpha (ê − e) / (B D). The residual is a constant here, and so is the b_dec before the encoder.
  const weight = auxWeight(problem, decisions);
  const grad_auxOutput_BD = record.auxError_BD.map((error) => 2 * weight * error / x_BD.length);
  const grad_auxBias_D = new Float64Array(D);
  const grad_auxCodes_BS = decodeBackward(record.auxCodes_BS, p.W_dec, [S], grad_auxOutput_BD, {
    W_dec: gradients.W_dec,
    bias: grad_auxBias_D,
  });
  if (activation.aux.key === "auxk" && activation.aux.include_b_dec) {
    for (let d = 0; d < D; d++) gradients.b_dec[d]! += grad_auxBias_D[d]!;
  }
  encodeBackward(cfg, p, x_BD, activateBackward(grad_auxCodes_BS, decisions.auxMask_BS), "constant", gradients);
  return gradients;
}

/** Decides, goes forward and back. */
export function lossAndGradients(
  problem: Problem,
  p: Parameters,
): { readonly decisions: Decisions; readonly record: Forward; readonly gradients: Parameters } {
  const decisions = decide(problem, p);
  const record = forward(problem, p, decisions);
  return { decisions, record, gradients: backward(problem, p, decisions, record) };
}

/**
 * (x̂ − x)², elementwise, with both divided by max|x| first and the square multiplied back: large inputs do not overflow
 * on the way. The division changes no value, only what f32 can hold.
 */
export function squaredError(x_hat: Float64Array, x: Float64Array): Float64Array {
  const scale = largestMagnitude(x);
  return x.map((_, i) => (x_hat[i]! / scale - x[i]! / scale) ** 2 * scale * scale);
}

/** (x̂ − x)² / ‖x_b‖, elementwise; the norm, not its square, of each row. */
export function squaredErrorOverNorm(x_hat_BD: Float64Array, x_BD: Float64Array, d_model: number): Float64Array {
  const scale = largestMagnitude(x_BD);
  return x_BD.map((_, i) => {
    const start = i - i % d_model;
    const norm = Math.sqrt(x_BD.subarray(start, start + d_model).reduce((sum, x) => sum + (x / scale) ** 2, 0));
    return (x_hat_BD[i]! / scale - x_BD[i]! / scale) ** 2 / (norm + LEAST_SCALE) * scale;
  });
}

/** How many inputs each latent has been silent for, after this batch; any code that is not 0 wakes it. */
export function countSinceActive(counters_S: ArrayLike<number>, f_BS: Float64Array): Float64Array {
  const S = counters_S.length;
  const B = f_BS.length / S;
  return Float64Array.from(counters_S, (count, s) => {
    for (let b = 0; b < B; b++) if (f_BS[b * S + s] !== 0) return 0;
    return count + B;
  });
}

/** Dead is who has been silent for at least so many inputs. */
export function dead(counters_S: ArrayLike<number>, dead_threshold_tokens: number): Uint8Array {
  return Uint8Array.from(counters_S, (count) => count >= dead_threshold_tokens ? 1 : 0);
}

function sparsityOf({ cfg, sparsity = cfg.activation.sparsity }: Problem): Sparsity {
  return sparsity;
}

/** One code's part of P: |f|, |f| n, tanh(c |f| n), or 1 for a code that there is. */
function penaltyPart(problem: Problem, size: number, length: number, one: number): number {
  const sparsity = sparsityOf(problem);
  switch (sparsity.key) {
    case "no-sparsity":
    case "l1-sparsity":
      return size;
    case "weighted-l1-sparsity":
      return size * length;
    case "tanh-sparsity":
      return Math.tanh(sparsity.scale * size * length);
    case "l0-sparsity":
    case "target-l0-sparsity":
      return one;
  }
}

/** Its derivatives by |f| and by n. */
function penaltySlopes(problem: Problem, size: number, length: number): { bySize: number; byLength: number } {
  const sparsity = sparsityOf(problem);
  switch (sparsity.key) {
    case "l1-sparsity":
      return { bySize: 1, byLength: 0 };
    case "weighted-l1-sparsity":
      return { bySize: length, byLength: size };
    case "tanh-sparsity": {
      const { scale } = sparsity;
      const slope = scale * (1 - Math.tanh(scale * size * length) ** 2);
      return { bySize: slope * length, byLength: slope * size };
    }
    case "no-sparsity":
    case "l0-sparsity":
    case "target-l0-sparsity":
      return { bySize: 0, byLength: 0 };
  }
}

/** λ P, or λ (P / target − 1)². */
function penaltyLoss(problem: Problem, penalty: number): number {
  const sparsity = sparsityOf(problem);
  if (sparsity.key === "no-sparsity") return 0;
  if (sparsity.key !== "target-l0-sparsity") return sparsity.coeff * penalty;
  return sparsity.coeff * (penalty / sparsity.target_l0 - 1) ** 2;
}

function penaltySlope(problem: Problem, penalty: number): number {
  const sparsity = sparsityOf(problem);
  if (sparsity.key === "no-sparsity") return 0;
  if (sparsity.key !== "target-l0-sparsity") return sparsity.coeff;
  return 2 * sparsity.coeff * (penalty / sparsity.target_l0 - 1) / sparsity.target_l0;
}

function bandwidthOf({ cfg: { activation } }: Problem): number {
  return activation.key === "jump-relu" ? activation.bandwidth : 0;
}

/** How far each threshold has been moved from the base point. A negative one counts as 0 and moves as itself. */
function movedThresholds(p: Parameters, { unclamped_S }: Decisions): Float64Array {
  return unclamped_S.map((base, s) => p.threshold![s]! - base);
}

function rowLengths(W_dec_SD: Float64Array, D: number): Float64Array {
  const squares_S = new Float64Array(W_dec_SD.length / D);
  for (let i = 0; i < W_dec_SD.length; i++) squares_S[Math.floor(i / D)]! += W_dec_SD[i]! ** 2;
  return squares_S.map(Math.sqrt);
}

/** No loss where nothing is dead, bias or not, or where the residual has no variance to be divided by. */
function auxWeight({ cfg: { activation: { aux } } }: Problem, { auxMask_BS, auxScale }: Decisions): number {
  return aux.key === "auxk" && auxMask_BS.includes(1) && auxScale > 0 ? aux.alpha / auxScale : 0;
}

function auxBias({ cfg }: Problem, p: Parameters): Float64Array {
  const { aux } = cfg.activation;
  return aux.key === "auxk" && aux.include_b_dec ? p.b_dec : new Float64Array(cfg.d_model);
}

/** Each row of x once for every prefix: [B, P, D]. */
function repeated(x_BD: Float64Array, D: number, P: number): Float64Array {
  const x_BPD = new Float64Array(x_BD.length * P);
  for (let b = 0; b < x_BD.length / D; b++) {
    for (let p = 0; p < P; p++) x_BPD.set(x_BD.subarray(b * D, (b + 1) * D), (b * P + p) * D);
  }
  return x_BPD;
}

function largestMagnitude(x: Float64Array): number {
  return x.reduce((most, value) => Math.max(most, Math.abs(value)), LEAST_SCALE);
}

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
