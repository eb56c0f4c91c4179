/**
 * Whether float32 can decide what the reference decides in float64, and hold its gradients. It cannot where a pre-activation
 * lies within its rounding of an edge, or where a gradient is the difference of two much larger sums.
 *
 * @module
 */

import fc from "fast-check";
import { encode, largest, magnitudes, parameterNames, type Parameters, widen } from "../reference/model.ts";
import { lossAndGradients, type Problem } from "../reference/objective.ts";
import { Random } from "../support/random.ts";
import { isSensitive, isSensitiveDifference, seededBound, U } from "../support/tolerance.ts";

/** A comparison that says nothing, since float32 cannot decide. */
export class Undecided extends Error {
  override readonly name = "Undecided";
}

/**
 * @param threshold of a BatchTopK outside training
 * @throws {Undecided} unless float32 can decide which latents fire, which dead ones AuxK uses, and which windows hold them.
 */
export function checkDecided(problem: Problem, p: Parameters, threshold?: number): void {
  const { cfg: { activation, d_sae: S }, x_BD, dead_S } = problem;
  const h_BS = encode(problem.cfg, p, x_BD);
  const bound_BS = roundingOf(problem, p);
  const near = (edge: (i: number) => number) => h_BS.some((h, i) => Math.abs(h - edge(i)) <= bound_BS[i]!);
  const theta = (i: number) => Math.max(p.threshold?.[i % S] ?? threshold ?? 0, 0);
  const rows = (k: number, eligible?: Uint8Array) => {
    for (let start = 0; start < h_BS.length; start += S) {
      const [h_S, bound_S] = [h_BS, bound_BS].map((values) => values.subarray(start, start + S));
      if (isTied(h_S!, bound_S!, k, eligible)) throw new Undecided("which of two latents a row keeps");
    }
  };
  if ("top_k" in activation && threshold === undefined) {
    if (activation.relu && near(() => 0)) throw new Undecided("whether a latent fires");
    const k = activation.top_k * h_BS.length / S;
    if (activation.key === "top-k") rows(activation.top_k);
    else if (isTied(h_BS, bound_BS, k)) throw new Undecided("which of two latents a batch keeps");
  } else if (near(theta)) throw new Undecided("whether a latent fires");
  if (activation.key === "gated" && magnitudesTie(p, h_BS, bound_BS)) throw new Undecided("whether a latent fires");
  if (activation.key === "jump-relu") {
    const half = activation.bandwidth / 2;
    if (near((i) => theta(i) - half) || near((i) => theta(i) + half)) throw new Undecided("what a window holds");
  }
  if (activation.aux.key === "auxk") rows(activation.aux.k_aux, dead_S);
}

/** How far each pre-activation may be off. */
function roundingOf(problem: Problem, p: Parameters): Float64Array {
  return seededBound(sizesOf(problem, p), problem.cfg.d_model + 2);
}

/** Σ_d |x W_enc| + |b_enc| of each pre-activation. */
export function sizesOf({ cfg, x_BD }: Pick<Problem, "cfg" | "x_BD">, p: Parameters): Float64Array {
  const sizes = (values: Float64Array) => values.map(Math.abs);
  const D = cfg.d_model;
  const x = x_BD.map((value, i) => Math.abs(value) + (cfg.subtract_b_dec ? Math.abs(p.b_dec[i % D]!) : 0));
  return encode({ ...cfg, subtract_b_dec: false }, { ...p, W_enc: sizes(p.W_enc), b_enc: sizes(p.b_enc) }, x);
}

/** How many ways of rounding are tried. */
const ROUNDINGS = 6;

/** Whether the k-th largest value and the next could change places. */
function isTied(values: Float64Array, bounds: Float64Array, k: number, eligible?: Uint8Array): boolean {
  const kept = largest(values, k, eligible);
  const more = largest(values, k + 1, eligible);
  if (more.length === kept.length) return false;
  const last = kept.reduce((least, i) => values[i]! < values[least]! ? i : least);
  const next = more.find((i) => !kept.includes(i))!;
  return values[last]! - values[next]! <= bounds[last]! + bounds[next]!;
}

function magnitudesTie(p: Parameters, h_BS: Float64Array, bound_BS: Float64Array): boolean {
  const S = p.b_enc.length;
  return magnitudes(p, h_BS).some((m, i) => {
    const factor = Math.exp(p.r_mag![i % S]!);
    const sizes = factor * (Math.abs(h_BS[i]!) + Math.abs(p.b_enc[i % S]!)) + Math.abs(p.b_mag![i % S]!);
    return Math.abs(m) <= 2 * (factor * bound_BS[i]! + seededBound([sizes], 4)[0]!);
  });
}

/** @throws {Undecided} if rounding the inputs once moves the loss or a gradient by much of its tolerance. */
export function checkConditioned(
  problem: Problem,
  p: Parameters,
  { record, gradients }: ReturnType<typeof lossAndGradients>,
): void {
  const { sparsity } = problem;
  if (sparsity?.key === "target-l0-sparsity" && isSensitiveDifference(record.loss.l0, sparsity.target_l0)) {
    throw new Undecided("how far L0 is from its target");
  }
  const random = new Random(problem.x_BD.length);
  const rounded = (values: Float64Array) => values.map((value) => value * (1 + (random.unit() < 0.5 ? U : -U)));
  const others = Array.from({ length: ROUNDINGS }, () => {
    const moved = widen(p);
    for (const name of parameterNames(p)) moved[name]!.set(rounded(p[name]!));
    return lossAndGradients({ ...problem, x_BD: rounded(problem.x_BD) }, moved);
  });
  for (const name of ["loss", "mse", "l1", "sparsity", "aux"] as const) {
    if (isSensitive(others.map((other) => [other.record.loss[name]]), [record.loss[name]])) throw new Undecided(name);
  }
  for (const name of parameterNames(p)) {
    if (isSensitive(others.map((other) => other.gradients[name]!), gradients[name]!)) {
      throw new Undecided(`the gradient of ${name}`);
    }
  }
}

/** A property of fast-check that skips what float32 cannot decide, unless it is one of `always`. */
export function decidedOnly<T>(
  check: (value: T) => Promise<void>,
  always: readonly T[] = [],
): (value: T) => Promise<void> {
  return async (value) => {
    try {
      await check(value);
    } catch (error) {
      fc.pre(!(error instanceof Undecided) || always.includes(value));
      throw error;
    }
  };
}
