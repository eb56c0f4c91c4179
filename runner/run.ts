/**
 * Training runs, from configuration to folder: read rows, train, evaluate, write checkpoint, metrics and report.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { shownAddress } from "../io/http.ts";
import { adapterName, contextOf } from "../kernels/engine/device.ts";
import { defaultDevice } from "../kernels/engine/self_check.ts";
import type { InputScaling } from "../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../nn/config.ts";
import { activationKind } from "../nn/activations/mod.ts";
import { checkBatchFits, checkModelFits } from "../nn/limits.ts";
import type { InitialData } from "../nn/initial_values.ts";
import type { RowSource } from "../nn/rows.ts";
import { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { TrainState } from "../nn/state.ts";
import { getObjective } from "../objectives/objective.ts";
import { measureCoherence, type MetricsWithCoherence, slowCoherence } from "../eval/coherence.ts";
import { evaluate } from "../eval/evaluate.ts";
import { undefinedMetrics } from "../eval/undefined_metrics.ts";
import { finiteRows, firstNonFinite, largest } from "../data/finite.ts";
import { batchesInOrder, shuffledBatches, type ShuffleOptions } from "../data/order.ts";
import { rowRange, untilAborted } from "../data/rows.ts";
import { measureScaling } from "../data/scaling.ts";
import { lossColumns } from "../objectives/loss_record.ts";
import { adviceOnRows, lengthWarnings, resultWarnings } from "./advice.ts";
import { type ResolvedConfig, type ResolvedDefaults, resolveDefaults } from "./defaults.ts";
import { type DataFingerprint, fingerprintOf } from "./fingerprint.ts";
import { MetricsLog, type MetricsLogOptions } from "./metrics_log.ts";
import { TensorBoardLog } from "./tensorboard_log.ts";
import { validationEvery, validationOf, validationSample } from "./validation.ts";
import {
  fineTunedConfig,
  type InitialCheckpoint,
  type InitialOptions,
  openInitial,
  type RecordedCheckpoint,
} from "./fine_tuning.ts";
import { initialOf, noteOf, savedOf } from "./resumption.ts";
import { checkRun, type RunConfig, scheduleOptions } from "./run_config.ts";
import type { RunDirectory } from "./run_directory.ts";
import { newSession } from "./run_record.ts";
import { runReport, type WrittenConfig } from "./run_report.ts";
import type { ProgressState } from "./terminal.ts";
import type { RestoredTraining, SavedTraining } from "../train/training_file.ts";
import type { TrainLoss } from "../objectives/loss_record.ts";
import { DivergenceError, learningRate, type Progress, type Training, trainMany } from "../train/train.ts";
import type { RunState, RunStatus } from "./run_status.ts";
import { orderSeed, streamOf } from "./sweep_config.ts";

/** One run of a sweep. */
export interface SweepRun {
  /** Its configuration. */
  readonly cfg: RunConfig;
  /** Its rows; runs that train together use those of the first. */
  readonly source: RowSource;
  /** Its folder, opened to start or to resume. */
  readonly directory: RunDirectory;
  /** Where the checkpoint of `init.from` is, if not at that path itself. */
  readonly from?: string;
}

/** Options of {@link runSweep}. */
export interface SweepOptions {
  /** Stops early, with checkpoints of the step reached. Nothing is started or evaluated after that. */
  readonly signal?: AbortSignal;
  /** Whether a run may be resumed with other rows than it was started with; its record then says so. */
  readonly mayChangeData?: boolean;
  /** Milliseconds since any fixed moment, for `checkpoint_minutes` and reported times. */
  readonly now?: () => number;
  /** Called once before the first step of runs that train together. */
  readonly onStart?: (plan: RunPlan) => void;
  /**
   * Called with one line for each problem with rows, settings or results, including the remedy: before the first step
   * and after the last. `run` is the index of the run. Each run's `metrics.json` holds its own in `warnings`.
   */
  readonly onWarning?: (warning: string, run: number) => void;
  /** Called every `log_every` steps; for several models with the mean, without those that have diverged. */
  readonly onProgress?: (state: ProgressState) => void;
  /** Called for each run when its state changes, and every `log_every` steps during training. */
  readonly onStatus?: (status: RunStatus) => void;
}

const SWEEP_OPTIONS = {
  signal: true,
  mayChangeData: true,
  now: true,
  onStart: true,
  onWarning: true,
  onProgress: true,
  onStatus: true,
} as const satisfies Record<keyof SweepOptions, true>;

