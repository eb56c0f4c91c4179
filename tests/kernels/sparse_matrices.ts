/**
 * Sparse matrices for tests of the kernels that take them: on the CPU, on the GPU, by row and by column.
 *
 * @module
 */

import type { Csr } from "../../kernels/csr.ts";
import { type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { paddedWithNaN, type Random } from "../support/random.ts";

/** Devices on which the kernels differ. */
export const VARIANTS: readonly Variant[] = [{}, { subgroups: false }, { lanes: 32 }, TEXTURES];

/** A sparse [rows, width] matrix on the CPU. */
export interface Sparse {
  readonly rows: number;
  readonly width: number;
  readonly starts: Uint32Array;
  readonly entryRows: Uint32Array;
  readonly indices: Uint32Array;
  readonly values: Float32Array;
}

/** Room beyond the entries, full of NaN and of indices that do not exist. */
export const ROOM = 5;

/** The values of so many entries. */
export type Values = (length: number) => Float32Array;

/** A sparse matrix with entries where `has` says so. */
export function sparse(
  rows: number,
  width: number,
  has: (row: number, column: number) => boolean,
  values: Values,
): Sparse {
  const starts = new Uint32Array(rows + 1);
  const entryRows: number[] = [];
  const indices: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < width; c++) {
      if (has(r, c)) {
        indices.push(c);
        entryRows.push(r);
      }
    }
    starts[r + 1] = indices.length;
  }
  return {
    rows,
    width,
    starts,
    entryRows: Uint32Array.from(entryRows),
    indices: Uint32Array.from(indices),
    values: values(indices.length),
  };
}

/** Followed by indices that do not exist. */
export function paddedWithOnes(values: Uint32Array): Uint32Array {
  const padded = new Uint32Array(values.length + ROOM).fill(0xffffffff);
  padded.set(values);
  return padded;
}

/** The same on the GPU. */
export function onGpu(gpu: Recording, given: Sparse): Csr {
  const { rows, starts, indices, values } = given;
  return {
    rows,
    capacity: indices.length + ROOM,
    starts: gpu.u32(starts),
    indices: gpu.u32(paddedWithOnes(indices)),
    values: gpu.f32(paddedWithNaN(values, ROOM)),
  };
}

/** Entries by column, on the CPU and on the GPU. */
export function columnsOnGpu(gpu: Recording, { rows, width, indices }: Sparse) {
  const starts = new Uint32Array(width + 1);
  for (const column of indices) starts[column + 1]!++;
  for (let c = 0; c < width; c++) starts[c + 1]! += starts[c]!;
  const next = starts.slice();
  const entries = new Uint32Array(indices.length);
  indices.forEach((column, e) => entries[next[column]!++] = e);
  return {
    rows,
    columns: width,
    capacity: indices.length + ROOM,
    starts: gpu.u32(starts),
    entries: gpu.u32(paddedWithOnes(entries)),
  };
}

/** Results of each element and Σ|terms|. */
export interface Sums {
  readonly want: Float64Array;
  readonly absSum: Float64Array;
}

/** Zeros. */
export function sums(size: number): Sums {
  return { want: new Float64Array(size), absSum: new Float64Array(size) };
}

/** Adds a term to one element. */
export function add({ want, absSum }: Sums, at: number, term: number): void {
  want[at]! += term;
  absSum[at]! += Math.abs(term);
}

/** Integers, as the values of a sparse matrix. */
export const integersOf = (random: Random): Values => (length) => random.integers(length);
/** Seeded normal numbers. */
export const normalOf = (random: Random): Values => (length) => random.normal(length);

/** `parts` ascending ends up to `width`, some of them equal to none. */
export function partEnds(random: Random, width: number, parts: number): Uint32Array {
  const inner = Array.from({ length: parts - 1 }, () => random.integer(1, width));
  return Uint32Array.from([...inner, width]).sort();
}

/** The first part whose end is above an index; the last part where none is. */
export const partOf = (ends: Uint32Array, index: number) =>
  Math.min(ends.length - 1, ends.findIndex((end) => index < end));
