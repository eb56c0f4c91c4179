/**
 * Image preprocessing for vision models: resize, crop, scale and normalise, as Hugging Face's image processors do.
 *
 * pixel = (value · rescale_factor − image_mean) / image_std, channel by channel, [3, height, width].
 *
 * The caller supplies the decoder. Resizing follows Pillow.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import { type ByteSource, openSource } from "../io/files.ts";
import { describeValue, type JsonObject, type JsonValue, readJsonObject } from "../io/json.ts";
import { type ByteImage, type ImageSize, resample, type Resampling, type ResizePlan } from "./resample.ts";

/** How images are preprocessed before the model sees them. */
export interface Preprocessing {
  /** The size to resize to; a shortest edge keeps the proportions. `null` for no resizing. */
  readonly resize: ImageSize | { readonly shortest_edge: number } | null;
  /** The size of the centre crop after resizing; `null` for none. */
  readonly crop: ImageSize | null;
  /** The interpolation. */
  readonly resample: Resampling;
  /** The factor for the bytes, usually 1 / 255. */
  readonly rescale_factor: number;
  /** The mean to subtract from each channel: red, green, blue. */
  readonly image_mean: readonly [number, number, number];
  /** The deviation to divide each channel by. */
  readonly image_std: readonly [number, number, number];
}

/** Decodes images. The caller supplies it. */
export interface ImageDecoder {
  /** Decodes an image in colour, [height, width, 3]. */
  decode(path: string): Promise<ByteImage>;
  /** Decodes a mask whose bytes are labels, [height, width]. */
  decodeMask(path: string): Promise<ByteImage>;
}

/** The usual preprocessing of ImageNet models: bicubic to 224 × 224, ImageNet's mean and deviation. */
export const IMAGENET_PREPROCESSING: Preprocessing = Object.freeze({
  resize: Object.freeze({ height: 224, width: 224 }),
  crop: null,
  resample: "bicubic",
  rescale_factor: 1 / 255,
  image_mean: Object.freeze([0.485, 0.456, 0.406] as const),
  image_std: Object.freeze([0.229, 0.224, 0.225] as const),
});

/** Filters by Pillow's numbers. */
const RESAMPLINGS: readonly Resampling[] = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];

/**
 * Reads a `preprocessor_config.json` as the processors of ViT, DeiT, CLIP, SigLIP, DINOv2 and DINOv3 write it.
 *
 * @throws {CheckpointError} for a field that is missing or invalid, or a step that this library does not support.
 */
export async function readPreprocessor(from: ByteSource): Promise<Preprocessing> {
  const source = await openSource(from);
  return preprocessingOf(await readJsonObject(source), source.name);
}

function preprocessingOf(json: JsonObject, name: string): Preprocessing {
  const fail = (field: string, expected: string): never => {
    const found = json.has(field) ? `${field} = ${describeValue(json.get(field))}` : `no ${field}`;
    throw new CheckpointError(`reading ${name}: found ${found}; expected ${expected}`);
  };
  const does = (field: string): boolean => {
    const value = json.get(field) ?? field !== "do_pad";
    return typeof value === "boolean" ? value : fail(field, "true or false");
  };
  const isPixels = (value: JsonValue | undefined): value is number =>
    typeof value === "number" && Number.isSafeInteger(value) && value > 0;
  const sizeOf = (field: string): ImageSize | { readonly shortest_edge: number } => {
    const value = json.get(field);
    if (isPixels(value)) return { height: value, width: value };
    if (!(value instanceof Map)) return fail(field, "a size");
    const size = value as JsonObject;
    const [height, width, shortest] = ["height", "width", "shortest_edge"].map((key) => size.get(key));
    if (isPixels(height) && isPixels(width)) return { height, width };
    return isPixels(shortest) && !size.has("longest_edge") ? { shortest_edge: shortest } : fail(field, "a size");
  };
  const channels = (field: "image_mean" | "image_std"): readonly [number, number, number] => {
    const value = json.get(field);
    if (!does("do_normalize")) return field === "image_mean" ? [0, 0, 0] : [1, 1, 1];
    const isList = Array.isArray(value) && value.length === 3 &&
      value.every((channel) => typeof channel === "number" && (field === "image_mean" || channel > 0));
    return isList ? value as [number, number, number] : fail(field, "three numbers, for red, green and blue");
  };

  if (does("do_pad")) fail("do_pad", "false: this library does not pad images");
  if (json.has("crop_pct")) fail("crop_pct", "a size and a crop_size instead");
  const resizes = does("do_resize");
  const resample = json.get("resample") ?? 2;
  const filter = typeof resample === "number" ? RESAMPLINGS[resample] : undefined;
  if (resizes && filter === undefined) return fail("resample", "one of Pillow's filters, 0 to 5");
  const crops = json.has("do_center_crop") ? does("do_center_crop") : json.has("crop_size");
  const crop = crops ? sizeOf("crop_size") : null;
  if (crop !== null && "shortest_edge" in crop) return fail("crop_size", "a height and a width");
  const factor = does("do_rescale") ? json.get("rescale_factor") ?? 1 / 255 : 1;
  if (typeof factor !== "number" || !(factor > 0)) return fail("rescale_factor", "a positive number");
  const size = resizes ? sizeOf("size") : null;
  // Older CLIP files give one number, which is the shortest edge if a crop follows.
  const isShortest = typeof json.get("size") === "number" && crop !== null;
  return {
    resize: isShortest && size !== null ? { shortest_edge: json.get("size") as number } : size,
    crop,
    resample: filter ?? "bilinear",
    rescale_factor: factor,
    image_mean: channels("image_mean"),
    image_std: channels("image_std"),
  };
}

