/**
 * The demo: trains a sparse autoencoder on whitened patches of photographs and shows what it has learned.
 *
 * It writes `sae.pt`, `metrics.json`, `features.png` and `report.html`. The number of steps is fixed, so that the same
 * options give the same checkpoint on the same adapter, bit by bit.
 *
 * @module
 */
import {
  type Activation,
  type ActivationOptions,
  getObjective,
  type Loss,
  SparseAutoencoder,
  type SparseAutoencoderOptions,
} from "../../mod.ts";
import { batchesInOrder, rowsOf, shuffledBatches } from "../../data/mod.ts";
import { evaluate, type Metrics } from "../../eval/mod.ts";
import {
  adapterName,
  ProgressLine,
  renderReport,
  type Report,
  type ReportNumber,
  type ReportPicture,
  RunDirectory,
} from "../../runner/mod.ts";
import { train } from "../../train/mod.ts";
import { drawContactSheet, type SheetOptions } from "./contact_sheet.ts";
import { COMPONENTS, type Dataset, loadDataset, PATCH_SIZE } from "./dataset.ts";
import { fitGabor } from "./gabor.ts";
import { COMMITTED, concatenate, type Patches, type PhotographSet } from "./patches.ts";
import { type ByteImage, encodePng } from "./png.ts";
import { bestLinearNmse, leadingComponentsNmse, nmse, unrotate, unwhiten } from "./whitening.ts";

/** Options of the demo. */
export interface DemoOptions {
  /** The output folder. */
  readonly out: string;
  /** Training steps. */
  readonly steps: number;
  /** Seed of the initial values and the order of the patches. */
  readonly seed: number;
  /** Number of latents. */
  readonly d_sae: number;
  /** The activation. */
  readonly activation: Activation["key"];
  /**
   * Active latents per patch; on average, except for `top-k`. The penalty of `relu` and `jump-relu` is adjusted to
   * reach it.
   */
  readonly top_k: number;
  /** Patches per step. */
  readonly batch_size: number;
  /** Peak learning rate. */
  readonly lr: number;
}

/** Output and cancellation of the demo. */
export interface DemoSurroundings {
  /** Called with one line at a time. */
  readonly say: (line: string) => void;
  /** Stops training early, with a checkpoint, or stops the work after it. */
  readonly signal?: AbortSignal;
  /** The photographs; those of the package if left out. */
  readonly photographs?: PhotographSet;
}

/** Defaults of the demo. */
export const DEMO_DEFAULTS: DemoOptions = {
  out: "runs/demo",
  steps: 600,
  seed: 0,
  d_sae: 256,
  activation: "top-k",
  top_k: 10,
  batch_size: 1024,
  lr: 0.01,
};

/** The default number of steps on the slowest software driver, which is ten times slower. */
export const SLOW_DRIVER_STEPS = 200;

const N_LR_WARMUP = 50;
const LOG_EVERY = 25;

/** A latent that this many patches did not activate gets help from the auxiliary loss. */
const DEAD_THRESHOLD = 100_000;

/** Features whose shape is compared with Gabor functions. */
const GABOR_FEATURES = 64;
const GABOR_R2 = 0.5;

/** The demo's results, in `metrics.json`; every share is a number from 0 to 1. */
export interface DemoMetrics {
  /** The options, and values derived from them. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Training steps done. */
  readonly steps: number;
  /** Seconds of training, including the compilation of shaders. */
  readonly seconds: number;
  /** Patches per second of training. */
  readonly examples_per_second: number;
  /** The name of the adapter. */
  readonly adapter: string;
  /** Patches of the held-out photographs, on which everything below is measured. */
  readonly n_rows: number;
  /** Mean squared error in whitened space. */
  readonly mse: number;
  /** Normalised mean squared error in whitened space. */
  readonly nmse: number;
  /** The same for the leading principal components, as many as there are active latents. */
  readonly pca_nmse: number;
  /** The same for the best linear subspace of that dimension for the held-out patches themselves. */
  readonly best_linear_nmse: number;
  /** Normalised mean squared error of the pixels. */
  readonly pixel_nmse: number;
  /** The same for the leading principal components of the pixels, as many as there are active latents. */
  readonly pca_pixel_nmse: number;
  /** Active latents per patch. */
  readonly l0: number;
  /** Latents that are active on no patch. */
  readonly n_dead: number;
  /** Their share. */
  readonly dead_fraction: number;
  /** The share of the most used features whose whitened pixels a Gabor function fits with an R² of at least 0.5. */
  readonly gabor_share: number;
  /** The same for their pixels as drawn. These are smooth even before training, so this says less. */
  readonly pixel_gabor_share: number;
  /** The loss of every step, and its parts. */
  readonly losses: Readonly<Record<"loss" | "mse" | "l0", readonly number[]>>;
}

