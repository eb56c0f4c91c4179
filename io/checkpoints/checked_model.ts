/**
 * Checks a model that a program hands over to be written.
 *
 * @module
 */

import { ownValues, parameterShapes } from "../../nn/activations/mod.ts";
import { completeConfig } from "../../nn/config.ts";
import { CheckpointError } from "../errors.ts";
import { checkFinite, checkScaling, type ParsedCheckpoint } from "../model.ts";
import { countElements } from "../stored_tensor.ts";

/**
 * The model with its complete configuration. Parameters of the activation that are left out get their initial values.
 *
 * @throws {CheckpointError} for a parameter of the wrong size, one that the activation does not have, or a number that
 * is not finite.
 */
export function checkedModel({ cfg: options, parameters: given, input }: ParsedCheckpoint): ParsedCheckpoint {
  const doing = "writing a checkpoint";
  const cfg = completeConfig(options);
  const shapes = parameterShapes(cfg);
  if (given.threshold !== undefined && !shapes.has("threshold")) {
    throw new CheckpointError(`${doing}: found a threshold; the activation ${cfg.activation.key} takes none`);
  }
  const parameters = { ...given, ...ownValues(cfg, given, input.pre_act_scale ?? 1) };
  for (const [name, shape] of shapes) {
    const data = parameters[name]!;
    if (data.length !== countElements(shape)) {
      throw new CheckpointError(`${doing}: ${name} has ${data.length} elements; expected [${shape}]`);
    }
    checkFinite(doing, name, data);
  }
  checkScaling(doing, cfg, input);
  return { cfg, parameters, input };
}
