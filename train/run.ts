/**
 * A training run from its configuration to its folder: reads rows, trains, evaluates, writes checkpoint, metrics, report.
 *
 * @module
 */

import type { Dumpable, DumpOptions } from "../io/checkpoint.ts";
import { completeConfig, type SparseAutoencoderConfig } from "../nn/config.ts";
import type { InitialData } from "../nn/initial_values.ts";
import { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { TrainState } from "../nn/train_state.ts";
import { getObjective, type Loss } from "../objectives/objective.ts";
import { measureCoherence, type MetricsWithCoherence } from "./coherence.ts";
import { evaluate } from "./evaluate.ts";
import { batchesInOrder, measureScaling, rowRange, type RowSource, shuffledBatches } from "./loader.ts";
import { renderReport } from "./report.ts";
import type { RunConfig } from "./run_config.ts";
import type { RunDirectory } from "./run_directory.ts";
import type { ProgressState } from "./terminal.ts";
import { train } from "./train.ts";

/** What a run is given besides its configuration and its rows. */
export interface RunOptions {
  /** Where its files go. */
  readonly directory: RunDirectory;
  /** Ends it early, with a checkpoint of the step it has come to. */
  readonly signal?: AbortSignal;
  /** Told once before the first step. */
  readonly onStart?: (plan: RunPlan) => void;
  /** Told every `log_every` steps. */
  readonly onProgress?: (state: ProgressState) => void;
}

/** What a run is going to do. */
export interface RunPlan {
  /** Steps. */
  readonly n_steps: number;
  /** Rows to train on. */
  readonly n_rows: number;
  /** Rows kept back for validation. */
  readonly n_validation: number;
  /** Who computes. */
  readonly adapter: string;
}

/** What became of a run; also in its `metrics.json`. */
export interface RunResult {
  /** Steps made. */
  readonly steps: number;
  /** Whether the signal ended it. Then there is a checkpoint, and nothing was evaluated. */
  readonly isInterrupted: boolean;
  /** Seconds of training. */
  readonly seconds: number;
  /** Rows a second while training. */
  readonly examples_per_second: number;
  /** The rows kept back, or those of training if none were. */
  readonly evaluated_on: "validation" | "training";
  /** On those rows, and of the dictionary; `null` after an interruption. */
  readonly metrics: MetricsWithCoherence | null;
}

/** Rows in a batch of the evaluation. */
const EVALUATION_BATCH = 2048;

/** What an adapter calls itself; browsers keep the description to themselves. */
export function adapterName({ adapterInfo: { description, vendor, architecture } }: GPUDevice): string {
  return description || `${vendor} ${architecture}`.trim() || "an adapter without a name";
}

/**
 * Trains on the rows of a source as the configuration says.
 *
 * What the checkpoint holds depends on the configuration, the rows and the adapter alone, never on time. Where upstream's
 * format has no place for something, such as a standardisation, it is folded into the parameters.
 *
 * @throws {RangeError} if there are fewer rows than a batch takes, or rows of another width than the model is said to take.
 * @throws {DivergenceError} if the run cannot go on; the checkpoint that the folder holds by then stays.
 */
export async function runTraining(cfg: RunConfig, source: RowSource, options: RunOptions): Promise<RunResult> {
  const { directory, signal, onStart, onProgress } = options;
  const { training, validation, n_steps } = plan(cfg, source);
  const { optim, n_sparsity_warmup, k_start, n_k_warmup } = cfg.train;
  const { batch_size, seed, lr, n_lr_warmup, log_every, grad_clip, checkpoint_every: checkpointEvery } = cfg.train;

  const input = await measureScaling(training, cfg.data.standardise);
  const model = completeConfig({ ...cfg.sae, d_model: source.d_model });
  const initial = await initialData(cfg, training, model);
  using sae = await SparseAutoencoder.create(model, { seed, input, ...(initial ? { data: initial } : {}) });
  using state = new TrainState(sae, { seed, optimizer: optim });
  const config = { data: cfg.data, sae: sae.cfg, init: cfg.init, objective: cfg.objective, train: cfg.train };
  const adapter = adapterName(sae.device);
  await directory.writeJson("config.json", config);
  onStart?.({ n_steps, n_rows: training.n_rows, n_validation: validation?.n_rows ?? 0, adapter });

  const batches = shuffledBatches(training, { batch_size, n_steps, seed, buffer_rows: cfg.data.buffer_rows });
  const loop = {
    optimizer: { key: optim },
    lr,
    n_lr_warmup,
    n_sparsity_warmup,
    ...k_start !== null && { k_start },
    ...n_k_warmup !== null && { n_k_warmup },
    log_every,
    n_steps,
    state,
    grad_clip: grad_clip || null,
  };
  const losses: Loss[] = [];
  const started = performance.now();
  for await (
    const report of train(sae, getObjective(cfg.objective), batches, { ...loop, ...(signal ? { signal } : {}) })
  ) {
    const before = losses.length;
    losses.push(...report.losses);
    onProgress?.({ step: report.step, ...report.losses.at(-1)! });
    const isDue = Math.floor(before / checkpointEvery) < Math.floor(losses.length / checkpointEvery);
    if (isDue && losses.length < n_steps) await directory.writeCheckpoint(sae, runDumpOptions(sae));
  }
  const seconds = (performance.now() - started) / 1000;
  await directory.writeCheckpoint(sae, runDumpOptions(sae));

  const isInterrupted = losses.length < n_steps;
  const evaluated = batchesInOrder(validation ?? training, EVALUATION_BATCH);
  const metrics = isInterrupted ? null : { ...await evaluate(sae, evaluated), coherence: await measureCoherence(sae) };
  const result = {
    steps: losses.length,
    isInterrupted,
    seconds,
    examples_per_second: losses.length * batch_size / seconds,
    evaluated_on: validation === null ? "training" as const : "validation" as const,
    metrics,
  };
  await directory.writeJson("metrics.json", {
    config,
    ...result,
    adapter,
    losses: Object.fromEntries(
      (["loss", "mse", "sparsity", "l0", "l1", "aux"] as const).map((name) => [name, losses.map((loss) => loss[name])]),
    ),
  });
  if (metrics) {
    await directory.write("report.html", runReport(config, { ...result, metrics, adapter }, losses));
  }
  return result;
}

/** Which rows train, which are kept back, and how many steps there will be. */
function plan(
  { data, sae, train: { n_epochs, n_steps, batch_size } }: RunConfig,
  source: RowSource,
): { training: RowSource; validation: RowSource | null; n_steps: number } {
  const { n_rows, d_model } = source;
  if (sae.d_model !== undefined && sae.d_model !== d_model) {
    throw new RangeError(`sae.d_model is ${sae.d_model}, and ${data.path} has rows of ${d_model}`);
  }
  const end = n_rows - Math.round(n_rows * data.validation_share);
  const training = rowRange(source, 0, end);
  const steps = n_steps ?? Math.floor((n_epochs ?? 1) * training.n_rows / batch_size);
  if (steps < 1) {
    throw new RangeError(`${data.path} has ${training.n_rows} rows to train on, too few for a batch of ${batch_size}`);
  }
  return { training, validation: end < n_rows ? rowRange(source, end, n_rows) : null, n_steps: steps };
}

/** Rows that initial values are made from, as many as upstream takes; more where the dictionary needs them. */
const INITIAL_ROWS = 65536;

/** Rows in the order in which training is going to see them, if the initial values are made from any. */
async function initialData(
  { init, data, train: { seed } }: RunConfig,
  training: RowSource,
  { d_sae, activation }: SparseAutoencoderConfig,
): Promise<InitialData | undefined> {
  const needsUnit = activation.key === "jump-relu";
  if (!init.data_points && init.b_dec === "zeros" && !init.scale_encoder && !needsUnit) return undefined;
  const batch_size = Math.max(1, Math.min(training.n_rows, Math.max(d_sae, INITIAL_ROWS)));
  const order = { batch_size, n_steps: 1, seed, buffer_rows: data.buffer_rows };
  const [x] = await Array.fromAsync(shuffledBatches(training, order));
  return { ...init, x: x! };
}

/**
 * How a run's checkpoint is written: as Python reads it, with what its format has no place for folded into the parameters,
 * or in our own schema where Python has no such function.
 */
export function runDumpOptions({ cfg: { activation, subtract_b_dec }, input: { mean, scale } }: Dumpable): DumpOptions {
  const isOurs = activation.key === "jump-relu" || (activation.key === "top-k" && activation.relu);
  if (isOurs) return { schema: "saev_nn" };
  return { fold: mean !== null || scale !== 1 || subtract_b_dec };
}

function runReport(
  config: Readonly<Record<string, unknown>> & Pick<RunConfig, "data" | "train">,
  result: RunResult & { readonly metrics: MetricsWithCoherence; readonly adapter: string },
  losses: readonly Loss[],
): string {
  const { metrics, steps, seconds, adapter } = result;
  const { n_rows, density, n_dead, n_dense, dense_above, coherence } = metrics;
  return renderReport({
    title: `A sparse autoencoder of ${density.length.toLocaleString("en")} latents`,
    summary:
      `Trained on ${config.data.path} for ${steps.toLocaleString("en")} steps of ${config.train.batch_size} rows; ` +
      `measured on ${n_rows.toLocaleString("en")} rows of ${result.evaluated_on}.`,
    numbers: [
      {
        label: "NMSE",
        value: metrics.nmse.toFixed(4),
        note: `the unexplained share of the variance; explained ${metrics.explained_variance.toFixed(4)}; MSE ${
          metrics.mse.toPrecision(3)
        }`,
      },
      {
        label: "Cosine",
        value: metrics.cosine.toFixed(4),
        note: `of x and x̂; ‖x̂‖ / ‖x‖ is ${metrics.norm_ratio.toFixed(3)}, γ is ${
          metrics.reconstruction_bias.toFixed(3)
        }`,
      },
      { label: "Active latents", value: metrics.l0.toFixed(1), note: `a row; L1 ${metrics.l1.toPrecision(3)}` },
      {
        label: "Dead latents",
        value: `${(100 * metrics.dead_fraction).toFixed(1)} %`,
        note: `${n_dead}, active on none of these rows`,
      },
      {
        label: "Dense latents",
        value: `${(100 * n_dense / density.length).toFixed(1)} %`,
        note: `${n_dense}, active on more than ${100 * dense_above} % of these rows`,
      },
      {
        label: "Coherence",
        value: coherence.max.toFixed(3),
        note: `the largest |cosine| of two decoder rows; of each with its nearest ${coherence.mean_max.toFixed(3)}`,
      },
      {
        label: "Speed",
        value: Math.round(result.examples_per_second).toLocaleString("en"),
        note: `rows a second; ${steps} steps in ${seconds.toFixed(1)} s on ${adapter}`,
      },
    ],
    curves: [
      { title: "Loss", values: losses.map(({ loss }) => loss) },
      { title: "L0, active latents a row", values: losses.map(({ l0 }) => l0) },
    ],
    density,
    configuration: config,
  });
}
