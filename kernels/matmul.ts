/**
 * Matrix products: C[M, N] = A · B, with B or A as they lie, a bias, a ReLU, or added to what C holds; beside it, if asked
 * for, the maxima of neighbouring columns.
 *
 * Each element of C is one f32 accumulator over ascending k by explicit `fma()`, then the epilogue. Variants differ only
 * in who computes what, so every one of them gives the same bits.
 *
 * @module
 */

import type { Bindable, Commands } from "./commands.ts";
import { ShapeError } from "./errors.ts";
import { type Binding, defineKernel, type Kernel, reads, writes } from "./kernel.ts";
import { Tensor } from "./tensor.ts";
import { KEY_WGSL } from "./wgsl.ts";

/**
 * How A and B lie in memory: `nn` A[M, K] · B[K, N], `nt` A[M, K] · B[N, K]ᵀ, `tn` A[K, M]ᵀ · B[K, N].
 */
export type Layout = "nn" | "nt" | "tn";

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
   * [⌈N / {@link MAXIMA_COLUMNS}⌉, ≥ M] u32, the largest key (`KEY_WGSL`) of so many neighbouring columns of C each: a row
   * of C is a column here, so that one invocation's maxima lie together. Stride and offset are multiples of four, and what
   * is between M and the next multiple of four is overwritten.
   */
  readonly maxima?: Matrix;
  /** One of the sizes is smaller than it says, as only the GPU knows: what is beyond is neither read nor written. */
  readonly limit?: Limit;
}

/** The smaller of a size and `by[0]` is the size. */
export interface Limit {
  /** Which. */
  readonly size: "M" | "N" | "K";
  /** [1] */
  readonly by: Bindable;
}

