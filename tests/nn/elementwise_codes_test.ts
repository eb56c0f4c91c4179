/**
 * ReLU and JumpReLU steps: the GPU continues with entries where they fit, with dense products where they do not, and both give
 * the same bits and what the reference gives.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import { activationKind } from "../../nn/activations/mod.ts";
import type { ParameterArrays } from "../../nn/arrays.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import type { Loss } from "../../objectives/loss_record.ts";
import { getObjective } from "../../objectives/objective.ts";
import { train } from "../../train/train.ts";
import { checkStep } from "../conformance/checks.ts";
import { narrow, parameterNames } from "../reference/model.ts";
import { everyProblem, type Example, gatedProblems } from "../reference/problems.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { type KernelCase, mutants } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertSameBits } from "../support/tolerance.ts";

/** Rows without firing after which a latent is dead. */
const THRESHOLD = 1000;

/** Problems whose entries fit: few latents are above their thresholds, and two are dead. */
const SPARSE = [...everyProblem({ B: 24, D: 20, S: 150 }, 5), ...gatedProblems({ B: 24, D: 20, S: 150 }, 5)]
  .filter(({ problem: { cfg: { activation } } }) => activationKind(activation).training.path === "elementwise")
  .map(({ name, problem, p }, at): Example => {
    const dead_S = new Uint8Array(150).fill(1, 7, 9);
    // Subtracting b_dec spreads the pre-activations.
    const few = problem.cfg.subtract_b_dec ? 2.4 : 1.7;
    const b_enc = Float64Array.from(new Random(at).normal(150, 0.2), (b, s) => Math.fround(b - (dead_S[s] ? 20 : few)));
    return { name, problem: { ...problem, dead_S }, p: { ...p, b_enc } };
  });

/** Steps that are dense whatever the entries are. */
const toDense = (name: string, wgsl: string) =>
  name === "choose_sparse_or_dense" ? wgsl.replace("<= dims.capacity", "< 0u") : wgsl;

let dense: Promise<GPUDevice> | undefined;

/** A device whose steps are, with bindings so small that a larger batch goes in tiles. */
function denseDevice(): Promise<GPUDevice> {
  return dense ??= freshDevice({ rewriteShader: toDense, guardWords: 64, bindingLimit: 2 ** 15 });
}

Deno.test.afterAll(async () => (await dense)?.destroy());

interface Step {
  readonly loss: Loss;
  readonly gradients: ParameterArrays;
  readonly isSparse: number;
}

async function stepOf({ problem, p }: Example, device: GPUDevice): Promise<Step> {
  const { cfg, x_BD, prefixes, dead_S } = problem;
  using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device });
  const objective = getObjective({
    key: "matryoshka",
    n_prefixes: prefixes.length,
    dead_threshold_tokens: THRESHOLD,
  });
  using state = new TrainState(sae);
  state.tokens_since_active.write(Uint32Array.from(dead_S, (isDead) => isDead * (THRESHOLD - 1)));
  const step = objective.lossAndGradients(sae, Float32Array.from(x_BD), { state, prefixes });
  using pending = step.loss;
  const loss = await pending.read();
  const gradients = await step.gradients.read();
  const { f_x } = state.buffers(x_BD.length / cfg.d_model, prefixes.length, 0);
  const [isSparse] = await f_x.dense!.isSparse.read();
  return { loss, gradients, isSparse: isSparse! };
}

function assertSameStep(got: Step, want: Step, example: Example): void {
  assertEquals(got.loss, want.loss, example.name);
  for (const name of parameterNames(example.p)) {
    assertSameBits(got.gradients[name]!, want.gradients[name]!, `${example.name}: grad_${name}`);
  }
}

Deno.test("sparse and dense steps have the same bits", async () => {
  for (const example of SPARSE) {
    const [got, want] = [await stepOf(example, await sharedDevice()), await stepOf(example, await denseDevice())];
    assertEquals([got.isSparse, want.isSparse], [1, 0], example.name);
    assert(want.loss.l0 > 0 && want.loss.n_dead === 2, example.name);
    assertSameStep(got, want, example);
  }
});

for (const [at, example] of SPARSE.entries()) {
  if (at % 4 > 0) continue;
  Deno.test(`loss and gradients of a sparse step are the reference's: ${example.name}`, async () => {
    await checkStep(example, { device: await sharedDevice() });
  });
}

