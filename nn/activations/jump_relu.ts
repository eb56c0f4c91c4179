/**
 * JumpReLU: `f = h · 1[h > θ⁺]`, θ⁺ = max(θ_s, 0), in training and outside. With the window ε and K = 1[|h − θ⁺| < ε/2]:
 *
 * - ∂h = ∂f ∘ 1[h > θ⁺]
 * - ∂θ_s = Σ_b −(θ⁺/ε) K ∂f − Σ_b K/ε · slope, where `slope` is ∂loss/∂‖f_b‖₀, for penalties on L0
 *
 * The estimator of f is that of Rajamanoharan et al. 2024, equations 11 and 12; Anthropic's of January 2025 is the same
 * with log θ instead of θ. A penalty that is a function of f comes in through ∂f, and so reaches all parameters, as in the
 * latter. θ is trained itself, in float32.
 *
 * @module
 */

import { aboveThreshold } from "../../kernels/elementwise.ts";
import {
  defineKernel,
  reads,
  readsAcross,
  readsOften,
  readsOnce,
  updates,
  writes,
} from "../../kernels/engine/kernel.ts";
import { ENTRIES_OF_LATENT, entryStarts } from "../codes.ts";
import type { AffineMaps } from "../encode.ts";
import { number } from "../fields.ts";
import { type Aux, auxField, type Sparsity, sparsityField } from "../loss_terms.ts";
import type { ActivationKind, ElementwiseBackward } from "./activation.ts";
import { encodeAboveThreshold } from "./threshold.ts";

/**
 * `f = h · 1[h > θ]` with a threshold of its own for each latent, trained through straight-through estimators
 * (Rajamanoharan et al. 2024, arXiv 2407.14435). A negative θ is 0.
 *
 * Its unit is measured where a model is made from `data`. Without them it is 1, which is right for standardised inputs and
 * encoders of unit columns alone.
 */
