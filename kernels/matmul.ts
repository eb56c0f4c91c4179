/**
 * Matrix products: C[M, N] = A · B, with B or A as they lie, a bias, a ReLU, or added to what C holds.
 *
 * Each element of C is one f32 accumulator over ascending k by explicit `fma()`, then the epilogue. Variants differ only
 * in who computes what, so every one of them gives the same bits.
 *
 * @module
 */

import type { Bindable, Commands, Counted } from "./engine/commands.ts";
import type { DeviceContext } from "./engine/device.ts";
import { KernelError, ShapeError } from "./engine/errors.ts";
import { type Binding, defineKernel, type Kernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { canUse, chosenTile, defaultTile, type Layout, type Tile, type TileName, TILES } from "./matmul_tiles.ts";
import { Tensor } from "./engine/tensor.ts";
import { KEY_WGSL } from "./engine/wgsl.ts";

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
  /** Who computes what, which changes no bit; what the device takes for the shape if left out. */
  readonly tile?: TileName;
}

/** The smaller of a size and `by[0]` is the size. */
export interface Limit {
  /** Which. */
  readonly size: "M" | "N" | "K";
  /** [1] */
  readonly by: Tensor<"u32">;
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
const MAX_TERMS = 65536;

/** Neighbouring columns of C that share a maximum. */
export const MAXIMA_COLUMNS = 8;

/** Invocations of a subgroup that loads A together. */
const SUBGROUP = 8;
/** Invocations of a workgroup that loads A and B together, in rows of so many. */
const SIDE = 16;

/**
 * C = A · B [+ bias] [ReLU], or C += A · B.
 *
 * @throws {ShapeError} if a matrix does not lie inside its tensor.
 * @throws {KernelError} if the device cannot compute with the tile that was asked for.
 */
export function matmul(commands: Commands, given: MatmulArguments): void {
  const { layout, M, N, K, bias, relu = false, limit } = given;
  if (M === 0 || N === 0) return;
  if (limit?.size === "K" && K > MAX_TERMS) {
    throw new ShapeError(`a product whose terms are limited has at most ${MAX_TERMS} of them, found ${K}`);
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
  // Past the limit of a driver's loops, each dispatch continues the sums of the one before.
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
  if (K > MAX_TERMS) throw new ShapeError(`a gathered product has at most ${MAX_TERMS} terms, found ${K}`);
  const a = place("A", given.a, M, K);
  const b = place("B", given.b, 0, K);
  const c = place("C", given.c, M, N);
  // Nobody knows how many columns there will be: often none.
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

/** Rows and columns of C that a workgroup computes. */
function blockOf({ sharing, rows, columns }: Tile, lanes: number): { readonly M: number; readonly N: number } {
  return sharing === "workgroup" ? { M: SIDE * rows, N: SIDE * columns } : { M: rows, N: lanes * columns };
}

/** Only the blocks of C that there are: a software driver computes those without results as if they had some. */
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

/** Who computes what: invocations of a workgroup, and what each of them does. */
function sharing({ context }: Commands, name: TileName): Pick<Variant, "tile" | "lanes" | "directive"> {
  const tile = TILES.get(name)!;
  return {
    tile,
    lanes: tile.sharing === "workgroup" ? SIDE * SIDE : context.lanes,
    directive: tile.sharing === "subgroup" ? context.subgroups ?? "" : "",
  };
}

interface Variant {
  readonly layout: Layout;
  readonly vectorA: boolean;
  readonly vectorB: boolean;
  readonly vectorC: boolean;
  /** Whether K may be other than a multiple of four. */
  readonly tail: boolean;
  readonly bias: boolean;
  readonly relu: boolean;
  readonly accumulate: boolean;
  readonly maxima: boolean;
  readonly gather: boolean;
  readonly limit?: Limit["size"];
  readonly tile: Tile;
  readonly lanes: number;
  readonly directive: string;
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
  const { layout, bias, relu, accumulate, maxima, gather, limit, tile, lanes, directive } = variant;
  const { vectorA, vectorB, vectorC } = variant;
  const shared = tile.sharing === "workgroup";
  const rows = range(tile.rows);
  const columns = range(tile.columns);
  const { M: blockM, N: blockN } = blockOf(tile, lanes);
  const columnStep = isSpread(layout, tile) ? SIDE : 1;
  const column = (j: number) => `column + ${j * columnStep}u`;
  const each = (make: (i: number, j: number) => string) => rows.flatMap((i) => columns.map((j) => make(i, j)));
  const { prologue, declarations = "", loop } = shared ? workgroupLoop(variant) : laneLoop(variant);
  const result = (i: number, j: number): string => {
    const biased = bias ? `c${i}_${j} + bias${j}` : `c${i}_${j}`;
    return relu ? `positive_or_nan(${biased})` : biased;
  };
  // Of four neighbouring columns either all are there or none: one store for them.
  const vectors = vectorC ? columns.filter((j) => j % 4 === 0) : [];
  const scalars = vectorC ? [] : columns;
  const store = rows.map((i) =>
    `if (row + ${i}u < M) {
    let c_row = dims.c_from + (row + ${i}u) * dims.ldc;
    ${
      [
        ...vectors.map((j) =>
          `if (${column(j)} < columns) { c[(c_row + ${column(j)}) >> 2u] = vec4f(${
            range(4).map((v) => result(i, j + v)).join(", ")
          }); }`
        ),
        ...scalars.map((j) => {
          const inside = gather ? ` && listed${j} >= dims.firstRow && listed${j} - dims.firstRow < dims.b_rows` : "";
          return `if (${column(j)} < columns${inside}) { c[c_row + ${column(j)}] = ${result(i, j)}; }`;
        }),
      ].join("\n    ")
    }
  }`
  );
  // What C holds; in rows and columns that are not there it does not matter.
  const held = rows.flatMap((i) => [
    `let held_row${i} = dims.c_from + min(row + ${i}u, M - 1u) * dims.ldc;`,
    ...vectors.map((j) => `let held${i}_${j} = c[(held_row${i} + ${column(j)}) >> 2u];`),
  ]);
  // The key 0 belongs to no value: columns that do not exist stay below all others.
  const largest = (i: number, first: number) =>
    range(MAXIMA_COLUMNS).map((j) => first + j)
      .map((j) => `select(0u, key_of(${result(i, j)}), column + ${j}u < columns)`)
      .reduce((all, key) => `max(${all}, ${key})`);
  const storeMaxima = (maxima ? range(tile.columns / MAXIMA_COLUMNS) : []).flatMap((g) =>
    range(tile.rows / 4).map((four) =>
      `if (row + ${4 * four}u < M && column + ${g * MAXIMA_COLUMNS}u < columns) {
    maxima[(dims.m_from + (column / ${MAXIMA_COLUMNS}u + ${g}u) * dims.ldm + row + ${4 * four}u) >> 2u] = vec4u(
      ${range(4).map((i) => largest(4 * four + i, g * MAXIMA_COLUMNS)).join(",\n      ")},
    );
  }`
    )
  );
  const start = (i: number, j: number) => vectorC ? `held${i}_${j & ~3}[${j & 3}]` : `c[held_row${i} + ${column(j)}]`;
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
      a: readsOften(vectorA ? "vec4f" : "f32", "a_rows lda"),
      b: readsOften(vectorB ? "vec4f" : "f32", "b_rows ldb"),
      c: writes(vectorC ? "vec4f" : "f32", "c_rows ldc"),
      ...(bias ? { bias: reads("f32", gather ? "b_rows" : "N") } : undefined),
      ...(maxima ? { maxima: writes("vec4u", "m_rows ldm") } : undefined),
      ...(gather ? { rows: reads("u32", "N"), count: reads("u32", "1") } : undefined),
      ...(limit ? { limit: reads("u32", "1") } : undefined),
    } as Record<"a" | "b" | "c", Binding>,
    workgroup: lanes,
    grid: ({ M, N }) => Math.ceil(M / blockM) * Math.ceil(N / blockN),
    cost: ({ M, N, K }) => ({ flops: 2 * M * N * K, bytes: 4 * (M * K + N * K + M * N) }),
    directives: directive,
    declarations: `
fn positive_or_nan(value: f32) -> f32 {
  let bits = bitcast<u32>(value);
  return select(0.0, value, bits < 0x80000000u || (bits & 0x7fffffffu) > 0x7f800000u);
}
${declarations}
${maxima ? KEY_WGSL : ""}`,
    body: `
  ${
      ["M", "N", "K"].map((size) => `let ${size} = ${size === limit ? `min(dims.${size}, limit[0])` : `dims.${size}`};`)
        .join(" ")
    }
  let blocks_m = (M + ${blockM - 1}u) / ${blockM}u;
  let first_row = (group % blocks_m) * ${blockM}u;
  let first_column = (group / blocks_m) * ${blockN}u;
  let row = first_row${shared ? ` + lane / ${SIDE}u * ${tile.rows}u` : ""};
  let column = first_column + ${shared ? `lane % ${SIDE}u` : "lane"} * ${columnStep > 1 ? 1 : tile.columns}u;
  let columns = ${gather ? "min(N, count[0])" : "N"};
  if (first_column >= columns || first_row >= M) { return; }
  ${gather ? columns.map((j) => `let listed${j} = rows[min(${column(j)}, columns - 1u)];`).join("\n  ") : ""}
  ${prologue.join("\n  ")}
  ${accumulate ? held.join("\n  ") : ""}
  ${each((i, j) => `var c${i}_${j} = ${accumulate ? start(i, j) : "0.0"};`).join("\n  ")}
  ${loop}
  ${
      // Once a column, not once an element; of columns that are not there it does not matter.
      bias
        ? columns.map((j) => `let bias${j} = bias[${gather ? `listed${j} - dims.firstRow` : column(j)}];`).join("\n  ")
        : ""}
  ${store.join("\n  ")}
  ${storeMaxima.join("\n  ")}`,
  });
}

