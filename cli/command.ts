/**
 * What a command is: its declaration, its checked arguments, and its help.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { nearest, printable, writeStderr } from "../runner/mod.ts";
import { Interruption } from "./interruption.ts";

/** An option of a command. */
export interface Option {
  /** The name of its value in the help; a flag has none. */
  readonly value?: string;
  /** Values that a flag may take, as in `--resume=auto`. */
  readonly choices?: readonly string[];
  readonly help: string;
  /** Whether the option may be repeated. */
  readonly isMany?: true;
}

/** One command. */
export interface Command {
  readonly summary: string;
  /** What its arguments are called; the last may stand for several, as in `RUN...`. */
  readonly positionals: readonly string[];
  readonly options: Readonly<Record<string, Option>>;
  /** Whether every field of a configuration is an option too: `--train.lr 1e-3`. */
  readonly takesFields?: true;
  /** The `deno run` flags that the command needs at least, in terms of its arguments. */
  readonly permissions: string;
  /** Paragraphs that the help wraps; one that begins with a space is kept as it is. */
  readonly details?: string;
  /** Does the work and returns the exit code; rejects with the signal's reason if that ended it early. */
  readonly run: (args: Arguments, signal: AbortSignal) => Promise<number>;
}

/** A mistake in the command line. */
export class UsageError extends Error {}

/** The arguments of one command, checked against its declaration. */
export class Arguments {
  readonly positionals: readonly string[];
  /** Fields of the configuration, as typed. */
  readonly fields: ReadonlyMap<string, string>;
  readonly #values: Readonly<Record<string, unknown>>;

  /** @throws {UsageError} for arguments that the command does not take. */
  constructor(name: string, { options, positionals, takesFields }: Command, args: readonly string[]) {
    const names = Object.keys(options);
    const isFlag = (option: string) => options[option]!.value === undefined && !options[option]!.choices;
    // A flag with an optional value never takes the next argument as its value.
    const alone = new Set(names.filter((option) => options[option]!.choices).map((option) => `--${option}`));
    const known = [...names.map((option) => `--${option}`), "--help"];
    const { fields, others } = takesFields ? withoutFields(args) : { fields: new Map(), others: args };
    this.fields = fields;
    const whole = withNegativeNumbers(others, options);
    const { _: found, ...values } = parseArgs(
      whole.map((argument) => alone.has(argument) ? `${argument}=` : argument),
      {
        boolean: ["help", ...names.filter(isFlag)],
        string: ["_", ...names.filter((option) => !isFlag(option))],
        collect: names.filter((option) => options[option]!.isMany),
        alias: { h: "help" },
        unknown: (argument, key) => {
          if (key !== undefined) throw unknown("option", argument.replace(/=.*/s, ""), known);
          return true;
        },
      },
    );
    this.positionals = found.map(String);
    this.#values = values;
    if (values.help) return;
    for (const option of names) {
      if (!alone.has(`--${option}`) && [values[option]].flat().includes("")) {
        throw new UsageError(`--${option} needs a value: ${options[option]!.help}`);
      }
    }
    const takesMore = positionals.at(-1)?.endsWith("...") ?? false;
    if (found.length < positionals.length || (found.length > positionals.length && !takesMore)) {
      const expected = positionals.length === 0 ? "no arguments" : positionals.join(" ");
      const given = found.length === 0 ? "none" : found.join(" ");
      throw new UsageError(`${name} takes ${expected}, found ${given}; see saev ${name} --help`);
    }
    const empty = found.indexOf("");
    if (empty >= 0) {
      throw new UsageError(`${name}: ${positionals[empty] ?? positionals.at(-1)} is empty; see saev ${name} --help`);
    }
  }

  flag(option: string): boolean {
    return this.#values[option] === true;
  }

  text(option: string): string | undefined {
    return this.#values[option] as string | undefined;
  }

  /** All values of a repeatable option. */
  texts(option: string): readonly string[] {
    return this.#values[option] as string[];
  }

  choice<T extends string>(option: string, choices: readonly T[]): T | undefined {
    const found = this.text(option);
    if (found === undefined || choices.includes(found as T)) return found as T | undefined;
    const near = nearest(found, choices);
    const hint = near === undefined ? `expected one of ${choices.join(", ")}` : `did you mean ${near}?`;
    throw new UsageError(`--${option} is ${JSON.stringify(found)}; ${hint}`);
  }

  /** The value of a flag: `""` if it has none. */
  given<T extends string>(option: string, choices: readonly T[]): T | "" | undefined {
    return this.text(option) === "" ? "" : this.choice(option, choices);
  }

  number(option: string, least: number): number | undefined {
    return this.#numberWithin(option, least, Number.MAX_VALUE, `of at least ${least}`);
  }

  share(option: string): number | undefined {
    return this.#numberWithin(option, 0, 1, "from 0 to 1");
  }

  #numberWithin(option: string, least: number, most: number, expected: string): number | undefined {
    const found = this.text(option);
    if (found === undefined) return undefined;
    const value = Number(found);
    if (found.trim() !== "" && value >= least && value <= most) return value;
    throw new UsageError(`--${option} must be a number ${expected}, found ${JSON.stringify(found)}`);
  }

  integer(option: string, least: number): number | undefined {
    const value = this.number(option, least);
    if (value === undefined || Number.isSafeInteger(value)) return value;
    throw new UsageError(`--${option} must be an integer, found ${value}`);
  }
}

