/**
 * The draws of a synthetic world against float64 loops over the same random words.
 *
 * @module
 */

import { leaveOneChild, normals, propose } from "../../../bench/synth/kernels.ts";
import { overlapGradient } from "../../../bench/synth/directions.ts";
import { normalCdf } from "../../../bench/synth/world.ts";
import { philox } from "../../../kernels/random.ts";
import { check, type KernelCase, mutants } from "../../support/kernel_harness.ts";
import { Random } from "../../support/random.ts";
import { assertDecisions, assertExact, assertNormals } from "../../support/tolerance.ts";

/** A seed beyond 32 bits, and a batch of it. */
const AT = { seed: 3 * 2 ** 32 + 77, step: 9 } as const;

const words = (at: number, stream: number) => philox([at, AT.step, stream, 0], [77, 3]);
const unit = (bits: number) => ((bits >>> 9) + 0.5) / 2 ** 23;
const radius = (bits: number) => Math.sqrt(-2 * Math.log(unit(bits)));
const normal = (at: number, stream: number) => {
  const [a, b] = words(at, stream);
  return radius(a) * Math.cos(2 * Math.PI * unit(b));
};

const drawn: KernelCase = (gpu) => {
  for (const size of [1, 63, 64, 65, 1000, 70_001]) {
    const to = gpu.out(size);
    normals(gpu.commands, { to, stream: 5, ...AT });
    const at = Array.from({ length: size }, (_, i) => i);
    const want = at.map((i) => normal(i, 5));
    const radii = at.map((i) => radius(words(i, 5)[0]));
    gpu.expect(to, (got) => assertNormals(got, want, radii, 1));
  }
};

Deno.test("normal numbers are Box and Muller's of each place's own words", async () => {
  await check(drawn);
});

Deno.test("mutants of the normal numbers are found", async () => {
  await mutants("normals", [
    ["group * 64u + lane", "group * 63u + lane"],
    ["i >= dims.size", "i > dims.size"],
    ["6.283185307179586", "6.28"],
    ["dims.key1", "dims.key0"],
  ], drawn);
});

const SHAPES = [[1, 1], [1, 4], [3, 5], [7, 33], [40, 257]] as const;

/** What is certain: thresholds that everything or nothing exceeds, strengths without spread. */
const certain: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const [rows, features] of SHAPES) {
    const fires = random.integers(features, 0, 1);
    const mean = random.integers(features, 1, 9);
    const z = gpu.f32(random.integers(rows * features), rows, features);
    propose(gpu.commands, {
      ...AT,
      stream: 6,
      strengthStream: 7,
      z,
      threshold: gpu.f32(fires.map((on) => on ? -1e4 : 1e4)),
      own: gpu.f32(new Float32Array(features).fill(1)),
      mean: gpu.f32(mean),
      spread: gpu.f32(new Float32Array(features)),
    });
    const want = Float32Array.from({ length: rows * features }, (_, i) => fires[i % features]! * mean[i % features]!);
    gpu.expect(z, (got) => assertExact(got, want, `${rows} × ${features}`));
  }
};

const uncertain: KernelCase = (gpu) => {
  const random = new Random(2);
  for (const [rows, features] of SHAPES) {
    const size = rows * features;
    const common = random.normal(size, 0.5);
    const threshold = random.normal(features);
    const own = random.normal(features).map((value) => 0.2 + Math.abs(value));
    const mean = random.normal(features);
    const spread = random.normal(features).map(Math.abs);
    const z = gpu.f32(common, rows, features);
    propose(gpu.commands, {
      ...AT,
      stream: 6,
      strengthStream: 7,
      z,
      threshold: gpu.f32(threshold),
      own: gpu.f32(own),
      mean: gpu.f32(mean),
      spread: gpu.f32(spread),
    });
    const at = Array.from({ length: size }, (_, i) => i);
    const uniform = at.map((i) => unit(words(Math.floor(i / 4), 6)[i % 4]!));
    const probability = at.map((i) => normalCdf((common[i]! - threshold[i % features]!) / own[i % features]!));
    const strength = at.map((i) => mean[i % features]! + spread[i % features]! * normal(i, 7));
    const radii = at.map((i) => radius(words(i, 7)[0]));
    const spreads = at.map((i) => spread[i % features]!);
    gpu.expect(z, (got) => {
      // Of what the strength decides alone, only the clearly positive can tell.
      const told = at.filter((i) => strength[i]! > spreads[i]! * radii[i]!);
      assertDecisions(
        told.map((i) => Number(got[i]! !== 0)),
        told.map((i) => uniform[i]!),
        told.map((i) => probability[i]!),
      );
      const on = at.filter((i) => got[i] !== 0);
      const of = (values: readonly number[]) => on.map((i) => values[i]!);
      assertNormals(on.map((i) => got[i]!), of(strength), of(radii), of(spreads), "strengths");
    });
  }
};

