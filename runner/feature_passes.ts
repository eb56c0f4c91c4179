/**
 * The two passes over the rows that `saev features` makes, and the notes from which a stopped one continues.
 *
 * In the folder `partial`, which is removed at the end: `plan.json`, what the passes are of; `sums.bin` and `pooled.bin`, how
 * far the first has come; `drawn.json`, `heat.bin` and `codes.bin`, how far the second has.
 *
 * @module
 */

import { finiteRows } from "../data/finite.ts";
import { FeatureSums } from "../eval/feature_sums.ts";
import { largestOf } from "../eval/largest.ts";
import { encodeRows, type RowCode } from "../eval/latents.ts";
import { crc32 } from "../io/crc32.ts";
import { readBytes, writeBytes } from "../io/files.ts";
import { spans } from "../kernels/engine/tensor.ts";
import { readRows } from "../nn/rows.ts";
import {
  type ChosenRecord,
  type FeaturesPlan,
  type FeatureSurroundings,
  maskClasses,
  neighbourImages,
} from "./feature_plan.ts";
import { fingerprintOf, modelFingerprint } from "./fingerprint.ts";
import { WordFile } from "./word_file.ts";

/** The folder of what is not finished. */
export const PARTIAL = "partial";

/** Words of an entry: image, latent, bits of the activation, patch. */
export const ENTRY_WORDS = 4;
/** Rows that are encoded at a time, in whole images. */
const ROWS_AT_A_TIME = 2048;
/** Milliseconds between notes. */
const NOTE_MS = 60_000;
/** Latents that are named because they fire on the same rows. */
const N_TOGETHER = 8;

/** The folder of what is not finished, and whether something in it can be continued. */
export interface PartialFolder {
  /** Its path. */
  readonly path: string;
  /** Whether it is of the same plan. */
  readonly continues: boolean;
}

/** Opens the folder, and empties it where it is of another plan. */
export async function openPartial(plan: FeaturesPlan): Promise<PartialFolder> {
  const { sae, rows, images, patchLabels, selection, counts, grid } = plan;
  const path = `${plan.out}/${PARTIAL}`;
  const bytes = new TextEncoder().encode(JSON.stringify([images.paths, images.classes]));
  const identity = JSON.stringify({
    saev_features: 1,
    model: await modelFingerprint(sae),
    data: await fingerprintOf(rows),
    images: new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex(),
    patchLabels: patchLabels && crc32(patchLabels),
    ...{ selection, counts, grid },
  });
  const found = await Deno.readTextFile(`${path}/plan.json`).catch(() => null);
  if (found === identity) return { path, continues: true };
  await Deno.remove(path, { recursive: true }).catch(() => {});
  await Deno.mkdir(path, { recursive: true });
  await writeBytes(`${path}/plan.json`, [new TextEncoder().encode(identity)]);
  return { path, continues: false };
}

/** What the first pass has found. */
export interface FirstPass extends AsyncDisposable {
  /** Of all rows. */
  readonly sums: FeatureSums;
  /** Four words for each latent that fires on an image: image, latent, bits of its largest activation, patch. */
  readonly pooled: WordFile;
  /** [neighbour images, D], the mean row of each; empty where there are classes. */
  readonly means: Float32Array;
  /** How many images there are. */
  readonly nImages: number;
  /** The images of each class; `null` where there are fewer than two classes. */
  readonly imagesOfClass: readonly (readonly number[])[] | null;
}

