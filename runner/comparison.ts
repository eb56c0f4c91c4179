/**
 * Compares runs: the L0-NMSE front, the differences in configuration, a table, a page, and copies of the best.
 *
 * @module
 */

import { relative, resolve } from "node:path";
import { readBytes, syncFolder, writeBytes } from "../io/files.ts";
import type { ComparisonData, FieldDifference } from "./pages/data.ts";
import { renderPage } from "./pages/page.ts";
import { type ComparedRun, readRun, runFoldersAt } from "./compared_runs.ts";

/** The result of a comparison. */
export interface Comparison {
  /** The runs, in the given order. */
  readonly runs: readonly ComparedRun[];
  /** Their names: paths without the part that all share. */
  readonly names: readonly string[];
  /** What makes the numbers hard to compare, one sentence each. */
  readonly warnings: readonly string[];
  /** Whether no other run of the same layer has both a smaller NMSE and a smaller L0. */
  readonly isOnFront: readonly boolean[];
  /** The differences in configuration, with the value of each run. */
  readonly differences: readonly FieldDifference[];
}

/**
 * Compares runs.
 *
 * @throws {RangeError} if there are none.
 */
export function compare(runs: readonly ComparedRun[]): Comparison {
  if (runs.length === 0) throw new RangeError("comparing: there are no runs");
  return {
    runs,
    names: namesOf(runs),
    warnings: warningsOf(runs),
    isOnFront: frontOf(runs),
    differences: differencesOf(runs),
  };
}

/**
 * Writes `compare.html` and `compare.csv` for runs, given by their folders or those of their sweeps, into a folder,
 * which is created if needed.
 *
 * @throws {RangeError} for a folder that is not a run or sweep, and if an existing file with one of these names is not
 * such a comparison.
 */
export async function writeComparison(runs: readonly string[], out: string): Promise<Comparison> {
  const read: ComparedRun[] = [];
  for (const path of runs) {
    const folders = await runFoldersAt(path);
    if (folders === null) throw new RangeError(`comparing: ${path} is not the folder of a run or a sweep`);
    for (const folder of folders) read.push(await readRun(folder));
  }
  const comparison = compare(read);
  await writeComparisonFiles(comparison, out);
  return comparison;
}

/**
 * Writes the files of {@link writeComparison}.
 *
 * @throws {RangeError} if an existing file with one of these names is not such a comparison.
 */
export async function writeComparisonFiles(comparison: Comparison, out: string): Promise<void> {
  const files = comparisonFiles(comparison, out);
  for (const { name, mark } of files) {
    const there = await readBytes(`${out}/${name}`).catch(() => undefined);
    if (there && !new TextDecoder().decode(there.subarray(0, 4096)).includes(mark)) {
      throw new RangeError(`${out}/${name} is not a comparison of runs, and is not replaced; choose another folder`);
    }
  }
  await Deno.mkdir(out, { recursive: true });
  for (const { name, text } of files) await writeBytes(`${out}/${name}`, [new TextEncoder().encode(text)]);
}

/** The files of a comparison for the folder `out`, each with the text that identifies it. */
export function comparisonFiles(
  comparison: Comparison,
  out: string,
): { readonly name: string; readonly text: string; readonly mark: string }[] {
  return [
    {
      name: "compare.html",
      text: comparisonPage(comparison, out),
      mark: '<meta name="generator" content="saev compare">',
    },
    { name: "compare.csv", text: comparisonCsv(comparison), mark: CSV_COLUMNS.join(",") },
  ];
}

/** Numbers of a run, by column of `compare.csv`. */
const CSV_NUMBERS = ["nmse", "l0", "dead_fraction", "n_dense", "cosine"] as const;
const CSV_COLUMNS = ["run", "state", "on_front", "steps", "seconds", ...CSV_NUMBERS];

/** One line per run: its identity, its numbers, and the differences in configuration. */
export function comparisonCsv({ runs, names, isOnFront, differences }: Comparison): string {
  const rows = runs.map(({ state, steps, seconds, measured }, i) => [
    names[i]!,
    state,
    isOnFront[i]!,
    steps,
    seconds,
    ...CSV_NUMBERS.map((name) => measured?.[name]),
    ...differences.map(({ values }) => values[i]),
  ]);
  const header = [...CSV_COLUMNS, ...differences.map(({ field }) => field)];
  return [header, ...rows].map((row) => row.map(csvValue).join(",") + "\n").join("");
}

