/**
 * The objectives again, in plain float64 loops: squared error over prefixes, sparsity, AuxK, and all their gradients.
 *
 * A step first decides (which latents are selected, which are dead, what the residual is) and then differentiates with
 * those decisions held constant. They are a record of their own here, so that a test can hold them too while it moves
 * a parameter, or put an adapter's own selection in their place.
 *
 * @module
 */

import type { SparseAutoencoderConfig, Sparsity } from "../../nn/config.ts";
import {
  activate,
  activateBackward,
  decode,
  decodeBackward,
  encode,
  encodeBackward,
  largest,
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
  /** sign f, for the derivative of |f|. */
  readonly sign_BS: Float64Array;
  /** Which dead latents reconstruct the residual. */
  readonly auxMask_BS: Uint8Array;
  /** e = x − x̂ with all latents. */
  readonly residual_BD: Float64Array;
  /** The b_dec that the auxiliary encoder subtracts, where one is subtracted. */
  readonly auxInput_b_dec_D: Float64Array;
}

/** A forward pass: what {@link backward} needs, and a test may look at. */
export interface Forward {
  readonly h_BS: Float64Array;
  readonly f_BS: Float64Array;
  readonly x_hats_BPD: Float64Array;
  readonly auxCodes_BS: Float64Array;
  readonly auxError_BD: Float64Array;
  readonly loss: Loss;
}

/** Selections, residual and signs at these parameters. */
export function decide(problem: Problem, p: Parameters): Decisions {
  const h_BS = encode(problem.cfg, p, problem.x_BD);
  return decideWith(problem, p, h_BS, select(problem.cfg.activation, h_BS, problem.cfg.d_sae));
}

/** As {@link decide}, where the selection of codes is already known. */
export function decideWith(problem: Problem, p: Parameters, h_BS: Float64Array, mask_BS: Uint8Array): Decisions {
  const { cfg, x_BD, dead_S } = problem;
  const f_BS = activate(h_BS, mask_BS);
  const x_hat_BD = decode(f_BS, p.W_dec, p.b_dec, [cfg.d_sae]);
  return {
    mask_BS,
    sign_BS: f_BS.map(Math.sign),
    auxMask_BS: selectDead(problem, h_BS, dead_S),
    residual_BD: x_BD.map((x, i) => x - x_hat_BD[i]!),
    auxInput_b_dec_D: p.b_dec.slice(),
  };
}

/** Each row's k_aux largest pre-activations among the dead, negative ones too; all of them if there are no more. */
function selectDead({ cfg }: Problem, h_BS: Float64Array, dead_S: Uint8Array): Uint8Array {
  const auxMask_BS = new Uint8Array(h_BS.length);
  const { aux } = cfg.activation;
  if (aux.key === "no-aux") return auxMask_BS;
  for (let start = 0; start < h_BS.length; start += cfg.d_sae) {
    for (const s of largest(h_BS.subarray(start, start + cfg.d_sae), aux.k_aux, dead_S)) auxMask_BS[start + s] = 1;
  }
  return auxMask_BS;
}

/** loss = mse + sparsity + aux at these parameters, with the decisions held. */
export function forward(problem: Problem, p: Parameters, decisions: Decisions): Forward {
  const { cfg, x_BD, prefixes, dead_S } = problem;
  const B = x_BD.length / cfg.d_model;
  const h_BS = encode(cfg, p, x_BD);
  const f_BS = activate(h_BS, decisions.mask_BS);
  const x_hats_BPD = decode(f_BS, p.W_dec, p.b_dec, prefixes);
  const mse = mean(squaredError(x_hats_BPD, repeated(x_BD, cfg.d_model, prefixes.length)));

  let l1 = 0;
  let n_codes = 0;
  for (let i = 0; i < f_BS.length; i++) {
    l1 += decisions.sign_BS[i]! * f_BS[i]! / B;
    if (f_BS[i] !== 0) n_codes++;
  }
  const sparsity = sparsityCoefficient(problem) * l1;

  const auxHidden_BS = encode(cfg, { ...p, b_dec: decisions.auxInput_b_dec_D }, x_BD);
  const auxCodes_BS = activate(auxHidden_BS, decisions.auxMask_BS);
  const auxOutput_BD = decode(auxCodes_BS, p.W_dec, auxBias(problem, p), [cfg.d_sae]);
  const auxError_BD = auxOutput_BD.map((output, i) => output - decisions.residual_BD[i]!);
  const aux = auxWeight(problem, decisions) * mean(auxError_BD.map((error) => error * error));

  const n_dead = dead_S.reduce((n, dead) => n + dead, 0);
  const loss = { loss: mse + sparsity + aux, mse, sparsity, l0: n_codes / B, l1, aux, n_dead };
  return { h_BS, f_BS, x_hats_BPD, auxCodes_BS, auxError_BD, loss };
}

/** All gradients of {@link forward}'s loss, from last to first. */
export function backward(problem: Problem, p: Parameters, decisions: Decisions, record: Forward): Parameters {
  const { cfg, x_BD, prefixes } = problem;
  const B = x_BD.length / cfg.d_model;
  const gradients = zerosLike(p);

  // mse: ∂x̂ = 2 (x̂ − x) / (B P D)
  const repeated_BPD = repeated(x_BD, cfg.d_model, prefixes.length);
  const grad_x_hats_BPD = record.x_hats_BPD.map((x_hat, i) => 2 * (x_hat - repeated_BPD[i]!) / repeated_BPD.length);
  const grad_f_BS = decodeBackward(record.f_BS, p.W_dec, prefixes, grad_x_hats_BPD, {
    W_dec: gradients.W_dec,
    bias: gradients.b_dec,
  });

  // sparsity: ∂f += coeff · sign f / B
  const coefficient = sparsityCoefficient(problem);
  for (let i = 0; i < grad_f_BS.length; i++) grad_f_BS[i]! += coefficient * decisions.sign_BS[i]! / B;
  const grad_h_BS = activateBackward(grad_f_BS, decisions.mask_BS);
  encodeBackward(cfg, p, x_BD, grad_h_BS, "differentiated", gradients);

  // aux: ∂ê = 2 alpha (ê − e) / (B D). The residual is a constant here, and so is the b_dec before the encoder.
  const weight = auxWeight(problem, decisions);
  const grad_auxOutput_BD = record.auxError_BD.map((error) => 2 * weight * error / x_BD.length);
  const grad_auxBias_D = new Float64Array(cfg.d_model);
  const grad_auxCodes_BS = decodeBackward(record.auxCodes_BS, p.W_dec, [cfg.d_sae], grad_auxOutput_BD, {
    W_dec: gradients.W_dec,
    bias: grad_auxBias_D,
  });
  if (cfg.activation.aux.key === "auxk" && cfg.activation.aux.include_b_dec) {
    for (let d = 0; d < cfg.d_model; d++) gradients.b_dec[d]! += grad_auxBias_D[d]!;
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

function sparsityCoefficient({ cfg, sparsity = cfg.activation.sparsity }: Problem): number {
  return sparsity.key === "l1-sparsity" ? sparsity.coeff : 0;
}

/** No loss where nothing is dead, bias or not. */
function auxWeight({ cfg: { activation: { aux } } }: Problem, { auxMask_BS }: Decisions): number {
  return aux.key === "auxk" && auxMask_BS.includes(1) ? aux.alpha : 0;
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
