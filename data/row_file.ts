/**
 * Files of rows, read by ranges: a file may be larger than memory.
 *
 * The content says what a file is, not its name: a `.npy` array, an `.npz` archive, safetensors, or a folder of
 * activation shards. Files of bare numbers have no mark; a JSON file beside them, or the caller, gives their type.
 *
 * @module
 */

import type { ArrayPlace } from "../io/array_place.ts";
import { CheckpointError, quote } from "../io/errors.ts";
import { type FileSet, requireFile } from "../io/file_set.ts";
import { type FilesSource, type SourceOptions, withFiles } from "../io/files.ts";
import { locateNpy } from "../io/npy.ts";
import { openNpz } from "../io/npz.ts";
import { recogniseMarked } from "../io/file_kind.ts";
import { locateSafetensors } from "../io/safetensors.ts";
import type { Source } from "../io/source.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { matrixRows } from "./matrix_rows.ts";
import { concatRows } from "./rows.ts";
import { locateRaw, RAW_FORMATS, type RawFormat } from "./raw_file.ts";
import type { RowSource } from "../nn/rows.ts";
import { withoutLabels } from "./shards/labelled_rows.ts";
import { isShardsFolder, openShards, type ShardTokens } from "./shards/reader.ts";

/** Formats of files of rows; the last four are bare little-endian numbers. */
export const ROW_FORMATS = ["npy", "npz", "safetensors", "f16", "bf16", "f32", "f64"] as const;

/** A format of a file of rows. */
export type RowFormat = (typeof ROW_FORMATS)[number];

/** What the caller knows about a file of rows; `null` means the same as leaving a field out. */
export interface RowFileOptions extends SourceOptions {
  /** The format. Only bare numbers need it; for any other file a contradiction with the content is an error. */
  readonly format?: RowFormat | null;
  /**
   * Width of a row. A file of bare numbers needs it unless a JSON file beside it has a `shape`. An array of three or
   * more dimensions becomes rows of its last dimension, which must have this size.
   */
  readonly d_model?: number | null;
  /** The name of the array in an `.npz` or safetensors file; the only array if left out. */
  readonly key?: string | null;
  /** The layer of activation shards; the only one if left out. */
  readonly layer?: number | null;
  /** The tokens of activation shards; `"content"` if left out. */
  readonly tokens?: ShardTokens | null;
  /** Labels of the patches to leave out, for activation shards with labels. */
  readonly ignore_labels?: readonly number[] | null;
}

/**
 * Opens rows: a matrix in a `.npy`, `.npz` or safetensors file, a file of bare numbers, or a folder of activation
 * shards. The source is a path, a web address that is read by ranges, a hub address, or files that a user picked. There
 * is nothing to close. A file that changes while it is being read is an error.
 *
 * A path such as `acts/part-*.npy` means all matching files of the folder, one after the other in the order of their
 * names.
 *
 * Numbers become float32. Wider floating-point numbers are rounded; integers must be exactly representable. A file in
 * Fortran order is read column by column.
 *
 * @example
 * ```ts
 * import { openRows } from "@saev/nn/data";
 * import { writeNpy } from "@saev/nn/io";
 *
 * const file = writeNpy({ rows: 2, cols: 3, data: Float32Array.of(1, 2, 3, 4, 5, 6) }); // or a path
 * const rows = await openRows(file);
 * console.log(rows.n_rows, rows.d_model, await rows.read(1, 2));
 * ```
 *
 * @throws {CheckpointError} that names the file, if it is of another kind, has the wrong length, or holds several
 * arrays and `key` names none of them.
 * @throws {ShapeError} if its rows do not have `d_model` numbers.
 * @throws {RangeError} if there is no file or folder, or an option does not apply to the file.
 * @throws {TypeError} for an unknown option.
 */
