/**
 * What a training step may take on GPUs that nobody has at hand: an estimate, from the kernels' own costs, their launches
 * and what a GPU's compiler says of them. `deno task gpu:model`, with `--B`, `--D`, `--S`, `--k` and `--activation`.
 *
 * The time of a kernel is the longest of three, and a launch:
 *
 *     arithmetic   flops / (peak · share), where few invocations in flight do not fill the pipelines
 *     memory       bytes / bandwidth, of the cache where all that is bound fits into it
 *     latency      bytes / (bytes in flight / latency): each invocation in flight waits for one load at a time
 *
 * How many invocations are in flight follows from the workgroups, and from the registers and the workgroup memory that the
 * compiler of an RDNA 2 gives the kernel (`tools/gpu/radv_table.json`). What only the GPU decides (an overflow, dead
 * latents, sparse or dense) costs a launch here and no more. Measure before you believe it.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Cost, DeviceContext, type DispatchTimings } from "../kernels/mod.ts";
import { getObjective, SparseAutoencoder } from "../mod.ts";
import type { ActivationOptions } from "../mod.ts";
import { train } from "../train/mod.ts";
import { type Figures, type Kernels, parseTable } from "../tools/gpu/figures.ts";
import { type RecordedDispatch, recordingDevice } from "../tools/gpu/recording_device.ts";

/** A GPU, by its data sheet. */
export interface Gpu {
  readonly name: string;
  /** Peak of float32, a multiply-add counted as two. */
  readonly tflops: number;
  /** Of its memory, and of its last cache. */
  readonly gbytes: number;
  readonly cacheGbytes: number;
  /** Of its last cache. */
  readonly cacheBytes: number;
  /** Multiprocessors, or what the maker calls them. */
  readonly cores: number;
  /** Of a core: invocations in flight, bytes of registers and bytes of workgroup memory. */
  readonly invocations: number;
  readonly registerBytes: number;
  readonly workgroupBytes: number;
  /** Nanoseconds until a load from memory arrives. */
  readonly latency: number;
  /** Microseconds between the starts of two dispatches that wait for each other. */
  readonly launch: number;
}

const MB = 2 ** 20;
const KB = 2 ** 10;

/** Public figures; latencies and launches are those that microbenchmarks usually find. */
export const GPUS: readonly Gpu[] = [
  {
    name: "H200",
    tflops: 66.9,
    gbytes: 4800,
    cacheGbytes: 10000,
    cacheBytes: 50 * MB,
    cores: 132,
    invocations: 2048,
    registerBytes: 256 * KB,
    workgroupBytes: 228 * KB,
    latency: 600,
    launch: 3,
  },
  {
    name: "RTX 4090",
    tflops: 82.6,
    gbytes: 1008,
    cacheGbytes: 5000,
    cacheBytes: 72 * MB,
    cores: 128,
    invocations: 1536,
    registerBytes: 256 * KB,
    workgroupBytes: 100 * KB,
    latency: 550,
    launch: 3,
  },
  {
    name: "M2",
    tflops: 3.6,
    gbytes: 100,
    cacheGbytes: 250,
    cacheBytes: 8 * MB,
    cores: 10,
    invocations: 1024,
    registerBytes: 208 * KB,
    workgroupBytes: 60 * KB,
    latency: 400,
    launch: 4,
  },
  {
    name: "Iris Xe",
    tflops: 2.1,
    gbytes: 68,
    cacheGbytes: 150,
    cacheBytes: 3.8 * MB,
    cores: 6,
    invocations: 1792,
    registerBytes: 448 * KB,
    workgroupBytes: 128 * KB,
    latency: 500,
    launch: 5,
  },
];

/** One dispatch of a step. */
export interface Work {
  /** The kernel's name. */
  readonly name: string;
  /** `undefined` where the GPU decides whether it runs. */
  readonly cost: Cost | undefined;
  /** Workgroups, and the invocations of each. */
  readonly groups: number;
  readonly workgroup: number;
  /** Bytes of all that it binds. */
  readonly boundBytes: number;
  /** Whether loads bring four numbers. */
  readonly hasVectors: boolean;
  /** Whether a product brings its terms into workgroup memory, for all of the workgroup. */
  readonly isShared: boolean;
}

/** Of peak arithmetic: what well-shaped WGSL products are known to reach; and those whose every invocation loads for itself. */
const [SHARED, UNSHARED] = [0.7, 0.15];
/** Of bandwidth: what a copy reaches. */
const STREAMED = 0.85;
/** Invocations of a core that fill its pipelines. */
const FULL = 512;
/** Of a kernel that has no row in the table. */
const UNKNOWN: Figures = {
  registers: 64,
  spills: 0,
  workgroupBytes: 0,
  waves: 0,
  code: 0,
  latency: 0,
  inverseThroughput: 0,
};

