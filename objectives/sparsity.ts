/**
 * L0 and L1 of the codes, and the penalty on them, `λ · P`, where P is the mean over rows of the sum of
 *
 * | sparsity | a code's part of P |
 * | --- | --- |
 * | `l1-sparsity` | \|f\| |
 * | `weighted-l1-sparsity` | \|f\| n, n = ‖W_dec_s‖ |
 * | `tanh-sparsity` | tanh(c \|f\| n) |
 * | `l0-sparsity`, `target-l0-sparsity` | 1[f ≠ 0] |
 *
 * L0 counts all values that are not zero, negative ones and NaN included. P is a sum over latents while the squared
 * error is a mean over dimensions, so a λ from a paper that sums the squared error must be divided by d_model.
 * Penalties on L0 have no gradient here: a JumpReLU's backward pass adds it.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { defineKernel, reads, readsAcross, readsOften, readsOnce, updates, writes } from "../kernels/engine/kernel.ts";
import { perRowLayout, rowTotal } from "../kernels/row_layout.ts";
import { sparseColumnSums } from "../kernels/spmm_transposed.ts";
import { type Span, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import { perVectorWidth } from "../kernels/engine/vector_width.ts";
import { totalOnceWgsl } from "../kernels/engine/wgsl.ts";
import { sum } from "../kernels/reduce.ts";
import { addUnitRows } from "../kernels/unit_rows.ts";
import type { Codes, Entries } from "../nn/codes.ts";
import { boundCodes, type DenseCodes, perDenseLayout } from "../nn/dense_codes.ts";
import type { AffineMaps } from "../nn/encode.ts";
import { isOnL0, isWeighted, type Sparsity, type WeightedSparsity } from "../nn/loss_terms.ts";
import type { Gradients } from "../nn/parameters.ts";
import type { StepBuffers } from "../nn/step_buffers.ts";
import { TOTALS } from "./loss_record.ts";
import type { CodeGradients, DenseTile, LossTerm, Step, TrainingStep } from "./loss_term.ts";
import { penaltyWeight } from "./l0_controller.ts";

/** The penalty, and the L0 and L1 of codes. */
export class Penalty implements LossTerm {
  /** [1], λ of this step. */
  readonly weight: Tensor;
  /** [1], ∂loss/∂P. */
  readonly slope: Tensor;
  /** [B] each, sums over a row. */
  readonly #rows: Readonly<Record<"l0" | "l1" | "penalty", Tensor>>;
  /** [B], L0 of a Gated's gates, to which its penalty applies instead of the codes. */
  readonly #gates: Tensor | undefined;
  /** For a weighted penalty: [entries], ∂loss/∂‖W_dec_s‖ of each, and [S], their sums. */
  readonly #norms: { readonly values: Tensor; readonly slopes: Tensor } | undefined;
  /** [2] and [1], placeholder bindings when there is no controller. */
  readonly #unused: { readonly control: Tensor; readonly halted: Tensor<"u32"> };
  readonly #totals: Tensor;
  readonly #owned: DisposableStack;