/** Options of {@link runTraining}. */
export interface RunOptions extends SweepOptions, Pick<SweepRun, "directory" | "from"> {}

/** The plan of runs that train together. */
export interface RunPlan {
  /** Number of models. */
  readonly n_models: number;
  /** Number of steps. */
  readonly n_steps: number;
  /** Steps done before. */
  readonly firstStep: number;
  /** Rows per step. */
  readonly batch_size: number;
  /** Numbers in a row. */
  readonly d_model: number;
  /** Number of training rows. */
  readonly n_rows: number;
  /** Number of rows held out for validation. */
  readonly n_validation: number;
  /** Defaults set from the length of the run. */
  readonly resolved: ResolvedDefaults;
  /** The name of the adapter. */
  readonly adapter: string;
}

/** The outcome of a run, in one word. */
export function stateOf({ diverged, failed, isInterrupted }: RunResult): RunState {
  return diverged ? "diverged" : failed ? "failed" : isInterrupted ? "stopped" : "finished";
}

/**
 * The outcome of a run; also in its `metrics.json`, beside a column of `losses` for each number of {@link TrainLoss}.
 */
export interface RunResult {
  /** Steps done. */
  readonly steps: number;
  /** Whether the signal ended it, in training or later. Then there is a checkpoint but no evaluation. */
  readonly isInterrupted: boolean;
  /**
   * Why it could not continue, if so. If rows were not finite, the checkpoint is of the step before them; otherwise it
   * is the last good one, if there is one.
   */
  readonly diverged: DivergenceError | null;
  /**
   * What else ended it, such as a full disk or unreadable rows; `null` if nothing did. `run.json` records it too, if
   * that can still be written.
   */
  readonly failed: Error | null;
  /** Seconds of training, across resumes; for all models that trained together. */
  readonly seconds: number;
  /** Rows per second of training; `null` if unknown. */
  readonly examples_per_second: number | null;
  /** Whether validation or training rows were evaluated; the latter if none were held out. */
  readonly evaluated_on: "validation" | "training";
  /** Metrics of those rows and of the dictionary; `null` after an interruption. */
  readonly metrics: MetricsWithCoherence | null;
  /** The warnings given to `onWarning`. */
  readonly warnings: readonly string[];
}

/** Rows per batch of the evaluation. */
const EVALUATION_BATCH = 2048;

/**
 * Trains on the rows of a source as the configuration says.
 *
 * What the checkpoint holds depends on the configuration, the rows and the adapter alone, never on time. Where
 * upstream's format has no place for something, such as a standardisation, it is folded into the parameters.
 *
 * A resumed run ends with the same bits as one that never stopped.
 *
 * @throws {RangeError} if there are fewer rows than a batch takes, or rows of another width than the model is said to
 * take, or a run is resumed that was begun with another configuration.
 * @throws {DeviceError} if there is no usable GPU, or it cannot hold the model or a batch: before a row is read, or a
 * folder changed, of any of the runs.
 * @throws {CheckpointError} if what a run is resumed from is damaged.
 * @throws {DivergenceError} if the run cannot continue, naming row and column where rows are not finite: then there is a
 * checkpoint of the step before them; else the one that the folder holds by then stays.
 * @throws {RangeError} if rows of the evaluation are not finite, naming row and column, once there is a checkpoint.
 * @throws {unknown} the signal's reason, if it is aborted before there is a model. Whatever else ends training, such as
 * rows that cannot be read, is thrown once there is a checkpoint of the step it had come to, where one can still be
 * written.
 * @throws {TypeError} for an unknown option.
 */
export async function runTraining(
  cfg: RunConfig,
  source: RowSource,
  options: RunOptions,
): Promise<RunResult> {
  checkOptions("runTraining", options, { ...SWEEP_OPTIONS, directory: true, from: true });
  const { directory, from, ...sweep } = options;
  const [result] = await runSweep([{ cfg, source, directory, ...from !== undefined && { from } }], sweep);
  const error = result!.diverged ?? result!.failed;
  if (error) throw error;
  return result!;
}

/**
 * Runs {@link runTraining} for many configurations. Runs with the same rows in the same batches train together, the
 * others one after the other; each leaves the same bits as when trained alone. A run that diverges or fails says so in
 * its result, and the others continue.
 *
 * @throws {RangeError | CheckpointError | DeviceError} for what refuses one of the runs before any is begun, as {@link
 * runTraining}.
 * @throws {unknown} the signal's reason, if it is aborted before there is a model.
 * @throws {TypeError} for an unknown option.
 */
