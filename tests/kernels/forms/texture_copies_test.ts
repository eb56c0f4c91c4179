/**
 * Texture copies: which bindings come from them, and when a buffer is copied.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { contextOf } from "../../../kernels/engine/device.ts";
import { defineKernel, reads, readsAcross, readsOften, writes } from "../../../kernels/engine/kernel.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { freshDevice } from "../../support/gpu.ts";
import { TEXTURES } from "../../support/kernel_harness.ts";
import { assertExact } from "../../support/tolerance.ts";

const scaleKernel = defineKernel({
  name: "scale",
  dims: ["size"],
  bindings: { x: writes("f32", "size"), factor: reads("f32", "1") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 64),
  cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
  body: "  if (group * 64u + lane < dims.size) { x[group * 64u + lane] *= factor[0]; }",
});

function scale(commands: Commands, x: Tensor, size: number, factor: Tensor): void {
  commands.run(scaleKernel, { size, x, factor });
}

/** result[i] = 2 x[i]. */
const doubled = defineKernel({
  name: "doubled",
  dims: ["size"],
  bindings: { x: readsOften("f32", "size"), result: writes("f32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 64),
  cost: ({ size }) => ({ flops: size, bytes: 8 * size }),
  body: "  if (group * 64u + lane < dims.size) { result[group * 64u + lane] = 2.0 * x[group * 64u + lane]; }",
});

/** Counts the copies from buffers to textures from now on. */
function countCopies(device: GPUDevice): () => number {
  let copies = 0;
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const copy = encoder.copyBufferToTexture.bind(encoder);
    encoder.copyBufferToTexture = (...given) => {
      copies++;
      copy(...given);
    };
    return encoder;
  };
  return () => copies;
}

Deno.test("what is read often comes from a texture, copied when something has changed it and not else", async () => {
  const device = await freshDevice(TEXTURES);
  const context = contextOf(device);
  const copies = countCopies(device);
  const commands = new Commands(context);
  // 33 lines of the texture, of which the last is not full.
  const size = 4 * 1024 * 32 + 100;
  const values = Float32Array.from({ length: size }, (_, i) => i);
  using x = Tensor.from(context, values, [size / 2, 2], "x");
  using factor = Tensor.from(context, Float32Array.of(3), [1], "factor");
  using result = new Tensor(context, "f32", [size], "result");
  using rest = new Tensor(context, "f32", [100], "the rest's result");
  const expectTimes = async (times: number, copied: number) => {
    commands.run(doubled, { size, x, result });
    commands.run(doubled, { size: 100, x: x.rows((size - 100) / 2, size / 2), result: rest });
    commands.submit();
    const [all, end] = await Promise.all([result.read(), rest.read()]);
    assertExact(all, values.map((value) => times * value));
    assertExact(end, all.subarray(size - 100));
    assertEquals(copies(), copied);
  };
  await expectTimes(2, 2);
  await expectTimes(2, 2);
  scale(commands, x, size, factor);
  await expectTimes(6, 4);
  x.writeAt(0, values.subarray(0, size - 50).map((value) => 5 * value));
  x.writeAt(size - 50, values.subarray(size - 50).map((value) => 5 * value));
  await expectTimes(10, 6);
  device.destroy();
});

/** result[i] = row[i mod columns]. */
const repeated = defineKernel({
  name: "repeated",
  dims: ["size", "columns"],
  bindings: { row: readsAcross("f32", "columns", "size"), result: writes("f32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 64),
  cost: ({ size }) => ({ flops: 0, bytes: 8 * size }),
  body: `
  let i = group * 64u + lane;
  if (i < dims.size) { result[i] = row[i % dims.columns]; }`,
});

Deno.test("a small array comes from a texture where enough of it is read in all", async () => {
  const device = await freshDevice({ textureCopyBytes: 64 });
  const context = contextOf(device);
  const copies = countCopies(device);
  const commands = new Commands(context);
  using row = Tensor.from(context, Float32Array.of(5, 6, 7, 8), [4], "row");
  for (const [size, copied] of [[31, 0], [32, 1], [31, 1]] as const) {
    using result = new Tensor(context, "f32", [size], "result");
    commands.run(repeated, { size, columns: 4, row, result });
    commands.submit();
    assertExact(await result.read(), Float32Array.from({ length: size }, (_, i) => 5 + i % 4));
    assertEquals(copies(), copied, `${size} values of 4`);
  }
  device.destroy();
});

Deno.test("one copy is for all runs of a dispatch, which read enough together", async () => {
  const device = await freshDevice({ textureCopyBytes: 64 });
  const context = contextOf(device);
  const copies = countCopies(device);
  const rows = [5, 50].map((first) => Tensor.from(context, Float32Array.of(first, first + 1), [2], "row"));
  const results = rows.map(() => new Tensor(context, "f32", [16], "result"));
  const lists = rows.map((row, i) => {
    const commands = new Commands(context);
    commands.run(repeated, { size: 16, columns: 2, row, result: results[i]! });
    return commands;
  });
  Commands.submitTogether(lists);
  for (const [i, first] of [5, 50].entries()) {
    assertExact(await results[i]!.read(), Float32Array.from({ length: 16 }, (_, c) => first + c % 2));
  }
  assertEquals(copies(), 1);
  device.destroy();
});

Deno.test("a buffer of more lines than textures have lies in longer ones", async () => {
  const device = await freshDevice(TEXTURES);
  const context = contextOf(device);
  const commands = new Commands(context);
  const [width, most] = [64, 4 * 1024 * 8192];
  const rows = most / width + 1000;
  using x = new Tensor(context, "f32", [rows, width], "x");
  using result = new Tensor(context, "f32", [4 * width], "result");
  const ends = [0, rows / 2, rows - 4].map((first) => ({
    first,
    values: Float32Array.from({ length: 4 * width }, (_, i) => first + i),
  }));
  for (const { first, values } of ends) x.writeAt(first * width, values);
  for (const { first, values } of ends) {
    commands.run(doubled, { size: 4 * width, x: x.rows(first, first + 4), result });
    commands.submit();
    assertExact(await result.read(), values.map((value) => 2 * value));
  }
  device.destroy();
});
