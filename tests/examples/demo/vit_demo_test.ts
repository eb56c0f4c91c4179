/** The demo on a vision transformer, with a model and a decoder of the test's own: its files, its end by a signal. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type ImageDecoder, IMAGENET_PREPROCESSING } from "../../../data/mod.ts";
import { runVitDemo, VIT_DEMO_DEFAULTS, type VitDemoOptions } from "../../../examples/demo/vit_demo.ts";
import { readOnnxModel } from "../../../io/onnx_model.ts";
import type { VisionModel } from "../../../runner/mod.ts";
import { Random } from "../../support/random.ts";

const MODEL = readOnnxModel(await Deno.readFile(new URL("../../goldens/vit/tiny_vit.onnx", import.meta.url)));
const [T, D] = [17, 8];

/** Each patch of an image has one of four directions, by its pixels. */
const VISION: VisionModel = {
  name: "tiny_vit.onnx",
  model: MODEL,
  open: (tensors) =>
    Promise.resolve({
      run: (pixels, [B]) => {
        const data = Float32Array.from({ length: B! * T * D }, (_, i) => {
          const [token, column] = [Math.floor(i / D) % T, i % D];
          const image = Math.floor(i / T / D);
          const kind = Math.abs(Math.round(pixels[image * 3072 + token]! * 7)) % 4;
          return new Random(8 * kind + column).unit() * (1 + token / T);
        });
        return Promise.resolve(tensors.map(() => ({ shape: [B!, T, D], data })));
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
};

const DECODER: ImageDecoder = {
  async decode(path) {
    const random = new Random((await Deno.readFile(path))[0]!);
    return { height: 32, width: 32, data: Uint8Array.from({ length: 3072 }, () => random.integer(0, 255)) };
  },
  decodeMask: () => Promise.reject(new Error("no masks here")),
};

async function withPhotos(n: number, work: (options: VitDemoOptions) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${folder}/photos`);
    for (let i = 0; i < n; i++) await Deno.writeFile(`${folder}/photos/${i}.jpg`, Uint8Array.of(i));
    await work({
      ...VIT_DEMO_DEFAULTS,
      out: `${folder}/out`,
      photos: `${folder}/photos`,
      vision: VISION,
      layer: "/blocks.1/Add_2_output_0",
      preprocessing: { ...IMAGENET_PREPROCESSING, resize: { height: 32, width: 32 } },
      openDecoder: () => Promise.resolve(DECODER),
      steps: 30,
      d_sae: 16,
      top_k: 2,
      batch_size: 64,
      lr: 1e-2,
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the demo on a transformer leaves a model, its metrics and a report with heat-maps", async () => {
  await withPhotos(8, async (options) => {
    const said: string[] = [];
    const result = await runVitDemo(options, { say: (line) => void said.push(line) });
    assert(result !== null);
    const { metrics, written } = result;
    const names = (await Array.fromAsync(Deno.readDir(options.out))).map(({ name }) => name).sort();
    for (const name of ["metrics.json", "report.html", "sae.pt", "shards"]) assert(names.includes(name), name);
    const { demo, ...run } = JSON.parse(await Deno.readTextFile(`${options.out}/metrics.json`));
    assertEquals(run, written);
    assertEquals([demo.model, demo.n_held_out], ["tiny_vit.onnx", 2]);
    assertEquals([metrics.n_rows, written.losses.loss.length], [2 * 16, 30]);
    assert(metrics.nmse < 0.5, `NMSE ${metrics.nmse}`);
    const report = await Deno.readTextFile(`${options.out}/report.html`);
    assertStringIncludes(report, "that carry the most energy, on the photographs that activate them most");
    assertStringIncludes(report, "data:image/png;base64,");
    assertStringIncludes(said.at(-1)!, "report.html");
    // What was extracted is there, and is not extracted again.
    const again = await runVitDemo({ ...options, steps: 1 }, { say: () => {} });
    assertEquals(again?.metrics.n_rows, 32);
  });
});

Deno.test("a signal ends the demo on a transformer with the model as it was", async () => {
  await withPhotos(4, async (options) => {
    const aborter = new AbortController();
    const said: string[] = [];
    const say = (line: string): void => {
      said.push(line);
      if (line.startsWith("training")) aborter.abort();
    };
    assertEquals(await runVitDemo(options, { say, signal: aborter.signal }), null);
    assertStringIncludes(said.at(-1)!, "stopped after 0 steps");
    await assertRejects(() => Deno.stat(`${options.out}/report.html`), Deno.errors.NotFound);
  });
});

Deno.test("one photograph is too few", async () => {
  await withPhotos(1, async (options) => {
    await assertRejects(() => runVitDemo(options, { say: () => {} }), RangeError, "found one image");
  });
});
