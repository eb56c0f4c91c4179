/**
 * Writes what `saev features` has found: `features.json`, and the page with the scripts that hold its data.
 *
 * A page that is opened from disk may load scripts, and nothing else: so its data are calls of functions that it defines.
 *
 * @module
 */

import {
  blockFile,
  type FeatureBlock,
  type FeatureIndex,
  type FeatureRecord,
  FEATURES_PER_BLOCK,
  type FeaturesFile,
} from "../eval/feature_file.ts";
import { writeBytes } from "../io/files.ts";
import type { MadeFeatures } from "./features.ts";
import { jsonForScript, renderPage } from "./pages/page.ts";

/** Writes all files, `features.json` last, and removes the images and scripts of features that were there before. */
export async function writeFeaturePage(out: string, { file, heat }: MadeFeatures): Promise<void> {
  await Deno.mkdir(`${out}/data`, { recursive: true });
  const write = (name: string, parts: readonly string[]): Promise<void> =>
    writeBytes(`${out}/${name}`, parts.map((part) => new TextEncoder().encode(part)));
  const nBlocks = Math.ceil(file.latents.length / FEATURES_PER_BLOCK);
  for (let block = 0; block < nBlocks; block++) {
    const first = block * FEATURES_PER_BLOCK;
    const latents = file.latents.slice(first, first + FEATURES_PER_BLOCK).map((record, i) => ({
      ...record,
      heat: heat(first + i).map(toBase64),
    }));
    await write(blockFile(block), [`saev.block(${jsonForScript({ block, latents } satisfies FeatureBlock)});\n`]);
  }
  await write("data/index.js", [`saev.index(${jsonForScript(indexOf(file))});\n`]);
  const title = `Features of ${file.model.name}`;
  const sources = "img-src 'self' file: data:";
  await write("index.html", [renderPage("features", { title, data: null, sources, loadsScripts: true })]);
  await write("features.json", jsonParts(file));
  const used = new Set([
    "data/index.js",
    ...Array.from({ length: nBlocks }, (_, block) => blockFile(block)),
    ...file.images.map((image) => image.file),
  ]);
  for (const folder of ["data", "images"]) {
    for await (const { name } of Deno.readDir(`${out}/${folder}`)) {
      const isOurs = /^(?:\d{6,}\.jpg|\d{4,}\.js)$/.test(name);
      if (isOurs && !used.has(`${folder}/${name}`)) await Deno.remove(`${out}/${folder}/${name}`);
    }
  }
}

/** The file a latent at a time: as one text it might be longer than texts can be. */
function jsonParts({ latents, ...rest }: FeaturesFile): string[] {
  const head = JSON.stringify(rest).slice(0, -1);
  return [
    `${head},"latents":[`,
    ...latents.map((record, i) => `${i === 0 ? "" : ","}\n${JSON.stringify(record)}`),
    "]}\n",
  ];
}

/** The columns of the grid. Four digits are more than it shows. */
function indexOf({ latents, images, ...rest }: FeaturesFile): FeatureIndex {
  const rounded = (value: number): number => Number(value.toPrecision(4));
  const column = <T>(of: (record: FeatureRecord) => T): T[] => latents.map(of);
  const maybe = (of: (record: FeatureRecord) => number | null | undefined): (number | null)[] =>
    column((record) => {
      const value = of(record) ?? null;
      return value === null ? null : rounded(value);
    });
  return {
    ...rest,
    images: images.map(({ file, path, class: label }) => [file, path, label]),
    columns: {
      latent: column(({ latent }) => latent),
      density: column(({ density }) => rounded(density)),
      mean: column(({ mean }) => rounded(mean)),
      max: column(({ max }) => rounded(max)),
      monosemanticity: maybe((record) => record.monosemanticity),
      class: column(({ classes }) => classes?.[0]?.class ?? null),
      auroc: maybe(({ classes }) => classes?.[0]?.auroc),
      average_precision: maybe(({ classes }) => classes?.[0]?.average_precision),
      recurrence: maybe(({ recurrence }) => recurrence),
      image: column(({ examples }) => examples[0]!.image),
    },
  };
}

function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
