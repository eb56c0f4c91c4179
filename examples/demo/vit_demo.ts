/**
 * The demo on a vision transformer: activations of a folder of photographs, a dictionary of them, and heat maps over
 * the photographs of what activates its latents.
 *
 * @module
 */

import { fitImage, type ImageDecoder, openShards, type Preprocessing, type ShardRows } from "../../data/mod.ts";
import { encodeRows } from "../../eval/mod.ts";
import { load, type SparseAutoencoder } from "../../mod.ts";
import {
  CountLine,
  extractToShards,
  listImages,
  renderReport,
  type ReportPicture,
  RunDirectory,
  type VisionModel,
} from "../../runner/mod.ts";
import { addMeasured, type DemoSurroundings, type DemoTraining, type FinishedRun, trainDemo } from "./demo_run.ts";
import { drawHeatMap, type HeatMap, sideBySide } from "./heat_map.ts";
import { encodePng } from "./png.ts";

/** Options of the demo on a transformer; its activations are in `shards` in the folder. */
export interface VitDemoOptions extends DemoTraining {
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
  surroundings: DemoSurroundings,
): Promise<FinishedRun | null> {
  const { out, photos, vision, layer, preprocessing, openDecoder, d_sae, resumes = false } = options;
  const { say, signal } = surroundings;
  const images = await listImages(photos);
  if (images.paths.length < 2) throw new RangeError(`reading ${photos}: found one image; expected two or more`);
  const decoder = await openDecoder();
  await using directory = await RunDirectory.openDemo(out, { start: resumes ? "resume" : "overwrite" });
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
  const n_held_out = nHeldOut * rows.rows_per_example;
  const run = await trainDemo(directory, runConfig(options), { source: rows, n_held_out }, surroundings);
  if (run === null) return null;

  using sae = await load(`${out}/sae.pt`);
  const excitement = await measureExcitement(sae, rows, signal);
  await addMeasured(directory, run, { photos, model: vision.name, layer, n_held_out: nHeldOut });
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
  const { metrics: { nmse, explained_variance, l0, dead_fraction }, steps, seconds, written } = run;
  const rate = run.examples_per_second;
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
          value: rate === null ? "unknown" : Math.round(rate).toLocaleString("en"),
          note: `patches per second; ${steps} steps in ${seconds.toFixed(1)} s on ${written.adapter}`,
        },
      ],
      warnings: run.warnings,
      curves: [
        { title: "Loss", values: written.losses.loss },
        { title: "L0, active latents per patch", values: written.losses.l0 },
      ],
      density: excitement.density,
      configuration: written.config,
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
  return run;
}

/** The run that the options ask for. */
function runConfig({ out, steps, seed, d_sae, top_k, batch_size, lr }: VitDemoOptions) {
  return {
    data: { path: `${out}/shards`, standardise: "mean_scale" },
    sae: { d_sae, activation: { key: "top-k", top_k } },
    train: { n_steps: steps, batch_size, lr, log_every: LOG_EVERY, seed },
  };
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
