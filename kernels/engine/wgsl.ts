/**
 * WGSL that several kernels share.
 *
 * @module
 */

import type { VectorWidth } from "./vector_width.ts";

/** How a tree brings the values of a workgroup together. */
export interface Tree {
  /** Name of the WGSL function. */
  readonly name: string;
  /** WGSL type of a value. */
  readonly type: string;
  /** WGSL: two values as one. */
  readonly combine: (a: string, b: string) => string;
}

/**
 * WGSL: `NAME(lane, value)`, the values of a workgroup of `threads` combined by a tree, for each of its invocations. A body
 * calls it once.
 */
export function treeWgsl({ name, type, combine }: Tree, threads: number): string {
  return `
var<workgroup> ${name}_parts: array<${type}, ${threads}>;
fn ${name}(lane: u32, value: ${type}) -> ${type} {
  ${name}_parts[lane] = value;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${name}_parts[lane] = ${combine(`${name}_parts[lane]`, `${name}_parts[lane + half]`)}; }
    workgroupBarrier();
  }
  return ${name}_parts[0];
}
`;
}

/** WGSL: `total_once(lane, value)`, the sum of `value` over a workgroup of `threads`, for a body that calls it once. */
export function totalOnceWgsl(threads: number, type: "f32" | "vec2f" = "f32"): string {
  return treeWgsl({ name: "total_once", type, combine: (a, b) => `${a} + ${b}` }, threads);
}

/** WGSL: `total(lane, value)`, the same for a body that calls it several times. */
export function totalWgsl(threads: number): string {
  return `${totalOnceWgsl(threads)}
fn total(lane: u32, value: f32) -> f32 {
  let sum = total_once(lane, value);
  workgroupBarrier();
  return sum;
}
`;
}

/** WGSL: `largest(lane, value)`, the largest `value` of a workgroup of `threads`, for a body that calls it once. */
export function largestWgsl(threads: number): string {
  return treeWgsl({ name: "largest", type: "u32", combine: (a, b) => `max(${a}, ${b})` }, threads);
}

/** WGSL: `least(lane, value)`, the least `value` of a workgroup of `threads`, for a body that calls it once. */
export function leastWgsl(threads: number): string {
  return treeWgsl({ name: "least", type: "u32", combine: (a, b) => `min(${a}, ${b})` }, threads);
}

/** WGSL: the same for a subgroup of eight, without a barrier: the bits are those of the tree. */
export const SUBGROUP_TOTAL_WGSL = `
fn total(lane: u32, value: f32) -> f32 {
  ${Array.from({ length: 8 }, (_, i) => `let v${i} = subgroupBroadcast(value, ${i}u);`).join("\n  ")}
  return ((v0 + v4) + (v2 + v6)) + ((v1 + v5) + (v3 + v7));
}
`;

/** WGSL: `sum_before(lane, value)`, the sum of `value` over the invocations of a workgroup of `threads` before one. */
export function sumBeforeWgsl(threads: number): string {
  return `
var<workgroup> running: array<u32, ${threads}>;
fn sum_before(lane: u32, value: u32) -> u32 {
  var sum = value;
  for (var step = 1u; step < ${threads}u; step *= 2u) {
    running[lane] = sum;
    workgroupBarrier();
    if (lane >= step) { sum += running[lane - step]; }
    workgroupBarrier();
  }
  return sum - value;
}
`;
}

/** WGSL: `above(value, threshold)`, the value where it is above max(threshold, 0), NaN included, and 0 elsewhere. */
export function aboveWgsl({ element, words }: VectorWidth): string {
  return `
fn above(value: ${element}, threshold: ${element}) -> ${element} {
  let is_nan = (bitcast<${words}>(value) & ${words}(0x7fffffffu)) > ${words}(0x7f800000u);
  let limit = max(threshold, ${element}(0.0));
  return select(${element}(0.0), value, is_nan | (value > limit));
}
`;
}

/** WGSL: `key_of(value)`, whose unsigned order is the order of values; −0 equals 0, and NaN is on top. */
export const KEY_WGSL = `
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  if (bits == 0x80000000u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
`;
