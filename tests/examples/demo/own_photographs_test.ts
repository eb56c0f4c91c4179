/** A newcomer's own photographs: which are held out, how they are scaled, and what cannot be learned from. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { ImageDecoder } from "../../../data/mod.ts";
import { loadDataset } from "../../../examples/demo/dataset.ts";
import { ownPhotographs } from "../../../examples/demo/own_photographs.ts";
import { Random } from "../../support/random.ts";

/** An image file holds its width, its height and a seed. */
const DECODER: ImageDecoder = {
  async decode(path) {
    const [width, height, seed] = JSON.parse(await Deno.readTextFile(path)) as [number, number, number];
    const random = new Random(seed);
    const data = Uint8Array.from({ length: 3 * width * height }, () => seed === 0 ? 128 : random.integer(0, 255));
    return { width, height, data };
  },
  decodeMask: () => Promise.reject(new Error("no masks here")),
};

const openDecoder = (): Promise<ImageDecoder> => Promise.resolve(DECODER);

async function withImages(
  images: Readonly<Record<string, readonly [width: number, height: number, seed: number]>>,
  work: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, image] of Object.entries(images)) {
      await Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(image));
    }
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("every fourth image is held out, and at least one", async () => {
  const small = [20, 20, 1] as const;
  await withImages({ "a.png": small, "b.png": small }, async (folder) => {
    const { training, heldOut, n_found } = await ownPhotographs(folder, openDecoder);
    assertEquals([training, heldOut, n_found], [["a.png"], ["b.png"], 2]);
  });
  const many = Object.fromEntries(Array.from({ length: 450 }, (_, i) => [`${String(i).padStart(3, "0")}.jpg`, small]));
  await withImages(many, async (folder) => {
    const { training, heldOut, n_found } = await ownPhotographs(folder, openDecoder);
    assertEquals([training.length, heldOut.length, n_found], [150, 50, 450]);
    assertEquals([heldOut[0], training.at(-1)], ["006.jpg", "445.jpg"]);
  });
  await withImages({ "a.png": small }, async (folder) => {
    await assertRejects(() => ownPhotographs(folder, openDecoder), RangeError, "expected at least two");
    // Nothing is downloaded for a folder that cannot be learned from.
    const opening = () => Promise.reject(new Error("opened"));
    await assertRejects(() => ownPhotographs(folder, opening), RangeError, "expected at least two");
  });
});

Deno.test("images are grey and no longer than 512 pixels", async () => {
  await withImages({ "a.png": [30, 20, 1], "b.png": [20, 1024, 2], "c.jpg": [0, 0, 1] }, async (folder) => {
    const { load } = await ownPhotographs(folder, openDecoder);
    const { width, height, pixels } = await load("b.png");
    assertEquals([width, height, pixels.length], [10, 512, 5120]);
    assert(pixels.every((value) => value >= 0 && value <= 1));
    assertEquals((await load("a.png")).pixels.length, 600);
    await Deno.writeTextFile(`${folder}/c.jpg`, "no image");
    await assertRejects(() => load("c.jpg"), RangeError, `decoding ${folder}/c.jpg: Unexpected token`);
  });
});

Deno.test("photographs without enough patches are refused", async () => {
  await withImages({ "a.png": [60, 60, 0], "b.png": [60, 60, 1] }, async (folder) => {
    const photographs = await ownPhotographs(folder, openDecoder);
    await assertRejects(() => loadDataset(photographs), RangeError, "found 0 with contrast in 1 training photographs");
  });
  await withImages({ "a.png": [60, 60, 1], "b.png": [60, 60, 2] }, async (folder) => {
    const { training, heldOut } = await loadDataset(await ownPhotographs(folder, openDecoder));
    assertEquals([training.length / 100, heldOut.length / 100], [17 * 17, 13 * 13]);
  });
});
