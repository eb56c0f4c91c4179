/**
 * Options for training one model.
 *
 * @module
 */

import type { OptimizerOptions } from "../nn/optim/adam.ts";
import type { TrainState } from "../nn/state.ts";

/** Defaults of the options. */
export const TRAIN_DEFAULTS = {
  lr: 4e-4,
  n_lr_warmup: 500,
  n_sparsity_warmup: 0,
  grad_clip: 1,
  batch_size: 4096,
  log_every: 25,
  seed: 0,
} as const;

/** Options for training one model. */
export interface ModelOptions {
  /** Peak learning rate; 4e-4 if left out. */
  readonly lr?: number;
  /** Steps of linear warm-up from 0; 500 if left out. */
  readonly n_lr_warmup?: number;
  /** Steps of linear warm-up of the penalty's weight from 0; 0 if left out. */
  readonly n_sparsity_warmup?: number;
  /** Initial k of a TopK or BatchTopK, which then changes linearly to `top_k`; no schedule if left out. */
  readonly k_start?: number;
  /** Steps of that schedule. */
  readonly n_k_warmup?: number;
  /** Adam if left out. Muon costs about 20 · min(d_model, d_sae) / B more encoder products per step. */
  readonly optimizer?: OptimizerOptions;
  /** Largest norm of all gradients together; 1 if left out, `false` turns clipping off. */
  readonly grad_clip?: number | false;
  /**
   * A state to continue from, with moments of the same optimizer; also that of a run that ended in a {@link
   * DivergenceError}. A new state if left out. The caller disposes of it.
   */
  readonly state?: TrainState;
}
