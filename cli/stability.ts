/**
 * `saev stability`: measures what runs of different seeds share.
 *
 * @module
 */

import { finiteRows, openRows } from "../data/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load, ShapeError } from "../mod.ts";
import {
  compareStability,
  CountLine,
  runConfigOf,
  runFoldersAt,
  type StabilityFile,
  type StabilityNumbers,
  type StableModel,
  untrainedModel,
  writeStability,
} from "../runner/mod.ts";
import { opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";
import { DATA_DETAILS, DATA_OPTIONS, dataOptions } from "./data.ts";
import { useTuning } from "./tuning.ts";

/** The command. */
export const stabilityCommand: Command = {
  summary: "Measure what dictionaries of different seeds share, compared with before training.",
  positionals: ["RUN..."],
  options: {
    threshold: { value: "X", help: "smallest cosine of decoder rows at which a latent recurs (default: 0.7)" },
    data: { value: "DATA", help: "rows on which to compare the strongest examples of paired latents" },
    examples: { value: "N", help: "with --data: strongest examples of each latent (default: 16)" },
    ...DATA_OPTIONS,
    ...READ_OPTIONS,
    out: { value: "FILE", help: "write all numbers as JSON; saev features --stability reads it" },
    json: { help: "print JSON" },
  },
  permissions:
    `--allow-read=RUN,DATA --allow-write=FILE. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and
--allow-read for the cache folder. An address needs --allow-net.`,
  details:
    `RUN is the folder of a run, a checkpoint, or the folder of a sweep, which means all of its runs. At least two are needed;
saev train --seeds 5 trains five on the same rows.

For each latent, the best match in another dictionary is the largest cosine of their decoder rows; a latent recurs if that is
at least the threshold. The assignment pairs latents one to one, exactly for up to 4096 latents and greedily beyond. Paired
latents share examples if both fire most strongly on them.

Untrained dictionaries match to some degree too. So each number is shown beside its value for the same runs before their
first step; for a checkpoint that is not a run of saev, that value is unknown.

${DATA_DETAILS}`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const threshold = args.number("threshold", -1);
  const [k, data, out] = [args.integer("examples", 1), args.text("data"), args.text("out")];
  if (threshold !== undefined && threshold > 1) {
    throw new UsageError(`--threshold must be at most 1, found ${threshold}`);
  }
  if (k !== undefined && data === undefined) throw new UsageError("--examples needs --data");
  const reading = readOptions(args);
  const models: StableModel[] = [];
  for (const path of args.positionals) {
    const folders = await runFoldersAt(path);
    models.push(
      ...folders?.map((folder) => modelOfRun(folder, signal)) ?? [{
        name: shownAddress(path),
        open: async () => {
          const sae = await opening(signal, (source) => load(path, { ...source, ...reading }));
          warn(sae.warnings);
          return sae;
        },
        untrained: null,
      }],
    );
  }
  if (models.length < 2) {
    throw new UsageError(`stability needs two runs or more, found ${models.length}; saev train --seeds 5 trains five`);
  }
  await useTuning();
  const open = async (path: string, d_model: number) => {
    const given = { ...dataOptions(args), d_model };
    const rows = await opening(signal, (source) => openRows(path, { ...source, ...given })).catch((error) => {
      if (error instanceof ShapeError) error.message += `, as ${models[0]!.name} has it`;
      throw error;
    });
    return finiteRows(rows, shownAddress(path));
  };
  const only = models.find(({ untrained }) => untrained === null);
  if (only) say(`${only.name} is not the folder of a run, so its values before training are unknown`);
  using line = new CountLine("models", models.length);
  const found = await compareStability(models, {
    signal,
    onProgress: (done) => line.show(done),
    ...threshold !== undefined && { threshold },
    ...k !== undefined && { k },
    ...data !== undefined && { data: { name: shownAddress(data), open: (d_model) => open(data, d_model) } },
  });
  line[Symbol.dispose]();
  if (out !== undefined) await writeStability(out, found);
  await print(args.flag("json") ? JSON.stringify(found) : tableOf(found));
  return 0;
}

/** A run's model, and its model before the first step, from its configuration. */
function modelOfRun(folder: string, signal: AbortSignal): StableModel {
  return {
    name: shownAddress(folder),
    open: () => load(`${folder}/sae.pt`, { signal }),
    untrained: async (trained) => {
      const cfg = runConfigOf(await Deno.readTextFile(`${folder}/config.json`));
      const { path, format, d_model, key, layer, tokens, ignore_labels } = cfg.data;
      return await untrainedModel(
        cfg,
        trained,
        () => openRows(path, { format, d_model, key, layer, tokens, ignore_labels, signal }),
      );
    },
  };
}

/** One line per number, with both values. */
function tableOf({ models, threshold, trained, initial, pairs }: StabilityFile): string {
  const isExact = pairs.every((pair) => pair.is_exact);
  const names: readonly (readonly [keyof StabilityNumbers, string, string])[] = [
    ["mean_best", "best match", "largest cosine with a decoder row of another model, mean over latents"],
    ["mean_recurrence", "recurrence", `share of other models with a match of at least ${threshold}, mean over latents`],
    ["share_in_all", "in all", "share of latents that recur in every other model"],
    ["mean_assigned", "assigned", `mean cosine of latents paired one to one, ${isExact ? "exactly" : "greedily"}`],
    ["mean_jaccard", "examples", "shared strongest examples of paired latents, Jaccard index"],
  ];
  const shown = (value: number | null | undefined): string => value == null ? "–" : value.toFixed(4);
  const lines = [
    ["", "trained", "at init", ""],
    ...names.map(([key, name, about]) => [name, shown(trained[key]), shown(initial?.[key]), about]),
  ];
  const widths = [0, 1, 2].map((column) => Math.max(...lines.map((line) => line[column]!.length)));
  const text = lines.map((line) =>
    line.map((cell, column) =>
      column === 3 ? cell : column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)
    )
      .join("  ").trimEnd()
  );
  return [`${models.length} models, ${pairs.length} pairs`, "", ...text].join("\n");
}
