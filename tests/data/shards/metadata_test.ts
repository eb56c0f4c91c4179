/** `metadata.json` and its hash, byte by byte as upstream's HEAD writes them; labels of patches. @module */
import { assertEquals, assertThrows } from "@std/assert";
import {
  formatMetadata,
  formatShardList,
  hashMetadata,
  layoutOf,
  readMetadata,
} from "../../../data/shards/metadata.ts";
import { patchLabels, type PixelAggregation } from "../../../data/shards/patch_labels.ts";
import { type JsonObject, parseJson } from "../../../io/json.ts";
import { ShapeError } from "../../../kernels/engine/errors.ts";

const GOLDENS = new URL("../../goldens/shards/", import.meta.url);

async function golden<T>(path: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(path, GOLDENS)));
}

function read(text: string): ReturnType<typeof readMetadata> {
  return readMetadata(parseJson(text, { what: "metadata.json", maxParts: 100 }) as JsonObject, "metadata.json");
}

interface HashCase {
  readonly hash: string;
  readonly metadata_json: string;
  readonly examples_per_shard: number;
  readonly shard_shape: readonly number[];
}

Deno.test("the metadata's text and hash are upstream's", async () => {
  const { cases } = await golden<{ cases: HashCase[] }>("hashes.json");
  const folders = [
    "v2.1-cls-exact",
    "v2.1-cls-labels",
    "v2.1-nocls-labels-exact",
    "v2.1-one-short-shard",
    "v2.1-worker-nocls",
  ];
  for (const folder of folders) {
    const { dir } = await golden<{ dir: string }>(`${folder}/expected.json`);
    const text = await Deno.readTextFile(new URL(`${folder}/${dir}/metadata.json`, GOLDENS));
    assertEquals(formatMetadata(read(text)), text);
    assertEquals(await hashMetadata(read(text)), dir);
  }
  for (const { hash, metadata_json: text, examples_per_shard, shard_shape: shape } of cases) {
    const metadata = read(text);
    assertEquals(formatMetadata(metadata), text);
    assertEquals(await hashMetadata(metadata), hash);
    const layout = layoutOf(metadata);
    assertEquals(
      [layout.examples_per_shard, metadata.layers.length, layout.n_tokens, metadata.d_model],
      shape.slice(),
    );
    assertEquals(layout.examples_per_shard, examples_per_shard);
  }
});

Deno.test("the list of files is upstream's", async () => {
  const { dir } = await golden<{ dir: string }>("v2.1-cls-labels/expected.json");
  const text = await Deno.readTextFile(new URL(`v2.1-cls-labels/${dir}/shards.json`, GOLDENS));
  assertEquals(formatShardList(JSON.parse(text)), text);
});

interface LabelCase extends Readonly<Record<PixelAggregation, readonly number[]>> {
  readonly mask: readonly (readonly number[])[];
  readonly patch_size: number;
  readonly bg_label: number;
}

Deno.test("patches are labelled as upstream labels them", async () => {
  const { cases } = await golden<{ cases: LabelCase[] }>("patch_labels.json");
  for (const { mask, patch_size, bg_label, ...expected } of cases) {
    const options = { width: mask[0]!.length, patch_size, bg_label };
    for (const pixel_agg of ["majority", "prefer-fg"] as const) {
      const labels = patchLabels(Uint8Array.from(mask.flat()), { ...options, pixel_agg });
      assertEquals(Array.from(labels), expected[pixel_agg]);
    }
  }
});

Deno.test("a mask that cannot be cut into patches is refused", () => {
  for (const [length, width, patch_size] of [[12, 5, 1], [12, 4, 2], [0, 4, 2]] as const) {
    const options = { width, patch_size, pixel_agg: "majority" } as const;
    assertThrows(() => patchLabels(new Uint8Array(length), options), ShapeError, "cannot be cut into patches");
  }
});
