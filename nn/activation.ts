/**
 * From pre-activations to codes, and back.
 *
 * ReLU: f = max(h, 0), ∂f/∂h is 1 where f > 0 and 0 elsewhere.
 * TopK: f keeps the k largest of each row of h, ∂f/∂h is 1 there and 0 elsewhere. Negative ones among them stay, or with
 * `relu` become 0 and have no gradient.
 * BatchTopK: in training, f keeps the k · B largest of the whole batch; otherwise f = h · 1[h > max(θ, 0)], row by row.
 * JumpReLU: f = h · 1[h > max(θ_s, 0)], always; ∂f/∂h is 1[h > θ], and θ learns by a straight-through estimator.
 *
 * In training, those of a ReLU or JumpReLU are made in `rectified.ts`.
 *
 * @module
 */

import type { BatchTopK } from "../kernels/batch_top_k.ts";
import type { Commands } from "../kernels/engine/commands.ts";
import { compactRows } from "../kernels/compact_rows.ts";
import { aboveThreshold, zeroNegatives } from "../kernels/elementwise.ts";
import { defineKernel, reads, readsOften, writes } from "../kernels/engine/kernel.ts";
import { sparseColumnsMatmul, sparseColumnSums } from "../kernels/sparse_matmul.ts";
import { rowsPerBlock, spans, type Tensor } from "../kernels/engine/tensor.ts";
import { topK } from "../kernels/top_k.ts";
import type { Transposition } from "../kernels/transpose_entries.ts";
import { Codes } from "./codes.ts";
import { type EncoderInput, latentBlocks, type Model, preActivations, type Span, type Tile } from "./encode.ts";
import type { Gradients } from "./parameters.ts";

/** How many of `n_rows` rows can be encoded at once outside training: as many as have codes that fit a binding for certain. */
export function encodableRows({ cfg: { activation, d_sae }, context }: Model, n_rows: number): number {
  const most = activation.key === "top-k" ? Math.min(activation.top_k, d_sae) : d_sae;
  return rowsPerBlock(context, n_rows, most * 4, "codes");
}

/** Codes with room for whatever the activation makes of `n_rows` rows outside training. */
export function emptyCodes(model: Model, n_rows: number): Codes {
  const { cfg: { activation, d_sae }, context } = model;
  switch (activation.key) {
    case "top-k":
      return Codes.uniform(context, n_rows, d_sae, Math.min(activation.top_k, d_sae));
    case "batch-top-k":
    case "jump-relu":
    case "relu": {
      const most = encodableRows(model, n_rows);
      if (most < n_rows) {
        throw new RangeError(
          `the codes of ${n_rows} rows may have ${
            n_rows * d_sae
          } entries, more than this device binds at once; encode at most ${most} rows at a time`,
        );
      }
      return new Codes(context, n_rows, d_sae, n_rows * d_sae);
    }
  }
}

/** f_x of the whole batch outside training, a tile of pre-activations at a time; a TopK keeps `k`, its own if left out. */
export function encodeInto(
  commands: Commands,
  model: Model,
  input: EncoderInput,
  { h, maxima, rows: most }: Tile,
  codes: Codes,
  k?: number,
): void {
  const { activation, d_sae } = model.cfg;
  const { n_rows, row_starts: starts, indices, values } = codes;
  const shared = { allRows: n_rows, starts, capacity: values.size, indices };
  for (const span of spans(n_rows, most)) {
    const rows = span.to - span.from;
    preActivations(commands, model, { input, span, tile: h, maxima, relu: activation.key === "relu" });
    const dense = h.rows(0, rows);
    if (activation.key === "top-k") {
      topK(commands, {
        ...shared,
        values: dense,
        rows,
        stride: d_sae,
        n: d_sae,
        k: k ?? activation.top_k,
        firstRow: span.from,
        selected: values,
        ...(maxima ? { maxima } : {}),
      });
      continue;
    }
    if (activation.key !== "relu") {
      const { threshold } = model;
      aboveThreshold(commands, { x: dense, size: rows * d_sae, threshold, thresholds: threshold.size });
    }
    compactRows(commands, { ...shared, dense, rows, columns: d_sae, firstRow: span.from, values });
  }
  if (activation.key === "top-k" && activation.relu) zeroNegatives(commands, { x: values, size: values.size });
}

/** Codes with room for what a TopK or BatchTopK makes of `n_rows` rows in training, with at most `mostK` a row on average. */
export function trainingCodes({ cfg: { d_sae }, context }: Model, n_rows: number, mostK: number): Codes {
  return new Codes(context, n_rows, d_sae, n_rows * Math.min(mostK, d_sae));
}

/**
 * f_x of the whole batch in training, of a TopK or BatchTopK that keeps `k` a row: the same as outside, but that the rows
 * of a BatchTopK compete with each other.
 */