/** Whether an invocation has all the columns that share a maximum, for rows in fours. */
function canHaveMaxima(layout: Layout, tile: Tile): boolean {
  return tile.columns % MAXIMA_COLUMNS === 0 && tile.rows % 4 === 0 && !isSpread(layout, tile);
}

/** A tile that can have maxima, on any device. */
function maximaTile(context: DeviceContext, aligned: boolean): TileName {
  return canUse(context, TILES.get("subgroup 32x8")!, aligned) ? "subgroup 32x8" : "register 8x8";
}

/** Whether the columns of an invocation lie apart, so that neighbours read from different banks of workgroup memory. */
function isSpread(layout: Layout, { sharing }: Tile): boolean {
  return layout === "nt" && sharing === "workgroup";
}

/** The statements of a kernel between its place in C and its results. */
interface MainLoop {
  readonly prologue: readonly string[];
  readonly declarations?: string;
  readonly loop: string;
}

/** Every invocation loads what it multiplies, or the lanes of a subgroup load A for each other. */
function laneLoop({ layout, vectorA, vectorB, tail, gather, tile }: Variant): MainLoop {
  const rows = range(tile.rows);
  const columns = range(tile.columns);
  const together = tile.sharing === "subgroup";

  // Element (i, k + t) of A and (k + t, j) of B, as an index.
  const aIndex = (i: number, t: string) =>
    layout === "tn" ? `dims.a_from + (k + ${t}) * dims.lda + row + ${i}u` : `a_row${i} + k + ${t}`;
  const bIndex = (j: number, t: string) =>
    layout === "nt" ? `b_row${j} + k + ${t}` : `dims.b_from + (k + ${t}) * dims.ldb + column + ${j}u`;
  const one = (name: string, vector: boolean, index: string) =>
    vector ? `${name}[(${index}) >> 2u][(${index}) & 3u]` : `${name}[${index}]`;

  // Four terms at a time: where four neighbours along k (or along the rows or columns) lie together, one load brings them.
  const loads: string[] = [];
  // Lanes hear of each other's vectors when they need them, once for four columns: keeping all of them costs more.
  const heard = (i: number): string[] => {
    if (!together) return [];
    if (layout !== "tn") return [`let a${i} = subgroupBroadcast(own${i >> 3}, ${i & 7}u);`];
    return range(4).map((t) => `let a${t}_${i >> 2} = subgroupBroadcast(own${t}_${i >> 5}, ${(i >> 2) & 7}u);`);
  };
  if (together && layout === "tn") {
    for (const t of range(4)) {
      for (const g of range(Math.ceil(tile.rows / 4 / SUBGROUP))) {
        loads.push(`let own${t}_${g} = a[(${aIndex(4 * SUBGROUP * g, `${t}u`)} + lane * 4u) >> 2u];`);
      }
    }
  } else if (together) {
    for (const g of range(tile.rows / SUBGROUP)) loads.push(`let own${g} = a[(own_row${g} + k) >> 2u];`);
  } else if (!vectorA) {
    for (const i of rows) for (const t of range(4)) loads.push(`let a${i}_${t} = a[${aIndex(i, `${t}u`)}];`);
  } else if (layout === "tn") {
    for (const t of range(4)) {
      for (const i of range(tile.rows / 4)) loads.push(`let a${t}_${i} = a[(${aIndex(4 * i, `${t}u`)}) >> 2u];`);
    }
  } else for (const i of rows) loads.push(`let a${i} = a[(${aIndex(i, "0u")}) >> 2u];`);
  if (!vectorB) {
    for (const j of columns) for (const t of range(4)) loads.push(`let b${j}_${t} = b[${bIndex(j, `${t}u`)}];`);
  } else if (layout === "nt") {
    for (const j of columns) loads.push(`let b${j} = b[(${bIndex(j, "0u")}) >> 2u];`);
  } else {
    for (const t of range(4)) {
      for (const j of range(tile.columns / 4)) loads.push(`let b${t}_${j} = b[(${bIndex(4 * j, `${t}u`)}) >> 2u];`);
    }
  }
  const rowsAtOnce = layout === "tn" ? 4 : 1;
  const products = range(tile.columns / 4).flatMap((quad) =>
    range(tile.rows / rowsAtOnce).map((g) => {
      const terms = range(rowsAtOnce).flatMap((i) =>
        range(4).map((j) => fourTerms(rowsAtOnce * g + i, 4 * quad + j, { layout, vectorA, vectorB }))
      );
      return `{ ${[...heard(rowsAtOnce * g), ...terms].join("\n      ")} }`;
    })
  );
  const single = [
    ...rows.map((i) => `let a${i} = ${one("a", vectorA, aIndex(i, "0u"))};`),
    ...columns.map((j) => `let b${j} = ${one("b", vectorB, bIndex(j, "0u"))};`),
    ...rows.flatMap((i) => columns.map((j) => `c${i}_${j} = fma(a${i}, b${j}, c${i}_${j});`)),
  ];
  const listed = (j: number) => gather ? `(listed${j} - dims.firstRow)` : `(column + ${j}u)`;
  return {
    prologue: [
      ...(together && layout !== "tn" ? range(tile.rows / SUBGROUP) : []).map((g) =>
        `let own_row${g} = dims.a_from + (row + ${g * SUBGROUP}u + lane) * dims.lda;`
      ),
      ...(layout === "tn" ? [] : rows).map((i) => `let a_row${i} = dims.a_from + (row + ${i}u) * dims.lda;`),
      ...(layout === "nt" ? columns : []).map((j) => `let b_row${j} = dims.b_from + ${listed(j)} * dims.ldb;`),
    ],
    loop: `var k = 0u;
  for (; k + 3u < K; k += 4u) {
    ${loads.join("\n    ")}
    ${products.join("\n    ")}
  }
  ${tail ? `for (; k < K; k += 1u) {\n    ${single.join("\n    ")}\n  }` : ""}`,
  };
}

