/**
 * The file system of Deno, Node and Bun, which have Node's module in common. It is asked of the runtime, not imported: a
 * browser, which has none, loads the same files.
 *
 * @module
 */

import type * as NodeFiles from "node:fs/promises";
import type { PathSystem } from "./paths.ts";

/** As much of Node's `process` as is used. */
interface NodeProcess {
  getBuiltinModule?(name: "node:fs/promises"): typeof NodeFiles | undefined;
  readonly platform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

function nodeProcess(): NodeProcess | undefined {
  return (globalThis as { process?: NodeProcess }).process;
}

/** `node:fs/promises`, where there is a file system. */
function nodeFiles(): typeof NodeFiles | undefined {
  return nodeProcess()?.getBuiltinModule?.("node:fs/promises");
}

/** Whether files can be read and written by their paths. */
export function hasDisk(): boolean {
  return nodeFiles() !== undefined;
}

/**
 * Node's functions for files. A failure is an `Error` with Node's `code`, such as `"ENOENT"`, in every runtime; where Deno
 * lacks a permission, it is a `Deno.errors.NotCapable`.
 *
 * @throws {TypeError} where there is no file system.
 */
export function disk(): typeof NodeFiles {
  const files = nodeFiles();
  if (files === undefined) throw new TypeError("there is no file system here");
  return files;
}

/** Whose rules paths follow here. */
export function pathSystem(): PathSystem {
  return nodeProcess()?.platform === "win32" ? "windows" : "linux";
}

/** Whether a failure of the file system has one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && codes.includes((error as { code?: string }).code ?? "");
}

/** Whether the program, or its user, may not do what failed. */
export function isForbidden(error: unknown): boolean {
  return lacksPermission(error) || hasCode(error, "EACCES", "EPERM");
}

/** Whether Deno was not given the permission for what failed. */
export function lacksPermission(error: unknown): boolean {
  return error instanceof Error && error.name === "NotCapable";
}

/** A failure in other words; its code stays. */
export function retold(message: string, cause: Error): Error {
  const { code } = cause as { code?: string };
  return Object.assign(new Error(message, { cause }), code !== undefined && { code });
}

/** Whether the runtime lets the program use a path without asking anybody: only Deno asks. */
export function mayUse(path: string, name: "read" | "write"): boolean {
  return hasDisk() && isGranted({ name, path });
}

/** A variable of the environment that is set to something, and may be read without asking anybody. */
export function environment(variable: string): string | undefined {
  if (!hasDisk() || !isGranted({ name: "env", variable })) return undefined;
  return nodeProcess()?.env[variable] || undefined;
}

function isGranted(permission: Deno.PermissionDescriptor): boolean {
  return typeof Deno === "undefined" || Deno.permissions.querySync(permission).state === "granted";
}
