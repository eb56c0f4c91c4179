/**
 * The configured parts of the loss: the penalty on the codes and the auxiliary loss.
 *
 * @module
 */

import { boolean, completeFields, entryOf, type Field, type Fields, integer, number } from "./fields.ts";

/** No penalty on the codes. */
export interface NoSparsity {
  /** Discriminator. */
  readonly key: "no-sparsity";
}

/** `coeff · mean_b Σ_s |f_bs|`. */
export interface L1Sparsity {
  /** Discriminator. */
  readonly key: "l1-sparsity";
  /** Weight of the penalty. */
  readonly coeff: number;
}

/**
 * `coeff · mean_b Σ_s |f_bs| ‖W_dec_s‖`, which no rescaling of a latent can lower (Anthropic, April 2024).
 *
 * While training keeps rows of W_dec at unit norm, it equals L1. To learn the norms, set both `normalize_w_dec` and
 * `remove_parallel_grads` to `false`: the second would otherwise remove the gradient of the norms.
 */
export interface WeightedL1Sparsity {
  /** Discriminator. */
  readonly key: "weighted-l1-sparsity";
  /** Weight of the penalty. */
  readonly coeff: number;
}

/** `coeff · mean_b Σ_s tanh(scale · |f_bs| ‖W_dec_s‖)`, between L0 and L1 (Anthropic, January 2025). */
export interface TanhSparsity {
  /** Discriminator. */
  readonly key: "tanh-sparsity";
  /** Weight of the penalty. */
  readonly coeff: number;
  /** How soon a code counts as one. */
  readonly scale: number;
}

/** `coeff · mean_b ‖f_b‖₀`. Its gradient reaches a JumpReLU's thresholds and nothing else (Rajamanoharan et al. 2024). */
export interface L0Sparsity {
  /** Discriminator. */
  readonly key: "l0-sparsity";
  /** Weight of the penalty. */
  readonly coeff: number;
}

/** `coeff · (mean_b ‖f_b‖₀ / target_l0 − 1)²`, for a JumpReLU as {@link L0Sparsity}. */
export interface TargetL0Sparsity {
  /** Discriminator. */
  readonly key: "target-l0-sparsity";
  /** Weight of the penalty. */
  readonly coeff: number;
  /** The mean L0 that costs nothing. */
  readonly target_l0: number;
}

/** The penalty on the codes. */
export type Sparsity = NoSparsity | L1Sparsity | WeightedL1Sparsity | TanhSparsity | L0Sparsity | TargetL0Sparsity;

/** No auxiliary loss. */
export interface NoAux {
  /** Discriminator. */
  readonly key: "no-aux";
}

/** Dead latents reconstruct the residual (Gao et al. 2024, appendix A.2). */
export interface AuxK {
  /** Discriminator. */
  readonly key: "auxk";
  /** How many dead latents a row may use. */
  readonly k_aux: number;
  /** Weight of the auxiliary loss. */
  readonly alpha: number;
  /** Adds `b_dec` to the auxiliary reconstruction, as the Python package does. The literature does not. */
  readonly include_b_dec: boolean;
  /** Divides the auxiliary loss by the residual's variance around its mean row, as Gao et al. do. The Python package does not. */
  readonly normalize: boolean;
}

/** `coeff · mean_b Σ_{s dead} max(θ_s − h_bs, 0) ‖W_dec_s‖`: pulls a JumpReLU's dead latents back (Anthropic, January 2025). */
export interface PreAct {
  /** Discriminator. */
  readonly key: "pre-act";
  /** Weight of the auxiliary loss. */
  readonly coeff: number;
}

/** The auxiliary loss. */
export type Aux = NoAux | AuxK | PreAct;

/** What a user may write for the auxiliary loss. */
export type AuxOptions = NoAux | (Pick<AuxK, "key"> & Partial<AuxK>) | (Pick<PreAct, "key"> & Partial<PreAct>);

const WEIGHT = number({ least: 0, about: "Weight of the penalty.", example: 4e-4 });

/** The fields of every penalty. */
export const SPARSITIES: { readonly [S in Sparsity as S["key"]]: Fields<S> } = {
  "no-sparsity": {},
  "l1-sparsity": { coeff: WEIGHT },
  "weighted-l1-sparsity": { coeff: WEIGHT },
  "tanh-sparsity": { coeff: WEIGHT, scale: number({ about: "How soon a code counts as one.", example: 4 }) },
  "l0-sparsity": { coeff: WEIGHT },
  "target-l0-sparsity": {
    coeff: WEIGHT,
    target_l0: number({ about: "The mean L0 that costs nothing.", example: 32 }),
  },
};

