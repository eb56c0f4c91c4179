/**
 * Activation shards of protocol 2.1 as upstream's HEAD reads them: the last file is padded with zeros to full size.
 *
 * Every file is written under a temporary name, renamed, and only then listed in `shards.json`. A folder whose writing
 * was stopped can be recognised by its counts and is completed after its last complete file.
 *
 * @module
 */

import { hasCode } from "../../io/disk.ts";
import { CheckpointError } from "../../io/errors.ts";
import { openFiles, writeBytes } from "../../io/files.ts";
import { decodeText, parseJson } from "../../io/json.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import {
  formatMetadata,
  formatShardList,
  layoutOf,
  readShardList,
  type ShardFile,
  shardFiles,
  type ShardsMetadata,
} from "./metadata.ts";

/** The input of {@link writeShards}. */
export interface ShardsToWrite {
  /** The folder's metadata. */
  readonly metadata: ShardsMetadata;
  /**
   * The activations of the examples from number `from` on, in order: each array holds one or more whole examples,
   * [examples, layers, tokens, d_model].
   */
  readonly examples: (from: number) => AsyncIterable<Float32Array>;
  /** One label per patch, [n_examples, content_tokens_per_example]; called after the last example. */
  readonly labels?: () => Promise<Uint8Array>;
  /** Files of the caller, by name, that record how the shards are made; those of an earlier call must be equal. */
  readonly beside?: Readonly<Record<string, Uint8Array>>;
}

/** What was already there. */
export interface WrittenShards {
  /** Examples in files that an earlier call had written. */
  readonly n_kept: number;
}

/**
 * The smallest `max_tokens_per_shard` for a file of `n_examples` examples or `bytes` bytes, whichever is less. Files
 * have one size, so a budget beyond the number of examples would be padding.
 */
export function tokensPerShard(
  metadata: Omit<ShardsMetadata, "max_tokens_per_shard">,
  bytes: number,
): number {
  const { content_tokens_per_example, cls_token, layers, d_model, n_examples } = metadata;
  const perExample = (content_tokens_per_example + (cls_token ? 1 : 0)) * layers.length;
  const examples = Math.floor(bytes / (4 * perExample * d_model));
  return perExample * Math.max(1, Math.min(n_examples, examples));
}

/**
 * Writes a folder of shards. Complete files from an earlier call are kept, and only the examples after them are
 * requested.
 *
 * @throws {CheckpointError} if the folder holds shards with other metadata, or files that are not shards.
 * @throws {ShapeError} if there are fewer or more examples than the metadata gives, or an array does not hold whole
 * examples.
 */
export async function writeShards(folder: string, shards: ShardsToWrite): Promise<WrittenShards> {
  const { metadata, examples, labels, beside = {} } = shards;
  const at = (name: string): string => `${folder}/${name}`;
  const text = (value: string): Uint8Array[] => [new TextEncoder().encode(value)];
  const files = shardFiles(metadata);
  const kept = await keptFiles(folder, metadata, beside);
  const done = [...kept];
  const n_kept = kept.reduce((sum, { n_examples }) => sum + n_examples, 0);
  if (kept.length === 0) {
    await writeBytes(at("metadata.json"), text(formatMetadata(metadata)));
    for (const [name, bytes] of Object.entries(beside)) await writeBytes(at(name), [bytes]);
    await writeBytes(at("shards.json"), text(formatShardList([])));
  }
  const source = new Examples(metadata, examples(n_kept));
  const { examples_per_shard, exampleBytes } = layoutOf(metadata);
  try {
    for (const file of files.slice(kept.length)) {
      await writeBytes(at(file.name), [
        { length: examples_per_shard * exampleBytes, pieces: () => source.take(file.n_examples) },
      ]);
      done.push(file);
      // The last file is listed once everything else is there.
      if (done.length < files.length) await writeBytes(at("shards.json"), text(formatShardList(done)));
    }
    await source.end();
  } finally {
    await source.close();
  }
  if (labels && done.length > kept.length) {
    const { n_examples, content_tokens_per_example } = metadata;
    const found = await labels();
    if (found.length !== n_examples * content_tokens_per_example) {
      throw new ShapeError(
        `writing ${
          at("labels.bin")
        }: found ${found.length} labels; expected ${n_examples} × ${content_tokens_per_example}`,
      );
    }
    await writeBytes(at("labels.bin"), [found]);
  }
  await writeBytes(at("shards.json"), text(formatShardList(done)));
  return { n_kept };
}

/** Files left by a write that was killed, and the file that keeps a second writer out. */
const TEMPORARY = /^(?:[a-z]+\.json|labels\.bin|acts\d+\.bin)\..*\.tmp$|^[a-z]+\.lock$/;

