/** `io/json_header.ts`: strict reading, and writing as Python's writers do. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import type { JsonObject, JsonValue } from "../../io/json.ts";
import { formatHeader, HeaderFields, parseHeader, PythonFloat, splitHeader } from "../../io/json_header.ts";
import { bytesSource, joinBytes } from "../../io/source.ts";
import { joined, utf8 } from "./raw_zip.ts";

fc.configureGlobal({ seed: 0 });

/** Any UTF-16 code unit, also half of a pair; often one of those that JSON escapes. */
const unit = fc.oneof(fc.nat(0xffff), fc.nat(0x7f)).map((code) => String.fromCharCode(code));

function plain(value: JsonValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, field]) => [key, plain(field)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

Deno.test("valid JSON means what JSON.parse says", () => {
  const anyJson = fc.dictionary(fc.string({ unit }), fc.jsonValue({ maxDepth: 4, stringUnit: unit }));
  fc.assert(fc.property(anyJson, fc.boolean(), (value, spaced) => {
    const text = spaced ? JSON.stringify(value, null, "\t").replaceAll("\n", "\r") : JSON.stringify(value);
    assertEquals(plain(parseHeader(text)), plain(toMaps(JSON.parse(text))));
  }));
});

function toMaps(value: unknown): JsonValue {
  if (Array.isArray(value)) return value.map(toMaps);
  if (typeof value !== "object" || value === null) return value as JsonValue;
  return new Map(Object.entries(value).map(([key, field]) => [key, toMaps(field)]));
}

Deno.test("__proto__ is a key like any other", () => {
  const object = parseHeader('{"__proto__":{"polluted":1},"constructor":2}');
  assertEquals([...object.keys()], ["__proto__", "constructor"]);
  assertEquals(({} as Record<string, unknown>).polluted, undefined);
});

Deno.test("what is not strict JSON is refused", () => {
  const refused: [text: string, message: string][] = [
    ['{"a":1,"a":2}', `the key "a" appears twice`],
    ['{"a":{"b":1,"\\u0062":2}}', `the key "b" appears twice`],
    ['{"a":NaN}', "expected a value"],
    ['{"a":-Infinity}', "expected a value"],
    ['{"a":1e999}', "beyond float64"],
    ['{"a":-1e400}', "beyond float64"],
    ['{"a":01}', `expected "," or "}"`],
    ['{"a":+1}', "expected a value"],
    ['{"a":.5}', "expected a value"],
    ['{"a":1.}', `expected "," or "}"`],
    ['{"a":0x10}', `expected "," or "}"`],
    ['{"a":tru}', "expected a value"],
    ['{"a":1,}', "expected a key"],
    ['{"a":[1,]}', "expected a value"],
    ['{"a":[1 2]}', `expected "," or "]"`],
    ['{"a" 1}', `expected ":"`],
    ["{'a':1}", "expected a key"],
    ['{"a":"x', "without a closing quote"],
    ['{"a":"x\\"}', "without a closing quote"],
    ['{"a":"\u0001"}', "control character"],
    ['{"a":"\\x41"}', "unknown escape"],
    ['{"a":"\\u00g0"}', "unknown escape"],
    ['{"a":1} // no', "expected the end"],
    ['{"a":1}{"b":2}', "expected the end"],
    ["{", "expected a key"],
    ["", "expected a value"],
    ["[1]", "not a JSON object"],
    ["1", "not a JSON object"],
    [`{"a":${"[".repeat(17)}${"]".repeat(17)}}`, "levels of nesting"],
    [`{"a":${"[".repeat(1_000_000)}`, "levels of nesting"],
    ['{"a":'.repeat(100_000), "levels of nesting"],
  ];
  for (const [text, message] of refused) assertThrows(() => parseHeader(text), CheckpointError, message);
});

Deno.test("sixteen levels are read", () => {
  const text = `{"a":${"[".repeat(16)}${"]".repeat(16)}}`;
  assertEquals(plain(parseHeader(text)), JSON.parse(text));
});

Deno.test("a header is the first line", async () => {
  for (const length of [0, 1, 2 ** 14, 2 ** 21 - 20]) {
    const line = `{"a":"é${"x".repeat(length)}"}`;
    const { header, body } = await splitHeader(bytesSource(joinBytes([utf8(`${line}\n`), Uint8Array.of(1, 10, 2)])));
    assertEquals(header, line);
    assertEquals([...await body.read(0, body.size)], [1, 10, 2]);
  }
});

Deno.test("files without a header line are told apart", async () => {
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "an empty file"],
    [utf8("PK\x03\x04\n"), "a bare torch.save"],
    [Uint8Array.of(0x80, 2, 0x8a, 0x0a), "a bare pickle"],
    [utf8('{"schema":5}'), "no end of the header line within 12 bytes"],
    [utf8("\x89PNG\n"), "starts with the bytes c2 89 50 4e 47 0a"],
    [joined([utf8('{"a":"'), Uint8Array.of(0xff), utf8('"}\n')]), "not UTF-8"],
  ];
  for (const [bytes, message] of refused) {
    await assertRejects(() => splitHeader(bytesSource(bytes)), CheckpointError, message);
  }
  const endless = new Uint8Array(2 ** 21 + 9).fill(0x20);
  endless[0] = 0x7b;
  endless[2 ** 21 + 5] = 0x0a;
  await assertRejects(() => splitHeader(bytesSource(endless)), CheckpointError, "within 2097152 bytes");
});

