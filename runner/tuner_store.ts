/**
 * The tuner's results in a file of the user's cache folder, so that later programs need not measure.
 *
 * @module
 */

import { reason } from "../io/copies.ts";
import { mayUse } from "../io/disk.ts";
import { userCacheFolder, writeBytes } from "../io/files.ts";
import type { TunerStore } from "../kernels/mod.ts";

/** A JSON file: one object with a string for each key. If the file cannot be used, values are kept only in memory. */
export class TunerFile implements TunerStore {
  /** Its path; `null` if the user has no folder for it. */
  readonly path: string | null;
  readonly #entries = new Map<string, string>();
  #problem: string | null = null;

  private constructor(path: string | null) {
    this.path = path;
  }

  /**
   * Reads the file, by default the one in the user's cache folder. A missing or damaged file counts as empty, because
   * its values can be measured again. So does one that cannot be read; see {@link TunerFile.problem}.
   */
  static async open(path: string | null = userFile()): Promise<TunerFile> {
    const file = new TunerFile(path);
    for (const [key, value] of await file.#read()) file.#entries.set(key, value);
    return file;
  }

  /** Why the file cannot be used, with its path; `null` if it can. */
  get problem(): string | null {
    return this.#problem;
  }

  /** The value set for a key. */
  get(key: string): string | undefined {
    return this.#entries.get(key);
  }

  /**
   * Adds a value to the file, keeping those that other programs have added meanwhile. The file is replaced atomically.
   */
  async set(key: string, value: string): Promise<void> {
    this.#entries.set(key, value);
    const entries = new Map([...await this.#read(), [key, value]]);
    const text = `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`;
    await this.#use("write", (path) => writeBytes(path, [new TextEncoder().encode(text)]));
  }

  async #read(): Promise<Map<string, string>> {
    const text = await this.#use("read", (path) => Deno.readTextFile(path));
    try {
      const found: unknown = JSON.parse(text ?? "null");
      if (found === null || typeof found !== "object") return new Map();
      return new Map(Object.entries(found).filter((entry): entry is [string, string] => typeof entry[1] === "string"));
    } catch (error) {
      if (error instanceof SyntaxError) return new Map();
      throw error;
    }
  }

  /** Uses the file, unless that failed before. */
  async #use<T>(how: "read" | "write", work: (path: string) => Promise<T>): Promise<T | undefined> {
    const { path } = this;
    if (path === null || this.#problem !== null) return undefined;
    try {
      if (!mayUse(path, how)) throw new Deno.errors.NotCapable();
      return await work(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#problem = `${path}: ${reason(error)}`;
      return undefined;
    }
  }
}

function userFile(): string | null {
  const folder = userCacheFolder();
  return folder === null ? null : `${folder}/tuning.json`;
}
