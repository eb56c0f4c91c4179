/**
 * What a training run is: the tables `[data]`, `[sae]`, `[init]`, `[objective]` and `[train]` of its configuration file,
 * checked field by field, with every default filled in. Lists in place of values make it a sweep.
 *
 * @module
 */

import { ACTIVATIONS } from "../nn/activations/mod.ts";
import { AUXILIARIES, SPARSITIES } from "../nn/loss_terms.ts";
import type { OptimizerOptions } from "../nn/optim/adam.ts";
import { completeConfig, CONFIG_KEYS, type SparseAutoencoderOptions } from "../nn/config.ts";
import { CENTRES, type InitialData } from "../nn/initial_values.ts";
import { MOST_BATCH_ROWS } from "../nn/limits.ts";
import { getObjective, type ObjectiveOptions } from "../objectives/objective.ts";
import { ROW_FORMATS, type RowFormat } from "../data/row_file.ts";
import type { Standardisation } from "../data/scaling.ts";
import { SHARD_TOKENS, type ShardTokens } from "../data/shards/reader.ts";
import { nearest } from "../kernels/engine/nearest.ts";
import type { ModelOptions } from "../train/options.ts";
import { stepSchedule } from "../train/train.ts";

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

/** What the initial values are made of; without any of it, of random numbers alone. */
export type InitConfig = Required<Omit<InitialData, "x">>;

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
  /** The learning rate's peak. */
  readonly lr: number;
  /** Steps until the peak; `null` leaves it to the length of the run. */
  readonly n_lr_warmup: number | null;
  /** Steps until the penalty has its weight. */
  readonly n_sparsity_warmup: number;
  /** What a row keeps at first, before it is the activation's `top_k`; only together with `n_k_warmup`. */
  readonly k_start: number | null;
  /** Steps until it is. */
  readonly n_k_warmup: number | null;
  /** The gradient's largest norm; `false` leaves it as it is. */
  readonly grad_clip: number | false;
  /** Steps between two reports. */
  readonly log_every: number;
  /** Steps between two checkpoints; the last step always leaves one. */
  readonly checkpoint_every: number;
  /** Minutes after which there is a checkpoint in any case. Both are looked at every `log_every` steps. */
  readonly checkpoint_minutes: number;
  /** Of the initial values, the order of the rows and the prefixes. */
  readonly seed: number;
}

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
}

const OBJECTIVES = {
  "vanilla": ["sparsity_coeff", "target_l0", "dead_threshold_tokens"],
  "matryoshka": ["n_prefixes", "group_sizes", "target_l0", "dead_threshold_tokens"],
};

/**
 * Checks what a configuration file says and fills in the rest.
 *
 * @throws {TypeError} for an unknown field, with the nearest one that exists, or a field of the wrong type.
 * @throws {RangeError} for a number outside its range, or an unknown `key`.
 */
export function completeRunConfig(found: Readonly<Record<string, unknown>>): RunConfig {
  const root = new Table("", found, ["data", "sae", "init", "objective", "train"]);
  const data = completeData(root.table("data", DATA_FIELDS));
  const sae = saeOptions(root.table("sae", CONFIG_KEYS));
  const init = completeInit(root.table("init", INIT_FIELDS));
  const objective = root.keyed("objective", OBJECTIVES, "vanilla").found as unknown as ObjectiveOptions;
  const loop = completeLoop(root.table("train", LOOP_FIELDS));
  checkRun(sae, objective, loop);
  return { data, sae, init, objective, train: loop };
}

/** Says at once what a model, its objective and its schedules would say when the run starts. */
function checkRun(sae: SparseAutoencoderOptions, options: ObjectiveOptions, loop: LoopConfig): void {
  const cfg = completeConfig(sae);
  const objective = getObjective(options);
  objective.sparsity({ cfg });
  objective.prefixes(cfg.d_sae, { seed: loop.seed, step: 0 });
  stepSchedule(cfg, scheduleOptions(loop));
}

