/** Seeded damage to checkpoints of every schema; `tests/io/fuzz.ts` does more of it. */

import { assert } from "@std/assert";
import { type Depth, fuzz } from "./fuzz.ts";

for (const depth of ["file", "header", "pickle"] satisfies Depth[]) {
  Deno.test(`damage to the ${depth} is refused, or changes no more than it may`, async () => {
    const { refused, unharmed } = await fuzz(depth, 0, 500);
    // Both happen: padding, dates and the seeds of old headers carry nothing.
    assert(refused > 250 && unharmed > 0, `${refused} refused, ${unharmed} unharmed`);
  });
}
