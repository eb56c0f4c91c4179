/**
 * WGSL that several kernels share.
 *
 * @module
 */

/** WGSL: `total(lane, value)`, the sum of `value` over a workgroup of `threads`, by a tree, for each of its invocations. */
export function totalWgsl(threads: number): string {
  return `
var<workgroup> partial: array<f32, ${threads}>;
fn total(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier();
  return sum;
}
`;
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
export function aboveWgsl(element: "f32" | "vec4f"): string {
  const words = element === "f32" ? "u32" : "vec4u";
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
