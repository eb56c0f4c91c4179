/**
 * The demo: trains a sparse autoencoder on whitened patches of photographs and shows what it has learned.
 *
 * Its rows are the patches, and its training is a run like any other: `sae.pt`, `metrics.json`, the state to resume from. When
 * that is finished, it measures what the run cannot know, draws `features.png` and writes a `report.html` of its own. The
 * number of steps is fixed, so that the same options give the same checkpoint on the same adapter, bit by bit.
 *
 * @module
 */
import { type Activation, type ActivationOptions, load, type SparseAutoencoder } from "../../mod.ts";
import { batchesInOrder, concatRows, rowsOf } from "../../data/mod.ts";
import { renderReport, type Report, type ReportNumber, type ReportPicture, RunDirectory } from "../../runner/mod.ts";
import { drawContactSheet, type SheetOptions } from "./contact_sheet.ts";
import { COMPONENTS, type Dataset, loadDataset, PATCH_SIZE } from "./dataset.ts";
import { addMeasured, type DemoSurroundings, type DemoTraining, type FinishedRun, trainDemo } from "./demo_run.ts";
import { fitGabor } from "./gabor.ts";
import { COMMITTED, concatenate, type Patches, type PhotographSet } from "./patches.ts";
import { type ByteImage, encodePng } from "./png.ts";
import { bestLinearNmse, leadingComponentsNmse, nmse, unrotate, unwhiten } from "./whitening.ts";

/**
 * Options of the demo. `top_k` active latents are an average except for `top-k`; the penalty of `relu` and `jump-relu` is
 * adjusted to reach it.
 */
