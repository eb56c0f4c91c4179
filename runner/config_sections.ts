/**
 * Every field of a run's configuration, declared once: type, range, default and a sentence. Checks, `saev config`, the help
 * of `saev train` and its options `--section.field` are made from these tables.
 *
 * Fields of models, activations, penalties and objectives are declared where these are.
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
import { byteList, choice, orFalse, text } from "./config_fields.ts";

/** Where the rows are, and how they are used. */
export interface DataConfig {
  /** A file of rows, or a folder of shards; {@link openRows} says which there are. */
  readonly path: string;
  /** Of a file of bare numbers, the type of each. */
  readonly format: RowFormat | null;
  /** Numbers in a row, where neither the file says it nor a JSON file beside it. */
  readonly d_model: number | null;
  /** Of a file of several arrays, the name of the one with the rows. */
  readonly key: string | null;
  /** Of shards of several layers, which. */
  readonly layer: number | null;
  /** Of shards, which tokens. */
  readonly tokens: ShardTokens | null;
  /** Of shards with labels, those of the patches that are left out. */
  readonly ignore_labels: readonly number[] | null;
  /** The share of rows, at the end of the file, that training never sees; 0 keeps none back. */
  readonly validation_share: number;
  /** What is done to the inputs; what is measured for it travels with the model. */
  readonly standardise: Standardisation;
  /** Rows that are held in memory and shuffled at a time; without it 256 MiB of them. */
  readonly buffer_rows: number | null;
}

/** The fields of `[data]`. */
export const DATA_FIELDS: EachField<DataConfig> = {
  path: text({
    about:
      "A file of rows, or a folder of shards; relative to this file. https:… and hf:… are addresses; part-*.npy is all " +
      "those files, one after the other.",
    example: "activations.npy",
  }),
  format: optional(choice(ROW_FORMATS, { about: "Of a file of bare numbers, the type of each.", example: "f32" })),
  d_model: optional(integer({
    least: 1,
    about: "Numbers in a row, where neither the file says it nor a JSON file beside it.",
    example: 768,
  })),
  key: optional(text({ about: "Of a file of several arrays, the name of the one with the rows.", example: "x" })),
  layer: optional(integer({ about: "Of shards of several layers, which.", example: 10 })),
  tokens: optional(choice(SHARD_TOKENS, { about: "Of shards, which tokens.", example: "content" })),
  ignore_labels: optional(byteList({
    about: "Of shards with labels, those of the patches that are left out.",
    example: [0],
  })),
  validation_share: number({
    least: 0,
    most: 0.9,
    otherwise: 0.05,
    about:
      "The share of rows, at the end of the file, that training never sees; 0 keeps none back. Of shards, the rows of whole images.",
  }),
  standardise: choice(["none", "mean", "scale", "mean_scale"], {
    otherwise: "none",
    about: "What is done to the inputs; what is measured for it travels with the model.",
  }),
  buffer_rows: optional(integer({
    least: 1,
    about: "Rows that are held in memory and shuffled at a time; without it 256 MiB of them.",
    example: 87381,
  })),
};

/** What the initial values are made of; without any of it, of random numbers alone. */
export type InitConfig = Required<Omit<InitialData, "x">>;

/** The fields of `[init]`. */
export const INIT_FIELDS: EachField<InitConfig> = {
  data_points: boolean({
    otherwise: false,
    about: "Whether the dictionary is made of rows, as much as `reinit_blend` says.",
  }),
  b_dec: choice(CENTRES, { otherwise: "zeros", about: "Where `b_dec` starts." }),
  scale_encoder: boolean({
    otherwise: false,
    about:
      "Whether `W_enc` is scaled so that Σ‖x̂ − b_dec‖ = Σ‖x − b_dec‖ at the first training step (Gao et al. 2024).",
  }),
};

/** How to train. */
export interface LoopConfig {
  /** Rows in a step. */
  readonly batch_size: number;
  /** How many times every row is seen; below 1, which share of them is. Not together with `n_steps`. */
  readonly n_epochs: number | null;
  /** How many steps to make. Not together with `n_epochs`. */
  readonly n_steps: number | null;
  /** Adam, or Muon for the matrices and Adam for the biases. */
  readonly optim: OptimizerOptions["key"];
  /** Peak learning rate. */
  readonly lr: number;
  /** Steps of linear warm-up from 0; `null` leaves it to the length of the run. */
  readonly n_lr_warmup: number | null;
  /** Steps in which the penalty's weight grows from 0 to what it is. */
  readonly n_sparsity_warmup: number;
  /** What a row keeps at first, before it is the activation's `top_k`; only together with `n_k_warmup`. */
  readonly k_start: number | null;
  /** Steps until a row keeps `top_k`. */
  readonly n_k_warmup: number | null;
  /** Largest norm of all gradients together; `false` for no clipping. */
  readonly grad_clip: number | false;
  /** Steps between two reports. */
  readonly log_every: number;
  /** Steps between two checkpoints; the last step always leaves one. */
  readonly checkpoint_every: number;
  /** Minutes after which there is a checkpoint in any case. Both are checked every `log_every` steps. */
  readonly checkpoint_minutes: number;
  /** Seed of the initial values, the order of the rows and the prefixes. */
  readonly seed: number;
}

