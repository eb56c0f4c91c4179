/**
 * Bugs that SAE libraries have shipped, and mistakes that schedules invite, put back one at a time: into the WGSL, or into
 * what a step is expected to give. Each must be caught by the check that it names.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import { requestDevice } from "../../kernels/engine/device.ts";
import { DeviceContext } from "../../kernels/engine/device.ts";
import type { InputScaling } from "../../nn/arrays.ts";
import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { decode, decodeBackward, encode, narrow, type Parameters, widen } from "../reference/model.ts";
import { lossAndGradients } from "../reference/objective.ts";
import { metrics } from "../reference/metrics.ts";
import { everyProblem, type Example, gatedProblems } from "../reference/problems.ts";
import { removeParallel } from "../reference/training.ts";
import { Random } from "../support/random.ts";
import { sharedDevice } from "../support/gpu.ts";
import { assertScalarClose, assertTensorClose } from "../support/tolerance.ts";
import { checkStep } from "./checks.ts";
import { CORNERS } from "./corners.ts";
import type { Drawn, DrawnTraining } from "./drawn.ts";
import { checkCodes, checkLoss, checkTraining, type Reference, referenceOf } from "./drawn_checks.ts";
import { type Trial, trialOf } from "./trial.ts";

/** A bug, where it was seen, and a check that must refuse it. */
export interface FieldBug {
  /** What is wrong. */
  readonly name: string;
  /** Where it was. */
  readonly origin: string;
  /** What catches it. */
  readonly check: string;
}

/** A bug in a kernel: the check passes without the replacements and must not with them. */
export interface WgslBug extends FieldBug {
  readonly kernel: string;
  readonly replacements: readonly (readonly [from: string, to: string])[];
  readonly run: (device: GPUDevice) => Promise<void>;
}

/** A bug in what is expected: the right step must be refused by it. */
export interface ExpectationBug extends FieldBug {
  readonly run: () => Promise<void>;
}

const EXAMPLES = everyProblem({ B: 9, D: 20, S: 45 }, 4);

function example(...words: readonly string[]): Example {
  const found = EXAMPLES.find(({ name }) => words.every((word) => name.includes(word)));
  if (!found) throw new RangeError(`no problem is ${words.join(" and ")}`);
  return found;
}

const stepOf = (...words: readonly string[]) => (device: GPUDevice) => checkStep(example(...words), { device });
/** So many codes that some are negative. */
function manyCodes(device: GPUDevice): Promise<void> {
  const { problem, p } = example("top-k, no-aux", "x W");
  const activation = { ...problem.cfg.activation, top_k: 40 } as typeof problem.cfg.activation;
  const cfg = { ...problem.cfg, activation };
  return checkStep({ problem: { ...problem, cfg, dead_S: new Uint8Array(cfg.d_sae) }, p }, { device });
}
const STEP = "a step against the float64 reference";
const TRAINING = "three training steps against the float64 reference";

/** W_dec's rows are not of unit length here. */
async function parallelRemoval(device: GPUDevice): Promise<void> {
  const { problem: { cfg, x_BD }, p } = example("top-k", "no-aux");
  using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device });
  using state = new TrainState(sae);
  const { loss, gradients } = getObjective({ key: "vanilla" }).lossAndGradients(sae, Float32Array.from(x_BD), {
    state,
  });
  loss[Symbol.dispose]();
  const wanted = widen(await gradients.read());
  sae.removeParallelGrads(gradients);
  removeParallel(wanted.W_dec, p.W_dec, cfg.d_model);
  assertTensorClose((await gradients.read()).W_dec, wanted.W_dec, "grad_W_dec without its parallel part");
}

/** No code is positive, so the threshold stays. */
async function emptyBatch(device: GPUDevice): Promise<void> {
  const { problem: { cfg, x_BD }, p } = example("batch-top-k", "no-aux", "x W");
  const values = { ...narrow(p), b_enc: new Float32Array(cfg.d_sae).fill(-1000), threshold: Float32Array.of(0.5) };
  using sae = await SparseAutoencoder.fromParameters(cfg, values, { device });
  using state = new TrainState(sae);
  const step = getObjective({ key: "vanilla" }).lossAndGradients(sae, Float32Array.from(x_BD), { state });
  using _loss = step.loss;
  assertScalarClose((await sae.readParameters()).threshold![0]!, 0.5, "threshold");
}

