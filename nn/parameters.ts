/**
 * The parameters on the device, their gradients and moments, and their initial values: two matrices, two biases, and an
 * activation's own parameters.
 *
 * `W_enc` is [S, D] on the device, like `W_dec`: a latent's row is contiguous in both, the encoder's product reads
 * rows, and both gradients are computed latent by latent. In files and in {@link ParameterTensors.read} it is [D, S].
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { RandomStream, STREAMS } from "../kernels/random.ts";
import { Tensor } from "../kernels/engine/tensor.ts";
import { transposeRows } from "../kernels/transpose.ts";
import { type ParameterArrays, type PiecewiseParameters, transposed, type WeightStorage } from "./arrays.ts";

/** The parameters of a model, and their sizes. */
export interface ParameterLayout {
  /** D */
  readonly d_model: number;
  /** S */
  readonly d_sae: number;
  /** Trained parameters besides the matrices and biases. */
  readonly own: readonly {
    /** Its name in {@link ParameterArrays}. */
    readonly name: OwnParameterName;
    /** Number of values. */
    readonly size: number;
  }[];
}

/** Parameters that only some activations have. */
export type OwnParameterName = Exclude<keyof ParameterArrays, "W_enc" | "b_enc" | "W_dec" | "b_dec">;

/** Every parameter that a model may have. */
const ALL: Readonly<Record<keyof ParameterArrays, true>> = {
  W_dec: true,
  b_dec: true,
  W_enc: true,
  b_enc: true,
  threshold: true,
  r_mag: true,
  b_mag: true,
};

/** Their names, in the order in which upstream registers them; numbers for each parameter have this order. */
export const PARAMETERS = Object.keys(ALL) as readonly (keyof ParameterArrays)[];

/** One array for each parameter: the parameters themselves, their gradients, or a moment of them. */
export class ParameterTensors implements Disposable {
  /** [S, D], the transpose of what files hold. */
  readonly W_enc: Tensor;
  /** [S] */
  readonly b_enc: Tensor;
  /** [S, D] */
  readonly W_dec: Tensor;
  /** [D] */
  readonly b_dec: Tensor;
  /** Those of the activation. */
  readonly own: ReadonlyMap<keyof ParameterArrays, Tensor>;
  readonly #owned = new DisposableStack();

  /**
   * Zeros for a model; `label` names them in errors. Without `matrices`, W_enc and W_dec have no rows; with `weights`
   * `"f16"` they are f16 tensors.
   *
   * @throws {RangeError} for other weights.
   */
  constructor(
    context: DeviceContext,
    { d_model, d_sae, own }: ParameterLayout,
    label: string,
    options: { readonly matrices?: boolean; readonly weights?: WeightStorage } = {},
  ) {
    checkOptions("ParameterTensors", options, { matrices: true, weights: true });
    const { matrices = true, weights = "f32" } = options;
    if (weights !== "f32" && weights !== "f16") {
      throw new RangeError(`weights must be f32 or f16, found ${JSON.stringify(weights)}`);
    }
    using stack = new DisposableStack();
    const make = (name: string, shape: number[], options: { readonly isF16?: boolean } = {}) =>
      stack.use(new Tensor(context, "f32", shape, `${label}${name}`, options));
    const rows = matrices ? d_sae : 0;
    const isF16 = weights === "f16";
    this.W_enc = make("W_enc", [rows, d_model], { isF16 });
    this.b_enc = make("b_enc", [d_sae]);
    this.W_dec = make("W_dec", [rows, d_model], { isF16 });
    this.b_dec = make("b_dec", [d_model]);
    this.own = new Map(own.map(({ name, size }) => [name, make(name, [size])]));
    this.#owned = stack.move();
  }

  /** [S], thresholds that are trained. */
  get threshold(): Tensor | undefined {
    return this.own.get("threshold");
  }

  /** How W_enc and W_dec are stored. */
  get weights(): WeightStorage {
    return this.W_enc.isF16 ? "f16" : "f32";
  }

  /** The tensors with their names, in the order in which upstream registers them. */
  *[Symbol.iterator](): Generator<[keyof ParameterArrays, Tensor]> {
    yield ["W_dec", this.W_dec];
    yield ["b_dec", this.b_dec];
    yield ["W_enc", this.W_enc];
    yield ["b_enc", this.b_enc];
    yield* this.own;
  }

