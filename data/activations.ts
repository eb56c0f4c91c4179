/**
 * Activations of a vision model on images: which of its tensors are usable layers, where patches and CLS lie in them,
 * and the examples one by one, [layers, tokens, d_model] each, as shards store them.
 *
 * The caller supplies the function that runs the model: it takes pixels and returns tensors.
 *
 * @module
 */

import type { OnnxModel } from "../io/onnx_model.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { normalisePixels, type Preprocessing } from "./images.ts";
import type { ImageSize } from "./resample.ts";

/** One output tensor of a model for a batch. */
export interface ModelTensor {
  /** Its dimensions, such as [B, T, D]. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array;
}

/**
 * Runs a model on pixels of this shape and returns the requested tensors in order; `null` for a tensor that is not
 * floating-point.
 */
export type RunModel = (pixels: Float32Array, shape: readonly number[]) => Promise<readonly (ModelTensor | null)[]>;

/** A model, ready to run. */
export interface OpenModel extends AsyncDisposable {
  /** Runs it. */
  readonly run: RunModel;
}

/** Where the tokens of an image lie in a tensor [B, T, D]: prefix tokens first, then the patches row by row. */
export interface TokenLayout {
  /** Tokens before the patches: CLS, and registers if the model has any. */
  readonly n_prefix: number;
  /** Whether the first prefix token is CLS. */
  readonly cls_token: boolean;
  /** Patches per column and per row of the image. */
  readonly grid: ImageSize;
}

/** Which tokens of an image to keep: its patches, CLS, or CLS and the patches. Registers are never kept. */
export type KeptTokens = "patches" | "cls" | "all";

/** The input of {@link extractActivations}. */
export interface Extraction<Image> {
  /** The images, in the order of the examples. */
  readonly images: readonly Image[];
  /** Decodes one image to bytes, [height, width, 3], resized and cropped as the preprocessing says. */
  readonly decode: (image: Image) => Promise<Uint8Array>;
  /** The model. */
  readonly run: RunModel;
  /** How images are preprocessed. */
  readonly preprocessing: Preprocessing;
  /** Height and width of the model's input. */
  readonly size: ImageSize;
  /** The memory layout of the pixels. */
  readonly order: "channels-first" | "channels-last";
  /** Images per batch. */
  readonly batch_size: number;
  /** Whether the model takes only batches of exactly this size; the last batch is then padded with zeros. */
  readonly isFixedBatch: boolean;
  /** Names of the tensors, for messages. */
  readonly layers: readonly string[];
  /** Where tokens lie in the tensors. */
  readonly tokens: TokenLayout;
  /** Which tokens to keep. */
  readonly keep: KeptTokens;
  /** Width of an activation. */
  readonly d_model: number;
  /** The name of an image, for messages. */
  readonly nameOf: (image: Image) => string;
}

/** The number of tokens kept per image: the patches, and CLS if there is one. */
export function countTokens({ cls_token, grid }: TokenLayout, keep: KeptTokens): { cls: number; patches: number } {
  return {
    cls: cls_token && keep !== "patches" ? 1 : 0,
    patches: keep === "cls" ? 0 : grid.height * grid.width,
  };
}

/**
 * The activations of the images from number `from` on, one batch at a time: [examples, layers, tokens, d_model]. While
 * the model runs on one batch, the next images are decoded.
 *
 * @throws {ShapeError} if the model returns tensors of unexpected shapes.
 * @throws {RangeError} if an activation is not finite; the message names the image, the layer and the token.
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
    // The failure is reported where the promise is awaited.
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
 * Names of the tensors of the residual stream, in order: the longest chain of additions in which each takes the result
 * of the one before, and no constant. Empty for a model without such a chain.
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

/** Height and width of a patch, from the first convolution whose stride equals its kernel; `null` if there is none. */
export function patchSize({ operators }: OnnxModel): ImageSize | null {
  for (const { op, ints } of operators) {
    const [strides, kernel] = [ints.get("strides"), ints.get("kernel_shape")];
    if (op !== "Conv" || strides?.length !== 2 || String(strides) !== String(kernel)) continue;
    const [height, width] = strides as [number, number];
    if (height * width > 1) return { height, width };
  }
  return null;
}

/** Largest number of tokens before the patches: CLS and some registers. */
const MAX_PREFIX = 17;

/**
 * Finds the layout of T tokens from the size of the pixels and of a patch. Without a patch size the grid is assumed
 * square, and one extra token is assumed to be CLS. `null` if neither fits.
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