export async function runSweep(runs: readonly SweepRun[], options: SweepOptions = {}): Promise<RunResult[]> {
  checkOptions("runSweep", options, SWEEP_OPTIONS);
  const { signal, mayChangeData = false } = options;
  const prepared: PreparedRun[] = [];
  for (const run of runs) prepared.push(await withInitial(run, signal));
  await checkDeviceHolds(prepared);
  const fingerprints = new Map<RowSource, DataFingerprint>();
  const opened: OpenedRun[] = [];
  for (const [place, run] of prepared.entries()) {
    const { source } = run;
    const fingerprint = fingerprints.get(source) ?? await fingerprintOf(untilAborted(source, signal));
    fingerprints.set(source, fingerprint);
    opened.push(await open(run, { place, fingerprint, mayChangeData }));
  }
  // Folders change only after nothing but the rows and the adapter can still refuse a run.
  const begin = async () => {
    for (const run of opened) await unlessFailed(run, () => run.directory.begin());
  };
  const results = new Map<SweepRun, RunResult>();
  const groups = Map.groupBy(opened, ({ stream, saved }) => JSON.stringify([stream, saved?.step ?? 0]));
  for (const together of groups.values()) {
    const done = await runTogether(together, options, begin).catch(async (error: unknown) => {
      const isStopped = signal?.aborted && error === signal.reason;
      if (isStopped && results.size === 0) throw error;
      if (!isStopped) { for (const run of together) await fail(run, error); }
      return together.map((run) => resultOf(run));
    });
    done.forEach((result, i) => {
      const run = together[i]!;
      results.set(run, result);
      const { metrics } = result;
      options.onStatus?.({ ...statusOf(run, stateOf(result)), step: result.steps, ...metrics && evaluatedAs(metrics) });
    });
  }
  return opened.map((run) => results.get(run)!);
}

/**
 * @throws {RangeError} for batches larger than a step takes.
 * @throws {DeviceError} if there is no usable GPU, or it cannot hold one of the models or batches.
 */
async function checkDeviceHolds(runs: readonly SweepRun[]): Promise<void> {
  const context = contextOf(await defaultDevice());
  for (const { cfg: { sae, train: { batch_size } }, source: { d_model } } of runs) {
    const model = completeConfig({ ...sae, d_model });
    checkModelFits(model, context);
    checkBatchFits(model, { context, n_rows: batch_size, training: true });
  }
}

/** The outcome of a run that was not evaluated. */
function resultOf(run: OpenedRun & Partial<Started>): RunResult {
  const { cfg, saved, losses, diverged = null, failure, log, warnings } = run;
  const { seconds, steps } = log?.timed ?? { seconds: 0, steps: 0 };
  return {
    steps: losses?.length ?? saved?.step ?? 0,
    isInterrupted: diverged === null && failure === null,
    diverged,
    failed: failure,
    seconds,
    examples_per_second: seconds > 0 ? steps * cfg.train.batch_size / seconds : null,
    evaluated_on: run.plan.validation ? "validation" : "training",
    metrics: null,
    warnings,
  };
}

/** The status of a run without its losses. */
function statusOf({ place, plan, saved, failure, diverged }: OpenedRun & Partial<Started>, state: RunState): RunStatus {
  const unknown = { l0: null, nmse: null, dead_fraction: null };
  const problem = (diverged ?? failure)?.message ?? null;
  return { run: place, state, step: saved?.step ?? 0, n_steps: plan.n_steps, ...unknown, problem };
}

/** The status from the evaluation. */
function evaluatedAs(
  { l0, nmse, dead_fraction }: MetricsWithCoherence,
): Pick<RunStatus, "l0" | "nmse" | "dead_fraction"> {
  return { l0, nmse, dead_fraction };
}

/**
 * Does a part of a run's work, unless the run has failed. If that fails, the run is over, and others continue; with
 * `savesLast: false` the folder keeps its earlier checkpoint.
 */
async function unlessFailed(
  run: OpenedRun & Partial<Started>,
  work: () => Promise<void>,
  { savesLast = true }: { readonly savesLast?: boolean } = {},
): Promise<void> {
  if (run.failure !== null) return;
  try {
    await work();
  } catch (error) {
    await fail(run, error, savesLast);
  }
}