  /** For the batches of `buffers`; its sums over a batch go to `totals`. */
  constructor(context: DeviceContext, sparsity: Sparsity, buffers: StepBuffers, totals: Tensor) {
    const { n_rows, f_x: { entries: { codes: { d_sae }, grad_values } } } = buffers;
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "f32", [size], label));
    this.weight = make(1, "penalty's weight");
    this.slope = make(1, "penalty's slope");
    this.#rows = {
      l0: make(n_rows, "L0 a row"),
      l1: make(n_rows, "L1 a row"),
      penalty: make(n_rows, "penalty a row"),
    };
    if (buffers.f_x.gate) this.#gates = make(n_rows, "open gates a row");
    this.#norms = isWeighted(sparsity)
      ? { values: make(grad_values.size, "slopes of f_x"), slopes: make(d_sae, "slopes of the lengths") }
      : undefined;
    this.#unused = {
      control: make(2, "no controller"),
      halted: stack.use(new Tensor(context, "u32", [1], "never halted")),
    };
    this.#totals = totals;
    this.#owned = stack.move();
  }

  readsNorms({ sparsity }: Step): boolean {
    return isWeighted(sparsity);
  }

  readonly look: NonNullable<LossTerm["look"]> = {
    entries: ({ commands, sparsity, buffers: { f_x: { entries: { codes } }, squares } }) => {
      const { l0, l1, penalty } = this.#rows;
      rowNorms(commands, codes, l0, l1);
      rowPenalties(commands, { sparsity, codes, squares, penalty });
    },
    dense: ({ commands, sparsity, buffers: { squares } }, codes, span, penalised) => {
      const { l0, l1, penalty } = this.#rows;
      denseRowNorms(commands, { codes, span, l0, l1 });
      if (this.#gates) denseRowNorms(commands, { codes: penalised, span, l0: this.#gates, l1: penalty });
      denseRowPenalties(commands, { sparsity, codes: penalised, span, squares, penalty });
    },
  };

  afterCodes({ commands, sparsity, schedule, buffers: { n_rows }, training }: Step): void {
    const totals = this.#totals;
    const isApart = this.total(sparsity) === "penalty";
    for (const name of isApart ? ["l0", "l1", "penalty"] as const : ["l0", "l1"] as const) {
      sum(commands, { x: this.#rows[name], size: n_rows, into: totals, results: totals.size, at: TOTALS[name] });
    }
    penaltyWeight(commands, {
      sparsity,
      factor: schedule.sparsity,
      lr: schedule.lr,
      stepsToTarget: schedule.stepsToTarget,
      totals,
      l0At: TOTALS.l0,
      n_rows,
      weight: this.weight,
      slope: this.slope,
      controlled: training && { ...training.state, target_l0: training.target_l0 },
      unused: this.#unused,
    });
  }

  readonly onCodes: CodeGradients = {
    entries: ({ commands, sparsity, buffers: { f_x, squares } }) => {
      sparsityBackward(commands, {
        sparsity,
        entries: f_x.gate?.entries ?? f_x.entries,
        norms: this.#norms,
        oneSided: f_x.dense !== undefined,
        squares,
        slope: this.slope,
      });
    },
    dense: ({ commands, sparsity, buffers: { n_rows, squares, f_x } }, tile: DenseTile) => {
      const { dense, span, grad, accumulate } = tile;
      denseSparsityBackward(commands, {
        sparsity,
        f: dense.codeRows(span),
        grad_f: f_x.gate?.grad ?? grad,
        n_rows,
        squares,
        slope: this.slope,
        normSlopes: this.#norms?.slopes,
        accumulate,
      });
    },
  };

  afterEncoder({ commands, model, buffers: { squares }, training: { state: { gradients } } }: TrainingStep): void {
    if (this.#norms) normsBackward(commands, model, { squares, normSlopes: this.#norms.slopes, gradients });
  }

  /** The sum over the batch that is P. */
  total(sparsity: Sparsity): keyof typeof TOTALS {
    return this.#gates || isWeighted(sparsity) ? "penalty" : isOnL0(sparsity) ? "l0" : "l1";
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** l0[b] = Σ_s 1[f_bs ≠ 0] and l1[b] = Σ_s |f_bs| of sparse codes. */
export function rowNorms(commands: Commands, codes: Codes, l0: Tensor, l1: Tensor): void {
  const { n_rows, row_starts, values } = codes;
  commands.run(rowNormsKernel(1, commands.context), { n_rows, capacity: values.size, row_starts, values, l0, l1 });
}

/** WGSL: adds one value to `count` and `sum`. */
const addValue = (value: string) => `
    count += u32((bitcast<u32>(${value}) & 0x7fffffffu) != 0u);
    sum += abs(${value});`;

/** Invocations a row: eight strided parts and a tree on every device, so that there is one order of summation. */
const PARTS = 8;

const rowNormsKernel = perRowLayout((layout) =>
  defineKernel({
    name: "row_norms",
    dims: ["n_rows", "capacity"],
    bindings: {
      row_starts: reads("u32", "n_rows+1"),
      values: readsOften("f32", "capacity"),
      l0: writes("f32", "n_rows"),
      l1: writes("f32", "n_rows"),
    },
    workgroup: PARTS,
    grid: ({ n_rows }) => n_rows,
    cost: ({ capacity }) => ({ flops: capacity, bytes: 4 * capacity }),
    ...rowTotal(layout, PARTS),
    body: `
  var count = 0u;
  var sum = 0.0;
  let end = row_starts[group + 1u];
  for (var entry = row_starts[group] + lane; entry < end; entry += ${PARTS}u) {${addValue("values[entry]")}
  }
  let all = total(lane, f32(count));
  sum = total(lane, sum);
  if (lane == 0u) {
    l0[group] = all;
    l1[group] = sum;
  }`,
  })
);

/** The same for dense codes. */
export function denseRowNorms(
  commands: Commands,
  given: { readonly codes: DenseCodes; readonly span: Span; readonly l0: Tensor; readonly l1: Tensor },
): void {
  const { codes, span: { from, to }, l0, l1 } = given;
  const sizes = { rows: to - from, first_row: from, n_rows: l0.size, d_sae: codes.values.tensor.rowSize };
  commands.run(denseRowNormsKernel(codes), { ...sizes, ...boundCodes(codes), l0, l1 });
}

const denseRowNormsKernel = perDenseLayout(({ parts, scalars, bindings, declarations, code }) => {
  const threads = scalars === 1 ? 64 : 32;
  return defineKernel({
    name: "dense_row_norms",
    dims: ["rows", "first_row", "n_rows", "d_sae"],
    bindings: { ...bindings, l0: writes("f32", "n_rows"), l1: writes("f32", "n_rows") },
    workgroup: threads,
    grid: ({ rows }) => rows,
    cost: ({ rows, d_sae }) => ({ flops: rows * d_sae, bytes: 4 * rows * d_sae }),
    declarations: declarations + totalOnceWgsl(threads, "vec2f"),
    body: `
  var count = 0u;
  var sum = 0.0;
  let loads = dims.d_sae / ${scalars}u;
  for (var i = lane; i < loads; i += ${threads}u) {
    let f = ${code("values[group * loads + i]", "threshold[i]")};${parts.map((part) => addValue(`f${part}`)).join("")}
  }
  let all = total_once(lane, vec2f(f32(count), sum));
  if (lane == 0u) {
    l0[dims.first_row + group] = all.x;
    l1[dims.first_row + group] = all.y;
  }`,
  });
});

type WeightedKey = WeightedSparsity["key"];

/** WGSL: a code's part of P and its derivatives with respect to |f| and n; at |f| = 0 the derivative from the right. */
const WEIGHTED_WGSL: Readonly<Record<WeightedKey, string>> = {
  "weighted-l1-sparsity": `
fn part(f: f32, n: f32, scale: f32) -> f32 { return abs(f) * n; }
fn slope_f(f: f32, n: f32, scale: f32) -> f32 { return n; }
fn slope_n(f: f32, n: f32, scale: f32) -> f32 { return abs(f); }`,
  "tanh-sparsity": `
fn part(f: f32, n: f32, scale: f32) -> f32 {
  let a = scale * abs(f) * n;
  // Near 0 the quotient below cancels; four terms of the series are exact in float32 there.
  if (a < 0.1) { return a * fma(a * a, fma(a * a, fma(a * a, -17.0 / 315.0, 2.0 / 15.0), -1.0 / 3.0), 1.0); }
  let t = exp(-2.0 * a);
  return (1.0 - t) / (1.0 + t);
}
fn squared_sech(a: f32) -> f32 {
  let t = exp(-2.0 * a);
  return 4.0 * t / ((1.0 + t) * (1.0 + t));
}
fn slope_f(f: f32, n: f32, scale: f32) -> f32 { return scale * n * squared_sech(scale * abs(f) * n); }
fn slope_n(f: f32, n: f32, scale: f32) -> f32 { return scale * abs(f) * squared_sech(scale * abs(f) * n); }`,
};

/** One kernel for each weighted penalty. */
function weighted<K>(declare: (wgsl: string) => K): Readonly<Record<WeightedKey, K>> {
  return {
    "weighted-l1-sparsity": declare(WEIGHTED_WGSL["weighted-l1-sparsity"]),
    "tanh-sparsity": declare(WEIGHTED_WGSL["tanh-sparsity"]),
  };
}

/** The scale of a tanh penalty; 1 for the others. */
function scaleOf(sparsity: Sparsity): number {
  return sparsity.key === "tanh-sparsity" ? sparsity.scale : 1;
}

/**
 * penalty[b] = Σ_s of the parts of P for penalties that depend on n; `squares` [S] are n². The others are L0 or L1,
 * which are computed anyway.
 */
export function rowPenalties(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    readonly codes: Codes;
    readonly squares: Tensor;
    readonly penalty: Tensor;
  },
): void {
  const { sparsity, codes: { n_rows, d_sae, row_starts, indices, values }, squares, penalty } = given;
  if (!isWeighted(sparsity)) return;
  commands.run(rowPenaltiesKernels[sparsity.key], {
    n_rows,
    d_sae,
    capacity: values.size,
    scale: scaleOf(sparsity),
    row_starts,
    indices,
    values,
    squares,
    penalty,
  });
}

const rowPenaltiesKernels = weighted((wgsl) =>
  defineKernel({
    name: "row_penalties",
    dims: ["n_rows", "d_sae", "capacity"],
    scalars: ["scale"],
    bindings: {
      row_starts: reads("u32", "n_rows+1"),
      indices: readsOften("u32", "capacity"),
      values: readsOften("f32", "capacity"),
      squares: readsAcross("f32", "d_sae", "capacity"),
      penalty: writes("f32", "n_rows"),
    },
    workgroup: PARTS,
    grid: ({ n_rows }) => n_rows,
    cost: ({ capacity }) => ({ flops: 8 * capacity, bytes: 12 * capacity }),
    declarations: totalOnceWgsl(PARTS) + wgsl,
    body: `
  var sum = 0.0;
  let end = row_starts[group + 1u];
  for (var entry = row_starts[group] + lane; entry < end; entry += ${PARTS}u) {
    sum += part(values[entry], sqrt(squares[indices[entry]]), dims.scale);
  }
  let all = total_once(lane, sum);
  if (lane == 0u) { penalty[group] = all; }`,
  })
);

/** The same for dense codes. */
export function denseRowPenalties(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    readonly codes: DenseCodes;
    readonly span: Span;
    readonly squares: Tensor;
    readonly penalty: Tensor;
  },
): void {
  const { sparsity, codes, span: { from, to }, squares, penalty } = given;
  if (!isWeighted(sparsity)) return;
  commands.run(denseRowPenaltiesKernels[sparsity.key](codes), {
    rows: to - from,
    first_row: from,
    n_rows: penalty.size,
    d_sae: codes.values.tensor.rowSize,
    scale: scaleOf(sparsity),
    ...boundCodes(codes),
    squares,
    penalty,
  });
}

const denseRowPenaltiesKernels = weighted((wgsl) =>
  perDenseLayout(({ element, parts, scalars, bindings, declarations, code }) =>
    defineKernel({
      name: "dense_row_penalties",
      dims: ["rows", "first_row", "n_rows", "d_sae"],
      scalars: ["scale"],
      bindings: {
        ...bindings,
        squares: readsAcross(element, "d_sae", "rows d_sae"),
        penalty: writes("f32", "n_rows"),
      },
      workgroup: 64,
      grid: ({ rows }) => rows,
      cost: ({ rows, d_sae }) => ({ flops: 8 * rows * d_sae, bytes: 8 * rows * d_sae }),
      declarations: declarations + totalOnceWgsl(64) + wgsl,
      body: `
  var sum = 0.0;
  let loads = dims.d_sae / ${scalars}u;
  for (var i = lane; i < loads; i += 64u) {
    let f = ${code("values[group * loads + i]", "threshold[i]")};
    let n = sqrt(squares[i]);
    ${parts.map((part) => `sum += part(f${part}, n${part}, dims.scale);`).join("\n    ")}
  }
  let all = total_once(lane, sum);
  if (lane == 0u) { penalty[dims.first_row + group] = all; }`,
    })
  )
);

/**
 * ∂f += slope/B · ∂P_b/∂f for the entries of sparse codes, with `slope` [1] = ∂loss/∂P. At f = 0 it is the derivative
 * from the right if codes are never negative, otherwise 0.
 *
 * A weighted penalty also writes the slopes of `norms`, slope/B · Σ_b ∂P_b/∂n_s, for {@link normsBackward}.
 */
export function sparsityBackward(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    readonly entries: Entries;
    /** For a weighted penalty: [entries], which gets slope/B · ∂P_b/∂n of each, and [S], which gets their sums. */
    readonly norms: { readonly values: Tensor; readonly slopes: Tensor } | undefined;
    /** Whether codes are never negative. */
    readonly oneSided: boolean;
    readonly squares: Tensor;
    readonly slope: Tensor;
  },
): void {
  const { sparsity, entries, norms, oneSided, squares, slope } = given;
  const { codes, transposition, grad_values } = entries;
  const { n_rows, d_sae, row_starts, indices, values } = codes;
  const shared = { n_rows, capacity: values.size, at_zero: Number(oneSided), row_starts, values, slope, grad_values };
  if (sparsity.key === "l1-sparsity") commands.run(l1BackwardKernel, shared);
  if (!isWeighted(sparsity)) return;
  commands.run(sparsityBackwardKernels[sparsity.key], {
    ...shared,
    d_sae,
    scale: scaleOf(sparsity),
    indices,
    squares,
    norm_values: norms!.values,
  });
  sparseColumnSums(commands, {
    sparse: transposition.columns,
    entryRows: transposition.entryRows,
    values: norms!.values,
    firstRow: 0,
    rows: n_rows,
    accumulate: false,
    result: norms!.slopes,
  });
}

const SIGN_WGSL = `
fn sign_of(f: f32, at_zero: f32) -> f32 { return select(sign(f), at_zero, f == 0.0); }`;

const l1BackwardKernel = defineKernel({
  name: "l1_backward",
  dims: ["n_rows", "capacity"],
  scalars: ["at_zero"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    values: readsOften("f32", "capacity"),
    slope: reads("f32", "1"),
    grad_values: updates("f32", "capacity"),
  },
  workgroup: 64,
  grid: ({ capacity }) => Math.ceil(capacity / 64),
  cost: ({ capacity }) => ({ flops: capacity, bytes: 12 * capacity }),
  declarations: SIGN_WGSL,
  body: `
  let entry = group * 64u + lane;
  if (entry >= row_starts[dims.n_rows]) { return; }
  grad_values[entry] = fma(slope[0] / f32(dims.n_rows), sign_of(values[entry], dims.at_zero), old_grad_values[entry]);`,
});

const sparsityBackwardKernels = weighted((wgsl) =>
  defineKernel({
    name: "sparsity_backward",
    dims: ["n_rows", "d_sae", "capacity"],
    scalars: ["scale", "at_zero"],
    bindings: {
      row_starts: reads("u32", "n_rows+1"),
      indices: readsOften("u32", "capacity"),
      values: readsOften("f32", "capacity"),
      squares: readsAcross("f32", "d_sae", "capacity"),
      slope: reads("f32", "1"),
      grad_values: updates("f32", "capacity"),
      norm_values: writes("f32", "capacity"),
    },
    workgroup: 64,
    grid: ({ capacity }) => Math.ceil(capacity / 64),
    cost: ({ capacity }) => ({ flops: 12 * capacity, bytes: 24 * capacity }),
    declarations: wgsl + SIGN_WGSL,
    body: `
  let entry = group * 64u + lane;
  if (entry >= row_starts[dims.n_rows]) { return; }
  let f = values[entry];
  let n = sqrt(squares[indices[entry]]);
  let share = slope[0] / f32(dims.n_rows);
  grad_values[entry] = fma(share * sign_of(f, dims.at_zero), slope_f(f, n, dims.scale), old_grad_values[entry]);
  norm_values[entry] = share * slope_n(f, n, dims.scale);`,
  })
);

/**
 * The same for the rows of one tile of dense codes, which are never negative; at f = 0 it is the derivative from the
 * right.
 */
export function denseSparsityBackward(
  commands: Commands,
  given: {
    readonly sparsity: Sparsity;
    /** [rows, S] */
    readonly f: TensorRows;
    readonly grad_f: Tensor;
    /** B */
    readonly n_rows: number;
    readonly squares: Tensor;
    readonly slope: Tensor;
    /** For a weighted penalty: [S], which gets slope/B · Σ_b ∂P_b/∂n_s. */
    readonly normSlopes: Tensor | undefined;
    readonly accumulate: boolean;
  },
): void {
  const { sparsity, f, grad_f, n_rows, squares, slope, normSlopes, accumulate } = given;
  const rows = f.to - f.from;
  const d_sae = f.tensor.rowSize;
  const shared = { rows, d_sae, n_rows, slope, grad: grad_f.rows(0, rows) };
  if (sparsity.key === "l1-sparsity") {
    const size = rows * d_sae;
    commands.run(denseL1BackwardKernel(size), { ...shared, size });
  }
  if (!isWeighted(sparsity)) return;
  commands.run(denseSparsityBackwardKernels[sparsity.key], {
    ...shared,
    accumulate: Number(accumulate),
    scale: scaleOf(sparsity),
    f,
    squares,
    norm_slopes: normSlopes!,
  });
}

const denseL1BackwardKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "dense_l1_backward",
    dims: ["size", "n_rows"],
    bindings: { slope: reads("f32", "1"), grad: updates(element, "size") },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / scalars / 256),
    cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
    body: `
  let share = slope[0] / f32(dims.n_rows);
  let end = min((group + 1u) * 256u, dims.size / ${scalars}u);
  for (var i = group * 256u + lane; i < end; i += 64u) { grad[i] = old_grad[i] + share; }`,
  })
);

