/**
 * `saev compare`: runs and other checkpoints side by side.
 *
 * @module
 */

import { batchesInOrder, finiteRows, openRows, type RowSource } from "../data/mod.ts";
import { evaluate } from "../eval/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load, ShapeError } from "../mod.ts";
import {
  compare,
  type ComparedRun,
  type Comparison,
  measuredCheckpoint,
  measuredRun,
  pickRuns,
  readRun,
  runFoldersAt,
  writeComparisonFiles,
} from "../runner/mod.ts";
import { opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";
import { DATA_DETAILS, DATA_OPTIONS, dataOptions } from "./data.ts";
import { useTuning } from "./tuning.ts";

/** The command. */
export const compareCommand: Command = {
  summary: "Compare runs, sweeps and other checkpoints: the L0-NMSE front, curves, differences.",
  positionals: ["RUN..."],
  options: {
    out: { value: "DIR", help: "folder for compare.html and compare.csv (compare)" },
    pick: { value: "N", help: "copy the models of the N best runs of each layer into DIR/picked" },
    data: { value: "DATA", help: "measure everything on these rows; other checkpoints than runs need it" },
    ...DATA_OPTIONS,
    "batch-size": { value: "N", help: "rows at a time (2048)" },
    ...READ_OPTIONS,
  },
  permissions:
    `--allow-read=RUN,DATA,DIR --allow-write=DIR; with --allow-env=HOME,XDG_CACHE_HOME and --allow-read of the
cache folder it uses what saev tune found. An address needs --allow-net.`,
  details:
    `RUN is the folder of a run, or of a sweep, which stands for all of its runs; with --data also a checkpoint of any
format that saev inspect knows. A run is compared by what it has measured itself; with --data, all are measured anew, on
the same rows.

A table is printed. DIR receives compare.csv and compare.html, a page that opens without a server or network: the front of
L0 and NMSE, whose points lead to the reports, a table that sorts, curves over each other, densities side by side, and the
fields of the configuration that differ.

The best runs are those on the front: no other run of their layer has both a smaller L0 and a smaller NMSE. Of these --pick
takes at most N, evenly spaced in log L0, as layer_L/RUN/sae.pt with a line for each in manifest.jsonl, as the Python
package's repositories have them.

${DATA_DETAILS}`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const out = args.text("out") ?? "compare";
  const pick = args.integer("pick", 1);
  const data = args.text("data");
  const batchSize = args.integer("batch-size", 1) ?? 2048;
  const paths: { readonly path: string; readonly isRun: boolean }[] = [];
  for (const path of args.positionals) {
    const folders = await runFoldersAt(path);
    if (folders === null && data === undefined) {
      throw new UsageError(
        `${shownAddress(path)} is not the folder of a run or a sweep; to compare another checkpoint, give --data too`,
      );
    }
    paths.push(...folders?.map((folder) => ({ path: folder, isRun: true })) ?? [{ path, isRun: false }]);
  }
  if (data !== undefined) await useTuning();
  const opened = new Map<number, RowSource>();
  const runs: ComparedRun[] = [];
  for (const { path, isRun } of paths) {
    signal.throwIfAborted();
    const found = isRun ? await readRun(path) : null;
    if (data === undefined || (found && !found.files.includes("sae.pt"))) {
      runs.push(found!);
      continue;
    }
    const checkpoint = found ? `${path}/sae.pt` : path;
    using sae = await opening(signal, (source) => load(checkpoint, { ...source, ...readOptions(args) }));
    warn(sae.warnings);
    const { d_model } = sae.cfg;
    const rows = opened.get(d_model) ??
      await opening(signal, (source) => openRows(data, { ...source, ...dataOptions(args), d_model })).catch((error) => {
        if (error instanceof ShapeError) error.message += `, as ${shownAddress(checkpoint)} has it`;
        throw error;
      });
    opened.set(d_model, rows);
    const metrics = await evaluate(sae, batchesInOrder(finiteRows(rows, shownAddress(data)), batchSize), { signal });
    const on = `${rows.n_rows.toLocaleString("en")} rows of ${shownAddress(data)}`;
    runs.push(found ? measuredRun(found, metrics, on) : measuredCheckpoint(path, { metrics, cfg: sae.cfg, rows: on }));
  }
  const comparison = compare(runs);
  warn(comparison.warnings);
  await writeComparisonFiles(comparison, out);
  await print(comparisonTable(comparison));
  if (pick !== undefined) {
    const picked = await pickRuns(comparison, pick, `${out}/picked`);
    for (const { path, l0, nmse } of picked) {
      say(`picked ${out}/picked/${path}: L0 ${l0.toFixed(1)}, NMSE ${nmse.toFixed(4)}`);
    }
  }
  say(`comparison: ${out}/compare.html`);
  return 0;
}

/** Fields of the configuration in the table; all are in the files. */
const FIELDS = 4;

/** A line for each run, by L0. */
function comparisonTable({ runs, names, isOnFront, differences }: Comparison): string {
  const fields = differences.slice(0, FIELDS);
  const fixed = (value: number | null | undefined, digits: number) => value == null ? "–" : value.toFixed(digits);
  const order = runs.map((_, i) => i).sort((a, b) =>
    (runs[a]!.measured?.l0 ?? Infinity) - (runs[b]!.measured?.l0 ?? Infinity) || a - b
  );
  const lines = [
    ["", "run", "L0", "NMSE", "dead", "dense", "state", ...fields.map(({ field }) => field)],
    ...order.map((i) => {
      const { state, measured } = runs[i]!;
      const dead = measured?.dead_fraction;
      return [
        isOnFront[i] ? "*" : "",
        names[i]!,
        fixed(measured?.l0, 1),
        fixed(measured?.nmse, 4),
        dead == null ? "–" : `${(100 * dead).toFixed(1)} %`,
        fixed(measured?.n_dense, 0),
        state,
        ...fields.map(({ values }) => values[i] ?? "–"),
      ];
    }),
  ];
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  // Numbers stand under each other by their ends.
  const isNumber = (column: number) => column >= 2 && column <= 5;
  const rows = lines.map((line) =>
    line.map((cell, column) => isNumber(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))
      .join("  ").trimEnd()
  );
  return [...rows, "", "* on the front: no other run has both a smaller L0 and a smaller NMSE"].join("\n");
}
