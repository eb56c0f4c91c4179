/**
 * What a GPU's compiler says of the kernels, and what it said when the table was written.
 *
 * @module
 */

import type { Compiled } from "./radv.ts";

/** Of the worst text of a row. */
export interface Figures {
  /** Vector registers of an invocation. */
  readonly registers: number;
  /** Registers of either kind that did not fit and live in memory. */
  readonly spills: number;
  /** Bytes that a workgroup shares. */
  readonly workgroupBytes: number;
  /** Subgroups that a SIMD keeps in flight to hide latency. */
  readonly waves: number;
  /** Bytes of code. */
  readonly code: number;
  /** Cycles that one subgroup takes, loops once through, by the compiler's estimate. */
  readonly latency: number;
  /** Cycles between the ends of two subgroups where all that fit are in flight. */
  readonly inverseThroughput: number;
}

/** Figures by rows. */
export type Kernels = Readonly<Record<string, Figures>>;

/** The committed table. */
export interface Table {
  /** Version of Mesa. */
  readonly mesa: string;
  /** Which WGSL compiler made the SPIR-V. */
  readonly compiler: string;
  /** By `RADV_FORCE_FAMILY`. */
  readonly families: Readonly<Record<string, Kernels>>;
}

/** The worst figures of each row. */
export function figuresOf({ shaders }: Compiled): Kernels {
  const rows = Map.groupBy(shaders, ({ row }) => row);
  return Object.fromEntries(
    [...rows].sort(([a], [b]) => a < b ? -1 : 1).map(([row, texts]) => {
      const most = (...names: readonly string[]) =>
        Math.max(...texts.map(({ statistics }) => names.reduce((sum, name) => sum + statistics[name]!, 0)));
      return [row, {
        registers: most("VGPRs"),
        spills: most("Spilled VGPRs", "Spilled SGPRs"),
        workgroupBytes: most("LDS size"),
        waves: Math.min(...texts.map(({ statistics }) => statistics["Subgroups per SIMD"]!)),
        code: most("Code size"),
        latency: most("Latency"),
        inverseThroughput: most("Inverse Throughput"),
      }];
    }),
  );
}

/** What is worse than the table allows, a sentence for each row, among those that were compiled for a family. */
export function regressions(found: Kernels, wanted: Kernels | undefined): string[] {
  const worse = Object.entries(found).flatMap(([row, { spills, waves, registers }]) => {
    const before = wanted?.[row];
    if (spills > 0) return [`${row}: ${spills} registers spill`];
    if (!before) return [`${row} is not in the table`];
    if (waves < before.waves) return [`${row}: ${waves} waves, ${before.waves} in the table; ${registers} registers`];
    return [];
  });
  const gone = Object.keys(wanted ?? {}).filter((row) => !(row in found)).map((row) => `${row} is only in the table`);
  return [...worse, ...gone];
}

/** The order of {@link Figures} in a row of the file. */
const COLUMNS = [
  "registers",
  "spills",
  "workgroupBytes",
  "waves",
  "code",
  "latency",
  "inverseThroughput",
] as const satisfies (keyof Figures)[];

/** The table as its file holds it: a line a row. */
export function tableText({ mesa, compiler, families }: Table): string {
  const family = ([name, kernels]: [string, Kernels]) =>
    `    ${JSON.stringify(name)}: {\n${
      Object.entries(kernels).map(([row, figures]) =>
        `      ${JSON.stringify(row)}: [${COLUMNS.map((column) => figures[column]).join(", ")}]`
      ).join(",\n")
    }\n    }`;
  return `{
  "mesa": ${JSON.stringify(mesa)},
  "compiler": ${JSON.stringify(compiler)},
  "columns": ${JSON.stringify(COLUMNS).replaceAll(",", ", ")},
  "families": {
${Object.entries(families).map(family).join(",\n")}
  }
}
`;
}

/** Reads {@link tableText}. */
export function parseTable(text: string): Table {
  const { mesa, compiler, families } = JSON.parse(text) as Omit<Table, "families"> & {
    readonly families: Record<string, Record<string, number[]>>;
  };
  const kernels = (rows: Record<string, number[]>): Kernels =>
    Object.fromEntries(
      Object.entries(rows).map(([row, values]) => [
        row,
        Object.fromEntries(COLUMNS.map((column, i) => [column, values[i]])) as unknown as Figures,
      ]),
    );
  const named = Object.entries(families).map(([name, rows]) => [name, kernels(rows)]);
  return { mesa, compiler, families: Object.fromEntries(named) };
}
