/**
 * A model as an ONNX graph, opset 17, which any runtime can compute without this library: from `x` [batch, d_model] the
 * codes `f_x` [batch, d_sae] and, with the decoder, the reconstruction `x_hat` [batch, d_model].
 *
 * `h = ((x − mean) / scale − [subtracts] b_dec) W_enc + b_enc`, `x̂ = scale (f W_dec + b_dec) + mean`; steps without
 * effect are left out. A BatchTopK applies its threshold, as outside training. Nothing that is computed is lost.
 *
 * @module
 */

import { formatOnnx, type OnnxGraph, type OnnxNode, type OnnxTensor } from "../onnx.ts";
import { isIdentity, type ParsedCheckpoint } from "../model.ts";
import { type FormatWriter, oneFile } from "./format.ts";
import { VERSION } from "./saev_schemas.ts";

/** Which part of a model a graph contains. */
type OnnxExtent = "encoder" | "forward";

const PRODUCER = { name: "@saev/nn", version: VERSION };

/** From `x` to `x_hat` and `f_x`. */
export const ONNX: FormatWriter = onnxWriter("forward");

/** From `x` to `f_x`. */
export const ONNX_ENCODER: FormatWriter = onnxWriter("encoder");

function onnxWriter(extent: OnnxExtent): FormatWriter {
  return { files: [""], format: (model) => oneFile(formatOnnx(onnxGraph(model, extent), PRODUCER)) };
}

function onnxGraph({ cfg, parameters, input }: ParsedCheckpoint, extent: OnnxExtent): OnnxGraph {
  const { d_model, d_sae, subtract_b_dec, activation } = cfg;
  const { W_enc, b_enc, W_dec, b_dec, threshold, r_mag, b_mag } = parameters;
  const constants: Record<string, OnnxTensor> = {
    W_enc: { shape: [d_model, d_sae], data: W_enc },
    b_enc: { shape: [d_sae], data: b_enc },
  };
  const nodes: OnnxNode[] = [];
  const apply = (op: string, inputs: readonly string[], output: string): string => {
    nodes.push({ op, inputs, outputs: [output] });
    return output;
  };

  const hasMean = input.mean?.some((mean) => mean !== 0) ?? false;
  if (hasMean) constants.input_mean = { shape: [d_model], data: input.mean! };
  if (input.scale !== 1) constants.input_scale = { shape: [], data: Float32Array.of(input.scale) };
  if (subtract_b_dec || extent === "forward") constants.b_dec = { shape: [d_model], data: b_dec };

  let x = "x";
  if (hasMean) x = apply("Sub", [x, "input_mean"], "centred");
  if (input.scale !== 1) x = apply("Div", [x, "input_scale"], "standardised");
  if (subtract_b_dec) x = apply("Sub", [x, "b_dec"], "encoder_input");
  const h = apply("Add", [apply("MatMul", [x, "W_enc"], "x_W_enc"), "b_enc"], "h_x");
  const codes = "f_x";
  switch (activation.key) {
    case "relu":
      apply("Relu", [h], codes);
      break;
    case "top-k": {
      const k = BigInt(Math.min(activation.top_k, d_sae));
      constants.top_k = { shape: [1], data: BigInt64Array.of(k) };
      nodes.push({
        op: "TopK",
        inputs: [h, "top_k"],
        outputs: ["largest", "latents"],
        attributes: { axis: 1, largest: 1, sorted: 1 },
      });
      const values = activation.relu ? apply("Relu", ["largest"], "kept") : "largest";
      const zero = { shape: [1], data: Float32Array.of(0) };
      apply("Shape", [h], "shape");
      nodes.push({ op: "ConstantOfShape", inputs: ["shape"], outputs: ["no_codes"], attributes: { value: zero } });
      nodes.push({
        op: "ScatterElements",
        inputs: ["no_codes", "latents", values],
        outputs: [codes],
        attributes: { axis: 1 },
      });
      break;
    }
    case "gated": {
      constants.r_mag = { shape: [d_sae], data: r_mag! };
      constants.b_mag = { shape: [d_sae], data: b_mag! };
      constants.zero = { shape: [], data: Float32Array.of(0) };
      const scaled = apply("Mul", ["x_W_enc", apply("Exp", ["r_mag"], "factors")], "scaled");
      const magnitude = apply("Relu", [apply("Add", [scaled, "b_mag"], "magnitudes")], "positive");
      apply("Where", [apply("Greater", [h, "zero"], "is_open"), magnitude, "zero"], codes);
      break;
    }
    case "batch-top-k":
    case "jump-relu": {
      const data = threshold!.map((value) => Math.max(value, 0));
      constants.threshold = { shape: [data.length], data };
      constants.zero = { shape: [], data: Float32Array.of(0) };
      apply("Where", [apply("Greater", [h, "threshold"], "is_active"), h, "zero"], codes);
    }
  }
  const outputs = [{ name: codes, shape: ["batch", d_sae] }];
  if (extent === "forward") {
    constants.W_dec = { shape: [d_sae, d_model], data: W_dec };
    // The last step produces x_hat; intermediate names do not matter.
    const steps: (readonly [string, string])[] = [["MatMul", "W_dec"], ["Add", "b_dec"]];
    if (input.scale !== 1) steps.push(["Mul", "input_scale"]);
    if (hasMean) steps.push(["Add", "input_mean"]);
    steps.reduce(
      (value, [op, constant], i) => apply(op, [value, constant], i === steps.length - 1 ? "x_hat" : `decoded_${i}`),
      codes,
    );
    outputs.unshift({ name: "x_hat", shape: ["batch", d_model] });
  }
  const standardises = isIdentity(input) ? "" : ", which standardises its inputs";
  return {
    name: extent === "encoder" ? "sae_encoder" : "sae",
    description: `a sparse autoencoder with the activation ${activation.key}${standardises}`,
    nodes,
    constants,
    inputs: [{ name: "x", shape: ["batch", d_model] }],
    outputs,
  };
}