/** Ends a run; with `savesLast`, saves a checkpoint of the last step if one can still be written. */
async function fail(run: OpenedRun & Partial<Started>, error: unknown, savesLast = true): Promise<void> {
  if (run.failure !== null) return;
  run.failure = error instanceof Error ? error : new Error(String(error));
  if (savesLast && isStarted(run) && !run.diverged && run.losses.length === run.state.step) {
    await writeCheckpoint(run).catch(() => {});
  }
  await run.directory.noteFailure(run.failure.message).catch(() => {});
}

function isStarted(run: OpenedRun & Partial<Started>): run is Started {
  return run.state !== undefined;
}

/** A run whose model is known. */
interface PreparedRun extends SweepRun {
  /** The checkpoint that it starts from, or started from before it is resumed. */
  readonly initial?: RecordedCheckpoint | InitialCheckpoint;
}

/**
 * The run with the model of the checkpoint that it starts from, if it does. A run that is resumed has it in its state.
 *
 * @throws {CheckpointError} if the checkpoint, or the state, cannot be read.
 * @throws {RangeError} if its shapes are not those of the configuration and the rows.
 */
async function withInitial(run: SweepRun, signal: AbortSignal | undefined): Promise<PreparedRun> {
  const { cfg, source: { d_model } } = run;
  if (cfg.init.from === null) return run;
  const saved = await run.directory.openTraining();
  const initial = saved
    ? initialOf(saved.note)
    : await openInitial(run.from ?? cfg.init.from, initialOptions(cfg, signal));
  if (initial === undefined) return run;
  if (initial.cfg.d_model !== d_model) {
    throw new RangeError(
      `init.from, ${initial.path}, takes rows of width ${initial.cfg.d_model}, but the rows of ` +
        `${shownAddress(cfg.data.path)} have width ${d_model}`,
    );
  }
  const sae = fineTunedConfig(cfg.sae, initial);
  checkRun(sae, cfg.objective, cfg.train);
  return { ...run, initial, cfg: { ...cfg, sae, init: { ...cfg.init, from: shownAddress(cfg.init.from) } } };
}

function initialOptions({ sae }: RunConfig, signal: AbortSignal | undefined): InitialOptions {
  return { ...signal && { signal }, ...sae.subtract_b_dec !== undefined && { subtract_b_dec: sae.subtract_b_dec } };
}

/** A run, and what it resumes from. */
interface OpenedRun extends PreparedRun {
  /** The configuration, with the rows' address in a form that may be shown and stored. */
  readonly cfg: ResolvedConfig;
  /** What must be equal for runs to train together. */
  readonly stream: string;
  /** The defaults that the configuration file does not set. */
  readonly resolved: ResolvedDefaults;
  readonly plan: Plan;
  readonly fingerprint: DataFingerprint;
  readonly saved: SavedTraining | undefined;
  /** The hash of its earlier rows, if it continues with others. */
  readonly changedFrom: string | undefined;
  /** The index of the run. */
  readonly place: number;
  /** Its warnings so far. */
  readonly warnings: string[];
  /** What has ended it, other than its numbers. */
  failure: Error | null;
}

/** @throws {RangeError} for a run that is not possible, or was started with another configuration or other rows. */
async function open(
  run: PreparedRun,
  { place, fingerprint, mayChangeData }: {
    readonly place: number;
    readonly fingerprint: DataFingerprint;
    readonly mayChangeData: boolean;
  },
): Promise<OpenedRun> {
  const { source, directory } = run;
  const { data } = run.cfg;
  const cfg = { ...run.cfg, data: { ...data, path: shownAddress(data.path) } };
  const planned = plan(cfg, source);
  const { n_steps } = planned;
  const resumption = await savedOf(directory, cfg, { data: fingerprint, n_steps, mayChangeData });
  return {
    ...run,
    place,
    stream: streamOf(run.cfg),
    fingerprint,
    warnings: [],
    failure: null,
    plan: planned,
    ...resumption ?? { ...resolveDefaults(cfg, n_steps), saved: undefined, changedFrom: undefined },
  };
}

/** A run in progress. */
interface Started extends OpenedRun {
  readonly sae: SparseAutoencoder;
  readonly state: TrainState;
  readonly training: Training;
  /** The configuration as written to files. */
  readonly config: WrittenConfig;
  readonly losses: TrainLoss[];
  /** The step of the state in its folder. */
  savedStep: number | undefined;
  /** Set once its files exist. */
  log: MetricsLog | undefined;
  /** Set once its files exist, if TensorBoard is to show it. */
  events: TensorBoardLog | undefined;
  /** Why it cannot continue, if so. */
  diverged: DivergenceError | null;
}

