/**
 * Creates, trains and evaluates one dictionary in a world, with all of its rows made on the GPU on demand.
 *
 * @module
 */

import { getObjective, SparseAutoencoder } from "../../mod.ts";
import { measureScaling, rowsOf } from "../../data/mod.ts";
import { train } from "../../train/mod.ts";
import type { Architecture, Benchmark } from "./architectures.ts";
import { evaluateInWorld, type WorldMetrics } from "./metrics.ts";
import type { Samples } from "./samples.ts";

/** Seed of the rows for evaluation, on which no dictionary is trained. */
const EVALUATION_SEED = 2 ** 32;
const SCALING_SEED = 2 ** 32 + 1;
/** Batches for measuring the input scaling. */
const N_SCALING = 8;
const N_LR_WARMUP = 100;

/**
 * Trains one dictionary and evaluates it: its initial values and rows come from its seed; the rows for evaluation are
 * the same for all.
 */
export async function trainInWorld(
  { d_sae, n_steps, lr, n_evaluated }: Benchmark,
  samples: Samples,
  { activation, objective }: Architecture,
  seed: number,
): Promise<WorldMetrics> {
  const { d_model } = samples.world.cfg;
  const x = new Float32Array(N_SCALING * samples.x.size);
  let filled = 0;
  for (const batch of samples.batches(SCALING_SEED, N_SCALING)) x.set(await batch.read(), samples.x.size * filled++);
  using sae = await SparseAutoencoder.create({ d_model, d_sae, activation }, {
    device: samples.x.context.device,
    seed,
    input: await measureScaling(rowsOf(x, d_model), "mean_scale"),
    data: { x, data_points: false },
  });
  const options = { lr, n_steps, n_lr_warmup: N_LR_WARMUP, grad_clip: false } as const;
  for await (const _ of train(sae, getObjective(objective), samples.batches(seed, n_steps), options));
  return await evaluateInWorld(sae, samples, { seed: EVALUATION_SEED, n_batches: n_evaluated });
}
