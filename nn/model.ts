/**
 * The interface of a model for the functions of this folder, and its codes outside training.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { rowsPerBlock } from "../kernels/engine/tensor.ts";
import type { Encoding } from "./activations/activation.ts";
import { activationKind } from "./activations/mod.ts";
import { Codes } from "./codes.ts";
import type { SparseAutoencoderConfig } from "./config.ts";
import type { AffineMaps } from "./encode.ts";

/** What the functions of this folder need of a model. */
export interface Model extends AffineMaps {
  /** Its configuration. */
  readonly cfg: SparseAutoencoderConfig;
}

/** Whether the activation selects codes, so that their number is known in advance. */
export function selects({ cfg: { activation } }: Pick<Model, "cfg">): boolean {
  return activationKind(activation).training.path === "selected";
}

/** How many latents a row keeps on average; 0 if the configuration does not say. */
export function topK({ cfg: { activation } }: Pick<Model, "cfg">): number {
  return activationKind(activation).top_k?.(activation) ?? 0;
}

/**
 * How many of `n_rows` rows can be encoded together outside training: as many as have codes that certainly fit a
 * binding.
 */
export function encodableRows({ cfg: { activation, d_sae }, context }: Model, n_rows: number): number {
  const most = activationKind(activation).entriesPerRow?.(activation, d_sae) ?? d_sae;
  return rowsPerBlock(context, n_rows, most * 4, "codes");
}

/** Codes with the capacity that `n_rows` rows may need outside training. */
export function emptyCodes(model: Model, n_rows: number): Codes {
  const { cfg: { activation, d_sae }, context } = model;
  const k = activationKind(activation).entriesPerRow?.(activation, d_sae);
  if (k !== undefined) return Codes.uniform(context, n_rows, d_sae, k);
  const most = encodableRows(model, n_rows);
  if (most < n_rows) {
    throw new RangeError(
      `the codes of ${n_rows} rows may have ${
        n_rows * d_sae
      } entries, more than this device binds at once; encode at most ${most} rows at a time`,
    );
  }
  return new Codes(context, n_rows, d_sae, n_rows * d_sae);
}

/** f_x of the whole batch outside training, a tile of pre-activations at a time. */
export function encodeInto(commands: Commands, model: Model, given: Encoding): void {
  const { activation } = model.cfg;
  activationKind(activation).encode(commands, model, activation, given);
}
