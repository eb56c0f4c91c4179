/**
 * Probes of a run's codes, in the files that the Python package's trait discovery writes and reads.
 *
 * @module
 */

import type { LabelledCodes } from "../eval/code_columns.ts";
import {
  fitProbes,
  type ProbeMeasures,
  type ProbeOptions,
  type Probes,
  type ProbeScores,
  scoreProbes,
} from "../eval/probes.ts";
import { openSource, writeBytes } from "../io/files.ts";
import { littleEndianBytes } from "../io/numbers.ts";
import { formatNpz } from "../io/npz.ts";
import { openScipyCsr } from "../io/scipy_csr.ts";
import type { TokenLabels } from "./labels.ts";

/** Codes and the classes of their tokens. */
export interface TokensToProbe extends TokenLabels {
  /** The folder of the codes, as `saev encode` writes it. */
  readonly folder: string;
}

/** Input of {@link probeFolders}. */
export interface ProbePlan {
  /** Tokens for fitting the probes. */
  readonly train: TokensToProbe;
  /** Tokens for scoring them; `train` if left out. */
  readonly test?: TokensToProbe;
  /** Weight of the ridge; 1e-8 if left out. */
  readonly ridge?: number;
}

/** Its outcome. */
export interface ProbeResult {
  /** The probes. */
  readonly probes: Probes;
  /** Their scores. */
  readonly scores: ProbeScores;
  /** Paths of the files written. */
  readonly paths: readonly string[];
}

/**
 * Fits a probe for each latent and class, and writes `probe1d_metrics.npz` into the folder of the codes, also into that of
 * the test's, and there `probe1d_metrics__train-<name>.npz` with what the best latents are worth. Files of these names are
 * replaced.
 *
 * @throws {CheckpointError} if a folder's `token_acts.npz` is none, or damaged.
 * @throws {ShapeError | RangeError} as {@link fitProbes} and {@link scoreProbes}.
 */
export async function probeFolders(
  { train, test = train, ridge }: ProbePlan,
  { signal, onProgress, device }: Pick<ProbeOptions, "signal" | "onProgress" | "device"> = {},
): Promise<ProbeResult> {
  const options = { ...signal && { signal }, ...device && { device } };
  const [fitted, scored] = [await openCodes(train), test === train ? undefined : await openCodes(test)];
  const n_classes = [train, test].reduce((most, { labels }) => labels.reduce((a, b) => Math.max(a, b), most), 0) + 1;
  const probes = await fitProbes(fitted, {
    ...options,
    n_classes,
    ...ridge !== undefined && { ridge },
    ...onProgress && { onProgress },
  });
  const scores = await scoreProbes(probes, scored ?? fitted, options);
  const files: [string, Uint8Array[]][] = [[
    `${train.folder}/probe1d_metrics.npz`,
    metricsFile(probes, probes.train),
  ]];
  if (scored) files.push([`${test.folder}/probe1d_metrics.npz`, metricsFile(probes, scores.measures)]);
  files.push([`${test.folder}/probe1d_metrics__train-${nameOf(train)}.npz`, scoresFile(probes, scores)]);
  for (const [path, parts] of files) await writeBytes(path, parts);
  return { probes, scores, paths: files.map(([path]) => path) };
}

async function openCodes({ folder, labels }: TokensToProbe): Promise<LabelledCodes> {
  return { codes: await openScipyCsr(await openSource(`${folder}/token_acts.npz`)), labels };
}

/** As the Python package calls the shards, which is the name of their folder; else that of the codes' folder. */
function nameOf({ hash, folder }: TokensToProbe): string {
  return hash ?? folder.replace(/[/\\]+$/, "").replace(/^.*[/\\]/, "");
}

function metricsFile(
  { n_latents, n_classes, weights, biases }: Probes,
  { loss, tp, fp, tn, fn }: ProbeMeasures,
): Uint8Array[] {
  const arrays = Object.entries({ loss, weights, biases, tp, fp, tn, fn });
  return formatNpz(arrays.map(([name, data]) => floats(name, [n_latents, n_classes], data)));
}

/**
 * Upstream's arrays, and one more: `top_counts` says how many of a latent's `top_labels` are there. Those that are not are
 * the largest number of their type, where upstream has the class of row 0.
 */
function scoresFile({ n_latents, n_classes }: Probes, { ap, precision, recall, f1, top }: ProbeScores): Uint8Array[] {
  const isShort = n_classes <= 255;
  const none = isShort ? 2 ** 8 - 1 : 2 ** 16 - 1;
  const labels = Array.from(top.labels, (label, i) => i % top.k < top.counts[Math.floor(i / top.k)]! ? label : none);
  return formatNpz([
    ...Object.entries({ ap, precision, recall, f1 }).map(([name, data]) => floats(name, [n_classes], data)),
    {
      name: "top_labels",
      descr: isShort ? "|u1" : "<u2",
      shape: [n_latents, top.k],
      bytes: Uint8Array.from(isShort ? labels : labels.flatMap((label) => [label & 255, label >> 8])),
    },
    {
      name: "top_counts",
      descr: "<i4",
      shape: [n_latents],
      bytes: littleEndianBytes(Int32Array.from(top.counts)),
    },
  ]);
}

function floats(name: string, shape: readonly number[], data: Float32Array) {
  return { name, descr: "<f4", shape, bytes: littleEndianBytes(data) };
}
