/** `io/torch_file.ts`: tensors as PyTorch writes them, and files made to do harm. */

import { assert, assertEquals, assertNotStrictEquals, assertRejects } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { PickledDict, type PickledList, type PickledRecord } from "../../io/pickle.ts";
import { bytesSource, joinBytes, partPieces } from "../../io/source.ts";
import type { StoredTensor } from "../../io/stored_tensor.ts";
import {
  formatTorchFile,
  formatTorchTensor,
  PickledTensor,
  readTorchFile,
  readTorchObject,
} from "../../io/torch_file.ts";
import { readZip } from "../../io/zip.ts";
import { formatZip, zipRecord } from "../../io/zip_writer.ts";
import { Random } from "../support/random.ts";
import { floats } from "./models.ts";
import { global, int, pickle, type RawTensor, stateDict, tensor, unicode } from "./raw_pickle.ts";
import { type RawRecord, rawZip, utf8 } from "./raw_zip.ts";

fc.configureGlobal({ seed: 0 });

function archive(
  pkl: Uint8Array,
  storages: Readonly<Record<string, ArrayBufferView>>,
  more: RawRecord[] = [],
): Uint8Array {
  return rawZip([
    { name: "m/data.pkl", bytes: pkl },
    ...Object.entries(storages).map(([key, { buffer, byteOffset, byteLength }]) => ({
      name: `m/data/${key}`,
      bytes: new Uint8Array(buffer, byteOffset, byteLength),
    })),
    { name: "m/version", bytes: utf8("3\n") },
    ...more,
  ]);
}

function readFile(bytes: Uint8Array): Promise<Map<string, StoredTensor>> {
  return readTorchFile(bytesSource(bytes));
}

async function readOne(raw: RawTensor, storage: ArrayBufferView, more: RawRecord[] = []): Promise<number[]> {
  const tensors = await readFile(archive(stateDict({ x: raw }), { [raw.key ?? "0"]: storage }, more));
  return [...await tensors.get("x")!.read()];
}

const COUNTING = Float32Array.from({ length: 12 }, (_, i) => i);

Deno.test("tensors are written and read back bit by bit", async () => {
  const shape = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 5 });
  const tensors = fc.uniqueArray(
    fc.tuple(fc.string({ unit: "grapheme" }), shape).chain(([name, shape]) =>
      fc.record({
        name: fc.constant(name),
        shape: fc.constant(shape),
        data: floats(shape.reduce((product, size) => product * size, 1)),
      })
    ),
    { selector: ({ name }) => name, maxLength: 5 },
  );
  await fc.assert(fc.asyncProperty(tensors, async (tensors) => {
    const read = await readFile(joinBytes(formatTorchFile(tensors, ["", "activation"])));
    assertEquals([...read.keys()], tensors.map(({ name }) => name));
    for (const { name, shape, data } of tensors) {
      assertEquals(read.get(name)!.shape, shape);
      assertEquals(read.get(name)!.dtype, "float32");
      assertEquals(
        new Uint32Array((await read.get(name)!.read()).slice().buffer),
        new Uint32Array(data.slice().buffer),
      );
    }
  }));
});

Deno.test("a matrix that lies transposed in memory is written as it lies, and is the matrix", async () => {
  const data = Float32Array.of(1, 2, 3, 4, 5, 6);
  const tensor = { name: "x", shape: [2, 3], data, isTransposed: true };
  const pieces = formatTorchFile([tensor], [""]);
  assert(pieces.some(({ buffer }) => buffer === data.buffer));
  const read = (await readFile(joinBytes(pieces))).get("x")!;
  assertEquals([[...await read.read()], read.isRowMajor], [[1, 3, 5, 2, 4, 6], false]);
  assertEquals([...await read.transposed().read()], [...data]);
});

