/**
 * Fields of a configuration on the command line: `--train.lr 1e-3` sets `train.lr`, whether or not CONFIG has it.
 *
 * @module
 */

import { EXCLUSIVE_FIELDS, fieldsWithKey } from "../runner/mod.ts";
import { parseToml } from "./toml.ts";

/** Typed values by the paths of their fields. */
export type Settings = ReadonlyMap<string, string>;

/**
 * A configuration with fields set from the command line. Values are TOML; anything that is not TOML is a string, so
 * that `--train.optim muon` needs no quotes.
 *
 * Another `key` than the file's keeps the values of its table that the new kind has too, and drops the others and the
 * nested tables. A field replaces one that it excludes.
 *
 * @throws {TypeError} for a field within something that is not a table.
 */
export function withSettings(found: Readonly<Record<string, unknown>>, settings: Settings): Record<string, unknown> {
  let all: Record<string, unknown> = { ...found };
  for (const pair of EXCLUSIVE_FIELDS) {
    const [set, ...others] = pair.filter((path) => settings.has(path));
    if (set !== undefined && others.length === 0) {
      for (const path of pair) if (path !== set) all = without(all, path.split("."));
    }
  }
  // A key comes before the fields it allows, and a table before those nested in it.
  const ordered = [...settings].toSorted(([a], [b]) =>
    a.split(".").length - b.split(".").length || Number(b.endsWith(".key")) - Number(a.endsWith(".key"))
  );
  for (const [path, typed] of ordered) {
    const [names, value] = [path.split("."), valueOf(typed)];
    const table = path.slice(0, path.lastIndexOf("."));
    const fields = names.at(-1) === "key" ? fieldsWithKey(table, value) : undefined;
    if (fields === undefined || valueAt(all, names) === value) {
      all = withSetting(all, path, names, value);
    } else {
      const shared = Object.entries(valueAt(all, names.slice(0, -1)) ?? {}).filter(([name]) => fields.includes(name));
      all = withSetting(all, table, names.slice(0, -1), { ...Object.fromEntries(shared), key: value });
    }
  }
  return all;
}

/**
 * A configuration whose runs are repeated with several seeds: `train.seed`, and the ones after it. All take their rows in
 * the same order, that of the first, so that they train together.
 *
 * @throws {TypeError} if `train.seed` is a list already.
 */
export function withSeeds(found: Readonly<Record<string, unknown>>, n_seeds: number): Record<string, unknown> {
  const seed = valueAt(found, ["train", "seed"]) ?? 0;
  if (Array.isArray(seed)) throw new TypeError("train.seed is a list, and --seeds makes one; give one of them");
  const first = Number(seed);
  const order = valueAt(found, ["data", "order_seed"]) ?? first;
  const seeds = Array.from({ length: n_seeds }, (_, i) => first + i);
  const ordered = withSetting(found, "data.order_seed", ["data", "order_seed"], order);
  return withSetting(ordered, "train.seed", ["train", "seed"], seeds);
}

function valueAt(found: unknown, names: readonly string[]): unknown {
  return names.reduce((table, name) => isTable(table) && Object.hasOwn(table, name) ? table[name] : undefined, found);
}

/** A table without a field, which may be in a nested table. */
function without(
  table: Readonly<Record<string, unknown>>,
  [name, ...rest]: readonly string[],
): Record<string, unknown> {
  const { [name!]: inner, ...others } = table;
  if (rest.length === 0) return others;
  return isTable(inner) ? { ...table, [name!]: without(inner, rest) } : { ...table };
}

function isTable(found: unknown): found is Readonly<Record<string, unknown>> {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}

function withSetting(
  table: Readonly<Record<string, unknown>>,
  path: string,
  [name, ...rest]: readonly string[],
  value: unknown,
): Record<string, unknown> {
  if (rest.length === 0) return { ...table, [name!]: value };
  const inner = Object.hasOwn(table, name!) ? table[name!] : {};
  if (!isTable(inner)) {
    const parent = path.split(".").slice(0, -rest.length).join(".");
    const what = Array.isArray(inner) ? "a list" : JSON.stringify(inner);
    throw new TypeError(`${parent} is ${what}, not a table; set the whole of ${parent} instead`);
  }
  return { ...table, [name!]: withSetting(inner, path, rest, value) };
}

function valueOf(typed: string): unknown {
  try {
    const { value, ...others } = parseToml(`value = ${typed}`);
    // No field is a date, but a folder may have a name like one.
    const isText = Object.keys(others).length > 0 || value instanceof Date;
    return isText ? typed : value;
  } catch (error) {
    if (error instanceof SyntaxError) return typed;
    throw error;
  }
}
