/**
 * `saev features`: writes a folder for browsing what excites each latent of a model.
 *
 * @module
 */

import {
  fitImage,
  IMAGENET_PREPROCESSING,
  type ImageSize,
  openRows,
  openShards,
  type Preprocessing,
} from "../data/mod.ts";
import { type FeatureAnnotation, readAnnotations } from "../eval/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load } from "../mod.ts";
import {
  CountLine,
  type FeatureOrder,
  type FeatureSelection,
  type FeaturesPlan,
  type FeatureStage,
  makeFeatures,
  readStability,
  shardImages,
  thumbnailPlan,
  writeFeaturePage,
} from "../runner/mod.ts";
import { CHECKPOINT_DETAILS, opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";
import { openDecoder, openJpegEncoder } from "./runtimes.ts";
import { useTuning } from "./tuning.ts";
import { sizeOf } from "./vision.ts";

const ORDERS = ["density", "mean", "max", "auroc", "monosemanticity"] as const satisfies readonly FeatureOrder[];

/** The command. */
export const featuresCommand: Command = {
  summary: "Write a folder that shows, on images, what activates each latent.",
  positionals: ["RUN"],
  options: {
    data: { value: "SHARDS", help: "activation shards of the images" },
    images: { value: "DIR", help: "the images that the shards were made from" },
    out: { value: "DIR", help: "output folder" },
    layer: { value: "N", help: "layer of the shards" },
    latents: { value: "LIST", help: "show these latents, for example 3,17,204 (default: all that fire)" },
    by: { value: "WHAT", help: `with --limit: show the latents with most ${ORDERS.join(", ")}` },
    limit: { value: "N", help: "with --by: how many latents to show" },
    top: { value: "N", help: "strongest images of each latent (default: 12)" },
    quantiles: { value: "N", help: "images from the rest of those on which it fires (default: 6)" },
    counter: { value: "N", help: "similar images on which it is silent (default: 4)" },
    annotations: {
      value: "FILE",
      help: "annotations.json exported by the page; may be repeated",
      isMany: true,
    },
    stability: {
      value: "FILE",
      help: "written by saev stability --out: show in how many other runs each latent recurs",
    },
    overwrite: { help: "replace the features in DIR" },
    grid: { value: "HxW", help: "grid of patches, if the shards do not record it (default: a square)" },
    size: { value: "N|HxW", help: "size to which images were resized, if the shards do not record it (default: 224)" },
    crop: { value: "N|HxW", help: "size of the centre crop, if the shards do not record it" },
    ...READ_OPTIONS,
    json: { help: "print JSON" },
  },
  permissions: `all (-A), because sharp, a native npm package, decodes the images; the first run downloads it (17 MB).`,
  details: `RUN is the folder of a run or a CHECKPOINT. ${CHECKPOINT_DETAILS}

Open DIR/index.html in a browser; it needs no server and no network, so you can send the folder to others or put it on any web server.
DIR/features.json has all numbers; openFeatures in @saev/nn/eval reads it.

If the images are in folders by class, as in IMAGES/cat/1.jpg, each latent gets its AUROC and average precision per class.
If the shards have labels of patches, it gets the share of its activation in each label.

If the command is stopped, run it again: it continues.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [checkpoint] = args.positionals as [string];
  const [data, root, out] = ["data", "images", "out"].map((option) => {
    const value = args.text(option);
    if (value === undefined) {
      throw new UsageError(`features needs --${option}: ${featuresCommand.options[option]!.help}`);
    }
    return value;
  }) as [string, string, string];
  const selection = selectionOf(args);
  const counts = {
    n_top: args.integer("top", 1) ?? 12,
    n_quantiles: args.integer("quantiles", 0) ?? 6,
    n_counter: args.integer("counter", 0) ?? 4,
  };
  const layer = args.integer("layer", Number.MIN_SAFE_INTEGER);
  const [grid, size, crop] = [sizeOf(args, "grid"), sizeOf(args, "size"), sizeOf(args, "crop")];
  const annotations: FeatureAnnotation[] = [];
  for (const file of args.texts("annotations")) annotations.push(...(await readAnnotations(file)).annotations);
  const stability = await stabilityOf(args.text("stability"), shownAddress(checkpoint));
  const finished = await Deno.stat(`${out}/features.json`).then(() => true, () => false);
  if (finished && !args.flag("overwrite")) {
    throw new RangeError(`${out} already holds features; replace them with --overwrite, or give another --out`);
  }

  using sae = await opening(signal, (source) => load(checkpoint, { ...source, ...readOptions(args) }));
  warn(sae.warnings);
  const given = { ...layer !== undefined && { layer }, d_model: sae.cfg.d_model };
  const rows = await opening(signal, (source) => openRows(data, { ...source, ...given }));
  if (!("rows_per_example" in rows)) {
    throw new RangeError(
      `${shownAddress(data)} is not a folder of activation shards; expected one, so that rows have images`,
    );
  }
  const shards = await openShards(data);
  const images = await shardImages(data, root, shards.metadata, grid);
  await useTuning();
  const decoder = await openDecoder();
  const encode = await openJpegEncoder();
  const preprocessing = thumbnailPlan(
    images.preprocessing ?? sizesOf(size, crop, /^\d+$/.test(args.text("size") ?? "")),
  );
  const lines = new Map<FeatureStage, CountLine>();
  const what = { encoding: "images encoded", drawing: "images encoded again", images: "images written" } as const;
  try {
    await makeFeatures({
      sae,
      modelName: shownAddress(checkpoint),
      rows,
      dataName: shownAddress(data),
      grid: images.grid,
      images: {
        ...images,
        thumbnail: async (image) =>
          await encode(fitImage(await decoder.decode(`${root}/${images.paths[image]}`), preprocessing)),
      },
      patchLabels: await shards.readLabels(),
      selection,
      counts,
      annotations,
      stability,
      out,
    }, {
      signal,
      onProgress: (stage, done, of) => {
        let line = lines.get(stage);
        if (!line) {
          for (const before of lines.values()) before[Symbol.dispose]();
          lines.set(stage, line = new CountLine(what[stage], of));
        }
        line.show(done);
      },
    }, async (made) => {
      for (const line of lines.values()) line[Symbol.dispose]();
      await writeFeaturePage(out, made);
      const { latents, n_dead } = made.file;
      if (args.flag("json")) await print(JSON.stringify({ out, n_latents: latents.length, n_dead }));
      else await print(`${latents.length} latents, ${n_dead} dead: ${out}/index.html`);
    });
    return 0;
  } catch (error) {
    for (const line of lines.values()) line[Symbol.dispose]();
    if (signal.aborted) say(`stopped; run the same command again to continue`);
    throw error;
  }
}

/** What a file says of the model's latents; `null` without a file. */
async function stabilityOf(path: string | undefined, model: string): Promise<FeaturesPlan["stability"]> {
  if (path === undefined) return null;
  const { models, recurrence, threshold, trained, initial } = await readStability(path);
  const at = models.indexOf(model);
  if (at < 0) throw new RangeError(`${path} compares ${models.join(", ")}; expected ${model} among them`);
  return {
    recurrence: recurrence[at]!,
    summary: {
      n_others: models.length - 1,
      threshold,
      mean_recurrence: [trained.mean_recurrence, initial?.mean_recurrence ?? null],
    },
  };
}

function selectionOf(args: Arguments): FeatureSelection {
  const [list, by, n] = [args.text("latents"), args.choice("by", ORDERS), args.integer("limit", 1)];
  if (list !== undefined) {
    if (by !== undefined || n !== undefined) throw new UsageError("--latents excludes --by and --limit");
    const latents = list.split(",").map((text) => {
      if (/^\s*\d+\s*$/.test(text)) return Number(text);
      throw new UsageError(`--latents must be integers separated by commas, found ${JSON.stringify(text)}`);
    });
    return { by: "list", latents };
  }
  if ((by === undefined) !== (n === undefined)) throw new UsageError("--by and --limit must be given together");
  return by === undefined ? { by: "all" } : { by, n: n! };
}

/** ImageNet's preprocessing with other sizes; one number with a crop is the shorter edge. */
function sizesOf(size: ImageSize | null, crop: ImageSize | null, isOneNumber: boolean): Preprocessing {
  return {
    ...IMAGENET_PREPROCESSING,
    ...size && { resize: crop && isOneNumber ? { shortest_edge: size.height } : size },
    ...crop && { crop },
  };
}