Deno.test("records stand in PyTorch's order, and the id depends on every content", async () => {
  const write = (value: number): Uint8Array =>
    joinBytes(formatTorchFile([{ name: "x", shape: [1], data: Float32Array.of(value) }], [""]));
  const records = await readZip(bytesSource(write(1)));
  assertEquals([...records.keys()], [
    "archive/data.pkl",
    "archive/.format_version",
    "archive/.storage_alignment",
    "archive/byteorder",
    "archive/data/0",
    "archive/version",
    "archive/.data/serialization_id",
  ]);
  const id = async (bytes: Uint8Array): Promise<string> => {
    const member = (await readZip(bytesSource(bytes))).get("archive/.data/serialization_id")!;
    return new TextDecoder().decode(await member.read());
  };
  assert(/^[0-9]{40}$/.test(await id(write(1))));
  assertEquals(await id(write(1)), await id(write(1)));
  assert(await id(write(1)) !== await id(write(2)));
});

Deno.test("PyTorch's own ids are right, also where empty records and what looks like a descriptor count", async () => {
  for (const name of ["empty_storages", "like_descriptors"]) {
    const bytes = Deno.readFileSync(new URL(`../goldens/torch/${name}.pt`, import.meta.url));
    assertEquals([...await readFile(bytes)].map(([key]) => key), ["a", "b", "c"]);
    const records = await readZip(bytesSource(bytes));
    const changed = await Array.fromAsync(records.values(), async (member) => {
      const content = (await member.read()).slice();
      if (member.name.endsWith("data/1")) content[0]! ^= 1;
      return zipRecord(member.name, content);
    });
    await assertRejects(() => readFile(joinBytes(formatZip(changed))), CheckpointError, "comes from another file");
  }
});

Deno.test("a bare tensor is written as torch.save(tensor, path) writes it", async () => {
  const path = new URL("../goldens/inference/relu/inference/858efe9c/", import.meta.url);
  for (const stem of ["mean_values", "sparsity", "distributions"]) {
    const file = Deno.readFileSync(new URL(`${stem}.pt`, path));
    const root = await readTorchObject(bytesSource(file));
    if (!(root instanceof PickledTensor)) throw new Error("no tensor");
    const { shape } = root.tensor;
    const parts = formatTorchTensor(stem, { shape, data: await root.tensor.read() });
    const bytes = joinBytes(await Array.fromAsync(partPieces(parts)));
    assertEquals(bytes.length, file.length);
    const records = async (from: Uint8Array) => {
      const members = await Array.fromAsync(await readZip(bytesSource(from)));
      return await Promise.all(members.map(async ([name, member]) => [name, [...await member.read()]] as const));
    };
    const [ours, theirs] = [await records(bytes), await records(file)];
    // Of the id, the first twenty digits are those of PyTorch's C++ library.
    assertEquals(ours.pop()![1].slice(20), theirs.pop()![1].slice(20));
    assertEquals(ours, theirs);
  }
});

Deno.test("an id that is none is refused, and a file without any is read", async () => {
  const raw = { length: 1, shape: [1], strides: [1] };
  assertEquals(await readOne(raw, Float32Array.of(5)), [5]);
  for (const id of ["", "12", "x".repeat(40), `${"0".repeat(40)} `]) {
    const record = { name: "m/.data/serialization_id", bytes: utf8(id) };
    await assertRejects(() => readOne(raw, Float32Array.of(5), [record]), CheckpointError, "expected 40 digits");
  }
  const record = { name: "m/.data/serialization_id", bytes: utf8("0".repeat(40)) };
  await assertRejects(() => readOne(raw, Float32Array.of(5), [record]), CheckpointError, "comes from another file");
});

