/**
 * The sparse autoencoder.
 *
 * @module
 */

import { Commands } from "../kernels/engine/commands.ts";
import { contextOf, type DeviceContext } from "../kernels/engine/device.ts";
import { addRow } from "../kernels/elementwise.ts";
import { DeviceError, kindOf, ShapeError, shown } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { checkDevice, defaultDevice } from "../kernels/engine/self_check.ts";
import { rowsPerBlock, spans, Tensor } from "../kernels/engine/tensor.ts";
import { parallelRows, subtractParallelRows, unitRows } from "../kernels/unit_rows.ts";
import { activationKind, checkOwn, ownValues, parameterLayout } from "./activations/mod.ts";
import {
  type InputScaling,
  NO_SCALING,
  type ParameterArrays,
  type PiecewiseParameters,
  scalingFault,
  type WeightStorage,
} from "./arrays.ts";
import type { Codes } from "./codes.ts";
import { completeConfig, type SparseAutoencoderConfig, type SparseAutoencoderOptions } from "./config.ts";
import { checkPrefixes, decode } from "./decode.ts";
import { EncoderInput, Tile } from "./encode.ts";
import { type InitialData, initialParametersFromData, rowMean, standardised } from "./initial_values.ts";
import { checkModelFits } from "./limits.ts";
import { emptyCodes, encodeInto, type Model, selects } from "./model.ts";
import { type Gradients, initialParameters, ParameterTensors } from "./parameters.ts";
import type { Batch, Rows } from "./rows.ts";

/** What {@link SparseAutoencoder.forward} returns. Yours to dispose of. */
export interface Output extends Disposable {
  /** [B, D], the reconstruction. */
  readonly x_hat: Tensor;
  /** The codes. */
  readonly f_x: Codes;
}

/** The device of a model, and the scaling of its inputs. */
export interface PlacementOptions {
  /** A device of the platform; the shared default one if left out. */
  readonly device?: GPUDevice;
  /** Standardisation of the inputs; none if left out. */
  readonly input?: InputScaling;
}

/** Options of a model with given values. */
export interface OpeningOptions extends PlacementOptions {
  /**
   * How the device stores W_enc and W_dec; `"f32"` if left out. As `"f16"` they are rounded to the nearest f16 value
   * and take half of the memory; the model computes with the rounded values and cannot be trained. Requires a platform
   * with `Float16Array`.
   */
  readonly weights?: WeightStorage;
}

const OPENING_OPTIONS = { device: true, input: true, weights: true } as const satisfies Record<
  keyof OpeningOptions,
  true
>;

/**
 * A sparse autoencoder on a GPU: `f = activation(x W_enc + b_enc)`, `x̂ = f W_dec + b_dec`.
 *
 * {@link SparseAutoencoder.encode}, {@link SparseAutoencoder.decode} and {@link SparseAutoencoder.forward} never change
 * the model; the caller must dispose of what they return.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * using out = sae.forward(new Float32Array(3 * 8).fill(1));
 * console.log(out.x_hat.shape, await out.x_hat.read());
 * ```
 */
export class SparseAutoencoder implements Model, Disposable {
  /** The complete configuration, frozen. */
  readonly cfg: SparseAutoencoderConfig;
  /** How inputs are standardised before the encoder: `(x − mean) / scale`. */
  readonly input: InputScaling;
  /** The device. */
  readonly device: GPUDevice;
  /** The parameters on the device, where `W_enc` is [S, D]. */
  readonly parameters: ParameterTensors;
  /** What pre-activations must exceed: [1] of a BatchTopK outside training, [S] of a JumpReLU; 0 for other activations. */
  readonly threshold: Tensor;
  /** [D], the inputs' mean. */
  readonly inputMean: Tensor;
  /** The library's context of the device. */
  readonly context: DeviceContext;
  readonly #owned: DisposableStack;

  /** Without values the parameters are zeros. */
  private constructor(
    cfg: SparseAutoencoderConfig,
    values: ParameterArrays | null,
    device: GPUDevice,
    { input = NO_SCALING, weights = "f32" }: OpeningOptions,
  ) {
    checkScaling(input, cfg.d_model);
    const { mean, scale, pre_act_scale = 1 } = input;
    using stack = new DisposableStack();
    this.cfg = cfg;
    this.device = device;
    this.context = contextOf(device);
    this.input = Object.freeze({ mean: mean && mean.slice(), scale, ...pre_act_scale !== 1 && { pre_act_scale } });
    this.inputMean = stack.use(
      Tensor.from(this.context, mean ?? new Float32Array(cfg.d_model), [cfg.d_model], "input mean"),
    );
    this.parameters = stack.use(new ParameterTensors(this.context, parameterLayout(cfg), "", { weights }));
    checkOwn(cfg, values ?? {});
    const own = ownValues(cfg, values ?? {}, pre_act_scale);
    if (values) this.parameters.write({ ...values, ...own });
    else for (const [name, tensor] of this.parameters.own) tensor.write(own[name]!);
    this.threshold = this.parameters.threshold ??
      stack.use(Tensor.from(this.context, own.threshold ?? new Float32Array(1), [1], "threshold"));
    this.#owned = stack.move();
  }

