/**
 * Lists that are submitted together: what shares a dispatch, and that no result depends on it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../../../kernels/engine/kernel.ts";
import type { Tensor } from "../../../kernels/engine/tensor.ts";
import { check, mutants, type Recording } from "../../support/kernel_harness.ts";
import { assertExact } from "../../support/tolerance.ts";

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

const double = defineKernel({
  name: "double",
  dims: ["size"],
  bindings: { list: writes("u32", "size") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 4 }),
  body: "  list[0] = 2u * list[0] + 1u;",
});

/** result[i] = factor · x[i] + offset[0], a vector of four at a time, and counts its runs. */
const scaled = defineKernel({
  name: "scaled",
  dims: ["size"],
  scalars: ["factor"],
  bindings: {
    x: reads("vec4f", "size"),
    offset: reads("f32", "1"),
    result: writes("vec4f", "size"),
    runs: writes("atomic<u32>", "1"),
  },
  workgroup: 8,
  grid: ({ size }) => Math.ceil(size / 32),
  cost: ({ size }) => ({ flops: 2 * size, bytes: 8 * size }),
  body: `
  let i = group * 8u + lane;
  if (i == 0u) { atomicAdd(&runs[0], 1u); }
  if (i < dims.size / 4u) { result[i] = fma(vec4f(dims.factor), x[i], vec4f(offset[0])); }`,
});

/** One list's tensors, of which only the rows 64 to 64 + rows are used. */
function listOf(gpu: Recording, { rows, first }: { rows: number; first: number }, offset: Tensor) {
  const values = Float32Array.from({ length: (rows + 64) * 4 }, (_, i) => first + i);
  const x = gpu.f32(values, rows + 64, 4);
  const [between, result, runs] = [gpu.out(rows, 4), gpu.out(rows, 4), gpu.u32([0])];
  const commands = new Commands(gpu.context);
  const size = rows * 4;
  commands.run(scaled, { size, factor: first, x: x.rows(64, 64 + rows), offset, result: between, runs });
  commands.run(scaled, { size, factor: 2, x: between, offset, result, runs });
  const want = values.subarray(256).map((value) => 2 * (first * value + 5) + 5);
  const expect = () => {
    gpu.expect(result, (got) => assertExact(got, want));
    gpu.expect(runs, (got) => assertExact(got, [2]));
  };
  return { commands, expect, tensors: { x, between, result, runs } };
}

Deno.test("lists that are alike share their dispatches, whatever their sizes and numbers", async () => {
  await check((gpu) => {
    const offset = gpu.f32([5]);
    const lists = [1, 9, 3, 16].map((rows, i) => listOf(gpu, { rows, first: i + 2 }, offset));
    let dispatches = 0;
    gpu.context.onDispatch = () => dispatches++;
    Commands.submitTogether(lists.map(({ commands }) => commands));
    gpu.context.onDispatch = undefined;
    assertEquals(dispatches, 2);
    for (const { expect } of lists) expect();
  });
});

Deno.test("more lists than a dispatch takes, more runs than a submission holds", async () => {
  await check((gpu) => {
    const offset = gpu.f32([5]);
    const lists = Array.from({ length: 40 }, (_, i) => listOf(gpu, { rows: 2, first: i }, offset));
    const counters = lists.map(({ commands }) => {
      const list = gpu.u32([0]);
      for (let i = 0; i < 60; i++) commands.run(double, { size: 1, list });
      return list;
    });
    Commands.submitTogether(lists.map(({ commands }) => commands));
    for (const { expect } of lists) expect();
    for (const counter of counters) gpu.expect(counter, (got) => assertExact(got, [2 ** 32 - 1]));
  });
});

Deno.test("what cannot share a dispatch has its own", async () => {
  await check((gpu) => {
    /** The dispatches of lists that each double one tensor. */
    const doubled = (...lists: Tensor<"u32">[]): number => {
      let dispatches = 0;
      gpu.context.onDispatch = () => dispatches++;
      Commands.submitTogether(lists.map((list) => {
        const commands = new Commands(gpu.context);
        commands.run(double, { size: list.size, list });
        return commands;
      }));
      gpu.context.onDispatch = undefined;
      return dispatches;
    };
    const [a, b, c, d] = [0, 1, 2, 3].map((first) => gpu.u32([first]));
    assertEquals(doubled(a!, b!), 1);
    assertEquals(doubled(a!, c!), 2, "what is joined with another");
    assertEquals(doubled(d!, d!), 2, "the same result");
    // The first list reads what the second, which writes to one of its own, also reads.
    const [common, own, result] = [gpu.f32([1, 2, 3, 4]), gpu.f32([5, 6, 7, 8]), gpu.out(4)];
    const given = { size: 4, factor: 1, offset: gpu.f32([0]) };
    const [reader, writer] = [new Commands(gpu.context), new Commands(gpu.context)];
    reader.run(scaled, { ...given, x: common, result, runs: gpu.u32([0]) });
    writer.run(scaled, { ...given, x: own, result: gpu.out(4), runs: gpu.u32([0]) });
    writer.run(scaled, { ...given, x: common, result: own, runs: gpu.u32([0]) });
    reader.run(scaled, { ...given, x: common, result: gpu.out(4), runs: gpu.u32([0]) });
    Commands.submitTogether([reader, writer]);
    gpu.expect(own, (got) => assertExact(got, [1, 2, 3, 4]));
    gpu.expect(result, (got) => assertExact(got, [1, 2, 3, 4]));
    const [large, larger] = [gpu.u32(new Uint32Array(10_000)), gpu.u32(new Uint32Array(10_001))];
    assertEquals(doubled(large, larger), 2, "together more than a binding holds");
    const [one, other] = [new Commands(gpu.context), new Commands(gpu.context)];
    one.run(double, { size: 1, list: a! });
    other.run(note, { size: 1, at: 0, number: 8, list: b! });
    Commands.submitTogether([one, other]);
    for (const [tensor, want] of [[a!, 7], [b!, 8], [c!, 5], [d!, 15]] as const) {
      gpu.expect(tensor, (got) => assertExact(got, [want]));
    }
    for (const tensor of [large, larger]) gpu.expect(tensor, (got) => assertExact(got.subarray(0, 2), [1, 0]));
  }, { bindingLimit: 65_536 });
});

Deno.test("mutants of what a list sees of a joined dispatch are found", async () => {
  await mutants("scaled", [
    ["joined_dims[group_id.z]", "joined_dims[0]"],
    ["x[dims.start_x + ", "x["],
    ["result[dims.start_result + ", "result["],
  ], (gpu) => {
    const offset = gpu.f32([5]);
    const lists = [3, 9].map((rows, i) => listOf(gpu, { rows, first: i + 2 }, offset));
    Commands.submitTogether(lists.map(({ commands }) => commands));
    for (const { expect } of lists) expect();
  });
});
