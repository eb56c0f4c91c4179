/**
 * Whether a run may be resumed from the state in its folder: everything that decides its result must be the same.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import { completeConfig } from "../nn/config.ts";
import type { SavedTraining } from "../train/training_file.ts";
import { type ResolvedConfig, type ResolvedDefaults, resolveDefaults, UPSTREAM } from "./defaults.ts";
import type { DataFingerprint } from "./fingerprint.ts";
import type { RunConfig } from "./run_config.ts";
import type { RunDirectory } from "./run_directory.ts";
import { RECORD } from "./run_files.ts";

/** A run that is resumed. */
export interface Resumption {
  /** The state. */
  readonly saved: SavedTraining;
  /** The configuration that the run was begun with. */
  readonly cfg: ResolvedConfig;
  /** What of it the file does not say. */
  readonly resolved: ResolvedDefaults;
  /** The hash of the rows before, if these are others. */
  readonly changedFrom: string | undefined;
}

/**
 * The state that the folder holds, if it holds one. What the configuration leaves out stays as the run was begun with it.
 *
 * @throws {RangeError} if it is that of a run that was begun with another configuration, or with other rows where these
 * may not have changed.
 * @throws {CheckpointError} if it is damaged.
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
  // 0.1.0 left it to the library.
  const deadAfter = "objective.dead_threshold_tokens";
  if (!found.has(deadAfter)) found.set(deadAfter, String(UPSTREAM.dead_threshold_tokens));
  const begun = Object.fromEntries(
    (["train.n_lr_warmup", deadAfter] as const).map((field) => [field, Number(found.get(field))]),
  );
  const whole = resolveDefaults(cfg, n_steps, begun);
  const wanted = fieldsOf(noteOf(whole.cfg, data));
  // A file says itself what it is, unless both say it: 0.1.0 always did.
  const format = "data.format";
  if (!wanted.has(format) || !found.has(format)) [wanted, found].forEach((fields) => fields.delete(format));
  // Nor did 0.1.0 look at the rows.
  const hash = found.get("data.sha256");
  for (const fields of [wanted, found]) fields.delete("data.sha256");
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

/** All that decides what a run comes to, as JSON. */
export function noteOf(
  { data, sae, init, objective, train }: ResolvedConfig,
  { n_rows, d_model, sha256 }: DataFingerprint,
): string {
  const { log_every: _, checkpoint_every: __, checkpoint_minutes: ___, ...loop } = train;
  const complete = {
    data: { ...data, n_rows, sha256 },
    sae: completeConfig({ ...sae, d_model }),
    init,
    objective,
    train: loop,
  };
  return JSON.stringify(complete);
}

/** Every value in a JSON text by its path, `train.lr`; `null` is as if it was not there. */
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
