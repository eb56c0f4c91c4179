/**
 * Facts about runs from their folders alone, for comparison: also runs that were stopped, are in progress, or were made
 * by 0.1.0. Nothing in a folder is changed.
 *
 * @module
 */

import { readBytes } from "../io/files.ts";
import { shownAddress } from "../io/http.ts";
import type { Metrics } from "../eval/metrics.ts";
import type { ComparedCurve, PageDensity, PageLine } from "./pages/data.ts";
import { fileLines } from "./file_lines.ts";
import { METRICS_LOG } from "./metrics_log.ts";
import { flatten, pageDensity, pageLine } from "./report.ts";
import { findFolder, isOneRun, RECORD } from "./run_files.ts";

/** The metrics of a model on some rows, if known. */
export interface MeasuredNumbers {
  /** The unexplained share of the variance. */
  readonly nmse: number | null;
  /** Active latents, mean over rows. */
  readonly l0: number | null;
  /** The share of latents that are active on none of the rows. */
  readonly dead_fraction: number | null;
  /** Latents that are active on many rows. */
  readonly n_dense: number | null;
  /** Mean of cos(x, x̂). */
  readonly cosine: number | null;
  /** Densities of all latents. */
  readonly density: PageDensity | null;
}

/** A run, or another checkpoint, as described by its files. */
export interface ComparedRun {
  /** The folder, or the address of the checkpoint. */
  readonly path: string;
  /** `trained`, or its outcome. */
  readonly state: string;
  /** Steps done; `null` if there are none. */
  readonly steps: number | null;
  /** Seconds of training, for all models that trained together. */
  readonly seconds: number | null;
  /** `null` if it was never measured. */
  readonly measured: MeasuredNumbers | null;
  /** A description of the rows, equal for the same rows. */
  readonly measuredOn: string | null;
  /** Every field that is set, by path: `train.lr`. */
  readonly configuration: ReadonlyMap<string, string>;
  /** Curves over its steps. */
  readonly curves: Readonly<Partial<Record<ComparedCurve, PageLine>>>;
  /** Which of `sae.pt` and `report.html` it has. */
  readonly files: readonly string[];
}

/** The files of a run that a comparison links to. */
const POINTED_AT = ["sae.pt", "report.html"];

/** The folders of runs at a path: that folder, or the started runs of a sweep; `null` for anything else. */
export async function runFoldersAt(path: string): Promise<string[] | null> {
  const found = await findFolder(path).catch(() => null);
  if (isOneRun(found?.kind ?? null)) return [path];
  if (found?.kind !== "sweep") return null;
  const folders = found.runs.map((run) => `${path}/${run}`);
  const kinds = await Promise.all(folders.map(async (folder) => (await findFolder(folder)).kind));
  return folders.filter((_, i) => isOneRun(kinds[i]!));
}

/**
 * Reads what a run left in its folder.
 *
 * @throws {RangeError} if there is no run.
 */
export async function readRun(path: string): Promise<ComparedRun> {
  const { kind, names } = await findFolder(path);
  if (!isOneRun(kind)) throw new RangeError(`comparing: ${path} is not the folder of a run`);
  const [config, metrics, record] = await Promise.all(
    ["config.json", "metrics.json", RECORD].map((name) => readJson(`${path}/${name}`)),
  );
  const logged = await readLog(`${path}/${METRICS_LOG}`);
  const columns = logged.steps.length > 0 ? logged : columnsOf(metrics);
  const measured = at(metrics, "metrics");
  const data = at((at(record, "sessions") as unknown[] | undefined)?.at?.(-1), "data");
  return {
    path,
    state: stateOf(metrics, columns.steps.at(-1) ?? 0),
    steps: columns.steps.at(-1) ?? 0,
    seconds: numberAt(metrics, "seconds"),
    measured: isTable(measured) ? numbersOf(measured) : null,
    measuredOn: isTable(measured) ? rowsOf(metrics, data) : null,
    configuration: configurationOf(isTable(config) ? config : at(metrics, "config")),
    curves: curvesOf(columns),
    files: POINTED_AT.filter((name) => names.has(name)),
  };
}

/** A run with new measurements. */
export function measuredRun(run: ComparedRun, metrics: Metrics, rows: string): ComparedRun {
  return { ...run, measured: measuredNumbers(metrics), measuredOn: rows };
}

/** A checkpoint with new measurements. */
export function measuredCheckpoint(
  path: string,
  { metrics, cfg, rows }: { readonly metrics: Metrics; readonly cfg: object; readonly rows: string },
): ComparedRun {
  return {
    path: shownAddress(path),
    state: "measured",
    steps: null,
    seconds: null,
    measured: measuredNumbers(metrics),
    measuredOn: rows,
    configuration: configurationOf({ sae: cfg }),
    curves: {},
    files: [],
  };
}

