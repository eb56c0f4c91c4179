/**
 * From a folder of images and an ONNX model to a folder of activation shards.
 *
 * The caller supplies runtime and decoder. A stopped extraction continues after its last complete file when it is
 * requested again with the same settings.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import {
  countTokens,
  extractActivations,
  type KeptTokens,
  type OpenModel,
  patchSize,
  residualStream,
  type TokenLayout,
  tokenLayout,
} from "../data/activations.ts";
import { fitImage, type ImageDecoder, normalisePixels, pixelSize, type Preprocessing } from "../data/images.ts";
import type { ImageSize } from "../data/resample.ts";
import { patchLabels, type PixelAggregation } from "../data/shards/patch_labels.ts";
import { tokensPerShard, writeShards } from "../data/shards/writer.ts";
import type { ShardsMetadata } from "../data/shards/metadata.ts";
import type { OnnxInput, OnnxModel } from "../io/onnx_model.ts";
import type { ImageFolder } from "./image_folder.ts";
import { targetOf } from "./run_files.ts";
import { RunLock } from "./run_lock.ts";
import { nearest } from "../kernels/engine/nearest.ts";

/** A vision model: its parsed graph, and a function that opens it with chosen tensors as outputs. */
export interface VisionModel {
  /** Its name in messages and metadata. */
  readonly name: string;
  /** The parsed model. */
  readonly model: OnnxModel;
  /** Opens it so that it returns these tensors. */
  readonly open: (tensors: readonly string[]) => Promise<OpenModel>;
}

/** A tensor of a model that can be a layer. */
export interface LayerSummary {
  /** Its name in the model. */
  readonly name: string;
  /** The operator that produces it. */
  readonly op: string;
  /** Number of tokens per image, including all prefix tokens. */
  readonly n_tokens: number;
  /** Numbers in an activation. */
  readonly d_model: number;
  /** Whether it belongs to the residual stream. */
  readonly isResidual: boolean;
  /** Where its tokens lie; `null` if that is unknown. */
  readonly tokens: TokenLayout | null;
}

/** Input of {@link extractToShards}. */
export interface ExtractionPlan {
  /** The model. */
  readonly vision: VisionModel;
  /** The decoder. */
  readonly decoder: ImageDecoder;
  /** The images, in the order of the examples. */
  readonly images: ImageFolder;
  /** Names of tensors. */
  readonly layers: readonly string[];
  /** Which tokens to keep. */
  readonly keep: KeptTokens;
  /** Where tokens lie, if that cannot be inferred from the model. */
  readonly tokens?: TokenLayout;
  /** How images are preprocessed. */
  readonly preprocessing: Preprocessing;
  /** Images per batch, unless the model takes a fixed number. */
  readonly batch_size: number;
  /** The output folder of the shards. */
  readonly out: string;
  /** Bytes per file. */
  readonly shardBytes: number;
  /** The model family to record for upstream's readers. */
  readonly family: string;
  /** A folder with a mask of the same name for each image, and how its pixels determine the label of a patch. */
  readonly masks?: { readonly root: string; readonly pixel_agg: PixelAggregation; readonly bg_label: number };
  /** Images that are skipped, and why. */
  readonly skipped?: readonly SkippedImage[];
}

/** An image that cannot be decoded. */
export interface SkippedImage {
  /** Its path below the folder. */
  readonly path: string;
  /** The decoder's message. */
  readonly reason: string;
}

/** Progress and cancellation of an extraction. */
export interface ExtractionSurroundings {
  /** Called with the number of images done. */
  readonly onProgress?: (done: number) => void;
  /** Ends it after the batch under way. */
  readonly signal?: AbortSignal;
}

const EXTRACTION_SURROUNDINGS = { onProgress: true, signal: true } as const;

/** The result of an extraction. */
export interface ExtractionResult {
  /** What the folder says of itself. */
  readonly metadata: ShardsMetadata;
  /** Images whose activations were in the folder before. */
  readonly n_kept: number;
}

/** The codes of float32, float16 and float64 in onnx.proto3. */
const FLOATS = [1, 10, 11];

/** The input that takes pixels, [B, 3, height, width] or [B, height, width, 3]. */
interface PixelInput {
  readonly order: "channels-first" | "channels-last";
  /** The batch size, if the model takes only one. */
  readonly fixedBatch: number | null;
  readonly size: ImageSize;
}

