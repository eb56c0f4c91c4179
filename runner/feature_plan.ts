/**
 * What `saev features` is asked for.
 *
 * @module
 */

import type { ExampleCounts } from "../eval/feature_examples.ts";
import type { FeatureAnnotation, FeatureRecord, FeatureStability } from "../eval/feature_file.ts";
import type { RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";

/** Which of the latents that fire are shown. */
export type FeatureSelection =
  | { readonly by: "all" }
  | { readonly by: "list"; readonly latents: readonly number[] }
  | { readonly by: FeatureOrder; readonly n: number };

/** What the `n` shown latents have most of. */
export type FeatureOrder = "density" | "mean" | "max" | "auroc" | "monosemanticity";

/** The images that the rows are of. */
export interface FeatureImages {
  /** Their paths below a folder, in the order of the examples. */
  readonly paths: readonly string[];
  /** Names of classes, and the class of each image; `null` without classes. */
  readonly classes: { readonly names: readonly string[]; readonly labels: readonly number[] } | null;
  /** An image as the vision model saw it, as a small JPEG file. */
  readonly thumbnail: (image: number) => Promise<Uint8Array>;
}

/** What {@link makeFeatures} is asked for. */
export interface FeaturesPlan {
  /** The model. */
  readonly sae: SparseAutoencoder;
  /** What it is called. */
  readonly modelName: string;
  /** The patches of all images, in order. */
  readonly rows: RowSource;
  /** What their folder is called. */
  readonly dataName: string;
  /** Patches of an image. */
  readonly grid: { readonly height: number; readonly width: number };
  /** The images. */
  readonly images: FeatureImages;
  /** [rows], the class of each patch in the masks; `null` without masks. */
  readonly patchLabels: Uint8Array | null;
  /** Which latents are shown. */
  readonly selection: FeatureSelection;
  /** With how many images. */
  readonly counts: ExampleCounts;
  /** What people said of latents; of two about one latent, the later counts. */
  readonly annotations: readonly FeatureAnnotation[];
  /** In which share of other runs each of the d_sae latents recurs; `null` where that is not known. */
  readonly stability: { readonly recurrence: readonly number[]; readonly summary: FeatureStability } | null;
  /** The folder. */
  readonly out: string;
}

/** What {@link makeFeatures} is doing. */
export type FeatureStage = "encoding" | "drawing" | "images";

/** How it is watched and stopped. */
export interface FeatureSurroundings {
  /** Told how much of a stage is done. */
  readonly onProgress?: (stage: FeatureStage, done: number, of: number) => void;
  /** Ends it after the images under way. What was done is kept. */
  readonly signal?: AbortSignal;
  /** Milliseconds between notes of how far it is; a minute if left out. */
  readonly noteMs?: number;
}

/** A record before the second pass; images are numbers of examples. */
export type ChosenRecord = Omit<FeatureRecord, "together" | "recurrence">;

/** Images among which the nearest in x are looked for. */
const MAX_NEIGHBOURS = 16_384;

/** The classes that occur in masks, ascending. */
export function maskClasses(patchLabels: Uint8Array): number[] {
  return [...new Set(patchLabels)].sort((a, b) => a - b);
}

/** The images among which the nearest are looked for: all, or some at equal distances. */
export function neighbourImages(nImages: number): number[] {
  const n = Math.min(nImages, MAX_NEIGHBOURS);
  return Array.from({ length: n }, (_, i) => Math.floor(i * nImages / n));
}
