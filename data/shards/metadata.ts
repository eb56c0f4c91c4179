/**
 * `metadata.json` and `shards.json` of the Python package's activation shards. Every layout since April 2025 can be
 * read; protocol 2.1 is written, byte for byte as upstream's HEAD writes it.
 *
 * One protocol number has had several sets of keys ("2.0" two), so a layout is recognised by its keys. The field `data`
 * is a pickle since protocol 2.1; it is kept as text and never decoded.
 *
 * @module
 */

import { CheckpointError, quote } from "../../io/errors.ts";
import { describeValue, type JsonObject, type JsonValue } from "../../io/json.ts";

/** The metadata of a folder of shards, with the names of protocol 2.1. */
export interface ShardsMetadata {
  /** The kind of vision transformer, such as `"clip"` or `"dinov2"`. */
  readonly family: string;
  /** The checkpoint of the model. */
  readonly ckpt: string;
  /** The layers stored, in storage order; upstream counts from the end with negative numbers. */
  readonly layers: readonly number[];
  /** Tokens per example besides CLS: the patches of an image. */
  readonly content_tokens_per_example: number;
  /** Whether each example has a CLS token, before the others. */
  readonly cls_token: boolean;
  /** Width of an activation. */
  readonly d_model: number;
  /** Number of examples, that is, images. */
  readonly n_examples: number;
  /** Largest number of activations in a file: examples × layers × tokens. */
  readonly max_tokens_per_shard: number;
  /** Upstream's description of the data set; never decoded, `""` if there is none. */
  readonly data: string;
  /** Where the data set was stored. */
  readonly dataset: string;
  /** How the labels of patches were computed from those of pixels. */
  readonly pixel_agg: "majority" | "prefer-fg" | null;
  /** Always float32. */
  readonly dtype: "float32";
  /** `"2.1"` when writing; when reading, the file's own, or `""` if it has none (April 2025). */
  readonly protocol: string;
}

/** How a folder's activations are laid out in its files, from `metadata.json` alone. */
export interface ShardsLayout {
  /** Tokens per example, including CLS. */
  readonly n_tokens: number;
  /** Examples in a full file. */
  readonly examples_per_shard: number;
  /** Bytes of one example: layers × tokens × d_model float32. */
  readonly exampleBytes: number;
}

/** A file and its number of examples. */
export interface ShardFile {
  /** Its name in the folder. */
  readonly name: string;
  /** Examples that are data, not padding. */
  readonly n_examples: number;
}

/** The name of each field by layout, newest first. */
const KEYS = {
  family: ["family", "vit_family"],
  ckpt: ["ckpt", "vit_ckpt"],
  content_tokens_per_example: ["content_tokens_per_example", "patches_per_ex", "n_patches_per_img"],
  d_model: ["d_model", "d_vit"],
  n_examples: ["n_examples", "n_ex", "n_imgs"],
  max_tokens_per_shard: ["max_tokens_per_shard", "patches_per_shard", "max_patches_per_shard", "n_patches_per_shard"],
} as const;

/** Known protocols; the form of April 2025 has none. */
const PROTOCOLS: readonly string[] = ["1.0.0", "1.1", "2.0", "2.1"];

/**
 * Reads the fields of a `metadata.json`. `name` is the file's name in messages.
 *
 * @throws {CheckpointError} for fields that are missing or invalid, and for an unknown protocol.
 */
export function readMetadata(json: JsonObject, name: string): ShardsMetadata {
  const doing = `reading ${name}`;
  const fail = (field: string, value: JsonValue | undefined, expected: string): never => {
    const found = value === undefined ? `no ${field}` : `${field} = ${describeValue(value)}`;
    throw new CheckpointError(`${doing}: found ${found}; expected ${expected}`);
  };
  const keyOf = (field: keyof typeof KEYS): string => KEYS[field].find((key) => json.has(key)) ?? KEYS[field][0];
  const text = (key: string): string => {
    const value = json.get(key);
    return typeof value === "string" ? value : fail(key, value, "text");
  };
  const count = (key: string, least: number): number => {
    const value = json.get(key);
    const isCount = typeof value === "number" && Number.isSafeInteger(value) && value >= least;
    return isCount ? value : fail(key, value, `an integer of at least ${least}`);
  };

  const protocol = json.has("protocol") ? text("protocol") : "";
  if (protocol !== "" && !PROTOCOLS.includes(protocol)) fail("protocol", protocol, `one of ${PROTOCOLS.join(", ")}`);
  const dtype = json.get("dtype") ?? "float32";
  if (dtype !== "float32") fail("dtype", dtype, `"float32"`);
  const layers = json.get("layers");
  const areLayers = Array.isArray(layers) && layers.length > 0 && new Set(layers).size === layers.length &&
    layers.every((layer) => Number.isSafeInteger(layer));
  if (!areLayers) fail("layers", layers, "a list of distinct integers");
  const cls_token = json.get("cls_token");
  if (typeof cls_token !== "boolean") return fail("cls_token", cls_token, "true or false");
  const pixel_agg = json.get("pixel_agg") ?? null;
  if (pixel_agg !== null && pixel_agg !== "majority" && pixel_agg !== "prefer-fg") {
    return fail("pixel_agg", pixel_agg, `"majority", "prefer-fg" or null`);
  }
  const data = json.get("data");
  const metadata: ShardsMetadata = {
    family: text(keyOf("family")),
    ckpt: text(keyOf("ckpt")),
    layers: layers as number[],
    content_tokens_per_example: count(keyOf("content_tokens_per_example"), 1),
    cls_token,
    d_model: count(keyOf("d_model"), 1),
    n_examples: count(keyOf("n_examples"), 0),
    max_tokens_per_shard: count(keyOf("max_tokens_per_shard"), 1),
    data: typeof data === "string" ? data : "",
    dataset: json.has("dataset") ? text("dataset") : "",
    pixel_agg,
    dtype: "float32",
    protocol,
  };
  layoutOf(metadata, name);
  return metadata;
}

