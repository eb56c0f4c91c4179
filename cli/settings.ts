/**
 * Fields of a configuration on the command line: `--train.lr 1e-3` sets what CONFIG says, or does not say, of `train.lr`.
 *
 * @module
 */

import { parseToml } from "./toml.ts";

/** Values as they were typed, by the paths of their fields. */
export type Settings = ReadonlyMap<string, string>;

/**
 * A configuration with fields set from the command line. Values are TOML; what is no TOML is a text, so that
 * `--train.optim muon` needs no quotes.
 *
 * @throws {TypeError} for a field in what is no table.
 */
export function withSettings(found: Readonly<Record<string, unknown>>, settings: Settings): Record<string, unknown> {
  let all: Record<string, unknown> = { ...found };
  for (const [path, value] of settings) all = withSetting(all, path, path.split("."), valueOf(value));
  return all;
}

function withSetting(
  table: Readonly<Record<string, unknown>>,
  path: string,
  [name, ...rest]: readonly string[],
  value: unknown,
): Record<string, unknown> {
  if (rest.length === 0) return { ...table, [name!]: value };
  const inner = Object.hasOwn(table, name!) ? table[name!] : {};
  if (typeof inner !== "object" || inner === null || Array.isArray(inner)) {
    const parent = path.split(".").slice(0, -rest.length).join(".");
    const what = Array.isArray(inner) ? "a list" : JSON.stringify(inner);
    throw new TypeError(`${parent} is ${what}, not a table; set ${parent} as a whole`);
  }
  return { ...table, [name!]: withSetting(inner as Record<string, unknown>, path, rest, value) };
}

function valueOf(typed: string): unknown {
  try {
    const { value, ...others } = parseToml(`value = ${typed}`);
    // No field is a date, but a folder may be called like one.
    const isText = Object.keys(others).length > 0 || value instanceof Date;
    return isText ? typed : value;
  } catch (error) {
    if (error instanceof SyntaxError) return typed;
    throw error;
  }
}
