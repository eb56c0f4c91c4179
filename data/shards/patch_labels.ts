/**
 * Labels of patches out of labels of pixels, as upstream's `pixel_to_patch_labels` has them.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";

/** How the pixels of a patch decide about its label. */
export type PixelAggregation = "majority" | "prefer-fg";

/** What {@link patchLabels} needs to know. */
export interface PatchLabelOptions {
  /** Pixels in a row of the mask. */
  readonly width: number;
  /** Pixels along the side of a patch. */
  readonly patch_size: number;
  /**
   * `"majority"`: the label of most pixels, the smallest of several. `"prefer-fg"`: the same among all labels but the
   * background's, where there is one.
   */
  readonly pixel_agg: PixelAggregation;
  /** The label of the background; 0 if left out. */
  readonly bg_label?: number;
}

/**
 * One label for each patch, row by row. `mask` is [height, width], a byte for each pixel.
 *
 * @throws {ShapeError} if the mask cannot be cut into such patches.
 * @throws {TypeError} for an option that there is not.
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
