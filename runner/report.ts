/**
 * A run as one HTML file that needs nothing else: numbers, curves, the density of the features, pictures, configuration.
 *
 * @module
 */

import { BINS_PER_DECADE, densityHistogram } from "../eval/metrics.ts";

/** One number that sums the run up. */
export interface ReportNumber {
  /** What it is. */
  readonly label: string;
  /** As it should be read, unit included. */
  readonly value: string;
  /** What to compare it with, or how it was measured. */
  readonly note?: string;
}

/** One value a step, from step 1 on. */
export interface ReportCurve {
  /** What it is. */
  readonly title: string;
  /** [steps] */
  readonly values: ArrayLike<number>;
}

/** A picture as a PNG file. */
export interface ReportPicture {
  /** The file. */
  readonly png: Uint8Array;
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** For who cannot see it. */
  readonly alt: string;
}

/** One feature, what it looks like and what excites it. */
export interface ReportFeature {
  /** Its number in the model. */
  readonly index: number;
  /** The share of rows that it is active on. */
  readonly density: number;
  /** Its decoder row, where that is a picture. */
  readonly feature?: ReportPicture;
  /** The inputs with its largest activations, largest first. */
  readonly examples: ReportPicture;
}

/** What a report says. */
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
  /** All features, the most used first. */
  readonly features?: ReportPicture & { readonly caption: string };
  /** The features that explain most, the strongest first. */
  readonly strongest?: { readonly caption: string; readonly features: readonly ReportFeature[] };
}

