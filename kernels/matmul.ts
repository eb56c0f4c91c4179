/**
 * Matrix products: C[M, N] = A · B, in any layout, with a bias, a ReLU, or added to what C holds.
 *
 * Each element of C is one f32 accumulator over ascending k by explicit `fma()`, then the epilogue. Tiles differ only in who
 * computes what, so all of them give the same bits.
 *
 * @module
 */

import type { Bindable, Commands, Counted } from "./engine/commands.ts";
import { KernelError, ShapeError } from "./engine/errors.ts";
import { Tensor } from "./engine/tensor.ts";
import { matmulKernel, type Variant } from "./matmul_kernel.ts";
import {
  blockOf,
  canHaveMaxima,
  canUse,
  chosenTile,
  defaultTile,
  isSpread,
  type Layout,
  MAXIMA_COLUMNS,
  maximaTile,
  SIDE,
  type TileName,
  TILES,
} from "./matmul_tiles.ts";

/** A row-major matrix inside a tensor or some of its rows. */
export interface Matrix {
  /** Where it is. */
  readonly in: Bindable;
  /** Elements from one row to the next; a tensor's own row size if left out. */
  readonly stride?: number;
  /** First element. */
  readonly offset?: number;
}

/** What is multiplied, and what happens to the result before it is stored. */
export interface MatmulArguments {
  /** How A and B lie. */
  readonly layout: Layout;
  /** Rows of C. */
  readonly M: number;
  /** Columns of C. */
  readonly N: number;
  /** Terms of each sum. */
  readonly K: number;
  /** Left factor. */
  readonly a: Matrix;
  /** Right factor. */
  readonly b: Matrix;
  /** Result. */
  readonly c: Matrix;
  /** [N], added to every row. */
  readonly bias?: Bindable;
  /** Negative results become 0; NaN stays. */
  readonly relu?: boolean;
  /** The sums start from what C holds. */
  readonly accumulate?: boolean;
  /**
   * [⌈N / {@link MAXIMA_COLUMNS}⌉, ≥ M] u32, which gets the largest key (`KEY_WGSL`) of each group of neighbouring
   * columns of C. A row of C is a column here, so that the maxima of one invocation are contiguous. Stride and offset
   * must be multiples of four; values between M and the next multiple of four are overwritten.
   */
  readonly maxima?: Matrix;
  /** Limits one of the sizes by a number on the GPU: elements beyond it are neither read nor written. */
  readonly limit?: Limit;
  /** Tile to compute with, which changes no bit; the device's choice for the shape if left out. */
  readonly tile?: TileName;
}

/** A size becomes the smaller of itself and `by[0]`. */
export interface Limit {
  /** Which. */
  readonly size: "M" | "N" | "K";
  /** [1] */
  readonly by: Tensor<"u32">;
}

/**
 * Arguments of {@link gatheredMatmul}: an `nt` product whose rows of B (and elements of the bias) are picked by a list
 * whose length only the GPU knows.
 */
export interface GatheredMatmulArguments {
  /** Rows of C. */
  readonly M: number;
  /** The most columns that can be listed. */
  readonly N: number;
  /** Terms of each sum. */
  readonly K: number;
  /** [M, K] */
  readonly a: Matrix;
  /** [any, K] */
  readonly b: Matrix;
  /** First row of B that is bound; listed rows outside the bound ones are left alone. */
  readonly firstRow: number;
  /** [M, N], of which the first `count` columns are written. */
  readonly c: Matrix;
  /** [any] */
  readonly bias: Bindable;
  /** [N], row numbers of B. */
  readonly rows: Bindable;
  /** [1], how many rows are listed. */
  readonly count: Tensor<"u32">;
}

/** Terms of one dispatch: a software driver ends loops at 65,535 turns, and a turn adds four terms. */
const MAX_TERMS = 65536;

/**
 * C = A · B [+ bias] [ReLU], or C += A · B.
 *
 * @throws {ShapeError} if a matrix does not lie inside its tensor.
 * @throws {KernelError} if the device cannot use the requested tile.
 */
export function matmul(commands: Commands, given: MatmulArguments): void {
  const { layout, M, N, K, bias, relu = false, limit } = given;
  if (M === 0 || N === 0) return;
  if (limit?.size === "K" && K > MAX_TERMS) {
    throw new ShapeError(`product: a limited K must be at most ${MAX_TERMS}, found ${K}`);
  }
  const a = place("A", given.a, layout === "tn" ? K : M, layout === "tn" ? M : K);
  const b = place("B", given.b, layout === "nt" ? N : K, layout === "nt" ? K : N);
  const c = place("C", given.c, M, N);
  const maxima = given.maxima && place("the maxima", given.maxima, Math.ceil(N / MAXIMA_COLUMNS), 4 * Math.ceil(M / 4));
  if (maxima?.aligned === false) {
    throw new ShapeError("product: stride and offset of the maxima must be multiples of 4");
  }
  const chosen = given.tile ?? chosenTile(commands.context, { layout, M, N, K }, a.aligned);
  const tile = maxima && !canHaveMaxima(layout, TILES.get(chosen)!) ? maximaTile(commands.context, a.aligned) : chosen;
  if (!canUse(commands.context, TILES.get(tile)!, a.aligned)) {
    throw new KernelError(`product: ${tile} needs subgroups of eight, and rows of A that start at multiples of four`);
  }
  const counted = limit && countedBlocks(commands, tile, { M, N }, limit);
  // Beyond the limit of a driver's loops, each dispatch continues the sums of the previous one.
  for (let from = 0; from === 0 || from < K; from += MAX_TERMS) {
    const last = from + MAX_TERMS >= K;
    const kernel = matmulKernel({
      layout,
      vectorA: a.aligned,
      vectorB: b.aligned,
      vectorC: c.aligned && N % 4 === 0 && !isSpread(layout, TILES.get(tile)!),
      tail: K % 4 !== 0 || limit?.size === "K",
      bias: last && bias !== undefined,
      relu: last && relu,
      accumulate: from > 0 || given.accumulate === true,
      maxima: last && maxima !== undefined,
      gather: false,
      ...(limit ? { limit: limit.size } : {}),
      ...sharing(commands, tile),
    });
    commands.run(kernel, {
      M,
      N,
      K: Math.min(K - from, MAX_TERMS),
      a_rows: a.rows,
      lda: a.stride,
      a_from: a.offset + from * (layout === "tn" ? a.stride : 1),
      b_rows: b.rows,
      ldb: b.stride,
      b_from: b.offset + from * (layout === "nt" ? 1 : b.stride),
      c_rows: c.rows,
      ldc: c.stride,
      c_from: c.offset,
      m_rows: maxima?.rows ?? 0,
      ldm: maxima?.stride ?? 0,
      m_from: maxima?.offset ?? 0,
      firstRow: 0,
      a: a.in,
      b: b.in,
      c: c.in,
      ...(last && bias ? { bias } : {}),
      ...(last && maxima ? { maxima: maxima.in } : {}),
      ...(limit ? { limit: limit.by } : {}),
    }, counted);
  }
}

