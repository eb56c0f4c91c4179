/**
 * Models for the tests of files: small ones, the goldens, and arbitrary ones.
 *
 * @module
 */

import { ownValues } from "../../nn/activations/mod.ts";
import * as fc from "fast-check";
import type { InputScaling, ParameterArrays } from "../../nn/arrays.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "../../nn/config.ts";
import { Random } from "../support/random.ts";

/** What a file holds. */
export interface Model {
  readonly cfg: SparseAutoencoderConfig;
  readonly parameters: ParameterArrays;
  readonly input: InputScaling;
}

/** Inputs as they are. */
export const NO_SCALING: InputScaling = { mean: null, scale: 1 };

/** Seeded parameters of a configuration. */
export function randomModel(options: SparseAutoencoderOptions, input = NO_SCALING, seed = 0): Model {
  const cfg = completeConfig(options);
  const random = new Random(seed);
  const { d_model, d_sae } = cfg;
  const parameters = {
    W_enc: random.normal(d_model * d_sae),
    b_enc: random.normal(d_sae),
    W_dec: random.normal(d_sae * d_model),
    b_dec: random.normal(d_model),
  };
  const own = Object.entries(ownValues(cfg, {}, 1)).map(([name, values]) => [name, values.map(() => random.unit())]);
  return { cfg, parameters: { ...parameters, ...Object.fromEntries(own) }, input };
}

/** Names of the parameters that every model has. */
export const PARAMETERS = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;

/** The parameters as bits, so that −0 is not 0. */
export function bitsOf(parameters: ParameterArrays): Record<string, number[]> {
  return Object.fromEntries(
    [...PARAMETERS, ...["threshold", "r_mag", "b_mag"] as const].flatMap((name) => {
      const data = parameters[name];
      return data === undefined ? [] : [[name, [...new Uint32Array(data.slice().buffer)]]];
    }),
  );
}

/** One golden file, what it must load as, and what the Python package computes with it. */
export interface GoldenCheckpoint {
  readonly file: string;
  readonly bytes: Uint8Array;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly parameters: ParameterArrays;
  readonly x: Float32Array;
  readonly f_x: Float32Array;
  readonly x_hat: Float32Array;
}

interface GoldenArray {
  readonly shape: number[];
  readonly data: number[];
}

interface GoldenCase extends Partial<Record<"x_hat" | "x_hats", GoldenArray>> {
  readonly file: string;
  readonly params: Readonly<Record<string, GoldenArray>>;
  readonly threshold?: number;
  readonly x: GoldenArray;
  readonly f_x: GoldenArray;
}

/** A file of `tests/goldens/checkpoints`. */
export function goldenCheckpoint(file: string): GoldenCheckpoint {
  const goldens = new URL("../goldens/", import.meta.url);
  const { cases }: { cases: GoldenCase[] } = JSON.parse(Deno.readTextFileSync(new URL("checkpoints.json", goldens)));
  const { params, threshold, x, f_x, x_hat, x_hats } = cases.find((one) => one.file === file)!;
  const entries: [string, Float32Array][] = PARAMETERS.map((name) => [name, Float32Array.from(params[name]!.data)]);
  if (threshold !== undefined) entries.push(["threshold", Float32Array.of(threshold)]);
  return {
    file,
    bytes: Deno.readFileSync(new URL(`checkpoints/${file}`, goldens)),
    shapes: Object.fromEntries(Object.entries(params).map(([name, { shape }]) => [name, shape])),
    parameters: Object.fromEntries(entries) as unknown as ParameterArrays,
    x: Float32Array.from(x.data),
    f_x: Float32Array.from(f_x.data),
    x_hat: Float32Array.from((x_hat ?? x_hats)!.data),
  };
}

const float = fc.double({ min: 0, max: 1e6, noNaN: true });
const sparsity = fc.oneof(
  fc.constant({ key: "no-sparsity" } as const),
  fc.record({ key: fc.constantFrom("l1-sparsity" as const, "weighted-l1-sparsity" as const), coeff: float }),
  fc.record({ key: fc.constant("tanh-sparsity" as const), coeff: float, scale: fc.constantFrom(0.5, 4) }),
);
const aux = fc.oneof(
  fc.constant({ key: "no-aux" } as const),
  fc.record({
    key: fc.constant("auxk" as const),
    k_aux: fc.integer({ min: 1, max: 2 ** 31 }),
    alpha: float,
    include_b_dec: fc.boolean(),
    normalize: fc.boolean(),
  }),
);
const activation = fc.oneof(
  fc.record({ key: fc.constant("relu" as const), sparsity, aux }),
  fc.record({
    key: fc.constant("top-k" as const),
    top_k: fc.integer({ min: 1, max: 2 ** 31 }),
    relu: fc.boolean(),
    sparsity,
    aux,
  }),
  fc.record({
    key: fc.constant("batch-top-k" as const),
    top_k: fc.integer({ min: 1, max: 2 ** 31 }),
    sparsity,
    relu: fc.boolean(),
    momentum: fc.double({ min: 0, max: 1, noNaN: true }),
    bias_correction: fc.boolean(),
    aux,
  }),
  fc.record({
    key: fc.constant("jump-relu" as const),
    bandwidth: fc.double({ min: 1e-3, max: 10, noNaN: true }),
    threshold_init: float,
    sparsity: fc.oneof(
      sparsity,
      fc.record({ key: fc.constant("l0-sparsity" as const), coeff: float }),
      fc.record({
        key: fc.constant("target-l0-sparsity" as const),
        coeff: float,
        target_l0: fc.constantFrom(1, 0.625),
      }),
    ),
    aux: fc.oneof(aux, fc.record({ key: fc.constant("pre-act" as const), coeff: float })),
  }),
);

/** Configurations of every kind, of small models. */
export const anyConfig: fc.Arbitrary<SparseAutoencoderConfig> = fc.record({
  d_model: fc.integer({ min: 1, max: 5 }),
  d_sae: fc.integer({ min: 1, max: 7 }),
  activation,
  reinit_blend: fc.double({ min: 0, max: 1, noNaN: true }),
  reinit_enc_dec_tranpose: fc.boolean(),
  remove_parallel_grads: fc.boolean(),
  normalize_w_dec: fc.boolean(),
  subtract_b_dec: fc.boolean(),
}).map((options) => completeConfig(options));

/** Any finite float32s, so many. */
export function floats(length: number): fc.Arbitrary<Float32Array> {
  const float32 = fc.float({ noNaN: true, noDefaultInfinity: true });
  return fc.array(float32, { minLength: length, maxLength: length }).map((values) => Float32Array.from(values));
}

/** Models of every kind. */
export const anyModel: fc.Arbitrary<Model> = anyConfig.chain((cfg) =>
  fc.record({
    cfg: fc.constant(cfg),
    parameters: fc.record({
      W_enc: floats(cfg.d_model * cfg.d_sae),
      b_enc: floats(cfg.d_sae),
      W_dec: floats(cfg.d_sae * cfg.d_model),
      b_dec: floats(cfg.d_model),
      ...Object.fromEntries(Object.entries(ownValues(cfg, {}, 1)).map(([name, { length }]) => [name, floats(length)])),
    }),
    input: fc.record({
      mean: fc.oneof(fc.constant(null), floats(cfg.d_model)),
      scale: fc.double({ min: Number.MIN_VALUE, max: 1e300, noNaN: true }),
    }),
  })
);