/** What {@link train} is told about schedules. */
export function scheduleOptions(
  { n_sparsity_warmup, k_start, n_k_warmup }: LoopConfig,
): Pick<ModelOptions, "n_sparsity_warmup" | "k_start" | "n_k_warmup"> {
  return { n_sparsity_warmup, ...k_start !== null && { k_start }, ...n_k_warmup !== null && { n_k_warmup } };
}

/** One run of a sweep. */
export interface SweptConfig {
  /** What the lists of the file say about this run: `{ "train.lr": 0.001 }`; empty if there are none. */
  readonly changes: Readonly<Record<string, unknown>>;
  /** The whole of it. */
  readonly cfg: RunConfig;
}

/** Fields whose value is a list. */
const LISTS = ["objective.group_sizes", "data.ignore_labels"];

/**
 * The runs that a configuration file describes: one for each combination of what stands in lists, the first list changing
 * slowest. A field that is a list by itself is swept by a list of lists.
 *
 * @throws {TypeError | RangeError} as {@link completeRunConfig}, for an empty list, and for more than `maxRuns` runs, 1000 if
 * left out.
 */
export function completeSweep(
  found: Readonly<Record<string, unknown>>,
  { maxRuns = 1000 }: { readonly maxRuns?: number } = {},
): SweptConfig[] {
  const lists: string[] = [];
  const count = countRuns(found, "", lists);
  if (count > maxRuns) {
    throw new RangeError(
      `its lists make ${count.toLocaleString("en")} runs, more than ${maxRuns.toLocaleString("en")}: ` +
        `${lists.join(", ")}; shorten them, or allow so many with --max-runs`,
    );
  }
  return combinations(found, "").map(({ value, changes }) => ({
    changes,
    cfg: completeRunConfig(value as Record<string, unknown>),
  }));
}

/** How many {@link combinations} there are; says which lists they come from. */
function countRuns(found: unknown, path: string, lists: string[]): number {
  if (isList(found, path)) {
    if (found.length === 0) throw new TypeError(`${path} is an empty list; a sweep needs something to go through`);
    lists.push(`${path} has ${found.length.toLocaleString("en")} values`);
    return found.reduce<number>((sum, one) => sum + (Array.isArray(one) ? 1 : countRuns(one, path, lists)), 0);
  }
  if (!isTable(found)) return 1;
  return Object.entries(found).reduce(
    (product, [field, value]) => product * countRuns(value, path === "" ? field : `${path}.${field}`, lists),
    1,
  );
}

/** Whether it stands for several values. */
function isList(found: unknown, path: string): found is readonly unknown[] {
  return Array.isArray(found) && (!LISTS.includes(path) || Array.isArray(found[0]));
}

function isTable(found: unknown): found is Readonly<Record<string, unknown>> {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}

/** One way to take a value out of every list. */
interface Combination {
  readonly value: unknown;
  readonly changes: Readonly<Record<string, unknown>>;
}

function combinations(found: unknown, path: string): Combination[] {
  if (isList(found, path)) {
    return found.flatMap((one) =>
      (Array.isArray(one) ? [{ value: one, changes: {} }] : combinations(one, path))
        .map(({ value, changes }) => ({ value, changes: { [path]: one, ...changes } }))
    );
  }
  if (!isTable(found)) return [{ value: found, changes: {} }];
  return Object.entries(found).reduce<Combination[]>((all, [field, value]) => {
    const ways = combinations(value, path === "" ? field : `${path}.${field}`);
    return all.flatMap((one) =>
      ways.map((way) => ({
        value: { ...one.value as object, [field]: way.value },
        changes: { ...one.changes, ...way.changes },
      }))
    );
  }, [{ value: {}, changes: {} }]);
}

const DATA_FIELDS = [
  "path",
  "format",
  "d_model",
  "key",
  "layer",
  "tokens",
  "ignore_labels",
  "validation_share",
  "standardise",
  "buffer_rows",
];

