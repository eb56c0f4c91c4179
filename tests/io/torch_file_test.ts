/** `io/torch_file.ts`: tensors as PyTorch writes them, and files made to do harm. */

import { assert, assertEquals, assertNotStrictEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { formatTorchFile, readTorchFile } from "../../io/torch_file.ts";
import { joinBytes, readZip } from "../../io/zip.ts";
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

function readOne(raw: RawTensor, storage: ArrayBufferView, more: RawRecord[] = []): number[] {
  return [...readTorchFile(archive(stateDict({ x: raw }), { [raw.key ?? "0"]: storage }, more)).get("x")!.read()];
}

const COUNTING = Float32Array.from({ length: 12 }, (_, i) => i);

Deno.test("tensors are written and read back bit by bit", () => {
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
  fc.assert(fc.property(tensors, (tensors) => {
    const read = readTorchFile(joinBytes(formatTorchFile(tensors, ["", "activation"])));
    assertEquals([...read.keys()], tensors.map(({ name }) => name));
    for (const { name, shape, data } of tensors) {
      assertEquals(read.get(name)!.shape, shape);
      assertEquals(read.get(name)!.dtype, "float32");
      assertEquals(new Uint32Array(read.get(name)!.read().slice().buffer), new Uint32Array(data.slice().buffer));
    }
  }));
});

Deno.test("records stand in PyTorch's order, and the id depends on every content", () => {
  const write = (value: number): Uint8Array =>
    joinBytes(formatTorchFile([{ name: "x", shape: [1], data: Float32Array.of(value) }], [""]));
  const records = readZip(write(1));
  assertEquals([...records.keys()], [
    "archive/data.pkl",
    "archive/.format_version",
    "archive/.storage_alignment",
    "archive/byteorder",
    "archive/data/0",
    "archive/version",
    "archive/.data/serialization_id",
  ]);
  const id = (bytes: Uint8Array): string =>
    new TextDecoder().decode(readZip(bytes).get("archive/.data/serialization_id"));
  assert(/^[0-9]{40}$/.test(id(write(1))));
  assertEquals(id(write(1)), id(write(1)));
  assert(id(write(1)) !== id(write(2)));
});

Deno.test("strides, offsets and shared storages are honoured", () => {
  assertEquals(readOne({ length: 12, shape: [3, 4], strides: [4, 1] }, COUNTING), [...COUNTING]);
  assertEquals(
    readOne({ length: 12, shape: [4, 3], strides: [1, 4] }, COUNTING),
    [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
  );
  assertEquals(readOne({ length: 12, shape: [2, 2], strides: [6, 3], offset: 1 }, COUNTING), [1, 4, 7, 10]);
  assertEquals(readOne({ length: 12, shape: [2, 3], strides: [3, 1], offset: 6 }, COUNTING), [6, 7, 8, 9, 10, 11]);
  assertEquals(readOne({ length: 12, shape: [1, 3], strides: [99, 1], offset: 9 }, COUNTING), [9, 10, 11]);
  assertEquals(readOne({ length: 12, shape: [2, 1, 2], strides: [1, 0, 6] }, COUNTING), [0, 6, 1, 7]);
  assertEquals(readOne({ length: 12, shape: [2, 2], strides: [0, 1] }, COUNTING), [0, 1, 0, 1]);
  assertEquals(readOne({ length: 12, shape: [], strides: [], offset: 5 }, COUNTING), [5]);
  assertEquals(readOne({ length: 12, shape: [0, 4], strides: [4, 1], offset: 50 }, COUNTING), []);
  assertEquals(readOne({ length: 0, shape: [0], strides: [1] }, new Float32Array()), []);

  const pkl = stateDict({
    W_dec: { length: 12, shape: [4, 3], strides: [3, 1] },
    W_enc: { length: 12, shape: [3, 4], strides: [1, 3] },
  });
  const read = readTorchFile(archive(pkl, { 0: COUNTING }));
  assertEquals([...read.get("W_dec")!.read()], [...COUNTING]);
  assertEquals([...read.get("W_enc")!.read()], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
});

Deno.test("any strided view is what indexing says", () => {
  const view = fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 9 })), { maxLength: 4 });
  const random = new Random(3);
  const storage = random.normal(300);
  fc.assert(fc.property(view, fc.integer({ min: 0, max: 40 }), (view, offset) => {
    const shape = view.map(([size]) => size);
    const strides = view.map(([, stride]) => stride);
    const expected = view.reduce(
      (places, [size, stride]) => places.flatMap((at) => Array.from({ length: size }, (_, i) => at + i * stride)),
      [offset],
    );
    assertEquals(readOne({ length: 300, shape, strides, offset }, storage), expected.map((at) => storage[at]!));
  }));
});

