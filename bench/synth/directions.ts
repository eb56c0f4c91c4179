/**
 * The directions of a world's features: random unit vectors, pushed apart.
 *
 * Adam's steps against L = Σ_{i≠j} (d_i · d_j)² + F Σ_i (‖d_i‖² − 1)² over directions_FD, then normalised again. With G
 * = directionsᵀ directions [D, D], and n_i = ‖d_i‖²,
 *
 *     ∂L/∂d_i = 4 ((directions G)_i − n_i d_i + F (n_i − 1) d_i),
 *
 * which never needs the [F, F] products. Source: SynthSAEBench (arXiv 2602.14687).
 *
 * @module
 */

import {
  adam,
  Commands,
  defineKernel,
  type DeviceContext,
  fill,
  matmul,
  RandomStream,
  reads,
  rowSquares,
  Tensor,
  unitRows,
  writes,
} from "../../kernels/mod.ts";
import { normal, WORLD_STREAMS, type WorldConfig } from "./world.ts";

/** The unit vectors [F, D] of a world, on the GPU. The caller disposes of them. */
export function makeDirections(context: DeviceContext, cfg: WorldConfig): Tensor {
  const { n_features, d_model, seed, orthogonalisation: { steps, lr } } = cfg;
  const random = new RandomStream(seed, WORLD_STREAMS.directions);
  using stack = new DisposableStack();
  const start_FD = Float32Array.from({ length: n_features * d_model }, () => normal(random));
  const directions = stack.use(Tensor.from(context, start_FD, [n_features, d_model], "directions"));
  using scratch = new DisposableStack();
  const make = (label: string, ...shape: number[]) => scratch.use(new Tensor(context, "f32", shape, label));
  const halted = scratch.use(new Tensor(context, "u32", [1], "never halted"));
  const gram = make("products of the directions' columns", d_model, d_model);
  const grad = make("gradient of the directions", n_features, d_model);
  const moment1 = make("first moment of the directions", n_features, d_model);
  const moment2 = make("second moment of the directions", n_features, d_model);
  const squares = make("squared lengths of the directions", n_features);
  const one = make("one", 1);
  const commands = new Commands(context);
  fill(commands, one, 1, FLOAT_ONE);
  unitRows(commands, directions, halted);
  const d = { in: directions };
  for (let step = 1; step <= steps; step++) {
    matmul(commands, { layout: "tn", M: d_model, N: d_model, K: n_features, a: d, b: d, c: { in: gram } });
    matmul(commands, {
      layout: "nn",
      M: n_features,
      N: d_model,
      K: d_model,
      a: d,
      b: { in: gram },
      c: { in: grad },
    });
    rowSquares(commands, directions, squares);
    overlapGradient(commands, { directions, squares, grad });
    adam(commands, {
      parameter: directions,
      grad,
      moment1,
      moment2,
      factor: one,
      halted,
      lr,
      beta1: 0.9,
      beta2: 0.999,
      eps: 1e-8,
      step,
    });
    commands.submit();
  }
  unitRows(commands, directions, halted);
  commands.submit();
  stack.move();
  return directions;
}

/** The bits of 1 as f32. */
const FLOAT_ONE = 0x3f800000;

/** grad ← 4 (grad − n d + F (n − 1) d), where `grad` contains directions G. */
export function overlapGradient(
  commands: Commands,
  given: { readonly directions: Tensor; readonly squares: Tensor; readonly grad: Tensor },
): void {
  const [rows = 0, columns = 0] = given.directions.shape;
  commands.run(overlapGradientKernel, { ...given, size: rows * columns, rows, columns });
}

const overlapGradientKernel = defineKernel({
  name: "overlap_gradient",
  dims: ["size", "rows", "columns"],
  bindings: { directions: reads("f32", "size"), squares: reads("f32", "rows"), grad: writes("f32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 64),
  cost: ({ size }) => ({ flops: 7 * size, bytes: 12 * size }),
  body: `
  let i = group * 64u + lane;
  if (i >= dims.size) { return; }
  let n = squares[i / dims.columns];
  grad[i] = 4.0 * fma(f32(dims.rows) * (n - 1.0) - n, directions[i], grad[i]);`,
});
