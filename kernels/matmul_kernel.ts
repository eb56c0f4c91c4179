/**
 * The kernel of a matrix product: where an invocation is in C, what its sums start from, and what is stored of them.
 *
 * @module
 */

import { type Binding, defineKernel, type Kernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { SCALAR, VECTOR } from "./engine/vector_width.ts";
import { KEY_WGSL } from "./engine/wgsl.ts";
import { laneLoop, type LoopVariant, range, workgroupLoop } from "./matmul_loops.ts";
import { blockOf, isSpread, MAXIMA_COLUMNS, SIDE } from "./matmul_tiles.ts";

/** What a kernel is declared for. */
export interface Variant extends LoopVariant {
  /** Whether C is stored by fours. */
  readonly vectorC: boolean;
  readonly bias: boolean;
  readonly relu: boolean;
  readonly accumulate: boolean;
  readonly maxima: boolean;
  /** Which of the sizes a number on the GPU limits. */
  readonly limit?: "M" | "N" | "K";
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** The WGSL directive of a tile that uses subgroups; empty for the others. */
  readonly directive: string;
}

const DIMS = [
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
] as const;

/** The bindings of every variant; some have more. */
type MatmulKernel = Kernel<typeof DIMS[number], never, "a" | "b" | "c">;

const variants = new Map<string, MatmulKernel>();

/** The kernel of a variant, declared once. */
export function matmulKernel(variant: Variant): MatmulKernel {
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
  // What C holds; rows and columns beyond its end may hold anything.
  const held = rows.flatMap((i) => [
    `let held_row${i} = dims.c_from + min(row + ${i}u, M - 1u) * dims.ldc;`,
    ...vectors.map((j) => `let held${i}_${j} = c[(held_row${i} + ${column(j)}) >> 2u];`),
  ]);
  // No value has the key 0: columns that do not exist stay below all others.
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
    dims: DIMS,
    bindings: {
      a: readsOften((vectorA ? VECTOR : SCALAR).element, "a_rows lda"),
      b: readsOften((vectorB ? VECTOR : SCALAR).element, "b_rows ldb"),
      c: writes((vectorC ? VECTOR : SCALAR).element, "c_rows ldc"),
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
      // Read once a column, not once an element; columns beyond the end may read anything.
      bias
        ? columns.map((j) => `let bias${j} = bias[${gather ? `listed${j} - dims.firstRow` : column(j)}];`).join("\n  ")
        : ""}
  ${store.join("\n  ")}
  ${storeMaxima.join("\n  ")}`,
  });
}
