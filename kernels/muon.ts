/**
 * Muon: orthogonalised momentum (Jordan et al. 2024), in the form and order of PyTorch's.
 *
 * PyTorch orthogonalises in bfloat16; this does it in float32.
 *
 * @module
 */

import type { Commands } from "./engine/commands.ts";
import type { DeviceContext } from "./engine/device.ts";
import { defineKernel, reads, readsOnce, updates, writes } from "./engine/kernel.ts";
import { divideByNorm, newtonSchulz, STEEPEST } from "./newton_schulz.ts";
import { rowsPerBlock, spans, Tensor } from "./engine/tensor.ts";
import { perVectorWidth } from "./engine/vector_width.ts";

/** Steps of the Newton-Schulz iteration, and the smallest norm that it divides by. */
const STEPS = 5;
const LEAST_NORM = 1e-7;

/** The numbers of one step. */
export interface MuonStep {
  /** Learning rate. */
  readonly lr: number;
  /** Multiplies the learning rate of the update but not that of the weight decay. */
  readonly ratio: number;
  /** Decay of the momentum. */
  readonly momentum: number;
  /** Whether to use Nesterov momentum. */
  readonly nesterov: boolean;
  /** Weight decay: the fraction of the parameter that a step with lr 1 would subtract. */
  readonly weight_decay: number;
}

/** Arguments of {@link muonMomentum}: three matrices of one shape, and a factor and a flag that only the GPU knows. */
export interface MuonMomentumArguments extends Pick<MuonStep, "momentum" | "nesterov"> {
  /** The gradient. */
  readonly grad: Tensor;
  /** The mean of the gradients so far. */
  readonly mean: Tensor;
  /** The update, before it is orthogonalised. */
  readonly x: Tensor;
  /** [1], multiplies the gradient. */
  readonly factor: Tensor;
  /** [1], a value other than 0 leaves mean and update as they are. */
  readonly halted: Tensor<"u32">;
}

/** Arguments of {@link muonStep}. */
export interface MuonStepArguments extends Pick<MuonStep, "lr" | "ratio" | "weight_decay"> {
  /** What is updated. */
  readonly parameter: Tensor;
  /** The update, a matrix of the same shape. */
  readonly update: Tensor;
  /** [1], a value other than 0 leaves the parameter as it is. */
  readonly halted: Tensor<"u32">;
}

/** Arguments of {@link muon}. */
export interface MuonArguments extends MuonStep {
  /** What is updated. */
  readonly parameter: Tensor;
  /** Its gradient. */
  readonly grad: Tensor;
  /** The mean of its gradients so far. */
  readonly mean: Tensor;
  /** Buffers for matrices of this shape. */
  readonly buffers: MuonBuffers;
  /** [1], multiplies the gradient. */
  readonly factor: Tensor;
  /** [1], a value other than 0 stops the update. */
  readonly halted: Tensor<"u32">;
}

/** Buffers for the update of matrices of one shape, one after the other. */
export class MuonBuffers implements Disposable {
  /** [rows, columns], the update. */
  readonly x: Tensor;
  /** [rows, columns] */
  readonly spare: Tensor;
  /** [m, m], m the smaller of rows and columns. */
  readonly gram: Tensor;
  /** [m, m] */
  readonly square: Tensor;
  /** [rows], squares of the update's rows. */
  readonly squares: Tensor;
  /** [1], their sum. */
  readonly total: Tensor;
  readonly #owned: DisposableStack;

