/**
 * Writes models in the formats of other libraries.
 *
 * If a format has no field for the scaling of inputs or for an encoder formula, the parameters are rewritten to compute
 * the same without it; sums are float64, rounded once. Anything that a format cannot express is an error, or with
 * `lossy` is listed in the result.
 *
 * | format | files | cannot compute |
 * | --- | --- | --- |
 * | `saev` | one, schema 5; schema 1 on request | a jump-relu, a top-k whose negative codes become 0 |
 * | `saev_nn` | one, which only this library reads | |
 * | `saelens` | `cfg.json`, `sae_weights.safetensors` | a top-k that keeps negative codes |
 * | `dictionary_learning` | `config.json`, `ae.pt` | a top-k that keeps negative codes |
 * | `onnx` | one: `x` to `x_hat` and `f_x` | |
 * | `onnx_encoder` | one: `x` to `f_x` | |
 *
 * Only `saev` and `saev_nn` hold training settings such as penalty and auxiliary loss.
 *
 * @module
 */

import { checkOptions } from "../../kernels/engine/options.ts";
import { CheckpointError } from "../errors.ts";
import { type Target, targetAt, writeBytes, writeTogether } from "../files.ts";
import type { Folded } from "../fold.ts";
import type { ParsedCheckpoint } from "../model.ts";
import { checkedModel } from "./checked_model.ts";
import type { Formatted } from "./format.ts";
import { type TargetFormat, WRITERS } from "./formats.ts";
import { searchNegativeCodes } from "./negative_codes.ts";
import { REMEDIES } from "./remedies.ts";

/** Options of {@link writeCheckpoint}. */
export interface WriteOptions {
  /** The format. */
  readonly format: TargetFormat;
  /** The schema of the format `saev`: 5 if left out; 1 is for Python saev before August 2025. */
  readonly schema?: 5 | 1;
  /** Whether to write even what the format computes differently; the result lists it. */
  readonly lossy?: boolean;
  /** Whether to replace existing files; `true` if left out. */
  readonly overwrite?: boolean;
}

const WRITE_OPTIONS = {
  format: true,
  schema: true,
  lossy: true,
  overwrite: true,
} as const satisfies Record<keyof WriteOptions, true>;

/** A model as files. */
export interface FormattedModel extends Formatted {
  /** What the files compute differently, one sentence each; empty unless `lossy`. */
  readonly lost: readonly string[];
  /** What they would compute differently on inputs, none of which was found; empty unless `lossy`. */
  readonly perhapsLost: readonly string[];
}

/** The result of {@link writeCheckpoint}. */
export interface WrittenModel {
  /** Paths of the files. */
  readonly paths: readonly string[];
  /** What was folded into the parameters because the format has no field for it. */
  readonly folded: readonly Folded[];
  /** What they compute differently, one sentence each. */
  readonly lost: readonly string[];
  /** What they would compute differently on inputs, none of which was found. */
  readonly perhapsLost: readonly string[];
}

/** A place that {@link writeCheckpoint} writes to. */
export interface WriteTarget {
  /** Where it is. */
  readonly path: string | URL;
  /** What stands there. */
  readonly target: Target;
}

/**
 * Where {@link writeCheckpoint} would write, and what is there already.
 *
 * @throws {RangeError} where it would refuse to.
 * @throws {TypeError} for an unknown option.
 */
export async function findTargets(
  to: string | URL,
  options: Pick<WriteOptions, "format" | "overwrite">,
): Promise<readonly WriteTarget[]> {
  checkOptions("findTargets", options, WRITE_OPTIONS);
  const { format, overwrite = true } = options;
  const targets: WriteTarget[] = [];
  for (const name of WRITERS[format].files) {
    const path = placeOf(to, name);
    const target = await targetAt(path);
    if (target === "file" && !overwrite) {
      throw new RangeError(
        `writing ${path}: the file exists already; choose another path, or replace it with ${REMEDIES.overwrite}`,
      );
    }
    targets.push({ path, target });
  }
  return targets;
}

/**
 * Writes a model in another's format. `to` is a file's path or URL, or a folder's, for formats of several files;
 * folders are made, and the files are replaced together or not at all. Links are followed; a device or a pipe can take
 * a format of one file.
 *
 * @throws {CheckpointError} where the format cannot compute what the model does. Nothing is written then.
 * @throws {RangeError} if a folder stands where a file should go, or a file where `overwrite` is `false`.
 * @throws {TypeError} for an unknown option.
 */
export async function writeCheckpoint(
  to: string | URL,
  model: ParsedCheckpoint,
  options: WriteOptions,
): Promise<WrittenModel> {
  checkOptions("writeCheckpoint", options, WRITE_OPTIONS);
  const { files, folded, lost, perhapsLost } = formatModel(model, options);
  const targets = await findTargets(to, options);
  const placed = [...files.values()].map((pieces, i) => [targets[i]!.path, pieces] as const);
  const [first] = placed;
  if (placed.length === 1) await writeBytes(...first!);
  else await writeTogether(placed);
  return { paths: targets.map(({ path }) => String(path)), folded, lost, perhapsLost };
}

/** The place of a file: in the given folder, or the given path itself for a single file. */
function placeOf(to: string | URL, name: string): string | URL {
  if (name === "") return to;
  if (to instanceof URL) return new URL(name, `${to.href.replace(/\/?$/, "/")}`);
  return to.endsWith("/") ? to + name : `${to}/${name}`;
}

/**
 * The files that {@link writeCheckpoint} writes. Equal models give equal bytes.
 *
 * @throws {CheckpointError} as {@link writeCheckpoint}.
 * @throws {TypeError} for an unknown option.
 */
export function formatModel(
  given: ParsedCheckpoint,
  options: WriteOptions,
): FormattedModel {
  checkOptions("formatModel", options, WRITE_OPTIONS);
  const { format, lossy = false, schema } = options;
  if (schema !== undefined && format !== "saev") {
    throw new RangeError(`writing ${format}: found schema ${schema}; only the format saev takes a schema`);
  }
  const model = checkedModel(given);
  const [lost, perhapsLost]: [string[], string[]] = [[], []];
  const loseNegatives = (top_k: number, what: string): void => {
    const k = Math.min(top_k, model.cfg.d_sae);
    if (!lossy) throw new CheckpointError(`writing ${format}: ${what}. To write it anyway, use ${REMEDIES.lossy}`);
    const { n_active, n_tried } = searchNegativeCodes(model, k);
    if (n_active < k) {
      lost.push(`${what}; at least one input has only ${n_active} that are not negative, and k is ${k}`);
    } else perhapsLost.push(`${what}; each of the ${n_tried} inputs tried has k = ${k} that are not negative`);
  };
  return { ...WRITERS[format].format(model, loseNegatives, schema), lost, perhapsLost };
}
