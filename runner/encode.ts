/**
 * From rows to codes on disk, in the folder that the Python package's inference writes and its tools read.
 *
 * Codes are first written to part files and become `token_acts.npz` at the end, so memory holds one batch at a time. A
 * stopped encoding continues after its last saved row, and its files have the same bytes as without the stop.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { batchesInOrder } from "../data/order.ts";
import { rowRange } from "../data/rows.ts";
import { batchPieces } from "../eval/batch_pieces.ts";
import { type SavedTokenSums, type TokenMetrics, TokenSums } from "../eval/token_sums.ts";
import { crc32 } from "../io/crc32.ts";
import { CheckpointError } from "../io/errors.ts";
import { syncFolder, writeBytes } from "../io/files.ts";
import { formatHeader, type HeaderValue, PythonFloat } from "../io/json_header.ts";
import { littleEndianBytes, readIntegers } from "../io/numbers.ts";
import { formatScipyCsr } from "../io/scipy_csr.ts";
import { REMEDIES } from "../io/checkpoints/remedies.ts";
import { VERSION } from "../io/checkpoints/saev_schemas.ts";
import type { FilePart } from "../io/source.ts";
import { formatTorchTensor } from "../io/torch_file.ts";
import { adapterName } from "../kernels/engine/device.ts";
import type { CodeArrays } from "../nn/codes.ts";
import type { RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { type DataFingerprint, fingerprintOf, modelFingerprint } from "./fingerprint.ts";
import { targetOf } from "./run_files.ts";
import { RunLock } from "./run_lock.ts";

/** Input of {@link encodeToFolder}. */
export interface EncodingPlan {
  /** The model, in inference form: a BatchTopK applies its threshold. */
  readonly sae: SparseAutoencoder;
  /** The rows; for shards, their content tokens. Row i of every output is row i of these. */
  readonly rows: RowSource;
  /** A label per row, and the labels whose rows stay empty and are not counted. */
  readonly ignored?: { readonly labels: Uint8Array; readonly ignore_labels: readonly number[] };
  /** The output folder. */
  readonly out: string;
  /** Number of latents in `distributions.pt`, the first ones; 25 if left out, as upstream. */
  readonly n_dists?: number;
  /** Rows per batch, which changes no bit; 2048 if left out. */
  readonly batch_size?: number;
  /** Whether to remove codes of another model or of other rows from the folder. */
  readonly overwrite?: boolean;
  /** The description of the model and the rows in `config.json`. */
  readonly about: {
    readonly run: string;
    readonly shards: string;
    readonly tokens: string;
    readonly layer: number | null;
  };
}

/** Progress, cancellation and clock of an encoding. */
export interface EncodingSurroundings {
  /** Called with the number of rows done, first with those done before. */
  readonly onProgress?: (done: number) => void;
  /** Stops after the current batch, which is saved. */
  readonly signal?: AbortSignal;
  /** Milliseconds since any fixed moment. */
  readonly now?: () => number;
}

/** The result of an encoding. */
export interface EncodingResult {
  /** The content of `metrics.json`. */
  readonly metrics: TokenMetrics;
  /** Entries of `token_acts.npz`. */
  readonly n_entries: number;
  /** Rows encoded before this call. */
  readonly n_kept: number;
}

/** The outputs in the order in which they are written; the folder is complete once the last exists. */
const OUTPUTS = [
  "token_acts.npz",
  "mean_values.pt",
  "sparsity.pt",
  "distributions.pt",
  "metrics.json",
  "config.json",
] as const;

/** The folder of the part files. */
const PARTIAL = "partial";
const PARTS = ["indices", "values", "counts", "distributions"] as const;
const STATE = "state.json";

/** A kill loses at most this much work. */
const SAVE_EVERY_MS = 10_000;

/** Bytes read from a part at a time. */
const PIECE_BYTES = 2 ** 20;

/** Everything that the outputs depend on. */
interface Identity {
  /** The SHA-256 of configuration and parameters. */
  readonly model: string;
  readonly d_sae: number;
  readonly rows: DataFingerprint;
  readonly ignore_labels: readonly number[];
  /** The checksum of the labels, if some are ignored. */
  readonly labels: number | null;
  readonly n_dists: number;
}

/** The progress of the parts. */
interface SavedState {
  /** The version of this file. */
  readonly saev_nn_encoding: 1;
  readonly identity: Identity;
  /** The adapters that computed the codes, each once. */
  readonly adapters: readonly string[];
  readonly n_rows: number;
  readonly n_entries: number;
  /** The checksum of the distributions. */
  readonly crc32: number;
  readonly sums: SavedTokenSums;
}

