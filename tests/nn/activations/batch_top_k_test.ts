/**
 * A BatchTopK's threshold: the running estimate of the smallest positive survivor, and when it stays as it is.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { ShapeError } from "../../../kernels/engine/errors.ts";
import { type BatchTopK, updateThreshold } from "../../../nn/activations/batch_top_k.ts";
import type { Codes } from "../../../nn/codes.ts";
import { completeConfig } from "../../../nn/config.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../../nn/state.ts";
import { getObjective } from "../../../objectives/objective.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { check, type KernelCase, mutants, type Recording } from "../../support/kernel_harness.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertScalarClose } from "../../support/tolerance.ts";

const OPTIONS = { d_model: 12, d_sae: 37, activation: { key: "batch-top-k", top_k: 4 } } as const;

/** Powers of two, so that the estimate is exact. */
function update(
  gpu: Recording,
  values: readonly number[],
  want: number,
  {
    before = 2,
    halted = 0,
    largest = 1,
    entries = values.length,
    momentum = 0.25,
    bias_correction = false,
    seen = 0,
    seenAfter = NaN,
  } = {},
): void {
  const cfg = completeConfig({ ...OPTIONS, activation: { ...OPTIONS.activation, momentum, bias_correction } });
  const share = gpu.f32([seen]);
  const threshold = gpu.f32([before]);
  const codes = { n_rows: 2, row_starts: gpu.u32([0, 1, entries]), values: gpu.f32(values) };
  const bits = gpu.u32(new Uint32Array(Float32Array.of(largest).buffer));
  updateThreshold(gpu.commands, { threshold }, cfg.activation as BatchTopK, {
    codes: codes as unknown as Codes,
    largest: bits,
    halted: gpu.u32([halted]),
    seen: share,
  });
  if (!Number.isNaN(seenAfter)) gpu.expect(share, (got) => assertExact(got, [seenAfter], "share that was seen"));
  gpu.expect(threshold, (got) => assertExact(got, [want], `threshold after [${values.slice(0, 6)}]`));
}

const every: KernelCase = (gpu) => {
  update(gpu, [8, 4, 16], 2.5);
  update(gpu, [8, -4, 16], 3.5);
  update(gpu, [8, 0, -0], 3.5);
  update(gpu, [4, 8, 1], 2.5, { entries: 2 });
  update(gpu, [-1, -2, 0], 2);
  update(gpu, [4], 2, { halted: 1 });
  update(gpu, [4, 8], 2, { largest: NaN });
  update(gpu, [4, 8], 2, { largest: Infinity });
  update(gpu, [NaN, Infinity, 4], 2.5);
  // The first value corrected is itself, whatever stood there; the second has the weight 1/4 / (1 − 9/16) of the two.
  update(gpu, [8], 8, { bias_correction: true, before: 0, seenAfter: 0.25 });
  update(gpu, [8], 8, { bias_correction: true, before: 8, seen: 0.25, seenAfter: 0.4375 });
  update(gpu, [-8], 2, { bias_correction: true, seenAfter: 0 });
  update(gpu, [4], 2.5, { seenAfter: 0.25 });
  // A momentum of which 1 has no room for the difference.
  update(gpu, [8], 8, { bias_correction: true, momentum: 2 ** -30, before: 0, seenAfter: 2 ** -30 });
  update(gpu, [8], 2, { momentum: 0, seenAfter: 0 });
  update(gpu, new Array<number>(400).fill(8).with(320, 4), 3.5, { entries: 300 });
  const many = Array.from({ length: 5000 }, (_, i) => 16 + i);
  for (const at of [0, 255, 256, 700, 1023, 1024, 4999]) update(gpu, many.with(at, 4), 2.5);
};

Deno.test("the threshold follows the smallest positive code, and stays where there is none", async () => {
  await check(every);
  await mutants("update_threshold", [
    ["bits > 0u && ", ""],
    ["&& halted[0] == 0u", ""],
    ["if (i1 < end)", "if (i1 < dims.capacity)"],
    ["found != NONE && ", ""],
    ["(1.0 - share) * threshold[0] +", "threshold[0] +"],
    ["share /= seen[0]", "share /= 1.0 - seen[0]"],
    ["dims.momentum * (1.0 - seen[0])", "dims.momentum"],
  ], every);
});

Deno.test("training moves the threshold, evaluation does not, and files hold it", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create(OPTIONS, { device });
  using state = new TrainState(sae);
  const x = new Random(1).normal(9 * 12);
  const objective = getObjective({ key: "vanilla" });
  assertExact((await sae.readParameters()).threshold!, [0]);
  using first = objective.lossAndGradients(sae, x, { state }).loss;
  await first.read();
  const { f_x } = state.buffers(9, 1, 4);
  const { values } = await f_x.entries.codes.read();
  assertEquals(values.length, 9 * 4);
  const { threshold } = await sae.readParameters();
  assertScalarClose(threshold![0]!, 0.1 * Math.min(...values.filter((value) => value > 0)), "threshold");
  await objective.loss(sae, x);
  using out = sae.forward(x);
  await out.x_hat.read();
  assertExact((await sae.readParameters()).threshold!, threshold!);
  using again = await SparseAutoencoder.fromParameters(sae.cfg, await sae.readParameters(), { device });
  assertExact((await again.readParameters()).threshold!, threshold!);
});

Deno.test("rows do not compete outside training", async () => {
  const random = new Random(2);
  const device = await sharedDevice();
  using made = await SparseAutoencoder.create(OPTIONS, { device });
  const parameters = { ...await made.readParameters(), threshold: Float32Array.of(0.3) };
  using sae = await SparseAutoencoder.fromParameters(OPTIONS, parameters, { device });
  const x = random.normal(20 * 12);
  using together = sae.encode(x);
  const all = await together.read();
  for (const row of [0, 7, 19]) {
    using alone = sae.encode(x.slice(row * 12, (row + 1) * 12));
    const one = await alone.read();
    assertExact(one.indices, all.indices.slice(all.row_starts[row], all.row_starts[row + 1]));
    assertExact(one.values, all.values.slice(all.row_starts[row], all.row_starts[row + 1]));
  }
});

Deno.test("a threshold belongs to a BatchTopK, and is one", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create(OPTIONS, { device });
  const parameters = await sae.readParameters();
  const topK = { ...OPTIONS, activation: { key: "top-k" } } as const;
  await assertRejects(() => SparseAutoencoder.fromParameters(topK, parameters, { device }), ShapeError, "no threshold");
  const two = { ...parameters, threshold: new Float32Array(2) };
  await assertRejects(() => SparseAutoencoder.fromParameters(OPTIONS, two, { device }), ShapeError, "one threshold");
});
