/** Stands in for `jsr:@std/testing/types` inside this repository. @module */

/** Compiles only when the type argument is `true`. */
export function assertType<T extends true>(_expectTrue: T): void {}

/** `true` when both types are the same, modifiers included. */
export type IsExact<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
