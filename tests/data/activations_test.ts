/** Activations of a model: its tokens, its layers, and the examples made of its tensors. @module */
import { assertEquals, assertRejects } from "@std/assert";
import {
  extractActivations,
  type Extraction,
  type KeptTokens,
  patchSize,
  residualStream,
  tokenLayout,
} from "../../data/activations.ts";
import { IMAGENET_PREPROCESSING } from "../../data/images.ts";
import { readOnnxModel } from "../../io/onnx_model.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";

const TINY = readOnnxModel(await Deno.readFile(new URL("../goldens/vit/tiny_vit.onnx", import.meta.url)));

Deno.test("the residual stream of a transformer is what its blocks add to", () => {
  assertEquals(
    residualStream(TINY),
    [
      "/Add_output_0",
      ...[0, 1, 2].flatMap((block) => [`/blocks.${block}/Add_output_0`, `/blocks.${block}/Add_2_output_0`]),
    ].slice(1),
  );
  assertEquals(residualStream({ ...TINY, operators: TINY.operators.filter(({ op }) => op !== "Add") }), []);
});

Deno.test("patches, CLS and registers are told by the size of a patch, or by a square grid", () => {
  assertEquals(patchSize(TINY), { height: 8, width: 8 });
  const [size, patch] = [{ height: 32, width: 48 }, { height: 8, width: 8 }];
  assertEquals(tokenLayout(24, size, patch), { n_prefix: 0, cls_token: false, grid: { height: 4, width: 6 } });
  assertEquals(tokenLayout(25, size, patch), { n_prefix: 1, cls_token: true, grid: { height: 4, width: 6 } });
  assertEquals(tokenLayout(29, size, patch)!.n_prefix, 5);
  assertEquals(tokenLayout(23, size, patch), null);
  assertEquals(tokenLayout(24 + 100, size, patch), null);
  assertEquals(tokenLayout(16, size, null), { n_prefix: 0, cls_token: false, grid: { height: 4, width: 4 } });
  assertEquals(tokenLayout(17, size, null), { n_prefix: 1, cls_token: true, grid: { height: 4, width: 4 } });
  assertEquals(tokenLayout(19, size, null), null);
});

/** Images that are numbers; the model's token t of layer l of image i is 100 i + 10 l + t, twice. */
function extraction(change: Partial<Extraction<number>> = {}): Extraction<number> {
  const [T, L] = [6, 2];
  return {
    images: [1, 2, 3],
    decode: (image) => Promise.resolve(new Uint8Array(12).fill(image)),
    run: (pixels, shape) => {
      const B = shape[0]!;
      assertEquals(shape, [B, 3, 2, 2]);
      return Promise.resolve(Array.from({ length: L }, (_, layer) => ({
        shape: [B, T, 2],
        data: Float32Array.from(
          { length: B * T * 2 },
          (_, i) => 100 * pixels[Math.floor(i / T / 2) * 12]! + 10 * layer + Math.floor(i / 2) % T,
        ),
      })));
    },
    preprocessing: { ...IMAGENET_PREPROCESSING, rescale_factor: 1, image_mean: [0, 0, 0], image_std: [1, 1, 1] },
    size: { height: 2, width: 2 },
    order: "channels-first",
    batch_size: 2,
    isFixedBatch: false,
    layers: ["a", "b"],
    tokens: { n_prefix: 2, cls_token: true, grid: { height: 2, width: 2 } },
    keep: "all",
    d_model: 2,
    nameOf: (image) => `image ${image}`,
    ...change,
  };
}

/** One number a token. */
async function tokensOf(given: Extraction<number>, from = 0): Promise<number[][]> {
  const batches = await Array.fromAsync(extractActivations(given, from));
  return batches.map((batch) => Array.from(batch.filter((_, i) => i % 2 === 0)));
}

Deno.test("examples are the kept tokens, layer by layer, and registers are left out", async () => {
  const expected: Record<KeptTokens, number[]> = {
    all: [100, 102, 103, 104, 105, 110, 112, 113, 114, 115],
    patches: [102, 103, 104, 105, 112, 113, 114, 115],
    cls: [100, 110],
  };
  for (const keep of ["all", "patches", "cls"] as const) {
    const [first, second] = await tokensOf(extraction({ keep }));
    assertEquals(first, [...expected[keep], ...expected[keep].map((value) => value + 100)]);
    assertEquals(second, expected[keep].map((value) => value + 200));
    assertEquals(await tokensOf(extraction({ keep }), 2), [second]);
  }
});

Deno.test("a model of a fixed batch gets its last one filled up", async () => {
  const shapes: number[] = [];
  const { run } = extraction();
  const counted = extraction({
    isFixedBatch: true,
    run: (pixels, shape) => {
      shapes.push(shape[0]!);
      return run(pixels, shape);
    },
  });
  assertEquals(await tokensOf(counted), await tokensOf(extraction()));
  assertEquals(shapes, [2, 2]);
});

Deno.test("tensors of other shapes, images of other sizes and activations that are not finite are named", async () => {
  const { run } = extraction();
  const wrong: [change: Partial<Extraction<number>>, kind: typeof ShapeError | typeof RangeError, message: string][] = [
    [{ d_model: 3 }, ShapeError, "a is [2,6,2]; expected [2,6,3]"],
    [{ run: () => Promise.resolve([null, null]) }, ShapeError, "a is no tensor of floating-point numbers"],
    [{ size: { height: 3, width: 3 } }, ShapeError, "decoding image 1: found 12 bytes; expected 3 × 3 × 3"],
    [
      {
        run: async (pixels, shape) => {
          const tensors = await run(pixels, shape);
          // Image 2, token 3: patch 1, which is kept as token 2 behind CLS.
          tensors[1]!.data[(6 + 3) * 2 + 1] = NaN;
          return tensors;
        },
      },
      RangeError,
      "image 2: b has NaN in token 2, column 1",
    ],
  ];
  for (const [change, kind, message] of wrong) {
    await assertRejects(() => tokensOf(extraction(change)), kind, message);
  }
});
