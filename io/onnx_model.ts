/**
 * Reads the structure of an ONNX model without running it: its inputs, its operators in order, and the names of the
 * tensors between them. Also adds such tensors to the outputs of a model.
 *
 * A model is a protocol buffer (onnx.proto3). If a field that expects one message occurs twice, the two are merged; so
 * outputs are added by appending a second, small `graph` to the unchanged bytes of the file.
 *
 * @module
 */

import { CheckpointError } from "./errors.ts";
import { decodeText } from "./json.ts";

/** An operator of a graph. */
export interface OnnxOperator {
  /** Its type, such as `"Add"`. */
  readonly op: string;
  /** Its name in the graph; often `""`. */
  readonly name: string;
  /** Names of its inputs; `""` for one that is left out. */
  readonly inputs: readonly string[];
  /** Names of its outputs. */
  readonly outputs: readonly string[];
  /** Its attributes that are lists of integers, such as `strides`. */
  readonly ints: ReadonlyMap<string, readonly number[]>;
}

/** An input of a graph. */
export interface OnnxInput {
  /** Its name. */
  readonly name: string;
  /** The type of its elements, as a code of onnx.proto3: 1 is float32, 10 float16. */
  readonly type: number;
  /** Its dimensions; `null` for one that the file does not fix. */
  readonly shape: readonly (number | null)[];
}

/** The structure of a model. */
export interface OnnxModel {
  /** The graph's inputs that are not constants. */
  readonly inputs: readonly OnnxInput[];
  /** Names of its outputs. */
  readonly outputs: readonly string[];
  /** Operators in file order, which is an order in which they can run. */
  readonly operators: readonly OnnxOperator[];
  /** Names of constants. */
  readonly constants: ReadonlySet<string>;
  /** Files beside the model that hold constants, with the names that the model gives. */
  readonly externalFiles: readonly string[];
}

/** Largest number of operators, inputs and constants in a graph. */
const MAX_PARTS = 10 ** 6;

/**
 * Reads a model. Nothing of it is executed, and constants are not read.
 *
 * @throws {CheckpointError} for bytes that are not an ONNX model.
 */
export function readOnnxModel(bytes: Uint8Array, name = "the model"): OnnxModel {
  const doing = `reading ${name}`;
  const inputs: OnnxInput[] = [];
  const outputs: string[] = [];
  const operators: OnnxOperator[] = [];
  const constants = new Set<string>();
  const externalFiles = new Set<string>();
  let nParts = 0;
  let hasGraph = false;
  for (const field of fieldsOf(bytes, doing)) {
    if (field.number !== 7 || field.bytes === null) continue;
    hasGraph = true;
    for (const part of fieldsOf(field.bytes, doing)) {
      if (part.bytes === null) continue;
      if (++nParts > MAX_PARTS) throw new CheckpointError(`${doing}: found more than ${MAX_PARTS} parts in its graph`);
      if (part.number === 1) operators.push(readOperator(part.bytes, doing));
      else if (part.number === 5) readConstant(part.bytes, doing, { constants, externalFiles });
      else if (part.number === 11) inputs.push(readInput(part.bytes, doing));
      else if (part.number === 12) outputs.push(readInput(part.bytes, doing).name);
    }
  }
  if (!hasGraph || operators.length === 0) {
    throw new CheckpointError(`${doing}: found no graph of operators; expected an ONNX model`);
  }
  return {
    inputs: inputs.filter((input) => !constants.has(input.name)),
    outputs,
    operators,
    constants,
    externalFiles: [...externalFiles],
  };
}

/** The bytes to append to a model to make these tensors outputs too. Runtimes infer their types and shapes. */
export function furtherOutputs(names: readonly string[]): Uint8Array<ArrayBuffer> {
  const outputs = names.map((name) => field(12, field(1, [...new TextEncoder().encode(name)])));
  return Uint8Array.from(field(7, outputs.flat()));
}

function field(number: number, content: readonly number[]): number[] {
  return [number << 3 | 2, ...varint(content.length), ...content];
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [value & 127 | 128, ...varint(Math.floor(value / 128))];
}

function readOperator(bytes: Uint8Array, doing: string): OnnxOperator {
  const operator = {
    op: "",
    name: "",
    inputs: [] as string[],
    outputs: [] as string[],
    ints: new Map<string, number[]>(),
  };
  for (const { number, bytes: content } of fieldsOf(bytes, doing)) {
    if (content === null) continue;
    if (number === 1) operator.inputs.push(decodeText(content, doing));
    else if (number === 2) operator.outputs.push(decodeText(content, doing));
    else if (number === 3) operator.name = decodeText(content, doing);
    else if (number === 4) operator.op = decodeText(content, doing);
    else if (number === 5) {
      const [name, ints] = readInts(content, doing);
      if (ints.length > 0) operator.ints.set(name, ints);
    }
  }
  return operator;
}

