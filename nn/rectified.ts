/**
 * The codes of a ReLU or JumpReLU in a training step: sparse where few latents fire, dense where many do.
 *
 * The entries of a tile of pre-activations are listed as soon as they are there. If those of the whole batch fit the room
 * there is for them, the step goes on with the entries, otherwise with dense products; the GPU decides, in the same step.
 * Both give the same bits: a sum over entries is the dense one without its zeros.
 *
 * The entries are the codes that are not 0. A JumpReLU's are also those inside the window of its estimator, and all of a
 * latent that an auxiliary loss may ask about; their code is 0 and what they are kept for is h.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { compactRows } from "../kernels/compact_rows.ts";
import { aboveThreshold, positiveMask } from "../kernels/elementwise.ts";
import { defineKernel, reads, readsAcross, readsOften, readsOnce, updates, writes } from "../kernels/engine/kernel.ts";
import { matmul } from "../kernels/matmul.ts";
import { columnSums } from "../kernels/reduce.ts";
import { elementsPerBinding, spans, type Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import type { DenseCodes } from "./dense_codes.ts";
import { type EncoderInput, latentBlocks, type Model, preActivations, type Span } from "./encode.ts";
import type { Gradients } from "./parameters.ts";
import type { SparseSpace } from "./step_buffers.ts";

/** The share of all codes that may be entries: with more, dense products are faster (`bench/scale.ts codes`). */
const MOST_SPARSE = 3 / 32;

/** How many entries there is room for. */
export function entryCapacity({ cfg: { d_sae }, context }: Model, n_rows: number): number {
  return Math.min(Math.ceil(n_rows * d_sae * MOST_SPARSE), elementsPerBinding(context));
}

/**
 * Whether the pre-activations of a whole batch are kept: where they take no more memory than the parameters, gradients and
 * moments do. Otherwise there is a tile of them, and a dense step computes each tile once more when it goes backward.
 */
export function keepsBatch({ cfg: { d_model, d_sae }, context }: Model, n_rows: number): boolean {
  return n_rows <= 8 * d_model && 4 * n_rows * d_sae <= context.device.limits.maxBufferSize;
}

/** Buffers for these codes. */
export interface RectifiedSpace {
  /** The entries, and what their backward needs. */
  readonly entries: SparseSpace;
  /** [B, S] or [rows of a tile, S]: h of a JumpReLU, f of a ReLU. */
  readonly dense: Tensor;
  /** Whether that is the whole batch. */
  readonly isWhole: boolean;
  /** Rows that are encoded at once, and go backward at once in a dense step. */
  readonly tiles: readonly Span[];
  /** What a JumpReLU has besides. */
  readonly jump: {
    /** [entries], h. */
    readonly preActs: Tensor;
    /** [rows of a tile, S], f, in a dense step. */
    readonly f: Tensor;
    /** [S], 1 where every row is an entry. */
    readonly wanted: Tensor<"u32">;
  } | undefined;
  /** [1] each: which of the two the step is, 1 or 0. */
  readonly isSparse: Tensor<"u32">;
  readonly isDense: Tensor<"u32">;
}

/** h of a JumpReLU, f of a ReLU, of the rows of one tile. */
export function denseRows({ dense, isWhole }: RectifiedSpace, { from, to }: Span): TensorRows {
  return isWhole ? dense.rows(from, to) : dense.rows(0, to - from);
}

/** f of the rows of one tile, in a dense step. */
export function codeRows(space: RectifiedSpace, span: Span): TensorRows {
  return space.jump ? space.jump.f.rows(0, span.to - span.from) : denseRows(space, span);
}

function encodeTile(
  commands: Commands,
  model: Model,
  given: { readonly space: RectifiedSpace; readonly input: EncoderInput; readonly span: Span },
): void {
  const { space, input, span } = given;
  const tileFrom = space.isWhole ? span.from : 0;
  preActivations(commands, model, { input, span, tile: space.dense, tileFrom, relu: !space.jump });
}

/**
 * The codes of the whole batch as entries, and which way the step goes. `eachTile` sees the dense codes of every tile.
 */
