/**
 * Activation shards of the Python package as sources of rows.
 *
 * A file holds float32 [examples_per_shard, layers, n_tokens, d_model] without a header; token 0 is CLS if there is
 * one. Upstream's files have full size, with zeros after the last example; `shards.json` has the true counts.
 *
 * @module
 */

import { CheckpointError } from "../../io/errors.ts";
import type { FileSet } from "../../io/file_set.ts";
import { type FilesSource, openFiles, type SourceOptions } from "../../io/files.ts";
import { decodeText, parseJson, readJsonObject } from "../../io/json.ts";
import { readFloats } from "../../io/numbers.ts";
import type { Source } from "../../io/source.ts";
import { checkOptions } from "../../kernels/engine/options.ts";
import { checkRange, type RowSource } from "../../nn/rows.ts";
import {
  layoutOf,
  readMetadata,
  readShardList,
  type ShardFile,
  shardFiles,
  type ShardsLayout,
  type ShardsMetadata,
} from "./metadata.ts";

/** Which tokens of an example can be rows: the patches, CLS, or both, with CLS first. */
export const SHARD_TOKENS = ["content", "cls", "all"] as const;

/** Which tokens of an example are rows. */
export type ShardTokens = (typeof SHARD_TOKENS)[number];

/** Which rows of the shards to read. */
export interface ShardRowsOptions {
  /** One of `metadata.layers`, by value; the only one if left out. */
  readonly layer?: number;
  /** Which tokens; `"content"` if left out. */
  readonly tokens?: ShardTokens;
}

/** Rows of shards, ordered by example and by token. */
export interface ShardRows extends RowSource {
  /** Rows per example. */
  readonly rows_per_example: number;
  /** The first row of the image that a row belongs to. */
  exampleStart(row: number): number;
  /** Where a row comes from. Tokens count from 0 without CLS, which is −1, as upstream counts. */
  locate(row: number): { readonly example: number; readonly token: number };
}

/** An open folder of shards. There is nothing to close. */
export interface Shards {
  /** Its name in messages. */
  readonly name: string;
  /** The folder's metadata. */
  readonly metadata: ShardsMetadata;
  /** Its files with the true numbers of examples, without the empty file that upstream may leave. */
  readonly files: readonly ShardFile[];
  /**
   * The rows.
   *
   * @throws {RangeError} for a layer or tokens that the shards do not have.
   */
  rows(options?: ShardRowsOptions): ShardRows;
  /** One label per patch, [n_examples, content_tokens_per_example]; `null` if there are no labels. */
  readLabels(): Promise<Uint8Array | null>;
}

/**
 * Opens a folder of shards of any version from April 2025 to protocol 2.1, given as a path, a hub address of a folder,
 * or files that a user picked.
 *
 * The rows are those that were written, even where upstream's own reader returns others: April 2025 without CLS, and
 * CLS rows since October 2025.
 *
 * @throws {CheckpointError} if the folder holds no shards, or damaged ones; the message names all files that are
 * missing, empty or of the wrong size.
 */
export async function openShards(from: FilesSource, options: SourceOptions = {}): Promise<Shards> {
  checkOptions("openShards", options, { hub: true, signal: true });
  const folder = await openFiles(from, options);
  const metadata = await readFolderMetadata(folder);
  const layout = layoutOf(metadata, folder.name);
  const files = (await listFiles(folder, metadata)).filter(({ n_examples }) => n_examples > 0);
  const sources = await openAll(folder, files, layout);
  return {
    name: folder.name,
    metadata,
    files,
    rows: (options = {}) => {
      checkOptions("rows", options, { layer: true, tokens: true });
      const { layer, tokens = "content" } = options;
      const at = layerIndex(folder.name, metadata, layer);
      return shardRows(metadata, layout, { sources, layer: at, tokens: tokenRange(folder.name, metadata, tokens) });
    },
    readLabels: () => readLabels(folder, metadata),
  };
}

