/**
 * The demo on a vision transformer: activations of a folder of photographs, a dictionary of them, and heat maps over
 * the photographs of what activates its latents.
 *
 * @module
 */

import {
  fitImage,
  type ImageDecoder,
  measureScaling,
  openShards,
  type Preprocessing,
  rowRange,
  type ShardRows,
  shuffledBatches,
} from "../../data/mod.ts";
import { encodeRows, evaluate } from "../../eval/mod.ts";
import { getObjective, type Loss, SparseAutoencoder } from "../../mod.ts";
import {
  adapterName,
  CountLine,
  extractToShards,
  listImages,
  ProgressLine,
  renderReport,
  type ReportPicture,
  RunDirectory,
  type VisionModel,
} from "../../runner/mod.ts";
import { train } from "../../train/mod.ts";
import { drawHeatMap, type HeatMap, sideBySide } from "./heat_map.ts";
import { encodePng } from "./png.ts";

/** Options of the demo on a transformer. */
export interface VitDemoOptions {
  /**
   * A mean over the midpoints of `points` equally likely intervals against the integral: the midpoint is off by at most
   * half an interval's share of the integrand's total `variation`, and float32 sums the terms, whose mean size is
   * `absMean`.
   */
  readonly out: string;
  /** The photographs. */
  readonly photos: string;
  /** The model. */
  readonly vision: VisionModel;
  /** The tensor to train on. */
  readonly layer: string;
  /** How photographs are preprocessed. */
  readonly preprocessing: Preprocessing;
  /** Opens the decoder, once there are enough photographs. */
  readonly openDecoder: () => Promise<ImageDecoder>;
  /** Training steps. */
  readonly steps: number;
  /** Seed of the initial values and the order of the rows. */
  readonly seed: number;
  /** Number of latents. */
  readonly d_sae: number;
  /** Active latents per patch. */
  readonly top_k: number;
  /** Patches per step. */
  readonly batch_size: number;
  /** Peak learning rate. */
  readonly lr: number;
}

/** Defaults of the options. */
export const VIT_DEMO_DEFAULTS = {
  out: "runs/demo-vit",
  steps: 1000,
  seed: 0,
  d_sae: 1024,
  top_k: 16,
  batch_size: 1024,
  lr: 1e-3,
} as const satisfies Partial<VitDemoOptions>;

/** Output and cancellation. */
export interface VitDemoSurroundings {
  /** Called with one line at a time. */
  readonly say: (line: string) => void;
  /** Stops after the current batch or step. */
  readonly signal?: AbortSignal;
}

/** The results, in `metrics.json`. */
export interface VitDemoMetrics {
  /** The options. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The name of the adapter. */
  readonly adapter: string;
  /** Seconds of training. */
  readonly seconds: number;
  /** Metrics on the patches of the last quarter of the photographs, which are held out. */
  readonly held_out: Readonly<Record<"n_rows" | "nmse" | "explained_variance" | "l0" | "dead_fraction", number>>;
  /** The loss of every step, and its parts. */
  readonly losses: Readonly<Record<"loss" | "mse" | "l0", readonly number[]>>;
}

const LOG_EVERY = 25;
/** The held-out share of the photographs, in order of their names. */
const HELD_OUT_SHARE = 0.25;
const SHARD_BYTES = 256e6;
const IMAGES_AT_ONCE = 8;
const LATENTS = 16;
const IMAGES_OF_A_LATENT = 6;
/** Width and height of a photograph in the report, in pixels. */
const SIDE = 112;

/**
 * Runs the demo; returns its results, or `null` if the signal ended training early.
 *
 * @throws {RangeError} if there are too few photographs, or the model has no such tensor.
 */