/** `nt` with the rows of B (and of the bias) picked by a list whose length only the GPU knows. */
export interface GatheredMatmulArguments {
  /** Rows of C. */
  readonly M: number;
  /** The most columns there can be. */
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

/** Terms of one dispatch: a software driver ends loops at 65,535 turns, and a turn takes four. */
const MOST_TERMS = 65536;

/** Neighbouring columns of C that share a maximum. */
export const MAXIMA_COLUMNS = 8;

/** Columns of C that one invocation computes: a multiple of those that share a maximum. */
const TILE_N = MAXIMA_COLUMNS;
/** Rows of C that one invocation computes; more where a subgroup loads A together. */
const TILE_M = 8;
const SUBGROUP_TILE_M = 32;
/** Invocations of such a subgroup. */
const SUBGROUP = 8;

/**
 * C = A · B [+ bias] [ReLU], or C += A · B.
 *
 * @throws {ShapeError} if a matrix does not lie inside its tensor.
 */
export function matmul(commands: Commands, given: MatmulArguments): void {
  const { layout, M, N, K, bias, relu = false, limit } = given;
  if (M === 0 || N === 0) return;
  if (limit?.size === "K" && K > MOST_TERMS) {
    throw new ShapeError(`a product whose terms are limited has at most ${MOST_TERMS} of them, found ${K}`);
  }
  const a = place("A", given.a, layout === "tn" ? K : M, layout === "tn" ? M : K);
  const b = place("B", given.b, layout === "nt" ? N : K, layout === "nt" ? K : N);
  const c = place("C", given.c, M, N);
  const maxima = given.maxima && place("the maxima", given.maxima, Math.ceil(N / MAXIMA_COLUMNS), 4 * Math.ceil(M / 4));
  if (maxima?.aligned === false) {
    throw new ShapeError("product: stride and offset of the maxima must be multiples of 4");
  }
  // Past the limit of a driver's loops, each dispatch goes on with the sums of the one before.
  for (let from = 0; from === 0 || from < K; from += MOST_TERMS) {
    const last = from + MOST_TERMS >= K;
    const kernel = matmulKernel({
      layout,
      vectorA: a.aligned,
      vectorB: b.aligned,
      bias: last && bias !== undefined,
      relu: last && relu,
      accumulate: from > 0 || given.accumulate === true,
      maxima: last && maxima !== undefined,
      gather: false,
      ...(limit ? { limit: limit.size } : {}),
      ...sharing(commands, a),
    });
    commands.run(kernel, {
      M,
      N,
      K: Math.min(K - from, MOST_TERMS),
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
    });
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
  if (K > MOST_TERMS) throw new ShapeError(`a gathered product has at most ${MOST_TERMS} terms, found ${K}`);
  const a = place("A", given.a, M, K);
  const b = place("B", given.b, 0, K);
  const c = place("C", given.c, M, N);
  const shared = sharing(commands, a);
  const kernel = matmulKernel({
    layout: "nt",
    vectorA: a.aligned,
    vectorB: b.aligned,
    bias: true,
    relu: false,
    accumulate: false,
    maxima: false,
    gather: true,
    ...shared,
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
  }, { count, per: TILE_N * shared.lanes, times: Math.ceil(M / tileRows(shared)) });
}

interface Placed {
  readonly in: Bindable;
  readonly rows: number;
  readonly stride: number;
  readonly offset: number;
  readonly aligned: boolean;
}

/** Where a matrix of `rows` × `columns` starts in what is bound, checked. */
function place(name: string, matrix: Matrix, rows: number, columns: number): Placed {
  const { in: bound, offset = 0 } = matrix;
  const tensor = bound instanceof Tensor ? bound : bound.tensor;
  const size = bound instanceof Tensor ? bound.size : (bound.to - bound.from) * tensor.rowSize;
  const stride = matrix.stride ?? tensor.rowSize;
  const end = rows === 0 || columns === 0 ? 0 : offset + (rows - 1) * stride + columns;
  if (end > size || (rows > 1 && stride < columns)) {
    throw new ShapeError(
      `product: ${name} of ${rows} × ${columns} with stride ${stride} at ${offset} does not lie in ${tensor.label}, which has ${size} values there`,
    );
  }
  if (size % stride !== 0) {
    throw new ShapeError(`product: ${name} has rows of ${stride} values, and ${tensor.label} has ${size}, no multiple`);
  }
  // Loads of four need every row to start at a multiple of four, and a binding of whole fours.
  const aligned = stride % 4 === 0 && offset % 4 === 0 && size % 4 === 0;
  return { in: bound, rows: size / stride, stride, offset, aligned };
}

/** Invocations of a workgroup, and whether they load A together. */
function sharing({ context }: Commands, a: Placed): Pick<Variant, "lanes" | "subgroups"> {
  return {
    lanes: context.lanes,
    ...(a.aligned && context.subgroups !== undefined ? { subgroups: context.subgroups } : {}),
  };
}

/** Rows of C that one invocation computes. */
function tileRows({ subgroups }: Pick<Variant, "subgroups">): number {
  return subgroups === undefined ? TILE_M : SUBGROUP_TILE_M;
}

interface Variant {
  readonly layout: Layout;
  readonly vectorA: boolean;
  readonly vectorB: boolean;
  readonly bias: boolean;
  readonly relu: boolean;
  readonly accumulate: boolean;
  readonly maxima: boolean;
  readonly gather: boolean;
  readonly limit?: Limit["size"];
  readonly lanes: number;
  /** The directive for subgroups of eight; each of their lanes then loads a part of A for all. */
  readonly subgroups?: string;
}

type MatmulDim =
  | "M"
  | "N"
  | "K"
  | "a_rows"
  | "lda"
  | "a_from"
  | "b_rows"
  | "ldb"
  | "b_from"
  | "c_rows"
  | "ldc"
  | "c_from"
  | "m_rows"
  | "ldm"
  | "m_from"
  | "firstRow";

/** The bindings of every variant; some have more. */
type MatmulKernel = Kernel<MatmulDim, never, "a" | "b" | "c">;

const variants = new Map<string, MatmulKernel>();

/** The kernel of a variant, declared once. */
function matmulKernel(variant: Variant): MatmulKernel {
  const id = JSON.stringify(variant);
  const found = variants.get(id) ?? declare(variant);
  variants.set(id, found);
  return found;
}

function declare(variant: Variant): MatmulKernel {
  const { layout, vectorA, vectorB, bias, relu, accumulate, maxima, gather, limit, lanes, subgroups } = variant;
  const tileM = tileRows(variant);
  const rows = range(tileM);
  const columns = range(TILE_N);

  // Element (i, k + t) of A and (k + t, j) of B, as an index.
  const aIndex = (i: number, t: string) =>
    layout === "tn" ? `dims.a_from + (k + ${t}) * dims.lda + row + ${i}u` : `a_row${i} + k + ${t}`;
  const bIndex = (j: number, t: string) =>
    layout === "nt" ? `b_row${j} + k + ${t}` : `dims.b_from + (k + ${t}) * dims.ldb + column + ${j}u`;
  const one = (name: string, vector: boolean, index: string) =>
    vector ? `${name}[(${index}) >> 2u][(${index}) & 3u]` : `${name}[${index}]`;

  // Four terms at a time: where four neighbours along k (or along the rows or columns) lie together, one load brings them.
  const loads: string[] = [];
  const a = (i: number, t: number): string => {
    if (!vectorA) return `a${i}_${t}`;
    return layout === "tn" ? `a${t}_${i >> 2}[${i & 3}]` : `a${i}[${t}]`;
  };
  const b = (j: number, t: number): string => {
    if (!vectorB) return `b${j}_${t}`;
    return layout === "nt" ? `b${j}[${t}]` : `b${t}_${j >> 2}[${j & 3}]`;
  };
  if (subgroups !== undefined && layout === "tn") {
    for (const t of range(4)) {
      loads.push(`let own${t} = a[(${aIndex(0, `${t}u`)} + lane * 4u) >> 2u];`);
      for (const i of range(tileM / 4)) loads.push(`let a${t}_${i} = subgroupBroadcast(own${t}, ${i}u);`);
    }
  } else if (subgroups !== undefined) {
    for (const g of range(tileM / SUBGROUP)) loads.push(`let own${g} = a[(own_row${g} + k) >> 2u];`);
    for (const i of rows) loads.push(`let a${i} = subgroupBroadcast(own${i >> 3}, ${i & 7}u);`);
  } else if (!vectorA) {
    for (const i of rows) for (const t of range(4)) loads.push(`let a${i}_${t} = a[${aIndex(i, `${t}u`)}];`);
  } else if (layout === "tn") {
    for (const t of range(4)) {
      for (const i of range(tileM / 4)) loads.push(`let a${t}_${i} = a[(${aIndex(4 * i, `${t}u`)}) >> 2u];`);
    }
  } else for (const i of rows) loads.push(`let a${i} = a[(${aIndex(i, "0u")}) >> 2u];`);
  if (!vectorB) {
    for (const j of columns) for (const t of range(4)) loads.push(`let b${j}_${t} = b[${bIndex(j, `${t}u`)}];`);
  } else if (layout === "nt") {
    for (const j of columns) loads.push(`let b${j} = b[(${bIndex(j, "0u")}) >> 2u];`);
  } else {
    for (const t of range(4)) {
      for (const j of range(TILE_N / 4)) loads.push(`let b${t}_${j} = b[(${bIndex(4 * j, `${t}u`)}) >> 2u];`);
    }
  }
  const each = (make: (i: number, j: number) => string) => rows.flatMap((i) => columns.map((j) => make(i, j)));
  const four = each((i, j) =>
    `c${i}_${j} = ${range(4).reduce((sum, t) => `fma(${a(i, t)}, ${b(j, t)}, ${sum})`, `c${i}_${j}`)};`
  );
  const tail = [
    ...rows.map((i) => `let a${i} = ${one("a", vectorA, aIndex(i, "0u"))};`),
    ...columns.map((j) => `let b${j} = ${one("b", vectorB, bIndex(j, "0u"))};`),
    ...each((i, j) => `c${i}_${j} = fma(a${i}, b${j}, c${i}_${j});`),
  ];
  const result = (i: number, j: number): string => {
    const biased = bias
      ? `c${i}_${j} + bias[${gather ? `listed${j} - dims.firstRow` : `column + ${j}u`}]`
      : `c${i}_${j}`;
    return relu ? `positive_or_nan(${biased})` : biased;
  };
  const store = each((i, j) => {
    const inside = gather ? `listed${j} >= dims.firstRow && listed${j} - dims.firstRow < dims.b_rows` : "true";
    return `if (row + ${i}u < M && column + ${j}u < columns${gather ? ` && ${inside}` : ""}) {
    c[dims.c_from + (row + ${i}u) * dims.ldc + column + ${j}u] = ${result(i, j)};
  }`;
  });
  // The key 0 belongs to no value: columns that do not exist stay below all others.
  const largest = (i: number, first: number) =>
    range(MAXIMA_COLUMNS).map((j) => first + j)
      .map((j) => `select(0u, key_of(${result(i, j)}), column + ${j}u < columns)`)
      .reduce((all, key) => `max(${all}, ${key})`);
  const storeMaxima = range(TILE_N / MAXIMA_COLUMNS).flatMap((g) =>
    range(tileM / 4).map((four) =>
      `if (row + ${4 * four}u < M && column + ${g * MAXIMA_COLUMNS}u < columns) {
    maxima[(dims.m_from + (column / ${MAXIMA_COLUMNS}u + ${g}u) * dims.ldm + row + ${4 * four}u) >> 2u] = vec4u(
      ${range(4).map((i) => largest(4 * four + i, g * MAXIMA_COLUMNS)).join(",\n      ")},
    );
  }`
    )
  );
  return defineKernel({
    name: `${gather ? "gathered_" : ""}matmul_${layout}`,
    dims: [
      "M",
      "N",
      "K",
      "a_rows",
      "lda",
      "a_from",
      "b_rows",
      "ldb",
      "b_from",
      "c_rows",
      "ldc",
      "c_from",
      "m_rows",
      "ldm",
      "m_from",
      "firstRow",
    ],
    bindings: {
      a: reads(vectorA ? "vec4f" : "f32", "a_rows lda"),
      b: reads(vectorB ? "vec4f" : "f32", "b_rows ldb"),
      c: writes("f32", "c_rows ldc"),
      ...(bias ? { bias: reads("f32", gather ? "b_rows" : "N") } : undefined),
      ...(maxima ? { maxima: writes("vec4u", "m_rows ldm") } : undefined),
      ...(gather ? { rows: reads("u32", "N"), count: reads("u32", "1") } : undefined),
      ...(limit ? { limit: reads("u32", "1") } : undefined),
    } as Record<"a" | "b" | "c", Binding>,
    workgroup: lanes,
    grid: ({ M, N }) => Math.ceil(M / tileM) * Math.ceil(N / (TILE_N * lanes)),
    cost: ({ M, N, K }) => ({ flops: 2 * M * N * K, bytes: 4 * (M * K + N * K + M * N) }),
    ...(subgroups === undefined ? {} : { directives: subgroups }),
    declarations: `
fn positive_or_nan(value: f32) -> f32 {
  let bits = bitcast<u32>(value);
  return select(0.0, value, bits < 0x80000000u || (bits & 0x7fffffffu) > 0x7f800000u);
}
${maxima ? KEY_WGSL : ""}`,
    body: `
  ${
      ["M", "N", "K"].map((size) => `let ${size} = ${size === limit ? `min(dims.${size}, limit[0])` : `dims.${size}`};`)
        .join(" ")
    }
  let tiles_m = (dims.M + ${tileM - 1}u) / ${tileM}u;
  let row = (group % tiles_m) * ${tileM}u;
  let first_column = (group / tiles_m) * ${lanes * TILE_N}u;
  let column = first_column + lane * ${TILE_N}u;
  let columns = ${gather ? "min(N, count[0])" : "N"};
  if (first_column >= columns || row >= M) { return; }
  ${
      subgroups === undefined || layout === "tn"
        ? ""
        : range(tileM / SUBGROUP).map((g) =>
          `let own_row${g} = dims.a_from + (row + ${g * SUBGROUP}u + lane) * dims.lda;`
        )
          .join("\n  ")
    }
  ${layout === "tn" ? "" : rows.map((i) => `let a_row${i} = dims.a_from + (row + ${i}u) * dims.lda;`).join("\n  ")}
  ${gather ? columns.map((j) => `let listed${j} = rows[min(column + ${j}u, columns - 1u)];`).join("\n  ") : ""}
  ${
      layout !== "nt" ? "" : columns.map((j) => {
        const row = gather ? `(listed${j} - dims.firstRow)` : `(column + ${j}u)`;
        return `let b_row${j} = dims.b_from + ${row} * dims.ldb;`;
      }).join("\n  ")
    }
  ${
      each((i, j) =>
        `var c${i}_${j} = ${
          accumulate ? `c[dims.c_from + min(row + ${i}u, M - 1u) * dims.ldc + column + ${j}u]` : "0.0"
        };`
      ).join("\n  ")
    }
  var k = 0u;
  for (; k + 3u < K; k += 4u) {
    ${loads.join("\n    ")}
    ${four.join("\n    ")}
  }
  for (; k < K; k += 1u) {
    ${tail.join("\n    ")}
  }
  ${store.join("\n  ")}
  ${maxima ? storeMaxima.join("\n  ") : ""}`,
  });
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
