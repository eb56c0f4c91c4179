/**
 * Files that belong together: a folder, or files that a user picked.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import { blobSource, type Source } from "./source.ts";

/** Files that belong together, wherever they are. */
export interface FileSet {
  /** Their name in messages. */
  readonly name: string;
  /** The file that was given, if a file and not a folder was given. */
  readonly main: string | null;
  /** Names in the folder itself; those of folders end with `/`. */
  list(): Promise<readonly string[]>;
  /**
   * The file at a path below the folder, written with `/`; `null` if there is none.
   *
   * @throws {CheckpointError} for a path that leads out of the folder.
   */
  find(path: string): Promise<Source | null>;
  /** The file of that name in the folder above; `null` if there is none. Left out if that folder cannot be read. */
  findAbove?(name: string): Promise<Source | null>;
}

/**
 * The file at a path below the folder.
 *
 * @throws {CheckpointError} if there is none; the message lists what there is.
 */
export async function requireFile(files: FileSet, path: string): Promise<Source> {
  const source = await files.find(path);
  if (source !== null) return source;
  if (path === files.main) throw new CheckpointError(`reading ${files.name}: there is no such file`);
  const names = await files.list();
  const found = names.slice(0, 20).map(quote).join(", ") || "nothing";
  throw new CheckpointError(
    `reading ${files.name}: found no file ${quote(path)}; there is ${found}${names.length > 20 ? ", and more" : ""}`,
  );
}

/** @throws {CheckpointError} for a path that leads out of a folder, on any system. */
export function checkPath(path: string): void {
  const isPlain = (segment: string): boolean => segment !== "" && segment !== "." && segment !== "..";
  // deno-lint-ignore no-control-regex
  if (!path.split("/").every(isPlain) || /[\0-\x1f\x7f\\]|^[a-z]:/i.test(path)) {
    throw new CheckpointError(
      `reading a folder: the path ${quote(path)} leads out of it; expected names separated by /`,
    );
  }
}

/** The names in the folder itself, and its folders, from paths below it. */
export function namesIn(paths: Iterable<string>): string[] {
  const names = new Set<string>();
  for (const path of paths) {
    const at = path.indexOf("/");
    names.add(at < 0 ? path : path.slice(0, at + 1));
  }
  return [...names].sort();
}

/** A single file. */
export function singleFile(source: Source): FileSet {
  const { name } = source;
  return {
    name,
    main: name,
    list: () => Promise.resolve([name]),
    find: (path) => Promise.resolve(path === name ? source : null),
  };
}

/**
 * Files that a user picked or dropped in a browser, or all files of one folder, whose own name is then ignored.
 *
 * @throws {CheckpointError} if two have the same name.
 */
export function pickedFiles(picked: Iterable<File>): FileSet {
  const files = new Map<string, File>();
  for (const file of picked) {
    // For a file in a picked folder, the path begins with the folder's name.
    const path = (file as { webkitRelativePath?: string }).webkitRelativePath || file.name;
    if (files.has(path)) throw new CheckpointError(`reading the files picked: ${quote(path)} was picked twice`);
    files.set(path, file);
  }
  const [first] = files.keys();
  const folder = first === undefined ? "" : first.slice(0, first.indexOf("/") + 1);
  const isFolder = folder !== "" && [...files.keys()].every((path) => path.startsWith(folder));
  const inside = isFolder ? new Map([...files].map(([path, file]) => [path.slice(folder.length), file])) : files;
  return {
    name: isFolder ? folder.slice(0, -1) : "the files picked",
    main: !isFolder && files.size === 1 ? first! : null,
    list: () => Promise.resolve(namesIn(inside.keys())),
    find(path) {
      return Promise.try(() => {
        checkPath(path);
        const file = inside.get(path);
        return file === undefined ? null : blobSource(file);
      });
    },
  };
}
