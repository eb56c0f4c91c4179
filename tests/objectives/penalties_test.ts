/**
 * Mutants of the kernels of penalties, thresholds and auxiliary losses: whole steps, compared with float64, find them.
 *
 * @module
 */

import { checkStep } from "../conformance/checks.ts";
import { everyProblem } from "../reference/problems.ts";
import { type KernelCase, mutants } from "../support/kernel_harness.ts";

const EXAMPLES = everyProblem({ B: 9, D: 20, S: 45 }, 4);

/** The step of the first problem whose name has these words. */
function step(...words: readonly string[]): KernelCase {
  const example = EXAMPLES.find(({ name }) => words.every((word) => name.includes(word)))!;
  return async (gpu) => await checkStep(example, { device: gpu.context.device });
}

const CASES: readonly (readonly [
  kernel: string,
  words: readonly string[],
  replacements: readonly (readonly [from: string, to: string])[],
])[] = [
  ["l1_backward", ["top-k", "l1-sparsity"], [["sign_of(values[entry], dims.at_zero)", "1.5"], [
    "slope[0] / f32(dims.n_rows)",
    "slope[0]",
  ]]],
  ["sparsity_backward", ["top-k", "weighted-l1-sparsity"], [
    ["share * sign_of(f, dims.at_zero)", "share * 2.0"],
    ["norm_values[entry] = share", "norm_values[entry] = 2.0 * share"],
    ["squares[indices[entry]]", "squares[0]"],
  ]],
  ["sparsity_backward", ["top-k", "tanh-sparsity"], [["4.0 * t", "2.0 * t"], ["exp(-2.0 * a)", "exp(-a)"]]],
  ["row_penalties", ["top-k", "tanh-sparsity"], [
    ["(1.0 - t) / (1.0 + t)", "1.0"],
    ["squares[indices[entry]]", "squares[0]"],
    ["if (a < 0.1)", "if (a < 10.0)"],
  ]],
  ["dense_l1_backward", ["relu", "l1-sparsity"], [["+ share;", "- share;"], [
    "slope[0] /",
    "2.0 * slope[0] /",
  ]]],
  ["dense_sparsity_backward", ["relu", "tanh-sparsity"], [
    ["slope_f(f[i], n, dims.scale)", "slope_f(f[i], 1.0, dims.scale)"],
    ["norm_slopes[s] = sum", "norm_slopes[s] = 0.0"],
    ["i = row * dims.d_sae + s", "i = row * dims.d_sae"],
  ]],
  ["dense_row_penalties", ["relu", "weighted-l1-sparsity"], [
    ["abs(f) * n", "abs(f)"],
    ["sqrt(squares[i])", "squares[i]"],
    ["half > 0u", "half > 1u"],
  ]],
  ["penalty_weight", ["jump-relu", "target-l0-sparsity"], [
    ["2.0 * lambda", "lambda"],
    ["/ dims.n_rows", ""],
    ["weight[0] = lambda", "weight[0] = 1.0"],
  ]],
  ["jump_relu_backward", ["jump-relu", "l0-sparsity"], [
    ["0.5 * dims.bandwidth", "dims.bandwidth"],
    ["max(threshold[s], 0.0)", "threshold[s]"],
    ["is_nan || value > theta", "is_nan || value > 0.0"],
  ]],
  ["pre_act_sums", ["pre-act"], [["flags[s] != 0u", "flags[s] == 0u"], ["sqrt(squares[s])", "1.0"], [
    "missing > 0.0",
    "missing > 100.0",
  ]]],
  ["pre_act_backward", ["pre-act"], [
    ["grad[i] -= slope", "grad[i] += slope"],
    ["by_threshold += slope", "by_threshold -= slope"],
    ["theta - h[i]", "theta"],
  ]],
  ["add_unit_rows", ["relu", "weighted-l1-sparsity"], [
    ["/ sqrt(squares[row])", ""],
    ["i / dims.columns", "0u"],
    ["squares[row] > 0.0", "squares[row] > 1000.0"],
  ]],
  ["row_distances", ["auxk normalized"], [
    ["/ f32(dims.n_rows)", ""],
    ["group * dims.d_model + d", "d"],
    ["d += 32u", "d += 8u"],
  ]],
  ["inverse_mean", ["auxk normalized"], [
    ["dims.terms / inverse[0]", "dims.terms"],
    ["inverse[0] > 0.0", "inverse[0] > 1e9"],
  ]],
];

for (const [kernel, words, replacements] of CASES) {
  Deno.test(`mutants of ${kernel} are found by a step of ${words.join(", ")}`, async () => {
    await mutants(kernel, replacements, step(...words));
  });
}
