/** `io/pickle.ts` and `io/pickle_writer.ts`: what state dicts consist of, and pickles made to do harm. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import {
  PickledDict,
  PickledList,
  PickledObject,
  PickledRecord,
  type PickledTuple,
  type PickledValue,
  unpickle,
  type Vocabulary,
} from "../../io/pickle.ts";
import { PickleWriter } from "../../io/pickle_writer.ts";
import { assemble, type Code, global, int, pickle, uint32, unicode } from "./raw_pickle.ts";

fc.configureGlobal({ seed: 0 });

class Marker extends PickledObject {
  override readonly what = "a marker";
}

const MARKER = new Marker();
const CALLS: PickledTuple[] = [];
const VOCABULARY: Vocabulary = {
  constants: new Map([["torch.FloatStorage", MARKER]]),
  callables: new Map<string, (args: PickledTuple) => PickledValue>([
    ["collections.OrderedDict", () => new PickledDict()],
    ["m.call", (args) => {
      CALLS.push(args);
      return args.length;
    }],
  ]),
  persistent: (id) => ["persistent", id],
};

function read(...codes: Code[]): PickledValue {
  return unpickle(pickle(...codes), VOCABULARY);
}

Deno.test("values mean what Python's pickle says", () => {
  const cases: [codes: Code, value: PickledValue][] = [
    ["N", null],
    ["\x88", true],
    ["\x89", false],
    ["K\xff", 255],
    ["M\x01\x80", 32769],
    [int(-5), -5],
    [int(2 ** 31 - 1), 2 ** 31 - 1],
    ["\x8a\x00", 0],
    ["\x8a\x01\xff", -1],
    ["\x8a\x05\x00\x00\x00\x00\x01", 2 ** 32],
    ["\x8a\x07\xff\xff\xff\xff\xff\xff\x1f", 2 ** 53 - 1],
    [unicode("Wé"), "Wé"],
    [")", []],
    [[int(1), "\x85"], [1]],
    [[int(1), int(2), "\x86"], [1, 2]],
    [[int(1), int(2), int(3), "\x87"], [1, 2, 3]],
    [["(", int(1), "(", int(2), "t", int(3), "t"], [1, [2], 3]],
    [[int(7), "q\x05h\x05\x86"], [7, 7]],
    [[int(7), ["r", uint32(70000)], ["j", uint32(70000)], "\x86"], [7, 7]],
    [[int(7), "Q"], ["persistent", 7]],
    ["G\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5],
    ["G\xbf\xb9\x99\x99\x99\x99\x99\x9a", -0.1],
    [[global("m", "call"), int(1), int(2), "\x86R"], 2],
  ];
  for (const [codes, value] of cases) assertEquals(read(codes), value);
  assertStrictEquals(read(global("torch", "FloatStorage")), MARKER);
  assertEquals(CALLS, [[1, 2]]);
});

Deno.test("dicts keep their items, order and attributes", () => {
  const dict = read(
    [global("collections", "OrderedDict"), ")R"],
    ["(", unicode("b"), int(1), unicode("__proto__"), int(2), "u"],
    [unicode("c"), int(3), "s"],
    ["}", unicode("_metadata"), "}", "s", "b"],
  );
  assert(dict instanceof PickledDict);
  assertEquals([...dict.items], [["b", 1], ["__proto__", 2], ["c", 3]]);
  assert(dict.attributes?.items.get("_metadata") instanceof PickledDict);
});

Deno.test("lists keep their items and order", () => {
  const list = read("]", int(1), "a", ["(", int(2), "]", int(3), "a", "e"]);
  assert(list instanceof PickledList);
  const [one, two, inner] = list.items;
  assertEquals([one, two, (inner as PickledList).items], [1, 2, [3]]);
  const cycle = read("]q\x00h\x00a");
  assert(cycle instanceof PickledList);
  assertStrictEquals(cycle.items[0], cycle);
});

Deno.test("an object of a class that is named becomes a record, and nothing is called", () => {
  CALLS.length = 0;
  const made = pickle(
    [global("package.config", "Config"), ")\x81"],
    ["}", unicode("d_in"), int(5), "s", "b"],
  );
  assertThrows(() => unpickle(made, VOCABULARY), CheckpointError, `the name "package.config.Config"`);
  const records = { ...VOCABULARY, records: /^package\./ };
  const config = unpickle(made, records);
  assert(config instanceof PickledRecord);
  assertEquals([config.className, config.args, config.what], [
    "package.config.Config",
    [],
    `an object of "package.config.Config"`,
  ]);
  assertEquals([...config.attributes!.items], [["d_in", 5]]);
  const called = unpickle(pickle(global("package", "Enum"), unicode("x"), "\x85R"), records);
  assert(called instanceof PickledRecord);
  assertEquals([called.className, called.args, called.attributes], ["package.Enum", ["x"], null]);
  const refused: [code: Code, message: string][] = [
    [[global("os", "system"), unicode("x"), "\x85R"], `the name "os.system"`],
    [[global("os", "package.x"), ")\x81"], `the name "os.package.x"`],
    [[global("package", "A"), int(1), "\x81"], "NEWOBJ without a class and a tuple"],
    [[global("package", "A"), ")\x81", int(1), "b"], "BUILD of something other"],
    [[global("package", "A"), ")\x81}b}b"], "BUILD of something other"],
    [[global("package", "A"), "}b"], "BUILD of something other"],
  ];
  for (const [code, message] of refused) {
    assertThrows(() => unpickle(pickle(code), records), CheckpointError, message);
  }
  assertEquals(CALLS, []);
});

Deno.test("hostile pickles are refused, and nothing is called", () => {
  CALLS.length = 0;
  const system = global("os", "system");
  const refused: [bytes: Uint8Array, message: string][] = [
    [pickle(system, unicode("echo owned"), "\x85R"), `the name "os.system", which no state dict needs`],
    [pickle(global("posix", "system"), ")R"), `"posix.system"`],
    [pickle(global("builtins", "eval"), unicode("1"), "\x85R"), `"builtins.eval"`],
    [pickle(global("__builtin__", "getattr")), `"__builtin__.getattr"`],
    [pickle(global("collections", "OrderedDict.fromkeys")), `"collections.OrderedDict.fromkeys"`],
    [pickle(global("torch", "FloatStorage"), ")R"), "REDUCE without a callable"],
    [pickle(global("m", "call"), int(1), "R"), "REDUCE without a callable and a tuple"],
    [pickle(int(1), ")R"), "REDUCE without a callable"],
    [pickle("}", "}", "R"), "REDUCE without a callable"],
    [pickle(unicode("os"), unicode("system"), "\x93"), "the opcode 0x93"],
    [pickle(")", ")", "\x81"), "NEWOBJ without a class and a tuple"],
    [pickle("(", system, "o"), `"os.system"`],
    [pickle("(S'x'\nios\nsystem\n"), "the opcode 0x53"],
    [pickle("\x82\x01"), "the opcode 0x82"],
    [pickle("Ppid\n"), "the opcode 0x50"],
    [pickle(int(1), int(2), "a"), "items appended to something other than a list"],
    [pickle(")", "(", int(2), "e"), "items appended to something other than a list"],
    [pickle("]a"), "the stack is empty"],
    [pickle("]", int(1), "e"), "no mark is open"],
    [pickle("G\x00\x00"), "a value of 8 bytes where 3 are left"],
    [pickle("]", "}", "b"), "BUILD of something other"],
    [pickle(global("m", "call"), ")\x81"), "NEWOBJ without a class and a tuple"],
    [pickle("I1\n"), "the opcode 0x49"],
    [pickle("\x8b", uint32(1), "\x01"), "the opcode 0x8b"],
    [pickle("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"), "the opcode 0x8d"],
    [pickle("X", uint32(0xffffffff), "abc"), "4294967295 bytes where 4 are left"],
    [pickle("X", uint32(2), Uint8Array.of(0xff, 0xfe)), "not UTF-8"],
    [pickle("\x8a\xff"), "bytes where"],
    [pickle("\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01"), "an integer of 9 bytes"],
    [pickle("\x8a\x08\x00\x00\x00\x00\x00\x00\x20\x00"), "beyond 2^53"],
    [pickle("c", "m".repeat(300), "\nx\n"), "a name that is cut off"],
    [pickle("cm\nx"), "a name that is cut off"],
    [pickle("h\x00"), "nothing was stored under 0"],
    [pickle("j", uint32(0xffffffff)), "nothing was stored under 4294967295"],
    [pickle("q\x00"), "the stack is empty"],
    [pickle("(q\x00"), "the stack is empty"],
    [pickle("t"), "no mark is open"],
    [pickle(int(1), "(", "\x85"), "the stack is empty"],
    [pickle(int(1), int(2), "(", int(3), "\x86"), "the stack is empty"],
    [pickle("N(", int(2), "\x86t\x86"), "the stack is empty"],
    [pickle("}", "(", unicode("a"), "u"), "a key without a value"],
    [pickle("}", int(1), int(2), "s"), "a dict's key is not a string"],
    [pickle("}", ")", int(2), "s"), "a dict's key is not a string"],
    [pickle("}", unicode("a"), int(1), "s", unicode("a"), int(2), "s"), `the key "a" appears twice`],
    [pickle(int(1), unicode("a"), int(1), "s"), "items set on something other than a dict"],
    [pickle(")", "}", "b"), "BUILD of something other"],
    [pickle("}", ")", "b"), "BUILD of something other"],
    [pickle("}", "}", "b", "}", "b"), "BUILD of something other"],
    [pickle("Q"), "the stack is empty"],
    [pickle(), "the stack is empty"],
    [pickle(int(1), int(2)), "values are left over"],
    [pickle("(", int(1)), "values are left over"],
    [assemble(pickle(int(1)), "x"), "bytes are left over"],
    [assemble("\x80\x02"), "1 bytes where 0 are left"],
    [assemble("\x80\x04N."), "expected protocol 2"],
    [assemble("N."), "expected protocol 2"],
    [new Uint8Array(), "bytes where"],
  ];
  for (const [bytes, message] of refused) {
    assertThrows(() => unpickle(bytes, VOCABULARY), CheckpointError, message);
  }
  assertEquals(CALLS, []);
});

Deno.test("depth, cycles and repetition cost no more than their bytes", () => {
  const depth = 60_000;
  const nested = read(")", "\x85".repeat(depth));
  assert(Array.isArray(nested));
  assertThrows(() => read("(".repeat(depth)), CheckpointError);

  const cycle = read("}", "q\x00", unicode("self"), "h\x00", "s");
  assert(cycle instanceof PickledDict);
  assertStrictEquals(cycle.items.get("self"), cycle);

  // Doubled forty times by reference: a copy of it would not fit any memory.
  const doubled = read(")", Array.from({ length: 40 }, () => "q\x00h\x00\x86"));
  assert(Array.isArray(doubled));
  assertStrictEquals(doubled[0], doubled[1]);
});

Deno.test("opcodes and bytes are limited", () => {
  for (const code of ["}", "]", "(t", ")\x85", "(", "N", "X\x01\x00\x00\x00a"]) {
    assertThrows(() => read(code.repeat(200_000)), CheckpointError, "more than 65536 opcodes");
  }
  const long = (length: number): Uint8Array => pickle("X", uint32(length), new Uint8Array(length).fill(0x61));
  unpickle(long(2 ** 22 - 8), VOCABULARY);
  const message = "it has 4194305 bytes; expected at most 4194304";
  assertThrows(() => unpickle(long(2 ** 22 - 7), VOCABULARY), CheckpointError, message);
});

Deno.test("any bytes are refused or read, and nothing else happens", () => {
  const good = pickle("}(", unicode("a"), int(1), unicode("b"), ["(", int(2), "t"], "u", global("m", "call"), ")R\x86");
  unpickle(good, VOCABULARY);
  const change = fc.tuple(fc.nat(good.length - 1), fc.uint8Array({ minLength: 1, maxLength: 8 }));
  fc.assert(
    fc.property(change, ([at, patch]) => {
      const bytes = good.slice();
      bytes.set(patch.subarray(0, good.length - at), at);
      for (const tried of [bytes, patch, good.subarray(0, at)]) {
        try {
          unpickle(tried, VOCABULARY);
        } catch (error) {
          assert(error instanceof CheckpointError, String(error));
        }
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("what the writer writes reads back, beyond 255 memos too", () => {
  const integers = [0, 255, 256, 65535, 65536, -1, 2 ** 31 - 1, 2 ** 31, 2 ** 40, -(2 ** 40)];
  const writer = new PickleWriter().emptyOrderedDict();
  writer.items(() => {
    for (let i = 0; i < 300; i++) writer.string(`key ${i}`).integers(integers.slice(0, i % 11));
  });
  const dict = unpickle(writer.done(), VOCABULARY);
  assert(dict instanceof PickledDict);
  assertEquals(dict.items.size, 300);
  for (let i = 0; i < 300; i++) assertEquals(dict.items.get(`key ${i}`), integers.slice(0, i % 11));

  const shared = new PickleWriter().emptyDict();
  shared.items(() => {
    for (let i = 0; i < 300; i++) shared.string(`key ${i}`).literal(`value ${i % 280}`);
  });
  const again = unpickle(shared.done(), VOCABULARY) as PickledDict;
  assertEquals(again.items.get("key 290"), "value 10");
  assertEquals(again.items.get("key 279"), "value 279");
});