async function runTogether(
  runs: readonly OpenedRun[],
  options: SweepOptions,
  begin: () => Promise<void>,
): Promise<RunResult[]> {
  const { signal, onStart, onProgress, onStatus, onWarning, now = () => performance.now() } = options;
  const [{ cfg: { data, train, log }, plan, resolved }] = runs as [OpenedRun];
  const { batch_size, log_every, checkpoint_every: everySteps, checkpoint_minutes: everyMinutes } = train;
  const { training, validation, kept, n_steps } = plan;
  const stoppable = untilAborted(training, signal);
  const initial = finiteRows(stoppable, data.path);
  let measured: Promise<InputScaling> | undefined;
  const scaling = () => measured ??= measureScaling(initial, data.standardise);
  using stack = new DisposableStack();
  const started: Started[] = [];
  for (const run of runs) {
    signal?.throwIfAborted();
    started.push(await start(run, { training: initial, scaling }, stack));
  }
  await begin();
  for (const run of started) await unlessFailed(run, () => beginFiles(run, n_steps));
  const begun = started.filter(({ failure }) => failure === null);
  if (begun.length === 0) return started.map(resultOf);
  const adapter = adapterName(started[0]!.sae.device);
  const { n_rows, d_model } = training;
  const firstStep = started[0]!.state.step;
  const sizes = { n_steps, firstStep, batch_size, d_model, n_rows, n_validation: validation?.n_rows ?? 0 };
  onStart?.({ n_models: begun.length, ...sizes, resolved, adapter });
  const warn = ({ warnings, place }: OpenedRun, lines: readonly string[]) => {
    warnings.push(...lines.filter((line) => !warnings.includes(line)));
    for (const line of lines) onWarning?.(line, place);
  };
  let variance = NaN;
  if (firstStep < n_steps) {
    const advice = await adviceOnRows({ data }, initial).catch((error: unknown) => {
      if (signal?.aborted && error === signal.reason) return { warnings: [], variance };
      throw error;
    });
    variance = advice.variance;
    for (const run of begun) if (run.initial && "load" in run.initial) warn(run, run.initial.warnings);
    for (const run of begun) warn(run, [...lengthWarnings(run.cfg, n_steps), ...advice.warnings]);
  }

  const seed = orderSeed({ data, train });
  const order = { batch_size, n_steps, firstStep, seed, buffer_rows: data.buffer_rows };
  const batches = shuffledBatches(stoppable, order);
  const every = kept && firstStep < n_steps ? validationEvery({ log, train }, n_steps) : null;
  // Unreadable validation rows do not prevent training: the evaluation at the end reports them.
  const sample = every === null ? null : await validationSample(untilAborted(kept!, signal)).catch(() => null);
  let measuredAt = now();
  const loop = {
    log_every,
    n_steps,
    onWarning: (line: string, model: number) => warn(begun[model]!, [line]),
    ...every !== null && sample && { validation: { every, batches: () => sample } },
    ...signal && { signal },
  };
  let written = now();
  try {
    for await (const progress of trainMany(begun.map(({ training }) => training), batches, loop)) {
      for (const [i, { losses, diverged = null }] of progress.entries()) {
        if (begun[i]!.failure) continue;
        begun[i]!.losses.push(...losses);
        begun[i]!.diverged = diverged;
      }
      const seconds = (now() - measuredAt) / 1000;
      measuredAt = now();
      for (const [i, run] of begun.entries()) {
        const { step, losses, validation } = progress[i]!;
        const measured = validation && validationOf(Math.floor(step / every!) * every!, validation);
        // A state does not hold validations: one that the log lacks is made again, from an earlier state.
        await unlessFailed(run, async () => {
          await run.log!.append(losses, seconds, measured);
          await run.events?.append(step, losses);
          if (measured) await run.events?.appendMetrics(measured.step, "validation", validation);
        }, { savesLast: !measured });
        onStatus?.(trainingStatus(run, variance));
      }
      if (begun.every(({ failure, diverged }) => failure ?? diverged)) break;
      const good = progress.filter(({ diverged }) => !diverged);
      const { step, losses: { length } } = good[0]!;
      onProgress?.({ step, loss: mean(good, ({ loss }) => loss), l0: mean(good, ({ l0 }) => l0) });
      const isDue = Math.floor((step - length) / everySteps) < Math.floor(step / everySteps) ||
        now() - written >= everyMinutes * 60_000;
      if (!isDue || step === n_steps) continue;
      // After a step that may be the first of an explosion, the earlier checkpoint is the better one.
      for (const [i, run] of begun.entries()) {
        if (!run.diverged && progress[i]!.stepsAbove === 0) await unlessFailed(run, () => writeCheckpoint(run));
      }
      written = now();
    }
  } catch (error) {
    // The rows cannot be read, or similar: the models are those of the last step. If the device is lost or the disk
    // full, nothing can be written, and the folders keep what they hold.
    for (const run of begun) if (!run.diverged) await fail(run, error);
  }
  for (const run of begun) {
    // Bad rows have changed nothing; after an explosion, the last checkpoint is the last good one.
    if (!run.diverged || run.diverged.isOfRows) await unlessFailed(run, () => writeCheckpoint(run));
    if (run.diverged) run.diverged = await withPlace(run.diverged, { data, training, order });
  }
  const evaluated = {
    on: validation ? "validation" : "training",
    rows: validation ?? finiteRows(training, data.path),
  } as const;
  const results: RunResult[] = [];
  for (const run of started) {
    let result: RunResult | undefined;
    if (run.losses.length === n_steps && !run.failure) {
      onStatus?.({ ...trainingStatus(run, variance), state: "evaluating" });
    }
    await unlessFailed(run, async () => {
      result = await finish(run, { n_steps, evaluated, adapter, signal, warn });
    });
    results.push(result ?? resultOf(run));
  }
  return results;
}