/** The complete files of an earlier call, in a folder that belongs to these shards. */
async function keptFiles(
  folder: string,
  metadata: ShardsMetadata,
  beside: Readonly<Record<string, Uint8Array>>,
): Promise<ShardFile[]> {
  let found: Awaited<ReturnType<typeof openFiles>>;
  try {
    found = await openFiles(folder);
    if ((await found.list()).every((name) => TEMPORARY.test(name))) return [];
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
  const doing = `writing shards into ${folder}`;
  const source = await found.find("metadata.json");
  if (source === null) {
    throw new CheckpointError(
      `${doing}: found a folder with other files; expected an empty folder, or one that holds these shards`,
    );
  }
  const list = await found.find("shards.json");
  const entries = list && parseJson(decodeText(await list.read(0, list.size), list.name), {
    what: list.name,
    maxParts: 4 + list.size / 16,
  });
  // A write that stopped before its first complete file starts again, whatever it was.
  const hasShards = (await found.list()).some((name) => /^acts\d+\.bin$/.test(name));
  if (Array.isArray(entries) && entries.length === 0 && !hasShards) return [];
  const text = decodeText(await source.read(0, source.size), source.name);
  const wanted = formatMetadata(metadata);
  if (text !== wanted) {
    const [there, here] = [text, wanted].map((lines) => lines.split("\n"));
    const line = here!.findIndex((content, i) => content !== there![i]);
    throw new CheckpointError(
      `${doing}: found shards with ${there![line]?.trim() ?? "fewer fields"}; expected ${
        here![line]?.trim() ?? "no more"
      }`,
    );
  }
  if (list === null || entries === null) return [];
  for (const [name, bytes] of Object.entries(beside)) {
    const there = await found.find(name);
    const isSame = there?.size === bytes.length && equalBytes(await there.read(0, bytes.length), bytes);
    if (!isSame) {
      throw new CheckpointError(
        `${doing}: found ${there === null ? `no ${name}` : `a different ${name}`} beside its shards; ` +
          `they were made with other settings. Use the same settings, or choose another folder`,
      );
    }
  }
  const { examples_per_shard, exampleBytes } = layoutOf(metadata);
  const kept: ShardFile[] = [];
  for (const file of readShardList(entries, list.name, metadata)) {
    if ((await found.find(file.name))?.size !== examples_per_shard * exampleBytes) break;
    kept.push(file);
  }
  return kept;
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}

/** Cuts a stream of examples into files. */
class Examples {
  readonly #metadata: ShardsMetadata;
  readonly #arrays: AsyncIterator<Float32Array>;
  #rest = new Float32Array();

  constructor(metadata: ShardsMetadata, arrays: AsyncIterable<Float32Array>) {
    this.#metadata = metadata;
    this.#arrays = arrays[Symbol.asyncIterator]();
  }

  /** The bytes of a file: this many examples, then zeros up to full size. */
  async *take(n_examples: number): AsyncGenerator<Uint8Array> {
    const { examples_per_shard, exampleBytes } = layoutOf(this.#metadata);
    for (let missing = n_examples * exampleBytes; missing > 0;) {
      if (this.#rest.length === 0) this.#rest = await this.#next(missing / exampleBytes);
      const part = this.#rest.subarray(0, missing / 4);
      this.#rest = this.#rest.subarray(part.length);
      missing -= part.byteLength;
      yield littleEndianBytes(part);
    }
    for (let missing = (examples_per_shard - n_examples) * exampleBytes; missing > 0; missing -= ZEROS.length) {
      yield ZEROS.subarray(0, missing);
    }
  }

  /** @throws {ShapeError} if there are more examples than expected. */
  async end(): Promise<void> {
    if (this.#rest.length === 0 && (await this.#arrays.next()).done) return;
    throw new ShapeError(
      `writing shards: found more examples than the ${this.#metadata.n_examples} that the metadata gives`,
    );
  }

  /** Ends the generator of the arrays. */
  async close(): Promise<void> {
    await this.#arrays.return?.();
  }

  async #next(missing: number): Promise<Float32Array<ArrayBuffer>> {
    const { value, done } = await this.#arrays.next();
    const { n_examples } = this.#metadata;
    if (done) {
      throw new ShapeError(
        `writing shards: the examples ended early; at least ${missing} of ${n_examples} are missing`,
      );
    }
    const { exampleBytes } = layoutOf(this.#metadata);
    if (value.length === 0 || value.byteLength % exampleBytes !== 0) {
      throw new ShapeError(
        `writing shards: found an array of ${value.length} numbers; expected whole examples of ${exampleBytes / 4}`,
      );
    }
    return value as Float32Array<ArrayBuffer>;
  }
}

const ZEROS = new Uint8Array(2 ** 20);
