/**
 * Writes checkpoints of the Python package `saev`; `saev.ts` describes them.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { type Activation, parameterShapes } from "../../nn/activations/mod.ts";
import { type InputScaling, NO_SCALING, type ParameterArrays } from "../../nn/arrays.ts";
import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import type { Aux, Sparsity } from "../../nn/loss_terms.ts";
import { CheckpointError } from "../errors.ts";
import { foldModel } from "../fold.ts";
import { checkedModel } from "./checked_model.ts";
import { formatHeader, type HeaderStyle, type HeaderValue, PythonFloat } from "../json_header.ts";
import { checkScaling, type ParameterName } from "../model.ts";
import { type FilePart, joinBytes } from "../source.ts";
import type { MeasuredNumbers } from "../stored_tensor.ts";
import { formatIdentifiedTorchFile } from "../torch_file.ts";
import {
  type CheckpointSchema,
  type Described,
  FORMAT_OPTIONS,
  formatChecksum,
  type FormatOptions,
  isUpstreams,
  planCheckpoint,
  stateDictKey,
  UPSTREAM,
  VERSION,
} from "./saev_schemas.ts";

/** The version of the Python package whose schemas 1 and 5 are written. */
const LIB = "0.1.0";

/** PyTorch lists the modules of upstream's model in the state dict's metadata. */
const MODULES = ["", "activation"];
const ORDER_OF_SCHEMA_1 = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;
const ORDER_OF_SCHEMA_5 = ["W_dec", "b_dec", "W_enc", "b_enc"] as const;

/**
 * Formats a model as a file. Equal models give equal bytes.
 *
 * @throws {CheckpointError} where the schema cannot say exactly what the model computes, or its numbers are not finite.
 * @throws {TypeError} for an unknown option.
 */
export function formatCheckpoint(
  cfg: SparseAutoencoderConfig,
  parameters: ParameterArrays,
  input: InputScaling = NO_SCALING,
  options: FormatOptions = {},
): Uint8Array<ArrayBuffer> {
  checkOptions("formatCheckpoint", options, FORMAT_OPTIONS);
  return joinBytes(formatCheckpointPieces(cfg, parameters, input, options));
}

/** {@link formatCheckpoint} in pieces, which share the memory of `parameters` where possible. */
export function formatCheckpointPieces(
  cfg: SparseAutoencoderConfig,
  parameters: ParameterArrays,
  input: InputScaling = NO_SCALING,
  options: FormatOptions = {},
): Uint8Array[] {
  const given = checkedModel({ cfg, parameters, input });
  const { schema, folded } = planCheckpoint(given, options);
  const model = folded.length > 0 ? checkedModel(foldModel(given, schema === 1)) : given;
  const tensors = stateDict(schema, model.cfg, (name) => ({ data: model.parameters[name]! }));
  const { parts, serializationId } = formatIdentifiedTorchFile(tensors, MODULES);
  return [headerLine(schema, model, serializationId), ...parts];
}

/** A finite parameter that need not be in memory. */
export interface MeasuredParameter {
  /** Its elements, row-major. */
  readonly data: Float32Array | MeasuredNumbers;
  /** Whether they are the elements of its transpose. */
  readonly isTransposed: boolean;
}

/** {@link formatCheckpoint} for a model without folding whose parameters need not be in memory. */
export function formatMeasuredCheckpoint(
  model: Described,
  parameters: { readonly [Name in ParameterName]?: MeasuredParameter },
  schema: CheckpointSchema,
): FilePart[] {
  checkScaling("writing a checkpoint", model.cfg, model.input);
  const tensors = stateDict(schema, model.cfg, (name) => parameters[name]!);
  const { parts, serializationId } = formatIdentifiedTorchFile(tensors, MODULES);
  return [headerLine(schema, model, serializationId), ...parts];
}

function stateDict<Data extends object>(
  schema: CheckpointSchema,
  cfg: SparseAutoencoderConfig,
  parameter: (name: ParameterName) => Data,
): (Data & { readonly name: string; readonly shape: readonly number[] })[] {
  const shapes = parameterShapes(cfg);
  const order = new Set([...schema === 1 ? ORDER_OF_SCHEMA_1 : ORDER_OF_SCHEMA_5, ...shapes.keys()]);
  return [...order].map((name) => ({
    name: stateDictKey(cfg, name),
    shape: shapes.get(name)!,
    ...parameter(name),
  }));
}