Deno.test("strides, offsets and shared storages are honoured", async () => {
  assertEquals(await readOne({ length: 12, shape: [3, 4], strides: [4, 1] }, COUNTING), [...COUNTING]);
  assertEquals(
    await readOne({ length: 12, shape: [4, 3], strides: [1, 4] }, COUNTING),
    [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
  );
  assertEquals(await readOne({ length: 12, shape: [2, 2], strides: [6, 3], offset: 1 }, COUNTING), [1, 4, 7, 10]);
  assertEquals(await readOne({ length: 12, shape: [2, 3], strides: [3, 1], offset: 6 }, COUNTING), [
    6,
    7,
    8,
    9,
    10,
    11,
  ]);
  assertEquals(await readOne({ length: 12, shape: [1, 3], strides: [99, 1], offset: 9 }, COUNTING), [9, 10, 11]);
  assertEquals(await readOne({ length: 12, shape: [2, 1, 2], strides: [1, 0, 6] }, COUNTING), [0, 6, 1, 7]);
  assertEquals(await readOne({ length: 12, shape: [2, 2], strides: [0, 1] }, COUNTING), [0, 1, 0, 1]);
  assertEquals(await readOne({ length: 12, shape: [], strides: [], offset: 5 }, COUNTING), [5]);
  assertEquals(await readOne({ length: 12, shape: [0, 4], strides: [4, 1], offset: 50 }, COUNTING), []);
  assertEquals(await readOne({ length: 0, shape: [0], strides: [1] }, new Float32Array()), []);

  const pkl = stateDict({
    W_dec: { length: 12, shape: [4, 3], strides: [3, 1] },
    W_enc: { length: 12, shape: [3, 4], strides: [1, 3] },
  });
  const read = await readFile(archive(pkl, { 0: COUNTING }));
  assertEquals([...await read.get("W_dec")!.read()], [...COUNTING]);
  assertEquals([...await read.get("W_enc")!.read()], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
});

Deno.test("any strided view is what indexing says", async () => {
  const view = fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 9 })), { maxLength: 4 });
  const random = new Random(3);
  const storage = random.normal(300);
  await fc.assert(fc.asyncProperty(view, fc.integer({ min: 0, max: 40 }), async (view, offset) => {
    const shape = view.map(([size]) => size);
    const strides = view.map(([, stride]) => stride);
    const expected = view.reduce(
      (places, [size, stride]) => places.flatMap((at) => Array.from({ length: size }, (_, i) => at + i * stride)),
      [offset],
    );
    assertEquals(await readOne({ length: 300, shape, strides, offset }, storage), expected.map((at) => storage[at]!));
  }));
});

Deno.test("float32 in place is a view, anything else a copy", async () => {
  const bytes = joinBytes(formatTorchFile([{ name: "x", shape: [12], data: COUNTING }], [""]));
  assertEquals((await (await readFile(bytes)).get("x")!.read()).buffer, bytes.buffer);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  const copied = await (await readFile(shifted.subarray(1))).get("x")!.read();
  assertNotStrictEquals(copied.buffer, shifted.buffer);
  assertEquals([...copied], [...COUNTING]);
});

Deno.test("every float16 widens exactly", async () => {
  const halves = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const oracle = new Float32Array(new Float16Array(halves.buffer));
  const raw: RawTensor = { storageClass: "HalfStorage", length: 2 ** 16, shape: [2 ** 16], strides: [1] };
  const read = await readOne(raw, halves);
  for (let i = 0; i < 2 ** 16; i++) assert(Object.is(read[i], oracle[i]), `half 0x${i.toString(16)}: ${read[i]}`);
});

Deno.test("bfloat16 widens exactly and float64 is rounded", async () => {
  const floats = Float32Array.of(1, -2.5, 3.140625, 1e-40, Infinity);
  const upper = Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
  const expected = [...new Float32Array(Uint32Array.from(upper, (half) => half << 16).buffer)];
  const raw = { length: 5, shape: [5], strides: [1] };
  assertEquals(await readOne({ ...raw, storageClass: "BFloat16Storage" }, upper), expected);
  const doubles = Float64Array.of(1 / 3, -1e-50, 2 ** 24 + 1, 1e39, 0.1);
  assertEquals(await readOne({ ...raw, storageClass: "DoubleStorage" }, doubles), [...doubles].map(Math.fround));
});