/** In kernels. */
export const WGSL_BUGS: readonly WgslBug[] = [
  {
    name: "b_dec is added to AuxK's reconstruction",
    origin: "sparsify #132, SAELens #644, saev",
    check: STEP,
    kernel: "auxiliary_residuals",
    replacements: [["dims.bias_weight), b_dec[d]", "1.0), b_dec[d]"]],
    run: stepOf("top-k", "auxk,", "x W"),
  },
  {
    name: "b_dec is added once for every prefix",
    origin: "nested decoders that call decode() for each group",
    check: STEP,
    kernel: "residuals",
    replacements: [["+ bias0)", "+ bias0 * f32(p))"]],
    run: stepOf("relu, no-aux", "prefixes 1,"),
  },
  {
    name: "L0 counts what is > 0",
    origin: "metrics written for ReLU, applied to TopK's negative codes",
    check: STEP,
    kernel: "row_norms",
    replacements: [["u32((bitcast<u32>(values[entry]) & 0x7fffffffu) != 0u)", "u32(values[entry] > 0.0)"]],
    run: manyCodes,
  },
  {
    name: "the threshold is taken from a batch without a positive code",
    origin: "saev: `numel() >= 0`",
    check: "the threshold of such a batch",
    kernel: "update_threshold",
    replacements: [["found != NONE && ", ""]],
    run: emptyBatch,
  },
  {
    name: "the parallel part is removed without dividing by ‖w‖²",
    origin: "projections written for unit rows",
    check: "⟨grad, row⟩ of rows of any length",
    kernel: "parallel_rows",
    replacements: [["along / norm_squared", "along"]],
    run: parallelRemoval,
  },
  {
    name: "the dead mask is that of the batch before",
    origin: "counters updated after the auxiliary loss",
    check: STEP,
    kernel: "update_dead",
    replacements: [
      ["let waited =", "let stale = tokens_since_active[s]; let waited ="],
      ["u32(waited >=", "u32(stale >="],
    ],
    run: stepOf("top-k", "auxk,", "x W"),
  },
  {
    name: "JumpReLU's estimator has no gradient through the codes",
    origin: "thresholds that only the penalty trains",
    check: STEP,
    kernel: "jump_relu_backward",
    replacements: [["fma(jump, by_f, l0)", "l0"]],
    run: stepOf("jump-relu, no-aux", "l1-sparsity"),
  },
  {
    name: "JumpReLU's estimator lacks θ / ε",
    origin: "estimators of the step instead of that of the jump",
    check: STEP,
    kernel: "jump_relu_backward",
    replacements: [["theta / dims.bandwidth", "1.0"]],
    run: stepOf("jump-relu, no-aux", "l1-sparsity"),
  },
  {
    name: "the penalty on L0 trains no threshold",
    origin: "SAELens #494: λ has no effect",
    check: STEP,
    kernel: "jump_relu_backward",
    replacements: [["slope[0] * dims.l0_share", "0.0"]],
    run: stepOf("jump-relu", "l0-sparsity, prefixes 45"),
  },
];

/** The right step of a problem, compared with what a bug makes of it. */
const expecting = (of: Example, expected: Partial<Pick<Example, "problem" | "p">>) => async () => {
  await checkStep(of, { device: await sharedDevice() });
  await refuse(async () => await checkStep(of, { device: await sharedDevice(), expected }));
};

async function refuse(check: () => Promise<void> | void): Promise<void> {
  try {
    await check();
  } catch (error) {
    if (error instanceof AssertionError) return;
    throw error;
  }
  throw new AssertionError("the bug passes");
}

const withAux = example("top-k", "auxk,", "x W");
const nested = example("top-k, no-aux", "prefixes 1,");
const plain = example("relu, no-aux", "x W");

function tied(p: Parameters, d_model: number, d_sae: number): Parameters {
  return { ...p, W_enc: p.W_enc.map((_, i) => p.W_dec[(i % d_sae) * d_model + Math.floor(i / d_sae)]!) };
}

/** A golden's training, as it is drawn and with some of it changed. */
function trialWith(train: Partial<DrawnTraining>, given: Partial<Drawn> = {}): Trial {
  const corner = CORNERS.get("train_top_k_matryoshka.json")!;
  return trialOf({ ...corner, ...given, train: { ...corner.train, ...train } });
}

