/**
 * A chart on a canvas by uPlot: it fills the width that it has, follows the theme, and says in words what it shows.
 *
 * @module
 */

import type { ComponentChildren, VNode } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { type Axis, ticksOf } from "./axes.ts";
import { tickText } from "./format.ts";
import { onThemeChange } from "./page.tsx";

/** What is drawn. */
export interface ChartProps {
  /** Above the chart. */
  readonly title: string;
  /** The same in words, for those who cannot see it. */
  readonly description: string;
  /** x, ascending, and one list for each series. */
  readonly data: uPlot.AlignedData;
  /** How each is drawn. */
  readonly series: readonly uPlot.Series[];
  /** The axis below. */
  readonly x: Axis;
  /** The axis on the left. */
  readonly y: Axis;
  /** Below the axis. */
  readonly xLabel: string;
  /** Left of the axis. */
  readonly yLabel?: string;
  /** What stands at the ticks of x; numbers if left out. */
  readonly xTicks?: readonly { readonly at: number; readonly text: string }[];
  /** Pixels; 240 if left out. */
  readonly height?: number;
  /** What is said of the place that the pointer is at, and where that stands. */
  readonly hover?: (plot: uPlot, left: number, top: number) => Hover | null;
  /** What lies over the chart, given where values are on it. */
  readonly overlay?: (place: Place, width: number) => ComponentChildren;
  /** The series that stands out among the others, if one does. */
  readonly focus?: number | null;
  /** All numbers, shown where the reader asks for them. */
  readonly table?: () => VNode;
}

/** What is said of a place. */
export interface Hover {
  /** Pixels from the left of the drawing area. */
  readonly left: number;
  /** Pixels from its top. */
  readonly top: number;
  /** A line each. */
  readonly lines: readonly string[];
}

/** Where values are, in pixels within the drawing area. */
export interface Place {
  /** From the left. */
  readonly x: (value: number) => number;
  /** From the top. */
  readonly y: (value: number) => number;
}

/** A colour of the page by its name. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The colour of a series among many. */
export function seriesColour(index: number): string {
  return `--series-${index % N_COLOURS}`;
}

/** How the line of a series among many is dashed: those of one colour differ. */
export function seriesDash(index: number): number[] {
  return [[], [8, 4], [2, 3], [10, 3, 2, 3]][Math.floor(index / N_COLOURS) % 4]!;
}

/** Colours of series, which the style names. */
const N_COLOURS = 8;

/** The chart. */
export function Chart(props: ChartProps): VNode {
  const { title, description, data, series, x, y, height = 240, hover, overlay, focus = null, table } = props;
  const holder = useRef<HTMLDivElement>(null);
  const [hovered, setHovered] = useState<Hover | null>(null);
  const [area, setArea] = useState<uPlot.BBox & { readonly plot: uPlot } | null>(null);
  const hoverNow = useRef(hover);
  hoverNow.current = hover;

  useLayoutEffect(() => {
    const element = holder.current!;
    const plot = new uPlot(
      optionsOf(props, { width: element.clientWidth, height }, {
        onCursor: (plot) => {
          const { left = -1, top = -1 } = plot.cursor;
          setHovered(left < 0 ? null : hoverNow.current?.(plot, left, top) ?? null);
        },
        onDraw: (plot) => setArea({ ...areaOf(plot), plot }),
      }),
      data,
      element,
    );
    const resized = new ResizeObserver(() => {
      if (element.clientWidth !== plot.width) plot.setSize({ width: element.clientWidth, height });
    });
    resized.observe(element);
    const stopListening = onThemeChange(() => plot.redraw());
    return () => {
      resized.disconnect();
      stopListening();
      plot.destroy();
    };
  }, [data, series, x, y, height]);

  useEffect(() => {
    area?.plot.setSeries((focus === null ? null : focus + 1) as number, { focus: true });
  }, [area?.plot, focus]);

  // A finger that leaves the chart leaves its last words there.
  useEffect(() => {
    if (hovered === null) return;
    const clear = (event: Event) => {
      if (!holder.current?.contains(event.target as Node)) setHovered(null);
    };
    document.addEventListener("pointerdown", clear);
    return () => document.removeEventListener("pointerdown", clear);
  }, [hovered]);

  return (
    <figure>
      <figcaption>{title}</figcaption>
      <div class="chart" ref={holder} role="img" aria-label={`${title}. ${description}`}></div>
      {area && (
        <div class="over" style={boxOf(area)}>
          {overlay?.({
            x: (value) => area.plot.valToPos(value, "x"),
            y: (value) => area.plot.valToPos(value, "y"),
          }, area.width)}
          {hovered && <Tooltip {...hovered} width={area.width} />}
        </div>
      )}
      {table && <AsTable title={title} table={table} />}
    </figure>
  );
}

