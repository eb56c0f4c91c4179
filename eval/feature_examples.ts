/**
 * Which images are shown with a latent: those on which it fires most strongly, some from the middle of those on which it
 * fires at all, and some that it might have fired on and did not.
 *
 * @module
 */

import type { FeatureExample } from "./feature_file.ts";

/** On which images a latent fires, by ascending images. */
export interface PooledEntries {
  /** Numbers of images. */
  readonly images: Uint32Array;
  /** The largest activation on a patch of each. */
  readonly values: Float32Array;
  /** That patch. */
  readonly patches: Uint32Array;
}

/** How many images of each kind. */
export interface ExampleCounts {
  /** The strongest. */
  readonly n_top: number;
  /** At equal distances in the order of the others by activation. */
  readonly n_quantiles: number;
  /** On which it is silent. */
  readonly n_counter: number;
}

/** The places of a latent's images by falling activation; of equal ones the earlier image first. */
export function strongestFirst({ images, values }: PooledEntries): Uint32Array {
  return Uint32Array.from(images.keys()).sort((a, b) => values[b]! - values[a]! || a - b);
}

/**
 * Chooses the images of a latent. Those by quantile exclude the top ones: quantile q is the share of the images on which
 * it fires that have smaller values.
 *
 * @param candidates images for counter-examples in order of preference; those on which it fires are passed over
 */
export function chooseExamples(
  entries: PooledEntries,
  order: Uint32Array,
  { n_top: top, n_quantiles: quantiles, n_counter: counter }: ExampleCounts,
  candidates: Iterable<number>,
): FeatureExample[] {
  const { images, values, patches } = entries;
  const shown = (kind: "top" | "quantile", place: number): FeatureExample => {
    const i = order[place]!;
    const quantile = kind === "top" ? null : (order.length - 1 - place) / order.length;
    return { kind, image: images[i]!, value: values[i]!, patch: patches[i]!, quantile };
  };
  const nTop = Math.min(top, order.length);
  const others = order.length - nTop;
  const nQuantiles = Math.min(quantiles, others);
  const chosen = [
    ...Array.from({ length: nTop }, (_, place) => shown("top", place)),
    ...Array.from(
      { length: nQuantiles },
      (_, q) => shown("quantile", nTop + Math.floor((q + 0.5) * others / nQuantiles)),
    ),
  ];
  const fired = new Set(images);
  let nCounter = 0;
  for (const image of candidates) {
    if (nCounter === counter) break;
    if (fired.has(image)) continue;
    chosen.push({ kind: "counter", image, value: 0, patch: 0, quantile: null });
    nCounter++;
  }
  return chosen;
}