/**
 * A run under way, by its last step: NMSE is mse · D / Σ σ_d², with the variance of some thousands of rows in the units of
 * the model's inputs.
 */
function trainingStatus(run: Started, variance: number): RunStatus {
  const { losses, sae: { cfg, input } } = run;
  const last = losses.at(-1);
  const state = run.diverged ? "diverged" : run.failure ? "failed" : "training";
  return {
    ...statusOf(run, state),
    step: losses.length,
    ...last && {
      l0: last.l0,
      nmse: Number.isNaN(variance) ? null : last.mse * cfg.d_model * input.scale ** 2 / variance,
      dead_fraction: last.n_dead / cfg.d_sae,
    },
  };
}

/** The same error, with file, row and column if rows of its step are at fault. */
async function withPlace(
  error: DivergenceError,
  { data, training, order }: {
    readonly data: RunConfig["data"];
    readonly training: RowSource;
    readonly order: ShuffleOptions;
  },
): Promise<DivergenceError> {
  const { step, tensor, isOfRows } = error;
  if (!isOfRows) return error;
  for await (
    const { x, d_model, index } of shuffledBatches(training, { ...order, firstStep: step, n_steps: step + 1 })
  ) {
    const { row, column, value } = firstNonFinite(x, d_model) ?? largest(x, d_model);
    const where = `${data.path}: row ${index[row]} has ${value} in column ${column}`;
    const remedy = Number.isFinite(value) ? "too large for float32" : "not finite";
    const what = `has a value that is not finite; ${where}; remove rows that are ${remedy}`;
    return new DivergenceError(step, tensor, what, { isOfRows });
  }
  return error;
}

/** Rows for initial values. */
interface InitialRows {
  readonly training: RowSource;
  /** Measures the scaling, once for all models. */
  readonly scaling: () => Promise<InputScaling>;
}

/** The model of a run, and how it is trained. */
async function start(
  run: OpenedRun,
  rows: InitialRows,
  stack: DisposableStack,
): Promise<Started> {
  const { cfg, source, saved } = run;
  const { optim, lr, n_lr_warmup, grad_clip } = cfg.train;
  const model = completeConfig({ ...cfg.sae, d_model: source.d_model });
  const { sae, state, losses } = stack.use(saved ? await saved.restore() : await untrained(run, model, rows));
  const options = {
    optimizer: { key: optim },
    lr,
    n_lr_warmup,
    ...scheduleOptions(cfg.train),
    state,
    grad_clip,
  };
  const objective = getObjective(cfg.objective);
  return {
    ...run,
    sae,
    state,
    training: { sae, objective, options },
    config: { data: cfg.data, sae: sae.cfg, init: cfg.init, objective: objective.cfg, train: cfg.train, log: cfg.log },
    losses: [...losses],
    savedStep: saved?.step,
    log: undefined,
    events: undefined,
    diverged: null,
  };
}

