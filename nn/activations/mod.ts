/**
 * All activations.
 *
 * @module
 */

import { ShapeError } from "../../kernels/engine/errors.ts";
import type { ParameterArrays } from "../arrays.ts";
import { completeFields, entryOf, type Kinds } from "../fields.ts";
import type { AuxOptions } from "../loss_terms.ts";
import type { OwnParameterName, ParameterLayout } from "../parameters.ts";
import type { ActivationKind } from "./activation.ts";
import { BATCH_TOP_K, type BatchTopK } from "./batch_top_k.ts";
import { GATED, type Gated } from "./gated.ts";
import { JUMP_RELU, type JumpRelu } from "./jump_relu.ts";
import { RELU, type Relu } from "./relu.ts";
import { TOP_K, type TopK } from "./top_k.ts";

/** From pre-activations to codes. */
export type Activation = Relu | TopK | BatchTopK | JumpRelu | Gated;

/** All of them, by the keys of configurations. */
export const ACTIVATIONS: { readonly [A in Activation as A["key"]]: ActivationKind<A> } = {
  "relu": RELU,
  "top-k": TOP_K,
  "batch-top-k": BATCH_TOP_K,
  "jump-relu": JUMP_RELU,
  "gated": GATED,
};

/** The fields of each. */
export const ACTIVATION_FIELDS: Kinds = Object.fromEntries(
  Object.entries(ACTIVATIONS).map(([key, { fields }]) => [key, fields]),
);

/** What a user may write for an activation: the discriminator, and whatever differs from the defaults. */
export type ActivationOptions = {
  readonly [A in Activation as A["key"]]:
    & Pick<A, "key">
    & Partial<Omit<A, "key" | "aux">>
    & { readonly aux?: AuxOptions };
}[Activation["key"]];

/** The implementation of an activation. */
export function activationKind({ key }: Pick<Activation, "key">): ActivationKind<Activation> {
  return ACTIVATIONS[key];
}

/** The parameters that training changes, and their sizes. */
export function parameterLayout(
  { d_model, d_sae, activation }: {
    readonly d_model: number;
    readonly d_sae: number;
    readonly activation: Pick<Activation, "key">;
  },
): ParameterLayout {
  const trained = activationKind(activation).parameters.filter(({ isTrained }) => isTrained);
  return { d_model, d_sae, own: trained.map(({ name, shape }) => ({ name, size: shape === "one" ? 1 : d_sae })) };
}

/** Whether the activation trains thresholds, as penalties on L0 and the pre-activation loss require. */
export function learnsThresholds(activation: Pick<Activation, "key">): boolean {
  return activationKind(activation).parameters.some(({ name, isTrained }) => name === "threshold" && isTrained);
}

/** The part of a configuration that decides on parameters. */
interface Shaped {
  readonly d_model: number;
  readonly d_sae: number;
  readonly activation: Activation;
}

/** The shapes of the parameters that a model has, as files hold them. */
export function parameterShapes({ d_model, d_sae, activation }: Shaped): Map<keyof ParameterArrays, number[]> {
  return new Map<keyof ParameterArrays, number[]>([
    ["W_enc", [d_model, d_sae]],
    ["b_enc", [d_sae]],
    ["W_dec", [d_sae, d_model]],
    ["b_dec", [d_model]],
    ...activationKind(activation).parameters.map((
      { name, shape },
    ): [OwnParameterName, number[]] => [name, shape === "one" ? [] : [d_sae]]),
  ]);
}

/** The values of the activation's own parameters: those given, otherwise the initial ones. */
export function ownValues(
  { activation, d_sae }: Omit<Shaped, "d_model">,
  given: Partial<ParameterArrays>,
  pre_act_scale: number,
): Partial<ParameterArrays> {
  return Object.fromEntries(
    activationKind(activation).parameters.map((parameter) => {
      const { name, shape } = parameter;
      const initial = () =>
        new Float32Array(shape === "one" ? 1 : d_sae).fill(parameter.initial(activation, pre_act_scale));
      return [name, given[name] ?? initial()];
    }),
  );
}

/** Every parameter that some activation has of its own. */
const OWN_PARAMETERS = new Set(
  Object.values(ACTIVATIONS).flatMap(({ parameters }) => parameters.map(({ name }) => name)),
);

/** @throws {ShapeError} if a parameter does not belong to this activation, or has the wrong length. */
export function checkOwn({ activation, d_sae }: Omit<Shaped, "d_model">, given: Partial<ParameterArrays>): void {
  const { key, parameters } = activationKind(activation);
  for (const name of OWN_PARAMETERS) {
    const found = given[name]?.length;
    const shape = parameters.find((parameter) => parameter.name === name)?.shape;
    const size = shape === undefined ? 0 : shape === "one" ? 1 : d_sae;
    if (found === undefined || found === size) continue;
    const has = shape === undefined ? `no ${name}` : shape === "one" ? `one ${name}` : `${size} ${name}s`;
    throw new ShapeError(`activation ${key} has ${has}, found ${found}`);
  }
}

/**
 * Fills the defaults, checks every field, and freezes the result.
 *
 * @throws {TypeError} for an unknown field or a field of the wrong type.
 * @throws {RangeError} for a number outside its range, or an unknown `key`.
 */
export function completeActivation(options: ActivationOptions): Activation {
  const { key } = options;
  const kind: ActivationKind<Activation> = entryOf("activation", ACTIVATIONS, key);
  return completeFields<Activation>("activation", key, kind.fields, options);
}
