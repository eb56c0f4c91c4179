/**
 * A model's numbers outside its device: parameters as files hold them, and the scaling of its inputs.
 *
 * @module
 */

/**
 * How inputs are standardised: `(x − mean) / scale` before the encoder, and the inverse after the decoder. Measured on
 * data.
 */
export interface InputScaling {
  /** [D], or `null` for zero. */
  readonly mean: Float32Array | null;
  /** A positive factor; 1 changes nothing. */
  readonly scale: number;
  /** Root mean square of the initial pre-activations, the unit of a JumpReLU's `bandwidth`; 1 if left out. */
  readonly pre_act_scale?: number;
}

/**
 * How a device stores the matrices of a model: as float32, or rounded to the nearest f16 value in half of the memory;
 * then the model cannot be trained. Sums are float32 either way.
 */
export type WeightStorage = "f32" | "f16";

/** The scaling that leaves inputs as they are. */
export const NO_SCALING: InputScaling = Object.freeze({ mean: null, scale: 1 });

/** What is wrong with a scaling: a mean of another length, a value of it that is not finite, or a factor that is not positive. */
export type ScalingFault =
  | { readonly field: "mean"; readonly length: number }
  | { readonly field: "mean"; readonly column: number; readonly value: number }
  | { readonly field: "scale" | "pre_act_scale"; readonly value: number };

/** Why no model of `d_model` inputs can have a scaling, if none can. */
export function scalingFault(
  { mean, scale, pre_act_scale = 1 }: InputScaling,
  d_model: number,
): ScalingFault | undefined {
  for (const [field, value] of [["scale", scale], ["pre_act_scale", pre_act_scale]] as const) {
    if (!(value > 0 && Number.isFinite(value))) return { field, value };
  }
  if (!mean) return undefined;
  if (mean.length !== d_model) return { field: "mean", length: mean.length };
  const column = mean.findIndex((value) => !Number.isFinite(value));
  return column < 0 ? undefined : { field: "mean", column, value: mean[column]! };
}

/** A [rows, columns] matrix as [columns, rows]. */
export function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) result[column * rows + row] = matrix[row * columns + column]!;
  }
  return result;
}

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
  /** [S], of a Gated: the logarithm of its magnitudes' scale; 0 if left out. */
  readonly r_mag?: Float32Array;
  /** [S], of a Gated: the bias of its magnitudes; 0 if left out. */
  readonly b_mag?: Float32Array;
}

/** A parameter's values, row by row, in pieces of any length. */
export interface ParameterPieces {
  /** Each piece continues where the one before ended. It is not kept, and may be a view of a larger array. */
  readonly pieces: AsyncIterable<Float32Array>;
  /** Whether they are the transpose of what {@link ParameterArrays} holds. */
  readonly isTransposed: boolean;
}

/** {@link ParameterArrays} piece by piece, so that no matrix is held whole. */
export type PiecewiseParameters = { readonly [Name in keyof ParameterArrays]: ParameterPieces };
