/**
 * A configuration file with every field, its default and a comment. Fields without a default are commented out.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import type { AnyFields, Field, Kinds } from "../nn/fields.ts";
import { SECTIONS } from "./config_sections.ts";

/** Options of {@link configText}. */
export interface ConfigTextOptions {
  /**
   * Whether to show every activation, penalty, auxiliary loss and objective, commented out unless it is the default;
   * `true` if left out.
   */
  readonly alternatives?: boolean;
  /** Line width in columns; 120 if left out. */
  readonly width?: number;
}

/** The column where comments begin. */
const COMMENT_COLUMN = 36;

/**
 * The complete default configuration, as TOML.
 *
 * @throws {TypeError} for an unknown option.
 */
export function configText(options: ConfigTextOptions = {}): string {
  checkOptions("configText", options, { alternatives: true, width: true });
  const { alternatives = true, width = 120 } = options;
  const layout = { alternatives, width };
  const sections = Object.entries(SECTIONS).map(([name, { about, ...section }]) =>
    "fields" in section
      ? tableLines(name, about, section.fields, layout)
      : keyedLines(name, about, section.kinds, { key: section.otherwise }, layout)
  );
  return sections.map((lines) => lines.join("\n")).join("\n\n");
}

type Layout = Required<ConfigTextOptions>;

/** A table, followed by its nested tables. */
function tableLines(path: string, about: string, fields: AnyFields, layout: Layout): string[] {
  return [
    ...commented(`[${path}]`, about, layout),
    ...valueLines(fields, {}, layout),
    ...innerLines(path, fields, {}, layout),
  ];
}

/** A table whose `key` determines its fields: the default kind first, then each of the others. */
function keyedLines(
  path: string,
  about: string,
  kinds: Kinds,
  values: Readonly<Record<string, unknown>>,
  layout: Layout,
): string[] {
  const key = values.key as string;
  const lines = [
    ...commented(`[${path}]`, about, layout),
    ...commented(`key = ${toml(key)}`, `One of ${Object.keys(kinds).join(", ")}.`, layout),
    ...valueLines(kinds[key]!, values, layout),
    ...innerLines(path, kinds[key]!, values, layout),
  ];
  if (!layout.alternatives) return lines;
  const plain = { alternatives: false, width: layout.width - 2 };
  for (const [other, fields] of Object.entries(kinds)) {
    if (other === key) continue;
    const block = [
      `[${path}]`,
      `key = ${toml(other)}`,
      ...valueLines(fields, {}, plain),
      ...innerLines(path, fields, {}, plain),
    ];
    lines.push("", "# Or:", ...block.map((line) => `# ${line}`.trimEnd()));
  }
  return lines;
}

/** The nested tables of a table. */
function innerLines(
  path: string,
  fields: AnyFields,
  values: Readonly<Record<string, unknown>>,
  layout: Layout,
): string[] {
  return Object.entries(fields).flatMap(([name, { kinds, about, otherwise }]) => {
    if (kinds === undefined) return [];
    const inner = (values[name] ?? otherwise) as Record<string, unknown>;
    return ["", ...keyedLines(`${path}.${name}`, about, kinds, inner, layout)];
  });
}

/** The fields of a table that are not tables. */
function valueLines(fields: AnyFields, values: Readonly<Record<string, unknown>>, layout: Layout): string[] {
  return Object.entries(fields).flatMap(([name, field]) => {
    if (field.kinds !== undefined) return [];
    const isLeftOut = field.otherwise === null && values[name] === undefined;
    const value = values[name] ?? field.otherwise ?? field.example;
    return commented(`${isLeftOut ? "# " : ""}${name} = ${toml(value)}`, sentences(field), layout);
  });
}

/** The description of a field, with its range if the value does not show it. */
function sentences({ about, takes }: Field<unknown>): string {
  return ["true or false", "a string"].includes(takes) ? about : `${about} ${capital(takes)}.`;
}

/** A line with a comment beside it, which may continue on further lines. */
function commented(text: string, comment: string, { width }: Layout): string[] {
  const lines: string[] = [];
  for (const word of comment.split(" ")) {
    const last = lines.at(-1);
    const fits = last !== undefined && COMMENT_COLUMN + 2 + last.length + 1 + word.length <= width;
    if (fits) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines.map((line, i) => `${(i === 0 ? text : "").padEnd(COMMENT_COLUMN - 1)} # ${line}`);
}

/** A value as TOML. */
function toml(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(toml).join(", ")}]`;
  return typeof value === "number" && value > 0 && value < 0.01 ? value.toExponential() : JSON.stringify(value);
}

function capital(words: string): string {
  return words[0]!.toUpperCase() + words.slice(1);
}
