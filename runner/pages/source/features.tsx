/**
 * The feature browser: a grid of latents, one latent with its images, or two side by side. The address says what is shown,
 * so it can be linked to.
 *
 * @module
 */

import { render, type VNode } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Annotations, FeatureFolder } from "./components/feature_data.ts";
import { EVERYTHING, FeatureGrid, type GridState, orderNamed, shownPlaces } from "./components/feature_grid.tsx";
import { AnnotationForm, FeatureView } from "./components/feature_view.tsx";
import { percent } from "./components/format.ts";
import { Page } from "./components/page.tsx";

/** What the address says. */
interface Address extends GridState {
  /** The latent that is looked at. */
  readonly latent: number | null;
  /** The one beside it. */
  readonly beside: number | null;
  /** The folder that the one beside is of; this one where it is empty. */
  readonly other: string;
}

function addressOf(hash: string): Address {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const integer = (name: string): number | null => /^\d+$/.test(given.get(name) ?? "") ? Number(given.get(name)) : null;
  const share = (name: string, usual: number): number => {
    const value = Number(given.get(name) ?? NaN);
    return value >= 0 && value <= 1 ? value : usual;
  };
  return {
    sort: orderNamed(given.get("sort")),
    ascending: given.has("ascending"),
    search: given.get("search") ?? "",
    class: integer("class") ?? -1,
    verdict: given.get("verdict") ?? "",
    from: share("from", 0),
    to: share("to", 1),
    page: integer("page") ?? 0,
    latent: integer("latent"),
    beside: integer("beside"),
    other: given.get("other") ?? "",
  };
}

/** The shortest address that says it. */
function hashOf(address: Address): string {
  const usual: Address = { ...EVERYTHING, latent: null, beside: null, other: "" };
  const changed = (Object.keys(usual) as (keyof Address)[]).filter((name) => address[name] !== usual[name]);
  return `#${new URLSearchParams(changed.map((name) => [name, String(address[name])])).toString()}`;
}