  /**
   * Copies values to the device.
   *
   * @throws {ShapeError} if a length is not that of its parameter.
   * @throws {RangeError} if the matrices are f16 and a value is beyond the largest f16 value, 65504.
   */
  write(arrays: ParameterArrays): void {
    const [rows = 0, d_model = 0] = this.W_enc.shape;
    for (const [name, tensor] of this) {
      const found = arrays[name]?.length ?? 0;
      if (found !== tensor.size) {
        throw new ShapeError(
          `${tensor.label} of a model with d_model ${d_model} and d_sae ${this.b_enc.size} has ${tensor.size} values, found ${found}`,
        );
      }
    }
    for (const [name, tensor] of this) {
      tensor.write(name === "W_enc" ? transposed(arrays.W_enc, d_model, rows) : arrays[name]!);
    }
  }

  /**
   * Copies values to the device as they arrive. Outside the device, only the largest piece and some megabytes of a
   * matrix are held; on it, one more block of rows if a piece has to be transposed.
   *
   * @throws {ShapeError} if a parameter gets too few or too many values.
   * @throws {RangeError} if the matrices are f16 and a value is beyond the largest f16 value, 65504.
   */
  async writePieces(given: PiecewiseParameters): Promise<void> {
    for (const [name, tensor] of this) {
      const parameter = given[name];
      if (parameter === undefined) continue;
      // On the device W_enc is the transpose of what files hold.
      const isTransposed = (name === "W_enc") !== parameter.isTransposed;
      await (isTransposed ? writeTransposed(tensor, parameter.pieces) : writeInOrder(tensor, parameter.pieces));
    }
  }

  /** Reads the values back, `W_enc` as [D, S]. */
  async read(): Promise<ParameterArrays> {
    const [W_enc, b_enc, W_dec, b_dec, ...own] = await Promise.all([
      this.W_enc.read(),
      this.b_enc.read(),
      this.W_dec.read(),
      this.b_dec.read(),
      ...this.own.values().map((tensor) => tensor.read()),
    ]);
    const [rows = 0, d_model = 0] = this.W_enc.shape;
    const ofActivation = Object.fromEntries(this.own.keys().map((name, at) => [name, own[at]!]));
    return { W_enc: transposed(W_enc, rows, d_model), b_enc, W_dec, b_dec, ...ofActivation };
  }