/** The name of an attribute and its list of integers, packed or not. */
function readInts(bytes: Uint8Array, doing: string): [string, number[]] {
  let name = "";
  const ints: number[] = [];
  for (const { number, bytes: content, value } of fieldsOf(bytes, doing)) {
    if (number === 1 && content !== null) name = decodeText(content, doing);
    else if (number === 8 && content === null) ints.push(value);
    else if (number === 8 && content !== null) {
      for (let at = 0; at < content.length;) {
        const [found, end] = readVarint(content, at, doing);
        ints.push(found);
        at = end;
      }
    }
  }
  return [name, ints];
}

function readConstant(
  bytes: Uint8Array,
  doing: string,
  into: { readonly constants: Set<string>; readonly externalFiles: Set<string> },
): void {
  for (const { number, bytes: content } of fieldsOf(bytes, doing)) {
    if (content === null) continue;
    if (number === 8) into.constants.add(decodeText(content, doing));
    else if (number === 13) {
      const entry = new Map<number, string>();
      for (const part of fieldsOf(content, doing)) {
        if (part.bytes !== null) entry.set(part.number, decodeText(part.bytes, doing));
      }
      if (entry.get(1) === "location") into.externalFiles.add(entry.get(2) ?? "");
    }
  }
}

function readInput(bytes: Uint8Array, doing: string): OnnxInput {
  const input = { name: "", type: 0, shape: [] as (number | null)[] };
  for (const { number, bytes: content } of fieldsOf(bytes, doing)) {
    if (content === null) continue;
    if (number === 1) input.name = decodeText(content, doing);
    if (number !== 2) continue;
    for (const tensor of messagesIn(content, 1, doing)) {
      for (const part of fieldsOf(tensor, doing)) {
        if (part.number === 1 && part.bytes === null) input.type = part.value;
        else if (part.number === 2 && part.bytes !== null) {
          for (const dimension of messagesIn(part.bytes, 1, doing)) {
            const sizes = [...fieldsOf(dimension, doing)].filter((size) => size.number === 1 && size.bytes === null);
            input.shape.push(sizes[0]?.value || null);
          }
        }
      }
    }
  }
  return input;
}

function* messagesIn(bytes: Uint8Array, number: number, doing: string): Generator<Uint8Array> {
  for (const field of fieldsOf(bytes, doing)) if (field.number === number && field.bytes !== null) yield field.bytes;
}

/** A field of a message: bytes, or a number. */
interface Field {
  readonly number: number;
  /** A view; `null` if the field is a number. */
  readonly bytes: Uint8Array | null;
  readonly value: number;
}

/** @throws {CheckpointError} if the bytes are not a message. */
function* fieldsOf(bytes: Uint8Array, doing: string): Generator<Field> {
  for (let at = 0; at < bytes.length;) {
    const [key, start] = readVarint(bytes, at, doing);
    const [number, kind] = [Math.floor(key / 8), key % 8];
    if (kind === 0) {
      const [value, end] = readVarint(bytes, start, doing);
      yield { number, bytes: null, value };
      at = end;
    } else if (kind === 2) {
      const [length, first] = readVarint(bytes, start, doing);
      if (first + length > bytes.length) {
        throw notAMessage(doing, `a length of ${length} bytes where ${bytes.length - first} are left`);
      }
      yield { number, bytes: bytes.subarray(first, first + length), value: 0 };
      at = first + length;
    } else if (kind === 1 || kind === 5) {
      at = start + (kind === 1 ? 8 : 4);
      if (at > bytes.length) throw notAMessage(doing, "a number that is cut off");
    } else throw notAMessage(doing, `a field of kind ${kind}`);
  }
}

/** An integer in groups of seven bits, and where it ends. Negative ones appear as 2⁶⁴ plus their value. */
function readVarint(bytes: Uint8Array, at: number, doing: string): [value: number, end: number] {
  let value = 0;
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) throw notAMessage(doing, "a number that is cut off");
    value += (byte & 127) * 2 ** (7 * i);
    if (byte < 128) return [value >= 2 ** 63 ? value - 2 ** 64 : value, at + i + 1];
  }
  throw notAMessage(doing, "a number longer than ten bytes");
}

function notAMessage(doing: string, found: string): CheckpointError {
  return new CheckpointError(`${doing}: found ${found}; expected an ONNX model`);
}