function headerLine(schema: CheckpointSchema, model: Described, serializationId: string): Uint8Array {
  return new TextEncoder().encode(`${formatModelHeader(schema, model, serializationId)}\n`);
}

function formatModelHeader(schema: CheckpointSchema, model: Described, serializationId: string): string {
  const { cfg } = model;
  if (schema === 1) {
    const fields = {
      schema,
      cfg: {
        d_vit: cfg.d_model,
        exp_factor: cfg.d_sae / cfg.d_model,
        n_reinit_samples: UPSTREAM.n_reinit_samples,
        remove_parallel_grads: cfg.remove_parallel_grads,
        normalize_w_dec: cfg.normalize_w_dec,
        seed: UPSTREAM.seed,
      },
      cls: "Relu",
    };
    const own = {
      activation: plainValue(cfg.activation),
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      serialization_id: serializationId,
    };
    return signHeader(fields, own, "json.dumps");
  }
  const fields = {
    schema,
    cfg: {
      d_model: cfg.d_model,
      d_sae: cfg.d_sae,
      ...schema === 5 && { activation: activationValue(cfg.activation) },
      reinit_blend: new PythonFloat(cfg.reinit_blend),
      reinit_enc_dec_tranpose: cfg.reinit_enc_dec_tranpose,
      remove_parallel_grads: cfg.remove_parallel_grads,
      normalize_w_dec: cfg.normalize_w_dec,
    },
  };
  const { mean, scale, pre_act_scale = 1 } = model.input;
  const own = {
    activation: plainValue(cfg.activation),
    ...schema === "saev_nn" && {
      subtract_b_dec: cfg.subtract_b_dec,
      input_mean: mean === null ? null : Array.from(mean, (m) => new PythonFloat(m)),
      input_scale: new PythonFloat(scale),
      ...pre_act_scale !== 1 && { pre_act_scale: new PythonFloat(pre_act_scale) },
    },
    serialization_id: serializationId,
  };
  return signHeader(fields, own, "orjson");
}

/** An activation in this library's form; its counts are written as integers. */
function plainValue(activation: Activation): HeaderValue {
  const plain = (value: unknown, name: string): HeaderValue => {
    if (typeof value === "object") {
      return Object.fromEntries(Object.entries(value!).map(([name, inner]) => [name, plain(inner, name)]));
    }
    const isCount = name === "top_k" || name === "k_aux";
    return typeof value === "number" && !isCount ? new PythonFloat(value) : value as HeaderValue;
  };
  return plain(activation, "activation");
}

/** Adds the end that all headers share. */
function signHeader(
  fields: Readonly<Record<string, HeaderValue>>,
  own: Readonly<Record<string, HeaderValue>>,
  style: HeaderStyle,
): string {
  const format = (checksum: string): string =>
    formatHeader(
      { ...fields, commit: "unknown", lib: LIB, saev_nn: { version: VERSION, ...own, crc32: checksum } },
      style,
    );
  const blank = format("00000000");
  return format(formatChecksum(blank.slice(0, blank.lastIndexOf(`"crc32"`))));
}

/** The activation's fields that upstream has; training settings go under our own key. */
function activationValue(activation: Activation): HeaderValue {
  if (!isUpstreams(activation)) {
    throw new CheckpointError(
      `writing a checkpoint of schema 5: Python saev has no ${activation.key} activation`,
    );
  }
  const sparsity = sparsityValue(activation.sparsity);
  const aux = auxClassValue(activation.aux);
  switch (activation.key) {
    case "relu":
      return { cls: "Relu", params: { key: activation.key, sparsity, aux } };
    case "top-k":
      return { cls: "TopK", params: { key: activation.key, top_k: activation.top_k, sparsity, aux } };
    case "batch-top-k": {
      const { key, top_k } = activation;
      return {
        cls: "BatchTopK",
        params: { key, top_k, sparsity, momentum: new PythonFloat(activation.momentum), aux },
      };
    }
  }
}

function sparsityValue(sparsity: Sparsity): HeaderValue {
  return sparsity.key === "l1-sparsity"
    ? { cls: "L1Sparsity", params: { key: sparsity.key, coeff: new PythonFloat(sparsity.coeff) } }
    : { cls: "NoSparsity", params: { key: "no-sparsity" } };
}

function auxClassValue(aux: Aux): HeaderValue {
  return aux.key === "auxk"
    ? { cls: "AuxK", params: { key: aux.key, k_aux: aux.k_aux, alpha: new PythonFloat(aux.alpha) } }
    : { cls: "NoAux", params: { key: "no-aux" } };
}
