/**
 * Every field of a run's configuration, declared once: type, range, default and a sentence. Checks, `saev config`, the
 * help of `saev train` and its `--section.field` options come from these tables.
 *
 * Fields of models, activations, penalties and objectives are declared with these.
 *
 * @module
 */

import {
  type AnyFields,
  boolean,
  type EachField,
  type Field,
  integer,
  type Kinds,
  number,
  optional,
} from "../nn/fields.ts";
import { CONFIG_FIELDS } from "../nn/config.ts";
import { CENTRES, type InitialData } from "../nn/initial_values.ts";
import { MAX_BATCH_ROWS } from "../nn/limits.ts";
import type { OptimizerOptions } from "../nn/optim/adam.ts";
import { DEAD_THRESHOLD_TOKENS } from "../objectives/common_fields.ts";
import { OBJECTIVES } from "../objectives/objective.ts";
import { ROW_FORMATS, type RowFormat } from "../data/row_file.ts";
import type { Standardisation } from "../data/scaling.ts";
import { SHARD_TOKENS, type ShardTokens } from "../data/shards/reader.ts";
import { TRAIN_DEFAULTS } from "../train/options.ts";
import { byteList, choice, orFalse, text, textLike, textList } from "./config_fields.ts";

/** The rows and how they are used. */
export interface DataConfig {
  /** A file of rows or a folder of shards. {@link openRows} lists the formats. */
  readonly path: string;
  /** Type of the numbers in a file of bare numbers. */
  readonly format: RowFormat | null;
  /** Width of a row, if neither the file nor a JSON file beside it gives it. */
  readonly d_model: number | null;
  /** Name of the array with the rows, in a file of several arrays. */
  readonly key: string | null;
  /** Layer of the shards, if they have several. */
  readonly layer: number | null;
  /** Tokens of the shards. */
  readonly tokens: ShardTokens | null;
  /** Labels of the patches to leave out, for shards with labels. */
  readonly ignore_labels: readonly number[] | null;
  /** Share of rows, at the end of the file, held out for validation; 0 holds out none. Shards are split between images. */
  readonly validation_share: number;
  /** How inputs are standardised. The measured mean and scale are saved with the model. */
  readonly standardise: Standardisation;
  /** Rows held in memory and shuffled together. `null` for 256 MiB of rows. */
  readonly buffer_rows: number | null;
  /** Seed of the order of the rows. `null` for `train.seed`. */
  readonly order_seed: number | null;
}

/** The fields of `[data]`. */
export const DATA_FIELDS: EachField<DataConfig> = {
  path: text({
    about:
      "A file of rows or a folder of shards. A path is relative to this file; https:… and hf:… are addresses; part-*.npy " +
      "means all matching files, one after the other.",
    example: "activations.npy",
  }),
  format: optional(choice(ROW_FORMATS, { about: "Type of the numbers in a file of bare numbers.", example: "f32" })),
  d_model: optional(integer({
    least: 1,
    about: "Width of a row, if neither the file nor a JSON file beside it gives it.",
    example: 768,
  })),
  key: optional(text({ about: "Name of the array with the rows, in a file of several arrays.", example: "x" })),
  layer: optional(integer({ about: "Layer of the shards, if they have several.", example: 10 })),
  tokens: optional(choice(SHARD_TOKENS, { about: "Tokens of the shards.", example: "content" })),
  ignore_labels: optional(byteList({
    about: "Labels of the patches to leave out, for shards with labels.",
    example: [0],
  })),
  validation_share: number({
    least: 0,
    most: 0.9,
    otherwise: 0.05,
    about:
      "Share of rows, at the end of the file, held out for validation; 0 holds out none. Shards are split between images.",
  }),
  standardise: choice(["none", "mean", "scale", "mean_scale"], {
    otherwise: "none",
    about: "How inputs are standardised. The measured mean and scale are saved with the model.",
  }),
  buffer_rows: optional(integer({
    least: 1,
    about: "Rows held in memory and shuffled together. Default: 256 MiB of rows.",
    example: 87381,
  })),
  order_seed: optional(integer({
    least: 0,
    about: "Seed of the order of the rows. Default: train.seed.",
    example: 0,
  })),
};

