/**
 * A dense product sampled where a sparse matrix has entries (SDDMM).
 *
 * Every sum is one f32 accumulator in ascending order by explicit `fma()`, so the result has the bits of the dense product
 * there.
 *
 * @module
 */

import type { Csr } from "./csr.ts";
import type { Bindable, Commands } from "./engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "./engine/kernel.ts";
import { spans } from "./engine/tensor.ts";
import { perVectorWidth, type VectorWidth, vectorWidth } from "./engine/vector_width.ts";
import { dot } from "./row_layout.ts";

/** Arguments of {@link sddmm}. */
export interface SddmmArguments {
  /** Which products are wanted: the entries' rows and indices. */
  readonly sparse: Csr;
  /** [capacity], the row of each entry. */
  readonly entryRows: Bindable;
  /** First row of `rowsMatrix`. */
  readonly firstRow: number;
  /** Its rows. */
  readonly rows: number;
  /** [rows, parts, columns] */
  readonly left: Bindable;
  /** Number of parts. */
  readonly parts: number;
  /** [parts], ascending: an entry takes the first part whose end is above its index. */
  readonly ends: Bindable;
  /** Some rows of the other factor, [to − from, columns]. */
  readonly right: Bindable;
  /** First of these rows; entries with indices outside them are left alone. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Columns. */
  readonly columns: number;
  /** [capacity] */
  readonly result: Bindable;
}

/** Entries that one invocation takes: those of one row share its loads. */
const SAMPLES = 4;

/** Turns of each of its two loops in a dispatch; entries of an invocation may take either. */
const MAX_SAMPLED_TURNS = 20000;

/** result[e] = ⟨left[row of e, part of e], right[index of e]⟩: a dense product, only where the entries are. */
export function sddmm(commands: Commands, given: SddmmArguments): void {
  const { sparse, entryRows, firstRow, rows, left, parts, ends, right, from, to, columns, result } = given;
  const { scalars } = vectorWidth(columns);
  for (const terms of spans(columns / scalars, MAX_SAMPLED_TURNS)) {
    commands.run(sddmmKernel(columns), {
      rows,
      columns,
      parts,
      firstLoad: terms.from,
      endLoad: terms.to,
      begin: from,
      extent: to - from,
      firstRow,
      allRows: sparse.rows,
      capacity: sparse.capacity,
      starts: sparse.starts,
      indices: sparse.indices,
      entryRows,
      left,
      ends,
      right,
      result,
    });
  }
}

const SAMPLED_THREADS = 64;

/** WGSL: `statement` for each entry of an invocation. */
const everySample = (statement: (sample: number) => string): string =>
  Array.from({ length: SAMPLES }, (_, e) => statement(e)).join("\n    ");

/** WGSL: the sum of entry `e` continues with one load of each factor. */
const addProduct = (width: VectorWidth, e: number, x: string): string =>
  `{ let y = right[r${e} + c]; sum${e} = ${dot(width, x, "y", `sum${e}`)}; }`;

const sddmmKernel = perVectorWidth((width) =>
  defineKernel({
    name: "sddmm",
    dims: [
      "rows",
      "columns",
      "parts",
      "firstLoad",
      "endLoad",
      "begin",
      "extent",
      "firstRow",
      "allRows",
      "capacity",
    ],
    bindings: {
      starts: reads("u32", "allRows+1"),
      indices: readsOften("u32", "capacity"),
      entryRows: readsOften("u32", "capacity"),
      left: readsOften(width.element, "rows parts columns"),
      ends: reads("u32", "parts"),
      right: readsOften(width.element, "extent columns"),
      result: writes("f32", "capacity"),
    },
    workgroup: SAMPLED_THREADS,
    grid: ({ capacity }) => Math.ceil(capacity / (SAMPLES * SAMPLED_THREADS)),
    cost: ({ columns, capacity }) => ({ flops: 2 * columns * capacity, bytes: 8 * columns * capacity }),
    body: `
  let end = starts[dims.allRows];
  let entry0 = ${SAMPLES}u * (group * ${SAMPLED_THREADS}u + lane);
  if (entry0 >= end) { return; }
  let loads = dims.columns / ${width.scalars}u;
  ${
      everySample((e) => `
    ${e > 0 ? `let entry${e} = min(entry0 + ${e}u, end - 1u);` : ""}
    let row${e} = entryRows[entry${e}] - dims.firstRow;
    let index${e} = indices[entry${e}];
    var part${e} = 0u;
    for (; part${e} + 1u < dims.parts; part${e} += 1u) { if (index${e} < ends[part${e}]) { break; } }
    let l${e} = (min(row${e}, dims.rows - 1u) * dims.parts + part${e}) * loads;
    let r${e} = min(index${e} - dims.begin, dims.extent - 1u) * loads;
    let wanted${e} = entry0 + ${e}u < end && row${e} < dims.rows && index${e} - dims.begin < dims.extent;
    var sum${e} = 0.0;`)
    }
  if (!(${Array.from({ length: SAMPLES }, (_, e) => `wanted${e}`).join(" || ")})) { return; }
  if (dims.firstLoad > 0u) {
    ${everySample((e) => `sum${e} = result[entry${e}];`)}
  }
  // Entries ascend by row and part, so that those between two equal ones are equal too.
  if (row0 == row${SAMPLES - 1} && part0 == part${SAMPLES - 1}) {
    for (var c = dims.firstLoad; c < dims.endLoad; c += 1u) {
      let x = left[l0 + c];
      ${everySample((e) => addProduct(width, e, "x"))}
    }
  } else {
    for (var c = dims.firstLoad; c < dims.endLoad; c += 1u) {
      ${everySample((e) => `let x${e} = left[l${e} + c];\n    ${addProduct(width, e, `x${e}`)}`)}
    }
  }
  ${everySample((e) => `if (wanted${e}) { result[entry${e}] = sum${e}; }`)}`,
  })
);
