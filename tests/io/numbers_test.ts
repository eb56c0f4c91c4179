/** `io/numbers.ts`: integers of every type as float32, exactly or not at all. @module */
import { assertEquals, assertThrows } from "@std/assert";
import { InexactError, type IntegerType, readIntegersAsFloats } from "../../io/numbers.ts";

type Integers = Uint8Array | Int8Array | Int16Array | Uint16Array | Int32Array | Uint32Array;

const EXACT: readonly [type: IntegerType, integers: Integers | BigInt64Array | BigUint64Array, floats: number[]][] = [
  ["bool", Uint8Array.of(0, 1), [0, 1]],
  ["uint8", Uint8Array.of(0, 255), [0, 255]],
  ["int8", Int8Array.of(-128, 127), [-128, 127]],
  ["uint16", Uint16Array.of(1, 65535), [1, 65535]],
  ["int16", Int16Array.of(-32768, 3), [-32768, 3]],
  ["int32", Int32Array.of(-(2 ** 24), 2 ** 30), [-(2 ** 24), 2 ** 30]],
  ["uint32", Uint32Array.of(2 ** 31, 5), [2 ** 31, 5]],
  ["int64", BigInt64Array.of(-(2n ** 60n), 7n), [-(2 ** 60), 7]],
  ["uint64", BigUint64Array.of(2n ** 63n, 2n ** 24n), [2 ** 63, 2 ** 24]],
];

Deno.test("integers of every type and either byte order become float32", () => {
  for (const [type, integers, floats] of EXACT) {
    const { BYTES_PER_ELEMENT: size } = integers;
    const bytes = new Uint8Array(integers.buffer);
    assertEquals(readIntegersAsFloats(bytes, type, true), Float32Array.from(floats), type);
    const swapped = bytes.map((_, i) => bytes[i - i % size + size - 1 - i % size]!);
    assertEquals(readIntegersAsFloats(swapped, type, false), Float32Array.from(floats), `${type}, big-endian`);
    // As they lie in a file, at any place.
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    assertEquals(readIntegersAsFloats(shifted.subarray(1), type, true), Float32Array.from(floats), `${type}, shifted`);
  }
});

Deno.test("an integer that float32 does not hold is named, with its place", () => {
  const cases = [
    ["int32", Int32Array.of(1, -(2 ** 24) - 1), -(2 ** 24) - 1],
    ["uint32", Uint32Array.of(2, 2 ** 32 - 1), 2 ** 32 - 1],
    ["int64", BigInt64Array.of(0n, 2n ** 53n + 1n), 2n ** 53n + 1n],
    ["uint64", BigUint64Array.of(3n, 2n ** 64n - 1n), 2n ** 64n - 1n],
  ] as const;
  for (const [type, integers, value] of cases) {
    const read = () => readIntegersAsFloats(new Uint8Array(integers.buffer), type, true);
    const { index, value: found } = assertThrows(read, InexactError);
    assertEquals([index, found], [1, value], type);
  }
});
