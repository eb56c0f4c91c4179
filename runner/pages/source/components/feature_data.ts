/**
 * The data of a folder of features, as scripts that are loaded when they are needed, and what people say of latents.
 *
 * @module
 */

import type {
  AnnotationsFile,
  FeatureAnnotation,
  FeatureBlock,
  FeatureIndex,
  ShownFeature,
} from "../../../../eval/feature_file.ts";

/** Latents in a script. */
const PER_BLOCK = 64;

/** Scripts call these with what they hold. */
interface DataCalls {
  index(data: FeatureIndex): void;
  block(data: FeatureBlock): void;
}

let received: FeatureIndex | FeatureBlock | null = null;
(globalThis as unknown as { saev: DataCalls }).saev = {
  index: (data) => received = data,
  block: (data) => received = data,
};

/** What a script of this address calls one of them with. Scripts run before their `load`, and one after the other. */
function loadScript(src: string): Promise<FeatureIndex | FeatureBlock> {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = src;
    script.onload = () => {
      script.remove();
      const data = received;
      received = null;
      if (data) resolve(data);
      else reject(new Error(`${src} holds no features`));
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${src} cannot be loaded`));
    };
    document.head.append(script);
  });
}

/** One folder of features. */
export class FeatureFolder {
  /** Where it is, relative to the page: empty, or with a slash at its end. */
  readonly base: string;
  /** Everything but the records. */
  readonly index: FeatureIndex;
  readonly #placeOf: ReadonlyMap<number, number>;
  readonly #blocks = new Map<number, Promise<FeatureBlock>>();

  private constructor(base: string, index: FeatureIndex) {
    this.base = base;
    this.index = index;
    this.#placeOf = new Map(index.columns.latent.map((latent, place) => [latent, place]));
  }

  /** Opens the folder at an address relative to the page. */
  static async open(path: string): Promise<FeatureFolder> {
    const base = path === "" || path.endsWith("/") ? path : `${path}/`;
    const index = await loadScript(`${base}data/index.js`) as FeatureIndex;
    return new FeatureFolder(base, index);
  }

  /** Whether classes tell images apart. */
  get hasClasses(): boolean {
    return (this.index.classes?.length ?? 0) > 1;
  }

  /** The place of a latent in the columns. */
  placeOf(latent: number): number | undefined {
    return this.#placeOf.get(latent);
  }

  /** All that is known of a latent; `null` where it is not in the folder. */
  async feature(latent: number): Promise<ShownFeature | null> {
    const place = this.placeOf(latent);
    if (place === undefined) return null;
    const at = Math.floor(place / PER_BLOCK);
    const block = this.#blocks.get(at) ??
      loadScript(`${this.base}data/${String(at).padStart(4, "0")}.js`) as Promise<FeatureBlock>;
    this.#blocks.set(at, block);
    return (await block).latents[place % PER_BLOCK] ?? null;
  }

  /** The file and the path of an image, and the name of its class. */
  image(place: number): { readonly src: string; readonly path: string; readonly className: string | null } {
    const [file, path, label] = this.index.images[place]!;
    return { src: this.base + file, path, className: label === null ? null : this.index.classes![label]! };
  }
}

/** Where the notes on a model's latents are kept in the browser. */
function keyOf({ model, data }: FeatureIndex): string {
  return `saev-annotations:${JSON.stringify([model.name, model.d_sae, data.name])}`;
}

/** Whether nothing is said. */
export function isEmpty({ name, tags, verdict, note }: FeatureAnnotation): boolean {
  return name === "" && note === "" && verdict === "" && tags.length === 0;
}

/** What is said of the latents of a folder: in the browser, and before that in the folder itself. */
export class Annotations {
  readonly #index: FeatureIndex;
  readonly #byLatent: Map<number, FeatureAnnotation>;

  constructor(index: FeatureIndex) {
    this.#index = index;
    this.#byLatent = new Map(index.annotations.map((annotation) => [annotation.latent, annotation]));
    try {
      const kept = JSON.parse(localStorage.getItem(keyOf(index)) ?? "[]") as FeatureAnnotation[];
      for (const annotation of kept) this.#byLatent.set(annotation.latent, annotation);
    } catch {
      // A page from a file may have no such place.
    }
  }

  /** What is said of a latent. */
  of(latent: number): FeatureAnnotation {
    return this.#byLatent.get(latent) ?? { latent, name: "", tags: [], verdict: "", note: "" };
  }

  /** Keeps it; says whether the browser keeps it beyond this page. */
  set(...annotations: readonly FeatureAnnotation[]): boolean {
    for (const annotation of annotations) this.#byLatent.set(annotation.latent, annotation);
    try {
      localStorage.setItem(keyOf(this.#index), JSON.stringify([...this.#byLatent.values()]));
      return true;
    } catch {
      return false;
    }
  }

  /** All that is said, by ascending latents. */
  all(): FeatureAnnotation[] {
    return [...this.#byLatent.values()].filter((annotation) => !isEmpty(annotation))
      .sort((a, b) => a.latent - b.latent);
  }

  /** The file that `saev features --annotations` reads. */
  toFile(): string {
    const { model } = this.#index;
    const file: AnnotationsFile = {
      saev_annotations: 1,
      model: model.name,
      d_sae: model.d_sae,
      annotations: this.all(),
    };
    return `${JSON.stringify(file, null, 1)}\n`;
  }

  /**
   * Takes the annotations of a file in addition to these.
   *
   * @throws {Error} for any other file.
   */
  import(text: string): number {
    const file = JSON.parse(text) as AnnotationsFile;
    if (file?.saev_annotations !== 1 || !Array.isArray(file.annotations)) throw new Error("it is no annotations.json");
    const good = file.annotations.filter(({ latent }) => Number.isInteger(latent) && latent < this.#index.model.d_sae);
    this.set(...good);
    return good.length;
  }
}
