/** Preprocessing of images: Hugging Face's configurations, sizes and crops, and the numbers that a model gets. @module */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  IMAGENET_PREPROCESSING,
  normalisePixels,
  planResize,
  type Preprocessing,
  readPreprocessor,
} from "../../data/images.ts";
import { CheckpointError } from "../../io/errors.ts";

function read(config: Readonly<Record<string, unknown>>): Promise<Preprocessing> {
  return readPreprocessor(new TextEncoder().encode(JSON.stringify(config)));
}

/** As Hugging Face writes them. */
const CLIP = {
  crop_size: { height: 224, width: 224 },
  do_center_crop: true,
  do_convert_rgb: true,
  do_normalize: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_processor_type: "CLIPImageProcessor",
  image_std: [0.26862954, 0.26130258, 0.27577711],
  resample: 3,
  rescale_factor: 0.00392156862745098,
  size: { shortest_edge: 224 },
};
const VIT = {
  do_normalize: true,
  do_resize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
  size: 224,
};

Deno.test("configurations of CLIP, DINOv2 and ViT are read, old and new", async () => {
  assertEquals(await read(CLIP), {
    resize: { shortest_edge: 224 },
    crop: { height: 224, width: 224 },
    resample: "bicubic",
    rescale_factor: 0.00392156862745098,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
  });
  assertEquals((await read({ ...CLIP, size: { shortest_edge: 256 } })).resize, { shortest_edge: 256 });
  const { crop_size: _, ...withoutCrop } = CLIP;
  assertEquals((await read({ ...withoutCrop, do_center_crop: false, size: { height: 8, width: 9 } })).crop, null);
  assertEquals(await read(VIT), {
    resize: { height: 224, width: 224 },
    crop: null,
    resample: "bilinear",
    rescale_factor: 1 / 255,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
  });
  assertEquals((await read({ ...CLIP, crop_size: 224, size: 224 })).resize, { shortest_edge: 224 });
  const plain = await read({ ...VIT, do_normalize: false, do_rescale: false, do_resize: false });
  assertEquals([plain.resize, plain.rescale_factor, plain.image_mean, plain.image_std], [null, 1, [0, 0, 0], [
    1,
    1,
    1,
  ]]);
});

Deno.test("a configuration that says what is not known here is refused by its field", async () => {
  const wrong: [change: Readonly<Record<string, unknown>>, message: string][] = [
    [{ do_pad: true }, "do_pad = true"],
    [{ crop_pct: 0.875 }, "crop_pct = 0.875"],
    [{ resample: 9 }, "resample = 9"],
    [{ size: { longest_edge: 3 } }, "size = an object"],
    [{ size: "224" }, 'size = "224"'],
    [{ image_mean: [0.5] }, "image_mean = a list"],
    [{ image_std: [0.5, 0.5, 0] }, "image_std = a list"],
    [{ rescale_factor: 0 }, "rescale_factor = 0"],
    [{ do_resize: "yes" }, 'do_resize = "yes"'],
  ];
  for (const [change, message] of wrong) {
    await assertRejects(() => read({ ...CLIP, ...change }), CheckpointError, message);
  }
});

Deno.test("the shorter edge and the crop are Hugging Face's, whichever way an image lies", async () => {
  const clip = await read(CLIP);
  assertEquals(planResize(clip, { height: 480, width: 641 }), {
    resized: { height: 224, width: 299 },
    crop: { height: 224, width: 224, top: 0, left: 37 },
  });
  assertEquals(planResize(clip, { height: 641, width: 480 }), {
    resized: { height: 299, width: 224 },
    crop: { height: 224, width: 224, top: 37, left: 0 },
  });
  assertEquals(planResize(IMAGENET_PREPROCESSING, { height: 5, width: 7 }), {
    resized: { height: 224, width: 224 },
    crop: { height: 224, width: 224, top: 0, left: 0 },
  });
  const tooSmall = { ...clip, resize: { shortest_edge: 100 } };
  assertThrows(() => planResize(tooSmall, { height: 50, width: 50 }), RangeError, "100 × 100 after resizing");
});

Deno.test("pixels are scaled and normalised channel by channel, in either order", () => {
  const preprocessing: Preprocessing = {
    ...IMAGENET_PREPROCESSING,
    rescale_factor: 0.5,
    image_mean: [1, 2, 3],
    image_std: [1, 2, 4],
  };
  const rgb = Uint8Array.of(2, 4, 6, 8, 10, 12);
  const into = new Float32Array(6);
  normalisePixels(rgb, into, preprocessing);
  assertEquals([...into], [0, 3, 0, 1.5, 0, 0.75]);
  normalisePixels(rgb, into, preprocessing, "channels-last");
  assertEquals([...into], [0, 0, 0, 3, 1.5, 0.75]);
});
