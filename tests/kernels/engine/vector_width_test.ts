/** The width of a load: what it is for some sizes, and one kernel for each. @module */

import { assertEquals } from "@std/assert";
import { perVectorWidth, SCALAR, VECTOR, vectorWidth } from "../../../kernels/engine/vector_width.ts";

Deno.test("loads are vectors where all sizes are multiples of four", () => {
  assertEquals([vectorWidth(8), vectorWidth(0), vectorWidth(4, 12)], [VECTOR, VECTOR, VECTOR]);
  assertEquals([vectorWidth(7), vectorWidth(8, 2), vectorWidth(1, 4)], [SCALAR, SCALAR, SCALAR]);
  for (const { scalars, parts } of [SCALAR, VECTOR]) assertEquals(parts.length, scalars);
});

Deno.test("each width is declared once, and not before it is needed", () => {
  const declared: string[] = [];
  const kernelOf = perVectorWidth(({ element }) => declared.push(element));
  assertEquals(declared, []);
  assertEquals([kernelOf(4), kernelOf(8, 4), kernelOf(5), kernelOf(4, 6)], [1, 1, 2, 2]);
  assertEquals(declared, ["vec4f", "f32"]);
});