const denseSparsityBackwardKernels = weighted((wgsl) =>
  defineKernel({
    name: "dense_sparsity_backward",
    dims: ["rows", "d_sae", "n_rows", "accumulate"],
    scalars: ["scale"],
    bindings: {
      f: readsOnce("f32", "rows d_sae"),
      squares: reads("f32", "d_sae"),
      slope: reads("f32", "1"),
      grad: updates("f32", "rows d_sae"),
      norm_slopes: writes("f32", "d_sae"),
    },
    workgroup: 32,
    grid: ({ d_sae }) => Math.ceil(d_sae / 32),
    cost: ({ rows, d_sae }) => ({ flops: 12 * rows * d_sae, bytes: 12 * rows * d_sae }),
    declarations: wgsl,
    body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  let n = sqrt(squares[s]);
  let share = slope[0] / f32(dims.n_rows);
  var sum = 0.0;
  if (dims.accumulate == 1u) { sum = norm_slopes[s]; }
  for (var row = 0u; row < dims.rows; row += 1u) {
    let i = row * dims.d_sae + s;
    grad[i] = fma(share, slope_f(f[i], n, dims.scale), old_grad[i]);
    // A product, then a sum, as for the entries of sparse codes.
    let by_norm = share * slope_n(f[i], n, dims.scale);
    sum += by_norm;
  }
  norm_slopes[s] = sum;`,
  })
);

/** ∂W_dec_s += normSlopes[s] · W_dec_s / ‖W_dec_s‖; rows of zeros have no direction and get no gradient. */
export function normsBackward(
  commands: Commands,
  model: AffineMaps,
  given: { readonly squares: Tensor; readonly normSlopes: Tensor; readonly gradients: Gradients },
): void {
  const { squares, normSlopes, gradients } = given;
  addUnitRows(commands, { weights: normSlopes, squares, matrix: model.parameters.W_dec, result: gradients.W_dec });
}
