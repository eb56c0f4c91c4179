/** The functions of `@std/toml` that this repository uses, typed as there. @module */

/** Parses a TOML document; a `SyntaxError` says what is wrong. */
export function parse(tomlString: string): Record<string, unknown>;
/** Writes an object as a TOML document. */
export function stringify(obj: Record<string, unknown>): string;