/**
 * Encodes all rows and writes `token_acts.npz` (a SciPy CSR matrix of rows × latents), `mean_values.pt`, `sparsity.pt`,
 * `distributions.pt`, `metrics.json` and `config.json`. A folder that already holds all of them is left as it is.
 *
 * Where the Python package (commit 3d73f1f) is wrong, this is right: a BatchTopK applies its threshold, a latent fires
 * where its code is not 0, sparsity is of the rows that count, and row i of the distributions is row i.
 *
 * @throws {RangeError} if the folder holds codes of another model or of other rows, or other files by these names, if
 * no row counts, if a row or a code is not finite, or another process writes into the folder.
 * @throws {CheckpointError} if the parts of a stopped encoding are damaged.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function encodeToFolder(
  plan: EncodingPlan,
  surroundings: EncodingSurroundings = {},
): Promise<EncodingResult> {
  checkOptions("encodeToFolder", surroundings, { onProgress: true, signal: true, now: true });
  const { sae, rows, ignored, out, overwrite = false } = plan;
  const { d_sae } = sae.cfg;
  const n_dists = Math.min(plan.n_dists ?? 25, d_sae);
  const isIgnored = ignoredRows(plan);
  const identity: Identity = {
    model: await modelFingerprint(sae),
    d_sae,
    rows: await fingerprintOf(rows),
    ignore_labels: ignored?.ignore_labels ?? [],
    labels: ignored ? crc32(ignored.labels) : null,
    n_dists,
  };
  await Deno.mkdir(out, { recursive: true });
  await using _lock = await RunLock.take(out);
  const found = await findOutputs(out);
  if (overwrite) await removeOutputs(out);
  else {
    const whole = checkFound(out, found, identity);
    if (whole) {
      await removePartial(out);
      return { ...whole, n_kept: rows.n_rows };
    }
  }
  await removeLeftovers(out);

  const saved = overwrite ? null : found.state;
  const result = await encodeParts(plan, { ...surroundings, identity, saved, isIgnored });
  await removePartial(out);
  return result;
}

/** Encodes the rows that are missing, and writes the outputs. */
async function encodeParts(
  plan: EncodingPlan,
  { identity, saved, isIgnored, ...surroundings }: EncodingSurroundings & {
    readonly identity: Identity;
    readonly saved: SavedState | null;
    readonly isIgnored: (row: number) => boolean;
  },
): Promise<EncodingResult> {
  const { sae, out } = plan;
  const { d_model, d_sae } = sae.cfg;
  const sums = new TokenSums(d_model, d_sae, saved?.sums);
  const adapters = [...new Set([...saved?.adapters ?? [], adapterName(sae.device)])];
  using parts = await Parts.open(`${out}/${PARTIAL}`, { n_dists: identity.n_dists, saved });
  const n_kept = parts.n_rows;
  const save = () => parts.save({ identity, adapters, sums: sums.save() });
  await encodeRows(plan, { ...surroundings, parts, sums, isIgnored, save });
  const { n_entries } = parts;
  const metrics = sums.metrics();
  const tensor = (stem: string, data: Float32Array) => formatTorchTensor(stem, { shape: [d_sae], data });
  const outputs: Readonly<Record<typeof OUTPUTS[number], readonly FilePart[]>> = {
    "token_acts.npz": [parts.matrix(d_sae)],
    "mean_values.pt": tensor("mean_values", sums.meanValues()),
    "sparsity.pt": tensor("sparsity", sums.sparsity()),
    "distributions.pt": parts.distributions(),
    "metrics.json": [utf8(metricsText(metrics))],
    "config.json": [utf8(configText(plan, { identity, adapters, n_entries }))],
  };
  for (const name of OUTPUTS) await writeBytes(`${out}/${name}`, outputs[name]);
  return { metrics, n_entries, n_kept };
}

/**
 * Whether a row stays empty.
 *
 * @throws {RangeError} if all rows do, or the number of labels is wrong.
 */
function ignoredRows({ rows, ignored }: EncodingPlan): (row: number) => boolean {
  if (ignored === undefined) return () => false;
  const { labels, ignore_labels } = ignored;
  if (labels.length !== rows.n_rows) {
    throw new RangeError(`encoding: found ${labels.length} labels for ${rows.n_rows} rows; expected one for each`);
  }
  const isIgnored = Uint8Array.from({ length: 256 }, (_, label) => Number(ignore_labels.includes(label)));
  if (labels.every((label) => isIgnored[label])) {
    throw new RangeError(
      `encoding: every row has one of the ignored labels ${ignore_labels.join(", ")}; expected others`,
    );
  }
  return (row) => isIgnored[labels[row]!] === 1;
}