/** Separates options that are fields of a configuration from the other arguments. */
function withoutFields(args: readonly string[]): {
  readonly fields: ReadonlyMap<string, string>;
  readonly others: readonly string[];
} {
  const fields = new Map<string, string>();
  const others: string[] = [];
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--") return { fields, others: [...others, ...args.slice(i)] };
    const [, field, joined] = /^--(\w+(?:\.\w+)+)(?:=(.*))?$/s.exec(args[i]!) ?? [];
    if (field === undefined) {
      others.push(args[i]!);
      continue;
    }
    const value = joined ?? args[++i];
    if (!value || (joined === undefined && value.startsWith("--"))) {
      throw new UsageError(`--${field} needs a value; saev config lists the values of ${field}`);
    }
    if (fields.has(field)) throw new UsageError(`--${field} is given twice; give it once`);
    fields.set(field, value);
  }
  return { fields, others };
}

/** Joins each negative number to the option before it. */
function withNegativeNumbers(args: readonly string[], options: Command["options"]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const before = joined.at(-1) ?? "";
    const takesValue = before.startsWith("--") && options[before.slice(2)]?.value !== undefined;
    if (takesValue && /^-(?:\d|\.\d|inf|nan)/i.test(arg)) joined[joined.length - 1] = `${before}=${arg}`;
    else joined.push(arg);
  }
  return joined;
}

export function unknown(what: string, found: string, known: readonly string[]): UsageError {
  const near = nearest(found, known);
  const hint = near === undefined ? `expected one of ${known.join(", ")}` : `did you mean ${near}?`;
  return new UsageError(`unknown ${what} ${found}; ${hint}`);
}

/** Width of the help in columns. */
const HELP_WIDTH = 100;

export function commandHelp(name: string, command: Command): string {
  const { summary, positionals, options, takesFields, permissions, details } = command;
  const rows = Object.entries(options).map(([option, { value, choices, help }]): [string, string] => [
    `--${option}${value === undefined ? "" : ` ${value}`}${choices ? `[=${choices.join("|")}]` : ""}`,
    help,
  ]);
  if (takesFields) {
    rows.push([
      "--SECTION.FIELD VALUE",
      "set a field of the configuration, for example --train.lr 1e-3; a list makes a sweep",
    ]);
  }
  const usage = ["saev", name, ...positionals, "[OPTIONS]"].join(" ");
  const paragraphs = [`Permissions: ${permissions}`, ...details?.split("\n\n") ?? []];
  return [
    filled(summary).join("\n"),
    `Usage: ${usage}`,
    helpTable([...rows, ["--help", "show this help"]]),
    ...paragraphs.map((text) => text.startsWith(" ") ? text : filled(text).join("\n")),
  ].join("\n\n");
}

/** Two columns. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
}

/** Two columns, the right one wrapped. */
export function helpTable(rows: readonly (readonly [string, string])[]): string {
  const width = HELP_WIDTH - 4 - Math.max(...rows.map(([left]) => left.length));
  return table(
    rows.flatMap(([left, right]) =>
      filled(right, width).map((line, i): [string, string] => [i === 0 ? left : "", line])
    ),
  );
}

/** Wraps a text at `width` columns. */
function filled(text: string, width = HELP_WIDTH): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Prints a line for people on stderr, with terminal control characters escaped. */
export function say(line: string): void {
  writeStderr(`${inLines(line)}\n`);
}

/** The last line, which says why the command ends: unlike {@link say}, it waits for a slow reader. */
export async function sayWhole(line: string): Promise<void> {
  await writeWhole(Deno.stderr, `${inLines(line)}\n`).catch(() => {
    // There is no reader to tell.
  });
}

/** Milliseconds between two tries to write into a pipe that is full and does not block. */
const RETRY_EVERY = 5;

/** Bytes that a pipe takes whole or not at all: `PIPE_BUF` of Linux. */
const AT_ONCE = 4096;

/** Writes all lines of a text, however slowly they are read. */
async function writeWhole(stream: Pick<typeof Deno.stdout, "writeSync">, lines: string): Promise<void> {
  const bytes = new TextEncoder().encode(lines);
  for (let at = 0; at < bytes.length;) {
    // Deno's stdout keeps what stands behind the last line's end of a piece, so that a failure would not say what was
    // written: pieces end with a line, or hold a part of one that is too long for it to keep.
    const end = Math.min(at + AT_ONCE, bytes.length);
    const lineEnd = bytes.lastIndexOf(NEWLINE, end - 1) + 1;
    try {
      at += stream.writeSync(bytes.subarray(at, lineEnd > at ? lineEnd : end));
    } catch (error) {
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_EVERY));
    }
  }
}

const NEWLINE = 10;

/** Text of one or more lines, with terminal control characters escaped. */
function inLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/**
 * Prints a whole result on stdout; on a terminal with control characters escaped, elsewhere unchanged.
 *
 * @throws {Interruption} if the reader has gone, as `head` does after its lines.
 * @throws {Error} if stdout cannot be written, for example on a full disk.
 */
export async function print(result: string, isTerminal: boolean = Deno.stdout.isTerminal()): Promise<void> {
  try {
    await writeWhole(Deno.stdout, `${isTerminal ? inLines(result) : result}\n`);
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) throw new Interruption("SIGPIPE");
    throw new Error(`writing the result to stdout: ${(error as Error).message}`, { cause: error });
  }
}
