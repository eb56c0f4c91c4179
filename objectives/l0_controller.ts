/**
 * The weight λ of the penalty in a step: the configured weight, times a schedule, times the factor of a controller.
 *
 * The controller moves the mean L0 to a target along a path: the reference r starts at the first batch's L0 and
 * approaches the target by a factor of exp(PACE · v) a step, or faster if it would otherwise not arrive within a third
 * of the run. With e = clamp(ln(L0 / r), ±MAX_ERROR) of the step's own batch it is a proportional-integral controller,
 *
 * u ← clamp(u + GAIN · max(v, √v) · e, ±MAX_U),  λ ← λ · 2 (sinh(u) + DAMPING · e · cosh(u)),  2 sinh(u) = 1 at the start:
 *
 * exponential where the configured weight is far from the right one, linear near λ = 0. v = lr / UNIT_LR measures how
 * far a step moves the model, and so how strongly L0 responds to the weight of the step before.
 *
 * A penalty on the codes that is raised too fast kills latents for good, so its path is slow; and λ ≥ 0 (u ≥ 0), since
 * rewarding codes would have no bound. A penalty on L0 moves only thresholds, which can recover: its path is fast, and
 * λ may become negative, a reward that lowers thresholds again. If the thresholds lag behind, r waits: it is never
 * ahead of L0 by more than a factor of LEAD, so that the integral does not wind up on the way.
 *
 * It runs on the GPU with numbers of the same step, so it does not matter when losses are read.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../kernels/engine/kernel.ts";
import type { Tensor } from "../kernels/engine/tensor.ts";
import { freeL0, isOnL0, type Sparsity, sparsityCoeff } from "../nn/loss_terms.ts";

const GAIN = 0.03;
const DAMPING = 6;
const PACE = { codes: 0.003, l0: 0.02 };
const LEAD = 1.35;
/** A lead that no L0 can reach. */
const UNBOUNDED = 1e20;
const MAX_ERROR = 0.5;
const UNIT_LR = 2e-3;
/** Of |u|: λ is then 3 million times the configured one, and nothing overflows where a target cannot be reached. */
const MAX_U = 15;

/** u at the start: arsinh(½). */
const START = 0.48121182505960347;

/** The part of a run's state that the weight depends on. */
export interface WeightControl {
  /** [2], how much u has grown, and r; 0 before the first step. */
  readonly control: Tensor;
  /** [1], a value other than 0 stops the controller. */
  readonly halted: Tensor<"u32">;
  /** The mean L0 to reach; `null` means no controller. */
  readonly target_l0: number | null;
}

/**
 * weight[0] = λ and slope[0] = ∂loss/∂P, which is λ, or 2 λ (P / target_l0 − 1) / target_l0 for `target-l0-sparsity`.
 *
 * `totals` are sums over the batch; that of L0 is at `l0At`.
 */
export function penaltyWeight(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    /** The schedule's factor of λ. */
    readonly factor: number;
    /** The learning rate of this step; {@link UNIT_LR} if `null`. */
    readonly lr: number | null;
    /** Steps left until the reference reaches the target, this one included. */
    readonly stepsToTarget: number;
    readonly totals: Tensor;
    readonly l0At: number;
    readonly n_rows: number;
    readonly weight: Tensor;
    readonly slope: Tensor;
    /** The controller; `undefined` outside training. */
    readonly controlled: WeightControl | undefined;
    /** [2] and [1], placeholder bindings when there is no controller. */
    readonly unused: { readonly control: Tensor; readonly halted: Tensor<"u32"> };
  },
): void {
  const { sparsity, factor, lr, stepsToTarget, totals, l0At, n_rows, weight, slope, controlled, unused } = given;
  const onL0 = isOnL0(sparsity);
  const speed = (lr ?? UNIT_LR) / UNIT_LR;
  commands.run(weightKernel, {
    totals_size: totals.size,
    l0_at: l0At,
    coeff: sparsityCoeff(sparsity) * factor,
    n_rows,
    penalty_target: freeL0(sparsity),
    control_target: controlled?.target_l0 ?? 0,
    least: onL0 ? -MAX_U : 0,
    gain: GAIN * Math.max(speed, Math.sqrt(speed)),
    pace: (onL0 ? PACE.l0 : PACE.codes) * speed,
    lead: onL0 ? LEAD : UNBOUNDED,
    least_part: 1 / Math.max(1, stepsToTarget),
    totals,
    halted: controlled?.halted ?? unused.halted,
    control: controlled?.control ?? unused.control,
    weight,
    slope,
  });
}

const weightKernel = defineKernel({
  name: "penalty_weight",
  dims: ["totals_size", "l0_at"],
  scalars: ["coeff", "n_rows", "penalty_target", "control_target", "least", "gain", "pace", "lead", "least_part"],
  bindings: {
    totals: reads("f32", "totals_size"),
    halted: reads("u32", "1"),
    control: writes("f32", "2"),
    weight: writes("f32", "1"),
    slope: writes("f32", "1"),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 30, bytes: 32 }),
  body: `
  let l0 = totals[dims.l0_at] / dims.n_rows;
  var lambda = dims.coeff;
  if (dims.control_target > 0.0) {
    // A lower bound on L0, so that its logarithm is finite.
    let reached = max(l0, 0.01 * dims.control_target);
    var reference = control[1];
    if (reference == 0.0) { reference = reached; }
    let distance = log(dims.control_target / reference);
    let most = max(dims.pace, dims.least_part * abs(distance));
    let paced = reference * exp(clamp(distance, -most, most));
    reference = clamp(paced, min(reference, reached / dims.lead), max(reference, reached * dims.lead));
    let error = clamp(log(reached / reference), -${MAX_ERROR}, ${MAX_ERROR});
    let u = clamp(${START} + control[0] + dims.gain * error, dims.least, ${MAX_U}.0);
    if (halted[0] == 0u) {
      control[0] = u - ${START};
      control[1] = reference;
    }
    let growth = exp(u);
    let factor = growth - 1.0 / growth + ${DAMPING}.0 * error * (growth + 1.0 / growth);
    lambda *= max(factor, select(-1e30, 0.0, dims.least == 0.0));
  }
  weight[0] = lambda;
  slope[0] = lambda;
  if (dims.penalty_target > 0.0) {
    slope[0] = 2.0 * lambda * (l0 / dims.penalty_target - 1.0) / dims.penalty_target;
  }`,
});
