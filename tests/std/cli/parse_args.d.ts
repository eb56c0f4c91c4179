/** The function of `@std/cli/parse-args` that this repository uses; its results are narrowed from `unknown`. @module */

/** What to parse. */
export interface ParseOptions {
  /** Leave what follows `--` in a field of that name. */
  "--"?: boolean;
  /** Other names of a flag. */
  alias?: Record<string, string | readonly string[]>;
  /** Flags without a value. */
  boolean?: boolean | string | readonly string[];
  /** Values of absent flags. */
  default?: Record<string, unknown>;
  /** Everything after the first positional argument is positional. */
  stopEarly?: boolean;
  /** Flags whose value stays text. */
  string?: string | readonly string[];
  /** Flags that may be repeated. */
  collect?: string | readonly string[];
  /** Flags that `--no-` negates. */
  negatable?: string | readonly string[];
  /** Called for what is not declared; `false` drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Parses command-line arguments. */
export function parseArgs(args: string[], options?: ParseOptions): {
  _: Array<string | number>;
  [name: string]: unknown;
};
