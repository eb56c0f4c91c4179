/** Files of up to 1 MB that are there to cost time or memory: what inspecting and reading them takes, counted. */

import { assert, assertRejects } from "@std/assert";
import { readCheckpoint } from "../../../io/checkpoints/checkpoint.ts";
import { inspectCheckpoint } from "../../../io/checkpoints/inspect.ts";
import { CheckpointError } from "../../../io/errors.ts";
import type { FileSet } from "../../../io/file_set.ts";
import { writeNpy } from "../../../io/npy.ts";
import { type CountingSource, countingSource } from "../counting_source.ts";
import { goldenCheckpoint } from "../models.ts";
import { type Code, pickle, type RawTensor, tensor, unicode } from "../raw_pickle.ts";
import { deflated, joined, rawZip, utf8 } from "../raw_zip.ts";

const LARGEST = 2 ** 20;
const MAX_TENSORS = 10 ** 5;
const MAX_BYTES = 2 ** 26;
/** A tensor is looked at for its statistics, and a parameter read. */
const MAX_READ = 32;

/** A safetensors file with this header and so many bytes behind it. */
function safetensors(header: string, bytes = 0): Uint8Array {
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  return joined([length, utf8(header), new Uint8Array(bytes)]);
}

const EMPTY = `{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`;
/** What makes a file SAELens'. */
const SAELENS = `"W_enc":${EMPTY},"W_dec":${EMPTY}`;
const CFG = `{"architecture":"standard","d_in":1,"d_sae":1`;

function saelens(header: string, bytes = 0, cfg = `${CFG}}`): Record<string, Uint8Array> {
  return { "sae_weights.safetensors": safetensors(`{${SAELENS}${header}}`, bytes), "cfg.json": utf8(cfg) };
}

const HEADER = new TextDecoder().decode(goldenCheckpoint("schema5_top_k.pt").bytes).split("\n")[0]!;

/** A file of saev with this state dict and storages. */
function saev(items: readonly Code[], storages: readonly Uint8Array[], header = HEADER): Record<string, Uint8Array> {
  const records = storages.map((bytes, key) => ({ name: `a/data/${key}`, bytes }));
  const body = rawZip([
    { name: "a/data.pkl", bytes: pickle("}(", ...items, "u") },
    ...records,
    { name: "a/version", bytes: utf8("3\n") },
  ]);
  return { "sae.pt": joined([utf8(`${header}\n`), body]) };
}

/** So many names for one tensor, or so many tensors, of one storage. */
function sharing(count: number, raw: RawTensor, bytes: number, isOne: boolean): Record<string, Uint8Array> {
  const one = tensor(raw);
  const items = Array.from({ length: count }, (_, i) => [unicode(`t${i}`), isOne ? "h\x00" : one]);
  return saev(isOne ? [unicode("first"), one, "q\x00", ...items] : items, [new Uint8Array(bytes)]);
}

function npz(arrays: Readonly<Record<string, readonly [rows: number, cols: number]>>): Record<string, Uint8Array> {
  const records = Object.entries(arrays).map(([name, [rows, cols]]) =>
    deflated(`${name}.npy`, writeNpy({ rows, cols, data: new Float32Array(rows * cols) }))
  );
  return { "params.npz": rawZip(records) };
}

const F32 = { length: 150_000, shape: [150_000], strides: [1] };
const U8 = { storageClass: "ByteStorage", length: 1_000_000 };
const names = (count: number, length: number): string =>
  Array.from({ length: count }, (_, i) => `,"${String(i).padStart(length, "n")}":${EMPTY}`).join("");

/** The files of each case; the largest is what is counted against. */
const CASES: Readonly<Record<string, () => Record<string, Uint8Array>>> = {
  "4000 tensors on one storage": () => sharing(4000, F32, 600_000, true),
  "1000 descriptions of tensors on one storage": () => sharing(1000, F32, 600_000, false),
  "1000 tensors of one number on one storage": () => sharing(1000, { ...F32, shape: [1] }, 600_000, false),
  "15,000 names of one number": () => sharing(15_000, { length: 1, shape: [1], strides: [1] }, 4, true),
  "two tensors of bytes on one storage": () => sharing(1, { ...U8, shape: [1_000_000], strides: [1] }, 1_000_000, true),
  "15 transposes of bytes": () => sharing(14, { ...U8, shape: [1000, 1000], strides: [1, 1000] }, 1_000_000, true),
  "65,000 dicts": () => saev([unicode("a"), "(", "}".repeat(65_000), "t"], []),
  "130,000 lists": () => saev([unicode("a"), "(", "]".repeat(130_000), "t"], []),
  "9000 records": () => saev([], Array.from({ length: 9000 }, () => new Uint8Array(0))),
  "500,000 numbers in a header": () => saev([], [], `{"schema":5,"a":[${"1,".repeat(499_000)}1]}`),
  "500,000 numbers in a shape": () =>
    saelens(`,"x":{"dtype":"F32","shape":[${"1,".repeat(499_000)}1],"data_offsets":[0,4]}`, 4),
  "16,000 names": () => saelens(names(16_000, 8)),
  "4000 long names": () => saelens(names(4000, 190)),
  "65,000 texts beside the tensors": () =>
    saelens(`,"__metadata__":{${Array.from({ length: 65_000 }, (_, i) => `"${i}":"a"`).join()}}`),
  "300,000 objects in a configuration": () => saelens("", 0, `${CFG},"x":[${"{},".repeat(300_000)}{}]}`),
  "400,000 numbers in a configuration": () => saelens("", 0, `${CFG},"x":[${"1,".repeat(400_000)}1]}`),
  "zeros in 14 arrays": () => npz(Object.fromEntries(Array.from({ length: 14 }, (_, i) => [`a${i}`, [1000, 1000]]))),
  "zeros in 200 arrays": () => npz(Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`a${i}`, [10, 10]]))),
  "a Gemma Scope model of zeros": () =>
    npz({ W_enc: [1000, 1000], W_dec: [1000, 1000], b_enc: [1, 1000], b_dec: [1, 1000], threshold: [1, 1000] }),
  "a bias of 2^40 zeros that is left out": () => {
    const config = `{"hook_point_in":"x","hook_point_out":"x","d_model":${2 ** 40},"expansion_factor":1,` +
      `"use_decoder_bias":false,"norm_activation":"inference","act_fn":"relu"}`;
    const header = `{"W_E":${EMPTY},"W_D":${EMPTY},"b_E":${EMPTY}}`;
    return { "sae_weights.safetensors": safetensors(header), "config.json": utf8(config) };
  },
};

