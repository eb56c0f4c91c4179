/**
 * Reductions over whole arrays, over rows and over columns, in an order that the shape alone fixes.
 *
 * @module
 */

import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOnce, writes } from "./engine/kernel.ts";
import { rowsPerBlock, spans, type Tensor } from "./engine/tensor.ts";
import { perVectorWidth } from "./engine/vector_width.ts";
import { largestWgsl, totalOnceWgsl } from "./engine/wgsl.ts";

const THREADS = 256;
/** Elements of one workgroup of the first stage. */
const CHUNK = 16384;
/** The most elements of one dispatch of the second stage: a software driver ends loops at 65,535 turns. */
const MAX_TERMS = 32768 * THREADS;

/** Invocations that share a row, and the columns that they can read in that many turns. */
const ROW_THREADS = 64;
const MAX_COLUMNS = 65_000 * ROW_THREADS;

/** How many partial results {@link maxAbsBits} needs for `size` elements. */
export function chunksOf(size: number): number {
  return Math.max(1, Math.ceil(size / CHUNK));
}

/** WGSL: the power of two at or below the largest |x| of {@link maxAbsBits}, kept where it and its inverse are normal numbers. */
export const SCALE_WGSL = `
fn scale_exponent(bits: u32) -> u32 { return clamp(bits >> 23u, 87u, 253u); }
fn scale_of(bits: u32) -> f32 { return bitcast<f32>(scale_exponent(bits) << 23u); }
fn inverse_scale_of(bits: u32) -> f32 { return bitcast<f32>((254u - scale_exponent(bits)) << 23u); }
`;

/**
 * bits[0] = the largest |x| as f32 bits, which for NaN and infinities are those of NaN and infinity.
 *
 * The integer order of the bits is the order of the absolute values, with NaN at the top, so the result does not depend
 * on the order of the reduction.
 */
export function maxAbsBits(commands: Commands, x: Tensor, partials: Tensor<"u32">, bits: Tensor<"u32">): void {
  const [rows = 0] = x.shape;
  const block = rowsPerBlock(commands.context, rows, x.rowSize * 4, x.label);
  for (const { from, to } of spans(rows, block)) {
    const size = (to - from) * x.rowSize;
    commands.run(maxAbsKernel(size), {
      size,
      chunks: chunksOf(size),
      partialsSize: partials.size,
      x: x.rows(from, to),
      partials,
    });
    commands.run(maxKernel, {
      size: chunksOf(size),
      accumulate: Number(from > 0),
      partialsSize: partials.size,
      partials,
      bits,
    });
  }
}

const maxAbsKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "max_abs_chunks",
    dims: ["size", "chunks", "partialsSize"],
    bindings: { x: readsOnce(element, "size"), partials: writes("u32", "partialsSize") },
    workgroup: THREADS,
    grid: ({ chunks }) => chunks,
    cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
    declarations: largestWgsl(THREADS),
    body: `
  let end = min((group + 1u) * ${CHUNK}u, dims.size) / ${scalars}u;
  var most = 0u;
  for (var i = group * ${CHUNK / scalars}u + lane; i < end; i += ${THREADS}u) {
    ${
      scalars === 1
        ? "most = max(most, bitcast<u32>(x[i]) & 0x7fffffffu);"
        : `let bits = bitcast<vec4u>(x[i]) & vec4u(0x7fffffffu);
    most = max(max(max(bits.x, bits.y), max(bits.z, bits.w)), most);`
    }
  }
  let all = largest(lane, most);
  if (lane == 0u) { partials[group] = all; }`,
  })
);

const maxKernel = defineKernel({
  name: "max",
  dims: ["size", "accumulate", "partialsSize"],
  bindings: { partials: reads("u32", "partialsSize"), bits: writes("u32", "1") },
  workgroup: THREADS,
  grid: () => 1,
  cost: ({ size }) => ({ flops: 0, bytes: 4 * size }),
  declarations: largestWgsl(THREADS),
  body: `
  var most = 0u;
  for (var i = lane; i < dims.size; i += ${THREADS}u) { most = max(most, partials[i]); }
  let all = largest(lane, most);
  if (lane == 0u) { bits[0] = select(all, max(all, bits[0]), dims.accumulate == 1u); }`,
});

/** Arguments of {@link rowMaxAbsBits}. */
export interface RowMaxAbsArguments {
  /** [rows, columns] */
  readonly x: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Index of the first row in the whole matrix. */
  readonly firstRow: number;
  /** [allRows] */
  readonly bits: Bindable;
  /** Rows of the whole matrix. */
  readonly allRows: number;
}

/**
 * bits[firstRow + r] = the largest |x[r, c]| off the whole matrix's diagonal, c ≠ firstRow + r, as f32 bits like those of
 * {@link maxAbsBits}; 0 where there is none.
 *
 * @throws {RangeError} for rows of more than 4,160,000 columns.
 */
export function rowMaxAbsBits(commands: Commands, given: RowMaxAbsArguments): void {
  if (given.columns > MAX_COLUMNS) {
    throw new RangeError(`row maxima: rows must have at most ${MAX_COLUMNS} columns, found ${given.columns}`);
  }
  commands.run(rowMaxAbsKernel, { ...given });
}

