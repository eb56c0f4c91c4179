/**
 * Compares two results of `deno task bench --json` and fails if a ratio got worse. Times are never compared, because
 * machines differ; a ratio compares two measurements of the same run.
 *
 *     deno run --allow-read bench/compare.ts BEFORE.json AFTER.json [--slack PERCENT]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Row, table } from "./measure.ts";

/** The parts of a result that have ratios. */
export interface BenchResult {
  /** `product`, `% of peak`: more is better. */
  readonly products: readonly Row[];
  /** `weights`, `f16 / f32`: less is better. */
  readonly f16?: readonly Row[];
  /** `step`, `phase`, `/ encoder`: less is better. */
  readonly steps: readonly Row[];
  /** `peer`, `ours / this`: less is better. */
  readonly peers?: readonly Row[];
}

/** A ratio in both results, and by how many percent it got worse. */
export interface Comparison {
  /** Its name. */
  readonly ratio: string;
  /** Its earlier value. */
  readonly before: number;
  /** Its later value. */
  readonly after: number;
  /** In percent; negative if it improved. */
  readonly worse: number;
}

/** Every ratio that both results have. */
export function compareResults(before: BenchResult, after: BenchResult): Comparison[] {
  const earlier = new Map(ratiosOf(before));
  return ratiosOf(after).flatMap(([ratio, { value, lessIsBetter }]) => {
    const found = earlier.get(ratio);
    if (!found || found.value === 0 || value === 0) return [];
    const worse = 100 * ((lessIsBetter ? value / found.value : found.value / value) - 1);
    return [{ ratio, before: found.value, after: value, worse }];
  });
}

interface Ratio {
  readonly value: number;
  readonly lessIsBetter: boolean;
}

/** A phase of a few percent of the encoder product varies by more than it weighs, so only whole steps are checked. */
function ratiosOf({ products, f16 = [], steps, peers = [] }: BenchResult): [ratio: string, Ratio][] {
  return [
    ...products.map((row): [string, Ratio] => [
      `${row.product}, % of peak`,
      { value: Number(row["% of peak"]), lessIsBetter: false },
    ]),
    ...f16.map((row): [string, Ratio] => [
      `${row.weights}, f16 / f32`,
      { value: Number(row["f16 / f32"]), lessIsBetter: true },
    ]),
    ...steps.filter(({ phase }) => phase === "total").map((row): [string, Ratio] => [
      `${row.step}, / encoder product`,
      { value: Number(row["/ encoder"]), lessIsBetter: true },
    ]),
    ...peers.map((row): [string, Ratio] => [
      `time of ${row.peer}, ours / this`,
      { value: Number(row["ours / this"]), lessIsBetter: true },
    ]),
  ];
}

if (import.meta.main) {
  const { _: [before, after], slack } = parseArgs(Deno.args, { string: ["_", "slack"], default: { slack: "10" } });
  if (before === undefined || after === undefined) {
    console.error("usage: compare.ts BEFORE.json AFTER.json [--slack PERCENT]");
    Deno.exit(2);
  }
  const read = async (path: unknown) => JSON.parse(await Deno.readTextFile(String(path))) as BenchResult;
  const found = compareResults(await read(before), await read(after));
  if (found.length === 0) {
    console.error("error: the two results share no ratio");
    Deno.exit(2);
  }
  console.log(table(found.map((row) => ({ ...row, verdict: row.worse > Number(slack) ? "WORSE" : "ok" }))));
  if (found.some(({ worse }) => worse > Number(slack))) Deno.exit(1);
}
