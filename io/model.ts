/**
 * A model as files hold it: configuration, parameters, the scaling of its inputs, and what is checked of all of them.
 *
 * @module
 */

import type { InputScaling, ParameterArrays, SparseAutoencoderConfig } from "../nn/config.ts";
import { CheckpointError } from "./errors.ts";

/** A model out of a file. */
export interface ParsedCheckpoint {
  /** Complete and frozen. */
  readonly cfg: SparseAutoencoderConfig;
  /** Finite numbers in the shapes that `cfg` says; possibly views into bytes in memory. */
  readonly parameters: ParameterArrays;
  /** Mean and scale of the inputs. */
  readonly input: InputScaling;
}

/** Inputs as they are. */
export const NO_SCALING: InputScaling = Object.freeze({ mean: null, scale: 1 });

/** A parameter, as this library calls it. */
export type ParameterName = keyof ParameterArrays;

/** The shapes of the parameters that a model has. */
export function parameterShapes({ d_model, d_sae, activation }: SparseAutoencoderConfig): Map<ParameterName, number[]> {
  const shapes = new Map<ParameterName, number[]>([
    ["W_enc", [d_model, d_sae]],
    ["b_enc", [d_sae]],
    ["W_dec", [d_sae, d_model]],
    ["b_dec", [d_model]],
  ]);
  if (activation.key === "batch-top-k") shapes.set("threshold", []);
  if (activation.key === "jump-relu") shapes.set("threshold", [d_sae]);
  return shapes;
}

/** A model with a NaN or an infinity computes nothing of use, so it is neither written nor read. */
export function checkFinite(doing: string, name: string, data: Float32Array): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) {
      throw new CheckpointError(`${doing}: ${name} is ${data[i]} at element ${i}; expected finite numbers`);
    }
  }
}

/** @throws {CheckpointError} for a mean or a scale that no model can have. */
export function checkScaling(doing: string, cfg: SparseAutoencoderConfig, input: InputScaling): void {
  const { mean, scale, pre_act_scale = 1 } = input;
  if (mean !== null && mean.length !== cfg.d_model) {
    throw new CheckpointError(`${doing}: input_mean has ${mean.length} elements; expected d_model = ${cfg.d_model}`);
  }
  if (mean !== null) checkFinite(doing, "input_mean", mean);
  for (const [name, value] of Object.entries({ input_scale: scale, pre_act_scale })) {
    if (!(value > 0 && Number.isFinite(value))) {
      throw new CheckpointError(`${doing}: ${name} is ${value}; expected a positive finite number`);
    }
  }
}

/** Whether inputs stay as they are. */
export function isIdentity({ mean, scale }: InputScaling): boolean {
  return scale === 1 && (mean === null || mean.every((element) => element === 0));
}