/**
 * Runs the demo; returns its results, or `null` if the signal ended training early. After training, it rejects with the
 * signal's reason.
 */
export async function runDemo(
  options: DemoOptions,
  { say, signal, photographs = COMMITTED }: DemoSurroundings,
): Promise<DemoMetrics | null> {
  const { out, steps, seed, batch_size, lr } = options;
  await using directory = await RunDirectory.openDemo(out);
  const dataset = await loadDataset(photographs);
  const n_patches = dataset.training.length / COMPONENTS;
  say(`${n_patches.toLocaleString("en")} patches of ${counted(photographs.training.length)}, whitened`);

  // The JumpReLU's units are measured on some rows from all photographs.
  const data = { x: dataset.training, data_points: false };
  using sae = await SparseAutoencoder.create(modelOptions(options), { seed, data });
  const adapter = adapterName(sae.device);
  say(`training ${options.d_sae} latents for ${steps} steps of ${batch_size} patches on ${adapter}`);
  const batches = shuffledBatches(rowsOf(dataset.training, COMPONENTS), { batch_size, n_steps: steps, seed });
  const target_l0 = "top_k" in sae.cfg.activation ? null : options.top_k;
  const objective = getObjective({ key: "vanilla", target_l0, dead_threshold_tokens: DEAD_THRESHOLD });
  const losses: Loss[] = [];
  const started = performance.now();
  {
    using progress = new ProgressLine({ n_steps: steps, batch_size });
    const loop = {
      lr,
      n_steps: steps,
      n_lr_warmup: N_LR_WARMUP,
      log_every: LOG_EVERY,
      onWarning: (warning: string) => say(`warning: ${warning}`),
      ...(signal ? { signal } : {}),
    };
    for await (const report of train(sae, objective, batches, loop)) {
      losses.push(...report.losses);
      progress.show({ step: report.step, ...report.losses.at(-1)! });
    }
  }
  const seconds = (performance.now() - started) / 1000;
  await directory.writeCheckpoint(sae);
  if (losses.length < steps) {
    say(`stopped after ${losses.length} steps; ${out}/sae.pt holds the model of that step`);
    return null;
  }

  const evaluation = await evaluateModel(sae, dataset, signal);
  const mostUsed = evaluation.order.slice(0, GABOR_FEATURES);
  const { mse, nmse, l0, n_rows, n_dead, dead_fraction } = evaluation.metrics;
  const metrics: DemoMetrics = {
    config: {
      sae: sae.cfg,
      objective: objective.cfg,
      train: { steps, seed, batch_size, lr, n_lr_warmup: N_LR_WARMUP },
      data: { patch_size: PATCH_SIZE, components: COMPONENTS, held_out: photographs.heldOut },
    },
    steps,
    seconds,
    examples_per_second: steps * batch_size / seconds,
    adapter,
    n_rows,
    mse,
    nmse,
    ...evaluation.comparisons,
    l0,
    n_dead,
    dead_fraction,
    gabor_share: gaborShare(evaluation.whitenedFeatures, mostUsed),
    pixel_gabor_share: gaborShare(evaluation.features, mostUsed),
    losses: {
      loss: losses.map(({ loss }) => loss),
      mse: losses.map(({ mse }) => mse),
      l0: losses.map(({ l0 }) => l0),
    },
  };
  const sheet = drawContactSheet(
    concatenate(evaluation.order.map((index) => patch(evaluation.features, index))),
    SHEET,
  );
  const features = await encodePng(sheet);
  signal?.throwIfAborted();
  await directory.write("features.png", features);
  await directory.writeJson("metrics.json", metrics);
  const report = await describe(metrics, evaluation, dataset, { png: features, ...sheet });
  await directory.write("report.html", renderReport(report));
  say(
    `held-out photographs: NMSE ${metrics.nmse.toFixed(3)} (PCA ${metrics.pca_nmse.toFixed(3)}), L0 ${
      l0.toFixed(1)
    }, ` +
      `${percent(dead_fraction)} dead, ${percent(metrics.gabor_share)} of the most used features are Gabor functions`,
  );
  say(`report: ${out}/report.html`);
  return metrics;
}

/** The model for the options. */
function modelOptions({ d_sae, activation: wanted, top_k }: DemoOptions): SparseAutoencoderOptions {
  const activation = demoActivations(top_k).find(({ key }) => key === wanted)!;
  return { d_model: COMPONENTS, d_sae, activation };
}

/** The activations that the demo has settings for. */
export function demoActivations(top_k: number): ActivationOptions[] {
  return [
    { key: "top-k", top_k },
    { key: "batch-top-k", top_k },
    { key: "relu" },
    // The demo is short: starting with few latents active leaves more time to learn what they represent.
    { key: "jump-relu", threshold_init: 2 },
  ];
}

