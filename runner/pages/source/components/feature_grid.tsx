/**
 * The grid of latents: sorted, filtered, searched, a page of them at a time.
 *
 * @module
 */

import type { VNode } from "preact";
import { useRef } from "preact/hooks";
import type { FeatureIndex } from "../../../../eval/feature_file.ts";
import type { Annotations, FeatureFolder } from "./feature_data.ts";
import { percent, short } from "./format.ts";

/** Latents on one page: the document stays small. */
const PER_PAGE = 48;

/** What the grid is sorted by. */
const ORDERS = {
  density: "Density",
  auroc: "AUROC of the best class",
  average_precision: "Average precision",
  monosemanticity: "Monosemanticity",
  mean: "Mean activation",
  max: "Largest activation",
  recurrence: "Recurrence over seeds",
  latent: "Number",
} as const;

/** One of them. */
export type GridOrder = keyof typeof ORDERS;

/** What the address of the page says of the grid. */
export interface GridState {
  readonly sort: GridOrder;
  readonly ascending: boolean;
  /** A number, or words of a name, a tag, a note or a class. */
  readonly search: string;
  /** A class that must be the best one; −1 for any. */
  readonly class: number;
  /** A verdict, `named` or `unnamed`; empty for all. */
  readonly verdict: string;
  /** Densities from … to. */
  readonly from: number;
  readonly to: number;
  /** Counted from 0. */
  readonly page: number;
}

/** Everything, the most frequent first. */
export const EVERYTHING: GridState = {
  sort: "density",
  ascending: false,
  search: "",
  class: -1,
  verdict: "",
  from: 0,
  to: 1,
  page: 0,
};

/** Orders for which there are numbers. */
function ordersOf({ columns }: FeatureIndex): GridOrder[] {
  return (Object.keys(ORDERS) as GridOrder[]).filter((order) => columns[order].some((value) => value !== null));
}

/** A name that is no order becomes the usual one. */
export function orderNamed(name: string | null): GridOrder {
  return name !== null && name in ORDERS ? name as GridOrder : EVERYTHING.sort;
}

/** The places of the latents that are shown, in order. */
export function shownPlaces({ index }: FeatureFolder, annotations: Annotations, state: GridState): number[] {
  const { columns, classes } = index;
  const words = state.search.trim().toLowerCase().split(/\s+/).filter((word) => word !== "");
  const matches = (place: number): boolean => {
    const latent = columns.latent[place]!;
    const density = columns.density[place]!;
    if (density < state.from || density > state.to) return false;
    if (state.class >= 0 && columns.class[place] !== state.class) return false;
    const { name, tags, verdict, note } = annotations.of(latent);
    const isNamed = name !== "";
    if (state.verdict === "named" ? !isNamed : state.verdict === "unnamed" ? isNamed : state.verdict !== "") {
      if (state.verdict === "named" || state.verdict === "unnamed" || verdict !== state.verdict) return false;
    }
    const best = columns.class[place];
    const text = `${latent} ${name} ${tags.join(" ")} ${note} ${
      best === null || best === undefined ? "" : classes![best]
    }`
      .toLowerCase();
    return words.every((word) =>
      /^\d+$/.test(word) ? String(latent) === word || name.includes(word) : text.includes(word)
    );
  };
  const values = columns[state.sort];
  const sign = state.ascending ? 1 : -1;
  const valueOf = (place: number): number => values[place] ?? -Infinity;
  return Array.from(columns.latent.keys()).filter(matches)
    .sort((a, b) => sign * (valueOf(a) - valueOf(b)) || columns.latent[a]! - columns.latent[b]!);
}

