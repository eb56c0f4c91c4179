/**
 * That the names in an object of options are those there are.
 *
 * @module
 */

import { nearest } from "./nearest.ts";

/** Of a union, the names of every part. */
type NameIn<Options> = Options extends unknown ? keyof Options : never;

/**
 * @throws {TypeError} if `options` are none, or have a name that is not among `known`, with the one that was probably meant.
 */
export function checkOptions<Options extends object>(
  what: string,
  options: Options,
  known: Readonly<Record<NameIn<Options>, true>>,
): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`${what} takes an object of options, found ${options === null ? "null" : typeof options}`);
  }
  const found = Object.keys(options).find((name) => !Object.hasOwn(known, name));
  if (found === undefined) return;
  const names = Object.keys(known);
  const near = nearest(found, names);
  const hint = near === undefined ? `it has ${names.join(", ")}` : `did you mean ${near}?`;
  throw new TypeError(`${what} has no option ${JSON.stringify(found)}; ${hint}`);
}
