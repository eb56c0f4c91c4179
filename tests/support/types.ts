/**
 * Types that compare types.
 *
 * @module
 */

import type { IsExact } from "@std/testing/types";

/** `true` if T has at least the properties of Part, each with the same type, optionality and writability. */
export type Keeps<T, Part> = IsExact<Pick<T, keyof T & keyof Part>, Part>;
