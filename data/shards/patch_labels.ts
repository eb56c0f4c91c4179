/**
 * Labels of patches from labels of pixels, as in upstream's `pixel_to_patch_labels`.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";

/** How the pixels of a patch determine its label. */
export type PixelAggregation = "majority" | "prefer-fg";

/** Options of {@link patchLabels}. */
export interface PatchLabelOptions {
  /** Width of the mask in pixels. */
  readonly width: number;
  /** Width and height of a patch in pixels. */
  readonly patch_size: number;
  /**
   * `"majority"`: the most frequent label, the smallest one on a tie. `"prefer-fg"`: the same among all labels except
   * the background's, if there are any.
   */
  readonly pixel_agg: PixelAggregation;
  /** Label of the background; 0 if left out. */
  readonly bg_label?: number;
}

/**
 * One label per patch, row by row. `mask` is [height, width], one byte per pixel.
 *
 * @throws {ShapeError} if the mask cannot be divided into such patches.
 * @throws {TypeError} for an unknown option.
 */
export function patchLabels(mask: Uint8Array, options: PatchLabelOptions): Uint8Array<ArrayBuffer> {
  checkOptions("patchLabels", options, { width: true, patch_size: true, pixel_agg: true, bg_label: true });
  const { width, patch_size, pixel_agg, bg_label = 0 } = options;
  const height = mask.length / width;
  if (![height, width, height / patch_size, width / patch_size].every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new ShapeError(
      `labelling patches: a mask of ${mask.length} pixels in rows of ${width} cannot be cut into patches of ${patch_size}`,
    );
  }
  const [rows, columns] = [height / patch_size, width / patch_size];
  const labels = new Uint8Array(rows * columns);
  const counts = new Uint32Array(256);
  for (let patch = 0; patch < labels.length; patch++) {
    counts.fill(0);
    const corner = Math.floor(patch / columns) * patch_size * width + patch % columns * patch_size;
    for (let y = 0; y < patch_size; y++) {
      const start = corner + y * width;
      for (const label of mask.subarray(start, start + patch_size)) counts[label]!++;
    }
    if (pixel_agg === "prefer-fg" && counts[bg_label]! < patch_size ** 2) counts[bg_label] = 0;
    labels[patch] = counts.indexOf(Math.max(...counts));
  }
  return labels;
}
