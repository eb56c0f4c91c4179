/**
 * The file system of Deno, Node and Bun, through Node's module. It is requested from the runtime rather than imported,
 * so that browsers, which have none, can load the same files.
 *
 * @module
 */

import type * as NodeFiles from "node:fs/promises";
import type { PathSystem } from "./paths.ts";

/** The part of Node's `process` that is used. */
interface NodeProcess {
  getBuiltinModule?(name: "node:fs/promises"): typeof NodeFiles | undefined;
  readonly platform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

function nodeProcess(): NodeProcess | undefined {
  return (globalThis as { process?: NodeProcess }).process;
}

/** `node:fs/promises`, if there is a file system. */
function nodeFiles(): typeof NodeFiles | undefined {
  return nodeProcess()?.getBuiltinModule?.("node:fs/promises");
}

/** Whether files can be read and written by path. */
export function hasDisk(): boolean {
  return nodeFiles() !== undefined;
}

/**
 * Node's file functions. A failure is an `Error` with Node's `code`, such as `"ENOENT"`, in every runtime; if Deno
 * lacks a permission, it is a `Deno.errors.NotCapable`.
 *
 * @throws {TypeError} if there is no file system.
 */
export function disk(): typeof NodeFiles {
  const files = nodeFiles();
  if (files === undefined) throw new TypeError("there is no file system here");
  return files;
}

/** The rules that paths follow on this system. */
export function pathSystem(): PathSystem {
  return nodeProcess()?.platform === "win32" ? "windows" : "linux";
}

/** Whether a failure of the file system has one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && codes.includes((error as { code?: string }).code ?? "");
}

/** Whether a failure means that the program or its user lacks the right. */
export function isForbidden(error: unknown): boolean {
  return lacksPermission(error) || hasCode(error, "EACCES", "EPERM");
}

/** Whether a failure means that Deno lacks a permission. */
export function lacksPermission(error: unknown): boolean {
  return error instanceof Error && error.name === "NotCapable";
}

/** The failure with another message and the same code. */
export function retold(message: string, cause: Error): Error {
  const { code } = cause as { code?: string };
  return Object.assign(new Error(message, { cause }), code !== undefined && { code });
}

/** Whether the program may use a path without a permission prompt; only Deno prompts. */
export function mayUse(path: string, name: "read" | "write"): boolean {
  return hasDisk() && isGranted({ name, path });
}

/** A variable of the environment, if it is set, not empty, and readable without a prompt. */
export function environment(variable: string): string | undefined {
  if (!hasDisk() || !isGranted({ name: "env", variable })) return undefined;
  return nodeProcess()?.env[variable] || undefined;
}

function isGranted(permission: Deno.PermissionDescriptor): boolean {
  return typeof Deno === "undefined" || Deno.permissions.querySync(permission).state === "granted";
}
