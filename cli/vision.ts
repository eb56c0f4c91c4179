/**
 * What commands that run a vision model share: opening it and preprocessing images.
 *
 * @module
 */

import {
  IMAGENET_PREPROCESSING,
  type ImageSize,
  type Preprocessing,
  readPreprocessor,
  type Resampling,
} from "../data/mod.ts";
import { openFiles, openSource, readOnnxModel } from "../io/mod.ts";
import type { VisionModel } from "../runner/mod.ts";
import { type Arguments, type Option, say, UsageError } from "./command.ts";
import { type OnnxRuntime, openModel } from "./runtimes.ts";

const RESAMPLINGS = [
  "nearest",
  "bilinear",
  "bicubic",
  "lanczos",
  "box",
  "hamming",
] as const satisfies readonly Resampling[];

const RUNTIMES = ["web", "node"] as const satisfies readonly OnnxRuntime[];

/** Options for the model's runtime and the preprocessing. */
export const VISION_OPTIONS: Readonly<Record<string, Option>> = {
  preprocessor: { value: "FILE", help: "preprocessor_config.json (default: the one beside MODEL, if any)" },
  size: { value: "N|HxW", help: "size to resize images to; with --crop, N is the shorter edge" },
  crop: { value: "N|HxW", help: "size of the centre crop" },
  mean: { value: "R,G,B", help: "mean to subtract from pixels in 0 to 1 (default: 0.485,0.456,0.406)" },
  std: { value: "R,G,B", help: "deviation to divide pixels by (default: 0.229,0.224,0.225)" },
  interpolation: { value: "HOW", help: `${RESAMPLINGS.slice(0, 4).join(", ")} (default: bicubic)` },
  runtime: {
    value: "WHICH",
    help: "web, or node, which is native code: several times faster, a larger download (default: web)",
  },
};

/** Opens the model at a path with the runtime that the options name. */
export async function openVision(args: Arguments, path: string): Promise<VisionModel> {
  const runtime = args.choice("runtime", RUNTIMES) ?? "web";
  const source = await openSource(path);
  const bytes = await source.read(0, source.size);
  const model = readOnnxModel(bytes, path);
  const beside = await openFiles(path);
  const readExternal = async (name: string): Promise<Uint8Array> => {
    const file = await beside.find(name);
    if (file === null) throw new RangeError(`reading ${path}: its weights are in ${name}, which is not beside it`);
    return await file.read(0, file.size);
  };
  const folder = path.replace(/[^/\\]*$/, "") || ".";
  return {
    name: path.replace(/^.*[/\\]/, ""),
    model,
    open: (layers) => openModel({ bytes, model, layers, folder, runtime, readExternal }),
  };
}

/** The preprocessing from the options, else from a file, else that of ImageNet models at the model's own size. */
export async function preprocessingOf(args: Arguments, model: string, size: ImageSize | null): Promise<Preprocessing> {
  const beside = await (await openFiles(model)).find("preprocessor_config.json");
  const file = args.text("preprocessor") ?? beside;
  const usual = file === null
    ? { ...IMAGENET_PREPROCESSING, ...size !== null && { resize: size } }
    : await readPreprocessor(file);
  const [resize, crop] = [sizeOf(args, "size"), sizeOf(args, "crop")];
  const [image_mean, image_std] = [channels(args, "mean"), channels(args, "std")];
  const resample = args.choice("interpolation", RESAMPLINGS);
  if (file === null && resize === null) {
    const { height, width } = usual.resize as ImageSize;
    say(
      `found no preprocessor_config.json: resizing images to ${width} × ${height} and using ImageNet's mean and deviation`,
    );
  }
  const isEdge = crop !== null && /^\d+$/.test(args.text("size") ?? "");
  return {
    ...usual,
    ...resize && { resize: isEdge ? { shortest_edge: resize.height } : resize, crop: null },
    ...crop && { crop },
    ...image_mean && { image_mean },
    ...image_std && { image_std },
    ...resample && { resample },
  };
}

/** The size given by an option. */
export function sizeOf(args: Arguments, option: string): ImageSize | null {
  const text = args.text(option);
  if (text === undefined) return null;
  const found = /^([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?$/.exec(text);
  if (found === null) {
    throw new UsageError(`--${option} must be N or HxW, such as 224 or 224x160, found ${JSON.stringify(text)}`);
  }
  return { height: Number(found[1]), width: Number(found[2] ?? found[1]) };
}

function channels(args: Arguments, option: string): [number, number, number] | null {
  const text = args.text(option);
  if (text === undefined) return null;
  const values = text.split(",").map((part) => part.trim() === "" ? NaN : Number(part));
  if (values.length === 3 && values.every(Number.isFinite)) return values as [number, number, number];
  throw new UsageError(`--${option} must be three numbers separated by commas, found ${JSON.stringify(text)}`);
}
