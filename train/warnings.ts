/**
 * Finds settings that cannot work, before a training has cost an hour.
 *
 * @module
 */

import type { SparseAutoencoderConfig } from "../nn/config.ts";
import { auxCapabilities } from "../nn/loss_terms.ts";
import type { Objective } from "../objectives/objective.ts";
import { type ModelOptions, TRAIN_DEFAULTS } from "./options.ts";

/** The part of a training that decides what it can reach. */
export interface Prospect {
  /** The model. */
  readonly cfg: SparseAutoencoderConfig;
  /** The objective to minimise. */
  readonly objective: Objective;
  /** Its options. */
  readonly options: ModelOptions;
  /** Number of steps of the whole training. */
  readonly n_steps: number;
  /** Number of rows of the whole training. */
  readonly n_tokens: number;
}

/** One line for each schedule that does not finish and each setting without effect, with the remedy. */
export function trainingWarnings({ cfg, objective, options, n_steps, n_tokens }: Prospect): string[] {
  const { activation, d_sae } = cfg;
  const {
    n_lr_warmup = TRAIN_DEFAULTS.n_lr_warmup,
    n_sparsity_warmup = TRAIN_DEFAULTS.n_sparsity_warmup,
    n_k_warmup = 0,
  } = options;
  const warnings: string[] = [];
  const schedules = [
    ["the learning rate does not reach its peak", "n_lr_warmup", n_lr_warmup],
    ["the penalty does not reach its weight", "n_sparsity_warmup", n_sparsity_warmup],
    ["k does not reach top_k", "n_k_warmup", n_k_warmup],
  ] as const;
  for (const [what, name, steps] of schedules) {
    if (steps > 0 && steps >= n_steps) {
      warnings.push(
        `${what}: ${name} is ${count(steps)} and the run has ${count(n_steps)} steps; lower it or train longer`,
      );
    }
  }
  if ("top_k" in activation && activation.top_k >= d_sae) {
    warnings.push(
      `top_k keeps every latent on every row: top_k is ${activation.top_k}, d_sae is ${d_sae}; lower top_k or raise d_sae`,
    );
  }
  const { dead_threshold_tokens } = objective.cfg;
  if (dead_threshold_tokens > n_tokens) {
    const { title } = auxCapabilities(activation.aux);
    warnings.push(
      `${
        title === undefined ? "" : `${title} never acts and `
      }n_dead stays 0: a latent counts as dead after dead_threshold_tokens ` +
        `${count(dead_threshold_tokens)} rows, but there are only ${
          count(n_tokens)
        }; train on more rows, or lower dead_threshold_tokens`,
    );
  }
  return warnings;
}

function count(n: number): string {
  return n.toLocaleString("en");
}
