/**
 * Numbers over steps: one run, or many over each other.
 *
 * @module
 */

import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import uPlot from "uplot";
import type { PageLine } from "../../data.ts";
import { axisOf } from "./axes.ts";
import { Chart, colour, type Hover, seriesColour, seriesDash } from "./chart.tsx";
import { short } from "./format.ts";
import { DataTable } from "./table.tsx";

/** One line among others. */
export interface NamedLine extends PageLine {
  /** Whose it is. */
  readonly name: string;
  /** Its place among all, which its colour goes by. */
  readonly index: number;
}

/** How near, in pixels, the pointer must be to a line. */
const REACH = 40;

/** One or many lines over steps; of a single one with many points also the means of its neighbours. */
export function Curves({ title, lines, isAmongOthers = false, highlighted = null }: {
  readonly title: string;
  readonly lines: readonly NamedLine[];
  /** Whether each line has the colour and the name of its place, also where it is alone. */
  readonly isAmongOthers?: boolean;
  /** The place of the line that stands out. */
  readonly highlighted?: number | null;
}): VNode | null {
  const drawn = useMemo(() => prepared(lines, isAmongOthers), [lines, isAmongOthers]);
  if (drawn === null) {
    return (
      <figure>
        <figcaption>{title}</figcaption>
        <p class="caption">There are no values.</p>
      </figure>
    );
  }
  const { data, series, places, x, y } = drawn;
  const focus = highlighted === null ? -1 : places.indexOf(highlighted);
  const hover = (plot: uPlot, left: number, top: number): Hover | null => {
    let nearest: Hover | null = null;
    let least = REACH ** 2;
    for (const { name, x, y } of lines) {
      const i = nearestIndex(x, plot.posToVal(left, "x"));
      if (i === null || y[i] === null) continue;
      const place = { left: plot.valToPos(x[i]!, "x"), top: plot.valToPos(y[i]!, "y") };
      // The horizontal distance is that to the next point, which may be far where there are few.
      const distance = (place.top - top) ** 2 + Math.min(REACH / 2, Math.abs(place.left - left)) ** 2;
      if (isAmongOthers && distance >= least) continue;
      least = distance;
      nearest = { ...place, lines: [...isAmongOthers ? [name] : [], `${short(y[i]!, 4)} at step ${short(x[i]!)}`] };
    }
    return nearest;
  };
  return (
    <Chart
      title={title}
      description={described(lines)}
      data={data}
      series={series}
      x={x}
      y={y}
      xLabel="step"
      hover={hover}
      focus={focus < 0 ? null : focus}
      table={() => <LinesTable lines={lines} />}
    />
  );
}

function prepared(lines: readonly NamedLine[], isAmongOthers: boolean) {
  const filled = lines.filter(({ y }) => y.some((value) => value !== null));
  if (filled.length === 0) return null;
  const all = filled.flatMap(({ y }) => y);
  const [only] = filled.length === 1 ? filled : [];
  const isNoisy = !isAmongOthers && only !== undefined && only.x.length > 120;
  const drawn = isNoisy ? [only, smoothed(only)] : filled;
  const last = Math.max(...filled.map(({ x }) => x.at(-1)!));
  const data = uPlot.join(drawn.map(({ x, y }): uPlot.AlignedData => [[...x], [...y]]));
  const series = drawn.map((line, i): uPlot.Series => ({
    stroke: () => colour(isAmongOthers ? seriesColour(line.index) : isNoisy && i === 0 ? "--quiet" : "--accent"),
    width: isNoisy && i === 0 ? 1 : filled.length > 12 ? 1.25 : 2,
    dash: isAmongOthers ? seriesDash(line.index) : [],
    spanGaps: true,
    points: { show: line.x.length <= 30, size: 6, fill: () => colour("--card") },
  }));
  return {
    data,
    series,
    places: drawn.map(({ index }) => index),
    x: { from: 0, to: Math.max(1, last), isLog: false },
    y: axisOf(all),
  };
}

/** The means of groups of neighbours, each at its middle. */
function smoothed(line: NamedLine): NamedLine {
  const size = Math.ceil(line.x.length / 60);
  const means = (values: readonly (number | null)[]) =>
    Array.from({ length: Math.ceil(values.length / size) }, (_, i) => {
      const group = values.slice(i * size, (i + 1) * size).filter((value) => value !== null);
      return group.length === 0 ? null : group.reduce((sum, value) => sum + value, 0) / group.length;
    });
  return { ...line, x: means(line.x) as number[], y: means(line.y) };
}

/** The place of the value next to `wanted` among ascending ones. */
function nearestIndex(x: readonly number[], wanted: number): number | null {
  if (x.length === 0) return null;
  let [from, to] = [0, x.length - 1];
  while (to - from > 1) {
    const middle = (from + to) >> 1;
    if (x[middle]! > wanted) to = middle;
    else from = middle;
  }
  return Math.abs(x[from]! - wanted) <= Math.abs(x[to]! - wanted) ? from : to;
}

function described(lines: readonly NamedLine[]): string {
  const said = lines.slice(0, 8).map(({ name, x, y }) => {
    const values = y.filter((value) => value !== null);
    if (values.length === 0) return `${name} has no values`;
    const [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    return `${lines.length > 1 ? `${name}: ` : ""}From ${short(values[0])} to ${short(values.at(-1))} at step ` +
      `${short(x.at(-1))}; least ${short(least)}, most ${short(most)}.`;
  });
  return [...said, ...lines.length > 8 ? [`${lines.length - 8} more lines.`] : []].join(" ");
}

/** At most so many rows, at equal distances. */
const ROWS = 20;

function LinesTable({ lines }: { readonly lines: readonly NamedLine[] }): VNode {
  const steps = [...new Set(lines.flatMap(({ x }) => x))].sort((a, b) => a - b);
  const shown = steps.filter((_, i) => i === steps.length - 1 || i % Math.ceil(steps.length / ROWS) === 0);
  return (
    <DataTable
      columns={["step", ...lines.map(({ name }) => name)]}
      rows={shown.map((step) => [
        step,
        ...lines.map(({ x, y }) => {
          const i = nearestIndex(x, step);
          return i === null || step > x.at(-1)! ? null : y[i]!;
        }),
      ])}
    />
  );
}