/** A value as in RFC 4180. Text that a spreadsheet would treat as a formula is escaped. */
function csvValue(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = String(value ?? "");
  const harmless = /^[=+@\t\r]|^-(?!\d)/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/** The page, for the folder `out`. */
export function comparisonPage(comparison: Comparison, out: string): string {
  const { runs, names, warnings, isOnFront, differences } = comparison;
  const title = runs.length === 1 ? "One run" : `${runs.length.toLocaleString("en")} runs compared`;
  const measured = new Set(runs.flatMap(({ measuredOn }) => measuredOn ?? []));
  const data: ComparisonData = {
    title,
    summary: measured.size === 1 ? `Measured on ${[...measured][0]}.` : "",
    warnings,
    models: runs.map(({ path, state, steps, seconds, measured, curves, configuration, files }, i) => ({
      name: names[i]!,
      href: files.includes("report.html") ? linkTo(`${path}/report.html`, out) : null,
      state,
      steps,
      seconds,
      nmse: measured?.nmse ?? null,
      l0: measured?.l0 ?? null,
      dead_fraction: measured?.dead_fraction ?? null,
      n_dense: measured?.n_dense ?? null,
      cosine: measured?.cosine ?? null,
      d_sae: Number(configuration.get("sae.d_sae") ?? NaN) || null,
      isOnFront: isOnFront[i]!,
      density: measured?.density ?? null,
      curves,
    })),
    differences,
  };
  return renderPage("compare", { title, data });
}

/** The link from a page in a folder to a file. */
function linkTo(file: string, folder: string): string {
  return relative(resolve(folder), resolve(file)).split(/[\\/]/).map(encodeURIComponent).join("/");
}

/** Folders of runs without their common beginning; other checkpoints as given. */
function namesOf(runs: readonly ComparedRun[]): string[] {
  const parts = runs.map(({ path }) => path.split(/[\\/]/).filter((part) => part !== "" && part !== "."));
  const ofRuns = parts.filter((_, i) => runs[i]!.steps !== null);
  const most = ofRuns.length === 0 ? 0 : Math.min(...ofRuns.map(({ length }) => length)) - 1;
  let common = 0;
  while (common < most && ofRuns.every((one) => one[common] === ofRuns[0]![common])) common++;
  return runs.map(({ path, steps }, i) => steps === null ? path : parts[i]!.slice(common).join("/"));
}

function warningsOf(runs: readonly ComparedRun[]): string[] {
  const places = Map.groupBy(runs.filter(({ measuredOn }) => measuredOn !== null), ({ measuredOn }) => measuredOn!);
  if (places.size < 2) return [];
  const shown = [...places.keys()].slice(0, 4);
  const more = places.size > shown.length ? `, and ${places.size - shown.length} others` : "";
  return [
    `the runs were not measured on the same rows, so that their numbers say little beside each other: ${
      shown.join("; ")
    }${more}; saev compare --data measures all of them on one file`,
  ];
}

/** Models of different layers reconstruct different things and do not compete. */
function layerOf({ configuration }: ComparedRun): string {
  return configuration.get("data.layer") ?? "";
}

/** Whether no other run of its layer is at least as good in both NMSE and L0, and better in one. */
function frontOf(runs: readonly ComparedRun[]): boolean[] {
  return runs.map((run) => {
    const { nmse = null, l0 = null } = run.measured ?? {};
    if (nmse === null || l0 === null) return false;
    return !runs.some((other) => {
      const { nmse: otherNmse = null, l0: otherL0 = null } = other.measured ?? {};
      if (otherNmse === null || otherL0 === null || layerOf(other) !== layerOf(run)) return false;
      return otherNmse <= nmse && otherL0 <= l0 && (otherNmse < nmse || otherL0 < l0);
    });
  });
}

/** A checkpoint that is no run says nothing of data and training: what it does not say is no difference. */
function differencesOf(runs: readonly ComparedRun[]): readonly FieldDifference[] {
  const fields = new Set(runs.flatMap(({ configuration }) => [...configuration.keys()]));
  return [...fields].map((field) => ({
    field,
    values: runs.map(({ configuration }) => configuration.get(field) ?? null),
  })).filter(({ values }) => new Set(values.filter((value, i) => value !== null || runs[i]!.steps !== null)).size > 1);
}

/** A picked checkpoint in `manifest.jsonl`. */
export interface PickedRun {
  /** The run's name. */
  readonly run_id: string;
  /** The layer of the activations; `null` if the configuration does not give it. */
  readonly layer: number | null;
  /** The path of the copy, relative to the manifest. */
  readonly path: string;
  /** Active latents, mean over rows. */
  readonly l0: number;
  /** The unexplained share of the variance. */
  readonly nmse: number;
  /** As in the checkpoint's header. */
  readonly activation: unknown;
  /** The SHA-256 of the file. */
  readonly sha256: string;
}

/**
 * Checks that nothing stands where picked runs are to be copied to.
 *
 * @throws {RangeError} if something does.
 */
export async function checkPickFolder(out: string): Promise<void> {
  if (await Deno.lstat(out).catch(() => null)) {
    throw new RangeError(`picking: ${out} is there already; remove it, or choose another folder`);
  }
}

/**
 * Copies the models of the best runs into a new folder, as `layer_N/run/sae.pt`, or `run/sae.pt` if the layer is
 * unknown, with one line each in `manifest.jsonl`: for every layer at most `n` on the L0-NMSE front, evenly spaced in
 * log L0. Checkpoints that are not runs are left out.
 *
 * @throws {RangeError} if the folder exists, or no run with a model is on the front.
 */
export async function pickRuns(comparison: Comparison, n: number, out: string): Promise<PickedRun[]> {
  await checkPickFolder(out);
  const { runs, names, isOnFront } = comparison;
  const candidates = runs.flatMap((run, i) => {
    const { nmse, l0 } = run.measured ?? {};
    const isPickable = isOnFront[i]! && run.files.includes("sae.pt") && typeof nmse === "number" &&
      typeof l0 === "number";
    return isPickable ? [{ name: names[i]!, run, nmse, l0 }] : [];
  });
  if (candidates.length === 0) throw new RangeError("picking: no run with a model is on the front of L0 and NMSE");
  const picked: PickedRun[] = [];
  for (const ofLayer of Map.groupBy(candidates, ({ run }) => layerOf(run)).values()) {
    for (const { name, run, nmse, l0 } of spacedInLog(ofLayer, n)) {
      const layer = layerOf(run) === "" ? null : Number(layerOf(run));
      const runId = name.replaceAll("/", "-");
      const path = `${layer === null ? "" : `layer_${layer}/`}${runId}/sae.pt`;
      const bytes = await readBytes(`${run.path}/sae.pt`);
      await Deno.mkdir(`${out}/${path.slice(0, -"/sae.pt".length)}`, { recursive: true });
      await writeBytes(`${out}/${path}`, [bytes]);
      const hash = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
      picked.push({
        run_id: runId,
        layer,
        path,
        l0,
        nmse,
        activation: activationIn(bytes),
        sha256: new Uint8Array(hash).toHex(),
      });
    }
  }
  const lines = picked.map((one) => JSON.stringify(one) + "\n").join("");
  await writeBytes(`${out}/manifest.jsonl`, [new TextEncoder().encode(lines)]);
  await syncFolder(out);
  return picked;
}

/** At most `n` of them, ascending in L0: the nearest remaining one to each of `n` evenly spaced values of log L0. */
export function spacedInLog<T extends { readonly l0: number }>(all: readonly T[], n: number): T[] {
  const left = all.toSorted((a, b) => a.l0 - b.l0);
  if (left.length <= n) return left;
  const log = ({ l0 }: T) => Math.log(Math.max(l0, Number.MIN_VALUE));
  const [first, last] = [log(left[0]!), log(left.at(-1)!)];
  const places = Array.from(
    { length: n },
    (_, i) => n === 1 ? (first + last) / 2 : first + i * (last - first) / (n - 1),
  );
  return places.map((place) => {
    const distances = left.map((one) => Math.abs(log(one) - place));
    return left.splice(distances.indexOf(Math.min(...distances)), 1)[0]!;
  }).sort((a, b) => a.l0 - b.l0);
}

/** The activation in the first line of a checkpoint; `null` if it has none. */
function activationIn(bytes: Uint8Array): unknown {
  const end = bytes.indexOf("\n".charCodeAt(0));
  try {
    return JSON.parse(new TextDecoder().decode(bytes.subarray(0, Math.max(0, end)))).cfg?.activation ?? null;
  } catch {
    return null;
  }
}
