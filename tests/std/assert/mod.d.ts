/** The functions of `@std/assert` that this repository uses, typed as there. @module */

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** What a failed assertion throws. */
export class AssertionError extends Error {}

/** `expr` is truthy. */
export function assert(expr: unknown, msg?: string): asserts expr;
/** `expr` is falsy. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is false | 0 | "" | null | undefined;
/** Deep equality. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
/** Deep inequality. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void;
/** `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T;
/** Not `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void;
/** Neither `null` nor `undefined`. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T>;
/** `|actual − expected| ≤ tolerance`. */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void;
/** `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void;
/** `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void;
/** `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void;
/** `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void;
/** `actual instanceof expectedType`. */
export function assertInstanceOf<
  // deno-lint-ignore no-explicit-any
  T extends abstract new (...args: any[]) => any,
>(actual: unknown, expectedType: T, msg?: string): asserts actual is InstanceType<T>;
/** `error` is an `Error` of that class, its message containing that text or matching that pattern. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E;
/** `actual` matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void;
/** `actual` does not match. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void;
/** `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void;
/** `actual` contains every element of `expected`. */
export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void;
/** `actual` has at least the properties of `expected`. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void;
/** `fn` throws. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** `fn` throws that class, its message containing that text. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
/** The promise of `fn` rejects. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** The promise of `fn` rejects with that class, its message containing that text. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
/** Deep equality as a value. */
export function equal(a: unknown, b: unknown): boolean;
/** Always fails. */
export function fail(msg?: string): never;
/** Fails when reached. */
export function unreachable(msg?: string): never;
