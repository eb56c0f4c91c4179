/**
 * `saev baseline`: saves principal components or k-means of rows as a checkpoint.
 *
 * @module
 */

import { finiteRows, openRows } from "../data/mod.ts";
import { dump, findTargets, shownAddress } from "../io/mod.ts";
import { CountLine } from "../runner/mod.ts";
import { fitKMeans, fitPca } from "../train/mod.ts";
import { opening } from "./checkpoint.ts";
import { type Arguments, type Command, print, table, UsageError } from "./command.ts";
import { DATA_DETAILS, DATA_OPTIONS, dataOptions } from "./data.ts";
import { useTuning } from "./tuning.ts";

const METHODS = ["pca", "k-means"] as const;

/** The command. */
export const baselineCommand: Command = {
  summary: "Fit a baseline for dictionaries, PCA or k-means, and save it as a checkpoint.",
  positionals: ["METHOD", "DATA"],
  options: {
    out: { value: "DIR", help: "output folder for sae.pt" },
    components: {
      value: "N",
      help: "with pca: number of latents, at most d_model (default: 256, or d_model if that is less)",
    },
    clusters: { value: "N", help: "with k-means: number of latents (default: 1024)" },
    seed: { value: "N", help: "with k-means: seed of the initial rows (default: 0)" },
    passes: { value: "N", help: "with k-means: largest number of passes over the rows (default: 20)" },
    "batch-size": { value: "N", help: "rows per batch (default: 4096)" },
    overwrite: { help: "replace an existing sae.pt in DIR" },
    ...DATA_OPTIONS,
    json: { help: "print JSON" },
  },
  permissions:
    `--allow-read=DATA,DIR --allow-write=DIR. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and
--allow-read for the cache folder. An address needs --allow-net.`,
  details: `METHOD is pca or k-means. ${DATA_DETAILS}

The checkpoint is in saev's format: the Python package and every command (evaluate, encode, probe) can read it. PCA becomes
a TopK that keeps all of its latents, with codes of either sign. k-means becomes a TopK that keeps one latent, that of
the nearest centroid, with a code within 0.1 % of 1. Both stream the rows from disk: PCA once, k-means once per pass.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [given, data] = args.positionals as [string, string];
  const method = METHODS.find((known) => known === given);
  if (method === undefined) throw new UsageError(`METHOD is ${given}; expected pca or k-means`);
  const out = args.text("out");
  if (out === undefined) throw new UsageError("baseline needs --out, the folder for sae.pt");
  const n_components = args.integer("components", 1);
  const kMeans = {
    clusters: args.integer("clusters", 1),
    seed: args.integer("seed", 0),
    passes: args.integer("passes", 1),
  };
  const batch_size = args.integer("batch-size", 1) ?? 4096;
  const other = method === "pca"
    ? Object.entries(kMeans).find(([, value]) => value !== undefined)?.[0]
    : n_components && "components";
  if (other) throw new UsageError(`--${other} is not for ${method}`);
  const path = `${out.replace(/[/\\]+$/, "")}/sae.pt`;
  await findTargets(path, { format: "saev", overwrite: args.flag("overwrite") });
  const rows = finiteRows(
    await opening(signal, (source) => openRows(data, { ...source, ...dataOptions(args) })),
    shownAddress(data),
  );
  await useTuning();
  using stack = new DisposableStack();
  let line: CountLine | undefined;
  const watched = {
    batch_size,
    signal,
    onProgress: (done: number, most: number) => (line ??= stack.use(new CountLine("rows read", most))).show(done),
  };
  const { n_rows, d_model } = rows;
  let numbers: Readonly<Record<string, number>>;
  if (method === "pca") {
    const fitted = await fitPca(rows, { n_components: n_components ?? Math.min(256, d_model), ...watched });
    using sae = fitted.sae;
    await dump(path, sae);
    numbers = { d_sae: sae.cfg.d_sae, explained_variance: fitted.explained_variance };
  } else {
    const { clusters = 1024, seed = 0, passes = 20 } = kMeans;
    const { sae: model, errors } = await fitKMeans(rows, { n_clusters: clusters, seed, max_iter: passes, ...watched });
    using sae = model;
    await dump(path, sae);
    numbers = { d_sae: sae.cfg.d_sae, passes: errors.length, mse: errors.at(-1)! / (n_rows * d_model) };
  }
  stack.dispose();
  if (args.flag("json")) await print(JSON.stringify({ method, path, n_rows, d_model, ...numbers }));
  else {
    const shown = Object.entries(numbers).map(([name, value]): [string, string] => [
      NAMES[name]!,
      Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4),
    ]);
    await print(table([["checkpoint", path], ["rows", `${n_rows.toLocaleString("en")} of ${d_model}`], ...shown]));
  }
  return 0;
}

const NAMES: Readonly<Record<string, string>> = {
  d_sae: "latents",
  explained_variance: "explained variance",
  passes: "passes",
  mse: "MSE",
};
