/**
 * Image resizing that equals Pillow's byte for byte, so that a model sees the same pixels as in Python.
 *
 * Output pixel i of n, from m input pixels, has its centre at c = (i + ½) s, with s = m / n. Its value is Σⱼ wⱼ xⱼ / Σⱼ
 * wⱼ with wⱼ = filter((j + ½ − c) / max(s, 1)), over the pixels that the filter reaches: first along rows, then along
 * columns, with weights in 22-bit fixed point and bytes in between.
 *
 * Source: the behaviour of Pillow's `Image.resize`. Other resizers differ: sharp's enlargements are 5 of 255 apart on
 * average.
 *
 * @module
 */

/** How pixels are interpolated, by Pillow's names. */
export type Resampling = "nearest" | "lanczos" | "bilinear" | "bicubic" | "box" | "hamming";

/** Height and width in pixels. */
export interface ImageSize {
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
}

/** How to get an image's pixels: resize to one size, then crop. */
export interface ResizePlan {
  /** The size after resizing. */
  readonly resized: ImageSize;
  /** The crop. */
  readonly crop: ImageSize & { readonly top: number; readonly left: number };
}

/** An image in bytes, [height, width, channels]. */
export interface ByteImage extends ImageSize {
  /** Its bytes, row by row. */
  readonly data: Uint8Array;
}

/** A filter's radius, and its value at a distance from the centre. */
interface Filter {
  readonly support: number;
  readonly at: (x: number) => number;
}

const FILTERS: Readonly<Record<Exclude<Resampling, "nearest">, Filter>> = {
  box: { support: 0.5, at: (x) => x > -0.5 && x <= 0.5 ? 1 : 0 },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, at: (x) => Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x)) },
  lanczos: { support: 3, at: (x) => x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0 },
};

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Keys's cubic with a = −½. */
function cubic(x: number): number {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

/** Resizes and crops an image; `channels` is 3 for colour and 1 for a mask. */
export function resample(
  image: ByteImage,
  { resized, crop }: ResizePlan,
  { filter, channels }: { readonly filter: Resampling; readonly channels: number },
): ByteImage {
  const { height, width, left, top } = crop;
  const across = tapsOf(filter, image.width, { size: resized.width, from: left, count: width });
  const down = tapsOf(filter, image.height, { size: resized.height, from: top, count: height });
  const rows = new Uint8Array(image.height * width * channels);
  for (let y = 0; y < image.height; y++) {
    for (const [x, { first, weights }] of across.entries()) {
      const from = (y * image.width + first) * channels;
      weigh(image.data, { from, stride: channels, weights }, rows, { to: (y * width + x) * channels, channels });
    }
  }
  const data = new Uint8Array(height * width * channels);
  for (const [y, { first, weights }] of down.entries()) {
    for (let x = 0; x < width; x++) {
      const from = (first * width + x) * channels;
      weigh(rows, { from, stride: width * channels, weights }, data, { to: (y * width + x) * channels, channels });
    }
  }
  return { height, width, data };
}

/** The input pixels of an output pixel, and their weights in 22-bit fixed point. */
interface Taps {
  readonly first: number;
  readonly weights: Int32Array;
}

const BITS = 22;

function tapsOf(
  filter: Resampling,
  m: number,
  { size, from, count }: { readonly size: number; readonly from: number; readonly count: number },
): Taps[] {
  const step = m / size;
  return Array.from({ length: count }, (_, i): Taps => {
    const centre = (from + i + 0.5) * step;
    if (filter === "nearest") {
      return { first: Math.min(Math.floor(centre), m - 1), weights: Int32Array.of(1 << BITS) };
    }
    // An image that already has this size is left as it is.
    if (m === size) return { first: from + i, weights: Int32Array.of(1 << BITS) };
    const { support, at } = FILTERS[filter];
    const scale = Math.max(step, 1);
    const first = Math.max(0, Math.trunc(centre - support * scale + 0.5));
    const end = Math.min(m, Math.trunc(centre + support * scale + 0.5));
    const values = Float64Array.from({ length: end - first }, (_, j) => at((first + j - centre + 0.5) / scale));
    const sum = values.reduce((sum, value) => sum + value, 0);
    return {
      first,
      weights: Int32Array.from(values, (value) => {
        const weight = value / sum * 2 ** BITS;
        return Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
      }),
    };
  });
}

/** Computes one output pixel, channel by channel. */
function weigh(
  input: Uint8Array,
  { from, stride, weights }: { readonly from: number; readonly stride: number; readonly weights: Int32Array },
  output: Uint8Array,
  { to, channels }: { readonly to: number; readonly channels: number },
): void {
  for (let channel = 0; channel < channels; channel++) {
    let sum = 1 << (BITS - 1);
    for (let j = 0, at = from + channel; j < weights.length; j++, at += stride) sum += input[at]! * weights[j]!;
    output[to + channel] = Math.min(255, Math.max(0, sum >> BITS));
  }
}
