/**
 * Whether a run may be resumed from the state in its folder: everything that determines its result must be the same.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import { completeConfig } from "../nn/config.ts";
import type { SavedTraining } from "../train/training_file.ts";
import { type ResolvedConfig, type ResolvedDefaults, resolveDefaults, UPSTREAM } from "./defaults.ts";
import type { RecordedCheckpoint } from "./fine_tuning.ts";
import type { DataFingerprint } from "./fingerprint.ts";
import type { RunConfig } from "./run_config.ts";
import type { RunDirectory } from "./run_directory.ts";
import { RECORD } from "./run_files.ts";

/** A run that is resumed. */
export interface Resumption {
  /** The state. */
  readonly saved: SavedTraining;
  /** The configuration that the run was started with. */
  readonly cfg: ResolvedConfig;
  /** The defaults in it that the file does not set. */
  readonly resolved: ResolvedDefaults;
  /** The hash of the earlier rows, if the rows have changed. */
  readonly changedFrom: string | undefined;
}

/**
 * The state in the folder, if there is one. Defaults that the configuration leaves out stay as the run was started
 * with.
 *
 * @throws {RangeError} if the run was started with another configuration, or with other rows and these may not change.
 * @throws {CheckpointError} if the state is damaged.
 */
export async function savedOf(
  directory: RunDirectory,
  cfg: RunConfig,
  { data, n_steps, mayChangeData }: {
    readonly data: DataFingerprint;
    readonly n_steps: number;
    readonly mayChangeData: boolean;
  },
): Promise<Resumption | undefined> {
  const saved = await directory.openTraining();
  if (!saved) return undefined;
  let found: Map<string, string>;
  try {
    found = fieldsOf(saved.note);
  } catch (cause) {
    throw new CheckpointError(`resuming ${directory.path}: its saved state holds no run configuration`, { cause });
  }
  // 0.1.0 left this to the library.
  const deadAfter = "objective.dead_threshold_tokens";
  if (!found.has(deadAfter)) found.set(deadAfter, String(UPSTREAM.dead_threshold_tokens));
  const begun = Object.fromEntries(
    (["train.n_lr_warmup", deadAfter] as const).map((field) => [field, Number(found.get(field))]),
  );
  const whole = resolveDefaults(cfg, n_steps, begun);
  const wanted = fieldsOf(noteOf(whole.cfg, data));
  // A file's content gives its type; `format` matters only if both name it. 0.1.0 always did.
  const format = "data.format";
  if (!wanted.has(format) || !found.has(format)) [wanted, found].forEach((fields) => fields.delete(format));
  // 0.1.0 did not hash the rows either.
  const hash = found.get("data.sha256");
  // Once begun, a run no longer depends on the file that it started from.
  for (const fields of [wanted, found]) {
    for (const once of ["data.sha256", "init.file", "init.sha256"]) fields.delete(once);
  }
  const field = [...wanted.keys(), ...found.keys()].find((field) => wanted.get(field) !== found.get(field));
  const changedFrom = hash === undefined || JSON.parse(hash) === data.sha256 ? undefined : String(JSON.parse(hash));
  if (field === undefined && changedFrom !== undefined && !mayChangeData) {
    throw new RangeError(
      `resuming ${directory.path}: the rows of ${cfg.data.path} differ from those of the run (SHA-256 ` +
        `${data.sha256.slice(0, 12)}…, expected ${
          changedFrom.slice(0, 12)
        }…); restore the original rows, or resume with the new ones with ` +
        `--changed-data, which ${RECORD} records`,
    );
  }
  if (field === undefined) return { saved, ...whole, changedFrom };
  throw new RangeError(
    `${directory.path} holds a run whose ${field} is ${found.get(field) ?? "not set"}, which cannot be resumed with ${
      wanted.get(field) ?? "none"
    }`,
  );
}

/** The checkpoint that a run started from, as its note has it; `undefined` for a run that started from none. */
export function initialOf(note: string): RecordedCheckpoint | undefined {
  try {
    const { sae, init: { from, file, sha256 } } = JSON.parse(note);
    if (typeof from !== "string") return undefined;
    return { cfg: completeConfig(sae), path: String(file), sha256: String(sha256) };
  } catch {
    // What else is wrong with a note, the resumption says.
    return undefined;
  }
}

/** Everything that determines the result of a run, as JSON. */
export function noteOf(
  { data, sae, init, objective, train }: ResolvedConfig,
  { n_rows, d_model, sha256 }: DataFingerprint,
  initial?: RecordedCheckpoint,
): string {
  const { log_every: _, checkpoint_every: __, checkpoint_minutes: ___, ...loop } = train;
  const complete = {
    data: { ...data, n_rows, sha256 },
    sae: completeConfig({ ...sae, d_model }),
    init: initial ? { ...init, file: initial.path, sha256: initial.sha256 } : init,
    objective,
    train: loop,
  };
  return JSON.stringify(complete);
}

/** Every value in a JSON text by its path (`train.lr`); `null` counts as absent. */
function fieldsOf(note: string): Map<string, string> {
  const fields = new Map<string, string>();
  const visit = (path: string, value: unknown): void => {
    if (value === null) return;
    if (typeof value !== "object") fields.set(path, JSON.stringify(value));
    else for (const [name, part] of Object.entries(value)) visit(path === "" ? name : `${path}.${name}`, part);
  };
  visit("", JSON.parse(note));
  return fields;
}