const EVALUATION_BATCH = 2048;

/** The quality of a model on the held-out photographs, and its latents' activity. */
interface Evaluation {
  readonly metrics: Metrics;
  readonly comparisons: Pick<DemoMetrics, "pca_nmse" | "best_linear_nmse" | "pixel_nmse" | "pca_pixel_nmse">;
  /** Latents, the most used first. */
  readonly order: readonly number[];
  /** [d_sae, PATCH_SIZE²], decoder rows as pixels. */
  readonly features: Float32Array;
  /** The same as whitened pixels. */
  readonly whitenedFeatures: Float32Array;
  /** The activity of each latent on the held-out patches. */
  readonly activity: readonly Activity[];
}

/** One latent on the held-out patches. */
interface Activity {
  /** The sum of its squared activations. */
  energy: number;
  /** Where it is active, and how strongly. */
  readonly events: { readonly row: number; readonly value: number }[];
}

async function evaluateModel(
  sae: SparseAutoencoder,
  { heldOut, heldOutPatches, whitening }: Dataset,
  signal: AbortSignal | undefined,
): Promise<Evaluation> {
  const source = rowsOf(heldOut, COMPONENTS);
  const metrics = await evaluate(sae, batchesInOrder(source, EVALUATION_BATCH), { ...signal && { signal } });
  const activity = Array.from({ length: sae.cfg.d_sae }, (): Activity => ({ energy: 0, events: [] }));
  const reconstructions: Float32Array[] = [];
  let firstRow = 0;
  for await (const x of batchesInOrder(source, EVALUATION_BATCH)) {
    signal?.throwIfAborted();
    using out = sae.forward(x);
    const [x_hat, { row_starts, indices, values }] = await Promise.all([out.x_hat.read(), out.f_x.read()]);
    reconstructions.push(x_hat);
    for (let row = 0; row + 1 < row_starts.length; row++) {
      for (let at = row_starts[row]!; at < row_starts[row + 1]!; at++) {
        const latent = activity[indices[at]!]!;
        latent.energy += values[at]! ** 2;
        latent.events.push({ row: firstRow + row, value: values[at]! });
      }
    }
    firstRow += row_starts.length - 1;
  }
  // Decoder rows, reconstructions and patches are all mapped back to pixels minus the mean, which adds nothing to an
  // error.
  const pixels = unwhiten(whitening, concatenate(reconstructions));
  const patches = concatenate(heldOutPatches.map(({ values }) => values)).map((value, i) =>
    value - whitening.mean[i % whitening.d_in]!
  );
  const k = Math.round(metrics.l0);
  const leading = heldOut.map((value, i) => (i % COMPONENTS < k ? value : 0));
  const { W_dec } = await sae.readParameters();
  return {
    metrics,
    comparisons: {
      pca_nmse: leadingComponentsNmse(heldOut, COMPONENTS, k),
      best_linear_nmse: bestLinearNmse(heldOut, COMPONENTS, k),
      pixel_nmse: nmse(patches, pixels, PATCH_SIZE ** 2),
      pca_pixel_nmse: nmse(patches, unwhiten(whitening, leading), PATCH_SIZE ** 2),
    },
    order: descending(Array.from(metrics.density)),
    features: unwhiten(whitening, W_dec),
    whitenedFeatures: unrotate(whitening, W_dec),
    activity,
  };
}

/** The share of some latents' patches that are Gabor functions. */
function gaborShare(patches: Float32Array, latents: readonly number[]): number {
  return latents.filter((latent) => fitGabor(patch(patches, latent), PATCH_SIZE).r2 >= GABOR_R2).length /
    latents.length;
}

