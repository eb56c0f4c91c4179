/**
 * `saev activations`: writes the activations of an ONNX model on a folder of images to disk.
 *
 * @module
 */

import type { TokenLayout } from "../data/mod.ts";
import {
  CountLine,
  extractToShards,
  findBadImages,
  type LayerSummary,
  listImages,
  listLayers,
  modelSize,
  type SkippedImage,
  withoutImages,
} from "../runner/mod.ts";
import { type Arguments, type Command, print, say, table, UsageError } from "./command.ts";
import { openDecoder } from "./runtimes.ts";
import { openVision, preprocessingOf, sizeOf, VISION_OPTIONS } from "./vision.ts";

/** The families of the Python package's own models. */
const FAMILIES = ["bird-mae", "clip", "dinov2", "dinov3", "fake-clip", "pe-core", "pe-spatial", "siglip"] as const;

/** The command. */
export const activationsCommand: Command = {
  summary: "Run a vision model on a folder of images and write its activations to disk.",
  positionals: ["MODEL.onnx", "IMAGES"],
  options: {
    "list-layers": { help: "run the model on one image, list the tensors that can be layers, and stop" },
    layer: { value: "NAME", help: "tensor to write; repeat --layer for several layers", isMany: true },
    out: { value: "DIR", help: "output folder for the shards" },
    tokens: { value: "WHICH", help: "tokens to write: patches, cls, or all for both (default: all)" },
    ...VISION_OPTIONS,
    "batch-size": { value: "N", help: "images per batch (default: 8)" },
    masks: { value: "DIR", help: "folder with a .png of label bytes for each image; writes labels.bin" },
    "pixel-agg": { value: "HOW", help: "how pixels give a patch its label: majority or prefer-fg (default: majority)" },
    background: { value: "N", help: "label of the background (default: 0)" },
    "skip-bad": { help: "skip images that cannot be decoded; decodes every image once before the start" },
    grid: { value: "HxW", help: "grid of patches, if it cannot be inferred from the model" },
    prefix: { value: "N", help: "number of tokens before the patches: 0, 1 with CLS, more with registers" },
    "shard-size": { value: "MB", help: "size of each shard file (default: 256)" },
    family: { value: "NAME", help: "model family to record for the Python package (default: fake-clip)" },
    json: { help: "print JSON" },
  },
  permissions: `all (-A): ONNX Runtime and the image decoder are npm packages with native code.`,
  details: `Each image is one example. The shards follow protocol 2.1 of the Python package saev, which its current
version reads. extraction.json beside them records how they were made and which image each example is. If the
images are in subfolders, as in IMAGES/cat/1.jpg, the subfolders are the classes, written to labels.json.

If the command is stopped, run it again: it continues after the last complete shard file.

The first run downloads the npm packages that read the model and the images: onnxruntime-web (34 MB) or
onnxruntime-node (114 MB), and sharp (17 MB).`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [path, root] = args.positionals as [string, string];
  const isListing = args.flag("list-layers");
  const [layers, out] = [args.texts("layer"), args.text("out")];
  if (!isListing && layers.length === 0) {
    throw new UsageError("activations needs --layer; --list-layers lists them");
  }
  if (!isListing && out === undefined) {
    throw new UsageError("activations needs --out, the output folder for the shards");
  }
  const wanted = optionsOf(args);

  const vision = await openVision(args, path);
  const preprocessing = await preprocessingOf(args, path, modelSize(vision.model));
  const images = await listImages(root);
  const decoder = await openDecoder();
  if (isListing) {
    const found = await listLayers(vision, { decoder, preprocessing, image: `${root}/${images.paths[0]}` });
    await print(args.flag("json") ? JSON.stringify(found) : describeLayers(found));
    return 0;
  }

  const total = images.paths.length;
  let skipped: readonly SkippedImage[] = [];
  if (args.flag("skip-bad")) {
    using line = new CountLine("images decoded", total);
    skipped = await findBadImages(images, decoder, preprocessing, { signal, onProgress: (done) => line.show(done) });
  }
  for (const { path, reason } of skipped) say(`skipped ${root}/${path}: ${reason}`);
  if (skipped.length > 0) say(`skipped ${skipped.length} of ${total} images`);
  const good = withoutImages(images, skipped);
  let done = 0;
  try {
    using line = new CountLine("images", good.paths.length);
    const { metadata, n_kept } = await extractToShards(
      { ...wanted, vision, decoder, images: good, layers, preprocessing, out: out!, skipped },
      {
        signal,
        onProgress: (count) => {
          done = count;
          line.show(count);
        },
      },
    );
    line[Symbol.dispose]();
    const { n_examples, content_tokens_per_example, cls_token, d_model } = metadata;
    const n_tokens = content_tokens_per_example + (cls_token ? 1 : 0);
    if (args.flag("json")) await print(JSON.stringify({ out, n_kept, skipped, metadata }));
    else {
      say(
        `${n_examples} images of ${n_tokens} tokens, ${layers.length} ${
          layers.length === 1 ? "layer" : "layers"
        } of ${d_model}: ${out}`,
      );
    }
    return 0;
  } catch (error) {
    if (signal.aborted) {
      say(
        `stopped after ${done} images; run the same command again to continue after the last complete file in ${out}`,
      );
    }
    throw error;
  }
}

/** The options that need neither the model nor the images. */
function optionsOf(args: Arguments) {
  const masks = args.text("masks");
  const grid = sizeOf(args, "grid");
  const n_prefix = args.integer("prefix", 0);
  if ((grid === null) !== (n_prefix === undefined)) throw new UsageError("--grid and --prefix must be given together");
  return {
    keep: args.choice("tokens", ["patches", "cls", "all"]) ?? "all",
    batch_size: args.integer("batch-size", 1) ?? 8,
    shardBytes: (args.number("shard-size", 0) ?? 256) * 1e6,
    family: args.choice("family", FAMILIES) ?? "fake-clip",
    ...masks !== undefined && {
      masks: {
        root: masks,
        pixel_agg: args.choice("pixel-agg", ["majority", "prefer-fg"]) ?? "majority",
        bg_label: args.integer("background", 0) ?? 0,
      },
    },
    ...grid !== null && n_prefix !== undefined && { tokens: { grid, n_prefix, cls_token: n_prefix > 0 } },
  } as const;
}

function describeLayers(layers: readonly LayerSummary[]): string {
  if (layers.length === 0) return "found no tensors of shape [images, tokens, width]";
  const tokens = layers.find(({ isResidual }) => isResidual)?.tokens ?? layers[0]!.tokens;
  const rows = layers.map(({ name, op, n_tokens, d_model, isResidual }): [string, string] => [
    name,
    `${n_tokens} × ${d_model}`.padEnd(12) + op + (isResidual ? ", residual stream" : ""),
  ]);
  return `${table(rows)}\n\n${describeTokens(tokens)}`;
}

function describeTokens(tokens: TokenLayout | null): string {
  if (tokens === null) return "patches: the grid is unknown; give --grid and --prefix";
  const { n_prefix, grid: { height, width } } = tokens;
  const before = n_prefix === 0
    ? "no CLS token"
    : `a CLS token${n_prefix > 1 ? ` and ${n_prefix - 1} others` : ""} before them`;
  return `patches: ${height} × ${width}, ${before}`;
}
