/**
 * How one model is trained.
 *
 * @module
 */

import type { OptimizerOptions } from "../nn/optim/adam.ts";
import type { TrainState } from "../nn/state.ts";

/** What options are where they are left out. */
export const TRAIN_DEFAULTS = {
  lr: 4e-4,
  n_lr_warmup: 500,
  n_sparsity_warmup: 0,
  grad_clip: 1,
  batch_size: 4096,
  log_every: 25,
  seed: 0,
} as const;

/** How one model is trained. */
export interface ModelOptions {
  /** Peak learning rate; 4e-4 if left out. */
  readonly lr?: number;
  /** Steps of linear warm-up from 0; 500 if left out. */
  readonly n_lr_warmup?: number;
  /** Steps in which the penalty's weight grows from 0 to what it is; 0 if left out. */
  readonly n_sparsity_warmup?: number;
  /** What a TopK or BatchTopK keeps a row at first, going in a straight line to its `top_k`; that from the start if left out. */
  readonly k_start?: number;
  /** Steps of that line. */
  readonly n_k_warmup?: number;
  /** Adam if left out. Muon costs about 20 · min(d_model, d_sae) / B encoder products more a step. */
  readonly optimizer?: OptimizerOptions;
  /** Largest norm of all gradients together; 1 if left out, `false` for no clipping. */
  readonly grad_clip?: number | false;
  /**
   * Moments of the same optimizer and counters to go on with, also those of a run that a {@link DivergenceError} ended; a
   * fresh state if left out. The caller's to dispose of.
   */
  readonly state?: TrainState;
}
