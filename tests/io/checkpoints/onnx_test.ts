/** `io/onnx.ts` and `io/formats/onnx.ts`: the graph read back by a small reader of its own and computed in float64. @module */

import { assert, assertEquals } from "@std/assert";
import { formatModel } from "../../../io/checkpoints/write.ts";
import { formatOnnx } from "../../../io/onnx.ts";
import { joinBytes } from "../../../io/source.ts";
import { Random } from "../../support/random.ts";
import { assertTensorClose } from "../../support/tolerance.ts";
import { compute, modelsOfEveryKind } from "./compute.ts";

// ------------------------------------------------------------------------------------- a reader of protocol buffers

type Field = readonly [number: number, value: number | Uint8Array];

function readFields(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1;; shift *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 0) fields.push([tag >> 3, varint()]);
    else {
      assertEquals(tag & 7, 2);
      const length = varint();
      assert(at + length <= bytes.length);
      fields.push([tag >> 3, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return fields;
}

const all = (fields: readonly Field[], number: number) =>
  fields.filter(([n]) => n === number).map(([, value]) => value);
const messages = (fields: readonly Field[], number: number) =>
  all(fields, number).map((b) => readFields(b as Uint8Array));
const texts = (fields: readonly Field[], number: number) =>
  all(fields, number).map((bytes) => new TextDecoder().decode(bytes as Uint8Array));

interface Value {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

function readTensor(fields: readonly Field[]): Value {
  const [packed] = all(fields, 1);
  const shape = packed === undefined ? [] : [...packed as Uint8Array];
  const raw = (all(fields, 9)[0] as Uint8Array).slice().buffer;
  const [type] = all(fields, 2);
  const data = type === 1
    ? Float64Array.from(new Float32Array(raw))
    : Float64Array.from(new BigInt64Array(raw), Number);
  return { shape, data };
}

// ------------------------------------------------------------------------------------------------ a small runtime

/** Computes the operators that our graphs have, as their specification says. */
function run(file: Uint8Array, x: Value): Map<string, Value> {
  const model = readFields(file);
  assertEquals(all(model, 1), [8]);
  assertEquals(messages(model, 8).map((opset) => all(opset, 2)), [[17]]);
  const [graph] = messages(model, 7);
  const values = new Map([["x", x]]);
  for (const tensor of messages(graph!, 5)) values.set(texts(tensor, 8)[0]!, readTensor(tensor));
  for (const node of messages(graph!, 1)) {
    const inputs = texts(node, 1).map((name) => values.get(name) ?? assert(false, `${name} is not there yet`) as never);
    const outputs = operate(texts(node, 4)[0]!, inputs);
    texts(node, 2).forEach((name, i) => values.set(name, outputs[i]!));
  }
  return new Map(messages(graph!, 12).map((output) => texts(output, 1)[0]!).map((name) => [name, values.get(name)!]));
}

function operate(op: string, [a, b, c]: readonly Value[]): Value[] {
  const elementwise = (f: (a: number, b: number) => number): Value[] => [
    { shape: a!.shape, data: a!.data.map((value, i) => f(value, b!.data[i % b!.data.length]!)) },
  ];
  switch (op) {
    case "Add":
      return elementwise((a, b) => a + b);
    case "Sub":
      return elementwise((a, b) => a - b);
    case "Mul":
      return elementwise((a, b) => a * b);
    case "Div":
      return elementwise((a, b) => a / b);
    case "Greater":
      return elementwise((a, b) => Number(a > b));
    case "Exp":
      return [{ ...a!, data: a!.data.map(Math.exp) }];
    case "Relu":
      return [{ ...a!, data: a!.data.map((value) => Math.max(value, 0)) }];
    case "Where":
      return [{ ...a!, data: a!.data.map((is, i) => is ? b!.data[i]! : c!.data[0]!) }];
    case "Shape":
      return [{ shape: [a!.shape.length], data: Float64Array.from(a!.shape) }];
    case "ConstantOfShape":
      return [{ shape: [...a!.data], data: new Float64Array(a!.data.reduce((p, n) => p * n, 1)) }];
    case "MatMul": {
      const [rows, inner, columns] = [a!.shape[0]!, a!.shape[1]!, b!.shape[1]!];
      const data = Float64Array.from({ length: rows * columns }, (_, i) => {
        let sum = 0;
        for (let k = 0; k < inner; k++) {
          sum += a!.data[Math.floor(i / columns) * inner + k]! * b!.data[k * columns + i % columns]!;
        }
        return sum;
      });
      return [{ shape: [rows, columns], data }];
    }
    case "TopK": {
      const [rows, columns, k] = [a!.shape[0]!, a!.shape[1]!, b!.data[0]!];
      const indices = Array.from({ length: rows }, (_, row) => {
        const line = a!.data.subarray(row * columns, (row + 1) * columns);
        return [...line.keys()].sort((i, j) => line[j]! - line[i]! || i - j).slice(0, k);
      });
      const values = indices.flatMap((line, row) => line.map((column) => a!.data[row * columns + column]!));
      const shape = [rows, k];
      return [{ shape, data: Float64Array.from(values) }, { shape, data: Float64Array.from(indices.flat()) }];
    }
    case "ScatterElements": {
      const data = a!.data.slice();
      const [, k] = b!.shape;
      b!.data.forEach((column, i) => data[Math.floor(i / k!) * a!.shape[1]! + column] = c!.data[i]!);
      return [{ ...a!, data }];
    }
  }
  throw new TypeError(`no operator ${op}`);
}

Deno.test("the graph of every kind of model computes what the model does", () => {
  const x = new Random(3).normal(8 * 5);
  for (const [name, model] of modelsOfEveryKind()) {
    const want = compute(model, x);
    for (const format of ["onnx", "onnx_encoder"] as const) {
      const { files, lost } = formatModel(model, { format });
      assertEquals(lost, []);
      const found = run(joinBytes(files.get("")!), { shape: [8, 5], data: Float64Array.from(x) });
      assertEquals([...found.keys()], format === "onnx" ? ["x_hat", "f_x"] : ["f_x"], name);
      assertEquals(found.get("f_x")!.shape, [8, 9]);
      assertTensorClose(found.get("f_x")!.data, want.codes, `${name} codes`);
      if (format === "onnx") assertTensorClose(found.get("x_hat")!.data, want.x_hat, `${name} x_hat`);
    }
  }
});

Deno.test("whole numbers of every length, empty lists and texts are written as protocol buffers have them", () => {
  const graph = {
    name: "ü",
    description: "",
    nodes: [{ op: "Relu", inputs: ["x"], outputs: ["y"], attributes: { axis: 300 } }],
    constants: { none: { shape: [0], data: new Float32Array() }, big: { shape: [], data: BigInt64Array.of(-5n) } },
    inputs: [{ name: "x", shape: ["batch", 16384] }],
    outputs: [],
  };
  const file = readFields(joinBytes(formatOnnx(graph, { name: "p", version: "1" })));
  const [found] = messages(file, 7);
  assertEquals(texts(found!, 2), ["ü"]);
  const [attribute] = messages(messages(found!, 1)[0]!, 5);
  assertEquals(attribute!.slice(1), [[3, 300], [20, 2]]);
  const [none, big] = messages(found!, 5);
  assertEquals(all(none!, 1), [Uint8Array.of(0)]);
  assertEquals(readTensor(big!).data[0], -5);
  const [type] = messages(messages(messages(messages(found!, 11)[0]!, 2)[0]!, 1)[0]!, 2);
  assertEquals(messages(type!, 1).map((dimension) => dimension[0]![0]), [2, 1]);
  assertEquals(messages(type!, 1)[1], [[1, 16384]]);
});
