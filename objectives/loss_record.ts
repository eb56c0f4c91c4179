/**
 * The numbers of a step: one row of a tensor on the GPU, one object for a caller, one column each in files.
 *
 * All names are in one list here. WGSL that writes a number into its row takes its index from {@link PLACES}.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../kernels/engine/kernel.ts";
import type { Tensor } from "../kernels/engine/tensor.ts";
import { SCALE_WGSL } from "../kernels/reduce.ts";
import type { ParameterArrays } from "../nn/arrays.ts";
import { PARAMETERS } from "../nn/parameters.ts";

/** The numbers of one batch. */
export interface Loss {
  /** `mse + sparsity + aux`. */
  readonly loss: number;
  /** Squared error, mean over rows, prefixes and dimensions. */
  readonly mse: number;
  /** Weighted penalty on the codes. */
  readonly sparsity: number;
  /** Latents in use, mean over rows. */
  readonly l0: number;
  /** Σ |f|, mean over rows. */
  readonly l1: number;
  /** Weighted auxiliary loss, with that of a Gated's gates; 0 outside training. */
  readonly aux: number;
  /** Dead latents; 0 outside training. */
  readonly n_dead: number;
  /** The weight of the penalty in this step, after schedule and controller. */
  readonly sparsity_coeff: number;
}

/** The numbers of one training step. */
export interface TrainLoss extends Loss {
  /** Norm of all gradients before clipping. */
  readonly grad_norm: number;
  /** Norm of each parameter's gradient before clipping; 0 for the thresholds that only a JumpReLU trains. */
  readonly grad_norms:
    & Readonly<Record<"W_enc" | "b_enc" | "W_dec" | "b_dec" | "threshold", number>>
    & Readonly<Partial<Record<keyof ParameterArrays, number>>>;
}

/** The numbers of an objective, in the order of tables. */
const LOSS = [
  "loss",
  "mse",
  "sparsity",
  "l0",
  "l1",
  "aux",
  "n_dead",
  "sparsity_coeff",
] as const satisfies readonly (keyof Loss)[];

/** The same with the numbers of training, in the order of tables. */
const TRAINING = [...LOSS, "grad_norm"] as const;

/** Parameters in the order of tables: those that every table has, then others that the activation trains. */
function normedParameters(trained: Iterable<keyof ParameterArrays>): (keyof ParameterArrays)[] {
  return [...new Set<keyof ParameterArrays>(["W_enc", "b_enc", "W_dec", "b_dec", "threshold", ...trained])];
}

/** Numbers in no table: the largest |x|, and those that halt a diverging run. */
const UNLISTED = ["largest_x", "steps_above", "median"] as const;

/** A number in a row; `grad_squares.W_enc` is the squared norm of one parameter's gradient. */
export type RecordName = typeof TRAINING[number] | typeof UNLISTED[number] | `grad_squares.${keyof ParameterArrays}`;

const ROW: readonly RecordName[] = [
  ...TRAINING,
  ...UNLISTED,
  ...PARAMETERS.map((name) => `grad_squares.${name}` as const),
];

/** The index of each number in its row. */
export const PLACES = Object.fromEntries(ROW.map((name, place) => [name, place])) as Readonly<
  Record<RecordName, number>
>;

/** How many numbers a row has. */
export const RECORD_WIDTH: number = ROW.length;

/** The numbers of one row of {@link RECORD_WIDTH}, by name. */
export type LossRow = (name: RecordName) => number;

/** The numbers of row `slot` of a tensor of rows. */
export function lossRow(rows: Float32Array, slot = 0): LossRow {
  return (name) => rows[slot * RECORD_WIDTH + PLACES[name]]!;
}

/** The numbers of an objective. */
export function lossOf(row: LossRow): Loss {
  return Object.fromEntries(LOSS.map((name) => [name, row(name)])) as unknown as Loss;
}

/** The same with the numbers of training, for a model with these parameters. */
export function trainLossOf(row: LossRow, trained: Iterable<keyof ParameterArrays>): TrainLoss {
  // Rounded to float32 like all numbers of a step, so that files hold them exactly.
  const norms = normedParameters(trained).map((name) => [name, Math.fround(Math.sqrt(row(`grad_squares.${name}`)))]);
  return { ...lossOf(row), grad_norm: row("grad_norm"), grad_norms: Object.fromEntries(norms) };
}

/** Names of the columns in files, for a model with these parameters; `grad_norms.W_enc` is that of one of them. */
export function lossColumnNames(trained: Iterable<keyof ParameterArrays>): string[] {
  return [...TRAINING, ...normedParameters(trained).map((name) => `grad_norms.${name}`)];
}

/** The numbers of a model's training steps as columns, with one entry for each step. */
export function lossColumns(losses: readonly TrainLoss[]): Map<string, Float32Array> {
  const column = (of: (loss: TrainLoss) => number) => Float32Array.from(losses, of);
  const trained = Object.keys(losses[0]?.grad_norms ?? {}) as (keyof ParameterArrays)[];
  return new Map([
    ...TRAINING.map((name) => [name, column((loss) => loss[name])] as const),
    ...normedParameters(trained).map((name) =>
      [`grad_norms.${name}`, column(({ grad_norms: norms }) => norms[name] ?? 0)] as const
    ),
  ]);
}

