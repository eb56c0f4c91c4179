/**
 * Converts dense codes to the sparse arrays that a model returns.
 *
 * @module
 */

import type { CodeArrays } from "../../nn/codes.ts";

/** The entries of f_BS that are not 0, latents ascending within a row; with `zeros` all of them, as a TopK may list zeros. */
export function compress(f_BS: Float32Array, d_sae: number, { zeros = false } = {}): CodeArrays {
  const entries = [...f_BS.keys()].filter((i) => zeros || f_BS[i] !== 0);
  const row_starts = new Uint32Array(f_BS.length / d_sae + 1);
  for (const i of entries) row_starts[Math.floor(i / d_sae) + 1]!++;
  for (let row = 1; row < row_starts.length; row++) row_starts[row]! += row_starts[row - 1]!;
  return {
    row_starts,
    indices: Uint32Array.from(entries, (i) => i % d_sae),
    values: Float32Array.from(entries, (i) => f_BS[i]!),
  };
}
