/**
 * Declared kernels: what is generated, and what is refused with which words.
 *
 * @module
 */

import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { DeviceContext, requestDevice } from "../../../kernels/engine/device.ts";
import { DeviceError, KernelError, ShapeError } from "../../../kernels/engine/errors.ts";
import { defineKernel, reads, shapeSize, writes } from "../../../kernels/engine/kernel.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { caseContext, check } from "../../support/kernel_harness.ts";
import { assertExact } from "../../support/tolerance.ts";

const declaration = {
  name: "scaled_copy",
  dims: ["rows", "columns"],
  scalars: ["factor"],
  bindings: { source: reads("f32", "rows columns"), result: writes("f32", "rows columns") },
  workgroup: 1,
  grid: ({ rows, columns }: { readonly rows: number; readonly columns: number }) => rows * columns,
  cost: () => ({ flops: 0, bytes: 0 }),
  body: "  result[group] = dims.factor * source[group] + f32(lane);",
} as const;
const scaledCopy = defineKernel(declaration);

Deno.test("a kernel sees its dims, scalars and bindings, and every workgroup its own number", async () => {
  await check((gpu) => {
    const result = gpu.out(3, 2);
    const source = gpu.f32([1, 2, 3, 4, 5, 6], 3, 2);
    gpu.commands.run(scaledCopy, { rows: 3, columns: 2, factor: -0.5, source, result });
    gpu.expect(result, (got) => assertExact(got, [-0.5, -1, -1.5, -2, -2.5, -3]));
  });
});

Deno.test("the WGSL has one binding line per binding, in order, after the uniforms", () => {
  const lines = scaledCopy.wgsl.split("\n").filter((line) => line.includes("@binding"));
  assertEquals(lines, [
    "@group(0) @binding(0) var<uniform> dims: Dims;",
    "@group(0) @binding(1) var<storage, read> source: array<f32>;",
    "@group(0) @binding(2) var<storage, read_write> result: array<f32>;",
  ]);
  assertStringIncludes(scaledCopy.wgsl, "struct Dims { groups: u32, rows: u32, columns: u32, factor: f32 }");
});

Deno.test("a uniform struct that does not fit its slot is refused", () => {
  const dims = Array.from({ length: 64 }, (_, i) => `d${i}`);
  assertThrows(
    () => defineKernel({ ...declaration, dims, scalars: [], grid: () => 1 }),
    KernelError,
    "scaled_copy",
  );
});

Deno.test("declarations that use what only the body has are refused", () => {
  for (const word of ["dims.rows", "source[0]"]) {
    const declarations = `fn f() -> u32 { return u32(${word}); }`;
    assertThrows(() => defineKernel({ ...declaration, declarations }), KernelError, word.slice(0, 4));
  }
});

Deno.test("f16 tensors where a kernel writes or reads other words, and others where it takes f16, are refused", async () => {
  const context = await caseContext();
  const commands = new Commands(context);
  using packed = new Tensor(context, "f32", [3, 2], "half of it", { isF16: true });
  using floats = new Tensor(context, "f32", [3, 2], "all of it");
  const given = { rows: 3, columns: 2, factor: 1 };
  const refused = (source: string, result: string, bound: { source: Tensor; result: Tensor }) => {
    const bindings = { source: reads(source, "rows columns"), result: writes(result, "rows columns") };
    const kernel = defineKernel({ ...declaration, bindings });
    return assertThrows(() => commands.run(kernel, { ...given, ...bound }), KernelError).message;
  };
  const message = "kernel scaled_copy: ";
  assertEquals(
    refused("f32", "f32", { source: floats, result: packed }),
    `${message}result writes f32, and half of it holds f16`,
  );
  assertEquals(
    refused("u32", "f32", { source: packed, result: floats }),
    `${message}source reads u32, and half of it holds f16`,
  );
  assertEquals(
    refused("f16", "f32", { source: floats, result: floats }),
    `${message}source reads f16, and all of it holds f32`,
  );
});