/** The metrics that a comparison shows. */
function measuredNumbers({ density, nmse, ...metrics }: Metrics): MeasuredNumbers {
  const { l0, dead_fraction, n_dense, cosine } = metrics;
  const finite = (value: number) => Number.isFinite(value) ? value : null;
  return { nmse: finite(nmse), l0, dead_fraction, n_dense, cosine: finite(cosine), density: pageDensity(density) };
}

/** The same from a file. */
function numbersOf(metrics: Table): MeasuredNumbers {
  const { density } = metrics;
  const isDensity = Array.isArray(density) && density.every((share) => typeof share === "number");
  return {
    nmse: numberAt(metrics, "nmse"),
    l0: numberAt(metrics, "l0"),
    dead_fraction: numberAt(metrics, "dead_fraction"),
    n_dense: numberAt(metrics, "n_dense"),
    cosine: numberAt(metrics, "cosine"),
    density: isDensity ? pageDensity(density) : null,
  };
}

/** The outcome of a run. */
function stateOf(metrics: unknown, steps: number): string {
  if (typeof at(metrics, "diverged") === "string") return "diverged";
  if (typeof at(metrics, "not_evaluated") === "string") return "not evaluated";
  if (isTable(at(metrics, "metrics"))) return "trained";
  return metrics === undefined || at(metrics, "isInterrupted") !== true
    ? `at step ${steps.toLocaleString("en")}`
    : `stopped at step ${steps.toLocaleString("en")}`;
}

/** Identifies the rows of a run's metrics: the same file and split give the same text. */
function rowsOf(metrics: unknown, data: unknown): string {
  const { path, sha256 } = (isTable(data) ? data : {}) as { readonly path?: unknown; readonly sha256?: unknown };
  const what = typeof sha256 === "string"
    ? `${path} (${sha256.slice(0, 12)})`
    : String(at(metrics, "config", "data", "path"));
  const n_rows = numberAt(metrics, "metrics", "n_rows");
  return `${n_rows?.toLocaleString("en") ?? "some"} ${at(metrics, "evaluated_on")} rows of ${what}`;
}

function configurationOf(config: unknown): Map<string, string> {
  if (!isTable(config)) return new Map();
  return new Map(flatten(config).filter(([, value]) => value !== "null"));
}

/** Numbers by steps. */
interface Columns {
  readonly steps: number[];
  readonly loss: number[];
  readonly l0: number[];
  readonly n_dead: number[];
  readonly lr: number[];
  /** Steps and NMSEs of the validations. */
  readonly validation: { readonly steps: number[]; readonly nmse: number[] };
}

const COLUMNS = ["loss", "l0", "n_dead", "lr"] as const;

function noColumns(): Columns {
  return { steps: [], loss: [], l0: [], n_dead: [], lr: [], validation: { steps: [], nmse: [] } };
}

/** The complete lines of a run's log, which may be growing. */
async function readLog(path: string): Promise<Columns> {
  const columns = noColumns();
  for await (const text of fileLines(path)) {
    const line = parsed(text);
    const step = numberAt(line, "step");
    if (step === null) break;
    columns.steps.push(step);
    for (const name of COLUMNS) columns[name].push(numberAt(line, name) ?? NaN);
    const nmse = numberAt(line, "validation", "nmse");
    if (nmse === null) continue;
    columns.validation.steps.push(step);
    columns.validation.nmse.push(nmse);
  }
  return columns;
}

/** The columns of `metrics.json`: 0.1.0 wrote no log. */
function columnsOf(metrics: unknown): Columns {
  const columns = noColumns();
  for (const name of COLUMNS) {
    const found = at(metrics, "losses", name);
    if (Array.isArray(found)) columns[name].push(...found.map((value) => typeof value === "number" ? value : NaN));
  }
  columns.steps.push(...columns.loss.map((_, i) => i + 1));
  return columns;
}

/** Largest number of points of an overlaid curve. */
const MAX_POINTS = 400;

function curvesOf({ steps, validation, ...columns }: Columns): ComparedRun["curves"] {
  const lines = COLUMNS.filter((name) => columns[name].some(Number.isFinite)).map((name) =>
    [name, pageLine(columns[name], steps, MAX_POINTS)] as const
  );
  return {
    ...Object.fromEntries(lines),
    ...validation.steps.length > 0 && { validation: pageLine(validation.nmse, validation.steps, MAX_POINTS) },
  };
}

type Table = Readonly<Record<string, unknown>>;

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value within JSON; `undefined` where there is none. */
function at(value: unknown, ...fields: readonly string[]): unknown {
  return fields.reduce((inner, field) => isTable(inner) ? inner[field] : undefined, value);
}

function numberAt(value: unknown, ...fields: readonly string[]): number | null {
  const found = at(value, ...fields);
  return typeof found === "number" && Number.isFinite(found) ? found : null;
}

async function readJson(path: string): Promise<unknown> {
  const bytes = await readBytes(path).catch(() => undefined);
  return bytes && parsed(new TextDecoder().decode(bytes));
}

/** `undefined` for text that is not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
