/**
 * How many latents are active on which share of the rows.
 *
 * @module
 */

import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import uPlot from "uplot";
import type { PageDensity } from "../../data.ts";
import { Chart, colour, type Hover } from "./chart.tsx";
import { short } from "./format.ts";
import { DataTable } from "./table.tsx";

/** Decades shown; what lies below them is in the first bar. */
const DECADES = 5;

interface Bars {
  /** Latents: never active, in the first decades together, and in each bin. */
  readonly counts: readonly number[];
  /** log10 of the left edge of each bar but the first. */
  readonly edges: readonly number[];
}

/** The bars of a histogram: the dead, then the bins of the last decades. */
export function barsOf({ n_dead, log10_edges, counts }: PageDensity): Bars {
  const top = log10_edges.at(-1)!;
  const first = log10_edges.findIndex((edge) => edge >= top - DECADES);
  const below = counts.slice(0, first + 1).reduce((sum, count) => sum + count, 0);
  return { counts: [n_dead, below, ...counts.slice(first + 1)], edges: log10_edges.slice(first) };
}

/** A histogram; `most` is the top of its axis, the same for those that stand side by side. */
export function Density({ title, density, most, height }: {
  readonly title: string;
  readonly density: PageDensity;
  readonly most?: number;
  readonly height?: number;
}): VNode {
  const { counts, edges } = useMemo(() => barsOf(density), [density]);
  const what = (bar: number): string => {
    if (bar === 0) return "never active";
    const [from, to] = [10 ** edges[bar - 1]!, 10 ** edges[bar]!];
    return bar === 1
      ? `active on at most ${short(to)} of the rows`
      : `active on ${short(from)} to ${short(to)} of the rows`;
  };
  // Bar 0 stands apart, a bar's width before the others.
  const at = (bar: number): number => bar === 0 ? 0 : bar + 1;
  const largest = most ?? Math.max(...counts);
  const { data, series, x, y, ticks } = useMemo(() => {
    const bars = uPlot.paths.bars!({ size: [0.86, 60], align: 1 });
    const separated = (
      of: (bar: number) => number | null,
    ) => [of(0), null, ...counts.slice(1).map((_, i) => of(i + 1)), null];
    const perDecade = (edges.length - 1) / (edges.at(-1)! - edges[0]!);
    return {
      data: [
        Array.from({ length: counts.length + 2 }, (_, i) => i),
        separated((bar) => bar === 0 ? counts[0]! : null),
        separated((bar) => bar === 0 ? null : counts[bar]!),
      ] as uPlot.AlignedData,
      series: ["--warn", "--accent"].map((name): uPlot.Series => ({
        fill: () => colour(name),
        width: 0,
        paths: bars,
        points: { show: false },
      })),
      x: { from: -0.2, to: counts.length + 1, isLog: false },
      y: { from: 0, to: Math.max(1, largest) * 1.05, isLog: false },
      ticks: [
        { at: 0.5, text: "never" },
        ...Array.from({ length: DECADES }, (_, i) => i + 1).filter((decade) => decade % 2 === 1 || height === undefined)
          .map((decade) => ({
            at: 2 + decade * perDecade,
            text: short(10 ** (edges[0]! + decade)),
          })),
      ],
    };
  }, [counts, edges, largest]);
  const hover = (plot: uPlot, left: number): Hover | null => {
    const bar = counts.findIndex((_, bar) => Math.floor(plot.posToVal(left, "x")) === at(bar));
    if (bar < 0) return null;
    return {
      left: plot.valToPos(at(bar) + 0.5, "x"),
      top: plot.valToPos(counts[bar]!, "y"),
      lines: [`${counts[bar]!.toLocaleString("en")} latents`, what(bar)],
    };
  };
  const fullest = counts.indexOf(Math.max(...counts));
  return (
    <Chart
      title={title}
      description={`${density.n_latents.toLocaleString("en")} latents, of which ${
        counts[0]!.toLocaleString("en")
      } are never active; most of them are ${what(fullest)}.`}
      data={data}
      series={series}
      x={x}
      y={y}
      xLabel="share of rows"
      xTicks={ticks}
      {...height === undefined ? {} : { height }}
      hover={hover}
      table={() => <DataTable columns={["latents", "are"]} rows={counts.map((count, bar) => [count, what(bar)])} />}
    />
  );
}
