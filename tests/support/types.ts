/** Types that compare types. @module */

import type { IsExact } from "@std/testing/types";

/** `true` where T has at least the properties of Part, each of the same type, optional and writable as there. */
export type Keeps<T, Part> = IsExact<Pick<T, keyof T & keyof Part>, Part>;
