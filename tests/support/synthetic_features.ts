/**
 * A folder of features that looks like a large one: as many latents as one likes, seeded numbers, and small
 * images.
 *
 * @module
 */
import type { FeatureExample, FeatureRecord, FeaturesFile } from "../../eval/feature_file.ts";
import { writeFeaturePage } from "../../runner/feature_page.ts";
import { encodePng } from "../../examples/demo/png.ts";
import { Random } from "./random.ts";

const GRID = { height: 8, width: 8 };
const CLASSES = ["ant", "bee", "cat", "dog"];
const N_IMAGES = 40;

/** Writes it. Every eighth latent is dead. */
export async function writeSyntheticFeatures(out: string, d_sae: number, name = "synthetic"): Promise<FeaturesFile> {
  const random = new Random(d_sae);
  const latents: FeatureRecord[] = [];
  for (let latent = 0; latent < d_sae; latent++) if (latent % 8 !== 7) latents.push(record(random, latent, d_sae));
  const file: FeaturesFile = {
    saev_features: 1,
    model: { name, d_model: 768, d_sae, activation: "top-k" },
    data: { name: "shards", n_images: 10_000, n_rows: 640_000, grid: GRID },
    n_dead: d_sae - latents.length,
    classes: CLASSES,
    mask_classes: [0, 3],
    images: Array.from({ length: N_IMAGES }, (_, i) => ({
      example: i,
      path: `${CLASSES[i % 4]}/${i}.jpg`,
      file: `images/${i}.png`,
      class: i % 4,
    })),
    latents,
    annotations: [{ latent: 2, name: "wheels", tags: ["things"], verdict: "interpretable", note: "round ones" }],
    stability: null,
  };
  await Deno.mkdir(`${out}/images`, { recursive: true });
  for (const { example, file: path } of file.images) await Deno.writeFile(`${out}/${path}`, await picture(example));
  await writeFeaturePage(out, {
    file,
    heat: (at) =>
      file.latents[at]!.examples.map(({ kind }, i) =>
        Uint8Array.from({ length: 64 }, (_, patch) => kind === "counter" ? 0 : (at * 37 + i * 11 + patch * 5) % 256)
      ),
  });
  return file;
}

function record(random: Random, latent: number, d_sae: number): FeatureRecord {
  const max = 1 + 9 * random.unit();
  const example = (kind: FeatureExample["kind"], i: number): FeatureExample => ({
    kind,
    image: (latent * 7 + i * (kind === "top" ? 4 : 3)) % N_IMAGES,
    value: kind === "counter" ? 0 : max / (1 + i),
    patch: i,
    quantile: kind === "quantile" ? 0.5 / (1 + i) : null,
  });
  const density = 10 ** (-4 * random.unit());
  return {
    latent,
    n_rows: Math.round(density * 640_000),
    n_images: Math.round(density * 10_000),
    density,
    mean: max / 3,
    max,
    monosemanticity: random.unit(),
    histogram: { first: -6, counts: Array.from({ length: 12 }, () => random.integer(1, 1000)) },
    nearest: [1, 2, 3].map((i) => ({ latent: (latent + 8 * i) % d_sae, cosine: 1 / (1 + i) })),
    together: [1, 2].map((i) => ({ latent: (latent + 16 * i) % d_sae, share: 1 / (2 + i) })),
    classes: [0, 1, 2, 3].map((i) => ({
      class: (latent + i) % 4,
      auroc: 0.95 - 0.1 * i,
      average_precision: 0.9 - 0.2 * i,
    })),
    purity_at_16: random.integer(4, 16) / 16,
    masks: [{ class: 3, share: 0.75 }, { class: 0, share: 0.25 }],
    recurrence: null,
    examples: [
      ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((i) => example("top", i)),
      ...[0, 1, 2, 3, 4, 5].map((i) => example("quantile", i)),
      ...[0, 1, 2, 3].map((i) => example("counter", i)),
    ],
  };
}

/** 64 × 64 pixels of some colours. */
async function picture(number: number): Promise<Uint8Array> {
  const side = 64;
  const bytes = Uint8Array.from({ length: 3 * side * side }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % side, Math.floor(i / 3 / side)];
    return [x * 4 + number * 13, y * 4 + number * 29, number * 61][i % 3]!;
  });
  return await encodePng({ width: side, height: side, channels: 3, bytes });
}
