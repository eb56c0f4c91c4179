#!/usr/bin/env -S deno run -A
/**
 * The command line: `saev demo`, `train`, `evaluate`, `inspect`, `convert` and `tune`.
 *
 * Arguments are parsed here; the work is done in `train/` and `examples/`. Results go to stdout, progress and errors to
 * stderr. A mistake in the arguments or in a configuration file ends with 2, any other failure with 1, Ctrl-C with 130.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { parse as parseToml } from "@std/toml";
import { DEMO_DEFAULTS, type DemoOptions, runDemo, SLOW_DRIVER_STEPS } from "./examples/demo.ts";
import {
  type Concession,
  inspectCheckpoint,
  type Inspection,
  openSource,
  readCheckpoint,
  type ReadOptions,
  type SourceOptions,
  TARGET_FORMATS,
  type TensorSummary,
  writeCheckpoint,
} from "./io/mod.ts";
import { defaultDevice, type ProductShape, restoreTuning, tune, type Tuning } from "./kernels/mod.ts";
import { CheckpointError, load } from "./mod.ts";
import {
  adapterName,
  batchesInOrder,
  completeSweep,
  DownloadLine,
  evaluate,
  measureCoherence,
  metricsTable,
  nearest,
  openRows,
  ProgressLine,
  type ProgressState,
  type RowFile,
  RunDirectory,
  type RunPlan,
  type RunResult,
  runSweep,
  runTraining,
  type SweepRun,
  type SweptConfig,
  TunerFile,
  typedArraysAsArrays,
} from "./train/mod.ts";
import manifest from "./deno.json" with { type: "json" };

/** One option of a command. */
interface Option {
  /** What its value is called in the help; a flag has none. */
  readonly value?: string;
  readonly help: string;
}

/** One command. */
interface Command {
  readonly summary: string;
  readonly positionals: readonly string[];
  readonly options: Readonly<Record<string, Option>>;
  readonly details?: string;
  /** Does the work and returns the exit code. */
  readonly run: (args: Arguments, signal: AbortSignal) => Promise<number>;
}

/** A mistake of whoever typed the command. */
class UsageError extends Error {}

const INTERRUPTED = 130;

const CHECKPOINT_DETAILS =
  `CHECKPOINT is a file, a folder, a web address, or hf:owner/repository/path@revision, of saev, SAELens,
dictionary_learning, sparsify, OpenAI, Gemma Scope, ViT-Prisma, Llamascopium or Llama Scope. What it is is known by its content.`;

/** What a file may leave open and its user know. */
const READ_OPTIONS: Readonly<Record<string, Option>> = {
  "subtract-b-dec": {
    value: "WHETHER",
    help: "yes or no: the encoder formula, where you know better than saev's schema",
  },
  "input-scale": { value: "X", help: "how often larger the inputs are than those trained on, where the file lacks it" },
};

const CONCESSIONS = ["normalised-rows", "rescaled-codes"] as const satisfies readonly Concession[];