function Features(
  { folder, annotations }: { readonly folder: FeatureFolder; readonly annotations: Annotations },
): VNode {
  const [address, setAddress] = useState(() => addressOf(location.hash));
  const [, setVersion] = useState(0);
  const help = useRef<HTMLDialogElement>(null);
  const go = (changes: Partial<Address>): void => {
    location.hash = hashOf({ ...address, ...changes });
  };
  /** Changes of the grid replace the address, so that the way back is not a list of every key typed. */
  const narrow = (changes: Partial<GridState>): void => {
    const changed = { ...address, ...changes };
    history.replaceState(null, "", hashOf(changed));
    setAddress(changed);
  };
  useEffect(() => {
    const changed = (): void => setAddress(addressOf(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const places = useMemo(() => shownPlaces(folder, annotations, address), [
    hashOf({ ...address, page: 0, latent: null }),
  ]);
  const { latent } = address;
  /** The latents before and after, in the order of the grid. */
  const neighbour = (by: number, of: number | null = latent): number | undefined =>
    places[places.indexOf(folder.placeOf(of ?? -1) ?? -1) + by];
  const step = (by: number): void => {
    // Keys may come faster than the page changes: the address is where they have led so far.
    const next = neighbour(by, addressOf(location.hash).latent);
    if (next !== undefined) go({ latent: folder.index.columns.latent[next]! });
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const isTyping = (event.target as Element).matches?.("input, textarea, select");
      if (event.key === "Escape") {
        if (isTyping) (event.target as HTMLElement).blur();
        else if (!help.current?.open && latent !== null) go({ latent: null, beside: null, other: "" });
        return;
      }
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (by !== 0) {
        event.preventDefault();
        if (latent === null) focusTile(by);
        else step(by);
      } else if (event.key === "?") help.current!.showModal();
      else if (event.key === "/" && latent === null) {
        event.preventDefault();
        document.getElementById("search")!.focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });
  // Moves a user who cannot see the change of page to its heading.
  const isFirst = useRef(true);
  useEffect(() => {
    if (isFirst.current) isFirst.current = false;
    else {
      document.querySelector("h1")!.focus();
      scrollTo(0, 0);
    }
  }, [latent]);
  const { model, data, n_dead } = folder.index;
  const linkTo = (other: number): string => hashOf({ ...address, latent: other, beside: null, other: "" });
  const name = latent === null ? "" : annotations.of(latent).name;
  return (
    <Page
      title={latent === null ? `Features of ${model.name}` : `Latent ${latent}${name && `: ${name}`}`}
      summary={latent === null
        ? `${folder.index.columns.latent.length.toLocaleString("en")} of ${
          model.d_sae.toLocaleString("en")
        } latents (${model.activation}) on ${data.n_images.toLocaleString("en")} images of ${data.name}; ${
          n_dead.toLocaleString("en")
        } never fire. ${stabilityOf(folder)}Press ? for keys.`
        : `${model.name} on ${data.name}`}
    >
      {latent === null
        ? (
          <>
            <FeatureGrid {...{ folder, annotations, places, linkTo }} state={address} onState={narrow} />
            <AnnotationFiles annotations={annotations} onImport={() => setVersion((version) => version + 1)} />
          </>
        )
        : (
          <>
            <nav class="pages" aria-label="Latents">
              <a href={hashOf({ ...address, latent: null, beside: null, other: "" })}>All latents</a>
              <button type="button" disabled={neighbour(-1) === undefined} onClick={() => step(-1)}>Previous</button>
              <button type="button" disabled={neighbour(1) === undefined} onClick={() => step(1)}>Next</button>
              <Opacity />
            </nav>
            <Pair {...{ folder, annotations, address, linkTo, go }} latent={latent} />
          </>
        )}
      <dialog ref={help} aria-labelledby="keys">
        <h2 id="keys">Keys</h2>
        <p>← and →: the latent before and after. Enter: open. Esc: back to all latents. /: search. ?: this.</p>
        <form method="dialog">
          <button type="submit">Close</button>
        </form>
      </dialog>
    </Page>
  );
}

/** What the folder says of other runs. */
function stabilityOf({ index: { stability } }: FeatureFolder): string {
  if (!stability) return "";
  const [trained, initial] = stability.mean_recurrence;
  const before = initial === null ? "" : `, before training ${percent(initial)}`;
  return `On average a latent recurs in ${percent(trained)} of ${stability.n_others} other runs${before}. `;
}

/** Moves the focus among the tiles of the grid. */
function focusTile(by: number): void {
  const tiles = [...document.querySelectorAll<HTMLElement>(".tiles a")];
  const at = tiles.indexOf(document.activeElement as HTMLElement);
  tiles[at < 0 ? 0 : Math.min(Math.max(at + by, 0), tiles.length - 1)]?.focus();
}

function Opacity(): VNode {
  const [opacity, setOpacity] = useState(0.7);
  useEffect(() => document.documentElement.style.setProperty("--heat", String(opacity)), [opacity]);
  return (
    <label class="opacity">
      Heat-map
      <input
        type="range"
        min="0"
        max="1"
        step="0.05"
        value={opacity}
        onInput={(event) => setOpacity(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}

/** One latent, or two beside each other: of this folder, or of this one and another. */
function Pair({ folder, annotations, address, latent, linkTo, go }: {
  readonly folder: FeatureFolder;
  readonly annotations: Annotations;
  readonly address: Address;
  readonly latent: number;
  readonly linkTo: (latent: number) => string;
  readonly go: (changes: Partial<Address>) => void;
}): VNode {
  const { beside, other } = address;
  const [second, setSecond] = useState<FeatureFolder | string | null>(null);
  useEffect(() => {
    if (beside === null) setSecond(null);
    else if (other === "") setSecond(folder);
    else FeatureFolder.open(other).then(setSecond, (error: Error) => setSecond(error.message));
  }, [beside === null, other]);
  const form = (
    <form
      class="filters"
      onSubmit={(event) => {
        event.preventDefault();
        const typed = new FormData(event.currentTarget);
        const number = String(typed.get("beside"));
        go({ beside: /^\d+$/.test(number) ? Number(number) : null, other: String(typed.get("other")).trim() });
      }}
    >
      <label>
        Beside it, latent
        <input name="beside" inputMode="numeric" pattern="\d*" defaultValue={beside === null ? "" : String(beside)} />
      </label>
      <label>
        of the folder
        <input name="other" placeholder="this one, or ../other" defaultValue={other} />
      </label>
      <button type="submit">Show</button>
    </form>
  );
  if (beside === null) {
    return (
      <FeatureView {...{ folder, latent, linkTo }}>
        <AnnotationForm annotations={annotations} latent={latent} />
        <section aria-label="Compare">{form}</section>
      </FeatureView>
    );
  }
  return (
    <>
      <section aria-label="Compare">{form}</section>
      <div class="pair">
        <div>
          <h2>Latent {latent}</h2>
          <FeatureView {...{ folder, latent, linkTo }} />
        </div>
        <div>
          <h2>Latent {beside}</h2>
          {second instanceof FeatureFolder
            ? <FeatureView folder={second} latent={beside} linkTo={(next) => hashOf({ ...address, beside: next })} />
            : <p role="status">{second ?? "Loading …"}</p>}
        </div>
      </div>
    </>
  );
}

function AnnotationFiles({ annotations, onImport }: {
  readonly annotations: Annotations;
  readonly onImport: () => void;
}): VNode {
  const [said, say] = useState("");
  const download = (): void => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([annotations.toFile()], { type: "application/json" }));
    link.download = "annotations.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const load = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    try {
      say(`${annotations.import(await file.text())} annotations read`);
      onImport();
    } catch (error) {
      say(`${file.name} cannot be read: ${(error as Error).message}`);
    }
  };
  return (
    <section>
      <h2>Annotations</h2>
      <p class="caption">
        Names, tags, verdicts and notes stay in this browser. Export them to keep or share them;{" "}
        <code>saev features --annotations annotations.json</code> puts them into the folder.
      </p>
      <div class="filters">
        <button type="button" id="export" onClick={download}>Export {annotations.all().length}</button>
        <label>
          Import
          <input
            type="file"
            accept=".json,application/json"
            onChange={(event) => {
              load(event.currentTarget.files?.[0]);
              // So that the same file can be read again when it has changed.
              event.currentTarget.value = "";
            }}
          />
        </label>
      </div>
      <p role="status">{said}</p>
    </section>
  );
}

const root = document.getElementById("page")!;
FeatureFolder.open("").then(
  (folder) => render(<Features folder={folder} annotations={new Annotations(folder.index)} />, root),
  (error: Error) =>
    render(
      <Page title="Features" summary={`${error.message}. Keep index.html in the folder that saev features wrote.`}>
        {null}
      </Page>,
      root,
    ),
);