const rowMaxAbsKernel = defineKernel({
  name: "row_max_abs",
  dims: ["rows", "columns", "firstRow", "allRows"],
  bindings: { x: readsOnce("f32", "rows columns"), bits: writes("u32", "allRows") },
  workgroup: ROW_THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 0, bytes: 4 * rows * columns }),
  declarations: largestWgsl(ROW_THREADS),
  body: `
  let diagonal = dims.firstRow + group;
  var most = 0u;
  for (var c = lane; c < dims.columns; c += ${ROW_THREADS}u) {
    let word = bitcast<u32>(x[group * dims.columns + c]) & 0x7fffffffu;
    if (c != diagonal) { most = max(most, word); }
  }
  let all = largest(lane, most);
  if (lane == 0u) { bits[diagonal] = all; }`,
});

/** Arguments of {@link sum}. */
export interface SumArguments {
  /** [size] */
  readonly x: Bindable;
  /** Elements. */
  readonly size: number;
  /** [results] */
  readonly into: Bindable;
  /** Elements of `into`. */
  readonly results: number;
  /** Which element is written. */
  readonly at: number;
}

/** into[at] = Σ x, each of 256 invocations a strided part, then a tree. */
export function sum(commands: Commands, { x, size, into, results, at }: SumArguments): void {
  if (size > MAX_TERMS) throw new RangeError(`a sum must have at most ${MAX_TERMS} terms, found ${size}`);
  commands.run(sumKernel, { size, results, at, x, into });
}

const sumKernel = defineKernel({
  name: "sum",
  dims: ["size", "results", "at"],
  bindings: { x: reads("f32", "size"), into: writes("f32", "results") },
  workgroup: THREADS,
  grid: () => 1,
  cost: ({ size }) => ({ flops: size, bytes: 4 * size }),
  declarations: totalOnceWgsl(THREADS),
  body: `
  var part = 0.0;
  for (var i = lane; i < dims.size; i += ${THREADS}u) { part += x[i]; }
  let all = total_once(lane, part);
  if (lane == 0u) { into[dims.at] = all; }`,
});

/** Arguments of {@link columnSums}. */
export interface ColumnSumsArguments {
  /** [rows, stride] */
  readonly x: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Elements from one row to the next. */
  readonly stride: number;
  /** First column. */
  readonly offset: number;
  /** Columns. */
  readonly columns: number;
  /** [columns] */
  readonly result: Bindable;
  /** Whether sums start from what the result holds. */
  readonly accumulate: boolean;
  /** [1], how many columns are wanted, if only the GPU knows; the result for the others is undefined. */
  readonly count?: Tensor<"u32">;
}

/** result[c] = Σ_r x[r, offset + c], one accumulator a column over ascending rows. */
export function columnSums(commands: Commands, given: ColumnSumsArguments): void {
  const { x, rows, stride, offset, columns, result, accumulate, count } = given;
  const kernel = columnSumsKernel(stride, offset, columns);
  // A driver may end loops at 65,535 turns: each dispatch continues the sums of the previous one.
  for (let from = 0; from === 0 || from < rows; from += 32768) {
    commands.run(
      kernel,
      {
        rows,
        stride,
        offset,
        columns,
        begin: from,
        end: Math.min(from + 32768, rows),
        accumulate: Number(accumulate || from > 0),
        x,
        result,
      },
      count && { count, per: COLUMNS, times: 1 },
    );
  }
}

/** Columns of a workgroup. */
const COLUMNS = 32;

const columnSumsKernel = perVectorWidth(({ element, scalars }) =>
  defineKernel({
    name: "column_sums",
    dims: ["rows", "stride", "offset", "columns", "begin", "end", "accumulate"],
    bindings: { x: readsOnce(element, "rows stride"), result: writes(element, "columns") },
    workgroup: COLUMNS / scalars,
    grid: ({ columns }) => Math.ceil(columns / COLUMNS),
    cost: ({ rows, columns }) => ({ flops: rows * columns, bytes: 4 * rows * columns }),
    body: `
  let column = group * ${COLUMNS / scalars}u + lane;
  if (column >= dims.columns / ${scalars}u) { return; }
  var sum = ${element}(0.0);
  if (dims.accumulate == 1u) { sum = result[column]; }
  for (var row = dims.begin; row < dims.end; row += 1u) {
    sum += x[(row * dims.stride + dims.offset) / ${scalars}u + column];
  }
  result[column] = sum;`,
  })
);

/** Arguments of {@link subtractWeightedRows}. */
export interface SubtractWeightedRowsArguments {
  /** [rows] */
  readonly weights: Bindable;
  /** [rows, columns] */
  readonly matrix: Bindable;
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** [columns] */
  readonly result: Bindable;
}

/** result[c] −= Σ_r weights[r] · matrix[r, c], one accumulator a column over ascending rows. */
export function subtractWeightedRows(commands: Commands, given: SubtractWeightedRowsArguments): void {
  for (let from = 0; from < given.rows; from += 32768) {
    commands.run(subtractWeightedRowsKernel, { ...given, begin: from, end: Math.min(from + 32768, given.rows) });
  }
}

const subtractWeightedRowsKernel = defineKernel({
  name: "subtract_weighted_rows",
  dims: ["rows", "columns", "begin", "end"],
  bindings: {
    weights: reads("f32", "rows"),
    matrix: readsOnce("f32", "rows columns"),
    result: writes("f32", "columns"),
  },
  workgroup: 32,
  grid: ({ columns }) => Math.ceil(columns / 32),
  cost: ({ rows, columns }) => ({ flops: 2 * rows * columns, bytes: 4 * rows * columns }),
  body: `
  let column = group * 32u + lane;
  if (column >= dims.columns) { return; }
  var sum = result[column];
  for (var row = dims.begin; row < dims.end; row += 1u) {
    sum = fma(-weights[row], matrix[row * dims.columns + column], sum);
  }
  result[column] = sum;`,
});