/**
 * C[m, j] = Σ_k A[m, k] B[rows[j], k] + bias[rows[j]] for j < count. Each element has the bits that {@link matmul} gives.
 *
 * @throws {ShapeError} if a matrix does not lie inside its tensor.
 */
export function gatheredMatmul(commands: Commands, given: GatheredMatmulArguments): void {
  const { M, N, K, bias, rows, count, firstRow } = given;
  if (M === 0 || N === 0) return;
  if (K > MAX_TERMS) throw new ShapeError(`gathered product: K must be at most ${MAX_TERMS}, found ${K}`);
  const a = place("A", given.a, M, K);
  const b = place("B", given.b, 0, K);
  const c = place("C", given.c, M, N);
  // The number of columns is unknown, and often 0.
  const tile = defaultTile(commands.context, "nt, few columns", a.aligned);
  const kernel = matmulKernel({
    layout: "nt",
    vectorA: a.aligned,
    vectorB: b.aligned,
    vectorC: false,
    tail: K % 4 !== 0,
    bias: true,
    relu: false,
    accumulate: false,
    maxima: false,
    gather: true,
    ...sharing(commands, tile),
  });
  commands.run(kernel, {
    M,
    N,
    K,
    a_rows: a.rows,
    lda: a.stride,
    a_from: a.offset,
    b_rows: b.rows,
    ldb: b.stride,
    b_from: b.offset,
    c_rows: c.rows,
    ldc: c.stride,
    c_from: c.offset,
    m_rows: 0,
    ldm: 0,
    m_from: 0,
    firstRow,
    a: a.in,
    b: b.in,
    c: c.in,
    ...{ bias, rows, count },
  }, countedBlocks(commands, tile, { M, N }, { size: "N", by: count }));
}

/**
 * Counts the blocks of C that exist: a software driver spends as much time on a block without results as on any other.
 */
function countedBlocks(
  commands: Commands,
  name: TileName,
  sizes: { readonly M: number; readonly N: number },
  { size, by: count }: Limit,
): Counted | undefined {
  if (size === "K") return undefined;
  const block = blockOf(TILES.get(name)!, commands.context.lanes);
  const other = size === "M" ? "N" : "M";
  return { count, per: block[size], times: Math.ceil(sizes[other] / block[other]) };
}

interface Placed {
  readonly in: Bindable;
  readonly rows: number;
  readonly stride: number;
  readonly offset: number;
  readonly aligned: boolean;
}

/** Where a matrix of `rows` × `columns` lies in what is bound, checked. */
function place(name: string, matrix: Matrix, rows: number, columns: number): Placed {
  const { in: bound, offset = 0 } = matrix;
  const tensor = bound instanceof Tensor ? bound : bound.tensor;
  const size = bound instanceof Tensor ? bound.size : (bound.to - bound.from) * tensor.rowSize;
  const stride = matrix.stride ?? tensor.rowSize;
  const end = rows === 0 || columns === 0 ? 0 : offset + (rows - 1) * stride + columns;
  if (end > size || (rows > 1 && stride < columns)) {
    throw new ShapeError(
      `product: ${name} of ${rows} × ${columns} with stride ${stride} at ${offset} does not fit ${tensor.label}, which has ${size} values there`,
    );
  }
  if (size % stride !== 0) {
    throw new ShapeError(
      `product: ${name} has rows of ${stride} values; ${tensor.label} must have a multiple of that, found ${size}`,
    );
  }
  // Loads of four need every row to start at a multiple of four, and a binding of whole fours.
  const aligned = stride % 4 === 0 && offset % 4 === 0 && size % 4 === 0;
  return { in: bound, rows: size / stride, stride, offset, aligned };
}

/** How a tile divides the work: its invocations, and what its kernel needs. */
function sharing({ context }: Commands, name: TileName): Pick<Variant, "tile" | "lanes" | "directive"> {
  const tile = TILES.get(name)!;
  return {
    tile,
    lanes: tile.sharing === "workgroup" ? SIDE * SIDE : context.lanes,
    directive: tile.sharing === "subgroup" ? context.subgroups ?? "" : "",
  };
}
