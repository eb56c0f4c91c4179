/**
 * Muon for the matrices of a model, as upstream's `optim: "muon"` has it; its biases use Adam.
 *
 * @module
 */

import { shown } from "../../kernels/engine/errors.ts";
import type { Commands } from "../../kernels/engine/commands.ts";
import { muon, type MuonArguments, MuonBuffers } from "../../kernels/muon.ts";
import type { Tensor } from "../../kernels/engine/tensor.ts";
import type { Model } from "../model.ts";

/** Muon on W_enc and W_dec, Adam on the biases. Fields left out have PyTorch's defaults. */
export interface MuonOptions {
  /** Discriminator. */
  readonly key: "muon";
  /** Decay of the mean of the gradients; 0.95. */
  readonly momentum?: number;
  /** Weight decay: the fraction of a matrix that a step with lr 1 would subtract; 0.1. */
  readonly weight_decay?: number;
  /** Whether to use Nesterov momentum; `true`. */
  readonly nesterov?: boolean;
}

/** Muon's constants and buffers for one model. */
export class Muon implements Disposable {
  readonly #constants: Required<Omit<MuonOptions, "key">>;
  readonly #sizes: { readonly d_model: number; readonly d_sae: number };
  // W_enc and W_dec are both [S, D] and are updated one after the other.
  readonly #buffers: MuonBuffers;

  /**
   * For a model's matrices.
   *
   * @throws {TypeError} for an unknown field or one of the wrong type.
   * @throws {RangeError} for a number outside its range.
   */
  constructor({ cfg: { d_model, d_sae }, context }: Model, options: MuonOptions) {
    this.#constants = completeMuon(options);
    this.#sizes = { d_model, d_sae };
    this.#buffers = new MuonBuffers(context, d_sae, d_model);
  }

  /**
   * Updates one matrix. Its rate is that of the biases times √max(1, rows / columns) of the matrix in files: W_enc is
   * [D, S], W_dec [S, D].
   */
  update(
    commands: Commands,
    name: "W_enc" | "W_dec",
    given: Pick<MuonArguments, "parameter" | "grad" | "factor" | "halted" | "lr"> & { readonly moment1: Tensor },
  ): void {
    const { d_model, d_sae } = this.#sizes;
    const aspect = name === "W_enc" ? d_model / d_sae : d_sae / d_model;
    const { moment1: mean, ...rest } = given;
    muon(commands, {
      ...this.#constants,
      ...rest,
      mean,
      ratio: Math.sqrt(Math.max(1, aspect)),
      buffers: this.#buffers,
    });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#buffers[Symbol.dispose]();
  }
}

function completeMuon(options: MuonOptions): Required<Omit<MuonOptions, "key">> {
  const { key: _muon, momentum = 0.95, weight_decay: decay = 0.1, nesterov = true, ...others } = options;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new TypeError(
      `optimizer muon has no field ${JSON.stringify(unknown)}; it has key, momentum, weight_decay, nesterov`,
    );
  }
  if (!(Number.isFinite(momentum) && momentum >= 0 && momentum < 1)) {
    throw new RangeError(`momentum must be in [0, 1), found ${shown(momentum)}`);
  }
  if (!(decay >= 0 && Number.isFinite(decay))) {
    throw new RangeError(`weight_decay must be a finite number of at least 0, found ${shown(decay)}`);
  }
  if (typeof nesterov !== "boolean") throw new TypeError(`nesterov must be true or false, found ${shown(nesterov)}`);
  return { momentum, weight_decay: decay, nesterov };
}