Deno.test("a batch that is not kept whole has the same bits, sparse and dense, in one tile and in several", async () => {
  const sizes = { B: 170, D: 20, S: 60 };
  const examples = [
    ...everyProblem(sizes, 6).filter(({ name }) => /^(relu, auxk|jump-relu, (pre-act|auxk)),/.test(name)).slice(0, 4),
    ...gatedProblems(sizes, 6).slice(0, 4),
  ].map(({ name, problem, p }): Example => {
    const dead_S = new Uint8Array(60).fill(1, 3, 4);
    const b_enc = p.b_enc.map((_, s) => dead_S[s] ? -20 : -1.75);
    return { name, problem: { ...problem, dead_S }, p: { ...p, b_enc } };
  });
  assertEquals(examples.length, 8);
  for (const example of examples) {
    const [got, want] = [await stepOf(example, await sharedDevice()), await stepOf(example, await denseDevice())];
    assertEquals([got.isSparse, want.isSparse], [1, 0], example.name);
    assertSameStep(got, want, example);
  }
});

Deno.test("codes that grow sparse in training change the way and no bit", async () => {
  const sizes = { d_model: 20, d_sae: 45 };
  const runs: { readonly losses: Loss[]; readonly end: ParameterArrays; readonly ways: Set<number> }[] = [];
  for (const device of [await sharedDevice(), await denseDevice()]) {
    const activation = { key: "relu", sparsity: { key: "l1-sparsity", coeff: 20 } } as const;
    using sae = await SparseAutoencoder.create({ ...sizes, activation }, { device });
    using state = new TrainState(sae);
    const random = new Random(7);
    const batches = Array.from({ length: 25 }, () => random.normal(32 * 20));
    const losses: Loss[] = [];
    const ways = new Set<number>();
    const options = { state, lr: 0.1, n_lr_warmup: 0, grad_clip: false, log_every: 1 } as const;
    for await (const progress of train(sae, getObjective({ key: "vanilla" }), batches, options)) {
      losses.push(...progress.losses);
      ways.add((await state.buffers(32, 1, 0).f_x.dense!.isSparse.read())[0]!);
    }
    runs.push({ losses, end: await sae.readParameters(), ways });
  }
  const [found, dense] = runs as [typeof runs[0], typeof runs[0]];
  assertEquals([[...found.ways], [...dense.ways]], [[0, 1], [0]]);
  assertEquals(found.losses, dense.losses);
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
    assertSameBits(found.end[name], dense.end[name], name);
  }
});

Deno.test("a step that keeps its batch has one encoder product, whichever way it goes", async () => {
  for (const device of [await sharedDevice(), await denseDevice()]) {
    const context = contextOf(device);
    let products = 0;
    context.onDispatch = (name, bound) => products += Number(name === "matmul_nt" && bound[0] === "x");
    await stepOf(SPARSE[0]!, device);
    context.onDispatch = undefined;
    assertEquals(products, 1);
  }
});

/** The sparse step of the first problem whose name has these words. */
function step(...words: readonly string[]): KernelCase {
  const example = SPARSE.find(({ name }) => words.every((word) => name.includes(word)))!;
  return async (gpu) => await checkStep(example, { device: gpu.context.device });
}

Deno.test("mutants of the kernels of sparse steps are found", async () => {
  const l0 = step("jump-relu", "l0-sparsity");
  await mutants("cut_off_entries", [
    ["threshold[indices[entry]], 0.0", "threshold[indices[entry]], -1e9"],
    ["entry >= starts[dims.n_rows]", "entry >= 5u"],
    ["threshold[indices[entry]]", "threshold[0]"],
  ], l0);
  await mutants("jump_relu_entries_backward", [
    ["0.5 * dims.bandwidth", "dims.bandwidth"],
    ["max(threshold[s], 0.0)", "threshold[s]"],
    ["value > theta", "value > 0.0"],
    ["let e = entries[at]", "let e = at"],
  ], l0);
  const preAct = step("pre-act");
  await mutants("pre_act_entry_sums", [
    ["flags[s] != 0u", "flags[s] == 0u"],
    ["sqrt(squares[s])", "1.0"],
    ["if (s >= high) { break; }", ""],
  ], preAct);
  await mutants("pre_act_entry_gradients", [
    ["grad[entry] -=", "grad[entry] +="],
    ["flags[s] != 0u && ", ""],
    ["sqrt(squares[s])", "1.0"],
  ], preAct);
  await mutants("pre_act_entry_slopes", [
    ["by_threshold += slope", "by_threshold -= slope"],
    ["theta - value", "theta"],
    ["flags[s] != 0u && ", ""],
  ], preAct);
  // What does not fit must not continue as entries.
  const many = everyProblem({ B: 9, D: 20, S: 45 }, 4).find(({ name }) => name.startsWith("jump-relu"))!;
  await mutants("choose_sparse_or_dense", [
    ["<= dims.capacity", "> dims.capacity"],
    ["starts[dims.n_rows]", "starts[1]"],
    ["isDense[0] = u32(!fits)", "isDense[0] = 0u"],
  ], async (gpu) => await checkStep(many, { device: gpu.context.device }));
});
