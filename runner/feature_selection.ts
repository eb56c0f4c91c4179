/**
 * Which latents are shown, with what numbers and with which images: from the sums of the first pass and the file that says
 * which latents fire on which image.
 *
 * @module
 */

import { classScores, purity } from "../eval/class_scores.ts";
import { cosineTiles, rowsAt, unitRows } from "../eval/cosines.ts";
import { chooseExamples, type PooledEntries, strongestFirst } from "../eval/feature_examples.ts";
import { largestOf } from "../eval/largest.ts";
import { ENTRY_WORDS, type FirstPass } from "./feature_passes.ts";
import { type ChosenRecord, type FeaturesPlan, maskClasses, neighbourImages } from "./feature_plan.ts";

/** Words of pooled entries that are in memory at a time. */
const BLOCK_WORDS = 2 ** 24;
/** Words of the file that are read at a time. */
const PIECE_WORDS = 2 ** 20;
/** Latents with the nearest decoder rows that are named. */
const N_NEAREST = 8;
/** Classes of images, and of masks, that are named. */
const N_CLASSES = 5;
/** Images of a class from which on it is scored: of fewer, a latent may be the best by chance. */
const MIN_CLASS_IMAGES = 5;
/** Images whose purity is measured. */
const N_PURITY = 16;

/**
 * The records of the latents that are shown, by ascending numbers.
 *
 * @throws {RangeError} if no latent fires, or one that was asked for does not.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function selectRecords(
  plan: FeaturesPlan,
  first: FirstPass,
  signal: AbortSignal | undefined,
): Promise<ChosenRecord[]> {
  const { selection } = plan;
  const monosemanticity = first.sums.monosemanticity();
  const candidates = candidateLatents(plan, first, monosemanticity);
  const records: ChosenRecord[] = [];
  for (const block of blocksOf(first, candidates)) {
    const entries = readEntries(first, block, plan.sae.cfg.d_sae, signal);
    const neighbours = first.imagesOfClass ? null : await nearestImages(plan, first, entries, signal);
    for (const [i, latent] of block.entries()) {
      records.push(recordOf(plan, first, {
        latent,
        entries: entries[i]!,
        monosemanticity: monosemanticity[latent]!,
        neighbours: neighbours?.[i] ?? [],
      }));
    }
  }
  const chosen = selection.by === "auroc"
    ? records.toSorted((a, b) => b.classes![0]!.auroc - a.classes![0]!.auroc || a.latent - b.latent)
      .slice(0, selection.n).sort((a, b) => a.latent - b.latent)
    : records;
  return await withNearest(plan, chosen, signal);
}

/** The latents that may be shown, ascending: those that are, unless they are chosen by what the records say. */
function candidateLatents({ selection }: FeaturesPlan, { sums }: FirstPass, monosemanticity: Float64Array): number[] {
  const alive = sums.alive();
  if (alive.length === 0) throw new RangeError("no latent fires on any row: there is nothing to show");
  if (selection.by === "all" || selection.by === "auroc") return alive;
  if (selection.by === "list") {
    const silent = selection.latents.find((latent) => !alive.includes(latent));
    if (silent !== undefined) throw new RangeError(`latent ${silent} fires on no row: there is nothing to show of it`);
    return [...new Set(selection.latents)].sort((a, b) => a - b);
  }
  const { by, n } = selection;
  const valueOf = (latent: number): number => {
    if (by === "monosemanticity") return monosemanticity[latent]!;
    const { n_rows, mean, max } = sums.of(latent);
    return by === "density" ? n_rows : by === "mean" ? mean : max;
  };
  const values = new Map(alive.map((latent) => [latent, valueOf(latent)]));
  return alive.filter((latent) => !Number.isNaN(values.get(latent)))
    .sort((a, b) => values.get(b)! - values.get(a)! || a - b).slice(0, n).sort((a, b) => a - b);
}

/** Latents in blocks whose entries fit into memory. */
function* blocksOf({ sums }: FirstPass, latents: readonly number[]): Generator<number[]> {
  let [block, words]: [number[], number] = [[], 0];
  for (const latent of latents) {
    const more = ENTRY_WORDS * sums.of(latent).n_images;
    if (block.length > 0 && words + more > BLOCK_WORDS) {
      yield block;
      [block, words] = [[], 0];
    }
    block.push(latent);
    words += more;
  }
  if (block.length > 0) yield block;
}

/** On which images the latents of a block fire. */
function readEntries(
  { sums, pooled }: FirstPass,
  block: readonly number[],
  d_sae: number,
  signal: AbortSignal | undefined,
): PooledEntries[] {
  const placeOf = new Int32Array(d_sae).fill(-1);
  const filled = new Uint32Array(block.length);
  const entries = block.map((latent, place): PooledEntries => {
    placeOf[latent] = place;
    const n = sums.of(latent).n_images;
    return { images: new Uint32Array(n), values: new Float32Array(n), patches: new Uint32Array(n) };
  });
  for (let from = 0; from < pooled.words; from += PIECE_WORDS) {
    signal?.throwIfAborted();
    const words = pooled.read(from, Math.min(PIECE_WORDS, pooled.words - from));
    const values = new Float32Array(words.buffer);
    for (let at = 0; at < words.length; at += ENTRY_WORDS) {
      const place = placeOf[words[at + 1]!]!;
      if (place < 0) continue;
      const [of, i] = [entries[place]!, filled[place]!++];
      [of.images[i], of.values[i], of.patches[i]] = [words[at]!, values[at + 2]!, words[at + 3]!];
    }
  }
  return entries;
}