/** The indices of the values in descending order; ties keep their order. */
function descending(values: readonly number[]): number[] {
  return values.map((_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);
}

/** One patch of many. */
function patch(patches: Float32Array, index: number): Float32Array {
  return patches.subarray(index * PATCH_SIZE ** 2, (index + 1) * PATCH_SIZE ** 2);
}

const SHEET: SheetOptions = { size: PATCH_SIZE, columns: 16, zoom: 5, gap: 4 };
const STRONGEST = 16;
const EXAMPLES = 16;

/** The content of the report. */
async function describe(
  metrics: DemoMetrics,
  evaluation: Evaluation,
  dataset: Dataset,
  features: { readonly png: Uint8Array } & ByteImage,
): Promise<Report> {
  const { metrics: { density }, activity } = evaluation;
  const { photographs: { training, heldOut } } = dataset;
  const strongest = descending(activity.map(({ energy }) => energy)).slice(0, STRONGEST)
    .filter((index) => activity[index]!.events.length > 0);
  const n_latents = density.length;
  return {
    title: "What a sparse autoencoder sees in photographs",
    summary: `${n_latents} latents, trained on ${PATCH_SIZE}×${PATCH_SIZE} patches of ${counted(training.length)}, ` +
      `measured on patches of ${heldOut.length === 1 ? "another" : `${heldOut.length} others`} (${someOf(heldOut)}).`,
    numbers: reportNumbers(metrics),
    curves: [
      { title: "Loss", values: metrics.losses.loss },
      { title: "L0, active latents per patch", values: metrics.losses.l0 },
    ],
    density,
    configuration: metrics.config,
    features: {
      ...features,
      alt: `The decoder rows of all ${n_latents} latents as image patches: mostly edges and bars in all orientations`,
      caption:
        "Each latent's decoder row as an image patch, the most used first. Grey is zero; each patch has its own contrast.",
    },
    strongest: {
      caption:
        `The ${strongest.length} latents that carry the most energy. Left, how often they are active and their ` +
        "decoder row; right, the patches of the held-out photographs that activate them most.",
      features: await Promise.all(strongest.map(async (index) => {
        const examples = examplesOf(activity[index]!, dataset);
        const [feature, excited] = await Promise.all([
          picture(patch(evaluation.features, index), `decoder row of latent ${index}`),
          picture(examples, `the ${examples.length / PATCH_SIZE ** 2} patches that activate latent ${index} most`),
        ]);
        return { index, density: density[index]!, feature, examples: excited };
      })),
    },
  };
}

function reportNumbers(metrics: DemoMetrics): ReportNumber[] {
  const k = Math.round(metrics.l0);
  return [
    {
      label: "NMSE, whitened",
      value: metrics.nmse.toFixed(3),
      note: `PCA with ${k} components ${metrics.pca_nmse.toFixed(3)}; best ${k} dimensions for these patches ${
        metrics.best_linear_nmse.toFixed(3)
      }`,
    },
    {
      label: "Gabor-shaped features",
      value: percent(metrics.gabor_share),
      note: `of the ${GABOR_FEATURES} most used, R² ≥ ${GABOR_R2} in whitened pixels; none before training`,
    },
    { label: "Active latents", value: metrics.l0.toFixed(1), note: "per patch" },
    {
      label: "Dead latents",
      value: percent(metrics.dead_fraction),
      note: `${metrics.n_dead}, active on none of these patches`,
    },
    {
      label: "NMSE, pixels",
      value: metrics.pixel_nmse.toFixed(3),
      note: `PCA with ${k} components ${
        metrics.pca_pixel_nmse.toFixed(3)
      }: it spends them on slow gradients, which are most of the variance`,
    },
    {
      label: "Speed",
      value: Math.round(metrics.examples_per_second).toLocaleString("en"),
      note: `patches per second; ${metrics.steps} steps in ${metrics.seconds.toFixed(1)} s on ${metrics.adapter}`,
    },
  ];
}

/** The patches that activate a latent most, [n, PATCH_SIZE²]; among overlapping patches only the first. */
function examplesOf({ events }: Activity, { heldOutPatches }: Dataset): Float32Array {
  const chosen: { photograph: number; x: number; y: number }[] = [];
  const found: Float32Array[] = [];
  for (const { row } of events.toSorted((a, b) => b.value - a.value || a.row - b.row)) {
    const { photograph, index } = locate(row, heldOutPatches);
    const { values, corners } = heldOutPatches[photograph]!;
    const [x, y] = [corners[2 * index]!, corners[2 * index + 1]!];
    const overlaps = chosen.some((other) =>
      other.photograph === photograph && Math.max(Math.abs(other.x - x), Math.abs(other.y - y)) < PATCH_SIZE
    );
    if (overlaps) continue;
    chosen.push({ photograph, x, y });
    found.push(patch(values, index));
    if (found.length === EXAMPLES) break;
  }
  return concatenate(found);
}

/** The photograph of a row, and its patch within it. */
function locate(row: number, photographs: readonly Patches[]): { photograph: number; index: number } {
  let index = row;
  for (const [photograph, { corners }] of photographs.entries()) {
    if (index < corners.length / 2) return { photograph, index };
    index -= corners.length / 2;
  }
  throw new RangeError(`there is no held-out patch ${row}`);
}

async function picture(patches: Float32Array, alt: string): Promise<ReportPicture> {
  const image = drawContactSheet(patches, { size: PATCH_SIZE, columns: EXAMPLES, zoom: 4, gap: 4 });
  return { png: await encodePng(image), width: image.width, height: image.height, alt };
}

function counted(photographs: number): string {
  return photographs === 1 ? "one photograph" : `${photographs} photographs`;
}

/** Some of the names, and the number of the others. */
function someOf(names: readonly string[]): string {
  const rest = names.length - NAMED;
  return names.slice(0, NAMED).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

const NAMED = 4;

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