/** Whether a folder claims to hold shards: its `metadata.json` has the fields of a known layout. */
export async function isShardsFolder(folder: FileSet): Promise<boolean> {
  const source = await folder.find("metadata.json");
  if (source === null) return false;
  const json = await readJsonObject(source).catch(() => null);
  return json !== null && json.has("layers") && json.has("cls_token");
}

/** What a folder of shards says of itself. @throws {CheckpointError} if it is none. */
export async function readFolderMetadata(folder: FileSet): Promise<ShardsMetadata> {
  const source = await folder.find("metadata.json");
  if (source === null) {
    throw new CheckpointError(`reading ${folder.name}: found no metadata.json; expected a folder of activation shards`);
  }
  return readMetadata(await readJsonObject(source), source.name);
}

/** The files and their counts, from `shards.json`, or from the metadata for versions before it. */
async function listFiles(folder: FileSet, metadata: ShardsMetadata): Promise<ShardFile[]> {
  const source = await folder.find("shards.json");
  if (source === null) {
    if (metadata.protocol === "") return shardFiles(metadata);
    throw new CheckpointError(
      `reading ${folder.name}: found no shards.json beside the metadata.json of protocol ${metadata.protocol}; ` +
        `shards.json gives the number of examples in each file`,
    );
  }
  // Ten files need fewer than a thousand bytes.
  const json = parseJson(decodeText(await source.read(0, source.size), source.name), {
    what: source.name,
    maxParts: 4 + source.size / 16,
  });
  const files = readShardList(json, source.name, metadata);
  const counted = files.reduce((sum, { n_examples }) => sum + n_examples, 0);
  if (counted === metadata.n_examples) return files;
  throw new CheckpointError(
    `reading ${source.name}: found ${counted} examples in ${files.length} files; expected ${metadata.n_examples} as in ` +
      `metadata.json. The extraction did not finish`,
  );
}

/** Opens every file, so that all problems are reported at once. */
async function openAll(
  folder: FileSet,
  files: readonly ShardFile[],
  { examples_per_shard, exampleBytes }: ShardsLayout,
): Promise<Source[]> {
  const problems = new Map<string, string[]>();
  const sources: Source[] = [];
  for (const { name, n_examples } of files) {
    const problem = (kind: string, about = ""): void => {
      problems.set(kind, [...problems.get(kind) ?? [], name + about]);
    };
    try {
      const source = await folder.find(name);
      const [least, full] = [n_examples * exampleBytes, examples_per_shard * exampleBytes];
      if (source === null) problem("missing, or not a regular file");
      else if (source.size === 0) problem("empty");
      else if (source.size !== least && source.size !== full) {
        problem(
          "of the wrong size",
          ` (${source.size} bytes; expected ${full === least ? full : `${full}, or ${least}`})`,
        );
      } else sources.push(source);
    } catch (error) {
      problem("unreadable", ` (${error instanceof Error ? error.message : error})`);
    }
  }
  if (problems.size === 0) return sources;
  const list = problems.entries().map(([kind, names]) => `${names.length} ${kind}: ${names.join(", ")}`);
  throw new CheckpointError(`reading ${folder.name}: of ${files.length} shards, ${list.toArray().join("; ")}`);
}

function layerIndex(name: string, { layers }: ShardsMetadata, layer: number | undefined): number {
  if (layer === undefined && layers.length === 1) return 0;
  const at = layer === undefined ? -1 : layers.indexOf(layer);
  if (at >= 0) return at;
  throw new RangeError(
    `reading ${name}: ${layer === undefined ? "no layer is given" : `there is no layer ${layer}`}; it has the layers ${
      layers.join(", ")
    }`,
  );
}

/** The tokens of an example that are rows, from the first to before the last. */
interface TokenRange {
  readonly first: number;
  readonly end: number;
  /** The offset from a token's index to upstream's. */
  readonly shift: number;
}