/** For each latent the images whose mean row is nearest to that of its strongest ones, the nearest first. */
async function nearestImages(
  { sae: { cfg: { d_model }, context }, counts }: FeaturesPlan,
  { means, nImages }: FirstPass,
  entries: readonly PooledEntries[],
  signal: AbortSignal | undefined,
): Promise<number[][]> {
  const images = neighbourImages(nImages);
  const placeOf = new Map(images.map((image, place) => [image, place]));
  const units = unitRows(means, d_model);
  const queries = new Float32Array(entries.length * d_model);
  for (const [i, of] of entries.entries()) {
    // Where none of the strongest is among the images that are compared, the query is zero, and so are all cosines.
    for (const place of strongestFirst(of).subarray(0, Math.max(counts.n_top, 1))) {
      const at = placeOf.get(of.images[place]!);
      if (at === undefined) continue;
      for (let d = 0; d < d_model; d++) queries[i * d_model + d]! += units[at * d_model + d]!;
    }
  }
  const found: number[][] = [];
  for await (
    const { rows, cosines } of cosineTiles(context, { a: unitRows(queries, d_model), b: units, d_model, signal })
  ) {
    const read = await cosines.read((rows.to - rows.from) * images.length);
    for (let row = rows.from; row < rows.to; row++) {
      const near = read.subarray((row - rows.from) * images.length, (row - rows.from + 1) * images.length);
      const fired = new Set(entries[row]!.images);
      const silent = Array.from(images.keys()).filter((place) => !fired.has(images[place]!));
      silent.sort((a, b) => near[b]! - near[a]! || a - b);
      found.push(silent.slice(0, counts.n_counter).map((place) => images[place]!));
    }
  }
  return found;
}

function recordOf(
  { images: { classes }, rows, counts, patchLabels }: FeaturesPlan,
  { sums, imagesOfClass }: FirstPass,
  { latent, entries, monosemanticity, neighbours }: {
    readonly latent: number;
    readonly entries: PooledEntries;
    readonly monosemanticity: number;
    readonly neighbours: readonly number[];
  },
): ChosenRecord {
  const { n_rows, n_images, mean, max, histogram, maskShares } = sums.of(latent);
  const order = strongestFirst(entries);
  const found = classes && imagesOfClass && classesOf(entries, classes.labels, imagesOfClass);
  const masks = patchLabels && maskClasses(patchLabels).map((label, i) => ({ class: label, share: maskShares[i]! }))
    .filter(({ share }) => share > 0).sort((a, b) => b.share - a.share || a.class - b.class).slice(0, N_CLASSES);
  const silent = found ? spread(silentOf(imagesOfClass![found[0]!.class]!, entries), counts.n_counter) : neighbours;
  return {
    latent,
    n_rows,
    n_images,
    density: n_rows / rows.n_rows,
    mean,
    max,
    monosemanticity: Number.isNaN(monosemanticity) ? null : monosemanticity,
    histogram,
    nearest: [],
    classes: found && found.slice(0, N_CLASSES),
    purity_at_16: found &&
      purity(Array.from(order.subarray(0, N_PURITY), (place) => classes!.labels[entries.images[place]!]!)),
    masks,
    examples: chooseExamples(entries, order, counts, silent),
  };
}

/** The scores of all classes, the best first. */
function classesOf(
  { images, values }: PooledEntries,
  labels: readonly number[],
  imagesOfClass: readonly (readonly number[])[],
): { readonly class: number; readonly auroc: number; readonly average_precision: number }[] {
  const classOf = Array.from(images, (image) => labels[image]!);
  const counts = imagesOfClass.map(({ length }) => length);
  const least = Math.min(Math.max(...counts), MIN_CLASS_IMAGES);
  return classScores(values, classOf, counts)
    .map((score, c) => ({ class: c, ...score }))
    .filter(({ class: c, auroc }) => counts[c]! >= least && !Number.isNaN(auroc))
    .sort((a, b) => b.auroc - a.auroc || b.average_precision - a.average_precision || a.class - b.class);
}

function silentOf(images: readonly number[], entries: PooledEntries): number[] {
  const fired = new Set(entries.images);
  return images.filter((image) => !fired.has(image));
}

/** Some of a list at equal distances. */
function spread(list: readonly number[], n: number): number[] {
  const count = Math.min(n, list.length);
  return Array.from({ length: count }, (_, i) => list[Math.floor((i + 0.5) * list.length / count)]!);
}

/** The records with the latents whose decoder rows are nearest. */
async function withNearest(
  { sae }: FeaturesPlan,
  records: readonly ChosenRecord[],
  signal: AbortSignal | undefined,
): Promise<ChosenRecord[]> {
  const { cfg: { d_model, d_sae }, context } = sae;
  const units = unitRows(await sae.parameters.W_dec.read(), d_model);
  const own = rowsAt(units, d_model, records.map(({ latent }) => latent));
  const found: ChosenRecord[] = [];
  for await (const { rows, cosines } of cosineTiles(context, { a: own, b: units, d_model, signal })) {
    const read = await cosines.read((rows.to - rows.from) * d_sae);
    for (let row = rows.from; row < rows.to; row++) {
      const record = records[row]!;
      const near = read.subarray((row - rows.from) * d_sae, (row - rows.from + 1) * d_sae);
      const nearest = largestOf(near, N_NEAREST + 1).filter((latent) => latent !== record.latent).slice(0, N_NEAREST)
        .map((latent) => ({ latent, cosine: Math.min(near[latent]!, 1) }));
      found.push({ ...record, nearest });
    }
  }
  return found;
}