/** What is drawn passes as it is, and not where the reference has a bug. */
const drawing =
  (check: typeof checkTraining, trial: Trial, bug: (right: Reference) => Partial<Reference>) => async () => {
    const device = await sharedDevice();
    await check(trial, device);
    await refuse(() => check(trial, device, bug(referenceOf(trial))));
  };

const MUON_TRIAL = trialWith({ optimizer: { key: "muon", nesterov: true }, n_lr_warmup: 0 });
const RELU_TRIAL = trialOf({
  ...CORNERS.get("train_relu_vanilla.json")!,
  train: { ...CORNERS.get("train_relu_vanilla.json")!.train, n_sparsity_warmup: 4 },
});
const later = (of: (step: number) => number) => (step: number) => of(step + 1);

/** In what a step must give. */
export const EXPECTATION_BUGS: readonly ExpectationBug[] = [
  {
    name: "AuxK's gradient is lost",
    origin: "sparsify: FusedEncoder drops grad_preacts; crosscode #3",
    check: STEP,
    run: expecting(withAux, {
      problem: {
        ...withAux.problem,
        cfg: {
          ...withAux.problem.cfg,
          activation: { ...withAux.problem.cfg.activation, aux: { key: "no-aux" } },
        },
      },
    }),
  },
  {
    name: "prefixes are one latent too long",
    origin: "inclusive ends",
    check: STEP,
    run: expecting(nested, {
      problem: {
        ...nested.problem,
        prefixes: nested.problem.prefixes.map((length, i, all) => i + 1 < all.length ? length + 1 : length),
      },
    }),
  },
  {
    name: "W_enc shares W_dec's storage",
    origin: "W_enc.data = W_dec.data.T without a copy",
    check: STEP,
    run: expecting(plain, { p: tied(plain.p, plain.problem.cfg.d_model, plain.problem.cfg.d_sae) }),
  },
  {
    name: "a Gated's decoder learns from the reconstruction by its gates",
    origin: "SAELens 6.54 and ViT-Prisma, whose decoders are not frozen in it as the paper's is",
    check: STEP,
    run: async () => {
      const [{ problem, p }] = gatedProblems({ B: 9, D: 20, S: 45 }, 4) as [Example];
      const { cfg, x_BD } = problem;
      using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice() });
      using state = new TrainState(sae);
      const { loss, gradients } = getObjective({ key: "vanilla" }).lossAndGradients(sae, Float32Array.from(x_BD), {
        state,
      });
      using _ = loss;
      const { W_dec } = await gradients.read();
      const wanted = lossAndGradients(problem, p).gradients.W_dec;
      assertTensorClose(W_dec, wanted, "grad_W_dec");
      const learned = wanted.map((gradient, i) => gradient + decoderOfGates(cfg, p, x_BD).W_dec[i]!);
      await refuse(() => void assertTensorClose(W_dec, learned, "grad_W_dec"));
    },
  },
  {
    name: "the rate is that of the next step",
    origin: "schedulers that are stepped before the optimizer",
    check: TRAINING,
    run: drawing(checkTraining, trialWith({}), ({ rate }) => ({ rate: later(rate) })),
  },
  {
    name: "the first step has a rate",
    origin: "warm-ups that begin at their first call, where upstream's optimizer starts at 0",
    check: TRAINING,
    run: drawing(checkTraining, trialWith({ n_lr_warmup: 0, n_steps: null }), ({ rate }) => ({
      rate: (step) => rate(Math.max(1, step)),
    })),
  },
  {
    name: "k is that of the next step",
    origin: "schedules that are stepped before the update",
    check: TRAINING,
    run: drawing(checkTraining, trialWith({ k: { k_start: 12, n_k_warmup: 3 } }), ({ k }) => ({ k: later(k) })),
  },
  {
    name: "the penalty's weight is that of the next step",
    origin: "schedules that are stepped before the update",
    check: TRAINING,
    run: drawing(checkTraining, RELU_TRIAL, ({ penalty }) => ({ penalty: later(penalty) })),
  },
  {
    name: "Muon's momentum is without Nesterov's look ahead",
    origin: "Muons that leave PyTorch's default out",
    check: TRAINING,
    run: drawing(checkTraining, MUON_TRIAL, () => ({ nesterov: false })),
  },
  {
    name: "inputs are not standardised",
    origin: "loaders that drop the scale a dictionary was trained with",
    check: "codes, a step and a training against the float64 reference",
    run: async () => {
      const trial = trialWith({}, { standardise: "mean_scale", scale: 128 });
      const raw = () => ({ input: (x: Float32Array) => Float64Array.from(x) });
      for (const check of [checkCodes, checkLoss, checkTraining]) await drawing(check, trial, raw)();
    },
  },
  {
    name: "the mean is taken off after the division",
    origin: "x / scale − mean instead of (x − mean) / scale",
    check: "codes, a step and a training against the float64 reference",
    run: async () => {
      const trial = trialWith({}, { standardise: "mean_scale", scale: 128 });
      const swapped = () => ({
        input: (x: Float32Array, { mean, scale }: InputScaling) =>
          Float64Array.from(x, (value, i) => value / scale - mean![i % mean!.length]!),
      });
      for (const check of [checkCodes, checkLoss, checkTraining]) await drawing(check, trial, swapped)();
    },
  },
  {
    name: "f16 weights are not rounded",
    origin: "comparisons of float16 inference with the float32 checkpoint",
    check: "codes against the float64 reference",
    run: drawing(checkCodes, trialWith({}, { weights: "f16" }), () => ({ stored: (matrix) => matrix })),
  },
  {
    name: "a latent is dead a row too late",
    origin: "counters compared by > and not by ≥",
    check: "a step and a training against the float64 reference",
    run: async () => {
      for (const check of [checkLoss, checkTraining]) {
        await drawing(check, trialWith({}), ({ deadAfter }) => ({ deadAfter: deadAfter + 1 }))();
      }
    },
  },
  {
    name: "explained variance is relative to zero",
    origin: "SAELens #443, #659, #665, #710; OpenAI's loss.py",
    check: "evaluate() against the float64 metrics",
    run: async () => {
      const { problem: { cfg }, p } = example("relu, no-aux", "x W");
      const x = new Random(3).normal(40 * cfg.d_model).map((value) => value + 3);
      using sae = await SparseAutoencoder.fromParameters(cfg, narrow(p), { device: await sharedDevice() });
      using out = sae.forward(x);
      using f_BS = out.f_x.dense();
      const [x_hat, f] = [Float64Array.from(await out.x_hat.read()), Float64Array.from(await f_BS.read())];
      const x_BD = Float64Array.from(x);
      const { nmse } = await evaluate(sae, [x]);
      assertScalarClose(nmse, metrics(x_BD, x_hat, f, cfg.d_model).nmse, "nmse");
      const sum = (values: Float64Array) => values.reduce((total, value) => total + value * value, 0);
      await refuse(() => void assertScalarClose(nmse, sum(x_BD.map((v, i) => v - x_hat[i]!)) / sum(x_BD), "nmse"));
    },
  },
];

