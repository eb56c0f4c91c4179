/**
 * The kernels that only a whole step reaches: rows of the auxiliary codes, the numbers of a loss, and the verdict.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { completeConfig } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { RECORD_WIDTH, TOTALS } from "../../objectives/loss_record.ts";
import { getObjective } from "../../objectives/objective.ts";
import { DivergenceError, train } from "../../train/train.ts";
import { encode, narrow, PARAMETER_NAMES, select, widen } from "../reference/model.ts";
import { type Decisions, lossAndGradients, type Problem } from "../reference/objective.ts";
import { randomParameters } from "../reference/problems.ts";
import { check, type KernelCase, mutants } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertSameBits, assertScalarClose, assertTensorClose } from "../support/tolerance.ts";

const [B, D, S] = [9, 12, 40];

/** A step of a TopK model in which some latents are dead, compared with float64 in every number and gradient. */
const step = (k_aux: number): KernelCase => async (gpu) => {
  const random = new Random(1);
  const activation = {
    key: "top-k",
    top_k: 3,
    sparsity: { key: "l1-sparsity", coeff: 0.01 },
    aux: { key: "auxk", k_aux, alpha: 1 / 4 },
  } as const;
  const cfg = completeConfig({ d_model: D, d_sae: S, activation });
  const p = narrow(randomParameters(random, { D, S }));
  // Larger than 1, so that the scale of the squared error is no 1 either.
  const x = random.normal(B * D, 6);
  const x_BD = Float64Array.from(x);
  const mask = select(cfg.activation, encode(cfg, widen(p), x_BD), S);
  const dead_S = Uint8Array.from({ length: S }, (_, s) => {
    for (let b = 0; b < B; b++) if (mask[b * S + s]) return 0;
    return 1;
  });
  const problem: Problem = { cfg, x_BD, prefixes: [5, S], dead_S };
  const want = lossAndGradients(problem, widen(p));
  const { device } = gpu.context;
  using sae = await SparseAutoencoder.fromParameters(cfg, p, { device });
  using state = new TrainState(sae);
  const objective = getObjective({ key: "matryoshka", n_prefixes: 2, dead_threshold_tokens: B });
  const { loss: pending, gradients } = objective.lossAndGradients(sae, x, { state, prefixes: [5, S] });
  using loss = pending;
  const got = await loss.read();
  for (const [name, value] of Object.entries(want.record.loss)) {
    assertScalarClose(got[name as keyof typeof got], value, `${name}, k_aux ${k_aux}`);
  }
  const read = await gradients.read();
  for (const name of PARAMETER_NAMES) assertTensorClose(read[name], want.gradients[name], `grad of ${name}`);
  assertEquals(count(want.decisions), B * Math.min(k_aux, count({ auxMask_BS: dead_S })), "auxiliary codes");
};

function count({ auxMask_BS }: Pick<Decisions, "auxMask_BS">): number {
  return auxMask_BS.reduce((sum, one) => sum + one, 0);
}

/** Fewer than are dead, and more. */
const steps: KernelCase = async (gpu) => {
  for (const k_aux of [2, 39]) await step(k_aux)(gpu);
};

Deno.test("every number and gradient of a step with dead latents", async () => {
  await check(steps, {});
});

const CFG = {
  d_model: D,
  d_sae: S,
  activation: { key: "top-k", top_k: 3, aux: { key: "no-aux" } },
  remove_parallel_grads: false,
  normalize_w_dec: false,
} as const;
const OPTIONS = { lr: 1e-3, n_lr_warmup: 1, log_every: 10 };

