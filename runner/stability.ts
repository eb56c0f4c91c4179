/**
 * The stability of runs, each number beside its value before training.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { readBytes, writeBytes } from "../io/files.ts";
import { CheckpointError } from "../io/errors.ts";
import { measureStability, type Stability, type StabilityMember, stabilityMember } from "../eval/stability.ts";
import type { RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";

/** What sums a {@link Stability} up. */
export type StabilityNumbers = Pick<
  Stability,
  "mean_best" | "mean_recurrence" | "share_in_all" | "mean_assigned" | "mean_jaccard"
>;

/** What `saev stability` finds and writes. */
export interface StabilityFile {
  /** Version of this format. */
  readonly saev_stability: 1;
  /** What the models are called. */
  readonly models: readonly string[];
  /** From which cosine on a latent recurs. */
  readonly threshold: number;
  /** The rows that shared examples were counted on; `null` without. */
  readonly data: string | null;
  /** Of the models as they are. */
  readonly trained: StabilityNumbers;
  /** Of the same models before training; `null` where one of them is not known as it was. */
  readonly initial: StabilityNumbers | null;
  /** Every pair of models as they are. */
  readonly pairs: readonly (
    & Pick<Stability["pairs"][number], "members" | "mean_best" | "share_recurring">
    & Pick<Stability["pairs"][number]["assignment"], "is_exact" | "mean_cosine" | "cost" | "mean_jaccard">
  )[];
  /** [models][latents], the share of the other models in which each latent recurs. */
  readonly recurrence: readonly (readonly number[])[];
}

/** A model to compare. */
export interface StableModel {
  /** What it is called. */
  readonly name: string;
  /** Opens it. */
  readonly open: () => Promise<SparseAutoencoder>;
  /** Makes it as it was before training, from the trained one; `null` where that is not known. */
  readonly untrained: ((trained: SparseAutoencoder) => Promise<SparseAutoencoder>) | null;
}

/** How {@link compareStability} compares. */
export interface CompareStabilityOptions {
  /** From which cosine on a latent recurs; 0.7 if left out. */
  readonly threshold?: number;
  /** Strongest examples of each latent; 16 if left out. */
  readonly k?: number;
  /** What shared examples are counted on: its name, and what opens it once the width of the first model's rows is known. */
  readonly data?: { readonly name: string; readonly open: (d_model: number) => Promise<RowSource> };
  /** Ends it with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Told how many models have been read, and pairs compared. */
  readonly onProgress?: (done: number, of: number) => void;
}

/**
 * Compares models, one of which is on the device at a time.
 *
 * @throws {RangeError | ShapeError | DeviceError} as `stabilityMember` and `measureStability`, and what `data.open` throws.
 * @throws {unknown} the signal's reason, once it is aborted.
 */
export async function compareStability(
  models: readonly StableModel[],
  options: CompareStabilityOptions = {},
): Promise<StabilityFile> {
  checkOptions("compareStability", options, { threshold: true, k: true, data: true, signal: true, onProgress: true });
  const { threshold = 0.7, k = 16, data, signal, onProgress } = options;
  const knowsInitial = models.every(({ untrained }) => untrained !== null);
  const total = models.length;
  const [trained, initial]: [StabilityMember[], StabilityMember[]] = [[], []];
  let rows: RowSource | undefined;
  onProgress?.(0, total);
  for (const { open, untrained } of models) {
    using sae = await open();
    rows ??= await data?.open(sae.cfg.d_model);
    const ofMember = { k, ...rows && { rows }, ...signal && { signal } };
    trained.push(await stabilityMember(sae, ofMember));
    if (knowsInitial) {
      using before = await untrained!(sae);
      initial.push(await stabilityMember(before, ofMember));
    }
    onProgress?.(trained.length, total);
  }
  const compared = await measureStability(trained, { threshold, ...signal && { signal } });
  const before = knowsInitial ? await measureStability(initial, { threshold, ...signal && { signal } }) : null;
  return {
    saev_stability: 1,
    models: models.map(({ name }) => name),
    threshold,
    data: data?.name ?? null,
    trained: numbersOf(compared),
    initial: before && numbersOf(before),
    pairs: compared.pairs.map((
      { best: _, nearest: _nearest, assignment: { latents: _latents, ...assignment }, ...pair },
    ) => ({
      ...pair,
      ...assignment,
    })),
    recurrence: compared.recurrence.map((shares) => Array.from(shares)),
  };
}

function numbersOf({ threshold: _, pairs: _pairs, recurrence: _recurrence, ...numbers }: Stability): StabilityNumbers {
  return numbers;
}

/** Writes it; an older file there is replaced at once. */
export async function writeStability(path: string, file: StabilityFile): Promise<void> {
  await writeBytes(path, [new TextEncoder().encode(`${JSON.stringify(file)}\n`)]);
}

/**
 * Reads a file that `saev stability --out` wrote.
 *
 * @throws {CheckpointError} if it has another version.
 */
export async function readStability(path: string): Promise<StabilityFile> {
  const text = new TextDecoder().decode(await readBytes(path));
  try {
    const file = JSON.parse(text) as StabilityFile;
    if (file.saev_stability === 1 && file.models.length === file.recurrence.length) return file;
  } catch {
    // Then it is none.
  }
  throw new CheckpointError(`reading ${path}: expected a file that saev stability --out wrote`);
}
