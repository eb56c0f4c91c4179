/**
 * A model as stored in files: configuration, parameters and input scaling, with the checks on them.
 *
 * @module
 */

import {
  type InputScaling,
  type ParameterArrays,
  type PiecewiseParameters,
  scalingFault,
  transposed,
} from "../nn/arrays.ts";
import type { SparseAutoencoderConfig } from "../nn/config.ts";
import { CheckpointError } from "./errors.ts";
import type { StoredTensor } from "./stored_tensor.ts";

/** A model read from a file. */
export interface ParsedCheckpoint {
  /** Complete and frozen. */
  readonly cfg: SparseAutoencoderConfig;
  /** Finite numbers in the shapes given by `cfg`; possibly views of bytes in memory. */
  readonly parameters: ParameterArrays;
  /** Mean and scale of the inputs. */
  readonly input: InputScaling;
}

/** A parameter that is read from its file on demand, or one computed from a file. */
export type StoredParameter = TensorParameter | Float32Array;

/** A parameter as stored in a file. */
export interface TensorParameter {
  /** What is being done, for messages. */
  readonly doing: string;
  /** Its name in messages. */
  readonly name: string;
  /** Its numbers. */
  readonly tensor: StoredTensor;
  /** Whether the parameter is the tensor's transpose. */
  readonly isTransposed: boolean;
}

/** The parameters of a model in a file. */
export type StoredParameters = { readonly [Name in keyof ParameterArrays]: StoredParameter };

/** A model in a file: everything except its parameters is read and checked. */
export interface StoredModel {
  /** Complete and frozen. */
  readonly cfg: SparseAutoencoderConfig;
  /** In the shapes given by `cfg`. */
  readonly parameters: StoredParameters;
  /** Mean and scale of the inputs. */
  readonly input: InputScaling;
}

/** A parameter's name in this library. */
export type ParameterName = keyof ParameterArrays;

/**
 * A parameter in a file. A matrix that upstream stores as a transposed view is read as the transpose of a row-major
 * tensor.
 */
export function tensorParameter(
  doing: string,
  name: string,
  tensor: StoredTensor,
  isTransposed = false,
): TensorParameter {
  const flips = tensor.shape.length === 2 && !tensor.isRowMajor && tensor.transposed().isRowMajor;
  return flips
    ? { doing, name, tensor: tensor.transposed(), isTransposed: !isTransposed }
    : { doing, name, tensor, isTransposed };
}

/**
 * The parameters as arrays.
 *
 * @throws {CheckpointError} for damaged bytes, and numbers that are not finite.
 */
export async function readParameters(parameters: StoredParameters): Promise<ParameterArrays> {
  const arrays: Partial<Record<ParameterName, Float32Array>> = {};
  for (const [name, parameter] of Object.entries(parameters) as [ParameterName, StoredParameter][]) {
    arrays[name] = await readParameter(parameter);
  }
  return Object.freeze(arrays) as ParameterArrays;
}

/**
 * One parameter as an array.
 *
 * @throws {CheckpointError} as {@link readParameters}.
 */
export async function readParameter(parameter: StoredParameter): Promise<Float32Array> {
  if (parameter instanceof Float32Array) return parameter;
  const { doing, name, tensor, isTransposed } = parameter;
  const data = await tensor.read();
  checkFinite(doing, name, data);
  if (!isTransposed) return data;
  const [rows, columns] = tensor.shape;
  return transposed(data, rows!, columns!);
}

/** The parameters in pieces, none of which stays in memory. Their iterators throw as {@link readParameters} does. */
export function parameterPieces(parameters: StoredParameters): PiecewiseParameters {
  const entries = Object.entries(parameters).map(([name, parameter]: [string, StoredParameter]) => [
    name,
    { pieces: finitePieces(parameter), isTransposed: !(parameter instanceof Float32Array) && parameter.isTransposed },
  ]);
  return Object.fromEntries(entries);
}

async function* finitePieces(parameter: StoredParameter): AsyncGenerator<Float32Array> {
  if (parameter instanceof Float32Array) return yield parameter;
  const { doing, name, tensor } = parameter;
  let at = 0;
  for await (const piece of tensor.pieces()) {
    checkFinite(doing, name, piece, at);
    yield piece;
    at += piece.length;
  }
}

/** A model with NaN or infinity computes nothing useful, so it is neither written nor read. */
export function checkFinite(doing: string, name: string, data: Float32Array, at = 0): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) {
      throw new CheckpointError(`${doing}: ${name} is ${data[i]} at element ${at + i}; expected finite numbers`);
    }
  }
}

/** @throws {CheckpointError} for an invalid mean or scale. */
export function checkScaling(doing: string, { d_model }: SparseAutoencoderConfig, input: InputScaling): void {
  const fault = scalingFault(input, d_model);
  if (fault === undefined) return;
  const name = fault.field === "pre_act_scale" ? fault.field : `input_${fault.field}`;
  if (fault.field !== "mean") {
    throw new CheckpointError(`${doing}: ${name} is ${fault.value}; expected a positive finite number`);
  }
  if ("length" in fault) {
    throw new CheckpointError(`${doing}: ${name} has ${fault.length} elements; expected d_model = ${d_model}`);
  }
  throw new CheckpointError(
    `${doing}: ${name} is ${fault.value} at element ${fault.column}; expected finite numbers`,
  );
}

/** Whether the scaling leaves inputs unchanged. */
export function isIdentity({ mean, scale }: InputScaling): boolean {
  return scale === 1 && (mean === null || mean.every((element) => element === 0));
}
