/**
 * What the schemas of `saev` checkpoints share, and which schema can hold a model.
 *
 * @module
 */

import { type Activation, activationKind } from "../../nn/activations/mod.ts";
import type { SparseAutoencoderConfig } from "../../nn/config.ts";
import { crc32 } from "../crc32.ts";
import { CheckpointError } from "../errors.ts";
import { type Folded, foldedInto } from "../fold.ts";
import type { ParameterName, ParsedCheckpoint } from "../model.ts";
import { REMEDIES } from "./remedies.ts";

/** The schemas that can be written. */
export type CheckpointSchema = 5 | 1 | "saev_nn";

/** How a model will be written. */
export interface CheckpointPlan {
  /** The schema of the file. */
  readonly schema: CheckpointSchema;
  /** What is folded into the parameters; empty if nothing is. */
  readonly folded: readonly Folded[];
}

/** The version of this library, recorded in the files it writes. */
export const VERSION = "0.2.0";

/** The threshold is a buffer of the activation's module. */
export const THRESHOLD_KEY = "activation.threshold";

/** Upstream's defaults for fields that a header leaves out. */
export const UPSTREAM = {
  reinit_blend: 0.8,
  reinit_enc_dec_tranpose: true,
  remove_parallel_grads: true,
  normalize_w_dec: true,
  n_reinit_samples: 524288,
  seed: 0,
  reluSparsity: { key: "l1-sparsity", coeff: 4e-4 },
  l1Coeff: 1e-4,
  momentum: 0.1,
  k_aux: 512,
  alpha: 1 / 32,
  dead_threshold_tokens: 10_000_000,
} as const;

/** Options for writing a file. */
export interface FormatOptions {
  /**
   * The schema; 5 if left out. 1 is for Python saev before August 2025, which subtracts `b_dec`. `"saev_nn"` keeps
   * everything of any model; Python refuses to read it.
   */
  readonly schema?: CheckpointSchema;
  /**
   * Whether to fold into the parameters what the schema has no field for: the mean and scale of the inputs, and the
   * other encoder formula. The function stays the same; sums are float64, rounded once. `true` if left out; with
   * `false` a model that needs folding is an error.
   */
  readonly fold?: boolean;
}

/** The names of {@link FormatOptions}. */
export const FORMAT_OPTIONS = { schema: true, fold: true } as const satisfies Record<keyof FormatOptions, true>;

/** A model without its parameters. */
export type Described = Pick<ParsedCheckpoint, "cfg" | "input">;

/** @throws {CheckpointError} if the schema cannot express the model, or only after folding that is not allowed. */
export function planCheckpoint(model: Described, { schema = 5, fold = true }: FormatOptions = {}): CheckpointPlan {
  const unsayable = unsayableIn(schema, model);
  const folded = unplacedIn(schema, model);
  if (unsayable.length === 0 && (fold || folded.length === 0)) return { schema, folded };
  const words: Readonly<Record<Folded, string>> = {
    subtract_b_dec: `the model ${model.cfg.subtract_b_dec ? "subtracts" : "does not subtract"} b_dec first`,
    mean: "the model subtracts the mean of its inputs",
    scale: `the model divides its inputs by ${model.input.scale}`,
  };
  const reasons = [...unsayable, ...fold ? [] : folded.map((what) => words[what])];
  throw new CheckpointError(
    `writing a checkpoint of schema ${schema}: the schema cannot express this model: ${reasons.join(" and ")}. ${
      choices(model)
    }`,
  );
}

/** What no parameters can express in a file of this schema. */
function unsayableIn(schema: CheckpointSchema, { cfg: { activation, d_model, d_sae } }: Described): string[] {
  if (schema === "saev_nn") return [];
  const reasons: string[] = [];
  if (!isUpstreams(activation)) reasons.push(`the activation is ${activation.key}`);
  if (activation.key === "top-k" && activation.relu) reasons.push("the activation's negative codes become 0");
  if (schema === 5) return reasons;
  if (isUpstreams(activation) && activation.key !== "relu") {
    reasons.push(`the activation is ${activation.key} instead of relu`);
  }
  if (d_sae % d_model !== 0) reasons.push(`d_sae ${d_sae} is not a multiple of d_model ${d_model}`);
  return reasons;
}

/** Whether a file of this schema can express a model, with folding if needed. */
function canSay(schema: CheckpointSchema, model: Described): boolean {
  return unsayableIn(schema, model).length === 0;
}

/** What a file of this schema has no field for but the parameters can absorb. */
function unplacedIn(schema: CheckpointSchema, model: Described): Folded[] {
  return schema === "saev_nn" ? [] : foldedInto(model, schema === 1);
}

function choices(model: Described): string {
  const isExact = (schema: CheckpointSchema): boolean =>
    canSay(schema, model) && unplacedIn(schema, model).length === 0;
  const choices = [
    ...isExact(1) ? [`${REMEDIES.schema1} is exact, for Python saev before August 2025`] : [],
    ...isExact(5)
      ? [`${REMEDIES.schema5} is exact, for Python saev since late November 2025`]
      : canSay(5, model)
      ? [`${REMEDIES.schema5Folded} writes the same function as schema 5 with rewritten parameters`]
      : [],
    `${REMEDIES.ownSchema} keeps everything for this library; Python refuses the file`,
  ];
  return `Choose one: ${choices.join("; ")}`;
}

/** The schema that keeps a model: 5, or this library's own if Python has no such function. */
export function schemaThatKeeps(model: Described): CheckpointSchema {
  return canSay(5, model) ? 5 : "saev_nn";
}

/** Upstream's classes and their discriminators. */
export const ACTIVATIONS = { Relu: "relu", TopK: "top-k", BatchTopK: "batch-top-k" } as const;

/** Whether upstream has the activation. */
export function isUpstreams(activation: Activation): activation is Extract<Activation, { key: UpstreamKey }> {
  return Object.values<string>(ACTIVATIONS).includes(activation.key);
}

type UpstreamKey = typeof ACTIVATIONS[keyof typeof ACTIVATIONS];

/** The name of a parameter in the state dict. */
export function stateDictKey({ activation }: SparseAutoencoderConfig, name: ParameterName): string {
  return activationKind(activation).parameters.find((own) => own.name === name)?.inFiles ?? name;
}

/** The CRC-32 of a header's text, as written in the header. */
export function formatChecksum(text: string): string {
  return crc32(new TextEncoder().encode(text)).toString(16).padStart(8, "0");
}
