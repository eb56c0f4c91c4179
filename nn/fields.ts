/**
 * Fields of a configuration: the values that each accepts, and its default.
 *
 * @module
 */

import { shown } from "../kernels/engine/errors.ts";

/** One field. */
export interface Field<T> {
  /** One sentence on what it is: the first of its doc comment. */
  readonly about: string;
  /** The values that it accepts, in words. */
  readonly takes: string;
  /** Its default; `null` if that depends on something else, left out if the field is required. */
  readonly otherwise?: unknown;
  /** An example value to show when there is no default. */
  readonly example?: unknown;
  /** For a table with a `key`: the fields of each key. */
  readonly kinds?: Kinds;
  /** Whether its value is a list. */
  readonly isList?: true;
  /**
   * The value of the field `name`: the checked value that was found, or the default.
   *
   * @throws {TypeError} for a value of the wrong type.
   * @throws {RangeError} for a number outside its range.
   */
  complete(name: string, found: unknown): T;
}

/** The fields of a configuration besides its `key`, in the order of files. */
export type Fields<C> = { readonly [Name in Exclude<keyof C, "key">]: Field<C[Name]> };

/** A field for each property. */
export type EachField<C> = { readonly [Name in keyof C]: Field<C[Name]> };

/** Fields whose values are of any type, by name. */
export type AnyFields = Readonly<Record<string, Field<unknown>>>;

/** The fields of each kind of a table, by its `key`. */
export type Kinds = Readonly<Record<string, AnyFields>>;

/** The options that every field takes. */
interface About<T> {
  readonly about: string;
  readonly otherwise?: T;
  readonly example?: T;
}

/** An integer of at least `least` and at most `most`; any, without them. */
export function integer(
  { least = -Infinity, most = Infinity, ...about }: About<number> & { readonly least?: number; readonly most?: number },
): Field<number> {
  const range = most < Infinity ? ` from ${least} to ${most}` : least > -Infinity ? ` of at least ${least}` : "";
  const takes = `an integer${range}`;
  return {
    ...about,
    takes,
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (!Number.isSafeInteger(found) || (found as number) < least || (found as number) > most) {
        throw new RangeError(`${name} must be ${takes}, found ${shown(found)}`);
      }
      return found as number;
    },
  };
}

/** A finite number between `least` and `most`; without `least`, above 0. */
export function number(
  { least, most = Infinity, ...about }: About<number> & { readonly least?: number; readonly most?: number },
): Field<number> {
  const range = most === Infinity ? `a finite number of at least ${least ?? 0}` : `between ${least ?? 0} and ${most}`;
  const many = most === Infinity ? `a number of at least ${least}` : `a number from ${least ?? 0} to ${most}`;
  return {
    ...about,
    takes: least === undefined ? "a positive number" : many,
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (typeof found !== "number") throw new TypeError(`${name} must be a number, found ${shown(found)}`);
      if (least === undefined && found <= 0) throw new RangeError(`${name} must be positive, found ${found}`);
      // Written so that NaN fails too.
      if (!(found >= (least ?? 0) && found <= most && Number.isFinite(found))) {
        throw new RangeError(`${name} must be ${range}, found ${found}`);
      }
      return found;
    },
  };
}

/** `true` or `false`. */
export function boolean(about: About<boolean>): Field<boolean> {
  return {
    ...about,
    takes: "true or false",
    complete(name, given) {
      const found = given ?? about.otherwise;
      if (typeof found !== "boolean") throw new TypeError(`${name} must be true or false, found ${shown(found)}`);
      return found;
    },
  };
}

/** A field that may be left out: it is `null` then. */
export function optional<T>(field: Field<T>): Field<T | null> {
  return {
    ...field,
    otherwise: null,
    complete: (name, found) => (found ?? null) === null ? null : field.complete(name, found),
  };
}

/**
 * A frozen configuration from a user's options; `what`, such as "activation", names it in messages.
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
  return Object.freeze({ key, ...completeEach(fields as EachField<Omit<C, "key">>, found) }) as C;
}

/**
 * All fields from a user's options, complete and frozen. `prefix` precedes names in messages.
 *
 * @throws {RangeError | TypeError} as the fields.
 */
export function completeEach<C>(fields: EachField<C>, found: object, prefix = ""): C {
  const values: ReadonlyMap<string, unknown> = new Map(Object.entries(found));
  const entries = Object.entries<Field<unknown>>(fields).map(([name, field]) => [
    name,
    field.complete(`${prefix}${name}`, values.get(name)),
  ]);
  return Object.freeze(Object.fromEntries(entries)) as C;
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
