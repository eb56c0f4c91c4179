/** `io/safetensors.ts` against files that the format's own package 0.8.0 wrote, and files made to do harm. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { formatSafetensors, readSafetensors, writeSafetensors } from "../../io/safetensors.ts";
import { bytesSource, joinBytes } from "../../io/source.ts";
import { countingSource } from "./counting_source.ts";
import { floats } from "./models.ts";
import { utf8 } from "./raw_zip.ts";

fc.configureGlobal({ seed: 0 });

function base64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** A file of this header and body. */
function raw(header: string | Uint8Array, body: number | Uint8Array = 0, length?: bigint): Uint8Array {
  const text = typeof header === "string" ? utf8(header) : header;
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  return joinBytes([prefix, text, typeof body === "number" ? new Uint8Array(body) : body]);
}

/** A file of these tensors' fields and so many bytes. */
function file(fields: Readonly<Record<string, unknown>>, body: number | Uint8Array): Uint8Array {
  return raw(JSON.stringify(fields), body);
}

function f32(begin: number, end: number, shape: readonly number[] = [(end - begin) / 4]): unknown {
  return { dtype: "F32", shape, data_offsets: [begin, end] };
}

async function readAll(bytes: Uint8Array): Promise<Map<string, number[]>> {
  const read = new Map<string, number[]>();
  for (const [name, tensor] of (await readSafetensors(bytesSource(bytes))).tensors) {
    const isFloat = tensor.dtype.includes("float");
    read.set(name, [...isFloat ? await tensor.read() : await tensor.readIntegers()]);
  }
  return read;
}

/** `A` of shape [0, 3], `W_enc` of [2, 3], `b_dec` of [2], `é"` of [], and the metadata `{"format": "pt"}`. */
const SAVED = base64(
  "CAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJBIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlswLDNdLCJkYXRhX29mZnNldHMi" +
    "OlswLDBdfSwiV19lbmMiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRhdGFfb2Zmc2V0cyI6WzAsMjRdfSwiYl9kZWMiOnsiZHR5cGUiOiJG" +
    "MzIiLCJzaGFwZSI6WzJdLCJkYXRhX29mZnNldHMiOlsyNCwzMl19LCLDqVwiIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMi" +
    "OlszMiwzNl19fSAAAAAAAACAPwAAAEAAAEBAAACAQAAAoEAAAMA/AAAAwAAAoEA=",
);
const TENSORS = [
  { name: 'é"', shape: [], data: Float32Array.of(5) },
  { name: "W_enc", shape: [2, 3], data: Float32Array.of(0, 1, 2, 3, 4, 5) },
  { name: "A", shape: [0, 3], data: new Float32Array() },
  { name: "b_dec", shape: [2], data: Float32Array.of(1.5, -2) },
];

Deno.test("a file of the format's own package is read", async () => {
  const { tensors, metadata } = await readSafetensors(bytesSource(SAVED));
  assertEquals([...metadata], [["format", "pt"]]);
  assertEquals([...tensors.keys()], ["A", "W_enc", "b_dec", 'é"']);
  for (const { name, shape, data } of TENSORS) {
    assertEquals(tensors.get(name)!.shape, shape);
    assertEquals(tensors.get(name)!.dtype, "float32");
    assertEquals(await tensors.get(name)!.read(), data);
  }
});

Deno.test("what is written is what the format's own package writes, whatever the order", () => {
  assertEquals(joinBytes(formatSafetensors(TENSORS, { format: "pt" })), SAVED);
  assertEquals(joinBytes(formatSafetensors(TENSORS.toReversed(), { format: "pt" })), SAVED);
  const texts = (metadata: Record<string, string>): Uint8Array => joinBytes(formatSafetensors([], metadata));
  assertEquals(texts({ a: "1", b: "2" }), texts({ b: "2", a: "1" }));
});

Deno.test("any tensors and texts read back", async () => {
  const tensors = fc.uniqueArray(
    fc.tuple(
      fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
      fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
    ).chain(([name, shape]) =>
      fc.record({
        name: fc.constant(name),
        shape: fc.constant(shape),
        data: floats(shape.reduce((product, size) => product * size, 1)),
      })
    ),
    { selector: ({ name }) => name, maxLength: 5 },
  );
  const metadata = fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }));
  await fc.assert(fc.asyncProperty(tensors, metadata, async (tensors, metadata) => {
    const bytes = joinBytes(formatSafetensors(tensors, metadata));
    assertEquals(new DataView(bytes.buffer).getUint32(0, true) % 8, 0);
    const read = await readSafetensors(bytesSource(bytes));
    assertEquals(read.metadata, new Map(Object.entries(metadata)));
    assertEquals(read.tensors.size, tensors.length);
    for (const { name, shape, data } of tensors) {
      const tensor = read.tensors.get(name)!;
      assertEquals(tensor.shape, shape);
      assertEquals(new Uint32Array((await tensor.read()).slice().buffer), new Uint32Array(data.slice().buffer));
    }
  }));
});

