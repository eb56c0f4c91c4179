/**
 * Activations of a vision model on images: which of its tensors can be had, where patches and CLS lie in them, and the
 * examples one after the other, [layers, tokens, d_model] each, as shards take them.
 *
 * The model runs elsewhere: a function that is put in takes pixels and returns tensors.
 *
 * @module
 */

import type { OnnxModel } from "../io/onnx_model.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { normalisePixels, type Preprocessing } from "./images.ts";
import type { ImageSize } from "./resample.ts";

/** What a model made of a batch. */
export interface ModelTensor {
  /** Its dimensions, such as [B, T, D]. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array;
}

/**
 * Runs a model on pixels of this shape, and returns the tensors that were asked for, in that order; `null` for one of other
 * than floating-point numbers.
 */
export type RunModel = (pixels: Float32Array, shape: readonly number[]) => Promise<readonly (ModelTensor | null)[]>;

/** A model, ready to run. */
export interface OpenModel extends AsyncDisposable {
  /** Runs it. */
  readonly run: RunModel;
}

/** Where the tokens of an image lie in a tensor [B, T, D]: a few in front, then the patches row by row. */
export interface TokenLayout {
  /** Tokens before the patches: CLS, and registers where there are some. */
  readonly n_prefix: number;
  /** Whether the first of them is CLS. */
  readonly cls_token: boolean;
  /** Patches in a column and in a row of the image. */
  readonly grid: ImageSize;
}

/** Which tokens of an image are kept: its patches, CLS, or CLS and the patches. Registers are never kept. */
export type KeptTokens = "patches" | "cls" | "all";

/** What {@link extractActivations} goes through. */
export interface Extraction<Image> {
  /** The images, in the order of the examples. */
  readonly images: readonly Image[];
  /** One image's bytes, [height, width, 3], resized and cropped as the preprocessing says. */
  readonly decode: (image: Image) => Promise<Uint8Array>;
  /** The model. */
  readonly run: RunModel;
  /** What is done with an image before the model sees it. */
  readonly preprocessing: Preprocessing;
  /** Of the pixels that the model takes. */
  readonly size: ImageSize;
  /** How pixels lie in memory. */
  readonly order: "channels-first" | "channels-last";
  /** Images at a time. */
  readonly batch_size: number;
  /** Whether the model takes exactly so many; the last batch is filled up with zeros then. */
  readonly isFixedBatch: boolean;
  /** What the tensors are called, for messages. */
  readonly layers: readonly string[];
  /** Where tokens lie in them. */
  readonly tokens: TokenLayout;
  /** Which of them are kept. */
  readonly keep: KeptTokens;
  /** Numbers in an activation. */
  readonly d_model: number;
  /** What messages call an image. */
  readonly nameOf: (image: Image) => string;
}

/** How many tokens of an image are kept: with or without CLS, and the patches. */
export function countTokens({ cls_token, grid }: TokenLayout, keep: KeptTokens): { cls: number; patches: number } {
  return {
    cls: cls_token && keep !== "patches" ? 1 : 0,
    patches: keep === "cls" ? 0 : grid.height * grid.width,
  };
}

/**
 * The activations of the images from number `from` on, a batch at a time: [examples, layers, tokens, d_model]. While the
 * model runs on one batch, the images of the next are decoded.
 *
 * @throws {ShapeError} if the model returns other tensors than expected.
 * @throws {RangeError} if an activation is not finite, naming the image, the layer and the token.
 */
export async function* extractActivations<Image>(
  extraction: Extraction<Image>,
  from = 0,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const { images, run, size: { height, width }, order, batch_size, isFixedBatch } = extraction;
  const next = (at: number) => at < images.length ? pixelsOf(extraction, images.slice(at, at + batch_size)) : null;
  let coming = next(from);
  for (let at = from; coming !== null; at += batch_size) {
    const pixels = await coming;
    coming = next(at + batch_size);
    // A failure is told where it is waited for.
    coming?.catch(() => {});
    const batch = images.slice(at, at + batch_size);
    const B = isFixedBatch ? batch_size : batch.length;
    const shape = order === "channels-first" ? [B, 3, height, width] : [B, height, width, 3];
    yield examplesOf(extraction, batch, { tensors: await run(pixels, shape), B });
  }
}

async function pixelsOf<Image>(extraction: Extraction<Image>, batch: readonly Image[]): Promise<Float32Array> {
  const { decode, preprocessing, size: { height, width }, order, batch_size, isFixedBatch, nameOf } = extraction;
  const perImage = 3 * height * width;
  const pixels = new Float32Array((isFixedBatch ? batch_size : batch.length) * perImage);
  await Promise.all(batch.map(async (image, i) => {
    const rgb = await decode(image);
    if (rgb.length !== perImage) {
      throw new ShapeError(
        `decoding ${nameOf(image)}: found ${rgb.length} bytes; expected ${height} × ${width} × 3`,
      );
    }
    normalisePixels(rgb, pixels.subarray(i * perImage, (i + 1) * perImage), preprocessing, order);
  }));
  return pixels;
}

function examplesOf<Image>(
  { layers, tokens, keep, d_model, nameOf }: Extraction<Image>,
  batch: readonly Image[],
  { tensors, B }: { readonly tensors: readonly (ModelTensor | null)[]; readonly B: number },
): Float32Array<ArrayBuffer> {
  const { n_prefix, grid } = tokens;
  const T = n_prefix + grid.height * grid.width;
  const { cls, patches } = countTokens(tokens, keep);
  const kept = cls + patches;
  const examples = new Float32Array(batch.length * layers.length * kept * d_model);
  tensors.forEach((tensor, layer) => {
    if (String(tensor?.shape) !== String([B, T, d_model])) {
      const found = tensor === null ? "no tensor of floating-point numbers" : `[${tensor.shape}]`;
      throw new ShapeError(`running the model: ${layers[layer]} is ${found}; expected [${[B, T, d_model]}]`);
    }
    const { data } = tensor!;
    batch.forEach((image, b) => {
      const at = (b * layers.length + layer) * kept * d_model;
      const first = b * T * d_model;
      examples.set(data.subarray(first, first + cls * d_model), at);
      const start = first + n_prefix * d_model;
      examples.set(data.subarray(start, start + patches * d_model), at + cls * d_model);
      const bad = examples.subarray(at, at + kept * d_model).findIndex((value) => !Number.isFinite(value));
      if (bad < 0) return;
      const [token, column] = [Math.floor(bad / d_model), bad % d_model];
      throw new RangeError(
        `running the model on ${nameOf(image)}: ${layers[layer]} has ${examples[at + bad]} in token ${token}, ` +
          `column ${column}; expected finite numbers`,
      );
    });
  });
  return examples;
}

/**
 * Names of the tensors that a transformer's blocks add to, in their order: the longest chain of additions in which each
 * takes what the one before it made, and no constant. Empty for a model without such a chain.
 */
export function residualStream({ operators, constants }: OnnxModel): string[] {
  const fixed = new Set(constants);
  const chains = new Map<string, { readonly length: number; readonly before: string | null }>();
  let longest: string | null = null;
  for (const { op, inputs, outputs } of operators) {
    const [output] = outputs;
    if (output === undefined) continue;
    if (op === "Constant") fixed.add(output);
    if (op !== "Add" || inputs.some((input) => fixed.has(input))) continue;
    const before = inputs.filter((input) => chains.has(input))
      .reduce<string | null>((best, input) => lengthOf(input) > lengthOf(best) ? input : best, null);
    chains.set(output, { length: lengthOf(before) + 1, before });
    if (lengthOf(output) > lengthOf(longest)) longest = output;
  }
  function lengthOf(output: string | null): number {
    return output === null ? 0 : chains.get(output)!.length;
  }
  const stream: string[] = [];
  for (let at = longest; at !== null; at = chains.get(at)!.before) stream.unshift(at);
  return stream.length > 1 ? stream : [];
}

/**
 * Pixels along the sides of a patch, by the first convolution that steps as far as it sees; `null` where there is none.
 */
export function patchSize({ operators }: OnnxModel): ImageSize | null {
  for (const { op, ints } of operators) {
    const [strides, kernel] = [ints.get("strides"), ints.get("kernel_shape")];
    if (op !== "Conv" || strides?.length !== 2 || String(strides) !== String(kernel)) continue;
    const [height, width] = strides as [number, number];
    if (height * width > 1) return { height, width };
  }
  return null;
}

/** Tokens before the patches at most: CLS and some registers. */
const MAX_PREFIX = 17;

/**
 * Where the tokens of T lie, by the size of the pixels and of a patch. Without a patch's size the grid is taken to be
 * square, and one token more than that to be CLS. `null` where neither fits.
 */
export function tokenLayout(T: number, size: ImageSize, patch: ImageSize | null): TokenLayout | null {
  if (patch !== null) {
    const grid = { height: Math.floor(size.height / patch.height), width: Math.floor(size.width / patch.width) };
    const n_prefix = T - grid.height * grid.width;
    return n_prefix < 0 || n_prefix > MAX_PREFIX || grid.height * grid.width === 0
      ? null
      : { n_prefix, cls_token: n_prefix > 0, grid };
  }
  for (const n_prefix of [0, 1]) {
    const side = Math.sqrt(T - n_prefix);
    if (Number.isInteger(side) && side > 0) {
      return { n_prefix, cls_token: n_prefix > 0, grid: { height: side, width: side } };
    }
  }
  return null;
}
