/**
 * Paths as text. What separates names and what begins a path differs between systems, so the system is an argument.
 *
 * @module
 */

/** Whose rules a path follows; `Deno.build.os` is one of these, or follows those of `"linux"`. */
export type PathSystem = "windows" | "linux";

/** A path in two parts that together are the path. */
export interface PathParts {
  /** Up to its last separator, which it includes; empty for a bare name. */
  readonly folder: string;
  /** What follows. */
  readonly name: string;
}

/** `configs/a.toml` is `configs/` and `a.toml`; on Windows, `configs\a.toml` is `configs\` and `a.toml`. */
export function splitPath(path: string, system: PathSystem): PathParts {
  const separator = system === "windows" ? /[\\/:](?=[^\\/:]*$)/ : /\/(?=[^/]*$)/;
  const at = path.search(separator) + 1;
  return { folder: path.slice(0, at), name: path.slice(at) };
}

/**
 * Where a path leads that is written in a file, or in a link: from the folder of that file, unless it begins at a root or,
 * on Windows, names a drive.
 */
export function pathFrom(file: string, path: string, system: PathSystem): string {
  const isAbsolute = system === "windows" ? /^(?:[\\/]|[a-z]:)/i.test(path) : path.startsWith("/");
  return isAbsolute ? path : splitPath(file, system).folder + path;
}

/** The path that a `file:` URL means. */
export function pathOfUrl({ host, pathname }: URL, system: PathSystem): string {
  const path = decodeURIComponent(pathname);
  if (system === "linux") return path;
  return host === "" ? path.replace(/^\/(?=[a-z]:)/i, "") : `//${host}${path}`;
}
