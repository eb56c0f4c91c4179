/**
 * The front of L0 and NMSE: a point for each model, which is a link to the page about it.
 *
 * @module
 */

import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import type uPlot from "uplot";
import type { ComparedModel } from "../../data.ts";
import { axisOf } from "./axes.ts";
import { Chart, colour, seriesColour, Tooltip } from "./chart.tsx";
import { percent, short } from "./format.ts";
import { DataTable } from "./table.tsx";

/** A model, and its place among all, which its colour goes by. */
export interface PlacedModel extends ComparedModel {
  /** From 0. */
  readonly index: number;
}

/** The models that have both numbers, with a line through those that none beats in both. */
export function Front({ models, isOneLayer, highlighted, onHighlight }: {
  readonly models: readonly PlacedModel[];
  /** Whether one line goes through the front: models of several layers have several. */
  readonly isOneLayer: boolean;
  readonly highlighted: number | null;
  readonly onHighlight: (index: number | null) => void;
}): VNode {
  const points = useMemo(
    () => models.filter(({ nmse, l0 }) => nmse !== null && l0 !== null).sort((a, b) => a.l0! - b.l0!),
    [models],
  );
  const { data, series, x, y } = useMemo(() => ({
    data: [
      points.map(({ l0 }) => l0!),
      points.map(({ nmse, isOnFront }) => isOneLayer && isOnFront ? nmse : null),
    ] as uPlot.AlignedData,
    series: [{ stroke: () => colour("--quiet"), width: 1.5, spanGaps: true, points: { show: false } }],
    x: widened(axisOf(points.map(({ l0 }) => l0), 3)),
    y: widened(axisOf(points.map(({ nmse }) => nmse), 4)),
  }), [points, isOneLayer]);
  const [focused, setFocused] = useState<number | null>(null);
  const shown = focused ?? highlighted;
  if (points.length === 0) return <p class="caption">No run has been measured yet.</p>;
  const front = points.filter(({ isOnFront }) => isOnFront);
  return (
    <Chart
      title="NMSE by L0; lower left is better"
      description={`${points.length} models, of which ${front.length} are on the front: ${
        front.map(({ name, l0, nmse }) => `${name} with L0 ${short(l0)} and NMSE ${short(nmse)}`).join("; ")
      }.`}
      data={data}
      series={series}
      x={x}
      y={y}
      xLabel="L0, active latents a row"
      yLabel="NMSE"
      height={380}
      overlay={(place, width) => (
        <>
          {points.map((model) => (
            <Point
              key={model.index}
              model={model}
              left={place.x(model.l0!)}
              top={place.y(model.nmse!)}
              isHighlighted={shown === model.index}
              onFocus={(isFocused) => {
                setFocused(isFocused ? model.index : null);
                onHighlight(isFocused ? model.index : null);
              }}
            />
          ))}
          {points.filter(({ index }) => index === shown).map((model) => (
            <Tooltip
              key={model.index}
              left={place.x(model.l0!)}
              top={place.y(model.nmse!)}
              width={width}
              lines={wordsOf(model)}
            />
          ))}
        </>
      )}
      table={() => (
        <DataTable
          columns={["run", "L0", "NMSE", "on the front"]}
          rows={points.map(({ name, l0, nmse, isOnFront }) => [name, l0, nmse, isOnFront ? "yes" : "no"])}
        />
      )}
    />
  );
}

/** With room for the points at its ends. */
function widened(axis: ReturnType<typeof axisOf>): ReturnType<typeof axisOf> {
  const { from, to, isLog } = axis;
  if (isLog) return { ...axis, from: from / (to / from) ** 0.03, to: to * (to / from) ** 0.03 };
  return { ...axis, from: from === 0 ? 0 : from - (to - from) * 0.03, to: to + (to - from) * 0.03 };
}

function wordsOf({ name, l0, nmse, dead_fraction, isOnFront }: PlacedModel): string[] {
  return [
    name,
    `L0 ${short(l0, 4)}, NMSE ${short(nmse, 4)}`,
    `${percent(dead_fraction)} dead${isOnFront ? ", on the front" : ""}`,
  ];
}

function Point({ model, left, top, isHighlighted, onFocus }: {
  readonly model: PlacedModel;
  readonly left: number;
  readonly top: number;
  readonly isHighlighted: boolean;
  readonly onFocus: (isFocused: boolean) => void;
}): VNode {
  const attributes = {
    class: `point${model.isOnFront ? " front" : ""}${isHighlighted ? " highlighted" : ""}`,
    style: { left: `${left}px`, top: `${top}px`, background: `var(${seriesColour(model.index)})` },
    "aria-label": wordsOf(model).join("; "),
    onMouseEnter: () => onFocus(true),
    onMouseLeave: () => onFocus(false),
    onFocus: () => onFocus(true),
    onBlur: () => onFocus(false),
  };
  // A checkpoint without a page is still a stop on the way of the keyboard.
  return model.href === null
    ? <span {...attributes} role="img" tabIndex={0}></span>
    : <a {...attributes} href={model.href}></a>;
}
