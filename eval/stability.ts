/**
 * What dictionaries trained with different seeds have in common.
 *
 * With unit decoder rows ŵ, the best match of latent i of A in B is `s_i = max_j ⟨ŵ_i^A, ŵ_j^B⟩`. A latent recurs in B
 * if s_i ≥ τ. An assignment pairs each latent of the smaller dictionary with one of the other so that Σ ⟨ŵ_i, ŵ_π(i)⟩
 * is maximal; its cost is Σ (1 − ⟨ŵ_i, ŵ_π(i)⟩) / S. Paired latents behave alike if they fire most strongly on the same
 * examples: |E_i ∩ E_j| / |E_i ∪ E_j|, where E are the K strongest of each.
 *
 * All of these are above 0 even for untrained dictionaries, so compare them with the same numbers before training.
 *
 * @module
 */

import { DeviceError, ShapeError, shown } from "../kernels/engine/errors.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import type { RowSource } from "../nn/rows.ts";
import type { SparseAutoencoder } from "../nn/sparse_autoencoder.ts";
import { type Candidates, greedyAssignment, largestAssignment } from "./assignment.ts";
import { cosineTiles, rowsAt, unitRows } from "./cosines.ts";
import { largestOf } from "./largest.ts";
import { topRows } from "./latents.ts";

/** The largest dictionary with an exact assignment, which needs all cosines at once: 64 MiB. */
export const MAX_EXACT_LATENTS = 4096;

/** Best columns kept per row for the greedy assignment. */
const N_CANDIDATES = 32;

/** The part of a model that {@link measureStability} compares. It stays valid after the model is disposed of. */
export interface StabilityMember {
  /** Width of the inputs. */
  readonly d_model: number;
  /** Number of latents. */
  readonly d_sae: number;
  /** [S, D], rows of unit length. */
  readonly unit_SD: Float32Array;
  /**
   * For each latent, the first rows of the examples on which it fires most strongly, in ascending order; `null` if no
   * rows were given.
   */
  readonly examples: readonly Float64Array[] | null;
  /** The device context used for the comparison. */
  readonly context: DeviceContext;
}

/** What to compare besides the decoder. */
export interface StabilityMemberOptions {
  /** Rows that show on which examples latents fire. If the source has no examples, each row is one. */
  readonly rows?: RowSource;
  /** Strongest examples per latent; 16 if left out. */
  readonly k?: number;
  /** Stops after the current batch. */
  readonly signal?: AbortSignal;
}

/**
 * Extracts from a model what is to be compared.
 *
 * @throws {RangeError} if W_dec has a value that is not finite, or `k` is not a positive integer.
 * @throws {ShapeError} if the rows do not have width d_model.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function stabilityMember(
  sae: SparseAutoencoder,
  options: StabilityMemberOptions = {},
): Promise<StabilityMember> {
  checkOptions("stabilityMember", options, { rows: true, k: true, signal: true });
  const { rows, k = 16, signal } = options;
  const { cfg: { d_model, d_sae }, context } = sae;
  const unit_SD = unitRows(await sae.parameters.W_dec.read(), d_model);
  const bad = unit_SD.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`W_dec must be finite, found ${unit_SD[bad]} in row ${Math.floor(bad / d_model)}`);
  if (!rows) return { d_model, d_sae, unit_SD, examples: null, context };
  const top = await topRows(sae, rows, { k, oneOfExample: true, ...signal && { signal } });
  const examples = Array.from(
    { length: d_sae },
    (_, latent) => {
      const firing = top.of(latent).filter(({ value }) => value > 0);
      return Float64Array.from(firing, ({ row }) => rows.exampleStart?.(row) ?? row).sort();
    },
  );
  return { d_model, d_sae, unit_SD, examples, context };
}

/** How two dictionaries match. */
export interface PairStability {
  /** Indices of the two in the list, the first before the second. */
  readonly members: readonly [a: number, b: number];
  /** [S_A] and [S_B], the cosine of each latent's best match in the other dictionary. */
  readonly best: readonly [a: Float32Array, b: Float32Array];
  /** [S_A] and [S_B], the latent that is the best match. */
  readonly nearest: readonly [a: Uint32Array, b: Uint32Array];
  /** The mean of `best` over the latents of both. */
  readonly mean_best: number;
  /** The share of the latents of both whose best match reaches the threshold. */
  readonly share_recurring: number;
  /** Latents paired one to one. */
  readonly assignment: {
    /** Whether the sum of cosines is maximal; otherwise the pairs were chosen greedily. */
    readonly is_exact: boolean;
    /** [S_A], the latent of B, or −1 for unpaired latents. */
    readonly latents: Int32Array;
    /** The mean cosine of the pairs. */
    readonly mean_cosine: number;
    /** Mean of 1 − cos over the pairs. */
    readonly cost: number;
    /** The mean Jaccard index of the pairs' strongest examples; `null` without examples or if nothing fires. */
    readonly mean_jaccard: number | null;
  };
}

