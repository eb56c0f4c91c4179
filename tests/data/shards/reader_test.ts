/** Activation shards of every version, read as they were written, and folders that are not whole. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { openRows, type RowFileOptions } from "../../../data/row_file.ts";
import { openShards, type ShardRowsOptions, type Shards } from "../../../data/shards/reader.ts";
import type { SourceOptions } from "../../../io/files.ts";
import { CheckpointError } from "../../../io/errors.ts";
import type { FileSet } from "../../../io/file_set.ts";
import { bytesSource } from "../../../io/source.ts";

const GOLDENS = new URL("../../goldens/shards/", import.meta.url);

/** What `expected.json` says of a folder that the Python package wrote. */
interface Expected {
  readonly dir: string;
  readonly shape: {
    readonly n_examples: number;
    readonly layers: readonly number[];
    readonly content_tokens: number;
    readonly cls_token: boolean;
    readonly d_model: number;
  };
  readonly files: readonly { readonly name: string; readonly n_examples: number }[];
  readonly rows: readonly {
    readonly example: number;
    readonly token: number;
    readonly layer: number;
    readonly values: readonly number[];
  }[];
  readonly content_sha256: Readonly<Record<string, string>>;
  readonly cls_sha256?: Readonly<Record<string, string>> | null;
  readonly labels?: readonly (readonly number[])[] | null;
}

