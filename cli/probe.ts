/**
 * `saev probe`: measures how well single latents predict classes.
 *
 * @module
 */

import { coverage, purityAt } from "../eval/mod.ts";
import { shownAddress } from "../io/mod.ts";
import {
  CountLine,
  openLabels,
  probeFolders,
  type ProbeResult,
  type TokenLabels,
  type TokensToProbe,
} from "../runner/mod.ts";
import { type Arguments, type Command, print, say, table, UsageError } from "./command.ts";
import { opening } from "./checkpoint.ts";

/** The command. */
export const probeCommand: Command = {
  summary: "Measure how well each latent alone predicts each class.",
  positionals: ["RUN"],
  options: {
    labels: { value: "LABELS", help: "classes of the tokens on which the probes are fitted" },
    test: {
      value: "LABELS",
      help: "classes of other tokens, on which the probes are scored (default: those of --labels)",
    },
    "test-codes": { value: "DIR", help: "codes of the --test tokens, if RUN is a folder of codes" },
    ridge: { value: "X", help: "weight of the ridge penalty (default: 1e-8)" },
    json: { help: "print JSON, including the numbers of each class and latent" },
  },
  permissions: `--allow-read=RUN,LABELS,DIR --allow-write=RUN,DIR. An address needs --allow-net.`,
  details:
    `RUN is a run with codes from saev encode, or the folder of such codes. LABELS is the folder of the activation
shards that were encoded, with labels.bin (a class for each patch) or labels.json (a class for each image); or a .npy
file with an integer for each row.

A probe is a logistic regression of one class on one latent. The best latent of a class has the smallest loss on the
rows of the fit. probe R is the share of the classes' uncertainty that the best latents remove, mAP the mean of their
average precisions, coverage the share of classes whose average precision exceeds 0.3, and purity@16 the share of the most
frequent class among the 16 rows that activate a latent most, or fewer if it fires on fewer.

The Python package's files are written beside the codes: probe1d_metrics.npz with the loss, weight and bias of every probe,
and probe1d_metrics__train-NAME.npz with the scores of the best ones. Existing files are replaced.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [run] = args.positionals as [string];
  const [of, ofTest, testCodes] = [args.text("labels"), args.text("test"), args.text("test-codes")];
  if (of === undefined) throw new UsageError("probe needs --labels, the classes of the tokens");
  if (testCodes !== undefined && ofTest === undefined) throw new UsageError("--test-codes needs --test, their classes");
  const ridge = args.number("ridge", Number.MIN_VALUE);
  const open = async (from: string): Promise<TokenLabels> =>
    await opening(signal, (source) => openLabels(from, source));
  const labels = await open(of);
  const train: TokensToProbe = { ...labels, folder: await codesOf(run, labels, of) };
  let test: TokensToProbe | undefined;
  if (ofTest !== undefined) {
    const labels = await open(ofTest);
    test = { ...labels, folder: testCodes ?? await codesOf(run, labels, ofTest) };
    if (test.folder === train.folder) {
      throw new UsageError(`--test has the codes of --labels, ${train.folder}; give --test-codes too`);
    }
  }
  const plan = { train, ...test && { test }, ...ridge !== undefined && { ridge } };
  using stack = new DisposableStack();
  let line: CountLine | undefined;
  const result = await probeFolders(plan, {
    signal,
    onProgress: (done, n_latents) => (line ??= stack.use(new CountLine("latents probed", n_latents))).show(done),
  });
  stack.dispose();
  const names = labels.names ?? test?.names ?? null;
  if (args.flag("json")) await print(JSON.stringify(asJson(result, names)));
  else {
    if (result.probes.n_unfinished > 0) say(`warning: ${result.probes.n_unfinished} probes took all steps`);
    await print(described(result, names, test !== undefined));
  }
  return 0;
}

/** The folder with the codes of tokens. */
async function codesOf(run: string, { hash }: TokenLabels, labels: string): Promise<string> {
  const root = run.replace(/[/\\]+$/, "");
  const places = [...hash === null ? [] : [`${root}/inference/${hash}`], root];
  for (const place of places) {
    if (await Deno.stat(`${place}/token_acts.npz`).then(() => true, () => false)) return place;
  }
  const data = hash === null ? "DATA" : shownAddress(labels);
  throw new RangeError(
    `probing ${run}: found no token_acts.npz in ${places.join(" or ")}; saev encode ${run} --data ${data} writes it`,
  );
}

function asJson({ probes, scores, paths }: ProbeResult, names: readonly string[] | null) {
  const { ap, precision, recall, f1, mean_ap, probe_r, purity_at_16, top, measures } = scores;
  const classes = Array.from(probes.best, (latent, c) => ({
    class: c,
    ...names?.[c] !== undefined && { name: names[c] },
    n_rows: measures.n_rows_of[c],
    latent,
    train_loss: probes.train.loss[latent * probes.n_classes + c],
    loss: measures.loss[latent * probes.n_classes + c],
    ap: ap[c],
    precision: precision[c],
    recall: recall[c],
    f1: f1[c],
  }));
  const purities = Array.from({ length: probes.n_latents }, (_, latent) => purityAt(top, latent, Math.min(16, top.k)));
  return {
    probe_r,
    mean_ap,
    coverage: coverage(ap, 0.3),
    purity_at_16,
    n_unfinished: probes.n_unfinished,
    classes,
    purity_at_16_of_latents: purities.map((value) => Number.isNaN(value) ? null : value),
    paths,
  };
}

/** Largest number of classes shown. */
const MAX_CLASSES = 40;

function described({ probes, scores, paths }: ProbeResult, names: readonly string[] | null, isTested: boolean): string {
  const { n_latents, n_classes, best } = probes;
  const { ap, f1, measures: { n_rows_of }, mean_ap, probe_r, purity_at_16 } = scores;
  const n_absent = n_rows_of.reduce((sum, count) => sum + Number(count === 0), 0);
  const summary = table([
    ["probes", `${n_latents.toLocaleString("en")} latents × ${n_classes} classes`],
    ["scored on", isTested ? "the rows of --test" : "the rows on which they were fitted"],
    ["probe R", probe_r.toPrecision(4)],
    ["mAP", mean_ap.toPrecision(4) + (n_absent > 0 ? `, ${n_absent} classes without rows counted as 0` : "")],
    ["coverage at 0.3", coverage(ap, 0.3).toPrecision(4)],
    ["purity@16", Number.isNaN(purity_at_16) ? "undefined: no best latent fires" : purity_at_16.toPrecision(4)],
  ]);
  const order = Array.from(best, (_, c) => c).sort((a, b) => ap[b]! - ap[a]! || a - b);
  const rows = order.slice(0, MAX_CLASSES).map((c): [string, string] => [
    names?.[c] ?? `class ${c}`,
    `latent ${String(best[c]).padEnd(6)} AP ${ap[c]!.toFixed(3)}  F1 ${f1[c]!.toFixed(3)}  ${
      n_rows_of[c]!.toLocaleString("en")
    } rows`,
  ]);
  const more = order.length > MAX_CLASSES ? [`  and ${order.length - MAX_CLASSES} more; --json has all`] : [];
  return [summary, "", table(rows), ...more, "", ...paths].join("\n");
}