/** What several dictionaries have in common. */
export interface Stability {
  /** A latent recurs from this cosine on. */
  readonly threshold: number;
  /** Every pair. */
  readonly pairs: readonly PairStability[];
  /** [S] for each dictionary: the share of the other dictionaries in which a latent recurs. */
  readonly recurrence: readonly Float32Array[];
  /** The mean of `pairs[].mean_best`. */
  readonly mean_best: number;
  /** The mean of `recurrence`, over all latents of all dictionaries. */
  readonly mean_recurrence: number;
  /** The share of all latents that recur in every other dictionary. */
  readonly share_in_all: number;
  /** The mean of `pairs[].assignment.mean_cosine`. */
  readonly mean_assigned: number;
  /** The mean of `pairs[].assignment.mean_jaccard`; `null` if none has one. */
  readonly mean_jaccard: number | null;
}

/** Options of {@link measureStability}. */
export interface StabilityOptions {
  /** A latent recurs from this cosine on; 0.7 if left out. */
  readonly threshold?: number;
  /** Stops with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called with the number of pairs done. */
  readonly onProgress?: (done: number, pairs: number) => void;
}

/**
 * Compares dictionaries with each other.
 *
 * @example
 * ```ts
 * import { SparseAutoencoder } from "@saev/nn";
 * import { rowsOf } from "@saev/nn/data";
 * import { measureStability, stabilityMember } from "@saev/nn/eval";
 *
 * const rows = rowsOf(Float32Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i * i)), 8);
 * const members = [];
 * for (const seed of [0, 1, 2]) {
 *   using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32 }, { seed }); // or await load(path)
 *   members.push(await stabilityMember(sae, { rows }));
 * }
 * const { mean_best, mean_recurrence, share_in_all } = await measureStability(members);
 * console.log(mean_best, mean_recurrence, share_in_all);
 * ```
 *
 * @throws {RangeError} for fewer than two members, or a threshold outside −1 to 1.
 * @throws {ShapeError} if they differ in d_model.
 * @throws {DeviceError} if they are on different devices, or the GPU is lost.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function measureStability(
  members: readonly StabilityMember[],
  options: StabilityOptions = {},
): Promise<Stability> {
  checkOptions("measureStability", options, { threshold: true, signal: true, onProgress: true });
  const { threshold = 0.7, signal, onProgress } = options;
  checkMembers(members, threshold);
  const nPairs = members.length * (members.length - 1) / 2;
  const recurrence = members.map(({ d_sae }) => new Float32Array(d_sae));
  const pairs: PairStability[] = [];
  for (const [a, member] of members.entries()) {
    for (let b = a + 1; b < members.length; b++) {
      const pair = await comparePair([a, b], [member, members[b]!], { threshold, signal });
      pairs.push(pair);
      for (const [side, at] of pair.members.entries()) {
        for (const [latent, cosine] of pair.best[side]!.entries()) {
          if (cosine >= threshold) recurrence[at]![latent]! += 1;
        }
      }
      onProgress?.(pairs.length, nPairs);
    }
  }
  const nLatents = recurrence.reduce((sum, { length }) => sum + length, 0);
  const others = members.length - 1;
  let [recurring, inAll] = [0, 0];
  for (const counts of recurrence) {
    for (const [latent, count] of counts.entries()) {
      recurring += count / others;
      if (count === others) inAll++;
      counts[latent] = count / others;
    }
  }
  const jaccards = pairs.flatMap(({ assignment }) => assignment.mean_jaccard ?? []);
  return {
    threshold,
    pairs,
    recurrence,
    mean_best: mean(pairs.map((pair) => pair.mean_best)),
    mean_recurrence: recurring / nLatents,
    share_in_all: inAll / nLatents,
    mean_assigned: mean(pairs.map(({ assignment }) => assignment.mean_cosine)),
    mean_jaccard: jaccards.length === 0 ? null : mean(jaccards),
  };
}

function checkMembers(members: readonly StabilityMember[], threshold: number): void {
  if (members.length < 2) throw new RangeError(`stability takes two models or more, found ${members.length}`);
  if (!(threshold >= -1 && threshold <= 1)) {
    throw new RangeError(`threshold must be a cosine from -1 to 1, found ${shown(threshold)}`);
  }
  const { d_model, context } = members[0]!;
  for (const [i, member] of members.entries()) {
    if (member.d_model !== d_model) {
      throw new ShapeError(
        `model 0 has d_model ${d_model}, model ${i} has ${member.d_model}; expected the same d_model`,
      );
    }
    if (member.context !== context) throw new DeviceError(`model ${i} is on another device than model 0`);
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function comparePair(
  places: readonly [number, number],
  [a, b]: readonly [StabilityMember, StabilityMember],
  { threshold, signal }: { readonly threshold: number; readonly signal: AbortSignal | undefined },
): Promise<PairStability> {
  // The assignment needs at least as many columns as rows.
  const isSwapped = a.d_sae > b.d_sae;
  const [few, many] = isSwapped ? [b, a] : [a, b];
  const [rows, columns] = [few.d_sae, many.d_sae];
  const isExact = columns <= MAX_EXACT_LATENTS;
  const all = isExact ? new Float32Array(rows * columns) : null;
  const first: Candidates[] = [];
  const ofRows = { best: new Float32Array(rows).fill(-Infinity), nearest: new Uint32Array(rows) };
  const ofColumns = { best: new Float32Array(columns).fill(-Infinity), nearest: new Uint32Array(columns) };
  for await (const tile of tilesOf(few, many, signal)) {
    all?.set(tile.cosines, tile.from * columns);
    for (let row = tile.from; row < tile.to; row++) {
      const cosines = tile.cosines.subarray((row - tile.from) * columns, (row - tile.from + 1) * columns);
      for (let column = 0; column < columns; column++) {
        const cosine = cosines[column]!;
        if (cosine > ofRows.best[row]!) [ofRows.best[row], ofRows.nearest[row]] = [cosine, column];
        if (cosine > ofColumns.best[column]!) [ofColumns.best[column], ofColumns.nearest[column]] = [cosine, row];
      }
      if (!isExact) first.push(bestOf(row, cosines));
    }
  }
  const assigned = all
    ? await largestAssignment(all, rows, columns, signal)
    : await greedyPairs(few, many, first, signal);
  let sum = 0;
  const latents = new Int32Array(a.d_sae).fill(-1);
  for (const [row, column] of assigned.entries()) {
    sum += cosineOf(few, row, many, column);
    latents[isSwapped ? column : row] = isSwapped ? row : column;
  }
  const [sideA, sideB] = isSwapped ? [ofColumns, ofRows] : [ofRows, ofColumns];
  const both = [...sideA.best, ...sideB.best];
  return {
    members: places,
    best: [sideA.best, sideB.best],
    nearest: [sideA.nearest, sideB.nearest],
    mean_best: mean(both),
    share_recurring: both.filter((cosine) => cosine >= threshold).length / both.length,
    assignment: {
      is_exact: isExact,
      latents,
      mean_cosine: sum / rows,
      cost: 1 - sum / rows,
      mean_jaccard: jaccardOf(a, b, latents),
    },
  };
}

interface CosineRows {
  readonly from: number;
  readonly to: number;
  /** [to − from, S of the other] */
  readonly cosines: Float32Array;
}