export interface DemoOptions extends DemoTraining {
  /** The activation. */
  readonly activation: Activation["key"];
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

/** What the demo measures besides the run, on the patches of the held-out photographs: `demo` in `metrics.json`. */
export interface DemoMetrics {
  /** Side of a patch in pixels. */
  readonly patch_size: number;
  /** Principal components in a row. */
  readonly components: number;
  /** The held-out photographs. */
  readonly held_out: readonly string[];
  /** NMSE of the leading principal components, as many as there are active latents. */
  readonly pca_nmse: number;
  /** NMSE of the best linear subspace of the same dimension for the held-out patches themselves. */
  readonly best_linear_nmse: number;
  /** NMSE of the pixels. */
  readonly pixel_nmse: number;
  /** NMSE of the leading principal components of the pixels, as many as there are active latents. */
  readonly pca_pixel_nmse: number;
  /** The share of the most used features whose whitened pixels a Gabor function fits with an R² of at least 0.5. */
  readonly gabor_share: number;
  /** The same for their pixels as drawn. These are smooth even before training, so this says less. */
  readonly pixel_gabor_share: number;
}

/** A finished demo. */
export interface DemoResult extends FinishedRun {
  /** What it measured besides the run. */
  readonly demo: DemoMetrics;
}

/**
 * Runs the demo; returns its results, or `null` if the signal ended training early. After training, it rejects with the
 * signal's reason.
 */
export async function runDemo(
  options: DemoOptions,
  { photographs = COMMITTED, ...surroundings }: DemoSurroundings & {
    /** The photographs; those of the package if left out. */
    readonly photographs?: PhotographSet;
  },
): Promise<DemoResult | null> {
  const { out, resumes = false } = options;
  const { say, signal } = surroundings;
  await using directory = await RunDirectory.openDemo(out, { start: resumes ? "resume" : "overwrite" });
  const dataset = await loadDataset(photographs);
  const [training, heldOut] = [rowsOf(dataset.training, COMPONENTS), rowsOf(dataset.heldOut, COMPONENTS)];
  say(`${training.n_rows.toLocaleString("en")} patches of ${counted(photographs.training.length)}, whitened`);

  const rows = { source: concatRows([training, heldOut]), n_held_out: heldOut.n_rows };
  const run = await trainDemo(directory, runConfig(options, photographs), rows, surroundings);
  if (run === null) return null;

  using sae = await load(`${out}/sae.pt`);
  const evaluation = await evaluateModel(sae, run.metrics, dataset, signal);
  const mostUsed = evaluation.order.slice(0, GABOR_FEATURES);
  const demo: DemoMetrics = {
    patch_size: PATCH_SIZE,
    components: COMPONENTS,
    held_out: photographs.heldOut,
    ...evaluation.comparisons,
    gabor_share: gaborShare(evaluation.whitenedFeatures, mostUsed),
    pixel_gabor_share: gaborShare(evaluation.features, mostUsed),
  };
  const result = { ...run, demo };
  const sheet = drawContactSheet(
    concatenate(evaluation.order.map((index) => patch(evaluation.features, index))),
    SHEET,
  );
  const features = await encodePng(sheet);
  signal?.throwIfAborted();
  await directory.write("features.png", features);
  await addMeasured(directory, run, demo);
  const report = await describe(result, evaluation, dataset, { png: features, ...sheet });
  await directory.write("report.html", renderReport(report));
  const { nmse, l0, dead_fraction } = run.metrics;
  say(
    `held-out photographs: NMSE ${nmse.toFixed(3)} (PCA ${demo.pca_nmse.toFixed(3)}), L0 ${l0.toFixed(1)}, ` +
      `${percent(dead_fraction)} dead, ${percent(demo.gabor_share)} of the most used features are Gabor functions`,
  );
  say(`report: ${out}/report.html`);
  return result;
}

/** The run that the options ask for. */
function runConfig(
  { steps, seed, d_sae, activation: key, top_k, batch_size, lr }: DemoOptions,
  { path }: PhotographSet,
) {
  const activation = demoActivations(top_k).find((activation) => activation.key === key)!;
  return {
    data: { path },
    sae: { d_sae, activation },
    objective: {
      key: "vanilla",
      dead_threshold_tokens: DEAD_THRESHOLD,
      ...!("top_k" in activation) && { target_l0: top_k },
    },
    train: { n_steps: steps, batch_size, lr, n_lr_warmup: N_LR_WARMUP, log_every: LOG_EVERY, seed },
  };
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

/** What a model makes of the held-out photographs. */
interface Evaluation {
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
  { l0, density }: FinishedRun["metrics"],
  { heldOut, heldOutPatches, whitening }: Dataset,
  signal: AbortSignal | undefined,
): Promise<Evaluation> {
  const source = rowsOf(heldOut, COMPONENTS);
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
  const k = Math.round(l0);
  const leading = heldOut.map((value, i) => (i % COMPONENTS < k ? value : 0));
  const { W_dec } = await sae.readParameters();
  return {
    comparisons: {
      pca_nmse: leadingComponentsNmse(heldOut, COMPONENTS, k),
      best_linear_nmse: bestLinearNmse(heldOut, COMPONENTS, k),
      pixel_nmse: nmse(patches, pixels, PATCH_SIZE ** 2),
      pca_pixel_nmse: nmse(patches, unwhiten(whitening, leading), PATCH_SIZE ** 2),
    },
    order: descending(Array.from(density)),
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
  result: DemoResult,
  evaluation: Evaluation,
  dataset: Dataset,
  features: { readonly png: Uint8Array } & ByteImage,
): Promise<Report> {
  const { metrics: { density }, written: { config, losses } } = result;
  const { activity } = evaluation;
  const { photographs: { training, heldOut } } = dataset;
  const strongest = descending(activity.map(({ energy }) => energy)).slice(0, STRONGEST)
    .filter((index) => activity[index]!.events.length > 0);
  const n_latents = density.length;
  return {
    title: "What a sparse autoencoder sees in photographs",
    summary: `${n_latents} latents, trained on ${PATCH_SIZE}×${PATCH_SIZE} patches of ${counted(training.length)}, ` +
      `measured on patches of ${heldOut.length === 1 ? "another" : `${heldOut.length} others`} (${someOf(heldOut)}).`,
    numbers: reportNumbers(result),
    warnings: result.warnings,
    curves: [
      { title: "Loss", values: losses.loss },
      { title: "L0, active latents per patch", values: losses.l0 },
    ],
    density,
    configuration: config,
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

function reportNumbers({ metrics, demo, steps, seconds, ...run }: DemoResult): ReportNumber[] {
  const k = Math.round(metrics.l0);
  const rate = run.examples_per_second;
  return [
    {
      label: "NMSE, whitened",
      value: metrics.nmse.toFixed(3),
      note: `PCA with ${k} components ${demo.pca_nmse.toFixed(3)}; best ${k} dimensions for these patches ${
        demo.best_linear_nmse.toFixed(3)
      }`,
    },
    {
      label: "Gabor-shaped features",
      value: percent(demo.gabor_share),
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
      value: demo.pixel_nmse.toFixed(3),
      note: `PCA with ${k} components ${
        demo.pca_pixel_nmse.toFixed(3)
      }: it spends them on slow gradients, which are most of the variance`,
    },
    {
      label: "Speed",
      value: rate === null ? "unknown" : Math.round(rate).toLocaleString("en"),
      note: `patches per second; ${steps} steps in ${seconds.toFixed(1)} s on ${run.written.adapter}`,
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
