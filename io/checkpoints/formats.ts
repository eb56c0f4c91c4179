/**
 * All checkpoint formats.
 *
 * @module
 */

import { DICTIONARY_LEARNING } from "./dictionary_learning.ts";
import type { CheckpointFormat, FormatWriter } from "./format.ts";
import { GEMMA_SCOPE } from "./gemma_scope.ts";
import { LLAMA_SCOPE } from "./llama_scope.ts";
import { LLAMASCOPIUM } from "./llamascopium.ts";
import { ONNX, ONNX_ENCODER } from "./onnx.ts";
import { OPENAI } from "./openai.ts";
import { SAELENS } from "./saelens.ts";
import { SAEV, SAEV_NN } from "./saev.ts";
import { SPARSIFY } from "./sparsify.ts";
import { VIT_PRISMA } from "./vit_prisma.ts";

/** Names of the formats that can be read. */
export type FormatName =
  | "saev"
  | "saelens"
  | "dictionary_learning"
  | "sparsify"
  | "openai"
  | "gemma_scope"
  | "vit_prisma"
  | "llamascopium"
  | "llama_scope";

/** The first format that recognises a file reads it. */
export const FORMATS: readonly CheckpointFormat<FormatName>[] = [
  SAEV,
  LLAMASCOPIUM,
  SPARSIFY,
  SAELENS,
  LLAMA_SCOPE,
  OPENAI,
  DICTIONARY_LEARNING,
  VIT_PRISMA,
  GEMMA_SCOPE,
];

/** The formats that can be written. */
export const TARGET_FORMATS = [
  "saev",
  "saev_nn",
  "saelens",
  "dictionary_learning",
  "onnx",
  "onnx_encoder",
] as const;

/** A format that can be written. */
export type TargetFormat = (typeof TARGET_FORMATS)[number];

/** The writer of each format. */
export const WRITERS: Readonly<Record<TargetFormat, FormatWriter>> = {
  saev: SAEV.write,
  saev_nn: SAEV_NN,
  saelens: SAELENS.write,
  dictionary_learning: DICTIONARY_LEARNING.write,
  onnx: ONNX,
  onnx_encoder: ONNX_ENCODER,
};