/**
 * 16 × 16 invocations bring some terms of all their rows and columns into workgroup memory, each one vector of either, in
 * the direction in which they lie, and multiply them there. Lines along k are a vector apart from a power of two, so that
 * neighbours read from different banks.
 */
function workgroupLoop({ layout, vectorA, vectorB, tile }: Variant): MainLoop {
  const terms = 4 * SIDE / tile.rows;
  const [quads, pitch] = [terms / 4, terms / 4 + 1];
  const factors = [
    { name: "a", size: tile.rows, vector: vectorA, alongK: layout !== "tn", first: "first_row", at: "down", step: 1 },
    {
      name: "b",
      size: tile.columns,
      vector: vectorB,
      alongK: layout === "nt",
      first: "first_column",
      at: "across",
      step: SIDE,
    },
  ];
  const load4 = (name: string, vector: boolean, index: string) =>
    vector ? `${name}[(${index}) >> 2u]` : `vec4f(${range(4).map((t) => `${name}[${index} + ${t}u]`).join(", ")})`;
  const fill = factors.map(({ name, size, vector, alongK, first }) => {
    const [slow, fast] = alongK
      ? [`lane / ${quads}u`, `lane % ${quads}u`]
      : [`lane / ${4 * size}u`, `lane % ${4 * size}u`];
    const to = alongK ? `(${slow}) * ${pitch}u + ${fast}` : "lane";
    const line = alongK ? `${first} + ${slow}` : `k + ${slow}`;
    const index = `dims.${name}_from + (${line}) * dims.ld${name} + ${alongK ? "k" : first} + ${fast} * 4u`;
    return `${name}_near[${to}] = ${load4(name, vector, index)};`;
  });
  // Line i of the invocation's own, and vector i of its own within term t.
  const line = ({ size, at, step }: typeof factors[number], i: number) =>
    step === 1 ? `(${at} * ${size}u + ${i}u) * ${pitch}u` : `(${at} + ${i * step}u) * ${pitch}u`;
  const vector = ({ size, at }: typeof factors[number], i: number, t: string) =>
    `(${t}) * ${4 * size}u + ${at} * ${size / 4}u + ${i}u`;
  const loads = factors.flatMap((factor) =>
    factor.alongK
      ? range(factor.size).map((i) => `let ${factor.name}${i} = ${factor.name}_near[${line(factor, i)} + q];`)
      : range(4).flatMap((t) =>
        range(factor.size / 4).map((i) =>
          `let ${factor.name}${t}_${i} = ${factor.name}_near[${vector(factor, i, `q * 4u + ${t}u`)}];`
        )
      )
  );
  const tail = factors.flatMap((factor) =>
    range(factor.size).map((i) =>
      factor.alongK
        ? `let ${factor.name}${i} = ${factor.name}_near[${line(factor, i)} + (t >> 2u)][t & 3u];`
        : `let ${factor.name}${i} = ${factor.name}_near[${vector(factor, i >> 2, "t")}][${i & 3}];`
    )
  );
  const each = (make: (i: number, j: number) => string) =>
    range(tile.rows).flatMap((i) => range(tile.columns).map((j) => make(i, j))).join("\n        ");
  return {
    prologue: [`let down = lane / ${SIDE}u;`, `let across = lane % ${SIDE}u;`],
    declarations: factors.map(({ name, size, alongK }) =>
      `var<workgroup> ${name}_near: array<vec4f, ${alongK ? SIDE * size * pitch : SIDE * SIDE}>;`
    ).join("\n"),
    loop: `for (var k = 0u; k < K; k += ${terms}u) {
    workgroupBarrier();
    ${fill.join("\n    ")}
    workgroupBarrier();
    if (K - k >= ${terms}u) {
      for (var q = 0u; q < ${quads}u; q += 1u) {
        ${loads.join("\n        ")}
        ${each((i, j) => fourTerms(i, j, { layout, vectorA: true, vectorB: true }))}
      }
    } else {
      for (var t = 0u; t < K - k; t += 1u) {
        ${tail.join("\n        ")}
        ${each((i, j) => `c${i}_${j} = fma(a${i}, b${j}, c${i}_${j});`)}
      }
    }
  }`,
  };
}

/** Four terms of a sum in one expression, so that the sum is read and written once for all of them. */
function fourTerms(
  i: number,
  j: number,
  { layout, vectorA, vectorB }: Pick<Variant, "layout" | "vectorA" | "vectorB">,
): string {
  const a = (t: number): string => {
    if (!vectorA) return `a${i}_${t}`;
    return layout === "tn" ? `a${t}_${i >> 2}[${i & 3}]` : `a${i}[${t}]`;
  };
  const b = (t: number): string => {
    if (!vectorB) return `b${j}_${t}`;
    return layout === "nt" ? `b${j}[${t}]` : `b${t}_${j >> 2}[${j & 3}]`;
  };
  return `c${i}_${j} = ${range(4).reduce((sum, t) => `fma(${a(t)}, ${b(t)}, ${sum})`, `c${i}_${j}`)};`;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
