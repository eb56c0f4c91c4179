/**
 * How many latents a row uses and how strongly, and the penalty on it: `coeff · mean_b Σ_s |f_bs|`.
 *
 * L0 counts what is not zero, also negative values and NaN. L1 is a sum over latents, so `coeff` is tied to that scale.
 *
 * @module
 */

import type { Commands } from "../kernels/commands.ts";
import { addSign } from "../kernels/elementwise.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Codes } from "../nn/codes.ts";
import type { Sparsity } from "../nn/config.ts";
import type { Span } from "../nn/encode.ts";

/** The factor before L1. */
export function sparsityCoeff(sparsity: Sparsity): number {
  return sparsity.key === "l1-sparsity" ? sparsity.coeff : 0;
}

/** l0[b] = Σ_s 1[f_bs ≠ 0] and l1[b] = Σ_s |f_bs| of sparse codes. */
export function rowNorms(commands: Commands, codes: Codes, l0: Tensor, l1: Tensor): void {
  const { n_rows, row_starts, values } = codes;
  commands.run(rowNormsKernel, { n_rows, capacity: values.size, row_starts, values, l0, l1 });
}

/** WGSL: adds one value to `count` and `sum`. */
const addValue = (value: string) => `
    count += u32((bitcast<u32>(${value}) & 0x7fffffffu) != 0u);
    sum += abs(${value});`;

/** WGSL: the totals of all invocations' `count` and `sum` into `counts[0]` and `sums[0]`. */
const tree = (threads: number) => `
  counts[lane] = count;
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (lane < half) {
      counts[lane] += counts[lane + half];
      sums[lane] += sums[lane + half];
    }
    workgroupBarrier();
  }`;

/** Invocations a row: eight strided parts and a tree, whatever the device, so that the order is one. */
const PARTS = 8;

const rowNormsKernel = defineKernel({
  name: "row_norms",
  dims: ["n_rows", "capacity"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    values: reads("f32", "capacity"),
    l0: writes("f32", "n_rows"),
    l1: writes("f32", "n_rows"),
  },
  workgroup: PARTS,
  grid: ({ n_rows }) => n_rows,
  cost: ({ capacity }) => ({ flops: capacity, bytes: 4 * capacity }),
  declarations: `
var<workgroup> counts: array<u32, ${PARTS}>;
var<workgroup> sums: array<f32, ${PARTS}>;`,
  body: `
  var count = 0u;
  var sum = 0.0;
  for (var entry = row_starts[group] + lane; entry < row_starts[group + 1u]; entry += ${PARTS}u) {${
    addValue("values[entry]")
  }
  }
  ${tree(PARTS)}
  if (lane == 0u) {
    l0[group] = f32(counts[0]);
    l1[group] = sums[0];
  }`,
});

/** The same of dense codes. */
export function denseRowNorms(commands: Commands, f_BS: Tensor, spans: readonly Span[], l0: Tensor, l1: Tensor): void {
  const [n_rows = 0, d_sae = 0] = f_BS.shape;
  for (const { from, to } of spans) {
    commands.run(denseRowNormsKernel, {
      rows: to - from,
      first_row: from,
      n_rows,
      d_sae,
      f: f_BS.rows(from, to),
      l0,
      l1,
    });
  }
}

const denseRowNormsKernel = defineKernel({
  name: "dense_row_norms",
  dims: ["rows", "first_row", "n_rows", "d_sae"],
  bindings: { f: reads("f32", "rows d_sae"), l0: writes("f32", "n_rows"), l1: writes("f32", "n_rows") },
  workgroup: 64,
  grid: ({ rows }) => rows,
  cost: ({ rows, d_sae }) => ({ flops: rows * d_sae, bytes: 4 * rows * d_sae }),
  declarations: `
var<workgroup> counts: array<u32, 64>;
var<workgroup> sums: array<f32, 64>;`,
  body: `
  var count = 0u;
  var sum = 0.0;
  for (var s = lane; s < dims.d_sae; s += 64u) {${addValue("f[group * dims.d_sae + s]")}
  }
  ${tree(64)}
  if (lane == 0u) {
    l0[dims.first_row + group] = f32(counts[0]);
    l1[dims.first_row + group] = sums[0];
  }`,
});

/** grad_f += coeff / B · sign(f), for the entries of sparse codes. (A ReLU's goes in with its mask.) */
export function sparsityBackward(commands: Commands, codes: Codes, grad_values: Tensor, coeff: number): void {
  if (coeff === 0) return;
  const { values, n_rows } = codes;
  addSign(commands, { grad: grad_values, at: values, size: values.size, slope: coeff / n_rows });
}
