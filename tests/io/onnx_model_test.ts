/** Reading ONNX models: PyTorch's, our own, damaged ones; and further outputs. @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { formatOnnx } from "../../io/onnx.ts";
import { furtherOutputs, readOnnxModel } from "../../io/onnx_model.ts";
import { joinBytes } from "../../io/source.ts";
import { Random } from "../support/random.ts";

const TINY = await Deno.readFile(new URL("../goldens/vit/tiny_vit.onnx", import.meta.url));

/** A model of our own, with two external constants where it is told so. */
function ownModel(): Uint8Array {
  return joinBytes(formatOnnx({
    name: "graph",
    description: "",
    nodes: [
      { op: "MatMul", inputs: ["x", "W"], outputs: ["h"] },
      { op: "Add", inputs: ["h", "b"], outputs: ["y"] },
    ],
    constants: {
      W: { shape: [2, 3], data: new Float32Array(6) },
      b: { shape: [3], data: new Float32Array(3) },
    },
    inputs: [{ name: "x", shape: ["batch", 2] }],
    outputs: [{ name: "y", shape: ["batch", 3] }],
  }, { name: "test", version: "1" }));
}

Deno.test("a model of PyTorch's has its input, operators and names", () => {
  const { inputs, outputs, operators, constants, externalFiles } = readOnnxModel(TINY);
  assertEquals(inputs, [{ name: "pixel_values", type: 1, shape: [null, 3, 32, 32] }]);
  assertEquals([outputs, externalFiles], [["logits"], []]);
  const conv = operators.find(({ op }) => op === "Conv")!;
  assertEquals([conv.ints.get("strides"), conv.ints.get("kernel_shape")], [[8, 8], [8, 8]]);
  assert(constants.has(conv.inputs[1]!));
  assertEquals(operators.filter(({ op }) => op === "Softmax").length, 3);
});

Deno.test("a model of our own is read as it was written, and further outputs are in it", () => {
  const bytes = ownModel();
  const { inputs, outputs, operators, constants } = readOnnxModel(bytes);
  assertEquals(inputs, [{ name: "x", type: 1, shape: [null, 2] }]);
  assertEquals(outputs, ["y"]);
  assertEquals(operators.map(({ op, inputs, outputs }) => [op, inputs, outputs]), [
    ["MatMul", ["x", "W"], ["h"]],
    ["Add", ["h", "b"], ["y"]],
  ]);
  assertEquals([...constants].sort(), ["W", "b"]);
  const long = `layer/${"ü".repeat(200)}`;
  const more = readOnnxModel(joinBytes([bytes, furtherOutputs(["h", long])]));
  assertEquals(more.outputs, ["y", "h", long]);
  assertEquals(more.operators, operators);
});

Deno.test("constants in files beside the model are named", () => {
  const text = (value: string): number[] => [...new TextEncoder().encode(value)];
  const field = (number: number, content: readonly number[]): number[] => [number << 3 | 2, content.length, ...content];
  const entry = (key: string, value: string): number[] => field(13, [...field(1, text(key)), ...field(2, text(value))]);
  const tensor = [...field(8, text("W2")), ...entry("location", "model.onnx_data"), ...entry("offset", "0")];
  const { externalFiles, constants } = readOnnxModel(
    joinBytes([ownModel(), Uint8Array.from(field(7, field(5, tensor)))]),
  );
  assertEquals(externalFiles, ["model.onnx_data"]);
  assert(constants.has("W2"));
});

Deno.test("what is no model is refused, and no damage does worse", () => {
  for (const bytes of [new Uint8Array(), new TextEncoder().encode("# a text"), TINY.subarray(0, 20)]) {
    assertThrows(() => readOnnxModel(bytes, "m.onnx"), CheckpointError, "reading m.onnx: found");
  }
  const bytes = ownModel();
  const tryIt = (damaged: Uint8Array): void => {
    try {
      readOnnxModel(damaged);
    } catch (error) {
      assert(error instanceof CheckpointError, String(error));
    }
  };
  for (let length = 0; length < bytes.length; length++) tryIt(bytes.subarray(0, length));
  const random = new Random(7);
  for (let i = 0; i < 2000; i++) {
    const damaged = bytes.slice();
    damaged[random.integer(0, damaged.length - 1)] = random.integer(0, 255);
    tryIt(damaged);
  }
});
