/**
 * That the names in an object of options are those there are.
 *
 * @module
 */

import { nearest } from "./nearest.ts";

/**
 * @throws {TypeError} if `options` has a name that is not among `known`, with the one that was probably meant.
 */
export function checkOptions(what: string, options: object, known: Readonly<Record<string, true>>): void {
  const found = Object.keys(options).find((name) => !Object.hasOwn(known, name));
  if (found === undefined) return;
  const names = Object.keys(known);
  const near = nearest(found, names);
  const hint = near === undefined ? `it has ${names.join(", ")}` : `did you mean ${near}?`;
  throw new TypeError(`${what} has no option ${JSON.stringify(found)}; ${hint}`);
}