/** Writes the files of a run before its first step: configuration, record, log. */
async function beginFiles(run: Started, n_steps: number): Promise<void> {
  const { cfg, config, directory, fingerprint, changedFrom, initial, losses, sae, state } = run;
  const { warnings, timed } = await metricsBefore(run);
  // For a finished run, the warnings about its training are not repeated.
  if (state.step === n_steps) run.warnings.push(...warnings);
  await directory.writeJson("config.json", config);
  await directory.addSession(
    await newSession(sae.device, {
      step: state.step,
      data: { path: cfg.data.path, ...fingerprint },
      resolved: run.resolved,
      ...changedFrom !== undefined && { changed_data: { from: changedFrom } },
      ...initial && { init_from: { path: initial.path, sha256: initial.sha256 } },
    }),
  );
  const rate = learningRate(cfg.train, n_steps);
  run.log = await MetricsLog.open(directory, { losses, rate, ...timed && { timed } });
  if (cfg.log.tensorboard && state.step < n_steps) {
    run.events = await TensorBoardLog.open(directory, { step: state.step, rate });
  }
}

/** What the folder of a resumed run records of its earlier steps; runs of 0.1.0 have no log. */
async function metricsBefore(
  { directory, losses, cfg: { train } }: Started,
): Promise<Pick<MetricsLogOptions, "timed"> & { readonly warnings: readonly string[] }> {
  try {
    const text = await directory.readText("metrics.json");
    const { steps, seconds, examples_per_second: rate, warnings = [] } = JSON.parse(text);
    if (steps !== losses.length) return { warnings: [] };
    const timed = { steps: Math.round(rate * seconds / train.batch_size), seconds };
    return { warnings, ...seconds > 0 && rate > 0 && { timed } };
  } catch {
    return { warnings: [] };
  }
}

/** A model before its first step. */
async function untrained(
  run: OpenedRun,
  model: SparseAutoencoderConfig,
  { training, scaling }: InitialRows,
): Promise<RestoredTraining> {
  const { cfg, initial } = run;
  const { seed, optim } = cfg.train;
  using stack = new DisposableStack();
  const random = async () => {
    const input = await scaling();
    const data = await initialData(cfg, () => Promise.resolve(training), model);
    return await SparseAutoencoder.create(model, { seed, input, ...data && { data } });
  };
  const isTuned = initial !== undefined && "load" in initial;
  const sae = stack.use(isTuned ? await initial.load(model) : await random());
  const state = stack.use(new TrainState(sae, { seed, optimizer: optim }));
  const owned = stack.move();
  return { sae, state, losses: [], [Symbol.dispose]: () => owned.dispose() };
}

/**
 * The model of a run as it was before its first step; with `init.from`, one of random numbers. `trained` is the model that became of it; `open` opens the run's rows,
 * which only some initial values need.
 *
 * @throws {RangeError | TypeError | ShapeError} as {@link SparseAutoencoder.create}, and what `open` throws.
 */
export async function untrainedModel(
  cfg: RunConfig,
  trained: SparseAutoencoder,
  open: () => Promise<RowSource>,
): Promise<SparseAutoencoder> {
  const { input, device } = trained;
  const model = completeConfig({ ...cfg.sae, d_model: trained.cfg.d_model });
  const data = await initialData(cfg, async () => plan(cfg, await open()).training, model);
  return await SparseAutoencoder.create(model, { seed: cfg.train.seed, input, device, ...data && { data } });
}

function mean(progress: readonly Progress[], of: (loss: TrainLoss) => number): number {
  return progress.reduce((sum, { losses }) => sum + of(losses.at(-1)!), 0) / progress.length;
}

async function writeCheckpoint(run: Started): Promise<void> {
  const { cfg, fingerprint, initial, sae, state, losses, directory } = run;
  // The state first: a model alone cannot be resumed. Saving the same step again would push out the state before it.
  if (run.savedStep !== state.step) {
    await directory.writeTraining({ sae, state, losses, note: noteOf(cfg, fingerprint, initial) });
    run.savedStep = state.step;
  }
  await directory.writeCheckpoint(sae);
}

