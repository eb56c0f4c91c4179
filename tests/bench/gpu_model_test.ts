/**
 * The model of cost: what bounds a kernel, and that it sees the whole step.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { estimate, type Gpu, GPUS, shares, stepWork, type Work } from "../../bench/gpu_model.ts";

const gpu: Gpu = GPUS[0]!;
const work: Work = {
  name: "adam",
  cost: { flops: 1e6, bytes: 1e9 },
  groups: 1e5,
  workgroup: 64,
  boundBytes: 1e9,
  hasVectors: true,
  isShared: false,
};
const ms = (changes: Partial<Work>, on: Partial<Gpu> = {}) => estimate({ ...work, ...changes }, { ...gpu, ...on });
/** Without the launch. */
const own = (changes: Partial<Work>, on: Partial<Gpu> = {}) => ms(changes, { ...on, launch: 0 });

Deno.test("what the GPU decides costs a launch, and every kernel one more", () => {
  assertEquals(ms({ cost: undefined }), gpu.launch / 1e3);
  assert(Math.abs(ms({}) - own({}) - gpu.launch / 1e3) < Number.EPSILON);
});

Deno.test("many bytes are bound by bandwidth, less where all of it lies in the cache", () => {
  assert(own({}) > own({}, { gbytes: 2 * gpu.gbytes }));
  assertEquals(own({}), own({}, { tflops: 2 * gpu.tflops }));
  assert(own({ boundBytes: 1e6 }) < own({}));
});

Deno.test("a product is bound by arithmetic, and slower where every invocation loads for itself", () => {
  const product = { name: "matmul_nt", cost: { flops: 1e11, bytes: 1e8 }, boundBytes: 1e8 };
  assert(own(product) > own(product, { tflops: 2 * gpu.tflops }));
  assertEquals(own(product), own(product, { gbytes: 2 * gpu.gbytes }));
  assert(own(product) > 4 * own({ ...product, isShared: true }));
});

Deno.test("few invocations wait for memory, longer with single numbers; registers bound how many there are", () => {
  const few = { groups: 24, workgroup: 8 };
  assert(own(few) > 10 * own({}));
  assert(own({ ...few, hasVectors: false }) === 4 * own(few));
  const figures = { registers: 8, spills: 0, workgroupBytes: 0, waves: 16, code: 0, latency: 0, inverseThroughput: 0 };
  const slow = { ...gpu, latency: 1e5 };
  assert(estimate(work, slow, { ...figures, registers: 256 }) > estimate(work, slow, figures));
  assert(estimate(work, slow, { ...figures, workgroupBytes: 30000 }) > estimate(work, slow, figures));
});

Deno.test("a step has the encoder's product and Adam, and its shares are all of it", async () => {
  const sizes = { B: 64, D: 32, S: 256 };
  const step = await stepWork(sizes, { key: "top-k", top_k: 4 });
  const flops = step.reduce((sum, { cost }) => sum + (cost?.flops ?? 0), 0);
  assert(flops > 2 * sizes.B * sizes.D * sizes.S, "the encoder's product");
  const found = shares(step, gpu, {});
  assert(found.has("matmul_nt") && found.has("adam"));
  const runs = [...found.values()].reduce((sum, one) => sum + one.runs, 0);
  assertEquals(runs, step.length);
  const total = step.reduce((sum, one) => sum + estimate(one, gpu), 0);
  assert(Math.abs([...found.values()].reduce((sum, one) => sum + one.ms, 0) / total - 1) < 1e-9);
  // A batch of twice the rows is more work in as many dispatches.
  const larger = await stepWork({ ...sizes, B: 128 }, { key: "top-k", top_k: 4 });
  assertEquals(larger.length, step.length);
  assert(larger.reduce((sum, one) => sum + estimate(one, gpu), 0) > total);
});