  /**
   * A new model with seeded initial values, the same on every device.
   *
   * Upstream's initialisation: W_dec ~ U(±√(6/d_model)) with unit rows, W_enc its transpose, biases zero; with
   * `subtract_b_dec`, that of its April 2025 version, W_enc ~ U(±√(6/d_sae)) and W_dec ~ U(±√(6/d_model)). With `data`,
   * initial values come from it as {@link InitialData} says.
   *
   * @throws {RangeError | TypeError} for an impossible configuration, or unusable data.
   * @throws {ShapeError} if the data or the inputs' mean do not fit d_model.
   * @throws {DeviceError} if there is no usable GPU, or the model is too large for it: d_sae, d_model and the limit are named.
   */
  static async create(
    options: SparseAutoencoderOptions = {},
    making: PlacementOptions & { readonly seed?: number; readonly data?: InitialData } = {},
  ): Promise<SparseAutoencoder> {
    checkOptions("create", making, { seed: true, data: true, device: true, input: true });
    const { seed = 0, data, ...placement } = making;
    const cfg = completeConfig(options);
    const { input = NO_SCALING } = placement;
    checkScaling(input, cfg.d_model);
    const device = placement.device ?? await defaultDevice();
    checkModelFits(cfg, contextOf(device));
    const made = data
      ? initialParametersFromData(cfg, { seed, input, data })
      : { parameters: initialParameters(cfg, seed), input };
    return await SparseAutoencoder.fromParameters(cfg, made.parameters, { device, input: made.input });
  }

  /**
   * A model with given values, `W_enc` as [d_model, d_sae].
   *
   * @throws {RangeError | TypeError} for an impossible configuration, or a weight beyond the largest f16 value where
   * `weights` are `"f16"`.
   * @throws {ShapeError} if a parameter has the wrong length.
   * @throws {DeviceError} if there is no usable GPU, or the model is too large for it: d_sae, d_model and the limit are named.
   */
  static async fromParameters(
    options: SparseAutoencoderOptions,
    parameters: ParameterArrays,
    opening: OpeningOptions = {},
  ): Promise<SparseAutoencoder> {
    checkOptions("fromParameters", opening, OPENING_OPTIONS);
    const cfg = completeConfig(options);
    return await SparseAutoencoder.#open(cfg, parameters, opening);
  }

  /**
   * A model with values that arrive piece by piece, as from a file: no matrix is ever held whole outside the device,
   * nor on it as float32 if `weights` are `"f16"`.
   *
   * @throws {RangeError | TypeError} as {@link fromParameters}.
   * @throws {ShapeError} if a parameter has more or fewer values; errors of the pieces are rethrown.
   * @throws {DeviceError} if there is no usable GPU, or the model is too large for it: d_sae, d_model and the limit are named.
   * @throws {TypeError} for an unknown option.
   */
  static async fromPieces(
    options: SparseAutoencoderOptions,
    pieces: PiecewiseParameters,
    opening: OpeningOptions = {},
  ): Promise<SparseAutoencoder> {
    checkOptions("fromPieces", opening, OPENING_OPTIONS);
    const cfg = completeConfig(options);
    using stack = new DisposableStack();
    const sae = stack.use(await SparseAutoencoder.#open(cfg, null, opening));
    await sae.parameters.writePieces(pieces);
    if (pieces.threshold && sae.#estimatesThreshold) {
      for await (const piece of pieces.threshold.pieces) sae.threshold.write(piece);
    }
    stack.move();
    return sae;
  }

  /** The model, if the device has memory for it. */
  static async #open(
    cfg: SparseAutoencoderConfig,
    values: ParameterArrays | null,
    opening: OpeningOptions,
  ): Promise<SparseAutoencoder> {
    const device = opening.device ?? await defaultDevice();
    await checkDevice(device);
    const context = contextOf(device);
    checkModelFits(cfg, context, opening.weights);
    const what = `a model of d_sae ${cfg.d_sae} and d_model ${cfg.d_model}`;
    return await context.making(what, () => new SparseAutoencoder(cfg, values, device, opening));
  }