/** The gradients of the decoder in a Gated's reconstruction by its gates, which in the paper is a constant. */
export function decoderOfGates(
  cfg: SparseAutoencoderConfig,
  p: Parameters,
  x_BD: Float64Array,
): { readonly W_dec: Float64Array; readonly bias: Float64Array } {
  const { d_model: D, d_sae: S } = cfg;
  const gates_BS = encode(cfg, p, x_BD).map((h) => Math.max(h, 0));
  const x_hat_BD = decode(gates_BS, p.W_dec, p.b_dec, [S]);
  const decoder = { W_dec: new Float64Array(S * D), bias: new Float64Array(D) };
  decodeBackward(gates_BS, p.W_dec, [S], x_hat_BD.map((x_hat, i) => 2 * (x_hat - x_BD[i]!) / x_BD.length), decoder);
  return decoder;
}

/** `null` if the bug is caught and the right step passes; otherwise what happened. */
export async function survives(bug: WgslBug | ExpectationBug): Promise<string | null> {
  try {
    if (!("kernel" in bug)) {
      await bug.run();
      return null;
    }
    const right = await requestDevice();
    await bug.run(right);
    right.destroy();
    const wrong = await requestDevice();
    let n_found = 0;
    new DeviceContext(wrong, {
      rewriteShader: (name, wgsl) => {
        if (name !== bug.kernel && name !== `keeping_${bug.kernel}`) return wgsl;
        for (const [from, to] of bug.replacements) {
          if (wgsl.includes(from)) n_found++;
          wgsl = wgsl.replaceAll(from, to);
        }
        return wgsl;
      },
    });
    await refuse(() => bug.run(wrong));
    wrong.destroy();
    return n_found > 0 ? null : `the WGSL of ${bug.kernel} has nothing to replace`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