/**
 * The resized size and the crop for an image of this size.
 *
 * @throws {RangeError} if the resized image is smaller than the crop.
 */
export function planResize({ resize, crop }: Preprocessing, { height, width }: ImageSize): ResizePlan {
  let resized: ImageSize = { height, width };
  if (resize !== null && "shortest_edge" in resize) {
    const { shortest_edge: short } = resize;
    // The longer edge is rounded down, as in Hugging Face and torchvision.
    resized = height <= width
      ? { height: short, width: Math.floor(short * width / height) }
      : { height: Math.floor(short * height / width), width: short };
  } else if (resize !== null) resized = resize;
  const kept = crop ?? resized;
  if (kept.height > resized.height || kept.width > resized.width) {
    throw new RangeError(
      `an image of ${width} × ${height} pixels is ${resized.width} × ${resized.height} after resizing, ` +
        `smaller than the crop of ${kept.width} × ${kept.height}`,
    );
  }
  return {
    resized,
    crop: {
      ...kept,
      top: Math.floor((resized.height - kept.height) / 2),
      left: Math.floor((resized.width - kept.width) / 2),
    },
  };
}

/** Resizes and crops an image of 3 channels, or a mask of one. Masks are not interpolated. */
export function fitImage(image: ByteImage, preprocessing: Preprocessing): ByteImage {
  const channels = image.data.length / (image.height * image.width);
  const filter = channels === 1 ? "nearest" : preprocessing.resample;
  return resample(image, planResize(preprocessing, image), { filter, channels });
}

/** The size of the pixels that the model gets; `null` if it depends on the image. */
export function pixelSize({ resize, crop }: Preprocessing): ImageSize | null {
  if (crop !== null) return crop;
  return resize !== null && "height" in resize ? resize : null;
}

/**
 * Scales and normalises one image into `into`, channel by channel or, with `"channels-last"`, pixel by pixel. `rgb` is
 * [height, width, 3] in bytes; `into` has the same number of elements.
 */
export function normalisePixels(
  rgb: Uint8Array,
  into: Float32Array,
  { rescale_factor, image_mean, image_std }: Preprocessing,
  order: "channels-first" | "channels-last" = "channels-first",
): void {
  const area = rgb.length / 3;
  for (let channel = 0; channel < 3; channel++) {
    // One entry for each of the 256 values of a byte.
    const values = Float32Array.from(
      { length: 256 },
      (_, byte) => (byte * rescale_factor - image_mean[channel]!) / image_std[channel]!,
    );
    const [start, stride] = order === "channels-first" ? [channel * area, 1] : [channel, 3];
    for (let pixel = 0; pixel < area; pixel++) into[start + pixel * stride] = values[rgb[3 * pixel + channel]!]!;
  }
}
