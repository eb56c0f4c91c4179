/**
 * What the tuner found, in a file of the user's cache folder, so that later programs need not measure.
 *
 * @module
 */

import { writeBytes } from "../io/files.ts";
import type { TunerStore } from "../kernels/mod.ts";

/** A file of JSON: one object, a string under each key. */
export class TunerFile implements TunerStore {
  /** Where it is; `null` where the user has no folder for it, and nothing is kept. */
  readonly path: string | null;
  readonly #entries: Map<string, string>;

  private constructor(path: string | null, entries: Map<string, string>) {
    this.path = path;
    this.#entries = entries;
  }

  /**
   * Reads the file, the one in the user's cache folder if left out. One that is missing or damaged holds nothing: what was
   * in it can be measured again.
   */
  static async open(path: string | null = userFile()): Promise<TunerFile> {
    return new TunerFile(path, path === null ? new Map() : await readEntries(path));
  }

  /** What was set under a key. */
  get(key: string): string | undefined {
    return this.#entries.get(key);
  }

  /** Adds a value to the file, with those that other programs have added meanwhile. The file is replaced at once. */
  async set(key: string, value: string): Promise<void> {
    this.#entries.set(key, value);
    if (this.path === null) return;
    const entries = new Map([...await readEntries(this.path), [key, value]]);
    const text = `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`;
    await writeBytes(this.path, [new TextEncoder().encode(text)]);
  }
}

function userFile(): string | null {
  const home = Deno.env.get(Deno.build.os === "windows" ? "USERPROFILE" : "HOME");
  const base = Deno.env.get("XDG_CACHE_HOME") || (home && `${home}/.cache`);
  return base ? `${base}/saev-nn/tuning.json` : null;
}

async function readEntries(path: string): Promise<Map<string, string>> {
  try {
    const found: unknown = JSON.parse(await Deno.readTextFile(path));
    if (found === null || typeof found !== "object") return new Map();
    return new Map(Object.entries(found).filter((entry): entry is [string, string] => typeof entry[1] === "string"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return new Map();
    throw error;
  }
}