/** The numbers of one step from the columns. */
export function lossAt(columns: ReadonlyMap<string, Float32Array>, step: number): TrainLoss {
  const at = (name: string): [string, number][] => {
    const column = columns.get(name);
    return column ? [[name.replace("grad_norms.", ""), column[step]!]] : [];
  };
  const norms = [...columns.keys()].filter((name) => name.startsWith("grad_norms.")).flatMap(at);
  return { ...Object.fromEntries(TRAINING.flatMap(at)), grad_norms: Object.fromEntries(norms) } as unknown as TrainLoss;
}

/** Indices of the sums over a batch from which the numbers are computed. */
export const TOTALS = { squares: 0, l0: 1, l1: 2, penalty: 3, aux: 4, gate: 5 } as const;

/** How many there are. */
export const N_TOTALS: number = Object.keys(TOTALS).length;

/** The row for a step's numbers. */
export interface LossSlot {
  /** [slots, RECORD_WIDTH] */
  readonly losses: Tensor;
  /** Row. */
  readonly slot: number;
}

/** Writes the numbers of a batch into its row. */
export function writeLossRecord(
  commands: Commands,
  given: {
    readonly into: LossSlot;
    /** [N_TOTALS] */
    readonly totals: Tensor;
    /** Which of the totals is the penalty, the mean L0 that costs nothing or 0, and [1], the penalty's weight. */
    readonly penalty: { readonly total: keyof typeof TOTALS; readonly target_l0: number; readonly weight: Tensor };
    /** B */
    readonly n_rows: number;
    /** The number of squares in the sum. */
    readonly n_squares: number;
    /** [1], the largest |x|, as bits. */
    readonly largest: Tensor<"u32">;
    /**
     * In training: the factors of the sums of auxiliary errors, of AuxK or the pre-activation loss and of the gates; 0
     * for none.
     */
    readonly auxWeights: { readonly aux: number; readonly gate: number };
    readonly training: boolean;
    /** [1], dead latents. */
    readonly n_dead: Tensor<"u32">;
  },
): void {
  const { into: { losses, slot }, totals, penalty, n_rows, n_squares, largest, auxWeights, training, n_dead } = given;
  commands.run(recordLossKernel, {
    slots: losses.shape[0]!,
    slot,
    penalty_at: TOTALS[penalty.total],
    training: Number(training),
    mse_terms: n_squares,
    n_rows,
    target_l0: penalty.target_l0,
    aux_weight: auxWeights.aux,
    gate_weight: auxWeights.gate,
    totals,
    weight: penalty.weight,
    largest,
    n_dead,
    losses,
  });
}

const recordLossKernel = defineKernel({
  name: "record_loss",
  dims: ["slots", "slot", "penalty_at", "training"],
  scalars: ["mse_terms", "n_rows", "target_l0", "aux_weight", "gate_weight"],
  bindings: {
    totals: reads("f32", `${N_TOTALS}`),
    weight: reads("f32", "1"),
    largest: reads("u32", "1"),
    n_dead: reads("u32", "1"),
    losses: writes("f32", `slots ${RECORD_WIDTH}`),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 12, bytes: 4 * RECORD_WIDTH }),
  declarations: SCALE_WGSL,
  body: `
  let scale = scale_of(largest[0]);
  let first = dims.slot * ${RECORD_WIDTH}u;
  let mse = totals[${TOTALS.squares}] / dims.mse_terms * scale * scale;
  var penalty = totals[dims.penalty_at] / dims.n_rows;
  if (dims.target_l0 > 0.0) { penalty = (penalty / dims.target_l0 - 1.0) * (penalty / dims.target_l0 - 1.0); }
  let sparsity = weight[0] * penalty;
  var aux = 0.0;
  if (dims.aux_weight > 0.0 && n_dead[0] > 0u) { aux = totals[${TOTALS.aux}] * dims.aux_weight; }
  if (dims.gate_weight > 0.0) { aux += totals[${TOTALS.gate}] * dims.gate_weight; }
  losses[first + ${PLACES.mse}u] = mse;
  losses[first + ${PLACES.sparsity}u] = sparsity;
  losses[first + ${PLACES.l0}u] = totals[${TOTALS.l0}] / dims.n_rows;
  losses[first + ${PLACES.l1}u] = totals[${TOTALS.l1}] / dims.n_rows;
  losses[first + ${PLACES.aux}u] = aux;
  losses[first + ${PLACES.n_dead}u] = select(0.0, f32(n_dead[0]), dims.training == 1u);
  losses[first + ${PLACES.loss}u] = mse + sparsity + aux;
  losses[first + ${PLACES.largest_x}u] = bitcast<f32>(largest[0]);
  losses[first + ${PLACES.sparsity_coeff}u] = weight[0];`,
});
