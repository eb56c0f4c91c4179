/**
 * `saev collect`: summarises a sweep whose runs were trained by several processes.
 *
 * @module
 */

import {
  aboutChanges,
  type CollectedRun,
  type CollectedSweep,
  collectSweep,
  JOB_SCRIPT,
  printable,
  quoted,
  shownNmse,
  writeCollected,
} from "../runner/mod.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";
import { parseToml } from "./toml.ts";

/** The command. */
export const collectCommand: Command = {
  summary: "Summarise the runs of a sweep from its folder, and list what is missing.",
  positionals: ["DIR"],
  options: { json: { help: "print JSON" } },
  permissions: `--allow-read=DIR --allow-write=DIR. With --allow-sys=hostname it recognises processes of this machine.`,
  details:
    `DIR is a folder of saev train: a sweep in one process, a job array, or a single run. The command reads only DIR,
so it works on any machine that can read it, even while runs are in progress. It rewrites sweep.json and compare.html there.

The exit code is 0 if all runs are finished, otherwise 1. For unfinished runs the output shows the command
that starts or continues them.`,
  run,
};

async function run(args: Arguments): Promise<number> {
  const path = args.positionals[0]!.replace(/(?<=.)\/+$/, "");
  const text = await Deno.readTextFile(`${path}/config.toml`).catch((error: unknown) => {
    if (error instanceof Deno.errors.NotFound) {
      throw new UsageError(`${path} has no config.toml; collect takes the folder that saev train was given, or made`);
    }
    throw error;
  });
  const found = await collectSweep(path, parseToml(text));
  if (found.runs.length > 1) await writeCollected(path, found);
  if (args.flag("json")) await print(JSON.stringify(found));
  else await print(rowsOf(found.runs).map(printable).join("\n"));
  return await sayMissing(path, found);
}

function rowsOf(runs: readonly CollectedRun[]): string[] {
  const cells = runs.map((run) => [
    run.directory,
    run.state === "waiting" ? "missing" : run.state,
    run.nmse === null ? "" : `NMSE ${shownNmse(run.nmse)}`,
    run.l0 === null ? "" : `L0 ${run.l0.toFixed(1)}`,
    run.dead_fraction === null ? "" : `${(100 * run.dead_fraction).toFixed(1)} % dead`,
    [aboutChanges(run.changes), run.problem ?? ""].filter((text) => text !== "").join(": "),
  ]);
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd());
}

/** Prints the missing runs and returns the exit code. */
async function sayMissing(path: string, { runs, missing }: CollectedSweep): Promise<number> {
  const n_finished = runs.filter(({ state }) => state === "finished").length;
  say(`${n_finished} of ${runs.length} runs are finished`);
  if (missing.length === 0) return 0;
  // Runs in progress need no restart, and a diverged run would diverge again.
  const isOpen = (place: number) => !["training", "diverged", "finished"].includes(runs[place]!.state);
  const open = missing.filter(({ runs: places }) => places.some(isOpen)).map(({ task }) => task);
  if (open.length === 0) return 1;
  const script = `${path}/${JOB_SCRIPT}`;
  const hasScript = await Deno.stat(script).then(() => true, () => false);
  const single = runs.length === 1 ? "" : ` --task ${open.join(", then ")}`;
  say(
    hasScript
      ? `sbatch --array=${open.join(",")} ${quoted(script)} trains what is missing`
      : `saev train CONFIG --out ${quoted(path)} --resume=auto${single} trains what is missing`,
  );
  return 1;
}