/** What initial values are made from, besides random numbers. */
export interface InitConfig extends Required<Omit<InitialData, "x">> {
  /** Checkpoint to start from, of any format that saev reads. The fields of `[sae]` that are left out are the checkpoint's. */
  readonly from: string | null;
}

/** The fields of `[init]`. */
export const INIT_FIELDS: EachField<InitConfig> = {
  from: optional(text({
    about: "Checkpoint to start from, of any format that saev reads. The fields of `[sae]` that are left out are the " +
      "checkpoint's. Excludes the other fields of `[init]` and `data.standardise`. Relative to this file.",
    example: "runs/first/sae.pt",
  })),
  data_points: boolean({
    otherwise: false,
    about: "Whether to initialise the dictionary from rows, in the share that `reinit_blend` gives.",
  }),
  b_dec: choice(CENTRES, { otherwise: "zeros", about: "Initial value of `b_dec`." }),
  scale_encoder: boolean({
    otherwise: false,
    about: "Whether to scale `W_enc` so that Σ‖x̂ − b_dec‖ = Σ‖x − b_dec‖ at the first training step (Gao et al. 2024).",
  }),
};

/** The settings of the training loop. */
export interface LoopConfig {
  /** Rows per step. */
  readonly batch_size: number;
  /** Passes over the rows; below 1, the share of rows to train on. Excludes `n_steps`; `null` where that is given. */
  readonly n_epochs: number | null;
  /** Number of training steps. Excludes `n_epochs`; `null` where that is given. */
  readonly n_steps: number | null;
  /** Optimizer: Adam, or Muon for the matrices with Adam for the biases. */
  readonly optim: OptimizerOptions["key"];
  /** Peak learning rate. */
  readonly lr: number;
  /** Steps of linear learning-rate warm-up from 0. `null` derives it from the length of the run. */
  readonly n_lr_warmup: number | null;
  /** Steps of linear warm-up of the penalty's weight from 0. */
  readonly n_sparsity_warmup: number;
  /** Initial k, from which k falls to the activation's `top_k`. Requires `n_k_warmup`; `null` for none. */
  readonly k_start: number | null;
  /** Steps until k reaches `top_k`. `null` for none. */
  readonly n_k_warmup: number | null;
  /** Largest norm of all gradients together; larger gradients are scaled down to it. `false` turns clipping off. */
  readonly grad_clip: number | false;
  /** Steps between two reports of the loss. */
  readonly log_every: number;
  /** Steps between two checkpoints. The last step always saves one. */
  readonly checkpoint_every: number;
  /** Longest time between two checkpoints, in minutes. Checked every `log_every` steps, as is `checkpoint_every`. */
  readonly checkpoint_minutes: number;
  /** Seed for the initial values, the order of the rows and the prefixes. */
  readonly seed: number;
}

/** The fields of `[train]`. */
export const LOOP_FIELDS: EachField<LoopConfig> = {
  batch_size: integer({
    least: 1,
    most: MAX_BATCH_ROWS,
    otherwise: TRAIN_DEFAULTS.batch_size,
    about: "Rows per step.",
  }),
  n_epochs: number({
    otherwise: 1,
    about: "Passes over the rows; below 1, the share of rows to train on. Excludes `n_steps`.",
  }),
  n_steps: optional(
    integer({ least: 1, about: "Number of training steps. Excludes `n_epochs`.", example: 10000 }),
  ),
  optim: choice(["adam", "muon"], {
    otherwise: "adam",
    about: "Optimizer: Adam, or Muon for the matrices with Adam for the biases.",
  }),
  lr: number({ least: 0, otherwise: TRAIN_DEFAULTS.lr, about: "Peak learning rate." }),
  n_lr_warmup: optional(integer({
    least: 0,
    about: "Steps of linear learning-rate warm-up from 0. Default: 500, or a tenth of the steps if that is less.",
    example: 500,
  })),
  n_sparsity_warmup: integer({
    least: 0,
    otherwise: TRAIN_DEFAULTS.n_sparsity_warmup,
    about: "Steps of linear warm-up of the penalty's weight from 0.",
  }),
  k_start: optional(integer({
    least: 1,
    about: "Initial k, from which k falls to the activation's `top_k`. Requires `n_k_warmup`.",
    example: 256,
  })),
  n_k_warmup: optional(integer({ least: 1, about: "Steps until k reaches `top_k`.", example: 1000 })),
  grad_clip: orFalse(number({
    otherwise: TRAIN_DEFAULTS.grad_clip,
    about:
      "Largest norm of all gradients together; larger gradients are scaled down to it. `false` turns clipping off.",
  })),
  log_every: integer({
    least: 1,
    otherwise: TRAIN_DEFAULTS.log_every,
    about: "Steps between two reports of the loss.",
  }),
  checkpoint_every: integer({
    least: 1,
    otherwise: 1000,
    about: "Steps between two checkpoints. The last step always saves one.",
  }),
  checkpoint_minutes: number({
    otherwise: 10,
    about:
      "Longest time between two checkpoints, in minutes. Checked every `log_every` steps, as is `checkpoint_every`.",
  }),
  seed: integer({
    least: 0,
    otherwise: TRAIN_DEFAULTS.seed,
    about: "Seed for the initial values, the order of the rows and the prefixes.",
  }),
};

