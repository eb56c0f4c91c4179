/**
 * The weight λ of the penalty in this step: the configured one, times a schedule, times what a controller finds.
 *
 * The controller brings the mean L0 to a target: with e_t = clamp(ln(L0_t / target), ±1) of the step's own batch,
 * u_t = u_{t−1} + GAIN · e_t and λ_t = λ · exp(u_t + DAMPING · e_t). Too many codes raise the penalty, too few lower it. It
 * decides on the GPU, from numbers of the same step, so when losses are read changes nothing.
 *
 * @module
 */

import type { Commands } from "../kernels/commands.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Sparsity } from "../nn/config.ts";
import { sparsityCoeff } from "./sparsity.ts";

const GAIN = 0.01;
const DAMPING = 0.5;

/** The state of a run, as far as the weight depends on it. */
export interface WeightControl {
  /** [1], u. */
  readonly control: Tensor;
  /** [1], anything but 0 stops the controller. */
  readonly halted: Tensor<"u32">;
  /** The mean L0 to reach; without one there is no controller. */
  readonly target_l0: number | null;
}

/**
 * weight[0] = λ and slope[0] = ∂loss/∂P, which is λ, or 2 λ (P / target_l0 − 1) / target_l0 for `target-l0-sparsity`.
 *
 * `totals` [totals] are sums over the batch; that of L0 stands at `l0At`.
 */
export function penaltyWeight(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    /** What a schedule multiplies λ with. */
    readonly factor: number;
    readonly totals: Tensor;
    readonly l0At: number;
    readonly n_rows: number;
    readonly weight: Tensor;
    readonly slope: Tensor;
    /** Outside training there is none. */
    readonly controlled: WeightControl | undefined;
    /** [1] each, in the place of what there is not. */
    readonly unused: { readonly control: Tensor; readonly halted: Tensor<"u32"> };
  },
): void {
  const { sparsity, factor, totals, l0At, n_rows, weight, slope, controlled, unused } = given;
  commands.run(weightKernel, {
    totals_size: totals.size,
    l0_at: l0At,
    coeff: sparsityCoeff(sparsity) * factor,
    n_rows,
    penalty_target: sparsity.key === "target-l0-sparsity" ? sparsity.target_l0 : 0,
    control_target: controlled?.target_l0 ?? 0,
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
  scalars: ["coeff", "n_rows", "penalty_target", "control_target"],
  bindings: {
    totals: reads("f32", "totals_size"),
    halted: reads("u32", "1"),
    control: writes("f32", "1"),
    weight: writes("f32", "1"),
    slope: writes("f32", "1"),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 12, bytes: 24 }),
  body: `
  let l0 = totals[dims.l0_at] / dims.n_rows;
  var lambda = dims.coeff;
  if (dims.control_target > 0.0) {
    // The smallest L0 whose logarithm is asked for; below it the clamp decides anyway.
    let error = clamp(log(max(l0, 0.1 * dims.control_target) / dims.control_target), -1.0, 1.0);
    if (halted[0] == 0u) { control[0] += ${GAIN} * error; }
    lambda *= exp(control[0] + ${DAMPING} * error);
  }
  weight[0] = lambda;
  slope[0] = lambda;
  if (dims.penalty_target > 0.0) {
    slope[0] = 2.0 * lambda * (l0 / dims.penalty_target - 1.0) / dims.penalty_target;
  }`,
});
