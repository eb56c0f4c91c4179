/**
 * The peers' step, by this library.
 *
 * @module
 */

import { getObjective, SparseAutoencoder } from "../../mod.ts";
import { train, TrainState } from "../../train/mod.ts";
import { CONSTANTS, type PeerProblem, startOf } from "./problem.ts";

/** Steps per sample: waiting for the GPU costs some 11 ms, which few users do every step. */
const SAMPLE = 4;

/** Takes the compared steps; returns their losses and a function that times more steps, in milliseconds per step. */
export async function ours(
  device: GPUDevice,
  problem: PeerProblem,
): Promise<AsyncDisposable & { readonly losses: readonly number[]; readonly milliseconds: () => Promise<number> }> {
  const { D, S, k, n_dead, k_aux, alpha, lr, n_compared, B } = problem;
  const { x, parameters } = startOf(problem);
  await using made = new AsyncDisposableStack();
  const sae = made.use(
    await SparseAutoencoder.fromParameters(
      {
        d_model: D,
        d_sae: S,
        activation: { key: "top-k", top_k: k, aux: { key: "auxk", k_aux, alpha, include_b_dec: false } },
      },
      parameters,
      { device },
    ),
  );
  // The silent latents have been silent for long; no other can become dead in the few steps to come.
  const dead_threshold_tokens = 1000 * B;
  using fresh = new TrainState(sae);
  const state = made.use(TrainState.restore(sae, {
    ...await fresh.read(),
    tokens_since_active: new Uint32Array(S).fill(dead_threshold_tokens, S - n_dead),
  }));
  const objective = getObjective({ key: "matryoshka", n_prefixes: 1, dead_threshold_tokens });
  const { grad_clip } = CONSTANTS;
  const options = { state, lr, n_lr_warmup: 0, grad_clip };
  const losses: number[] = [];
  for await (const progress of train(sae, objective, Array(n_compared).fill(x), options)) {
    for (const loss of progress.losses) {
      if (loss.n_dead !== n_dead) throw new Error(`${loss.n_dead} latents are dead, expected ${n_dead}`);
      losses.push(loss.loss);
    }
  }
  const stack = made.move();
  const milliseconds = async () => {
    const began = performance.now();
    for await (const _ of train(sae, objective, Array(SAMPLE).fill(x), { ...options, log_every: SAMPLE }));
    return (performance.now() - began) / SAMPLE;
  };
  return { losses, milliseconds, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
