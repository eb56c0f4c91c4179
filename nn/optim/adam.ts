/**
 * One update of all parameters: global norm, clipping factor, Adam, or Muon for the matrices.
 *
 * @module
 */

import { adam, type AdamStep } from "../../kernels/adam.ts";
import { clipFactor } from "../../kernels/clip.ts";
import type { Commands } from "../../kernels/engine/commands.ts";
import { sum } from "../../kernels/reduce.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { parallelRows, rowSquares, subtractParallelRows } from "../../kernels/unit_rows.ts";
import type { Model } from "../model.ts";
import type { Muon, MuonOptions } from "./muon.ts";
import { type Gradients, PARAMETERS, type ParameterTensors } from "../parameters.ts";

/** Buffers for the norm of the gradients. */
export class GradientNorm implements Disposable {
  /** Σ g² of each parameter, at its place in {@link PARAMETERS}; 0 for those that the model does not have. */
  readonly squares: Tensor;
  /** [1], the norm of all. */
  readonly norm: Tensor;
  /** [1], the factor that clips them. */
  readonly factor: Tensor;
  /** [S], the multiple of each row of W_dec that its gradient row contains, if the configuration removes it. */
  readonly parallel: Tensor | undefined;
  readonly #rows: Tensor;
  readonly #owned: DisposableStack;

  /** For the gradients of a model. */
  constructor({ cfg: { d_model, d_sae, remove_parallel_grads }, context }: Model) {
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "f32", [size], label));
    this.squares = make(PARAMETERS.length, "squares of gradients");
    this.norm = make(1, "grad_norm");
    this.factor = make(1, "clipping factor");
    if (remove_parallel_grads) this.parallel = make(d_sae, "parallel parts of grad_W_dec");
    this.#rows = make(Math.max(d_model, d_sae), "squares of rows");
    this.#owned = stack.move();
  }

  /**
   * Measures the norm of the gradients, without the components of grad_W_dec's rows along W_dec's if the configuration
   * removes them, and the factor that clips it to `most`.
   */
  measure(commands: Commands, { parameters: { W_dec: matrix } }: Model, gradients: Gradients, most: number): void {
    for (const [name, tensor] of gradients) {
      const rows = this.#rows.rows(0, tensor.shape[0]!);
      const { parallel } = this;
      if (name === "W_dec" && parallel) parallelRows(commands, { grad: tensor, matrix, parallel, squares: rows });
      else rowSquares(commands, tensor, rows);
      const at = PARAMETERS.indexOf(name);
      sum(commands, { x: rows, size: tensor.shape[0]!, into: this.squares, results: this.squares.size, at });
    }
    clipFactor(commands, { squares: this.squares, norm: this.norm, factor: this.factor, most });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** How parameters are updated: Adam, or Muon for the matrices and Adam for the biases. */
export type OptimizerOptions = {
  /** Discriminator. */
  readonly key: "adam";
} | MuonOptions;

/**
 * Checks the key of the optimizer, and Adam's fields; {@link Muon} checks its own.
 *
 * @throws {RangeError} for an unknown `key`.
 * @throws {TypeError} for a field that Adam does not have.
 */
export function checkOptimizer(options: OptimizerOptions): void {
  if (options.key !== "adam" && options.key !== "muon") {
    throw new RangeError(`optimizer must have the key adam or muon, found ${JSON.stringify(options)}`);
  }
  const unknown = options.key === "adam" ? Object.keys(options).find((field) => field !== "key") : undefined;
  if (unknown !== undefined) {
    throw new TypeError(`optimizer adam has no field ${JSON.stringify(unknown)}; it has key alone`);
  }
}

/** Adam's constants beside the learning rate. */
export type AdamConstants = Omit<AdamStep, "lr" | "step">;

/** PyTorch's defaults. */
export const ADAM: AdamConstants = { beta1: 0.9, beta2: 0.999, eps: 1e-8 };

/** The part of a training state that updates use. */
export interface Updates {
  /** Updates done. */
  readonly step: number;
  /** [1], a value other than 0 stops them. */
  readonly halted: Tensor<"u32">;
  readonly gradients: Gradients;
  /** Adam's first moments, or Muon's mean gradients. */
  readonly moment1: ParameterTensors;
  /** Adam's second moments. */
  readonly moment2: ParameterTensors;
}

/**
 * Updates a model's parameters, unless the state has been halted. Adam subtracts the parallel components within its
 * pass; before Muon they are subtracted from the gradient.
 */
export function updateParameters(
  commands: Commands,
  model: Model,
  given: {
    readonly state: Updates;
    readonly norm: GradientNorm;
    readonly lr: number;
    /** Updates the matrices, if given. */
    readonly muon?: Muon | undefined;
  },
): void {
  const { state, norm: { factor, parallel }, lr, muon } = given;
  const { halted } = state;
  const gradients = new Map(state.gradients);
  const moments1 = new Map(state.moment1);
  const moments2 = new Map(state.moment2);
  for (const [name, parameter] of model.parameters) {
    const grad = gradients.get(name)!;
    const shared = { parameter, grad, moment1: moments1.get(name)!, factor, halted, lr };
    const along = name === "W_dec" ? parallel : undefined;
    if (muon && (name === "W_enc" || name === "W_dec")) {
      if (along) subtractParallelRows(commands, { grad, matrix: parameter, parallel: along });
      muon.update(commands, name, shared);
    } else {
      const moment2 = moments2.get(name)!;
      adam(commands, { ...ADAM, ...shared, step: state.step + 1, moment2, parallel: along });
    }
  }
}