export async function runVitDemo(
  options: VitDemoOptions,
  { say, signal }: VitDemoSurroundings,
): Promise<VitDemoMetrics | null> {
  const { out, photos, vision, layer, preprocessing, openDecoder, steps, seed, d_sae, top_k, batch_size, lr } = options;
  const images = await listImages(photos);
  if (images.paths.length < 2) throw new RangeError(`reading ${photos}: found one image; expected two or more`);
  const decoder = await openDecoder();
  await using directory = await RunDirectory.openDemo(out);
  {
    using line = new CountLine("images", images.paths.length);
    await extractToShards({
      vision,
      decoder,
      images,
      layers: [layer],
      keep: "patches",
      preprocessing,
      batch_size: IMAGES_AT_ONCE,
      out: `${out}/shards`,
      shardBytes: SHARD_BYTES,
      family: "fake-clip",
    }, { onProgress: (done) => line.show(done), ...signal && { signal } });
  }

  const shards = await openShards(`${out}/shards`);
  const rows = shards.rows();
  const { n_examples } = shards.metadata;
  const nHeldOut = Math.max(1, Math.floor(n_examples * HELD_OUT_SHARE));
  const first = (n_examples - nHeldOut) * rows.rows_per_example;
  const [training, heldOut] = [rowRange(rows, 0, first), rowRange(rows, first, rows.n_rows)];
  const input = await measureScaling(training, "mean_scale");
  const cfg = { d_model: rows.d_model, d_sae, activation: { key: "top-k", top_k } } as const;
  using sae = await SparseAutoencoder.create(cfg, { seed, input });
  const adapter = adapterName(sae.device);
  say(
    `training ${d_sae} latents on ${first.toLocaleString("en")} patches of ${
      n_examples - nHeldOut
    } photographs for ${steps} ` +
      `steps of ${batch_size} on ${adapter}`,
  );
  const n_lr_warmup = Math.floor(steps / 10);
  const dead_threshold_tokens = batch_size * Math.max(8, Math.floor(steps / 10));
  const objective = getObjective({ key: "vanilla", dead_threshold_tokens });
  const losses: Loss[] = [];
  const began = performance.now();
  {
    using progress = new ProgressLine({ n_steps: steps, batch_size });
    const batches = shuffledBatches(training, { batch_size, n_steps: steps, seed });
    const loop = { lr, n_steps: steps, n_lr_warmup, log_every: LOG_EVERY, ...signal && { signal } };
    for await (const report of train(sae, objective, batches, loop)) {
      losses.push(...report.losses);
      progress.show({ step: report.step, ...report.losses.at(-1)! });
    }
  }
  const seconds = (performance.now() - began) / 1000;
  await directory.writeCheckpoint(sae);
  if (losses.length < steps) {
    say(`stopped after ${losses.length} steps; ${out}/sae.pt holds the model of that step`);
    return null;
  }

  const { n_rows, nmse, explained_variance, l0, dead_fraction } = await evaluate(sae, heldOut, {
    ...signal && { signal },
  });
  const excitement = await measureExcitement(sae, rows, signal);
  const metrics: VitDemoMetrics = {
    config: { photos, model: vision.name, layer, d_sae, top_k, steps, batch_size, lr, n_lr_warmup, seed },
    adapter,
    seconds,
    held_out: { n_rows, nmse, explained_variance, l0, dead_fraction },
    losses: {
      loss: losses.map(({ loss }) => loss),
      mse: losses.map(({ mse }) => mse),
      l0: losses.map(({ l0 }) => l0),
    },
  };
  await directory.writeJson("metrics.json", metrics);
  const { grid } = JSON.parse(await Deno.readTextFile(`${out}/shards/extraction.json`)).tokens;
  const draw = async (index: number): Promise<ReportPicture> => {
    const maps: HeatMap[] = [];
    for (const { example, values } of excitement.of(index)) {
      const image = fitImage(await decoder.decode(`${photos}/${images.paths[example]}`), preprocessing);
      maps.push({ image, values, grid });
    }
    const largest = Math.max(...maps.map(({ values }) => Math.max(...values)));
    const picture = sideBySide(maps.map((map) => drawHeatMap(map, { side: SIDE, largest })));
    const names = excitement.of(index).map(({ example }) => images.paths[example]).join(", ");
    return {
      png: await encodePng(picture),
      width: picture.width,
      height: picture.height,
      alt: `latent ${index} on ${names}`,
    };
  };
  const shown = excitement.strongest(LATENTS);
  const features = [];
  for (const index of shown) {
    signal?.throwIfAborted();
    features.push({ index, density: excitement.density[index]!, examples: await draw(index) });
  }
  await directory.write(
    "report.html",
    renderReport({
      title: "What a sparse autoencoder sees in a vision transformer",
      summary:
        `${d_sae} latents of ${vision.name}, ${layer}, trained on ${n_examples - nHeldOut} photographs and measured ` +
        `on ${nHeldOut} others.`,
      numbers: [
        {
          label: "NMSE",
          value: nmse.toFixed(3),
          note: `explained variance ${explained_variance.toFixed(3)}, held out`,
        },
        { label: "Active latents", value: l0.toFixed(1), note: "per patch" },
        { label: "Dead latents", value: `${(100 * dead_fraction).toFixed(1)} %`, note: "active on no held-out patch" },
        {
          label: "Speed",
          value: Math.round(steps * batch_size / seconds).toLocaleString("en"),
          note: `patches per second; ${steps} steps in ${seconds.toFixed(1)} s on ${adapter}`,
        },
      ],
      curves: [
        { title: "Loss", values: metrics.losses.loss },
        { title: "L0, active latents per patch", values: metrics.losses.l0 },
      ],
      density: excitement.density,
      configuration: metrics.config,
      strongest: {
        caption:
          `The ${shown.length} latents that carry the most energy, on the photographs that activate them most. ` +
          "Bright patches activate the latent; all images of a latent share one scale.",
        features,
      },
    }),
  );
  say(
    `held-out photographs: NMSE ${nmse.toFixed(3)}, L0 ${l0.toFixed(1)}, ${(100 * dead_fraction).toFixed(1)} % dead`,
  );
  say(`report: ${out}/report.html`);
  return metrics;
}