/** The cosines of some rows at a time. Rounding can push a cosine of 1 above 1. */
async function* tilesOf(
  a: Pick<StabilityMember, "unit_SD" | "d_model" | "context">,
  b: Pick<StabilityMember, "unit_SD">,
  signal: AbortSignal | undefined,
): AsyncGenerator<CosineRows> {
  const { d_model, context } = a;
  for await (const { rows, cosines } of cosineTiles(context, { a: a.unit_SD, b: b.unit_SD, d_model, signal })) {
    const read = await cosines.read((rows.to - rows.from) * cosines.rowSize);
    yield { ...rows, cosines: read.map((cosine) => Math.min(cosine, 1)) };
  }
}

/** The best columns of a row. */
function bestOf(row: number, cosines: Float32Array): Candidates {
  const columns = Uint32Array.from(largestOf(cosines, N_CANDIDATES));
  const values = Float32Array.from(columns, (column) => cosines[column]!);
  return { row, columns, values, isComplete: columns.length === cosines.length };
}

/** The greedy assignment; after the first round, only unpaired latents are compared. */
async function greedyPairs(
  few: StabilityMember,
  many: StabilityMember,
  first: readonly Candidates[],
  signal: AbortSignal | undefined,
): Promise<Uint32Array> {
  return await greedyAssignment(few.d_sae, async (rows, isFree) => {
    if (rows.length === few.d_sae) return first;
    const columns = Array.from({ length: many.d_sae }, (_, column) => column).filter(isFree);
    const left = { ...few, unit_SD: rowsAt(few.unit_SD, few.d_model, rows) };
    const found: Candidates[] = [];
    for await (const tile of tilesOf(left, { unit_SD: rowsAt(many.unit_SD, many.d_model, columns) }, signal)) {
      for (let i = tile.from; i < tile.to; i++) {
        const at = (i - tile.from) * columns.length;
        const best = bestOf(rows[i]!, tile.cosines.subarray(at, at + columns.length));
        found.push({ ...best, columns: best.columns.map((column) => columns[column]!) });
      }
    }
    return found;
  });
}

function cosineOf(a: StabilityMember, i: number, b: StabilityMember, j: number): number {
  const { d_model } = a;
  let sum = 0;
  for (let d = 0; d < d_model; d++) sum += a.unit_SD[i * d_model + d]! * b.unit_SD[j * d_model + d]!;
  return sum;
}

/** The mean over the pairs in which at least one latent fires. */
function jaccardOf(a: StabilityMember, b: StabilityMember, latents: Int32Array): number | null {
  if (a.examples === null || b.examples === null) return null;
  const found: number[] = [];
  for (const [latent, other] of latents.entries()) {
    if (other < 0) continue;
    const [left, right] = [new Set(a.examples[latent]), new Set(b.examples[other])];
    const union = left.union(right).size;
    if (union > 0) found.push(left.intersection(right).size / union);
  }
  return found.length === 0 ? null : mean(found);
}
