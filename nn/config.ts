/**
 * A model's configuration, spelled as in checkpoints, and its defaults.
 *
 * Everything here is plain data. {@link completeConfig} returns a complete {@link SparseAutoencoderConfig}; it is the
 * only place that fills in defaults and rejects impossible models. The fields of an activation are in its own file.
 *
 * @module
 */

import {
  type Activation,
  ACTIVATION_FIELDS,
  activationKind,
  type ActivationOptions,
  completeActivation,
  learnsThresholds,
} from "./activations/mod.ts";
import { auxCapabilities, freeL0, isOnL0 } from "./loss_terms.ts";
import { boolean, completeEach, type Fields, integer, number, onlyFields } from "./fields.ts";

/** A complete configuration, as checkpoints hold it. */
export interface SparseAutoencoderConfig {
  /** Width of the inputs, D. */
  readonly d_model: number;
  /** Number of latents, S. */
  readonly d_sae: number;
  /** From pre-activations to codes. */
  readonly activation: Activation;
  /** Share of data points in the initial dictionary, when it is made from data. */
  readonly reinit_blend: number;
  /** Whether the decoder starts from those rows too (spelled as upstream spells it). */
  readonly reinit_enc_dec_tranpose: boolean;
  /** Whether training removes the part of each W_dec row's gradient that is parallel to the row. */
  readonly remove_parallel_grads: boolean;
  /** Whether training keeps the rows of W_dec at unit length. */
  readonly normalize_w_dec: boolean;
  /** Encoder formula: `true` is `h = (x − b_dec) W_enc + b_enc` (before August 2025), `false` `h = x W_enc + b_enc`. */
  readonly subtract_b_dec: boolean;
}

/** What a user may write for a model; every field has a default. */
export type SparseAutoencoderOptions =
  & Partial<Omit<SparseAutoencoderConfig, "activation">>
  & { readonly activation?: ActivationOptions };

/** The fields of a configuration. */
export const CONFIG_FIELDS: Fields<SparseAutoencoderConfig> = {
  d_model: integer({ least: 1, otherwise: 1024, about: "Width of the inputs, D." }),
  d_sae: integer({ least: 1, otherwise: 16384, about: "Number of latents, S." }),
  activation: {
    about: "From pre-activations to codes.",
    takes: "a table",
    otherwise: { key: "top-k" },
    kinds: ACTIVATION_FIELDS,
    complete: (_, found) => completeActivation((found ?? { key: "top-k" }) as ActivationOptions),
  },
  reinit_blend: number({
    least: 0,
    most: 1,
    otherwise: 0.8,
    about: "Share of data points in the initial dictionary, when it is made from data.",
  }),
  reinit_enc_dec_tranpose: boolean({
    otherwise: true,
    about: "Whether the decoder starts from those rows too (spelled as upstream spells it).",
  }),
  remove_parallel_grads: boolean({
    otherwise: true,
    about: "Whether training removes the part of each W_dec row's gradient that is parallel to the row.",
  }),
  normalize_w_dec: boolean({ otherwise: true, about: "Whether training keeps the rows of W_dec at unit length." }),
  subtract_b_dec: boolean({
    otherwise: false,
    about:
      "Encoder formula: `true` is `h = (x − b_dec) W_enc + b_enc` (before August 2025), `false` `h = x W_enc + b_enc`.",
  }),
};

/**
 * Fills the defaults of upstream's 2026 version, checks every field, and freezes the result deeply.
 *
 * @throws {TypeError} for an unknown field or a field of the wrong type.
 * @throws {RangeError} for a number outside its range, or an unknown `key`.
 */
export function completeConfig(options: SparseAutoencoderOptions = {}): SparseAutoencoderConfig {
  onlyFields("the configuration", options, Object.keys(CONFIG_FIELDS));
  const cfg = completeEach(CONFIG_FIELDS, options);
  checkTogether(cfg);
  return cfg;
}

/** Checks of fields that depend on each other. */
function checkTogether({ activation, d_sae }: SparseAutoencoderConfig): void {
  const { key, sparsity, aux } = activation;
  activationKind(activation).check?.(activation);
  if (freeL0(sparsity) > d_sae) {
    throw new RangeError(`target_l0 must be at most d_sae ${d_sae}, found ${freeL0(sparsity)}`);
  }
  if (learnsThresholds(activation)) return;
  if (isOnL0(sparsity)) {
    throw new RangeError(`${sparsity.key} trains the thresholds of a jump-relu; the activation is ${key}`);
  }
  if (auxCapabilities(aux).needsThresholds) {
    throw new RangeError(`the auxiliary loss ${aux.key} needs the thresholds of a jump-relu; the activation is ${key}`);
  }
}