/** Encodes the rows that the parts lack. */
async function encodeRows(
  { sae, rows, batch_size = 2048 }: EncodingPlan,
  { onProgress, signal, now = () => performance.now(), parts, sums, isIgnored, save }: EncodingSurroundings & {
    readonly parts: Parts;
    readonly sums: TokenSums;
    readonly isIgnored: (row: number) => boolean;
    readonly save: () => Promise<void>;
  },
): Promise<void> {
  onProgress?.(parts.n_rows);
  let savedAt = now();
  const left = rowRange(rows, parts.n_rows, rows.n_rows);
  for await (const x of left.n_rows === 0 ? [] : batchPieces(sae, batchesInOrder(left, batch_size))) {
    const x_BD = x as Float32Array;
    using out = sae.forward(x_BD);
    const [x_hat_BD, codes] = await Promise.all([out.x_hat.read(), out.f_x.read()]);
    const batch = { x_BD, x_hat_BD, codes, firstRow: parts.n_rows };
    const counts = Array.from({ length: x_BD.length / sae.cfg.d_model }, (_, row) => !isIgnored(batch.firstRow + row));
    for (const [row, isCounted] of counts.entries()) if (isCounted) sums.add(batch, row);
    await parts.append(codes, counts);
    onProgress?.(parts.n_rows);
    if (signal?.aborted || now() - savedAt >= SAVE_EVERY_MS) {
      await save();
      savedAt = now();
    }
    signal?.throwIfAborted();
  }
  await save();
}

// ------------------------------------------------------------------------------------------------------------ the parts

/** The part files, open for writing. */
class Parts implements Disposable {
  readonly #folder: string;
  readonly #files: ReadonlyMap<string, Deno.FsFile>;
  readonly #n_dists: number;
  #n_rows: number;
  #n_entries: number;
  #crc32: number;

  private constructor(
    folder: string,
    files: ReadonlyMap<string, Deno.FsFile>,
    { n_dists, saved }: { readonly n_dists: number; readonly saved: SavedState | null },
  ) {
    this.#folder = folder;
    this.#files = files;
    this.#n_dists = n_dists;
    this.#n_rows = saved?.n_rows ?? 0;
    this.#n_entries = saved?.n_entries ?? 0;
    this.#crc32 = saved?.crc32 ?? 0;
  }

  /**
   * Opens the parts at their last saved state.
   *
   * @throws {CheckpointError} if a part is shorter than that.
   */
  static async open(
    folder: string,
    from: { readonly n_dists: number; readonly saved: SavedState | null },
  ): Promise<Parts> {
    await Deno.mkdir(folder, { recursive: true });
    using stack = new DisposableStack();
    const files = new Map<string, Deno.FsFile>();
    for (const name of PARTS) {
      files.set(name, stack.use(await Deno.open(`${folder}/${name}`, { read: true, write: true, create: true })));
    }
    const parts = new Parts(folder, files, from);
    for (const [name, file] of files) {
      const [{ size }, expected] = [await file.stat(), parts.#sizeOf(name)];
      if (size < expected) {
        throw new CheckpointError(
          `continuing ${folder}: ${name} has ${size} bytes; expected at least ${expected}; start again with ${REMEDIES.overwrite}`,
        );
      }
      await file.truncate(expected);
      await file.seek(0, Deno.SeekMode.End);
    }
    stack.move();
    return parts;
  }

  /** Number of rows in the parts. */
  get n_rows(): number {
    return this.#n_rows;
  }

  /** Number of entries in the parts. */
  get n_entries(): number {
    return this.#n_entries;
  }

  #sizeOf(name: string): number {
    if (name === "counts") return 4 * this.#n_rows;
    return name === "distributions" ? 4 * this.#n_dists * this.#n_rows : 4 * this.#n_entries;
  }

