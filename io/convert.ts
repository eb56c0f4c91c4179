/**
 * From one format to another, without a GPU.
 *
 * @module
 */

import { dump } from "./checkpoint.ts";
import { type ByteTarget, type FilesSource, openFiles, type SourceOptions } from "./files.ts";
import { type FormatName, type ReadOptions, recognise } from "./formats/recognise.ts";
import type { CheckpointSchema } from "./formats/saev.ts";

/** What a checkpoint can be written as: upstream's newest schema, its oldest, or this library's own. */
export type TargetFormat = "saev" | "saev-1" | "saev_nn";

/** All of them. */
export const TARGET_FORMATS: readonly TargetFormat[] = ["saev", "saev-1", "saev_nn"];

const SCHEMAS: Readonly<Record<TargetFormat, CheckpointSchema>> = { "saev": 5, "saev-1": 1, "saev_nn": "saev_nn" };

/** How to convert. */
export interface ConvertOptions extends ReadOptions, SourceOptions {
  /** What to write. */
  readonly to: TargetFormat;
}

/** What {@link convertCheckpoint} did. */
export interface Conversion {
  /** Whose format was read. */
  readonly from: FormatName;
  /** What was written. */
  readonly to: TargetFormat;
  /** What a user should know about what was read, in sentences. */
  readonly notes: readonly string[];
}

/**
 * Reads a checkpoint of any format that `load` opens, and writes the same function as `to` says.
 *
 * What the target has no place for (mean and scale of the inputs, the other encoder formula) is folded into the
 * parameters; `"saev_nn"` keeps everything as it is. The file is replaced at once or not at all.
 *
 * @throws {CheckpointError} for a file that is no such checkpoint, or a function that the target cannot say.
 */
export async function convertCheckpoint(
  from: FilesSource,
  into: ByteTarget,
  options: ConvertOptions,
): Promise<Conversion> {
  const { to, hub, ...readOptions } = options;
  const recognised = await recognise(await openFiles(from, hub === undefined ? {} : { hub }));
  const { model: { cfg, input, parameters }, notes } = await recognised.read(readOptions);
  const model = { cfg, input, readParameters: () => Promise.resolve(parameters) };
  await dump(into, model, { schema: SCHEMAS[to], fold: to !== "saev_nn" });
  return { from: recognised.format, to, notes };
}
