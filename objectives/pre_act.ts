/**
 * The pre-activation loss of a JumpReLU: `coeff · mean_b Σ_{s dead} max(θ⁺_s − h_bs, 0) n_s`, with θ⁺ = max(θ, 0) and
 * n_s = ‖W_dec_s‖ (Anthropic, January 2025, over all latents; SAELens restricts it to the dead ones, as here).
 *
 * It pulls dead latents towards firing. The gradient reaches W_enc, b_enc, θ and W_dec of the dead latents, b_dec where
 * the encoder subtracts it, and nothing else: ∂h = −w n, ∂θ = Σ w n, ∂n = Σ w (θ⁺ − h) where h < θ⁺ and s is dead, with
 * w = coeff / B.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { defineKernel, reads, readsAcross, readsOften, readsOnce, writes } from "../kernels/engine/kernel.ts";
import { columnSums, sum } from "../kernels/reduce.ts";
import { type Span, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import { totalWgsl } from "../kernels/engine/wgsl.ts";
import { ENTRIES_OF_LATENT, type EntryBuffers, entryStarts } from "../nn/codes.ts";
import type { AffineMaps } from "../nn/encode.ts";
import type { PreAct } from "../nn/loss_terms.ts";
import type { Gradients } from "../nn/parameters.ts";
import { type DeadLatents, markDying } from "./dead_latents.ts";
import { TOTALS } from "./loss_record.ts";
import type { AuxTerm, CodeGradients, Step, TrainingStep } from "./loss_term.ts";
import { normsBackward } from "./sparsity.ts";

/** The pre-activation loss. */
export class PreActLoss implements AuxTerm {
  readonly total = "aux";
  /** [B], a row's loss over `coeff`. */
  readonly #rows: Tensor;
  /** [S] each: its parts of ∂loss/∂θ and ∂loss/∂‖W_dec_s‖, summed over the batch. */
  readonly #slopes: PreActSlopes;
  readonly #cfg: PreAct;
  readonly #dead: DeadLatents;
  readonly #owned: DisposableStack;