/** The fields of every auxiliary loss. */
export const AUXILIARIES: { readonly [A in Aux as A["key"]]: Fields<A> } = {
  "no-aux": {},
  "auxk": {
    k_aux: integer({ least: 1, otherwise: 512, about: "How many dead latents a row may use." }),
    alpha: number({ least: 0, otherwise: 1 / 32, about: "Weight of the auxiliary loss." }),
    include_b_dec: boolean({
      otherwise: false,
      about: "Adds `b_dec` to the auxiliary reconstruction, as the Python package does.",
    }),
    normalize: boolean({
      otherwise: false,
      about: "Divides the auxiliary loss by the residual's variance around its mean row, as Gao et al. do.",
    }),
  },
  "pre-act": { coeff: number({ least: 0, otherwise: 3e-6, about: "Weight of the auxiliary loss." }) },
};

/**
 * A penalty, checked and frozen.
 *
 * @throws {RangeError | TypeError} for an unknown key or field, or a number outside its range.
 */
export function completeSparsity(options: Sparsity): Sparsity {
  const { key } = options;
  return completeFields<Sparsity>("sparsity", key, entryOf("sparsity", SPARSITIES, key), options);
}

/** An activation's penalty. */
export function sparsityField(otherwise: Sparsity): Field<Sparsity> {
  return {
    about: "Penalty on the codes.",
    takes: "a table",
    otherwise,
    kinds: SPARSITIES,
    complete: (_, found) => completeSparsity((found ?? otherwise) as Sparsity),
  };
}

/** An activation's auxiliary loss. */
export function auxField(otherwise: Aux["key"]): Field<Aux> {
  return {
    about: "Auxiliary loss.",
    takes: "a table",
    otherwise: { key: otherwise },
    kinds: AUXILIARIES,
    complete(_, found) {
      const options = (found ?? { key: otherwise }) as AuxOptions;
      return completeFields<Aux>("aux", options.key, entryOf("aux", AUXILIARIES, options.key), options);
    },
  };
}

/** The penalty with another weight; L1 if there was no penalty. */
export function withCoeff(sparsity: Sparsity, coeff: number): Sparsity {
  return completeSparsity({ ...sparsity.key === "no-sparsity" ? { key: "l1-sparsity" } : sparsity, coeff });
}

/** The factor of P, or of (P / {@link freeL0} − 1)² if there is a free L0. */
export function sparsityCoeff(sparsity: Sparsity): number {
  return sparsity.key === "no-sparsity" ? 0 : sparsity.coeff;
}

/** The mean L0 that costs nothing, for a penalty on the distance from it; 0 for penalties that are means over rows. */
export function freeL0(sparsity: Sparsity): number {
  return sparsity.key === "target-l0-sparsity" ? sparsity.target_l0 : 0;
}

/** Whether the penalty depends on the norms of W_dec's rows. */
export function isWeighted(sparsity: Sparsity): sparsity is WeightedSparsity {
  return sparsity.key === "weighted-l1-sparsity" || sparsity.key === "tanh-sparsity";
}

/** Whether the penalty is on L0, whose gradient reaches only thresholds. */
export function isOnL0({ key }: Sparsity): boolean {
  return key === "l0-sparsity" || key === "target-l0-sparsity";
}

/** A penalty that depends on the norms of W_dec's rows. */
export type WeightedSparsity = WeightedL1Sparsity | TanhSparsity;

/** Capabilities of an auxiliary loss that other code asks for. */
export interface AuxCapabilities {
  /** Its name in messages; `undefined` where there is no auxiliary loss. */
  readonly title: string | undefined;
  /** The most dead latents that it selects in a row; 0 if it selects none. */
  readonly k_aux: number;
  /** Whether it trains thresholds, so that the activation must learn some. */
  readonly needsThresholds: boolean;
}

/** The capabilities of an auxiliary loss. */
export function auxCapabilities(aux: Aux): AuxCapabilities {
  switch (aux.key) {
    case "no-aux":
      return { title: undefined, k_aux: 0, needsThresholds: false };
    case "auxk":
      return { title: "AuxK", k_aux: aux.k_aux, needsThresholds: false };
    case "pre-act":
      return { title: "the loss of dead latents", k_aux: 0, needsThresholds: true };
  }
}
