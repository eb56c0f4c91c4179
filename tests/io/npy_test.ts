/** `io/npy.ts` against files that NumPy 2.4.6 wrote. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { type NpyMatrix, openNpy, readNpy, writeNpy } from "../../io/npy.ts";
import { bytesSource } from "../../io/source.ts";
import { countingSource } from "./counting_source.ts";
import { floats } from "./models.ts";
import { joined, utf8 } from "./raw_zip.ts";

fc.configureGlobal({ seed: 0 });

/** `[[1.5, −2.25, 3], [0.125, float32(1e-3), −0]]` as NumPy saves it: type, Fortran order, version, file. */
const SAVED: [type: string, fortran: boolean, version: number, base64: string][] = [
  [
    "<f4",
    false,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAMA/AAAQwAAAQEAAAAA+bxKDOgAA" +
    "AIA=",
  ],
  [
    ">f4",
    false,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPmY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAo/wAAAwBAAAEBAAAA+AAAAOoMSb4AA" +
    "AAA=",
  ],
  [
    "<f8",
    false,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAAD4PwAAAAAAAALAAAAAAAAA" +
    "CEAAAAAAAADAPwAAAOBNYlA/AAAAAAAAAIA=",
  ],
  [
    ">f8",
    true,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPmY4JywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAo/+AAAAAAAAD/AAAAAAAAAwAIAAAAA" +
    "AAA/UGJN4AAAAEAIAAAAAAAAgAAAAAAAAAA=",
  ],
  [
    "<f2",
    true,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGYyJywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAPgAwgMAZFABCAIA=",
  ],
  [
    ">f2",
    false,
    1,
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPmYyJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAo+AMCAQgAwABQZgAA=",
  ],
  [
    "<f4",
    true,
    2,
    "k05VTVBZAgB0AAAAeydkZXNjcic6ICc8ZjQnLCAnZm9ydHJhbl9vcmRlcic6IFRydWUsICdzaGFwZSc6ICgyLCAzKSwgfSAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAMA/AAAAPgAAEMBvEoM6AABAQAAA" +
    "AIA=",
  ],
  [
    "<f4",
    false,
    3,
    "k05VTVBZAwB0AAAAeydkZXNjcic6ICc8ZjQnLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAMA/AAAQwAAAQEAAAAA+bxKDOgAA" +
    "AIA=",
  ],
];

const EXPECTED = Float32Array.of(1.5, -2.25, 3, 0.125, 1e-3, -0);

function base64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function read(bytes: Uint8Array): Promise<NpyMatrix> {
  return readNpy(bytesSource(bytes));
}

/** A file with this header text and so many bytes of numbers. */
function npy(dict: string, size = 24, version: [number, number] = [1, 0]): Uint8Array {
  const header = utf8(`${dict}\n`);
  return joined([
    Uint8Array.of(0x93),
    utf8("NUMPY"),
    Uint8Array.of(...version, header.length & 255, header.length >> 8),
    header,
    new Uint8Array(size),
  ]);
}

const DICT = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

Deno.test("files of NumPy are read", async () => {
  for (const [type, fortran, version, file] of SAVED) {
    const bytes = base64(file);
    assertEquals(bytes[6], version);
    const { data, rows, cols } = await read(bytes);
    const half = type.endsWith("2");
    const expected = half ? new Float32Array(Float16Array.from(EXPECTED)) : EXPECTED;
    assertEquals([rows, cols], [2, 3]);
    assert(data.every((value, i) => Object.is(value, expected[i])), `${type} ${fortran}: ${data}`);
  }
});

Deno.test("aligned float32 in C order is a view, anything else a copy", async () => {
  const bytes = base64(SAVED[0]![3]);
  assertEquals((await read(bytes)).data.buffer, bytes.buffer);
  const shifted = joined([Uint8Array.of(0), bytes]);
  const { data } = await read(shifted.subarray(1));
  assert(data.buffer !== shifted.buffer);
  assertEquals(data, EXPECTED);
});

Deno.test("what is written is what NumPy writes", () => {
  assertEquals(writeNpy({ data: EXPECTED, rows: 2, cols: 3 }), base64(SAVED[0]![3]));
});

