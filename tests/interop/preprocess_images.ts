/**
 * Writes the committed photographs as models would get them, for `check_preprocessing.py` to compare with Hugging Face's
 * processors.
 *
 * `deno run -A --no-lock tests/interop/preprocess_images.ts FOLDER`
 *
 * @module
 */
import { openDecoder } from "../../cli/runtimes.ts";
import { fitImage, normalisePixels, pixelSize, readPreprocessor } from "../../data/mod.ts";
import { writeNpy } from "../../io/mod.ts";

const [folder] = Deno.args as [string];
const PHOTOS = new URL("../../examples/demo/photos/", import.meta.url).pathname;
const IMAGENET = { image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] };
const CLIP = { image_mean: [0.48145466, 0.4578275, 0.40821073], image_std: [0.26862954, 0.26130258, 0.27577711] };

/** As the processors write them. */
const CONFIGS = {
  clip: { ...CLIP, size: { shortest_edge: 224 }, crop_size: { height: 224, width: 224 }, resample: 3 },
  dinov2: { ...IMAGENET, size: { shortest_edge: 256 }, crop_size: { height: 224, width: 224 }, resample: 3 },
  vit: { image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5], size: { height: 224, width: 224 }, resample: 2 },
  siglip: { image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5], size: { height: 256, width: 256 }, resample: 3 },
};

const decoder = await openDecoder();
const photos = (await Array.fromAsync(Deno.readDir(PHOTOS))).map(({ name }) => name).filter((name) =>
  /\.jpg$/.test(name)
);
await Deno.mkdir(folder, { recursive: true });
for (const [name, config] of Object.entries(CONFIGS)) {
  const text = JSON.stringify({ ...config, do_normalize: true, do_resize: true, do_rescale: true });
  await Deno.writeTextFile(`${folder}/${name}.json`, text);
  const preprocessing = await readPreprocessor(new TextEncoder().encode(text));
  const { height, width } = pixelSize(preprocessing)!;
  const pixels = new Float32Array(photos.length * 3 * height * width);
  for (const [i, photo] of photos.sort().entries()) {
    const { data: rgb } = fitImage(await decoder.decode(PHOTOS + photo), preprocessing);
    normalisePixels(rgb, pixels.subarray(i * 3 * height * width, (i + 1) * 3 * height * width), preprocessing);
  }
  const matrix = { rows: photos.length, cols: 3 * height * width, data: pixels };
  await Deno.writeFile(`${folder}/${name}.npy`, writeNpy(matrix));
}
