/**
 * The numbers of a step: one row of a tensor on the GPU, one object for a caller, one column each in files.
 *
 * Every name stands in one list here. What writes a number into its row, in WGSL, asks {@link PLACES} for its place.
 *
 * @module
 */

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
  /** Weighted auxiliary loss; 0 outside training. */
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
  /** Norm of each parameter's gradient before clipping; 0 for one that the activation does not train. */
  readonly grad_norms: Readonly<Record<keyof ParameterArrays, number>>;
}

/** What an objective says of a batch, in the order of tables. */
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

/** What only training knows, in the order of tables. */
const TRAINING = [...LOSS, "grad_norm"] as const;

/** Parameters in the order of tables: the encoder's, the decoder's, the activation's. */
const TABLE_PARAMETERS: readonly (keyof ParameterArrays)[] = [
  ...new Set<keyof ParameterArrays>(["W_enc", "b_enc", ...PARAMETERS]),
];

/** What no table has: the largest |x|, and what halts a run that explodes. */
const UNLISTED = ["largest_x", "steps_above", "median"] as const;

/** A number in a row; `grad_squares.W_enc` is the squared norm of one parameter's gradient. */
export type RecordName = typeof TRAINING[number] | typeof UNLISTED[number] | `grad_squares.${keyof ParameterArrays}`;

const ROW: readonly RecordName[] = [
  ...TRAINING,
  ...UNLISTED,
  ...PARAMETERS.map((name) => `grad_squares.${name}` as const),
];

/** Where each number stands in its row. */
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

/** What an objective wrote. */
export function lossOf(row: LossRow): Loss {
  return Object.fromEntries(LOSS.map((name) => [name, row(name)])) as unknown as Loss;
}

/** The same with what training knows. */
export function trainLossOf(row: LossRow): TrainLoss {
  // Float32, as all numbers of a step are, so that files hold them as they are.
  const norms = TABLE_PARAMETERS.map((name) => [name, Math.fround(Math.sqrt(row(`grad_squares.${name}`)))]);
  return { ...lossOf(row), grad_norm: row("grad_norm"), grad_norms: Object.fromEntries(norms) };
}

/** Names of the columns in files; `grad_norms.W_enc` is that of one parameter. */
export const LOSS_COLUMNS: readonly string[] = [...TRAINING, ...TABLE_PARAMETERS.map((name) => `grad_norms.${name}`)];

/** The numbers of training steps, a column for each and an entry in it for each step, in the order of {@link LOSS_COLUMNS}. */
export function lossColumns(losses: readonly TrainLoss[]): Map<string, Float32Array> {
  const column = (of: (loss: TrainLoss) => number) => Float32Array.from(losses, of);
  return new Map([
    ...TRAINING.map((name) => [name, column((loss) => loss[name])] as const),
    ...TABLE_PARAMETERS.map((name) => [`grad_norms.${name}`, column(({ grad_norms: norms }) => norms[name])] as const),
  ]);
}

/** The numbers of a step out of the columns. */
export function lossAt(columns: ReadonlyMap<string, Float32Array>, step: number): TrainLoss {
  const at = (name: string) => columns.get(name)![step]!;
  const record = (names: readonly string[], prefix = "") =>
    Object.fromEntries(names.map((name) => [name, at(prefix + name)]));
  return { ...record(TRAINING), grad_norms: record(TABLE_PARAMETERS, "grad_norms.") } as unknown as TrainLoss;
}
