/**
 * Paths as text. Separators and roots differ between systems, so the system is an argument.
 *
 * @module
 */

/** The rules for paths; `Deno.build.os` is one of these, or follows those of `"linux"`. */
export type PathSystem = "windows" | "linux";

/** A path in two parts. */
export interface PathParts {
  /** Everything up to and including the last separator; empty for a bare name. */
  readonly folder: string;
  /** The rest. */
  readonly name: string;
}

/**
 * `configs/a.toml` is split into `configs/` and `a.toml`; on Windows, `configs\a.toml` into `configs\` and `a.toml`.
 */
export function splitPath(path: string, system: PathSystem): PathParts {
  const separator = system === "windows" ? /[\\/:](?=[^\\/:]*$)/ : /\/(?=[^/]*$)/;
  const at = path.search(separator) + 1;
  return { folder: path.slice(0, at), name: path.slice(at) };
}

/**
 * Resolves a path written in a file or a link: relative to the folder of that file, unless it is absolute or, on
 * Windows, names a drive.
 */
export function pathFrom(file: string, path: string, system: PathSystem): string {
  const isAbsolute = system === "windows" ? /^(?:[\\/]|[a-z]:)/i.test(path) : path.startsWith("/");
  return isAbsolute ? path : splitPath(file, system).folder + path;
}

/** The path of a `file:` URL. */
export function pathOfUrl({ host, pathname }: URL, system: PathSystem): string {
  const path = decodeURIComponent(pathname);
  if (system === "linux") return path;
  return host === "" ? path.replace(/^\/(?=[a-z]:)/i, "") : `//${host}${path}`;
}