export async function openRows(from: FilesSource, options: RowFileOptions = {}): Promise<RowSource> {
  checkOptions("openRows", options, {
    format: true,
    d_model: true,
    key: true,
    layer: true,
    tokens: true,
    ignore_labels: true,
    hub: true,
    signal: true,
  });
  const several = typeof from === "string" && !/^(?:https?|hf):/i.test(from) ? SEVERAL.exec(from) : null;
  if (several) return await openSeveral(several[1] || "./", several[2]!, options);
  const { format = null, d_model = null, key = null, layer = null, tokens = null, ignore_labels = null, ...access } =
    options;
  return await withFiles(from, access, async (files) => {
    const refuse = (what: string): never => {
      throw new RangeError(`reading ${files.name}: ${what}`);
    };
    if (files.main === null) {
      if (format !== null || key !== null) refuse(`it is a folder; ${format ? "format" : "key"} applies only to files`);
      return await shardRows(files, { layer, tokens, ignore_labels, d_model });
    }
    const forShards = Object.entries({ layer, tokens, ignore_labels }).find(([, value]) => value !== null);
    if (forShards) refuse(`it is a file; ${forShards[0]} applies only to shards`);
    return await fileRows(files, { format, d_model, key });
  });
}

/** A path whose last name has a `*`. */
const SEVERAL = /^(.*[/\\])?([^/\\]*\*[^/\\]*)$/;

/** Opens all files of a folder that match a pattern as one source; numbers in names sort as numbers. */
async function openSeveral(folder: string, pattern: string, options: RowFileOptions): Promise<RowSource> {
  const { format = null, d_model = null, key = null, layer: _, tokens: __, ignore_labels: ___, ...access } = options;
  return await withFiles(folder, access, async (files) => {
    const fits = new RegExp(`^${pattern.split("*").map(RegExp.escape).join(".*")}$`);
    const { compare } = new Intl.Collator("en", { numeric: true });
    const names = (await files.list()).filter((name) => fits.test(name)).sort(compare);
    if (names.length === 0) throw new RangeError(`reading ${folder}: found no file that matches ${pattern}`);
    const sources: RowSource[] = [];
    for (const main of names) sources.push(await fileRows({ ...files, main }, { format, d_model, key }));
    const other = sources.findIndex((source) => source.d_model !== sources[0]!.d_model);
    if (other >= 0) {
      throw new ShapeError(
        `reading ${folder}: ${names[0]} has rows of ${sources[0]!.d_model} numbers, and ${names[other]} of ` +
          `${sources[other]!.d_model}; expected one width`,
      );
    }
    return concatRows(sources);
  });
}

/** Options that apply to a file. */
interface FileWanted {
  readonly format: RowFormat | null;
  readonly d_model: number | null;
  readonly key: string | null;
}

async function fileRows(files: FileSet, { format, d_model, key }: FileWanted): Promise<RowSource> {
  const source = await requireFile(files, files.main!);
  const refuse = (what: string): never => {
    throw new RangeError(`reading ${source.name}: ${what}`);
  };
  const found = await recogniseMarked(source);
  const kind = found ?? "raw";
  if (found !== format && format !== null && !(kind === "raw" && format in RAW_FORMATS)) {
    const what = found === null ? "does not start like such a file" : `is ${found}`;
    refuse(`format is ${format}, but the file ${what}; leave out format`);
  }
  if (key !== null && kind !== "npz" && kind !== "safetensors") refuse(`it holds no named arrays; leave out key`);
  switch (kind) {
    case "npy":
      return matrixRows(await locateNpy(source), d_model);
    case "npz":
      return matrixRows(await chooseFromNpz(source, key), d_model);
    case "safetensors":
      return matrixRows(choose(source, await locateSafetensors(source), key), d_model);
    case "raw":
      await refuseShard(files, source);
      return matrixRows(await locateRaw(files, source, { format: format as RawFormat | null, d_model }), d_model);
    case "torch":
      return refusePython(source, "a PyTorch file", (name) => `torch.load(${name}).float().numpy()`);
    case "pickle":
      return refusePython(source, "a pickle", (name) => `numpy.load(${name}, allow_pickle=True).astype("float32")`);
    case "saev":
      throw new CheckpointError(`reading ${source.name}: found a saev checkpoint; expected rows of numbers`);
  }
}

/** Options that apply to shards. */
interface ShardsWanted {
  readonly layer: number | null;
  readonly tokens: ShardTokens | null;
  readonly ignore_labels: readonly number[] | null;
  readonly d_model: number | null;
}

