/**
 * The report of a run as one self-contained HTML file: numbers, curves, the density of the features, pictures,
 * configuration.
 *
 * @module
 */

import { densityHistogram } from "../eval/metrics.ts";
import type { PageDensity, PageLine, PageNumber, PagePicture, PageTable, ReportData } from "./pages/data.ts";
import { renderPage } from "./pages/page.ts";

/** One of the main results of the run. */
export type ReportNumber = PageNumber;

/** A table of plain values. */
export type ReportTable = PageTable;

/** Values over the steps of a run. */
export interface ReportCurve {
  /** Its configuration. */
  readonly title: string;
  /** [points] */
  readonly values: ArrayLike<number>;
  /** [points], the step of each, in ascending order; 1, 2, … if left out. */
  readonly steps?: ArrayLike<number>;
}

/** A picture as a PNG file. */
export interface ReportPicture {
  /** The file. */
  readonly png: Uint8Array;
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** Alternative text. */
  readonly alt: string;
}

/** One feature: what it looks like and what activates it. */
export interface ReportFeature {
  /** Its number in the model. */
  readonly index: number;
  /** The share of rows on which it is active. */
  readonly density: number;
  /** Its decoder row, if that can be shown as a picture. */
  readonly feature?: ReportPicture;
  /** The inputs with its largest activations, largest first. */
  readonly examples: ReportPicture;
}

/** The content of a report. */
export interface Report {
  /** At the top. */
  readonly title: string;
  /** One or two sentences below it. */
  readonly summary: string;
  /** The most important first. */
  readonly numbers: readonly ReportNumber[];
  /** Drawn side by side. */
  readonly curves: readonly ReportCurve[];
  /** The share of rows each feature is active on. */
  readonly density: ArrayLike<number>;
  /** Plain data; tables within it are flattened to `table.field`. */
  readonly configuration: Readonly<Record<string, unknown>>;
  /** Warnings, one sentence each. */
  readonly warnings?: readonly string[];
  /** Shown before the configuration. */
  readonly tables?: readonly ReportTable[];
  /** All features, the most used first. */
  readonly features?: ReportPicture & { readonly caption: string };
  /** The features that explain most, the strongest first. */
  readonly strongest?: { readonly caption: string; readonly features: readonly ReportFeature[] };
}

/** The report as an HTML document, which needs no network and no other file. */
export function renderReport(report: Report): string {
  const { title, summary, numbers, warnings = [], features, strongest, curves, tables = [] } = report;
  const data: ReportData = {
    title,
    summary,
    numbers,
    warnings,
    features: features ? { ...pictureOf(features), caption: features.caption } : null,
    strongest: strongest
      ? {
        caption: strongest.caption,
        features: strongest.features.map(({ index, density, feature, examples }) => ({
          index,
          density,
          feature: feature ? pictureOf(feature) : null,
          examples: pictureOf(examples),
        })),
      }
      : null,
    curves: curves.map(({ title, values, steps }) => ({ title, ...pageLine(values, steps) })),
    density: pageDensity(report.density),
    tables,
    configuration: flatten(report.configuration).filter(([, value]) => value !== "null"),
  };
  return renderPage("report", { title, data });
}

function pictureOf({ png, width, height, alt }: ReportPicture): PagePicture {
  return { src: `data:image/png;base64,${png.toBase64()}`, width, height, alt };
}

/** Largest number of points of a line in a page. */
const MAX_POINTS = 1000;

/**
 * A line of at most `most` points, 1000 if left out. Longer lines are averaged over groups of neighbours, each at the
 * middle of its steps. Values that are not finite are left out of the averages; a group of only such values is dropped.
 */
export function pageLine(values: ArrayLike<number>, steps?: ArrayLike<number>, most = MAX_POINTS): PageLine {
  const size = Math.max(1, Math.ceil(values.length / most));
  const groups = Array.from({ length: Math.ceil(values.length / size) }, (_, i) => {
    const [from, to] = [i * size, Math.min((i + 1) * size, values.length)];
    const finite = Array.from({ length: to - from }, (_, j) => values[from + j]!).filter(Number.isFinite);
    const [first, last] = steps ? [steps[from]!, steps[to - 1]!] : [from + 1, to];
    // Six digits are more than a chart shows, and halve the size of the page.
    const y = finite.length === 0 ? null : finite.reduce((sum, value) => sum + value, 0) / finite.length;
    return { x: (first + last) / 2, y: y === null ? null : Number(y.toPrecision(6)) };
  });
  return { x: groups.map(({ x }) => x), y: groups.map(({ y }) => y) };
}

/** The histogram of the densities of all latents. */
export function pageDensity(density: ArrayLike<number>): PageDensity {
  const histogram = densityHistogram(density);
  const n_active = histogram.counts.reduce((sum, count) => sum + count, 0);
  return { n_latents: density.length, n_dead: density.length - n_active, ...histogram };
}

/** Nested tables as `outer.inner`. */
export function flatten(table: Readonly<Record<string, unknown>>, prefix = ""): [string, string][] {
  return Object.entries(table).flatMap(([name, value]): [string, string][] =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? flatten(value as Record<string, unknown>, `${prefix}${name}.`)
      : [[prefix + name, Array.isArray(value) ? value.join(", ") : String(value)]]
  );
}
