/**
 * The pre-activation loss of a JumpReLU: `coeff · mean_b Σ_{s dead} max(θ⁺_s − h_bs, 0) n_s`, with θ⁺ = max(θ, 0) and
 * n_s = ‖W_dec_s‖ (Anthropic, January 2025, there over all latents; over the dead ones as SAELens has it).
 *
 * Dead latents are pulled towards firing. The gradient reaches W_enc, b_enc, θ and W_dec of the dead latents, b_dec where
 * the encoder subtracts it, and nothing else: ∂h = −w n, ∂θ = Σ w n, ∂n = Σ w (θ⁺ − h) where h < θ⁺ and s is dead, with w = coeff / B.
 *
 * @module
 */

import type { Commands } from "../kernels/commands.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import { columnSums } from "../kernels/reduce.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { PreAct } from "../nn/config.ts";
import type { Model, Span } from "../nn/encode.ts";
import type { Gradients } from "../nn/parameters.ts";
import type { PreActSpace } from "../nn/workspace.ts";
import { normsBackward } from "./sparsity.ts";

/** What both passes read. */
export interface PreActArguments {
  /** [B, S] */
  readonly h_BS: Tensor;
  /** [S], ‖W_dec_s‖². */
  readonly squares: Tensor;
  /** [S], 1 for each dead latent. */
  readonly flags: Tensor<"u32">;
  /** Rows of this call. */
  readonly span: Span;
}

/** sums[b] = Σ_{s dead} max(θ⁺_s − h_bs, 0) n_s. */
export function preActSums(commands: Commands, model: Model, given: PreActArguments & { readonly sums: Tensor }): void {
  const { h_BS, squares, flags, span: { from, to }, sums } = given;
  commands.run(preActSumsKernel, {
    rows: to - from,
    first_row: from,
    n_rows: sums.size,
    d_sae: model.cfg.d_sae,
    h: h_BS.rows(from, to),
    threshold: model.threshold,
    squares,
    flags,
    sums,
  });
}

const preActSumsKernel = defineKernel({
  name: "pre_act_sums",
  dims: ["rows", "first_row", "n_rows", "d_sae"],
  bindings: {
    h: reads("f32", "rows d_sae"),
    threshold: reads("f32", "d_sae"),
    squares: reads("f32", "d_sae"),
    flags: reads("u32", "d_sae"),
    sums: writes("f32", "n_rows"),
  },
  workgroup: 64,
  grid: ({ rows }) => rows,
  cost: ({ rows, d_sae }) => ({ flops: 4 * rows * d_sae, bytes: 4 * rows * d_sae }),
  declarations: `var<workgroup> parts: array<f32, 64>;`,
  body: `
  var part = 0.0;
  for (var s = lane; s < dims.d_sae; s += 64u) {
    if (flags[s] != 0u) {
      let missing = max(threshold[s], 0.0) - h[group * dims.d_sae + s];
      if (missing > 0.0) { part = fma(missing, sqrt(squares[s]), part); }
    }
  }
  parts[lane] = part;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] += parts[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) { sums[dims.first_row + group] = parts[0]; }`,
});

/** Adds to ∂h of the rows of a tile; `space` (+)= the parts of ∂θ and ∂n, whose order of summation blocks leave alone. */
export function preActBackward(
  commands: Commands,
  model: Model,
  given: PreActArguments & {
    readonly cfg: PreAct;
    readonly grad_h: Tensor;
    readonly space: PreActSpace;
    readonly accumulate: boolean;
  },
): void {
  const { h_BS, squares, flags, span: { from, to }, cfg: { coeff }, grad_h, space, accumulate } = given;
  const [n_rows = 0] = h_BS.shape;
  commands.run(preActBackwardKernel, {
    rows: to - from,
    d_sae: model.cfg.d_sae,
    accumulate: Number(accumulate),
    weight: coeff / n_rows,
    h: h_BS.rows(from, to),
    threshold: model.threshold,
    squares,
    flags,
    grad: grad_h.rows(0, to - from),
    grad_threshold: space.grad_threshold,
    norm_slopes: space.normSlopes,
  });
}

/** ∂θ and ∂W_dec, from what all rows have added to `space`. */
export function preActGradients(
  commands: Commands,
  model: Model,
  given: { readonly space: PreActSpace; readonly squares: Tensor; readonly gradients: Gradients },
): void {
  const { space: { grad_threshold, normSlopes }, squares, gradients } = given;
  const columns = model.cfg.d_sae;
  columnSums(commands, {
    x: grad_threshold,
    rows: 1,
    stride: columns,
    offset: 0,
    columns,
    result: gradients.threshold!,
    accumulate: true,
  });
  normsBackward(commands, model, { squares, normSlopes, gradients });
}

const preActBackwardKernel = defineKernel({
  name: "pre_act_backward",
  dims: ["rows", "d_sae", "accumulate"],
  scalars: ["weight"],
  bindings: {
    h: reads("f32", "rows d_sae"),
    threshold: reads("f32", "d_sae"),
    squares: reads("f32", "d_sae"),
    flags: reads("u32", "d_sae"),
    grad: writes("f32", "rows d_sae"),
    grad_threshold: writes("f32", "d_sae"),
    norm_slopes: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ rows, d_sae }) => ({ flops: 4 * rows * d_sae, bytes: 12 * rows * d_sae }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  let theta = max(threshold[s], 0.0);
  let slope = dims.weight * sqrt(squares[s]);
  var by_threshold = 0.0;
  var by_norm = 0.0;
  if (dims.accumulate == 1u) {
    by_threshold = grad_threshold[s];
    by_norm = norm_slopes[s];
  }
  let rows = select(0u, dims.rows, flags[s] != 0u);
  for (var row = 0u; row < rows; row += 1u) {
    let i = row * dims.d_sae + s;
    if (h[i] < theta) {
      grad[i] -= slope;
      by_threshold += slope;
      by_norm = fma(dims.weight, theta - h[i], by_norm);
    }
  }
  grad_threshold[s] = by_threshold;
  norm_slopes[s] = by_norm;`,
});