/** Encodes all rows and keeps sums; continues where it was stopped. */
export async function encodeOnce(
  plan: FeaturesPlan,
  folder: PartialFolder,
  { onProgress, signal, noteMs = NOTE_MS }: FeatureSurroundings,
): Promise<FirstPass> {
  const { sae, images, patchLabels, grid } = plan;
  const { d_model, d_sae } = sae.cfg;
  const [nImages, perImage] = [images.paths.length, grid.height * grid.width];
  const imagesOfClass = classedImages(images);
  const neighbours = imagesOfClass ? [] : neighbourImages(nImages);
  const placeOf = new Map(neighbours.map((image, place) => [image, place]));
  const means = new Float32Array(neighbours.length * d_model);
  const labels = patchLabels && maskClasses(patchLabels);
  const classAt = labels && new Map(labels.map((label, at) => [label, at]));
  const sums = new FeatureSums(d_sae, d_model, labels?.length ?? 0);
  const arrays = { ...sums.arrays(), means };
  const note = folder.continues ? await readNote(`${folder.path}/sums.bin`, arrays) : null;
  let [done, noted] = [note?.images ?? 0, Date.now()];
  await using stack = new AsyncDisposableStack();
  const pooled = stack.use(await WordFile.open(`${folder.path}/pooled.bin`, note?.words ?? 0));
  const takeNote = async (): Promise<void> => {
    await pooled.sync();
    await writeNote(`${folder.path}/sums.bin`, { images: done, words: pooled.words }, arrays);
    noted = Date.now();
  };
  onProgress?.("encoding", done, nImages);
  for await (const { images: batch, x_BD, codes } of encodedImages(plan, imageRange(done, nImages), signal)) {
    let image = batch[0]!;
    const words: number[] = [];
    for await (const { row, latents, values } of codes) {
      const patch = row % perImage;
      const at = batch[0]! * perImage + row;
      const x_D = x_BD.subarray(row * d_model, (row + 1) * d_model);
      sums.addPatch(at, patch, { x_D, latents, values, maskClass: classAt?.get(patchLabels![at]!) ?? 0 });
      const place = placeOf.get(image);
      if (place !== undefined) { for (let d = 0; d < d_model; d++) means[place * d_model + d]! += x_D[d]! / perImage; }
      if (patch < perImage - 1) continue;
      const pooledImage = sums.endImage();
      const bits = new Uint32Array(pooledImage.values.buffer);
      for (const [i, latent] of pooledImage.latents.entries()) {
        words.push(image, latent, bits[i]!, pooledImage.patches[i]!);
      }
      image++;
    }
    await pooled.add(Uint32Array.from(words));
    done += batch.length;
    onProgress?.("encoding", done, nImages);
    if (signal?.aborted || Date.now() - noted >= noteMs) await takeNote();
    signal?.throwIfAborted();
  }
  if (done > (note?.images ?? 0)) await takeNote();
  const owned = stack.move();
  return { sums, pooled, means, nImages, imagesOfClass, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function classedImages({ classes }: FeaturesPlan["images"]): number[][] | null {
  if (classes === null) return null;
  const images: number[][] = classes.names.map(() => []);
  for (const [image, label] of classes.labels.entries()) images[label]!.push(image);
  return images.filter(({ length }) => length > 0).length < 2 ? null : images;
}

/** What the second pass has drawn. */
export interface SecondPass extends AsyncDisposable {
  /** [patches] of each example of the record at a place: 255 is the largest activation. */
  heat(at: number): Uint8Array[];
  /** The latents that fire on most of the strongest rows of the record at a place. */
  together(at: number): { readonly latent: number; readonly share: number }[];
}

/** Encodes the images that are shown and the strongest rows again; continues where it was stopped. */
export async function encodeAgain(
  plan: FeaturesPlan,
  folder: PartialFolder,
  given: { readonly records: readonly ChosenRecord[]; readonly sums: FeatureSums } & FeatureSurroundings,
): Promise<SecondPass> {
  const { records, sums, onProgress, signal, noteMs = NOTE_MS } = given;
  const { d_sae } = plan.sae.cfg;
  const perImage = plan.grid.height * plan.grid.width;
  const shownOn = new Map<number, { readonly record: ChosenRecord; readonly place: number }[]>();
  const starts = [0];
  for (const record of records) {
    for (const [i, { image }] of record.examples.entries()) {
      const place = starts.at(-1)! + i;
      const shown = shownOn.get(image);
      if (shown) shown.push({ record, place });
      else shownOn.set(image, [{ record, place }]);
    }
    starts.push(starts.at(-1)! + record.examples.length);
  }
  const strongest = records.map(({ latent }) => sums.strongest.of(latent).map(({ row }) => row));
  const wantedRows = Float64Array.from(new Set(strongest.flat())).sort();
  const wanted = [...new Set([...shownOn.keys(), ...Array.from(wantedRows, (row) => Math.floor(row / perImage))])]
    .sort((a, b) => a - b);

  const note = folder.continues ? await readDrawn(`${folder.path}/drawn.json`) : null;
  await using stack = new AsyncDisposableStack();
  const heat = stack.use(
    await WordFile.open(`${folder.path}/heat.bin`, Math.ceil(starts.at(-1)! * perImage / 4)),
  );
  const codes = stack.use(await WordFile.open(`${folder.path}/codes.bin`, note?.words ?? 0));
  /** Where the code of each wanted row starts: the number of its latents, and they. */
  const places = new Float64Array(wantedRows.length);
  let nextRow = 0;
  for (let at = 0; at < codes.words; at += 1 + codes.read(at, 1)[0]!) places[nextRow++] = at;
  let [done, noted] = [note?.images ?? 0, Date.now()];
  const takeNote = async (): Promise<void> => {
    await Promise.all([heat.sync(), codes.sync()]);
    const text = JSON.stringify({ images: done, words: codes.words });
    await writeBytes(`${folder.path}/drawn.json`, [new TextEncoder().encode(text)]);
    noted = Date.now();
  };
  /** The heat-map of a latent on the image at hand. */
  const drawn = new Map<number, { readonly bytes: Uint8Array; readonly max: number }>();
  onProgress?.("drawing", done, wanted.length);
  for await (const { images, codes: found } of encodedImages(plan, wanted.slice(done), signal)) {
    const words: number[] = [];
    let at = 0;
    for await (const { row, latents, values } of found) {
      const [image, patch] = [images[at]!, row % perImage];
      if (patch === 0) {
        drawn.clear();
        for (const { record } of shownOn.get(image) ?? []) {
          drawn.set(record.latent, { bytes: new Uint8Array(perImage), max: record.max });
        }
      }
      const firing = Array.from(latents.keys()).filter((i) => values[i]! > 0);
      for (const i of firing) {
        const map = drawn.get(latents[i]!);
        if (map) map.bytes[patch] = Math.min(255, Math.max(1, Math.round(255 * values[i]! / map.max)));
      }
      if (image * perImage + patch === wantedRows[nextRow]) {
        places[nextRow++] = codes.words + words.length;
        words.push(firing.length, ...firing.map((i) => latents[i]!));
      }
      if (patch < perImage - 1) continue;
      for (const { record, place } of shownOn.get(image) ?? []) {
        heat.writeAt(place * perImage, drawn.get(record.latent)!.bytes);
      }
      at++;
    }
    await codes.add(Uint32Array.from(words));
    done += images.length;
    onProgress?.("drawing", done, wanted.length);
    if (signal?.aborted || Date.now() - noted >= noteMs) await takeNote();
    signal?.throwIfAborted();
  }
  if (done > (note?.images ?? 0)) await takeNote();
  const owned = stack.move();
  const placeOfRow = new Map(Array.from(wantedRows, (row, i) => [row, places[i]!]));
  return {
    heat: (at) =>
      records[at]!.examples.map((_, i) => {
        const bytes = new Uint8Array(perImage);
        heat.readAt((starts[at]! + i) * perImage, bytes);
        return bytes;
      }),
    together: (at) => {
      const counts = new Uint32Array(d_sae);
      const rows = strongest[at]!;
      for (const row of rows) {
        const place = placeOfRow.get(row)!;
        for (const latent of codes.read(place + 1, codes.read(place, 1)[0]!)) counts[latent]!++;
      }
      counts[records[at]!.latent] = 0;
      return largestOf(counts, N_TOGETHER).filter((latent) => counts[latent]! > 0)
        .map((latent) => ({ latent, share: counts[latent]! / rows.length }));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function imageRange(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

/** Some images, encoded together. */
interface EncodedImages {
  /** Their numbers. */
  readonly images: readonly number[];
  /** [rows, D] */
  readonly x_BD: Float32Array;
  /** The codes of their rows, counted from the first of them. */
  readonly codes: AsyncGenerator<RowCode>;
}

/** Encodes images, as many at a time as have few enough rows. Those that follow each other are read together. */
async function* encodedImages(
  { sae, rows, grid, dataName }: FeaturesPlan,
  images: readonly number[],
  signal: AbortSignal | undefined,
): AsyncGenerator<EncodedImages> {
  const perImage = grid.height * grid.width;
  const most = Math.max(1, Math.floor(ROWS_AT_A_TIME / perImage));
  const finite = finiteRows(rows, dataName);
  for (const { from, to } of spans(images.length, most)) {
    const batch = images.slice(from, to);
    const x_BD = new Float32Array(batch.length * perImage * rows.d_model);
    for (let at = 0, end = 0; at < batch.length; at = end) {
      signal?.throwIfAborted();
      const first = batch[at]!;
      while (end < batch.length && batch[end] === first + end - at) end++;
      x_BD.set(await readRows(finite, first * perImage, (first + end - at) * perImage), at * perImage * rows.d_model);
    }
    yield { images: batch, x_BD, codes: encodeRows(sae, [x_BD]) };
  }
}

/** How far a pass is. */
interface Note {
  /** Images that are done. */
  readonly images: number;
  /** Words of its file by then. */
  readonly words: number;
}

/** Writes arrays, with a line before them that says how far they are. */
async function writeNote(
  path: string,
  note: Note,
  arrays: Readonly<Record<string, Float64Array | Float32Array | Uint32Array>>,
): Promise<void> {
  const parts = Object.values(arrays).map((values) =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  );
  await writeBytes(path, [new TextEncoder().encode(`${JSON.stringify(note)}\n`), ...parts]);
}

/** Fills the arrays with what was noted; `null` where nothing was. */
async function readNote(
  path: string,
  arrays: Readonly<Record<string, Float64Array | Float32Array | Uint32Array>>,
): Promise<Note | null> {
  if (await Deno.stat(path).catch(() => null) === null) return null;
  const bytes = await readBytes(path);
  let at = bytes.indexOf(10) + 1;
  const note = JSON.parse(new TextDecoder().decode(bytes.subarray(0, at)));
  for (const values of Object.values(arrays)) {
    const into = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    into.set(bytes.subarray(at, at += into.length));
  }
  return note;
}

async function readDrawn(path: string): Promise<Note | null> {
  const text = await Deno.readTextFile(path).catch(() => null);
  return text === null ? null : JSON.parse(text);
}
