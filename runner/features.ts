/**
 * Turns a model and the activation shards of images into a folder for browsing features.
 *
 * The rows are encoded twice. The first pass keeps sums for each latent and writes to a file which latents fire on which
 * image; the images of each latent are chosen from that file. The second pass draws the heat-maps of these images and
 * writes the codes of the strongest rows to a second file, which shows what fires together. Memory is bounded by latents
 * times what is kept of each, whatever the number of images. A stopped command continues when it is run again.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import type { FeatureImage, FeaturesFile } from "../eval/feature_file.ts";
import { shown } from "../kernels/engine/errors.ts";
import { encodeAgain, encodeOnce, openPartial, PARTIAL } from "./feature_passes.ts";
import { type ChosenRecord, type FeaturesPlan, type FeatureSurroundings, maskClasses } from "./feature_plan.ts";
import { selectRecords } from "./feature_selection.ts";
import { LOCK_FILE, RunLock } from "./run_lock.ts";

/** What the page shows besides {@link FeaturesFile}. */
export interface MadeFeatures {
  /** Everything but heat-maps. */
  readonly file: FeaturesFile;
  /** [patches] of each example of the latent at a place in the list: 255 is the largest activation. */
  readonly heat: (at: number) => Uint8Array[];
}

/** Names in a folder of features, and what its user may keep there. */
const NAMES = ["features.json", "index.html", "data", "images", PARTIAL, LOCK_FILE, "annotations.json"];
/** One of these is in every folder that this command has begun. */
const SIGNS = ["features.json", PARTIAL];

/**
 * Measures the latents and chooses what to show of them. `use` writes the page while the heat-maps are available; the
 * images are in `images/` by then.
 *
 * @throws {RangeError} if rows are not whole images, there are not as many images, classes or labels, a latent that was
 * asked for does not exist or never fires, the folder holds something else, or another process writes into it.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function makeFeatures(
  plan: FeaturesPlan,
  surroundings: FeatureSurroundings,
  use: (made: MadeFeatures) => Promise<void>,
): Promise<void> {
  checkOptions("makeFeatures", surroundings, { onProgress: true, signal: true, noteMs: true });
  checkPlan(plan);
  await Deno.mkdir(plan.out, { recursive: true });
  await using _lock = await RunLock.take(plan.out);
  await checkFolder(plan.out);
  const folder = await openPartial(plan);
  await using first = await encodeOnce(plan, folder, surroundings);
  const records = await selectRecords(plan, first, surroundings.signal);
  await using second = await encodeAgain(plan, folder, { records, sums: first.sums, ...surroundings });
  const images = await writeImages(plan, records, surroundings);
  const placeOf = new Map(images.map(({ example }, place) => [example, place]));
  await use({
    file: {
      saev_features: 1,
      model: {
        name: plan.modelName,
        d_model: plan.sae.cfg.d_model,
        d_sae: plan.sae.cfg.d_sae,
        activation: plan.sae.cfg.activation.key,
      },
      data: {
        name: plan.dataName,
        n_images: plan.images.paths.length,
        n_rows: plan.rows.n_rows,
        grid: plan.grid,
      },
      n_dead: plan.sae.cfg.d_sae - first.sums.alive().length,
      classes: plan.images.classes?.names ?? null,
      mask_classes: plan.patchLabels && maskClasses(plan.patchLabels),
      images,
      latents: records.map((record, at) => ({
        ...record,
        together: second.together(at),
        recurrence: plan.stability?.recurrence[record.latent] ?? null,
        examples: record.examples.map((example) => ({ ...example, image: placeOf.get(example.image)! })),
      })),
      annotations: [...new Map(plan.annotations.map((annotation) => [annotation.latent, annotation])).values()]
        .sort((a, b) => a.latent - b.latent),
      stability: plan.stability?.summary ?? null,
    },
    heat: second.heat,
  });
  await Deno.remove(folder.path, { recursive: true });
}

/** @throws {RangeError} if the folder holds anything that this command has not written. */
async function checkFolder(out: string): Promise<void> {
  const names = await Array.fromAsync(Deno.readDir(out), ({ name }) => name);
  const isOurs = names.some((name) => SIGNS.includes(name));
  const other = names.find((name) => name !== LOCK_FILE && !(isOurs && NAMES.includes(name)));
  if (other !== undefined) {
    throw new RangeError(`${out} holds ${other}, which saev features has not written; expected an empty folder`);
  }
}

function checkPlan({ rows, grid, images, patchLabels, selection, stability, sae, dataName }: FeaturesPlan): void {
  const nImages = images.paths.length;
  const perImage = grid.height * grid.width;
  if (rows.n_rows !== nImages * perImage) {
    throw new RangeError(
      `${dataName} has ${rows.n_rows} rows; expected ${perImage} patches for each of ${nImages} images, ` +
        `${nImages * perImage} rows`,
    );
  }
  if (images.classes && images.classes.labels.length !== nImages) {
    throw new RangeError(`expected a class for each of ${nImages} images, found ${images.classes.labels.length}`);
  }
  if (patchLabels && patchLabels.length !== rows.n_rows) {
    throw new RangeError(`expected a label for each of ${rows.n_rows} patches, found ${patchLabels.length}`);
  }
  if (stability && stability.recurrence.length !== sae.cfg.d_sae) {
    throw new RangeError(
      `expected the recurrence of ${sae.cfg.d_sae} latents, found that of ${stability.recurrence.length}`,
    );
  }
  if (selection.by === "auroc" && new Set(images.classes?.labels).size < 2) {
    throw new RangeError("latents cannot be chosen by AUROC: that takes images of two classes or more");
  }
  if (selection.by !== "list") return;
  const { d_sae } = sae.cfg;
  const bad = selection.latents.find((latent) => !(Number.isSafeInteger(latent) && latent >= 0 && latent < d_sae));
  if (bad !== undefined) {
    throw new RangeError(`there is no latent ${shown(bad)}; expected integers from 0 to ${d_sae - 1}`);
  }
}

/** Writes the images that are shown. */
async function writeImages(
  { images: { paths, classes, thumbnail }, out }: FeaturesPlan,
  records: readonly ChosenRecord[],
  { onProgress, signal }: FeatureSurroundings,
): Promise<FeatureImage[]> {
  const used = [...new Set(records.flatMap(({ examples }) => examples.map(({ image }) => image)))].sort((a, b) =>
    a - b
  );
  await Deno.mkdir(`${out}/images`, { recursive: true });
  const images: FeatureImage[] = [];
  for (const example of used) {
    signal?.throwIfAborted();
    onProgress?.("images", images.length, used.length);
    const file = `images/${String(example).padStart(6, "0")}.jpg`;
    // Not one by one to the disk, as other files are: there may be many thousands, and they can be made again.
    await Deno.writeFile(`${out}/${PARTIAL}/image.jpg`, await thumbnail(example));
    await Deno.rename(`${out}/${PARTIAL}/image.jpg`, `${out}/${file}`);
    images.push({ example, path: paths[example]!, file, class: classes?.labels[example] ?? null });
  }
  onProgress?.("images", used.length, used.length);
  return images;
}
