/**
 * One training step by phase, on the GPU's own clock, compared with its own encoder product and the adapter's limits.
 *
 * @module
 */

import { contextOf, Tensor } from "../kernels/mod.ts";
import { type ActivationOptions, getObjective, meanSquaredErr, SparseAutoencoder } from "../mod.ts";
import { train, TrainState } from "../train/mod.ts";
import { type KernelTimes, type Row, timeDispatches, totalMs } from "./measure.ts";
import { startOf } from "./peers/problem.ts";
import type { Roofline } from "./roofline.ts";

/** A step to measure. */
export interface StepShape {
  /** Its name in tables. */
  readonly name: string;
  /** Rows per batch. */
  readonly B: number;
  /** d_model. */
  readonly D: number;
  /** d_sae. */
  readonly S: number;
  /** The activation. */
  readonly activation: ActivationOptions;
  /** The optimizer, Adam if left out. */
  readonly optimizer?: "adam" | "muon";
  /** The mean L0 that a controller aims at; none if left out. */
  readonly target_l0?: number | null;
  /** Number of prefixes. */
  readonly P: number;
  /** Dead latents, which the auxiliary loss trains (k_aux 512); 0 if none can be dead. */
  readonly n_dead: number;
  /** The factor of each row of the batch; for a BatchTopK it decides whose entries survive. */
  readonly rowScale?: (row: number) => number;
  /** Added to b_enc; for elementwise activations it decides how many latents fire. */
  readonly shift?: number;
  /** Nothing is trained: the batch is only reconstructed and compared. */
  readonly isEvaluated?: true;
}

/** What most steps share. */
const COMMON = { B: 1024, D: 768, S: 6144, P: 1, n_dead: 0 } as const;
const TOP_K = { ...COMMON, activation: { key: "top-k", top_k: 32 } } as const;
const BATCH = { ...COMMON, activation: { key: "batch-top-k", top_k: 32 } } as const;
/** Pre-activations are normal numbers: with this shift, eight in 6144 are above 0. */
const FEW = -3;

/** The steps of the table. */
export const STEPS: readonly StepShape[] = [
  { name: "TopK", ...TOP_K },
  { name: "TopK, 10 prefixes, 64 dead", ...TOP_K, P: 10, n_dead: 64 },
  { name: "TopK, 10 prefixes, 512 dead", ...TOP_K, P: 10, n_dead: 512 },
  {
    name: "TopK with a penalty and normalised AuxK, 64 dead, Muon",
    ...COMMON,
    // Orthogonalising takes thirty times as long as the rest of a step at the other steps' sizes.
    D: 256,
    S: 2048,
    activation: {
      key: "top-k",
      top_k: 32,
      sparsity: { key: "weighted-l1-sparsity", coeff: 1e-3 },
      aux: { key: "auxk", normalize: true },
    },
    n_dead: 64,
    optimizer: "muon",
  },
  { name: "BatchTopK", ...BATCH },
  { name: "BatchTopK, six rows own all", ...BATCH, rowScale: (row) => row < 6 ? 1000 : 1 },
  { name: "BatchTopK, candidates overflow", ...BATCH, rowScale: (row) => 2 ** (row / 64) },
  { name: "ReLU, half of the codes", ...COMMON, activation: { key: "relu" } },
  { name: "ReLU, eight codes a row", ...COMMON, activation: { key: "relu" }, shift: FEW },
  { name: "JumpReLU, eight codes a row", ...COMMON, activation: { key: "jump-relu" }, shift: FEW },
  {
    name: "JumpReLU, 64 dead, pre-activation loss, target L0",
    ...COMMON,
    activation: {
      key: "jump-relu",
      sparsity: { key: "tanh-sparsity", coeff: 1e-3, scale: 4 },
      aux: { key: "pre-act" },
    },
    n_dead: 64,
    shift: FEW,
    target_l0: 8,
  },
  { name: "Gated, half of the codes", ...COMMON, activation: { key: "gated" } },
  { name: "Gated, eight codes a row", ...COMMON, activation: { key: "gated" }, shift: FEW },
  { name: "Gated, evaluated", ...COMMON, activation: { key: "gated" }, shift: FEW, isEvaluated: true },
];

/** The phase of each kernel. */
const PHASES: readonly (readonly [phase: string, names: RegExp])[] = [
  ["encoder product", /^matmul_nt$/],
  [
    "selection",
    /^((maxima_)?top_k|fill|.*_histogram|pick_digit|collect_.*|(count|write)_(rows|nearby|.*above)|row_starts|batch_starts|update_threshold|choose_sparse_or_dense|cut_off_entries|gated_.*|mark_fired.*)$/,
  ],
  [
    "auxiliary",
    /^(gathered|listed|auxiliary|count_workgroups|decide|spread_entries|keep_entries|gather_rows|scatter_rows|pre_act_(entry_)?sums|row_distances|inverse_mean)/,
  ],
  [
    "decode and residuals",
    /^(spmm|.*residuals|copy_columns|copy_above_threshold|matmul_nn|row_norms|dense_row_norms|max.*)$/,
  ],
  ["lists by latent", /^(count|place|order|order_many)_entries$|^scan$/],
  [
    "gradients",
    /^(sddmm|spmm_transposed|sparse_column_sums|matmul_tn|column_sums|positive_mask|(dense_)?(l1|sparsity)_backward|jump_relu.*|(magnitude|gate)_.*backward|pre_act_(backward|entry_(gradients|slopes))|add_unit_rows|subtract_weighted_rows)$/,
  ],
  [
    "optimiser",
    /^(unit_rows|(subtract_)?parallel_rows|row_squares|clip_factor|adam.*|muon_.*|matrix_polynomial|divide_by_norm|sum|verdict)$/,
  ],
];

