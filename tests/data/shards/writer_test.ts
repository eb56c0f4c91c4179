/** Writing shards: upstream's bytes, and a folder that was stopped and is completed. @module */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { readMetadata, type ShardsMetadata } from "../../../data/shards/metadata.ts";
import { openShards } from "../../../data/shards/reader.ts";
import { tokensPerShard, writeShards } from "../../../data/shards/writer.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { type JsonObject, parseJson } from "../../../io/json.ts";
import { ShapeError } from "../../../kernels/engine/errors.ts";

const GOLDENS = new URL("../../goldens/shards/", import.meta.url);
const FOLDERS = {
  "v2.1-cls-labels": "858efe9c",
  "v2.1-worker-cls-labels": "a9cb629b",
  "v2.1-worker-nocls": "d04865c1",
  "v2.1-one-short-shard": "5f03520a",
} as const;

/** A folder of upstream's, as what is to be written. */
async function golden(name: keyof typeof FOLDERS) {
  const folder = new URL(`${name}/${FOLDERS[name]}`, GOLDENS).pathname;
  const text = await Deno.readTextFile(`${folder}/metadata.json`);
  const metadata = readMetadata(parseJson(text, { what: name, maxParts: 100 }) as JsonObject, name);
  const shards = await openShards(folder);
  const rows = metadata.layers.map((layer) => shards.rows({ layer, tokens: "all" }));
  const perExample = rows[0]!.rows_per_example;
  /** One example at a time, or several. */
  async function* examples(from: number, atOnce = 1): AsyncGenerator<Float32Array> {
    for (let at = from; at < metadata.n_examples; at += atOnce) {
      const layers: number[] = [];
      for (let example = at; example < Math.min(at + atOnce, metadata.n_examples); example++) {
        for (const layer of rows) layers.push(...await layer.read(example * perExample, (example + 1) * perExample));
      }
      yield Float32Array.from(layers);
    }
  }
  const labels = await shards.readLabels();
  return { folder, metadata, examples, ...labels && { labels: () => Promise.resolve(labels) } };
}

async function bytesOf(folder: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for await (const { name } of Deno.readDir(folder)) files.set(name, await Deno.readFile(`${folder}/${name}`));
  return new Map([...files].sort());
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const name of Object.keys(FOLDERS) as (keyof typeof FOLDERS)[]) {
  Deno.test(`shards: ${name} is written as upstream wrote it, however the examples come`, async () => {
    const { folder, metadata, examples, ...rest } = await golden(name);
    const expected = await bytesOf(folder);
    for (const atOnce of [1, 3, 100]) {
      await inFolder(async (out) => {
        await writeShards(`${out}/new`, { metadata, examples: (from) => examples(from, atOnce), ...rest });
        assertEquals(await bytesOf(`${out}/new`), expected);
      });
    }
  });
}

Deno.test("shards: what was stopped is completed to the same bytes, and whole files are not made again", async () => {
  const { folder, metadata, examples, labels } = await golden("v2.1-cls-labels");
  const expected = await bytesOf(folder);
  for (const stopAt of [0, 1, 6, 7, 17, 19]) {
    await inFolder(async (out) => {
      async function* stopping(from: number): AsyncGenerator<Float32Array> {
        let example = from;
        for await (const array of examples(from)) {
          if (example++ === stopAt) throw new Error("stopped");
          yield array;
        }
      }
      await assertRejects(() => writeShards(out, { metadata, examples: stopping, labels: labels! }), Error, "stopped");
      await Deno.writeTextFile(`${out}/acts000003.bin.1-2.tmp`, "what a kill leaves");
      await assertRejects(() => openShards(out), CheckpointError, "The extraction did not finish");
      const asked: number[] = [];
      const { n_kept } = await writeShards(out, {
        metadata,
        labels: labels!,
        examples: (from) => {
          asked.push(from);
          return examples(from);
        },
      });
      assertEquals([asked, n_kept], [[Math.floor(stopAt / 6) * 6], Math.floor(stopAt / 6) * 6]);
      await Deno.remove(`${out}/acts000003.bin.1-2.tmp`);
      assertEquals(await bytesOf(out), expected);
    });
  }
});

Deno.test("shards: a whole folder is left as it is", async () => {
  const { metadata, examples, labels } = await golden("v2.1-cls-labels");
  await inFolder(async (out) => {
    await writeShards(out, { metadata, examples, labels: labels! });
    const before = await bytesOf(out);
    assertEquals(await writeShards(out, { metadata, examples, labels: labels! }), { n_kept: 20 });
    assertEquals(await bytesOf(out), before);
  });
});

Deno.test("shards: other shards, other files and other numbers of examples are refused, and nothing is replaced", async () => {
  const { metadata, examples } = await golden("v2.1-one-short-shard");
  await inFolder(async (out) => {
    await writeShards(out, { metadata, examples });
    const before = await bytesOf(out);
    const { message } = await assertRejects(
      () => writeShards(out, { metadata: { ...metadata, ckpt: "another" }, examples }),
      CheckpointError,
    );
    assertStringIncludes(message, `expected "ckpt": "another"`);
    assertEquals(await bytesOf(out), before);
  });
  await inFolder(async (out) => {
    await Deno.writeTextFile(`${out}/thesis.txt`, "mine");
    await assertRejects(() => writeShards(out, { metadata, examples }), CheckpointError, "with other files");
    assertEquals([...(await bytesOf(out)).keys()], ["thesis.txt"]);
  });
  async function* of(...arrays: Float32Array[]): AsyncGenerator<Float32Array> {
    yield* arrays;
  }
  const whole = await Array.fromAsync(examples(0));
  const wrong: [arrays: Float32Array[], message: string][] = [
    [whole.slice(1), "the examples ended early; at least 1 of 8"],
    [[...whole, whole[0]!], "found more examples than the 8"],
    [[whole[0]!.subarray(1)], "expected whole examples of 128"],
    [[new Float32Array()], "found an array of 0 numbers"],
  ];
  for (const [arrays, message] of wrong) {
    await inFolder(async (out) => {
      await assertRejects(() => writeShards(out, { metadata, examples: () => of(...arrays) }), ShapeError, message);
      await assertRejects(() => openShards(out), CheckpointError, "did not finish");
    });
  }
});

Deno.test("shards: files have room for the examples that there are, or as many bytes as are wanted", () => {
  const metadata = { content_tokens_per_example: 4, cls_token: true, layers: [1, 2], d_model: 8, n_examples: 7 };
  const tokens = (bytes: number): number => tokensPerShard(metadata as unknown as ShardsMetadata, bytes);
  assertEquals(tokens(1e9), 7 * 10);
  assertEquals(tokens(3 * 320 + 319), 3 * 10);
  assertEquals(tokens(1), 10);
});
