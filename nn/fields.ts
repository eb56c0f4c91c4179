/**
 * Fields of a configuration: what each may be, and what it is where nothing is said.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";

/** One field. */
export interface Field<T> {
  /**
   * The value of the field `name`: what was found, checked, or the default where nothing was.
   *
   * @throws {TypeError} for a value of the wrong type.
   * @throws {RangeError} for a number outside its range.
   */
  complete(name: string, found: unknown): T;
}

/** The fields of a configuration besides its `key`, in the order of files. */
export type Fields<C> = { readonly [Name in Exclude<keyof C, "key">]: Field<C[Name]> };

/** An integer of at least `least`. */
export function integer({ least, otherwise }: { readonly least: number; readonly otherwise?: number }): Field<number> {
  return {
    complete(name, given) {
      const found = given ?? otherwise;
      if (!Number.isSafeInteger(found) || (found as number) < least) {
        throw new RangeError(`${name} must be an integer of at least ${least}, found ${shown(found)}`);
      }
      return found as number;
    },
  };
}

/** A finite number between `least` and `most`; without `least`, above 0. */
export function number(
  { least, most = Infinity, otherwise }: {
    readonly least?: number;
    readonly most?: number;
    readonly otherwise?: number;
  },
): Field<number> {
  return {
    complete(name, given) {
      const found = given ?? otherwise;
      if (typeof found !== "number") throw new TypeError(`${name} must be a number, found ${shown(found)}`);
      if (least === undefined && found === 0) throw new RangeError(`${name} must be positive, found 0`);
      // Written so that NaN fails too.
      if (!(found >= (least ?? 0) && found <= most && Number.isFinite(found))) {
        const range = most === Infinity
          ? `a finite number of at least ${least ?? 0}`
          : `between ${least ?? 0} and ${most}`;
        throw new RangeError(`${name} must be ${range}, found ${found}`);
      }
      return found;
    },
  };
}

/** `true` or `false`. */
export function boolean({ otherwise }: { readonly otherwise: boolean }): Field<boolean> {
  return {
    complete(name, given) {
      const found = given ?? otherwise;
      if (typeof found !== "boolean") throw new TypeError(`${name} must be true or false, found ${shown(found)}`);
      return found;
    },
  };
}

/**
 * A frozen configuration from what a user wrote: `what`, such as "activation", says in messages what it is of.
 *
 * @throws {TypeError} for an unknown field or a field of the wrong type.
 * @throws {RangeError} for a number outside its range.
 */
export function completeFields<C extends { readonly key: string }>(
  what: string,
  key: C["key"],
  fields: Fields<C>,
  found: object,
): C {
  onlyFields(`${what} ${key}`, found, ["key", ...Object.keys(fields)]);
  return Object.freeze({ key, ...completeEach(fields, found) }) as C;
}

/**
 * Every field of what a user wrote, complete and frozen.
 *
 * @throws {RangeError | TypeError} as the fields.
 */
export function completeEach<C>(fields: Fields<C>, found: object): Omit<C, "key"> {
  const values: ReadonlyMap<string, unknown> = new Map(Object.entries(found));
  const entries = Object.entries<Field<unknown>>(fields).map(([name, field]) => [
    name,
    field.complete(name, values.get(name)),
  ]);
  return Object.freeze(Object.fromEntries(entries)) as Omit<C, "key">;
}

/**
 * The entry of a table of kinds that a `key` names.
 *
 * @throws {RangeError} for a key that it does not have.
 */
export function entryOf<Kinds extends object>(what: string, kinds: Kinds, key: unknown): Kinds[keyof Kinds] {
  if (typeof key === "string" && Object.hasOwn(kinds, key)) return kinds[key as keyof Kinds];
  const expected = Object.keys(kinds).join(", ");
  throw new RangeError(`unknown ${what} key ${JSON.stringify(key)}; expected one of ${expected}`);
}

/** @throws {TypeError} if there is a field that is not among the expected ones. */
export function onlyFields(what: string, found: object, expected: readonly string[]): void {
  for (const field of Object.keys(found)) {
    if (!expected.includes(field)) {
      throw new TypeError(`${what} has no field ${JSON.stringify(field)}; it has ${expected.join(", ")}`);
    }
  }
}
