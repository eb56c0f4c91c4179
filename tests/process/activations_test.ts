/** From photographs and an ONNX model to a trained model's metrics, by the command line, as a newcomer does it. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openShards } from "../../data/mod.ts";
import { openFeatures } from "../../eval/mod.ts";
import { assertFloat16Close } from "../support/tolerance.ts";

const ROOT = new URL("../../", import.meta.url);
const CLI = new URL("cli/mod.ts", ROOT).href;
const CONFIG = new URL("deno.json", ROOT).pathname;
const MODEL = new URL("tests/goldens/vit/tiny_vit.onnx", ROOT).pathname;
const PHOTOS = new URL("examples/demo/photos", ROOT).pathname;
const LAYER = "/blocks.1/Add_2_output_0";

/** 8 × 8 pixels with a palette of two colours, by Pillow. */
const PALETTE_PNG = Uint8Array.fromBase64(
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAABlBMVEUAAAD/AAAb/40iAAAAC0lEQVR42mNgQAUAABAAAaoZ+IIAAAAASUVORK5CYII=",
);

/** Runs it to the end. The packages that it takes from npm do not go into this repository's lock file. */
async function saev(args: readonly string[]) {
  const options = ["run", "--quiet", "-A", "--no-lock", "--config", CONFIG, CLI, ...args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: options }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  return { code, stdout: out, stderr: err.split("\n").filter((line) => !line.includes("XDG_RUNTIME_DIR")).join("\n") };
}

Deno.test("photographs become shards, shards a model, and the model metrics", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const listed = await saev(["activations", MODEL, PHOTOS, "--list-layers"]);
    assertEquals(listed.code, 0, listed.stderr);
    assertMatch(listed.stdout, /\/blocks\.1\/Add_2_output_0 +17 × 32 +Add, residual stream\n/);
    assertStringIncludes(listed.stdout, "patches: 4 × 4, a CLS token before them");

    const shards = `${folder}/shards`;
    const made = await saev(["activations", MODEL, PHOTOS, "--layer", LAYER, "--out", shards, "--shard-size", "0.01"]);
    assertEquals(made.code, 0, made.stderr);
    assertStringIncludes(made.stderr, "8 images of 17 tokens, 1 layer of 32");
    const { metadata, rows } = await openShards(shards);
    assertEquals([metadata.n_examples, metadata.layers, metadata.d_model], [8, [1], 32]);
    const x = await rows().read(0, 8 * 16);
    assert(x.every(Number.isFinite) && new Set(x).size > 1000, "activations are numbers, and not the same ones");

    const config = `[data]
path = "shards"
validation_share = 0.25
[sae]
d_sae = 64
activation = { key = "top-k", top_k = 4 }
[train]
batch_size = 32
n_steps = 30
n_lr_warmup = 0
lr = 1e-2
`;
    await Deno.writeTextFile(`${folder}/config.toml`, config);
    const trained = await saev(["train", `${folder}/config.toml`, "--out", `${folder}/run`]);
    assertEquals(trained.code, 0, trained.stderr);
    const evaluated = await saev(["evaluate", `${folder}/run/sae.pt`, shards, "--json"]);
    assertEquals(evaluated.code, 0, evaluated.stderr);
    const measured = JSON.parse(evaluated.stdout);
    assertEquals(measured.n_rows, 8 * 16);
    assert(measured.explained_variance > 0.3, `explained variance ${measured.explained_variance}`);

    const features = `${folder}/features`;
    const args = ["features", `${folder}/run`, "--data", shards, "--images", PHOTOS, "--out", features];
    const shown = await saev([...args, "--by", "max", "--limit", "5"]);
    assertEquals(shown.code, 0, shown.stderr);
    const { file } = await openFeatures(features);
    assertEquals([file.latents.length, file.data.n_images, file.data.grid], [5, 8, { height: 4, width: 4 }]);
    for (const { file: image } of file.images) {
      const bytes = await Deno.readFile(`${features}/${image}`);
      assertEquals([...bytes.subarray(0, 2)], [0xff, 0xd8], "a JPEG file");
      assert(bytes.length <= 30_000, `${image} has ${bytes.length} bytes`);
    }
    assertStringIncludes((await saev(["inspect", features])).stdout, "5 latents of 64 (top-k)");
    const same = await saev(["stability", `${folder}/run`, `${folder}/run/sae.pt`, "--data", shards, "--json"]);
    assertEquals(same.code, 0, same.stderr);
    const { trained: own, initial } = JSON.parse(same.stdout);
    assertEquals([own.share_in_all, own.mean_jaccard, initial], [1, 1, null]);
    const again = await saev(args);
    assertEquals(again.code, 1);
    assertStringIncludes(again.stderr, "already holds features; replace them with --overwrite");
    const wrong = await saev(["features", `${folder}/run`, "--data", shards]);
    assertEquals([wrong.code, wrong.stderr.includes("features needs --images")], [2, true]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("weights in a file beside the model, a fixed batch and float16 make no other activations", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const rowsOf = async (model: string): Promise<Float32Array> => {
      const out = `${folder}/${model.replaceAll("/", "_")}`;
      const path = new URL(`tests/goldens/vit/${model}`, ROOT).pathname;
      const { code, stderr } = await saev(["activations", path, PHOTOS, "--layer", LAYER, "--out", out]);
      assertEquals(code, 0, `${model}: ${stderr}`);
      const rows = (await openShards(out)).rows({ tokens: "all" });
      return await rows.read(0, rows.n_rows);
    };
    const [plain, external, fixed, half] = await Promise.all(
      ["tiny_vit.onnx", "external/model.onnx", "fixed_batch.onnx", "half.onnx"].map(rowsOf),
    );
    assertEquals(external, plain);
    assertEquals(fixed, plain);
    assertFloat16Close(half!, plain!);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a mask with a palette is refused with the line that mends it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${folder}/images`);
    await Deno.mkdir(`${folder}/masks`);
    await Deno.copyFile(`${PHOTOS}/black-canyon.jpg`, `${folder}/images/a.jpg`);
    await Deno.writeFile(`${folder}/masks/a.png`, PALETTE_PNG);
    const args = ["--layer", LAYER, "--out", `${folder}/out`, "--masks", `${folder}/masks`];
    const { code, stderr } = await saev(["activations", MODEL, `${folder}/images`, ...args]);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, `decoding the mask ${folder}/masks/a.png: found a palette; expected one channel`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("no command's modules name the packages that activations downloads", async () => {
  const args = ["info", "--json", "--config", CONFIG, CLI];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args }).output();
  const graph = new TextDecoder().decode(stdout);
  assertStringIncludes(graph, "cli/runtimes.ts");
  assertStringIncludes(graph, "jpeg-js");
  for (const name of ["onnxruntime", "sharp@"]) {
    assert(!graph.includes(`npm:${name}`) && !graph.includes(`/${name}`), name);
  }
});
