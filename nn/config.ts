/**
 * The wire types: what a configuration says, spelled as in checkpoints, and its defaults.
 *
 * Everything here is plain data. A complete {@link SparseAutoencoderConfig} comes out of {@link completeConfig},
 * which is the only place that fills defaults and refuses what no model can be.
 *
 * @module
 */

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
 * While training keeps rows of W_dec at unit length, it is L1. For lengths that are learned set both `normalize_w_dec` and
 * `remove_parallel_grads` to `false`: the second alone would take away what pulls at a length.
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

/** `f = max(h, 0)`. */
export interface Relu {
  /** Discriminator. */
  readonly key: "relu";
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** The `top_k` largest pre-activations of each row; ties go to the lowest index. */
export interface TopK {
  /** Discriminator. */
  readonly key: "top-k";
  /** How many latents a row keeps; more than `d_sae` keeps all. */
  readonly top_k: number;
  /** Whether negative ones among them become 0, as most libraries have it; the Python package keeps them. */
  readonly relu: boolean;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/**
 * In training, the `top_k` · B largest pre-activations of the whole batch; otherwise all above a threshold that training
 * estimates (Bussmann et al. 2024).
 */
export interface BatchTopK {
  /** Discriminator. */
  readonly key: "batch-top-k";
  /** How many latents a row keeps on average. */
  readonly top_k: number;
  /** Whether negative ones among them become 0 in training, as most libraries have it; the Python package keeps them. */
  readonly relu: boolean;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** How fast the threshold follows: θ ← (1 − momentum) θ + momentum · the smallest positive survivor. */
  readonly momentum: number;
  /** Whether the threshold's start at 0 is corrected for, as Adam's moments are; the Python package's is not. */
  readonly bias_correction: boolean;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/**
 * `f = h · 1[h > θ]` with a threshold of its own for each latent, trained through straight-through estimators
 * (Rajamanoharan et al. 2024, arXiv 2407.14435). A negative θ is 0.
 *
 * Its unit is measured where a model is made from `data`. Without them it is 1, which is right for standardised inputs and
 * encoders of unit columns alone.
 */
export interface JumpRelu {
  /** Discriminator. */
  readonly key: "jump-relu";
  /** Width of the estimators' window around θ, in units of {@link InputScaling.pre_act_scale}. */
  readonly bandwidth: number;
  /** Where every θ starts, in the same units; at 1 about a sixth of the latents fire at first. */
  readonly threshold_init: number;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** From pre-activations to codes. */
export type Activation = Relu | TopK | BatchTopK | JumpRelu;

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

/** What a user may write for an activation: the discriminator, and whatever differs from the defaults. */
export type ActivationOptions =
  | (Pick<Relu, "key"> & { readonly sparsity?: Sparsity; readonly aux?: AuxOptions })
  | (Pick<TopK, "key"> & Partial<Omit<TopK, "aux">> & { readonly aux?: AuxOptions })
  | (Pick<BatchTopK, "key"> & Partial<Omit<BatchTopK, "aux">> & { readonly aux?: AuxOptions })
  | (Pick<JumpRelu, "key"> & Partial<Omit<JumpRelu, "aux">> & { readonly aux?: AuxOptions });

/** What a user may write for the auxiliary loss. */
export type AuxOptions = NoAux | (Pick<AuxK, "key"> & Partial<AuxK>) | (Pick<PreAct, "key"> & Partial<PreAct>);

/** What a user may write for a model: everything has a default. */
export type SparseAutoencoderOptions =
  & Partial<Omit<SparseAutoencoderConfig, "activation">>
  & { readonly activation?: ActivationOptions };

/** What was measured on data: inputs are standardised before the encoder, `(x − mean) / scale`, and brought back after. */
export interface InputScaling {
  /** [D], or `null` for zero. */
  readonly mean: Float32Array | null;
  /** A positive factor; 1 changes nothing. */
  readonly scale: number;
  /** The initial pre-activations' root mean square, which a JumpReLU's `bandwidth` counts in; 1 if left out. */
  readonly pre_act_scale?: number;
}

/**
 * How the matrices of a model lie on its device: as float32, or as halves of half the size, rounded to the nearest, with
 * which a model cannot be trained. Sums are float32 either way.
 */
export type WeightStorage = "f32" | "f16";

/** The parameters as files hold them, row-major: `W_enc` [D, S], `b_enc` [S], `W_dec` [S, D], `b_dec` [D]. */
export interface ParameterArrays {
  /** [D, S] */
  readonly W_enc: Float32Array;
  /** [S] */
  readonly b_enc: Float32Array;
  /** [S, D] */
  readonly W_dec: Float32Array;
  /** [D] */
  readonly b_dec: Float32Array;
  /**
   * What a pre-activation must exceed: [1] of a BatchTopK, outside training, 0 if left out; [S] of a JumpReLU,
   * `threshold_init` · `pre_act_scale` if left out.
   */
  readonly threshold?: Float32Array;
}

/** A parameter's values, row by row, in pieces of any length. */
export interface ParameterPieces {
  /** Each goes on where the one before ended. It is not kept, and may be a view of something larger. */
  readonly pieces: AsyncIterable<Float32Array>;
  /** Whether they are the transpose of what {@link ParameterArrays} holds. */
  readonly isTransposed: boolean;
}

/** {@link ParameterArrays} piece by piece, so that nothing needs to hold a matrix. */
export type PiecewiseParameters = { readonly [Name in keyof ParameterArrays]: ParameterPieces };

const DEFAULTS = {
  d_model: 1024,
  d_sae: 16384,
  reinit_blend: 0.8,
  reinit_enc_dec_tranpose: true,
  remove_parallel_grads: true,
  normalize_w_dec: true,
  subtract_b_dec: false,
} as const;

/** The default penalty where a ReLU's sparsity is left out, as upstream's. */
const RELU_SPARSITY: L1Sparsity = { key: "l1-sparsity", coeff: 4e-4 };

/** The fields of a configuration. */
export const CONFIG_KEYS: readonly string[] = [
  "d_model",
  "d_sae",
  "activation",
  "reinit_blend",
  "reinit_enc_dec_tranpose",
  "remove_parallel_grads",
  "normalize_w_dec",
  "subtract_b_dec",
];

/**
 * Fills the defaults of upstream's 2026 version, checks every field, and freezes the result deeply.
 *
 * @throws {TypeError} for an unknown field or a field of the wrong type.
 * @throws {RangeError} for a number outside its range, or an unknown `key`.
 */
export function completeConfig(options: SparseAutoencoderOptions = {}): SparseAutoencoderConfig {
  onlyFields("the configuration", options, CONFIG_KEYS);
  const cfg = {
    d_model: integer("d_model", options.d_model ?? DEFAULTS.d_model, 1),
    d_sae: integer("d_sae", options.d_sae ?? DEFAULTS.d_sae, 1),
    activation: completeActivation(options.activation ?? { key: "top-k" }),
    reinit_blend: number("reinit_blend", options.reinit_blend ?? DEFAULTS.reinit_blend, 0, 1),
    reinit_enc_dec_tranpose: boolean(
      "reinit_enc_dec_tranpose",
      options.reinit_enc_dec_tranpose ?? DEFAULTS.reinit_enc_dec_tranpose,
    ),
    remove_parallel_grads: boolean(
      "remove_parallel_grads",
      options.remove_parallel_grads ?? DEFAULTS.remove_parallel_grads,
    ),
    normalize_w_dec: boolean("normalize_w_dec", options.normalize_w_dec ?? DEFAULTS.normalize_w_dec),
    subtract_b_dec: boolean("subtract_b_dec", options.subtract_b_dec ?? DEFAULTS.subtract_b_dec),
  };
  checkTogether(cfg);
  return Object.freeze(cfg);
}

/** @throws {RangeError | TypeError} as {@link completeConfig}. */
function completeActivation(options: ActivationOptions): Activation {
  switch (options.key) {
    case "relu":
      onlyFields("activation relu", options, ["key", "sparsity", "aux"]);
      return Object.freeze({
        key: "relu",
        sparsity: completeSparsity(options.sparsity ?? RELU_SPARSITY),
        aux: completeAux(options.aux ?? { key: "no-aux" }),
      });
    case "top-k":
      onlyFields("activation top-k", options, ["key", "top_k", "relu", "sparsity", "aux"]);
      return Object.freeze({
        key: "top-k",
        top_k: integer("top_k", options.top_k ?? 32, 1),
        relu: boolean("relu", options.relu ?? false),
        sparsity: completeSparsity(options.sparsity ?? { key: "no-sparsity" }),
        aux: completeAux(options.aux ?? { key: "auxk" }),
      });
    case "batch-top-k":
      onlyFields("activation batch-top-k", options, [
        "key",
        "top_k",
        "relu",
        "sparsity",
        "momentum",
        "bias_correction",
        "aux",
      ]);
      return Object.freeze({
        key: "batch-top-k",
        top_k: integer("top_k", options.top_k ?? 32, 1),
        relu: boolean("relu", options.relu ?? false),
        sparsity: completeSparsity(options.sparsity ?? { key: "no-sparsity" }),
        momentum: number("momentum", options.momentum ?? 0.1, 0, 1),
        bias_correction: boolean("bias_correction", options.bias_correction ?? false),
        aux: completeAux(options.aux ?? { key: "auxk" }),
      });
    case "jump-relu":
      onlyFields("activation jump-relu", options, ["key", "bandwidth", "threshold_init", "sparsity", "aux"]);
      return Object.freeze({
        key: "jump-relu",
        bandwidth: positive("bandwidth", options.bandwidth ?? 1),
        threshold_init: number("threshold_init", options.threshold_init ?? 1, 0, Infinity),
        sparsity: completeSparsity(options.sparsity ?? { key: "l0-sparsity", coeff: 2e-3 }),
        aux: completeAux(options.aux ?? { key: "auxk" }),
      });
    default:
      throw unknownKey("activation", options, ["relu", "top-k", "batch-top-k", "jump-relu"]);
  }
}

/** What fields ask of each other. */
function checkTogether({ activation, d_sae }: SparseAutoencoderConfig): void {
  const { key, sparsity, aux } = activation;
  if (key === "batch-top-k" && activation.bias_correction && activation.momentum === 0) {
    throw new RangeError("bias_correction needs a momentum above 0: with 0 the threshold stays where it starts");
  }
  if (sparsity.key === "target-l0-sparsity" && sparsity.target_l0 > d_sae) {
    throw new RangeError(`target_l0 must be at most d_sae ${d_sae}, found ${sparsity.target_l0}`);
  }
  if (key === "jump-relu") return;
  // Only thresholds can learn from these.
  if (sparsity.key === "l0-sparsity" || sparsity.key === "target-l0-sparsity") {
    throw new RangeError(`${sparsity.key} trains the thresholds of a jump-relu; the activation is ${key}`);
  }
  if (aux.key === "pre-act") {
    throw new RangeError(`the auxiliary loss pre-act needs the thresholds of a jump-relu; the activation is ${key}`);
  }
}

/** @throws {RangeError | TypeError} as {@link completeConfig}. */
export function completeSparsity(options: Sparsity): Sparsity {
  const coeff = (): number => number("coeff", (options as L1Sparsity).coeff, 0, Infinity);
  switch (options.key) {
    case "no-sparsity":
      onlyFields("sparsity no-sparsity", options, ["key"]);
      return Object.freeze({ key: options.key });
    case "l1-sparsity":
    case "weighted-l1-sparsity":
    case "l0-sparsity":
      onlyFields(`sparsity ${options.key}`, options, ["key", "coeff"]);
      return Object.freeze({ key: options.key, coeff: coeff() });
    case "tanh-sparsity":
      onlyFields("sparsity tanh-sparsity", options, ["key", "coeff", "scale"]);
      return Object.freeze({ key: options.key, coeff: coeff(), scale: positive("scale", options.scale) });
    case "target-l0-sparsity":
      onlyFields("sparsity target-l0-sparsity", options, ["key", "coeff", "target_l0"]);
      return Object.freeze({ key: options.key, coeff: coeff(), target_l0: positive("target_l0", options.target_l0) });
    default:
      throw unknownKey("sparsity", options, [
        "no-sparsity",
        "l1-sparsity",
        "weighted-l1-sparsity",
        "tanh-sparsity",
        "l0-sparsity",
        "target-l0-sparsity",
      ]);
  }
}

function completeAux(options: AuxOptions): Aux {
  switch (options.key) {
    case "no-aux":
      onlyFields("aux no-aux", options, ["key"]);
      return Object.freeze({ key: "no-aux" });
    case "auxk":
      onlyFields("aux auxk", options, ["key", "k_aux", "alpha", "include_b_dec", "normalize"]);
      return Object.freeze({
        key: "auxk",
        k_aux: integer("k_aux", options.k_aux ?? 512, 1),
        alpha: number("alpha", options.alpha ?? 1 / 32, 0, Infinity),
        include_b_dec: boolean("include_b_dec", options.include_b_dec ?? false),
        normalize: boolean("normalize", options.normalize ?? false),
      });
    case "pre-act":
      onlyFields("aux pre-act", options, ["key", "coeff"]);
      return Object.freeze({ key: "pre-act", coeff: number("coeff", options.coeff ?? 3e-6, 0, Infinity) });
    default:
      throw unknownKey("aux", options, ["no-aux", "auxk", "pre-act"]);
  }
}

function onlyFields(what: string, found: object, expected: readonly string[]): void {
  for (const field of Object.keys(found)) {
    if (!expected.includes(field)) {
      throw new TypeError(`${what} has no field ${JSON.stringify(field)}; it has ${expected.join(", ")}`);
    }
  }
}

function unknownKey(what: string, found: { readonly key?: unknown }, expected: readonly string[]): RangeError {
  return new RangeError(`unknown ${what} key ${JSON.stringify(found.key)}; expected one of ${expected.join(", ")}`);
}

function integer(name: string, found: unknown, least: number): number {
  if (!Number.isSafeInteger(found) || (found as number) < least) {
    throw new RangeError(`${name} must be an integer of at least ${least}, found ${String(found)}`);
  }
  return found as number;
}

function number(name: string, found: unknown, least: number, most: number): number {
  if (typeof found !== "number") throw new TypeError(`${name} must be a number, found ${typeof found}`);
  // Written so that NaN fails too.
  if (!(found >= least && found <= most && Number.isFinite(found))) {
    const range = most === Infinity ? `a finite number of at least ${least}` : `between ${least} and ${most}`;
    throw new RangeError(`${name} must be ${range}, found ${found}`);
  }
  return found;
}

function positive(name: string, found: unknown): number {
  if (found === 0) throw new RangeError(`${name} must be positive, found 0`);
  return number(name, found, 0, Infinity);
}

function boolean(name: string, found: unknown): boolean {
  if (typeof found !== "boolean") throw new TypeError(`${name} must be true or false, found ${String(found)}`);
  return found;
}
