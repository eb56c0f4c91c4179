/**
 * Patches drawn side by side.
 *
 * @module
 */
import type { ByteImage } from "./png.ts";

/** The layout of patches. */
export interface SheetOptions {
  /** Width and height of a patch in pixels. */
  readonly size: number;
  /** Patches per row. */
  readonly columns: number;
  /** Width and height of the square that shows one pixel of a patch. */
  readonly zoom: number;
  /** Width of the line between patches. */
  readonly gap: number;
}

/** The grey of the line between patches. */
const LINE = 24;

/**
 * Draws patches [n, size²] row by row. Each has its own contrast: zero is grey, and its largest value is black or
 * white.
 */
export function drawContactSheet(patches: Float32Array, { size, columns, zoom, gap }: SheetOptions): ByteImage {
  const area = size * size;
  const n = patches.length / area;
  const side = size * zoom + gap;
  const width = Math.min(n, columns) * side - gap;
  const height = Math.ceil(n / columns) * side - gap;
  const bytes = new Uint8Array(width * height).fill(LINE);
  for (let i = 0; i < n; i++) {
    const patch = patches.subarray(i * area, (i + 1) * area);
    const largest = patch.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    const [left, top] = [(i % columns) * side, Math.floor(i / columns) * side];
    for (let y = 0; y < size * zoom; y++) {
      for (let x = 0; x < size * zoom; x++) {
        const value = patch[Math.floor(y / zoom) * size + Math.floor(x / zoom)]!;
        bytes[(top + y) * width + left + x] = Math.round(127.5 + 127.5 * value / largest);
      }
    }
  }
  return { width, height, channels: 1, bytes };
}
