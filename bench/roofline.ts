/**
 * The limits of this adapter: multiply-adds per second, and bytes copied per second. Other results are given as shares
 * of these.
 *
 * @module
 */

import { Commands, contextOf, defineKernel, readsOnce, Tensor, writes } from "../kernels/mod.ts";
import { best } from "./measure.ts";

/** The adapter's ceilings. */
export interface Roofline {
  /** Multiply-adds count as two operations. */
  readonly gflops: number;
  /** Read and written bytes, both counted. */
  readonly gbytes: number;
}

const TURNS = 2048;
const ACCUMULATORS = 3;

const multiplyAdd = defineKernel({
  name: "peak_multiply_add",
  dims: ["wanted"],
  bindings: { out: writes("f32", "wanted 64") },
  workgroup: 64,
  grid: ({ wanted }) => wanted,
  cost: ({ wanted }) => ({ flops: wanted * 64 * TURNS * ACCUMULATORS * 4 * 4 * 2, bytes: 0 }),
  body: `
  let x = vec4f(f32(lane) * 1e-9 + 0.5);
  ${range(ACCUMULATORS).map((i) => `var a${i} = vec4f(${i}.0);`).join(" ")}
  for (var i = 0u; i < ${TURNS}u; i += 1u) {
    ${range(4).flatMap(() => range(ACCUMULATORS).map((i) => `a${i} = fma(a${i}, x, x);`)).join(" ")}
  }
  let sum = ${range(ACCUMULATORS).map((i) => `a${i}`).join(" + ")};
  out[group * 64u + lane] = sum.x + sum.y + sum.z + sum.w;`,
});

const copy = defineKernel({
  name: "peak_copy",
  dims: ["size"],
  bindings: { a: readsOnce("vec4f", "size"), b: writes("vec4f", "size") },
  workgroup: 64,
  grid: ({ size }) => Math.ceil(size / 4 / 1024),
  cost: ({ size }) => ({ flops: 0, bytes: 8 * size }),
  body: `
  for (var i = group * 1024u + lane; i < min((group + 1u) * 1024u, dims.size / 4u); i += 64u) { b[i] = a[i]; }`,
});

/** Measures the ceilings. */
export async function roofline(device: GPUDevice): Promise<Roofline> {
  const context = contextOf(device);
  const wanted = 256;
  using out = new Tensor(context, "f32", [wanted * 64], "out");
  const compute = await best(device, 5, () => {
    const commands = new Commands(context);
    commands.run(multiplyAdd, { wanted, out });
    commands.submit();
  });
  const size = 8 * 2 ** 20;
  using a = new Tensor(context, "f32", [size], "a");
  using b = new Tensor(context, "f32", [size], "b");
  const bytes = await best(device, 5, () => {
    const commands = new Commands(context);
    commands.run(copy, { size, a, b });
    commands.submit();
  });
  return {
    gflops: multiplyAdd.cost({ wanted }).flops / compute / 1e6,
    gbytes: copy.cost({ size }).bytes / bytes / 1e6,
  };
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