/** A photograph, and the activations of a latent on its patches. */
interface ExcitedImage {
  readonly example: number;
  readonly values: Float32Array;
}

/** Which photographs activate which latents. */
interface Excitement {
  /** [S], the share of all patches on which each latent fires. */
  readonly density: Float32Array;
  /** The latents with the largest sums of squared activations. */
  strongest(n: number): number[];
  /** The photographs with the strongest patches. */
  of(latent: number): readonly ExcitedImage[];
}

/** One pass over all rows of the shards, one photograph at a time. */
async function measureExcitement(
  sae: SparseAutoencoder,
  rows: ShardRows,
  signal: AbortSignal | undefined,
): Promise<Excitement> {
  const { d_sae } = sae.cfg;
  const { rows_per_example: perExample, n_rows } = rows;
  const counts = new Uint32Array(d_sae);
  const energy = new Float64Array(d_sae);
  const best = Array.from({ length: d_sae }, (): (ExcitedImage & { readonly largest: number })[] => []);
  let maps = new Map<number, Float32Array>();
  for await (const { row, latents, values } of encodeRows(sae, rows)) {
    const [example, token] = [Math.floor(row / perExample), row % perExample];
    for (const [i, latent] of latents.entries()) {
      const value = values[i]!;
      if (value <= 0) continue;
      counts[latent]!++;
      energy[latent]! += value ** 2;
      const map = maps.get(latent) ?? new Float32Array(perExample);
      map[token] = value;
      maps.set(latent, map);
    }
    if (token < perExample - 1) continue;
    signal?.throwIfAborted();
    for (const [latent, map] of maps) {
      const list = best[latent]!;
      list.push({ example, values: map, largest: Math.max(...map) });
      list.sort((a, b) => b.largest - a.largest || a.example - b.example);
      list.splice(IMAGES_OF_A_LATENT);
    }
    maps = new Map();
  }
  return {
    density: Float32Array.from(counts, (count) => count / n_rows),
    strongest: (n) =>
      Array.from(energy.keys()).sort((a, b) => energy[b]! - energy[a]! || a - b).slice(0, n).filter((i) =>
        energy[i]! > 0
      ),
    of: (latent) => best[latent]!,
  };
}
