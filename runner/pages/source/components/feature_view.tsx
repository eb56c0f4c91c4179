/**
 * One latent: its numbers, its images with heat-maps, what is near it, and what people say of it.
 *
 * @module
 */

import type { ComponentChildren, VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { FeatureAnnotation, FeatureExampleKind, ShownFeature } from "../../../../eval/feature_file.ts";
import type { Annotations, FeatureFolder } from "./feature_data.ts";
import { percent, short } from "./format.ts";
import { HeatLegend, HeatMap } from "./heat_map.tsx";

const KINDS: Readonly<Record<FeatureExampleKind, readonly [title: string, caption: string]>> = {
  top: ["Strongest images", "All heat-maps of this latent use one scale."],
  quantile: ["Across its range", "A sample of the other images on which it fires, from strong to weak."],
  counter: ["Where it is silent", "Similar images on which it does not fire."],
};

/** A latent of a folder, loaded when it is wanted. */
export function FeatureView({ folder, latent, linkTo, children }: {
  readonly folder: FeatureFolder;
  readonly latent: number;
  readonly linkTo: (latent: number) => string;
  /** What stands below the strongest images. */
  readonly children?: ComponentChildren;
}): VNode {
  const [loaded, setLoaded] = useState<ShownFeature | null | string>("Loading …");
  useEffect(() => {
    let isWanted = true;
    setLoaded("Loading …");
    folder.feature(latent).then(
      (feature) => isWanted && setLoaded(feature),
      (error: Error) => isWanted && setLoaded(error.message),
    );
    return () => {
      isWanted = false;
    };
  }, [folder, latent]);
  if (loaded === null) {
    return <p role="status">Latent {latent} is not in this folder: it never fires, or it was not selected.</p>;
  }
  if (typeof loaded === "string" || loaded.latent !== latent) {
    return <p role="status">{typeof loaded === "string" ? loaded : "Loading …"}</p>;
  }
  return (
    <>
      <Numbers folder={folder} feature={loaded} />
      <Examples folder={folder} feature={loaded} kind="top" />
      {children}
      <Examples folder={folder} feature={loaded} kind="quantile" />
      <Examples folder={folder} feature={loaded} kind="counter" />
      <Histogram feature={loaded} />
      <Others
        title="Nearest decoder rows"
        unit="cosine"
        linkTo={linkTo}
        others={loaded.nearest.map(({ latent, cosine }) => [latent, short(cosine)])}
      />
      <Others
        title="Latents that fire with it"
        unit="share of its strongest rows"
        linkTo={linkTo}
        others={loaded.together.map(({ latent, share }) => [latent, percent(share)])}
      />
      {loaded.classes && <Classes folder={folder} feature={loaded} />}
      {loaded.masks && (
        <section>
          <h2>Activation by mask class</h2>
          <table>
            <thead>
              <tr>
                <th scope="col">Class</th>
                <th scope="col">Share</th>
              </tr>
            </thead>
            <tbody>
              {loaded.masks.map(({ class: label, share }) => (
                <tr key={label}>
                  <td>{label}</td>
                  <td class="number">{percent(share)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </>
  );
}

function Numbers({ folder, feature }: { readonly folder: FeatureFolder; readonly feature: ShownFeature }): VNode {
  const { n_rows, n_images, density, mean, max, monosemanticity, purity_at_16: purity, recurrence } = feature;
  const values: (readonly [string, string])[] = [
    ["Density", `${percent(density)} of patches`],
    ["Fires on", `${n_rows.toLocaleString("en")} patches, ${n_images.toLocaleString("en")} images`],
    ["Mean activation", short(mean)],
    ["Largest", short(max)],
    ...monosemanticity === null ? [] : [["Monosemanticity", short(monosemanticity)] as const],
    ...purity === null ? [] : [["Purity of the 16 strongest", short(purity)] as const],
    ...recurrence === null ? [] : [["Recurs in", `${percent(recurrence)} of other runs`] as const],
  ];
  return (
    <section aria-label="Numbers">
      <dl class="numbers small">
        {values.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {folder.base !== "" && <p class="caption">{folder.index.model.name} on {folder.index.data.name}</p>}
      <HeatLegend max={max} />
    </section>
  );
}

function Examples({ folder, feature, kind }: {
  readonly folder: FeatureFolder;
  readonly feature: ShownFeature;
  readonly kind: FeatureExampleKind;
}): VNode | null {
  const [isByClass, setByClass] = useState(false);
  const shown = [...feature.examples.entries()].filter(([, example]) => example.kind === kind);
  if (shown.length === 0) return null;
  const [title, caption] = KINDS[kind];
  const groups = isByClass
    ? Object.entries(Object.groupBy(shown, ([, { image }]) => folder.image(image).className!))
    : [];
  const images = (list: typeof shown): VNode => (
    <ul class="examples">
      {list.map(([i, { image, value }]) => {
        const { src, path, className } = folder.image(image);
        const what = folder.hasClasses ? className! : path.slice(path.lastIndexOf("/") + 1);
        return (
          <li key={i} title={path}>
            <HeatMap
              src={src}
              alt={kind === "counter" ? `${path}, silent` : `${path}, activation ${short(value)}`}
              heat={feature.heat[i]!}
              grid={folder.index.data.grid}
            />
            <span>{kind === "counter" ? what : `${short(value)} · ${what}`}</span>
          </li>
        );
      })}
    </ul>
  );
  return (
    <section>
      <h2>{title}</h2>
      <p class="caption">{caption}</p>
      {kind === "top" && folder.hasClasses && (
        <label class="check">
          <input
            type="checkbox"
            checked={isByClass}
            onChange={(event) => setByClass(event.currentTarget.checked)}
          />{" "}
          Group by class
        </label>
      )}
      {isByClass
        ? groups.map(([name, list]) => (
          <div key={name}>
            <h3>{name}</h3>
            {images(list!)}
          </div>
        ))
        : images(shown)}
    </section>
  );
}

/** Height of the bars. */
const BARS = 60;

function Histogram({ feature: { histogram: { first, counts } } }: { readonly feature: ShownFeature }): VNode {
  const most = Math.max(...counts);
  const edge = (bin: number): string => short(2 ** ((first + bin) / 2));
  const path = counts.map((n, i) =>
    `M${10 * i},${BARS}v${-Math.round(BARS * n / most)}h9v${Math.round(BARS * n / most)}z`
  );
  return (
    <section>
      <h2>Activations</h2>
      <figure class="bars">
        <svg
          viewBox={`0 0 ${10 * counts.length} ${BARS}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`Patches by activation, from ${edge(0)} to ${edge(counts.length)}; at most ${most} in a bar`}
        >
          <path d={path.join("")} />
        </svg>
        <p class="ends">
          <span>{edge(0)}</span>
          <span>{edge(counts.length)}</span>
        </p>
      </figure>
    </section>
  );
}

function Others({ title, unit, others, linkTo }: {
  readonly title: string;
  readonly unit: string;
  readonly others: readonly (readonly [latent: number, value: string])[];
  readonly linkTo: (latent: number) => string;
}): VNode | null {
  if (others.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <p class="caption">With the {unit}.</p>
      <ul class="others">
        {others.map(([latent, value]) => (
          <li key={latent}>
            <a href={linkTo(latent)}>{latent}</a> {value}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Classes({ folder, feature }: { readonly folder: FeatureFolder; readonly feature: ShownFeature }): VNode {
  return (
    <section>
      <h2>Classes</h2>
      <table>
        <thead>
          <tr>
            <th scope="col">Class</th>
            <th scope="col">AUROC</th>
            <th scope="col">Average precision</th>
          </tr>
        </thead>
        <tbody>
          {feature.classes!.map(({ class: label, auroc, average_precision: precision }) => (
            <tr key={label}>
              <td>{folder.index.classes![label]}</td>
              <td class="number">{short(auroc)}</td>
              <td class="number">{short(precision)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** What somebody says of a latent. Every change is kept at once. */
export function AnnotationForm({ annotations, latent }: {
  readonly annotations: Annotations;
  readonly latent: number;
}): VNode {
  const [annotation, setAnnotation] = useState(annotations.of(latent));
  const [isKept, setKept] = useState(true);
  useEffect(() => setAnnotation(annotations.of(latent)), [latent]);
  const change = (changes: Partial<FeatureAnnotation>): void => {
    const changed = { ...annotations.of(latent), ...changes };
    setKept(annotations.set(changed));
    setAnnotation(changed);
  };
  return (
    <section>
      <h2>Annotation</h2>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          Name
          <input
            id="name"
            value={annotation.name}
            onInput={(event) => change({ name: event.currentTarget.value })}
          />
        </label>
        <label>
          Tags, with commas
          <input
            id="tags"
            value={annotation.tags.join(", ")}
            onChange={(event) =>
              change({
                tags: event.currentTarget.value.split(",").map((tag) => tag.trim()).filter((tag) => tag !== ""),
              })}
          />
        </label>
        <label>
          Verdict
          <select
            id="verdict"
            value={annotation.verdict}
            onChange={(event) => change({ verdict: event.currentTarget.value as FeatureAnnotation["verdict"] })}
          >
            <option value="">none</option>
            <option value="interpretable">interpretable</option>
            <option value="mixed">mixed</option>
            <option value="unclear">unclear</option>
          </select>
        </label>
        <label class="wide-field">
          Note
          <textarea
            id="note"
            rows={2}
            value={annotation.note}
            onInput={(event) => change({ note: event.currentTarget.value })}
          />
        </label>
      </form>
      {!isKept && (
        <p role="alert">
          This browser does not keep data for pages opened from disk. Export the annotations before you leave.
        </p>
      )}
    </section>
  );
}
