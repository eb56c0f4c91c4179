/**
 * The configuration of a training run: the tables `[data]`, `[sae]`, `[init]`, `[objective]`, `[train]` and `[log]` of
 * its file, checked field by field, with every default filled in; and `[slurm]`, which does not concern runs.
 *
 * @module
 */

import { completeEach } from "../nn/fields.ts";
import { completeConfig, type SparseAutoencoderOptions } from "../nn/config.ts";
import { getObjective, type ObjectiveOptions } from "../objectives/objective.ts";
import type { ModelOptions } from "../train/options.ts";
import { stepSchedule } from "../train/train.ts";
import { checkedTables } from "./config_names.ts";
import {
  DATA_FIELDS,
  type DataConfig,
  INIT_FIELDS,
  type InitConfig,
  LOG_FIELDS,
  type LogConfig,
  LOOP_FIELDS,
  type LoopConfig,
  SLURM_FIELDS,
  type SlurmConfig,
} from "./config_sections.ts";

/** A training run. */
export interface RunConfig {
  /** `[data]` */
  readonly data: DataConfig;
  /** `[sae]`, as saev spells it; `d_model` comes from the data. */
  readonly sae: SparseAutoencoderOptions;
  /** `[init]` */
  readonly init: InitConfig;
  /** `[objective]` */
  readonly objective: ObjectiveOptions;
  /** `[train]` */
  readonly train: LoopConfig;
  /** `[log]` */
  readonly log: LogConfig;
}

/**
 * Checks a configuration and fills in the defaults.
 *
 * @throws {TypeError} for an unknown field (the message names the nearest known one), or a field of the wrong type.
 * @throws {RangeError} for a number outside its range, or an unknown `key`.
 */
export function completeRunConfig(found: Readonly<Record<string, unknown>>): RunConfig {
  const tables = checkedTables(found);
  completeSlurm(found);
  const data = completeData(tables.data);
  const sae = tables.sae as SparseAutoencoderOptions;
  const init = completeEach<InitConfig>(INIT_FIELDS, tables.init, "init.");
  const objective = tables.objective as unknown as ObjectiveOptions;
  const train = completeLoop(tables.train);
  const log = completeEach<LogConfig>(LOG_FIELDS, tables.log, "log.");
  // With a checkpoint, the model is not known before that is opened.
  if (init.from === null) checkRun(sae, objective, train);
  else checkAlone(data, init);
  return { data, sae, init, objective, train, log };
}

/**
 * The configuration that a run has written as `config.json`.
 *
 * @throws {TypeError | RangeError | SyntaxError} as {@link completeRunConfig}, and for text that is not JSON.
 */
export function runConfigOf(json: string): RunConfig {
  // A field that is null there was not set.
  return completeRunConfig(JSON.parse(json, (_, value) => value === null ? undefined : value));
}

/**
 * Checks the `[slurm]` table of a configuration and fills in the defaults.
 *
 * @throws {TypeError | RangeError} as {@link completeRunConfig}.
 */
export function completeSlurm({ slurm }: Readonly<Record<string, unknown>>): SlurmConfig {
  return completeEach<SlurmConfig>(SLURM_FIELDS, checkedTables({ slurm }).slurm, "slurm.");
}

function completeData(found: Readonly<Record<string, unknown>>): DataConfig {
  const { path } = found;
  if (path === undefined || path === "") {
    throw new TypeError(
      `data.path is ${path === "" ? "empty" : "missing"}: set it to the file with the rows to train on`,
    );
  }
  return completeEach<DataConfig>(DATA_FIELDS, found, "data.");
}

function completeLoop(found: Readonly<Record<string, unknown>>): LoopConfig {
  if (found.n_epochs !== undefined && found.n_steps !== undefined) {
    throw new TypeError("train.n_epochs and train.n_steps both set the length of the run; give one of them");
  }
  const loop = completeEach<LoopConfig>(LOOP_FIELDS, found, "train.");
  return loop.n_steps === null ? loop : { ...loop, n_epochs: null };
}

/** @throws {TypeError} for initial values, or a scaling, beside the checkpoint that has its own. */
function checkAlone({ standardise }: DataConfig, { from: _, ...others }: InitConfig): void {
  const given = Object.entries(others).find(([name, value]) =>
    value !== INIT_FIELDS[name as keyof InitConfig].otherwise
  );
  const field = given ? `init.${given[0]}` : standardise === "none" ? undefined : "data.standardise";
  if (field === undefined) return;
  throw new TypeError(`${field} is set, but init.from is a checkpoint with its own values; leave ${field} out`);
}

/** Raises the errors that a model, its objective and its schedules would raise when the run starts. */
export function checkRun(sae: SparseAutoencoderOptions, options: ObjectiveOptions, loop: LoopConfig): void {
  const cfg = completeConfig(sae);
  const objective = getObjective(options);
  objective.sparsity({ cfg });
  objective.prefixes(cfg.d_sae, { seed: loop.seed, step: 0 });
  stepSchedule(cfg, scheduleOptions(loop));
}

/** The options of {@link train} about schedules. */
export function scheduleOptions(
  { n_sparsity_warmup, k_start, n_k_warmup }: LoopConfig,
): Pick<ModelOptions, "n_sparsity_warmup" | "k_start" | "n_k_warmup"> {
  return { n_sparsity_warmup, ...k_start !== null && { k_start }, ...n_k_warmup !== null && { n_k_warmup } };
}
