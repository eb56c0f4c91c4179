/**
 * The page about one run: its numbers, its curves, its features, its configuration.
 *
 * @module
 */

import type { VNode } from "preact";
import type { PageNumber, PagePicture, ReportData } from "../data.ts";
import { Curves } from "./components/curves.tsx";
import { Density } from "./components/density.tsx";
import { percent } from "./components/format.ts";
import { mount, Page, Section, Warnings } from "./components/page.tsx";
import { DataTable, NamedValues } from "./components/table.tsx";

function Report({ data }: { readonly data: ReportData }): VNode {
  const { title, summary, numbers, warnings, features, strongest, curves, density, tables, configuration } = data;
  return (
    <Page title={title} summary={summary}>
      <Section id="numbers" title="Numbers">
        <Numbers numbers={numbers} />
      </Section>
      <Warnings warnings={warnings} />
      {features && (
        <Section id="features" title="Features" caption={features.caption}>
          <Picture picture={features} kind="sheet" />
        </Section>
      )}
      {strongest && (
        <Section id="strongest" title="What activates them" caption={strongest.caption}>
          <Strongest features={strongest.features} />
        </Section>
      )}
      <Section id="training" title="Training">
        <div class="charts">
          {curves.map(({ title, x, y }) => (
            <Curves key={title} title={title} lines={[{ name: title, index: 0, x, y }]} />
          ))}
        </div>
      </Section>
      <Section id="density" title="How often features are active">
        <Density title="Latents by the share of rows on which each is active" density={density} />
      </Section>
      {tables.map(({ title, caption, columns, rows }, i) => (
        <Section key={title} id={`table-${i}`} title={title} caption={caption}>
          <DataTable columns={columns} rows={rows} />
        </Section>
      ))}
      <Section id="configuration" title="Configuration" caption="Only fields that are set are listed.">
        <NamedValues values={configuration} />
      </Section>
    </Page>
  );
}

function Numbers({ numbers }: { readonly numbers: readonly PageNumber[] }): VNode {
  return (
    <dl class="numbers">
      {numbers.map(({ label, value, note }) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>
            <b>{value}</b>
            {note !== undefined && <small>{note}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Picture({ picture: { src, width, height, alt }, kind }: {
  readonly picture: PagePicture;
  readonly kind: string;
}): VNode {
  return <img class={kind} src={src} width={width} height={height} alt={alt} />;
}

function Strongest({ features }: Pick<NonNullable<ReportData["strongest"]>, "features">): VNode {
  return (
    <ol class="strongest">
      {features.map(({ index, density, feature, examples }) => (
        <li key={index}>
          <span>
            #{index}
            <br />
            {percent(density)}
          </span>
          {feature && <Picture picture={feature} kind="feature" />}
          <Picture picture={examples} kind="examples" />
        </li>
      ))}
    </ol>
  );
}

mount((data: ReportData) => <Report data={data} />);