/** @throws {RangeError} for a model that does not take images, or takes images of another size. */
function pixelInput({ name, model: { inputs } }: VisionModel, preprocessing: Preprocessing): PixelInput {
  const doing = `reading ${name}`;
  const isPixels = ({ type, shape }: OnnxInput) =>
    FLOATS.includes(type) && shape.length === 4 && (shape[1] === 3 || shape[3] === 3);
  const [input] = inputs;
  if (inputs.length !== 1 || !input || !isPixels(input)) {
    const found = inputs.map(({ name, shape }) => `${name} [${shape.map((size) => size ?? "?")}]`).join(", ") || "none";
    throw new RangeError(`${doing}: found the inputs ${found}; expected one of float [B, 3, height, width]`);
  }
  const order = input.shape[1] === 3 ? "channels-first" : "channels-last";
  const [height, width] = order === "channels-first" ? input.shape.slice(2) : input.shape.slice(1, 3);
  const size = pixelSize(preprocessing);
  if (size === null) {
    throw new RangeError(`${doing}: the preprocessing does not fix the size of the images; give a size or a crop`);
  }
  if ((height ?? size.height) !== size.height || (width ?? size.width) !== size.width) {
    throw new RangeError(
      `${doing}: it takes images of ${width} × ${height} pixels, but the preprocessing gives ${size.width} × ${size.height}`,
    );
  }
  return { order, fixedBatch: input.shape[0] ?? null, size };
}

/** The size of the images that a model takes, if it is fixed. */
export function modelSize({ inputs: [input] }: OnnxModel): ImageSize | null {
  const sizes = input?.shape[1] === 3 ? input.shape.slice(2) : input?.shape.slice(1, 3);
  const [height, width] = sizes ?? [];
  return height && width ? { height, width } : null;
}

/** Tensors requested at a time, so that those of a large model fit in memory. */
const AT_ONCE = 128;

/**
 * Runs the model on one image and lists each floating-point tensor of shape [B, T, D], in graph order.
 *
 * @throws {RangeError} for a model that does not take images.
 */
export async function listLayers(
  vision: VisionModel,
  { decoder, preprocessing, image }: {
    readonly decoder: ImageDecoder;
    readonly preprocessing: Preprocessing;
    readonly image: string;
  },
): Promise<LayerSummary[]> {
  const { operators } = vision.model;
  const input = pixelInput(vision, preprocessing);
  const made = operators.filter(({ op }) => op !== "Constant").flatMap(({ op, outputs }) =>
    outputs.filter((name) => name !== "").map((name) => ({ name, op }))
  );
  const stream = new Set(residualStream(vision.model));
  const patch = patchSize(vision.model);
  const found: LayerSummary[] = [];
  for (let at = 0; at < made.length; at += AT_ONCE) {
    const some = made.slice(at, at + AT_ONCE);
    await using open = await vision.open(some.map(({ name }) => name));
    const B = input.fixedBatch ?? 1;
    const shapes = await shapesOf(open, { input, decoder, preprocessing, image });
    shapes.forEach((shape, i) => {
      const [b, n_tokens, d_model] = shape ?? [];
      if (shape?.length !== 3 || b !== B || !n_tokens || !d_model || n_tokens < 2 || d_model < 2) return;
      const { name, op } = some[i]!;
      const tokens = tokenLayout(n_tokens, input.size, patch);
      found.push({ name, op, n_tokens, d_model, isResidual: stream.has(name), tokens });
    });
  }
  return found;
}

/** The shapes for one batch whose first image is this one; tensors of other types have none. */
async function shapesOf(
  { run }: OpenModel,
  { input: { order, fixedBatch, size }, decoder, preprocessing, image }: {
    readonly input: PixelInput;
    readonly decoder: ImageDecoder;
    readonly preprocessing: Preprocessing;
    readonly image: string;
  },
): Promise<(readonly number[] | null)[]> {
  const B = fixedBatch ?? 1;
  const { height, width } = size;
  const shape = order === "channels-first" ? [B, 3, height, width] : [B, height, width, 3];
  const { data: rgb } = fitImage(await decoder.decode(image), preprocessing);
  const pixels = new Float32Array(B * 3 * height * width);
  normalisePixels(rgb, pixels.subarray(0, rgb.length), preprocessing, order);
  return (await run(pixels, shape)).map((tensor) => tensor?.shape ?? null);
}

/**
 * Decodes every image once and returns those that fail.
 *
 * @throws whatever the signal is aborted with.
 * @throws {TypeError} for an unknown option.
 */
export async function findBadImages(
  { root, paths }: ImageFolder,
  decoder: ImageDecoder,
  preprocessing: Preprocessing,
  surroundings: ExtractionSurroundings = {},
): Promise<SkippedImage[]> {
  checkOptions("findBadImages", surroundings, EXTRACTION_SURROUNDINGS);
  const { onProgress, signal } = surroundings;
  const bad: SkippedImage[] = [];
  for (const [i, path] of paths.entries()) {
    signal?.throwIfAborted();
    try {
      fitImage(await decoder.decode(`${root}/${path}`), preprocessing);
    } catch (error) {
      bad.push({ path, reason: messageOf(error) });
    }
    onProgress?.(i + 1);
  }
  return bad;
}