/** Trains on three good batches and on bad ones; the model must be as after the steps before the one that halts. */
const diverging = (bad: (x: Float32Array) => Float32Array, tensor: string, step: number): KernelCase => async (gpu) => {
  const random = new Random(2);
  const p = narrow(randomParameters(random, { D, S }));
  const batches = Array.from({ length: 8 }, (_, i) => {
    const x = random.normal(B * D);
    return i >= 3 ? bad(x) : x;
  });
  const { device } = gpu.context;
  const objective = getObjective({ key: "vanilla" });
  using sae = await SparseAutoencoder.fromParameters(CFG, p, { device });
  using alone = await SparseAutoencoder.fromParameters(CFG, p, { device });
  const error = await assertRejects(
    async () => await Array.fromAsync(train(sae, objective, batches, OPTIONS)),
    DivergenceError,
  );
  assertEquals([error.step, error.tensor], [step, tensor]);
  const progress = await Array.fromAsync(train(alone, objective, batches.slice(0, step), OPTIONS));
  const [got, want] = [await sae.readParameters(), await alone.readParameters()];
  for (const name of PARAMETER_NAMES) assertSameBits(got[name], want[name], name);
  // Of the first step, whose rate is 0, the gradient is known.
  using fresh = await SparseAutoencoder.fromParameters(CFG, p, { device });
  using state = new TrainState(fresh);
  const { loss, gradients } = objective.lossAndGradients(fresh, batches[0]!, { state });
  loss[Symbol.dispose]();
  const read = await gradients.read();
  const squares = PARAMETER_NAMES.map((name) => read[name].reduce((sum, value) => sum + value * value, 0));
  assertScalarClose(progress[0]!.losses[0]!.grad_norm, Math.sqrt(squares.reduce((a, b) => a + b)), "grad_norm");
};

const withNaN = diverging((x) => x.with(7, NaN), "x", 3);
/** As early as an explosion can be seen: after two good steps, and after three, whose errors are the same. */
const explodingEarly: KernelCase = async (gpu) => {
  const { device } = gpu.context;
  const activation = { key: "top-k", top_k: 3, aux: { key: "no-aux" } } as const;
  const x = new Random(4).normal(B * D);
  for (const good of [2, 3]) {
    const p = narrow(randomParameters(new Random(3), { D, S }));
    using sae = await SparseAutoencoder.fromParameters({ d_model: D, d_sae: S, activation }, p, { device });
    const batches = Array.from({ length: good + 4 }, (_, i) => i < good ? x : x.map((value) => value * 1e3));
    const error = await assertRejects(
      async () => await Array.fromAsync(train(sae, getObjective({ key: "vanilla" }), batches, { lr: 0 })),
      DivergenceError,
      "third step in a row more than 10,000 times",
    );
    assertEquals(error.step, good + 2);
  }
};
const exploding = diverging((x) => x.map((value) => value * 1e3), "x_hat", 5);

Deno.test("a run halts before the step that halts it changes anything: NaN, and an explosion", async () => {
  await check(withNaN, {});
  await check(exploding, {});
  await check(explodingEarly, {});
});

Deno.test("mutants of the kernels of a step are found", async () => {
  await mutants("auxiliary_starts", [
    ["min(dims.k_aux, count[0])", "dims.k_aux"],
    ["row <= dims.n_rows", "row < dims.n_rows"],
    ["row * min", "(row / 2u) * min"],
  ], steps);
  await mutants("record_loss", [
    [`totals[${TOTALS.l1}] / dims.n_rows`, `totals[${TOTALS.l1}]`],
    ["totals[dims.penalty_at] / dims.n_rows", "totals[dims.penalty_at]"],
    ["* scale * scale", "* scale"],
    ["mse + sparsity + aux", "mse + aux"],
    ["f32(n_dead[0]), dims.training == 1u", "f32(n_dead[0]), dims.training == 0u"],
  ], steps);
  await mutants("verdict", [
    ["= norm[0];", "= quantizeToF16(norm[0]);"],
    ["!= 0x7f800000u", "!= 0x7f800001u"],
    [`dims.slot * ${RECORD_WIDTH}u`, "0u"],
  ], withNaN);
  await mutants("verdict", [
    ["> 10000.0 * median", "> 100000000.0 * median"],
    ["stepsAbove[0] = above", "stepsAbove[0] = 0u"],
    ["above >= 3u", "above >= 2u"],
    ["rank == (count - 1u) / 2u", "rank == count / 2u"],
    ["(other == mine && i < lane)", "false"],
  ], explodingEarly);
});
