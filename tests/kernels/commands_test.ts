/**
 * Lists of runs: their order, their arguments, and how many fit.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Commands } from "../../kernels/commands.ts";
import { DeviceContext } from "../../kernels/device.ts";
import { fill } from "../../kernels/elementwise.ts";
import { defineKernel, reads, writes } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { caseContext, caseDevice, check } from "../support/kernel_harness.ts";
import { countBuffers } from "../support/gpu.ts";
import { assertExact } from "../support/tolerance.ts";

/** Writes its own number where it is told to. */
const note = defineKernel({
  name: "note",
  dims: ["size", "at", "number"],
  bindings: { list: writes("u32", "size") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 }),
  body: "  list[dims.at] = dims.number;",
});

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

const double = defineKernel({
  name: "double",
  dims: ["size"],
  bindings: { list: writes("u32", "size") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 }),
  body: "  list[0] = 2u * list[0] + 1u;",
});

Deno.test("every run of a submission has its own arguments, more than one submission holds", async () => {
  await check((gpu) => {
    const size = 5000;
    const list = gpu.outU32(size);
    for (let at = 0; at < size; at++) gpu.commands.run(note, { size, at, number: at * 3, list });
    gpu.expect(list, (got) => assertExact(got, Uint32Array.from({ length: size }, (_, at) => at * 3)));
  });
});

Deno.test("each run sees what those before it wrote, across submissions", async () => {
  await check((gpu) => {
    const list = gpu.u32([0]);
    for (let i = 0; i < 30; i++) {
      gpu.commands.run(double, { size: 1, list });
      if (i % 7 === 0) gpu.commands.submit();
    }
    gpu.expect(list, (got) => assertExact(got, [2 ** 30 - 1]));
  });
});

Deno.test("a run of no workgroups is no run, and a list may be empty or used again", async () => {
  const context = new DeviceContext(await caseDevice());
  const names: string[] = [];
  context.onDispatch = (name, bound) => names.push(`${name}: ${bound}`);
  const commands = new Commands(context);
  commands.submit();
  using x = Tensor.from(context, Float32Array.of(3), [1], "x");
  using factor = Tensor.from(context, Float32Array.of(2), [1], "factor");
  using none = new Tensor(context, "f32", [0], "none");
  scale(commands, none, 0, factor);
  for (let i = 0; i < 3; i++) {
    scale(commands, x, 1, factor);
    commands.submit();
  }
  assertExact(await x.read(), [24]);
  assertEquals(names, new Array(3).fill("scale: x,factor"));
});

Deno.test("rows bind their part and nothing else", async () => {
  await check((gpu) => {
    const to = gpu.outU32(200, 3);
    fill(gpu.commands, to.rows(64, 128), 192, 7);
    const want = new Uint32Array(600).fill(0xffffffff).fill(7, 192, 384);
    gpu.expect(to, (got) => assertExact(got, want));
  });
});

Deno.test("runs and reads create no buffers once they have run", async () => {
  const context = await caseContext();
  using x = new Tensor(context, "f32", [100], "x");
  using factor = Tensor.from(context, Float32Array.of(2), [1], "factor");
  const round = async () => {
    const commands = new Commands(context);
    for (let i = 0; i < 10; i++) scale(commands, x, 100, factor);
    commands.submit();
    await Promise.all([x.read(), factor.read()]);
  };
  await round();
  const { labels } = countBuffers(context.device);
  for (let i = 0; i < 3; i++) await round();
  assertEquals(labels, []);
});
