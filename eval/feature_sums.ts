/**
 * Sums over one pass through the images of a data set: how often and how strongly each latent fires, on which rows most
 * strongly, and on patches of which class. Memory is bounded by latents times what is kept of each.
 *
 * @module
 */

import { MonosemanticitySums } from "./monosemanticity.ts";
import { StrongestRows } from "./strongest_rows.ts";

/** The strongest rows of a latent among which others are looked for. */
export const STRONGEST_ROWS = 256;

/** Bin 0 of histograms begins at 2^(LOWEST_BIN / 2). */
const LOWEST_BIN = -48;
/** Bins, each of half an octave; what lies outside counts in the first or the last. */
const N_BINS = 96;

/** The latents that fire on one image. */
export interface PooledImage {
  /** Ascending. */
  readonly latents: Uint32Array;
  /** The largest activation of each on a patch. */
  readonly values: Float32Array;
  /** That patch, the first of equal ones. */
  readonly patches: Uint32Array;
}

/** What is known of one latent. */
export interface FeatureSum {
  /** Rows on which it fires. */
  readonly n_rows: number;
  /** Images on which it fires. */
  readonly n_images: number;
  /** Its mean activation where it fires. */
  readonly mean: number;
  /** Its largest. */
  readonly max: number;
  /** Rows by activation, without the empty bins at both ends. */
  readonly histogram: { readonly first: number; readonly counts: readonly number[] };
  /** [mask classes], Σ f over the patches of each class, as a share of all; empty without masks. */
  readonly maskShares: readonly number[];
}

/** Sums over rows, patch by patch and image by image. */
export class FeatureSums {
  /** The strongest rows of each latent. */
  readonly strongest: StrongestRows;
  readonly #d_sae: number;
  readonly #nMaskClasses: number;
  readonly #similarities: MonosemanticitySums;
  /** [S] each: rows, Σ f, largest f, images. */
  readonly #rows: Float64Array;
  readonly #sums: Float64Array;
  readonly #largest: Float32Array;
  readonly #images: Float64Array;
  /** [S, bins] */
  readonly #bins: Float64Array;
  /** [S, mask classes] */
  readonly #masks: Float64Array;
  /** [S], of the image at hand. */
  readonly #pooled: Float32Array;
  readonly #patches: Uint32Array;
  #fired: number[] = [];

  /** Of no rows yet; `nMaskClasses` is 0 without masks. */
  constructor(d_sae: number, d_model: number, nMaskClasses: number) {
    this.#d_sae = d_sae;
    this.#nMaskClasses = nMaskClasses;
    this.strongest = new StrongestRows(d_sae, STRONGEST_ROWS);
    this.#similarities = new MonosemanticitySums(d_sae, d_model);
    this.#rows = new Float64Array(d_sae);
    this.#sums = new Float64Array(d_sae);
    this.#largest = new Float32Array(d_sae);
    this.#images = new Float64Array(d_sae);
    this.#bins = new Float64Array(d_sae * N_BINS);
    this.#masks = new Float64Array(d_sae * nMaskClasses);
    this.#pooled = new Float32Array(d_sae);
    this.#patches = new Uint32Array(d_sae);
  }

  /** The whole state between two images. Copied into the arrays of other sums, those continue from here. */
  arrays(): Readonly<Record<string, Float64Array | Float32Array | Uint32Array>> {
    return {
      rows: this.#rows,
      sums: this.#sums,
      largest: this.#largest,
      images: this.#images,
      bins: this.#bins,
      masks: this.#masks,
      strongest_counts: this.strongest.counts,
      strongest_rows: this.strongest.rows,
      strongest_values: this.strongest.values,
      ...Object.fromEntries(
        Object.entries(this.#similarities.arrays()).map(([name, values]) => [`similarity_${name}`, values]),
      ),
    };
  }

  /** Adds a patch of the image at hand: its row, its code, and its class in the masks. */
  addPatch(
    row: number,
    patch: number,
    given: {
      readonly x_D: Float32Array;
      readonly latents: Uint32Array;
      readonly values: Float32Array;
      readonly maskClass: number;
    },
  ): void {
    const { x_D, latents, values, maskClass } = given;
    this.#similarities.add(x_D, { row_starts: Uint32Array.of(0, latents.length), indices: latents, values });
    for (let i = 0; i < latents.length; i++) {
      const [s, f] = [latents[i]!, values[i]!];
      if (!(f > 0)) continue;
      this.#rows[s]!++;
      this.#sums[s]! += f;
      this.#bins[s * N_BINS + binOf(f)]!++;
      if (this.#nMaskClasses > 0) this.#masks[s * this.#nMaskClasses + maskClass]! += f;
      this.strongest.add(s, row, f);
      if (this.#pooled[s] === 0) this.#fired.push(s);
      if (f > this.#pooled[s]!) [this.#pooled[s], this.#patches[s]] = [f, patch];
    }
  }

  /** Ends the image at hand, and says what fired on it. */
  endImage(): PooledImage {
    const latents = Uint32Array.from(this.#fired).sort();
    const [values, patches] = [new Float32Array(latents.length), new Uint32Array(latents.length)];
    for (const [i, s] of latents.entries()) {
      [values[i], patches[i]] = [this.#pooled[s]!, this.#patches[s]!];
      this.#images[s]!++;
      if (values[i]! > this.#largest[s]!) this.#largest[s] = values[i]!;
      this.#pooled[s] = 0;
    }
    this.#fired = [];
    return { latents, values, patches };
  }

  /** The latents that have fired, ascending. */
  alive(): number[] {
    return Array.from({ length: this.#d_sae }, (_, s) => s).filter((s) => this.#rows[s]! > 0);
  }

  /** [S], how alike the rows are that excite each latent; NaN for fewer than two. */
  monosemanticity(): Float64Array {
    return this.#similarities.result().per_latent;
  }

  /** What is known of a latent. */
  of(s: number): FeatureSum {
    const bins = Array.from(this.#bins.subarray(s * N_BINS, (s + 1) * N_BINS));
    const [from, to] = [bins.findIndex((n) => n > 0), bins.findLastIndex((n) => n > 0) + 1];
    const masks = Array.from(this.#masks.subarray(s * this.#nMaskClasses, (s + 1) * this.#nMaskClasses));
    return {
      n_rows: this.#rows[s]!,
      n_images: this.#images[s]!,
      mean: this.#sums[s]! / this.#rows[s]!,
      max: this.#largest[s]!,
      histogram: { first: from + LOWEST_BIN, counts: bins.slice(from, to) },
      maskShares: masks.map((sum) => sum / this.#sums[s]!),
    };
  }
}

function binOf(f: number): number {
  return Math.min(Math.max(Math.floor(2 * Math.log2(f)) - LOWEST_BIN, 0), N_BINS - 1);
}
