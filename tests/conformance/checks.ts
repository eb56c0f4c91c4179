/**
 * The two comparisons of the conformance suite: gradients of the float64 reference against differences of its loss, and a
 * training step on a GPU against the reference.
 *
 * @module
 */

import { assert } from "@std/assert";
import type { InputScaling } from "../../nn/arrays.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { encode, narrow, PARAMETER_NAMES, parameterNames, type Parameters, widen } from "../reference/model.ts";
import {
  backward,
  decideWith,
  type Decisions,
  forward,
  lossAndGradients,
  type Problem,
} from "../reference/objective.ts";
import type { Example } from "../reference/problems.ts";
import type { MatryoshkaGolden } from "../support/goldens.ts";
import { assertExact, assertFiniteDifference, assertScalarClose, assertTensorClose } from "../support/tolerance.ts";

const H = 1e-3;

/**
 * Every gradient is the difference of the loss, by five points, with what a step decides held at the base point: the loss
 * is quadratic in each single parameter but for lengths of rows and hyperbolic tangents.
 */
export function checkDifferences({ problem, p }: Example): void {
  const { decisions, record, gradients } = lossAndGradients(problem, p);
  if (problem.cfg.activation.aux.key !== "no-aux") assert(record.loss.aux > 0, "dead latents take part");
  for (const parameter of parameterNames(p)) {
    const differences = centralDifferences(problem, p, decisions, parameter);
    assertFiniteDifference(gradients[parameter]!, differences, parameter);
    assert(differences.some((difference) => Math.abs(difference) > H), `${parameter} has a gradient to check`);
  }
}

function centralDifferences(
  problem: Problem,
  p: Parameters,
  decisions: Decisions,
  parameter: keyof Parameters,
): Float64Array {
  const moved = widen(p);
  const values = moved[parameter]!;
  return values.map((value, i) => {
    const at = (steps: number): number => {
      values[i] = value + steps * H;
      return forward(problem, moved, decisions).loss.loss;
    };
    const difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * H);
    values[i] = value;
    return difference;
  });
}

/** Rows without firing after which a latent is dead. */
const THRESHOLD = 1000;

/** What a step on a GPU is compared with; the reference of the same problem and parameters if left out. */
export interface Comparison {
  readonly device: GPUDevice;
  /** Inputs before they are standardised, and how they are. */
  readonly raw?: InputScaling & { readonly x: Float32Array };
  /** What the reference is given instead of the problem and the parameters. */
  readonly expected?: Partial<Pick<Example, "problem" | "p">>;
}

/**
 * Loss, every part of it, dead latents and all gradients of a training step are the reference's, on the adapter's own
 * selection, which another test has found valid.
 */
export async function checkStep({ problem, p }: Omit<Example, "name">, given: Comparison): Promise<void> {
  const { cfg, x_BD, prefixes, dead_S } = problem;
  const { device, raw, expected = {} } = given;
  const { x, ...input } = raw ?? { mean: null, scale: 1, x: Float32Array.from(x_BD) };
  using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device, input });
  const n_prefixes = prefixes.length;
  const objective = getObjective({ key: "matryoshka", n_prefixes, dead_threshold_tokens: THRESHOLD });
  using state = new TrainState(sae);
  // It is this batch that makes them dead.
  state.tokens_since_active.write(Uint32Array.from(dead_S, (isDead) => isDead * (THRESHOLD - 1)));
  const step = objective.lossAndGradients(sae, x, { state, prefixes });
  using pending = step.loss;
  const loss = await pending.read();
  const gradients = await step.gradients.read();

  // A BatchTopK selects otherwise outside training.
  const mostK = "top_k" in cfg.activation ? cfg.activation.top_k : 0;
  const { f_x } = state.buffers(x.length / cfg.d_model, n_prefixes, mostK);
  using codes = sae.encode(x);
  using f_BS = (f_x.dense ? codes : f_x.entries.codes).dense();
  const mask_BS = Uint8Array.from(await f_BS.read(), (f) => f !== 0 ? 1 : 0);
  const { problem: wantedProblem = problem, p: wantedP = p } = expected;
  const h_BS = encode(wantedProblem.cfg, wantedP, wantedProblem.x_BD);
  const decisions = decideWith(wantedProblem, wantedP, h_BS, mask_BS);
  const record = forward(wantedProblem, wantedP, decisions);
  const wanted = backward(wantedProblem, wantedP, decisions, record);
  for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux"] as const) {
    assertScalarClose(loss[name], record.loss[name], name);
  }
  assertExact([loss.n_dead], [record.loss.n_dead], "n_dead");
  for (const name of parameterNames(p)) assertTensorClose(gradients[name]!, wanted[name]!, `grad_${name}`);
}

/** Loss, dead counters and all gradients of a step are those that the Python package computes. */
export async function checkGolden(golden: MatryoshkaGolden, device: GPUDevice): Promise<void> {
  using sae = await SparseAutoencoder.fromParameters(golden.cfg, golden.params, { device });
  const { n_prefixes, dead_threshold_tokens, prefixes } = golden;
  const objective = getObjective({ key: "matryoshka", n_prefixes, dead_threshold_tokens });
  using state = new TrainState(sae);
  state.tokens_since_active.write(Uint32Array.from(golden.tokens_since_active_before));
  const step = objective.lossAndGradients(sae, golden.x, { state, prefixes });
  using pending = step.loss;
  const loss = await pending.read();
  for (const name of ["loss", "mse", "l0", "l1", "sparsity", "aux"] as const) {
    assertScalarClose(loss[name], golden.loss[name], name);
  }
  assertExact([loss.n_dead], [golden.loss.n_dead], "n_dead");
  assertExact(await state.tokens_since_active.read(), golden.tokens_since_active_after, "tokens since active");
  const gradients = await step.gradients.read();
  for (const name of PARAMETER_NAMES) assertTensorClose(gradients[name], golden.grads[name], `grad_${name}`);
  sae.removeParallelGrads(step.gradients);
  const { W_dec } = await step.gradients.read();
  assertTensorClose(W_dec, golden.grad_W_dec_without_parallel, "grad_W_dec without its parallel part");
}