/** The same folder without the skipped images. */
export function withoutImages(folder: ImageFolder, skipped: readonly SkippedImage[]): ImageFolder {
  const left = new Set(skipped.map(({ path }) => path));
  const kept = folder.paths.map((path) => !left.has(path));
  const { classes } = folder;
  return {
    root: folder.root,
    paths: folder.paths.filter((_, i) => kept[i]),
    classes: classes && { names: classes.names, labels: classes.labels.filter((_, i) => kept[i]) },
  };
}

/**
 * Writes the shards. Beside them go `extraction.json`, which says how they were made and which image each example is,
 * and for images in folders of classes `labels.json`.
 *
 * @throws {RangeError} for a layer that the model does not have, naming the nearest, layers of different widths, an
 * image that cannot be decoded, or an activation that is not finite.
 * @throws {RangeError} also if another process writes into the folder.
 * @throws {CheckpointError} if the folder holds other files, or shards that were made otherwise.
 * @throws {TypeError} for an unknown option.
 */
export async function extractToShards(
  plan: ExtractionPlan,
  surroundings: ExtractionSurroundings = {},
): Promise<ExtractionResult> {
  checkOptions("extractToShards", surroundings, EXTRACTION_SURROUNDINGS);
  const { onProgress, signal } = surroundings;
  const { vision, decoder, images, layers, keep, preprocessing, out, masks } = plan;
  checkLayers(vision, layers);
  const input = pixelInput(vision, preprocessing);
  await using open = await vision.open(layers);
  const pathOf = (image: string): string => `${images.root}/${image}`;
  const decode = async (image: string): Promise<Uint8Array> => {
    signal?.throwIfAborted();
    try {
      return fitImage(await decoder.decode(pathOf(image)), preprocessing).data;
    } catch (error) {
      throw new RangeError(`decoding ${pathOf(image)}: ${messageOf(error)}`, { cause: error });
    }
  };
  await decode(images.paths[0]!);
  const shapes = await shapesOf(open, { input, decoder, preprocessing, image: pathOf(images.paths[0]!) });
  const { n_tokens, d_model } = commonShape(layers, shapes, input.fixedBatch ?? 1);
  const tokens = plan.tokens ?? tokenLayout(n_tokens, input.size, patchSize(vision.model));
  if (tokens === null || tokens.n_prefix + tokens.grid.height * tokens.grid.width !== n_tokens) {
    const grid = tokens && `a grid of ${tokens.grid.height} × ${tokens.grid.width} after ${tokens.n_prefix} tokens`;
    throw new RangeError(
      `reading ${vision.name}: ${layers[0]} has ${n_tokens} tokens, which do not form ${grid ?? "a square grid"}; ` +
        `give the grid, and the number of tokens before it`,
    );
  }
  const { cls, patches } = countTokens(tokens, keep);
  if (cls + patches === 0) throw new RangeError(`reading ${vision.name}: its tokens include no CLS token`);
  const numbers = layerNumbers(layers);
  const described = {
    family: plan.family,
    ckpt: vision.name,
    layers: numbers,
    // If only CLS is kept, it is stored as the one content token.
    content_tokens_per_example: patches || 1,
    cls_token: cls === 1 && patches > 0,
    d_model,
    n_examples: images.paths.length,
    data: "",
    dataset: images.root,
    pixel_agg: masks?.pixel_agg ?? "majority",
    dtype: "float32",
    protocol: "2.1",
  } as const;
  const metadata = { ...described, max_tokens_per_shard: tokensPerShard(described, plan.shardBytes) };
  const extraction = {
    images: images.paths,
    decode,
    run: open.run,
    preprocessing,
    ...input,
    batch_size: input.fixedBatch ?? plan.batch_size,
    isFixedBatch: input.fixedBatch !== null,
    layers,
    tokens,
    keep,
    d_model,
    nameOf: pathOf,
  };
  async function* examples(from: number): AsyncGenerator<Float32Array> {
    let done = from;
    onProgress?.(done);
    for await (const batch of extractActivations(extraction, from)) {
      signal?.throwIfAborted();
      yield batch;
      done = Math.min(done + extraction.batch_size, images.paths.length);
      onProgress?.(done);
    }
  }
  await Deno.mkdir(out, { recursive: true });
  await using _lock = await RunLock.take(out);
  await removeLeftovers(out);
  const json = (value: unknown): Uint8Array => new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`);
  const about = {
    model: vision.name,
    layers: numbers.map((layer, i) => ({ layer, tensor: layers[i] })),
    tokens: { kept: keep, n_prefix: tokens.n_prefix, cls_token: tokens.cls_token, grid: tokens.grid },
    preprocessing,
    images: { root: images.root, paths: images.paths },
    skipped: plan.skipped ?? [],
  };
  const { n_kept } = await writeShards(out, {
    metadata,
    examples,
    ...masks && { labels: () => labelsOf(plan, { tokens, size: input.size }) },
    beside: { "extraction.json": json(about), ...images.classes && { "labels.json": json(images.classes) } },
  });
  return { metadata, n_kept };
}

/** Removes files that a killed extraction left half written. */
async function removeLeftovers(out: string): Promise<void> {
  for await (const { name } of Deno.readDir(out)) {
    const isOurs = /^(?:acts\d+\.bin|labels\.bin|(?:metadata|shards|extraction|labels)\.json)$/.test(targetOf(name));
    if (isOurs) await Deno.remove(`${out}/${name}`);
  }
}

/** @throws {RangeError} for a layer that the model does not produce. */
function checkLayers({ name, model }: VisionModel, layers: readonly string[]): void {
  const made = new Set([...model.operators.flatMap(({ outputs }) => outputs)].filter((output) => output !== ""));
  for (const layer of layers) {
    if (made.has(layer)) continue;
    const near = nearest(layer, [...made]);
    throw new RangeError(
      `${name} has no tensor ${JSON.stringify(layer)}; ${
        near === undefined ? "--list-layers lists its tensors" : `did you mean ${near}?`
      }`,
    );
  }
  if (new Set(layers).size < layers.length) throw new RangeError(`a layer is given twice: ${layers.join(", ")}`);
}

/** The number of tokens and the width, which all layers share. */
function commonShape(
  layers: readonly string[],
  shapes: readonly (readonly number[] | null)[],
  B: number,
): { readonly n_tokens: number; readonly d_model: number } {
  shapes.forEach((shape, i) => {
    if (shape?.length === 3 && shape[0] === B) return;
    throw new RangeError(
      `${layers[i]} is ${shape === null ? "not floating-point" : `[${shape}]`}; expected [${B}, T, D]`,
    );
  });
  const other = shapes.findIndex((shape) => String(shape) !== String(shapes[0]));
  if (other >= 0) {
    throw new RangeError(
      `${layers[0]} is [${shapes[0]}] and ${layers[other]} is [${shapes[other]}]; ` +
        `layers in one folder must have the same number of tokens and the same width`,
    );
  }
  const [, n_tokens, d_model] = shapes[0]!;
  return { n_tokens: n_tokens!, d_model: d_model! };
}

/**
 * The numbers of layers in shards: the block number in the tensor's name (`/encoder/layer.5/Add`) if every name has a
 * different one, else 0, 1, 2 in the order given.
 */
export function layerNumbers(layers: readonly string[]): number[] {
  const numbers = layers.map((layer) => Number(/(?:layers?|blocks?|resblocks|h)[._/](\d+)/i.exec(layer)?.[1] ?? NaN));
  const areDistinct = numbers.every(Number.isSafeInteger) && new Set(numbers).size === numbers.length;
  return areDistinct ? numbers : layers.map((_, i) => i);
}

/** The label of every patch of every image. */
async function labelsOf(
  { decoder, images, masks, preprocessing }: ExtractionPlan,
  { tokens: { grid }, size }: { readonly tokens: TokenLayout; readonly size: ImageSize },
): Promise<Uint8Array> {
  const { root, pixel_agg, bg_label } = masks!;
  const side = Math.floor(size.width / grid.width);
  if (Math.floor(size.height / grid.height) !== side) {
    throw new RangeError(`patches are ${side} pixels wide and not square; masks need square patches`);
  }
  const [height, width] = [side * grid.height, side * grid.width];
  const labels = new Uint8Array(images.paths.length * grid.height * grid.width);
  for (const [i, path] of images.paths.entries()) {
    const place = `${root}/${path.replace(/\.[^./]*$/, "")}.png`;
    let mask: Uint8Array;
    try {
      mask = fitImage(await decoder.decodeMask(place), preprocessing).data;
    } catch (error) {
      throw new RangeError(`decoding the mask ${place}: ${messageOf(error)}`, { cause: error });
    }
    const cut = new Uint8Array(height * width);
    for (let y = 0; y < height; y++) cut.set(mask.subarray(y * size.width, y * size.width + width), y * width);
    labels.set(patchLabels(cut, { width, patch_size: side, pixel_agg, bg_label }), i * grid.height * grid.width);
  }
  return labels;
}

function messageOf(error: unknown): string {
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ").trim();
  return message.length > 160 ? `${message.slice(0, 160)}…` : message;
}
