/**
 * Photographs, and patches cut from them.
 *
 * @module
 */
import jpeg from "jpeg-js";
import type { ByteImage } from "../../data/mod.ts";

/** A greyscale image, row-major, 0 (black) to 1 (white). */
export interface GreyImage {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** [height, width] */
  readonly pixels: Float32Array;
}

/** Which patches to cut. */
export interface PatchOptions {
  /** Width and height of a patch in pixels. */
  readonly size: number;
  /** Distance between neighbouring patches, along both axes. */
  readonly stride: number;
  /** Skips patches whose standard deviation is below this: sky contains only compression noise. */
  readonly leastContrast?: number;
}

/** Patches of one size. */
export interface Patches {
  /** [n, size²] */
  readonly values: Float32Array;
  /** [n, 2]: the column and row of each patch's first pixel. */
  readonly corners: Uint32Array;
}

/** Photographs to train on, and others that are held out. */
export interface PhotographSet {
  /** Where they are, as the run's configuration says it. */
  readonly path: string;
  /** Names of the training photographs. */
  readonly training: readonly string[];
  /** Names of the held-out photographs. */
  readonly heldOut: readonly string[];
  /** Loads one of them. */
  readonly load: (name: string) => Promise<GreyImage>;
}

/** The photographs in the package. */
export const COMMITTED: PhotographSet = {
  path: "examples/demo/photos",
  training: [
    "acanthus-mollis",
    "airplane-from-above",
    "allium-oreophilum",
    "dust-bowl-home",
    "french-alpine-landscape",
    "march-pastoral",
  ],
  heldOut: ["black-canyon", "nagasaki-boats"],
  load: (name) => loadPhotograph(name),
};

/** Scans end in a frame line, whose edges would become features. */
const FRAME = 8;

/** Where the photographs are: a folder, or an address if the package runs from a registry. */
const PHOTOGRAPHS = new URL("./photos/", import.meta.url);

/** A photograph without its frame, by its name without `.jpg`. */
export async function loadPhotograph(name: string, from: URL = PHOTOGRAPHS): Promise<GreyImage> {
  const response = await fetch(new URL(`${name}.jpg`, from));
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`loading the photograph ${response.url}: the server answered ${response.status}`);
  }
  return crop(decodeJpeg(new Uint8Array(await response.arrayBuffer())), FRAME);
}

/** Decodes a JPEG file to greyscale. */
export function decodeJpeg(bytes: Uint8Array): GreyImage {
  const { width, height, data } = jpeg.decode(bytes, { useTArray: true, formatAsRGBA: false });
  return toGrey({ width, height, data });
}

/** Converts an image of three bytes per pixel to greyscale, as in ITU-R BT.601. */
export function toGrey({ width, height, data }: ByteImage): GreyImage {
  const pixels = new Float32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = (0.299 * data[3 * i]! + 0.587 * data[3 * i + 1]! + 0.114 * data[3 * i + 2]!) / 255;
  }
  return { width, height, pixels };
}

/** The image without `border` pixels on every side. */
export function crop(image: GreyImage, border: number): GreyImage {
  const [width, height] = [image.width - 2 * border, image.height - 2 * border];
  if (width <= 0 || height <= 0) {
    throw new RangeError(`cannot crop ${border} pixels on every side of an image of ${image.width}×${image.height}`);
  }
  const pixels = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const start = (y + border) * image.width + border;
    pixels.set(image.pixels.subarray(start, start + width), y * width);
  }
  return { width, height, pixels };
}

/** Cuts the patches of an image on a grid, row by row, each minus its own mean. */
export function cutPatches(image: GreyImage, { size, stride, leastContrast = 0 }: PatchOptions): Patches {
  const area = size * size;
  const [columns, rows] = [image.width, image.height].map((side) =>
    Math.max(0, Math.floor((side - size) / stride) + 1)
  ) as [number, number];
  const values = new Float32Array(columns * rows * area);
  const corners = new Uint32Array(columns * rows * 2);
  let n = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const patch = values.subarray(n * area, (n + 1) * area);
      for (let y = 0; y < size; y++) {
        const start = (row * stride + y) * image.width + column * stride;
        patch.set(image.pixels.subarray(start, start + size), y * size);
      }
      const mean = patch.reduce((sum, value) => sum + value, 0) / area;
      let squares = 0;
      for (let i = 0; i < area; i++) {
        patch[i]! -= mean;
        squares += patch[i]! * patch[i]!;
      }
      if (Math.sqrt(squares / area) < leastContrast) continue;
      corners.set([column * stride, row * stride], 2 * n);
      n++;
    }
  }
  return { values: values.slice(0, n * area), corners: corners.slice(0, 2 * n) };
}

/** Joins arrays. */
export function concatenate(arrays: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(arrays.reduce((length, array) => length + array.length, 0));
  let end = 0;
  for (const array of arrays) {
    whole.set(array, end);
    end += array.length;
  }
  return whole;
}