Deno.test("both byte orders are read, on any device", async () => {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat32(0, 1.5, false);
  view.setFloat32(4, -1e-3, false);
  const raw = { length: 2, shape: [2], strides: [1], location: "cuda:0" };
  const order = (text: string): RawRecord[] => [{ name: "m/byteorder", bytes: utf8(text) }];
  assertEquals(await readOne(raw, view, order("big")), [1.5, Math.fround(-1e-3)]);
  const half = new DataView(new ArrayBuffer(2));
  half.setFloat16(0, 0.1, false);
  const one = { ...raw, length: 1, shape: [1] };
  assertEquals(await readOne({ ...one, storageClass: "HalfStorage" }, half, order("big")), [half.getFloat16(0)]);
  assertEquals(await readOne(raw, Float32Array.of(1.5, 2), order("little")), [1.5, 2]);
  await assertRejects(() => readOne(raw, view, order("middle")), CheckpointError, `the byte order is "middle"`);
});

Deno.test("hand-made files that torch.load takes are read", async () => {
  const hooks = [global("collections", "OrderedDict"), ")R"];
  const raw = { length: 12, shape: [12], strides: [1] };
  for (const variant of [{ hooks: "N" }, { hooks }, { grad: "\x88" }]) {
    assertEquals(await readOne({ ...raw, ...variant }, COUNTING), [...COUNTING]);
  }
  const dotted = [{ name: "m/.anything/new", bytes: utf8("x") }];
  assertEquals(await readOne(raw, COUNTING, dotted), [...COUNTING]);
});

Deno.test("integers and bools are read as what they are", async () => {
  const storages: [storageClass: string, dtype: string, storage: ArrayBufferView, elements: number[]][] = [
    ["LongStorage", "int64", BigInt64Array.of(32n, -1n, 2n ** 53n - 1n), [32, -1, 2 ** 53 - 1]],
    ["IntStorage", "int32", Int32Array.of(32, -1, 2 ** 31 - 1), [32, -1, 2 ** 31 - 1]],
    ["ShortStorage", "int16", Int16Array.of(32, -1, 32767), [32, -1, 32767]],
    ["CharStorage", "int8", Int8Array.of(32, -1, 127), [32, -1, 127]],
    ["ByteStorage", "uint8", Uint8Array.of(32, 255, 0), [32, 255, 0]],
    ["BoolStorage", "bool", Uint8Array.of(1, 0, 1), [1, 0, 1]],
  ];
  for (const [storageClass, dtype, storage, elements] of storages) {
    const raw = { storageClass, length: 3, shape: [3], strides: [1] };
    const x = (await readFile(archive(stateDict({ x: raw }), { 0: storage }))).get("x")!;
    assertEquals(x.dtype, dtype);
    assertEquals([...await x.readIntegers()], elements);
    await assertRejects(() => x.read(), CheckpointError, `reading storage "0": found ${dtype}; expected floating`);
    const view = { ...raw, shape: [2], strides: [2] };
    const strided = (await readFile(archive(stateDict({ x: view }), { 0: storage }))).get("x")!;
    assertEquals([...await strided.readIntegers()], [elements[0]!, elements[2]!]);
  }
  const floats = await readFile(archive(stateDict({ x: { length: 12, shape: [12], strides: [1] } }), { 0: COUNTING }));
  await assertRejects(() => floats.get("x")!.readIntegers(), CheckpointError, "found float32; expected integers");
});