/** Some words beside a place, kept within the chart. */
export function Tooltip({ left, top, lines, width }: Hover & { readonly width: number }): VNode {
  const isRight = left > width / 2;
  return (
    <div
      class="tooltip"
      style={{
        [isRight ? "right" : "left"]: `${(isRight ? width - left : left) + 10}px`,
        top: `${Math.max(0, top - 12)}px`,
      }}
    >
      {lines.map((line) => <div key={line}>{line}</div>)}
    </div>
  );
}

/** The numbers of a chart, made once they are wanted. */
function AsTable({ title, table }: { readonly title: string; readonly table: () => VNode }): VNode {
  const [isOpen, setOpen] = useState(false);
  return (
    <details class="as-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary aria-label={`${title} as a table`}>as a table</summary>
      {isOpen && table()}
    </details>
  );
}

function boxOf({ left, top, width, height }: uPlot.BBox): Record<string, string> {
  return { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` };
}

/** The drawing area in pixels of the page. */
function areaOf(plot: uPlot): uPlot.BBox {
  const ratio = devicePixelRatio || 1;
  const { left, top, width, height } = plot.bbox;
  return { left: left / ratio, top: top / ratio, width: width / ratio, height: height / ratio };
}

function optionsOf(
  { series, x, y, xLabel, yLabel, xTicks }: ChartProps,
  size: { readonly width: number; readonly height: number },
  { onCursor, onDraw }: { readonly onCursor: (plot: uPlot) => void; readonly onDraw: (plot: uPlot) => void },
): uPlot.Options {
  const scale = ({ from, to, isLog }: Axis): uPlot.Scale => ({
    time: false,
    auto: false,
    distr: isLog ? 3 : 1,
    range: () => [from, to],
  });
  const style: uPlot.Axis = {
    stroke: () => colour("--soft"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { stroke: () => colour("--line"), width: 1, size: 4 },
    font: "11px system-ui, sans-serif",
    labelFont: "11px system-ui, sans-serif",
    labelSize: 18,
    gap: 4,
    // All ticks have their words: there are few enough.
    filter: (_, ticks) => ticks,
    values: (_, ticks) => ticks.map(tickText),
  };
  return {
    ...size,
    padding: [8, 14, 0, 0],
    series: [{}, ...series],
    scales: { x: scale(x), y: scale(y) },
    axes: [
      {
        ...style,
        size: 26,
        label: xLabel,
        splits: (plot) => xTicks?.map(({ at }) => at) ?? ticksOf(x, Math.max(2, Math.floor(plot.width / 75))),
        ...xTicks && { values: () => xTicks.map(({ text }) => text), grid: { show: false } },
      },
      { ...style, size: 52, ...yLabel === undefined ? {} : { label: yLabel }, splits: () => ticksOf(y, 5) },
    ],
    focus: { alpha: 0.2 },
    legend: { show: false },
    cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
    hooks: { setCursor: [onCursor], draw: [onDraw] },
  };
}