/**
 * The kernels of one step of each shape, from its fastest of `rounds`. All take their steps in turn, so that other load
 * affects all of them alike, and hold their memory at the same time.
 */
export async function timeSteps(
  device: GPUDevice,
  shapes: readonly StepShape[],
  rounds = 4,
): Promise<KernelTimes[]> {
  await using stack = new AsyncDisposableStack();
  const runs: { readonly step: () => Promise<void>; fastest?: KernelTimes }[] = [];
  for (const shape of shapes) {
    const steps = stack.adopt(await stepsOf(device, shape, stack), async (steps) => void await steps.return());
    // The first steps compile the kernels.
    await steps.next();
    runs.push({ step: async () => void await steps.next() });
  }
  for (let round = 0; round < rounds; round++) {
    for (const run of runs) {
      const kernels = await timeDispatches(contextOf(device), run.step);
      if (!run.fastest || totalMs(kernels) < totalMs(run.fastest)) run.fastest = kernels;
    }
  }
  return runs.map(({ fastest }) => fastest!);
}

/** Steps of a new model, on demand; the stack owns the model. */
export async function stepsOf(
  device: GPUDevice,
  shape: StepShape,
  stack: AsyncDisposableStack,
): Promise<AsyncGenerator<unknown, void, void>> {
  const { B, D, S, activation, optimizer = "adam", target_l0 = null, P, n_dead, rowScale, shift = 0 } = shape;
  const { x, parameters } = startOf({ B, D, S, n_dead });
  parameters.b_enc.forEach((bias, s) => parameters.b_enc[s] = bias + shift);
  if (rowScale) x.forEach((value, i) => x[i] = value * rowScale(Math.floor(i / D)));
  const sae = stack.use(
    await SparseAutoencoder.fromParameters({ d_model: D, d_sae: S, activation }, parameters, { device }),
  );
  if (shape.isEvaluated) return evaluations(sae, x, stack);
  const dead_threshold_tokens = 1000 * B;
  using fresh = new TrainState(sae, { optimizer });
  const state = stack.use(TrainState.restore(sae, {
    ...await fresh.read(),
    tokens_since_active: new Uint32Array(S).fill(dead_threshold_tokens, S - n_dead),
  }));
  const objective = getObjective({ key: "matryoshka", n_prefixes: P, target_l0, dead_threshold_tokens });
  const batches = function* () {
    while (true) yield x;
  };
  return train(sae, objective, batches(), { state, optimizer: { key: optimizer }, log_every: 1 });
}

async function* evaluations(
  sae: SparseAutoencoder,
  batch: Float32Array,
  stack: AsyncDisposableStack,
): AsyncGenerator<void, void, void> {
  const { d_model } = sae.cfg;
  const x = stack.use(Tensor.from(contextOf(sae.device), batch, [batch.length / d_model, d_model], "batch"));
  while (true) {
    using output = sae.forward(x);
    using errors = meanSquaredErr(output.x_hat, x);
    await errors.read();
    yield;
  }
}

/** Muon's products have the same names as the encoder's. */
const MUON_PRODUCTS = /^matmul_(nt|tn)$/;

/**
 * Milliseconds of each phase of a step, and of the whole as `total`. With Muon, the encoder product counts towards the
 * optimizer.
 */
export function phasesOf(kernels: KernelTimes, { optimizer }: StepShape): ReadonlyMap<string, number> {
  const phases = new Map<string, number>();
  const known = kernels.known.entries().map(([name, { ms }]): [string, number] => [name, ms]);
  for (const [name, ms] of [...known, ...kernels.decided]) {
    const isOfMuon = optimizer === "muon" && MUON_PRODUCTS.test(name);
    const phase = isOfMuon ? "optimiser" : PHASES.find(([, names]) => names.test(name))?.[0] ?? "other";
    phases.set(phase, (phases.get(phase) ?? 0) + ms);
  }
  return phases.set("total", totalMs(kernels));
}

/** The kernels of a step, the longest first, with the share of the adapter's limits that they reach. */
export function kernelRows(kernels: KernelTimes, ceilings: Roofline): Row[] {
  const total = totalMs(kernels);
  const known = kernels.known.entries().map(([kernel, { ms, cost }]) => {
    const [gflops, gbytes] = [cost.flops / ms / 1e6, cost.bytes / ms / 1e6];
    const reached = 100 * Math.max(gflops / ceilings.gflops, gbytes / ceilings.gbytes);
    return { kernel, ms, "GFLOP/s": gflops, "GB/s": gbytes, "% of roofline": reached };
  });
  const unknown = { "GFLOP/s": "", "GB/s": "", "% of roofline": "" };
  const decided = kernels.decided.entries().map(([name, ms]) => ({ kernel: `${name}, as decided`, ms, ...unknown }));
  return [...known, ...decided].sort((a, b) => b.ms - a.ms).map((row) => ({
    ...row,
    "% of step": 100 * row.ms / total,
  }));
}