Deno.test("a matrix reads back bit by bit", async () => {
  const size = fc.integer({ min: 0, max: 12 });
  const matrix = fc.tuple(size, size).chain(([rows, cols]) =>
    fc.record({ rows: fc.constant(rows), cols: fc.constant(cols), data: floats(rows * cols) })
  );
  await fc.assert(fc.asyncProperty(matrix, async (matrix) => {
    const bytes = writeNpy(matrix);
    const found = await read(bytes);
    assertEquals([found.rows, found.cols], [matrix.rows, matrix.cols]);
    assertEquals(new Uint32Array(found.data.slice().buffer), new Uint32Array(matrix.data.slice().buffer));
    assertEquals((bytes.length - 4 * matrix.data.length) % 64, 0);
  }));
});

Deno.test("NaN and infinities are numbers", async () => {
  const data = Float32Array.of(NaN, Infinity, -Infinity, 0);
  assertEquals((await read(writeNpy({ data, rows: 2, cols: 2 }))).data, data);
});

Deno.test("headers of other writers are read", async () => {
  const dicts = [
    "{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False}",
    "{'descr':'<f4','fortran_order':False,'shape':(2,3)}",
    "{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , }   ",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
    `${DICT}${" ".repeat(20_000)}`,
  ];
  for (const dict of dicts) assertEquals((await read(npy(dict))).data.length, 6);
});

Deno.test("anything else is refused", async () => {
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "the file of 0 bytes does not start"],
    [utf8("PK\x03\x04 and more of a zip"), "does not start like a .npy file"],
    [npy(DICT, 24, [4, 0]), "found version 4.0"],
    [npy(DICT, 24, [1, 1]), "found version 1.1"],
    [npy(DICT, 23), "found 23 bytes of numbers; float32 of shape [2,3] needs 24"],
    [npy(DICT, 25), "found 25 bytes of numbers"],
    [npy(DICT.replace("2", "9007199254740993")), "found the shape (9007199254740993, 3); expected a tuple"],
    [npy(DICT.replace("2", "9007199254740991")), "found 24 bytes"],
    [npy(DICT.replace("2, 3", `${"9007199254740991, ".repeat(8)}`)), "found 24 bytes of numbers"],
    [npy(DICT.replace("<f4", "<i4")), "found int32; expected floating-point numbers"],
    [npy(DICT.replace("<f4", "|f4")), "found the type '|f4'; expected numbers or bools"],
    [npy(DICT.replace("<f4", "<u1")), "found the type '<u1'"],
    [npy(DICT.replace("<f4", "<c8")), "found the type '<c8'"],
    [npy(DICT.replace("<f4", "|V2")), "found the type '|V2'"],
    [npy(DICT.replace("<f4", `<${"f".repeat(5000)}`)), "found the type '<ffff"],
    [npy(DICT.replace("<f4", "|O")), "found the type '|O'"],
    [npy(DICT.replace("<f4", "f4")), "found the type 'f4'"],
    [npy(DICT.replace("(2, 3)", "(6,)")), "found the shape [6]; expected [rows, columns]"],
    [npy(DICT.replace("(2, 3)", "()")), "found 24 bytes of numbers; float32 of shape [] needs 4"],
    [npy(DICT.replace("(2, 3)", "(1, 2, 3)")), "found the shape [1,2,3]"],
    [npy(DICT.replace("(2, 3)", "(-2, -3)")), "expected descr, fortran_order and shape"],
    [npy(DICT.replace("False", "None")), "expected descr, fortran_order and shape"],
    [npy(DICT.replace("False", "'False'")), "fortran_order is 'False'"],
    [npy(DICT.replace("'<f4'", "[('a', '<f4')]")), "found the type [('a', '<f4')], which is structured"],
    [npy(DICT.replace("'<f4'", "[('a', [('b', [('c', '<f4')])])]")), "of a plain array"],
    [npy(DICT.replace("(2, 3)", "(2L, L)")), "found the shape (2L, L); expected a tuple"],
    [npy(DICT.replace("}", "'shape': (2, 3)}")), "of a plain array"],
    [npy(DICT.replace("}", "'more': (2, 3)}")), "of a plain array"],
    [npy("{'descr': '<f4', 'fortran_order': False}"), "found the shape none"],
    [npy(DICT.replace("(2, 3)", "(6)")), "found the shape (6); expected a tuple of at most 8 sizes"],
    [npy(DICT.replace("(2, 3)", "(2,, 3)")), "found the shape (2,, 3); expected a tuple"],
    [npy(DICT.replace("(2, 3)", "(,)")), "found the shape (,); expected a tuple"],
    [npy(DICT.replace("(2, 3)", "(2 3)")), "found the shape (2 3); expected a tuple"],
    [npy(DICT.replace("(2, 3)", `(${"1,".repeat(9)})`)), "expected a tuple of at most 8 sizes"],
    [npy(DICT.replace("(2, 3)", `(1,${" ".repeat(50_000)}1 1)`)), "expected a tuple"],
    [npy("{'descr': '<f4', 'shape': (2, 3)}"), "fortran_order is none"],
    [npy("{}"), "fortran_order is none"],
    [npy("{'fortran_order': False}"), "found the type none"],
    [npy("__import__('os')"), "expected a dict"],
    [npy(""), "expected a dict"],
  ];
  for (const [bytes, message] of refused) {
    const error = await assertRejects(() => read(bytes), CheckpointError, message);
    assert(error.message.length < 300, error.message);
  }
  const wide = new Uint8Array(100);
  wide.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 2, 0, 255, 255, 255, 255]);
  await assertRejects(() => read(wide), CheckpointError, "the header is cut off or longer than 1 MiB");
});