Deno.test("headers of many parts, and headers too long to be read again, are refused", () => {
  for (const part of ["[]", "{}", '""', '{"a":0}', "[[]]"]) {
    const header = (count: number): string => `{"a":[${Array(count).fill(part)}]}`;
    parseHeader(header(1000));
    assertThrows(() => parseHeader(header(5000)), CheckpointError, "more than 4096 objects, lists and strings");
  }
  assertThrows(
    () => parseHeader(`{${Array.from({ length: 5000 }, (_, i) => `"${i}":0`)}}`),
    CheckpointError,
    "more than 4096",
  );
  // Numbers are what long headers consist of.
  const numbers = Array.from({ length: 85_000 }, (_, i) => new PythonFloat(-i / 3 * 1e-100));
  assertEquals((parseHeader(formatHeader({ a: numbers }, "orjson")).get("a") as number[]).length, 85_000);
  const more = [...numbers, ...numbers];
  assertThrows(() => formatHeader({ a: more }, "orjson"), CheckpointError, "expected at most 2097152");
});

Deno.test("floats are written as Python's writers lay them out", () => {
  // Printed by orjson 3.13.0 and Python 3.11.
  const cases: [value: number, orjson: string, dumps: string][] = [
    [0.001, "0.001", "0.001"],
    [0.0001, "0.0001", "0.0001"],
    [0.0004, "0.0004", "0.0004"],
    [0.00001, "0.00001", "1e-05"],
    [0.000015, "0.000015", "1.5e-05"],
    [1e-6, "1e-6", "1e-06"],
    [1.234e-7, "1.234e-7", "1.234e-07"],
    [1.5e-12, "1.5e-12", "1.5e-12"],
    [0.03125, "0.03125", "0.03125"],
    [1, "1.0", "1.0"],
    [0, "0.0", "0.0"],
    [-0, "-0.0", "-0.0"],
    [100, "100.0", "100.0"],
    [1e15, "1000000000000000.0", "1000000000000000.0"],
    [1e16, "1e+16", "1e+16"],
    [1234567890123456789, "1.2345678901234568e+18", "1.2345678901234568e+18"],
    [1.7976931348623157e308, "1.7976931348623157e+308", "1.7976931348623157e+308"],
    [5e-324, "5e-324", "5e-324"],
    [1 / 3, "0.3333333333333333", "0.3333333333333333"],
  ];
  for (const [value, orjson, dumps] of cases) {
    assertEquals(formatHeader(new PythonFloat(value), "orjson"), orjson);
    assertEquals(formatHeader(new PythonFloat(value), "json.dumps"), dumps);
  }
});

Deno.test("what is written reads back, in ASCII, whatever the strings", () => {
  const value = fc.record({
    float: fc.double({ noNaN: true, noDefaultInfinity: true }),
    int: fc.maxSafeInteger(),
    text: fc.string({ unit }),
    list: fc.array(fc.boolean()),
  });
  fc.assert(fc.property(value, fc.constantFrom("orjson", "json.dumps"), (value, style) => {
    const text = formatHeader({ ...value, float: new PythonFloat(value.float) }, style);
    assert(/^[ -~]*$/.test(text));
    const object = parseHeader(text);
    assert(Object.is(object.get("float"), value.float));
    assertEquals(plain(object), { ...value });
  }));
});

Deno.test("fields are read by name and type", () => {
  const object = parseHeader('{"n":1.5,"i":3,"b":false,"s":"x","o":{"in":1},"l":[1,2],"z":0}');
  const fields = new HeaderFields("cfg", object);
  assertEquals(fields.number("n"), 1.5);
  assertEquals(fields.integer("i"), 3);
  assertEquals(fields.boolean("b", true), false);
  assertEquals(fields.string("s"), "x");
  assertEquals(fields.numbers("l"), [1, 2]);
  assertEquals(fields.integer("z", 7), 0);
  assertEquals(fields.integer("absent", 7), 7);
  assertThrows(() => fields.object("o").done(), CheckpointError, `reading cfg.o: unknown field "in"`);
  fields.done();
});

Deno.test("fields of another type, missing and unknown ones are named", () => {
  const read = (text: string, use: (fields: HeaderFields) => unknown): () => unknown => () =>
    use(new HeaderFields("cfg", parseHeader(text) as JsonObject));
  const refused: [run: () => unknown, message: string][] = [
    [read('{"n":"1"}', (f) => f.number("n")), `reading cfg: n is "1"; expected a number`],
    [read('{"n":1.5}', (f) => f.integer("n")), "n is 1.5; expected an integer"],
    [read('{"n":null}', (f) => f.boolean("n", true)), "n is null; expected true or false"],
    [read('{"n":[1]}', (f) => f.string("n")), "n is a list; expected a string"],
    [read('{"n":[1]}', (f) => f.object("n")), "n is a list; expected an object"],
    [read('{"n":[1,"2"]}', (f) => f.numbers("n")), "n is a list; expected a list of numbers"],
    [read('{"n":{}}', (f) => f.number("n")), "n is an object"],
    [read("{}", (f) => f.number("n")), `the field "n" is missing; expected a number`],
    [read('{"__proto__":1,"n":2}', (f) => (f.number("n"), f.done())), `unknown field "__proto__"; expected n`],
  ];
  for (const [run, message] of refused) assertThrows(run, CheckpointError, message);
});