const COMMANDS: Readonly<Record<string, Command>> = {
  demo: {
    summary: "Train on the photographs that come with the package, and show what was learned.",
    positionals: [],
    options: {
      out: { value: "DIR", help: `folder for sae.pt, metrics.json, features.png, report.html (${DEMO_DEFAULTS.out})` },
      steps: { value: "N", help: `training steps (${DEMO_DEFAULTS.steps}; ${SLOW_DRIVER_STEPS} on SwiftShader)` },
      seed: { value: "N", help: `of the initial values and the order of the patches (${DEMO_DEFAULTS.seed})` },
      activation: { value: "KEY", help: `top-k, batch-top-k, relu or jump-relu (${DEMO_DEFAULTS.activation})` },
      "d-sae": { value: "N", help: `number of latents (${DEMO_DEFAULTS.d_sae})` },
      "top-k": { value: "N", help: `active latents a patch (${DEMO_DEFAULTS.top_k})` },
      "batch-size": { value: "N", help: `patches a step (${DEMO_DEFAULTS.batch_size})` },
      lr: { value: "X", help: `peak learning rate (${DEMO_DEFAULTS.lr})` },
    },
    run: demo,
  },
  train: {
    summary: "Train on a matrix in a file, as a configuration file says.",
    positionals: ["CONFIG"],
    options: {
      out: { value: "DIR", help: "folder for the run (runs/ and the configuration's name)" },
      overwrite: { help: "replace the runs that the folder holds" },
      resume: { help: "go on with the runs that the folder holds, from their last checkpoints" },
    },
    details:
      `CONFIG is a TOML file. A list in place of a value, such as lr = [1e-3, 1e-4], makes a sweep: one run for each combination of what stands in
lists, the first list changing slowest, each in a folder of its own in DIR, with a summary in sweep.json. Runs with the
same rows, batches and seed train together and load their data once; each becomes what it is alone.

Only data.path is needed; these are the defaults:

  [data]
  path = "activations.npy"     # beside CONFIG: .npy, or raw little-endian float32
  format = "npy"               # npy or f32; by the file's name
  d_model = 768                # for f32, unless activations.json beside it has a "shape"
  validation_share = 0.05      # of the rows, at the end of the file
  standardise = "none"         # none, mean, scale or mean_scale
  buffer_rows = 87381          # rows shuffled at a time; 256 MiB of them

  [sae]
  d_sae = 16384
  activation = { key = "top-k", top_k = 32, aux = { key = "auxk" } }
                               # or relu, batch-top-k, jump-relu

  [init]                       # from the rows to train on
  data_points = false          # true: the dictionary of sae.reinit_blend of them
  b_dec = "zeros"              # zeros, mean or geometric-median
  scale_encoder = false        # true: reconstructions as long as the rows

  [objective]
  key = "vanilla"              # or matryoshka
  # target_l0 = 32             # relu, jump-relu: moves the penalty's weight to it

  [train]
  batch_size = 4096
  n_epochs = 1                 # or n_steps
  optim = "adam"               # or muon
  lr = 4e-4
  n_lr_warmup = 500
  n_sparsity_warmup = 0
  # k_start = 256              # top-k, batch-top-k: from so many to top_k
  # n_k_warmup = 1000          # in so many steps
  grad_clip = 1.0              # false for none
  log_every = 25
  checkpoint_every = 1000
  seed = 0`,
    run: trainCommand,
  },
  evaluate: {
    summary: "Measure a checkpoint on a matrix in a file.",
    positionals: ["CHECKPOINT", "DATA"],
    options: {
      ...READ_OPTIONS,
      weights: {
        value: "HOW",
        help: "f32 or f16: how the matrices lie on the device; f16 takes half of its memory (f32)",
      },
      json: { help: "print JSON, with a number for each latent where there is one" },
      monosemanticity: { help: "measure how alike the rows are that excite a latent" },
      embeddings: { value: "FILE", help: "the same, comparing the rows of this matrix in place of DATA's" },
      "dense-above": { value: "X", help: "latents active on more than this share of the rows are dense (0.01)" },
      "almost-dead-below": { value: "X", help: "latents active on less than this share are almost dead (1e-7)" },
      "batch-size": { value: "N", help: "rows at a time (2048)" },
    },
    details: `DATA and FILE are .npy or raw little-endian float32. A raw FILE has a JSON file of its name beside it that
holds its "shape". Monosemanticity takes 8 bytes for each latent and column of FILE.`,
    run: evaluateCommand,
  },
  inspect: {
    summary: "Say what a checkpoint of any format is: configuration, tensors, formula, warnings.",
    positionals: ["CHECKPOINT"],
    options: { ...READ_OPTIONS, json: { help: "print JSON" } },
    details: CHECKPOINT_DETAILS,
    run: inspectCommand,
  },
  convert: {
    summary: "Write a checkpoint of any format in another one.",
    positionals: ["CHECKPOINT", "OUT"],
    options: {
      to: { value: "FORMAT", help: TARGET_FORMATS.join(", ") },
      lossy: { help: "write also what the format computes differently, and say what that is" },
      accept: { value: "WHAT", help: "normalised-rows, rescaled-codes or both, with a comma between" },
      ...READ_OPTIONS,
      json: { help: "print JSON" },
    },
    details: `${CHECKPOINT_DETAILS}

OUT is a file, and a folder for saelens and dictionary_learning. saev is read by the Python package, saev_nn by this
library alone, which keeps everything; onnx computes x_hat and f_x of x, onnx_encoder f_x alone.`,
    run: convertCommand,
  },
  tune: {
    summary: "Measure which way of multiplying matrices is the fastest on this machine, and remember it.",
    positionals: [],
    options: {
      "batch-size": { value: "N", help: "rows of a step (1024)" },
      "d-model": { value: "N", help: "width of the rows (768)" },
      "d-sae": { value: "N", help: "number of latents (6144)" },
      budget: { value: "SECONDS", help: "start no further candidate after so long, for each kind of product (60)" },
      json: { help: "print JSON" },
    },
    details:
      `Nothing has to be tuned: there are defaults. All ways give the same bits. What is found goes into a file in
the cache folder (XDG_CACHE_HOME, or ~/.cache), where demo, train and evaluate look for it.`,
    run: tuneCommand,
  },
};

