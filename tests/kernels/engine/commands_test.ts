/**
 * Lists of runs: their order, their arguments, and how many fit.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { Commands, type Counted } from "../../../kernels/engine/commands.ts";
import { DeviceContext } from "../../../kernels/engine/device.ts";
import { fill } from "../../../kernels/elementwise.ts";
import { KernelError } from "../../../kernels/engine/errors.ts";
import { defineKernel, reads, writes } from "../../../kernels/engine/kernel.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { caseContext, caseDevice, check, type KernelCase, mutants } from "../../support/kernel_harness.ts";
import { countBuffers } from "../../support/gpu.ts";
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

/** A workgroup an element. */
const mark = defineKernel({
  name: "mark",
  dims: ["size"],
  bindings: { list: writes("u32", "size") },
  workgroup: 1,
  grid: ({ size }) => size,
  cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
  body: "  list[group] = 5u;",
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

/** Conditions that earlier runs of the same submission have set, with runs of one workgroup and of more than a dimension has. */
const conditional: KernelCase = (gpu) => {
  const large = 65_600;
  const lists = [1, 2, 3, 4, 5].map(() => gpu.u32(new Uint32Array(8)));
  const larges = [gpu.u32(new Uint32Array(large)), gpu.u32(new Uint32Array(large))];
  const [yes, no] = [gpu.u32([0]), gpu.u32([7])];
  const { commands } = gpu;
  const add = (list: Tensor<"u32">) => commands.run(double, { size: 8, list });
  add(lists[0]!);
  fill(commands, yes, 1, 3);
  fill(commands, no, 1, 0);
  commands.onlyIf(yes, () => {
    add(lists[1]!);
    commands.run(mark, { size: large, list: larges[0]! });
    add(lists[1]!);
  });
  commands.onlyIf(no, () => {
    add(lists[2]!);
    commands.run(mark, { size: large, list: larges[1]! });
  });
  add(lists[3]!);
  commands.onlyIf(yes, () => add(lists[4]!));
  for (const [at, want] of [1, 3, 0, 1, 1].entries()) {
    gpu.expect(lists[at]!, (got) => assertExact(got, new Uint32Array(8).fill(want, 0, 1), `list ${at}`));
  }
  for (const [at, want] of [5, 0].entries()) {
    gpu.expect(larges[at]!, (got) => assertExact(got, new Uint32Array(large).fill(want), `large ${at}`));
  }
};

Deno.test("conditional runs happen or not, as the GPU has found by then", async () => {
  await check(conditional);
  await mutants("decide", [
    ["[own + 63u]] != 0u", "[own + 63u]] == 0u"],
    ["dims.first + group", "dims.first + 1u + group"],
    ["most + max(x, 1u) - 1u", "most"],
    ["min(most, 65535u)", "most"],
    ["!= dims.decision", "== 0u"],
  ], conditional);
});

Deno.test("a condition holds across submissions, and once it is over the next run does not depend on it", async () => {
  await check((gpu) => {
    const size = 5000;
    for (const condition of [0, 1]) {
      const list = gpu.u32(new Uint32Array(size));
      const found = gpu.u32([condition]);
      const write = (at: number) => gpu.commands.run(note, { size, at, number: at * 3, list });
      gpu.commands.onlyIf(found, () => {
        for (let at = 0; at < size - 1; at++) write(at);
      });
      write(size - 1);
      const want = Uint32Array.from({ length: size }, (_, at) => at === size - 1 || condition ? at * 3 : 0);
      gpu.expect(list, (got) => assertExact(got, want, `condition ${condition}`));
    }
  });
});

/** Runs of as many workgroups as a count says, at most those that there are. */
const counted: KernelCase = (gpu) => {
  const { commands } = gpu;
  const expectGroups = (size: number, want: number, count: number, share: Omit<Counted, "count">) => {
    const list = gpu.u32(new Uint32Array(size));
    const [counts, none] = [gpu.u32([count]), gpu.u32([0])];
    commands.run(mark, { size, list }, { count: counts, ...share });
    gpu.expect(
      list,
      (got) => assertExact(got, new Uint32Array(size).fill(5, 0, want), JSON.stringify({ count, ...share })),
    );
    const empty = gpu.u32(new Uint32Array(size));
    commands.onlyIf(none, () => commands.run(mark, { size, list: empty }, { count: counts, ...share }));
    gpu.expect(empty, (got) => assertExact(got, new Uint32Array(size)));
  };
  for (const [count, groups] of [[0, 0], [1, 3], [7, 6], [8, 6], [9, 9], [99, 20], [2 ** 32 - 1, 20]] as const) {
    expectGroups(20, groups, count, { per: 4, times: 3 });
  }
  expectGroups(140_000, 2 * 65_535, 70_000, { per: 1, times: 1 });
  expectGroups(66_000, 66_000, 2 ** 32 - 1, { per: 2, times: 2 ** 31 });
  // The count and the run stay together at the end of a submission.
  const size = 4000;
  const list = gpu.u32(new Uint32Array(size));
  const [none, one] = [gpu.u32([0]), gpu.u32([1])];
  for (let at = 0; at < size; at++) {
    commands.run(
      note,
      { size, at, number: 1, list },
      at % 3 === 0 ? undefined : { count: at % 3 === 1 ? one : none, per: 1, times: 1 },
    );
  }
  gpu.expect(list, (got) => assertExact(got, Uint32Array.from({ length: size }, (_, at) => Number(at % 3 < 2))));
};

Deno.test("the GPU counts the workgroups of a run, up to the kernel's own", async () => {
  await check(counted);
  await mutants("count_workgroups", [
    ["counted % dims.per > 0u", "false"],
    ["condition[0] != 0u", "true"],
    ["(groups + max(x, 1u) - 1u)", "groups"],
    ["select(shares * dims.times, dims.most,", "select(shares * dims.times, 0u,"],
    ["3u * dims.slot + 1u]", "3u * dims.slot + 4u]"],
  ], counted);
});

/** Lists whose runs happen or not, each as its own flags say, and have as many workgroups as each of them. */
const conditionalTogether: KernelCase = (gpu) => {
  const names: string[] = [];
  gpu.context.onDispatch = (name) => void names.push(name);
  Commands.submitTogether(Array.from({ length: 20 }, (_, i) => {
    const [commands, list, found] = [new Commands(gpu.context), gpu.u32([0]), gpu.u32([0])];
    const size = i === 7 ? 66_000 : 30 - i;
    const [marked, counted, count] = [gpu.u32(new Uint32Array(size)), gpu.u32(new Uint32Array(size)), gpu.u32([2])];
    const add = () => commands.run(double, { size: 1, list });
    fill(commands, found, 1, i % 3);
    add();
    commands.onlyIf(found, () => {
      add();
      commands.run(mark, { size, list: marked });
      add();
      commands.run(mark, { size, list: counted }, { count, per: 1, times: 1 });
    });
    fill(commands, found, 1, i % 2);
    commands.onlyIf(found, add);
    const runs = 1 + (i % 3 > 0 ? 2 : 0) + i % 2;
    gpu.expect(list, (got) => assertExact(got, [2 ** runs - 1], `list ${i}`));
    const want = new Uint32Array(size).fill(i % 3 > 0 ? 5 : 0);
    gpu.expect(marked, (got) => assertExact(got, want, `marked ${i}`));
    gpu.expect(counted, (got) => assertExact(got.subarray(0, 2), want.subarray(0, 2), `counted ${i}`));
    return commands;
  }));
  gpu.context.onDispatch = undefined;
  assertEquals(names.join(), "fill,double,decide,double,mark,double,mark,fill,decide,double");
};

Deno.test("lists submitted together have each its own conditions, and share dispatches and decisions", async () => {
  await check(conditionalTogether);
  await mutants("decide", [
    ["arguments_of[own] = groups;", ""],
    ["max(most, groups)", "groups"],
    ["run < runs", "run < 1u"],
    ["flags[arguments_of[own + 63u]]", "flags[0]"],
  ], conditionalTogether);
});

Deno.test("more lists than a dispatch takes have each its own conditions", async () => {
  await check((gpu) => {
    Commands.submitTogether(Array.from({ length: 70 }, (_, i) => {
      const [commands, list, found] = [new Commands(gpu.context), gpu.u32([0]), gpu.u32([0])];
      fill(commands, found, 1, i % 3);
      commands.onlyIf(found, () => commands.run(double, { size: 1, list }));
      gpu.expect(list, (got) => assertExact(got, [Math.min(1, i % 3)], `list ${i}`));
      return commands;
    }));
  });
});

Deno.test("conditions do not nest, and an error ends one", async () => {
  await check((gpu) => {
    const [condition, list] = [gpu.u32([0]), gpu.u32([0])];
    const { commands } = gpu;
    const nested = () => commands.onlyIf(condition, () => commands.onlyIf(list, () => {}));
    assertThrows(nested, KernelError, "depend on");
    commands.run(double, { size: 1, list });
    gpu.expect(list, (got) => assertExact(got, [1]));
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