/**
 * The layout: a file is float32 [examples_per_shard, layers, n_tokens, d_model], and CLS is token 0.
 *
 * @throws {CheckpointError} if not even one example fits into a file, or its bytes are too many to count.
 */
export function layoutOf(metadata: ShardsMetadata, name = "the metadata"): ShardsLayout {
  const { content_tokens_per_example, cls_token, layers, d_model, max_tokens_per_shard } = metadata;
  const n_tokens = content_tokens_per_example + (cls_token ? 1 : 0);
  const perExample = n_tokens * layers.length;
  const examples_per_shard = Math.floor(max_tokens_per_shard / perExample);
  const exampleBytes = perExample * d_model * 4;
  if (examples_per_shard < 1) {
    throw new CheckpointError(
      `reading ${name}: max_tokens_per_shard is ${max_tokens_per_shard}, but one example has ${perExample} ` +
        `(${layers.length} layers of ${n_tokens} tokens); expected room for at least one example`,
    );
  }
  if (!Number.isSafeInteger(examples_per_shard * exampleBytes)) {
    throw new CheckpointError(
      `reading ${name}: a file of ${examples_per_shard} examples would be too large to address`,
    );
  }
  return { n_tokens, examples_per_shard, exampleBytes };
}

/**
 * Reads the entries of a `shards.json`, in order.
 *
 * @throws {CheckpointError} unless it is a list of names and counts that a folder of this layout can have.
 */
export function readShardList(json: JsonValue, name: string, metadata: ShardsMetadata): ShardFile[] {
  const { examples_per_shard } = layoutOf(metadata, name);
  if (!Array.isArray(json)) throw new CheckpointError(`reading ${name}: found ${describeValue(json)}; expected a list`);
  const files = json.map((entry: JsonValue, i): ShardFile => {
    const fields = entry instanceof Map ? entry as JsonObject : new Map<string, JsonValue>();
    const file = fields.get("name");
    const n_examples = KEYS.n_examples.map((key) => fields.get(key)).find((value) => value !== undefined);
    const isCount = typeof n_examples === "number" && Number.isSafeInteger(n_examples) && n_examples >= 0 &&
      n_examples <= examples_per_shard;
    if (file !== shardName(i) || !isCount) {
      throw new CheckpointError(
        `reading ${name}: entry ${i} has the name ${describeValue(file)} and ${describeValue(n_examples)} examples; ` +
          `expected ${quote(shardName(i))} and 0 to ${examples_per_shard}`,
      );
    }
    return { name: file, n_examples };
  });
  const short = files.findIndex(({ n_examples }, i) =>
    n_examples < examples_per_shard && files.slice(i + 1).some((later) => later.n_examples > 0)
  );
  if (short >= 0) {
    throw new CheckpointError(
      `reading ${name}: ${files[short]!.name} has ${files[short]!.n_examples} examples and is not the last file; ` +
        `expected ${examples_per_shard}`,
    );
  }
  return files;
}

/** The files of a folder of this many examples, without an empty one at the end. */
export function shardFiles(metadata: ShardsMetadata): ShardFile[] {
  const { n_examples } = metadata;
  const { examples_per_shard } = layoutOf(metadata);
  return Array.from({ length: Math.ceil(n_examples / examples_per_shard) }, (_, i) => ({
    name: shardName(i),
    n_examples: Math.min(examples_per_shard, n_examples - i * examples_per_shard),
  }));
}

/** The first is `acts000000.bin`. */
function shardName(index: number): string {
  return `acts${String(index).padStart(6, "0")}.bin`;
}

/** The text of a `metadata.json` of protocol 2.1 as upstream's HEAD writes it: exactly its keys, in its order. */
export function formatMetadata(metadata: ShardsMetadata): string {
  return JSON.stringify(declared(metadata), null, 2);
}

/** The text of a `shards.json`. */
export function formatShardList(files: readonly ShardFile[]): string {
  return JSON.stringify(files.map(({ name, n_examples }) => ({ name, n_examples })), null, 2);
}

/** Upstream's name for the folder: the first 8 digits of the SHA-256 of the compact metadata. */
export async function hashMetadata(metadata: ShardsMetadata): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(declared(metadata)));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The fields in upstream's order. */
function declared(metadata: ShardsMetadata): ShardsMetadata {
  const { family, ckpt, layers, content_tokens_per_example, cls_token, d_model, n_examples } = metadata;
  const { max_tokens_per_shard, data, dataset, pixel_agg, dtype, protocol } = metadata;
  const model = { family, ckpt, layers, content_tokens_per_example, cls_token, d_model };
  return { ...model, n_examples, max_tokens_per_shard, data, dataset, pixel_agg, dtype, protocol };
}