function completeData(table: Table): DataConfig {
  const path = table.text("path");
  if (!path) {
    throw new TypeError(`data.path is ${path === "" ? "empty" : "missing"}: the file with the rows to train on`);
  }
  return {
    path,
    format: table.choice("format", ROW_FORMATS) ?? null,
    d_model: table.integer("d_model", 1) ?? null,
    key: table.text("key") ?? null,
    layer: table.integer("layer", Number.MIN_SAFE_INTEGER) ?? null,
    tokens: table.choice("tokens", SHARD_TOKENS) ?? null,
    ignore_labels: table.bytes("ignore_labels") ?? null,
    validation_share: table.number("validation_share", 0, 0.9) ?? 0.05,
    standardise: table.choice("standardise", ["none", "mean", "scale", "mean_scale"]) ?? "none",
    buffer_rows: table.integer("buffer_rows", 1) ?? null,
  };
}

/** The names of the fields that each kind of something has. */
function fieldNames(kinds: Readonly<Record<string, object>>): Record<string, string[]> {
  return Object.fromEntries(Object.entries(kinds).map(([key, fields]) => [key, Object.keys(fields)]));
}

/** Only names are checked here; values are for {@link completeConfig} to check. */
function saeOptions(table: Table): SparseAutoencoderOptions {
  if (table.has("activation")) {
    const fields = Object.entries(ACTIVATIONS).map(([key, kind]) => [key, kind.fields]);
    const activation = table.keyed("activation", fieldNames(Object.fromEntries(fields)));
    if (activation.has("sparsity")) activation.keyed("sparsity", fieldNames(SPARSITIES));
    if (activation.has("aux")) activation.keyed("aux", fieldNames(AUXILIARIES));
  }
  return table.found as SparseAutoencoderOptions;
}

const INIT_FIELDS = ["data_points", "b_dec", "scale_encoder"];

function completeInit(table: Table): InitConfig {
  return {
    data_points: table.boolean("data_points") ?? false,
    b_dec: table.choice("b_dec", CENTRES) ?? "zeros",
    scale_encoder: table.boolean("scale_encoder") ?? false,
  };
}

const LOOP_FIELDS = [
  "batch_size",
  "n_epochs",
  "n_steps",
  "optim",
  "lr",
  "n_lr_warmup",
  "n_sparsity_warmup",
  "k_start",
  "n_k_warmup",
  "grad_clip",
  "log_every",
  "checkpoint_every",
  "checkpoint_minutes",
  "seed",
];

function completeLoop(table: Table): LoopConfig {
  const [n_epochs, n_steps] = [table.positive("n_epochs"), table.integer("n_steps", 1)];
  if (n_epochs !== undefined && n_steps !== undefined) {
    throw new TypeError("train.n_epochs and train.n_steps say the same thing in two ways; give one of them");
  }
  return {
    batch_size: table.integer("batch_size", 1, MOST_BATCH_ROWS) ?? 4096,
    n_epochs: n_steps === undefined ? n_epochs ?? 1 : null,
    n_steps: n_steps ?? null,
    optim: table.choice("optim", ["adam", "muon"]) ?? "adam",
    lr: table.number("lr", 0, Infinity) ?? 4e-4,
    n_lr_warmup: table.integer("n_lr_warmup", 0) ?? null,
    n_sparsity_warmup: table.integer("n_sparsity_warmup", 0) ?? 0,
    k_start: table.integer("k_start", 1) ?? null,
    n_k_warmup: table.integer("n_k_warmup", 1) ?? null,
    grad_clip: table.isFalse("grad_clip") ? false : table.positive("grad_clip") ?? 1,
    log_every: table.integer("log_every", 1) ?? 25,
    checkpoint_every: table.integer("checkpoint_every", 1) ?? 1000,
    checkpoint_minutes: table.positive("checkpoint_minutes") ?? 10,
    seed: table.integer("seed", 0) ?? 0,
  };
}

/** One table of the file, read field by field. */
class Table {
  readonly found: Readonly<Record<string, unknown>>;
  readonly #name: string;

  /** @throws {TypeError} if there is a field that the table does not have. */
  constructor(name: string, found: Readonly<Record<string, unknown>>, fields: readonly string[]) {
    this.found = found;
    this.#name = name;
    for (const field of Object.keys(found)) {
      if (fields.includes(field)) continue;
      const near = nearest(field, fields);
      const all = fields.length === 0 ? "no fields" : fields.join(", ");
      const hint = near === undefined
        ? `${name === "" ? "there is" : `${name} has`} ${all}`
        : `did you mean ${this.#path(near)}?`;
      throw new TypeError(`unknown field ${this.#path(field)}; ${hint}`);
    }
  }