async function shardRows(folder: FileSet, wanted: ShardsWanted): Promise<RowSource> {
  const { layer, tokens, ignore_labels, d_model } = wanted;
  if (await folder.find("metadata.json") === null) {
    throw new RangeError(
      `reading ${folder.name}: found a folder without metadata.json, expected a file or a folder of activation shards`,
    );
  }
  const shards = await openShards(folder);
  const rows = shards.rows({ ...layer !== null && { layer }, ...tokens !== null && { tokens } });
  if (d_model !== null && d_model !== rows.d_model) {
    throw new ShapeError(
      `reading ${folder.name}: found rows of ${rows.d_model} numbers, expected ${d_model} (d_model)`,
    );
  }
  if (ignore_labels === null) return rows;
  if (tokens !== null && tokens !== "content") {
    throw new RangeError(`reading ${folder.name}: ignore_labels applies only to patches, but tokens is ${tokens}`);
  }
  const labels = await shards.readLabels();
  if (labels === null) throw new RangeError(`reading ${folder.name}: found no labels.bin; ignore_labels needs it`);
  return withoutLabels(rows, labels, ignore_labels);
}

const SHARD_NAME = /^acts\d+\.bin$/;

/** A single shard file is padded with zeros, and its layout is described only in the folder. */
async function refuseShard(files: FileSet, { name }: Source): Promise<void> {
  const isShard = SHARD_NAME.test(files.main!) && await files.find("metadata.json") !== null;
  if (!isShard && !await isShardsFolder(files)) return;
  throw new CheckpointError(
    `reading ${name}: it is one of the activation shards that metadata.json beside it describes, and may end with ` +
      `zeros that are not rows; give the folder instead`,
  );
}

async function chooseFromNpz(source: Source, key: string | null): Promise<ArrayPlace> {
  const npz = await openNpz(source);
  const described = async (name: string): Promise<[string, ArraySummary]> => {
    try {
      const { dtype, shape } = await npz.open(name);
      return [name, { type: dtype, shape }];
    } catch (error) {
      if (error instanceof CheckpointError) return [name, null];
      throw error;
    }
  };
  const name = chooseName(npz.names, key);
  return name === null
    ? refuseKey(source, key, await Promise.all(npz.names.slice(0, MAX_LISTED + 1).map(described)))
    : await npz.locate(name);
}

function choose(source: Source, places: ReadonlyMap<string, ArrayPlace>, key: string | null): ArrayPlace {
  const name = chooseName([...places.keys()], key);
  return name === null ? refuseKey(source, key, [...places]) : places.get(name)!;
}

/** The requested name, or the only one. */
function chooseName(names: readonly string[], key: string | null): string | null {
  if (key !== null) return names.includes(key) ? key : null;
  return names.length === 1 ? names[0]! : null;
}

/** The description of an array in messages; `null` if it does not hold numbers. */
type ArraySummary = Pick<ArrayPlace, "type" | "shape"> | null;

const MAX_LISTED = 20;

function refuseKey({ name }: Source, key: string | null, arrays: readonly (readonly [string, ArraySummary])[]): never {
  const list = arrays.slice(0, MAX_LISTED).map(([array, summary]) =>
    `${quote(array)} ${summary === null ? "(no numbers)" : `${summary.type} [${summary.shape.join(", ")}]`}`
  );
  const all = `${list.join(", ") || "no arrays"}${arrays.length > MAX_LISTED ? ", and more" : ""}`;
  const asked = key === null ? "give the key of the array with the rows" : `there is no array ${quote(key)}`;
  throw new CheckpointError(`reading ${name}: ${asked}; the file holds ${all}`);
}

/** Pickles are programs; only those of checkpoints are interpreted. */
function refusePython({ name }: Source, what: string, line: (name: string) => string): never {
  throw new CheckpointError(
    `reading ${name}: found ${what}, expected rows of numbers. If you trust it, in Python: ` +
      `numpy.save("rows.npy", ${line(JSON.stringify(name))})`,
  );
}
