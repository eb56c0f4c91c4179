/**
 * Types of fields that only run configurations have.
 *
 * @module
 */

import type { Field } from "../nn/fields.ts";
import { nearest } from "../kernels/engine/nearest.ts";

/** What declares a field: description, default, and an example for fields without a default. */
interface About<T> {
  readonly about: string;
  readonly otherwise?: T;
  readonly example?: T;
}

/** A string. */
export function text(about: About<string>): Field<string> {
  return {
    ...about,
    takes: "a string",
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (typeof found !== "string") throw wrong(name, "a string", found);
      return found;
    },
  };
}

/** One of the given strings. */
export function choice<T extends string>(choices: readonly T[], about: About<T>): Field<T> {
  return {
    ...about,
    takes: `one of ${choices.join(", ")}`,
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (!choices.includes(found as T)) throw unknownChoice(name, found, choices);
      return found as T;
    },
  };
}

/** A string that matches `form`, which `takes` describes. */
export function textLike(form: RegExp, takes: string, about: About<string>): Field<string> {
  return {
    ...about,
    takes,
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (typeof found !== "string" || !form.test(found)) throw wrong(name, takes, found);
      return found;
    },
  };
}

/** A list of strings that match `form`, which `takes` describes. */
export function textList(form: RegExp, takes: string, about: About<readonly string[]>): Field<readonly string[]> {
  return {
    ...about,
    takes,
    isList: true,
    complete(name, given) {
      const found = given ?? about.otherwise;
      const isOne = (one: unknown) => typeof one === "string" && form.test(one);
      if (!Array.isArray(found) || !found.every(isOne)) throw wrong(name, takes, found);
      return found;
    },
  };
}

/** A list of integers from 0 to 255. */
export function byteList(about: About<readonly number[]>): Field<readonly number[]> {
  const takes = "a list of integers from 0 to 255";
  const isByte = (one: unknown) => typeof one === "number" && Number.isInteger(one) && one >= 0 && one <= 255;
  return {
    ...about,
    takes,
    isList: true,
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (!Array.isArray(found) || !found.every(isByte)) throw wrong(name, takes, found);
      return found;
    },
  };
}

/** What `field` is, or `false`. */
export function orFalse<T>(field: Field<T>): Field<T | false> {
  const takes = `${field.takes}, or false`;
  return {
    ...field,
    takes,
    complete(name, found) {
      if (found === false) return false;
      if (typeof found !== typeof field.otherwise && (found ?? null) !== null) throw wrong(name, takes, found);
      return field.complete(name, found);
    },
  };
}

/** The error for a value that is not one of the choices. */
export function unknownChoice(name: string, found: unknown, choices: readonly string[]): RangeError {
  const near = typeof found === "string" ? nearest(found, choices) : undefined;
  const hint = near === undefined ? `expected one of ${choices.join(", ")}` : `did you mean ${near}?`;
  const what = found === undefined ? "missing" : JSON.stringify(found);
  return new RangeError(`${name} is ${what}; ${hint}`);
}

/** The error for a value of the wrong type. */
export function wrong(name: string, expected: string, found: unknown): TypeError {
  return new TypeError(`${name} must be ${expected}, found ${JSON.stringify(found)}`);
}