  /** The values in the device's layout, in pieces, each read when it is requested. */
  pieces(): PiecewiseParameters {
    const entries = [...this].map((
      [name, tensor],
    ) => [name, { pieces: tensor.pieces(), isTransposed: name === "W_enc" }]);
    return Object.fromEntries(entries);
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Gradients of a loss, shaped like the parameters. */
export type Gradients = ParameterTensors;

/** The most bytes of pending writes to the device. */
const WAITING_BYTES = 2 ** 25;
/** Bytes of the rows that are transposed together. */
const BLOCK_BYTES = 2 ** 23;

async function writeInOrder(tensor: Tensor, pieces: AsyncIterable<Float32Array>): Promise<void> {
  let at = 0;
  let drainedAt = 0;
  for await (const piece of tensor.isF16 ? evenPieces(pieces) : pieces) {
    tensor.writeAt(at, piece);
    at += piece.length;
    if ((at - drainedAt) * 4 < WAITING_BYTES) continue;
    await tensor.context.drained();
    drainedAt = at;
  }
  checkCount(tensor, at);
}

/** The same values in pieces of even length, except the last. */
async function* evenPieces(pieces: AsyncIterable<Float32Array>): AsyncGenerator<Float32Array> {
  let left = new Float32Array(0);
  for await (const piece of pieces) {
    let values = piece;
    if (left.length > 0) {
      values = new Float32Array(1 + piece.length);
      values.set(left);
      values.set(piece, 1);
    }
    const even = values.length - values.length % 2;
    left = values.slice(even);
    yield values.subarray(0, even);
  }
  yield left;
}

/** Fills Fills `tensor` [C, R] from the rows of its transpose, some at a time. */
async function writeTransposed(tensor: Tensor, pieces: AsyncIterable<Float32Array>): Promise<void> {
  const { context } = tensor;
  const [columns = 0, rows = 0] = tensor.shape;
  const most = Math.min(BLOCK_BYTES, context.bindingLimit - context.guardWords * 4 - 16);
  const height = Math.min(rows, Math.max(1, Math.floor(most / (columns * 4))));
  const block = new Float32Array(height * columns);
  const { isF16, label } = tensor;
  using staged = new Tensor(context, "f32", [height, columns], `rows of ${label}`, { isF16 });
  let at = 0;
  const flush = async (n_rows: number): Promise<void> => {
    const commands = new Commands(context);
    staged.write(block);
    transposeRows(commands, { rows: staged.rows(0, n_rows), result: tensor, at: at / columns - n_rows });
    commands.submit();
    await context.drained();
  };
  for await (const piece of pieces) {
    checkCount(tensor, at + piece.length, { isAll: false });
    for (let start = 0; start < piece.length;) {
      const filled = at % block.length;
      const part = piece.subarray(start, start + block.length - filled);
      block.set(part, filled);
      start += part.length;
      at += part.length;
      if (at % block.length === 0) await flush(height);
    }
  }
  checkCount(tensor, at);
  const left = at % block.length / columns;
  if (left > 0) await flush(left);
}

function checkCount({ label, size }: Tensor, found: number, { isAll = true } = {}): void {
  if (isAll ? found === size : found <= size) return;
  throw new ShapeError(`${label} has ${size} values, found ${isAll ? "" : "at least "}${found}`);
}

/** What initial values depend on. */
interface InitialConfig {
  readonly d_model: number;
  readonly d_sae: number;
  readonly subtract_b_dec: boolean;
  readonly normalize_w_dec: boolean;
}

/**
 * Initial values, the same on every machine.
 *
 * Upstream's 2026 version: W_dec ~ U(±√(6/D)), rows made unit length if `normalize_w_dec`, W_enc = W_decᵀ. Its April 2025
 * version, which subtracts b_dec: W_enc ~ U(±√(6/S)), W_dec ~ U(±√(6/D)), both as drawn. Biases are zero.
 *
 * Computed in float64 with + − × ÷ √ only and rounded once.
 */
export function initialParameters(cfg: InitialConfig, seed: number): ParameterArrays {
  // Throws for a bad seed.
  void new RandomStream(seed, STREAMS.decoder);
  try {
    return drawParameters(cfg, seed);
  } catch (cause) {
    // With a valid seed, only the size of an array can cause a RangeError.
    if (!(cause instanceof RangeError)) throw cause;
    const { d_model, d_sae } = cfg;
    throw new RangeError(
      `the initial values of d_sae ${d_sae} × d_model ${d_model} take ${
        16 * d_sae * d_model
      } bytes outside the device, ` +
        "more than this program gets. Choose a smaller d_sae",
      { cause },
    );
  }
}

function drawParameters(cfg: InitialConfig, seed: number): ParameterArrays {
  const { d_model, d_sae, subtract_b_dec, normalize_w_dec } = cfg;
  const W_dec_SD = drawDecoder(cfg, seed);
  const biases = { b_enc: new Float32Array(d_sae), b_dec: new Float32Array(d_model) };
  if (subtract_b_dec) {
    const W_enc_DS = draw(seed, STREAMS.encoder, d_model * d_sae, Math.sqrt(6 / d_sae));
    return { W_enc: Float32Array.from(W_enc_DS), W_dec: Float32Array.from(W_dec_SD), ...biases };
  }
  if (normalize_w_dec) makeRowsUnit(W_dec_SD, d_model);
  const W_dec = Float32Array.from(W_dec_SD);
  return { W_enc: transposed(W_dec, d_sae, d_model), W_dec, ...biases };
}

/** W_dec ~ U(±√(6/D)) as it is drawn, [S, D] in float64. */
export function drawDecoder({ d_model, d_sae }: Pick<InitialConfig, "d_model" | "d_sae">, seed: number): Float64Array {
  return draw(seed, STREAMS.decoder, d_sae * d_model, Math.sqrt(6 / d_model));
}

function draw(seed: number, stream: number, size: number, bound: number): Float64Array {
  const random = new RandomStream(seed, stream);
  return Float64Array.from({ length: size }, () => (2 * random.uniform() - 1) * bound);
}

/** Divides every row of [rows, D], none of them zero, by its length. */
export function makeRowsUnit(rows_SD: Float64Array, d_model: number): void {
  for (let start = 0; start < rows_SD.length; start += d_model) {
    const row_D = rows_SD.subarray(start, start + d_model);
    const norm = Math.sqrt(row_D.reduce((sum, w) => sum + w * w, 0));
    row_D.forEach((w, d) => row_D[d] = w / norm);
  }
}