/** Evaluates the trained model and writes the results. */
async function finish(
  run: Started,
  given: {
    readonly n_steps: number;
    readonly evaluated: { readonly on: RunResult["evaluated_on"]; readonly rows: RowSource };
    readonly adapter: string;
    readonly signal: AbortSignal | undefined;
    readonly warn: (run: Started, lines: readonly string[]) => void;
  },
): Promise<RunResult> {
  const { sae, directory, config, resolved, losses, diverged } = run;
  const { n_steps, evaluated, adapter, signal } = given;
  const steps = losses.length;
  let failure: unknown;
  const metrics = steps < n_steps ? null : await measure(sae, evaluated.rows, signal).catch((error) => {
    failure = error;
    return null;
  });
  if (metrics?.coherence === null) given.warn(run, [`${slowCoherence(sae)}; saev evaluate --coherence measures it`]);
  if (metrics) given.warn(run, resultWarnings(run.cfg, metrics, { n_steps, on: evaluated.on }));
  const { failed: _, diverged: __, ...rest } = resultOf(run);
  const result = { ...rest, isInterrupted: metrics === null && !diverged && failure === undefined, metrics };
  await directory.writeJson("metrics.json", {
    config,
    resolved,
    ...result,
    ...metrics && { undefined_metrics: undefinedMetrics(metrics) },
    diverged: diverged?.message ?? null,
    ...failure !== undefined && { not_evaluated: failure instanceof Error ? failure.message : String(failure) },
    adapter,
    losses: Object.fromEntries(lossColumns(losses)),
  });
  if (failure !== undefined) throw failure;
  if (metrics) {
    const { rate, validations } = run.log!;
    const history = { losses, rate, validations, sessions: directory.sessions };
    await run.events?.appendMetrics(steps, "evaluation", metrics);
    await directory.write("report.html", runReport(config, { ...result, metrics, adapter }, history));
  }
  return { ...result, diverged, failed: null };
}

/** `null` if the signal ended it. */
async function measure(
  sae: SparseAutoencoder,
  rows: RowSource,
  signal: AbortSignal | undefined,
): Promise<MetricsWithCoherence | null> {
  try {
    const metrics = await evaluate(sae, batchesInOrder(rows, EVALUATION_BATCH), { ...signal && { signal } });
    signal?.throwIfAborted();
    const isSlow = slowCoherence(sae) !== null;
    return { ...metrics, coherence: isSlow ? null : await measureCoherence(sae, { ...signal && { signal } }) };
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return null;
    throw error;
  }
}

/** The rows and the length of a run. */
interface Plan {
  readonly training: RowSource;
  /** The validation rows; those that are not finite are refused. */
  readonly validation: RowSource | null;
  /** The same rows, unchecked. */
  readonly kept: RowSource | null;
  readonly n_steps: number;
}

/** Splits rows into training and validation, and computes the number of steps. */
function plan(
  { data, sae, train: { n_epochs, n_steps, batch_size } }: RunConfig,
  source: RowSource,
): Plan {
  const { n_rows, d_model } = source;
  if (sae.d_model !== undefined && sae.d_model !== d_model) {
    throw new RangeError(`sae.d_model is ${sae.d_model}, but the rows of ${data.path} have width ${d_model}`);
  }
  const rounded = n_rows - Math.round(n_rows * data.validation_share);
  // Patches of one image are alike, so the split keeps examples whole.
  const end = rounded < n_rows ? source.exampleStart?.(rounded) ?? rounded : n_rows;
  const training = rowRange(source, 0, end);
  const validation = end < n_rows ? rowRange(finiteRows(source, data.path), end, n_rows) : null;
  const steps = n_steps ?? Math.floor((n_epochs ?? 1) * training.n_rows / batch_size);
  if (steps < 1) {
    const share = n_epochs === null || n_epochs >= 1 ? "" : `train.n_epochs ${n_epochs} of `;
    throw new RangeError(
      `${data.path} has ${training.n_rows} rows to train on; ${share}these are too few for a batch of ${batch_size}. Lower train.batch_size`,
    );
  }
  const kept = end < n_rows ? rowRange(source, end, n_rows) : null;
  return { training, validation, kept, n_steps: steps };
}

/** Rows for initial values, as many as upstream takes; more if the dictionary needs them. */
const INITIAL_ROWS = 65536;

/** The first rows in training order, if the initial values use any. */
async function initialData(
  { init, data, train }: RunConfig,
  openTraining: () => Promise<RowSource>,
  { d_sae, activation }: SparseAutoencoderConfig,
): Promise<InitialData | undefined> {
  const needsUnit = activationKind(activation).countsInPreActs;
  if (!init.data_points && init.b_dec === "zeros" && !init.scale_encoder && !needsUnit) return undefined;
  const training = await openTraining();
  const batch_size = Math.max(1, Math.min(training.n_rows, Math.max(d_sae, INITIAL_ROWS)));
  const order = { batch_size, n_steps: 1, seed: orderSeed({ data, train }), buffer_rows: data.buffer_rows };
  const [rows] = await Array.fromAsync(shuffledBatches(training, order));
  const { from: _, ...values } = init;
  return { ...values, x: rows! };
}
