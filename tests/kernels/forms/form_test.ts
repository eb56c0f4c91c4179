/**
 * The forms of a kernel: what its WGSL says where lists are joined, and where bindings are texture copies or f16 tensors.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { KernelError } from "../../../kernels/engine/errors.ts";
import {
  defineKernel,
  type Kernel,
  reads,
  readsOften,
  readsOnce,
  updates,
  writes,
} from "../../../kernels/engine/kernel.ts";
import { kernelForm } from "../../../kernels/forms/form.ts";

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

const joined = { isJoined: true, textures: new Set<string>(), f16: new Set<string>() };

Deno.test("a uniform struct that does not fit its slot with the starts of bindings is refused", () => {
  const dims = Array.from({ length: 60 }, (_, i) => `d${i}`);
  const wide = defineKernel({ ...declaration, dims, scalars: [], grid: () => 1 }) as unknown as Kernel;
  assertThrows(() => kernelForm(wide, joined), KernelError, "scaled_copy");
});

Deno.test("joined, every index of a binding is counted from where the binding starts", () => {
  const kernel = defineKernel({
    ...declaration,
    body: "  result[source[group] | 1u] = my_source[result[lane] + local[2]];",
  });
  const { wgsl } = kernelForm(kernel as unknown as Kernel, joined);
  const body = wgsl.split("\n").find((line) => line.includes("my_source"));
  const source = "source[dims.start_source + (group)]";
  const result = "result[dims.start_result + (lane)]";
  assertEquals(body, `  result[dims.start_result + (${source} | 1u)] = my_source[${result} + local[2]];`);
});

Deno.test("what is read from a texture is counted from where it starts there, and old elements may be", () => {
  const kernel = defineKernel({
    ...declaration,
    bindings: {
      source: readsOften("vec4f", "rows columns"),
      places: readsOnce("u32", "rows"),
      result: updates("f32", "rows columns"),
    },
    body: "  result[places[group]] = old_result[group] + source[places[lane] >> 2u].x;",
  }) as unknown as Kernel;
  const textures = (...names: string[]) =>
    kernelForm(kernel, { isJoined: false, textures: new Set(names), f16: new Set() }).wgsl.split("\n");
  const bodyOf = (lines: string[]) => lines.find((line) => line.startsWith("  result["));
  assertEquals(bodyOf(textures()), "  result[places[group]] = result[group] + source[places[lane] >> 2u].x;");
  const all = textures("source", "places", "result");
  const place = (at: string) => `scalar_u32(copy_places, dims.start_places + (${at}))`;
  const [old, source] = [
    "scalar_f32(copy_result, dims.start_result + (group))",
    `textureLoad(copy_source, texel(textureDimensions(copy_source), dims.start_source + (${place("lane")} >> 2u))).x`,
  ];
  assertEquals(bodyOf(all), `  result[${place("group")}] = ${old} + ${source};`);
  assertEquals(all.filter((line) => line.includes("@binding")).slice(1), [
    "@group(0) @binding(1) var<storage, read_write> result: array<f32>;",
    "@group(0) @binding(2) var copy_source: texture_storage_2d<rgba32float, read>;",
    "@group(0) @binding(3) var copy_places: texture_storage_2d<rgba32uint, read>;",
    "@group(0) @binding(4) var copy_result: texture_storage_2d<rgba32float, read>;",
  ]);
});

Deno.test("f16 values are taken out of the words or texels that they share, joined or not", () => {
  const kernel = defineKernel({
    ...declaration,
    bindings: {
      source: readsOften("vec4f", "rows columns"),
      places: readsOften("f32", "rows"),
      result: writes("f32", "rows columns"),
    },
    body: "  result[group] = source[u32(places[lane])].x;",
  }) as unknown as Kernel;
  const f16 = new Set(["source", "places"]);
  const form = (isJoined: boolean, ...textures: string[]) => {
    const lines = kernelForm(kernel, { isJoined, textures: new Set(textures), f16 }).wgsl.split("\n");
    return {
      bindings: lines.filter((line) => line.includes("@binding")).slice(1).map((line) =>
        line.replace(/.*\) var/, "var")
      ),
      body: lines.find((line) => line.startsWith("  result[")),
    };
  };
  const buffers = [
    "var<storage, read> source: array<vec2u>;",
    "var<storage, read> places: array<u32>;",
    "var<storage, read_write> result: array<f32>;",
  ];
  assertEquals(form(false), { bindings: buffers, body: "  result[group] = f16_source(u32(f16_places(lane))).x;" });
  const place = "u32(f16_places(dims.start_places + (lane)))";
  assertEquals(form(true), {
    bindings: buffers,
    body: `  result[dims.start_result + (group)] = f16_source(dims.start_source + (${place})).x;`,
  });
  const texel = "u32(scalar_f16(copy_places, dims.start_places + (lane)))";
  assertEquals(form(false, "source", "places"), {
    bindings: [
      "var<storage, read_write> result: array<f32>;",
      "var copy_source: texture_storage_2d<rgba16float, read>;",
      "var copy_places: texture_storage_2d<rgba16float, read>;",
    ],
    body:
      `  result[group] = textureLoad(copy_source, texel(textureDimensions(copy_source), dims.start_source + (${texel}))).x;`,
  });
});
