/**
 * `saev compare`: compares runs and other checkpoints.
 *
 * @module
 */

import { batchesInOrder, finiteRows, openRows, type RowSource } from "../data/mod.ts";
import { evaluate } from "../eval/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load, ShapeError } from "../mod.ts";
import {
  checkPickFolder,
  compare,
  type ComparedRun,
  type Comparison,
  CountLine,
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
    out: { value: "DIR", help: "output folder for compare.html and compare.csv (default: compare)" },
    pick: { value: "N", help: "copy the models of the N best runs of each layer into DIR/picked" },
    data: { value: "DATA", help: "evaluate everything on these rows; required for checkpoints that are not runs" },
    ...DATA_OPTIONS,
    "batch-size": { value: "N", help: "rows per batch (default: 2048)" },
    ...READ_OPTIONS,
  },
  permissions:
    `--allow-read=RUN,DATA,DIR --allow-write=DIR. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and
--allow-read for the cache folder. An address needs --allow-net.`,
  details:
    `RUN is the folder of a run, or of a sweep, which means all of its runs; with --data it may also be a checkpoint of any
format that saev inspect can read. Runs are compared by their own measurements; with --data, all are evaluated again on
the same rows.

The command prints a table. DIR receives compare.csv and compare.html, a page that opens without a server or network: the
L0-NMSE front, whose points link to the reports, a sortable table, overlaid curves, densities side by side, and the
differences in configuration.

The best runs are those on the front: no other run of their layer has both a smaller L0 and a smaller NMSE. --pick
copies at most N of these, evenly spaced in log L0, to layer_L/RUN/sae.pt, with one line each in manifest.jsonl, as in
the Python package's repositories.

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
  if (pick !== undefined) await checkPickFolder(`${out}/picked`);
  if (data !== undefined) await useTuning();
  using line = data !== undefined && Deno.stderr.isTerminal() ? new CountLine("measured", paths.length) : undefined;
  const opened = new Map<number, RowSource>();
  const runs: ComparedRun[] = [];
  for (const { path, isRun } of paths) {
    signal.throwIfAborted();
    line?.show(runs.length);
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
  line?.[Symbol.dispose]();
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

/** Fields of the configuration shown in the table; the files have all of them. */
const FIELDS = 4;

/** One line per run, ordered by L0. */
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
  // Numbers are right-aligned.
  const isNumber = (column: number) => column >= 2 && column <= 5;
  const rows = lines.map((line) =>
    line.map((cell, column) => isNumber(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))
      .join("  ").trimEnd()
  );
  return [...rows, "", "* on the front: no other run has both a smaller L0 and a smaller NMSE"].join("\n");
}