Deno.test("float32 in place is a view, anything else a copy", () => {
  const bytes = joinBytes(formatTorchFile([{ name: "x", shape: [12], data: COUNTING }], [""]));
  assertEquals(readTorchFile(bytes).get("x")!.read().buffer, bytes.buffer);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  const copied = readTorchFile(shifted.subarray(1)).get("x")!.read();
  assertNotStrictEquals(copied.buffer, shifted.buffer);
  assertEquals([...copied], [...COUNTING]);
});

Deno.test("every float16 widens exactly", () => {
  const halves = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const oracle = new Float32Array(new Float16Array(halves.buffer));
  const raw: RawTensor = { storageClass: "HalfStorage", length: 2 ** 16, shape: [2 ** 16], strides: [1] };
  const read = readOne(raw, halves);
  for (let i = 0; i < 2 ** 16; i++) assert(Object.is(read[i], oracle[i]), `half 0x${i.toString(16)}: ${read[i]}`);
});

Deno.test("bfloat16 widens exactly and float64 is rounded", () => {
  const floats = Float32Array.of(1, -2.5, 3.140625, 1e-40, Infinity);
  const upper = Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
  const expected = [...new Float32Array(Uint32Array.from(upper, (half) => half << 16).buffer)];
  const raw = { length: 5, shape: [5], strides: [1] };
  assertEquals(readOne({ ...raw, storageClass: "BFloat16Storage" }, upper), expected);
  const doubles = Float64Array.of(1 / 3, -1e-50, 2 ** 24 + 1, 1e39, 0.1);
  assertEquals(readOne({ ...raw, storageClass: "DoubleStorage" }, doubles), [...doubles].map(Math.fround));
});

Deno.test("both byte orders are read, on any device", () => {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat32(0, 1.5, false);
  view.setFloat32(4, -1e-3, false);
  const raw = { length: 2, shape: [2], strides: [1], location: "cuda:0" };
  const order = (text: string): RawRecord[] => [{ name: "m/byteorder", bytes: utf8(text) }];
  assertEquals(readOne(raw, view, order("big")), [1.5, Math.fround(-1e-3)]);
  const half = new DataView(new ArrayBuffer(2));
  half.setFloat16(0, 0.1, false);
  const one = { ...raw, length: 1, shape: [1] };
  assertEquals(readOne({ ...one, storageClass: "HalfStorage" }, half, order("big")), [half.getFloat16(0)]);
  assertEquals(readOne(raw, Float32Array.of(1.5, 2), order("little")), [1.5, 2]);
  assertThrows(() => readOne(raw, view, order("middle")), CheckpointError, `the byte order is "middle"`);
});

Deno.test("hand-made files that torch.load takes are read", () => {
  const hooks = [global("collections", "OrderedDict"), ")R"];
  const raw = { length: 12, shape: [12], strides: [1] };
  for (const variant of [{ hooks: "N" }, { hooks }, { grad: "\x88" }]) {
    assertEquals(readOne({ ...raw, ...variant }, COUNTING), [...COUNTING]);
  }
  const dotted = [{ name: "m/.anything/new", bytes: utf8("x") }];
  assertEquals(readOne(raw, COUNTING, dotted), [...COUNTING]);
});