/** The report as an HTML document. */
export function renderReport(report: Report): string {
  const { title, summary, numbers, curves, features, strongest, density, configuration } = report;
  return html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>${title}</title>
        <style>${new Html(STYLE)}</style>
      </head>
      <body>
        <header>
          <h1>${title}</h1>
          <p>${summary}</p>
        </header>
        <main>
    <section aria-labelledby="numbers"><h2 id="numbers">Numbers</h2>
    <dl class="numbers">${numbers.map(renderNumber)}</dl></section>
    ${features === undefined ? "" : section("features", "Features", features.caption, renderPicture(features, "sheet"))}
    ${strongest === undefined
      ? ""
      : section("strongest", "What excites them", strongest.caption, renderStrongest(strongest))}
    <section aria-labelledby="training"><h2 id="training">Training</h2>
    <div class="charts">${curves.map(renderCurve)}</div></section>
    ${section("density", "How often features are active", DENSITY_CAPTION, renderDensity(density))}
    <section aria-labelledby="configuration"><h2 id="configuration">Configuration</h2>
    <table><tbody>${flatten(configuration).map(([name, value]) =>
      html`
        <tr>
          <th scope="row">${name}</th>
          <td>${value}</td>
        </tr>
      `
    )}
    </tbody></table></section>
        </main>
      </body>
    </html>
  `.text;
}

const STYLE = `
:root { --ink: #1c2024; --soft: #5b6670; --line: #d9dee3; --card: #ffffff; --page: #f5f6f8; --accent: #1764c0; --quiet: #9dbde3; --warn: #b4462a }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a0a9b3; --line: #343b43; --card: #1b2026; --page: #12161a; --accent: #6aaeff; --quiet: #35577f; --warn: #ef8a6b }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
header, main { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem }
header { padding-top: 2.5rem }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.1rem; margin: 0 0 .75rem }
header p, .caption { color: var(--soft); max-width: 46rem; margin: 0 0 1rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem; margin: 1.25rem 0 }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem 1.5rem; margin: 0 }
.numbers dt { color: var(--soft); font-size: .85rem }
.numbers dd { margin: 0 }
.numbers b { font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; display: block; line-height: 1.3 }
.numbers small { color: var(--soft); display: block; line-height: 1.35 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1.25rem }
figure { margin: 0 }
figcaption { font-size: .9rem; color: var(--soft); margin-bottom: .25rem }
svg { display: block; width: 100%; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
.grid { stroke: var(--line) }
.raw { fill: none; stroke: var(--quiet); stroke-width: 1 }
.mean { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round }
.bar { fill: var(--accent) }
.bar.dead { fill: var(--warn) }
img { image-rendering: pixelated; display: block; max-width: 100%; height: auto; border-radius: .2rem }
.sheet { width: 100% }
.strongest { display: grid; grid-template-columns: auto auto 1fr; gap: .6rem 1rem; align-items: center; margin: 0; padding: 0; list-style: none }
.strongest li { display: contents }
.strongest span { color: var(--soft); font-size: .85rem; line-height: 1.3; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; padding: .2rem 1.5rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: 400; overflow-wrap: anywhere }
th { color: var(--soft) }
`;

const DENSITY_CAPTION = "The share of rows on which each feature is active, on a logarithmic scale.";

/** Text that is markup already. */
class Html {
  constructor(readonly text: string) {}
}

type Content = string | number | Html | readonly Content[];

/** A template whose values are escaped, unless they are markup themselves. */
function html(parts: TemplateStringsArray, ...values: Content[]): Html {
  return new Html(parts.reduce((whole, part, i) => whole + markup(values[i - 1]!) + part));
}

function markup(content: Content): string {
  if (content instanceof Html) return content.text;
  if (typeof content === "object") return content.map(markup).join("");
  return String(content).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function section(id: string, title: string, caption: string, content: Content): Html {
  return html`<section aria-labelledby="${id}"><h2 id="${id}">${title}</h2>
<p class="caption">${caption}</p>
${content}</section>`;
}

function renderNumber({ label, value, note }: ReportNumber): Html {
  return html`
    <div>
      <dt>${label}</dt>
      <dd><b>${value}</b>${note === undefined ? "" : html`<small>${note}</small>`}</dd>
    </div>
  `;
}

function renderPicture({ png, width, height, alt }: ReportPicture, style: string): Html {
  return html`
    <img class="${style}" src="data:image/png;base64,${png.toBase64()}" width="${width}" height="${height}"
      alt="${alt}">
  `;
}

function renderStrongest({ features }: NonNullable<Report["strongest"]>): Html {
  return html`<ol class="strongest">${
    features.map(({ index, density, feature, examples }) =>
      html`
        <li><span>#${index}<br>${percent(density)}</span>${feature
          ? renderPicture(feature, "feature")
          : html`<span></span>`}${renderPicture(
            examples,
            "examples",
          )}</li>
      `
    )
  }</ol>`;
}

/** Room around the drawing area of a chart, which is as high and wide as fits two charts into a row. */
const CHART = { width: 460, height: 240, left: 48, right: 12, top: 10, bottom: 34 };

function renderCurve({ title, values }: ReportCurve): Html {
  const drawn = Array.from(values).filter(Number.isFinite);
  const n = drawn.length;
  if (n === 0) {
    return html`
      <figure>
        <figcaption>${title}</figcaption>
        <p class="caption">No step was made.</p>
      </figure>
    `;
  }
  const [least, most] = [drawn.reduce((a, b) => Math.min(a, b)), drawn.reduce((a, b) => Math.max(a, b))];
  const isLog = least > 0 && most / least > 30;
  const y = isLog ? logAxis(least, most) : linearAxis(Math.min(0, least), most === least ? least * 1.25 || 1 : most);
  const x = linearAxis(0, n);
  const place = (axis: Axis, value: number, from: number, to: number): number =>
    from + (axis.scale(value) - axis.scale(axis.from)) / (axis.scale(axis.to) - axis.scale(axis.from)) * (to - from);
  const atX = (step: number): number => place({ ...x, to: n }, step, CHART.left, CHART.width - CHART.right);
  const atY = (value: number): number => place(y, value, CHART.height - CHART.bottom, CHART.top);
  const line = (points: readonly (readonly [number, number])[]): string =>
    points.map(([step, value], i) => `${i === 0 ? "M" : "L"}${atX(step).toFixed(1)} ${atY(value).toFixed(1)}`).join("");
  const smoothed = averages(drawn, Math.max(1, Math.ceil(n / 60)));
  const id = title.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return html`
    <figure>
      <figcaption>${title}</figcaption>
      <svg viewBox="0 0 ${CHART.width} ${CHART.height}" role="img" aria-labelledby="${id}-title ${id}-desc">
    <title id="${id}-title">${title}</title>
    <desc id="${id}-desc">From ${short(drawn[0]!)} at step 1 to ${short(drawn[n - 1]!)} at step ${n}; least ${short(
      least,
    )}, most ${short(most)}.</desc>
    ${y.ticks.map((tick) =>
      html`
        <line class="grid" x1="${CHART.left}" x2="${CHART.width - CHART.right}" y1="${atY(tick)}" y2="${atY(tick)}" />
        <text x="${CHART.left - 8}" y="${atY(tick) + 4}" text-anchor="end">${short(tick)}</text>
      `
    )}${x.ticks.filter((tick) => tick <= n).map((tick) =>
      html`
        <text x="${atX(tick)}" y="${CHART.height - 18}" text-anchor="middle">${short(tick)}</text>
      `
    )}<text x="${(CHART.left + CHART.width - CHART.right) / 2}" y="${CHART.height - 3}" text-anchor="middle">step</text>
    <path class="raw" d="${line(averages(drawn, Math.ceil(n / 1000)))}"/>
    <path class="mean" d="${line(smoothed)}"/>
      </svg>
    </figure>
  `;
}

/** The means of groups of neighbours, each at its middle step. */
function averages(values: readonly number[], size: number): [number, number][] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) => {
    const group = values.slice(i * size, (i + 1) * size);
    return [i * size + (group.length + 1) / 2, group.reduce((sum, value) => sum + value, 0) / group.length];
  });
}

interface Axis {
  readonly from: number;
  readonly to: number;
  readonly ticks: readonly number[];
  readonly scale: (value: number) => number;
}

/** From `least` to the first round number at or above `most`, in about five round steps. */
function linearAxis(least: number, most: number): Axis {
  const rough = (most - least) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999)! * power;
  const [first, last] = [Math.floor(least / step + 1e-9), Math.ceil(most / step - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return { from: first * step, to: last * step, ticks, scale: (value) => value };
}

function logAxis(least: number, most: number): Axis {
  const [first, last] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  return { from: 10 ** first, to: 10 ** last, ticks, scale: Math.log10 };
}

/** Decades shown; what lies below them is in the first bar. */
const DECADES = 5;

function renderDensity(density: ArrayLike<number>): Html {
  const bins = densityHistogram(density).counts;
  const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0);
  const shown = bins.slice(-DECADES * BINS_PER_DECADE);
  const counts = [density.length - total(bins), total(bins) - total(shown.slice(1)), ...shown.slice(1)];
  const [width, height, left, bottom, top] = [940, 240, 48, 34, 10];
  const slot = (width - left - CHART.right) / (counts.length + 1);
  const y = linearAxis(0, Math.max(1, ...counts));
  const atY = (count: number): number => height - bottom - count / y.to * (height - bottom - top);
  const atX = (bar: number): number => left + (bar === 0 ? 0 : bar + 1) * slot;
  const edge = (bar: number): string => short(10 ** ((bar - 1) / BINS_PER_DECADE - DECADES));
  const what = (bar: number): string => {
    if (bar === 0) return "never active";
    return bar === 1 ? `active on at most ${edge(2)} of rows` : `active on ${edge(bar)} to ${edge(bar + 1)} of rows`;
  };
  return html`<svg viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="density-title density-desc">
<title id="density-title">Feature density</title>
<desc id="density-desc">${density.length} features, of which ${counts[
    0
  ]!} are never active; the most frequent range is ${what(counts.indexOf(Math.max(...counts)))}.</desc>
${
    y.ticks.filter(Number.isInteger).map((tick) =>
      html`
        <line class="grid" x1="${left}" x2="${width - CHART.right}" y1="${atY(tick)}" y2="${atY(tick)}" />
        <text x="${left - 8}" y="${atY(tick) + 4}" text-anchor="end">${tick}</text>
      `
    )
  }${
    counts.map((count, bar) =>
      html`
        <rect class="bar${bar === 0 ? " dead" : ""}" x="${atX(bar) + 1}" width="${slot - 2}" y="${atY(
          count,
        )}" height="${atY(0) - atY(count)}">
          <title>${count} features ${what(bar)}</title>
        </rect>
      `
    )
  }<text x="${atX(0) + slot / 2}" y="${height - 18}" text-anchor="middle">never</text>
${
    Array.from({ length: DECADES + 1 }, (_, decade) =>
      html`
        <text x="${atX(1 + decade * BINS_PER_DECADE)}" y="${height - 18}" text-anchor="${decade === DECADES
          ? "end"
          : "middle"}">${short(10 ** (decade - DECADES))}</text>
      `)
  }<text x="${(left + width) / 2}" y="${height - 3}" text-anchor="middle">share of rows</text>
</svg>`;
}

/** Tables within tables as `outer.inner`. */
function flatten(table: Readonly<Record<string, unknown>>, prefix = ""): [string, string][] {
  return Object.entries(table).flatMap(([name, value]): [string, string][] =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? flatten(value as Record<string, unknown>, `${prefix}${name}.`)
      : [[prefix + name, Array.isArray(value) ? value.join(", ") : String(value)]]
  );
}

/** Three digits, thousands separated. */
function short(value: number): string {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) {
    return value.toExponential(0).replace("e+", "e");
  }
  return value.toLocaleString("en", { maximumSignificantDigits: Math.abs(value) >= 1000 ? 21 : 3 });
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
