/**
 * `saev encode`: writes codes to the folder that the Python package's tools read.
 *
 * @module
 */

import { finiteRows } from "../data/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load, ShapeError } from "../mod.ts";
import { adapterName, CountLine, encodeToFolder, type EncodingPlan, openTokens } from "../runner/mod.ts";
import { CHECKPOINT_DETAILS, opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, table, UsageError } from "./command.ts";
import { DATA_DETAILS, DATA_OPTIONS, dataOptions } from "./data.ts";
import { useTuning } from "./tuning.ts";

/** The command. */
export const encodeCommand: Command = {
  summary: "Write codes in the format that the Python package's tools read.",
  positionals: ["RUN"],
  options: {
    data: { value: "DATA", help: "rows to encode: a folder of activation shards, or a data file" },
    out: { value: "DIR", help: "output folder for the codes (default: RUN/inference/HASH, if RUN is a folder)" },
    "ignore-labels": { value: "LIST", help: "write no codes for patches with these labels, for example 0,3" },
    "n-dists": { value: "N", help: "number of latents in distributions.pt (default: 25)" },
    "batch-size": { value: "N", help: "rows per batch (default: 2048)" },
    overwrite: { help: "replace the codes of another model or other rows in DIR" },
    weights: {
      value: "HOW",
      help: "f32 or f16: precision of the weight matrices on the GPU; f16 takes half the memory (default: f32)",
    },
    ...DATA_OPTIONS,
    ...READ_OPTIONS,
    json: { help: "print JSON" },
  },
  permissions:
    `--allow-read=RUN,DATA,DIR --allow-write=DIR. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and --allow-read
for the cache folder. A format of several files needs read access to its folder; an address needs --allow-net.`,
  details:
    `RUN is the folder of a run, made by saev train or by the Python package, or a CHECKPOINT. ${CHECKPOINT_DETAILS}

${DATA_DETAILS}

DIR gets token_acts.npz (rows × latents, a SciPy CSR matrix), mean_values.pt, sparsity.pt, distributions.pt, metrics.json
and config.json. HASH is the name that the Python package gives the shards, so that its tools find the folder. A latent fires
if its code is not 0. Ignored patches do not count.

If the command is stopped, run it again: it continues after the last rows saved.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [run] = args.positionals as [string];
  const data = args.text("data");
  if (data === undefined) throw new UsageError("encode needs --data, the rows to encode");
  const ignored = labelsOf(args);
  const n_dists = args.integer("n-dists", 1);
  const batch_size = args.integer("batch-size", 1);
  const weights = args.choice("weights", ["f32", "f16"]) ?? "f32";
  const given = dataOptions(args);
  const reading = readOptions(args);
  const isFolder = await Deno.stat(run).then(({ isDirectory }) => isDirectory, () => false);
  if (!isFolder && args.text("out") === undefined) {
    throw new UsageError(`encode needs --out, the output folder, because ${shownAddress(run)} is not a folder`);
  }

  using sae = await opening(signal, (source) => load(run, { ...source, ...reading, weights }));
  warn(sae.warnings);
  const wanted = { ...given, d_model: sae.cfg.d_model };
  const found = await opening(signal, (source) => openTokens(data, { ...source, ...wanted })).catch((error) => {
    if (error instanceof ShapeError) error.message += `, as ${shownAddress(run)} has it`;
    throw error;
  });
  if (ignored.length > 0 && found.labels === null) {
    throw new RangeError(
      `reading ${shownAddress(data)}: --ignore-labels needs content tokens with labels.bin; found none`,
    );
  }
  await useTuning();
  const rows = finiteRows(found.rows, shownAddress(data));
  const out = args.text("out") ?? `${run.replace(/[/\\]+$/, "")}/inference/${found.hash}`;
  const plan: EncodingPlan = {
    sae,
    rows,
    out,
    overwrite: args.flag("overwrite"),
    about: {
      run: shownAddress(run),
      shards: shownAddress(data),
      tokens: given.tokens ?? "content",
      layer: found.layer,
    },
    ...found.labels && ignored.length > 0 && { ignored: { labels: found.labels, ignore_labels: ignored } },
    ...n_dists !== undefined && { n_dists },
    ...batch_size !== undefined && { batch_size },
  };
  let done = 0;
  try {
    using line = new CountLine("rows", rows.n_rows);
    const { metrics, n_entries, n_kept } = await encodeToFolder(plan, {
      signal,
      onProgress: (count) => line.show(done = count),
    });
    line[Symbol.dispose]();
    if (args.flag("json")) {
      const numbers = Object.entries(metrics).map(([name, value]) => [name, Number.isFinite(value) ? value : null]);
      await print(
        JSON.stringify({ out, n_kept, n_entries, adapter: adapterName(sae.device), ...Object.fromEntries(numbers) }),
      );
      return 0;
    }
    if (n_kept === rows.n_rows) say(`${out} already holds these codes`);
    await print(table([
      ["folder", out],
      ["tokens counted", metrics.n_tokens.toLocaleString("en")],
      ["codes", `${n_entries.toLocaleString("en")}, ${(n_entries / metrics.n_tokens).toPrecision(4)} per token`],
      ["normalised MSE", metrics.normalized_mse?.toPrecision(4) ?? "undefined: all rows are equal"],
    ]));
    return 0;
  } catch (error) {
    if (signal.aborted) say(`stopped after ${done} rows; run the same command again to continue`);
    throw error;
  }
}

function labelsOf(args: Arguments): number[] {
  const list = args.text("ignore-labels")?.split(",") ?? [];
  return list.map((text) => {
    const label = Number(text);
    if (/^\d+$/.test(text.trim()) && label < 256) return label;
    throw new UsageError(
      `--ignore-labels must be integers from 0 to 255 separated by commas, found ${JSON.stringify(text)}`,
    );
  });
}