/** What is logged during training. */
export interface LogConfig {
  /** Steps between two validations; 0 turns validation off. `null` for a twentieth of the run. */
  readonly validation_every: number | null;
  /** Whether to write an event file for TensorBoard. */
  readonly tensorboard: boolean;
}

/** The fields of `[log]`. */
export const LOG_FIELDS: EachField<LogConfig> = {
  validation_every: optional(integer({
    least: 0,
    about:
      "Steps between two validations; 0 turns validation off. Default: a twentieth of the run. Each validation uses the same " +
      "rows, at most 4096; the steps are rounded up to a multiple of `log_every`.",
    example: 500,
  })),
  tensorboard: boolean({
    otherwise: false,
    about:
      "Whether to write an event file for TensorBoard: scalars with every report, densities with every validation.",
  }),
};

/** The job array that `saev train --slurm` writes. */
export interface SlurmConfig {
  /** Account to charge. */
  readonly account: string | null;
  /** Partition to run in. */
  readonly partition: string | null;
  /** Time limit of a task; a task that needs longer is requeued and continues. */
  readonly time: string | null;
  /** Memory per task. */
  readonly memory: string | null;
  /** CPU cores per task. */
  readonly cpus: number | null;
  /** GPUs per task; training uses one. */
  readonly gpus: number;
  /** Largest number of tasks that run at the same time. `null` for no limit. */
  readonly tasks_at_once: number | null;
  /** Further `sbatch` options, one per string. */
  readonly options: readonly string[];
  /** Shell commands to run before training, such as `module load`. */
  readonly setup: string;
  /** Command that runs saev on the nodes. `null` for the one it was started with. */
  readonly command: string | null;
  /** Whether to copy the rows to `$TMPDIR` and read them there. */
  readonly stage: boolean;
  /** Whether a task may train on a software adapter. */
  readonly allow_software: boolean;
}

