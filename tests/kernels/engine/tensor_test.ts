/**
 * Tensors: shapes, contents, disposal, and rows that fit a binding.
 *
 * @module
 */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceContext, requestDevice } from "../../../kernels/engine/device.ts";
import { DeviceError, ShapeError } from "../../../kernels/engine/errors.ts";
import { rowsPerBlock, spans, Tensor } from "../../../kernels/engine/tensor.ts";
import { caseContext } from "../../support/kernel_harness.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertSameBits } from "../../support/tolerance.ts";

Deno.test("what is written is read, bit by bit, at any size", async () => {
  const context = await caseContext();
  const random = new Random(1);
  for (const size of [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000, 2_000_000]) {
    const bits = Uint32Array.from({ length: size }, () => random.bits());
    using floats = Tensor.from(context, new Float32Array(bits.buffer), [size], "floats");
    using words = Tensor.from(context, bits, [size, 1], "words");
    assertSameBits(await floats.read(), new Float32Array(bits.buffer));
    assertExact(await words.read(), bits);
  }
});

Deno.test("a new tensor is zero, with and without guards", async () => {
  const device = await requestDevice();
  for (const context of [new DeviceContext(device), await caseContext()]) {
    using tensor = new Tensor(context, "f32", [3, 5], "fresh");
    assertExact(await tensor.read(), new Float32Array(15));
  }
  device.destroy();
});

Deno.test("sizes, shapes and labels are what they were", async () => {
  const context = await caseContext();
  using tensor = new Tensor(context, "u32", [4, 3, 2], "a cube");
  assertEquals([tensor.size, tensor.rowSize, tensor.shape, tensor.label], [24, 6, [4, 3, 2], "a cube"]);
  assertThrows(() => (tensor.shape as number[]).push(7), TypeError);
  using none = new Tensor(context, "f32", [0, 7], "nothing");
  assertEquals([none.size, none.rowSize, (await none.read()).length], [0, 7, 0]);
});

Deno.test("wrong shapes and sizes are refused by name", async () => {
  const context = await caseContext();
  for (const shape of [[-1], [1.5], [NaN], [2, Infinity]]) {
    assertThrows(() => new Tensor(context, "f32", shape, "crooked"), ShapeError, "crooked");
  }
  assertThrows(() => Tensor.from(context, new Float32Array(5), [2, 3], "short"), ShapeError, "short [2, 3]");
  using tensor = new Tensor(context, "f32", [2, 3], "target");
  assertThrows(() => tensor.write(new Float32Array(7)), ShapeError, "takes 6 values, found an array of 7");
});

Deno.test("an array of another kind is refused by name, and the device continues", async () => {
  const context = await caseContext();
  using floats = new Tensor(context, "f32", [2], "floats");
  using words = new Tensor(context, "u32", [2], "words");
  const kinds = new Map<string, unknown>([["Float64Array", new Float64Array(2)], ["Array", [1, 2]], [
    "Undefined",
    undefined,
  ]]);
  for (const [kind, found] of kinds) {
    const data = found as Float32Array;
    const message = `takes a Float32Array, found ${kind}`;
    assertThrows(() => floats.write(data), TypeError, `floats ${message}`);
    assertThrows(() => floats.writeAt(0, data), TypeError, `floats ${message}`);
    assertThrows(() => Tensor.from(context, data, [2], "made"), TypeError, `made ${message}`);
  }
  assertThrows(() => words.write(new Float32Array(2) as never), TypeError, "words takes a Uint32Array");
  assertExact(await floats.read(), [0, 0]);
});

Deno.test("a tensor over the device's largest buffer is refused by name, before anything is allocated", async () => {
  const context = await caseContext();
  const { maxBufferSize } = context.device.limits;
  const error = assertThrows(() => new Tensor(context, "f32", [maxBufferSize, 2], "colossus"), DeviceError, "colossus");
  assertEquals(error.message.includes(`${maxBufferSize}`), true);
});

Deno.test("use after dispose names the tensor, and disposing twice is nothing", async () => {
  const context = await caseContext();
  const tensor = new Tensor(context, "f32", [2], "gone");
  tensor[Symbol.dispose]();
  tensor[Symbol.dispose]();
  await assertRejects(() => tensor.read(), DeviceError, "gone");
  assertThrows(() => tensor.write(new Float32Array(2)), DeviceError, "gone");
  assertThrows(() => tensor.buffer, DeviceError, "gone");
});

Deno.test("tensors that are joined keep their values, and the memory until the last is gone", async () => {
  const context = await caseContext();
  const make = (length: number, first: number) => {
    const values = Float32Array.from({ length }, (_, i) => first + i);
    return { values, tensor: Tensor.from(context, values, [length], `from ${first}`) };
  };
  const [a, b, c, d] = [make(3, 1), make(70, 10), make(1, 100), make(5, 200)];
  Tensor.join([a.tensor, b.tensor, c.tensor]);
  assertEquals([a, b, c].map(({ tensor }) => tensor.buffer === a.tensor.buffer), [true, true, true]);
  assertEquals([a, b, c].map(({ tensor }) => [tensor.offset % 256, tensor.isAlone]), Array(3).fill([0, false]));
  for (const { tensor, values } of [a, b, c]) assertExact(await tensor.read(), values);
  b.tensor.write(b.values.fill(7));
  for (const { tensor, values } of [a, b, c]) assertExact(await tensor.read(), values);
  a.tensor[Symbol.dispose]();
  a.tensor[Symbol.dispose]();
  await assertRejects(() => a.tensor.read(), DeviceError, "from 1");
  assertExact(await b.tensor.read(), b.values);
  // What is left alone can be joined again.
  c.tensor[Symbol.dispose]();
  Tensor.join([d.tensor, b.tensor]);
  for (const { tensor, values } of [b, d]) {
    assertExact(await tensor.read(), values);
    tensor[Symbol.dispose]();
  }
  assertThrows(() => b.tensor.buffer, DeviceError, "from 10");
});