function tokenRange(name: string, metadata: ShardsMetadata, tokens: ShardTokens): TokenRange {
  const { cls_token, content_tokens_per_example: content } = metadata;
  const cls = cls_token ? 1 : 0;
  if (tokens === "cls" && !cls_token) throw new RangeError(`reading ${name}: its examples have no CLS token`);
  const first = tokens === "content" ? cls : 0;
  return { first, end: tokens === "cls" ? 1 : cls + content, shift: -cls };
}

/** The input of {@link shardRows}. */
interface RowsToRead {
  readonly sources: readonly Source[];
  readonly layer: number;
  readonly tokens: TokenRange;
}

function shardRows(
  { d_model, layers, n_examples }: ShardsMetadata,
  { n_tokens, examples_per_shard, exampleBytes }: ShardsLayout,
  { sources, layer, tokens: { first, end, shift } }: RowsToRead,
): ShardRows {
  const rows_per_example = end - first;
  const n_rows = n_examples * rows_per_example;
  const tokenBytes = 4 * d_model;
  // If little or nothing lies between the rows of neighbouring examples, several are read at once.
  const isDense = 2 * rows_per_example >= layers.length * n_tokens;
  const startOf = (example: number, token: number): number =>
    example % examples_per_shard * exampleBytes + (layer * n_tokens + token) * tokenBytes;

  /** Copies rows of examples within one file. */
  async function copy(into: Float32Array, from: number, to: number): Promise<void> {
    const [firstExample, lastExample] = [from, to - 1].map((row) => Math.floor(row / rows_per_example)) as [
      number,
      number,
    ];
    const source = sources[Math.floor(firstExample / examples_per_shard)]!;
    const start = startOf(firstExample, first + from % rows_per_example);
    const floats = readFloats(
      await source.read(start, startOf(lastExample, first + (to - 1) % rows_per_example) + tokenBytes),
      "float32",
      true,
    );
    for (let example = firstExample, row = from; example <= lastExample; example++) {
      const until = Math.min(to, (example + 1) * rows_per_example);
      const at = (startOf(example, first + row % rows_per_example) - start) / 4;
      into.set(floats.subarray(at, at + (until - row) * d_model), (row - from) * d_model);
      row = until;
    }
  }

  return {
    n_rows,
    d_model,
    rows_per_example,
    exampleStart: (row) => row - row % rows_per_example,
    locate: (row) => ({ example: Math.floor(row / rows_per_example), token: first + row % rows_per_example + shift }),
    async read(from, to) {
      checkRange({ n_rows }, from, to);
      const x_BD = new Float32Array((to - from) * d_model);
      const rowsPerRead = (isDense ? examples_per_shard : 1) * rows_per_example;
      const reads: Promise<void>[] = [];
      for (let at = from; at < to;) {
        const until = Math.min(to, (Math.floor(at / rowsPerRead) + 1) * rowsPerRead);
        reads.push(copy(x_BD.subarray((at - from) * d_model, (until - from) * d_model), at, until));
        if (reads.length === MAX_READS) await Promise.all(reads.splice(0));
        at = until;
      }
      await Promise.all(reads);
      return x_BD;
    },
  };
}

/** Largest number of concurrent reads. */
const MAX_READS = 16;

/** A label for each patch; `null` where the folder has no `labels.bin`. */
export async function readLabels(folder: FileSet, metadata: ShardsMetadata): Promise<Uint8Array | null> {
  const source = await folder.find("labels.bin");
  if (source === null) return null;
  const { n_examples, content_tokens_per_example } = metadata;
  const expected = n_examples * content_tokens_per_example;
  if (source.size === expected) return await source.read(0, expected);
  throw new CheckpointError(
    `reading ${source.name}: found ${source.size} bytes; expected ${expected}, one for each of ` +
      `${content_tokens_per_example} patches of ${n_examples} examples`,
  );
}