Deno.test("a missing or misspelt argument does not compile, and a missing dim does not run", async () => {
  const context = await caseContext();
  const commands = new Commands(context);
  using source = new Tensor(context, "f32", [3, 2], "source");
  using result = new Tensor(context, "f32", [3, 2], "result");
  const given = { rows: 3, columns: 2, factor: 1, source, result };
  const { columns: _, ...lacking } = given;
  // @ts-expect-error: a dim is missing
  assertThrows(() => commands.run(scaledCopy, lacking), KernelError, "scaled_copy: columns");
  for (const columns of [-1, 0.5, NaN, 2 ** 32]) {
    assertThrows(() => commands.run(scaledCopy, { ...given, columns }), KernelError, `columns`);
  }
  const unbound = () => {
    const { result: _, ...rest } = given;
    // @ts-expect-error: a binding is missing
    commands.run(scaledCopy, rest);
  };
  assertThrows(unbound, KernelError, "scaled_copy: result");
});

Deno.test("a wrong shape is refused with kernel, binding, shape and tensor", async () => {
  const context = await caseContext();
  const commands = new Commands(context);
  using source = new Tensor(context, "f32", [4, 2], "the source");
  using result = new Tensor(context, "f32", [3, 2], "the result");
  const given = { rows: 3, columns: 2, factor: 1, result };
  const error = assertThrows(() => commands.run(scaledCopy, { ...given, source }), ShapeError);
  for (const word of ["scaled_copy", "source", "6", "rows columns", "the source", "8"]) {
    assertStringIncludes(error.message, word);
  }
  // Some of its rows have the right size.
  commands.run(scaledCopy, { ...given, source: source.rows(0, 3) });
  commands.submit();
  await result.read();
});

Deno.test("fours that do not come out even, and more than a binding holds, are refused", async () => {
  const context = await caseContext({ bindingLimit: 65_536 });
  const commands = new Commands(context);
  const fours = defineKernel({
    name: "fours",
    dims: ["n"],
    bindings: { x: writes("vec4f", "n") },
    workgroup: 1,
    grid: () => 1,
    cost: () => ({ flops: 0, bytes: 0 }),
    body: "  x[0] = vec4f(1.0);",
  });
  using odd = new Tensor(context, "f32", [6], "odd");
  assertThrows(() => commands.run(fours, { n: 6, x: odd }), ShapeError, "not a multiple of 4");
  using large = new Tensor(context, "f32", [16_388], "large");
  assertThrows(() => commands.run(fours, { n: 16_388, x: large }), DeviceError, "large");
});

Deno.test("shapes are products of dims, dims plus a number, and numbers", () => {
  const dims = { rows: 3, columns: 5 };
  const size = (shape: string) => shapeSize(scaledCopy, shape, dims);
  assertEquals([size("rows columns"), size("rows+1"), size("rows 7"), size("1")], [15, 4, 21, 1]);
  assertThrows(() => size("rows depth"), KernelError, "scaled_copy has no dim depth");
});

Deno.test("a compile error reaches the next read, with the line and a caret under the place", async () => {
  const device = await requestDevice();
  const context = new DeviceContext(device);
  const broken = defineKernel({ ...declaration, name: "broken", body: "  result[group] = nonsense[group];" });
  using source = new Tensor(context, "f32", [1, 1], "source");
  using result = new Tensor(context, "f32", [1, 1], "result");
  const commands = new Commands(context);
  commands.run(broken, { rows: 1, columns: 1, factor: 1, source, result });
  commands.submit();
  const error = await assertRejects(() => result.read(), KernelError, "kernel broken does not compile");
  // What the compiler says comes first, of one line or many.
  const [line, caret] = error.message.split("\n").slice(-2);
  assertEquals(line, "  result[group] = nonsense[group];");
  assertEquals(caret!.trim(), "^");
  assertEquals(line!.slice(caret!.indexOf("^")).startsWith("nonsense"), true);
  // The failure stays: nothing that comes after it could be right.
  await assertRejects(() => source.read(), KernelError, "broken");
  assertThrows(() => new Tensor(context, "f32", [1], "after"), KernelError, "broken");
  device.destroy();
});

Deno.test("a command that the GPU refuses reaches the next read", async () => {
  const device = await requestDevice();
  const context = new DeviceContext(device);
  using source = new Tensor(context, "f32", [9, 2], "source");
  using result = new Tensor(context, "f32", [3, 2], "result");
  const commands = new Commands(context);
  // Rows that start at no multiple of 256 bytes.
  commands.run(scaledCopy, { rows: 3, columns: 2, factor: 1, source: source.rows(1, 4), result });
  commands.submit();
  await assertRejects(() => result.read(), KernelError, "refused");
  device.destroy();
});
