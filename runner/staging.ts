/**
 * Copies rows to a nearer disk: the file, the files of a pattern with the JSON that describes them, or the folder of
 * shards. Files that exist already are not copied again.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { printable } from "./terminal.ts";

/** Progress and cancellation of {@link stageRows}. */
export interface StagingOptions {
  /** Stops copying. */
  readonly signal?: AbortSignal;
  /** Called with lines about what is copied. */
  readonly say?: (line: string) => void;
}

/** A file to copy. */
interface StagedFile {
  readonly name: string;
  readonly size: number;
  readonly mtime: Date | null;
}

/**
 * Copies the rows at a path into a folder below `folder`, and returns the path of the copy. An address is returned
 * unchanged: downloads have a cache of their own.
 *
 * @throws {Error} that names the file and its bytes, if it cannot be copied.
 * @throws {TypeError} for an unknown option.
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function stageRows(path: string, folder: string, options: StagingOptions = {}): Promise<string> {
  checkOptions("stageRows", options, { signal: true, say: true });
  const { signal, say = () => {} } = options;
  if (/^(?:https?|hf):/i.test(path)) return path;
  const separator = Deno.build.os === "windows" ? /[\\/](?=[^\\/]*$)/ : /\/(?=[^/]*$)/;
  const whole = path.replace(Deno.build.os === "windows" ? /[\\/]+$/ : /\/+$/, "") || path;
  const isFolder = (await Deno.stat(whole).catch(() => null))?.isDirectory ?? false;
  const at = isFolder ? whole.length : whole.search(separator);
  const from = isFolder ? whole : at < 0 ? "." : whole.slice(0, at) || "/";
  const name = isFolder ? "" : whole.slice(at + 1);
  const files = await filesOf(from, name);
  // A missing file is reported where it is opened, with what was expected.
  if (files.length === 0) return path;
  const real = await Deno.realPath(from);
  const to = `${folder}/${await shortHash(real)}`;
  const staged = name === "" ? to : `${to}/${name}`;
  const missing: StagedFile[] = [];
  for (const file of files) if (!await isStaged(`${to}/${file.name}`, file)) missing.push(file);
  if (missing.length === 0) {
    say(`reading the copy of ${printable(path)} in ${to}`);
    return staged;
  }
  const bytes = missing.reduce((sum, { size }) => sum + size, 0);
  say(`copying ${printable(path)} to ${to}: ${missing.length} files, ${(bytes / 1e9).toPrecision(3)} GB`);
  await Deno.mkdir(to, { recursive: true });
  for (const file of missing) await copy(`${from}/${file.name}`, `${to}/${file.name}`, file, signal);
  return staged;
}

/** The files of a folder; for one file or a pattern, also JSON that may describe its numbers. */
async function filesOf(folder: string, name: string): Promise<StagedFile[]> {
  const fits = new RegExp(`^${name.split("*").map(RegExp.escape).join(".*")}$`);
  const found: StagedFile[] = [];
  for await (const { name: other, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory || !(name === "" || fits.test(other) || other.endsWith(".json"))) continue;
    const { isFile, size, mtime } = await Deno.stat(`${folder}/${other}`);
    if (isFile) found.push({ name: other, size, mtime });
  }
  return name === "" || found.some(({ name: other }) => fits.test(other)) ? found : [];
}

async function isStaged(path: string, { size, mtime }: StagedFile): Promise<boolean> {
  const found = await Deno.stat(path).catch(() => null);
  return found?.size === size && found.mtime?.getTime() === mtime?.getTime();
}

async function copy(from: string, to: string, { size, mtime }: StagedFile, signal?: AbortSignal): Promise<void> {
  const temporary = `${to}.${crypto.randomUUID()}.tmp`;
  try {
    const source = await Deno.open(from);
    const target = await Deno.open(temporary, { write: true, createNew: true });
    await source.readable.pipeTo(target.writable, { ...signal && { signal } });
    if (mtime !== null) await Deno.utime(temporary, mtime, mtime);
    await Deno.rename(temporary, to);
  } catch (cause) {
    await Deno.remove(temporary).catch(() => {});
    if (signal?.aborted) throw signal.reason;
    throw new Error(
      `copying ${from} to ${to}: ${(cause as Error).message}; it has ${size.toLocaleString("en")} bytes`,
      {
        cause,
      },
    );
  }
}

/** Distinguishes a folder from others of its name. */
async function shortHash(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(hash).toHex().slice(0, 16);
}