Deno.test("features are proposed with the probability that z + σ η exceeds t, and get a normal strength", async () => {
  await check(certain);
  await check(uncertain);
});

Deno.test("mutants of the proposals are found", async () => {
  await mutants("propose", [
    ["i % dims.features", "i / dims.features"],
    ["if (i >= dims.size) { return; }", ""],
    ["block * 4u + k", "block * 3u + k"],
    ["-1.821255978", "-1.8"],
    ["y > 0.0)", "y < 0.0)"],
  ], (gpu) => {
    certain(gpu);
    uncertain(gpu);
  });
});

const families: KernelCase = (gpu) => {
  const random = new Random(3);
  for (
    const [rows, parents, branching, before, after] of [[1, 1, 2, 0, 0], [3, 2, 4, 1, 3], [67, 5, 3, 2, 1]] as const
  ) {
    const firstParent = before;
    const firstChild = before + parents + 1;
    const features = firstChild + parents * branching + after;
    const strengths = random.integers(rows * features, 0, 3).map((value) => value * 4);
    const mean = Float32Array.from({ length: features }, () => 2 ** random.integer(0, 2));
    const a = gpu.f32(strengths, rows, features);
    const level = { firstParent, parents, firstChild };
    leaveOneChild(gpu.commands, { ...AT, stream: 8, a, mean: gpu.f32(mean), level, branching });
    const want = strengths.slice();
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < parents; k++) {
        const parent = row * features + firstParent + k;
        const children = Array.from({ length: branching }, (_, c) => row * features + firstChild + k * branching + c);
        const on = children.filter((c) => strengths[c]! > 0);
        for (const c of children) want[c] = 0;
        if (strengths[parent] === 0 || on.length === 0) continue;
        const winner = on[words(parent, 8)[0] % on.length]!;
        want[winner] = strengths[winner]! * strengths[parent]! / mean[firstParent + k]!;
      }
    }
    gpu.expect(a, (got) => assertExact(got, want, `${rows} rows of ${parents} × ${branching} children`));
  }
};

Deno.test("of a parent's children one stays, and none without the parent", async () => {
  await check(families);
});

Deno.test("mutants of the hierarchy are found", async () => {
  await mutants("leave_one_child", [
    ["seen == winner", "seen == 0u"],
    ["/ mean[parent]", ""],
    ["i >= dims.rows * dims.parents", "i > dims.rows * dims.parents"],
    ["u32(a[c] > 0.0)", "1u"],
    ["(i % dims.parents) * dims.branching", "(i % dims.parents)"],
  ], families);
});

/** 4 (Σ_{j≠i} (d_i · d_j) d_j + F (n_i − 1) d_i), of integers, from `grad` = directions (directionsᵀ directions). */
const gradients: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const [F, D] of [[1, 1], [5, 3], [33, 7]] as const) {
    const d = random.integers(F * D, -2, 2);
    const dot = (i: number, j: number) => {
      let sum = 0;
      for (let k = 0; k < D; k++) sum += d[i * D + k]! * d[j * D + k]!;
      return sum;
    };
    const product = new Float32Array(F * D);
    const want = new Float32Array(F * D);
    for (let i = 0; i < F; i++) {
      for (let k = 0; k < D; k++) {
        for (let j = 0; j < F; j++) product[i * D + k]! += dot(i, j) * d[j * D + k]!;
        for (let j = 0; j < F; j++) want[i * D + k]! += i === j ? 0 : 4 * dot(i, j) * d[j * D + k]!;
        want[i * D + k]! += 4 * F * (dot(i, i) - 1) * d[i * D + k]!;
      }
    }
    const grad = gpu.f32(product, F, D);
    const squares = gpu.f32(Array.from({ length: F }, (_, i) => dot(i, i)));
    overlapGradient(gpu.commands, { directions: gpu.f32(d, F, D), squares, grad });
    gpu.expect(grad, (got) => assertExact(got, want, `${F} × ${D}`));
  }
};

Deno.test("the gradient of the overlaps is that of the sum over pairs", async () => {
  await check(gradients);
});

Deno.test("mutants of the overlaps' gradient are found", async () => {
  await mutants("overlap_gradient", [
    ["i / dims.columns", "i % dims.rows"],
    ["if (i >= dims.size) { return; }", ""],
    ["- n, directions", ", directions"],
  ], gradients);
});
