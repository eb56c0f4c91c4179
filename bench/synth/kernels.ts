/**
 * The draws of a world, on the GPU: normal numbers, which features are proposed and how strongly, and which remain
 * after the hierarchy.
 *
 * Every number is a function of (seed, stream, step, place), so nothing depends on order or timing.
 *
 * @module
 */

import { type Commands, defineKernel, PHILOX_WGSL, reads, type Tensor, writes } from "../../kernels/mod.ts";
import type { Level } from "./world.ts";

/** Identifies a draw among a seed's numbers. */
export interface Draw {
  /** An unsigned integer of at most 53 bits. */
  readonly seed: number;
  /** Its stream. */
  readonly stream: number;
  /** Its batch. */
  readonly step: number;
}

const keyOf = ({ seed, stream, step }: Draw) => ({
  key0: seed % 2 ** 32,
  key1: Math.floor(seed / 2 ** 32),
  stream,
  step,
});

const KEY = ["key0", "key1", "stream", "step"] as const;

const declarations = `${PHILOX_WGSL}
fn draw(key: vec3u, at: u32, stream: u32) -> vec4u { return philox(vec4u(at, key.z, stream, 0u), key.xy); }
// In (0, 1), so that its logarithm is finite; 24 bits, so that nothing is rounded.
fn unit(bits: u32) -> f32 { return (f32(bits >> 9u) + 0.5) * ${2 ** -23}; }
// Box and Muller 1958.
fn normal(a: u32, b: u32) -> f32 { return sqrt(-2.0 * log(unit(a))) * cos(${2 * Math.PI} * unit(b)); }
`;

/** to[i] ~ N(0, 1): from the first two words of block i. */
export function normals(commands: Commands, { to, ...draw }: Draw & { readonly to: Tensor }): void {
  commands.run(normalsKernel, { ...keyOf(draw), size: to.size, to });
}

const normalsKernel = defineKernel({
  name: "normals",
  dims: ["size", ...KEY],
  bindings: { to: writes("f32", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 64),
  cost: ({ size }) => ({ flops: 6 * size, bytes: 4 * size }),
  declarations,
  body: `
  let key = vec3u(dims.key0, dims.key1, dims.step);
  let i = group * 64u + lane;
  if (i >= dims.size) { return; }
  let words = draw(key, i, dims.stream);
  to[i] = normal(words.x, words.y);`,
});

/** Input of {@link propose}. */
export interface ProposeArguments extends Draw {
  /** The stream of the strengths. */
  readonly strengthStream: number;
  /** [B, F], the part that features share; replaced by the strengths, 0 where nothing is proposed. */
  readonly z: Tensor;
  /** [F], t. */
  readonly threshold: Tensor;
  /** [F], σ. */
  readonly own: Tensor;
  /** [F] */
  readonly mean: Tensor;
  /** [F] */
  readonly spread: Tensor;
}

/**
 * z[b, f] ← max(mean + spread · normal, 0) with the probability Φ((z − t) / σ), and 0 otherwise.
 *
 * This is z + σ η > t for a normal η that need not be drawn: one uniform word decides, and normal numbers are made only
 * for the few that fire. Φ as in Abramowitz and Stegun 26.2.17, to within 7.5e-8.
 */
export function propose(commands: Commands, given: ProposeArguments): void {
  const { z, threshold, own, mean, spread, strengthStream, ...draw } = given;
  const size = z.size;
  commands.run(proposeKernel, {
    ...keyOf(draw),
    size,
    features: threshold.size,
    strengthStream,
    z,
    threshold,
    own,
    mean,
    spread,
  });
}

const proposeKernel = defineKernel({
  name: "propose",
  dims: ["size", "features", ...KEY, "strengthStream"],
  bindings: {
    z: writes("f32", "size"),
    threshold: reads("f32", "features"),
    own: reads("f32", "features"),
    mean: reads("f32", "features"),
    spread: reads("f32", "features"),
  },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 256),
  cost: ({ size }) => ({ flops: 20 * size, bytes: 8 * size }),
  declarations: `${declarations}
// Φ(−|y|)
fn tail(y: f32) -> f32 {
  let t = 1.0 / fma(0.2316419, abs(y), 1.0);
  let sum = fma(t, fma(t, fma(t, fma(t, 1.330274429, -1.821255978), 1.781477937), -0.356563782), 0.319381530);
  return ${1 / Math.sqrt(2 * Math.PI)} * exp(-0.5 * y * y) * t * sum;
}
`,
  body: `
  let key = vec3u(dims.key0, dims.key1, dims.step);
  let block = group * 64u + lane;
  let words = draw(key, block, dims.stream);
  for (var k = 0u; k < 4u; k += 1u) {
    let i = block * 4u + k;
    if (i >= dims.size) { return; }
    let f = i % dims.features;
    let y = (z[i] - threshold[f]) / own[f];
    let p = select(tail(y), 1.0 - tail(y), y > 0.0);
    var strength = 0.0;
    if (unit(words[k]) < p) {
      let more = draw(key, i, dims.strengthStream);
      strength = max(fma(spread[f], normal(more.x, more.y), mean[f]), 0.0);
    }
    z[i] = strength;
  }`,
});

/** Input of {@link leaveOneChild}. */
export interface LeaveOneChildArguments extends Draw {
  /** [B, F], strengths; those above the level are final. */
  readonly a: Tensor;
  /** [F] */
  readonly mean: Tensor;
  /** Parents and their children. */
  readonly level: Level;
  /** Children of each parent. */
  readonly branching: number;
}

/**
 * Among the active children of each parent, one drawn uniformly stays, with a[child] · a[parent] / mean[parent]. The
 * others, and all children of an inactive parent, become 0.
 */
export function leaveOneChild(commands: Commands, given: LeaveOneChildArguments): void {
  const { a, mean, level, branching, ...draw } = given;
  const [rows = 0, features = 0] = a.shape;
  commands.run(leaveOneChildKernel, { ...keyOf(draw), ...level, rows, features, branching, a, mean });
}

const leaveOneChildKernel = defineKernel({
  name: "leave_one_child",
  dims: ["rows", "features", ...KEY, "firstParent", "parents", "firstChild", "branching"],
  bindings: { a: writes("f32", "rows features"), mean: reads("f32", "features") },
  workgroup: 64,
  grid: ({ rows, parents }) => Math.ceil(rows * parents / 64),
  cost: ({ rows, parents, branching }) => ({ flops: 0, bytes: 4 * rows * parents * (1 + 2 * branching) }),
  declarations,
  body: `
  let key = vec3u(dims.key0, dims.key1, dims.step);
  let i = group * 64u + lane;
  if (i >= dims.rows * dims.parents) { return; }
  let row = (i / dims.parents) * dims.features;
  let parent = dims.firstParent + i % dims.parents;
  let first = row + dims.firstChild + (i % dims.parents) * dims.branching;
  let last = first + dims.branching;
  let factor = a[row + parent] / mean[parent];
  if (factor == 0.0) {
    for (var c = first; c < last; c += 1u) { a[c] = 0.0; }
    return;
  }
  var rivals = 0u;
  for (var c = first; c < last; c += 1u) { rivals += u32(a[c] > 0.0); }
  // Practically uniform: 2³² is far above the number of children.
  let winner = draw(key, row + parent, dims.stream).x % max(rivals, 1u);
  var seen = 0u;
  for (var c = first; c < last; c += 1u) {
    if (a[c] <= 0.0) { continue; }
    a[c] = select(0.0, a[c] * factor, seen == winner);
    seen += 1u;
  }`,
});