export function encodeRectified(
  commands: Commands,
  model: Model,
  given: {
    readonly space: RectifiedSpace;
    readonly input: EncoderInput;
    readonly eachTile: (codes: DenseCodes, span: Span) => void;
  },
): void {
  const { space, input, eachTile } = given;
  const { threshold, cfg: { d_sae } } = model;
  const { entries: { codes }, jump, isSparse, isDense } = space;
  const { n_rows, row_starts: starts, indices, values } = codes;
  const capacity = values.size;
  for (const span of space.tiles) {
    encodeTile(commands, model, { space, input, span });
    const dense = denseRows(space, span);
    eachTile({ values: dense, threshold: jump && threshold }, span);
    compactRows(commands, {
      dense,
      rows: span.to - span.from,
      columns: d_sae,
      firstRow: span.from,
      allRows: n_rows,
      starts,
      capacity,
      indices,
      values: jump ? jump.preActs : values,
      ...jump && { nearby: { thresholds: threshold, width: windowOf(model), whole: jump.wanted } },
    });
  }
  commands.run(chooseKernel, { n_rows, capacity, starts, isSparse, isDense });
  if (jump) {
    const sizes = { n_rows, d_sae, capacity };
    commands.onlyIf(isSparse, () => {
      commands.run(cutOffKernel, { ...sizes, starts, indices, preActs: jump.preActs, threshold, values });
    });
  }
}

const chooseKernel = defineKernel({
  name: "choose_sparse_or_dense",
  dims: ["n_rows", "capacity"],
  bindings: { starts: reads("u32", "n_rows+1"), isSparse: writes("u32", "1"), isDense: writes("u32", "1") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 12 }),
  body: `
  let fits = starts[dims.n_rows] <= dims.capacity;
  isSparse[0] = u32(fits);
  isDense[0] = u32(!fits);`,
});

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

/** In a dense step: f of the rows of one tile, where only a tile of it or of h is kept. */
export function encodeAgain(
  commands: Commands,
  model: Model,
  given: { readonly space: RectifiedSpace; readonly input: EncoderInput; readonly span: Span },
): void {
  const { space, span } = given;
  const { threshold, cfg: { d_sae } } = model;
  if (!space.isWhole) encodeTile(commands, model, given);
  if (!space.jump) return;
  const size = (span.to - span.from) * d_sae;
  const to = codeRows(space, span);
  aboveThreshold(commands, { x: denseRows(space, span), size, threshold, thresholds: d_sae, to });
}