async function sha256(bytes: Float32Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

const CASES: { readonly name: string; readonly expected: Expected }[] = [];
for await (const { name, isDirectory } of Deno.readDir(GOLDENS)) {
  if (!isDirectory) continue;
  CASES.push({ name, expected: JSON.parse(await Deno.readTextFile(new URL(`${name}/expected.json`, GOLDENS))) });
}
CASES.sort((a, b) => a.name < b.name ? -1 : 1);

function open({ name, expected }: typeof CASES[number]): Promise<Shards> {
  return openShards(new URL(`${name}/${expected.dir}`, GOLDENS).pathname);
}

Deno.test("shards: every version is among the goldens", () => {
  for (const version of ["apr", "v1.0.0", "v1.1", "v2.0a", "v2.0b", "v2.0c", "v2.1a", "v2.1"]) {
    assert(CASES.some(({ name }) => name.startsWith(`${version}-`)), version);
  }
});

for (const golden of CASES) {
  const { expected: { shape, rows, files, labels, content_sha256: content256, cls_sha256: cls256 } } = golden;
  Deno.test(`shards: ${golden.name} has the rows that were written`, async () => {
    const shards = await open(golden);
    const { metadata } = shards;
    assertEquals(
      [metadata.n_examples, metadata.content_tokens_per_example, metadata.cls_token, metadata.d_model],
      [shape.n_examples, shape.content_tokens, shape.cls_token, shape.d_model],
    );
    assertEquals(metadata.layers, shape.layers);
    assertEquals(
      shards.files,
      files.filter((file) => file.n_examples > 0).map(({ name, n_examples }) => ({ name, n_examples })),
    );
    for (const layer of shape.layers) {
      const content = shards.rows({ layer });
      assertEquals(content.n_rows, shape.n_examples * shape.content_tokens);
      const whole = await content.read(0, content.n_rows) as Float32Array<ArrayBuffer>;
      assertEquals(await sha256(whole), content256[layer]);
      // Any range is the same part of the whole, across examples and files.
      for (
        const [from, to] of [[0, 1], [3, 3], [content.n_rows - 1, content.n_rows], [2, content.n_rows - 3]] as const
      ) {
        assertEquals(await content.read(from, to), whole.slice(from * shape.d_model, to * shape.d_model));
      }
      await assertRejects(() => content.read(0, content.n_rows + 1), RangeError);
      if (shape.cls_token) {
        const cls = shards.rows({ layer, tokens: "cls" });
        const all = await cls.read(0, cls.n_rows) as Float32Array<ArrayBuffer>;
        if (cls256) assertEquals(await sha256(all), cls256[layer]);
        const both = shards.rows({ layer, tokens: "all" });
        assertEquals(await both.read(0, 1), all.slice(0, shape.d_model));
        assertEquals(
          await both.read(1, shape.content_tokens + 1),
          whole.slice(0, shape.content_tokens * shape.d_model),
        );
      } else {
        assertThrows(() => shards.rows({ layer, tokens: "cls" }), RangeError, "no CLS token");
      }
    }
    for (const { example, token, layer, values } of rows) {
      const source = shards.rows({ layer, tokens: token === -1 ? "cls" : "content" });
      const row = token === -1 ? example : example * shape.content_tokens + token;
      assertEquals(source.locate(row), { example, token });
      assertEquals(await source.read(row, row + 1), Float32Array.from(values));
    }
    const found = await shards.readLabels();
    assertEquals(found && Array.from(found), labels?.flat() ?? null);
  });
}

/** A folder in memory, one file of which can be changed. */
async function folderOf(name: string, changes: Readonly<Record<string, Uint8Array | string | null>>): Promise<FileSet> {
  const { expected: { dir } } = CASES.find((golden) => golden.name === name)!;
  const files = new Map<string, Uint8Array>();
  const folder = new URL(`${name}/${dir}/`, GOLDENS);
  for await (const file of Deno.readDir(folder)) files.set(file.name, await Deno.readFile(new URL(file.name, folder)));
  for (const [file, content] of Object.entries(changes)) {
    if (content === null) files.delete(file);
    else files.set(file, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }
  return {
    name: "the folder",
    main: null,
    list: () => Promise.resolve([...files.keys()]),
    find: (path) => Promise.resolve(files.has(path) ? bytesSource(files.get(path)!, path) : null),
  };
}

Deno.test("shards: every file that is missing, empty or cut is named at once", async () => {
  const folder = await folderOf("v2.1-cls-labels", {
    "acts000000.bin": null,
    "acts000001.bin": new Uint8Array(),
    "acts000003.bin": new Uint8Array(100),
  });
  const { message } = await assertRejects(() => openShards(folder), CheckpointError);
  assertEquals(
    message,
    "reading the folder: of 4 shards, 1 missing, or not a regular file: acts000000.bin; 1 empty: acts000001.bin; " +
      "1 of the wrong size: acts000003.bin (100 bytes; expected 2496, or 832)",
  );
});

Deno.test("shards: a last file cut to its true size is read, and the padding never is", async () => {
  const whole = await folderOf("v2.1-cls-labels", {});
  const last = await (await whole.find("acts000003.bin"))!.read(0, 832);
  const cut = (await openShards(await folderOf("v2.1-cls-labels", { "acts000003.bin": last }))).rows();
  const rows = (await openShards(whole)).rows();
  assertEquals(cut.n_rows, 20 * 12);
  assertEquals(await cut.read(0, cut.n_rows), await rows.read(0, rows.n_rows));
});

Deno.test("shards: what the metadata cannot be is an error that names the field", async () => {
  const { expected: { dir } } = CASES.find(({ name }) => name === "v2.1-cls-labels")!;
  const text = await Deno.readTextFile(new URL(`v2.1-cls-labels/${dir}/metadata.json`, GOLDENS));
  const wrong: [from: string, to: string, message: string][] = [
    ['"n_examples": 20', '"n_examples": 21', "found 20 examples in 4 files; expected 21"],
    ['"n_examples": 20', '"n_examples": -1', "n_examples = -1; expected an integer of at least 0"],
    ['"d_model": 8', '"d_model": "8"', 'd_model = "8"; expected an integer of at least 1'],
    ['"d_model": 8', '"width": 8', "found no d_model"],
    ['"protocol": "2.1"', '"protocol": "3.0"', 'protocol = "3.0"; expected one of 1.0.0, 1.1, 2.0, 2.1'],
    ['"float32"', '"float16"', 'dtype = "float16"; expected "float32"'],
    ['"max_tokens_per_shard": 83', '"max_tokens_per_shard": 12', "expected room for at least one example"],
    ["    -2", "    -2, -2", "expected a list of distinct integers"],
  ];
  for (const [from, to, message] of wrong) {
    assert(text.includes(from), from);
    const folder = await folderOf("v2.1-cls-labels", { "metadata.json": text.replace(from, to) });
    assertStringIncludes((await assertRejects(() => openShards(folder), CheckpointError)).message, message);
  }
});

Deno.test("shards: lists of files that a folder cannot have are refused", async () => {
  const list = (entries: readonly (readonly [string, number])[]) =>
    JSON.stringify(entries.map(([name, n_examples]) => ({ name, n_examples })));
  const wrong: [text: string | null, message: string][] = [
    [null, "found no shards.json"],
    ["{}", "expected a list"],
    [list([["../acts000000.bin", 6]]), 'expected "acts000000.bin" and 0 to 6'],
    [list([["acts000000.bin", 7]]), 'expected "acts000000.bin" and 0 to 6'],
    [list([["acts000000.bin", 5], ["acts000001.bin", 6]]), "acts000000.bin has 5 examples and is not the last"],
    [list([["acts000000.bin", 6]]), "The extraction did not finish"],
  ];
  for (const [text, message] of wrong) {
    const folder = await folderOf("v2.1-cls-labels", { "shards.json": text });
    assertStringIncludes((await assertRejects(() => openShards(folder), CheckpointError)).message, message);
  }
});

Deno.test("shards: a layer must be said where there are several, and be one of them", async () => {
  const shards = await open(CASES.find(({ name }) => name === "v2.1-worker-cls-labels")!);
  assertThrows(() => shards.rows(), RangeError, "no layer is given; it has the layers 2, 5, 11");
  assertThrows(() => shards.rows({ layer: 3 }), RangeError, "there is no layer 3; it has the layers 2, 5, 11");
});

Deno.test("shards: an unknown option is refused, with the nearest one", async () => {
  const golden = CASES.find(({ name }) => name === "v2.1-cls-labels")!;
  const folder = new URL(`${golden.name}/${golden.expected.dir}`, GOLDENS).pathname;
  const shards = await openShards(folder);
  assertThrows(() => shards.rows({ layers: -2 } as ShardRowsOptions), TypeError, "did you mean layer?");
  const opened = openShards(folder, { signals: null } as SourceOptions);
  await assertRejects(() => opened, TypeError, "did you mean signal?");
  const rows = openRows(folder, { token: "cls" } as RowFileOptions);
  await assertRejects(() => rows, TypeError, "did you mean tokens?");
});

Deno.test("shards: labels of another size are refused", async () => {
  const shards = await openShards(await folderOf("v2.1-cls-labels", { "labels.bin": new Uint8Array(239) }));
  await assertRejects(() => shards.readLabels(), CheckpointError, "found 239 bytes; expected 240");
});
