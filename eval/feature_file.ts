/**
 * `features.json`: what is known of the latents of a model on a folder of images, and where their pictures are.
 *
 * ```
 * DIR/features.json        everything but heat-maps: {@link FeaturesFile}
 * DIR/index.html           the page, which needs no server
 * DIR/data/index.js        what the page's grid shows
 * DIR/data/0000.js …       the latents 64 at a time, with heat-maps: {@link FeatureBlock}
 * DIR/images/000012.jpg …  the images that are shown, as the vision model saw them
 * ```
 *
 * Scripts in `data/` call `saev.index(JSON)` or `saev.block(JSON)`: a page opened from disk may load scripts, and nothing
 * else. `openFeatures` reads the JSON and runs none of it.
 *
 * @module
 */

/** Latents in one {@link FeatureBlock}. */
export const FEATURES_PER_BLOCK = 64;

/** Why an image is shown with a latent. */
export type FeatureExampleKind = "top" | "quantile" | "counter";

/** An image that is shown with a latent. */
export interface FeatureExample {
  /**
   * `top`: one of those on which it fires most strongly. `quantile`: from the middle of the images on which it fires.
   * `counter`: it is silent on it, though it fires on the rest of its best class, or on the images nearest in x.
   */
  readonly kind: FeatureExampleKind;
  /** Its place in {@link FeaturesFile.images}. */
  readonly image: number;
  /** The latent's largest activation on a patch of it. */
  readonly value: number;
  /** That patch, row by row. */
  readonly patch: number;
  /** Of a `quantile`: the share of the images on which the latent fires that have smaller values. */
  readonly quantile: number | null;
}

/** How well a latent tells one class of images from all others, by its largest activation on each image. */
export interface FeatureClassScore {
  /** A place in {@link FeaturesFile.classes}. */
  readonly class: number;
  /** Area under the ROC curve, ties counted as half. */
  readonly auroc: number;
  /** Average precision, of equal values all at once, as scikit-learn has it. */
  readonly average_precision: number;
}

/** All that is known of one latent. */
export interface FeatureRecord {
  /** Its number. */
  readonly latent: number;
  /** Rows on which it fires. */
  readonly n_rows: number;
  /** Images on which it fires. */
  readonly n_images: number;
  /** The share of all rows on which it fires. */
  readonly density: number;
  /** Its mean activation where it fires. */
  readonly mean: number;
  /** Its largest. */
  readonly max: number;
  /** How alike the rows are that excite it, from −1 to 1; `null` for fewer than two rows. */
  readonly monosemanticity: number | null;
  /** Rows by activation: bin i counts activations from 2^((first + i) / 2) to below 2^((first + i + 1) / 2). */
  readonly histogram: { readonly first: number; readonly counts: readonly number[] };
  /** The latents with the nearest decoder rows, the nearest first. */
  readonly nearest: readonly { readonly latent: number; readonly cosine: number }[];
  /** The latents that fire on the largest share of its 256 strongest rows. */
  readonly together: readonly { readonly latent: number; readonly share: number }[];
  /** The best classes by AUROC of those with five images or more, the best first; `null` with fewer than two classes. */
  readonly classes: readonly FeatureClassScore[] | null;
  /** The share of its 16 strongest images that are of the commonest class among them; `null` without classes. */
  readonly purity_at_16: number | null;
  /** The share of its activation on the patches of each class of the masks, the largest first; `null` without masks. */
  readonly masks: readonly { readonly class: number; readonly share: number }[] | null;
  /** The share of other runs in which it recurs; `null` where none were compared. */
  readonly recurrence: number | null;
  /** Images, the strongest first, then by quantile, then counter-examples. */
  readonly examples: readonly FeatureExample[];
}

/** An image that is shown. */
export interface FeatureImage {
  /** Its number among all examples of the shards. */
  readonly example: number;
  /** Its path below the folder of images. */
  readonly path: string;
  /** The file with it, below the folder of features. */
  readonly file: string;
  /** Its class; `null` without classes. */
  readonly class: number | null;
}