  has(field: string): boolean {
    return this.found[field] !== undefined;
  }

  /** A table in this one; empty if it is not there. */
  table(field: string, fields: readonly string[]): Table {
    return new Table(this.#path(field), this.#record(field), fields);
  }

  /** A table whose `key` says which fields it may have. */
  keyed(field: string, kinds: Readonly<Record<string, readonly string[]>>, otherwise?: string): Table {
    const record = this.#record(field);
    const key = record.key ?? otherwise;
    const fields = typeof key === "string" && Object.hasOwn(kinds, key) ? kinds[key] : undefined;
    if (fields === undefined) throw this.#unknown(`${field}.key`, key, Object.keys(kinds));
    return new Table(this.#path(field), { ...record, key }, ["key", ...fields]);
  }

  text(field: string): string | undefined {
    const value = this.found[field];
    if (value !== undefined && typeof value !== "string") throw this.#wrong(field, "a text", value);
    return value;
  }

  choice<T extends string>(field: string, choices: readonly T[]): T | undefined {
    const value = this.found[field];
    if (value !== undefined && !choices.includes(value as T)) throw this.#unknown(field, value, choices);
    return value as T | undefined;
  }

  number(field: string, least: number, most: number): number | undefined {
    const value = this.found[field];
    if (value === undefined) return undefined;
    if (typeof value !== "number") throw this.#wrong(field, "a number", value);
    if (!(value >= least && value <= most && Number.isFinite(value))) {
      const range = most === Infinity ? `a finite number of at least ${least}` : `between ${least} and ${most}`;
      throw new RangeError(`${this.#path(field)} must be ${range}, found ${value}`);
    }
    return value;
  }

  integer(field: string, least: number, most: number = Infinity): number | undefined {
    const value = this.number(field, least, most);
    if (value !== undefined && !Number.isSafeInteger(value)) throw this.#wrong(field, "an integer", value);
    return value;
  }

  /** A list of whole numbers from 0 to 255. */
  bytes(field: string): readonly number[] | undefined {
    const value = this.found[field];
    if (value === undefined) return undefined;
    const isByte = (one: unknown) => typeof one === "number" && Number.isInteger(one) && one >= 0 && one <= 255;
    if (!Array.isArray(value) || !value.every(isByte)) {
      throw this.#wrong(field, "a list of integers from 0 to 255", value);
    }
    return value;
  }

  positive(field: string): number | undefined {
    const value = this.number(field, 0, Infinity);
    if (value === 0) throw new RangeError(`${this.#path(field)} must be positive, found 0`);
    return value;
  }

  boolean(field: string): boolean | undefined {
    const value = this.found[field];
    if (value !== undefined && typeof value !== "boolean") throw this.#wrong(field, "true or false", value);
    return value;
  }

  isFalse(field: string): boolean {
    return this.found[field] === false;
  }

  #path(field: string): string {
    return this.#name === "" ? field : `${this.#name}.${field}`;
  }

  #record(field: string): Readonly<Record<string, unknown>> {
    const value = this.found[field] ?? {};
    if (typeof value !== "object" || Array.isArray(value)) throw this.#wrong(field, "a table", value);
    return value as Record<string, unknown>;
  }

  #wrong(field: string, expected: string, found: unknown): TypeError {
    return new TypeError(`${this.#path(field)} must be ${expected}, found ${JSON.stringify(found)}`);
  }

  #unknown(field: string, found: unknown, choices: readonly string[]): RangeError {
    const near = typeof found === "string" ? nearest(found, choices) : undefined;
    const hint = near === undefined ? `expected one of ${choices.join(", ")}` : `did you mean ${near}?`;
    const what = found === undefined ? "missing" : JSON.stringify(found);
    return new RangeError(`${this.#path(field)} is ${what}; ${hint}`);
  }
}
