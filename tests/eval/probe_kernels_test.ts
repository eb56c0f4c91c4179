/** The kernels of probes, each on its own inputs. @module */
import {
  CLASS,
  type EntryWindow,
  FEATURE,
  FIT,
  measureProbes,
  stepProbes,
  sumProbes,
  SUMS,
  TRIAL,
} from "../../eval/probe_kernels.ts";
import { optimalLoss, probeSums } from "../reference/probes.ts";
import { check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertProbeOptimal, assertProbeSums } from "../support/tolerance.ts";

/** Features with as many entries each, and classes of the entries. */
interface Problem {
  readonly counts: readonly number[];
  readonly C: number;
  readonly values: Float32Array;
  readonly labels: Uint32Array;
}

function problemOf(random: Random, counts: readonly number[], C: number): Problem {
  const entries = counts.reduce((sum, count) => sum + count, 0);
  return {
    counts,
    C,
    values: random.normal(entries),
    labels: Uint32Array.from({ length: entries }, () => random.integer(0, C - 1)),
  };
}

/** The entries of one feature, for one class. */
function rowsOf({ counts, values, labels }: Problem, feature: number, c: number) {
  const from = counts.slice(0, feature).reduce((sum, count) => sum + count, 0);
  const to = from + counts[feature]!;
  return { x: values.subarray(from, to), y: Array.from(labels.subarray(from, to), (label) => label === c) };
}

function windowOf(gpu: Recording, { counts, values, labels }: Problem): EntryWindow {
  const starts = [0];
  for (const count of counts) starts.push(starts.at(-1)! + count);
  return { starts: gpu.u32(starts), values: gpu.f32(values), labels: gpu.u32(labels), most: Math.max(...counts) };
}

const PROBLEMS: readonly [counts: number[], C: number][] = [
  [[1], 1],
  [[0, 5, 64, 65, 3], 3],
  [[129, 1, 0, 63, 200, 7, 31], 10],
  [[130], 2],
];

const summed: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const [counts, C] of PROBLEMS) {
    const problem = problemOf(random, counts, C);
    const probes = counts.length * C;
    const trials = Float32Array.from({ length: probes * TRIAL }, (_, i) => i % TRIAL === 2 ? Number(i % 4 > 0) : 0);
    const sums = gpu.f32(new Float32Array(probes * SUMS).fill(1), probes, SUMS);
    const [want, sizes]: [number[], number[]] = [[], []];
    for (let probe = 0; probe < probes; probe++) {
      const [b, w] = random.normal(2) as unknown as [number, number];
      trials.set([b, w], TRIAL * probe);
      const isFitted = trials[TRIAL * probe + 2] === 0;
      const of = probeSums(rowsOf(problem, Math.floor(probe / C), probe % C), b, w);
      want.push(...of.sums.map((sum) => 1 + (isFitted ? 0 : sum)));
      sizes.push(...of.sizes.map((size) => 1 + size));
    }
    const given = { trials: gpu.f32(trials, probes, TRIAL), sums };
    sumProbes(gpu.commands, { features: counts.length, classes: C }, windowOf(gpu, problem), given);
    gpu.expect(sums, (got) => assertProbeSums(got, want, sizes, Math.max(...counts)));
  }
};

Deno.test("probe_sums adds losses, gradients and curvatures of the entries", async () => {
  await check(summed);
  await mutants("probe_sums", [
    ["let c = probe % dims.classes", "let c = 0u"],
    ["probe >= dims.features * dims.classes", "false"],
    ["1.0 / 5.0", "0.25"],
    ["select(miss, -miss, is_class)", "miss"],
  ], summed);
});