/** Files that count what is read of them. */
function counted(files: Readonly<Record<string, Uint8Array>>): { set: FileSet; sources: CountingSource[] } {
  const sources = new Map(Object.entries(files).map(([name, bytes]) => [name, countingSource(bytes)]));
  const isFolder = sources.size > 1;
  const set = {
    name: "the files",
    main: isFolder ? null : [...sources.keys()][0]!,
    list: () => Promise.resolve([...sources.keys()]),
    find: (path: string) => Promise.resolve(sources.get(path) ?? null),
  };
  return { set, sources: [...sources.values()] };
}

const ARRAYS = ["Uint8Array", "Uint32Array", "Float32Array", "Float64Array"] as const;

/** How many bytes of arrays are made meanwhile; views of what is there take none. */
async function bytesMade(work: () => Promise<unknown>): Promise<number> {
  let bytes = 0;
  const originals = ARRAYS.map((name) => [name, globalThis[name]] as const);
  for (const [name, original] of originals) {
    const counting = new Proxy(original, {
      construct(target, args: unknown[]) {
        const made = Reflect.construct(target, args) as Uint8Array;
        if (!(args[0] instanceof ArrayBuffer || args[0] instanceof SharedArrayBuffer)) bytes += made.byteLength;
        return made;
      },
    });
    Object.assign(globalThis, { [name]: counting });
  }
  try {
    await work();
  } finally {
    for (const [name, original] of originals) Object.assign(globalThis, { [name]: original });
  }
  return bytes;
}

for (const [name, files] of Object.entries(CASES)) {
  Deno.test(`${name}: no more work and memory than a model of 1 MB`, async () => {
    const made = files();
    const size = Math.max(...Object.values(made).map(({ length }) => length));
    assert(size <= LARGEST, `${size} bytes`);
    const works = [
      async (set: FileSet) => void assert((await inspectCheckpoint(set)).tensors.length <= MAX_TENSORS),
      async (set: FileSet) => void await readCheckpoint(set),
    ];
    for (const work of works) {
      const { set, sources } = counted(made);
      const bytes = await bytesMade(() =>
        work(set).catch((error: unknown) => {
          if (!(error instanceof CheckpointError)) throw error;
        })
      );
      assert(bytes <= MAX_BYTES, `${bytes} bytes of arrays`);
      const read = sources.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
      assert(read <= MAX_READ * LARGEST, `${read} bytes read`);
    }
  });
}

Deno.test("values that cost more memory than their bytes are counted, and too many refused", async () => {
  const refused: readonly [name: string, message: string][] = [
    ["130,000 lists", "more than 65536 opcodes"],
    ["500,000 numbers in a shape", "more than 32768 numbers and words"],
    ["16,000 names", "more than 32768 objects, lists and strings"],
    ["65,000 texts beside the tensors", "more than 32768 objects, lists and strings"],
    ["300,000 objects in a configuration", "more than 32768 objects, lists and strings"],
    ["400,000 numbers in a configuration", "more than 32768 numbers and words"],
    ["zeros in 14 arrays", "more than 16 times the archive's"],
    ["zeros in 200 arrays", "found 200 arrays; expected at most 64"],
  ];
  for (const [name, message] of refused) {
    await assertRejects(() => readCheckpoint(counted(CASES[name]!()).set), CheckpointError, message, name);
  }
  const shared = counted(CASES["4000 tensors on one storage"]!()).set;
  await assertRejects(() => inspectCheckpoint(shared), CheckpointError, "its 4001 tensors share storage");
});

Deno.test("the count of arrays counts", async () => {
  const bytes = await bytesMade(() => Promise.resolve([new Float64Array(100), new Uint8Array(new ArrayBuffer(50))]));
  assert(bytes === 800, `${bytes}`);
});