Deno.test("every truncation is refused", async () => {
  for (const [, , , file] of SAVED) {
    const bytes = base64(file);
    for (let length = 0; length < bytes.length; length++) {
      await assertRejects(() => read(bytes.subarray(0, length)), CheckpointError);
    }
  }
});

/** Arrays that are no matrix of floats, as NumPy saves them: shape, elements, file. */
const ARRAYS: [what: string, shape: number[], elements: number[], base64: string][] = [
  [
    ">i2 in Fortran order",
    [2, 3, 4],
    [0, 6, 12, 18, 2, 8, 14, 20, 4, 10, 16, 22, 1, 7, 13, 19, 3, 9, 15, 21, 5, 11, 17, 23],
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPmkyJywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMywgNCksIH0gICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAABAAIAAwAEAAUABgAHAAgACQAK" +
    "AAsADAANAA4ADwAQABEAEgATABQAFQAWABc=",
  ],
  [
    "|i1 of no dimension",
    [],
    [7],
    "k05VTVBZAQB2AHsnZGVzY3InOiAnfGkxJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKCksIH0gICAgICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoH",
  ],
  [
    "<u8 without elements",
    [0],
    [],
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPHU4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDAsKSwgfSAgICAgICAg" +
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAo=",
  ],
];

for (const [what, shape, elements, file] of ARRAYS) {
  Deno.test(`an array of any shape is opened: ${what}`, async () => {
    const tensor = await openNpy(bytesSource(base64(file)));
    assertEquals(tensor.shape, shape);
    assertEquals([...await tensor.readIntegers()], elements);
    await assertRejects(() => tensor.read(), CheckpointError, "expected floating-point numbers");
  });
}

Deno.test("only the header is read until the numbers are asked for", async () => {
  const data = new Float32Array(50_000).fill(2);
  const bytes = writeNpy({ data, rows: 50, cols: 1000 });
  const counter = countingSource(bytes);
  const tensor = await openNpy(counter);
  assertEquals([tensor.shape, tensor.dtype, counter.reads, counter.bytesRead], [[50, 1000], "float32", 1, 4096]);
  assertEquals(await tensor.read(), data);
  assertEquals([counter.reads, counter.bytesRead], [2, 4096 + bytes.length]);
});

Deno.test("a matrix of another length than its shape is not written", () => {
  assertThrows(() => writeNpy({ data: new Float32Array(5), rows: 2, cols: 3 }), RangeError, "found 5 elements");
});