Deno.test("hostile tensors are refused", () => {
  const raw: RawTensor = { length: 12, shape: [12], strides: [1] };
  const refused: [raw: Partial<RawTensor>, message: string][] = [
    [{ offset: 1 }, "reaches element 12 of 12"],
    [{ offset: -1 }, "another form"],
    [{ strides: [-1] }, "another form"],
    [{ strides: [2] }, "reaches element 22 of 12"],
    [{ strides: [2 ** 31 - 1] }, "reaches element"],
    [{ shape: [-12] }, "another form"],
    [{ shape: [13] }, "more elements than the storage's 12"],
    [{ shape: [2 ** 31 - 1], strides: [0] }, "more elements than the storage's 12"],
    [{ shape: Array(8).fill(2 ** 31 - 1), strides: Array(8).fill(0) }, "more elements"],
    [{ shape: Array(9).fill(1), strides: Array(9).fill(1) }, "another form"],
    [{ shape: [3, 4] }, "another form"],
    [{ length: 13 }, 'storage "0" has 48 bytes; 13 elements of float32 take 52'],
    [{ length: 11 }, "has 48 bytes; 11 elements of float32 take 44"],
    [{ length: -12 }, "names no storage"],
    [{ storageClass: "DoubleStorage" }, "12 elements of float64 take 96"],
    [{ storageClass: "LongStorage" }, `the name "torch.LongStorage"`],
    [{ storageClass: "load" }, `the name "torch.load"`],
    [{ kind: "module" }, "names no storage"],
    [{ hooks: ["}", unicode("a"), int(1), "s"] }, "another form"],
    [{ hooks: int(1) }, "another form"],
    [{ grad: int(0) }, "another form"],
    [{ more: "}" }, "another form"],
  ];
  for (const [change, message] of refused) {
    assertThrows(() => readOne({ ...raw, ...change }, COUNTING), CheckpointError, message);
  }
  assertThrows(
    () => readTorchFile(archive(stateDict({ x: { ...raw, key: "../../etc/passwd" } }), { 0: COUNTING })),
    CheckpointError,
    `no record "data/../../etc/passwd"`,
  );
});

Deno.test("files that are no flat dict of tensors are refused", () => {
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
    [archive(pickle("}", unicode("x"), unicode("y"), "s"), {}), `the entry "x" is "y"`],
    [archive(pickle("}", unicode("x"), global("torch", "FloatStorage"), "s"), {}), `is a storage class`],
    [archive(pickle("}", unicode("x"), global("collections", "OrderedDict"), "s"), {}), `is a name`],
    [archive(pickle(global("collections", "OrderedDict"), int(1), "\x85R"), {}), "an OrderedDict with arguments"],
    [archive(pickle("}", unicode("x"), int(1), "Qs"), {}), "names no storage"],
    [archive(good, {}), `no record "data/0"`],
    [archive(twoWays, { 0: COUNTING }), "described in two ways"],
    [archive(good, { 0: COUNTING }, [{ name: "m/code/__torch__.py", bytes: utf8("x") }]), "unknown record"],
    [archive(good, { 0: COUNTING }, [{ name: "n/data/1", bytes: utf8("x") }]), "not in the archive's one folder"],
    [rawZip([{ name: "data.pkl", bytes: good }]), "not in the archive's one folder"],
    [rawZip([{ name: "m/version", bytes: utf8("3") }]), `no record "data.pkl"`],
    [rawZip([{ name: "m/data.pkl", bytes: good }]), `no record "version"`],
    [rawZip([]), `no record "data.pkl"`],
    [version("11"), `version "11"`],
    [version("0"), `version "0"`],
    [version(""), `version ""`],
    [version("3 ".repeat(99)), "has version"],
  ];
  for (const [bytes, message] of refused) assertThrows(() => readTorchFile(bytes), CheckpointError, message);
});

Deno.test("the pickles of PyTorch before 1.6 are refused by name", () => {
  // How such a file starts: a magic number, the version of the protocol, and a dict about the system, a pickle each.
  const magic = ["\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", "M\xe9\x03", "}"].map((code) => pickle(code));
  assertThrows(
    () => readTorchFile(joinBytes(magic)),
    CheckpointError,
    "a bare pickle, as PyTorch wrote before version 1.6",
  );
});

Deno.test("a file of many tensors over one storage takes no more memory until they are read", () => {
  const raw: RawTensor = { length: 2 ** 20, shape: [2 ** 10, 2 ** 10], strides: [1, 2 ** 10] };
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`x${i}`, raw]));
  const bytes = archive(stateDict(many), { 0: new Float32Array(2 ** 20) });
  // Reading all of them at once would take 2 GB.
  assertEquals(readTorchFile(bytes).size, 500);
});