  /** For matrices of `rows` × `columns`. */
  constructor(context: DeviceContext, rows: number, columns: number) {
    using stack = new DisposableStack();
    const make = (shape: number[], label: string) => stack.use(new Tensor(context, "f32", shape, `Muon: ${label}`));
    const least = Math.min(rows, columns);
    this.x = make([rows, columns], "update");
    this.spare = make([rows, columns], "next update");
    this.gram = make([least, least], "Gram matrix");
    this.square = make([least, least], "its square");
    this.squares = make([rows], "squares of rows");
    this.total = make([1], "square of the norm");
    this.#owned = stack.move();
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/**
 * Updates one matrix: {@link muonMomentum}, division by the norm, five steps of {@link newtonSchulz}, {@link muonStep}.
 * The transposed matrix gets the transposed update.
 */
export function muon(commands: Commands, given: MuonArguments): void {
  const { buffers: { x, spare, gram, square, squares, total } } = given;
  muonMomentum(commands, { ...given, x });
  divideByNorm(commands, { x, squares, total, least: LEAST_NORM });
  const update = newtonSchulz(commands, { x, spare, gram, square, steps: STEPS, coefficients: STEEPEST });
  muonStep(commands, { ...given, update });
}

/** m ← μm + (1−μ)g, with g = factor · grad; x = μm + (1−μ)g with `nesterov`, else m. */
export function muonMomentum(commands: Commands, given: MuonMomentumArguments): void {
  const { grad, mean, x, factor, halted, momentum, nesterov } = given;
  for (const { from, to, size } of blocks(commands, mean)) {
    commands.run(momentumKernel(size), {
      size,
      nesterov: Number(nesterov),
      rest: 1 - momentum,
      grad: grad.rows(from, to),
      mean: mean.rows(from, to),
      x: x.rows(from, to),
      factor,
      halted,
    });
  }
}

/** p ← (1 − lr · weight_decay) p − lr · ratio · update. */
export function muonStep(commands: Commands, given: MuonStepArguments): void {
  const { parameter, update, halted, lr, ratio, weight_decay: decay } = given;
  for (const { from, to, size } of blocks(commands, parameter)) {
    commands.run(stepKernel(size), {
      size,
      keep: 1 - lr * decay,
      step_size: lr * ratio,
      parameter: parameter.rows(from, to),
      update: update.rows(from, to),
      halted,
    });
  }
}

/** The rows of a matrix, in blocks that fit a binding. */
function* blocks(
  { context }: Commands,
  matrix: Tensor,
): Generator<{ readonly from: number; readonly to: number; readonly size: number }> {
  const [rows = 0] = matrix.shape;
  const columns = matrix.rowSize;
  for (const { from, to } of spans(rows, rowsPerBlock(context, rows, columns * 4, matrix.label))) {
    yield { from, to, size: (to - from) * columns };
  }
}

const momentumKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "muon_momentum",
    dims: ["size", "nesterov"],
    scalars: ["rest"],
    bindings: {
      grad: readsOnce(element, "size"),
      mean: updates(element, "size"),
      x: writes(element, "size"),
      factor: reads("f32", "1"),
      halted: reads("u32", "1"),
    },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / scalars / 256),
    cost: ({ size }) => ({ flops: 7 * size, bytes: 16 * size }),
    body: `
  if (halted[0] != 0u) { return; }
  let end = min((group + 1u) * 256u, dims.size / ${scalars}u);
  for (var i = group * 256u + lane; i < end; i += 64u) {
    let g = factor[0] * grad[i];
    let before = old_mean[i];
    let m = fma(${element}(dims.rest), g - before, before);
    mean[i] = m;
    x[i] = select(m, fma(${element}(dims.rest), g - m, m), dims.nesterov == 1u);
  }`,
  })
);

const stepKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "muon_step",
    dims: ["size"],
    scalars: ["keep", "step_size"],
    bindings: { parameter: updates(element, "size"), update: readsOnce(element, "size"), halted: reads("u32", "1") },
    workgroup: 64,
    grid: ({ size }) => Math.ceil(size / scalars / 256),
    cost: ({ size }) => ({ flops: 3 * size, bytes: 12 * size }),
    body: `
  if (halted[0] != 0u) { return; }
  let end = min((group + 1u) * 256u, dims.size / ${scalars}u);
  for (var i = group * 256u + lane; i < end; i += 64u) {
    parameter[i] = fma(${element}(-dims.step_size), update[i], dims.keep * old_parameter[i]);
  }`,
  })
);