  /** Appends the codes of a batch: the entries that are not 0, in the rows that are counted. */
  async append({ row_starts, indices, values }: CodeArrays, counts: readonly boolean[]): Promise<void> {
    const kept = { indices: new Int32Array(values.length), values: new Float32Array(values.length) };
    const n_kept = new Int32Array(counts.length);
    const first = new Float32Array(counts.length * this.#n_dists);
    let at = 0;
    for (let row = 0; row < counts.length; row++) {
      const start = at;
      for (let entry = row_starts[row]!; counts[row] && entry < row_starts[row + 1]!; entry++) {
        const [latent, value] = [indices[entry]!, values[entry]!];
        if (value === 0) continue;
        if (latent < this.#n_dists) first[row * this.#n_dists + latent] = value;
        kept.indices[at] = latent;
        kept.values[at++] = value;
      }
      n_kept[row] = at - start;
    }
    const distributions = littleEndianBytes(first);
    await this.#write("indices", littleEndianBytes(kept.indices.subarray(0, at)));
    await this.#write("values", littleEndianBytes(kept.values.subarray(0, at)));
    await this.#write("counts", littleEndianBytes(n_kept));
    await this.#write("distributions", distributions);
    this.#crc32 = crc32(distributions, this.#crc32);
    this.#n_rows += counts.length;
    this.#n_entries += at;
  }

  async #write(name: typeof PARTS[number], bytes: Uint8Array): Promise<void> {
    const file = this.#files.get(name)!;
    for (let at = 0; at < bytes.length;) {
      at += await file.write(bytes.subarray(at)).catch((cause: Error) => {
        throw new Error(
          `writing ${this.#folder}/${name}: ${cause.message}; the rows saved before are intact, and the same command continues from them`,
          {
            cause,
          },
        );
      });
    }
  }

  /** Flushes the parts to disk, and only then records their length. */
  async save(state: Pick<SavedState, "identity" | "adapters" | "sums">): Promise<void> {
    for (const file of this.#files.values()) await file.syncData();
    const [n_rows, n_entries] = [this.#n_rows, this.#n_entries];
    const saved: SavedState = { saev_nn_encoding: 1, ...state, n_rows, n_entries, crc32: this.#crc32 };
    await writeBytes(`${this.#folder}/${STATE}`, [utf8(JSON.stringify(saved))]);
  }

  /** `token_acts.npz`, [rows, d_sae], read from the parts as it is written. */
  matrix(d_sae: number): FilePart {
    return formatScipyCsr({
      shape: [this.#n_rows, d_sae],
      n_entries: this.#n_entries,
      counts: () => this.#integers("counts"),
      indices: () => this.#integers("indices"),
      values: () => this.#pieces("values"),
    });
  }

  /** `distributions.pt`, [rows, n_dists], likewise. */
  distributions(): FilePart[] {
    const shape = [this.#n_rows, this.#n_dists];
    const length = this.#n_rows * this.#n_dists;
    const data = { length, crc32: this.#crc32, pieces: () => this.#pieces("distributions") };
    return formatTorchTensor("distributions", { shape, data });
  }

  async *#integers(name: typeof PARTS[number]): AsyncGenerator<Float64Array> {
    for await (const piece of this.#pieces(name)) yield readIntegers(piece, "int32", true);
  }

  /** The bytes of a part. */
  async *#pieces(name: typeof PARTS[number]): AsyncGenerator<Uint8Array> {
    const file = this.#files.get(name)!;
    const size = this.#sizeOf(name);
    await file.seek(0, Deno.SeekMode.Start);
    for (let at = 0; at < size;) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, size - at));
      for (let filled = 0; filled < piece.length;) {
        const count = await file.read(piece.subarray(filled));
        if (count === null) throw new CheckpointError(`reading ${this.#folder}/${name}: it ends before byte ${size}`);
        filled += count;
      }
      at += piece.length;
      yield piece;
    }
  }

  /** Closes them. */
  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.close();
  }
}

// ----------------------------------------------------------------------------------------------------------- the folder

/** The content of the output folder. */
interface FoundOutputs {
  readonly names: ReadonlySet<string>;
  /** The parsed `config.json`; `undefined` if it is not this library's. */
  readonly config: { readonly identity: Identity; readonly n_entries: number } | undefined;
  readonly metrics: TokenMetrics | undefined;
  readonly state: SavedState | null;
}

async function findOutputs(out: string): Promise<FoundOutputs> {
  const names = new Set(await Array.fromAsync(Deno.readDir(out), ({ name }) => name));
  const config = await readJson(`${out}/config.json`) as
    | { readonly saev_nn?: { readonly identity?: Identity; readonly n_entries?: number } }
    | undefined;
  const { identity, n_entries } = config?.saev_nn ?? {};
  const state = await readJson(`${out}/${PARTIAL}/${STATE}`) as SavedState | undefined;
  return {
    names,
    config: identity !== undefined && n_entries !== undefined ? { identity, n_entries } : undefined,
    metrics: await readJson(`${out}/metrics.json`) as TokenMetrics | undefined,
    state: state?.saev_nn_encoding === 1 ? state : null,
  };
}

/** `undefined` if the file is missing or not JSON. */
async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * The result of a complete encoding; `undefined` if there is none, or only parts of one.
 *
 * @throws {RangeError} if the folder holds something else.
 */
function checkFound(
  out: string,
  { names, config, metrics, state }: FoundOutputs,
  identity: Identity,
): Pick<EncodingResult, "metrics" | "n_entries"> | undefined {
  const refuse = (what: string): never => {
    throw new RangeError(`encoding into ${out}: found ${what}; choose another folder, or give ${REMEDIES.overwrite}`);
  };
  const there = config?.identity ?? state?.identity;
  if (there === undefined) {
    const other = OUTPUTS.find((name) => names.has(name));
    return other === undefined ? undefined : refuse(`${other}, which this library did not write`);
  }
  for (const [field, what] of DIFFERENCES) {
    if (JSON.stringify(there[field]) !== JSON.stringify(identity[field])) refuse(`codes ${what(there)}`);
  }
  const isWhole = config && metrics && OUTPUTS.every((name) => names.has(name));
  return isWhole ? { metrics, n_entries: config.n_entries } : undefined;
}

/** How other codes can differ, and the words for it. */
const DIFFERENCES: readonly (readonly [field: keyof Identity, what: (there: Identity) => string])[] = [
  ["model", () => "of another model"],
  ["d_sae", () => "of another model"],
  ["rows", ({ rows: { n_rows, d_model } }) => `of other rows, ${n_rows} of ${d_model}`],
  ["ignore_labels", ({ ignore_labels }) => `without the labels ${ignore_labels.join(", ") || "none"}`],
  ["labels", () => "of other labels"],
  ["n_dists", ({ n_dists }) => `with distributions of ${n_dists} latents`],
];

/** Removes the outputs, first the one that marks them as complete. */
async function removeOutputs(out: string): Promise<void> {
  for (const name of OUTPUTS.toReversed()) await removeIfThere(`${out}/${name}`);
  await removePartial(out);
}

/** Removes the parts, the state first. */
async function removePartial(out: string): Promise<void> {
  await removeIfThere(`${out}/${PARTIAL}/${STATE}`);
  for (const name of PARTS) await removeIfThere(`${out}/${PARTIAL}/${name}`);
  await Deno.remove(`${out}/${PARTIAL}`).catch(() => {});
  await syncFolder(out);
}

/** Removes files that a killed encoding left half written. */
async function removeLeftovers(out: string): Promise<void> {
  const names: string[] = [...OUTPUTS, STATE];
  for (const folder of [out, `${out}/${PARTIAL}`]) {
    const found = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name).catch(() => []);
    for (const name of found) if (names.includes(targetOf(name))) await removeIfThere(`${folder}/${name}`);
  }
}

async function removeIfThere(path: string): Promise<void> {
  await Deno.remove(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

// ------------------------------------------------------------------------------------------------------------- the texts

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** In upstream's layout; an undefined number is null. */
function metricsText(metrics: TokenMetrics): string {
  const isInteger = ["n_tokens", "d_model", "n_elements"];
  const fields = Object.entries(metrics).map(([name, value]) => {
    const text = Number.isFinite(value) ? isInteger.includes(name) ? value : new PythonFloat(value) : null;
    return `  ${JSON.stringify(name)}: ${formatHeader(text, "orjson")}`;
  });
  return `{\n${fields.join(",\n")}\n}`;
}

/** Upstream's fields, and one of our own that identifies the codes. */
function configText(
  { about: { run, shards, tokens, layer }, batch_size = 2048 }: EncodingPlan,
  { identity, adapters, n_entries }: {
    readonly identity: Identity;
    readonly adapters: readonly string[];
    readonly n_entries: number;
  },
): string {
  const data = {
    shards,
    tokens,
    layer,
    batch_size,
    batch_timeout_s: new PythonFloat(30),
    drop_last: false,
    buffer_size: 64,
    debug: false,
    log_every_s: new PythonFloat(30),
  };
  const { n_dists, ignore_labels } = identity;
  const config = {
    run,
    data,
    n_dists,
    ignore_labels,
    force_recompute: false,
    save: true,
    device: "webgpu",
    slurm_acct: "",
    slurm_partition: "",
    n_hours: new PythonFloat(4),
    mem_gb: 80,
    log_to: "./logs",
    saev_nn: { version: VERSION, adapters, n_entries, identity: identity as unknown as HeaderValue },
  };
  return formatHeader(config, "orjson");
}