Deno.test("the first values are read alone, and no more than there are", async () => {
  const context = await caseContext();
  using tensor = Tensor.from(context, Float32Array.of(1, 2, 3, 4, 5), [5], "five");
  assertEquals([...await tensor.read(3)], [1, 2, 3]);
  assertEquals([...await tensor.read(0)], []);
  await assertRejects(() => tensor.read(6), RangeError, "five has 5 values, asked for 6");
});

Deno.test("pieces are the values, each as it is when it is taken", async () => {
  const context = await caseContext();
  const values = Float32Array.from({ length: 1000 }, (_, i) => i);
  using tensor = Tensor.from(context, values, [10, 100], "matrix");
  for (const size of [300, 500, 5000]) {
    const pieces = await Array.fromAsync(tensor.pieces(size));
    assertEquals(pieces.map(({ length }) => length).slice(0, -1), Array(pieces.length - 1).fill(size));
    assertEquals(pieces.flatMap((piece) => [...piece]), [...values]);
  }
  const pieces = tensor.pieces(500);
  await pieces.next();
  tensor.write(values.map((value) => -value));
  assertEquals((await pieces.next()).value?.[0], -500);
  using empty = new Tensor(context, "f32", [0, 5], "empty");
  assertEquals(await Array.fromAsync(empty.pieces()), []);
});

Deno.test("f16: what is written is read, rounded, in half of the bytes, whole or in pieces", async () => {
  const context = await caseContext();
  const random = new Random(2);
  for (const size of [0, 1, 2, 3, 4, 5, 63, 64, 65, 1001]) {
    const values = random.normal(size);
    using tensor = new Tensor(context, "f32", [size], "f16 values", { isF16: true });
    const guards = context.guardWords * 4;
    assertEquals(tensor.bytes - guards, Math.max(16, Math.ceil(size / 8) * 16));
    assertExact(await tensor.read(), new Float32Array(size), "zeros");
    tensor.write(values);
    const want = values.map(Math.f16round);
    assertSameBits(await tensor.read(), want);
    for (const pieceSize of size < 6 ? [1, 2, 3] : [64, 333]) {
      const pieces = await Array.fromAsync(tensor.pieces(pieceSize));
      assertEquals(pieces.flatMap((piece) => [...piece]), [...want]);
    }
    if (size > 3) {
      tensor.writeAt(2, Float32Array.of(7, 8));
      assertSameBits(await tensor.read(4), Float32Array.of(want[0]!, want[1]!, 7, 8));
    }
  }
});

Deno.test("f16 values that are not whole pairs, too large or not floats are refused by name, and nothing changes", async () => {
  const context = await caseContext();
  const values = Float32Array.of(1, 2, 3, 4, 5);
  using tensor = new Tensor(context, "f32", [5], "five values", { isF16: true });
  tensor.write(values);
  for (const [start, length] of [[1, 2], [0, 3], [3, 1]] as const) {
    const message = `the f16 values of five values are written in pairs, found ${length} from index ${start} on`;
    assertThrows(() => tensor.writeAt(start, new Float32Array(length)), ShapeError, message);
  }
  const large = values.with(3, -70_000);
  assertThrows(() => tensor.write(large), RangeError, "five values: -70000 is beyond the largest f16 value, 65504");
  assertSameBits(await tensor.read(), values);
  tensor.writeAt(4, Float32Array.of(9));
  assertSameBits(await tensor.read(), values.with(4, 9));
  assertThrows(() => new Tensor(context, "u32", [5], "integers", { isF16: true }), TypeError, "integers");
});

Deno.test("many reads at once bring back each its own", async () => {
  const context = await caseContext();
  using stack = new DisposableStack();
  const tensors = Array.from({ length: 20 }, (_, i) => {
    return stack.use(Tensor.from(context, Float32Array.of(i, -i), [2], `tensor ${i}`));
  });
  const read = await Promise.all(tensors.map((tensor) => tensor.read()));
  assertEquals(read.map(([first]) => first), tensors.map((_, i) => i));
});

Deno.test("rows per block: all that fit, else a multiple of 64, else an error that names the tensor", async () => {
  const context = await caseContext({ bindingLimit: 65_536 });
  assertEquals(rowsPerBlock(context, 10, 400, "x"), 10);
  assertEquals(rowsPerBlock(context, 0, 400, "x"), 1);
  // 65,536 bytes less the guards hold 163 rows of 400 bytes.
  assertEquals(rowsPerBlock(context, 1000, 400, "x"), 128);
  assertThrows(() => rowsPerBlock(context, 1000, 2000, "wide rows"), DeviceError, "64 rows of wide rows");
  // Where f16 rows end within a word, 64 rows end within 256 bytes.
  assertEquals([rowsPerBlock(context, 1000, 300, "x"), rowsPerBlock(context, 1000, 302, "x")], [192, 128]);
  assertThrows(() => rowsPerBlock(context, 1000, 1002, "odd rows"), DeviceError, "128 rows of odd rows");
});

Deno.test("spans cover the rows once, in order", () => {
  assertEquals([...spans(0, 5)], []);
  assertEquals([...spans(7, 3)], [{ from: 0, to: 3 }, { from: 3, to: 6 }, { from: 6, to: 7 }]);
  assertEquals([...spans(6, 3)], [{ from: 0, to: 3 }, { from: 3, to: 6 }]);
});
