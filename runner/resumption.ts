/**
 * Whether a run may go on from the state that its folder holds: everything that decides what it comes to must be the same.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import { completeConfig } from "../nn/config.ts";
import type { RowSource } from "../data/rows.ts";
import type { SavedTraining } from "../train/training_file.ts";
import type { RunConfig } from "./run_config.ts";
import type { RunDirectory } from "./run_directory.ts";

/**
 * The state that the folder holds, if it holds one.
 *
 * @throws {RangeError} if it is that of a run that was begun with another configuration.
 * @throws {CheckpointError} if it is damaged.
 */
export async function savedOf(
  directory: RunDirectory,
  cfg: RunConfig,
  source: RowSource,
): Promise<SavedTraining | undefined> {
  const saved = await directory.openTraining();
  if (!saved) return undefined;
  const wanted = fieldsOf(noteOf(cfg, source));
  let found: Map<string, string>;
  try {
    found = fieldsOf(saved.note);
  } catch (cause) {
    throw new CheckpointError(`resuming ${directory.path}: its training says no run's configuration`, { cause });
  }
  const field = [...wanted.keys(), ...found.keys()].find((field) => wanted.get(field) !== found.get(field));
  if (field === undefined) return saved;
  throw new RangeError(
    `${directory.path} holds a run whose ${field} is ${found.get(field) ?? "not set"}; it cannot go on with ${
      wanted.get(field) ?? "none"
    }`,
  );
}

/** All that decides what a run comes to, as JSON. */
export function noteOf({ data, sae, init, objective, train }: RunConfig, { n_rows, d_model }: RowSource): string {
  const { log_every: _, checkpoint_every: __, ...loop } = train;
  const complete = {
    data: { ...data, n_rows },
    sae: completeConfig({ ...sae, d_model }),
    init,
    objective,
    train: loop,
  };
  return JSON.stringify(complete);
}

/** Every value in a JSON text by its path, `train.lr`. */
function fieldsOf(note: string): Map<string, string> {
  const fields = new Map<string, string>();
  const visit = (path: string, value: unknown): void => {
    if (typeof value !== "object" || value === null) fields.set(path, JSON.stringify(value));
    else for (const [name, part] of Object.entries(value)) visit(path === "" ? name : `${path}.${name}`, part);
  };
  visit("", JSON.parse(note));
  return fields;
}
