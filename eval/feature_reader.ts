/**
 * Reads the folders of `saev features`, and the annotations that their page exports.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import { type ByteSource, type FilesSource, openFiles, openSource, type SourceOptions } from "../io/files.ts";
import { requireFile } from "../io/file_set.ts";
import { decodeText } from "../io/json.ts";
import { shown } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import {
  type AnnotationsFile,
  blockFile,
  type FeatureAnnotation,
  type FeatureBlock,
  type FeatureExample,
  FEATURES_PER_BLOCK,
  type FeaturesFile,
} from "./feature_file.ts";

const VERDICTS: readonly FeatureAnnotation["verdict"][] = ["", "interpretable", "unclear", "mixed"];

/**
 * Reads `annotations.json`.
 *
 * @throws {CheckpointError} if the file has another version, or an annotation is damaged.
 */
export async function readAnnotations(from: ByteSource, options: SourceOptions = {}): Promise<AnnotationsFile> {
  checkOptions("readAnnotations", options, { hub: true, signal: true });
  const source = await openSource(from, options);
  const file = parsed(decodeText(await source.read(0, source.size), source.name), source.name) as AnnotationsFile;
  const fail = (problem: string): never => {
    throw new CheckpointError(`reading ${source.name}: ${problem}`);
  };
  if (file?.saev_annotations !== 1) fail(`found saev_annotations ${shown(file?.saev_annotations)}; expected 1`);
  if (!Array.isArray(file.annotations)) fail(`found annotations ${shown(file.annotations)}; expected a list`);
  for (const [i, annotation] of file.annotations.entries()) {
    const { latent, name, tags, verdict, note } = annotation ?? {};
    const isGood = Number.isSafeInteger(latent) && latent >= 0 && latent < file.d_sae && typeof name === "string" &&
      typeof note === "string" && Array.isArray(tags) && tags.every((tag) => typeof tag === "string") &&
      VERDICTS.includes(verdict);
    if (!isGood) {
      fail(`annotations[${i}] must have a latent, a name, tags, a verdict and a note, found ${shown(annotation)}`);
    }
  }
  return file;
}

/** An open folder of features. */
export interface Features {
  /** Everything except heat maps. */
  readonly file: FeaturesFile;
  /**
   * The heat maps of a latent's examples, in order: [patches] each, row by row, in units of activation and rounded to
   * 1/255 of the latent's largest.
   *
   * @throws {RangeError} for a latent that is not in the file.
   * @throws {CheckpointError} if the script that holds it is missing or damaged.
   */
  heatMaps(latent: number): Promise<Float32Array[]>;
}

/**
 * Opens a folder that `saev features` wrote: a path, an address, or files that a user picked.
 *
 * @example
 * ```ts ignore
 * import { openFeatures } from "@saev/nn/eval";
 *
 * const { file, heatMaps } = await openFeatures("features");
 * const best = file.latents.toSorted((a, b) => (b.classes?.[0]?.auroc ?? 0) - (a.classes?.[0]?.auroc ?? 0))[0]!;
 * console.log(best.latent, best.examples[0], (await heatMaps(best.latent))[0]);
 * ```
 *
 * @throws {CheckpointError} if the folder has no `features.json` of this version, or a damaged one.
 */
export async function openFeatures(from: FilesSource, options: SourceOptions = {}): Promise<Features> {
  checkOptions("openFeatures", options, { hub: true, signal: true });
  const folder = await openFiles(from, options);
  const source = await requireFile(folder, "features.json");
  const file = parsed(decodeText(await source.read(0, source.size), source.name), source.name) as FeaturesFile;
  const problem = wrongIn(file);
  if (problem !== null) throw new CheckpointError(`reading ${source.name}: ${problem}`);
  return {
    file,
    async heatMaps(latent) {
      const at = file.latents.findIndex((record) => record.latent === latent);
      if (at < 0) throw new RangeError(`${source.name} has no latent ${shown(latent)}`);
      const script = await requireFile(folder, blockFile(Math.floor(at / FEATURES_PER_BLOCK)));
      const text = decodeText(await script.read(0, script.size), script.name);
      const json = /^saev\.block\((.*)\);?\s*$/s.exec(text)?.[1];
      if (json === undefined) throw new CheckpointError(`reading ${script.name}: expected one call of saev.block`);
      const { height, width } = file.data.grid;
      const shownHere = (parsed(json, script.name) as FeatureBlock).latents?.[at % FEATURES_PER_BLOCK];
      const nExamples = file.latents[at]!.examples.length;
      if (shownHere?.latent !== latent || shownHere.heat?.length !== nExamples) {
        throw new CheckpointError(`reading ${script.name}: expected latent ${latent} with ${nExamples} heat-maps`);
      }
      return shownHere.heat.map((heat) => {
        const bytes = Uint8Array.from(atob(heat), (character) => character.charCodeAt(0));
        if (bytes.length !== height * width) {
          throw new CheckpointError(
            `reading ${script.name}: found a heat-map of ${bytes.length} patches; expected ${height} × ${width}`,
          );
        }
        return Float32Array.from(bytes, (byte) => byte / 255 * shownHere.max);
      });
    },
  };
}

function parsed(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(`reading ${name}: it is not JSON; ${(cause as Error).message}`, { cause });
  }
}

/** What a file lacks that readers need; `null` for a valid one. */
function wrongIn(file: Partial<FeaturesFile> | null): string | null {
  if (typeof file !== "object" || file === null || file.saev_features !== 1) {
    return `found saev_features ${shown(file?.saev_features)}; expected 1`;
  }
  const { latents, images, data } = file;
  if (!Array.isArray(latents)) return `found latents ${shown(latents)}; expected a list`;
  if (!Array.isArray(images)) return `found images ${shown(images)}; expected a list`;
  if (!(Number.isSafeInteger(data?.grid?.height) && Number.isSafeInteger(data?.grid?.width))) {
    return `found data.grid ${shown(data?.grid)}; expected a height and a width`;
  }
  const bad = latents.findIndex((record) =>
    !Number.isSafeInteger(record?.latent) || !Array.isArray(record.examples) ||
    !record.examples.every(({ image }: FeatureExample) => Number.isSafeInteger(image) && image in images)
  );
  return bad < 0 ? null : `latents[${bad}] has no number, or examples without an image`;
}
