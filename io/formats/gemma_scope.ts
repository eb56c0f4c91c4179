/**
 * Gemma Scope: `params.npz`, an archive of NumPy arrays. A JumpReLU with `h = x W_enc + b_enc`, `x̂ = f W_dec + b_dec`.
 *
 * | array | shape (D inputs, S latents) |
 * | --- | --- |
 * | `W_enc` | [D, S] |
 * | `b_enc` | [S] |
 * | `W_dec` | [S, D] |
 * | `b_dec` | [D] |
 * | `threshold` | [S] |
 *
 * `w_enc` and `w_dec` are the same. Some archives have `scaling_factor` too; unless it is 1 everywhere they are refused. The
 * files of the token embeddings expect inputs times √D, which is known from their folder's name alone.
 *
 * @module
 */

import {
  checkShape,
  fail,
  type ForeignFormat,
  foreignModel,
  JUMP_RELU,
  matrixShape,
  readFinite,
  readParameters,
} from "./foreign.ts";

/** The file with the arrays. */
export const GEMMA_SCOPE_WEIGHTS = "params.npz";

/** The format. */
export const GEMMA_SCOPE: ForeignFormat = {
  recognises: ({ container }) => container === "npz",
  read: async (weights, { input }) => {
    const { name, tensors } = weights;
    const W_enc = tensors.has("w_enc") ? "w_enc" : "W_enc";
    const W_dec = tensors.has("w_dec") ? "w_dec" : "W_dec";
    const [d_model, d_sae] = matrixShape(weights, W_enc);
    if (tensors.has("scaling_factor")) {
      checkShape(weights, "scaling_factor", [d_sae]);
      if ((await readFinite(weights, "scaling_factor")).some((factor) => factor !== 1)) {
        fail(name, "scaling_factor is not 1 everywhere; this library has no factor behind the activation");
      }
    }
    const parameters = await readParameters(weights, { d_model, d_sae }, {
      names: { W_enc, b_enc: "b_enc", W_dec, b_dec: "b_dec" },
      threshold: { name: "threshold", shape: [d_sae] },
      ignored: ["scaling_factor"],
    });
    const cfg = { d_model, d_sae, subtract_b_dec: false, activation: JUMP_RELU };
    return foreignModel(name, cfg, parameters, {
      ...input && { input },
      notes: ["Gemma Scope's models of token embeddings expect inputs times √d_model, which no file says"],
    });
  },
};
