/**
 * What the pages are given: the JSON that a document holds for its script. Numbers that are not finite are `null` there.
 *
 * @module
 */

/** One number that sums something up. */
export interface PageNumber {
  /** What it is. */
  readonly label: string;
  /** As it should be read, unit included. */
  readonly value: string;
  /** What to compare it with, or how it was measured. */
  readonly note?: string;
}

/** A picture. */
export interface PagePicture {
  /** Its address; a data URL holds the picture itself. */
  readonly src: string;
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** For those who cannot see it. */
  readonly alt: string;
}

/** A line: as many x as y, x ascending. */
export interface PageLine {
  /** [points] */
  readonly x: readonly number[];
  /** [points] */
  readonly y: readonly (number | null)[];
}

/** A table of plain values. */
export interface PageTable {
  /** Its heading. */
  readonly title: string;
  /** One sentence below the heading. */
  readonly caption?: string;
  /** Names of the columns. */
  readonly columns: readonly string[];
  /** One value for each column. */
  readonly rows: readonly (readonly (string | number | null)[])[];
}

/** How many latents have which density. */
export interface PageDensity {
  /** All of them. */
  readonly n_latents: number;
  /** Those that are never active, which are in no bin. */
  readonly n_dead: number;
  /** [bins + 1], ascending. */
  readonly log10_edges: readonly number[];
  /** [bins] */
  readonly counts: readonly number[];
}

/** A page about one run. */
export interface ReportData {
  /** At the top. */
  readonly title: string;
  /** One or two sentences below it. */
  readonly summary: string;
  /** The most important first. */
  readonly numbers: readonly PageNumber[];
  /** What was warned of, a sentence each. */
  readonly warnings: readonly string[];
  /** All features at once. */
  readonly features: PagePicture & { readonly caption: string } | null;
  /** The features that explain most, the strongest first. */
  readonly strongest: {
    readonly caption: string;
    readonly features: readonly {
      readonly index: number;
      readonly density: number;
      readonly feature: PagePicture | null;
      readonly examples: PagePicture;
    }[];
  } | null;
  /** Numbers over steps, a chart for each. */
  readonly curves: readonly (PageLine & { readonly title: string })[];
  /** Of the features. */
  readonly density: PageDensity;
  /** In their order. */
  readonly tables: readonly PageTable[];
  /** Names and values. */
  readonly configuration: readonly (readonly [name: string, value: string])[];
}

/** What a comparison draws over steps. */
export type ComparedCurve = "loss" | "l0" | "n_dead" | "lr" | "validation";

/** What each is called. */
export const COMPARED_CURVES: Readonly<Record<ComparedCurve, string>> = {
  loss: "Loss",
  l0: "L0, active latents per row",
  n_dead: "Dead latents",
  lr: "Learning rate",
  validation: "Validation NMSE",
};

/** One run, or one checkpoint, beside others. */
export interface ComparedModel {
  /** What it is called. */
  readonly name: string;
  /** The page about it, relative to this one. */
  readonly href: string | null;
  /** `trained`, or why there are no numbers. */
  readonly state: string;
  /** Steps made. */
  readonly steps: number | null;
  /** The unexplained share of the variance. */
  readonly nmse: number | null;
  /** Active latents, mean over rows. */
  readonly l0: number | null;
  /** The share of latents that are never active. */
  readonly dead_fraction: number | null;
  /** Latents that are active on many rows. */
  readonly n_dense: number | null;
  /** Mean of cos(x, x̂). */
  readonly cosine: number | null;
  /** Latents. */
  readonly d_sae: number | null;
  /** Seconds of training. */
  readonly seconds: number | null;
  /** Whether none has both a smaller NMSE and a smaller L0. */
  readonly isOnFront: boolean;
  /** Of its latents. */
  readonly density: PageDensity | null;
  /** Numbers over steps, those that are known. */
  readonly curves: Readonly<Partial<Record<ComparedCurve, PageLine>>>;
}

/** A field of the configuration that is not the same everywhere. */
export interface FieldDifference {
  /** Its path: `train.lr`. */
  readonly field: string;
  /** One value for each model; `null` where a model has none. */
  readonly values: readonly (string | null)[];
}

/** A page about many runs. */
export interface ComparisonData {
  /** At the top. */
  readonly title: string;
  /** One or two sentences below it. */
  readonly summary: string;
  /** What makes the numbers hard to compare, one sentence each. */
  readonly warnings: readonly string[];
  /** In the order in which they were given. */
  readonly models: readonly ComparedModel[];
  /** The fields of the configuration that differ. */
  readonly differences: readonly FieldDifference[];
}
