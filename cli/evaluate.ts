/**
 * `saev evaluate`: measures a checkpoint on rows.
 *
 * @module
 */

import { batchesInOrder, finiteRows, openRows } from "../data/mod.ts";
import {
  type Coherence,
  evaluate,
  measureCoherence,
  metricsTable,
  slowCoherence,
  typedArraysAsArrays,
  undefinedMetrics,
} from "../eval/mod.ts";
import { shownAddress } from "../io/mod.ts";
import { load, ShapeError, type SparseAutoencoder } from "../mod.ts";
import { adapterName, CountLine } from "../runner/mod.ts";
import { opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { DATA_DETAILS, DATA_OPTIONS, dataOptions } from "./data.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";
import { useTuning } from "./tuning.ts";

/** The command. */
export const evaluateCommand: Command = {
  summary: "Evaluate a checkpoint on the rows of a data file.",
  positionals: ["CHECKPOINT", "DATA"],
  options: {
    ...READ_OPTIONS,
    weights: {
      value: "HOW",
      help: "f32 or f16: precision of the weight matrices on the GPU; f16 takes half the memory (default: f32)",
    },
    json: { help: "print JSON, including the metrics of each latent" },
    monosemanticity: { help: "measure how similar the rows are that activate each latent" },
    embeddings: {
      value: "FILE",
      help: "measure monosemanticity with the rows of this file as embeddings of DATA's rows",
    },
    ...DATA_OPTIONS,
    "embeddings-key": { value: "NAME", help: "name of the array in FILE" },
    "no-coherence": { help: "do not measure how similar the rows of W_dec are" },
    coherence: { help: "measure it even if that takes more than a minute" },
    "dense-above": {
      value: "X",
      help: "count latents active on more than this share of the rows as dense (default: 0.01)",
    },
    "almost-dead-below": {
      value: "X",
      help: "count latents active on less than this share of the rows as almost dead (default: 1e-7)",
    },
    "batch-size": { value: "N", help: "rows per batch (default: 2048)" },
  },
  permissions:
    `--allow-read=CHECKPOINT,DATA. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and --allow-read
for the cache folder. A format of several files needs read access to its folder; an address needs --allow-net.`,
  details: `${DATA_DETAILS}

FILE takes the same forms as DATA, but bare numbers always need the JSON file. Monosemanticity needs 8 bytes of memory per
latent and column of FILE.`,
  run,
};

/** `null` if coherence is not wanted, or is slow and was not requested. */
async function coherenceOf(sae: SparseAutoencoder, args: Arguments, signal: AbortSignal): Promise<Coherence | null> {
  if (args.flag("no-coherence")) return null;
  const slow = slowCoherence(sae);
  if (slow !== null && !args.flag("coherence")) {
    say(`${slow}; --coherence measures it anyway`);
    return null;
  }
  if (!Deno.stderr.isTerminal()) return await measureCoherence(sae, { signal });
  using line = new CountLine("rows of W_dec compared", sae.cfg.d_sae);
  return await measureCoherence(sae, { signal, onProgress: (done) => line.show(done) });
}

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [checkpoint, data] = args.positionals as [string, string];
  const [batchSize, file] = [args.integer("batch-size", 1) ?? 2048, args.text("embeddings")];
  const [dense_above, almost_dead_below] = [args.share("dense-above"), args.share("almost-dead-below")];
  const options = {
    signal,
    ...dense_above === undefined ? {} : { dense_above },
    ...almost_dead_below === undefined ? {} : { almost_dead_below },
  };
  if (args.flag("coherence") && args.flag("no-coherence")) {
    throw new UsageError("--coherence and --no-coherence contradict each other; give one");
  }
  const weights = args.choice("weights", ["f32", "f16"]) ?? "f32";
  using sae = await opening(
    signal,
    (source) => load(checkpoint, { ...source, ...readOptions(args), weights }),
  );
  warn(sae.warnings);
  const given = { ...dataOptions(args), d_model: sae.cfg.d_model };
  const rows = await opening(signal, (source) => openRows(data, { ...source, ...given })).catch((error) => {
    if (error instanceof ShapeError) error.message += `, as ${shownAddress(checkpoint)} has it`;
    throw error;
  });
  await useTuning();
  const key = args.text("embeddings-key") ?? null;
  const embeddings = file && await opening(signal, (source) => openRows(file, { ...source, key }));
  if (embeddings && embeddings.n_rows !== rows.n_rows) {
    throw new RangeError(
      `${shownAddress(file!)} has ${embeddings.n_rows} rows; expected one for each of the ${rows.n_rows} rows of ` +
        shownAddress(data),
    );
  }
  const batches = batchesInOrder(finiteRows(rows, shownAddress(data)), batchSize);
  const metrics = embeddings || args.flag("monosemanticity")
    ? await evaluate(sae, batches, {
      ...options,
      monosemanticity: embeddings ? { embeddings: finiteRows(embeddings, file) } : true,
    })
    : await evaluate(sae, batches, options);
  signal.throwIfAborted();
  const measured = { ...metrics, coherence: await coherenceOf(sae, args, signal) };
  const adapter = adapterName(sae.device);
  if (args.flag("json")) {
    const report = {
      checkpoint: shownAddress(checkpoint),
      data: shownAddress(data),
      adapter,
      ...measured,
      undefined_metrics: undefinedMetrics(measured),
    };
    await print(JSON.stringify(report, typedArraysAsArrays));
  } else {
    const { n_rows, density } = metrics;
    const size = `${n_rows.toLocaleString("en")} rows of ${rows.d_model}, ${
      density.length.toLocaleString("en")
    } latents`;
    await print(
      `${shownAddress(checkpoint)} on ${shownAddress(data)}: ${size}, on ${adapter}\n\n${metricsTable(measured)}`,
    );
  }
  return 0;
}