export interface JumpRelu {
  /** Discriminator. */
  readonly key: "jump-relu";
  /** Width of the estimators' window around θ, in units of the initial pre-activations. */
  readonly bandwidth: number;
  /** Where every θ starts, in the same units; at 1 about a sixth of the latents fire at first. */
  readonly threshold_init: number;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** JumpReLU. */
export const JUMP_RELU: ActivationKind<JumpRelu> = {
  key: "jump-relu",
  fields: {
    bandwidth: number({
      otherwise: 1,
      about: "Width of the estimators' window around θ, in units of the initial pre-activations.",
    }),
    threshold_init: number({
      least: 0,
      otherwise: 1,
      about: "Where every θ starts, in the same units; at 1 about a sixth of the latents fire at first.",
    }),
    sparsity: sparsityField({ key: "l0-sparsity", coeff: 2e-3 }),
    aux: auxField("auxk"),
  },
  formula: () => "f = h where h > max(threshold, 0), else 0",
  parameters: [{
    name: "threshold",
    shape: "each latent",
    inFiles: "activation.threshold",
    isTrained: true,
    initial: ({ threshold_init }, pre_act_scale) => threshold_init * pre_act_scale,
  }],
  countsInPreActs: true,
  encode: (commands, model, _, given) => encodeAboveThreshold(commands, model, given),

  inFloat64({ threshold_init }, h_BS, { pre_act_scale }) {
    const threshold = threshold_init * pre_act_scale;
    return h_BS.map((h) => h > threshold ? h : 0);
  },

  training: {
    path: "elementwise",
    ofPreActs: {
      window,
      isGate: false,
      look: (_, { threshold }, { h: values }) => ({ values, threshold }),

      ofEntries(commands, { threshold, cfg: { d_sae } }, { codes, preActs }) {
        const { n_rows, row_starts: starts, indices, values } = codes;
        const capacity = values.size;
        commands.run(cutOffKernel, { n_rows, d_sae, capacity, starts, indices, preActs, threshold, values });
      },

      ofTile(commands, { threshold, cfg: { d_sae } }, { h, f }) {
        aboveThreshold(commands, { x: h, size: (h.to - h.from) * d_sae, threshold, thresholds: d_sae, to: f });
      },

      entriesBackward(commands, model, cfg, given) {
        const { entries: { codes, transposition, grad_values }, preActs, slope, gradients } = given;
        const { starts, entries, capacity } = transposition.columns;
        for (const first of entryStarts(codes)) {
          commands.run(entriesBackwardKernel, {
            first,
            d_sae: codes.d_sae,
            capacity,
            ...estimator(model, cfg, given),
            starts,
            entries,
            h: preActs,
            threshold: model.threshold,
            slope,
            grad: grad_values,
            grad_threshold: gradients.threshold!,
          });
        }
      },
    },

    denseBackward(commands, model, cfg, given) {
      const { dense: h, grad_f, slope, gradients, accumulate } = given;
      const { threshold, cfg: { d_sae } } = model;
      const rows = h.to - h.from;
      commands.run(denseBackwardKernel, {
        rows,
        d_sae,
        accumulate: Number(accumulate),
        ...estimator(model, cfg, given),
        h,
        threshold,
        slope,
        grad: grad_f.rows(0, rows),
        grad_threshold: gradients.threshold!,
      });
    },
  },
};

/** ε */
function window({ bandwidth }: JumpRelu, { input: { pre_act_scale = 1 } }: AffineMaps): number {
  return bandwidth * pre_act_scale;
}

function estimator(
  model: AffineMaps,
  cfg: JumpRelu,
  { onL0, n_rows }: ElementwiseBackward,
): { bandwidth: number; l0_share: number } {
  const bandwidth = window(cfg, model);
  return { bandwidth, l0_share: onL0 ? 1 / (n_rows * bandwidth) : 0 };
}

/** f of each entry from its h. */
const cutOffKernel = defineKernel({
  name: "cut_off_entries",
  dims: ["n_rows", "d_sae", "capacity"],
  bindings: {
    starts: reads("u32", "n_rows+1"),
    indices: readsOften("u32", "capacity"),
    preActs: readsOften("f32", "capacity"),
    threshold: readsAcross("f32", "d_sae", "capacity"),
    values: writes("f32", "capacity"),
  },
  workgroup: 64,
  grid: ({ capacity }) => Math.ceil(capacity / 64),
  cost: ({ capacity }) => ({ flops: capacity, bytes: 16 * capacity }),
  body: `
  let entry = group * 64u + lane;
  if (entry >= starts[dims.n_rows]) { return; }
  let h = preActs[entry];
  let is_nan = (bitcast<u32>(h) & 0x7fffffffu) > 0x7f800000u;
  values[entry] = select(0.0, h, is_nan || h > max(threshold[indices[entry]], 0.0));`,
});

/** WGSL: takes element `i` of h and of the gradient into \`sum\`, and leaves ∂h in the gradient. */
const jump = (i: string): string => `
    let value = h[${i}];
    let by_f = old_grad[${i}];
    let is_nan = (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
    if (abs(value - theta) < 0.5 * dims.bandwidth) { sum -= fma(jump, by_f, l0); }
    grad[${i}] = select(0.0, by_f, is_nan || value > theta);`;

const denseBackwardKernel = defineKernel({
  name: "jump_relu_backward",
  dims: ["rows", "d_sae", "accumulate"],
  scalars: ["bandwidth", "l0_share"],
  bindings: {
    h: readsOnce("f32", "rows d_sae"),
    threshold: reads("f32", "d_sae"),
    slope: reads("f32", "1"),
    grad: updates("f32", "rows d_sae"),
    grad_threshold: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ rows, d_sae }) => ({ flops: 5 * rows * d_sae, bytes: 12 * rows * d_sae }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  let theta = max(threshold[s], 0.0);
  let jump = theta / dims.bandwidth;
  let l0 = slope[0] * dims.l0_share;
  var sum = 0.0;
  if (dims.accumulate == 1u) { sum = grad_threshold[s]; }
  for (var row = 0u; row < dims.rows; row += 1u) {
    let i = row * dims.d_sae + s;${jump("i")}
  }
  grad_threshold[s] = sum;`,
});

const entriesBackwardKernel = defineKernel({
  name: "jump_relu_entries_backward",
  dims: ["first", "d_sae", "capacity"],
  scalars: ["bandwidth", "l0_share"],
  bindings: {
    starts: reads("u32", "d_sae+1"),
    entries: readsOften("u32", "capacity"),
    h: readsOften("f32", "capacity"),
    threshold: reads("f32", "d_sae"),
    slope: reads("f32", "1"),
    grad: updates("f32", "capacity"),
    grad_threshold: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ capacity }) => ({ flops: 5 * capacity, bytes: 16 * capacity }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  ${ENTRIES_OF_LATENT}
  let theta = max(threshold[s], 0.0);
  let jump = theta / dims.bandwidth;
  let l0 = slope[0] * dims.l0_share;
  var sum = 0.0;
  if (dims.first > 0u) { sum = grad_threshold[s]; }
  for (; at < end; at += 1u) {
    let e = entries[at];${jump("e")}
  }
  grad_threshold[s] = sum;`,
});