/** A word of a `#SBATCH` line. */
const WORD = /^[^\s"'`\\$]+$/;

/** The fields of `[slurm]`. */
export const SLURM_FIELDS: EachField<SlurmConfig> = {
  account: optional(textLike(WORD, "a word", { about: "Account to charge.", example: "vision" })),
  partition: optional(textLike(WORD, "a word", { about: "Partition to run in.", example: "gpu" })),
  time: optional(textLike(/^(?:\d+-)?\d+(?::\d+){0,2}$/, "minutes, hours:minutes:seconds or days-hours", {
    about: "Time limit of a task; a task that needs longer is requeued and continues.",
    example: "12:00:00",
  })),
  memory: optional(textLike(/^\d+[KMGT]?$/, "a number with K, M, G or T", {
    about: "Memory per task.",
    example: "32G",
  })),
  cpus: optional(integer({ least: 1, about: "CPU cores per task.", example: 4 })),
  gpus: integer({ least: 0, otherwise: 1, about: "GPUs per task; training uses one." }),
  tasks_at_once: optional(integer({
    least: 1,
    about: "Largest number of tasks that run at the same time. Default: no limit.",
    example: 8,
  })),
  options: textList(/^-[^\n\r]*$/, "a list of strings that begin with -", {
    otherwise: [],
    about: "Further `sbatch` options, one per string.",
  }),
  setup: text({ otherwise: "", about: "Shell commands to run before training, such as `module load`." }),
  command: optional(text({
    about: "Command that runs saev on the nodes. Default: the one it was started with.",
    example: "saev",
  })),
  stage: boolean({ otherwise: true, about: "Whether to copy the rows to `$TMPDIR` and read them there." }),
  allow_software: boolean({ otherwise: false, about: "Whether a task may train on a software adapter." }),
};

/** A table of the file; one with `kinds` has a `key` that determines its other fields. */
export type Section =
  | { readonly about: string; readonly fields: AnyFields }
  | { readonly about: string; readonly kinds: Kinds; readonly otherwise: string };

/** The tables of the file. */
export const SECTIONS: Readonly<Record<"data" | "sae" | "init" | "objective" | "train" | "log" | "slurm", Section>> = {
  data: { about: "The rows and how they are used.", fields: { ...DATA_FIELDS } },
  sae: {
    about: "The model.",
    fields: {
      ...CONFIG_FIELDS,
      d_model: {
        ...CONFIG_FIELDS.d_model,
        about: "Width of the inputs, D. Must equal the width of the rows, which is the default.",
        otherwise: null,
        example: 768,
      },
    },
  },
  init: { about: "How parameters are initialised.", fields: { ...INIT_FIELDS } },
  objective: { about: "What training minimises.", kinds: objectives(), otherwise: "vanilla" },
  train: { about: "How to train.", fields: { ...LOOP_FIELDS } },
  log: { about: "What is logged during training.", fields: { ...LOG_FIELDS } },
  slurm: { about: "The job array that saev train --slurm writes.", fields: { ...SLURM_FIELDS } },
};

/** Fields of which only one may be given. */
export const EXCLUSIVE_FIELDS: readonly (readonly string[])[] = [
  ["train.n_epochs", "train.n_steps"],
  ["objective.n_prefixes", "objective.group_sizes"],
];

/** The objectives' fields. In a run, the default of `dead_threshold_tokens` depends on the length. */
function objectives(): Kinds {
  const usual = DEAD_THRESHOLD_TOKENS.toLocaleString("en");
  return Object.fromEntries(
    Object.entries(OBJECTIVES).map(([key, fields]) => [key, {
      ...fields,
      dead_threshold_tokens: {
        ...fields.dead_threshold_tokens,
        about:
          `Rows without firing after which a latent is dead. Default: ${usual}, or a tenth of the rows if that is less, but ` +
          "at least 8 batches.",
        otherwise: null,
        example: DEAD_THRESHOLD_TOKENS,
      },
    }]),
  );
}

/** The paths of all fields whose value is a list. */
export function listFields(): string[] {
  return Object.entries(SECTIONS).flatMap(([name, section]) => {
    const tables = "fields" in section ? [section.fields] : Object.values(section.kinds);
    return tables.flatMap((fields) => Object.entries<Field<unknown>>(fields))
      .filter(([, { isList }]) => isList)
      .map(([field]) => `${name}.${field}`);
  });
}

/** The fields of the table `path` for this `key`, without nested tables; `undefined` if the table has no `key`. */
export function fieldsWithKey(path: string, key: unknown): readonly string[] | undefined {
  const [name, ...rest] = path.split(".");
  const section = Object.entries(SECTIONS).find(([one]) => one === name)?.[1];
  let kinds = section !== undefined && "kinds" in section ? section.kinds : undefined;
  let fields = section !== undefined && "fields" in section ? section.fields : allFields(kinds);
  for (const inner of rest) {
    kinds = Object.hasOwn(fields, inner) ? fields[inner]!.kinds : undefined;
    fields = allFields(kinds);
  }
  if (kinds === undefined) return undefined;
  const found = typeof key === "string" && Object.hasOwn(kinds, key) ? kinds[key]! : {};
  return Object.entries(found).filter(([, field]) => field.kinds === undefined).map(([field]) => field);
}

/** The fields of all kinds together. */
function allFields(kinds: Kinds = {}): AnyFields {
  return Object.assign({}, ...Object.values(kinds));
}
