/** From images to shards, with a model and a decoder of the test's own: resuming, labels, masks, bad images. @module */
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { type ImageDecoder, IMAGENET_PREPROCESSING, openShards } from "../../data/mod.ts";
import { CheckpointError } from "../../io/errors.ts";
import { readOnnxModel } from "../../io/onnx_model.ts";
import {
  type ExtractionPlan,
  extractToShards,
  findBadImages,
  layerNumbers,
  listImages,
  type VisionModel,
  withoutImages,
} from "../../runner/mod.ts";

const MODEL = readOnnxModel(await Deno.readFile(new URL("../goldens/vit/tiny_vit.onnx", import.meta.url)));
const LAYERS = ["/blocks.0/Add_2_output_0", "/blocks.2/Add_2_output_0"];
const [T, D] = [17, 4];

/** A model whose tensors are made of the first pixel of an image, the layer and the place. */
const VISION: VisionModel = {
  name: "tiny_vit.onnx",
  model: MODEL,
  open: (tensors) =>
    Promise.resolve({
      run: (pixels, [B]) =>
        Promise.resolve(tensors.map((tensor) => ({
          shape: [B!, T, D],
          data: Float32Array.from(
            { length: B! * T * D },
            (_, i) => pixels[Math.floor(i / T / D) * 3072]! + LAYERS.indexOf(tensor) + i % (T * D) / 64,
          ),
        }))),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
};

/** An image file holds one byte, that of all its pixels; a mask's label is its byte above the middle, and 0 below. */
const DECODER: ImageDecoder = {
  async decode(path) {
    const [byte, ...rest] = await Deno.readFile(path);
    if (byte === undefined || rest.length > 0) throw new Error("not one byte");
    return { height: 32, width: 32, data: new Uint8Array(32 * 32 * 3).fill(byte) };
  },
  async decodeMask(path) {
    const [byte] = await Deno.readFile(path);
    return { height: 32, width: 32, data: new Uint8Array(32 * 32).fill(byte!, 0, 16 * 32) };
  },
};

/** A folder with images, which is removed at the end. */
async function withImages(
  paths: readonly string[],
  work: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [i, path] of paths.entries()) {
      await Deno.mkdir(`${folder}/images/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      await Deno.writeFile(`${folder}/images/${path}`, Uint8Array.of(i + 1));
    }
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function planOf(folder: string, change: Partial<ExtractionPlan> = {}): Promise<ExtractionPlan> {
  return {
    vision: VISION,
    decoder: DECODER,
    images: await listImages(`${folder}/images`),
    layers: LAYERS,
    keep: "all",
    preprocessing: {
      ...IMAGENET_PREPROCESSING,
      resize: { height: 32, width: 32 },
      rescale_factor: 1,
      image_mean: [0, 0, 0],
      image_std: [1, 1, 1],
    },
    batch_size: 2,
    out: `${folder}/shards`,
    shardBytes: 2 * 2 * T * D * 4,
    family: "dinov2",
    ...change,
  };
}

async function bytesOf(folder: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for await (const { name } of Deno.readDir(folder)) files.set(name, await Deno.readFile(`${folder}/${name}`));
  return new Map([...files].sort());
}

const FLAT = ["e.png", "a.jpg", "B.JPEG", "c.webp", "d.jpg", ".hidden.jpg", "notes.txt"];

Deno.test("images are listed by name, folders of images are classes, and other files are passed over", async () => {
  await withImages(FLAT, async (folder) => {
    const { paths, classes } = await listImages(`${folder}/images`);
    assertEquals([paths, classes], [["B.JPEG", "a.jpg", "c.webp", "d.jpg", "e.png"], null]);
  });
  await withImages(["cat/2.jpg", "dog/deep/1.png", "cat/10.jpg"], async (folder) => {
    await Deno.symlink("..", `${folder}/images/cat/up`);
    const { paths, classes } = await listImages(`${folder}/images`);
    assertEquals(paths, ["cat/10.jpg", "cat/2.jpg", "dog/deep/1.png"]);
    assertEquals(classes, { names: ["cat", "dog"], labels: [0, 0, 1] });
  });
  await withImages(["notes.txt"], async (folder) => {
    await assertRejects(() => listImages(`${folder}/images`), RangeError, "found no images");
  });
});

Deno.test("the shards hold what the model makes of each image, layer by layer", async () => {
  await withImages(FLAT, async (folder) => {
    const { metadata, n_kept } = await extractToShards(await planOf(folder));
    assertEquals(n_kept, 0);
    const shards = await openShards(`${folder}/shards`);
    assertEquals(shards.metadata, metadata);
    assertEquals([metadata.layers, metadata.ckpt, metadata.n_examples], [[0, 2], "tiny_vit.onnx", 5]);
    assertEquals(shards.files.map((file) => file.n_examples), [2, 2, 1]);
    // In the order of names: B.JPEG is 3, a.jpg 2, c.webp 4, d.jpg 5, e.png 1.
    for (const [at, layer] of metadata.layers.entries()) {
      const cls = shards.rows({ layer, tokens: "cls" });
      const first = (await cls.read(0, 5)).filter((_, i) => i % D === 0);
      assertEquals([...first], [3, 2, 4, 5, 1].map((byte) => byte + at));
      const patches = shards.rows({ layer });
      assertEquals((await patches.read(16, 17))[0], 2 + at + D / 64);
    }
    const extraction = JSON.parse(await Deno.readTextFile(`${folder}/shards/extraction.json`));
    assertEquals(extraction.images.paths[1], "a.jpg");
    assertEquals(extraction.layers, [{ layer: 0, tensor: LAYERS[0] }, { layer: 2, tensor: LAYERS[1] }]);
    assertEquals(extraction.tokens, {
      kept: "all",
      n_prefix: 1,
      cls_token: true,
      grid: { height: 4, width: 4 },
    });
  });
});

Deno.test("patches alone and CLS alone are shards without CLS", async () => {
  await withImages(FLAT, async (folder) => {
    for (const [keep, tokens] of [["patches", 16], ["cls", 1]] as const) {
      const out = `${folder}/${keep}`;
      const { metadata } = await extractToShards(await planOf(folder, { keep, out }));
      assertEquals([metadata.content_tokens_per_example, metadata.cls_token], [tokens, false]);
      assertEquals((await openShards(out)).rows({ layer: 2 }).n_rows, 5 * tokens);
    }
  });
});

Deno.test("an extraction that was stopped is completed to the same bytes, and whole files are not made again", async () => {
  await withImages(FLAT, async (folder) => {
    await extractToShards(await planOf(folder, { out: `${folder}/whole` }));
    const expected = await bytesOf(`${folder}/whole`);
    const aborter = new AbortController();
    const plan = await planOf(folder);
    const stopped = extractToShards(plan, {
      signal: aborter.signal,
      onProgress: (done) => done === 2 && aborter.abort(new Error("stopped")),
    });
    await assertRejects(() => stopped, Error, "stopped");
    // As a kill leaves it.
    await Deno.writeTextFile(`${folder}/shards/acts000001.bin.${crypto.randomUUID()}.tmp`, "half");
    const progress: number[] = [];
    const { n_kept } = await extractToShards(plan, { onProgress: (done) => void progress.push(done) });
    assertEquals([n_kept, progress], [2, [2, 4, 5]]);
    assertEquals(await bytesOf(`${folder}/shards`), expected);
  });
});

Deno.test("two extractions into one folder are one too many", async () => {
  await withImages(FLAT, async (folder) => {
    const plan = await planOf(folder);
    let second: Promise<Error> | undefined;
    await extractToShards(plan, {
      onProgress: () =>
        void (second ??= assertRejects(() => extractToShards(plan), RangeError, `${folder}/shards is in use`)),
    });
    await second;
    assertEquals((await openShards(plan.out)).metadata.n_examples, 5);
  });
});

Deno.test("shards made otherwise are not completed", async () => {
  await withImages(FLAT, async (folder) => {
    await extractToShards(await planOf(folder));
    const before = await bytesOf(`${folder}/shards`);
    const { preprocessing } = await planOf(folder);
    const other = await planOf(folder, { preprocessing: { ...preprocessing, resample: "bilinear" } });
    await assertRejects(() => extractToShards(other), CheckpointError, "found a different extraction.json");
    assertEquals(await bytesOf(`${folder}/shards`), before);
  });
});

Deno.test("labels are those of the folders, and masks label patches", async () => {
  await withImages(["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"], async (folder) => {
    for (const [i, path] of ["cat/1.png", "dog/1.png", "dog/2.png"].entries()) {
      await Deno.mkdir(`${folder}/masks/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      await Deno.writeFile(`${folder}/masks/${path}`, Uint8Array.of(7 + i));
    }
    const masks = { root: `${folder}/masks`, pixel_agg: "prefer-fg", bg_label: 0 } as const;
    await extractToShards(await planOf(folder, { masks }));
    const shards = await openShards(`${folder}/shards`);
    assertEquals(shards.metadata.pixel_agg, "prefer-fg");
    const half = (label: number): number[] => [...Array(8).fill(label), ...Array(8).fill(0)];
    assertEquals([...(await shards.readLabels())!], [7, 8, 9].flatMap(half));
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/shards/labels.json`)), {
      names: ["cat", "dog"],
      labels: [0, 1, 1],
    });
    await Deno.remove(`${folder}/masks/dog/2.png`);
    const missing = await planOf(folder, { masks, out: `${folder}/other` });
    await assertRejects(() => extractToShards(missing), RangeError, `decoding the mask ${folder}/masks/dog/2.png`);
  });
});

Deno.test("a bad image ends the extraction by its name, or is found before and left out", async () => {
  await withImages(FLAT, async (folder) => {
    await Deno.writeFile(`${folder}/images/c.webp`, new Uint8Array(2));
    const plan = await planOf(folder);
    const { message } = await assertRejects(() => extractToShards(plan), RangeError);
    assertEquals(message, `decoding ${folder}/images/c.webp: not one byte`);
    const skipped = await findBadImages(plan.images, DECODER, plan.preprocessing);
    assertEquals(skipped, [{ path: "c.webp", reason: "not one byte" }]);
    const out = `${folder}/without`;
    const { metadata } = await extractToShards({ ...plan, images: withoutImages(plan.images, skipped), skipped, out });
    assertEquals(metadata.n_examples, 4);
    const extraction = JSON.parse(await Deno.readTextFile(`${out}/extraction.json`));
    assertEquals([extraction.images.paths, extraction.skipped], [["B.JPEG", "a.jpg", "d.jpg", "e.png"], skipped]);
  });
});

Deno.test("layers that a model does not have, and models that take no images, are refused before anything is written", async () => {
  await withImages(FLAT, async (folder) => {
    const refused = async (change: Partial<ExtractionPlan>, message: string): Promise<void> => {
      const plan = await planOf(folder, change);
      assertStringIncludes((await assertRejects(() => extractToShards(plan), RangeError)).message, message);
      await assertRejects(() => Deno.stat(`${folder}/shards`), Deno.errors.NotFound);
    };
    await refused({ layers: ["/blocks.0/Add_2_output"] }, "did you mean /blocks.0/Add_2_output_0?");
    await refused({ layers: ["nothing like it"] }, "--list-layers lists");
    await refused({ layers: [LAYERS[0]!, LAYERS[0]!] }, "a layer is given twice");
    const { preprocessing } = await planOf(folder);
    const larger = { ...preprocessing, resize: { height: 64, width: 64 } };
    await refused({ preprocessing: larger }, "it takes images of 32 × 32 pixels, but the preprocessing gives 64 × 64");
    await refused({ preprocessing: { ...preprocessing, resize: null } }, "does not fix the size of the images");
    const text = { ...MODEL, inputs: [{ name: "input_ids", type: 7, shape: [null, null] }] };
    await refused({ vision: { ...VISION, model: text } }, "found the inputs input_ids [?,?]");
    const grid = { n_prefix: 1, cls_token: true, grid: { height: 3, width: 4 } };
    await refused({ tokens: grid }, "has 17 tokens, which do not form a grid of 3 × 4 after 1 tokens");
  });
});

Deno.test("layers have the numbers of their blocks, where each has its own", () => {
  assertEquals(layerNumbers(["/encoder/layer.5/Add_1", "/encoder/layer.10/Add_1"]), [5, 10]);
  assertEquals(layerNumbers(["/blocks.3/Add", "/blocks.3/Add_1"]), [0, 1]);
  assertEquals(layerNumbers(["p2o.Add.271", "p2o.Add.261"]), [0, 1]);
  assertThrows(() => assertEquals(layerNumbers(["/h.1/x"]), [0]));
});