/** What somebody says of a latent. */
export interface FeatureAnnotation {
  /** Its number. */
  readonly latent: number;
  /** A short name. */
  readonly name: string;
  /** Words to find it by. */
  readonly tags: readonly string[];
  /** What it was judged to be; empty where it was not. */
  readonly verdict: "" | "interpretable" | "unclear" | "mixed";
  /** Anything else. */
  readonly note: string;
}

/** Models compared with this one, by what their decoders have in common. */
export interface FeatureStability {
  /** How many other runs. */
  readonly n_others: number;
  /** A latent recurs from this cosine on. */
  readonly threshold: number;
  /** The mean share of runs in which latents recur, after training and before it. */
  readonly mean_recurrence: readonly [trained: number, initial: number | null];
}

/** What `features.json` holds. */
export interface FeaturesFile {
  /** Version of this format. */
  readonly saev_features: 1;
  /** The model. */
  readonly model: {
    /** What it was opened as. */
    readonly name: string;
    readonly d_model: number;
    readonly d_sae: number;
    /** The key of its activation. */
    readonly activation: string;
  };
  /** The rows. */
  readonly data: {
    /** The folder of shards. */
    readonly name: string;
    readonly n_images: number;
    readonly n_rows: number;
    /** Patches of an image. */
    readonly grid: { readonly height: number; readonly width: number };
  };
  /** Latents that fire nowhere. */
  readonly n_dead: number;
  /** Names of the classes of images; `null` without. */
  readonly classes: readonly string[] | null;
  /** Classes of the masks that occur, as numbers in `labels.bin`; `null` without. */
  readonly mask_classes: readonly number[] | null;
  /** The images that are shown. */
  readonly images: readonly FeatureImage[];
  /** In ascending order of their numbers: all that are alive, or those that were chosen. */
  readonly latents: readonly FeatureRecord[];
  /** What people said of them, in ascending order of latents. */
  readonly annotations: readonly FeatureAnnotation[];
  /** Other runs, where they were compared. */
  readonly stability: FeatureStability | null;
}

/** A latent as the page shows it. */
export interface ShownFeature extends FeatureRecord {
  /**
   * One for each example: base64 of a byte for each patch, row by row; 255 is {@link FeatureRecord.max}, and 0 alone is
   * silence.
   */
  readonly heat: readonly string[];
}

/** What a script of `data/` holds: the latents `FEATURES_PER_BLOCK · block` and further in the list, not by number. */
export interface FeatureBlock {
  /** The block's number. */
  readonly block: number;
  /** The latents. */
  readonly latents: readonly ShownFeature[];
}

/** What `data/index.js` holds: all of {@link FeaturesFile} but the records, of which it has columns. */
export interface FeatureIndex extends Omit<FeaturesFile, "latents" | "images"> {
  /** Files and classes of {@link FeaturesFile.images}, in their order. */
  readonly images: readonly (readonly [file: string, path: string, class_: number | null])[];
  /** [latents] each, in the order of the blocks. */
  readonly columns: {
    readonly latent: readonly number[];
    readonly density: readonly number[];
    readonly mean: readonly number[];
    readonly max: readonly number[];
    readonly monosemanticity: readonly (number | null)[];
    /** The best class and its scores. */
    readonly class: readonly (number | null)[];
    readonly auroc: readonly (number | null)[];
    readonly average_precision: readonly (number | null)[];
    readonly recurrence: readonly (number | null)[];
    /** The strongest image, a place in `images`. */
    readonly image: readonly number[];
  };
}

/** What `annotations.json` holds, as the page exports it. */
export interface AnnotationsFile {
  /** Version of this format. */
  readonly saev_annotations: 1;
  /** What the model is called whose latents these are. */
  readonly model: string;
  /** How many latents it has. */
  readonly d_sae: number;
  /** One for each latent of which something is said. */
  readonly annotations: readonly FeatureAnnotation[];
}

/** The script with a block. */
export function blockFile(block: number): string {
  return `data/${String(block).padStart(4, "0")}.js`;
}
