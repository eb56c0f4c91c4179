/**
 * Names of fields in a configuration: each is looked up in the tables of fields, and an unknown one is refused with the
 * nearest known name.
 *
 * @module
 */

import { nearest } from "../kernels/engine/nearest.ts";
import type { AnyFields, Kinds } from "../nn/fields.ts";
import { unknownChoice, wrong } from "./config_fields.ts";
import { SECTIONS } from "./config_sections.ts";

type Found = Readonly<Record<string, unknown>>;

/** The tables of a file, with only known fields; a missing table is empty. */
export function checkedTables(found: Found): Readonly<Record<keyof typeof SECTIONS, Found>> {
  checkNames("", found, Object.keys(SECTIONS));
  const tables = Object.entries(SECTIONS).map(([name, section]) => {
    const record = recordOf(name, found[name]);
    if ("fields" in section) {
      checkTable(name, record, Object.keys(section.fields), section.fields);
      return [name, record];
    }
    const keyed = { ...record, key: record.key ?? section.otherwise };
    checkKeyed(name, keyed, section.kinds);
    return [name, keyed];
  });
  return Object.fromEntries(tables);
}

/** Checks a table whose `key` determines its other fields. */
function checkKeyed(path: string, found: Found, kinds: Kinds): void {
  const { key } = found;
  const fields = typeof key === "string" && Object.hasOwn(kinds, key) ? kinds[key] : undefined;
  if (fields === undefined) throw unknownChoice(`${path}.key`, key, Object.keys(kinds));
  checkTable(path, found, ["key", ...Object.keys(fields)], fields);
}

/** Checks the names in a table and in its nested tables. */
function checkTable(path: string, found: Found, names: readonly string[], fields: AnyFields): void {
  checkNames(path, found, names);
  for (const [name, { kinds }] of Object.entries(fields)) {
    const inner = `${path}.${name}`;
    if (kinds !== undefined && found[name] !== undefined) checkKeyed(inner, recordOf(inner, found[name]), kinds);
  }
}

function checkNames(path: string, found: Found, names: readonly string[]): void {
  const pathOf = (name: string) => path === "" ? name : `${path}.${name}`;
  for (const name of Object.keys(found)) {
    if (names.includes(name)) continue;
    const near = nearest(name, names);
    const hint = near === undefined
      ? `${path === "" ? "there is" : `${path} has`} ${names.join(", ")}`
      : `did you mean ${pathOf(near)}?`;
    throw new TypeError(`unknown field ${pathOf(name)}; ${hint}`);
  }
}

function recordOf(path: string, found: unknown): Found {
  const value = found ?? {};
  if (typeof value !== "object" || Array.isArray(value)) throw wrong(path, "a table", value);
  return value as Found;
}