/** The grid and what narrows it. */
export function FeatureGrid({ folder, annotations, state, places, onState, linkTo }: {
  readonly folder: FeatureFolder;
  readonly annotations: Annotations;
  readonly state: GridState;
  readonly places: readonly number[];
  readonly onState: (changes: Partial<GridState>) => void;
  readonly linkTo: (latent: number) => string;
}): VNode {
  const { index } = folder;
  const nPages = Math.max(1, Math.ceil(places.length / PER_PAGE));
  const page = Math.min(state.page, nPages - 1);
  const shown = places.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  const count = places.length.toLocaleString("en");
  const all = index.columns.latent.length.toLocaleString("en");
  return (
    <section aria-labelledby="latents">
      <h2 id="latents">Latents</h2>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <label>
          Search
          <input
            id="search"
            type="search"
            placeholder="number, name, tag, class, note"
            value={state.search}
            onInput={(event) => onState({ search: event.currentTarget.value, page: 0 })}
          />
        </label>
        <label>
          Sort by
          <select
            value={state.sort}
            onChange={(event) => onState({ sort: orderNamed(event.currentTarget.value), page: 0 })}
          >
            {ordersOf(index).map((order) => <option key={order} value={order}>{ORDERS[order]}</option>)}
          </select>
        </label>
        <button type="button" onClick={() => onState({ ascending: !state.ascending, page: 0 })}>
          {state.ascending ? "Smallest first" : "Largest first"}
        </button>
        {folder.hasClasses && <ClassFilter classes={index.classes!} state={state} onState={onState} />}
        <label>
          Annotation
          <select value={state.verdict} onChange={(event) => onState({ verdict: event.currentTarget.value, page: 0 })}>
            <option value="">any</option>
            <option value="named">with a name</option>
            <option value="unnamed">without a name</option>
            <option value="interpretable">interpretable</option>
            <option value="mixed">mixed</option>
            <option value="unclear">unclear</option>
          </select>
        </label>
        <DensityFilter label="Density from" value={state.from} onValue={(from) => onState({ from, page: 0 })} />
        <DensityFilter label="Density to" value={state.to} onValue={(to) => onState({ to, page: 0 })} />
      </form>
      <p role="status" class="caption">
        {places.length === 0 ? "No latent matches." : `${count} of ${all} latents, page ${page + 1} of ${nPages}`}
      </p>
      <ul class="tiles">
        {shown.map((place) => (
          <Tile key={place} folder={folder} annotations={annotations} place={place} sort={state.sort} linkTo={linkTo} />
        ))}
      </ul>
      <nav class="pages" aria-label="Pages">
        <button type="button" disabled={page === 0} onClick={() => onState({ page: page - 1 })}>Previous page</button>
        <button type="button" disabled={page === nPages - 1} onClick={() => onState({ page: page + 1 })}>
          Next page
        </button>
      </nav>
    </section>
  );
}

/** The most classes that fit into a list; beyond, one searches for their names. */
const MAX_OPTIONS = 100;

function ClassFilter({ classes, state, onState }: {
  readonly classes: readonly string[];
  readonly state: GridState;
  readonly onState: (changes: Partial<GridState>) => void;
}): VNode | null {
  if (classes.length > MAX_OPTIONS) return null;
  return (
    <label>
      Best class
      <select
        value={state.class}
        onChange={(event) => onState({ class: Number(event.currentTarget.value), page: 0 })}
      >
        <option value={-1}>any</option>
        {classes.map((name, label) => <option key={label} value={label}>{name}</option>)}
      </select>
    </label>
  );
}

function DensityFilter({ label, value, onValue }: {
  readonly label: string;
  readonly value: number;
  readonly onValue: (value: number) => void;
}): VNode {
  const input = useRef<HTMLInputElement>(null);
  return (
    <label>
      {label}
      <input
        ref={input}
        type="number"
        min="0"
        max="1"
        step="any"
        value={value}
        onChange={(event) => {
          const typed = event.currentTarget.valueAsNumber;
          if (typed >= 0 && typed <= 1) onValue(typed);
          else input.current!.value = String(value);
        }}
      />
    </label>
  );
}

function Tile({ folder, annotations, place, sort, linkTo }: {
  readonly folder: FeatureFolder;
  readonly annotations: Annotations;
  readonly place: number;
  readonly sort: GridOrder;
  readonly linkTo: (latent: number) => string;
}): VNode {
  const { columns, classes } = folder.index;
  const latent = columns.latent[place]!;
  const { name } = annotations.of(latent);
  const best = columns.class[place] ?? null;
  const value = columns[sort][place] ?? null;
  const about = sort === "latent" ? null : sort === "density" ? percent(value) : short(value);
  const label = name || (best === null ? "" : classes![best]!);
  return (
    <li>
      <a href={linkTo(latent)} data-latent={latent} aria-label={`Latent ${latent}${label && `, ${label}`}`}>
        <img src={folder.image(columns.image[place]!).src} alt="" loading="lazy" width="128" height="128" />
        <b>{latent}</b>
        <span>{label}</span>
        {about !== null && <small>{about}</small>}
      </a>
    </li>
  );
}