export function encodeTraining(
  commands: Commands,
  model: Model,
  given: {
    readonly input: EncoderInput;
    readonly tile: Tile;
    /** Of a BatchTopK: finds the k · B largest. */
    readonly batch: BatchTopK | undefined;
    readonly codes: Codes;
    readonly k: number;
  },
): void {
  const { input, tile, batch, codes, k } = given;
  const { activation, d_sae } = model.cfg;
  if (!batch) {
    codes.makeUniform(Math.min(k, d_sae));
    return encodeInto(commands, model, input, tile, codes, k);
  }
  const { n_rows, row_starts: starts, indices, values: selected } = codes;
  const count = n_rows * Math.min(k, d_sae);
  const { h: values, maxima } = tile;
  batch.record(commands, {
    k: count,
    capacity: selected.size,
    starts,
    indices,
    selected,
    forEach(use) {
      for (const span of spans(n_rows, tile.rows)) {
        preActivations(commands, model, { input, span, tile: values, maxima });
        use({ values, maxima: maxima!, ...span });
      }
    },
  });
  if (activation.key === "batch-top-k" && activation.relu) {
    zeroNegatives(commands, { x: selected, size: selected.size });
  }
}

/**
 * θ ← (1 − m) θ + m · min{f > 0}, over the codes of a training batch; without a positive code, once the state has been
 * halted, or where x is not finite, θ stays.
 *
 * m is the momentum; with `bias_correction` it is m / (1 − (1 − m)ᵗ) at the t-th update, so that θ is the mean of what it
 * has seen from the first one on. The denominator is kept itself: 1 − (1 − m) is not m in float32. (Upstream starts at 0
 * without correcting for it, and raises an error where no code is positive.)
 */
export function updateThreshold(
  commands: Commands,
  model: Model,
  given: {
    readonly codes: Codes;
    readonly largest: Tensor<"u32">;
    readonly halted: Tensor<"u32">;
    /** [1], 1 − (1 − m)ᵗ; 0 at the start. */
    readonly seen: Tensor;
  },
): void {
  const { cfg: { activation }, threshold } = model;
  if (activation.key !== "batch-top-k") return;
  const { codes: { n_rows, row_starts, values }, largest, halted, seen } = given;
  commands.run(thresholdKernel, {
    n_rows,
    capacity: values.size,
    bias_correction: Number(activation.bias_correction),
    momentum: activation.momentum,
    row_starts,
    values,
    largest,
    halted,
    seen,
    threshold,
  });
}

const THRESHOLD_THREADS = 256;

/** Bits of positive numbers are ordered as the numbers are. */
const thresholdKernel = defineKernel({
  name: "update_threshold",
  dims: ["n_rows", "capacity", "bias_correction"],
  scalars: ["momentum"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    values: readsOften("f32", "capacity"),
    largest: reads("u32", "1"),
    halted: reads("u32", "1"),
    seen: writes("f32", "1"),
    threshold: writes("f32", "1"),
  },
  workgroup: THRESHOLD_THREADS,
  grid: () => 1,
  cost: ({ capacity }) => ({ flops: 0, bytes: 4 * capacity }),
  declarations: `
const NONE = 0x7f800000u;
var<workgroup> least: array<u32, ${THRESHOLD_THREADS}>;
fn positive_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(NONE, bits, bits > 0u && bits < NONE);
}`,
  body: `
  let end = row_starts[dims.n_rows];
  var mine = NONE;
  for (var i = lane; i < end; i += ${4 * THRESHOLD_THREADS}u) {
    mine = min(mine, positive_bits(values[i]));
    ${
    [1, 2, 3].map((part) =>
      `let i${part} = i + ${part * THRESHOLD_THREADS}u;
    if (i${part} < end) { mine = min(mine, positive_bits(values[i${part}])); }`
    ).join("\n    ")
  }
  }
  least[lane] = mine;
  workgroupBarrier();
  for (var half = ${THRESHOLD_THREADS / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { least[lane] = min(least[lane], least[lane + half]); }
    workgroupBarrier();
  }
  if (lane == 0u && least[0] != NONE && largest[0] < NONE && halted[0] == 0u) {
    seen[0] += dims.momentum * (1.0 - seen[0]);
    var share = dims.momentum;
    if (dims.bias_correction == 1u) { share /= seen[0]; }
    threshold[0] = (1.0 - share) * threshold[0] + share * bitcast<f32>(least[0]);
  }`,
});

/** How the codes of one loss are tied to the gradients of the encoder. */
export interface SparseBackward {
  /** The codes by latent. */
  readonly transposition: Transposition;
  /** [entries], ∂loss/∂f of each. */
  readonly grad_values: Tensor;
}

/**
 * From ∂loss/∂f of the entries to W_enc and b_enc, for the rows of one tile:
 * grad_W_enc[s] (+)= Σ_b grad_h[b, s] x[b] and grad_b_enc[s] (+)= Σ_b grad_h[b, s], over the rows that selected s.
 */
export function selectionBackward(
  commands: Commands,
  model: Model,
  given: SparseBackward & {
    readonly input: EncoderInput;
    readonly span: Span;
    readonly whole: Tensor<"u32">;
    readonly gradients: Gradients;
    readonly accumulate: boolean;
  },
): void {
  const { transposition, grad_values, input, span: { from, to }, whole, gradients, accumulate } = given;
  const { columns: sparse, entryRows } = transposition;
  const rows = { sparse, entryRows, values: grad_values, firstRow: from, rows: to - from, accumulate };
  for (const block of latentBlocks(model)) {
    sparseColumnsMatmul(commands, {
      ...rows,
      matrix: input.centred_BD.rows(from, to),
      parts: 1,
      ends: whole,
      ...block,
      columns: model.cfg.d_model,
      result: gradients.W_enc.rows(block.from, block.to),
    });
  }
  sparseColumnSums(commands, { ...rows, result: gradients.b_enc });
}
