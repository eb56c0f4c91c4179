/**
 * Draws activations of patches over a photograph.
 *
 * @module
 */

import { type ByteImage, type ImageSize, resample } from "../../data/mod.ts";
import { colourOf } from "../../runner/mod.ts";
import type { ByteImage as PngImage } from "./png.ts";

/** A photograph, with a number for each of its patches. */
export interface HeatMap {
  /** The photograph as the model saw it, [height, width, 3]. */
  readonly image: ByteImage;
  /** [patches], row by row. */
  readonly values: Float32Array;
  /** Patches per column and per row. */
  readonly grid: ImageSize;
}

/** Opacity of a patch's colour where it activates a latent most. */
const OPACITY = 0.75;
/** Brightness of the photograph where nothing activates the latent. */
const DIMMED = 0.45;

/**
 * Draws a square of `side` pixels: the photograph dimmed and in grey, patches in colour by their share of `largest`.
 */
export function drawHeatMap(
  { image, values, grid }: HeatMap,
  { side, largest }: { readonly side: number; readonly largest: number },
): PngImage {
  const size = { height: side, width: side };
  const plan = { resized: size, crop: { ...size, top: 0, left: 0 } };
  const { data } = resample(image, plan, { filter: "bilinear", channels: 3 });
  const bytes = new Uint8ClampedArray(data.length);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const patch = Math.floor(y * grid.height / side) * grid.width + Math.floor(x * grid.width / side);
      const share = largest > 0 ? Math.max(0, values[patch]!) / largest : 0;
      const at = (y * side + x) * 3;
      const grey = DIMMED * (0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!);
      const [alpha, colour] = [OPACITY * Math.sqrt(share), colourOf(share)];
      for (let channel = 0; channel < 3; channel++) {
        bytes[at + channel] = Math.round((1 - alpha) * (grey + share * data[at + channel]!) + alpha * colour[channel]!);
      }
    }
  }
  return { width: side, height: side, channels: 3, bytes: new Uint8Array(bytes.buffer) };
}

/** Width of the line between pictures. */
const GAP = 4;

/** Pictures of the same height side by side, on black. */
export function sideBySide(pictures: readonly PngImage[]): PngImage {
  const height = Math.max(...pictures.map((picture) => picture.height));
  const width = pictures.reduce((sum, picture) => sum + picture.width + GAP, -GAP);
  const bytes = new Uint8Array(width * height * 3);
  let left = 0;
  for (const picture of pictures) {
    for (let y = 0; y < picture.height; y++) {
      const row = picture.bytes.subarray(y * picture.width * 3, (y + 1) * picture.width * 3);
      bytes.set(row, (y * width + left) * 3);
    }
    left += picture.width + GAP;
  }
  return { width, height, channels: 3, bytes };
}
