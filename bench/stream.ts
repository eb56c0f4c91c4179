/**
 * Where the time of small steps goes: one model alone, eight on one stream, the wait for losses, and the upload of
 * rows.
 *
 * @module
 */

import { contextOf, Tensor } from "../kernels/mod.ts";
import { getObjective, SparseAutoencoder } from "../mod.ts";
import { train, type Training, trainMany } from "../train/mod.ts";
import type { Row } from "./measure.ts";

const [B, D, S, k] = [256, 64, 512, 16];
const MODELS = 8;
/** Steps of one measurement, a multiple of the usual 25 between two reads. */
const STEPS = 50;

/** Milliseconds per step and model, the fastest of `rounds`, in one order so that drifts affect all alike. */
export async function timeStream(device: GPUDevice, rounds = 3): Promise<Row[]> {
  using stack = new DisposableStack();
  const x = Float32Array.from({ length: B * D }, (_, i) => Math.sin(i * 12.9898) * 2);
  const onDevice = stack.use(Tensor.from(contextOf(device), x, [B, D], "x"));
  const objective = getObjective({ key: "vanilla" });
  const models: Training[] = [];
  for (let i = 0; i <= MODELS; i++) {
    const activation = { key: "top-k", top_k: k } as const;
    const cfg = { d_model: D, d_sae: S, activation };
    const sae = stack.use(await SparseAutoencoder.create(cfg, { device, seed: i }));
    models.push({ sae, objective, options: { lr: 1e-4 * (i + 1) } });
  }
  const [single, ...together] = models as [Training, ...Training[]];
  const alone = (batch: Float32Array | Tensor, log_every: number) => async () => {
    for await (const _ of train(single.sae, objective, Array(STEPS).fill(batch), { log_every }));
  };
  const measured = [
    { what: "alone, losses read once", run: alone(x, STEPS), models: 1 },
    { what: "alone, losses read every 25 steps", run: alone(x, 25), models: 1 },
    { what: "alone, losses read every 5 steps", run: alone(x, 5), models: 1 },
    { what: "alone, rows on the device already", run: alone(onDevice, STEPS), models: 1 },
    {
      what: `${MODELS} together, losses read once`,
      run: async () => {
        for await (const _ of trainMany(together, Array(STEPS).fill(x), { log_every: STEPS }));
      },
      models: MODELS,
    },
  ];
  const fastest = measured.map(() => Infinity);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, { run, models }] of measured.entries()) {
      const begin = performance.now();
      await run();
      const milliseconds = (performance.now() - begin) / STEPS / models;
      // The first round compiles the kernels.
      if (round > 0) fastest[i] = Math.min(fastest[i]!, milliseconds);
    }
  }
  return measured.map(({ what }, i) => ({
    [`stream (B ${B}, D ${D}, S ${S}, k ${k})`]: what,
    "ms a step and model": fastest[i]!,
    "/ alone": fastest[i]! / fastest[0]!,
  }));
}
