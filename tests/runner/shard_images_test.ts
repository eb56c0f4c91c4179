/** Which images shards are of, with what `saev activations` writes beside them and without; and the size of thumbnails. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { IMAGENET_PREPROCESSING, type ShardsMetadata } from "../../data/mod.ts";
import { shardImages, thumbnailPlan } from "../../runner/mod.ts";

const METADATA = { n_examples: 3, content_tokens_per_example: 4 } as ShardsMetadata;

async function folders(): Promise<{ root: string; shards: string; images: string }> {
  const root = await Deno.makeTempDir();
  const [shards, images] = [`${root}/shards`, `${root}/images`];
  await Deno.mkdir(shards);
  for (const path of ["ant/b.jpg", "ant/a.jpg", "bee/c.png"]) {
    await Deno.mkdir(`${images}/${path.slice(0, 3)}`, { recursive: true });
    await Deno.writeTextFile(`${images}/${path}`, "");
  }
  return { root, shards, images };
}

Deno.test("shards say which images they are of; others are of all images of the folder, in order", async () => {
  const { root, shards, images } = await folders();
  const found = await shardImages(shards, images, METADATA);
  assertEquals(found, {
    paths: ["ant/a.jpg", "ant/b.jpg", "bee/c.png"],
    classes: { names: ["ant", "bee"], labels: [0, 0, 1] },
    preprocessing: null,
    grid: { height: 2, width: 2 },
  });
  const about = {
    images: { root: "elsewhere", paths: ["bee/c.png", "ant/a.jpg", "ant/b.jpg"] },
    tokens: { grid: { height: 1, width: 4 } },
    preprocessing: IMAGENET_PREPROCESSING,
  };
  await Deno.writeTextFile(`${shards}/extraction.json`, JSON.stringify(about));
  const told = await shardImages(shards, images, METADATA);
  assertEquals([told.paths, told.classes, told.grid], [about.images.paths, null, about.tokens.grid]);
  assertEquals(told.preprocessing, JSON.parse(JSON.stringify(IMAGENET_PREPROCESSING)));
  const classes = { names: ["bee", "ant"], labels: [0, 1, 1] };
  await Deno.writeTextFile(`${shards}/labels.json`, JSON.stringify(classes));
  assertEquals((await shardImages(shards, images, METADATA, { height: 4, width: 1 })).classes, classes);
  assertEquals((await shardImages(shards, images, METADATA, { height: 4, width: 1 })).grid, { height: 4, width: 1 });
  await Deno.remove(root, { recursive: true });
});

Deno.test("images that shards cannot be of are refused", async () => {
  const { root, shards, images } = await folders();
  const refused = (
    metadata: Partial<ShardsMetadata>,
    message: string,
    grid: { height: number; width: number } | null = null,
  ) => assertRejects(() => shardImages(shards, images, { ...METADATA, ...metadata }, grid), RangeError, message);
  await refused({ n_examples: 4 }, "has 4 examples; expected one for each image, found 3 images");
  await refused({ content_tokens_per_example: 6 }, "has 6 patches per image, which is not a square; give the grid");
  await refused({}, "has 4 patches per image; expected 2 × 3", { height: 2, width: 3 });
  const about = { images: { paths: ["x.jpg", "y.jpg", "z.jpg"] }, tokens: { grid: { height: 2, width: 2 } } };
  await Deno.writeTextFile(`${shards}/extraction.json`, JSON.stringify(about));
  await refused({}, "has no image x.jpg; expected the folder from which");
  await Deno.writeTextFile(`${shards}/extraction.json`, "{");
  await refused({}, "extraction.json: it is not JSON");
  await Deno.remove(root, { recursive: true });
});

Deno.test("a thumbnail shows the part of an image that the model sees", () => {
  const plan = (changes: object) => {
    const { resize, crop } = thumbnailPlan({ ...IMAGENET_PREPROCESSING, ...changes });
    return { resize, crop };
  };
  assertEquals(plan({}), { resize: { height: 256, width: 256 }, crop: null });
  assertEquals(plan({ resize: { height: 112, width: 224 } }), { resize: { height: 128, width: 256 }, crop: null });
  const cropped = { resize: { shortest_edge: 256 }, crop: { height: 224, width: 224 } };
  assertEquals(plan(cropped), { resize: { shortest_edge: 293 }, crop: { height: 256, width: 256 } });
  assertEquals(plan({ resize: { shortest_edge: 8 } }), { resize: { shortest_edge: 8 }, crop: null });
});