Deno.test("a file is written at a path", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeSafetensors(`${folder}/new/sae.safetensors`, TENSORS, { format: "pt" });
    assertEquals(await Deno.readFile(`${folder}/new/sae.safetensors`), SAVED);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("what cannot be written is refused", () => {
  const one = { name: "x", shape: [2], data: Float32Array.of(1, 2) };
  assertThrows(() => formatSafetensors([{ ...one, shape: [3] }]), RangeError, "x has 2 elements; expected [3]");
  assertThrows(() => formatSafetensors([one, one]), RangeError, "the name x is taken");
  assertThrows(() => formatSafetensors([{ ...one, name: "__metadata__" }]), RangeError, "is taken");
  assertThrows(() => formatSafetensors([], { a: "x".repeat(2 ** 22) }), RangeError, "expected at most 4194304");
});

Deno.test("all types of numbers are read, and no type as another", async () => {
  const buffer = new ArrayBuffer(8);
  const view = new DataView(buffer);
  const cases: [dtype: string, write: () => number, value: number][] = [
    ["F64", () => (view.setFloat64(0, 1 / 3, true), 8), Math.fround(1 / 3)],
    ["F32", () => (view.setFloat32(0, -0.1, true), 4), Math.fround(-0.1)],
    ["F16", () => (view.setFloat16(0, 0.1, true), 2), 0.0999755859375],
    ["BF16", () => (view.setUint16(0, 0xc049, true), 2), -3.140625],
    ["I64", () => (view.setBigInt64(0, -(2n ** 53n) + 1n, true), 8), -(2 ** 53) + 1],
    ["I32", () => (view.setInt32(0, -(2 ** 31), true), 4), -(2 ** 31)],
    ["I16", () => (view.setInt16(0, -32768, true), 2), -32768],
    ["I8", () => (view.setInt8(0, -128), 1), -128],
    ["U64", () => (view.setBigUint64(0, 2n ** 53n - 1n, true), 8), 2 ** 53 - 1],
    ["U32", () => (view.setUint32(0, 2 ** 32 - 1, true), 4), 2 ** 32 - 1],
    ["U16", () => (view.setUint16(0, 65535, true), 2), 65535],
    ["U8", () => (view.setUint8(0, 255), 1), 255],
    ["BOOL", () => (view.setUint8(0, 1), 1), 1],
  ];
  for (const [dtype, write, value] of cases) {
    const size = write();
    const body = new Uint8Array(buffer.slice(0, size));
    const bytes = file({ x: { dtype, shape: [], data_offsets: [0, size] } }, body);
    assertEquals((await readAll(bytes)).get("x"), [value], dtype);
    const tensor = (await readSafetensors(bytesSource(bytes))).tensors.get("x")!;
    const isFloat = dtype.includes("F");
    const [wrong, message] = isFloat
      ? [tensor.readIntegers(), "expected integers"]
      : [tensor.read(), "expected floating-point numbers"];
    await assertRejects(() => wrong, CheckpointError, `reading tensor "x": found ${tensor.dtype}; ${message}`);
  }
  const long = (dtype: string, bytes: readonly number[]): Uint8Array =>
    file({ x: { dtype, shape: [1], data_offsets: [0, bytes.length] } }, Uint8Array.from(bytes));
  const message = "expected less than 2^53";
  await assertRejects(() => readAll(long("I64", [0, 0, 0, 0, 0, 0, 32, 0])), CheckpointError, message);
  await assertRejects(() => readAll(long("U64", Array(8).fill(255))), CheckpointError, message);
  await assertRejects(() => readAll(long("BOOL", [2])), CheckpointError, "found 2; expected 0 or 1");
});

Deno.test("tensors may lie in any order, at any byte, in headers by other hands", async () => {
  const body = joinBytes([Uint8Array.of(7), new Uint8Array(Float32Array.of(1, 2, 3).buffer)]);
  const u8 = { dtype: "U8", shape: [1], data_offsets: [0, 1] };
  const bytes = file({ b: f32(9, 13), empty: f32(9, 9, [0, 5]), a: f32(1, 9, [1, 2]), c: u8 }, body);
  const expected: [string, number[]][] = [["b", [3]], ["empty", []], ["a", [1, 2]], ["c", [7]]];
  assertEquals([...await readAll(bytes)], expected);
  const spaced = '{\n  "x" : { "shape" : [ ] ,\t"data_offsets" : [ 0 , 4 ] , "dtype" : "F32" }\r\n}\n   ';
  assertEquals((await readAll(raw(spaced, 4))).get("x"), [0]);
  assertEquals((await readAll(raw("{}"))).size, 0);
  assertEquals((await readAll(raw('{"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'))).size, 1);
});

Deno.test("only the header is read at first, and then only what is asked for", async () => {
  const tensors = ["a", "b"].map((name) => ({ name, shape: [10_000], data: new Float32Array(10_000).fill(1) }));
  const counter = countingSource(joinBytes(formatSafetensors(tensors)));
  const read = await readSafetensors(counter);
  assert(counter.bytesRead < 200 && counter.reads === 2, `${counter.bytesRead} bytes in ${counter.reads} reads`);
  const before = counter.bytesRead;
  assertEquals(await read.tensors.get("b")!.read(), tensors[1]!.data);
  assertEquals([counter.bytesRead - before, counter.reads], [40_000, 3]);
});

Deno.test("float32 in memory is a view where it is aligned", async () => {
  const aligned = (await readSafetensors(bytesSource(SAVED))).tensors.get("W_enc")!;
  assertEquals((await aligned.read()).buffer, SAVED.buffer);
  const shifted = joinBytes([Uint8Array.of(0), SAVED]).subarray(1);
  const copied = (await readSafetensors(bytesSource(shifted))).tensors.get("W_enc")!;
  assertEquals(await copied.read(), TENSORS[1]!.data);
});

Deno.test("hostile files are refused", async () => {
  const x = f32(0, 4);
  const placed = (begin: unknown, end: unknown): Uint8Array =>
    file({ x: { dtype: "F32", shape: [1], data_offsets: [begin, end] } }, 4);
  const shaped = (shape: unknown, body = 4): Uint8Array =>
    file({ x: { dtype: "F32", shape, data_offsets: [0, body] } }, body);
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "found 0 bytes; expected 8 for the header's length alone"],
    [new Uint8Array(7), "found 7 bytes"],
    [new Uint8Array(8), "does not start with {"],
    [raw("{}", 0, 3n), "the file gives its header 3 bytes, but ends after 10"],
    [raw("{}", 0, 2n ** 22n), "the file gives its header 4194304 bytes, but ends"],
    [raw("{}", 0, 2n ** 22n + 1n), "the file gives its header 4194305 bytes; expected at most 4194304"],
    [raw("{}", 0, 2n ** 53n), "the file gives its header 9007199254740992 bytes"],
    [raw("{}", 0, 2n ** 63n), "the file gives its header 9223372036854775808 bytes"],
    [raw("{}", 0, 2n ** 64n - 1n), "the file gives its header 18446744073709551615 bytes"],
    [raw("{}", 1), "the tensors end after 0 bytes, but the file has 1 after its header"],
    [raw(" {}"), "does not start with {"],
    [raw("[]"), "does not start with {"],
    [raw('{"x":1}'), `tensor "x" is 1; expected an object`],
    [raw(Uint8Array.of(0x7b, 0xff, 0x7d)), "not UTF-8 text"],
    [raw("{}x"), "expected the end"],
    [raw('{"x":NaN}'), "expected a value"],
    [raw('{"x":1e999}'), "beyond float64"],
    [raw(`{"x":${"[".repeat(100_000)}`), "more than 16 levels of nesting"],
    [raw(`{"x":[${"{},".repeat(140_000)}{}]}`), "more than 32768 objects, lists and strings"],
    [raw(`{"x":${JSON.stringify(x)},"x":${JSON.stringify(x)}}`, 4), `the key "x" appears twice`],
    [raw('{"x":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4), `the key "dtype" appears twice`],
    [file({ __metadata__: "x" }, 0), `__metadata__ is "x"; expected an object of strings`],
    [file({ __metadata__: { a: 1 } }, 0), `__metadata__."a" is 1; expected a string`],
    [file({ __metadata__: { a: null } }, 0), `."a" is null`],
    [file({ x: null }, 0), `tensor "x" is null`],
    [file({ x: { ...x as object, more: 1 } }, 4), `has the unknown field "more"`],
    [file({ x: { dtype: "F32", shape: [1] } }, 4), "has the data_offsets undefined"],
    [file({ x: { dtype: "F32", data_offsets: [0, 4] } }, 4), "has the shape undefined"],
    [file({ x: { shape: [1], data_offsets: [0, 4] } }, 4), "has the dtype undefined; expected one of F64, F32"],
    [file({ x: { ...x as object, dtype: "F8_E4M3" } }, 4), `has the dtype "F8_E4M3"`],
    [file({ x: { ...x as object, dtype: "__proto__" } }, 4), `has the dtype "__proto__"`],
    [file({ x: { ...x as object, dtype: 32 } }, 4), "has the dtype 32"],
    [shaped([-1]), "has the shape [-1]; expected at most 8 integers"],
    [shaped([0.5]), "has the shape [0.5]"],
    [shaped([2 ** 53]), "has the shape [9007199254740992]"],
    [shaped(["1"]), `has the shape ["1"]`],
    [shaped(4), "has the shape 4"],
    [shaped(Array(9).fill(1)), "has the shape [1, 1, 1, 1, 1, 1, 1, 1, 1]"],
    [shaped([2]), "occupies bytes 0 to 4; float32 of shape [2] needs 8 bytes"],
    [shaped(Array(8).fill(2 ** 53 - 1)), "needs"],
    [shaped([2 ** 52, 2 ** 52, 0]), "needs 0 bytes"],
    [placed(0, 8), "occupies bytes 0 to 8"],
    [placed(4, 0), "occupies bytes 4 to 0"],
    [placed(-4, 0), "has the data_offsets [-4, 0]"],
    [placed(0.5, 4.5), "has the data_offsets [0.5, 4.5]"],
    [placed(2 ** 53, 2 ** 53 + 4), "has the data_offsets [9007199254740992"],
    [placed(2 ** 63, 2 ** 63), "has the data_offsets"],
    [placed(0, "4"), `has the data_offsets [0, "4"]`],
    [file({ x: { dtype: "F32", shape: [1], data_offsets: [0, 4, 8] } }, 4), "has the data_offsets [0, 4, 8]"],
    [placed(4, 8), `tensor "x" starts at byte 4 and leaves a gap after the tensor that ends at 0`],
    [
      file({ x: f32(0, 4), y: f32(8, 12) }, 12),
      `tensor "y" starts at byte 8 and leaves a gap after the tensor that ends at 4`,
    ],
    [file({ x: f32(0, 8), y: f32(4, 12) }, 12), `tensor "y" starts at byte 4 and overlaps the tensor that ends at 8`],
    [file({ x: f32(0, 8), y: f32(0, 8) }, 8), "overlaps the tensor that ends at 8"],
    [file({ x: f32(0, 8), y: f32(4, 4) }, 8), "overlaps the tensor that ends at 8"],
    [file({ x: f32(0, 8) }, 7), "the tensors end after 8 bytes, but the file has 7 after its header"],
    [file({ x: f32(0, 8) }, 9), "but the file has 9 after its header"],
    [file({ x: f32(0, 2 ** 40) }, 8), "the tensors end after 1099511627776 bytes"],
  ];
  for (const [bytes, message] of refused) {
    const error = await assertRejects(() => readAll(bytes), CheckpointError, message);
    assert(error.message.length < 400, error.message);
  }
});

Deno.test("every truncation is refused, and no damaged byte does anything else than change a number or a name", async () => {
  for (let length = 0; length < SAVED.length; length++) {
    await assertRejects(() => readAll(SAVED.subarray(0, length)), CheckpointError);
  }
  let refused = 0;
  for (let at = 0; at < SAVED.length; at++) {
    for (const flip of [1, 2, 4, 8, 16, 32, 64, 128, 255]) {
      const bytes = SAVED.slice();
      bytes[at]! ^= flip;
      try {
        // As many numbers as before, in as many tensors: nothing but the numbers and names is free.
        const read = await readAll(bytes);
        assertEquals([...read.values()].reduce((sum, { length }) => sum + length, 0), 9, `byte ${at}`);
      } catch (error) {
        assert(error instanceof CheckpointError, String(error));
        refused++;
      }
    }
  }
  assert(refused > 1000, `${refused} refused`);
});