/** Runs the command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const aborter = new AbortController();
  const interrupt = (): void => {
    if (aborter.signal.aborted) Deno.exit(INTERRUPTED);
    console.error("\nstopping after this step; once more to stop at once");
    aborter.abort();
  };
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    return await dispatch(args, aborter.signal);
  } catch (error) {
    if (error === aborter.signal.reason) return INTERRUPTED;
    const message = error instanceof Error ? error.message : String(error);
    console.error(`error: ${message.replaceAll(/\s*\n\s*/g, " ")}`);
    return error instanceof UsageError ? 2 : 1;
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}

async function dispatch(args: readonly string[], signal: AbortSignal): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    (name === undefined ? console.error : console.log)(generalHelp());
    return name === undefined ? 2 : 0;
  }
  if (name === "--version") {
    console.log(manifest.version);
    return 0;
  }
  if (name.startsWith("-")) throw unknown("option", name, ["--help", "--version"]);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw unknown("command", name, Object.keys(COMMANDS));
  const parsed = new Arguments(name, command, rest);
  if (!parsed.flag("help")) return await command.run(parsed, signal);
  console.log(commandHelp(name, command));
  return 0;
}

/** The arguments of one command, checked against its declaration. */
class Arguments {
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;

  /** @throws {UsageError} for what the command does not have. */
  constructor(name: string, { options, positionals }: Command, args: readonly string[]) {
    const names = Object.keys(options);
    const known = [...names.map((option) => `--${option}`), "--help"];
    const { _: found, ...values } = parseArgs([...args], {
      boolean: ["help", ...names.filter((option) => options[option]!.value === undefined)],
      string: ["_", ...names.filter((option) => options[option]!.value !== undefined)],
      alias: { h: "help" },
      unknown: (argument, key) => {
        if (key !== undefined) throw unknown("option", argument.replace(/=.*/s, ""), known);
        return true;
      },
    });
    this.positionals = found.map(String);
    this.#values = values;
    if (values.help) return;
    if (found.length !== positionals.length) {
      const expected = positionals.length === 0 ? "no arguments" : positionals.join(" ");
      const given = found.length === 0 ? "none" : found.join(" ");
      throw new UsageError(`${name} takes ${expected}, found ${given}; see saev ${name} --help`);
    }
    for (const option of names) {
      if (values[option] === "") throw new UsageError(`--${option} needs a value: ${options[option]!.help}`);
    }
  }

  flag(option: string): boolean {
    return this.#values[option] === true;
  }

  text(option: string): string | undefined {
    return this.#values[option] as string | undefined;
  }

  choice<T extends string>(option: string, choices: readonly T[]): T | undefined {
    const found = this.text(option);
    if (found === undefined || choices.includes(found as T)) return found as T | undefined;
    const near = nearest(found, choices);
    const hint = near === undefined ? `expected one of ${choices.join(", ")}` : `did you mean ${near}?`;
    throw new UsageError(`--${option} is ${JSON.stringify(found)}; ${hint}`);
  }

  number(option: string, least: number): number | undefined {
    return this.#numberWithin(option, least, Number.MAX_VALUE, `of at least ${least}`);
  }

  share(option: string): number | undefined {
    return this.#numberWithin(option, 0, 1, "from 0 to 1");
  }

  #numberWithin(option: string, least: number, most: number, expected: string): number | undefined {
    const found = this.text(option);
    if (found === undefined) return undefined;
    const value = Number(found);
    if (found.trim() !== "" && value >= least && value <= most) return value;
    throw new UsageError(`--${option} must be a number ${expected}, found ${JSON.stringify(found)}`);
  }

  integer(option: string, least: number): number | undefined {
    const value = this.number(option, least);
    if (value === undefined || Number.isSafeInteger(value)) return value;
    throw new UsageError(`--${option} must be an integer, found ${value}`);
  }
}

function unknown(what: string, found: string, known: readonly string[]): UsageError {
  const near = nearest(found, known);
  const hint = near === undefined ? `there is ${known.join(", ")}` : `did you mean ${near}?`;
  return new UsageError(`unknown ${what} ${found}; ${hint}`);
}

async function demo(args: Arguments, signal: AbortSignal): Promise<number> {
  const isSlow = Deno.env.get("SAEV_SOFTWARE_DRIVER") === "swiftshader";
  const steps = args.integer("steps", 1);
  const given = {
    out: args.text("out"),
    steps: steps ?? (isSlow ? SLOW_DRIVER_STEPS : undefined),
    seed: args.integer("seed", 0),
    activation: args.choice("activation", ["top-k", "batch-top-k", "relu", "jump-relu"]),
    d_sae: args.integer("d-sae", 1),
    top_k: args.integer("top-k", 1),
    batch_size: args.integer("batch-size", 1),
    lr: args.number("lr", 0),
  };
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  if (isSlow && steps === undefined) {
    say(
      `SwiftShader computes about ten times slower than Mesa: ${SLOW_DRIVER_STEPS} steps, not ${DEMO_DEFAULTS.steps}`,
    );
  }
  if (await useTuning()) say(TUNED);
  const metrics = await runDemo({ ...DEMO_DEFAULTS, ...options as Partial<DemoOptions> }, { say, signal });
  return metrics === null ? INTERRUPTED : 0;
}

async function trainCommand(args: Arguments, signal: AbortSignal): Promise<number> {
  const file = args.positionals[0]!;
  const config = await openSource(file);
  const text = new TextDecoder().decode(await config.read(0, config.size));
  const sweep = sweepOf(file, text);
  const folder = file.includes("/") ? file.replace(/[^/]*$/, "") : "";
  const out = args.text("out") ?? `runs/${file.slice(folder.length).replace(/\.toml$/, "")}`;
  const resume = args.flag("resume");
  if (resume && args.flag("overwrite")) {
    throw new UsageError("--resume and --overwrite contradict each other; give one");
  }
  const overwrite = resume || args.flag("overwrite");
  using files = new DisposableStack();
  const opened = new Map<string, RowFile>();
  const sources: RowFile[] = [];
  for (const { cfg: { data } } of sweep) {
    const key = JSON.stringify(data);
    const path = data.path.startsWith("/") ? data.path : folder + data.path;
    const rows = opened.get(key) ?? files.use(await openRows(path, data));
    opened.set(key, rows);
    sources.push(rows);
  }
  const whole = await RunDirectory.create(out, { overwrite });
  const isSweep = sweep.length > 1;
  const digits = String(sweep.length - 1).length;
  const names = sweep.map((_, i) => String(i).padStart(digits, "0"));
  const runs: SweepRun[] = [];
  for (const [i, { cfg }] of sweep.entries()) {
    const directory = isSweep ? await RunDirectory.create(`${out}/${names[i]}`, { overwrite }) : whole;
    runs.push({ cfg, source: sources[i]!, directory, resume });
  }
  await whole.write("config.toml", text);
  if (await useTuning()) say(TUNED);
  let progress: ProgressLine | undefined;
  const options = {
    signal,
    onStart: (
      { n_models, n_steps, firstStep, n_rows, n_validation, batch_size, d_model, adapter }: RunPlan,
    ) => {
      progress?.[Symbol.dispose]();
      say(
        `${n_rows.toLocaleString("en")} rows of ${d_model} to train on, ${n_validation.toLocaleString("en")} kept back`,
      );
      const models = n_models > 1 ? `${n_models} models, ` : "";
      const done = firstStep > 0 ? `, of which ${firstStep} are made,` : "";
      say(`${models}${n_steps} steps of ${batch_size}${done} on ${adapter}`);
      progress = new ProgressLine({ n_steps, firstStep, batch_size });
    },
    onProgress: (state: ProgressState) => progress?.show(state),
  };
  const trained = isSweep
    ? runSweep(runs, options)
    : runTraining(runs[0]!.cfg, runs[0]!.source, { ...runs[0]!, ...options });
  const results = [await trained.finally(() => progress?.[Symbol.dispose]())].flat();
  if (isSweep) {
    const outcomes = results.map((result, i) => outcomeOf(names[i]!, sweep[i]!, result));
    await whole.writeJson("sweep.json", outcomes);
    say(table(outcomes.map(({ directory, changes, nmse, l0, diverged }) => [
      `${directory}  ${
        Object.entries(changes).map(([field, value]) => `${field} ${JSON.stringify(value)}`).join(", ")
      }`,
      diverged ?? (nmse === null ? "stopped" : `NMSE ${nmse.toFixed(4)}, L0 ${l0!.toFixed(1)}`),
    ])));
    say(`look at ${out}/${names[0]}/report.html and its neighbours`);
    return results.some(({ isInterrupted }) => isInterrupted) ? INTERRUPTED : 0;
  }
  const [result] = results as [RunResult];
  if (result.isInterrupted) {
    say(`stopped after ${result.steps} steps; ${out}/sae.pt holds the model as it was, and --resume goes on`);
    return INTERRUPTED;
  }
  const { nmse, l0, dead_fraction } = result.metrics!;
  say(
    `${result.evaluated_on}: NMSE ${nmse.toFixed(4)}, L0 ${l0.toFixed(1)}, ${(100 * dead_fraction).toFixed(1)} % dead`,
  );
  say(`look at ${out}/report.html`);
  return 0;
}

/** A run in a sweep's summary. */
function outcomeOf(directory: string, { changes }: SweptConfig, { metrics, steps, diverged }: RunResult) {
  const { nmse = null, l0 = null, dead_fraction = null } = metrics ?? {};
  return { directory, changes, steps, nmse, l0, dead_fraction, diverged: diverged?.message ?? null };
}

/** @throws {UsageError} for a configuration that says what it cannot. */
function sweepOf(file: string, text: string): SweptConfig[] {
  try {
    return completeSweep(parseToml(text));
  } catch (error) {
    throw new UsageError(`${file}: ${error instanceof Error ? error.message : error}`);
  }
}

async function evaluateCommand(args: Arguments, signal: AbortSignal): Promise<number> {
  const [checkpoint, data] = args.positionals as [string, string];
  const [batchSize, file] = [args.integer("batch-size", 1) ?? 2048, args.text("embeddings")];
  const [dense_above, almost_dead_below] = [args.share("dense-above"), args.share("almost-dead-below")];
  const thresholds = {
    ...dense_above === undefined ? {} : { dense_above },
    ...almost_dead_below === undefined ? {} : { almost_dead_below },
  };
  const weights = args.choice("weights", ["f32", "f16"]) ?? "f32";
  using sae = await opening(
    checkpoint,
    signal,
    (source) => load(checkpoint, { ...source, ...readOptions(args), weights }),
  );
  using rows = await openRows(data, { format: formatOf(data), d_model: sae.cfg.d_model });
  await useTuning();
  using embeddings = file === undefined ? undefined : await openRows(file, { format: formatOf(file), d_model: null });
  const batches = batchesInOrder(rows, batchSize);
  const metrics = embeddings || args.flag("monosemanticity")
    ? await evaluate(sae, batches, { ...thresholds, monosemanticity: embeddings ? { embeddings } : true })
    : await evaluate(sae, batches, thresholds);
  const measured = { ...metrics, coherence: await measureCoherence(sae) };
  const adapter = adapterName(sae.device);
  if (args.flag("json")) {
    console.log(JSON.stringify({ checkpoint, data, adapter, ...measured }, typedArraysAsArrays));
  } else {
    const { n_rows, density } = metrics;
    const size = `${n_rows.toLocaleString("en")} rows of ${rows.d_model}, ${
      density.length.toLocaleString("en")
    } latents`;
    console.log(`${checkpoint} on ${data}: ${size}, on ${adapter}\n\n${metricsTable(measured)}`);
  }
  return 0;
}

/** Shows the way of whatever is downloaded meanwhile, and names the checkpoint where an error does not. */
async function opening<T>(
  checkpoint: string,
  signal: AbortSignal,
  work: (source: SourceOptions) => Promise<T>,
): Promise<T> {
  using line = new DownloadLine();
  try {
    return await work({ hub: { signal, onProgress: (state) => line.show(state) } });
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.message.includes(checkpoint)) throw error;
    throw new CheckpointError(`${checkpoint}: ${error.message}`, { cause: error });
  }
}

function readOptions(args: Arguments): ReadOptions {
  const subtracts = args.choice("subtract-b-dec", ["yes", "no"]);
  const scale = args.number("input-scale", 0);
  return {
    ...subtracts && { subtract_b_dec: subtracts === "yes" },
    ...scale !== undefined && { input: { mean: null, scale } },
  };
}

async function inspectCommand(args: Arguments, signal: AbortSignal): Promise<number> {
  const options = readOptions(args);
  const checkpoint = args.positionals[0]!;
  const found = await opening(
    checkpoint,
    signal,
    (source) => inspectCheckpoint(checkpoint, { ...source, ...options }),
  );
  if (args.flag("json")) console.log(JSON.stringify(found, typedArraysAsArrays));
  else console.log(describe(found).join("\n"));
  return 0;
}

function describe({ format, schema, configs, tensors, formula, accept, warnings }: Inspection): string[] {
  const lines = [`format    ${format}${schema === null ? "" : `, schema ${oneLine(schema)}`}`];
  for (const line of formula) lines.push(`${lines.length === 1 ? "computes" : "        "}  ${line}`);
  if (accept.length > 0) lines.push(`accept    ${accept.join(", ")}`);
  for (const [file, config] of Object.entries(configs)) {
    lines.push("", `${oneLine(file)}:`, ...configLines(config));
  }
  lines.push("", "tensors:", table(tensors.map(describeTensor)));
  if (warnings.length > 0) lines.push("", ...warnings.map((warning) => `warning: ${oneLine(warning)}`));
  return lines;
}

/** The fields of a configuration, a line each; those of an object in it behind its name. */
function configLines(config: unknown, path = ""): string[] {
  const isObject = typeof config === "object" && config !== null && !Array.isArray(config);
  const fields = isObject ? Object.entries(config) : [];
  if (fields.length === 0) return [`  ${path && `${oneLine(path)} = `}${cut(config)}`];
  return fields.flatMap(([name, value]) => configLines(value, path === "" ? name : `${path}.${name}`));
}

function cut(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function describeTensor({ name, shape, dtype, statistics }: TensorSummary): [string, string] {
  const what = `${dtype} [${shape.join(", ")}]`.padEnd(24);
  if (statistics === null) return [oneLine(name), `${what} empty`];
  const { min, max, mean, std, n_zero } = statistics;
  const [low, high, middle, spread] = [min, max, mean, std].map((value) => Number(value.toPrecision(4)));
  const zeros = n_zero > 0 ? `, ${n_zero} zeros` : "";
  return [oneLine(name), `${what} ${low} to ${high}, mean ${middle}, std ${spread}${zeros}`];
}

/** Text out of a file without anything that a terminal would obey. */
function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]+/g, " ");
}

async function convertCommand(args: Arguments, signal: AbortSignal): Promise<number> {
  const [from, to] = args.positionals as [string, string];
  const format = args.choice("to", TARGET_FORMATS);
  if (format === undefined) throw new UsageError(`convert needs --to; there is ${TARGET_FORMATS.join(", ")}`);
  const accept = args.text("accept")?.split(",") ?? [];
  const unknownOne = accept.find((what) => !CONCESSIONS.includes(what as Concession));
  if (unknownOne !== undefined) throw unknown("value of --accept", unknownOne, CONCESSIONS);
  const options = { ...readOptions(args), accept: accept as Concession[] };
  const model = await opening(from, signal, (source) => readCheckpoint(from, { ...source, ...options }));
  const { paths, lost } = await writeCheckpoint(to, model, { format, lossy: args.flag("lossy") });
  if (args.flag("json")) console.log(JSON.stringify({ format, paths, lost }));
  else {
    for (const path of paths) console.log(path);
    for (const what of lost) say(`lost: ${what}`);
  }
  return 0;
}

async function tuneCommand(args: Arguments): Promise<number> {
  const [B, D, S] = [
    args.integer("batch-size", 1) ?? 1024,
    args.integer("d-model", 1) ?? 768,
    args.integer("d-sae", 1) ?? 6144,
  ];
  const budget = args.number("budget", 0) ?? 60;
  // The encoder, the dense decoder and its gradient; the encoder of a small model, and that of a few rows.
  const shapes: ProductShape[] = [
    { layout: "nt", M: B, N: S, K: D },
    { layout: "nn", M: B, N: D, K: S },
    { layout: "tn", M: S, N: D, K: B },
    { layout: "nt", M: 512, N: 512, K: 100 },
    { layout: "nt", M: Math.min(B, 8), N: S, K: D },
  ];
  const [device, store] = [await defaultDevice(), await TunerFile.open()];
  const tunings = await tune(device, { store, shapes, budget });
  const adapter = adapterName(device);
  if (args.flag("json")) console.log(JSON.stringify({ adapter, file: store.path, tunings }));
  else {
    console.log([adapter, ...tunings.map(describeTuning)].join("\n\n"));
    say(store.path === null ? "there is no cache folder: nothing was remembered" : `remembered in ${store.path}`);
  }
  return 0;
}

function describeTuning({ class: of, shape: { M, N, K }, chosen, default: usual, tiles }: Tuning): string {
  const rows = tiles.map(({ tile, state, gflops, compileMs }): [string, string] => {
    const speed = gflops === null ? "" : `${gflops.toFixed(1).padStart(8)} GFLOP/s`;
    const compiled = compileMs === null ? "" : `${(compileMs / 1000).toFixed(1).padStart(6)} s to compile`;
    const notes = [
      ...tile === chosen ? ["chosen"] : [],
      ...tile === usual ? ["default"] : [],
      ...state === "timed" ? [] : [state],
    ];
    return [tile, `${speed.padEnd(18)}${compiled.padEnd(22)}${notes.join(", ")}`.trimEnd()];
  });
  return `${of}: ${M} × ${N} × ${K}\n${table(rows)}`;
}

/** Multiplies as `saev tune` found best on this machine, if it was asked; says whether it was. */
async function useTuning(): Promise<boolean> {
  return await restoreTuning(await defaultDevice(), await TunerFile.open()) > 0;
}

const TUNED = "matrices are multiplied as saev tune found best";

function formatOf(file: string): "npy" | "f32" {
  return file.endsWith(".npy") ? "npy" : "f32";
}

function say(line: string): void {
  console.error(line);
}

function generalHelp(): string {
  const rows = Object.entries(COMMANDS).map(([name, { positionals, summary }]): [string, string] => [
    [name, ...positionals].join(" "),
    summary,
  ]);
  return `saev ${manifest.version}: sparse autoencoders on the GPU

Usage: saev COMMAND [OPTIONS]

${table(rows)}

  --help     this, or after a command what it does
  --version  the version`;
}

function commandHelp(name: string, { summary, positionals, options, details }: Command): string {
  const rows = Object.entries(options).map(([option, { value, help }]): [string, string] => [
    `--${option}${value === undefined ? "" : ` ${value}`}`,
    help,
  ]);
  const usage = ["saev", name, ...positionals, "[OPTIONS]"].join(" ");
  const parts = [summary, `Usage: ${usage}`, table([...rows, ["--help", "this"]])];
  return [...parts, ...details === undefined ? [] : [details]].join("\n\n");
}

/** Two columns. */
function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
}

if (import.meta.main) Deno.exit(await main(Deno.args));
