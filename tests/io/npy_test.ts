/** `io/npy.ts` against files that NumPy 2.4.6 wrote. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { readNpy, writeNpy } from "../../io/npy.ts";
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

Deno.test("files of NumPy are read", () => {
  for (const [type, fortran, version, file] of SAVED) {
    const bytes = base64(file);
    assertEquals(bytes[6], version);
    const { data, rows, cols } = readNpy(bytes);
    const half = type.endsWith("2");
    const expected = half ? new Float32Array(Float16Array.from(EXPECTED)) : EXPECTED;
    assertEquals([rows, cols], [2, 3]);
    assert(data.every((value, i) => Object.is(value, expected[i])), `${type} ${fortran}: ${data}`);
  }
});

Deno.test("aligned float32 in C order is a view, anything else a copy", () => {
  const bytes = base64(SAVED[0]![3]);
  assertEquals(readNpy(bytes).data.buffer, bytes.buffer);
  const shifted = joined([Uint8Array.of(0), bytes]);
  const { data } = readNpy(shifted.subarray(1));
  assert(data.buffer !== shifted.buffer);
  assertEquals(data, EXPECTED);
});

Deno.test("what is written is what NumPy writes", () => {
  assertEquals(writeNpy({ data: EXPECTED, rows: 2, cols: 3 }), base64(SAVED[0]![3]));
});

Deno.test("a matrix reads back bit by bit", () => {
  const size = fc.integer({ min: 0, max: 12 });
  const matrix = fc.tuple(size, size).chain(([rows, cols]) =>
    fc.record({ rows: fc.constant(rows), cols: fc.constant(cols), data: floats(rows * cols) })
  );
  fc.assert(fc.property(matrix, (matrix) => {
    const bytes = writeNpy(matrix);
    const read = readNpy(bytes);
    assertEquals([read.rows, read.cols], [matrix.rows, matrix.cols]);
    assertEquals(new Uint32Array(read.data.slice().buffer), new Uint32Array(matrix.data.slice().buffer));
    assertEquals((bytes.length - 4 * matrix.data.length) % 64, 0);
  }));
});

Deno.test("NaN and infinities are numbers", () => {
  const data = Float32Array.of(NaN, Infinity, -Infinity, 0);
  assertEquals(readNpy(writeNpy({ data, rows: 2, cols: 2 })).data, data);
});

Deno.test("headers of other writers are read", () => {
  const dicts = [
    "{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False}",
    "{'descr':'<f4','fortran_order':False,'shape':(2,3)}",
    "{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , }   ",
  ];
  for (const dict of dicts) assertEquals(readNpy(npy(dict)).data.length, 6);
});

Deno.test("anything else is refused", () => {
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "the file of 0 bytes does not start"],
    [utf8("PK\x03\x04 and more of a zip"), "does not start as .npy files do"],
    [npy(DICT, 24, [4, 0]), "found version 4.0"],
    [npy(DICT, 24, [1, 1]), "found version 1.1"],
    [npy(DICT, 23), "found 23 bytes of numbers; 2 × 3 of float32 take 24"],
    [npy(DICT, 25), "found 25 bytes of numbers"],
    [npy(DICT.replace("2", "9007199254740993")), "found 24 bytes"],
    [npy(DICT.replace("<f4", "<i4")), "found the type '<i4'"],
    [npy(DICT.replace("<f4", "|O")), "found the type '|O'"],
    [npy(DICT.replace("<f4", "f4")), "found the type 'f4'"],
    [npy(DICT.replace("(2, 3)", "(6,)")), "found the shape (6,); expected (rows, columns)"],
    [npy(DICT.replace("(2, 3)", "()")), "found the shape ()"],
    [npy(DICT.replace("(2, 3)", "(1, 2, 3)")), "found the shape (1, 2, 3)"],
    [npy(DICT.replace("(2, 3)", "(-2, -3)")), "expected descr, fortran_order and shape"],
    [npy(DICT.replace("False", "None")), "expected descr, fortran_order and shape"],
    [npy(DICT.replace("False", "'False'")), "fortran_order is 'False'"],
    [npy(DICT.replace("'<f4'", "[('a', '<f4')]")), "of a plain array"],
    [npy(DICT.replace("}", "'shape': (2, 3)}")), "of a plain array"],
    [npy(DICT.replace("}", "'more': (2, 3)}")), "of a plain array"],
    [npy("{'descr': '<f4', 'fortran_order': False}"), "found the shape undefined"],
    [npy("{'descr': '<f4', 'shape': (2, 3)}"), "fortran_order is undefined"],
    [npy("{}"), "found the type undefined"],
    [npy("__import__('os')"), "expected a dict"],
    [npy(""), "expected a dict"],
  ];
  for (const [bytes, message] of refused) assertThrows(() => readNpy(bytes), CheckpointError, message);
  const wide = new Uint8Array(100);
  wide.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 2, 0, 255, 255, 255, 255]);
  assertThrows(() => readNpy(wide), CheckpointError, "the header is cut off, or over 1 MiB long");
});

Deno.test("every truncation is refused", () => {
  for (const [, , , file] of SAVED) {
    const bytes = base64(file);
    for (let length = 0; length < bytes.length; length++) {
      assertThrows(() => readNpy(bytes.subarray(0, length)), CheckpointError);
    }
  }
});

Deno.test("a matrix of another length than its shape is not written", () => {
  assertThrows(() => writeNpy({ data: new Float32Array(5), rows: 2, cols: 3 }), RangeError, "found 5 elements");
});
