/**
 * The main loops of a matrix product in WGSL: which invocations load the factors, and the order in which terms are
 * added.
 *
 * @module
 */

import { type Layout, SIDE, SUBGROUP, type Tile } from "./matmul_tiles.ts";

/** What a loop is made for. */
export interface LoopVariant {
  /** How A and B lie. */
  readonly layout: Layout;
  /** Whether A and B are loaded by fours. */
  readonly vectorA: boolean;
  readonly vectorB: boolean;
  /** Whether K may be other than a multiple of four. */
  readonly tail: boolean;
  /** Whether the rows of B are listed. */
  readonly gather: boolean;
  readonly tile: Tile;
}

/** The statements of a kernel between its place in C and its results. */
export interface MainLoop {
  readonly prologue: readonly string[];
  readonly declarations?: string;
  readonly loop: string;
}

/**
 * The loop of a `register` tile, whose invocations load what they multiply, or of a `subgroup` tile, whose lanes load A
 * for each other.
 */
export function laneLoop({ layout, vectorA, vectorB, tail, gather, tile }: LoopVariant): MainLoop {
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

  // Four terms at a time: one load fetches four neighbours along k (or along the rows or columns) where they are
  // contiguous.
  const loads: string[] = [];
  // Lanes broadcast their vectors when the others need them, once for four columns: keeping all of them would cost
  // more.
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
 * The loop of a `workgroup` tile: 16 × 16 invocations load some terms of all their rows and columns into workgroup
 * memory, one vector of each factor per invocation, along the direction in which the factor is contiguous. The pitch of
 * lines along k is one vector more than a power of two, so that neighbours read from different banks.
 */
export function workgroupLoop({ layout, vectorA, vectorB, tile }: LoopVariant): MainLoop {
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

/** Four terms of a sum in one expression, so that the sum is read and written once. */
function fourTerms(
  i: number,
  j: number,
  { layout, vectorA, vectorB }: Pick<LoopVariant, "layout" | "vectorA" | "vectorB">,
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

/** 0, 1, … count − 1. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
