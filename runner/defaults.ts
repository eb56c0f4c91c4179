/**
 * Defaults that depend on the length of the run: the warm-up of the learning rate, and the number of rows without
 * firing after which a latent is dead.
 *
 * The library's constants, 500 steps and 10,000,000 rows, are upstream's, for runs of 100 million rows. With a small
 * file, training would end within the warm-up and AuxK would never act.
 *
 * @module
 */

import { DEAD_THRESHOLD_TOKENS } from "../objectives/common_fields.ts";
import type { ObjectiveOptions } from "../objectives/objective.ts";
import { TRAIN_DEFAULTS } from "../train/options.ts";
import type { LoopConfig } from "./config_sections.ts";
import type { RunConfig } from "./run_config.ts";

/** A configuration with these defaults filled in. */
export interface ResolvedConfig extends RunConfig {
  /** `[objective]` */
  readonly objective: ObjectiveOptions & { readonly dead_threshold_tokens: number };
  /** `[train]` */
  readonly train: LoopConfig & { readonly n_lr_warmup: number };
}

/** The defaults that a run was started with, where the file does not set them. */
export type ResolvedDefaults = Readonly<
  Partial<Record<"train.n_lr_warmup" | "objective.dead_threshold_tokens", number>>
>;

/** Upstream's constants. */
export const UPSTREAM = {
  n_lr_warmup: TRAIN_DEFAULTS.n_lr_warmup,
  dead_threshold_tokens: DEAD_THRESHOLD_TOKENS,
} as const;

/**
 * `n_lr_warmup = min(500, ⌊n_steps / 10⌋)` and `dead_threshold_tokens = min(10⁷, max(8 · batch_size, ⌊rows trained /
 * 10⌋))`, if the configuration leaves them out. A resumed run keeps those that it was `begun` with.
 */
export function resolveDefaults(
  cfg: RunConfig,
  n_steps: number,
  begun: ResolvedDefaults = {},
): { readonly cfg: ResolvedConfig; readonly resolved: ResolvedDefaults } {
  const { train, objective } = cfg;
  const { batch_size } = train;
  const n_lr_warmup = train.n_lr_warmup ?? begun["train.n_lr_warmup"] ??
    Math.min(UPSTREAM.n_lr_warmup, Math.floor(n_steps / 10));
  const dead_threshold_tokens = objective.dead_threshold_tokens ?? begun["objective.dead_threshold_tokens"] ??
    Math.min(UPSTREAM.dead_threshold_tokens, Math.max(8 * batch_size, Math.floor(n_steps * batch_size / 10)));
  return {
    cfg: { ...cfg, objective: { ...objective, dead_threshold_tokens }, train: { ...train, n_lr_warmup } },
    resolved: {
      ...train.n_lr_warmup === null && { "train.n_lr_warmup": n_lr_warmup },
      ...objective.dead_threshold_tokens === undefined && { "objective.dead_threshold_tokens": dead_threshold_tokens },
    },
  };
}
