/**
 * Orthogonalisation by the quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon").
 *
 * A step X ← aX + bX XᵀX + cX (XᵀX)² maps every singular value σ to aσ + bσ³ + cσ⁵ and keeps the singular vectors. With
 * the coefficients below and 0 < σ ≤ 1, five steps bring all but the smallest σ to about 0.7 … 1.2.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOnce, updates } from "./engine/kernel.ts";
import { matmul } from "./matmul.ts";
import { sum } from "./reduce.ts";
import { rowsPerBlock, spans, type Tensor } from "./engine/tensor.ts";
import { perVectorWidth } from "./engine/vector_width.ts";
import { rowSquares } from "./unit_rows.ts";

/** Coefficients of a step, which maps a singular value σ to aσ + bσ³ + cσ⁵. */
export type Quintic = readonly [a: number, b: number, c: number];

/** Jordan's coefficients: the steepest at 0 that stay bounded. */
export const STEEPEST: Quintic = [3.4445, -4.775, 2.0315];

/** Arguments of {@link newtonSchulz}: X, and buffers for intermediate results. */
export interface NewtonSchulzArguments {
  /** [rows, columns], X; overwritten. */
  readonly x: Tensor;
  /** [rows, columns] */
  readonly spare: Tensor;
  /** [m, m], m the smaller of rows and columns. */
  readonly gram: Tensor;
  /** [m, m] */
  readonly square: Tensor;
  /** How many. */
  readonly steps: number;
  /** Of each. */
  readonly coefficients: Quintic;
}

/**
 * Some steps X ← X (aI + bG + cG²) with G = XᵀX, or for fewer rows than columns X ← (aI + bG + cG²) X with G = XXᵀ.
 *
 * Returns the tensor that holds the result: `x` after an even number of steps, `spare` after an odd one.
 */
export function newtonSchulz(commands: Commands, given: NewtonSchulzArguments): Tensor {
  const { gram, square, steps, coefficients } = given;
  let [x, next] = [given.x, given.spare];
  const [rows = 0, columns = 0] = x.shape;
  for (let step = 0; step < steps; step++) {
    // G and its polynomial are symmetric to the bit, so each product may use the layout that suits it.
    (columns <= rows ? productTN : productNT)(commands, x, x, gram);
    productNT(commands, gram, gram, square);
    polynomial(commands, gram, square, coefficients);
    if (columns <= rows) productNT(commands, x, square, next);
    else productTN(commands, square, x, next);
    [x, next] = [next, x];
  }
  return x;
}

/** C[M, N] = A[M, K] · B[N, K]ᵀ, in blocks that fit a binding. */
function productNT(commands: Commands, a: Tensor, b: Tensor, c: Tensor): void {
  for (const m of blocks(commands, a.rowSize > c.rowSize ? a : c)) {
    for (const n of blocks(commands, b)) {
      matmul(commands, {
        layout: "nt",
        M: m.to - m.from,
        N: n.to - n.from,
        K: a.rowSize,
        a: { in: a.rows(m.from, m.to) },
        b: { in: b.rows(n.from, n.to) },
        c: { in: c.rows(m.from, m.to), offset: n.from },
      });
    }
  }
}

/** C[M, N] = A[K, M]ᵀ · B[K, N], in blocks that fit a binding. */
function productTN(commands: Commands, a: Tensor, b: Tensor, c: Tensor): void {
  for (const m of blocks(commands, c)) {
    for (const k of blocks(commands, a.rowSize > b.rowSize ? a : b)) {
      matmul(commands, {
        layout: "tn",
        M: m.to - m.from,
        N: b.rowSize,
        K: k.to - k.from,
        a: { in: a.rows(k.from, k.to), offset: m.from },
        b: { in: b.rows(k.from, k.to) },
        c: { in: c.rows(m.from, m.to) },
        accumulate: k.from > 0,
      });
    }
  }
}

function blocks({ context }: Commands, matrix: Tensor): Iterable<{ readonly from: number; readonly to: number }> {
  const [rows = 0] = matrix.shape;
  return spans(rows, rowsPerBlock(context, rows, matrix.rowSize * 4, matrix.label));
}

/** square ← a I + b gram + c square. */
function polynomial(commands: Commands, gram: Tensor, square: Tensor, [constant, linear, quadratic]: Quintic): void {
  for (const { from, to } of blocks(commands, gram)) {
    const columns = gram.rowSize;
    const size = (to - from) * columns;
    const given = { size, columns, firstRow: from, constant, linear, quadratic };
    commands.run(polynomialKernel, { ...given, gram: gram.rows(from, to), square: square.rows(from, to) });
  }
}

const polynomialKernel = defineKernel({
  name: "matrix_polynomial",
  dims: ["size", "columns", "firstRow"],
  scalars: ["constant", "linear", "quadratic"],
  bindings: { gram: readsOnce("f32", "size"), square: updates("f32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 256),
  cost: ({ size }) => ({ flops: 4 * size, bytes: 12 * size }),
  body: `
  for (var i = group * 256u + lane; i < min((group + 1u) * 256u, dims.size); i += 64u) {
    let constant = select(0.0, dims.constant, dims.firstRow + i / dims.columns == i % dims.columns);
    square[i] = fma(dims.quadratic, old_square[i], fma(dims.linear, gram[i], constant));
  }`,
});

/**
 * X ← X / max(‖X‖, least) with the Frobenius norm, so that no singular value exceeds 1; `squares` is [rows], `total`
 * [1].
 */
export function divideByNorm(
  commands: Commands,
  given: { readonly x: Tensor; readonly squares: Tensor; readonly total: Tensor; readonly least: number },
): void {
  const { x, squares, total, least } = given;
  rowSquares(commands, x, squares);
  sum(commands, { x: squares, size: squares.size, into: total, results: 1, at: 0 });
  for (const { from, to } of blocks(commands, x)) {
    const size = (to - from) * x.rowSize;
    commands.run(divideKernel(size), { size, least, x: x.rows(from, to), total });
  }
}

const divideKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "divide_by_norm",
    dims: ["size"],
    scalars: ["least"],
    bindings: { x: updates(element, "size"), total: reads("f32", "1") },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / scalars / 256),
    cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
    body: `
  let norm = max(sqrt(total[0]), dims.least);
  let end = min((group + 1u) * 256u, dims.size / ${scalars}u);
  for (var i = group * 256u + lane; i < end; i += 64u) { x[i] = old_x[i] / norm; }`,
  })
);
