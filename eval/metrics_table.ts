/**
 * The metrics as a table for a terminal: name, value and meaning.
 *
 * @module
 */

import type { MetricsWithCoherence } from "./coherence.ts";
import { BINS_PER_DECADE, type Metrics } from "./metrics.ts";
import type { Monosemanticity } from "./monosemanticity.ts";
import { undefinedMetrics } from "./undefined_metrics.ts";

/** Input of {@link metricsTable}. */
export interface MeasuredModel extends MetricsWithCoherence {
  /** How similar the rows are that activate each latent, if measured. */
  readonly monosemanticity?: Monosemanticity;
}

/** One line of a section: name, value, meaning. */
type Line = readonly [name: string, value: string, meaning: string];

/**
 * The table, in lines of fewer than 100 characters. A metric without a value is `none`, with the reason on its line.
 */
export function metricsTable(metrics: MeasuredModel): string {
  const { density, n_dead, n_almost_dead, n_dense, coherence, monosemanticity } = metrics;
  const reasons = undefinedMetrics(metrics);
  const counted = (n: number): string => `${n} (${(100 * n / density.length).toFixed(1)} %)`;
  const sections: [title: string, lines: readonly Line[]][] = [
    ["reconstruction", [
      ["explained variance", significant(metrics.explained_variance), reasons.explained_variance ?? "1 − NMSE"],
      [
        "NMSE (FVU)",
        significant(metrics.nmse),
        reasons.nmse ?? "squared error divided by the variance around the mean row",
      ],
      ["MSE", significant(metrics.mse), "squared error, mean over all elements"],
      ["cosine", significant(metrics.cosine), reasons.cosine ?? "of x and x̂, mean over rows"],
      [
        "norm ratio",
        significant(metrics.norm_ratio),
        reasons.norm_ratio ?? "‖x̂‖ / ‖x‖, mean over rows; below 1 is shrinkage",
      ],
      [
        "bias γ",
        significant(metrics.reconstruction_bias),
        reasons.reconstruction_bias ?? "Σ‖x̂‖² / Σ x·x̂; below 1 is shrinkage",
      ],
    ]],
    ["codes", [
      ["L0", significant(metrics.l0), "active latents per row"],
      ["L1", significant(metrics.l1), "Σ |f| a row"],
    ]],
    ["latents", [
      ["dead", counted(n_dead), "active on no row"],
      ["almost dead", counted(n_almost_dead), `dead, or active on less than ${metrics.almost_dead_below} of the rows`],
      ["dense", counted(n_dense), `active on more than ${metrics.dense_above} of the rows`],
      ["coherence", significant(coherence?.max ?? NaN), reasons.coherence ?? "largest |cos| of two rows of W_dec"],
      [
        "nearest latent",
        significant(coherence?.mean_max ?? NaN),
        reasons.coherence ?? "largest |cos| of each row with another, mean over rows",
      ],
      ...monosemanticity
        ? [
          [
            "monosemanticity",
            significant(monosemanticity.mean),
            reasons.monosemanticity ??
              `mean over ${monosemanticity.n_latents} latents; 1 if the rows that activate a latent are alike`,
          ] as const,
        ]
        : [],
    ]],
  ];
  const width = Math.max(...sections.flatMap(([, lines]) => lines.map(([, value]) => value.length)));
  return [
    ...sections.map((
      [title, lines],
    ) => [title, ...lines.map(([name, value, meaning]) => `  ${name.padEnd(20)}${value.padEnd(width + 3)}${meaning}`)]),
    ["density: the share of rows on which a latent is active", ...densityLines(metrics)],
  ].map((lines) => lines.join("\n")).join("\n\n");
}

/** Cells in the longest bar. */
const BAR = 40;

/** One bar per decade, from the lowest that is not empty, and one for dead latents. */
function densityLines({ density_histogram: { log10_edges, counts }, n_dead }: Metrics): string[] {
  const decades = Array.from({ length: counts.length / BINS_PER_DECADE }, (_, decade): [string, number] => {
    const first = decade * BINS_PER_DECADE;
    const [from, to] = [log10_edges[first]!, log10_edges[first + BINS_PER_DECADE]!];
    const count = counts.slice(first, first + BINS_PER_DECADE).reduce((sum, n) => sum + n, 0);
    return [`${decade === 0 ? "below" : `1e${from} to`} ${to === 0 ? "1" : `1e${to}`}`, count];
  });
  const lowest = decades.findIndex(([, count]) => count > 0);
  const shown: [string, number][] = [["never", n_dead], ...decades.slice(lowest < 0 ? decades.length : lowest)];
  const most = Math.max(...shown.map(([, count]) => count));
  return shown.map(([range, count]) =>
    `  ${range.padEnd(20)}${String(count).padStart(String(most).length)} ${"█".repeat(Math.ceil(BAR * count / most))}`
      .trimEnd()
  );
}

/** Four significant digits without trailing zeros; `none` for an undefined value. */
function significant(value: number): string {
  if (!Number.isFinite(value)) return "none";
  return value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: false });
}
