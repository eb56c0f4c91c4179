/**
 * The runs of a sweep: one for each combination of the values in lists.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { listFields } from "./config_sections.ts";
import { completeRunConfig, completeSlurm, type RunConfig } from "./run_config.ts";

/** One run of a sweep. */
export interface SweptConfig {
  /** The values from the lists for this run, such as `{ "train.lr": 0.001 }`; empty if there are none. */
  readonly changes: Readonly<Record<string, unknown>>;
  /** Its complete configuration. */
  readonly cfg: RunConfig;
}

/** Fields whose value is a list. */
const LISTS = listFields();

/**
 * The runs that a configuration file describes: one for each combination of what stands in lists, the first list
 * changing slowest. A field that is a list by itself is swept by a list of lists.
 *
 * @throws {TypeError | RangeError} as {@link completeRunConfig}, for an empty list, and for more than `maxRuns` runs,
 * 1000 if left out.
 * @throws {TypeError} for an unknown option.
 */
export function completeSweep(
  found: Readonly<Record<string, unknown>>,
  options: { readonly maxRuns?: number } = {},
): SweptConfig[] {
  checkOptions("completeSweep", options, { maxRuns: true });
  const { maxRuns = 1000 } = options;
  // Scheduler settings are the same for all runs, and their lists are not sweeps.
  const { slurm, ...swept } = found;
  completeSlurm({ slurm });
  const lists: string[] = [];
  const count = countRuns(swept, "", lists);
  if (count > maxRuns) {
    throw new RangeError(
      `its lists make ${count.toLocaleString("en")} runs; expected at most ${maxRuns.toLocaleString("en")}: ` +
        `${lists.join(", ")}; shorten them, or raise --max-runs`,
    );
  }
  return combinations(swept, "").map(({ value, changes }) => ({
    changes,
    cfg: completeRunConfig(value as Record<string, unknown>),
  }));
}

/** The seed of the order in which a run takes its rows. */
export function orderSeed({ data, train }: Pick<RunConfig, "data" | "train">): number {
  return data.order_seed ?? train.seed;
}

/** What must be equal for runs to train together, as text. */
export function streamOf(cfg: RunConfig): string {
  const { data: { order_seed: _, ...data }, train, log: { validation_every } } = cfg;
  const { batch_size, n_epochs, n_steps, log_every, checkpoint_every: steps, checkpoint_minutes: minutes } = train;
  const order = orderSeed(cfg);
  return JSON.stringify({ data, batch_size, n_epochs, n_steps, log_every, steps, minutes, order, validation_every });
}

/** The runs that share a stream of rows, as indices, in the order of their first runs. */
export function groupRuns(cfgs: readonly RunConfig[]): (readonly number[])[] {
  return [...Map.groupBy(cfgs.keys(), (i) => streamOf(cfgs[i]!)).values()];
}

/** The number of {@link combinations}; also collects the names of the lists. */
function countRuns(found: unknown, path: string, lists: string[]): number {
  if (isList(found, path)) {
    if (found.length === 0) throw new TypeError(`${path} is an empty list; a sweep needs at least one value`);
    lists.push(`${path} has ${found.length.toLocaleString("en")} values`);
    return found.reduce<number>((sum, one) => sum + (Array.isArray(one) ? 1 : countRuns(one, path, lists)), 0);
  }
  if (!isTable(found)) return 1;
  return Object.entries(found).reduce(
    (product, [field, value]) => product * countRuns(value, path === "" ? field : `${path}.${field}`, lists),
    1,
  );
}

/** Whether it is a list of several values to sweep. */
function isList(found: unknown, path: string): found is readonly unknown[] {
  return Array.isArray(found) && (!LISTS.includes(path) || Array.isArray(found[0]));
}

function isTable(found: unknown): found is Readonly<Record<string, unknown>> {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}

/** One choice of a value from every list. */
interface Combination {
  readonly value: unknown;
  readonly changes: Readonly<Record<string, unknown>>;
}

function combinations(found: unknown, path: string): Combination[] {
  if (isList(found, path)) {
    return found.flatMap((one) =>
      (Array.isArray(one) ? [{ value: one, changes: {} }] : combinations(one, path))
        .map(({ value, changes }) => ({ value, changes: { [path]: one, ...changes } }))
    );
  }
  if (!isTable(found)) return [{ value: found, changes: {} }];
  return Object.entries(found).reduce<Combination[]>((all, [field, value]) => {
    const ways = combinations(value, path === "" ? field : `${path}.${field}`);
    return all.flatMap((one) =>
      ways.map((way) => ({
        value: { ...one.value as object, [field]: way.value },
        changes: { ...one.changes, ...way.changes },
      }))
    );
  }, [{ value: {}, changes: {} }]);
}