  /** For batches of `n_rows`. */
  constructor(context: DeviceContext, cfg: PreAct, n_rows: number, dead: DeadLatents) {
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "f32", [size], label));
    const d_sae = dead.flags.size;
    this.#rows = make(n_rows, "auxiliary error a row");
    this.#slopes = {
      grad_threshold: make(d_sae, "grad_threshold of dead latents"),
      normSlopes: make(d_sae, "slopes of dead latents' lengths"),
    };
    this.#cfg = cfg;
    this.#dead = dead;
    this.#owned = stack.move();
  }

  readsNorms(): boolean {
    return true;
  }

  /** Every row of a latent that may be dead becomes an entry. */
  beforeCodes({ commands, buffers: { f_x, n_rows }, training }: TrainingStep): void {
    const { state: { tokens_since_active }, dead_threshold_tokens } = training;
    markDying(commands, { wanted: f_x.preActs!.wanted, tokens_since_active, n_rows, dead_threshold_tokens });
  }

  readonly onPreActs: CodeGradients = {
    entries: ({ commands, model, buffers: { f_x: { entries, preActs }, squares } }) => {
      const dying = { squares, flags: this.#dead.flags, entries, h: preActs!.ofEntries };
      preActEntrySums(commands, model, { ...dying, sums: this.#rows });
      preActEntriesBackward(commands, model, { ...dying, cfg: this.#cfg, slopes: this.#slopes });
    },
    dense: ({ commands, model, buffers: { n_rows, squares } }, { dense, span, grad: grad_h, accumulate }) => {
      const dying = { squares, flags: this.#dead.flags, h: dense.denseRows(span), span };
      preActSums(commands, model, { ...dying, sums: this.#rows });
      const given = { ...dying, cfg: this.#cfg, n_rows, grad_h, slopes: this.#slopes, accumulate };
      preActBackward(commands, model, given);
    },
  };

  afterEncoder({ commands, model, buffers: { squares }, training: { state: { gradients } } }: TrainingStep): void {
    preActGradients(commands, model, { slopes: this.#slopes, squares, gradients });
  }

  sum({ commands, buffers: { n_rows } }: Step, totals: Tensor): void {
    sum(commands, { x: this.#rows, size: n_rows, into: totals, results: totals.size, at: TOTALS.aux });
  }

  weight({ buffers: { n_rows } }: Step): number {
    return this.#cfg.coeff / n_rows;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** [S] each: sums over the rows of a batch. */
interface PreActSlopes {
  /** Its part of ∂loss/∂θ. */
  readonly grad_threshold: Tensor;
  /** Its part of ∂loss/∂‖W_dec_s‖. */
  readonly normSlopes: Tensor;
}

/** Inputs of every pass. */
interface PreActArguments {
  /** [S], ‖W_dec_s‖². */
  readonly squares: Tensor;
  /** [S], 1 for each dead latent. */
  readonly flags: Tensor<"u32">;
  /** Rows of this call. */
  readonly span: Span;
}

/** Inputs of passes over the entries of a batch. */
interface EntryArguments extends Omit<PreActArguments, "span"> {
  readonly entries: EntryBuffers;
  /** [entries], h. */
  readonly h: Tensor;
}

/** sums[b] = Σ_{s dead} max(θ⁺_s − h_bs, 0) n_s. */
function preActSums(
  commands: Commands,
  model: AffineMaps,
  given: PreActArguments & { readonly h: TensorRows; readonly sums: Tensor },
): void {
  const { h, squares, flags, span: { from, to }, sums } = given;
  const { threshold, cfg: { d_sae } } = model;
  const sizes = { rows: to - from, first_row: from, n_rows: sums.size, d_sae };
  commands.run(preActSumsKernel, { ...sizes, h, threshold, squares, flags, sums });
}

/** The same from the entries of a batch, among which are all of every dead latent. */
function preActEntrySums(
  commands: Commands,
  model: AffineMaps,
  given: EntryArguments & { readonly sums: Tensor },
): void {
  const { entries: { codes }, h, squares, flags, sums } = given;
  const { threshold } = model;
  const { n_rows, d_sae, row_starts, indices, values } = codes;
  commands.run(preActEntrySumsKernel, {
    n_rows,
    d_sae,
    capacity: values.size,
    row_starts,
    indices,
    h,
    threshold,
    squares,
    flags,
    sums,
  });
}

/**
 * Invocations a row, each with a range of latents, so that the order of summation does not depend on which entries
 * there are.
 */
const STRETCHES = 64;

/** WGSL: adds a latent's loss at h to `part`. */
const addMissing = (latent: string, h: string): string => `
    if (flags[${latent}] != 0u) {
      let missing = max(threshold[${latent}], 0.0) - ${h};
      if (missing > 0.0) { part = fma(missing, sqrt(squares[${latent}]), part); }
    }`;

const STRETCH = `
  let stretch = (dims.d_sae + ${STRETCHES - 1}u) / ${STRETCHES}u;
  let low = min(lane * stretch, dims.d_sae);
  let high = min(low + stretch, dims.d_sae);
  var part = 0.0;`;

const preActSumsKernel = defineKernel({
  name: "pre_act_sums",
  dims: ["rows", "first_row", "n_rows", "d_sae"],
  bindings: {
    h: readsOnce("f32", "rows d_sae"),
    threshold: readsAcross("f32", "d_sae", "rows d_sae"),
    squares: readsAcross("f32", "d_sae", "rows d_sae"),
    flags: readsAcross("u32", "d_sae", "rows d_sae"),
    sums: writes("f32", "n_rows"),
  },
  workgroup: STRETCHES,
  grid: ({ rows }) => rows,
  cost: ({ rows, d_sae }) => ({ flops: 4 * rows * d_sae, bytes: 4 * rows * d_sae }),
  declarations: totalWgsl(STRETCHES),
  body: `${STRETCH}
  for (var s = low; s < high; s += 1u) {${addMissing("s", "h[group * dims.d_sae + s]")}
  }
  let sum = total(lane, part);
  if (lane == 0u) { sums[dims.first_row + group] = sum; }`,
});

const preActEntrySumsKernel = defineKernel({
  name: "pre_act_entry_sums",
  dims: ["n_rows", "d_sae", "capacity"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    indices: readsOften("u32", "capacity"),
    h: readsOften("f32", "capacity"),
    threshold: readsAcross("f32", "d_sae", "capacity"),
    squares: readsAcross("f32", "d_sae", "capacity"),
    flags: readsAcross("u32", "d_sae", "capacity"),
    sums: writes("f32", "n_rows"),
  },
  workgroup: STRETCHES,
  grid: ({ n_rows }) => n_rows,
  cost: ({ capacity }) => ({ flops: 4 * capacity, bytes: 20 * capacity }),
  declarations: totalWgsl(STRETCHES),
  body: `${STRETCH}
  let end = row_starts[group + 1u];
  var entry = row_starts[group];
  for (var above = end; entry < above;) {
    let middle = (entry + above) / 2u;
    if (indices[middle] < low) { entry = middle + 1u; } else { above = middle; }
  }
  for (; entry < end; entry += 1u) {
    let s = indices[entry];
    if (s >= high) { break; }${addMissing("s", "h[entry]")}
  }
  let sum = total(lane, part);
  if (lane == 0u) { sums[group] = sum; }`,
});

/**
 * Adds to ∂h of the rows of a tile; `slopes` (+)= the parts of ∂θ and ∂n, in an order of summation that does not depend
 * on blocks.
 */
function preActBackward(
  commands: Commands,
  model: AffineMaps,
  given: PreActArguments & {
    readonly h: TensorRows;
    readonly cfg: PreAct;
    /** B */
    readonly n_rows: number;
    readonly grad_h: Tensor;
    readonly slopes: PreActSlopes;
    readonly accumulate: boolean;
  },
): void {
  const { h, squares, flags, span: { from, to }, cfg: { coeff }, n_rows, grad_h, slopes, accumulate } = given;
  commands.run(preActBackwardKernel, {
    rows: to - from,
    d_sae: model.cfg.d_sae,
    accumulate: Number(accumulate),
    weight: coeff / n_rows,
    h,
    threshold: model.threshold,
    squares,
    flags,
    grad: grad_h.rows(0, to - from),
    grad_threshold: slopes.grad_threshold,
    norm_slopes: slopes.normSlopes,
  });
}

const preActBackwardKernel = defineKernel({
  name: "pre_act_backward",
  dims: ["rows", "d_sae", "accumulate"],
  scalars: ["weight"],
  bindings: {
    h: readsOnce("f32", "rows d_sae"),
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

/** The same for all entries of a batch. */
function preActEntriesBackward(
  commands: Commands,
  model: AffineMaps,
  given: EntryArguments & { readonly cfg: PreAct; readonly slopes: PreActSlopes },
): void {
  const { entries: buffers, h, squares, flags, cfg: { coeff }, slopes: { grad_threshold, normSlopes } } = given;
  const { codes: { n_rows, row_starts, indices }, transposition: { columns }, grad_values: grad } = buffers;
  const { capacity, starts, entries } = columns;
  const { threshold, cfg: { d_sae } } = model;
  const shared = { d_sae, capacity, weight: coeff / n_rows, h, threshold, squares, flags };
  commands.run(preActEntryGradientsKernel, { ...shared, n_rows, row_starts, indices, grad });
  for (const first of entryStarts(buffers.codes)) {
    commands.run(preActEntrySlopesKernel, {
      ...shared,
      first,
      starts,
      entries,
      grad_threshold,
      norm_slopes: normSlopes,
    });
  }
}

const preActEntryGradientsKernel = defineKernel({
  name: "pre_act_entry_gradients",
  dims: ["n_rows", "d_sae", "capacity"],
  scalars: ["weight"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    indices: readsOften("u32", "capacity"),
    h: readsOften("f32", "capacity"),
    threshold: readsAcross("f32", "d_sae", "capacity"),
    squares: readsAcross("f32", "d_sae", "capacity"),
    flags: readsAcross("u32", "d_sae", "capacity"),
    grad: writes("f32", "capacity"),
  },
  workgroup: 64,
  grid: ({ capacity }) => Math.ceil(capacity / 64),
  cost: ({ capacity }) => ({ flops: 2 * capacity, bytes: 24 * capacity }),
  body: `
  let entry = group * 64u + lane;
  if (entry >= row_starts[dims.n_rows]) { return; }
  let s = indices[entry];
  if (flags[s] != 0u && h[entry] < max(threshold[s], 0.0)) { grad[entry] -= dims.weight * sqrt(squares[s]); }`,
});

const preActEntrySlopesKernel = defineKernel({
  name: "pre_act_entry_slopes",
  dims: ["first", "d_sae", "capacity"],
  scalars: ["weight"],
  bindings: {
    starts: reads("u32", "d_sae+1"),
    entries: readsOften("u32", "capacity"),
    h: readsOften("f32", "capacity"),
    threshold: reads("f32", "d_sae"),
    squares: reads("f32", "d_sae"),
    flags: reads("u32", "d_sae"),
    grad_threshold: writes("f32", "d_sae"),
    norm_slopes: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ capacity }) => ({ flops: 4 * capacity, bytes: 12 * capacity }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  ${ENTRIES_OF_LATENT}
  let theta = max(threshold[s], 0.0);
  let slope = dims.weight * sqrt(squares[s]);
  var by_threshold = 0.0;
  var by_norm = 0.0;
  if (dims.first > 0u) {
    by_threshold = grad_threshold[s];
    by_norm = norm_slopes[s];
  }
  for (; flags[s] != 0u && at < end; at += 1u) {
    let value = h[entries[at]];
    if (value < theta) {
      by_threshold += slope;
      by_norm = fma(dims.weight, theta - value, by_norm);
    }
  }
  grad_threshold[s] = by_threshold;
  norm_slopes[s] = by_norm;`,
});

/** ∂θ and ∂W_dec from the sums over all rows in `slopes`. */
function preActGradients(
  commands: Commands,
  model: AffineMaps,
  given: { readonly slopes: PreActSlopes; readonly squares: Tensor; readonly gradients: Gradients },
): void {
  const { slopes: { grad_threshold, normSlopes }, squares, gradients } = given;
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
