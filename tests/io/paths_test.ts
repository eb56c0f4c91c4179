/** Paths of both kinds of systems. @module */
import { assertEquals } from "@std/assert";
import { pathFrom, pathOfUrl, type PathSystem, splitPath } from "../../io/paths.ts";

const SPLIT: readonly [system: PathSystem, path: string, folder: string, name: string][] = [
  ["linux", "a.toml", "", "a.toml"],
  ["linux", "configs/a.toml", "configs/", "a.toml"],
  ["linux", "/a.toml", "/", "a.toml"],
  ["linux", "configs/", "configs/", ""],
  ["linux", "a\\b:c.toml", "", "a\\b:c.toml"],
  ["windows", "a.toml", "", "a.toml"],
  ["windows", "configs\\a.toml", "configs\\", "a.toml"],
  ["windows", "configs/a.toml", "configs/", "a.toml"],
  ["windows", "C:\\x/y\\a.toml", "C:\\x/y\\", "a.toml"],
  ["windows", "C:a.toml", "C:", "a.toml"],
  ["windows", "\\\\server\\share\\a.toml", "\\\\server\\share\\", "a.toml"],
];

Deno.test("a path is its folder and its name", () => {
  for (const [system, path, folder, name] of SPLIT) assertEquals(splitPath(path, system), { folder, name }, path);
});

const FROM: readonly [system: PathSystem, file: string, path: string, expected: string][] = [
  ["linux", "configs/a.toml", "acts.npy", "configs/acts.npy"],
  ["linux", "configs/a.toml", "../acts.npy", "configs/../acts.npy"],
  ["linux", "configs/a.toml", "/data/acts.npy", "/data/acts.npy"],
  ["linux", "a.toml", "acts.npy", "acts.npy"],
  ["linux", "configs/a.toml", "C:\\acts.npy", "configs/C:\\acts.npy"],
  ["linux", "configs/a.toml", "\\acts.npy", "configs/\\acts.npy"],
  ["windows", "configs\\a.toml", "acts.npy", "configs\\acts.npy"],
  ["windows", "configs\\a.toml", "data\\acts.npy", "configs\\data\\acts.npy"],
  ["windows", "configs/a.toml", "data/acts.npy", "configs/data/acts.npy"],
  ["windows", "configs\\a.toml", "C:\\acts.npy", "C:\\acts.npy"],
  ["windows", "configs\\a.toml", "d:/acts.npy", "d:/acts.npy"],
  ["windows", "configs\\a.toml", "\\acts.npy", "\\acts.npy"],
  ["windows", "configs\\a.toml", "\\\\server\\share\\acts.npy", "\\\\server\\share\\acts.npy"],
];

Deno.test("a path in a file leads from that file's folder", () => {
  for (const [system, file, path, expected] of FROM) assertEquals(pathFrom(file, path, system), expected, path);
});

Deno.test("a file's URL is a path", () => {
  const read = (url: string, system: PathSystem) => pathOfUrl(new URL(url), system);
  assertEquals(read("file:///a%20b/c%25.npy", "linux"), "/a b/c%.npy");
  assertEquals(read("file:///C:/a%20b/c.npy", "windows"), "C:/a b/c.npy");
  assertEquals(read("file://server/share/c.npy", "windows"), "//server/share/c.npy");
});
