/**
 * Configuration files: TOML of limited size and depth, with every key given once. The parser would take the last of two
 * equal keys, and it does not take `[a]` after `[a.b]`, so the keys are checked here first.
 *
 * @module
 */

import { parse } from "@std/toml";

/** The largest file that is read; a usual configuration has a few hundred bytes. */
export const MAX_TOML_BYTES: number = 2 ** 18;

/** Largest nesting depth of tables and lists; configurations are four deep. */
const MAX_DEPTH = 16;

/**
 * The values of a TOML document.
 *
 * @throws {SyntaxError} that names the line, for a key given twice, excessive nesting, and invalid TOML.
 */
export function parseToml(text: string): Record<string, unknown> {
  new KeyReader(text).read();
  return parse(text);
}

/** The keys of a table found so far. */
interface Table {
  /** The line where it was first mentioned. */
  readonly line: number;
  readonly entries: Map<string, Table | Value>;
  /** How more keys may be added: by a header, by dotted keys, or not at all. */
  by: "header" | "mention" | "dots" | "inline";
  /** Whether it is an element of an array of tables. */
  readonly isElement: boolean;
}

/** Anything else. */
interface Value {
  readonly line: number;
}

/** Reads the keys of a document and what lies between them, character by character. */
class KeyReader {
  readonly #text: string;
  #at = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  /** Reads the whole document. */
  read(): void {
    const root: Table = { line: 1, entries: new Map(), by: "header", isElement: false };
    let table = root;
    for (this.#skip(true); this.#at < this.#text.length; this.#skip(true)) {
      if (this.#takes("[")) table = this.#header(root);
      else this.#assignment(table, 0);
      this.#skip(false);
      if (this.#at < this.#text.length && this.#peek() !== "\n") this.#fail(`found ${this.#found()} after the value`);
    }
  }

  #header(root: Table): Table {
    const isElement = this.#takes("[");
    const line = this.#line;
    const keys = this.#keys();
    if (!this.#takes(isElement ? "]]" : "]")) this.#fail(`found ${this.#found()} in the name of a table`);
    const last = keys.at(-1)!;
    const parent = this.#enterAll(root, keys.slice(0, -1), "mention");
    const there = parent.entries.get(last);
    if (there !== undefined) {
      const isLate = isTable(there) && !isElement && there.by === "mention";
      // TOML allows it, and the parser does not.
      if (isLate) this.#fail(`[${keys.join(".")}] comes after a table nested in it, on line ${there.line}; move it up`);
      if (!isElement || !isTable(there) || !there.isElement) this.#twice(keys, there);
    }
    const table: Table = { line, entries: new Map(), by: "header", isElement };
    parent.entries.set(last, table);
    return table;
  }

  #assignment(table: Table, depth: number): void {
    const keys = this.#keys();
    this.#skip(false);
    if (!this.#takes("=")) this.#fail(`found ${this.#found()}; expected = after ${keys.join(".")}`);
    const parent = this.#enterAll(table, keys.slice(0, -1), "dots");
    const last = keys.at(-1)!;
    const there = parent.entries.get(last);
    if (there !== undefined) this.#twice(keys, there);
    this.#skip(false);
    const line = this.#line;
    parent.entries.set(last, this.#value(depth + keys.length) ?? { line });
  }

  #enterAll(table: Table, keys: readonly string[], by: "mention" | "dots"): Table {
    return keys.reduce((inner, _, i) => this.#enter(inner, keys.slice(0, i + 1), by), table);
  }

  /** The table of that name inside another, created if absent. */
  #enter(table: Table, keys: readonly string[], by: "mention" | "dots"): Table {
    const key = keys.at(-1)!;
    const there = table.entries.get(key);
    if (there === undefined) {
      const made: Table = { line: this.#line, entries: new Map(), by, isElement: false };
      table.entries.set(key, made);
      return made;
    }
    const isOpen = isTable(there) && there.by !== "inline" && (by === "mention" || there.by === "dots");
    return isOpen ? there : this.#twice(keys, there);
  }

  /** A dotted key. */
  #keys(): string[] {
    const keys: string[] = [];
    do {
      this.#skip(false);
      const sign = this.#peek();
      const key = sign === '"' || sign === "'" ? this.#string() : this.#take(/[A-Za-z0-9_-]*/y);
      if (key === "") this.#fail(`found ${this.#found()}; expected a key`);
      // Otherwise one key could be written in two ways, and the parser drops this name.
      if (key.includes("\\") || key === "__proto__") this.#fail(`unknown field ${key}`);
      keys.push(key);
      this.#skip(false);
    } while (this.#takes("."));
    this.#checkDepth(keys.length);
    return keys;
  }

  /** Reads a value; for an inline table, its keys. */
  #value(depth: number): Table | undefined {
    this.#checkDepth(depth);
    const sign = this.#peek();
    if (sign === '"' || sign === "'") this.#string();
    else if (this.#takes("[")) this.#list(depth + 1);
    else if (this.#takes("{")) return this.#inlineTable(depth);
    else {
      // The parser reads numbers, dates and so on.
      const bare = this.#take(/(?:[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?)?/y);
      if (bare === "") this.#fail(`found ${this.#found()}; expected a value`);
    }
    return undefined;
  }

  #list(depth: number): void {
    for (this.#skip(true); !this.#takes("]"); this.#skip(true)) {
      this.#value(depth);
      this.#skip(true);
      if (!this.#takes(",") && this.#peek() !== "]") this.#fail(`found ${this.#found()} in a list; expected , or ]`);
    }
  }

  #inlineTable(depth: number): Table {
    const table: Table = { line: this.#line, entries: new Map(), by: "dots", isElement: false };
    this.#skip(false);
    if (!this.#takes("}")) {
      do this.#assignment(table, depth); while (this.#isSeparated());
      this.#skip(false);
      if (!this.#takes("}")) this.#fail(`found ${this.#found()} in a table; expected , or }`);
    }
    table.by = "inline";
    return table;
  }

  #isSeparated(): boolean {
    this.#skip(false);
    return this.#takes(",");
  }

  /** The raw content of a string of any kind. */
  #string(): string {
    const quote = this.#peek();
    const isLong = this.#text.startsWith(quote.repeat(3), this.#at);
    const [long, short] = quote === '"'
      ? [/(?:"""(?:\\[^]|[^\\])*?"""(?!"))?/y, /(?:"(?:\\.|[^"\\\n])*")?/y]
      : [/(?:'''[^]*?'''(?!'))?/y, /(?:'[^'\n]*')?/y];
    const whole = this.#take(isLong ? long : short);
    if (whole === "") this.#fail(`a string has no closing quote${isLong ? "" : " on its line"}`);
    return isLong ? whole.slice(3, -3) : whole.slice(1, -1);
  }

  /** Skips blanks and comments, and line ends if asked. */
  #skip(lines: boolean): void {
    this.#take(lines ? /(?:[ \t\r\n]|#[^\n]*)*/y : /[ \t\r]*(?:#[^\n]*)?/y);
  }

  #peek(): string {
    return this.#text[this.#at] ?? "";
  }

  #takes(sign: string): boolean {
    if (!this.#text.startsWith(sign, this.#at)) return false;
    this.#at += sign.length;
    return true;
  }

  /** The text that matches here, possibly empty. */
  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [taken] = pattern.exec(this.#text)!;
    this.#at += taken.length;
    this.#line += taken.split("\n").length - 1;
    return taken;
  }

  #found(): string {
    const sign = this.#peek();
    return sign === "" ? "the end of the file" : sign === "\n" ? "the end of the line" : JSON.stringify(sign);
  }

  #checkDepth(depth: number): void {
    if (depth > MAX_DEPTH) this.#fail(`tables and lists are nested more than ${MAX_DEPTH} deep`);
  }

  #twice(keys: readonly string[], { line }: Table | Value): never {
    return this.#fail(`${keys.join(".")} is given twice; the first is on line ${line}`);
  }

  #fail(what: string): never {
    throw new SyntaxError(`line ${this.#line}: ${what}`);
  }
}

function isTable(entry: Table | Value): entry is Table {
  return "entries" in entry;
}