/** The fields of `[train]`. */
export const LOOP_FIELDS: EachField<LoopConfig> = {
  batch_size: integer({
    least: 1,
    most: MAX_BATCH_ROWS,
    otherwise: TRAIN_DEFAULTS.batch_size,
    about: "Rows in a step.",
  }),
  n_epochs: number({
    otherwise: 1,
    about: "How many times every row is seen; below 1, which share of them is. Not together with `n_steps`.",
  }),
  n_steps: optional(
    integer({ least: 1, about: "How many steps to make. Not together with `n_epochs`.", example: 10000 }),
  ),
  optim: choice(["adam", "muon"], {
    otherwise: "adam",
    about: "Adam, or Muon for the matrices and Adam for the biases.",
  }),
  lr: number({ least: 0, otherwise: TRAIN_DEFAULTS.lr, about: "Peak learning rate." }),
  n_lr_warmup: optional(integer({
    least: 0,
    about: "Steps of linear warm-up from 0; without it 500, or a tenth of the steps, if that is less.",
    example: 500,
  })),
  n_sparsity_warmup: integer({
    least: 0,
    otherwise: TRAIN_DEFAULTS.n_sparsity_warmup,
    about: "Steps in which the penalty's weight grows from 0 to what it is.",
  }),
  k_start: optional(integer({
    least: 1,
    about: "What a row keeps at first, before it is the activation's `top_k`; only together with `n_k_warmup`.",
    example: 256,
  })),
  n_k_warmup: optional(integer({ least: 1, about: "Steps until a row keeps `top_k`.", example: 1000 })),
  grad_clip: orFalse(number({
    otherwise: TRAIN_DEFAULTS.grad_clip,
    about: "Largest norm of all gradients together; `false` for no clipping.",
  })),
  log_every: integer({ least: 1, otherwise: TRAIN_DEFAULTS.log_every, about: "Steps between two reports." }),
  checkpoint_every: integer({
    least: 1,
    otherwise: 1000,
    about: "Steps between two checkpoints; the last step always leaves one.",
  }),
  checkpoint_minutes: number({
    otherwise: 10,
    about: "Minutes after which there is a checkpoint in any case. Both are checked every `log_every` steps.",
  }),
  seed: integer({
    least: 0,
    otherwise: TRAIN_DEFAULTS.seed,
    about: "Seed of the initial values, the order of the rows and the prefixes.",
  }),
};

/** What is written down while it trains. */
export interface LogConfig {
  /** Steps between two measurements of the rows kept back; 0 for none. Without it a twentieth of the run. */
  readonly validation_every: number | null;
}

/** The fields of `[log]`. */
export const LOG_FIELDS: EachField<LogConfig> = {
  validation_every: optional(integer({
    least: 0,
    about:
      "Steps between two measurements of the rows kept back; 0 for none. Without it a twentieth of the run. At most 4096 " +
      "of these rows are taken, every time the same, and the steps are rounded up to whole `log_every`.",
    example: 500,
  })),
};

/** A table of the file; one with `kinds` has a `key`, which says what its other fields are. */
export type Section =
  | { readonly about: string; readonly fields: AnyFields }
  | { readonly about: string; readonly kinds: Kinds; readonly otherwise: string };

/** The tables of the file. */
export const SECTIONS: Readonly<Record<"data" | "sae" | "init" | "objective" | "train" | "log", Section>> = {
  data: { about: "Where the rows are, and how they are used.", fields: { ...DATA_FIELDS } },
  sae: {
    about: "The model.",
    fields: {
      ...CONFIG_FIELDS,
      d_model: {
        ...CONFIG_FIELDS.d_model,
        about: "Width of the inputs, D; always that of the rows.",
        otherwise: null,
        example: 768,
      },
    },
  },
  init: { about: "What the initial values are made of, besides random numbers.", fields: { ...INIT_FIELDS } },
  objective: { about: "What training minimises.", kinds: objectives(), otherwise: "vanilla" },
  train: { about: "How to train.", fields: { ...LOOP_FIELDS } },
  log: { about: "What is written down while it trains.", fields: { ...LOG_FIELDS } },
};

/** Fields of which only one may be given. */
export const EXCLUSIVE_FIELDS: readonly (readonly string[])[] = [
  ["train.n_epochs", "train.n_steps"],
  ["objective.n_prefixes", "objective.group_sizes"],
];

/** The objectives' fields; in a run, when a latent is dead depends on its length. */
function objectives(): Kinds {
  const usual = DEAD_THRESHOLD_TOKENS.toLocaleString("en");
  return Object.fromEntries(
    Object.entries(OBJECTIVES).map(([key, fields]) => [key, {
      ...fields,
      dead_threshold_tokens: {
        ...fields.dead_threshold_tokens,
        about:
          `Rows without firing after which a latent is dead; without it ${usual}, or a tenth of the rows, if that is less; ` +
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

/**
 * The fields that the table `path` has with a `key`, without the tables in it; `undefined` where it is no table whose `key`
 * says so.
 */
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