/** Milliseconds that a dispatch may take, its launch included. */
export function estimate(work: Work, gpu: Gpu, { registers, workgroupBytes }: Figures = UNKNOWN): number {
  const launch = gpu.launch / 1e3;
  if (!work.cost) return launch;
  const { flops, bytes } = work.cost;
  const groupsOfCore = Math.max(
    1,
    Math.floor(
      Math.min(
        gpu.invocations / work.workgroup,
        gpu.registerBytes / (4 * registers * work.workgroup),
        workgroupBytes > 0 ? gpu.workgroupBytes / workgroupBytes : Infinity,
      ),
    ),
  );
  const inFlight = Math.min(work.groups, gpu.cores * groupsOfCore) * work.workgroup;
  const isProduct = /matmul/.test(work.name);
  const share = (isProduct && !work.isShared ? UNSHARED : SHARED) * Math.min(1, inFlight / (gpu.cores * FULL));
  const arithmetic = flops / (gpu.tflops * 1e9 * share);
  const cached = Math.min(1, gpu.cacheBytes / Math.max(1, work.boundBytes));
  const fromMemory = Math.max(bytes * (1 - cached), Math.min(bytes, work.boundBytes));
  const memory = fromMemory / (gpu.gbytes * 1e6 * STREAMED) + bytes / (gpu.cacheGbytes * 1e6);
  const bytesInFlight = inFlight * (work.hasVectors ? 16 : 4);
  // What a product loads for several sums, it waits for once.
  const latency = isProduct ? 0 : bytes / bytesInFlight * gpu.latency / 1e6;
  return Math.max(arithmetic, memory, latency) + launch;
}

/** Sizes of a step. */
export interface StepSizes {
  /** Rows of a batch. */
  readonly B: number;
  /** d_model */
  readonly D: number;
  /** d_sae */
  readonly S: number;
}

/** The dispatches of one training step on a GPU, without one. */
export async function stepWork({ B, D, S }: StepSizes, activation: ActivationOptions): Promise<Work[]> {
  const { device, dispatches } = recordingDevice();
  const context = new DeviceContext(device, { lanes: 32, textureCopyBytes: Infinity });
  const costs: (Cost | undefined)[] = [];
  const cfg = { d_model: D, d_sae: S, activation };
  const parameters = {
    W_enc: new Float32Array(D * S),
    b_enc: new Float32Array(S),
    W_dec: new Float32Array(S * D),
    b_dec: new Float32Array(D),
  };
  using sae = await SparseAutoencoder.fromParameters(cfg, parameters, { device });
  const rows = new Float32Array(B * D);
  const steps = train(sae, getObjective({ key: "vanilla" }), [rows, rows], { log_every: 1 });
  // The first step also makes what all later ones use.
  await steps.next();
  dispatches.length = 0;
  const timings: Pick<DispatchTimings, "writesOf"> = {
    writesOf(_name, cost) {
      costs.push(cost);
      return undefined;
    },
  };
  context.timings = timings as DispatchTimings;
  await steps.next();
  if (costs.length !== dispatches.length) throw new Error(`${dispatches.length} dispatches have ${costs.length} costs`);
  const work = dispatches.map((dispatch, at) => workOf(dispatch, costs[at]));
  await steps.return();
  return work;
}

function workOf({ pipeline: { name, wgsl }, groups, boundBytes }: RecordedDispatch, cost: Cost | undefined): Work {
  return {
    name,
    cost: groups === null ? undefined : cost,
    groups: groups ?? 0,
    workgroup: Number(/@workgroup_size\((\d+)\)/.exec(wgsl)![1]),
    boundBytes,
    hasVectors: /array<vec4/.test(wgsl),
    isShared: /var<workgroup> a_near/.test(wgsl),
  };
}

/** A step's milliseconds on a GPU, by kernel, the longest first. */
export function shares(work: readonly Work[], gpu: Gpu, kernels: Kernels): Map<string, { ms: number; runs: number }> {
  const found = new Map<string, { ms: number; runs: number }>();
  for (const one of work) {
    const sum = found.get(one.name) ?? { ms: 0, runs: 0 };
    found.set(one.name, { ms: sum.ms + estimate(one, gpu, kernels[one.name]), runs: sum.runs + 1 });
  }
  return new Map([...found].sort(([, a], [, b]) => b.ms - a.ms));
}

/** Kernels that are shown one by one. */
const SHOWN = 8;

if (import.meta.main) {
  const given = parseArgs(Deno.args, { string: ["B", "D", "S", "k", "activation"] });
  const size = (name: "B" | "D" | "S" | "k", otherwise: number): number => {
    const found = Number(given[name] ?? otherwise);
    if (Number.isSafeInteger(found) && found > 0) return found;
    console.error(`--${name} must be an integer of at least 1, found ${JSON.stringify(given[name])}`);
    Deno.exit(2);
  };
  const [B, D, S, k] = [size("B", 4096), size("D", 768), size("S", 16384), size("k", 32)];
  const activation = String(given.activation ?? "top-k");
  const table = await Deno.readTextFile(new URL("../tools/gpu/radv_table.json", import.meta.url));
  const { mesa, families } = parseTable(table);
  const options = { key: activation, ...(/top-k/.test(activation) && { top_k: k }) } as ActivationOptions;
  const work = await stepWork({ B, D, S }, options);
  console.log(
    `Estimates, not measurements: a ${activation} step of B ${B}, D ${D}, S ${S}, ${work.length} dispatches, of which ` +
      `the GPU decides about ${work.filter(({ cost }) => !cost).length}. Registers by Mesa ${mesa} for RDNA 2.`,
  );
  for (const gpu of GPUS) {
    const kernels = [...shares(work, gpu, families.navi21!)];
    const total = kernels.reduce((sum, [, { ms }]) => sum + ms, 0);
    console.log(`\n${gpu.name}: a step ≈ ${total.toFixed(2)} ms`);
    for (const [name, { ms, runs }] of kernels.slice(0, SHOWN)) {
      const percent = (100 * ms / total).toFixed(0).padStart(3);
      console.log(`  ${percent} %  ${ms.toFixed(3).padStart(9)} ms  ${name}${runs > 1 ? ` × ${runs}` : ""}`);
    }
  }
}