const measured: KernelCase = (gpu) => {
  const random = new Random(2);
  for (const [counts, C] of PROBLEMS) {
    const problem = problemOf(random, counts, C);
    const probes = counts.length * C;
    const parameters = random.normal(2 * probes);
    const [losses, positives] = [
      gpu.f32(new Float32Array(probes).fill(1)),
      gpu.u32(new Uint32Array(2 * probes).fill(3)),
    ];
    const [want, sizes, called]: number[][] = [[], [], []];
    for (let probe = 0; probe < probes; probe++) {
      const [b, w] = [parameters[2 * probe]!, parameters[2 * probe + 1]!];
      const rows = rowsOf(problem, Math.floor(probe / C), probe % C);
      const of = probeSums(rows, b, w);
      want!.push(1 + of.sums[0]!);
      sizes!.push(1 + of.sizes[0]!);
      const isCalled = Array.from(rows.x, (x) => b + w * x > 0);
      called!.push(3 + isCalled.filter((is, i) => is && rows.y[i]).length);
      called!.push(3 + isCalled.filter((is, i) => is && !rows.y[i]).length);
    }
    measureProbes(gpu.commands, { features: counts.length, classes: C }, windowOf(gpu, problem), {
      probes: gpu.f32(parameters, probes, 2),
      losses,
      positives,
    });
    gpu.expect(losses, (got) => assertProbeSums(got, want!, sizes!, Math.max(...counts)));
    gpu.expect(positives, (got) => assertExact(got, called!));
  }
};

Deno.test("probe_measures adds losses, and counts what is called the class", async () => {
  await check(measured);
  await mutants("probe_measures", [
    ["let f = probe / dims.classes", "let f = 0u"],
    ["probe >= dims.features * dims.classes", "false"],
    ["1.0 / 3.0", "0.3"],
    ["eta > 0.0 && is_class", "is_class"],
  ], measured);
});

/** Some steps from nothing lead to the optimum. Features are silent on as many rows again, whose x is −¼. */
const fitted: KernelCase = (gpu) => {
  const random = new Random(3);
  for (const [counts, C] of [[[40, 100, 70], 3], [[65], 2]] as const) {
    const problem = problemOf(random, counts, C);
    const probes = counts.length * C;
    const n_rows = 200;
    const silent = counts.map((count) => Array.from({ length: n_rows - count }, () => random.integer(0, C - 1)));
    const [facts, shares, want]: [number[], number[], number[]] = [[], [], []];
    for (const [f, count] of counts.entries()) {
      facts.push(1 - count / n_rows, -0.25, 0.25, 1, 1);
      for (let c = 0; c < C; c++) {
        shares.push(silent[f]!.filter((label) => label === c).length / n_rows);
        const { x, y } = rowsOf(problem, f, c);
        const all = {
          x: [...x, ...silent[f]!.map(() => -0.25)],
          y: [...y, ...silent[f]!.map((label) => label === c)],
        };
        want.push(optimalLoss(all, 1e-8));
      }
    }
    const trials = Float32Array.from({ length: probes * TRIAL }, (_, i) => Number(i % TRIAL === 2));
    const fits = Float32Array.from({ length: probes * FIT }, (_, i) => [0, 0, 1e30, 1e-2][i % FIT] ?? 0);
    const given = {
      features: gpu.f32(facts, counts.length, FEATURE),
      classes: gpu.f32(new Float32Array(C * CLASS), C, CLASS),
      silent: gpu.f32(shares, counts.length, C),
      sums: gpu.f32(new Float32Array(probes * SUMS), probes, SUMS),
      fits: gpu.f32(fits, probes, FIT),
      trials: gpu.f32(trials, probes, TRIAL),
      left: gpu.u32([0]),
      n_rows,
      ridge: 1e-8,
    };
    const sizes = { features: counts.length, classes: C };
    const window = windowOf(gpu, problem);
    for (let step = 0; step < 20; step++) {
      sumProbes(gpu.commands, sizes, window, given);
      stepProbes(gpu.commands, sizes, given);
    }
    gpu.expect(given.fits, (got) => assertProbeOptimal(want.map((_, probe) => got[FIT * probe + 2]!), want));
    gpu.expect(given.trials, (got) => assertExact(want.map((_, probe) => got[TRIAL * probe + 2]!), want.map(() => 0)));
  }
};

Deno.test("probe_step leads to the optimum, and says when it is there", async () => {
  await check(fitted);
  await mutants("probe_step", [
    ["let x0 = featureFacts[f + 1u]", "let x0 = 0.0"],
    ["probe >= dims.features * dims.classes", "false"],
    ["g1 += dims.share", "g1 += 0.9 * dims.share"],
    ["let f = 5u * (probe / dims.classes)", "let f = 0u"],
  ], fitted);
});