  /**
   * The parameters as files hold them: `W_enc` [D, S], `b_enc` [S], `W_dec` [S, D], `b_dec` [D], and the `threshold` of a
   * BatchTopK [1] or JumpReLU [S]. f16 weights come back as the values that they hold.
   */
  async readParameters(): Promise<ParameterArrays> {
    if (!this.#estimatesThreshold) return await this.parameters.read();
    const [parameters, threshold] = await Promise.all([this.parameters.read(), this.threshold.read()]);
    return { ...parameters, threshold };
  }

  /**
   * The same in pieces, each read when it is requested and not kept: no matrix is ever held whole outside the device.
   * `W_enc` is transposed, as on the device.
   */
  readPieces(): PiecewiseParameters {
    const pieces = this.parameters.pieces();
    if (!this.#estimatesThreshold) return pieces;
    return { ...pieces, threshold: { pieces: this.threshold.pieces(), isTransposed: false } };
  }

  /** Whether files hold a threshold that is not a trained parameter. */
  get #estimatesThreshold(): boolean {
    return activationKind(this.cfg.activation).parameters.some(({ isTrained }) => !isTrained);
  }

  /**
   * x [B, D] → codes. A NaN or infinity in a row of x appears in that row's codes.
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model.
   * @throws {RangeError} if the codes of so many rows could exceed a binding of the device.
   */
  encode(x: Batch): Codes {
    using stack = new DisposableStack();
    const tensor = batchTensor(this, x, stack);
    const n_rows = tensor.shape[0]!;
    using made = new DisposableStack();
    const codes = made.use(emptyCodes(this, n_rows));
    const input = stack.use(new EncoderInput(this, n_rows));
    const tile = stack.use(new Tile(this, n_rows, { selects: selects(this) }));
    const commands = new Commands(this.context);
    input.prepare(commands, this, tensor);
    encodeInto(commands, this, { input, tile, codes });
    commands.submit();
    made.move();
    return codes;
  }

  /**
   * Codes → x̂ [B, D]; with `prefixes`, [B, P, D], where part p uses only the first `prefixes[p]` latents.
   *
   * @throws {RangeError} unless prefixes ascend strictly from at least 1 to d_sae.
   * @throws {ShapeError} if the codes are of another dictionary size.
   */
  decode(codes: Codes, prefixes?: readonly number[]): Tensor {
    const { cfg: { d_model, d_sae }, context, input } = this;
    if (codes.d_sae !== d_sae) {
      throw new ShapeError(`decoding takes codes of d_sae ${d_sae}, found codes of ${codes.d_sae}`);
    }
    const lengths = prefixes ?? [d_sae];
    checkPrefixes(lengths, d_sae);
    const P = lengths.length;
    using ends = Tensor.from(context, Uint32Array.from(lengths), [P], "prefixes");
    const { n_rows } = codes;
    using made = new DisposableStack();
    const x_hats = made.use(new Tensor(context, "f32", prefixes ? [n_rows, P, d_model] : [n_rows, d_model], "x_hat"));
    const commands = new Commands(context);
    for (const span of spans(n_rows, rowsPerBlock(context, n_rows, P * d_model * 4, "x_hat"))) {
      decode(commands, this, { codes, span, prefixes: { lengths, ends }, x_hats: x_hats.rows(span.from, span.to) });
      addRow(commands, {
        x: x_hats.rows(span.from, span.to),
        row: this.parameters.b_dec,
        other: this.inputMean,
        rows: (span.to - span.from) * P,
        columns: d_model,
        factor: input.scale,
      });
    }
    commands.submit();
    made.move();
    return x_hats;
  }

  /**
   * x [B, D] → codes and reconstruction.
   *
   * @throws {ShapeError | RangeError} as {@link encode}.
   */
  forward(x: Batch): Output {
    using stack = new DisposableStack();
    const f_x = stack.use(this.encode(x));
    const x_hat = stack.use(this.decode(f_x));
    const owned = stack.move();
    return { x_hat, f_x, [Symbol.dispose]: () => owned.dispose() };
  }

  /**
   * b_dec ← the mean of the rows of x, summed in float64: the initial value of upstream's April 2025 version.
   *
   * @throws {ShapeError} if x has rows of another width, or is not a whole number of rows of d_model, or has none.
   */
  async initBDec(x: Batch): Promise<void> {
    countRows(x, this);
    const values = valuesOf(x);
    const x_BD = values instanceof Tensor ? await values.read() : values;
    this.parameters.b_dec.write(standardised(rowMean(x_BD, this.cfg.d_model), this.input));
  }

  /** Normalises the rows of W_dec to unit norm, if the configuration says so. Rows of zeros stay. */
  normalizeWDec(): void {
    const commands = new Commands(this.context);
    using halted = new Tensor(this.context, "u32", [1], "never halted");
    this.recordNormalizeWDec(commands, halted);
    commands.submit();
  }

  /** The same, recorded into `commands`; does nothing if `halted[0]` is not 0 when it runs. */
  recordNormalizeWDec(commands: Commands, halted: Tensor<"u32">): void {
    if (this.cfg.normalize_w_dec) unitRows(commands, this.parameters.W_dec, halted);
  }

  /**
   * Removes from each row of grad_W_dec its component along W_dec's row, if the configuration says so. Rows of zeros
   * stay.
   */
  removeParallelGrads(gradients: Gradients): void {
    if (!this.cfg.remove_parallel_grads) return;
    const commands = new Commands(this.context);
    const make = (label: string) => new Tensor(this.context, "f32", [this.cfg.d_sae], label);
    using parallel = make("parallel parts of grad_W_dec");
    using squares = make("squares of rows");
    const rows = { grad: gradients.W_dec, matrix: this.parameters.W_dec, parallel };
    parallelRows(commands, { ...rows, squares });
    subtractParallelRows(commands, rows);
    commands.submit();
  }

  /** Frees the model's memory; the device stays. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/**
 * @throws {ShapeError} for a mean of another length.
 * @throws {RangeError} for a mean that is not finite, or a factor that is not positive.
 */
function checkScaling(input: InputScaling, d_model: number): void {
  const fault = scalingFault(input, d_model);
  if (fault === undefined) return;
  if (fault.field !== "mean") {
    const what = fault.field === "scale" ? "inputs" : "pre-activations";
    throw new RangeError(`the scale of the ${what} must be a positive number, found ${shown(fault.value)}`);
  }
  if ("length" in fault) {
    throw new ShapeError(`the mean of the inputs must have d_model ${d_model} values, found ${fault.length}`);
  }
  throw new RangeError(`the mean of the inputs must be finite, found ${fault.value} in column ${fault.column}`);
}

/**
 * x [B, D] on the device; a copy, if one is made, belongs to `stack`.
 *
 * @throws {ShapeError | TypeError | DeviceError} as {@link countRows}.
 */
export function batchTensor(model: Model, x: Batch, stack: DisposableStack): Tensor {
  const n_rows = countRows(x, model);
  const values = valuesOf(x);
  return values instanceof Tensor
    ? values
    : stack.use(Tensor.from(model.context, values, [n_rows, model.cfg.d_model], "x"));
}

/** The rows themselves. */
export function valuesOf(x: Batch): Float32Array | Tensor {
  return isBare(x) ? x : x.x;
}

function isBare(x: Batch): x is Float32Array | Tensor {
  return x instanceof Float32Array || x instanceof Tensor;
}

/**
 * How many rows x has.
 *
 * @throws {ShapeError} if its rows are of another width than d_model, it is not a whole number of them, or has none.
 * @throws {TypeError} if it is neither rows nor an array nor a tensor of float32.
 * @throws {DeviceError} if it lies on another device than the model.
 */
export function countRows(x: Batch, model: Model): number {
  const { cfg: { d_model }, context } = model;
  if (isRows(x)) {
    checkWidth(x, model);
    const n_rows = countRows(x.x, model);
    for (const name of ["index", "labels"] as const) {
      const found = x[name]?.length ?? n_rows;
      if (found !== n_rows) {
        throw new ShapeError(`${name} must have one number for each of ${n_rows} rows, found ${found}`);
      }
    }
    return n_rows;
  }
  if (x instanceof Tensor) {
    if (x.shape.length !== 2 || x.shape[1] !== d_model || x.shape[0] === 0) {
      throw new ShapeError(`x must be [B, d_model ${d_model}] of one or more rows, found [${x.shape.join(", ")}]`);
    }
    const type: string = x.type;
    if (type !== "f32") throw new TypeError(`x must be a tensor of f32, found one of ${type}`);
    if (x.context !== context) throw new DeviceError("x lies on another device than the model");
    return x.shape[0]!;
  }
  if (!(x instanceof Float32Array)) {
    throw new TypeError(`x must be Rows, a Float32Array or a Tensor, found ${kindOf(x)}`);
  }
  const n_rows = x.length / d_model;
  if (!Number.isInteger(n_rows) || n_rows === 0) {
    throw new ShapeError(`x must be one or more rows of d_model ${d_model} values, found ${x.length} values`);
  }
  return n_rows;
}

function isRows(x: Batch): x is Rows {
  return !isBare(x) && typeof x === "object" && x !== null && "x" in x && "d_model" in x;
}

/** @throws {ShapeError} unless these rows are as wide as the model's inputs. */
export function checkWidth({ d_model }: Pick<Rows, "d_model">, { cfg }: Pick<Model, "cfg">): void {
  if (d_model === cfg.d_model) return;
  throw new ShapeError(`the model takes rows of d_model ${cfg.d_model}, found rows of d_model ${d_model}`);
}
