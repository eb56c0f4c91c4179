/**
 * The numbers of training steps as files hold them: one column for each number, and one entry in it for each step.
 *
 * @module
 */

import type { TrainLoss } from "./train.ts";

const NUMBERS = ["loss", "mse", "sparsity", "l0", "l1", "aux", "n_dead", "sparsity_coeff", "grad_norm"] as const;
const PARAMETERS = ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"] as const;

/** Names of the columns; `grad_norms.W_enc` is that of one parameter. */
export const LOSS_COLUMNS: readonly string[] = [...NUMBERS, ...PARAMETERS.map((name) => `grad_norms.${name}`)];

/** The columns, in the order of {@link LOSS_COLUMNS}. */
export function lossColumns(losses: readonly TrainLoss[]): Map<string, Float32Array> {
  const column = (of: (loss: TrainLoss) => number) => Float32Array.from(losses, of);
  return new Map([
    ...NUMBERS.map((name) => [name, column((loss) => loss[name])] as const),
    ...PARAMETERS.map((name) => [`grad_norms.${name}`, column(({ grad_norms: norms }) => norms[name])] as const),
  ]);
}

/** The numbers of a step out of the columns. */
export function lossAt(columns: ReadonlyMap<string, Float32Array>, step: number): TrainLoss {
  const at = (name: string) => columns.get(name)![step]!;
  const record = (names: readonly string[], prefix = "") =>
    Object.fromEntries(names.map((name) => [name, at(prefix + name)]));
  return { ...record(NUMBERS), grad_norms: record(PARAMETERS, "grad_norms.") } as unknown as TrainLoss;
}