/** From ∂loss/∂h of the rows of one tile to W_enc and b_enc: grad_W_enc (+)= grad_hᵀ x and grad_b_enc (+)= Σ_b grad_h. */
export function denseEncoderBackward(
  commands: Commands,
  model: Model,
  given: {
    readonly grad_h: Tensor;
    readonly input: EncoderInput;
    readonly span: Span;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { grad_h, input, span: { from, to }, gradients, accumulate } = given;
  const { d_model, d_sae } = model.cfg;
  const rows = to - from;
  for (const block of latentBlocks(model)) {
    matmul(commands, {
      layout: "tn",
      M: block.to - block.from,
      N: d_model,
      K: rows,
      a: { in: grad_h.rows(0, rows), offset: block.from },
      b: { in: input.centred_BD.rows(from, to) },
      c: { in: gradients.W_enc.rows(block.from, block.to) },
      accumulate,
    });
  }
  columnSums(commands, {
    x: grad_h.rows(0, rows),
    rows,
    stride: d_sae,
    offset: 0,
    columns: d_sae,
    result: gradients.b_enc,
    accumulate,
  });
}

/** ∂h = ∂f ∘ 1[f > 0] of a ReLU, for the rows of one tile and in place; its entries are all above 0. */
export function reluBackward(
  commands: Commands,
  model: Model,
  given: { readonly f: TensorRows; readonly grad_f: Tensor; readonly span: Span },
): void {
  const { f, grad_f, span: { from, to } } = given;
  positiveMask(commands, { grad: grad_f.rows(0, to - from), at: f, size: (to - from) * model.cfg.d_sae });
}

/** The width of the estimators' window around a JumpReLU's θ; 0 for other activations. */
function windowOf({ cfg: { activation }, input: { pre_act_scale = 1 } }: Model): number {
  return activation.key === "jump-relu" ? activation.bandwidth * pre_act_scale : 0;
}

/** What both backwards of a JumpReLU read. */
interface JumpReluArguments {
  /** [1], the slope of the penalty. */
  readonly slope: Tensor;
  /** Whether the penalty is on L0. */
  readonly onL0: boolean;
  /** B */
  readonly n_rows: number;
  readonly gradients: Gradients;
}

/**
 * For the rows of one tile and in place, with θ⁺ = max(θ, 0), the window ε and K = 1[|h − θ⁺| < ε/2]:
 *
 * - ∂h = ∂f ∘ 1[h > θ⁺]
 * - ∂θ_s (+)= Σ_b −(θ⁺/ε) K ∂f − Σ_b K/ε · slope, where `slope` is ∂loss/∂‖f_b‖₀, for penalties on L0
 *
 * The estimator of f is that of Rajamanoharan et al. 2024, equations 11 and 12; Anthropic's of January 2025 is the same
 * with log θ in the place of θ. A penalty that is a function of f comes in through ∂f, and so reaches all parameters, as
 * in the latter. θ is trained itself, in float32.
 */
export function jumpReluBackward(
  commands: Commands,
  model: Model,
  given: JumpReluArguments & {
    /** [rows, S] */
    readonly h: TensorRows;
    readonly grad_f: Tensor;
    readonly accumulate: boolean;
  },
): void {
  const { h, grad_f, slope, gradients, accumulate } = given;
  const { threshold, cfg: { d_sae } } = model;
  const rows = h.to - h.from;
  commands.run(jumpReluKernel, {
    rows,
    d_sae,
    accumulate: Number(accumulate),
    ...estimator(model, given),
    h,
    threshold,
    slope,
    grad: grad_f.rows(0, rows),
    grad_threshold: gradients.threshold!,
  });
}

function estimator(model: Model, { onL0, n_rows }: JumpReluArguments): { bandwidth: number; l0_share: number } {
  const bandwidth = windowOf(model);
  return { bandwidth, l0_share: onL0 ? 1 / (n_rows * bandwidth) : 0 };
}

/** WGSL: takes element `i` of h and of the gradient into \`sum\`, and leaves ∂h in the gradient. */
const jump = (i: string): string => `
    let value = h[${i}];
    let by_f = old_grad[${i}];
    let is_nan = (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
    if (abs(value - theta) < 0.5 * dims.bandwidth) { sum -= fma(jump, by_f, l0); }
    grad[${i}] = select(0.0, by_f, is_nan || value > theta);`;

const jumpReluKernel = defineKernel({
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

/** Entries of a latent in one dispatch: a software driver ends loops at 65,535 turns. */
const MOST_TURNS = 60000;

/** WGSL: the entries of latent `s`, rows ascending, from number `dims.first` of them on, as `at` … `end`. */
export const ENTRIES_OF_LATENT: string = `
  var at = min(starts[s] + dims.first, starts[s + 1u]);
  let end = min(at + ${MOST_TURNS}u, starts[s + 1u]);`;

/** Where the dispatches over the entries of every latent begin. */
export function* entryStarts({ entries: { codes: { n_rows } } }: RectifiedSpace): Generator<number> {
  for (const { from } of spans(n_rows, MOST_TURNS)) yield from;
}

/** The same for all entries of a batch, in place. */
export function jumpReluEntriesBackward(
  commands: Commands,
  model: Model,
  given: JumpReluArguments & { readonly space: RectifiedSpace },
): void {
  const { space, slope, gradients } = given;
  const { entries: { transposition, grad_values }, jump } = space;
  const { threshold, cfg: { d_sae } } = model;
  const { starts, entries, capacity } = transposition.columns;
  for (const first of entryStarts(space)) {
    commands.run(jumpReluEntriesKernel, {
      first,
      d_sae,
      capacity,
      ...estimator(model, given),
      starts,
      entries,
      h: jump!.preActs,
      threshold,
      slope,
      grad: grad_values,
      grad_threshold: gradients.threshold!,
    });
  }
}

const jumpReluEntriesKernel = defineKernel({
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
