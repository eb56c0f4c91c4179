/**
 * The page about many runs: their front, a table, their curves over each other, their densities, their differences.
 *
 * @module
 */

import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import { COMPARED_CURVES, type ComparedCurve, type ComparisonData } from "../data.ts";
import { seriesColour, seriesDash } from "./components/chart.tsx";
import { Curves } from "./components/curves.tsx";
import { barsOf, Density } from "./components/density.tsx";
import { percent, short } from "./components/format.ts";
import { Front, type PlacedModel } from "./components/front.tsx";
import { mount, Page, Section, Warnings } from "./components/page.tsx";
import { DataTable, SortableTable, type SortedColumn } from "./components/table.tsx";

/** Differing fields that are columns of the table of runs; all of them stand below. */
const FIELDS_IN_TABLE = 6;

/** Densities that are drawn before the reader asks for more. */
const DENSITIES = 12;

function Comparison({ data }: { readonly data: ComparisonData }): VNode {
  const { title, summary, warnings, differences } = data;
  const all = useMemo(() => data.models.map((model, index): PlacedModel => ({ ...model, index })), [data]);
  const [hidden, setHidden] = useState<ReadonlySet<number>>(new Set());
  const [highlighted, setHighlighted] = useState<number | null>(null);
  const models = useMemo(() => all.filter(({ index }) => !hidden.has(index)), [all, hidden]);
  const toggle = (index: number) => {
    const next = new Set(hidden);
    if (!next.delete(index)) next.add(index);
    setHidden(next);
  };
  return (
    <Page title={title} summary={summary}>
      <Warnings warnings={warnings} />
      <Section id="front" title="Sparsity and error" caption="Each point is a run. Select it to open its report.">
        <Front
          models={models}
          isOneLayer={!differences.some(({ field }) => field === "data.layer")}
          highlighted={highlighted}
          onHighlight={setHighlighted}
        />
      </Section>
      <Section id="runs" title="Runs" caption="Press a heading to sort. Untick a run to hide it in the charts.">
        <SortableTable
          label="runs"
          columns={columnsOf(differences, { hidden, toggle })}
          rows={all}
          keyOf={({ index }) => index}
          rowProps={({ index }) => ({
            class: index === highlighted ? "highlighted" : "",
            onMouseEnter: () => setHighlighted(index),
            onMouseLeave: () => setHighlighted(null),
          })}
          start={{ column: 0, isDescending: false }}
        />
        {hidden.size > 0 && (
          <button type="button" class="quiet" onClick={() => setHidden(new Set())}>
            show all {all.length} runs
          </button>
        )}
      </Section>
      <OverSteps models={models} highlighted={highlighted} />
      <Densities models={models} />
      <Section
        id="differences"
        title="Differences in configuration"
        caption={differences.length === 0
          ? "All fields are the same."
          : "Fields that are the same everywhere are left out."}
      >
        {differences.length > 0 && (
          <DataTable
            columns={["field", ...all.map(({ name }) => name)]}
            rows={differences.map(({ field, values }) => [field, ...values.map((value) => value ?? "–")])}
          />
        )}
      </Section>
    </Page>
  );
}

function columnsOf(
  differences: ComparisonData["differences"],
  { hidden, toggle }: { readonly hidden: ReadonlySet<number>; readonly toggle: (index: number) => void },
): SortedColumn<PlacedModel>[] {
  const numbers: SortedColumn<PlacedModel>[] = [
    { name: "L0", by: ({ l0 }) => l0 },
    { name: "NMSE", by: ({ nmse }) => nmse },
    { name: "dead", by: (model) => model.dead_fraction, shown: (model) => percent(model.dead_fraction) },
    { name: "dense", by: (model) => model.n_dense, shown: (model) => short(model.n_dense) },
    { name: "cosine", by: ({ cosine }) => cosine },
    { name: "front", by: ({ isOnFront }) => Number(!isOnFront), shown: ({ isOnFront }) => isOnFront ? "●" : "" },
    { name: "steps", by: ({ steps }) => steps, shown: ({ steps }) => short(steps) },
    { name: "seconds", by: ({ seconds }) => seconds, shown: ({ seconds }) => short(seconds) },
    { name: "state", by: ({ state }) => state },
  ];
  return [
    {
      name: "run",
      by: ({ name }) => name,
      shown: ({ index, name, href }) => (
        <span class="run">
          <input
            type="checkbox"
            checked={!hidden.has(index)}
            onChange={() => toggle(index)}
            aria-label={`draw ${name}`}
          />
          <Swatch index={index} />
          {href === null ? name : <a href={href}>{name}</a>}
        </span>
      ),
    },
    ...numbers,
    ...differences.slice(0, FIELDS_IN_TABLE).map(({ field, values }): SortedColumn<PlacedModel> => ({
      name: field,
      by: ({ index }) => numberOrText(values[index]!),
      shown: ({ index }) => values[index] ?? "–",
    })),
  ];
}

function numberOrText(value: string | null): number | string | null {
  return value === null || value === "" || Number.isNaN(Number(value)) ? value : Number(value);
}

/** The line that a run has in the charts. */
function Swatch({ index }: { readonly index: number }): VNode {
  return (
    <svg class="swatch" width="26" height="10" aria-hidden="true">
      <line
        x1="0"
        x2="26"
        y1="5"
        y2="5"
        stroke={`var(${seriesColour(index)})`}
        stroke-width="3"
        stroke-dasharray={seriesDash(index).join(" ")}
      />
    </svg>
  );
}

function OverSteps({ models, highlighted }: {
  readonly models: readonly PlacedModel[];
  readonly highlighted: number | null;
}): VNode | null {
  const charts = useMemo(
    () =>
      (Object.entries(COMPARED_CURVES) as [ComparedCurve, string][]).map(([curve, title]) => ({
        title,
        lines: models.flatMap(({ name, index, curves }) => {
          const line = curves[curve];
          return line ? [{ name, index, ...line }] : [];
        }),
      })).filter(({ lines }) => lines.length > 0),
    [models],
  );
  if (charts.length === 0) return null;
  return (
    <Section id="training" title="Training">
      <div class="charts">
        {charts.map(({ title, lines }) => (
          <Curves key={title} title={title} lines={lines} isAmongOthers highlighted={highlighted} />
        ))}
      </div>
    </Section>
  );
}

function Densities({ models }: { readonly models: readonly PlacedModel[] }): VNode | null {
  const [isWhole, setWhole] = useState(false);
  const known = models.filter(({ density }) => density !== null);
  const most = useMemo(() => Math.max(...known.flatMap(({ density }) => barsOf(density!).counts)), [models]);
  if (known.length === 0) return null;
  return (
    <Section
      id="density"
      title="How often latents are active"
      caption="Latents by the share of rows on which each is active, on one scale for all runs."
    >
      <div class="charts small">
        {known.slice(0, isWhole ? known.length : DENSITIES).map(({ name, index, density }) => (
          <Density key={index} title={name} density={density!} most={most} height={170} />
        ))}
      </div>
      {!isWhole && known.length > DENSITIES && (
        <button type="button" class="quiet" onClick={() => setWhole(true)}>
          show the other {known.length - DENSITIES}
        </button>
      )}
    </Section>
  );
}

mount((data: ComparisonData) => <Comparison data={data} />);
