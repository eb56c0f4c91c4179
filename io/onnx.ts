/**
 * A writer of ONNX models: graphs of operators with float32 and int64 tensors, as the protocol buffers of onnx.proto3.
 *
 * A protocol buffer is a sequence of fields. Each starts with its number and its encoding: 0 is an integer in groups of
 * seven bits, 2 is a length followed by that many bytes (a string, a message, or packed numbers).
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import { littleEndianBytes } from "./numbers.ts";

/** An operator in a graph. Values are identified by name. */
export interface OnnxNode {
  /** The operator. */
  readonly op: string;
  /** Names of its inputs. */
  readonly inputs: readonly string[];
  /** Names of its outputs. */
  readonly outputs: readonly string[];
  /** Its attributes: integers and tensors. */
  readonly attributes?: Readonly<Record<string, number | OnnxTensor>>;
}

/** A constant. */
export interface OnnxTensor {
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array | BigInt64Array;
}

/** An input or output of float32; a dimension given by name may have any size. */
export interface OnnxValue {
  /** Its name. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly (number | string)[];
}

/** A graph. */
export interface OnnxGraph {
  /** Its name. */
  readonly name: string;
  /** Its description. */
  readonly description: string;
  /** In an order in which they can run. */
  readonly nodes: readonly OnnxNode[];
  /** Constants by name. */
  readonly constants: Readonly<Record<string, OnnxTensor>>;
  /** Its inputs. */
  readonly inputs: readonly OnnxValue[];
  /** Its outputs. */
  readonly outputs: readonly OnnxValue[];
}

/** The version of the operators (August 2022), and of the file format that came with it. */
const OPSET = 17;
const IR_VERSION = 8;

/** Readers use 32-bit signed sizes for protocol buffers. */
const MAX_BYTES = 2 ** 31 - 1;

const FLOAT = 1;
const INT64 = 7;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_TENSOR = 4;

/** A part of a message: its bytes, in pieces that share memory with tensors where possible. */
type Part = readonly Uint8Array[];

/**
 * The file of a graph, in pieces. Equal graphs give equal bytes.
 *
 * @throws {CheckpointError} if it would have 2 GiB or more.
 */
export function formatOnnx(
  graph: OnnxGraph,
  producer: { readonly name: string; readonly version: string },
): Uint8Array[] {
  const model = [
    number(1, IR_VERSION),
    text(2, producer.name),
    text(3, producer.version),
    message(7, graphParts(graph)),
    message(8, [text(1, ""), number(2, OPSET)]),
  ].flat();
  const length = sizeOf(model);
  if (length > MAX_BYTES) {
    throw new CheckpointError(`writing the ONNX model: it has ${length} bytes; expected at most ${MAX_BYTES}`);
  }
  return model;
}

function graphParts({ name, description, nodes, constants, inputs, outputs }: OnnxGraph): Part[] {
  return [
    ...nodes.map((node) => message(1, nodeParts(node))),
    text(2, name),
    ...Object.entries(constants).map(([name, tensor]) => message(5, tensorParts(tensor, name))),
    text(10, description),
    ...inputs.map((value) => message(11, valueParts(value))),
    ...outputs.map((value) => message(12, valueParts(value))),
  ];
}

function nodeParts({ op, inputs, outputs, attributes = {} }: OnnxNode): Part[] {
  return [
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(3, outputs[0]!),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) =>
      message(
        5,
        typeof value === "number"
          ? [text(1, name), number(3, value), number(20, ATTRIBUTE_INT)]
          : [text(1, name), message(5, tensorParts(value, name)), number(20, ATTRIBUTE_TENSOR)],
      )
    ),
  ];
}

function tensorParts({ shape, data }: OnnxTensor, name: string): Part[] {
  const isFloat = data instanceof Float32Array;
  const bytes = isFloat ? littleEndianBytes(data) : littleEndianIntegers(data);
  return [
    packed(1, shape),
    number(2, isFloat ? FLOAT : INT64),
    text(8, name),
    delimited(9, [bytes]),
  ];
}

function littleEndianIntegers(data: BigInt64Array): Uint8Array {
  const bytes = new Uint8Array(data.length * 8);
  const view = new DataView(bytes.buffer);
  data.forEach((value, i) => view.setBigInt64(i * 8, value, true));
  return bytes;
}

function valueParts({ name, shape }: OnnxValue): Part[] {
  const dimensions = shape.map((size) => message(1, [typeof size === "number" ? number(1, size) : text(2, size)]));
  return [text(1, name), message(2, [message(1, [number(1, FLOAT), message(2, dimensions)])])];
}

// --------------------------------------------------------------------------------------------------- protocol buffers

/** An integer below 2^53. */
function number(field: number, value: number): Part {
  return [Uint8Array.from([...groups(field << 3), ...groups(value)])];
}

function packed(field: number, values: readonly number[]): Part {
  return values.length === 0 ? [] : delimited(field, [Uint8Array.from(values.flatMap(groups))]);
}

function text(field: number, value: string): Part {
  return delimited(field, [new TextEncoder().encode(value)]);
}

function message(field: number, parts: readonly Part[]): Part {
  return delimited(field, parts.flat());
}

function delimited(field: number, content: Part): Part {
  return [Uint8Array.from([...groups((field << 3) | 2), ...groups(sizeOf(content))]), ...content];
}

/** Seven bits per byte, lowest first; all bytes but the last have their highest bit set. */
function groups(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; bytes.length === 0 || rest > 0; rest = Math.floor(rest / 128)) {
    bytes.push(rest >= 128 ? (rest % 128) + 128 : rest);
  }
  return bytes;
}

function sizeOf(content: Part): number {
  return content.reduce((sum, { length }) => sum + length, 0);
}