Deno.test("what is no state dict is read as the object that it is", async () => {
  const raw: RawTensor = { length: 12, shape: [12], strides: [1] };
  const parameter = [global("torch._utils", "_rebuild_parameter"), "(", tensor(raw), "\x88", "}", "tR"];
  const pkl = pickle(
    [
      "}(",
      unicode("activation"),
      unicode("TopK"),
      unicode("k"),
      int(32),
      unicode("lr"),
      "G\x3f\xf8\x00\x00\x00\x00\x00\x00",
    ],
    [unicode("sizes"), "](", int(1), int(2), "e"],
    [unicode("state_dict"), "}(", unicode("W_enc"), parameter, unicode("b_enc"), tensor(raw), "u"],
    [unicode("cfg"), global("package.config", "Config"), ")\x81}", unicode("d_in"), int(5), "sb", "u"],
  );
  const source = bytesSource(archive(pkl, { 0: COUNTING }));
  await assertRejects(() => readTorchObject(source), CheckpointError, `the name "package.config.Config"`);
  const object = await readTorchObject(source, { records: /^package\.config\.Config$/ });
  assert(object instanceof PickledDict);
  const { items } = object;
  assertEquals([items.get("activation"), items.get("k"), items.get("lr")], ["TopK", 32, 1.5]);
  assertEquals((items.get("sizes") as PickledList).items, [1, 2]);
  assertEquals([...(items.get("cfg") as PickledRecord).attributes!.items], [["d_in", 5]]);
  for (const name of ["W_enc", "b_enc"]) {
    const found = (items.get("state_dict") as PickledDict).items.get(name) as PickledTensor;
    assertEquals(await found.tensor.read(), COUNTING);
  }
  await assertRejects(() => readTorchFile(source), CheckpointError, `the name "package.config.Config"`);
  const broken = pickle("}", unicode("x"), global("torch._utils", "_rebuild_parameter"), "(", tensor(raw), "NNtR", "s");
  await assertRejects(
    () => readFile(archive(broken, { 0: COUNTING })),
    CheckpointError,
    "a parameter whose description has an unknown form",
  );
});

Deno.test("hostile tensors are refused", async () => {
  const raw: RawTensor = { length: 12, shape: [12], strides: [1] };
  const refused: [raw: Partial<RawTensor>, message: string][] = [
    [{ offset: 1 }, "reaches element 12 of 12"],
    [{ offset: -1 }, "an unknown form"],
    [{ strides: [-1] }, "an unknown form"],
    [{ strides: [2] }, "reaches element 22 of 12"],
    [{ strides: [2 ** 31 - 1] }, "reaches element"],
    [{ shape: [-12] }, "an unknown form"],
    [{ shape: [13] }, "more elements than the storage's 12"],
    [{ shape: [2 ** 31 - 1], strides: [0] }, "more elements than the storage's 12"],
    [{ shape: Array(8).fill(2 ** 31 - 1), strides: Array(8).fill(0) }, "more elements"],
    [{ shape: Array(9).fill(1), strides: Array(9).fill(1) }, "an unknown form"],
    [{ shape: [3, 4] }, "an unknown form"],
    [{ length: 13 }, 'storage "0" has 48 bytes; 13 elements of float32 need 52'],
    [{ length: 11 }, "has 48 bytes; 11 elements of float32 need 44"],
    [{ length: -12 }, "does not name a storage"],
    [{ storageClass: "DoubleStorage" }, "12 elements of float64 need 96"],
    [{ storageClass: "ComplexFloatStorage" }, `the name "torch.ComplexFloatStorage"`],
    [{ storageClass: "load" }, `the name "torch.load"`],
    [{ kind: "module" }, "does not name a storage"],
    [{ hooks: ["}", unicode("a"), int(1), "s"] }, "an unknown form"],
    [{ hooks: int(1) }, "an unknown form"],
    [{ grad: int(0) }, "an unknown form"],
    [{ more: "}" }, "an unknown form"],
  ];
  for (const [change, message] of refused) {
    await assertRejects(() => readOne({ ...raw, ...change }, COUNTING), CheckpointError, message);
  }
  await assertRejects(
    () => readFile(archive(stateDict({ x: { ...raw, key: "../../etc/passwd" } }), { 0: COUNTING })),
    CheckpointError,
    `no record "data/../../etc/passwd"`,
  );
});

