/**
 * Rewrites a model as the same function with other parameters, for formats that have no field for the scaling of inputs
 * or support one encoder formula.
 *
 * @module
 */

import { type InputScaling, NO_SCALING } from "../nn/arrays.ts";
import type { ParsedCheckpoint } from "./model.ts";

/** What can be folded into the parameters. */
export type Folded = "subtract_b_dec" | "mean" | "scale";

/** What {@link foldModel} folds into the parameters; empty if it leaves them unchanged. */
export function foldedInto({ cfg, input }: Pick<ParsedCheckpoint, "cfg" | "input">, subtract: boolean): Folded[] {
  const needs: Readonly<Record<Folded, boolean>> = {
    subtract_b_dec: cfg.subtract_b_dec !== subtract,
    mean: input.mean?.some((element) => element !== 0) ?? false,
    scale: input.scale !== 1,
  };
  return (Object.keys(needs) as Folded[]).filter((what) => needs[what]);
}

/**
 * The same function without scaling of the inputs, and with `subtract` as its encoder formula.
 *
 * With m and s the mean and scale, and [p] equal to 1 if p holds, else 0:
 *
 * - `W_enc' = W_enc / s`, `W_dec' = s W_dec`, `b_dec' = s b_dec + m`
 * - `b_enc' = b_enc + ([subtract] (b_dec + m/s) − [subtracted] b_dec − m/s) W_enc`
 *
 * All pre-activations and codes stay the same, so no activation and no threshold changes; W_dec' applies the scale. A
 * Gated's b_mag takes exp(r_mag) (b_enc' − b_enc).
 */
export function foldModel(model: ParsedCheckpoint, subtract: boolean): ParsedCheckpoint {
  const { cfg, parameters, input: { mean, scale } } = model;
  const { d_model, d_sae, subtract_b_dec } = cfg;
  if (foldedInto(model, subtract).length === 0) {
    return { ...model, input: withoutScaling(model.input) };
  }
  const { W_enc, b_enc, W_dec, b_dec } = parameters;
  const shift = Float64Array.from(b_dec, (b, d) => {
    const m = (mean?.[d] ?? 0) / scale;
    return (subtract ? b + m : 0) - (subtract_b_dec ? b : 0) - m;
  });
  const sums = Float64Array.from(b_enc);
  for (let d = 0; d < d_model; d++) {
    for (let s = 0; s < d_sae; s++) sums[s]! += shift[d]! * W_enc[d * d_sae + s]!;
  }
  const { r_mag, b_mag } = parameters;
  return {
    cfg: Object.freeze({ ...cfg, subtract_b_dec: subtract }),
    parameters: {
      ...parameters,
      // A Gated's magnitudes depend on h − b_enc.
      ...r_mag && b_mag && {
        b_mag: b_mag.map((b, s) => b + Math.exp(r_mag[s]!) * (sums[s]! - b_enc[s]!)),
      },
      // Matrices are large.
      W_enc: scale === 1 ? W_enc : W_enc.map((w) => w / scale),
      b_enc: Float32Array.from(sums),
      W_dec: scale === 1 ? W_dec : W_dec.map((w) => w * scale),
      b_dec: b_dec.map((b, d) => b * scale + (mean?.[d] ?? 0)),
    },
    input: withoutScaling(model.input),
  };
}

/** What only training needs is kept. */
function withoutScaling({ pre_act_scale = 1 }: InputScaling): InputScaling {
  return pre_act_scale === 1 ? NO_SCALING : { ...NO_SCALING, pre_act_scale };
}