Deno.test("files that are no flat dict of tensors are refused", async () => {
  const raw: RawTensor = { length: 12, shape: [12], strides: [1] };
  const good = stateDict({ x: raw });
  const version = (text: string): Uint8Array =>
    rawZip([{ name: "m/data.pkl", bytes: good }, { name: "m/version", bytes: utf8(text) }]);
  const cycle = pickle("}q\x00", unicode("self"), "h\x00s");
  const twoWays = stateDict({ x: raw, y: { ...raw, length: 6, shape: [6], storageClass: "DoubleStorage" } });
  const refused: [bytes: Uint8Array, message: string][] = [
    [archive(pickle(tensor(raw)), { 0: COUNTING }), "the pickle is not a dict"],
    [archive(pickle("N"), {}), "the pickle is not a dict"],
    [archive(cycle, {}), `the entry "self" is a dict, not a tensor`],
    [archive(pickle("}", unicode("x"), int(5), "s"), {}), `the entry "x" is 5, not a tensor`],
    [archive(pickle("}", unicode("x"), ")s"), {}), `the entry "x" is a tuple`],
    [archive(pickle("}", unicode("x"), "]s"), {}), `the entry "x" is a list`],
    [archive(pickle("}", unicode("x"), unicode("y"), "s"), {}), `the entry "x" is "y"`],
    [archive(pickle("}", unicode("x"), global("torch", "FloatStorage"), "s"), {}), `is a storage class`],
    [archive(pickle("}", unicode("x"), global("collections", "OrderedDict"), "s"), {}), `is a name`],
    [archive(pickle(global("collections", "OrderedDict"), int(1), "\x85R"), {}), "an OrderedDict with arguments"],
    [archive(pickle("}", unicode("x"), int(1), "Qs"), {}), "does not name a storage"],
    [archive(good, {}), `no record "data/0"`],
    [archive(twoWays, { 0: COUNTING }), "described in two ways"],
    [archive(good, { 0: COUNTING }, [{ name: "m/code/__torch__.py", bytes: utf8("x") }]), "unknown record"],
    [archive(good, { 0: COUNTING }, [{ name: "n/data/1", bytes: utf8("x") }]), "outside the archive's one folder"],
    [rawZip([{ name: "data.pkl", bytes: good }]), "outside the archive's one folder"],
    [rawZip([{ name: "m/version", bytes: utf8("3") }]), `no record "data.pkl"`],
    [rawZip([{ name: "m/data.pkl", bytes: good }]), `no record "version"`],
    [rawZip([]), `no record "data.pkl"`],
    [version("11"), `version "11"`],
    [version("0"), `version "0"`],
    [version(""), `version ""`],
    [version("3 ".repeat(99)), "has version"],
  ];
  for (const [bytes, message] of refused) await assertRejects(() => readFile(bytes), CheckpointError, message);
});

Deno.test("the pickles of PyTorch before 1.6 are refused by name", async () => {
  // How such a file starts: a magic number, the version of the protocol, and a dict about the system, a pickle each.
  const magic = ["\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", "M\xe9\x03", "}"].map((code) => pickle(code));
  await assertRejects(
    () => readFile(joinBytes(magic)),
    CheckpointError,
    "a bare pickle, as PyTorch wrote before version 1.6",
  );
});

Deno.test("a file of many tensors over one storage takes no more memory until they are read", async () => {
  const raw: RawTensor = { length: 2 ** 20, shape: [2 ** 10, 2 ** 10], strides: [1, 2 ** 10] };
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`x${i}`, raw]));
  const bytes = archive(stateDict(many), { 0: new Float32Array(2 ** 20) });
  // Reading all of them at once would take 2 GB.
  assertEquals((await readFile(bytes)).size, 500);
});
